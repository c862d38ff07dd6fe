//! Which results have been printed, beside the database until it knows.
//!
//! A result is printed and then marked as printed; whatever is between the
//! two is printed again after a kill. A commit is milliseconds away, a write
//! to a file that nobody waits for a microsecond, and both outlive the
//! program alike. So a mark goes into this file first, and whoever opens the
//! journal next puts into the database what had not got there.

use std::{
    fs::File,
    io::Read,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rusqlite::{Connection, params};

use crate::{error::Error, file::beside, journal::Journal};

/// The run and the session.
const HEADER: u64 = 16;

/// From here on the file is written from its start again, if the database knows the marks there.
const LARGE: u64 = HEADER + 8 * 4096;

fn path(journal: &Path) -> PathBuf {
    beside(journal, ".printed")
}

/// The file, while a run is recorded.
#[derive(Debug)]
pub(crate) struct Marks {
    file: File,
    end: u64,
    /// The entry of the last mark.
    last: u64,
}

impl Marks {
    /// Begins a file for this session. `None` where there can be none: nothing is lost by that.
    pub(crate) fn create(journal: &Path, run: u64, session: u64) -> Option<Self> {
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(no_link);
        let file = options.open(path(journal)).ok()?;
        let header = [run.to_le_bytes(), session.to_le_bytes()].concat();
        file.write_all_at(&header, 0).ok()?;
        Some(Self { file, end: HEADER, last: 0 })
    }

    /// Marks these items. `is_recorded` tells what the database knows.
    pub(crate) fn add(&mut self, seqs: &[u64], is_recorded: impl Fn(u64) -> bool) {
        if self.end >= LARGE && is_recorded(self.last) {
            // What stays behind the new marks is known already, and does no harm.
            self.end = HEADER;
        }
        let bytes: Vec<u8> = seqs.iter().flat_map(|seq| seq.to_le_bytes()).collect();
        // On a disk that is full the database fails as well, and that is told.
        if self.file.write_all_at(&bytes, self.end).is_ok() {
            self.end += bytes.len() as u64;
        }
    }

    /// Notes the entry of the last mark.
    pub(crate) fn recorded_as(&mut self, entry: u64) {
        self.last = entry;
    }
}

/// Removes the file, when the database knows all that is in it.
pub(crate) fn remove(journal: &Path) {
    let _ = std::fs::remove_file(path(journal));
}

impl Journal {
    /// Takes over the marks that a killed program has left.
    pub(crate) fn take_marks(&mut self) -> Result<(), Error> {
        let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let mut bytes = Vec::new();
        let file = File::options().read(true).custom_flags(no_link).open(path(&self.path));
        let Ok(Ok(_)) = file.map(|mut file| file.read_to_end(&mut bytes)) else { return Ok(()) };
        let mut numbers = bytes.chunks_exact(8).map(|eight| {
            let mut number = [0; 8];
            number.copy_from_slice(eight);
            i64::from_le_bytes(number)
        });
        if let (Some(run), Some(session)) = (numbers.next(), numbers.next()) {
            let seqs: Vec<i64> = numbers.collect();
            self.change(|connection| put(connection, run, session, &seqs))?;
        }
        remove(&self.path);
        Ok(())
    }
}

/// Only what is done can have been printed: after a power cut these marks may be newer than the
/// rest.
fn put(connection: &Connection, run: i64, session: i64, seqs: &[i64]) -> rusqlite::Result<()> {
    let sql = "SELECT coalesce(max(session), 0) FROM sessions WHERE run = ?";
    if connection.query_row(sql, [run], |row| row.get::<_, i64>(0))? != session {
        return Ok(());
    }
    let mut update = connection.prepare(
        "UPDATE items SET printed = 1 WHERE run = ?1 AND seq = ?2 AND printed = 0 AND EXISTS \
         (SELECT 1 FROM results r WHERE r.run = ?1 AND r.seq = ?2 AND r.outcome = 'ok' \
          AND r.stage = (SELECT max(stage) FROM stages WHERE run = ?1))",
    )?;
    seqs.iter().try_for_each(|seq| update.execute(params![run, seq]).map(drop))
}
