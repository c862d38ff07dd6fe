//! What became of a child or a chain, and whether that counts as a failure.
//!
//! The rule for a chain is the shell's `pipefail` with one exception: a
//! command that was ended by SIGPIPE had more to say than its reader wanted,
//! which is how `yes | head -n1` is meant to end.

use std::error;
use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use crate::capture::Captured;
use crate::error::{Argv, shown};
use crate::exit::{Ended, Exit, Signal};

/// What became of a child, or of all children of a chain.
#[derive(Debug)]
pub struct Output {
    pub(crate) argvs: Vec<Argv>,
    pub(crate) ended: Vec<Ended>,
    pub(crate) broken_pipe: BrokenPipe,
    pub(crate) stdout: Captured,
    pub(crate) stderr: Captured,
    pub(crate) leaky: bool,
    pub(crate) elapsed: Duration,
}

/// What it means when SIGPIPE ends a command of a chain that is not its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BrokenPipe {
    /// The reader had what it wanted: a success.
    #[default]
    IsSuccess,
    /// A failure, as in a shell with `pipefail`.
    IsFailure,
}

impl Output {
    /// Says whether nothing failed.
    #[must_use]
    pub fn success(&self) -> bool {
        self.failed().is_none()
    }

    /// Returns the exit that decides: the first failure's, or the last child's.
    #[must_use]
    pub fn exit(&self) -> Exit {
        decisive(self.ended.iter().map(|ended| ended.exit), self.broken_pipe).1
    }

    /// Returns which command failed, counted from 0, or `None` if none did.
    ///
    /// If several did it is the first that was not ended by SIGPIPE, since
    /// the others may have failed for want of its output.
    #[must_use]
    pub fn failed(&self) -> Option<usize> {
        decisive(self.ended.iter().map(|ended| ended.exit), self.broken_pipe).0
    }

    /// Returns the end of each command, in order; one if it was no chain.
    #[must_use]
    pub fn exits(&self) -> &[Ended] {
        &self.ended
    }

    /// Returns the processor time of all commands together.
    #[must_use]
    pub fn cpu(&self) -> Duration {
        self.ended.iter().map(|ended| ended.usage.cpu()).sum()
    }

    /// Returns program and arguments of each command, in order.
    pub fn argvs(&self) -> impl Iterator<Item = &[OsString]> {
        self.argvs.iter().map(|argv| argv.as_slice())
    }

    /// Returns what was captured of (the last command's) standard output.
    #[must_use]
    pub fn stdout(&self) -> &Captured {
        &self.stdout
    }

    /// Returns what was captured of standard error.
    ///
    /// In a chain it is that of all commands that capture it, as it came.
    #[must_use]
    pub fn stderr(&self) -> &Captured {
        &self.stderr
    }

    /// Hands over standard output and standard error.
    #[must_use]
    pub fn into_streams(self) -> (Captured, Captured) {
        (self.stdout, self.stderr)
    }

    /// Hands over standard error; nothing of it is left here.
    #[must_use]
    pub fn take_stderr(&mut self) -> Captured {
        std::mem::take(&mut self.stderr)
    }

    /// Says whether a descendant still held the output open at the end.
    ///
    /// What it wrote past the drain limit is not in the output.
    #[must_use]
    pub fn is_leaky(&self) -> bool {
        self.leaky
    }

    /// Returns the time from the start of the first child to the last exit.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns the output, or an error if a command failed.
    ///
    /// ```
    /// use paceline_process::{Command, Stdout};
    ///
    /// let hello = Command::new("echo").arg("hello").stdout(Stdout::Capture).run()?.check()?;
    /// assert_eq!(hello.stdout().to_text()?, "hello\n");
    ///
    /// let error = Command::new("sh").args(["-c", "exit 3"]).run()?.check().unwrap_err();
    /// assert_eq!(error.exit().code(), Some(3));
    /// assert_eq!(error.to_string(), "`sh -c exit 3` failed: exit status 3");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`ExitError`], with the output inside, if a command failed.
    pub fn check(self) -> Result<Output, ExitError> {
        match self.failed() {
            None => Ok(self),
            Some(index) => Err(ExitError(Box::new((index, self)))),
        }
    }
}

/// Returns which exit is a failure, if one is, and the exit that decides.
pub(crate) fn decisive(
    exits: impl ExactSizeIterator<Item = Exit>,
    broken_pipe: BrokenPipe,
) -> (Option<usize>, Exit) {
    let last = exits.len().saturating_sub(1);
    let mut pipe_broke = None;
    let mut last_exit = Exit::LOST;
    for (index, exit) in exits.enumerate() {
        last_exit = exit;
        if exit.signal() == Some(Signal::PIPE) && index != last {
            pipe_broke = pipe_broke.or(Some((Some(index), exit)));
        } else if !exit.success() {
            return (Some(index), exit);
        }
    }
    match (pipe_broke, broken_pipe) {
        (Some(broke), BrokenPipe::IsFailure) => broke,
        _ => (None, last_exit),
    }
}

/// A command failed, for callers that take this as an error.
pub struct ExitError(Box<(usize, Output)>);

impl ExitError {
    /// Returns which command failed, counted from 0 along the chain.
    #[must_use]
    pub fn index(&self) -> usize {
        self.0.0
    }

    /// Returns the program and the arguments that failed.
    #[must_use]
    pub fn argv(&self) -> &[OsString] {
        &self.output().argvs[self.index()]
    }

    /// Returns how it ended.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.output().ended[self.index()].exit
    }

    /// Returns what was captured of standard output.
    #[must_use]
    pub fn stdout(&self) -> &Captured {
        &self.output().stdout
    }

    /// Returns what was captured of standard error.
    #[must_use]
    pub fn stderr(&self) -> &Captured {
        &self.output().stderr
    }

    /// Returns all there is to know of the run.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.0.1
    }

    /// Hands over all there is to know of the run.
    #[must_use]
    pub fn into_output(self) -> Output {
        self.0.1
    }
}

impl fmt::Display for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.output().ended.len();
        if count > 1 {
            write!(f, "command {} of {count}, ", self.index() + 1)?;
        }
        write!(f, "`{}` failed: {}", shown(self.argv()), self.exit())
    }
}

impl fmt::Debug for ExitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExitError")
            .field("index", &self.index())
            .field("argv", &self.argv())
            .field("exit", &self.exit())
            .finish_non_exhaustive()
    }
}

impl error::Error for ExitError {}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Exit = Exit::from_code(0);
    const PIPE: Exit = Exit::from_signal(13, false);

    fn failed(exits: &[Exit], broken_pipe: BrokenPipe) -> Option<usize> {
        let (index, exit) = decisive(exits.iter().copied(), broken_pipe);
        assert_eq!(exit, exits[index.unwrap_or(exits.len() - 1)]);
        index
    }

    #[test]
    fn the_first_failure_decides_unless_it_is_only_a_broken_pipe() {
        let three = Exit::from_code(3);
        let killed = Exit::from_signal(9, false);
        let cases: [(&[Exit], Option<usize>, Option<usize>); 8] = [
            (&[OK], None, None),
            (&[three], Some(0), Some(0)),
            (&[PIPE], Some(0), Some(0)),
            (&[PIPE, OK], None, Some(0)),
            (&[PIPE, PIPE, OK], None, Some(0)),
            (&[OK, PIPE], Some(1), Some(1)),
            (&[PIPE, killed, OK], Some(1), Some(1)),
            (&[three, killed], Some(0), Some(0)),
        ];
        for (exits, lenient, strict) in cases {
            assert_eq!(failed(exits, BrokenPipe::IsSuccess), lenient, "{exits:?}");
            assert_eq!(failed(exits, BrokenPipe::IsFailure), strict, "{exits:?}");
        }
    }
}
