//! Standard output: data, and nothing else.
//!
//! Results are written as they come. A reader that has gone away stops the
//! run, and so does any other trouble with writing; both are remembered for
//! the exit status.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use paceline::Stop;
use paceline_process::Captured;

use crate::report::tag::Tagged;

/// The way to standard output.
#[derive(Debug)]
pub(crate) struct Results {
    /// Not `std::io::Stdout`, which takes a closed descriptor for a success.
    out: io::Result<File>,
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
    /// Results of a run that `stop` stops.
    pub(crate) fn new(stop: Stop) -> Self {
        let out = io::stdout().as_fd().try_clone_to_owned().map(File::from);
        Self { out, line: Vec::new(), stop, trouble: None }
    }

    /// Writes a result and a newline, in one piece.
    pub(crate) fn line(&mut self, result: &[u8]) {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        line.extend_from_slice(result);
        line.push(b'\n');
        self.write(|out| out.write_all(&line));
        self.line = line;
    }

    /// Writes what a job has written, as it is or each line behind `tag`.
    pub(crate) fn output(&mut self, output: &Captured, tag: Option<&[u8]>) {
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

    fn write(&mut self, write: impl FnOnce(&mut File) -> io::Result<()>) {
        if self.trouble.is_some() {
            return;
        }
        let written = match &mut self.out {
            Ok(out) => write(out),
            Err(error) => Err(io::Error::from(error.kind())),
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

    /// What went wrong, if something did.
    pub(crate) fn take_trouble(&mut self) -> Option<Trouble> {
        self.trouble.take()
    }
}
