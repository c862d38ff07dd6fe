//! Reading a descriptor in a way that can be interrupted.
//!
//! Every wait is a `poll` of the descriptor and of the read end of a pipe.
//! Raising the [`Interrupt`] writes to the pipe, which nobody ever empties,
//! so that all waits end and none begins.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Ends the waits of all sources that were opened with it.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    // Asking the pipe would take a system call for each item.
    stopped: AtomicBool,
    reader: io::PipeReader,
    writer: io::PipeWriter,
}

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    Ready,
    Stopped,
    TimedOut,
}

impl Interrupt {
    /// # Errors
    ///
    /// When the process can open no more descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { shared: Arc::new(Shared { stopped: AtomicBool::new(false), reader, writer }) })
    }

    /// Ends all waits, now and later. It does not wait itself, and a signal handler may call it.
    pub(crate) fn stop(&self) {
        // Once is enough: nobody empties the pipe.
        if !self.shared.stopped.swap(true, Ordering::SeqCst) {
            let _ = rustix::io::write(&self.shared.writer, b"!");
        }
    }

    /// Whether it was raised.
    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::SeqCst)
    }

    /// Waits until `fd` has something to read or this is raised.
    pub(super) fn wait(&self, fd: BorrowedFd<'_>, timeout: Option<Timespec>) -> io::Result<Wait> {
        let mut fds = [
            PollFd::new(&self.shared.reader, PollFlags::IN),
            PollFd::from_borrowed_fd(fd, PollFlags::IN),
        ];
        loop {
            return match poll(&mut fds, timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
                Ok(_) if !fds[0].revents().is_empty() => Ok(Wait::Stopped),
                Ok(0) => Ok(Wait::TimedOut),
                Ok(_) => Ok(Wait::Ready),
            };
        }
    }
}

/// A descriptor to read from.
#[derive(Debug)]
pub(super) struct Input {
    fd: OwnedFd,
    interrupt: Interrupt,
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    Some,
    End,
    Stopped,
}

impl Input {
    pub(super) fn new(fd: OwnedFd, interrupt: &Interrupt) -> Self {
        Self { fd, interrupt: interrupt.clone() }
    }

    pub(super) fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Reads into the spare capacity of `buffer`, of which there must be some.
    pub(super) fn read(&self, buffer: &mut Vec<u8>) -> io::Result<Read> {
        loop {
            if self.interrupt.wait(self.fd.as_fd(), None)? == Wait::Stopped {
                return Ok(Read::Stopped);
            }
            match rustix::io::read(&self.fd, rustix::buffer::spare_capacity(buffer)) {
                Ok(0) => return Ok(Read::End),
                Ok(_) => return Ok(Read::Some),
                // Another process may have taken what was there, or the descriptor does not wait.
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
