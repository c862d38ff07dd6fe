//! What paceline itself could not do.

use std::{error, fmt, io};

use crate::failure::{BoxError, Fault};

/// Paceline could not build or run a pipeline. An item's failure is never
/// one: it is a [`Failure`](crate::Failure) in the summary.
///
/// [`kind`](Error::kind) says what a caller can act on; the message is for
/// people and changes between versions.
///
/// ```
/// use paceline::{ErrorKind, Pipeline};
///
/// let error = Pipeline::from_iter([1])
///     .cpu("nothing", |_| Ok::<_, paceline::BoxError>(()))
///     .workers(0)
///     .run()
///     .unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert_eq!(error.to_string(), "stage `nothing` has 0 workers");
/// ```
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<BoxError>,
}

/// What a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The pipeline cannot work as it was built. Nothing was run.
    Invalid,
    /// A thread or an event loop could not be started, or for ten seconds no
    /// child process while none ran. Items taken before are unfinished.
    Start,
    /// The worker processes of a stage could not be kept going. Items that
    /// were not done are unfinished.
    Worker,
    /// The source panicked. Items taken before were finished.
    Source,
    /// The journal cannot be written any more. What is not recorded is unfinished.
    Journal,
    /// The account does not add up: a defect of paceline.
    Account,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(crate) fn caused_by(mut self, source: io::Error) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn because(mut self, cause: Fault) -> Self {
        self.source = Some(cause.into());
        self
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
