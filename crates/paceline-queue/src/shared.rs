//! What the handles of one queue share, and the way through its lock.
//!
//! All access goes through [`Shared::locked`] or ends with
//! [`Shared::settle`], which decide who is to be woken under the lock and
//! wake after it is dropped.
//!
//! Not here: waiting; that is in `wait.rs`.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::operation::Operation;
use crate::state::{Side, State};
use crate::sync::{self, Mutex, MutexGuard};
use crate::waiters::Wakes;

/// A wait longer than this says that its side is idle, not just out of step.
// A wake-up takes five to ten microseconds, so busy ends wait less than this.
const LONG: Duration = Duration::from_micros(50);

/// What is known of the waits of one side that are over.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    nanos: AtomicU64,
    last_was_long: AtomicBool,
}

impl Waits {
    pub(crate) fn add(&self, time: Duration, stood_in_line: bool) {
        self.nanos.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        let long = time > LONG;
        // A yield that was long helped other processes, and says nothing of
        // this queue.
        if stood_in_line && self.last_was_long.load(Ordering::Relaxed) != long {
            self.last_was_long.store(long, Ordering::Relaxed);
        }
    }

    /// Whether the next wait is likely to be over in a moment.
    pub(crate) fn are_short(&self) -> bool {
        !self.last_was_long.load(Ordering::Relaxed)
    }

    pub(crate) fn total(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// What the handles of one queue share.
pub(crate) struct Shared<T> {
    state: Mutex<State<T>>,
    /// Follows the line of consumers, to be read without the lock.
    waiting_consumers: AtomicUsize,
    waits: [Waits; 3],
}

impl<T> Shared<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Shared {
            state: Mutex::new(State::new(capacity)),
            waiting_consumers: AtomicUsize::new(0),
            waits: Default::default(),
        }
    }

    pub(crate) fn waits(&self, side: Side) -> &Waits {
        &self.waits[side as usize]
    }

    pub(crate) fn waiting_consumers(&self) -> usize {
        self.waiting_consumers.load(Ordering::Relaxed)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        sync::lock(&self.state)
    }

    /// Runs `act` under the lock, then wakes whoever can proceed by it.
    ///
    /// `act` must not drop items or wakers; it returns them instead.
    #[inline]
    pub(crate) fn locked<R>(&self, act: impl FnOnce(&mut State<T>) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        if state.has_waiting() {
            self.settle(state);
        }
        result
    }

    /// Drops the lock and wakes whoever can proceed.
    ///
    /// To be called after each change of a line, also if nobody is left in it.
    #[cold]
    pub(crate) fn settle(&self, mut state: MutexGuard<'_, State<T>>) {
        let mut wakes = Wakes::default();
        state.settle(&mut wakes);
        self.waiting_consumers.store(state.line(Side::Pop).waiting(), Ordering::Relaxed);
        drop(state);
        wakes.send();
    }

    /// Tries `operation` once; `None` if it would have to wait.
    #[inline]
    pub(crate) fn attempt<O: Operation<T>>(&self, operation: &mut O) -> Option<O::Output> {
        self.locked(|state| operation.step(state, false))
    }
}
