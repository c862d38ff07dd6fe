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
        if self.trouble.is_some() {
            return;
        }
        self.line.clear();
        self.line.extend_from_slice(result);
        self.line.push(b'\n');
        let written = match &mut self.out {
            Ok(out) => out.write_all(&self.line),
            Err(error) => Err(io::Error::from(error.kind())),
        };
        if let Err(error) = written {
            self.trouble = Some(match error.kind() {
                io::ErrorKind::BrokenPipe => Trouble::ReaderGone,
                _ => Trouble::Failed(error),
            });
            self.stop.cancel();
        }
    }

    /// What went wrong, if something did.
    pub(crate) fn take_trouble(&mut self) -> Option<Trouble> {
        self.trouble.take()
    }
}
