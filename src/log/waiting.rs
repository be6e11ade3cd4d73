//! Waiting without blocking a thread: futures that any async runtime can run, woken by the log's own threads.

use crate::error::Result;
use crate::log::pending::PendingAck;
use crate::log::shared::Shared;
use crate::log::{AppendBatch, Log};
use crate::types::Position;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Remembers a task once.
fn remember(wakers: &mut Vec<Waker>, context: &Context<'_>) {
    if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
        wakers.push(context.waker().clone());
    }
}

impl Log {
    /// As [`append`](Log::append), for async code: while the queue is full the task waits, not the thread. What it gives is a
    /// future too: the acknowledgement.
    ///
    /// ```
    /// use kappa::env::Env;
    /// use kappa::log::records::{Partitioning, Record, RecordColumns};
    /// use kappa::log::{AppendBatch, Log, LogOptions, TopicConfig};
    ///
    /// # fn main() -> kappa::Result<()> {
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    /// # runtime.block_on(async {
    /// let (env, _sim) = Env::sim(1);
    /// let log = Log::open(&env, "/data".as_ref(), LogOptions::default())?;
    /// let topic = log.create_topic("flights", TopicConfig::default())?.id();
    /// let mut columns = RecordColumns::default();
    /// let record = Record { timestamp_ms: None, key: None, value: Some(b"{}"), headers: &[] };
    /// columns.push(Partitioning::ByKey, &record);
    /// let ack = log.append_async(AppendBatch::records(topic, columns)).await?.await?;
    /// assert_eq!(log.wait_beyond_async(ack.topics[0].first_position).await?, ack.end);
    /// # Ok(())
    /// # })
    /// # }
    /// ```
    pub async fn append_async(&self, batch: AppendBatch) -> Result<PendingAck> {
        let shared: &Shared = &self.inner.shared;
        let mut request = Some(shared.request(batch, false)?);
        poll_fn(|context| {
            let mut queue = shared.queue();
            if let Err(error) = shared.check_open(&queue) {
                return Poll::Ready(Err(error));
            }
            match request.take() {
                Some(ready) if shared.has_room(&queue, ready.bytes) => Poll::Ready(Ok(shared.enqueue(queue, ready))),
                waiting => {
                    request = waiting;
                    remember(&mut queue.wakers, context);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Waits until the queue has room for so many bytes, though somebody else may take it.
    pub(crate) async fn room_async(&self, bytes: usize) -> Result<()> {
        let shared: &Shared = &self.inner.shared;
        poll_fn(|context| {
            let mut queue = shared.queue();
            if let Err(error) = shared.check_open(&queue) {
                return Poll::Ready(Err(error));
            }
            if shared.has_room(&queue, bytes) {
                return Poll::Ready(Ok(()));
            }
            remember(&mut queue.wakers, context);
            Poll::Pending
        })
        .await
    }

    /// As [`wait_beyond`](Log::wait_beyond), for async code: waits until the durable end is beyond `end`, and gives it.
    ///
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) if the log has failed, [`ErrorKind::Closed`](crate::ErrorKind::Closed)
    /// if it was closed: the end will not move.
    pub async fn wait_beyond_async(&self, end: Position) -> Result<Position> {
        let shared: &Shared = &self.inner.shared;
        poll_fn(|context| {
            {
                let mut state = shared.state();
                if state.durable_end > end {
                    return Poll::Ready(Ok(state.durable_end));
                }
                remember(&mut state.wakers, context);
            }
            // Looked at after the task is known: a failure from now on wakes it.
            match shared.check_open(&shared.queue()) {
                Ok(()) => Poll::Pending,
                Err(error) => Poll::Ready(Err(error)),
            }
        })
        .await
    }
}
