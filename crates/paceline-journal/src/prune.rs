//! Forgetting old runs.

use std::{collections::HashSet, fs, time::Duration};

use crate::{
    content,
    entry::now,
    error::{At, Error, try_to},
    journal::Journal,
};

/// Which runs are kept: those that any of these speaks for.
///
/// ```
/// use std::time::Duration;
/// use paceline_journal::{Journal, Keep, NewRun};
///
/// let folder = tempfile::tempdir()?;
/// let mut journal = Journal::open(&folder.path().join("journal.db"))?;
/// for _ in 0..3 {
///     journal.begin(&NewRun::of_stages("run", "photos", &["resize"]))?;
/// }
/// let keep = Keep { newest: Some(1), ..Keep::default() };
/// assert_eq!(journal.prune(&keep)?.runs, [1, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Keep {
    /// So many of the newest.
    pub newest: Option<usize>,
    /// Those that have begun at most so long ago.
    pub younger_than: Option<Duration>,
}

/// What was forgotten.
///
/// ```
/// let pruned = paceline_journal::Pruned::default();
/// assert!(pruned.runs.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The runs' numbers.
    pub runs: Vec<u64>,
    /// How many bytes smaller the journal has become.
    pub bytes: u64,
}

impl Journal {
    /// Forgets all runs but those to keep, and gives the room back.
    ///
    /// # Errors
    ///
    /// If the journal cannot be written.
    pub fn prune(&mut self, keep: &Keep) -> Result<Pruned, Error> {
        let before = self.size();
        let runs = self.to_forget(keep)?;
        self.change(|connection| {
            for table in ["failures", "results", "items", "folders", "inputs", "stages", "sessions"]
            {
                let mut delete =
                    connection.prepare(&format!("DELETE FROM {table} WHERE run = ?"))?;
                for run in &runs {
                    delete.execute([*run as i64])?;
                }
            }
            for run in &runs {
                connection.execute("DELETE FROM runs WHERE run = ?", [*run as i64])?;
            }
            Ok(())
        })?;
        if !runs.is_empty() {
            self.connection
                .execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")
                .at("write", &self.path)?;
        }
        self.sweep_content()?;
        Ok(Pruned { runs, bytes: before.saturating_sub(self.size()) })
    }

    fn to_forget(&self, keep: &Keep) -> Result<Vec<u64>, Error> {
        let all = try_to("read", &self.path, || {
            let sql = "SELECT run, coalesce((SELECT max(started_unix_ms) FROM sessions s \
                       WHERE s.run = runs.run), 0) FROM runs ORDER BY run DESC";
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement
                .query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)?)))?;
            rows.collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let now = now();
        let is_kept = |index: usize, started: i64| {
            let age = u64::try_from(now.saturating_sub(started)).unwrap_or_default();
            keep.newest.is_some_and(|newest| index < newest)
                || keep.younger_than.is_some_and(|limit| Duration::from_millis(age) <= limit)
        };
        let mut runs: Vec<u64> = all
            .into_iter()
            .enumerate()
            .filter(|(index, (_, started))| !is_kept(*index, *started))
            .map(|(_, (run, _))| run)
            .collect();
        runs.sort_unstable();
        Ok(runs)
    }

    /// Removes large results that no run names any more, or that a kill left unnamed.
    fn sweep_content(&self) -> Result<(), Error> {
        let folder = content::folder(&self.path);
        let Ok(entries) = fs::read_dir(&folder) else { return Ok(()) };
        let named = try_to("read", &self.path, || {
            let sql = "SELECT DISTINCT file FROM results WHERE file IS NOT NULL";
            let mut statement = self.connection.prepare(sql)?;
            let names = statement.query_map([], |row| row.get::<_, String>(0))?;
            names.collect::<rusqlite::Result<HashSet<String>>>()
        })?;
        for entry in entries.flatten() {
            let is_named = entry.file_name().to_str().is_some_and(|name| named.contains(name));
            if !is_named {
                fs::remove_file(entry.path()).at("remove", &entry.path())?;
            }
        }
        Ok(())
    }

    fn size(&self) -> u64 {
        let mut log = self.path.as_os_str().to_owned();
        log.push("-wal");
        let of = |found: std::io::Result<fs::Metadata>| found.map_or(0, |found| found.len());
        of(fs::metadata(&self.path)) + of(fs::metadata(log)) + content::size(&self.path)
    }
}
