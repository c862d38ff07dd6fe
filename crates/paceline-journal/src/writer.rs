//! The one thread that writes a run's entries.
//!
//! Entries are gathered in memory and committed together. A lone entry is
//! committed at once; where they come fast, and nobody has to wait for them,
//! a commit follows the one before by [`INTERVAL`] at the earliest, since
//! each costs as much as many entries. What cannot be written is never
//! tried again: what a failed `fsync` has lost the kernel does not know.

use std::{
    fmt, mem,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rusqlite::{CachedStatement, Connection, TransactionBehavior, params};

use crate::{
    content::{self, Content},
    entry::{Answer, Entry, Item, Outcome, now},
    error::{At, Error},
    file::Lock,
    marks::{self, Marks},
};

/// The least time between two commits that nobody waits for. 5 ms: at 2 ms the journal's part of
/// starting children was 1.05 x in CPU time, at 5 ms 1.025, and no less at 10 ms.
const INTERVAL: Duration = Duration::from_millis(5);

/// So many entries are committed at once, whenever the last commit was.
const MANY: usize = 100;

/// How safe what is recorded is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Durability {
    /// It survives the end of the program, however that comes about. A power
    /// cut may take the last commits, and leaves a journal that is whole.
    #[default]
    Normal,
    /// It survives a power cut too: each commit waits for the disk.
    Full,
}

/// Records the entries of one run, in the order in which they come.
///
/// A clone records into the same run. [`finish`](Writer::finish) ends it;
/// without that, when the last clone is dropped, what was recorded is
/// written and the session stays without an end, as after a kill.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
    /// Ends the thread when the last of these goes.
    thread: Arc<Thread>,
}

struct Shared {
    path: PathBuf,
    durable: bool,
    run: u64,
    state: Mutex<State>,
    work: Condvar,
    committed: AtomicU64,
    trouble: OnceLock<Arc<Error>>,
    marks: Mutex<Option<Marks>>,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    /// The number of the last entry.
    last: u64,
    /// Whether the thread waits for an entry to come.
    is_idle: bool,
    /// Whether somebody can do nothing before the next commit.
    is_urgent: bool,
    waiting: Vec<Waiting>,
    is_closed: bool,
    ending: Option<(String, i32)>,
}

/// Somebody who waits for a commit.
struct Waiting {
    entry: u64,
    is_urgent: bool,
    waker: Waker,
}

struct Thread {
    shared: Arc<Shared>,
    handle: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread works on.
pub(crate) struct Target {
    pub(crate) path: PathBuf,
    pub(crate) connection: Connection,
    pub(crate) lock: Lock,
    pub(crate) run: u64,
    pub(crate) session: u64,
    pub(crate) durability: Durability,
    /// Told the name of each point that a test may want to be killed at.
    pub(crate) probe: fn(&'static str),
}

impl Writer {
    pub(crate) fn start(target: Target) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            path: target.path.clone(),
            durable: target.durability == Durability::Full,
            run: target.run,
            state: Mutex::default(),
            work: Condvar::new(),
            committed: AtomicU64::new(0),
            trouble: OnceLock::new(),
            marks: Mutex::new(Marks::create(&target.path, target.run, target.session)),
        });
        let at_work = shared.clone();
        let thread = thread::Builder::new()
            .name("paceline-journal".to_owned())
            .spawn(move || write_all(&at_work, target))
            .at("start a thread for", &shared.path)?;
        let thread = Thread { shared: shared.clone(), handle: Mutex::new(Some(thread)) };
        Ok(Self { shared, thread: Arc::new(thread) })
    }

    /// Returns the number of the run.
    pub fn run(&self) -> u64 {
        self.shared.run
    }

    /// Returns the journal's path.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Takes an entry to be recorded, and returns its number. It does not wait.
    pub fn record(&self, entry: Entry) -> u64 {
        if let Entry::Printed(seqs) = &entry
            && let Some(marks) = &mut *self.shared.marks()
        {
            marks.add(seqs, |entry| self.is_recorded(entry));
            let entry = self.put(entry);
            marks.recorded_as(entry);
            return entry;
        }
        self.put(entry)
    }

    fn put(&self, entry: Entry) -> u64 {
        let mut state = self.shared.state();
        state.last += 1;
        state.entries.push(entry);
        if state.is_idle || state.entries.len() == MANY {
            state.is_idle = false;
            self.shared.work.notify_one();
        }
        state.last
    }

    /// Returns whether all up to this entry is recorded.
    pub fn is_recorded(&self, entry: u64) -> bool {
        self.shared.committed.load(Ordering::Acquire) >= entry
    }

    /// Waits until all up to this entry is recorded.
    ///
    /// # Errors
    ///
    /// If it cannot be: nothing will be any more.
    pub fn wait(&self, entry: u64) -> Result<(), Arc<Error>> {
        struct Unpark(thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.poll_recorded(entry, true, &mut context) {
                Poll::Ready(recorded) => return recorded,
                Poll::Pending => thread::park(),
            }
        }
    }

    /// As [`wait`](Self::wait), for a task. `is_urgent` says that nothing
    /// better can be done meanwhile, so that the commit is not put off.
    ///
    /// # Errors
    ///
    /// If it cannot be recorded: nothing will be any more.
    pub fn poll_recorded(
        &self,
        entry: u64,
        is_urgent: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Arc<Error>>> {
        if self.is_recorded(entry) {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.shared.state();
        if self.is_recorded(entry) {
            return Poll::Ready(Ok(()));
        }
        if let Some(error) = self.shared.trouble.get() {
            return Poll::Ready(Err(error.clone()));
        }
        let waker = context.waker();
        let known = state.waiting.iter_mut().find(|waiting| waiting.waker.will_wake(waker));
        match known {
            Some(waiting) => (waiting.entry, waiting.is_urgent) = (entry, is_urgent),
            None => {
                let waker = waker.clone();
                state.waiting.push(Waiting { entry, is_urgent, waker });
            }
        }
        if is_urgent && !state.is_urgent {
            state.is_urgent = true;
            self.shared.work.notify_one();
        }
        Poll::Pending
    }

    /// Keeps a result in a file beside the journal, as `write` writes it.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn keep(
        &self,
        write: impl FnOnce(&mut dyn std::io::Write) -> std::io::Result<()>,
    ) -> Result<Content, Error> {
        content::keep(&self.shared.path, self.shared.durable, write).map(Content::File)
    }

    /// Notes that nothing can be recorded any more, for a reason of the caller's.
    pub fn fail(&self, error: Error) {
        self.shared.fail(error);
    }

    /// Returns why nothing can be recorded any more, if so.
    pub fn trouble(&self) -> Option<Arc<Error>> {
        self.shared.trouble.get().cloned()
    }

    /// Writes what is left, notes how the run ended, and closes the journal.
    ///
    /// # Errors
    ///
    /// If something could not be recorded, then or before.
    pub fn finish(self, ending: &str, exit_status: i32) -> Result<(), Arc<Error>> {
        self.shared.state().ending = Some((ending.to_owned(), exit_status));
        self.thread.end();
        match self.shared.trouble.get() {
            None => Ok(()),
            Some(error) => Err(error.clone()),
        }
    }
}

impl paceline::Journal for Writer {
    fn is_recorded(&self, entry: u64) -> bool {
        Self::is_recorded(self, entry)
    }

    fn poll_recorded(
        &self,
        entry: u64,
        is_urgent: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), paceline::BoxError>> {
        Self::poll_recorded(self, entry, is_urgent, context)
            .map(|recorded| recorded.map_err(|error| Box::new(Shown(error)) as _))
    }
}

/// An error that several hear of.
struct Shown(Arc<Error>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::error::Error for Shown {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("path", &self.shared.path)
            .field("run", &self.shared.run)
            .finish_non_exhaustive()
    }
}

impl Thread {
    fn end(&self) {
        self.shared.state().is_closed = true;
        self.shared.work.notify_one();
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(handle) = handle
            && handle.join().is_err()
        {
            let message = "the thread that writes the journal panicked";
            self.shared.fail(Error::new(crate::ErrorKind::Io, message));
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn marks(&self) -> MutexGuard<'_, Option<Marks>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all who wait that nothing more will be recorded.
    fn fail(&self, error: Error) {
        self.trouble.get_or_init(|| Arc::new(error));
        let waiting = mem::take(&mut self.state().waiting);
        waiting.into_iter().for_each(|waiting| waiting.waker.wake());
    }

    /// Waits for entries and takes them; `None` when there will be no more.
    fn gather(&self, entries: &mut Vec<Entry>, last_commit: Instant) -> Option<u64> {
        let mut state = self.state();
        loop {
            let wait = INTERVAL.saturating_sub(last_commit.elapsed());
            let is_due = state.is_urgent || state.is_closed || state.entries.len() >= MANY;
            if state.entries.is_empty() {
                if state.is_closed {
                    return None;
                }
                state.is_idle = true;
                state.is_urgent = false;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.is_idle = false;
            } else if is_due || wait.is_zero() {
                state.is_urgent = false;
                mem::swap(&mut state.entries, entries);
                return Some(state.last);
            } else {
                state =
                    self.work.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    fn committed(&self, last: u64) {
        self.committed.store(last, Ordering::Release);
        let mut state = self.state();
        // What waits for a later one is still in a hurry, and has said so already.
        let (ready, waiting): (Vec<_>, Vec<_>) =
            mem::take(&mut state.waiting).into_iter().partition(|waiting| waiting.entry <= last);
        state.is_urgent |= waiting.iter().any(|waiting| waiting.is_urgent);
        state.waiting = waiting;
        drop(state);
        ready.into_iter().for_each(|waiting| waiting.waker.wake());
    }
}

/// The thread: writes entries until there are no more, and closes the journal.
fn write_all(shared: &Shared, mut target: Target) {
    let mut entries = Vec::new();
    let mut last_commit = Instant::now() - INTERVAL;
    while let Some(last) = shared.gather(&mut entries, last_commit) {
        if shared.trouble.get().is_some() {
            // Whatever comes now is not recorded, and nobody is told that it is.
            entries.clear();
            continue;
        }
        last_commit = Instant::now();
        (target.probe)("journal.before-commit");
        match commit(&mut target, &entries) {
            Ok(()) => {
                (target.probe)("journal.after-commit");
                shared.committed(last);
            }
            Err(error) => shared.fail(Error::sql("write", &target.path, error)),
        }
        entries.clear();
    }
    let ending = shared.state().ending.take();
    if shared.trouble.get().is_none()
        && let Some((ending, status)) = ending
        && let Err(error) = end(&target, &ending, status)
    {
        shared.fail(Error::sql("write", &target.path, error));
    }
    let Target { path, connection, lock, .. } = target;
    if let Err((_, error)) = connection.close() {
        shared.fail(Error::sql("close", &path, error));
    }
    if shared.trouble.get().is_none() {
        marks::remove(&path);
    }
    drop(lock);
}

fn end(target: &Target, ending: &str, status: i32) -> rusqlite::Result<()> {
    target
        .connection
        .execute(
            "UPDATE sessions SET ended_unix_ms = ?, ending = ?, exit_status = ?
             WHERE run = ? AND session = ?",
            params![now(), ending, status, target.run as i64, target.session as i64],
        )
        .map(drop)
}

fn commit(target: &mut Target, entries: &[Entry]) -> rusqlite::Result<()> {
    let (run, is_resumed) = (target.run, target.session > 1);
    let transaction =
        target.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    Statements::prepare(&transaction, run, is_resumed)?.write(entries)?;
    transaction.commit()
}

/// The statements of a commit. Prepared once a connection, looked up once a commit.
struct Statements<'c> {
    connection: &'c Connection,
    run: i64,
    /// Whether an item may have failed before in the stage that it is ok in.
    is_resumed: bool,
    item: CachedStatement<'c>,
    result: CachedStatement<'c>,
}

const INSERT_ITEM: &str = "INSERT INTO items \
    (run, seq, id, ordinal, value, detail, taken_unix_ms) VALUES (?, ?, ?, ?, ?, ?, ?)";

const INSERT_RESULT: &str = "INSERT INTO results \
    (run, seq, stage, outcome, attempts, worker, batch, ended_unix_ms, service_us, cpu_us, \
     peak_memory_kb, value, file) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
    ON CONFLICT DO UPDATE SET outcome = excluded.outcome, \
     attempts = attempts + excluded.attempts, worker = excluded.worker, batch = excluded.batch, \
     ended_unix_ms = excluded.ended_unix_ms, service_us = excluded.service_us, \
     cpu_us = excluded.cpu_us, peak_memory_kb = excluded.peak_memory_kb, value = excluded.value, \
     file = excluded.file";

const INSERT_FAILURE: &str = "INSERT OR REPLACE INTO failures \
    (run, seq, stage, kind, code, signal, message, command, stderr) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)";

impl<'c> Statements<'c> {
    fn prepare(connection: &'c Connection, run: u64, is_resumed: bool) -> rusqlite::Result<Self> {
        let run = run as i64;
        let item = connection.prepare_cached(INSERT_ITEM)?;
        let result = connection.prepare_cached(INSERT_RESULT)?;
        Ok(Self { connection, run, is_resumed, item, result })
    }

    fn write(&mut self, entries: &[Entry]) -> rusqlite::Result<()> {
        entries.iter().try_for_each(|entry| match entry {
            Entry::Taken(item) => self.taken(item),
            Entry::Answer(answer) => self.answer(answer),
            Entry::Printed(seqs) => {
                let sql = "UPDATE items SET printed = 1 WHERE run = ? AND seq = ?";
                let mut printed = self.connection.prepare_cached(sql)?;
                seqs.iter()
                    .try_for_each(|seq| printed.execute(params![self.run, *seq as i64]).map(drop))
            }
            Entry::Folder(path) => {
                let sql = "INSERT OR IGNORE INTO folders (run, path) VALUES (?, ?)";
                self.connection.prepare_cached(sql)?.execute(params![self.run, path]).map(drop)
            }
            Entry::SourceEnded => {
                let sql = "UPDATE runs SET source_ended = 1 WHERE run = ?";
                self.connection.prepare_cached(sql)?.execute([self.run]).map(drop)
            }
        })
    }

    fn taken(&mut self, item: &Item) -> rusqlite::Result<()> {
        let insert = self.item.execute(params![
            self.run,
            item.seq as i64,
            item.id,
            item.ordinal as i64,
            &*item.value,
            item.detail,
            item.taken_unix_ms
        ]);
        insert.map(drop)
    }

    fn answer(&mut self, answer: &Answer) -> rusqlite::Result<()> {
        let (outcome, content) = match &answer.outcome {
            Outcome::Ok(content) => ("ok", content),
            Outcome::Failed(_) => ("failed", &Content::Nothing),
        };
        for (index, seq) in answer.seqs.iter().enumerate() {
            let (value, file) = match content {
                Content::Bytes(bytes) if index == 0 => (Some(&**bytes), None),
                Content::File(name) if index == 0 => (None, Some(name.as_str())),
                _ => (None, None),
            };
            self.result.execute(params![
                self.run,
                *seq as i64,
                answer.stage as i64,
                outcome,
                answer.attempts,
                answer.worker as i64,
                answer.batch.map(|batch| batch as i64),
                answer.ended_unix_ms,
                answer.service_us as i64,
                answer.cpu_us.map(|time| time as i64),
                answer.peak_memory_kb.map(|size| size as i64),
                value,
                file
            ])?;
            if self.is_resumed && matches!(answer.outcome, Outcome::Ok(_)) {
                let sql = "DELETE FROM failures WHERE run = ? AND seq = ? AND stage = ?";
                let key = params![self.run, *seq as i64, answer.stage as i64];
                self.connection.prepare_cached(sql)?.execute(key)?;
            }
            if let Outcome::Failed(failure) = &answer.outcome {
                let mut insert = self.connection.prepare_cached(INSERT_FAILURE)?;
                insert.execute(params![
                    self.run,
                    *seq as i64,
                    answer.stage as i64,
                    failure.kind,
                    failure.code,
                    failure.signal,
                    failure.message,
                    failure.command,
                    failure.stderr
                ])?;
            }
        }
        Ok(())
    }
}
