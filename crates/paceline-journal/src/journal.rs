//! A journal, open for one program to write.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags, OptionalExtension, TransactionBehavior, config::DbConfig, params,
};

use crate::{
    entry::{NewRun, StageSpec, now},
    error::{At, Error, ErrorKind, try_to},
    file::{self, Lock},
    reader, schema,
    writer::{Durability, Target, Writer},
};

/// How long a program that holds the database's own lock is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A journal that no other program may write to meanwhile.
///
/// See the [crate's documentation](crate) for how it is used.
#[derive(Debug)]
pub struct Journal {
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
    lock: Lock,
    durability: Durability,
    session: u64,
    shared: Option<&'static str>,
    probe: fn(&'static str),
}

/// One time that a run was worked on: from its start, or a resume, to its end or a kill.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let mut journal = paceline_journal::Journal::open(&folder.path().join("journal.db"))?;
/// let run = journal.begin(&paceline_journal::NewRun::of_stages("run", "photos", &["resize"]))?;
/// let session = &journal.sessions(run)?[0];
/// assert_eq!(session.pid, std::process::id());
/// assert_eq!(session.ending, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The `PACELINE_RUN` of its jobs.
    pub token: String,
    /// The process that ran it.
    pub pid: u32,
    /// When that process began, in ticks since the start of the system.
    pub pid_start: u64,
    /// The start of the system that it ran in.
    pub boot: String,
    /// How it ended, unless it was killed or goes on.
    pub ending: Option<String>,
}

impl Session {
    /// The session of this process, whose jobs have `token` as their `PACELINE_RUN`.
    pub fn of_this_process(token: &str) -> Self {
        let pid = std::process::id();
        Self {
            token: token.to_owned(),
            pid,
            pid_start: start_of(pid).unwrap_or_default(),
            boot: boot(),
            ending: None,
        }
    }
}

/// Which start of the system this is.
pub(crate) fn boot() -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    boot.trim_end().to_owned()
}

/// When a process began, in ticks since the start of the system.
pub(crate) fn start_of(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split(' ').nth(20)?.parse().ok()
}

impl Journal {
    /// Opens the journal at `path` for this program alone, and makes it if it is not there.
    ///
    /// It is readable by its owner only. An older format is brought up. A
    /// folder `.paceline` that it lies in is made too; any other is not.
    ///
    /// # Errors
    ///
    /// If its folder is missing, another program has it open to write, somebody else could have
    /// written it, it is no journal, damaged, or of a later format.
    pub fn open(path: &Path) -> Result<Self, Error> {
        file::create(path)?;
        file::check_owner(path)?;
        file::check_kind(path)?;
        let lock = Lock::take(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).at("open", path)?;
        harden(&connection).at("open", path)?;
        schema::check(&connection, path)?;
        // Not before it is known to be ours.
        file::make_private(path)?;
        // What a killed program left in the log is found here, and so is damage.
        let shared = file::shared_file_system(path);
        let mode = if shared.is_some() { "TRUNCATE" } else { "WAL" };
        let set: String = connection
            .pragma_update_and_check(None, "journal_mode", mode, |row| row.get(0))
            .at("open", path)?;
        if !set.eq_ignore_ascii_case(mode) {
            let message = format!("the journal `{}` cannot be written here", path.display());
            return Err(Error::new(ErrorKind::Io, message));
        }
        schema::bring_up(&mut connection, path)?;
        let probe = |_: &'static str| {};
        let (path, durability) = (path.to_owned(), Durability::default());
        let mut journal = Self { path, connection, lock, durability, session: 1, shared, probe };
        journal.take_marks()?;
        Ok(journal)
    }

    /// Sets how safe what is recorded is.
    ///
    /// # Errors
    ///
    /// If the database refuses.
    pub fn set_durability(&mut self, durability: Durability) -> Result<(), Error> {
        self.durability = durability;
        let name = match durability {
            Durability::Normal => "NORMAL",
            Durability::Full => "FULL",
        };
        self.connection.pragma_update(None, "synchronous", name).at("open", &self.path)
    }

    /// Has the writer call `probe` with the name of each point at which a test may want to
    /// end the program.
    pub fn set_probe(&mut self, probe: fn(&'static str)) {
        self.probe = probe;
    }

    /// Returns the name of the file system if it is one across a network:
    /// commits are slow there, since a write-ahead log is not safe.
    pub fn shared_file_system(&self) -> Option<&'static str> {
        self.shared
    }

    /// Returns the journal's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a run, and returns its number.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded.
    pub fn begin(&mut self, run: &NewRun) -> Result<u64, Error> {
        self.begin_as(run, &Session::of_this_process(""))
    }

    /// As [`begin`](Self::begin), in this session.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded.
    pub fn begin_as(&mut self, run: &NewRun, session: &Session) -> Result<u64, Error> {
        self.session = 1;
        self.change(|connection| {
            connection.execute(
                "INSERT INTO runs (command, name, pipeline, definition, source)
                 VALUES (?, ?, ?, ?, ?)",
                params![run.command, run.name, run.pipeline, whole(&run.stages), run.source],
            )?;
            let number = connection.last_insert_rowid();
            put_stages(connection, number, &run.stages)?;
            let sql = "INSERT INTO inputs (run, position, value) VALUES (?, ?, ?)";
            let mut input = connection.prepare(sql)?;
            for (position, value) in run.inputs.iter().enumerate() {
                input.execute(params![number, position as i64, value])?;
            }
            put_session(connection, number, 1, session)?;
            Ok(number as u64)
        })
    }

    /// Begins another session of a run.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded.
    pub fn go_on(&mut self, run: u64, session: &Session) -> Result<(), Error> {
        let number = self.change(|connection| {
            let sql = "SELECT coalesce(max(session), 0) + 1 FROM sessions WHERE run = ?";
            let number: i64 = connection.query_row(sql, [run as i64], |row| row.get(0))?;
            put_session(connection, run as i64, number, session)?;
            Ok(number as u64)
        })?;
        self.session = number;
        Ok(())
    }

    /// Takes `stages` for those of the run from here on. Results of the stage
    /// `from` and of later ones are forgotten, if it is said.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded.
    pub fn change_stages(
        &mut self,
        run: u64,
        stages: &[StageSpec],
        from: Option<usize>,
    ) -> Result<(), Error> {
        self.change(|connection| {
            let run = run as i64;
            if let Some(from) = from {
                let key = params![run, from as i64];
                connection.execute("DELETE FROM results WHERE run = ? AND stage >= ?", key)?;
                connection.execute("DELETE FROM failures WHERE run = ? AND stage >= ?", key)?;
                connection.execute("UPDATE items SET printed = 0 WHERE run = ?", [run])?;
            }
            connection.execute("DELETE FROM stages WHERE run = ?", [run])?;
            put_stages(connection, run, stages)?;
            connection.execute(
                "UPDATE runs SET definition = ? WHERE run = ?",
                params![whole(stages), run],
            )?;
            Ok(())
        })
    }

    /// Takes `stages` for those of the run from here on, and lets stand what is
    /// done: an item that came through all stages has come through these.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded.
    pub fn keep_stages(&mut self, run: u64, stages: &[StageSpec]) -> Result<(), Error> {
        let before = self.stages(run)?.len() as i64;
        let after = stages.len() as i64;
        self.change(|connection| {
            let number = run as i64;
            // What more stages would have made is what the last one did, without an attempt.
            for stage in before..after {
                connection.execute(
                    "INSERT OR REPLACE INTO results \
                       (run, seq, stage, outcome, attempts, worker, batch, ended_unix_ms, \
                        service_us, value, file) \
                     SELECT run, seq, ?3, outcome, 0, 0, batch, ended_unix_ms, 0, value, file \
                     FROM results WHERE run = ?1 AND stage = ?2 AND outcome = 'ok'",
                    params![number, before - 1, stage],
                )?;
            }
            for table in ["results", "failures"] {
                let sql = format!("DELETE FROM {table} WHERE run = ? AND stage >= ?");
                connection.execute(&sql, params![number, after])?;
            }
            Ok(())
        })?;
        self.change_stages(run, stages, None)
    }

    /// Returns the sessions of a run, in order.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn sessions(&self, run: u64) -> Result<Vec<Session>, Error> {
        try_to("read", &self.path, || {
            let sql = "SELECT token, pid, pid_start, boot, ending FROM sessions WHERE run = ? \
                       ORDER BY session";
            let mut statement = self.connection.prepare(sql)?;
            let sessions = statement.query_map([run as i64], |row| {
                Ok(Session {
                    token: row.get(0)?,
                    pid: row.get(1)?,
                    pid_start: row.get::<_, i64>(2)? as u64,
                    boot: row.get(3)?,
                    ending: row.get(4)?,
                })
            })?;
            sessions.collect()
        })
    }

    /// Returns the run that was worked on last.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn last_worked_on(&self) -> Result<Option<u64>, Error> {
        let sql = "SELECT run FROM sessions ORDER BY started_unix_ms DESC, run DESC LIMIT 1";
        let run = self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        Ok(run.optional().at("read", &self.path)?.map(|run| run as u64))
    }

    /// Returns the folders in which a run makes files.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn folders(&self, run: u64) -> Result<Vec<Vec<u8>>, Error> {
        self.bytes("SELECT path FROM folders WHERE run = ? ORDER BY path", run)
    }

    /// Returns the items that a run was given, whether it has taken them or not.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn inputs(&self, run: u64) -> Result<Vec<Vec<u8>>, Error> {
        self.bytes("SELECT value FROM inputs WHERE run = ? ORDER BY position", run)
    }

    fn bytes(&self, sql: &str, run: u64) -> Result<Vec<Vec<u8>>, Error> {
        try_to("read", &self.path, || {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map([run as i64], |row| row.get(0))?;
            rows.collect()
        })
    }

    /// Returns the stages of a run, in order.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn stages(&self, run: u64) -> Result<Vec<StageSpec>, Error> {
        stages(&self.connection, run).at("read", &self.path)
    }

    /// As [`Reader::newest`](crate::Reader::newest), of the runs of `command`.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn newest(&self, command: &str, pipeline: Option<&[u8]>) -> Result<Option<u64>, Error> {
        reader::newest(&self.connection, Some(command), pipeline).at("read", &self.path)
    }

    /// Returns a run as it began: without its stages and inputs.
    ///
    /// # Errors
    ///
    /// If there is no such run.
    pub fn run(&self, run: u64) -> Result<NewRun, Error> {
        let sql = "SELECT command, name, pipeline, source FROM runs WHERE run = ?";
        let found = self.connection.query_row(sql, [run as i64], |row| {
            Ok(NewRun {
                command: row.get(0)?,
                name: row.get(1)?,
                pipeline: row.get(2)?,
                source: row.get(3)?,
                ..NewRun::default()
            })
        });
        found.optional().at("read", &self.path)?.ok_or_else(|| no_run(&self.path, run))
    }

    /// Starts the thread that writes the entries of this run.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn write(self, run: u64) -> Result<Writer, Error> {
        let Self { path, connection, lock, durability, session, probe, .. } = self;
        Writer::start(Target { path, connection, lock, run, session, durability, probe })
    }

    pub(crate) fn change<T>(
        &mut self,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, Error> {
        try_to("write", &self.path, || {
            let begin = TransactionBehavior::Immediate;
            let transaction = self.connection.transaction_with_behavior(begin)?;
            let done = change(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }
}

pub(crate) fn no_run(path: &Path, run: u64) -> Error {
    let message = format!("the journal `{}` has no run {run}", path.display());
    Error::new(ErrorKind::NoRun, message).hint("`paceline runs` lists them")
}

pub(crate) fn stages(connection: &Connection, run: u64) -> rusqlite::Result<Vec<StageSpec>> {
    let sql = "SELECT name, kind, definition FROM stages WHERE run = ? ORDER BY stage";
    let mut statement = connection.prepare(sql)?;
    let stages = statement.query_map([run as i64], |row| {
        Ok(StageSpec { name: row.get(0)?, kind: row.get(1)?, definition: row.get(2)? })
    })?;
    stages.collect()
}

/// Trusts the file no further than it must be.
pub(crate) fn harden(connection: &Connection) -> rusqlite::Result<()> {
    // First of all, since everything after it may have to wait.
    connection.busy_timeout(PATIENCE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "synchronous", "NORMAL")
}

fn put_stages(connection: &Connection, run: i64, stages: &[StageSpec]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO stages (run, stage, name, kind, definition) VALUES (?, ?, ?, ?, ?)";
    let mut insert = connection.prepare(sql)?;
    for (index, stage) in stages.iter().enumerate() {
        insert.execute(params![run, index as i64, stage.name, stage.kind, stage.definition])?;
    }
    Ok(())
}

fn put_session(
    connection: &Connection,
    run: i64,
    number: i64,
    session: &Session,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO sessions \
               (run, session, token, pid, pid_start, boot, version, started_unix_ms) \
               VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    connection
        .execute(
            sql,
            params![
                run,
                number,
                session.token,
                session.pid,
                session.pid_start as i64,
                session.boot,
                env!("CARGO_PKG_VERSION"),
                now()
            ],
        )
        .map(drop)
}

/// The hash of all stages together.
fn whole(stages: &[StageSpec]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for stage in stages {
        hasher.update(stage.name.as_bytes());
        hasher.update(&[0]);
        hasher.update(&stage.definition);
    }
    *hasher.finalize().as_bytes()
}
