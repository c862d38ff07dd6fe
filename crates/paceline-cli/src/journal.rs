//! What a run tells its journal, and what it knows of an earlier session.
//!
//! Not here: which run is gone on with, and whether it may be
//! (`commands/resume.rs`).

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    fmt, fs,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use paceline::Answered;
use paceline_journal::{
    Answer, Content, Durability, Entry, Error, ErrorKind, Failure, Id, Item, Journal, Known,
    LARGEST_INSIDE, NewRun, Ordinals, Outcome, Pending, Progress, Session, StageSpec, Writer,
    identity,
};
use paceline_process::Output;

use crate::{
    fail_point,
    item::{Identity, Origin, Value},
    message::{Problem, harmless, words_of},
    report::{Console, Reporter, faults, json},
    source,
    spec::Stage,
    words,
};

/// How much of a failed job's standard error is kept: its end.
const STDERR: usize = 4 << 10;

/// Where `run` records beside its pipeline file.
const BESIDE: &str = ".paceline/journal.db";

/// Records one run. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Record(Arc<Inner>);

struct Inner {
    writer: Writer,
    base: Base,
    is_resumed: bool,
    reporter: Arc<Reporter>,
    durable: bool,
    notes: Mutex<HashMap<(usize, u64), Note>>,
    folders: Mutex<HashSet<PathBuf>>,
}

/// What is known of a job besides what the engine tells.
#[derive(Debug, Default)]
struct Note {
    cpu_us: u64,
    peak_memory_kb: u64,
    command: Option<String>,
    stderr: Vec<u8>,
}

/// What earlier sessions came to, as far as this one leaves it alone.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Base {
    pub(crate) ok: u64,
    pub(crate) failed: u64,
    pub(crate) unfinished: u64,
    /// Whether this session reads the source, or else whether it was read to its end.
    pub(crate) source_ended: Option<bool>,
}

/// What a run is fed before its source, and what of its source it leaves out.
pub(crate) struct Feed {
    pub(crate) pending: Pending,
    pub(crate) known: HashSet<Id>,
    /// The number of the last item of earlier sessions.
    pub(crate) last: u64,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Record").field(&self.0.writer).finish()
    }
}

/// A journal that a session is about to begin in.
pub(crate) struct Opened {
    pub(crate) journal: Journal,
    pub(crate) run: u64,
    pub(crate) base: Base,
    pub(crate) durable: bool,
    /// Whether it goes on with earlier sessions.
    pub(crate) is_resumed: bool,
}

/// The journal of the pipeline file at `pipeline`, unless another is named.
pub(crate) fn place(named: Option<&Path>, pipeline: Option<&Path>) -> PathBuf {
    match (named, pipeline) {
        (Some(named), _) => named.to_owned(),
        (None, Some(pipeline)) => pipeline.parent().unwrap_or(Path::new("")).join(BESIDE),
        (None, None) => PathBuf::from(BESIDE),
    }
}

/// Opens the journal to record in.
///
/// # Errors
///
/// If it cannot be: with what would help.
pub(crate) fn open(path: &Path, durable: bool, console: &Console) -> Result<Journal, Problem> {
    // Past the largest file allowed a write fails, and does not end the program.
    let _ = signal_hook::flag::register(signal_hook::consts::SIGXFSZ, Arc::default());
    let mut journal = Journal::open(path).map_err(|error| problem(&error))?;
    if durable {
        journal.set_durability(Durability::Full).map_err(|error| problem(&error))?;
    }
    journal.set_probe(fail_point::reach);
    if let Some(kind) = journal.shared_file_system() {
        let path = harmless(path.as_os_str().as_bytes());
        console.line(&format!(
            "note: the journal `{path}` lies on {kind}, where recording is slow; `--journal FILE` \
             names another place"
        ));
    }
    // Whoever comes next cleans up after a kill, so that nobody has to look further back.
    if let Some(last) = journal.last_worked_on().map_err(|error| problem(&error))? {
        clean_up_after(&journal, last)?;
    }
    Ok(journal)
}

/// An error of the journal as the end of a command that has not begun.
pub(crate) fn problem(error: &Error) -> Problem {
    let hint = match (error.help(), error.kind()) {
        (Some(help), _) => Some(help.to_owned()),
        (None, ErrorKind::Io | ErrorKind::Missing) => {
            Some("`--journal FILE` names another place, `--no-journal` does without".to_owned())
        }
        (None, _) => None,
    };
    Problem::new(line(error)).hint(hint)
}

fn line(error: &Error) -> String {
    let mut line = error.to_string();
    let mut cause = std::error::Error::source(error);
    let mut last = String::new();
    while let Some(error) = cause {
        let words = words_of(error);
        // SQLite's own error says once more what the one around it has said, with a number.
        if last.is_empty() || !words.ends_with(&last) {
            line.push_str(": ");
            line.push_str(&words);
        }
        last = words;
        cause = error.source();
    }
    harmless(line.as_bytes())
}

/// The session of this program.
pub(crate) fn session() -> Session {
    let program = paceline_process::init(paceline_process::Options::default());
    Session::of_this_process(program.run())
}

/// The stages as the journal is told of them.
pub(crate) fn stage_specs(stages: &[Stage]) -> Vec<StageSpec> {
    let spec = |stage: &Stage| StageSpec {
        name: stage.name.clone(),
        kind: stage.work.key().to_owned(),
        definition: *blake3::hash(stage.definition.as_bytes()).as_bytes(),
    };
    stages.iter().map(spec).collect()
}

/// Begins a run.
///
/// # Errors
///
/// If it cannot be recorded.
pub(crate) fn begin(mut journal: Journal, run: &NewRun) -> Result<(Journal, u64), Problem> {
    let number = journal.begin_as(run, &session()).map_err(|error| problem(&error))?;
    Ok((journal, number))
}

impl Opened {
    /// A run that has just begun.
    pub(crate) fn new(journal: Journal, run: u64, durable: bool) -> Self {
        Self { journal, run, base: Base::default(), durable, is_resumed: false }
    }

    /// Starts recording.
    ///
    /// # Errors
    ///
    /// If no thread can be started for it.
    pub(crate) fn record(self, reporter: Arc<Reporter>) -> Result<Record, Problem> {
        let Self { journal, run, base, durable, is_resumed } = self;
        let writer = journal.write(run).map_err(|error| problem(&error))?;
        Ok(Record(Arc::new(Inner {
            writer,
            base,
            is_resumed,
            reporter,
            durable,
            notes: Mutex::default(),
            folders: Mutex::default(),
        })))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record {
    /// What the engine waits for.
    pub(crate) fn journal(&self) -> Arc<dyn paceline::Journal> {
        Arc::new(self.0.writer.clone())
    }

    /// Whether this session goes on with earlier ones.
    pub(crate) fn is_resumed(&self) -> bool {
        self.0.is_resumed
    }

    pub(crate) fn base(&self) -> Base {
        self.0.base
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.0.durable
    }

    /// Records an item that has been taken, unless it is recorded already.
    pub(crate) fn taken(&self, origin: &Origin) -> u64 {
        let Some(known) = origin.identity.filter(|identity| !identity.is_recorded) else {
            return 0;
        };
        self.0.writer.record(Entry::Taken(Item {
            ordinal: known.ordinal,
            detail: origin.item.detail(&origin.parts),
            ..Item::new(origin.number, known.id, &origin.item.bytes)
        }))
    }

    /// Keeps what a job used, and of one that failed what it said.
    pub(crate) fn job_ended(&self, value: &Value, stage: usize, output: &Output) {
        let ended = output.exits();
        let mut note = Note {
            cpu_us: output.cpu().as_micros() as u64,
            peak_memory_kb: ended
                .iter()
                .map(|ended| ended.usage().max_rss() / 1024)
                .max()
                .unwrap_or_default(),
            ..Note::default()
        };
        if !output.success() {
            note.command = Some(shown(output.argvs()));
            note.stderr = tail(output);
        }
        lock(&self.0.notes).insert((stage, value.turn()), note);
    }

    /// Records what a stage has answered.
    pub(crate) fn answered(&self, stage: usize, answered: &Answered<'_, Value>) -> u64 {
        let positions = answered.item.sequence_numbers();
        let first = positions.first().copied().unwrap_or_default();
        let note = lock(&self.0.notes).remove(&(stage, first));
        let (seqs, batch, outcome) = match answered.outcome {
            Ok(value) => {
                let seqs = value.origins.iter().map(|origin| origin.number).collect();
                let content = match self.content(value) {
                    Ok(content) => content,
                    Err(error) => {
                        // The entry that follows is never recorded, and so nobody sees the value.
                        self.0.writer.fail(error);
                        Content::Nothing
                    }
                };
                (seqs, value.is_batch.then_some(value.number), Outcome::Ok(content))
            }
            Err(failure) => {
                let tracked = self.0.reporter.tracked(&positions);
                let seqs = tracked.iter().map(|tracked| tracked.origin.number).collect();
                let (command, stderr) = note
                    .as_ref()
                    .map(|note| (note.command.clone(), note.stderr.clone()))
                    .unwrap_or_default();
                let failure = Failure {
                    kind: json::kind(failure).to_owned(),
                    code: failure.code(),
                    signal: failure.signal(),
                    message: faults::reason(failure),
                    command,
                    stderr,
                };
                (seqs, None, Outcome::Failed(Box::new(failure)))
            }
        };
        fail_point::reach("answer.before-record");
        let entry = self.0.writer.record(Entry::Answer(Answer {
            seqs,
            attempts: answered.attempts,
            worker: answered.slot,
            batch,
            service_us: answered.service.as_micros() as u64,
            cpu_us: note.as_ref().map(|note| note.cpu_us),
            peak_memory_kb: note.map(|note| note.peak_memory_kb),
            ..Answer::new(0, stage, outcome)
        }));
        fail_point::reach("answer.before-enqueue");
        entry
    }

    fn content(&self, value: &Value) -> Result<Content, Error> {
        if let Some(output) = value.output() {
            let mut start = Start(Vec::new());
            return match output.write_to(&mut start) {
                Ok(()) => Ok(Content::Bytes(start.0.into())),
                // Large, or not to be read: the file says which.
                Err(_) => self.0.writer.keep(|mut file| output.write_to(&mut file)),
            };
        }
        let bytes = value.bytes();
        if bytes.len() > LARGEST_INSIDE {
            return self.0.writer.keep(|file| file.write_all(&bytes));
        }
        Ok(Content::Bytes(bytes.into_owned().into()))
    }

    /// Notes that the result of these items has been printed.
    pub(crate) fn printed(&self, value: &Value, is_json: bool) {
        let is_empty = value.output().is_some_and(|output| output.is_empty());
        if is_json || !is_empty {
            fail_point::reach("result.before-mark");
            let seqs = value.origins.iter().map(|origin| origin.number).collect();
            self.0.writer.record(Entry::Printed(seqs));
        }
    }

    /// Notes that these results of an earlier session have been printed.
    pub(crate) fn printed_before(&self, seqs: Vec<u64>) {
        self.0.writer.record(Entry::Printed(seqs));
    }

    /// Notes that files are made in this folder, before the first is.
    pub(crate) fn folder(&self, folder: &Path) {
        let mut folders = lock(&self.0.folders);
        if !folders.contains(folder) {
            let path = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
            let entry = Entry::Folder(path.into_os_string().into_vec());
            // A file that a kill leaves there is found only if the folder is known.
            let entry = self.0.writer.record(entry);
            let _ = self.0.writer.wait(entry);
            folders.insert(folder.to_owned());
        }
    }

    /// Ends the session.
    ///
    /// # Errors
    ///
    /// In words, if something could not be recorded.
    pub(crate) fn finish(
        &self,
        ending: &str,
        status: u8,
        source_ended: bool,
    ) -> Result<(), String> {
        if source_ended {
            self.0.writer.record(Entry::SourceEnded);
        }
        let writer = self.0.writer.clone();
        writer.finish(ending, i32::from(status)).map_err(|error| line(&error))
    }
}

/// Takes what fits into the database, and no more.
struct Start(Vec<u8>);

impl std::io::Write for Start {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.0.len() + bytes.len() > LARGEST_INSIDE {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Commands as one would type them.
fn shown<'a>(argvs: impl Iterator<Item = &'a [OsString]>) -> String {
    let one = |argv: &[OsString]| words::quote_all(argv.iter().map(|word| word.as_bytes()));
    argvs.map(one).collect::<Vec<_>>().join(" | ")
}

/// The end of what a job wrote to its standard error.
fn tail(output: &Output) -> Vec<u8> {
    /// The last bytes of what is written.
    struct Tail(Vec<u8>);
    impl std::io::Write for Tail {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(STDERR)..]);
            self.0.drain(..self.0.len().saturating_sub(STDERR));
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut tail = Tail(Vec::new());
    let _ = output.stderr().write_to(&mut tail);
    tail.0
}

/// The items of a run, numbered: those that earlier sessions have left, and those of its source
/// that are new.
pub(crate) struct Numbered {
    feed: Option<Feed>,
    /// Items of the source that are known, by what they are.
    known: HashSet<Id>,
    ordinals: Ordinals,
    last: u64,
}

impl Numbered {
    /// `feed` is what earlier sessions have left, if there were any.
    pub(crate) fn new(feed: Option<Feed>) -> Self {
        let last = feed.as_ref().map_or(0, |feed| feed.last);
        let mut feed = feed;
        let known = feed.as_mut().map(|feed| std::mem::take(&mut feed.known)).unwrap_or_default();
        Self { feed, known, ordinals: Ordinals::default(), last }
    }

    /// Whether an earlier session may have left items that are still to come.
    pub(crate) fn has_left(&self) -> bool {
        self.feed.is_some()
    }

    /// Whether items may be left out, so that what is at hand in the source may be none.
    pub(crate) fn leaves_out(&self) -> bool {
        self.feed.is_some() || !self.known.is_empty()
    }

    /// The next item that an earlier session has left.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read any more.
    pub(crate) fn next_left(&mut self) -> Option<Result<Known, Error>> {
        let next = self.feed.as_mut()?.pending.next();
        if next.is_none() {
            self.feed = None;
        }
        next
    }

    /// The number and the identity of the next item of the source, unless it is known.
    pub(crate) fn number(&mut self, item: &source::Item) -> Option<(u64, Identity)> {
        let ordinal = self.ordinals.count(&item.bytes);
        let id = identity(&item.bytes, ordinal);
        if self.known.contains(&id) {
            return None;
        }
        self.last += 1;
        Some((self.last, Identity { id, ordinal, is_recorded: false }))
    }
}

/// Removes what a killed session has left: its processes, and the files that it was making.
pub(crate) fn clean_up_after(journal: &Journal, run: u64) -> Result<(), Problem> {
    let sessions = journal.sessions(run).map_err(|error| problem(&error))?;
    let Some(last) = sessions.last().filter(|session| session.ending.is_none()) else {
        return Ok(());
    };
    // After a start of the system nothing of it is left.
    if last.boot == session().boot {
        paceline_process::end_run(&last.token);
    }
    let prefix = crate::output_file::temporary_prefix(last.pid);
    for folder in journal.folders(run).map_err(|error| problem(&error))? {
        let Ok(entries) = fs::read_dir(OsString::from_vec(folder)) else { continue };
        for entry in entries.flatten() {
            if entry.file_name().as_bytes().starts_with(prefix.as_bytes()) {
                // Whoever cannot remove it could not have made it.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
    Ok(())
}

/// Takes the names of the files that earlier sessions have made for their items.
pub(crate) fn take_names(
    progress: &Progress,
    stages: &[Stage],
    shop: &crate::stages::Workshop,
) -> Result<(), Problem> {
    for (index, stage) in stages.iter().enumerate() {
        let makes_files = stage.to.is_some() || matches!(stage.work, crate::spec::Work::Put(_));
        if !makes_files {
            continue;
        }
        for (number, made) in progress.made(index).map_err(|error| problem(&error))? {
            shop.take_name(stage, number, &made);
        }
    }
    Ok(())
}

/// The word for how a session ended, by the program's status.
pub(crate) fn ending(status: u8) -> &'static str {
    match status {
        crate::exit_code::OK => "complete",
        crate::exit_code::FAILED => "failed",
        crate::exit_code::UNFINISHED => "unfinished",
        crate::exit_code::TROUBLE => "error",
        _ => "signal",
    }
}
