//! What it means that an item's work did not succeed.
//!
//! A failure is data: it travels with the item, past the later stages, to
//! the end of the run, and never stops the run by itself. A worker says what
//! went wrong with any error; one that wants to say more (which kind, that
//! no retry will help) returns a [`Fault`].
//!
//! Not here: trouble of paceline itself, which is [`Error`](crate::Error).

use std::{error::Error, fmt, sync::Arc};

use crate::item::ItemId;

/// Any error a worker may return.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The kind of a failure: what a program can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureKind {
    /// The worker returned an error of its own.
    Failed,
    /// The worker panicked.
    Panic,
    /// A child process ended with a status other than 0.
    Exit,
    /// A child process was ended by a signal.
    Signal,
    /// The attempt took longer than the stage's timeout.
    Timeout,
    /// The program does not exist.
    NotFound,
    /// The program exists and cannot be executed.
    NotExecutable,
    /// The item or the command made of it is too long.
    TooLong,
    /// Reading or writing went wrong.
    Io,
    /// A long-lived worker process gave no proper answer.
    Worker,
    /// The attempt was stopped with the run, or cancelled before it began.
    Cancelled,
    /// The wait for it would have held up an event loop; the work goes on.
    WouldBlock,
    /// Whoever was to do the work has shut down or gone away.
    Closed,
    /// All workers of a pool waited for work that only they could do.
    Deadlock,
}

impl FailureKind {
    /// Returns the name used in JSON and in tables, such as `not-found`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Panic => "panic",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::Timeout => "timeout",
            Self::NotFound => "not-found",
            Self::NotExecutable => "not-executable",
            Self::TooLong => "too-long",
            Self::Io => "io",
            Self::Worker => "worker",
            Self::Cancelled => "cancelled",
            Self::WouldBlock => "would-block",
            Self::Closed => "closed",
            Self::Deadlock => "deadlock",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why one attempt did not succeed, as a worker tells it.
///
/// Any error becomes a fault of kind [`FailureKind::Failed`]. Build one by
/// hand to name the kind, or to say that another attempt cannot help:
///
/// ```
/// use paceline::{Fault, FailureKind, Pipeline};
///
/// let (_, summary) = Pipeline::from_iter(["a.jpg", "b.jpg"])
///     .blocking("read", |name: &str| -> Result<(), Fault> {
///         Err(Fault::new(FailureKind::Io, format!("no such file: {name}")).permanent())
///     })
///     .collect()?;
/// assert_eq!(summary.failures[0].kind(), FailureKind::Io);
/// # Ok::<(), paceline::Error>(())
/// ```
#[derive(Debug)]
pub struct Fault {
    kind: FailureKind,
    permanent: bool,
    pushback: bool,
    code: Option<i32>,
    signal: Option<i32>,
    cause: BoxError,
}

impl Fault {
    /// Makes a fault of this kind with this cause.
    pub fn new(kind: FailureKind, cause: impl Into<BoxError>) -> Self {
        Self {
            kind,
            permanent: false,
            pushback: false,
            code: None,
            signal: None,
            cause: cause.into(),
        }
    }

    /// Turns any error into a fault; an error that is a fault already stays as it is.
    pub fn from_error(error: impl Into<BoxError>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(fault) => *fault,
            Err(cause) => Self::new(FailureKind::Failed, cause),
        }
    }

    /// Says that another attempt cannot help: the stage's retries are not used.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.permanent = true;
        self
    }

    /// Says that whoever was asked is overloaded, as a server does by the
    /// statuses 429 and 503: a stage whose workers are `auto` asks less at once.
    #[must_use]
    pub fn pushback(mut self) -> Self {
        self.pushback = true;
        self
    }

    /// Adds the exit status of the child that failed.
    #[must_use]
    pub fn with_code(mut self, code: Option<i32>) -> Self {
        self.code = code;
        self
    }

    /// Adds the signal that ended the child that failed.
    #[must_use]
    pub fn with_signal(mut self, signal: Option<i32>) -> Self {
        self.signal = signal;
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> FailureKind {
        self.kind
    }

    pub(crate) fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.cause
    }

    /// The fault and what caused it, each said once.
    pub(crate) fn with_causes(&self) -> String {
        let mut line = self.to_string();
        let mut cause = Error::source(self);
        while let Some(error) = cause {
            let text = error.to_string();
            if !line.contains(&text) {
                line = format!("{line}: {text}");
            }
            cause = error.source();
        }
        line
    }

    /// Returns the exit status of the child that failed, if it is known.
    pub fn code(&self) -> Option<i32> {
        self.code
    }

    /// Returns the signal that ended the child that failed, if it is known.
    pub fn signal(&self) -> Option<i32> {
        self.signal
    }

    /// Returns whether whoever was asked is overloaded.
    pub fn is_pushback(&self) -> bool {
        self.pushback
    }

    /// Returns whether another attempt cannot help.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

/// An item's failure: which item, where, after how many attempts, and why.
///
/// Its text names the item and the stage; the cause is its
/// [`source`](Error::source), so that a chain of them reads as one line.
///
/// ```
/// use paceline::Pipeline;
///
/// let (_, summary) = Pipeline::from_iter(["1", "two"])
///     .cpu("parse", |text: &str| text.parse::<u32>())
///     .collect()?;
/// assert_eq!(summary.failures[0].to_string(), "item 2 failed in stage `parse`");
/// # Ok::<(), paceline::Error>(())
/// ```
#[derive(Clone)]
pub struct Failure(Arc<Inner>);

struct Inner {
    item: ItemId,
    stage: Arc<str>,
    attempts: u32,
    fault: Fault,
}

impl Failure {
    pub(crate) fn new(item: ItemId, stage: Arc<str>, attempts: u32, fault: Fault) -> Self {
        Self(Arc::new(Inner { item, stage, attempts, fault }))
    }

    /// Returns the item, or the items of a batch, that failed.
    pub fn item(&self) -> &ItemId {
        &self.0.item
    }

    /// Returns the name of the stage in which it failed.
    pub fn stage(&self) -> &str {
        &self.0.stage
    }

    /// Returns how many attempts were made, 1 or more.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Returns the kind.
    pub fn kind(&self) -> FailureKind {
        self.0.fault.kind
    }

    /// Returns the exit status of the child that failed, if there was one.
    pub fn code(&self) -> Option<i32> {
        self.0.fault.code
    }

    /// Returns the signal that ended the child that failed, if one did.
    pub fn signal(&self) -> Option<i32> {
        self.0.fault.signal
    }

    /// Returns the error that the worker returned.
    pub fn cause(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0.fault.cause
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed in stage `{}`", self.0.item, self.0.stage)?;
        match self.0.attempts {
            0 | 1 => Ok(()),
            attempts => write!(f, " after {attempts} attempts"),
        }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("item", &self.0.item)
            .field("stage", &self.0.stage)
            .field("attempts", &self.0.attempts)
            .field("fault", &self.0.fault)
            .finish()
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0.fault.cause)
    }
}
