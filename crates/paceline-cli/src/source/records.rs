//! Cutting what is read into records, in bounded memory.
//!
//! A record that grows over the limit is not kept: its beginning is, and the
//! rest is counted and let go, up to the separator.

use std::io;

use bytes::Bytes;

use super::LONGEST_ITEM;
use super::input::{Input, Read};

/// How much is read at once.
// 256 KiB: a pipe holds 64 KiB at most, and for files more gained nothing.
const CHUNK: usize = 256 << 10;

/// How much of a record that is too long is kept.
const KEPT: usize = 4096;

/// What ends a record.
#[derive(Clone, Debug)]
pub(super) enum Separator {
    Newline,
    Nul,
    /// A newline outside quotes.
    Csv(CsvState),
}

/// Where in a CSV record the search is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CsvState {
    FieldStart,
    Bare,
    Quoted,
    /// After a quote inside quotes: the end, or the first of two.
    Quote,
}

impl Separator {
    pub(super) fn csv() -> Self {
        Self::Csv(CsvState::FieldStart)
    }

    /// How many separators there are in `bytes`, if that can be told of them alone.
    fn count(&self, bytes: &[u8]) -> usize {
        match self {
            Self::Newline => memchr::memchr_iter(b'\n', bytes).count(),
            Self::Nul => memchr::memchr_iter(0, bytes).count(),
            Self::Csv(_) => 0,
        }
    }

    /// Finds the separator in `bytes`, which follow those it has seen before.
    fn find(&mut self, bytes: &[u8]) -> Option<usize> {
        match self {
            Self::Newline => memchr::memchr(b'\n', bytes),
            Self::Nul => memchr::memchr(0, bytes),
            Self::Csv(state) => find_csv(state, bytes),
        }
    }
}

fn find_csv(state: &mut CsvState, bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        *state = match *state {
            CsvState::Quoted => match memchr::memchr(b'"', rest) {
                Some(quote) => {
                    at += quote + 1;
                    CsvState::Quote
                }
                None => return None,
            },
            CsvState::FieldStart | CsvState::Quote if rest[0] == b'"' => {
                at += 1;
                CsvState::Quoted
            }
            _ => match memchr::memchr2(b',', b'\n', rest) {
                Some(end) => {
                    at += end + 1;
                    if rest[end] == b'\n' {
                        *state = CsvState::FieldStart;
                        return Some(at - 1);
                    }
                    CsvState::FieldStart
                }
                None => {
                    *state = CsvState::Bare;
                    return None;
                }
            },
        };
    }
    None
}

/// A record without its separator.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) bytes: Bytes,
    /// Its whole length, if it is longer than the limit.
    pub(super) too_long: Option<u64>,
    /// The line on which it began; the number of the record where NUL separates.
    pub(super) line: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Record(Record),
    End,
    Stopped,
}

/// The records of an input.
#[derive(Debug)]
pub(super) struct Records {
    input: Input,
    separator: Separator,
    buffer: Vec<u8>,
    /// Where in the buffer the current record begins.
    start: usize,
    /// Up to where in the buffer there is no separator.
    searched: usize,
    /// The place of the next separator, if it is known.
    found: Option<usize>,
    /// How many separators the buffer has from the current record on, where
    /// counting takes no more than a look at each byte.
    whole: usize,
    /// The beginning of a record that is too long, and how much of it was let go.
    long: Option<(Bytes, u64)>,
    line: u64,
    /// Newlines in what was let go.
    inner_lines: u64,
    ended: bool,
}

impl Records {
    pub(super) fn new(input: Input, separator: Separator) -> Self {
        Self {
            input,
            separator,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            found: None,
            whole: 0,
            long: None,
            line: 1,
            inner_lines: 0,
            ended: false,
        }
    }

    /// How many records are known to be here, whole.
    pub(super) fn ready(&self) -> usize {
        self.whole.max(usize::from(self.found.is_some()))
    }

    /// None once the input has ended and been given out.
    pub(super) fn most(&self) -> Option<usize> {
        (self.ended && self.start >= self.buffer.len()).then_some(0)
    }

    /// How much memory the buffer takes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    fn search(&mut self) -> Option<usize> {
        if self.found.is_none() {
            let found = self.separator.find(&self.buffer[self.searched..]);
            self.found = found.map(|place| self.searched + place);
            self.searched = self.found.map_or(self.buffer.len(), |place| place + 1);
        }
        self.found
    }

    pub(super) fn next(&mut self) -> io::Result<Next> {
        loop {
            if let Some(end) = self.search() {
                self.found = None;
                self.whole = self.whole.saturating_sub(1);
                let record = self.take(end, end + 1);
                // So that whoever asks knows whether there is another one.
                self.search();
                return Ok(Next::Record(record));
            }
            if self.ended {
                let end = self.buffer.len();
                let is_empty = self.start == end && self.long.is_none();
                return Ok(if is_empty { Next::End } else { Next::Record(self.take(end, end)) });
            }
            if self.buffer.len() - self.start > LONGEST_ITEM || self.long.is_some() {
                self.let_go();
            }
            match self.fill()? {
                Read::Some => {}
                Read::End => self.ended = true,
                Read::Stopped => return Ok(Next::Stopped),
            }
        }
    }

    /// Takes the record up to `end`, where the one after it begins at `next`.
    fn take(&mut self, end: usize, next: usize) -> Record {
        let body = &self.buffer[self.start..end];
        let line = self.line;
        self.line += 1 + self.inner_lines;
        if matches!(self.separator, Separator::Csv(_)) {
            self.line += newlines(body);
        }
        self.inner_lines = 0;
        self.start = next;
        match self.long.take() {
            Some((bytes, gone)) => {
                let length = gone + body.len() as u64;
                Record { bytes, too_long: Some(length), line }
            }
            None if body.len() > LONGEST_ITEM => {
                let bytes = Bytes::copy_from_slice(&body[..KEPT]);
                Record { bytes, too_long: Some(body.len() as u64), line }
            }
            None => Record { bytes: Bytes::copy_from_slice(body), too_long: None, line },
        }
    }

    /// Lets go what the buffer has of a record that is too long.
    fn let_go(&mut self) {
        let body = &self.buffer[self.start..];
        if matches!(self.separator, Separator::Csv(_)) {
            self.inner_lines += newlines(body);
        }
        let (bytes, gone) = self
            .long
            .take()
            .unwrap_or_else(|| (Bytes::copy_from_slice(&body[..KEPT.min(body.len())]), 0));
        self.long = Some((bytes, gone + body.len() as u64));
        self.buffer.truncate(self.start);
        self.searched = self.start;
    }

    /// Reads on, with the current record at the beginning of the buffer.
    fn fill(&mut self) -> io::Result<Read> {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        if self.buffer.len() < CHUNK && self.buffer.capacity() > 2 * CHUNK {
            self.buffer.shrink_to(CHUNK);
        }
        if self.buffer.len() == self.buffer.capacity() {
            self.buffer.reserve(CHUNK.max(self.buffer.len()));
        }
        let before = self.buffer.len();
        let read = self.input.read(&mut self.buffer)?;
        self.whole += self.separator.count(&self.buffer[before..]);
        Ok(read)
    }
}

fn newlines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
