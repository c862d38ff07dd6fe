//! Waiting for an operation: by a thread that parks, or by a task.
//!
//! Both stand in the same line and look at the state by the same code; they
//! differ only in how they are woken. Whoever leaves, for whatever reason,
//! takes the promise along that a wake-up gave it, and settling the state
//! makes it to the next.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::blocking::refuse_on_event_loop;
use crate::operation::Operation;
use crate::shared::Shared;
use crate::sync::{self, thread};
use crate::waiters::{Place, Wake};

/// How often a waiter gives its turn away and looks again before it goes into
/// line, if waits were short of late.
// To be woken takes 20 us where cores are idle, a yield a third of a microsecond: with eight an item
// through a queue for one took 0.8 us, with two 22, and batches of 64 took 8 ns an item in place of
// 22, both with less CPU time; more gained nothing. After a long wait it is none: an idle waiter
// should not burn time.
#[cfg(not(loom))]
const YIELDS: u32 = 8;
// In the model a yield is one more step to explore and proves nothing.
#[cfg(loom)]
const YIELDS: u32 = 0;

/// From this capacity on a task too gives its thread's turn away first.
// In a narrow queue each item is a wait of its own, and the other side may be a task of the same
// thread: between tasks with a bound of 1 an item then took 2.9 us in place of 0.5. In a wide one
// (1,024, a task and a thread) it took 0.15 us without, in place of 0.02.
const WIDE: usize = 64;

impl<T> Shared<T> {
    /// Blocks this thread until `operation` is done; `None` if `limit` passed
    /// before. A limit of zero only tries.
    ///
    /// # Panics
    ///
    /// If it may wait and this thread runs an event loop.
    #[inline]
    #[track_caller]
    pub(crate) fn wait<O: Operation<T>>(
        &self,
        operation: &mut O,
        limit: Option<Duration>,
    ) -> Option<O::Output> {
        if limit != Some(Duration::ZERO) {
            refuse_on_event_loop();
        }
        let output = self.attempt(operation);
        if output.is_some() || limit == Some(Duration::ZERO) {
            return output;
        }
        Waiting::new(self, operation).block(limit)
    }
}

/// An operation being waited for. Dropping it leaves the line and passes a
/// wake-up that it was given on to the next.
pub(crate) struct Waiting<'a, T, O: Operation<T>> {
    shared: &'a Shared<T>,
    pub(crate) operation: O,
    /// Since when it waits; `None` before it has to.
    since: Option<Instant>,
    place: Option<Place>,
    stood_in_line: bool,
    is_done: bool,
}

impl<'a, T, O: Operation<T>> Waiting<'a, T, O> {
    pub(crate) fn new(shared: &'a Shared<T>, operation: O) -> Self {
        Waiting {
            shared,
            operation,
            since: None,
            place: None,
            stood_in_line: false,
            is_done: false,
        }
    }

    #[inline]
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<O::Output> {
        assert!(!self.is_done, "a finished operation of a queue was polled again");
        if self.since.is_none()
            && let Some(output) = self.shared.attempt(&mut self.operation)
        {
            self.is_done = true;
            return Poll::Ready(output);
        }
        self.poll_waiting(context)
    }

    #[cold]
    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<O::Output> {
        let soon = match self.since {
            None if self.shared.locked(|state| state.capacity) >= WIDE => self.start(),
            _ => None,
        };
        self.since.get_or_insert_with(Instant::now);
        match soon.or_else(|| self.look(Wake::Task(context.waker().clone()))) {
            Some(output) => {
                self.end();
                Poll::Ready(output)
            }
            None => Poll::Pending,
        }
    }

    #[cold]
    fn block(mut self, limit: Option<Duration>) -> Option<O::Output> {
        let mut output = self.start();
        // A limit past the end of time is none.
        let deadline = limit.and_then(|limit| self.since?.checked_add(limit));
        let mut left = limit;
        while output.is_none() {
            output = self.look(Wake::Thread(thread::current()));
            if output.is_some() || left == Some(Duration::ZERO) {
                break;
            }
            left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            if left != Some(Duration::ZERO) {
                sync::park(left);
            }
        }
        self.end();
        output
    }

    /// Begins to wait: reads the clock, and if waits were short of late, gives
    /// others a turn in the hope to be spared the line.
    fn start(&mut self) -> Option<O::Output> {
        self.since = Some(Instant::now());
        let yields = if self.shared.waits(O::SIDE).are_short() { YIELDS } else { 0 };
        (0..yields).find_map(|_| {
            thread::yield_now();
            self.shared.attempt(&mut self.operation)
        })
    }

    /// Looks at the state once; unless the operation is then done, it stands
    /// in line and will be woken by `wake`.
    fn look(&mut self, wake: Wake) -> Option<O::Output> {
        // Cloned before the lock is taken and dropped after it, used or not,
        // as is the one that stood in line: a waker's code is foreign and may
        // use this queue.
        let mut wake = Some(wake);
        self.stood_in_line = true;
        let mut state = self.shared.lock();
        let woken = self.place.as_ref().is_some_and(|place| state.line(O::SIDE).is_woken(place));
        let output = self.operation.step(&mut state, woken);
        let unused = state.change_line(O::SIDE, |line| {
            if output.is_some() {
                return line.leave(self.place.take()?);
            }
            let (wake, wanted) = (wake.take()?, self.operation.wanted());
            match &self.place {
                Some(place) => line.stay(place, wake, wanted),
                None => {
                    self.place = Some(line.enter(wake, wanted, self.since));
                    None
                }
            }
        });
        self.shared.settle(state);
        drop((wake, unused));
        output
    }

    /// Ends the wait if there is one, leaving the line. Harmless to repeat.
    pub(crate) fn end(&mut self) {
        self.is_done = true;
        if let Some(place) = self.place.take() {
            let mut state = self.shared.lock();
            let unused = state.change_line(O::SIDE, |line| line.leave(place));
            self.shared.settle(state);
            drop(unused);
        }
        if let Some(since) = self.since.take() {
            self.shared.waits(O::SIDE).add(since.elapsed(), self.stood_in_line);
        }
    }
}

impl<T, O: Operation<T>> Drop for Waiting<'_, T, O> {
    #[inline]
    fn drop(&mut self) {
        if self.since.is_some() {
            self.end();
        }
    }
}
