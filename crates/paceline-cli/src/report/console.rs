//! Standard error: whole lines and whole outputs, never mixed, and never
//! across the display.

use std::{
    io::{self, Write},
    sync::{Arc, OnceLock},
};

use indicatif::ProgressBar;

use super::tag::Tagged;
use crate::kept::Kept;

/// The way to standard error. Clones are the same one.
///
/// What cannot be written there is lost: there is no better place to say so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Console(Arc<OnceLock<ProgressBar>>);

impl Console {
    /// Lets `bar` stand below all that is written from here on.
    pub(crate) fn set_display(&self, bar: ProgressBar) {
        // There is one display a run; a second one would not be shown.
        let _ = self.0.set(bar);
    }

    /// Writes a line. `text` is harmless already.
    pub(crate) fn line(&self, text: &str) {
        self.write(|stderr| {
            stderr.write_all(text.as_bytes())?;
            stderr.write_all(b"\n")
        });
    }

    /// Passes on what a job wrote to its standard error, byte by byte, or each
    /// line behind `tag`.
    pub(crate) fn pass_on(&self, output: &Kept, tag: Option<&[u8]>) {
        if output.is_empty() {
            return;
        }
        self.write(|mut stderr| match tag {
            None => output.write_to(&mut stderr),
            Some(tag) => {
                let mut tagged = Tagged::new(io::BufWriter::new(stderr), tag);
                output.write_to(&mut tagged)?;
                tagged.finish()
            }
        });
    }

    /// Passes on whole lines.
    pub(crate) fn pass_on_lines(&self, lines: &[u8]) {
        self.write(|stderr| stderr.write_all(lines));
    }

    fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        let write = || {
            let mut stderr = io::stderr().lock();
            let _ = write(&mut stderr).and_then(|()| stderr.flush());
        };
        match self.0.get() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }
}
