//! A pipeline that is complete, and a run that is under way.

use std::{
    io,
    thread::{self, JoinHandle, Scope, ScopedJoinHandle},
};

use crate::{
    error::{Error, ErrorKind},
    monitor::{Monitor, Progress},
    pipeline::Plan,
    run::Core,
    stop::Stop,
    summary::Summary,
};

/// A pipeline that knows what becomes of its last values.
#[must_use = "a pipeline does nothing until it is run"]
pub struct Runnable<'a> {
    plan: Plan<'a>,
    sink: Box<dyn FnOnce(&Core) + Send + 'a>,
}

impl<'a> Runnable<'a> {
    pub(crate) fn new(plan: Plan<'a>, sink: Box<dyn FnOnce(&Core) + Send + 'a>) -> Self {
        Self { plan, sink }
    }

    /// Returns the handle that shows how far the run is.
    pub fn monitor(&self) -> Monitor {
        self.plan.handles().0
    }

    /// Runs it, and returns when every item is answered and every thread has
    /// ended.
    ///
    /// # Errors
    ///
    /// If paceline could not run it; an item's failure is no error.
    pub fn run(self) -> Result<Summary, Error> {
        Ok(self.plan.run(self.sink)?.1)
    }

    /// Starts it in a scope and returns at once; it may borrow what outlives
    /// the scope.
    ///
    /// # Errors
    ///
    /// If no thread could be started for it.
    pub fn start_in<'s>(self, scope: &'s Scope<'s, '_>) -> Result<Running<'s>, Error>
    where
        'a: 's,
    {
        let (monitor, stop) = self.plan.handles();
        let thread = thread::Builder::new().name(NAME.into());
        let thread = thread.spawn_scoped(scope, move || self.run()).map_err(no_thread)?;
        Ok(Running { monitor, stop, thread: Thread::Scoped(thread) })
    }
}

impl Runnable<'static> {
    /// Starts it and returns at once.
    ///
    /// # Errors
    ///
    /// If no thread could be started for it.
    ///
    /// ```
    /// use paceline::Pipeline;
    ///
    /// let running = Pipeline::from_iter(1..)
    ///     .cpu("count", |_: u64| Ok::<_, paceline::BoxError>(()))
    ///     .discard()
    ///     .start()?;
    /// while running.progress().ok < 1000 {
    ///     std::thread::yield_now();
    /// }
    /// running.stop().drain();
    /// assert_eq!(running.join()?.unfinished, 0);
    /// # Ok::<(), paceline::Error>(())
    /// ```
    pub fn start(self) -> Result<Running<'static>, Error> {
        let (monitor, stop) = self.plan.handles();
        let thread = thread::Builder::new().name(NAME.into());
        let thread = thread.spawn(move || self.run()).map_err(no_thread)?;
        Ok(Running { monitor, stop, thread: Thread::Owned(thread) })
    }
}

/// The name of the thread that carries a started run.
const NAME: &str = "paceline-run";

fn no_thread(error: io::Error) -> Error {
    Error::new(ErrorKind::Start, "could not start a thread for the run").caused_by(error)
}

/// A run that is under way.
///
/// Dropping it lets the run go on without anybody to hear of its end; one
/// that was started in a scope is waited for at the end of the scope.
#[must_use = "join it to learn how the run ended"]
pub struct Running<'s> {
    monitor: Monitor,
    stop: Stop,
    thread: Thread<'s>,
}

enum Thread<'s> {
    Owned(JoinHandle<Result<Summary, Error>>),
    Scoped(ScopedJoinHandle<'s, Result<Summary, Error>>),
}

impl Running<'_> {
    /// Returns how far the run is, without waiting.
    pub fn progress(&self) -> Progress {
        self.monitor.progress()
    }

    /// Returns the handle that shows how far the run is and changes its workers.
    pub fn monitor(&self) -> &Monitor {
        &self.monitor
    }

    /// Returns the handle that stops the run.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Waits for the end of the run.
    ///
    /// # Errors
    ///
    /// If paceline could not run it; an item's failure is no error.
    ///
    /// # Panics
    ///
    /// If what takes the last stage's values panicked, or an observer, or the
    /// drop of a value that no stage had in hand: the panic goes on here.
    pub fn join(self) -> Result<Summary, Error> {
        let joined = match self.thread {
            Thread::Owned(thread) => thread.join(),
            Thread::Scoped(thread) => thread.join(),
        };
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
