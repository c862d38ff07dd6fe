//! The handle of a running child or chain, for plain threads.
//!
//! All waiting goes through one loop of three steps: move what can be moved,
//! look who has ended, wait for any of it. The state is in the handle and not
//! in the loop, so a call that a limit cut short can be made again.
//!
//! Not here: the forms for tasks (`task.rs`), and the stop (`stop.rs`).

use std::io::{PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::capture::Captured;
use crate::error::{Error, Partial};
use crate::exit::{Exit, Signal};
use crate::group::Group;
use crate::linux::{self, Member, Watch};
use crate::output::Output;
use crate::reaper;
use crate::streams::Streams;
use crate::task::Watchers;

/// A running child, or the running children of a chain.
///
/// Whatever ends it, its process group ends with it: once the children have
/// exited and their output has come, what is left in the group is killed.
///
/// Dropping the handle of a child that still runs kills its group at once and
/// reaps it in the background.
///
/// ```
/// use paceline_process::{Command, Stdout};
/// use std::time::Duration;
///
/// let mut child = Command::new("sh")
///     .args(["-c", "echo partial; sleep 10"])
///     .stdout(Stdout::Capture)
///     .spawn()?;
/// let error = child.communicate(Some(Duration::from_millis(200))).unwrap_err();
/// assert_eq!(error.partial().unwrap().stdout().to_text()?, "partial\n");
///
/// let output = child.stop(Duration::from_secs(1))?;
/// assert_eq!(output.exit().as_i32(), -15);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping a child kills it"]
pub struct Child {
    pub(crate) group: Group,
    pub(crate) streams: Streams,
    pub(crate) drain_limit: Duration,
    pub(crate) stdin: Option<PipeWriter>,
    pub(crate) stdout: Option<PipeReader>,
    pub(crate) watchers: Watchers,
    pub(crate) output: Option<Output>,
}

impl Child {
    /// Returns the process id of the first child, which is its group's too.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.group.id()
    }

    /// Returns the process ids of all children, in the order of the chain.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = u32> {
        self.group.ids()
    }

    /// Returns the process group, to look at and to signal from elsewhere.
    #[must_use]
    pub fn group(&self) -> Group {
        self.group.clone()
    }

    /// Returns the writing end of standard input, once, if it is a
    /// [`Stdin::Pipe`](crate::Stdin::Pipe).
    ///
    /// The child sees the end of its input when this is dropped. Writing to a
    /// child that does not read any more is an error of the writer's.
    pub fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.stdin.take()
    }

    /// Returns the reading end of standard output, once, if it is a
    /// [`Stdout::Pipe`](crate::Stdout::Pipe).
    pub fn take_stdout(&mut self) -> Option<PipeReader> {
        self.stdout.take()
    }

    /// Returns the exit if all children have ended, without waiting.
    ///
    /// Says the same on every later call, from any thread. For a chain it is
    /// the exit that decides, as in [`Output::exit`].
    ///
    /// ```
    /// use paceline_process::Command;
    /// use std::time::Duration;
    ///
    /// let child = Command::new("sleep").arg("0.2").spawn()?;
    /// assert_eq!(child.poll(), None);
    /// let exit = child.wait()?;
    /// assert!(exit.success());
    /// assert_eq!(child.poll(), Some(exit));
    /// # Ok::<(), paceline_process::Error>(())
    /// ```
    #[must_use]
    pub fn poll(&self) -> Option<Exit> {
        self.group.poll()
    }

    /// Waits until all children have ended.
    ///
    /// Moves no bytes: a child that reads bytes given to it, or writes more
    /// captured output than a pipe holds (64 KiB), ends only if somebody
    /// calls [`communicate`](Self::communicate).
    ///
    /// # Errors
    ///
    /// If the system cannot wait; the child goes on.
    ///
    /// # When stopped
    ///
    /// Returns as soon as another thread has ended the children.
    pub fn wait(&self) -> Result<Exit, Error> {
        // Without a limit only an exit ends the wait.
        self.group.wait_until(None).map(|exit| exit.unwrap_or(Exit::LOST))
    }

    /// Waits until all children have ended, but not longer than `limit`.
    ///
    /// Returns `None` if they have not; with a limit of zero it is
    /// [`poll`](Self::poll). Moves no bytes, as [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// If the system cannot wait; the child goes on.
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<Exit>, Error> {
        self.group.wait_until(Instant::now().checked_add(limit))
    }

    /// Sends `signal` to every process of the group.
    ///
    /// # Errors
    ///
    /// As for [`Group::signal`]; a child that has ended is no error.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.group.signal(signal)
    }

    /// Asks every process of the group to end, with SIGTERM.
    ///
    /// # Errors
    ///
    /// As for [`Group::signal`]; a child that has ended is no error.
    pub fn terminate(&self) -> Result<(), Error> {
        self.group.terminate()
    }

    /// Ends every process of the group, with SIGKILL.
    ///
    /// # Errors
    ///
    /// As for [`Group::signal`]; a child that has ended is no error.
    pub fn kill(&self) -> Result<(), Error> {
        self.group.kill()
    }

    /// Sends the input, collects the output, and waits for the end.
    ///
    /// After it has succeeded it returns the same output again. A
    /// [`Stdin::Pipe`](crate::Stdin::Pipe) that nobody took is closed.
    ///
    /// # Errors
    ///
    /// [`Timeout`](crate::ErrorKind::Timeout) if `limit` passes; the error
    /// holds the output so far, the child goes on, and the call can be made
    /// again: nothing is lost, and no input is sent twice.
    /// [`Spill`](crate::ErrorKind::Spill) if the output cannot be kept; the
    /// child goes on and waits for us to read.
    ///
    /// # When stopped
    ///
    /// Returns as soon as another thread has ended the children through their
    /// [`group`](Self::group).
    pub fn communicate(&mut self, limit: Option<Duration>) -> Result<&Output, Error> {
        self.stdin = None;
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        while self.output.is_none() {
            let more = self.advance()?;
            let drained_by = self.group.look().map(|ended| ended + self.drain_limit);
            if drained_by.is_some() && self.streams.outputs_ended() {
                self.complete()?;
                break;
            }
            let now = Instant::now();
            if drained_by.is_some_and(|by| by <= now) {
                self.complete()?;
                break;
            }
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(self.timeout(limit.unwrap_or_default()));
            }
            if !more {
                let until = [deadline, drained_by].into_iter().flatten().min();
                self.wait_for_any(drained_by.is_some(), &[], until)?;
            }
        }
        Ok(self.completed())
    }

    /// Returns what was captured of standard output so far.
    #[must_use]
    pub fn stdout(&self) -> &Captured {
        self.output.as_ref().map_or_else(|| self.streams.stdout(), |output| &output.stdout)
    }

    /// Returns what was captured of standard error so far.
    #[must_use]
    pub fn stderr(&self) -> &Captured {
        self.output.as_ref().map_or_else(|| self.streams.stderr(), |output| &output.stderr)
    }

    /// Returns the output if the child is done, that is, after
    /// [`communicate`](Self::communicate) or [`stop`](Self::stop) succeeded.
    #[must_use]
    pub fn output(&self) -> Option<&Output> {
        self.output.as_ref()
    }

    /// Hands over the output if the child is done; kills it if it is not.
    #[must_use]
    pub fn into_output(mut self) -> Option<Output> {
        self.output.take()
    }

    pub(crate) fn advance(&mut self) -> Result<bool, Error> {
        self.streams.advance().map_err(|error| error.about(self.group.argv()))
    }

    /// Waits until a stream can go on, a child or one of `others` has ended,
    /// or `deadline` has passed.
    ///
    /// Returns at once if all children have ended and the caller, who says
    /// what it knows by `ended`, has yet to see it.
    pub(crate) fn wait_for_any(
        &self,
        ended: bool,
        others: &[Member],
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let mut watched: Vec<_> = self.group.watched().collect();
        if watched.is_empty() && !ended {
            return Ok(());
        }
        watched.extend(self.streams.watched());
        watched.extend(others.iter().map(|member| (member.pidfd.as_fd(), Watch::Readable)));
        linux::wait_any(&watched, deadline).map_err(|error| self.group.blame(error))
    }

    /// Kills what is left of the group, reaps, and makes the output.
    ///
    /// All children must have been seen to end.
    pub(crate) fn complete(&mut self) -> Result<(), Error> {
        // Once more: the drain limit is no excuse for bytes that are there.
        self.advance()?;
        let held = !self.streams.outputs_ended();
        let ended = self.group.finish();
        let kept = self.streams.close().map_err(|error| error.about(self.group.argv()))?;
        let (stdout, stderr) = self.streams.take_captured();
        self.output = Some(Output {
            argvs: self.group.processes().iter().map(|process| process.argv.clone()).collect(),
            ended,
            broken_pipe: self.group.broken_pipe(),
            stdout,
            stderr,
            leaky: held || kept,
            elapsed: self.group.elapsed(),
        });
        Ok(())
    }

    pub(crate) fn completed(&self) -> &Output {
        match &self.output {
            Some(output) => output,
            None => unreachable!("only called when the output has been made"),
        }
    }

    /// Turns the output of a child stopped at its limit into an error.
    pub(crate) fn into_timeout(mut self, limit: Duration) -> Error {
        match self.output.take() {
            None => self.timeout(limit),
            Some(output) => {
                let (exit, elapsed) = (Some(output.exit()), output.elapsed);
                let (stdout, stderr) = output.into_streams();
                let partial = Partial { exit, stdout, stderr, elapsed };
                Error::timeout(limit, self.group.argv(), partial)
            }
        }
    }

    pub(crate) fn timeout(&self, limit: Duration) -> Error {
        let partial = Partial {
            exit: self.group.poll(),
            stdout: self.streams.stdout().snapshot(),
            stderr: self.streams.stderr().snapshot(),
            elapsed: self.group.elapsed(),
        };
        Error::timeout(limit, self.group.argv(), partial)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.group.is_finished() {
            reaper::kill_and_reap(self.group.clone());
        }
    }
}
