//! Moves bytes into and out of children, never waiting for any single one.
//!
//! All three streams advance together, so a child that fills one pipe while
//! another is full cannot hang us. What was written is remembered by count
//! and what was read is kept, so that any call may be the last or be followed
//! by another.
//!
//! Not here: when to stop (`child.rs`).

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::capture::Captured;
use crate::error::Error;
use crate::linux::{self, Moved, Watch, Watched};

/// Reads of one stream before the others and the clock get their turn.
const TURN: usize = 16;

/// Our end of a pipe, known to tokio from the first asynchronous use on.
#[derive(Debug)]
struct Pipe {
    fd: Arc<OwnedFd>,
    watch: Watch,
    watched: Option<Watched>,
}

impl Pipe {
    fn new(fd: OwnedFd, watch: Watch) -> io::Result<Pipe> {
        linux::set_nonblocking(&fd)?;
        Ok(Pipe { fd: fd.into(), watch, watched: None })
    }
}

/// Bytes on their way to a child.
#[derive(Debug)]
struct Feed {
    pipe: Option<Pipe>,
    bytes: Arc<[u8]>,
    sent: usize,
}

/// Bytes on their way from a child.
#[derive(Debug, Default)]
struct Drain {
    pipe: Option<Pipe>,
    captured: Captured,
}

impl Feed {
    fn step(pipe: &Pipe, bytes: &[u8], sent: &mut usize) -> Result<Moved, Error> {
        if *sent == bytes.len() {
            return Ok(Moved::Closed);
        }
        // `Closed` here means that the child wants no more. Only its exit
        // says whether that is bad.
        let moved = linux::write_some(&pipe.fd, &bytes[*sent..]).map_err(Error::io)?;
        if let Moved::Bytes(count) = moved {
            *sent += count;
        }
        Ok(moved)
    }

    fn turn(&mut self) -> Result<Turn, Error> {
        turn(&mut self.pipe, |pipe| Feed::step(pipe, &self.bytes, &mut self.sent))
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        poll_turns(&mut self.pipe, cx, |pipe| Feed::step(pipe, &self.bytes, &mut self.sent))
    }
}

impl Drain {
    fn turn(&mut self, spill_after: usize) -> Result<Turn, Error> {
        turn(&mut self.pipe, |pipe| self.captured.fill(&pipe.fd, spill_after))
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>, spill_after: usize) -> Poll<Result<(), Error>> {
        poll_turns(&mut self.pipe, cx, |pipe| self.captured.fill(&pipe.fd, spill_after))
    }
}

/// What a turn at one stream came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The pipe is closed and gone.
    Done,
    /// The child has to do something first.
    Waits,
    /// More could be moved at once, but others have a right to a turn.
    Yields,
}

fn turn(
    pipe: &mut Option<Pipe>,
    mut step: impl FnMut(&Pipe) -> Result<Moved, Error>,
) -> Result<Turn, Error> {
    let Some(open) = pipe else { return Ok(Turn::Done) };
    for _ in 0..TURN {
        match step(open)? {
            Moved::Bytes(_) => {}
            Moved::WouldBlock => return Ok(Turn::Waits),
            Moved::Closed => {
                *pipe = None;
                return Ok(Turn::Done);
            }
        }
    }
    Ok(Turn::Yields)
}

fn poll_turns(
    pipe: &mut Option<Pipe>,
    cx: &mut Context<'_>,
    mut step: impl FnMut(&Pipe) -> Result<Moved, Error>,
) -> Poll<Result<(), Error>> {
    while let Some(open) = pipe.as_ref() {
        let Some(watched) = &open.watched else {
            unreachable!("pipes are registered before they are polled")
        };
        // The guard is from before the attempt: what becomes ready after a
        // "would block" and before `clear_ready` is then not forgotten.
        let mut guard = ready!(watched.poll_ready(cx)).map_err(Error::io)?;
        let mut moved = Moved::Bytes(0);
        for _ in 0..TURN {
            moved = step(open)?;
            if !matches!(moved, Moved::Bytes(_)) {
                break;
            }
        }
        match moved {
            Moved::Bytes(_) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Moved::WouldBlock => guard.clear_ready(),
            Moved::Closed => *pipe = None,
        }
    }
    Poll::Ready(Ok(()))
}

/// All streams that this program moves for a child or a chain.
#[derive(Debug)]
pub(crate) struct Streams {
    feed: Feed,
    stdout: Drain,
    stderr: Drain,
    spill_after: usize,
}

impl Streams {
    pub(crate) fn new(
        feed: Option<(OwnedFd, Arc<[u8]>)>,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
        spill_after: usize,
    ) -> io::Result<Streams> {
        let (feed, bytes) = feed.map_or_else(|| (None, Arc::from([])), |(fd, b)| (Some(fd), b));
        let pipe = |fd: Option<OwnedFd>, watch| fd.map(|fd| Pipe::new(fd, watch)).transpose();
        let drain = |fd| -> io::Result<Drain> {
            Ok(Drain { pipe: pipe(fd, Watch::Readable)?, captured: Captured::default() })
        };
        Ok(Streams {
            feed: Feed { pipe: pipe(feed, Watch::Writable)?, bytes, sent: 0 },
            stdout: drain(stdout)?,
            stderr: drain(stderr)?,
            spill_after,
        })
    }

    /// Moves what can be moved at once, each stream one turn.
    ///
    /// Returns whether somebody would have liked to go on.
    pub(crate) fn advance(&mut self) -> Result<bool, Error> {
        let feed = self.feed.turn()?;
        let stdout = self.stdout.turn(self.spill_after)?;
        let stderr = self.stderr.turn(self.spill_after)?;
        Ok([feed, stdout, stderr].contains(&Turn::Yields))
    }

    /// Moves what can be moved at once, and wakes the task when more can be.
    ///
    /// Ready once the outputs have ended, or with an error.
    pub(crate) fn poll_advance(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // The feed decides nothing: a child may end without reading it all.
        if let Poll::Ready(Err(error)) = self.feed.poll_turns(cx) {
            return Poll::Ready(Err(error));
        }
        let stdout = self.stdout.poll_turns(cx, self.spill_after)?;
        let stderr = self.stderr.poll_turns(cx, self.spill_after)?;
        if stdout.is_ready() && stderr.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Takes what is in the pipes by now, and gives up on what is not.
    ///
    /// Returns whether somebody still holds an output open.
    pub(crate) fn close(&mut self) -> Result<bool, Error> {
        self.feed.pipe = None;
        // Bounded: a writer that got away must not keep us here.
        for _ in 0..TURN {
            if !self.advance()? {
                break;
            }
        }
        let leaky = !self.outputs_ended();
        self.stdout.pipe = None;
        self.stderr.pipe = None;
        Ok(leaky)
    }

    /// Says whether no child nor descendant can write any more.
    pub(crate) fn outputs_ended(&self) -> bool {
        self.stdout.pipe.is_none() && self.stderr.pipe.is_none()
    }

    /// Returns the open pipes and what to wait for on each.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Watch)> {
        self.pipes().map(|pipe| (pipe.fd.as_fd(), pipe.watch))
    }

    fn pipes(&self) -> impl Iterator<Item = &Pipe> {
        [&self.feed.pipe, &self.stdout.pipe, &self.stderr.pipe].into_iter().flatten()
    }

    /// Makes tokio watch all open pipes. Must be called inside its runtime.
    pub(crate) fn register(&mut self) -> io::Result<()> {
        let pipes = [&mut self.feed.pipe, &mut self.stdout.pipe, &mut self.stderr.pipe];
        for pipe in pipes.into_iter().flatten().filter(|pipe| pipe.watched.is_none()) {
            pipe.watched = Some(Watched::new(&pipe.fd, pipe.watch)?);
        }
        Ok(())
    }

    pub(crate) fn stdout(&self) -> &Captured {
        &self.stdout.captured
    }

    pub(crate) fn stderr(&self) -> &Captured {
        &self.stderr.captured
    }

    pub(crate) fn take_captured(&mut self) -> (Captured, Captured) {
        (mem::take(&mut self.stdout.captured), mem::take(&mut self.stderr.captured))
    }
}
