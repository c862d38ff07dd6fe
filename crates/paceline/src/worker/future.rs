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
    run::Core,
    stop::StopLevel,
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
        let Core { clock, stop, .. } = surroundings.core;
        // The function is called in the first poll, so that what it does there counts too.
        let mut future = pin!(async { (self.function)(item, surroundings.attempt).await });
        let mut stopped = stop.reached(StopLevel::Cancel);
        let timeout = surroundings.settings.timeout;
        // Boxed for the sake of the many that have no limit.
        let mut over = timeout.map(|timeout| Box::pin(clock.sleep(timeout)));
        poll_fn(|context| {
            if let Poll::Ready(result) = poll_timed(future.as_mut(), surroundings, context) {
                return Poll::Ready(result);
            }
            if Pin::new(&mut stopped).poll(context).is_ready() {
                return Poll::Ready(Err(cancelled()));
            }
            match (&mut over, timeout) {
                (Some(over), Some(timeout)) => {
                    over.as_mut().poll(context).map(|()| Err(timed_out(timeout)))
                }
                _ => Poll::Pending,
            }
        })
        .await
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
    let Surroundings { shard, settings, .. } = surroundings;
    let Core { clock, watch, .. } = surroundings.core;
    let started = clock.now();
    let seat = watch.as_ref().zip(surroundings.seat);
    if let Some((watch, seat)) = seat {
        watch.enter(seat, settings.index, surroundings.item, started);
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
    let Surroundings { item, settings, shard, .. } = surroundings;
    shard.slow_polls.fetch_add(1, Ordering::Relaxed);
    watch.note(&settings.name, item, took);
    if let Some(observer) = &surroundings.core.ledger.observer {
        observer.slow_poll(item, &settings.name, took);
    }
}
