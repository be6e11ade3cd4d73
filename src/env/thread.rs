//! Threads: named, joined by their owner, and nowhere else in the crate.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How urgent what a thread does is. Threads that it starts do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Somebody waits for it: appends, and the threads that make them durable.
    Foreground,
    /// It takes as long as it takes: sealing, checking, and jobs that go through the past at full speed. On Linux the system lets
    /// the others go first when there are too few cores for all.
    Background,
}

/// By how much the others go first, in the system's steps: each is about a quarter of the share of a core.
#[cfg(target_os = "linux")]
const BACKGROUND_NICE: i32 = 5;

/// How long such a thread would go on before another gets its turn, in ns: the longest that the system takes. Whoever wakes up and wants
/// less goes first at once (Linux 6.12 and later) and need not wait for the next tick of the system's clock, which is 4 ms away.
#[cfg(target_os = "linux")]
const BACKGROUND_SLICE_NS: u64 = 100_000_000;

/// Puts the calling thread into a class. There is no way back from [`Class::Background`]: the system does not allow it.
pub fn enter(class: Class) {
    #[cfg(target_os = "linux")]
    if class == Class::Background {
        // There, this concerns the calling thread alone. A system that refuses has threads of one class.
        let _ = rustix::process::nice(BACKGROUND_NICE).map(yield_to_who_wakes);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = class;
}

/// Gives the calling thread long turns; `nice` is what it has.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "a system call that no crate wraps")]
fn yield_to_who_wakes(nice: i32) {
    /// `struct sched_attr` of Linux in its first version, for ordinary threads.
    #[repr(C)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime_ns: u64,
        deadline_ns: u64,
        period_ns: u64,
    }
    let size = size_of::<SchedAttr>() as u32;
    let runtime_ns = BACKGROUND_SLICE_NS;
    let attr = SchedAttr { size, policy: 0, flags: 0, nice, priority: 0, runtime_ns, deadline_ns: 0, period_ns: 0 };
    // SAFETY: the system reads the first `size` bytes of the structure, all of them set, and changes this thread's turns alone.
    // Where it refuses, or knows nothing of turns, threads take those that they are given.
    let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
}

/// Starts a named thread that the caller joins.
#[expect(clippy::disallowed_methods, reason = "the one place where threads start")]
pub fn spawn<T: Send + 'static>(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// Runs `work` on a thread with a stack of its own of `stack` bytes and waits for it: for work that recurses. A panic of
/// `work` goes on in the caller.
#[expect(clippy::disallowed_methods, reason = "the one place where threads start")]
pub fn with_stack<T: Send>(name: &str, stack: usize, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let lane = std::thread::Builder::new().name(name.to_owned()).stack_size(stack).spawn_scoped(scope, work)?;
        Ok(lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Runs `work` on each item, on at most `threads` threads, and gives the results in the order of the items.
#[cfg(test)]
pub fn map_ordered<I: Send, T: Send>(threads: usize, items: Vec<I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
    let mut results = Vec::with_capacity(items.len());
    let Ok(()) = map_and_take(threads, items, work, |result| {
        results.push(result);
        Ok::<(), std::convert::Infallible>(())
    });
    results
}

/// Runs `work` on each item, on at most `threads` threads, and meanwhile gives the results to `take`, in the order of the items. `take` runs
/// on the caller's thread, which works on items itself while the next result is not there. The first error ends it.
#[expect(clippy::disallowed_methods, reason = "the one place where threads start")]
pub fn map_and_take<I: Send, T: Send, E>(
    threads: usize,
    items: Vec<I>,
    work: impl Fn(I) -> T + Sync,
    mut take: impl FnMut(T) -> Result<(), E>,
) -> Result<(), E> {
    if threads <= 1 || items.len() <= 1 {
        return items.into_iter().try_for_each(|item| take(work(item)));
    }
    let (count, helpers) = (items.len(), threads.min(items.len()) - 1);
    let shared = Shared { state: Mutex::new(State::of(items)), changed: Condvar::new() };
    let (shared, work) = (&shared, &work);
    std::thread::scope(|scope| {
        for _ in 0..helpers {
            scope.spawn(|| {
                let _ending = Ending(shared);
                while let Some((index, item)) = shared.next_item() {
                    shared.put(index, work(item));
                }
            });
        }
        let _ending = Ending(shared);
        (0..count).try_for_each(|index| shared.result(index, work).map_or(Ok(()), &mut take))
    })
}

/// Items that nobody works on yet, and results that were not taken yet.
struct State<I, T> {
    items: std::iter::Enumerate<std::vec::IntoIter<I>>,
    results: BTreeMap<usize, T>,
    /// Somebody has left before the end.
    is_broken: bool,
}

impl<I, T> State<I, T> {
    fn of(items: Vec<I>) -> State<I, T> {
        State { items: items.into_iter().enumerate(), results: BTreeMap::new(), is_broken: false }
    }
}

struct Shared<I, T> {
    state: Mutex<State<I, T>>,
    changed: Condvar,
}

impl<I, T> Shared<I, T> {
    fn state(&self) -> MutexGuard<'_, State<I, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_item(&self) -> Option<(usize, I)> {
        let mut state = self.state();
        if state.is_broken { None } else { state.items.next() }
    }

    fn put(&self, index: usize, result: T) {
        self.state().results.insert(index, result);
        self.changed.notify_one();
    }

    /// A result, worked for meanwhile; `None`: it does not come any more.
    fn result(&self, index: usize, work: impl Fn(I) -> T) -> Option<T> {
        let mut state = self.state();
        loop {
            if let Some(result) = state.results.remove(&index) {
                return Some(result);
            }
            if state.is_broken {
                return None;
            }
            state = match state.items.next() {
                Some((other, item)) => {
                    drop(state);
                    let result = work(item);
                    let mut state = self.state();
                    state.results.insert(other, result);
                    state
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Nobody waits for a thread that has panicked, or works for a caller that has left.
struct Ending<'a, I, T>(&'a Shared<I, T>);

impl<I, T> Drop for Ending<'_, I, T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_broken |= std::thread::panicking() || state.items.len() > 0;
        drop(state);
        self.0.changed.notify_all();
    }
}

/// Makes items on another thread while `take` works on those made before, of which at most `ahead` wait. Ends when there are no more, or
/// when `take` says so; gives back what was made then and not taken.
#[expect(clippy::disallowed_methods, reason = "the one place where threads start")]
pub fn make_ahead<T: Send>(
    ahead: usize,
    mut make: impl FnMut() -> Option<T> + Send,
    mut take: impl FnMut(T) -> ControlFlow<()>,
) -> Vec<T> {
    let (sender, receiver) = std::sync::mpsc::sync_channel(ahead);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed)
                && let Some(item) = make()
                && sender.send(item).is_ok()
            {}
        });
        while let Ok(item) = receiver.recv() {
            if take(item).is_break() {
                is_over.store(true, Ordering::Relaxed);
                return receiver.into_iter().collect();
            }
        }
        Vec::new()
    })
}

/// How many threads the machine runs at once.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_taken_in_order_while_others_are_made() {
        for threads in [1, 2, 5] {
            let (mut taken, uneven) = (Vec::new(), |n: u64| (0..n % 7 * 1000).fold(n, |n, _| std::hint::black_box(n)));
            let done: Result<(), ()> = map_and_take(threads, (0..500).collect(), uneven, |n| {
                taken.push(n);
                Ok(())
            });
            assert!(done.is_ok() && taken.into_iter().eq(0..500));
            let stopped = map_and_take(threads, (0..500).collect(), uneven, |n| if n < 100 { Ok(()) } else { Err(n) });
            assert_eq!(stopped, Err(100));
        }
    }

    #[test]
    fn a_panic_of_a_worker_does_not_leave_the_caller_waiting() {
        let work = |n: u32| assert!(n != 50, "this item");
        let run = || map_and_take(3, (0..100).collect(), work, |()| Ok::<(), ()>(()));
        assert!(std::panic::catch_unwind(run).is_err());
    }

    #[test]
    fn what_was_made_ahead_is_taken_or_given_back() {
        for last in [0, 3, 1000] {
            let (mut made, mut taken) = (0..20, Vec::new());
            let rest = make_ahead(
                2,
                || made.next(),
                |n| {
                    taken.push(n);
                    if n == last { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                },
            );
            assert_eq!(taken, (0..20.min(last + 1)).collect::<Vec<_>>());
            assert!(rest.len() <= 4 && rest.into_iter().chain(made).eq(last + 1..20));
        }
    }
}
