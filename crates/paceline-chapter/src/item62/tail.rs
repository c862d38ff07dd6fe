//! One file that grows, line by line: whole lines only, over truncation and rotation.

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// How much is read at once.
const AT_ONCE: usize = 64 * 1024;

/// Reads what a file has, and then what it gets.
///
/// A line is kept until its end has come. A file that became shorter is read
/// from its beginning; one that was replaced is read to its end, and then the
/// new one. Either is noted. A file that is cut and grows beyond where we were
/// before we look cannot be told from one that only grew.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// What begins each of its lines in the output.
    prefix: Vec<u8>,
    file: File,
    identity: (u64, u64),
    offset: u64,
    /// A line without its end.
    partial: Vec<u8>,
    notes: Vec<String>,
}

impl Tail {
    /// Opens the file at `path`; each line is to begin with `prefix`.
    ///
    /// # Errors
    ///
    /// If it cannot be opened; the error names it.
    pub fn open(path: impl Into<PathBuf>, prefix: &str) -> io::Result<Self> {
        let path = path.into();
        let (file, identity) = open(&path)?;
        Ok(Self {
            path,
            prefix: prefix.into(),
            file,
            identity,
            offset: 0,
            partial: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// Reads on, and returns whole lines; `None` when there are no more by now.
    ///
    /// # Errors
    ///
    /// If the file cannot be read; the error names it.
    pub fn read_lines(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.try_read().map_err(|error| named(&self.path, "read", error))
    }

    fn try_read(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut replaced_by = None;
        loop {
            let before = self.partial.len();
            let count = (&self.file).take(AT_ONCE as u64).read_to_end(&mut self.partial)?;
            self.offset += count as u64;
            if let Some(end) = self.partial[before..].iter().rposition(|byte| *byte == b'\n') {
                let rest = self.partial.split_off(before + end + 1);
                let lines = std::mem::replace(&mut self.partial, rest);
                return Ok(Some(self.prefixed(&lines)));
            }
            if count > 0 {
                continue;
            }
            // At its end: is it still the file that it was?
            if let Some((file, identity)) = replaced_by.take() {
                // Looked at once more since we saw that, so nothing of the old one is missed.
                self.notes.push(format!("`{}` was replaced", self.path.display()));
                (self.file, self.identity, self.offset) = (file, identity, 0);
            } else if self.file.metadata()?.len() < self.offset {
                self.notes.push(format!("`{}` was truncated", self.path.display()));
                self.file.rewind()?;
                self.offset = 0;
            } else if let Ok(found) = fs::metadata(&self.path)
                && (found.dev(), found.ino()) != self.identity
                // It may have gone again; then it will come once more.
                && let Ok(new) = open(&self.path)
            {
                replaced_by = Some(new);
                continue;
            } else {
                return Ok(None);
            }
            if let Some(line) = self.finish() {
                return Ok(Some(line));
            }
        }
    }

    /// Takes the last line if it has no end, and gives it one.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.partial);
        (!line.is_empty()).then(|| {
            line.push(b'\n');
            self.prefixed(&line)
        })
    }

    /// Takes what was noted: truncations and replacements.
    pub fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    fn prefixed(&self, lines: &[u8]) -> Vec<u8> {
        if self.prefix.is_empty() {
            return lines.to_vec();
        }
        let lines = lines.split_inclusive(|byte| *byte == b'\n');
        lines.flat_map(|line| [&self.prefix, line]).flatten().copied().collect()
    }
}

fn open(path: &PathBuf) -> io::Result<(File, (u64, u64))> {
    let file = File::open(path).map_err(|error| named(path, "open", error))?;
    let found = file.metadata()?;
    if found.is_dir() {
        return Err(named(path, "follow", io::ErrorKind::IsADirectory.into()));
    }
    Ok((file, (found.dev(), found.ino())))
}

fn named(path: &std::path::Path, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("could not {what} `{}`: {error}", path.display()))
}
