//! The lock with its waiting room: how an operation is tried, waited for by
//! a thread, and awaited by a task.
//!
//! All access goes through [`Shared::locked`], which settles who is to be
//! woken under the lock and wakes them after it is dropped.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::operation::Operation;
use crate::state::{Side, State};
use crate::sync::{self, Mutex, MutexGuard, thread};
use crate::waiters::{Place, Wake, Wakes};

/// How often a thread gives its turn away before it parks.
#[cfg(not(loom))]
const YIELDS: u32 = 4;
// In the model a yield is one more step to explore and proves nothing.
#[cfg(loom)]
const YIELDS: u32 = 0;

/// Time spent waiting, by those who have stopped waiting.
#[derive(Debug, Default)]
pub(crate) struct Waited(AtomicU64);

impl Waited {
    fn add(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// What the handles of one queue share.
pub(crate) struct Shared<T> {
    state: Mutex<State<T>>,
    /// Follows the line of consumers, to be read without the lock.
    waiting_consumers: AtomicUsize,
    pub(crate) waited_on_full: Waited,
    pub(crate) waited_on_empty: Waited,
}

impl<T> Shared<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Shared {
            state: Mutex::new(State::new(capacity)),
            waiting_consumers: AtomicUsize::new(0),
            waited_on_full: Waited::default(),
            waited_on_empty: Waited::default(),
        }
    }

    /// Runs `act` under the lock, then wakes whoever can proceed by it.
    ///
    /// `act` must not drop items or wakers; it returns them instead.
    #[inline]
    pub(crate) fn locked<R>(&self, act: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = sync::lock(&self.state);
        let result = act(&mut state);
        self.unlock(state);
        result
    }

    #[inline]
    fn unlock(&self, state: MutexGuard<'_, State<T>>) {
        if state.has_waiting() {
            self.settle(state);
        }
    }

    /// Drops the lock and wakes whoever can proceed. To be called after each
    /// change of a line, also if that left nobody in it.
    #[cold]
    fn settle(&self, mut state: MutexGuard<'_, State<T>>) {
        let mut wakes = Wakes::default();
        state.settle(&mut wakes);
        self.waiting_consumers.store(state.line(Side::Pop).waiting(), Ordering::Relaxed);
        drop(state);
        wakes.send();
    }

    pub(crate) fn waiting_consumers(&self) -> usize {
        self.waiting_consumers.load(Ordering::Relaxed)
    }

    /// Tries `operation` once; `None` if it would have to wait.
    #[inline]
    pub(crate) fn attempt<O: Operation<T>>(&self, operation: &mut O) -> Option<O::Output> {
        self.locked(|state| operation.step(state, false))
    }

    /// Blocks this thread until `operation` is done; `None` if `limit` passed
    /// before. A limit of zero only tries.
    #[inline]
    pub(crate) fn wait<O: Operation<T>>(
        &self,
        operation: &mut O,
        limit: Option<Duration>,
    ) -> Option<O::Output> {
        let output = self.attempt(operation);
        if output.is_some() || limit == Some(Duration::ZERO) {
            return output;
        }
        let since = Instant::now();
        let output = self.wait_from(operation, since, limit);
        self.count_waited(O::SIDE, since);
        output
    }

    #[cold]
    fn wait_from<O: Operation<T>>(
        &self,
        operation: &mut O,
        since: Instant,
        limit: Option<Duration>,
    ) -> Option<O::Output> {
        if O::SIDE != Side::Join {
            for _ in 0..YIELDS {
                thread::yield_now();
                let output = self.attempt(operation);
                if output.is_some() {
                    return output;
                }
            }
        }
        // A limit past the end of time is none.
        let deadline = limit.and_then(|limit| since.checked_add(limit));
        let mut place = None;
        let mut since = Some(since);
        loop {
            let left = deadline.map(|end| end.saturating_duration_since(Instant::now()));
            let wake = || Wake::Thread(thread::current());
            let give_up = left == Some(Duration::ZERO);
            let mut state = sync::lock(&self.state);
            let (output, unused) =
                step(&mut state, operation, &mut place, &mut since, give_up, wake);
            self.settle(state);
            drop(unused);
            if output.is_some() || give_up {
                return output;
            }
            sync::park(left);
        }
    }

    fn count_waited(&self, side: Side, since: Instant) {
        match side {
            Side::Push => self.waited_on_full.add(since.elapsed()),
            Side::Pop => self.waited_on_empty.add(since.elapsed()),
            Side::Join => {}
        }
    }
}

/// One look of a waiter at the state: it is done, gives up, or goes into line.
///
/// The second result is to be dropped after the lock.
fn step<T, O: Operation<T>>(
    state: &mut State<T>,
    operation: &mut O,
    place: &mut Option<Place>,
    since: &mut Option<Instant>,
    give_up: bool,
    wake: impl FnOnce() -> Wake,
) -> (Option<O::Output>, Option<Wake>) {
    let woken = match place {
        Some(place) => state.line(O::SIDE).is_woken(place),
        None => false,
    };
    let output = operation.step(state, woken);
    let is_over = output.is_some() || give_up;
    let unused = state.change_line(O::SIDE, |line| match place.take() {
        Some(old) if is_over => line.leave(old),
        Some(old) => {
            let unused = line.stay(&old, wake(), operation.wanted());
            *place = Some(old);
            unused
        }
        None if is_over => None,
        None => {
            let since = *since.get_or_insert_with(Instant::now);
            *place = Some(line.enter(wake(), operation.wanted(), since));
            None
        }
    });
    (output, unused)
}

/// An operation being awaited. Dropping it leaves the line and passes a
/// wake-up that it was given on to the next.
pub(crate) struct Waiting<'a, T, O: Operation<T>> {
    shared: &'a Shared<T>,
    pub(crate) operation: O,
    place: Option<Place>,
    since: Option<Instant>,
    done: bool,
}

impl<'a, T, O: Operation<T>> Waiting<'a, T, O> {
    pub(crate) fn new(shared: &'a Shared<T>, operation: O) -> Self {
        Waiting { shared, operation, place: None, since: None, done: false }
    }

    #[inline]
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<O::Output> {
        assert!(!self.done, "a finished operation of a queue was polled again");
        let mut state = sync::lock(&self.shared.state);
        if self.place.is_none()
            && let Some(output) = self.operation.step(&mut state, false)
        {
            self.shared.unlock(state);
            self.done = true;
            return Poll::Ready(output);
        }
        self.poll_in_line(state, context)
    }

    #[cold]
    fn poll_in_line(
        &mut self,
        mut state: MutexGuard<'_, State<T>>,
        context: &mut Context<'_>,
    ) -> Poll<O::Output> {
        let Waiting { operation, place, since, .. } = self;
        let wake = || Wake::Task(context.waker().clone());
        let (output, unused) = step(&mut state, operation, place, since, false, wake);
        self.shared.settle(state);
        drop(unused);
        match output {
            Some(output) => {
                self.done = true;
                self.count_waited();
                Poll::Ready(output)
            }
            None => Poll::Pending,
        }
    }

    /// Leaves the line; the operation can only be dropped after this.
    pub(crate) fn cancel(&mut self) {
        self.done = true;
        if let Some(place) = self.place.take() {
            let mut state = sync::lock(&self.shared.state);
            let unused = state.change_line(O::SIDE, |line| line.leave(place));
            self.shared.settle(state);
            drop(unused);
            self.count_waited();
        }
    }

    fn count_waited(&mut self) {
        if let Some(since) = self.since.take() {
            self.shared.count_waited(O::SIDE, since);
        }
    }
}

impl<T, O: Operation<T>> Drop for Waiting<'_, T, O> {
    #[inline]
    fn drop(&mut self) {
        if self.place.is_some() {
            self.cancel();
        }
    }
}
