//! A command as a source: the lines that it writes.
//!
//! It is started with the first item asked for and has a process group of its
//! own, which is ended when the source is stopped or dropped.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::event::Timespec;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::message::reason;
use crate::words::quote_all;

use super::fields::Format;
use super::input::{Input, Interrupt, Wait};
use super::records::{Next, Records, Separator};
use super::{SourceError, Step};

/// How long a command that was asked to end may take.
const GRACE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// A command whose output is items.
#[derive(Debug)]
pub(super) struct ChildSource {
    words: Vec<Vec<u8>>,
    separator: Separator,
    folder: PathBuf,
    interrupt: Interrupt,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    Running { child: Running, records: Box<Records> },
    Ended,
}

#[derive(Debug)]
struct Running {
    child: Child,
    pidfd: OwnedFd,
}

impl ChildSource {
    pub(super) fn new(
        words: &[Vec<u8>],
        separator: Separator,
        folder: &Path,
        interrupt: &Interrupt,
    ) -> Self {
        let folder = folder.to_owned();
        let (words, interrupt) = (words.to_vec(), interrupt.clone());
        Self { words, separator, folder, interrupt, state: State::Waiting }
    }

    pub(super) fn is_ready(&self) -> bool {
        match &self.state {
            State::Running { records, .. } => records.is_ready(),
            State::Waiting | State::Ended => false,
        }
    }

    pub(super) fn step(&mut self) -> Result<Step, SourceError> {
        if let State::Waiting = self.state {
            let (child, output) = self.start().map_err(|error| self.failed(&reason(&error)))?;
            let input = Input::new(output, &self.interrupt);
            let records = Box::new(Records::new(input, self.separator.clone()));
            self.state = State::Running { child, records };
        }
        let State::Running { child, records } = &mut self.state else { return Ok(Step::End) };
        match records.next() {
            Ok(Next::Record(record)) => Ok(match Format::Plain.item(record) {
                Some(item) => Step::Item(item),
                None => Step::End,
            }),
            Ok(Next::Stopped) => {
                self.end();
                Ok(Step::Stopped)
            }
            Ok(Next::End) => match child.wait(&self.interrupt) {
                Ok(Some(status)) => {
                    self.state = State::Ended;
                    match complaint(status) {
                        None => Ok(Step::End),
                        Some(complaint) => Err(self.failed(&complaint)),
                    }
                }
                Ok(None) => {
                    self.end();
                    Ok(Step::Stopped)
                }
                Err(error) => Err(self.failed(&reason(&error))),
            },
            Err(error) => {
                self.end();
                Err(self.failed(&reason(&error)))
            }
        }
    }

    /// Ends the command, if it runs.
    pub(super) fn end(&mut self) {
        // Dropping it ends it.
        self.state = State::Ended;
    }

    fn start(&self) -> std::io::Result<(Running, OwnedFd)> {
        let mut words = self.words.iter().map(|word| OsStr::from_bytes(word));
        let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder };
        let mut child = Command::new(words.next().unwrap_or_default())
            .args(words)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let pidfd = match pidfd {
            Ok(pidfd) => pidfd,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(error.into());
            }
        };
        let output = child.stdout.take().map(OwnedFd::from);
        let output = output.ok_or_else(|| std::io::Error::other("it has no output"))?;
        Ok((Running { child, pidfd }, output))
    }

    fn failed(&self, reason: &str) -> SourceError {
        let command = quote_all(self.words.iter().map(Vec::as_slice));
        SourceError::new(format!("the source's command `{command}` failed: {reason}"))
    }
}

/// What is wrong with an exit status.
fn complaint(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit status {code}")),
        (None, Some(signal)) => Some(format!("ended by signal {signal}")),
        (None, None) => Some("no exit status".to_owned()),
    }
}

impl Running {
    /// Waits for the end; `None` if the interrupt comes first.
    fn wait(&mut self, interrupt: &Interrupt) -> std::io::Result<Option<ExitStatus>> {
        match interrupt.wait(self.pidfd.as_fd(), None)? {
            Wait::Stopped => Ok(None),
            Wait::Ready | Wait::TimedOut => self.child.wait().map(Some),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process_group(group, Signal::TERM);
            let mut fds = [rustix::event::PollFd::new(&self.pidfd, rustix::event::PollFlags::IN)];
            let _ = rustix::event::poll(&mut fds, Some(&GRACE));
            // Before the child is reaped, so that the group's number is still its own.
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}
