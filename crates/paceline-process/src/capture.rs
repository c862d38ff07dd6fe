//! What a child wrote: in memory while it is small, in a file past that.
//!
//! The file is unlinked as soon as it is made, so it goes away with the last
//! descriptor, even after a kill. It only ever grows and is read by position,
//! so that a partial output can share it with the one still being written.
//!
//! Not here: waiting for the bytes (`streams.rs`).

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::error::Error;
use crate::linux::{self, Moved};

/// 64 KiB: what a pipe holds, so one read can empty it.
const CHUNK: usize = 64 * 1024;

/// 8 KiB: what is made ready for a child before it has said anything.
const LITTLE: usize = 8 * 1024;

/// The bytes a child wrote to one of its streams.
///
/// Up to a limit (1 MiB unless set with `spill_after`) they are in memory;
/// past it all of them are in a temporary file without a name.
///
/// ```
/// use paceline_process::{Command, Stdout};
///
/// let output = Command::new("echo").arg("hello").stdout(Stdout::Capture).run()?;
/// assert_eq!(output.stdout().as_bytes(), Some(&b"hello\n"[..]));
/// assert_eq!(output.stdout().to_bytes()?, b"hello\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Captured {
    /// Everything, or, once there is a file, what it has yet to take.
    buffer: Vec<u8>,
    file: Option<(Arc<File>, u64)>,
}

impl Captured {
    /// Returns the number of bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.filed() + self.buffer.len() as u64
    }

    /// Says whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Says whether the bytes are in a file rather than in memory.
    #[must_use]
    pub fn is_spilled(&self) -> bool {
        self.file.is_some()
    }

    /// Returns the bytes if they are in memory, `None` if they were spilled.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if self.is_spilled() { None } else { Some(&self.buffer) }
    }

    /// Returns all bytes, read back into memory if they were spilled.
    ///
    /// # Errors
    ///
    /// Returns the error of reading the temporary file.
    pub fn into_bytes(mut self) -> io::Result<Vec<u8>> {
        if self.is_spilled() { self.to_bytes() } else { Ok(std::mem::take(&mut self.buffer)) }
    }

    /// Returns a copy of all bytes, read back into memory if they were spilled.
    ///
    /// # Errors
    ///
    /// Returns the error of reading the temporary file.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(usize::try_from(self.len()).unwrap_or(0));
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns the bytes as text, with what is not UTF-8 replaced.
    ///
    /// # Errors
    ///
    /// Returns the error of reading the temporary file.
    pub fn to_text(&self) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.to_bytes()?).into_owned())
    }

    /// Returns a reader over the bytes, from the first one, wherever they are.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader { captured: self, at: 0 }
    }

    /// Writes all bytes to `writer`, a chunk at a time.
    ///
    /// # Errors
    ///
    /// Returns the error of `writer`, or of reading the temporary file.
    pub fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        if self.is_spilled() {
            io::copy(&mut BufReader::with_capacity(CHUNK, self.reader()), writer)?;
        } else {
            writer.write_all(&self.buffer)?;
        }
        Ok(())
    }

    /// Returns what is here so far, apart from what comes later.
    pub(crate) fn snapshot(&self) -> Captured {
        Captured { buffer: self.buffer.clone(), file: self.file.clone() }
    }

    /// Reads once from `pipe`, which must not block.
    ///
    /// # Errors
    ///
    /// If the pipe cannot be read or the temporary file not be written. No
    /// byte is lost: the next call begins by writing what is left.
    pub(crate) fn fill(&mut self, pipe: impl AsFd, spill_after: usize) -> Result<Moved, Error> {
        self.spill(spill_after)?;
        if self.buffer.capacity() - self.buffer.len() < LITTLE / 2 {
            // Twice as much each time, up to a pipe full: most say little.
            self.buffer.reserve(self.buffer.len().clamp(LITTLE, CHUNK));
        }
        let moved = linux::read_into(pipe, &mut self.buffer).map_err(Error::read_output)?;
        if matches!(moved, Moved::Bytes(_)) {
            self.spill(spill_after)?;
        }
        Ok(moved)
    }

    /// Moves the buffer to the file once there is one or the limit is passed.
    fn spill(&mut self, spill_after: usize) -> Result<(), Error> {
        if self.buffer.is_empty() || (self.file.is_none() && self.buffer.len() <= spill_after) {
            return Ok(());
        }
        let (file, filed) = match &mut self.file {
            Some((file, filed)) => (file, filed),
            None => {
                let file = tempfile::tempfile().map_err(Error::spill)?;
                let file = linux::above_standard(file.into()).map_err(Error::spill)?;
                let (file, filed) = self.file.insert((Arc::new(file.into()), 0));
                (file, filed)
            }
        };
        let mut taken = 0;
        let written = loop {
            match file.write_at(&self.buffer[taken..], *filed) {
                Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    taken += count;
                    *filed += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
            if taken == self.buffer.len() {
                break Ok(());
            }
        };
        self.buffer.drain(..taken);
        self.buffer.shrink_to(2 * CHUNK);
        written.map_err(Error::spill)
    }

    fn filed(&self) -> u64 {
        self.file.as_ref().map_or(0, |(_, filed)| *filed)
    }
}

/// Reads a [`Captured`] from its first byte to its last.
#[derive(Debug)]
pub struct Reader<'a> {
    captured: &'a Captured,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let filed = self.captured.filed();
        let count = match &self.captured.file {
            Some((file, _)) if self.at < filed => {
                let room = usize::try_from(filed - self.at).unwrap_or(usize::MAX).min(into.len());
                file.read_at(&mut into[..room], self.at)?
            }
            _ => {
                let from = usize::try_from(self.at - filed).unwrap_or(usize::MAX);
                self.captured.buffer.get(from..).unwrap_or_default().read(into)?
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}
