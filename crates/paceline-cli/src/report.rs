//! What people and programs are told of a run.
//!
//! The engine tells the [`Reporter`] what happens; it keeps what is needed to
//! tell it on (the items inside, and with `--json` what each stage did) and
//! writes lines of its own to standard error only.
//!
//! Not here: standard output, which is data (`results.rs`).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use paceline::{Ending, Failure, ItemId, Observer, StageEnded};

use crate::{item::Origin, message::harmless};

pub(crate) mod console;
pub(crate) mod display;
pub(crate) mod faults;
pub(crate) mod json;
pub(crate) mod summary;

pub(crate) use console::Console;

/// Keeps the items inside, and tells of those that fail.
#[derive(Debug)]
pub(crate) struct Reporter {
    console: Console,
    /// Whether a line is written for each failed item.
    tells_failures: bool,
    /// Whether what the stages did is kept for `--json`.
    keeps_records: bool,
    inside: Mutex<HashMap<u64, Tracked>>,
    unfinished: Mutex<Vec<Tracked>>,
}

/// An item that is inside, and what the stages have done with it.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    pub(crate) origin: Arc<Origin>,
    /// The number of its batch, once it is in one.
    pub(crate) batch: Option<u64>,
    pub(crate) stages: Vec<StageRecord>,
    pub(crate) leaky: bool,
}

/// What a stage did with an item.
#[derive(Clone, Debug)]
pub(crate) struct StageRecord {
    pub(crate) name: String,
    pub(crate) status: &'static str,
    pub(crate) attempts: u32,
    pub(crate) service: Duration,
}

impl Reporter {
    pub(crate) fn new(console: Console, tells_failures: bool, keeps_records: bool) -> Self {
        Self {
            console,
            tells_failures,
            keeps_records,
            inside: Mutex::default(),
            unfinished: Mutex::default(),
        }
    }

    pub(crate) fn console(&self) -> &Console {
        &self.console
    }

    /// Notes that an item has been taken.
    pub(crate) fn taken(&self, origin: &Arc<Origin>) {
        let tracked =
            Tracked { origin: origin.clone(), batch: None, stages: Vec::new(), leaky: false };
        self.inside().insert(origin.seq, tracked);
    }

    /// Notes that items have become one batch.
    pub(crate) fn batched(&self, origins: &[Arc<Origin>], number: u64) {
        self.change(origins.iter().map(|origin| origin.seq), |tracked| {
            tracked.batch = Some(number);
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

    /// What is known of these items, in order.
    pub(crate) fn tracked(&self, numbers: &[u64]) -> Vec<Tracked> {
        let inside = self.inside();
        numbers.iter().filter_map(|number| inside.get(number).cloned()).collect()
    }

    /// The items that were left unfinished, in input order.
    pub(crate) fn take_unfinished(&self) -> Vec<Tracked> {
        let mut unfinished =
            std::mem::take(&mut *self.unfinished.lock().unwrap_or_else(PoisonError::into_inner));
        unfinished.sort_by_key(|tracked| tracked.origin.seq);
        unfinished
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

    fn name(&self, item: &ItemId) -> String {
        let tracked = self.tracked(&item.sequence_numbers());
        items(tracked.iter().map(|tracked| &tracked.origin))
    }
}

impl Observer for Reporter {
    fn stage_ended(&self, event: &StageEnded<'_>) {
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
            self.console.line(&format!("failed: {item}: {}", faults::told(failure)));
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

    fn item_ended(&self, item: u64, ending: &Ending) {
        let tracked = self.inside().remove(&item);
        if self.keeps_records && matches!(ending, Ending::Unfinished) {
            let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
            unfinished.extend(tracked);
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
        (true, _) => format!("item {} (empty)", first.seq),
        (false, false) => shown,
        (false, true) => format!("{shown}..."),
    };
    match more {
        0 => name,
        1 => format!("{name} and 1 more"),
        more => format!("{name} and {more} more"),
    }
}
