//! What people and programs are told of a run.
//!
//! The engine tells the [`Reporter`] what happens; it keeps what is needed to
//! tell it on (the items inside, and with `--json` what each stage did) and
//! writes lines of its own to standard error only.
//!
//! Not here: standard output, which is data (`results.rs`).

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use paceline::{Ending, Failure, ItemId, Observer, StageEnded, Stop, pace::Survey};
use paceline_process::Captured;

use crate::{
    item::Origin,
    kept::{Keeper, Kept},
    message::harmless,
};

pub(crate) mod console;
pub(crate) mod display;
pub(crate) mod faults;
pub(crate) mod job_log;
pub(crate) mod json;
pub(crate) mod pacing;
pub(crate) mod summary;
pub(crate) mod tag;

pub(crate) use console::Console;
pub(crate) use job_log::JobLog;
pub(crate) use pacing::PaceLog;

/// Keeps the items inside, and tells of those that fail.
#[derive(Debug)]
pub(crate) struct Reporter {
    console: Console,
    /// Whether a line is written for each failed item.
    tells_failures: bool,
    /// Whether what the stages did is kept for `--json`.
    keeps_records: bool,
    /// Whether each line of a job's output begins with its item.
    tags: bool,
    log: Option<JobLog>,
    /// Where the pace is told of.
    pace_log: Option<PaceLog>,
    /// Whether a poll that takes too long has been told of.
    told_of_poll: AtomicBool,
    /// Whether it has been told that jobs wait for processes or descriptors.
    told_of_lack: AtomicBool,
    /// What ends the run when the log cannot be written any more.
    stop: OnceLock<Stop>,
    inside: Mutex<HashMap<u64, Tracked>>,
    left: Mutex<Left>,
    /// What jobs wrote to standard error, if that is to wait for its turn.
    errors: Option<Errors>,
}

/// Standard errors that wait for their items' turn, by the first item's number.
#[derive(Debug)]
struct Errors {
    keeper: Keeper,
    waiting: Mutex<BTreeMap<u64, Waiting>>,
}

/// What the jobs for some items wrote to standard error.
#[derive(Debug)]
struct Waiting {
    tag: Option<Vec<u8>>,
    outputs: Vec<Kept>,
}

/// The items that ended on the way, since the run was stopped.
#[derive(Debug, Default)]
struct Left {
    unfinished: Vec<Tracked>,
    /// They had failed before that, and nobody was told of it.
    failed: Vec<(u64, Tracked, Failure)>,
}

/// An item that is inside, and what the stages have done with it.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    pub(crate) origin: Arc<Origin>,
    /// Its batch, once it is in one.
    pub(crate) batch: Option<Batch>,
    pub(crate) stages: Vec<StageRecord>,
    pub(crate) leaky: bool,
}

/// A batch: each stage that makes batches counts its own from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) number: u64,
    /// The number of its first item.
    first: u64,
}

/// What a stage did with an item.
#[derive(Clone, Debug)]
pub(crate) struct StageRecord {
    pub(crate) name: String,
    pub(crate) status: &'static str,
    pub(crate) attempts: u32,
    pub(crate) service: Duration,
}

impl Batch {
    /// Batch `number`, whose first item is `first`.
    pub(crate) fn of(number: u64, first: u64) -> Self {
        Self { number, first }
    }
}

impl Reporter {
    pub(crate) fn new(console: Console) -> Self {
        Self {
            console,
            tells_failures: true,
            keeps_records: false,
            tags: false,
            log: None,
            pace_log: None,
            told_of_poll: AtomicBool::new(false),
            told_of_lack: AtomicBool::new(false),
            stop: OnceLock::new(),
            inside: Mutex::default(),
            left: Mutex::default(),
            errors: None,
        }
    }

    /// Leaves out the line for each failed item, if `quiet`.
    pub(crate) fn quiet(mut self, quiet: bool) -> Self {
        self.tells_failures = !quiet;
        self
    }

    /// Tells of the pace in `log`, if there is one.
    pub(crate) fn pacing(mut self, log: Option<PaceLog>) -> Self {
        self.pace_log = log;
        self
    }

    /// Keeps what each stage did with an item, if `keeps`.
    pub(crate) fn recording(mut self, keeps: bool) -> Self {
        self.keeps_records = keeps;
        self
    }

    /// Begins each line of a job's output with its item, if `tags`.
    pub(crate) fn tagging(mut self, tags: bool) -> Self {
        self.tags = tags;
        self
    }

    /// Logs each job in `log`.
    pub(crate) fn logging(mut self, log: Option<JobLog>) -> Self {
        self.log = log;
        self
    }

    /// Has the standard error of jobs wait for their items' turn, with `keeper`.
    pub(crate) fn in_order(mut self, keeper: Option<Keeper>) -> Self {
        self.errors = keeper.map(|keeper| Errors { keeper, waiting: Mutex::default() });
        self
    }

    /// Lets trouble end the run.
    pub(crate) fn may_stop(&self, stop: &Stop) {
        // A reporter serves one run.
        let _ = self.stop.set(stop.clone());
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// Notes that an item has been taken.
    pub(crate) fn taken(&self, origin: &Arc<Origin>, stages: Vec<StageRecord>) {
        let tracked = Tracked { origin: origin.clone(), batch: None, stages, leaky: false };
        self.inside().insert(origin.seq, tracked);
    }

    /// Notes that items have become one batch.
    pub(crate) fn batched(&self, origins: &[Arc<Origin>], number: u64) {
        let Some(first) = origins.first().map(|origin| origin.seq) else { return };
        self.change(origins.iter().map(|origin| origin.seq), |tracked| {
            tracked.batch = Some(Batch { number, first });
        });
    }

    /// Tells that a job ended while a descendant of it held its output open.
    pub(crate) fn leaky(&self, origins: &[Arc<Origin>], stage: &str) {
        self.change(origins.iter().map(|origin| origin.seq), |tracked| tracked.leaky = true);
        if self.tells_failures {
            let items = items(origins.iter());
            self.console.line(&format!(
                "leaky: {items}: stage `{}`: the job had ended, but something it started still \
                 held its output; that was ended",
                harmless(stage.as_bytes())
            ));
        }
    }

    /// What begins each line of these items' output, if anything does.
    pub(crate) fn tag(&self, origins: &[Arc<Origin>]) -> Option<Vec<u8>> {
        self.tags.then(|| tag::of(origins))
    }

    /// Passes on what a job wrote to its standard error, now or when it is its turn.
    pub(crate) fn pass_on(&self, origins: &[Arc<Origin>], output: Captured) {
        if output.is_empty() {
            return;
        }
        let tag = self.tag(origins);
        let (Some(errors), Some(first)) = (&self.errors, origins.first()) else {
            return self.console.pass_on(&output.into(), tag.as_deref());
        };
        // What finds no place to wait comes early: better than never.
        let output = match errors.keeper.keep(output) {
            Ok(output) => output,
            Err((output, _)) => return self.console.pass_on(&output.into(), tag.as_deref()),
        };
        let mut waiting = errors.waiting();
        let waiting = waiting.entry(first.seq);
        waiting.or_insert(Waiting { tag, outputs: Vec::new() }).outputs.push(output);
    }

    /// Passes on what waited for the turn of the items up to the one numbered
    /// `item`; those before it may have been left unfinished.
    pub(crate) fn turn_of(&self, item: u64) {
        let Some(errors) = &self.errors else { return };
        let waited = {
            let mut waiting = errors.waiting();
            let later = waiting.split_off(&item.saturating_add(1));
            std::mem::replace(&mut *waiting, later)
        };
        for Waiting { tag, outputs } in waited.values() {
            outputs.iter().for_each(|output| self.console.pass_on(output, tag.as_deref()));
        }
    }

    /// Notes that a job for these items is about to start.
    pub(crate) fn job_starts(&self, origins: &[Arc<Origin>], commands: &[Vec<OsString>]) {
        if let (Some(log), Some(first)) = (&self.log, origins.first()) {
            log.starts(first.seq, first.number, commands);
        }
    }

    /// Notes how much a job has written.
    pub(crate) fn job_ended(&self, origins: &[Arc<Origin>], written: u64) {
        if let (Some(log), Some(first)) = (&self.log, origins.first()) {
            log.received(first.seq, written);
        }
    }

    /// Why the job log could not be written, if it could not.
    pub(crate) fn log_trouble(&self) -> Option<io::Error> {
        self.log.as_ref().and_then(JobLog::take_trouble)
    }

    /// Whether the job log could not be written.
    pub(crate) fn has_log_trouble(&self) -> bool {
        self.log.as_ref().is_some_and(JobLog::has_trouble)
    }

    /// What is known of these items, in order.
    pub(crate) fn tracked(&self, numbers: &[u64]) -> Vec<Tracked> {
        let inside = self.inside();
        numbers.iter().filter_map(|number| inside.get(number).cloned()).collect()
    }

    /// What is known of the items that `failure` is about, in order; from
    /// here on the failure counts as told.
    pub(crate) fn told(&self, failure: &Failure) -> Vec<Tracked> {
        let mut inside = self.inside();
        let numbers = failure.item().sequence_numbers();
        numbers.iter().filter_map(|number| inside.remove(number)).collect()
    }

    /// The items that were left unfinished, in input order, a batch together.
    pub(crate) fn take_unfinished(&self) -> Vec<Vec<Tracked>> {
        let mut unfinished = std::mem::take(&mut self.left().unfinished);
        unfinished.sort_by_key(|tracked| {
            (tracked.batch.map_or(tracked.origin.seq, |batch| batch.first), tracked.origin.seq)
        });
        let is_same = |a: &Tracked, b: &Tracked| a.batch.is_some() && a.batch == b.batch;
        unfinished.chunk_by(is_same).map(<[Tracked]>::to_vec).collect()
    }

    /// The failures that nobody was told of, in input order.
    pub(crate) fn take_failed(&self) -> Vec<(Vec<Tracked>, Failure)> {
        let mut failed = std::mem::take(&mut self.left().failed);
        failed.sort_by_key(|(first, tracked, _)| (*first, tracked.origin.seq));
        failed
            .chunk_by(|(a, ..), (b, ..)| a == b)
            .map(|group| {
                let tracked = group.iter().map(|(_, tracked, _)| tracked.clone()).collect();
                (tracked, group[0].2.clone())
            })
            .collect()
    }

    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inside(&self) -> MutexGuard<'_, HashMap<u64, Tracked>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, numbers: impl Iterator<Item = u64>, change: impl Fn(&mut Tracked)) {
        if self.keeps_records {
            let mut inside = self.inside();
            for number in numbers {
                inside.get_mut(&number).into_iter().for_each(&change);
            }
        }
    }

    /// Tells of the first poll that takes too long; the summary has the longest.
    fn held_up(&self, item: &ItemId, stage: &str, time: Duration, what: &str) {
        if self.tells_failures && !self.told_of_poll.swap(true, Ordering::Relaxed) {
            let item = self.name(item);
            let stage = harmless(stage.as_bytes());
            let time = summary::short(time);
            self.console.line(&format!(
                "warning: {item}: stage `{stage}` {what} {time} without giving way to the others \
                 of its event loop"
            ));
        }
    }

    fn name(&self, item: &ItemId) -> String {
        let tracked = self.tracked(&item.sequence_numbers());
        items(tracked.iter().map(|tracked| &tracked.origin))
    }
}

impl Errors {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Reporter {
    fn paced(&self, survey: &Survey) {
        if let Some(log) = &self.pace_log {
            log.write(survey);
        }
    }

    fn stage_ended(&self, event: &StageEnded<'_>) {
        if let Some(log) = &self.log
            && !log.ended(event)
            && let Some(stop) = self.stop.get()
        {
            stop.drain();
        }
        self.change(event.item.sequence_numbers().into_iter(), |tracked| {
            tracked.stages.push(StageRecord {
                name: event.name.to_owned(),
                status: status(event.ending),
                attempts: event.attempts,
                service: event.service,
            });
        });
    }

    fn failed(&self, failure: &Failure) {
        if self.tells_failures {
            let item = self.name(failure.item());
            let mut text = format!("failed: {item}: {}", faults::told(failure));
            for line in faults::traceback(failure).into_iter().flat_map(str::lines) {
                text.push_str("\n  ");
                text.push_str(&harmless(line.as_bytes()));
            }
            self.console.line(&text);
        }
    }

    fn overdue(&self, item: &ItemId, stage: &str, timeout: Duration) {
        if self.tells_failures {
            let item = self.name(item);
            let stage = harmless(stage.as_bytes());
            self.console.line(&format!(
                "overdue: {item}: stage `{stage}` takes longer than {timeout:?} and cannot be \
                 interrupted"
            ));
        }
    }

    fn waits_to_start(&self, stage: &str, why: &str) {
        if self.tells_failures && !self.told_of_lack.swap(true, Ordering::Relaxed) {
            let why = harmless(why.as_bytes());
            let stage = harmless(stage.as_bytes());
            self.console.line(&format!(
                "note: stage `{stage}` waits to start jobs, since the system refuses more: {why}"
            ));
        }
    }

    fn stuck_poll(&self, item: &ItemId, stage: &str, so_far: Duration) {
        self.held_up(item, stage, so_far, "has worked for");
    }

    fn slow_poll(&self, item: &ItemId, stage: &str, took: Duration) {
        self.held_up(item, stage, took, "worked for");
    }

    fn item_ended(&self, item: u64, ending: &Ending) {
        let Some(tracked) = self.inside().remove(&item) else { return };
        match ending {
            Ending::Unfinished if self.keeps_records => self.left().unfinished.push(tracked),
            Ending::Failed(failure) => {
                let first = failure.item().sequence_numbers().first().copied().unwrap_or(item);
                self.left().failed.push((first, tracked, failure.clone()));
            }
            Ending::Ok | Ending::Unfinished => {}
        }
    }
}

/// The word for an ending in tables and in JSON.
pub(crate) fn status(ending: &Ending) -> &'static str {
    match ending {
        Ending::Ok => "ok",
        Ending::Unfinished => "unfinished",
        Ending::Failed(_) => "failed",
    }
}

/// How items are called in messages: the item itself, or the first of a batch
/// and how many more.
fn items<'o>(mut origins: impl ExactSizeIterator<Item = &'o Arc<Origin>>) -> String {
    /// Longer ones are cut: a message is a line.
    const LONGEST: usize = 200;
    let more = origins.len().saturating_sub(1);
    let Some(first) = origins.next() else { return "an item".to_owned() };
    let bytes = &first.item.bytes;
    let cut = bytes.len() > LONGEST;
    let shown = harmless(&bytes[..bytes.len().min(LONGEST)]);
    let name = match (shown.is_empty(), cut) {
        (true, _) => format!("item {} (empty)", first.number),
        (false, false) => shown,
        (false, true) => format!("{shown}..."),
    };
    match more {
        0 => name,
        1 => format!("{name} and 1 more"),
        more => format!("{name} and {more} more"),
    }
}
