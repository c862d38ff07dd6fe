//! Standard output: data, and nothing else.
//!
//! Results are written as they come. A reader that has gone away stops the
//! run, and so does any other trouble with writing; both are remembered for
//! the exit status. A reader that takes nothing is waited for, but not for
//! ever once a signal has come.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use paceline::Stop;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{kept::Kept, report::tag::Tagged, signals::Seen};

/// What can be written without a wait to a pipe that has room.
const PIECE: usize = 4096;

/// How often a wait for room looks for a signal.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// How long a reader may take nothing when a signal has come.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to standard output.
#[derive(Debug)]
pub(crate) struct Results {
    out: io::Result<Out>,
    line: Vec<u8>,
    stop: Stop,
    trouble: Option<Trouble>,
}

/// Why nothing more is written.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The reader wants no more.
    ReaderGone,
    Failed(io::Error),
}

impl Results {
    /// Results of a run that `stop` stops and whose signals are `seen`.
    pub(crate) fn new(stop: Stop, seen: Arc<Seen>) -> Self {
        let out = crate::check_open().and_then(|()| io::stdout().as_fd().try_clone_to_owned());
        let out = out.map(File::from);
        let out = out.map(|file| {
            let can_wait = !file.metadata().is_ok_and(|metadata| metadata.is_file());
            Out { file, can_wait, seen }
        });
        Self { out, line: Vec::new(), stop, trouble: None }
    }

    /// Writes a result and a newline, in one piece.
    pub(crate) fn line(&mut self, result: &[u8]) {
        if result.is_empty() && self.out.is_err() {
            // Work for its effects alone needs no standard output.
            return;
        }
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        line.extend_from_slice(result);
        line.push(b'\n');
        self.write(|out| out.write_all(&line));
        self.line = line;
    }

    /// Writes what a job has written, as it is or each line behind `tag`.
    pub(crate) fn output(&mut self, output: &Kept, tag: Option<&[u8]>) {
        if output.is_empty() {
            return;
        }
        self.write(|out| match tag {
            None => output.write_to(out),
            Some(tag) => {
                let mut tagged = Tagged::new(io::BufWriter::new(out), tag);
                output.write_to(&mut tagged)?;
                tagged.finish()
            }
        });
    }

    /// Writes whole lines of a job.
    pub(crate) fn lines(&mut self, lines: &[u8]) {
        self.write(|out| out.write_all(lines));
    }

    fn write(&mut self, write: impl FnOnce(&mut Out) -> io::Result<()>) {
        if self.trouble.is_some() {
            return;
        }
        let written = match &mut self.out {
            Ok(out) => write(out),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        if let Err(error) = written {
            self.failed(error);
        }
    }

    /// Notes that nothing more can be written, and stops the run.
    pub(crate) fn failed(&mut self, error: io::Error) {
        self.trouble = Some(match error.kind() {
            io::ErrorKind::BrokenPipe => Trouble::ReaderGone,
            _ => Trouble::Failed(error),
        });
        self.stop.cancel();
    }

    /// Whether something went wrong.
    pub(crate) fn has_trouble(&self) -> bool {
        self.trouble.is_some()
    }

    /// What went wrong, if something did.
    pub(crate) fn take_trouble(&mut self) -> Option<Trouble> {
        self.trouble.take()
    }
}

/// Standard output. Not `std::io::Stdout`, which takes a closed descriptor for
/// a success.
#[derive(Debug)]
struct Out {
    file: File,
    /// Whether a write can wait for a reader.
    can_wait: bool,
    seen: Arc<Seen>,
}

impl Write for Out {
    /// # When stopped
    ///
    /// After a signal, a reader that takes nothing for a while is given up.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.can_wait {
            return self.file.write(bytes);
        }
        self.wait_for_room()?;
        self.file.write(&bytes[..bytes.len().min(PIECE)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Out {
    fn wait_for_room(&self) -> io::Result<()> {
        let mut stopped_at = None;
        loop {
            match poll(&mut [PollFd::new(&self.file, PollFlags::OUT)], Some(&LOOK)) {
                Ok(0) if self.seen.signal().is_some() => {
                    let since = *stopped_at.get_or_insert_with(Instant::now);
                    if since.elapsed() >= PATIENCE {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                // What is wrong, if something is, the write says better.
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}
