//! A program that is one future: runs it to its end on the calling thread,
//! and leaves nothing behind.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, resume_unwind},
    pin::pin,
    time::Duration,
};

use futures_util::FutureExt;
use paceline_queue::OnEventLoop;

use super::{GRACE, Leftover, LoopHandle, drive, interrupt::Interrupt, prepare};
use crate::{
    error::{Error, ErrorKind},
    sync::{Either, first},
};

/// Runs a future on the calling thread, with an event loop for it.
///
/// ```
/// use paceline::{BoxError, Runner, off_loop};
///
/// let ended = Runner::new().run(|tasks| async move {
///     let answer = tasks.submit(async { Ok::<_, BoxError>(1) });
///     let one = answer.await?;
///     off_loop(move || Ok::<_, BoxError>(one + 1)).await
/// })?;
/// assert_eq!(ended.output.expect("nobody interrupted it")?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a runner does nothing until it runs something"]
pub struct Runner {
    grace: Duration,
    threads: Option<usize>,
    is_interruptible: bool,
}

/// How a [`Runner`]'s future ended, and what it left.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended<T> {
    /// What the future gave; `None` if Ctrl-C cancelled it.
    pub output: Option<T>,
    /// What it left behind, and what became of that.
    pub leftover: Leftover,
}

impl Runner {
    /// Makes a runner with a grace period of 5 s that leaves Ctrl-C alone.
    pub fn new() -> Self {
        Self { grace: GRACE, threads: None, is_interruptible: false }
    }

    /// Sets how long functions off the loop may take to return when the
    /// future has ended; and, for a runner that is
    /// [interruptible](Self::interruptible), how long everything may take
    /// after Ctrl-C.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets the most threads for functions off the loop, 1 or more; 512 unless set.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Lets the first Ctrl-C (SIGINT) cancel the future: it is dropped, what
    /// it left is cancelled and awaited, and [`run`](Self::run) returns.
    ///
    /// A second one, or the end of the grace period, ends the process by
    /// SIGINT, even if a thread is stuck. While it runs only: afterwards
    /// SIGINT does what it did before.
    pub fn interruptible(mut self) -> Self {
        self.is_interruptible = true;
        self
    }

    /// Runs the future that `main` makes, and returns when it has ended and
    /// nothing of it is left.
    ///
    /// `main` gets the handle by which tasks are submitted to the same loop.
    /// Those that have not ended when the future has are cancelled and
    /// awaited. Functions [off the loop](crate::off_loop) are waited for as
    /// long as the grace period says.
    ///
    /// # Errors
    ///
    /// If the event loop cannot be started, and of kind
    /// [`Invalid`](ErrorKind::Invalid) inside another event loop, which it
    /// would hold up, or with 0 threads.
    ///
    /// # Panics
    ///
    /// If the future does; what it left has ended before.
    pub fn run<T, F>(self, main: impl FnOnce(LoopHandle) -> F) -> Result<Ended<T>, Error>
    where
        F: Future<Output = T>,
    {
        if OnEventLoop::is_here() || tokio::runtime::Handle::try_current().is_ok() {
            let what = "a runner inside an event loop would hold it up: await the future there, \
                        or run it on a thread of its own";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        if self.threads == Some(0) {
            return Err(Error::new(ErrorKind::Invalid, "a runner with 0 threads off the loop"));
        }
        let (runtime, shared) = prepare("paceline", self.threads)?;
        let interrupt = match self.is_interruptible {
            true => Some(Interrupt::listen(self.grace)?),
            false => None,
        };
        let handle = shared.handle();
        let main = async {
            // Made inside, so that a panic of `main` itself is no other than one of its future.
            let mut main = pin!(AssertUnwindSafe(async { main(handle).await }).catch_unwind());
            match &interrupt {
                None => Some(main.await),
                Some(interrupt) => match first(&mut main, interrupt.came()).await {
                    Either::First(output) => Some(output),
                    Either::Second(()) => None,
                },
            }
        };
        let was_interrupted = || interrupt.as_ref().is_some_and(Interrupt::has_come);
        // Half, so that this returns before the process would be ended.
        let grace = || if was_interrupted() { self.grace / 2 } else { self.grace };
        let (output, leftover) = drive(runtime, &shared, grace, main);
        drop(interrupt);
        let output = match output {
            Some(Ok(output)) => Some(output),
            Some(Err(panic)) => resume_unwind(panic),
            None => None,
        };
        Ok(Ended { output, leftover })
    }
}

impl Default for Runner {
    fn default() -> Self {
        Self::new()
    }
}
