//! A child process an item: the kind `command`.
//!
//! The child is started on the thread of the worker's event loop, which
//! serves this stage alone, and awaited there by its descriptor. At its
//! timeout, and when the run is cancelled, it is asked to end, and killed
//! after the grace period; its whole group with it.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use paceline_process::{Chain, Child, Command, Error, ErrorKind, ExitError, Output, Stdout};

use super::{Attempt, Surroundings, Work, cancelled, panic_message, timed_out};
use crate::{
    account::Shard,
    failure::{BoxError, FailureKind, Fault},
    run::Core,
    stop::StopLevel,
    sync::{Either, first, lock},
};

/// How long the output of a child that has ended may be held open by a descendant.
const DRAIN: Duration = Duration::from_millis(200);

/// How soon a start that lacked something is tried again; it doubles up to the last.
const LACKING: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

/// After how long people are told that something is lacking.
const LACKING_UNTOLD: Duration = Duration::from_secs(1);

/// How long nothing may run and nothing be started before that is the end of the run.
const LACKING_AT_MOST: Duration = Duration::from_secs(10);

/// Children that run, and those that have run. Of the whole process, as are
/// the limits that one waits for here.
static RUNNING: AtomicU64 = AtomicU64::new(0);
static STARTED: AtomicU64 = AtomicU64::new(0);

/// What a stage of kind `command` does with an item: which children it runs,
/// and what their output means.
///
/// All methods run on the stage's own threads. A panic in one is a failure of
/// the item.
///
/// ```
/// use paceline::{Attempt, BoxError, Chain, Command, Job, Output, Pipeline, Stdin, Stdout};
///
/// /// The number of words of a text, counted by two programs joined by a pipe.
/// struct CountWords;
///
/// impl Job<String> for CountWords {
///     type Out = usize;
///     type State = ();
///
///     fn start(&self, text: &String, _: &Attempt) -> Result<(Chain, ()), BoxError> {
///         let split = Command::new("tr").args([" ", "\n"]).stdin(Stdin::from(text.as_str()));
///         let count = Command::new("wc").arg("-w").stdout(Stdout::Capture);
///         Ok((Chain::new([split, count]), ()))
///     }
///
///     fn finish(&self, _: String, (): (), output: Output) -> Result<usize, BoxError> {
///         Ok(output.check()?.stdout().to_text()?.trim().parse()?)
///     }
/// }
///
/// let (counts, _) =
///     Pipeline::from_iter(["a b c".to_string()]).command_job("count", CountWords).collect()?;
/// assert_eq!(counts, [3]);
/// # Ok::<(), paceline::Error>(())
/// ```
pub trait Job<In>: Send + Sync {
    /// What the stage gives for an item.
    type Out;
    /// What an attempt keeps from its start to its end, such as an output
    /// file; dropped if the attempt does not come to
    /// [`finish`](Self::finish).
    type State: Send;

    /// Says what to run for `item`.
    ///
    /// # Errors
    ///
    /// Whatever makes this attempt fail before anything is run.
    fn start(&self, item: &In, attempt: &Attempt) -> Result<(Chain, Self::State), BoxError>;

    /// Makes the fault of an attempt that was stopped, at its timeout or with
    /// the run, from the one that says so and what the children had put out.
    fn stopped(&self, _item: &In, _state: Self::State, _output: Output, fault: Fault) -> Fault {
        fault
    }

    /// Makes the result of the output of an attempt that ended by itself.
    ///
    /// # Errors
    ///
    /// Whatever makes this attempt fail; [`Output::check`] does for children
    /// that failed.
    fn finish(&self, item: In, state: Self::State, output: Output) -> Result<Self::Out, BoxError>;
}

/// A job as a stage's work.
pub(crate) struct Children<J>(pub(crate) J);

impl<J, In> Work<In, J::Out> for Children<J>
where
    J: Job<In>,
    J::Out: Send,
    In: Send,
{
    async fn attempt(&self, item: In, surroundings: &Surroundings<'_>) -> Result<J::Out, Fault> {
        let (mut child, state, item) = self.start(item, surroundings).await?;
        let running = Running::of(&child, surroundings);
        let why_not = supervise(&mut child, surroundings).await;
        drop(running);
        let why_not = why_not?;
        let Some(output) = child.into_output() else {
            unreachable!("a child that was waited for has an output");
        };
        let cpu = u64::try_from(output.cpu().as_nanos()).unwrap_or(u64::MAX);
        surroundings.shard.cpu.fetch_add(cpu, Ordering::Relaxed);
        match why_not {
            Some(fault) => Err(caught(|| Ok(self.0.stopped(&item, state, output, fault)))?),
            None => caught(|| self.0.finish(item, state, output)),
        }
    }
}

/// A child whose CPU time may be asked for while it runs.
struct Running<'s> {
    shard: &'s Shard,
    pid: u32,
}

impl<'s> Running<'s> {
    fn of(child: &Child, surroundings: &Surroundings<'s>) -> Self {
        let (shard, pid) = (surroundings.shard, child.id());
        lock(&shard.children).push((pid, surroundings.core.clock.now()));
        RUNNING.fetch_add(1, Ordering::Relaxed);
        STARTED.fetch_add(1, Ordering::Relaxed);
        Self { shard, pid }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        lock(&self.shard.children).retain(|(pid, _)| *pid != self.pid);
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<J> Children<J> {
    /// Starts the children.
    ///
    /// What they lack for it, descriptors or processes, comes back when others
    /// end: it waits for that, and no attempt has been made meanwhile. Where
    /// there are no others, and none can be started for some time, no item
    /// can be to blame: that is a [`Refused`].
    async fn start<In>(
        &self,
        item: In,
        surroundings: &Surroundings<'_>,
    ) -> Result<(Child, J::State, In), Fault>
    where
        J: Job<In>,
    {
        let Core { clock, stop, ledger, .. } = surroundings.core;
        let [mut delay, longest] = LACKING;
        let begun = clock.now();
        let (mut started, mut since) = (STARTED.load(Ordering::Relaxed), begun);
        let mut is_told = false;
        loop {
            let fault = match caught(|| self.0.start(&item, &surroundings.attempt)) {
                Ok((chain, state)) => {
                    let spawned = chain.spawn();
                    // What the children were given, such as ends of pipes, is theirs alone.
                    drop(chain);
                    match spawned {
                        Ok(child) => return Ok((child, state, item)),
                        Err(error) => not_started(error),
                    }
                }
                Err(fault) => fault,
            };
            if !is_shortage(&fault) {
                return Err(fault);
            }
            let now = clock.now();
            let started_by_now = STARTED.load(Ordering::Relaxed);
            if started != started_by_now || RUNNING.load(Ordering::Relaxed) > 0 {
                (started, since) = (started_by_now, now);
            } else if now.saturating_sub(since) >= LACKING_AT_MOST {
                return Err(Fault::new(FailureKind::Io, Refused(fault)).permanent());
            }
            if !is_told && now.saturating_sub(begun) >= LACKING_UNTOLD {
                is_told = true;
                if let Some(observer) = &ledger.observer {
                    observer.waits_to_start(&surroundings.settings.name, &fault.with_causes());
                }
            }
            let stopped = stop.reached(StopLevel::Cancel);
            if let Either::Second(()) = first(clock.sleep(delay), stopped).await {
                return Err(cancelled());
            }
            delay = longest.min(delay * 2);
        }
    }
}

/// The system has refused every start for [`LACKING_AT_MOST`], while nothing ran.
#[derive(Debug)]
pub(crate) struct Refused(Fault);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "no process could be started for {LACKING_AT_MOST:?}: ")?;
        formatter.write_str(&self.0.with_causes())
    }
}

impl std::error::Error for Refused {}

/// The end of the run, if the fault is one.
pub(crate) fn refused(fault: &Fault) -> Option<&Refused> {
    fault.cause().downcast_ref()
}

/// Whether the end of other children would help.
pub(crate) fn is_shortage(fault: &Fault) -> bool {
    let cause = fault.cause();
    let is_shortage = cause.downcast_ref::<Error>().is_some_and(Error::is_shortage);
    let number = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
    is_shortage
        || number.is_some_and(|number| {
            let shortages = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
            shortages.iter().any(|errno| errno.raw_os_error() == number)
        })
}

/// Waits for the child's end, and brings it about when the time is over or
/// the run is cancelled. Gives the fault if it was brought about.
async fn supervise(
    child: &mut Child,
    surroundings: &Surroundings<'_>,
) -> Result<Option<Fault>, Fault> {
    let Core { clock, stop, .. } = surroundings.core;
    let why = {
        let ended = pin!(child.communicate_async_with(|| clock.sleep(DRAIN)));
        let stopped = stop.reached(StopLevel::Cancel);
        match surroundings.settings.timeout {
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
        first(clock.sleep(surroundings.settings.grace), stop.reached(StopLevel::Kill)).await;
    };
    child.stop_async(grace).await.map_err(io_trouble)?;
    Ok(Some(why))
}

fn caught<T>(call: impl FnOnce() -> Result<T, BoxError>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(|| call().map_err(Fault::from_error))) {
        Ok(result) => result,
        Err(panic) => Err(Fault::new(FailureKind::Panic, panic_message(&*panic))),
    }
}

pub(crate) fn io_trouble(error: Error) -> Fault {
    Fault::new(FailureKind::Io, error)
}

/// Another attempt cannot help where the program or its arguments are wrong.
pub(crate) fn not_started(error: Error) -> Fault {
    match error.kind() {
        ErrorKind::NotFound { .. } => Fault::new(FailureKind::NotFound, error).permanent(),
        ErrorKind::NotExecutable { .. } => {
            Fault::new(FailureKind::NotExecutable, error).permanent()
        }
        ErrorKind::TooLong => Fault::new(FailureKind::TooLong, error).permanent(),
        ErrorKind::NulInArgument | ErrorKind::BadCwd { .. } | ErrorKind::NotSupported { .. } => {
            io_trouble(error).permanent()
        }
        _ => io_trouble(error),
    }
}

/// One command an item whose standard output is the result.
pub(crate) struct OneCommand<M>(pub(crate) M);

impl<M, In> Job<In> for OneCommand<M>
where
    M: Fn(&In, &Attempt) -> Command + Send + Sync,
{
    type Out = Output;
    type State = ();

    fn start(&self, item: &In, attempt: &Attempt) -> Result<(Chain, ()), BoxError> {
        Ok((Chain::new([(self.0)(item, attempt).stdout(Stdout::Capture)]), ()))
    }

    fn finish(&self, _: In, (): (), output: Output) -> Result<Output, BoxError> {
        output.check().map_err(|error| BoxError::from(Fault::from(error)))
    }
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
