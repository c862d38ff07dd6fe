//! The built-in steps of a pipeline file: `fetch`, `resize` and `put`.
//!
//! Each is one function that does one attempt at one item, and says in its
//! [`StepError`] whether another attempt could end otherwise. The asynchronous
//! ones hand every file operation to a blocking thread, so that a slow disk
//! never holds up the event loop.
//!
//! Not here: retries and the timeout of a stage (the engine's), the
//! replacement of placeholders, and where an output file may be
//! ([`output_file`](crate::output_file)).

use std::error::Error;
use std::fmt;
use std::io;

use crate::message::words_of;

pub(crate) mod fetch;
pub(crate) mod file_url;
pub(crate) mod http;
pub(crate) mod put;
pub(crate) mod resize;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use http::Http;

/// What a failure of a built-in step is called in the account and with `--json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file, a connection or the data itself: whatever has no name of its own.
    Io,
    /// A server did not answer, or stopped sending, for too long.
    Timeout,
    /// A name is longer than the file system allows.
    TooLong,
    /// The work was stopped before it was done.
    Cancelled,
}

/// One attempt of a built-in step failed: data about an item, never the end of a run.
///
/// `Display` gives the message alone; [`line`](StepError::line) adds the causes.
#[derive(Debug)]
pub(crate) struct StepError {
    kind: Kind,
    permanent: bool,
    pushback: bool,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl StepError {
    /// A failure that another attempt would only repeat.
    pub(crate) fn permanent(message: impl Into<String>) -> Self {
        Self {
            kind: Kind::Io,
            permanent: true,
            pushback: false,
            message: message.into(),
            source: None,
        }
    }

    /// A failure that may be gone at the next attempt.
    pub(crate) fn passing(message: impl Into<String>) -> Self {
        Self { permanent: false, ..Self::permanent(message) }
    }

    /// A failure of the operating system, worth another attempt unless its
    /// cause is one that stays, such as a missing file.
    pub(crate) fn from_io(message: impl Into<String>, error: io::Error) -> Self {
        use io::ErrorKind as E;
        let kind = match error.kind() {
            E::InvalidFilename => Kind::TooLong,
            E::TimedOut => Kind::Timeout,
            _ => Kind::Io,
        };
        let permanent = matches!(
            error.kind(),
            E::InvalidFilename
                | E::InvalidInput
                | E::IsADirectory
                | E::NotADirectory
                | E::NotFound
                | E::PermissionDenied
                | E::ReadOnlyFilesystem
                | E::Unsupported
        );
        Self { kind, permanent, ..Self::permanent(message) }.caused_by(error)
    }

    pub(crate) fn caused_by(self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// Says whether it is so because whoever was asked is overloaded.
    pub(crate) fn with_pushback(self, pushback: bool) -> Self {
        Self { pushback, ..self }
    }

    pub(crate) fn is_pushback(&self) -> bool {
        self.pushback
    }

    pub(crate) fn with_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Says whether another attempt would only fail in the same way.
    pub(crate) fn is_permanent(&self) -> bool {
        self.permanent
    }

    /// Gives the message and its causes on one line, for the line about a
    /// failed item and for the journal.
    ///
    /// A cause that only says again what stands before it is left out.
    pub(crate) fn line(&self) -> String {
        let mut line = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let text = one_line(&words_of(error));
            if !line.contains(&text) {
                line.push_str(": ");
                line.push_str(&text);
            }
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for StepError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Bytes of a name as they may be shown on a terminal: control characters
/// and what is not UTF-8 are escaped.
pub(crate) struct Shown<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c.is_control() {
                    write!(f, "{}", c.escape_default())?
                } else {
                    write!(f, "{c}")?
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Puts text that others wrote, such as a server's answer, on one line of
/// bounded length without control characters.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 300;
    let words: Vec<&str> = text.split_whitespace().collect();
    let line: String = words.join(" ").chars().filter(|c| !c.is_control()).collect();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

/// Runs file operations on a thread that may wait.
///
/// # When stopped
///
/// Dropping the future does not stop work that has begun: it ends on its own
/// thread and drops what it owns there.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StepError> + Send + 'static,
) -> Result<T, StepError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(StepError::passing("the run ended before the work was done")
                .with_kind(Kind::Cancelled)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_thing_and_its_causes_once() {
        let error = StepError::from_io(
            "could not write `a.jpg`",
            io::Error::from(rustix::io::Errno::NOSPC),
        );
        assert_eq!(error.line(), "could not write `a.jpg`: no space left on device");
        assert_eq!(error.to_string(), "could not write `a.jpg`");
        assert_eq!((error.kind(), error.is_permanent()), (Kind::Io, false));
    }

    #[test]
    fn a_name_is_shown_without_its_control_characters() {
        let shown = Shown(b"a\x1b[31m\n\xffb \xc3\xa9").to_string();
        assert_eq!(shown, "a\\u{1b}[31m\\n\\xffb \u{e9}");
    }
}
