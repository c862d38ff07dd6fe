//! Limits in time for a single future: a scope that drops it, and a wait that
//! lets it clean up.
//!
//! Not here: limits on many futures (`group.rs`).

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use crate::{
    clock::{Alarm, Clock},
    failure::{BoxError, FailureKind, Fault},
    stop::Stop,
    sync::{Notice, lock},
    worker::timed_out,
};

/// A point in time that ends futures, and can be moved until it has come.
/// Clones are handles on the same deadline.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// use paceline::Deadline;
///
/// let deadline = Deadline::after(Duration::from_millis(5));
/// let expired = deadline.scope(std::future::pending::<()>()).await.unwrap_err();
/// assert_eq!(expired.to_string(), "took longer than 5ms");
/// assert_eq!(deadline.scope(async { 7 }).await, Err(expired)); // it has passed for all
/// # }
/// ```
///
/// # Panics
///
/// Waiting for one panics outside a tokio runtime with timers, unless its
/// clock is a manual one.
#[derive(Clone)]
pub struct Deadline(Arc<Shared>);

struct Shared {
    clock: Clock,
    state: Mutex<State>,
    moved: Notice,
}

struct State {
    due: Duration,
    limit: Duration,
    has_expired: bool,
    /// How often it was moved.
    moves: u64,
}

impl Deadline {
    /// Makes a deadline so long after now.
    pub fn after(limit: Duration) -> Self {
        Self::after_on(&Clock::system(), limit)
    }

    /// Makes a deadline so long after now by `clock`, which can be paused; in
    /// tests, moved by hand.
    pub fn after_on(clock: &Clock, limit: Duration) -> Self {
        let due = clock.now().saturating_add(limit);
        let state = State { due, limit, has_expired: false, moves: 0 };
        Self(Arc::new(Shared {
            clock: clock.clone(),
            state: Mutex::new(state),
            moved: Notice::default(),
        }))
    }

    /// Moves it to so long after now, and returns whether it was: not if it
    /// has ended a future before.
    pub fn reschedule(&self, limit: Duration) -> bool {
        {
            let mut state = lock(&self.0.state);
            if state.has_expired {
                return false;
            }
            state.due = self.0.clock.now().saturating_add(limit);
            state.limit = limit;
            state.moves += 1;
        }
        self.0.moved.tell();
        true
    }

    /// Returns whether it has ended a future, or would end one now.
    pub fn has_expired(&self) -> bool {
        let mut state = lock(&self.0.state);
        state.has_expired |= self.0.clock.now() >= state.due;
        state.has_expired
    }

    /// Gives what `future` gives, or [`Expired`] if the deadline comes first:
    /// then the future has been dropped.
    ///
    /// The deadline is looked at before the future: one that has passed does
    /// not begin it, and of nested scopes whose deadlines have all passed the
    /// outermost is told. A scope that is dropped drops the future and is no
    /// timeout.
    ///
    /// # Errors
    ///
    /// [`Expired`], of this deadline and no other.
    pub async fn scope<F: Future>(&self, future: F) -> Result<F::Output, Expired> {
        let mut expired = pin!(self.expired());
        let mut future = pin!(future);
        poll_fn(|context| match expired.as_mut().poll(context) {
            Poll::Ready(expired) => Poll::Ready(Err(expired)),
            Poll::Pending => future.as_mut().poll(context).map(Ok),
        })
        .await
    }

    /// As [`scope`](Self::scope), for work that cleans up: when the deadline
    /// comes, the stop that `work` was given is cancelled, and the work is
    /// waited for until it has ended, at most `grace`; then it is dropped.
    ///
    /// A value that it gives all the same counts. A deadline that has passed
    /// does not call `work` at all.
    ///
    /// # Errors
    ///
    /// Of kind [`Timeout`](FailureKind::Timeout) if the time was over and the
    /// work was dropped or returned a [`Fault`] of kind
    /// [`Cancelled`](FailureKind::Cancelled). Otherwise what the work
    /// returned; its text says so if the time was over.
    pub async fn wind_down<F, T, E>(
        &self,
        grace: Duration,
        work: impl FnOnce(Stop) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        if self.has_expired() {
            return Err(late(&self.expired().await));
        }
        let stop = Stop::new();
        let mut work = pin!(work(stop.clone()));
        let mut expired = pin!(self.expired());
        let mut over: Option<(Expired, Alarm)> = None;
        poll_fn(|context| {
            loop {
                // The work first: what it gives at the last moment counts.
                if let Poll::Ready(result) = work.as_mut().poll(context) {
                    let late = over.as_ref().map(|(expired, _)| *expired);
                    return Poll::Ready(result.map_err(|error| ended(error, late)));
                }
                match &mut over {
                    Some((expired, grace)) => {
                        return match grace.is_over(context) {
                            true => Poll::Ready(Err(late(expired))),
                            false => Poll::Pending,
                        };
                    }
                    None => {
                        let Poll::Ready(expired) = expired.as_mut().poll(context) else {
                            return Poll::Pending;
                        };
                        stop.cancel();
                        over = Some((expired, Alarm::after(&self.0.clock, grace)));
                    }
                }
            }
        })
        .await
    }

    /// Waits until it has passed.
    async fn expired(&self) -> Expired {
        loop {
            let (due, limit, moves) = {
                let state = lock(&self.0.state);
                (state.due, state.limit, state.moves)
            };
            let mut alarm = Alarm::new(&self.0.clock, due);
            let has_moved = || lock(&self.0.state).moves != moves;
            let mut moved = self.0.moved.until(has_moved);
            poll_fn(|context| match alarm.is_over(context) {
                true => Poll::Ready(()),
                false => Pin::new(&mut moved).poll(context),
            })
            .await;
            let mut state = lock(&self.0.state);
            // Whoever moves it now comes too late.
            if state.moves == moves && self.0.clock.now() >= due {
                state.has_expired = true;
                return Expired { limit };
            }
        }
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = lock(&self.0.state);
        f.debug_struct("Deadline")
            .field("limit", &state.limit)
            .field("has_expired", &state.has_expired)
            .finish_non_exhaustive()
    }
}

/// What work that ended with an error has come to.
fn ended(error: impl Into<BoxError>, expired: Option<Expired>) -> Fault {
    let error = Fault::from_error(error);
    match expired {
        None => error,
        Some(expired) if error.kind() == FailureKind::Cancelled => late(&expired),
        Some(expired) => Fault::new(error.kind(), CleanUp { expired, error: error.into() }),
    }
}

fn late(expired: &Expired) -> Fault {
    timed_out(expired.limit)
}

/// A deadline came before the end of what it limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    limit: Duration,
}

impl Expired {
    /// Returns the time that was allowed.
    pub fn limit(&self) -> Duration {
        self.limit
    }
}

impl fmt::Display for Expired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "took longer than {:?}", self.limit)
    }
}

impl Error for Expired {}

/// An error from cleaning up after the time was over.
#[derive(Debug)]
struct CleanUp {
    expired: Expired,
    error: BoxError,
}

impl fmt::Display for CleanUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; it was told to end, since it {}", self.error, self.expired)
    }
}

impl Error for CleanUp {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.error)
    }
}
