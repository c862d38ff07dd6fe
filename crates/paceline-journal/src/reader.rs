//! What a journal knows, for whoever asks: runs, stages, failures.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, params};

use crate::{
    content,
    entry::{Failure, Id},
    error::{At, Error, ErrorKind, try_to},
    file,
    journal::{boot, harden, no_run, start_of},
    schema,
};

/// Looks at a journal, also while another program writes to it.
///
/// ```
/// use paceline_journal::{Journal, NewRun, Reader};
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("journal.db");
/// let mut journal = Journal::open(&path)?;
/// journal.begin(&NewRun::of_stages("run", "photos", &["resize"]))?;
/// let runs = Reader::open(&path)?.runs()?;
/// assert_eq!((runs.len(), &*runs[0].name), (1, "photos"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    connection: Connection,
}

/// A run, in numbers.
///
/// ```
/// # use paceline_journal::{Journal, NewRun, Reader};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("journal.db");
/// # let mut journal = Journal::open(&path)?;
/// journal.begin(&NewRun::of_stages("run", "photos", &["resize"]))?;
/// let run = &Reader::open(&path)?.runs()?[0];
/// assert_eq!((run.items, run.ok, run.failed, run.unfinished()), (0, 0, 0, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunInfo {
    /// Its number.
    pub run: u64,
    /// What was asked for: `run` or `each`.
    pub command: String,
    /// The pipeline's name.
    pub name: String,
    /// The pipeline file, if there is one.
    pub pipeline: Option<Vec<u8>>,
    /// When it began.
    pub started_unix_ms: i64,
    /// When its last session ended, unless that was killed or goes on.
    pub ended_unix_ms: Option<i64>,
    /// How its last session ended, likewise.
    pub ending: Option<String>,
    /// The process of its last session.
    pub pid: u32,
    /// When that process began, in ticks since the start of the system.
    pub pid_start: u64,
    /// The start of the system that it ran in.
    pub boot: String,
    /// How many sessions it had.
    pub sessions: u64,
    /// Items taken.
    pub items: u64,
    /// Items that came through.
    pub ok: u64,
    /// Items that some stage gave up.
    pub failed: u64,
    /// Whether the source was read to its end.
    pub source_ended: bool,
}

impl RunInfo {
    /// Returns the items taken and not answered.
    pub fn unfinished(&self) -> u64 {
        self.items.saturating_sub(self.ok + self.failed)
    }

    /// Returns whether its last session goes on: its process is still there.
    pub fn is_running(&self) -> bool {
        self.ending.is_none()
            && self.boot == boot()
            && start_of(self.pid).is_some_and(|start| start == self.pid_start)
    }
}

/// A stage of a run, in numbers.
///
/// ```
/// # use paceline_journal::{Journal, NewRun, Reader};
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("journal.db");
/// # let mut journal = Journal::open(&path)?;
/// let run = journal.begin(&NewRun::of_stages("run", "photos", &["resize"]))?;
/// let stages = Reader::open(&path)?.stages(run)?;
/// assert_eq!((&*stages[0].name, stages[0].ok), ("resize", 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageInfo {
    /// Its name.
    pub name: String,
    /// Its kind of work.
    pub kind: String,
    /// Items it answered with a value.
    pub ok: u64,
    /// Items it gave up.
    pub failed: u64,
    /// Attempts after a first one.
    pub retried: u64,
    /// How long the last attempts took in all, in microseconds.
    pub service_us: u64,
    /// The CPU time of these, as far as it is known.
    pub cpu_us: u64,
    /// The most memory that one of its processes had, if that is known.
    pub peak_memory_kb: Option<u64>,
}

/// An item that failed for good: a dead letter, until a retry succeeds.
///
/// ```
/// # use paceline_journal::*;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("journal.db");
/// # let mut journal = Journal::open(&path)?;
/// # let run = journal.begin(&NewRun::of_stages("run", "photos", &["resize"]))?;
/// let writer = journal.write(run)?;
/// writer.record(Entry::Taken(Item::new(1, identity(b"a.jpg", 1), b"a.jpg")));
/// let failure = Failure { kind: "exit".into(), code: Some(1), ..Failure::default() };
/// writer.record(Entry::Answer(Answer::new(1, 0, Outcome::Failed(Box::new(failure)))));
/// writer.finish("failed", 1)?;
/// let failed = &Reader::open(&path)?.failed(run)?[0];
/// assert_eq!((&*failed.value, &*failed.stage, failed.failure.code), (&b"a.jpg"[..], "resize", Some(1)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedItem {
    /// Its number in the run.
    pub seq: u64,
    /// Its identity.
    pub id: Id,
    /// Its bytes.
    pub value: Vec<u8>,
    /// The stage that gave it up.
    pub stage: String,
    /// How many attempts were made.
    pub attempts: u32,
    /// When the last of them ended.
    pub ended_unix_ms: i64,
    /// Why.
    pub failure: Failure,
}

/// Opens the database to read.
pub(crate) fn connect(path: &Path) -> Result<Connection, Error> {
    let open = |extra: OpenFlags, name: &Path| -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
        let connection = Connection::open_with_flags(name, flags)?;
        harden(&connection)?;
        // Only now is the file looked at.
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    match open(OpenFlags::empty(), path) {
        Ok(connection) => Ok(connection),
        // A log's shared memory cannot be made in a folder that may not be written to. Without a
        // log nobody is writing, and the file is all there is.
        Err(error)
            if error.sqlite_error_code() != Some(rusqlite::ErrorCode::NotADatabase)
                && !has_log(path) =>
        {
            let name = format!("file:{}?immutable=1", escaped(path));
            open(OpenFlags::SQLITE_OPEN_URI, Path::new(&name)).map_err(|_| error)
        }
        Err(error) => Err(error),
    }
    .at("read", path)
}

fn has_log(path: &Path) -> bool {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    std::fs::metadata(name).is_ok_and(|found| found.len() > 0)
}

/// A path as a part of a URI.
fn escaped(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let bytes = path.as_os_str().as_bytes();
    bytes
        .iter()
        .map(|byte| match plain(*byte) {
            true => char::from(*byte).to_string(),
            false => format!("%{byte:02x}"),
        })
        .collect()
}

impl Reader {
    /// Opens the journal at `path` to read.
    ///
    /// # Errors
    ///
    /// If it is not there, somebody else could have written it, it is no
    /// journal, damaged, or of a later format.
    pub fn open(path: &Path) -> Result<Self, Error> {
        file::check_owner(path)?;
        file::check_kind(path)?;
        let connection = connect(path)?;
        if schema::check(&connection, path)? == 0 {
            let message = format!("the journal `{}` is empty", path.display());
            return Err(Error::new(ErrorKind::Missing, message));
        }
        Ok(Self { path: path.to_owned(), connection })
    }

    /// Returns the journal's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns how many bytes the journal takes, large results included.
    pub fn size(&self) -> u64 {
        let of = |ending: &str| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(ending);
            std::fs::metadata(name).map_or(0, |found| found.len())
        };
        of("") + of("-wal") + content::size(&self.path)
    }

    /// Returns the runs, the oldest first.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn runs(&self) -> Result<Vec<RunInfo>, Error> {
        try_to("read", &self.path, || {
            let mut statement = self.connection.prepare("SELECT run FROM runs ORDER BY run")?;
            let numbers: Vec<i64> =
                statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            numbers.into_iter().filter_map(|run| self.info(run).transpose()).collect()
        })
    }

    /// Returns a run in numbers.
    ///
    /// # Errors
    ///
    /// If there is no such run.
    pub fn run(&self, run: u64) -> Result<RunInfo, Error> {
        let found = self.info(run as i64).at("read", &self.path)?;
        found.ok_or_else(|| no_run(&self.path, run))
    }

    /// Returns the number of the newest run, or of that of the pipeline file at this absolute path.
    ///
    /// A file that has been moved, its journal with it, is found by its name.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn newest(&self, pipeline: Option<&[u8]>) -> Result<Option<u64>, Error> {
        newest(&self.connection, None, pipeline).at("read", &self.path)
    }

    fn info(&self, run: i64) -> rusqlite::Result<Option<RunInfo>> {
        // Items fail in one stage at most, and come through the last one or not.
        let sql = "SELECT command, name, pipeline, source_ended, \
                     (SELECT min(started_unix_ms) FROM sessions s WHERE s.run = r.run), \
                     (SELECT count(*) FROM sessions s WHERE s.run = r.run), \
                     (SELECT count(*) FROM items i WHERE i.run = r.run), \
                     (SELECT count(*) FROM results a WHERE a.run = r.run AND a.outcome = 'ok' \
                        AND a.stage = (SELECT max(stage) FROM stages t WHERE t.run = r.run)), \
                     (SELECT count(DISTINCT seq) FROM failures f WHERE f.run = r.run), \
                     l.ended_unix_ms, l.ending, l.pid, l.pid_start, l.boot \
                   FROM runs r LEFT JOIN sessions l ON l.run = r.run AND l.session = \
                     (SELECT max(session) FROM sessions s WHERE s.run = r.run) \
                   WHERE r.run = ?";
        let mut statement = self.connection.prepare_cached(sql)?;
        let found = statement.query_row([run], |row| {
            Ok(RunInfo {
                run: run as u64,
                command: row.get(0)?,
                name: row.get(1)?,
                pipeline: row.get(2)?,
                source_ended: row.get(3)?,
                started_unix_ms: row.get::<_, Option<i64>>(4)?.unwrap_or_default(),
                sessions: row.get::<_, i64>(5)? as u64,
                items: row.get::<_, i64>(6)? as u64,
                ok: row.get::<_, i64>(7)? as u64,
                failed: row.get::<_, i64>(8)? as u64,
                ended_unix_ms: row.get(9)?,
                ending: row.get(10)?,
                pid: row.get::<_, Option<u32>>(11)?.unwrap_or_default(),
                pid_start: row.get::<_, Option<i64>>(12)?.unwrap_or_default() as u64,
                boot: row.get::<_, Option<String>>(13)?.unwrap_or_default(),
            })
        });
        found.optional()
    }

    /// Returns the stages of a run, in order.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn stages(&self, run: u64) -> Result<Vec<StageInfo>, Error> {
        try_to("read", &self.path, || {
            let sql = "SELECT name, kind, count(outcome) FILTER (WHERE outcome = 'ok'), \
                         count(outcome) FILTER (WHERE outcome <> 'ok'), \
                         coalesce(sum(max(attempts - 1, 0)), 0), coalesce(sum(service_us), 0), \
                         coalesce(sum(cpu_us), 0), max(peak_memory_kb) \
                       FROM stages s LEFT JOIN results r ON r.run = s.run AND r.stage = s.stage \
                       WHERE s.run = ? GROUP BY s.stage ORDER BY s.stage";
            let mut statement = self.connection.prepare(sql)?;
            let stages = statement.query_map([run as i64], |row| {
                let number = |index| row.get::<_, i64>(index).map(|number| number as u64);
                Ok(StageInfo {
                    name: row.get(0)?,
                    kind: row.get(1)?,
                    ok: number(2)?,
                    failed: number(3)?,
                    retried: number(4)?,
                    service_us: number(5)?,
                    cpu_us: number(6)?,
                    peak_memory_kb: row.get::<_, Option<i64>>(7)?.map(|size| size as u64),
                })
            })?;
            stages.collect()
        })
    }

    /// Returns the items of a run that failed for good, in order.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn failed(&self, run: u64) -> Result<Vec<FailedItem>, Error> {
        try_to("read", &self.path, || {
            let sql = "SELECT f.seq, i.id, i.value, s.name, r.attempts, r.ended_unix_ms, f.kind, \
                         f.code, f.signal, f.message, f.command, f.stderr \
                       FROM failures f \
                       JOIN items i ON i.run = f.run AND i.seq = f.seq \
                       JOIN results r ON r.run = f.run AND r.seq = f.seq AND r.stage = f.stage \
                       JOIN stages s ON s.run = f.run AND s.stage = f.stage \
                       WHERE f.run = ? ORDER BY f.seq";
            let mut statement = self.connection.prepare(sql)?;
            let failed = statement.query_map(params![run as i64], |row| {
                Ok(FailedItem {
                    seq: row.get::<_, i64>(0)? as u64,
                    id: row.get(1)?,
                    value: row.get(2)?,
                    stage: row.get(3)?,
                    attempts: row.get(4)?,
                    ended_unix_ms: row.get(5)?,
                    failure: Failure {
                        kind: row.get(6)?,
                        code: row.get(7)?,
                        signal: row.get(8)?,
                        message: row.get(9)?,
                        command: row.get(10)?,
                        stderr: row.get::<_, Option<Vec<u8>>>(11)?.unwrap_or_default(),
                    },
                })
            })?;
            failed.collect()
        })
    }
}

/// The newest run of this command and of this pipeline file, as far as they are said.
pub(crate) fn newest(
    connection: &Connection,
    command: Option<&str>,
    pipeline: Option<&[u8]>,
) -> rusqlite::Result<Option<u64>> {
    let sql = "SELECT pipeline, max(run) FROM runs WHERE ?1 IS NULL OR command = ?1 \
               GROUP BY pipeline ORDER BY 2 DESC";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([command], |row| {
        Ok((row.get::<_, Option<Vec<u8>>>(0)?, row.get::<_, i64>(1)? as u64))
    })?;
    let runs: Vec<(Option<Vec<u8>>, u64)> = rows.collect::<rusqlite::Result<_>>()?;
    let Some(pipeline) = pipeline else { return Ok(runs.first().map(|(_, run)| *run)) };
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    let wanted = path(pipeline);
    let is_it = |of: &Option<Vec<u8>>| of.as_deref() == Some(pipeline);
    let was_moved = |of: &Option<Vec<u8>>| {
        of.as_deref()
            .map(path)
            .is_some_and(|of| of.file_name() == wanted.file_name() && !of.exists())
    };
    let found = runs.iter().find(|(of, _)| is_it(of));
    Ok(found.or_else(|| runs.iter().find(|(of, _)| was_moved(of))).map(|(_, run)| *run))
}
