//! One member of a group: a future, its panics, and its limit in time.

use std::{
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::pin,
    task::Poll,
    thread,
    time::Duration,
};

use futures_util::{FutureExt, future::Either};

use crate::{
    clock::{Alarm, Clock},
    failure::{BoxError, FailureKind, Fault},
    worker::{panic_message, timed_out},
};

/// Runs a member to its end or to the end of its time, which begins with its
/// first poll. If both come at once, what it gave counts.
///
/// Not an `async fn`: that would keep the future twice and more, and it is
/// most of what a member that waits takes up.
pub(super) fn member<F, T, E>(
    place: usize,
    future: F,
    time: Option<(Clock, Duration)>,
) -> impl Future<Output = (usize, Result<T, Fault>)>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    match time {
        None => {
            let ended = AssertUnwindSafe(future).catch_unwind();
            Either::Left(ended.map(move |ended| (place, ended_as(ended))))
        }
        Some(_) => Either::Right(Box::pin(async move { (place, within(future, time).await) })),
    }
}

/// What a future gave, or its panic, as a member's result.
fn ended_as<T, E: Into<BoxError>>(ended: thread::Result<Result<T, E>>) -> Result<T, Fault> {
    match ended {
        Ok(result) => result.map_err(Fault::from_error),
        Err(panic) => Err(Fault::new(FailureKind::Panic, panic_message(&*panic))),
    }
}

pub(super) async fn within<F, T, E>(future: F, time: Option<(Clock, Duration)>) -> Result<T, Fault>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    let mut future = pin!(AssertUnwindSafe(future).catch_unwind());
    let limit = time.as_ref().map(|(_, limit)| *limit);
    let mut alarm = time.map(|(clock, limit)| Alarm::after(&clock, limit));
    poll_fn(|context| {
        if let Poll::Ready(ended) = future.as_mut().poll(context) {
            return Poll::Ready(ended_as(ended));
        }
        match (&mut alarm, limit) {
            (Some(alarm), Some(limit)) => pin!(alarm).poll(context).map(|()| Err(timed_out(limit))),
            _ => Poll::Pending,
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_little_more_than_its_future() {
        let future = async {
            let kept = std::hint::black_box([7_u8; 10_000]);
            std::future::pending::<()>().await;
            std::hint::black_box(kept);
            Ok::<_, BoxError>(())
        };
        let size = size_of_val(&future);
        let beside = size_of_val(&member(0, future, None)) - size;
        assert!(beside <= 32, "{beside} bytes");
    }
}
