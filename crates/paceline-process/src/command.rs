//! The description of a child: what to run, where, and with which streams.
//!
//! Each stream has one setting of one type, so that two that contradict each
//! other cannot both be given. A description is not used up: it may be run
//! many times, from many threads.
//!
//! Not here: starting it (`spawn.rs`).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::environment::Inherited;
use crate::error::Argv;
use crate::isolate::Isolation;

/// 1 MiB: a thousand children at once then stay within a gigabyte.
const SPILL_AFTER: usize = 1024 * 1024;

/// Long enough for a descendant that is ending too, short enough to go unseen.
const DRAIN_LIMIT: Duration = Duration::from_millis(200);

/// What to run, where, and with which streams.
///
/// Without further settings a child reads nothing (`/dev/null`) and writes
/// where this program writes.
///
/// A program given without a slash is looked up in this program's `PATH`, and
/// a relative path starts from this program's directory, whatever the child
/// is given: [`env`](Self::env) and [`cwd`](Self::cwd) are for the child. The
/// lookup is made, and this program's environment copied, once: when a
/// command or a clone of it is first started.
///
/// ```
/// use paceline_process::{Command, Stdin, Stdout};
///
/// let output = Command::new("tr")
///     .args(["a-z", "A-Z"])
///     .stdin(Stdin::from("hello"))
///     .stdout(Stdout::Capture)
///     .run()?
///     .check()?;
/// assert_eq!(output.stdout().to_text()?, "HELLO");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a command does nothing until it is run or spawned"]
pub struct Command {
    /// The program and its arguments.
    pub(crate) argv: Argv,
    /// What the first start has found out, shared by all clones.
    pub(crate) known: Arc<Known>,
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    pub(crate) env_clear: bool,
    pub(crate) cwd: Option<PathBuf>,
    pub(crate) stdin: Option<Stdin>,
    pub(crate) stdout: Option<Stdout>,
    pub(crate) stderr: Stderr,
    pub(crate) spill_after: usize,
    pub(crate) drain_limit: Duration,
    pub(crate) isolation: Option<Isolation>,
}

/// What is found out once for a command and its clones.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Where the program is.
    pub(crate) program: OnceLock<PathBuf>,
    pub(crate) inherited: OnceLock<Inherited>,
    /// Where one that reads nothing reads it.
    pub(crate) nothing: OnceLock<Arc<OwnedFd>>,
}

/// What a child reads.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Stdin {
    /// Nothing: the child sees the end at once.
    #[default]
    Null,
    /// What this program reads.
    Inherit,
    /// These bytes, then the end. A child that does not read them all is fine.
    Bytes(Arc<[u8]>),
    /// This file, from where it stands.
    File(Arc<File>),
    /// What is written to [`Child::take_stdin`](crate::Child::take_stdin).
    Pipe,
}

/// Where a child's standard output goes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Stdout {
    /// Where this program's goes.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
    /// Into the [`Output`](crate::Output).
    Capture,
    /// Into this file, from where it stands.
    File(Arc<File>),
    /// To whoever reads [`Child::take_stdout`](crate::Child::take_stdout).
    Pipe,
}

/// Where a child's standard error goes.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Stderr {
    /// Where this program's goes.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
    /// Into the [`Output`](crate::Output).
    Capture,
    /// Into this file, from where it stands.
    File(Arc<File>),
    /// Where the child's standard output goes, in the order written.
    ToStdout,
}

impl From<Vec<u8>> for Stdin {
    fn from(bytes: Vec<u8>) -> Stdin {
        Stdin::Bytes(bytes.into())
    }
}

impl From<&[u8]> for Stdin {
    fn from(bytes: &[u8]) -> Stdin {
        Stdin::Bytes(bytes.into())
    }
}

impl From<&str> for Stdin {
    fn from(text: &str) -> Stdin {
        Stdin::Bytes(text.as_bytes().into())
    }
}

impl From<File> for Stdin {
    fn from(file: File) -> Stdin {
        Stdin::File(file.into())
    }
}

impl From<File> for Stdout {
    fn from(file: File) -> Stdout {
        Stdout::File(file.into())
    }
}

impl From<File> for Stderr {
    fn from(file: File) -> Stderr {
        Stderr::File(file.into())
    }
}

impl Command {
    /// Describes a child that runs `program` without arguments.
    pub fn new(program: impl AsRef<OsStr>) -> Command {
        Command {
            argv: Arc::new(vec![program.as_ref().to_owned()]),
            known: Arc::default(),
            env: Vec::new(),
            env_clear: false,
            cwd: None,
            stdin: None,
            stdout: None,
            stderr: Stderr::default(),
            spill_after: SPILL_AFTER,
            drain_limit: DRAIN_LIMIT,
            isolation: None,
        }
    }

    /// Describes a child by its program and its arguments in one.
    ///
    /// # Panics
    ///
    /// Panics if `argv` is empty.
    pub fn from_argv(argv: Vec<OsString>) -> Command {
        assert!(!argv.is_empty(), "a command needs a program");
        Command { argv: Arc::new(argv), ..Command::new("") }
    }

    /// Adds one argument, which the program gets as it is: no shell sees it.
    pub fn arg(self, arg: impl AsRef<OsStr>) -> Command {
        self.args([arg])
    }

    /// Adds arguments, which the program gets as they are: no shell sees them.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        Arc::make_mut(&mut self.argv).extend(args);
        self
    }

    /// Sets a variable in the child's environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Command {
        self.env.push((name.as_ref().to_owned(), Some(value.as_ref().to_owned())));
        self
    }

    /// Removes a variable from the child's environment.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Command {
        self.env.push((name.as_ref().to_owned(), None));
        self
    }

    /// Starts the child's environment from nothing, dropping earlier settings.
    pub fn env_clear(mut self) -> Command {
        self.env.clear();
        self.env_clear = true;
        self
    }

    /// Sets the child's working directory.
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Command {
        self.cwd = Some(directory.into());
        self
    }

    /// Sets what the child reads; nothing unless set.
    pub fn stdin(mut self, stdin: impl Into<Stdin>) -> Command {
        self.stdin = Some(stdin.into());
        self
    }

    /// Sets where the child's standard output goes; where ours goes unless set.
    pub fn stdout(mut self, stdout: impl Into<Stdout>) -> Command {
        self.stdout = Some(stdout.into());
        self
    }

    /// Sets where the child's standard error goes; where ours goes unless set.
    pub fn stderr(mut self, stderr: impl Into<Stderr>) -> Command {
        self.stderr = stderr.into();
        self
    }

    /// Sets how many bytes of a captured stream stay in memory; 1 MiB unless set.
    ///
    /// A stream with more goes to an unlinked file in `TMPDIR` (or `/tmp`).
    pub fn spill_after(mut self, bytes: usize) -> Command {
        self.spill_after = bytes;
        self
    }

    /// Sets how long after its exit output may still come; 200 ms unless set.
    ///
    /// Only a descendant that holds the output open makes use of it. When the
    /// limit passes the descendant is killed and the output is called
    /// [leaky](crate::Output::is_leaky).
    pub fn drain_limit(mut self, limit: Duration) -> Command {
        self.drain_limit = limit;
        self
    }

    /// Keeps the child apart, so that nothing it starts can outlive it.
    ///
    /// Starting it fails with [`NotSupported`](crate::ErrorKind::NotSupported)
    /// where the system forbids that, or if the program has not called
    /// [`init`](crate::init). A file without `#!` that is no program is found
    /// out too late for an error: the child exits with 126.
    pub fn isolate(mut self, isolation: Isolation) -> Command {
        self.isolation = Some(isolation);
        self
    }

    /// Returns the program and its arguments.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.argv
    }
}
