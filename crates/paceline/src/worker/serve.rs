//! Long-lived worker processes: the kind `serve`.
//!
//! A stage of this kind starts its workers once and exchanges items for
//! answers with them, in one of three framings. What an item is asked as, and
//! what an answer means, is an [`Exchange`]; which program the workers are,
//! and when they are replaced, is a [`Serve`].
//!
//! Not here: who gets which item and what a worker's death costs, which is
//! the stage's loop (`run/serve_loop.rs`), and the worker's own side
//! (`serve.rs`).

use std::{fmt, io::Write as _, sync::Arc, time::Duration};

use paceline_process::Command;

use super::Attempt;
use crate::failure::BoxError;

pub(crate) mod framing;
pub(crate) mod process;
pub(crate) mod slate;

/// How requests and answers are told apart on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Framing {
    /// One item a line on standard input, one line on standard output. One
    /// item at a time, for a line says not which item it answers.
    Lines,
    /// A line `{"id": 1, "value": ...}` an item, and for each a line
    /// `{"id": 1, "value": ...}` or `{"id": 1, "error": "why"}`, in any order.
    Json,
    /// The frames of [`serve`](crate::serve), on a private socket.
    Frames,
}

/// In which form a value is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// Bytes, of which text is a case.
    Bytes,
    /// JSON text. As a request in [`Framing::Json`] it is the members of the
    /// object that stand beside `id`.
    Json,
}

/// What a stage asks its workers for an item, and what it makes of the answer.
///
/// ```no_run
/// use paceline::{Attempt, BoxError, Command, Exchange, Form, Pipeline, Serve};
///
/// /// The line that a worker makes of a line.
/// struct Line;
///
/// impl Exchange<String> for Line {
///     type Out = String;
///
///     fn request(&self, item: &String, _: &Attempt, to: &mut Vec<u8>) -> Result<Form, BoxError> {
///         to.extend_from_slice(item.as_bytes());
///         Ok(Form::Bytes)
///     }
///
///     fn answer(&self, _: String, _: &Attempt, _: Form, line: &[u8]) -> Result<String, BoxError> {
///         Ok(String::from_utf8(line.to_vec())?)
///     }
/// }
///
/// let upper = Command::new("sed").args(["-u", "s/.*/\\U&/"]);
/// let (lines, _) = Pipeline::from_iter(["a".to_string()])
///     .serve("shout", Serve::lines(upper), Line)
///     .collect()?;
/// assert_eq!(lines, ["A"]);
/// # Ok::<(), paceline::Error>(())
/// ```
pub trait Exchange<In>: Send + Sync {
    /// What the stage gives for an item.
    type Out;

    /// Appends what is asked for `item` to `request`, which has other
    /// requests in it already, and says which form it has.
    ///
    /// # Errors
    ///
    /// Whatever makes this attempt fail before a worker has heard of it.
    fn request(
        &self,
        item: &In,
        attempt: &Attempt,
        request: &mut Vec<u8>,
    ) -> Result<Form, BoxError>;

    /// Makes the stage's value of an item and its answer.
    ///
    /// # Errors
    ///
    /// Whatever makes this attempt fail although there is an answer.
    fn answer(
        &self,
        item: In,
        attempt: &Attempt,
        form: Form,
        answer: &[u8],
    ) -> Result<Self::Out, BoxError>;
}

/// Which program the workers of a stage are, and when they are replaced.
///
/// See [`Pipeline::serve`](crate::Pipeline::serve) for how it is used.
#[derive(Clone)]
pub struct Serve {
    pub(crate) command: Command,
    pub(crate) framing: Framing,
    pub(crate) prelude: Vec<u8>,
    pub(crate) max_items: u64,
    pub(crate) max_age: Option<Duration>,
    pub(crate) max_memory: Option<u64>,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) start_within: Duration,
    pub(crate) on_stderr: OnStderr,
}

/// Who is told what workers write to their standard error, in whole lines.
pub(crate) type OnStderr = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Long enough for an import that reads gigabytes, short enough to be noticed.
const START_WITHIN: Duration = Duration::from_secs(60);

impl Serve {
    /// Workers that answer each line with a line.
    pub fn lines(command: Command) -> Self {
        Self::new(command, Framing::Lines)
    }

    /// Workers that answer JSON objects with JSON objects.
    pub fn json(command: Command) -> Self {
        Self::new(command, Framing::Json)
    }

    /// Workers that call [`serve`](crate::serve).
    pub fn frames(command: Command) -> Self {
        Self::new(command, Framing::Frames)
    }

    fn new(command: Command, framing: Framing) -> Self {
        Self {
            command,
            framing,
            prelude: Vec::new(),
            max_items: u64::MAX,
            max_age: None,
            max_memory: None,
            idle_after: None,
            start_within: START_WITHIN,
            on_stderr: Arc::new(|lines| {
                // Nobody is left to tell if that cannot be written.
                let _ = std::io::stderr().write_all(lines);
            }),
        }
    }

    /// Replaces a worker after exactly so many items, 1 or more.
    #[must_use]
    pub fn max_items(mut self, items: u64) -> Self {
        self.max_items = items.max(1);
        self
    }

    /// Replaces a worker that is as old as this, between two items.
    #[must_use]
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(age);
        self
    }

    /// Replaces a worker that has more than so many bytes resident, between two items.
    #[must_use]
    pub fn max_memory(mut self, bytes: u64) -> Self {
        self.max_memory = Some(bytes);
        self
    }

    /// Ends a worker that has had nothing to do for so long. It is started
    /// again when there is work for it.
    #[must_use]
    pub fn idle_after(mut self, time: Duration) -> Self {
        self.idle_after = Some(time);
        self
    }

    /// Sets how long a worker of [`Framing::Frames`] may take until it is
    /// ready, 60 s unless set. One that takes longer counts as having died.
    #[must_use]
    pub fn start_within(mut self, time: Duration) -> Self {
        self.start_within = time;
        self
    }

    /// Sends these bytes to each worker before anything else.
    #[must_use]
    pub fn prelude(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.prelude = bytes.into();
        self
    }

    /// Has `tell` called with what workers write to their standard error, in
    /// whole lines. Without it that goes to ours.
    #[must_use]
    pub fn on_stderr(mut self, tell: impl Fn(&[u8]) + Send + Sync + 'static) -> Self {
        self.on_stderr = Arc::new(tell);
        self
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("command", &self.command)
            .field("framing", &self.framing)
            .field("max_items", &self.max_items)
            .finish_non_exhaustive()
    }
}

/// What a worker process says of an item that it could not do.
///
/// It is the [`cause`](crate::Failure::cause) of the item's failure, of kind
/// [`FailureKind::Worker`](crate::FailureKind::Worker).
///
/// ```
/// # use paceline::RemoteError;
/// fn traceback_of(failure: &paceline::Failure) -> Option<&str> {
///     failure.cause().downcast_ref::<RemoteError>()?.traceback()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteError {
    pub(crate) name: Option<String>,
    pub(crate) message: String,
    pub(crate) traceback: Option<String>,
}

impl RemoteError {
    /// Returns the type of the error in the worker, such as `ValueError`, if it gave one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns what the error says.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the text of the worker's stack at the error, if it gave one.
    pub fn traceback(&self) -> Option<&str> {
        self.traceback.as_deref()
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, &*self.message) {
            (None, message) => f.write_str(message),
            (Some(name), "") => f.write_str(name),
            (Some(name), message) => write!(f, "{name}: {message}"),
        }
    }
}

impl std::error::Error for RemoteError {}
