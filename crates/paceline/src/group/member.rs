//! One member of a group: a future, its panics, and its limit in time.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
    time::Duration,
};

use crate::{
    clock::{Alarm, Clock},
    failure::{BoxError, FailureKind, Fault},
    worker::{panic_message, timed_out},
};

/// Runs a member to its end or to the end of its time, which begins with its
/// first poll. If both come at once, what it gave counts.
pub(super) async fn member<F, T, E>(
    place: usize,
    future: F,
    time: Option<(Clock, Duration)>,
) -> (usize, Result<T, Fault>)
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    (place, within(future, time).await)
}

pub(super) async fn within<F, T, E>(future: F, time: Option<(Clock, Duration)>) -> Result<T, Fault>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    let mut future = pin!(future);
    let limit = time.as_ref().map(|(_, limit)| *limit);
    let mut alarm = time.map(|(clock, limit)| Alarm::after(&clock, limit));
    poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(Poll::Ready(result)) => return Poll::Ready(result.map_err(Fault::from_error)),
            Ok(Poll::Pending) => {}
            Err(panic) => {
                let fault = Fault::new(FailureKind::Panic, panic_message(&*panic));
                return Poll::Ready(Err(fault));
            }
        }
        match (&mut alarm, limit) {
            (Some(alarm), Some(limit)) => pin!(alarm).poll(context).map(|()| Err(timed_out(limit))),
            _ => Poll::Pending,
        }
    })
    .await
}
