//! A child process an item: the kind `command`.
//!
//! The child is started on the thread of the worker's event loop, which
//! serves this stage alone, and awaited there by its descriptor. At its
//! timeout, and when the run is cancelled, it is asked to end, and killed
//! after the grace period; its whole group with it.

use std::{
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Duration,
};

use paceline_process::{Chain, Child, Error, ErrorKind, ExitError, Output};

use super::{Attempt, Surroundings, Work, cancelled, panic_message, timed_out};
use crate::{
    failure::{BoxError, FailureKind, Fault},
    stop::StopLevel,
    sync::{Either, first},
};

/// How long the output of a child that has ended may be held open by a descendant.
const DRAIN: Duration = Duration::from_millis(200);

/// Children as a stage's work: how one is made of an item, and what its
/// output means.
pub(crate) struct Children<M, F, E> {
    make: M,
    finish: F,
    error: PhantomData<fn() -> E>,
}

impl<M, F, E> Children<M, F, E> {
    pub(crate) fn new(make: M, finish: F) -> Self {
        Self { make, finish, error: PhantomData }
    }
}

impl<M, F, E, In, Out> Work<In, Out> for Children<M, F, E>
where
    M: Fn(&In, &Attempt) -> Result<Chain, E> + Send + Sync,
    F: Fn(In, Output) -> Result<Out, E> + Send + Sync,
    E: Into<BoxError>,
    In: Send,
    Out: Send,
{
    async fn attempt(&self, item: In, surroundings: &Surroundings<'_>) -> Result<Out, Fault> {
        let chain = caught(|| (self.make)(&item, &surroundings.attempt))?;
        let mut child = chain.spawn().map_err(not_started)?;
        drop(chain);
        let why_not = supervise(&mut child, surroundings).await?;
        let Some(output) = child.into_output() else {
            unreachable!("a child that was waited for has an output");
        };
        let cpu = u64::try_from(output.cpu().as_nanos()).unwrap_or(u64::MAX);
        surroundings.shard.cpu.fetch_add(cpu, Ordering::Relaxed);
        match why_not {
            Some(fault) => Err(fault),
            None => caught(|| (self.finish)(item, output)),
        }
    }
}

/// Waits for the child's end, and brings it about when the time is over or
/// the run is cancelled. Gives the fault if it was brought about.
async fn supervise(
    child: &mut Child,
    surroundings: &Surroundings<'_>,
) -> Result<Option<Fault>, Fault> {
    let clock = surroundings.clock;
    let why = {
        let ended = child.communicate_async_with(|| clock.sleep(DRAIN));
        let stopped = surroundings.stop.reached(StopLevel::Cancel);
        match surroundings.timeout {
            None => match first(ended, stopped).await {
                Either::First(ended) => return ended.map(|_| None).map_err(io_trouble),
                Either::Second(()) => cancelled(),
            },
            Some(timeout) => match first(first(ended, stopped), clock.sleep(timeout)).await {
                Either::First(Either::First(ended)) => {
                    return ended.map(|_| None).map_err(io_trouble);
                }
                Either::First(Either::Second(())) => cancelled(),
                Either::Second(()) => timed_out(timeout),
            },
        }
    };
    let grace = async {
        first(clock.sleep(surroundings.grace), surroundings.stop.reached(StopLevel::Kill)).await;
    };
    child.stop_async(grace).await.map_err(io_trouble)?;
    Ok(Some(why))
}

fn caught<T, E: Into<BoxError>>(call: impl FnOnce() -> Result<T, E>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Fault::from_error),
        Err(panic) => Err(Fault::new(FailureKind::Panic, panic_message(&*panic))),
    }
}

fn io_trouble(error: Error) -> Fault {
    Fault::new(FailureKind::Io, error)
}

/// Another attempt cannot help where the program or its arguments are wrong.
fn not_started(error: Error) -> Fault {
    match error.kind() {
        ErrorKind::NotFound { .. } => Fault::new(FailureKind::NotFound, error).permanent(),
        ErrorKind::NotExecutable { .. } => {
            Fault::new(FailureKind::NotExecutable, error).permanent()
        }
        ErrorKind::TooLong => Fault::new(FailureKind::TooLong, error).permanent(),
        ErrorKind::NulInArgument | ErrorKind::BadCwd { .. } => io_trouble(error).permanent(),
        _ => io_trouble(error),
    }
}

/// Makes an output whose child failed a fault that says how.
pub(crate) fn checked(output: Output) -> Result<Output, BoxError> {
    output.check().map_err(|error| BoxError::from(Fault::from(error)))
}

impl From<ExitError> for Fault {
    /// A fault of kind [`FailureKind::Exit`] or [`FailureKind::Signal`] with the code or signal.
    fn from(error: ExitError) -> Self {
        let exit = error.exit();
        let kind = if exit.signal().is_some() { FailureKind::Signal } else { FailureKind::Exit };
        let signal = exit.signal().map(|signal| signal.as_raw());
        Self::new(kind, error).with_code(exit.code()).with_signal(signal)
    }
}
