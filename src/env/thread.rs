//! Threads: named, joined by their owner, and nowhere else in the crate.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// How urgent what a thread does is. Threads that it starts do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Somebody waits for it: appends, and the threads that make them durable.
    Foreground,
    /// It has to keep up, but nobody waits for it: sealing, checking, and jobs that follow the log. On Linux the system lets the others go
    /// first when there are too few cores for all.
    Background,
    /// It takes as long as it takes: replays, which go through the past at full speed. It gets what all others leave.
    Bulk,
}

impl Class {
    /// By how much the others go first, in the system's steps: each is about a quarter of the share of a core.
    #[cfg(target_os = "linux")]
    fn nice(self) -> Option<i32> {
        match self {
            Class::Foreground => None,
            Class::Background => Some(5),
            Class::Bulk => Some(19),
        }
    }
}

/// How long such a thread would go on before another gets its turn, in ns: the longest that the system takes. Whoever wakes up and wants
/// less goes first at once (Linux 6.12 and later) and need not wait for the next tick of the system's clock, which is 4 ms away.
#[cfg(target_os = "linux")]
const LONG_SLICE_NS: u64 = 100_000_000;

/// Puts the calling thread into a class. There is no way back to a more urgent one: the system does not allow it.
pub fn enter(class: Class) {
    #[cfg(target_os = "linux")]
    if let Some(nice) = class.nice() {
        // There, this concerns the calling thread alone. A system that refuses has threads of one class.
        let _ = rustix::process::nice(nice).map(yield_to_who_wakes);
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
    let runtime_ns = LONG_SLICE_NS;
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
    let (mut group, mut results) = (Some((items, ())), Vec::new());
    pipeline(
        threads,
        1,
        || group.take(),
        work,
        |made| {
            if let Made::Result(result) = made {
                results.push(result);
            }
            ControlFlow::<()>::Continue(())
        },
    );
    results
}

/// What comes out of a [`pipeline`], in order.
pub enum Made<T, G> {
    /// What became of an item.
    Result(T),
    /// All items of a group have come out.
    End(G),
}

/// Makes groups of items until there are no more, runs `work` on each item, and gives the results to `take`, in order, until it breaks: on
/// at most `threads` threads, of which each does what is there to be done. One at a time makes groups, of which at most `ahead` wait or
/// are being taken. `take` runs on the caller's thread, which helps the others while the next result is not there.
///
/// Gives what `take` broke with, and the groups that were made and whose end it has not seen.
#[expect(clippy::disallowed_methods, reason = "the one place where threads start")]
pub fn pipeline<I: Send, G: Send, T: Send, B>(
    threads: usize,
    ahead: usize,
    mut make: impl FnMut() -> Option<(Vec<I>, G)> + Send,
    work: impl Fn(I) -> T + Sync,
    mut take: impl FnMut(Made<T, G>) -> ControlFlow<B>,
) -> (Option<B>, Vec<G>) {
    if threads <= 1 {
        while let Some((items, group)) = make() {
            for item in items {
                if let ControlFlow::Break(with) = take(Made::Result(work(item))) {
                    return (Some(with), vec![group]);
                }
            }
            if let ControlFlow::Break(with) = take(Made::End(group)) {
                return (Some(with), Vec::new());
            }
        }
        return (None, Vec::new());
    }
    let line = Line { state: Mutex::new(State::new(make, ahead)), changed: Condvar::new() };
    let broke = std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| line.help(&work));
        }
        let _leaving = Leaving(&line);
        while let Some(made) = line.next(&work) {
            if let ControlFlow::Break(with) = take(made) {
                return Some(with);
            }
        }
        None
    });
    let state = line.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    (broke, state.groups.into_iter().map(|(_, group)| group).collect())
}

/// Items and results are numbered through all groups.
struct State<M, I, G, T> {
    /// Makes groups; not here while somebody does, or when there are no more.
    make: Option<M>,
    is_making: bool,
    ahead: usize,
    /// Items that nobody works on yet.
    items: VecDeque<(u64, I)>,
    /// Number of items made.
    made: u64,
    /// Results that were not taken yet.
    results: BTreeMap<u64, T>,
    /// Number of results taken.
    taken: u64,
    /// Groups whose end was not taken yet, each with the number behind its last item.
    groups: VecDeque<(u64, G)>,
    /// Somebody has left before the end.
    is_broken: bool,
}

/// Something to be done for the caller.
enum Task<M, I> {
    Make(M),
    Work(u64, I),
}

impl<M, I, G, T> State<M, I, G, T> {
    fn new(make: M, ahead: usize) -> Self {
        State {
            make: Some(make),
            is_making: false,
            ahead,
            items: VecDeque::new(),
            made: 0,
            results: BTreeMap::new(),
            taken: 0,
            groups: VecDeque::new(),
            is_broken: false,
        }
    }

    /// What comes out next, if it is there.
    fn next(&mut self) -> Option<Made<T, G>> {
        if self.groups.front().is_some_and(|(end, _)| *end == self.taken) {
            return self.groups.pop_front().map(|(_, group)| Made::End(group));
        }
        let result = self.results.remove(&self.taken)?;
        self.taken += 1;
        Some(Made::Result(result))
    }

    fn task(&mut self) -> Option<Task<M, I>> {
        if let Some((number, item)) = self.items.pop_front() {
            return Some(Task::Work(number, item));
        }
        let make = if self.groups.len() < self.ahead { self.make.take() } else { None }?;
        self.is_making = true;
        Some(Task::Make(make))
    }

    /// No task will come any more.
    fn is_over(&self) -> bool {
        self.is_broken || (self.make.is_none() && !self.is_making && self.items.is_empty())
    }

    fn put_group(&mut self, make: M, group: Option<(Vec<I>, G)>) {
        self.is_making = false;
        let Some((items, group)) = group else { return };
        for item in items {
            self.items.push_back((self.made, item));
            self.made += 1;
        }
        self.groups.push_back((self.made, group));
        self.make = Some(make);
    }
}

struct Line<M, I, G, T> {
    state: Mutex<State<M, I, G, T>>,
    changed: Condvar,
}

impl<M: FnMut() -> Option<(Vec<I>, G)>, I, G, T> Line<M, I, G, T> {
    fn state(&self) -> MutexGuard<'_, State<M, I, G, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one thing that there is to be done, or waits.
    fn go_on<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<M, I, G, T>>,
        work: &impl Fn(I) -> T,
    ) -> MutexGuard<'a, State<M, I, G, T>> {
        let Some(task) = state.task() else {
            return self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        drop(state);
        let state = match task {
            Task::Make(mut make) => {
                let group = make();
                let mut state = self.state();
                state.put_group(make, group);
                state
            }
            Task::Work(number, item) => {
                let result = work(item);
                let mut state = self.state();
                state.results.insert(number, result);
                state
            }
        };
        self.changed.notify_all();
        state
    }

    /// Does what there is to be done, to the end.
    fn help(&self, work: &impl Fn(I) -> T) {
        let _leaving = Leaving(self);
        let mut state = self.state();
        while !state.is_over() {
            state = self.go_on(state, work);
        }
    }

    /// What comes out next, worked for meanwhile; `None`: there is no more.
    fn next(&self, work: &impl Fn(I) -> T) -> Option<Made<T, G>> {
        let mut state = self.state();
        loop {
            if let Some(made) = state.next() {
                if matches!(made, Made::End(_)) {
                    self.changed.notify_all();
                }
                return Some(made);
            }
            if state.is_broken || (state.is_over() && state.groups.is_empty()) {
                return None;
            }
            state = self.go_on(state, work);
        }
    }
}

/// Nobody waits for a thread that has panicked, or works for a caller that has left.
struct Leaving<'a, M: FnMut() -> Option<(Vec<I>, G)>, I, G, T>(&'a Line<M, I, G, T>);

impl<M: FnMut() -> Option<(Vec<I>, G)>, I, G, T> Drop for Leaving<'_, M, I, G, T> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_broken |= std::thread::panicking() || !state.is_over();
        drop(state);
        self.0.changed.notify_all();
    }
}

/// How many threads the machine runs at once.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs 20 groups of 25 items, of which the one with number `stop` breaks it, or the end of its group; gives the results, the ends,
    /// what broke it and what was left.
    fn run(threads: usize, stop: u64, at_end: bool) -> (Vec<u64>, Vec<u64>, Option<u64>, Vec<u64>) {
        let (mut made, mut results, mut ends) = (0..20u64, Vec::new(), Vec::new());
        let uneven = |n: u64| (0..n % 7 * 1000).fold(n, |n, _| std::hint::black_box(n));
        let make = || made.next().map(|group| ((group * 25..group * 25 + 25).collect(), group));
        let (broke, left) = pipeline(threads, 2, make, uneven, |made| {
            let is_stop = match made {
                Made::Result(n) => {
                    results.push(n);
                    !at_end && n == stop
                }
                Made::End(group) => {
                    ends.push(group);
                    at_end && group == stop / 25
                }
            };
            if is_stop { ControlFlow::Break(stop) } else { ControlFlow::Continue(()) }
        });
        (results, ends, broke, left.into_iter().chain(made).collect())
    }

    #[test]
    fn results_come_in_order_and_groups_are_taken_or_given_back() {
        for threads in [1, 2, 5] {
            for (stop, at_end) in [(1000, false), (0, false), (130, false), (0, true), (499, true)] {
                let (results, ends, broke, left) = run(threads, stop, at_end);
                let results_end = (if at_end { stop / 25 * 25 + 25 } else { stop + 1 }).min(500);
                assert!(results.into_iter().eq(0..results_end), "{threads} threads, stopped at {stop}");
                assert_eq!(broke, (stop < 500).then_some(stop));
                assert!(ends.iter().copied().eq(0..ends.len() as u64));
                assert!(ends.into_iter().chain(left).eq(0..20), "{threads} threads, stopped at {stop}");
            }
        }
    }

    #[test]
    fn a_panic_of_a_worker_does_not_leave_the_caller_waiting() {
        let work = |n: u32| assert!(n != 50, "this item");
        let run = || map_ordered(3, (0..100).collect(), work);
        assert!(std::panic::catch_unwind(run).is_err());
    }
}
