//! One worker process: its channel, its standard error, and its end.
//!
//! Nothing here waits but [`leave`]: bytes are moved as far as they go, and
//! [`Process::poll_ready`] tells when to try again. A worker of
//! [`Framing::Frames`] has a socket as its standard input, and as its
//! standard output a file in memory, the slate: it writes its answers there
//! before it sends them, and which item it has begun. When it dies, that
//! tells what it had in hand, and saves the answers it had yet to send.

use std::{
    collections::VecDeque,
    fs::File,
    future::{Future, poll_fn},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream as StdStream,
    },
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use paceline_process::{Child, Exit, ExitWatch, Group, SharedMemory, Stderr, Stdin, Stdout};
use rustix::{io::Errno, net::SendFlags};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::{
    Framing, OnStderr, Serve,
    framing::{LONGEST, Reader, Requests},
    slate::{SLATE, Slate, Written},
};
use crate::{
    failure::{FailureKind, Fault},
    meter::memory_of,
    worker::command::{io_trouble, not_started},
};

/// How much is read at once: what a socket holds.
const CHUNK: usize = 128 * 1024;

/// How much of what a worker said last is kept for messages.
const TAIL: usize = 4 * 1024;

/// The way to a worker and back: two pipes, or a socket.
///
/// The runtime watches the way back alone. Were it told of the other as well,
/// a worker that reads its requests would wake us each time: that is watched
/// only while it is full.
struct Channel {
    back: Receiver,
    there: Way,
    is_socket: bool,
}

/// The way to a worker. It never waits.
enum Way {
    Free(OwnedFd),
    /// It was full, and is watched until all has been written.
    Watched(Sender),
    /// It could not be watched.
    Lost,
}

impl Channel {
    /// Of our end of a socket pair.
    fn of_socket(socket: StdStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // A socket is read as a pipe is, and a receiver does no more.
        let back = Receiver::from_owned_fd_unchecked(socket.try_clone()?.into())?;
        Ok(Self { back, there: Way::Free(socket.into()), is_socket: true })
    }

    /// Of our ends of two pipes.
    fn of_pipes(there: OwnedFd, back: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&there, true)?;
        let back = Receiver::from_owned_fd(back)?;
        Ok(Self { back, there: Way::Free(there), is_socket: false })
    }

    fn try_read(&self, room: &mut Vec<u8>) -> io::Result<usize> {
        room.reserve(CHUNK);
        self.back.try_read_buf(room)
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_socket = self.is_socket;
        let write = |fd: BorrowedFd<'_>| match is_socket {
            true => rustix::net::send(fd, bytes, SendFlags::NOSIGNAL),
            false => rustix::io::write(fd, bytes),
        };
        match &self.there {
            Way::Free(fd) => {
                let written = write(fd.as_fd());
                if written == Err(Errno::AGAIN)
                    && let Way::Free(fd) = std::mem::replace(&mut self.there, Way::Lost)
                {
                    self.there = Way::Watched(Sender::from_owned_fd_unchecked(fd)?);
                }
                Ok(written?)
            }
            Way::Watched(sender) => sender.try_io(|| Ok(write(sender.as_fd())?)),
            Way::Lost => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Takes note that all has been written.
    fn has_written(&mut self) {
        if let Way::Watched(_) = &self.there
            && let Way::Watched(sender) = std::mem::replace(&mut self.there, Way::Lost)
            && let Ok(fd) = sender.into_nonblocking_fd()
        {
            self.there = Way::Free(fd);
        }
    }

    /// Whether something has come, or there is room for what is to be written.
    fn poll_ready(&self, writes: bool, cx: &mut Context<'_>) -> bool {
        let has_come = self.back.poll_read_ready(cx).is_ready();
        let has_room = match &self.there {
            Way::Watched(sender) => writes && sender.poll_write_ready(cx).is_ready(),
            Way::Free(_) | Way::Lost => false,
        };
        has_come || has_room
    }
}

/// What workers write to their standard error.
struct Errors {
    pipe: Option<Receiver>,
    on_stderr: OnStderr,
    /// A line whose end is yet to come.
    line: Vec<u8>,
    tail: VecDeque<u8>,
}

impl Errors {
    /// Reads what is there. Bounded, lest a worker that floods keep us here.
    fn pump(&mut self) {
        for _ in 0..16 {
            let Some(pipe) = &self.pipe else { return };
            let start = self.line.len();
            self.line.reserve(8 * 1024);
            match pipe.try_read_buf(&mut self.line) {
                Ok(0) => self.end(),
                Ok(_) => self.took(start),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.end(),
            }
        }
    }

    /// Passes on the lines that what was read from `start` on has made whole.
    fn took(&mut self, start: usize) {
        self.tail.extend(&self.line[start..]);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
        if let Some(newline) = self.line[start..].iter().rposition(|byte| *byte == b'\n') {
            let rest = self.line.split_off(start + newline + 1);
            (self.on_stderr)(&self.line);
            self.line = rest;
        } else if self.line.len() > CHUNK {
            (self.on_stderr)(&self.line);
            self.line.clear();
        }
    }

    /// Reads the rest of what a worker said that has ended.
    fn finish(&mut self) {
        let start = self.line.len();
        if let Some(pipe) = &self.pipe {
            read_rest(pipe.as_fd(), &mut self.line, TAIL * 16);
        }
        self.took(start);
        self.end();
    }

    fn end(&mut self) {
        self.pipe = None;
        if !self.line.is_empty() {
            self.line.push(b'\n');
            (self.on_stderr)(&self.line);
            self.line.clear();
        }
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> bool {
        self.pipe.as_ref().is_some_and(|pipe| pipe.poll_read_ready(cx).is_ready())
    }

    /// The last lines, as one.
    fn last_words(&self) -> String {
        const LINES: usize = 5;
        let (front, back) = self.tail.as_slices();
        let text = [front, back].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> =
            text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

/// Reads what is there now, whatever the runtime has heard of it: it may hear
/// of the end of a process before that of its pipes.
fn read_rest(fd: BorrowedFd<'_>, room: &mut Vec<u8>, most: usize) {
    let end = room.len() + most;
    while room.len() < end {
        room.reserve(8 * 1024);
        match rustix::io::read(fd, rustix::buffer::spare_capacity(room)) {
            Ok(0) => return,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// How a worker ended, and what it said last.
#[derive(Debug)]
pub(crate) struct Departed {
    pub(crate) id: u32,
    pub(crate) exit: Option<Exit>,
    pub(crate) last_words: String,
    pub(crate) cpu: Duration,
}

/// A worker process that has been started.
pub(crate) struct Process {
    child: Child,
    watch: ExitWatch,
    channel: Channel,
    errors: Errors,
    slate: Option<Slate>,
    pub(crate) reader: Reader,
    /// What has yet to be written, from `written` on.
    pub(crate) requests: Requests,
    written: usize,
    /// Bytes that were written before those.
    written_before: u64,
    /// Whether it takes nothing more.
    is_deaf: bool,
    /// Whether it will say nothing more.
    is_mute: bool,
    has_exited: bool,
}

impl Process {
    /// Starts a worker. Holds up its thread until the program is executed.
    ///
    /// # Errors
    ///
    /// The fault that an item would have if each had a child of its own.
    pub(crate) fn start(serve: &Serve, slot: usize, stage: &str) -> Result<Self, Fault> {
        let io_error = |error: io::Error| Fault::new(FailureKind::Io, error);
        let command = serve
            .command
            .clone()
            .env("PACELINE_STAGE", stage)
            .env("PACELINE_SLOT", slot.to_string());
        let (errors, their_errors) = io::pipe().map_err(io_error)?;
        let command =
            command.stderr(Stderr::File(Arc::new(File::from(OwnedFd::from(their_errors)))));
        let (child, channel, slate);
        if serve.framing == Framing::Frames {
            let (ours, theirs) = StdStream::pair().map_err(io_error)?;
            let memory = SharedMemory::create("paceline-slate", SLATE).map_err(io_error)?;
            let theirs = Arc::new(File::from(OwnedFd::from(theirs)));
            let memory = Arc::new(memory);
            let command = command.stdin(Stdin::File(theirs)).stdout(Stdout::File(memory.clone()));
            child = command.spawn().map_err(not_started)?;
            drop(command);
            channel = Channel::of_socket(ours).map_err(io_error)?;
            slate = Some(Slate::new(memory));
        } else {
            let command = command.stdin(Stdin::Pipe).stdout(Stdout::Pipe);
            let mut started = command.spawn().map_err(not_started)?;
            drop(command);
            let (Some(stdin), Some(stdout)) = (started.take_stdin(), started.take_stdout()) else {
                unreachable!("both were asked for as pipes");
            };
            channel = Channel::of_pipes(stdin.into(), stdout.into()).map_err(io_error)?;
            (child, slate) = (started, None);
        }
        let pipe = Receiver::from_owned_fd(OwnedFd::from(errors)).map_err(io_error)?;
        let watch = child.group().watch().map_err(io_trouble)?;
        Ok(Self {
            child,
            watch,
            channel,
            errors: Errors {
                pipe: Some(pipe),
                on_stderr: serve.on_stderr.clone(),
                line: Vec::new(),
                tail: VecDeque::new(),
            },
            slate,
            reader: Reader::new(serve.framing),
            requests: Requests { bytes: serve.prelude.clone(), ..Requests::default() },
            written: 0,
            written_before: 0,
            is_deaf: false,
            is_mute: false,
            has_exited: false,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where the next request begins, counted in bytes from the first.
    pub(crate) fn position(&self) -> u64 {
        self.written_before + self.requests.bytes.len() as u64
    }

    /// How many bytes the worker may have read.
    pub(crate) fn written(&self) -> u64 {
        self.written_before + self.written as u64
    }

    /// Writes requests as far as they go.
    pub(crate) fn write(&mut self) {
        if self.written < self.requests.bytes.len() {
            // The head of a batch is on its way.
            self.requests.last = None;
        }
        while self.written < self.requests.bytes.len() && !self.is_deaf {
            match self.channel.try_write(&self.requests.bytes[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Its answers and its exit tell why.
                Err(_) => self.is_deaf = true,
            }
        }
        if self.written > 0 && self.written == self.requests.bytes.len() {
            self.channel.has_written();
            self.written_before += self.written as u64;
            self.requests.bytes.clear();
            self.written = 0;
        }
    }

    /// Reads what is there, once; tells whether that was anything.
    pub(crate) fn read(&mut self) -> bool {
        self.errors.pump();
        if self.is_mute {
            return false;
        }
        match self.channel.try_read(self.reader.room()) {
            Ok(0) => self.is_mute = true,
            Ok(_) => return true,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(_) => self.is_mute = true,
        }
        false
    }

    /// Whether it takes or says nothing more. What it has said may have yet to be read.
    pub(crate) fn is_over(&self) -> bool {
        self.is_mute || self.is_deaf || self.has_exited
    }

    /// Reads the rest of its answers.
    pub(crate) fn read_rest(&mut self) {
        read_rest(self.channel.back.as_fd(), self.reader.room(), LONGEST);
        self.is_mute = true;
    }

    /// Whether there is something to do for it.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> bool {
        let writes = self.written < self.requests.bytes.len() && !self.is_deaf;
        let moves = !self.is_mute && self.channel.poll_ready(writes, cx);
        let says = self.errors.poll_ready(cx);
        if !self.has_exited {
            self.has_exited = self.watch.poll_exit(cx).is_ready();
        }
        moves || says || self.has_exited
    }

    /// The memory it has resident, in bytes.
    pub(crate) fn memory(&self) -> Option<u64> {
        memory_of(self.id())
    }

    /// Its processes, to be looked at by others.
    pub(crate) fn group(&self) -> Group {
        self.child.group()
    }

    /// What the worker had written down and may not have sent. Of one that
    /// lives (`is_alive`) only if it has written nothing meanwhile.
    pub(crate) fn read_slate(&self, is_alive: bool) -> Option<Written> {
        self.slate.as_ref()?.read(is_alive)
    }

    /// Sees the worker off: lets it end by itself for as long as `patience`,
    /// asks it to end, and kills it once `grace` is ready.
    pub(crate) async fn leave(
        mut self,
        patience: impl Future<Output = ()>,
        grace: impl Future<Output = ()>,
    ) -> Departed {
        let id = self.id();
        drop(self.channel);
        let errors = &mut self.errors;
        {
            let mut patience = pin!(patience);
            poll_fn(|cx| {
                if self.watch.poll_exit(cx).is_ready() || patience.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                while errors.poll_ready(cx) {
                    errors.pump();
                }
                Poll::Pending
            })
            .await;
        }
        // A descriptor is watched once, and the stop does so itself.
        drop(self.watch);
        if self.child.poll().is_none() {
            let mut stop = pin!(self.child.stop_async(grace));
            poll_fn(|cx| {
                while errors.poll_ready(cx) {
                    errors.pump();
                }
                stop.as_mut().poll(cx).map(drop)
            })
            .await;
        } else {
            let _ = self.child.communicate_async_with(|| std::future::ready(())).await;
        }
        self.errors.finish();
        Departed {
            id,
            exit: self.child.poll(),
            last_words: self.errors.last_words(),
            cpu: self.child.output().map_or(Duration::ZERO, |output| output.cpu()),
        }
    }
}
