//! Threads: named, joined by their owner, and nowhere else in the crate.

use std::io;
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
#[expect(clippy::disallowed_methods, reason = "the one place where threads start")]
pub fn map_ordered<I: Send, T: Send>(threads: usize, items: Vec<I>, work: impl Fn(I) -> T + Sync) -> Vec<T> {
    if threads <= 1 || items.len() <= 1 {
        return items.into_iter().map(work).collect();
    }
    let lanes = threads.min(items.len());
    let mut queues: Vec<Vec<(usize, I)>> = (0..lanes).map(|_| Vec::new()).collect();
    for (index, item) in items.into_iter().enumerate() {
        queues[index % lanes].push((index, item));
    }
    let work = &work;
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let lanes: Vec<_> = queues
            .into_iter()
            .map(|queue| scope.spawn(move || queue.into_iter().map(|(i, item)| (i, work(item))).collect::<Vec<_>>()))
            .collect();
        lanes
            .into_iter()
            .flat_map(|lane| lane.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

/// How many threads the machine runs at once.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
