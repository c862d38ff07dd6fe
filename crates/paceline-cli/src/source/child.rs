//! A command as a source: the lines that it writes.
//!
//! It is started with the first item asked for and has a process group of its
//! own, which is ended when the source is stopped or dropped.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paceline_process::{Child, Command, Exit, Stdout};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::message::reason;
use crate::report::faults;
use crate::words::quote_all;

use super::fields::Format;
use super::input::{Input, Interrupt, Wait};
use super::records::{Next, Records, Separator};
use super::{SourceError, Step};

/// How long a command that was asked to end may take.
const GRACE: Duration = Duration::from_secs(2);

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
    Running { child: Box<Running>, records: Box<Records> },
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

    pub(super) fn ready(&self) -> usize {
        match &self.state {
            State::Running { records, .. } => records.ready(),
            State::Waiting | State::Ended => 0,
        }
    }

    pub(super) fn step(&mut self) -> Result<Step, SourceError> {
        if let State::Waiting = self.state {
            let (child, output) = self.start().map_err(|reason| self.failed(&reason))?;
            let input = Input::new(output, &self.interrupt);
            let records = Box::new(Records::new(input, self.separator.clone()));
            self.state = State::Running { child: Box::new(child), records };
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
                Ok(Some(exit)) => {
                    self.state = State::Ended;
                    if exit.success() { Ok(Step::End) } else { Err(self.failed(&exit.to_string())) }
                }
                Ok(None) => {
                    self.end();
                    Ok(Step::Stopped)
                }
                Err(reason) => Err(self.failed(&reason)),
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

    /// Starts the command; the error is the reason in words.
    fn start(&self) -> Result<(Running, OwnedFd), String> {
        let words = self.words.iter().cloned().map(OsString::from_vec).collect();
        let folder = if self.folder.as_os_str().is_empty() { Path::new(".") } else { &self.folder };
        let mut child = Command::from_argv(words)
            .cwd(folder)
            .stdout(Stdout::Pipe)
            .spawn()
            .map_err(|error| faults::line(&error))?;
        let lacking = |error: std::io::Error| reason(&error);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let Some(pid) = pid else { unreachable!("a child has a process number") };
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|error| lacking(error.into()))?;
        let Some(output) = child.take_stdout() else {
            unreachable!("the output was asked for as a pipe");
        };
        Ok((Running { child, pidfd }, output.into()))
    }

    fn failed(&self, reason: &str) -> SourceError {
        let command = quote_all(self.words.iter().map(Vec::as_slice));
        SourceError::new(format!("the source's command `{command}` failed: {reason}"))
    }
}

impl Running {
    /// Waits for the end; `None` if the interrupt comes first.
    fn wait(&self, interrupt: &Interrupt) -> Result<Option<Exit>, String> {
        match interrupt.wait(self.pidfd.as_fd(), None).map_err(|error| reason(&error))? {
            Wait::Stopped => Ok(None),
            Wait::Ready | Wait::TimedOut => {
                self.child.wait().map(Some).map_err(|error| faults::line(&error))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whatever goes wrong here, dropping the child ends what is left of it.
        let _ = self.child.stop(GRACE);
    }
}
