//! What waits for the encoder: requests in groups, each answered as one. What is done in the background goes behind what somebody
//! waits for, a little of it in each sync.

use crate::log::append::Request;
use crate::log::pending::{PendingAck, Waiters};
use std::collections::VecDeque;
use std::time::Duration;

/// Requests that wait and will be synced together.
pub(crate) struct OpenGroup {
    pub waiters: Waiters,
    pub requests: Vec<Request>,
    pub bytes: usize,
    /// To be durable before it is answered, whatever the mode.
    pub sync: bool,
}

/// A group takes requests up to about this many bytes.
pub(crate) const GROUP_BYTES: usize = 8 << 20;

/// About as many bytes of background work are synced together.
pub(crate) const BACKGROUND_BYTES: usize = 256 << 10;

/// About as many bytes of background work share a sync with others, who wait for them too.
const SHARED_BYTES: usize = 64 << 10;

/// After so many syncs in a row in which nobody else appended, background work fills them.
const ALONE_SYNCS: u32 = 64;

/// Where others append, background work waits so long for one of them to share a sync with: a sync of its own would be in the way of
/// whoever comes while it lasts.
pub(crate) const PATIENCE: Duration = Duration::from_millis(5);

/// What waits for the encoder.
#[derive(Default)]
pub(crate) struct Waiting {
    groups: VecDeque<OpenGroup>,
    background: VecDeque<OpenGroup>,
    /// Syncs in a row with nothing but background work.
    alone: u32,
    /// Somebody has appended since background work last waited in vain.
    company: bool,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.background.is_empty()
    }

    /// Whether it is better to wait a little ([`PATIENCE`]), since what waits is background work and somebody may come with whom it can
    /// share a sync.
    pub fn may_wait(&self) -> bool {
        self.company && self.groups.is_empty() && !self.background.is_empty()
    }

    /// It was waited: if nobody came, there is no company.
    pub fn has_waited(&mut self) {
        self.company = !self.groups.is_empty();
    }

    /// Puts a request into the newest group of its kind, or a new one.
    pub fn add(&mut self, request: Request) -> PendingAck {
        let (groups, most) = match request.background {
            true => (&mut self.background, SHARED_BYTES),
            false => (&mut self.groups, GROUP_BYTES),
        };
        if groups.back().is_none_or(|open| open.bytes + request.bytes > most) {
            groups.push_back(OpenGroup { waiters: Waiters::new(), requests: Vec::new(), bytes: 0, sync: false });
        }
        let open = groups.back_mut().expect("a group was just made sure of");
        open.bytes += request.bytes;
        // Nothing at all is a wish to have what is before it durable.
        open.sync |= !request.meta.is_empty() || !request.has_records();
        let ack = open.waiters.add(open.requests.len());
        open.requests.push(request);
        ack
    }

    /// What is synced together next: the oldest group, and some background work.
    pub fn take(&mut self) -> Vec<OpenGroup> {
        let mut taken: Vec<OpenGroup> = self.groups.pop_front().into_iter().collect();
        self.alone = if taken.is_empty() { self.alone.saturating_add(1) } else { 0 };
        self.company |= !taken.is_empty();
        let room = match self.alone {
            0 => SHARED_BYTES,
            1..=ALONE_SYNCS => BACKGROUND_BYTES,
            _ => GROUP_BYTES,
        };
        let mut bytes = 0;
        while let Some(next) = self.background.pop_front_if(|next| bytes == 0 || bytes + next.bytes <= room) {
            bytes += next.bytes;
            taken.push(next);
        }
        taken
    }

    /// Everything, to be refused.
    pub fn take_all(&mut self) -> impl Iterator<Item = OpenGroup> + use<> {
        let Waiting { groups, background, .. } = std::mem::take(self);
        groups.into_iter().chain(background)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::AppendBatch;
    use crate::log::topic::Topics;

    fn request(bytes: usize, background: bool) -> Request {
        let batch = AppendBatch { background, ..AppendBatch::default() };
        let mut request = Request::new(batch, usize::MAX, true, |id| Topics::default().by_id(id)).unwrap();
        request.bytes = bytes;
        request
    }

    fn sizes(taken: &[OpenGroup]) -> Vec<usize> {
        taken.iter().map(|group| group.bytes).collect()
    }

    #[test]
    fn background_work_goes_behind_others_and_a_little_in_each_sync() {
        let mut waiting = Waiting::default();
        let half = SHARED_BYTES / 2;
        for _ in 0..13 {
            drop(waiting.add(request(half, true)));
        }
        drop(waiting.add(request(1_000, false)));
        drop(waiting.add(request(GROUP_BYTES, false)));
        assert_eq!(sizes(&waiting.take()), [1_000, 2 * half]);
        assert_eq!(sizes(&waiting.take()), [GROUP_BYTES, 2 * half]);
        assert_eq!(sizes(&waiting.take()), [2 * half; BACKGROUND_BYTES / SHARED_BYTES]);
        assert_eq!(sizes(&waiting.take()), [half]);
        assert!(waiting.is_empty());
    }

    #[test]
    fn background_work_waits_for_company_until_nobody_comes() {
        let mut waiting = Waiting::default();
        drop(waiting.add(request(1, true)));
        assert!(!waiting.may_wait(), "nobody has appended yet");
        drop(waiting.add(request(1, false)));
        assert_eq!(waiting.take().len(), 2);
        assert!(!waiting.may_wait(), "nothing waits");
        drop(waiting.add(request(1, true)));
        assert!(waiting.may_wait());
        drop(waiting.add(request(1, false)));
        assert!(!waiting.may_wait(), "who came does not wait");
        waiting.has_waited();
        assert_eq!(waiting.take().len(), 2);
        drop(waiting.add(request(1, true)));
        assert!(waiting.may_wait());
        waiting.has_waited();
        assert!(!waiting.may_wait());
        assert_eq!(waiting.take().len(), 1);
    }

    #[test]
    fn a_large_batch_in_the_background_is_not_stuck() {
        let mut waiting = Waiting::default();
        drop(waiting.add(request(3 * BACKGROUND_BYTES, true)));
        drop(waiting.add(request(1, true)));
        assert_eq!(sizes(&waiting.take()), [3 * BACKGROUND_BYTES]);
        assert_eq!(sizes(&waiting.take()), [1]);
    }

    #[test]
    fn who_is_alone_for_long_fills_the_syncs_until_somebody_comes() {
        let mut waiting = Waiting::default();
        let piece = BACKGROUND_BYTES;
        for sync in 0..=ALONE_SYNCS {
            drop(waiting.add(request(piece, true)));
            drop(waiting.add(request(piece, true)));
            let expected = if sync < ALONE_SYNCS { 1 } else { GROUP_BYTES / piece };
            assert_eq!(waiting.take().len(), expected, "{sync}");
        }
        drop(waiting.add(request(1, false)));
        assert_eq!(sizes(&waiting.take()), [1, piece]);
        assert_eq!(sizes(&waiting.take()), [piece]);
    }
}
