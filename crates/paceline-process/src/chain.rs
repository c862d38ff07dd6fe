//! Children joined by the kernel's own pipes, and what it takes to start any.
//!
//! A single command is a chain of one, so there is one way to start and one
//! handle. The pipe between two commands is made here, given to both, and
//! closed on our side before the next is made: no byte of it passes through
//! this program, and the reader's end is seen by the writer at once.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::command::{Command, Stderr, Stdin, Stdout};
use crate::error::{Error, ErrorKind};
use crate::exit::Signal;
use crate::group::{Group, Process};
use crate::linux::{self, Watch};
use crate::output::{BrokenPipe, Output};
use crate::reaper;
use crate::spawn::{self, Stream, Wiring};
use crate::streams::Streams;
use crate::task::Watchers;
use crate::{guard, isolate, registry};

/// Commands of which each reads what the one before it writes.
///
/// The first one's standard input and the last one's standard output are
/// theirs to set; a command in between that redirects a stream that the chain
/// connects is refused. What several commands capture of standard error comes
/// out as one stream. All are in one process group, which ends as one.
///
/// ```
/// use paceline_process::{Chain, Command, Stdout};
///
/// let output = Chain::new([
///     Command::new("yes"),
///     Command::new("head").arg("-n1").stdout(Stdout::Capture),
/// ])
/// .run()?;
/// assert_eq!(output.stdout().to_text()?, "y\n");
/// // `yes` was ended by SIGPIPE, for its reader had enough: no failure.
/// assert_eq!(output.exits()[0].exit().as_i32(), -13);
/// assert!(output.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a chain does nothing until it is run or spawned"]
pub struct Chain {
    commands: Vec<Command>,
    broken_pipe: BrokenPipe,
}

impl Chain {
    /// Describes a chain of these commands, in this order.
    ///
    /// # Panics
    ///
    /// Panics if there are none.
    pub fn new(commands: impl IntoIterator<Item = Command>) -> Chain {
        let commands: Vec<_> = commands.into_iter().collect();
        assert!(!commands.is_empty(), "a chain needs a command");
        Chain { commands, broken_pipe: BrokenPipe::default() }
    }

    /// Sets what it means when SIGPIPE ends a command that is not the last;
    /// a success unless set.
    pub fn broken_pipe(mut self, meaning: BrokenPipe) -> Chain {
        self.broken_pipe = meaning;
        self
    }

    /// Sets how many bytes of a captured stream stay in memory; for the last
    /// command's setting unless set.
    pub fn spill_after(mut self, bytes: usize) -> Chain {
        self.last_mut().spill_after = bytes;
        self
    }

    /// Sets how long after the last exit output may still come; the last
    /// command's setting unless set.
    pub fn drain_limit(mut self, limit: Duration) -> Chain {
        self.last_mut().drain_limit = limit;
        self
    }

    fn last_mut(&mut self) -> &mut Command {
        match self.commands.last_mut() {
            Some(last) => last,
            None => unreachable!("refused by `Chain::new`"),
        }
    }

    /// Starts all commands. A blocking call, for plain threads.
    ///
    /// # Errors
    ///
    /// As [`Command::spawn`], about the first command that could not be
    /// started. Those before it have been killed.
    pub fn spawn(&self) -> Result<Child, Error> {
        start(&self.commands, self.broken_pipe)
    }

    /// Starts all commands, communicates, and waits for the end.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn) and [`Child::communicate`].
    pub fn run(&self) -> Result<Output, Error> {
        finish(self.spawn()?)
    }

    /// Does the same within `limit`, as [`Command::run_timeout`].
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`Timeout`](ErrorKind::Timeout).
    pub fn run_timeout(&self, limit: Duration, grace: Duration) -> Result<Output, Error> {
        finish_within(self.spawn()?, limit, grace)
    }
}

impl Command {
    /// Starts the child. A blocking call, for plain threads: the calling
    /// thread sleeps until the program is executed, which a slow disk delays.
    ///
    /// # Errors
    ///
    /// The [kind](Error::kind) says what is wrong with the program, the
    /// directory or the arguments, or which resource is lacking. No process
    /// and no descriptor is left then.
    pub fn spawn(&self) -> Result<Child, Error> {
        start(std::slice::from_ref(self), BrokenPipe::default())
    }

    /// Starts the child, communicates, and waits for the end.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn) and [`Child::communicate`]; a child that
    /// fails is no error, see [`Output::check`].
    pub fn run(&self) -> Result<Output, Error> {
        finish(self.spawn()?)
    }

    /// Does the same within `limit`, and stops the child when that passes.
    ///
    /// The child is then asked to end, and killed after `grace`.
    ///
    /// ```
    /// use paceline_process::{Command, ErrorKind};
    /// use std::time::Duration;
    ///
    /// let (limit, grace) = (Duration::from_millis(100), Duration::from_secs(1));
    /// let error = Command::new("sleep").arg("10").run_timeout(limit, grace).unwrap_err();
    /// assert_eq!(*error.kind(), ErrorKind::Timeout { limit });
    /// assert_eq!(error.partial().unwrap().exit().unwrap().as_i32(), -15);
    /// # Ok::<(), paceline_process::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run), and [`Timeout`](ErrorKind::Timeout) with the
    /// output so far and the exit. The group is then dead and reaped.
    pub fn run_timeout(&self, limit: Duration, grace: Duration) -> Result<Output, Error> {
        finish_within(self.spawn()?, limit, grace)
    }
}

fn finish(mut child: Child) -> Result<Output, Error> {
    child.communicate(None)?;
    Ok(taken(child))
}

fn finish_within(mut child: Child, limit: Duration, grace: Duration) -> Result<Output, Error> {
    match child.communicate(Some(limit)) {
        Ok(_) => Ok(taken(child)),
        Err(error) if matches!(error.kind(), ErrorKind::Timeout { .. }) => {
            child.stop(grace)?;
            Err(child.into_timeout(limit))
        }
        Err(error) => Err(error),
    }
}

fn taken(child: Child) -> Output {
    match child.into_output() {
        Some(output) => output,
        None => unreachable!("communicate made the output"),
    }
}

/// Our ends of a child's pipes.
#[derive(Default)]
struct Ours {
    feed: Option<(OwnedFd, Arc<[u8]>)>,
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    captured_stdout: Option<OwnedFd>,
    captured_stderr: Option<OwnedFd>,
}

fn start(commands: &[Command], broken_pipe: BrokenPipe) -> Result<Child, Error> {
    let guard = guard::get();
    if let Some(command) = commands.iter().find(|command| command.isolation.is_some()) {
        isolate::is_possible().map_err(|reason| {
            let kind = ErrorKind::NotSupported { reason: reason.to_owned() };
            Error::new(kind, &command.argv, None)
        })?;
    }
    let job = registry::next_job();
    let mut processes = Vec::with_capacity(commands.len());
    // From the first start until all are entered nobody looks for strays.
    let starting = registry::starting();
    let started = Instant::now();
    let since = linux::now_in_ticks();
    let result = match start_all(commands, job, &mut processes) {
        Err(error) if processes.is_empty() => return Err(error),
        result => result,
    };
    let ends_with_exit = result.as_ref().map_or(true, |(_, streams)| streams.outputs_ended());
    let group = Group::new(job, processes, started, broken_pipe, ends_with_exit);
    let slot = registry::enter(job, &group, since);
    drop(starting);
    if let Some(Ok(guard)) = guard {
        guard.enter(slot, group.leader_id(), since, linux::now_in_ticks());
    }
    if registry::is_stopped() {
        let _ = group.signal(Signal::STOP);
    }
    match result {
        Ok((ours, streams)) => {
            let last = &commands[commands.len() - 1];
            Ok(Child {
                group,
                streams,
                drain_limit: last.drain_limit,
                stdin: ours.stdin,
                stdout: ours.stdout,
                watchers: Watchers::default(),
                output: None,
            })
        }
        Err(error) => {
            reaper::kill_and_reap(group);
            Err(error.after_a_start())
        }
    }
}

/// Starts all commands when all that they are given is there: what is lacking
/// must not be found out when one of them already works.
fn start_all(
    commands: &[Command],
    job: u64,
    processes: &mut Vec<Process>,
) -> Result<(Ours, Streams), Error> {
    let last = commands.len() - 1;
    let mut ours = Ours::default();
    let wirings = ours.wire_all(commands)?;
    let streams = Streams::new(
        ours.feed.take(),
        ours.captured_stdout.take(),
        ours.captured_stderr.take(),
        commands[last].spill_after,
    );
    let streams = streams.map_err(|error| Error::io(error).about(&commands[0].argv))?;
    for (command, wiring) in commands.iter().zip(wirings) {
        let leader = processes.first().map(|leader: &Process| leader.pid);
        let mut tries = 0;
        let process = loop {
            match spawn::start(command, &wiring, leader, job) {
                Err(error)
                    if leader.is_some() && error.is_shortage() && tries < LACKING_RETRIES =>
                {
                    tries += 1;
                    linux::pause(LACKING_WAIT);
                }
                started => break started?,
            }
        };
        processes.push(process);
    }
    Ok((ours, streams))
}

/// How often and after what wait the start of a later command of a chain is tried again.
///
/// There was a descriptor for it, since the pipe end that the one before it got is closed here;
/// but another thread can have taken that. What the first command has begun must not be done
/// twice, so that the chain as a whole cannot be started again. Not for longer: meanwhile no job
/// can be swept up.
const LACKING_RETRIES: u32 = 100;
const LACKING_WAIT: Duration = Duration::from_millis(1);

impl Ours {
    fn wire_all(&mut self, commands: &[Command]) -> Result<Vec<Wiring>, Error> {
        let last = commands.len() - 1;
        // The writing end, for all who write to it.
        let mut stderr_writer = None;
        let mut upstream: Option<OwnedFd> = None;
        let mut wirings = Vec::with_capacity(commands.len());
        for (index, command) in commands.iter().enumerate() {
            let about = |error: io::Error| Error::io(error).about(&command.argv);
            let connects_stdin = index > 0 && command.stdin.is_some();
            let connects_stdout = index < last && command.stdout.is_some();
            if connects_stdin || connects_stdout {
                return Err(Error::new(ErrorKind::Contradiction, &command.argv, None));
            }
            let stdin = match upstream.take() {
                Some(reader) => reader.into(),
                None => self.wire_stdin(command).map_err(about)?,
            };
            let stdout = if index == last {
                self.wire_stdout(command.stdout.as_ref())
            } else {
                linux::pipe().map(|(reader, writer)| {
                    upstream = Some(reader);
                    writer.into()
                })
            }
            .map_err(about)?;
            let stderr =
                self.wire_stderr(&command.stderr, &stdout, &mut stderr_writer).map_err(about)?;
            wirings.push(Wiring { stdin, stdout, stderr });
        }
        Ok(wirings)
    }

    fn wire_stdin(&mut self, command: &Command) -> io::Result<Stream> {
        Ok(match command.stdin.as_ref().unwrap_or(&Stdin::Null) {
            Stdin::Null => Stream::Fd(Arc::clone(match command.known.nothing.get() {
                Some(nothing) => nothing,
                None => {
                    let nothing = linux::null(Watch::Readable)?;
                    command.known.nothing.get_or_init(|| nothing.into())
                }
            })),
            Stdin::Inherit => Stream::Inherit,
            Stdin::Bytes(bytes) => {
                let (reader, writer) = linux::pipe()?;
                self.feed = Some((writer, Arc::clone(bytes)));
                reader.into()
            }
            Stdin::File(file) => Stream::file(file)?,
            Stdin::Pipe => {
                let (reader, writer) = linux::pipe()?;
                self.stdin = Some(writer.into());
                reader.into()
            }
        })
    }

    fn wire_stdout(&mut self, stdout: Option<&Stdout>) -> io::Result<Stream> {
        Ok(match stdout.unwrap_or(&Stdout::Inherit) {
            Stdout::Inherit => Stream::Inherit,
            Stdout::Null => linux::null(Watch::Writable)?.into(),
            Stdout::Capture => {
                let (reader, writer) = linux::pipe()?;
                self.captured_stdout = Some(reader);
                writer.into()
            }
            Stdout::File(file) => Stream::file(file)?,
            Stdout::Pipe => {
                let (reader, writer) = linux::pipe()?;
                self.stdout = Some(reader.into());
                writer.into()
            }
        })
    }

    fn wire_stderr(
        &mut self,
        stderr: &Stderr,
        out: &Stream,
        shared_writer: &mut Option<Stream>,
    ) -> io::Result<Stream> {
        Ok(match stderr {
            Stderr::Inherit => Stream::Inherit,
            Stderr::Null => linux::null(Watch::Writable)?.into(),
            Stderr::Capture => match shared_writer {
                Some(writer) => writer.clone(),
                None => {
                    let (reader, writer) = linux::pipe()?;
                    self.captured_stderr = Some(reader);
                    shared_writer.insert(writer.into()).clone()
                }
            },
            Stderr::File(file) => Stream::file(file)?,
            Stderr::ToStdout => match out {
                Stream::Inherit => linux::duplicate(io::stdout())?.into(),
                out => out.clone(),
            },
        })
    }
}
