//! A future on an event loop: the kind `io`.
//!
//! At its timeout, and when the run is cancelled, the future is dropped.
//! The time spent in its polls is counted as CPU time; it is an upper bound,
//! since a poll may be preempted.

use std::{
    future::{Future, poll_fn},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use super::{Attempt, Surroundings, Work, cancelled, panic_message, timed_out};
use crate::{
    failure::{BoxError, FailureKind, Fault},
    stop::StopLevel,
    sync::{Either, first},
    watch::Watch,
};

/// A function that makes futures, as a stage's work.
pub(crate) struct Futures<F, E> {
    function: F,
    error: PhantomData<fn() -> E>,
}

impl<F, E> Futures<F, E> {
    pub(crate) fn new(function: F) -> Self {
        Self { function, error: PhantomData }
    }
}

impl<F, E, In, Out, Fut> Work<In, Out> for Futures<F, E>
where
    F: Fn(In, Attempt) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Out, E>> + Send,
    E: Into<BoxError>,
    In: Send,
    Out: Send,
{
    async fn attempt(&self, item: In, surroundings: &Surroundings<'_>) -> Result<Out, Fault> {
        // The function is called in the first poll, so that what it does there counts too.
        let mut future = pin!(async { (self.function)(item, surroundings.attempt).await });
        let work = poll_fn(|context| poll_timed(future.as_mut(), surroundings, context));
        let stopped = surroundings.stop.reached(StopLevel::Cancel);
        let ended = match surroundings.timeout {
            None => first(work, stopped).await,
            Some(timeout) => {
                let clock = surroundings.clock;
                match first(first(work, stopped), clock.sleep(timeout)).await {
                    Either::First(ended) => ended,
                    Either::Second(()) => return Err(timed_out(timeout)),
                }
            }
        };
        match ended {
            Either::First(result) => result,
            Either::Second(()) => Err(cancelled()),
        }
    }
}

/// One poll, timed and watched; a panic in it is a fault.
fn poll_timed<Fut, Out, E>(
    future: Pin<&mut Fut>,
    surroundings: &Surroundings<'_>,
    context: &mut Context<'_>,
) -> Poll<Result<Out, Fault>>
where
    Fut: Future<Output = Result<Out, E>>,
    E: Into<BoxError>,
{
    let Surroundings { clock, shard, watch, .. } = surroundings;
    let started = clock.now();
    let seat = watch.zip(surroundings.seat);
    if let Some((watch, seat)) = seat {
        watch.enter(seat, surroundings.stage_index, surroundings.item, started);
    }
    let poll = || future.poll(context).map_err(Fault::from_error);
    let polled = catch_unwind(AssertUnwindSafe(poll));
    if let Some((_, seat)) = seat {
        Watch::leave(seat);
    }
    let took = clock.now().saturating_sub(started);
    shard.cpu.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    if let Some(watch) = watch
        && took >= watch.limit
    {
        was_slow(surroundings, watch, took);
    }
    match polled {
        Ok(poll) => poll,
        Err(panic) => Poll::Ready(Err(Fault::new(FailureKind::Panic, panic_message(&*panic)))),
    }
}

/// Tells of a poll that took longer than the watch allows.
#[cold]
fn was_slow(surroundings: &Surroundings<'_>, watch: &Watch, took: Duration) {
    let Surroundings { item, stage, shard, observer, .. } = surroundings;
    shard.slow_polls.fetch_add(1, Ordering::Relaxed);
    watch.note(stage, item, took);
    if let Some(observer) = observer {
        observer.slow_poll(item, stage, took);
    }
}
