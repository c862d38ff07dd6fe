//! A function on a thread that serves one stage: the kinds `cpu` and `blocking`.
//!
//! A thread cannot be killed. At its timeout an item is reported as overdue,
//! the function can see it by [`is_cancelled`], and the attempt counts as
//! timed out as soon as the function returns.

use std::{
    cell::RefCell,
    future::Future,
    marker::PhantomData,
    mem::replace,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use super::{Attempt, Surroundings, Work, panic_message, timed_out};
use crate::{
    clock::Clock,
    event::Observer,
    failure::{BoxError, FailureKind, Fault},
    item::ItemId,
    stop::{Stop, StopLevel},
};

/// A function as a stage's work.
pub(crate) struct Function<F, E> {
    function: F,
    error: PhantomData<fn() -> E>,
}

impl<F, E> Function<F, E> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, error: PhantomData }
    }
}

impl<F, E, In, Out> Work<In, Out> for Function<F, E>
where
    F: Fn(In, Attempt) -> Result<Out, E> + Send + Sync,
    E: Into<BoxError>,
    In: Send,
    Out: Send,
{
    fn call(&self, item: In, attempt: Attempt) -> Result<Out, Fault> {
        let call = || (self.function)(item, attempt).map_err(Fault::from_error);
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(result) => result,
            Err(panic) => Err(Fault::new(FailureKind::Panic, panic_message(&*panic))),
        }
    }

    fn attempt(
        &self,
        item: In,
        surroundings: &Surroundings<'_>,
    ) -> impl Future<Output = Result<Out, Fault>> + Send {
        let result = match surroundings.settings.timeout {
            None => self.call(item, surroundings.attempt),
            Some(timeout) => self.call_within(item, timeout, surroundings),
        };
        std::future::ready(result)
    }
}

impl<F, E> Function<F, E> {
    fn call_within<In, Out>(
        &self,
        item: In,
        timeout: Duration,
        surroundings: &Surroundings<'_>,
    ) -> Result<Out, Fault>
    where
        Self: Work<In, Out>,
    {
        let clock = &surroundings.core.clock;
        let due = clock.now().saturating_add(timeout);
        let report = surroundings.core.ledger.observer.as_ref().map(|observer| {
            let overdue = Overdue {
                item: surroundings.item.clone(),
                stage: surroundings.settings.name.to_string(),
                timeout,
                observer: observer.clone(),
            };
            clock.set(due, Waker::from(Arc::new(overdue)))
        });
        CURRENT.with_borrow_mut(|current| {
            if let Some(current) = current {
                current.due = Some(due);
            }
        });
        let result = self.call(item, surroundings.attempt);
        CURRENT.with_borrow_mut(|current| {
            if let Some(current) = current {
                current.due = None;
            }
        });
        report.into_iter().for_each(|key| clock.unset(key));
        if clock.now() >= due { Err(timed_out(timeout)) } else { result }
    }
}

/// Tells that an item's time is over while its function still runs.
struct Overdue {
    item: ItemId,
    stage: String,
    timeout: Duration,
    observer: Arc<dyn Observer>,
}

impl Wake for Overdue {
    fn wake(self: Arc<Self>) {
        self.observer.overdue(&self.item, &self.stage, self.timeout);
    }
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// What the function that runs on this thread can ask.
struct Current {
    stop: Stop,
    clock: Clock,
    due: Option<Duration>,
    /// Whether this very piece of work was asked to end.
    asked: Option<Arc<AtomicBool>>,
}

/// Makes this thread a worker's, for [`is_cancelled`].
pub(crate) fn enter(stop: &Stop, clock: &Clock) {
    let current = Current { stop: stop.clone(), clock: clock.clone(), due: None, asked: None };
    CURRENT.set(Some(current));
}

/// Runs `work`, which must not panic, such that [`is_cancelled`] sees `asked`
/// and `due`; what they were before is restored.
pub(crate) fn asked_by<R>(
    asked: Arc<AtomicBool>,
    due: Option<Duration>,
    work: impl FnOnce() -> R,
) -> R {
    let change = |asked, due| {
        CURRENT.with_borrow_mut(|current| match current {
            Some(current) => (replace(&mut current.asked, asked), replace(&mut current.due, due)),
            None => (None, None),
        })
    };
    let before = change(Some(asked), due);
    let result = work();
    change(before.0, before.1);
    result
}

/// Returns whether the work on this thread should end: its time is over, or
/// it is being cancelled, alone or with its run or pool. Always `false` outside
/// the function of a stage or a pool.
///
/// A thread cannot be killed, so a function that may take long asks now and
/// then. An item whose function returns an error after the run was cancelled
/// is unfinished and not failed. Never waits.
///
/// ```
/// use std::time::Duration;
/// use paceline::{FailureKind, Pipeline};
///
/// let (_, summary) = Pipeline::from_iter([()])
///     .cpu("endless", |()| {
///         while !paceline::is_cancelled() {
///             std::hint::spin_loop();
///         }
///         Ok::<_, paceline::BoxError>(())
///     })
///     .timeout(Duration::from_millis(20))
///     .collect()?;
/// assert_eq!(summary.failures[0].kind(), FailureKind::Timeout);
/// # Ok::<(), paceline::Error>(())
/// ```
pub fn is_cancelled() -> bool {
    CURRENT.with_borrow(|current| {
        current.as_ref().is_some_and(|current| {
            current.stop.level() >= StopLevel::Cancel
                || current.due.is_some_and(|due| current.clock.now() >= due)
                || current.asked.as_ref().is_some_and(|asked| asked.load(Ordering::Relaxed))
        })
    })
}
