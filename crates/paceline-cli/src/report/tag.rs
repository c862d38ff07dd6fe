//! `--tag`: each line of a job's output begins with its item.

use std::{
    io::{self, Write},
    sync::Arc,
};

use crate::{item::Origin, message::harmless};

/// What the lines of these items begin with, with the tab.
pub(crate) fn of(origins: &[Arc<Origin>]) -> Vec<u8> {
    let items: Vec<&[u8]> = origins.iter().map(|origin| &*origin.item.bytes).collect();
    let mut tag = escaped(&items.join(&b' '));
    tag.push(b'\t');
    tag
}

/// The bytes with control characters escaped; what is not UTF-8 stays as it is.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.extend_from_slice(harmless(chunk.valid().as_bytes()).as_bytes());
        text.extend_from_slice(chunk.invalid());
    }
    text
}

/// Puts a tag before each line that passes through.
pub(crate) struct Tagged<'t, W> {
    inner: W,
    tag: &'t [u8],
    is_within_line: bool,
}

impl<'t, W: Write> Tagged<'t, W> {
    pub(crate) fn new(inner: W, tag: &'t [u8]) -> Self {
        Self { inner, tag, is_within_line: false }
    }

    /// Ends the last line, if it has no end, and passes everything on.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        if self.is_within_line {
            self.inner.write_all(b"\n")?;
        }
        self.inner.flush()
    }
}

impl<W: Write> Write for Tagged<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if !self.is_within_line {
                self.inner.write_all(self.tag)?;
            }
            self.inner.write_all(line)?;
            self.is_within_line = !line.ends_with(b"\n");
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_gets_the_tag_and_the_last_one_its_end() {
        let mut out = Vec::new();
        let mut tagged = Tagged::new(&mut out, b"x\t");
        tagged.write_all(b"one\ntw").unwrap();
        tagged.write_all(b"o\n\nthree").unwrap();
        tagged.finish().unwrap();
        assert_eq!(out, b"x\tone\nx\ttwo\nx\t\nx\tthree\n");
    }
}
