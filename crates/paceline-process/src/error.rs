//! What this crate could not do.
//!
//! A child that fails is no error: its exit says so, and [`Output::check`]
//! turns it into an [`ExitError`] for whoever wants one.
//!
//! [`Output::check`]: crate::Output::check
//! [`ExitError`]: crate::ExitError

use std::error;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::capture::Captured;
use crate::exit::Exit;

/// A program and its arguments, shared by all that may have to name it.
pub(crate) type Argv = Arc<Vec<OsString>>;

/// A child could not be started, waited for or ended in time.
///
/// [`kind`](Error::kind) says what a caller can act on; the message is for
/// people and changes between versions.
///
/// ```
/// use paceline_process::{Command, ErrorKind};
///
/// let error = Command::new("no-such-program").run().unwrap_err();
/// assert_eq!(*error.kind(), ErrorKind::NotFound { program: "no-such-program".into() });
/// assert_eq!(error.to_string(), "could not find program `no-such-program`");
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    argv: Argv,
    source: Option<io::Error>,
    partial: Option<Partial>,
    /// Whether commands of the chain had been started.
    is_after_a_start: bool,
}

/// What went wrong, as far as a caller can act on it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such program: not at that path, or nowhere in `PATH`.
    NotFound {
        /// The program as it was given.
        program: PathBuf,
    },
    /// The file is there, but may not or cannot be executed.
    NotExecutable {
        /// The program as it was given.
        program: PathBuf,
    },
    /// The working directory of the child is missing or cannot be entered.
    BadCwd {
        /// The directory as it was given.
        cwd: PathBuf,
    },
    /// The arguments and the environment are longer than the system allows.
    TooLong,
    /// An argument, a variable or a path has a NUL byte in it.
    NulInArgument,
    /// This process, or the system, has no file descriptors left.
    ///
    /// It may work once others have ended; see [`is_shortage`](Error::is_shortage).
    NoDescriptors,
    /// This user, or the system, may start no more processes.
    ///
    /// It may work once others have ended; see [`is_shortage`](Error::is_shortage).
    NoProcesses,
    /// A command inside a chain redirects a stream that the chain connects.
    Contradiction,
    /// The limit passed before the child was done.
    Timeout {
        /// The limit.
        limit: Duration,
    },
    /// What the child wrote could not be kept: the temporary file failed.
    Spill,
    /// Processes of the group were still there some time after the kill.
    Unkillable {
        /// Their ids.
        pids: Vec<u32>,
    },
    /// The child cannot be isolated on this system, or by this program.
    NotSupported {
        /// Why not.
        reason: String,
    },
    /// Another system call failed.
    Io,
}

/// What there was when a limit passed: output so far, and the exit if any.
#[derive(Debug)]
pub struct Partial {
    pub(crate) exit: Option<Exit>,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
    pub(crate) elapsed: Duration,
}

impl Partial {
    /// Returns how the child ended, or `None` if it was left running.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// Returns what was captured of standard output until then.
    #[must_use]
    pub fn stdout(&self) -> &Captured {
        &self.stdout
    }

    /// Returns what was captured of standard error until then.
    #[must_use]
    pub fn stderr(&self) -> &Captured {
        &self.stderr
    }

    /// Returns the time from the start of the child until then.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, argv: &Argv, source: Option<io::Error>) -> Error {
        Error(Box::new(Inner {
            kind,
            argv: Arc::clone(argv),
            source,
            partial: None,
            is_after_a_start: false,
        }))
    }

    pub(crate) fn timeout(limit: Duration, argv: &Argv, partial: Partial) -> Error {
        let mut error = Error::new(ErrorKind::Timeout { limit }, argv, None);
        error.0.partial = Some(partial);
        error
    }

    /// An error of a system call that no option of the command explains.
    pub(crate) fn io(source: io::Error) -> Error {
        let kind = match source.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => ErrorKind::NoDescriptors,
            _ => ErrorKind::Io,
        };
        Error::new(kind, &Argv::default(), Some(source))
    }

    pub(crate) fn read_output(source: io::Error) -> Error {
        Error::io(source)
    }

    pub(crate) fn spill(source: io::Error) -> Error {
        Error::new(ErrorKind::Spill, &Argv::default(), Some(source))
    }

    /// Says which command the error is about.
    pub(crate) fn about(mut self, argv: &Argv) -> Error {
        self.0.argv = Arc::clone(argv);
        self
    }

    pub(crate) fn after_a_start(mut self) -> Error {
        self.0.is_after_a_start = true;
        self
    }

    /// Returns what went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Says whether it is for want of descriptors or processes, and nothing
    /// was started: it can be when others have ended. Running fewer at once
    /// is the answer; the item is not to blame. Where the first commands of a
    /// chain had been started, it is a failure: they have been at work.
    #[must_use]
    pub fn is_shortage(&self) -> bool {
        let is_lacking = matches!(self.0.kind, ErrorKind::NoDescriptors | ErrorKind::NoProcesses);
        is_lacking && !self.0.is_after_a_start
    }

    /// Returns the command the error is about: its program and arguments.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.0.argv
    }

    /// Returns what there was when the limit passed, if this is a timeout.
    #[must_use]
    pub fn partial(&self) -> Option<&Partial> {
        self.0.partial.as_ref()
    }

    /// Returns what there was when the limit passed, if this is a timeout.
    #[must_use]
    pub fn into_partial(self) -> Option<Partial> {
        self.0.partial
    }

    /// Returns what the user might do about it, if that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        let os_error = self.0.source.as_ref().and_then(io::Error::raw_os_error);
        match (&self.0.kind, os_error) {
            (ErrorKind::NotExecutable { .. }, Some(libc::ENOEXEC)) => {
                Some("give a script a first line such as `#!/bin/sh`, or run it with `sh FILE`")
            }
            (ErrorKind::NotExecutable { .. }, Some(libc::ENOENT)) => {
                Some("the file is there: what is missing is its interpreter, see its first line")
            }
            (ErrorKind::NotExecutable { .. }, Some(libc::EACCES)) => {
                Some("make it executable with `chmod +x FILE`")
            }
            (ErrorKind::TooLong, _) => Some("give long input on standard input instead"),
            (ErrorKind::NoDescriptors, _) => {
                Some("raise the limit with `ulimit -n`, or run fewer at once")
            }
            (ErrorKind::NoProcesses, _) => {
                Some("raise the limit with `ulimit -u`, or run fewer at once")
            }
            (ErrorKind::NotSupported { .. }, _) => Some("run it without isolation"),
            (ErrorKind::Spill, _) => {
                Some("free some space, or set `TMPDIR` to a directory with more of it")
            }
            _ => None,
        }
    }
}

/// Writes a command as one line for people, not for a shell.
pub(crate) fn shown(argv: &[OsString]) -> String {
    let words: Vec<_> = argv.iter().map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

fn program(argv: &[OsString]) -> &Path {
    Path::new(argv.first().map_or(OsStr::new("?"), OsString::as_os_str))
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let about = program(&self.0.argv).display();
        match &self.0.kind {
            ErrorKind::NotFound { program } => {
                write!(f, "could not find program `{}`", program.display())
            }
            ErrorKind::NotExecutable { program } => {
                write!(f, "could not execute `{}`", program.display())
            }
            ErrorKind::BadCwd { cwd } => {
                write!(f, "could not start `{about}` in directory `{}`", cwd.display())
            }
            ErrorKind::TooLong => {
                write!(f, "could not start `{about}`: its arguments and environment are too long")
            }
            ErrorKind::NulInArgument => {
                write!(f, "could not start `{about}`: there is a NUL byte in its arguments")
            }
            ErrorKind::NoDescriptors => {
                write!(f, "could not start `{about}`: no file descriptors left")
            }
            ErrorKind::NoProcesses => write!(f, "could not start `{about}`: no processes left"),
            ErrorKind::Contradiction => {
                write!(f, "could not start `{about}`: the chain connects the stream it redirects")
            }
            ErrorKind::Timeout { limit } => {
                write!(f, "`{}` was not done after {limit:?}", shown(&self.0.argv))
            }
            ErrorKind::Spill => write!(f, "could not keep the output of `{about}`"),
            ErrorKind::Unkillable { pids } => {
                write!(f, "processes {pids:?} of `{about}` did not end when killed")
            }
            ErrorKind::NotSupported { reason } => {
                write!(f, "could not isolate `{about}`: {reason}")
            }
            ErrorKind::Io => write!(f, "could not run `{about}`"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("argv", &self.0.argv)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}
