//! The books that a stage's loops keep, whatever their work is: what is
//! counted, told and recorded of each attempt and each answer.
//!
//! Not here: what makes attempts (`run/attempts.rs`), the ledger and the
//! counters themselves (`account.rs`).

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Duration,
};

use super::Core;
use crate::{
    account::Shard,
    event::StageEnded,
    failure::{Failure, FailureKind, Fault},
    item::{Ending, Envelope, ItemId, Load},
    journal::{Answered, Hooks, Recalled, Record},
    stage::{Kind, Stage},
    stop::StopLevel,
    worker::panic_message,
};

/// What is noted of the items of a stage. Workers are counted from 0.
pub(crate) struct Books<'s, In, Out> {
    pub(super) stage: &'s Stage<In>,
    pub(super) core: &'s Core,
    pub(super) recorder: Option<&'s Record<'s, Out>>,
    pub(super) recalled: Option<&'s Recalled<In, Out>>,
}

impl<'s, In, Out> Books<'s, In, Out> {
    pub(crate) fn new(stage: &'s Stage<In>, hooks: &'s Hooks<'_, In, Out>, core: &'s Core) -> Self {
        Self {
            stage,
            core,
            recorder: hooks.recorder().map(|record| record as _),
            recalled: hooks.recalled.get(),
        }
    }

    pub(super) fn shard(&self, worker: usize) -> &'s Shard {
        self.stage.counters.shard(worker)
    }

    /// Whether this stage has answered for the item in an earlier run.
    pub(super) fn is_recalled(&self, load: &Load<In>) -> bool {
        match (load, self.recalled) {
            (Load::Item(item), Some(recalled)) => (recalled.is_recalled)(item),
            _ => false,
        }
    }

    /// Counts what a worker has taken in hand to work on.
    pub(super) fn count_fed<'i>(
        &self,
        envelopes: impl IntoIterator<Item = &'i Envelope<In>>,
        worker: usize,
    ) where
        In: 'i,
    {
        let fed = envelopes.into_iter().filter(|envelope| !self.is_recalled(&envelope.load));
        self.stage.count_fed(fed, worker);
    }

    /// A copy of the item for the attempt after number `tries`, and the wait
    /// before it, if the stage's policy gives it one. Copying may panic.
    pub(super) fn spare(&self, item: &In, tries: u32) -> Result<Option<(In, Duration)>, Fault> {
        let Some(copy) = self.stage.copier.get() else { return Ok(None) };
        let retry = &self.stage.settings.retry;
        let Some(delay) = retry.delay_before(tries + 1, self.core.fraction()) else {
            return Ok(None);
        };
        match catch_unwind(AssertUnwindSafe(|| copy(item))) {
            Ok(again) => Ok(Some((again, delay))),
            Err(panic) => Err(Fault::new(FailureKind::Panic, panic_message(&*panic))),
        }
    }

    /// Notes an answer with a value. Whoever asks counts it as ok: mostly many at once.
    pub(super) fn done(
        &self,
        worker: usize,
        id: ItemId,
        value: Out,
        tries: u32,
        service: Duration,
    ) -> Envelope<Out> {
        self.tell(&id, &Ending::Ok, tries, service);
        let entry = self.record(worker, &id, Ok(&value), tries, service);
        Envelope::new(id, Load::Item(value)).recorded_as(entry)
    }

    /// Records an answer, if the stage's are, and gives the number of its entry.
    fn record(
        &self,
        worker: usize,
        item: &ItemId,
        outcome: Result<&Out, &Failure>,
        attempts: u32,
        service: Duration,
    ) -> u64 {
        let answered = Answered { item, outcome, attempts, slot: worker + 1, service };
        let Some(record) = self.recorder else { return 0 };
        let entry = record(&answered);
        let workers = self.stage.target.load(Ordering::Relaxed);
        self.stage.lag.answered(self.core, entry, service, workers);
        entry
    }

    /// Notes that no attempt follows: the item has failed, or is unfinished if
    /// the attempt was stopped with the run.
    #[cold]
    pub(super) fn given_up(
        &self,
        worker: usize,
        id: ItemId,
        fault: Fault,
        tries: u32,
        service: Duration,
    ) -> Envelope<Out> {
        if self.was_stopped(&fault) {
            return self.unfinished(worker, id, tries);
        }
        self.shard(worker).failed.fetch_add(1, Ordering::Relaxed);
        let failure = Failure::new(id.clone(), self.stage.settings.name.clone(), tries, fault);
        self.tell(&id, &Ending::Failed(failure.clone()), tries, service);
        self.core.ledger.note_failure(&failure);
        let entry = self.record(worker, &id, Err(&failure), tries, service);
        Envelope::new(id, Load::Failed(failure)).recorded_as(entry)
    }

    /// Whether an attempt did not succeed because the run was cancelled: it
    /// was stopped, or a function was told to end and did.
    pub(super) fn was_stopped(&self, fault: &Fault) -> bool {
        match fault.kind() {
            FailureKind::Cancelled => true,
            FailureKind::Panic => false,
            _ => self.is_on_thread() && self.core.stop.level() >= StopLevel::Cancel,
        }
    }

    /// Whether each worker has a thread to itself.
    pub(super) fn is_on_thread(&self) -> bool {
        matches!(self.stage.settings.kind, Kind::Cpu | Kind::Blocking)
    }

    /// Notes that an item was stopped with the run.
    #[cold]
    pub(super) fn unfinished(&self, worker: usize, id: ItemId, tries: u32) -> Envelope<Out> {
        self.shard(worker).unfinished.fetch_add(1, Ordering::Relaxed);
        if tries > 0 {
            self.tell(&id, &Ending::Unfinished, tries, Duration::ZERO);
        }
        Envelope::new(id, Load::Unfinished)
    }

    fn tell(&self, item: &ItemId, ending: &Ending, attempts: u32, service: Duration) {
        if let Some(observer) = &self.core.ledger.observer {
            let name = &*self.stage.settings.name;
            let stage = self.stage.settings.index;
            observer.stage_ended(&StageEnded { item, stage, name, ending, attempts, service });
        }
    }

    pub(super) fn retrying(
        &self,
        worker: usize,
        id: &ItemId,
        fault: Fault,
        tries: u32,
        delay: Duration,
    ) {
        self.shard(worker).retried.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &self.core.ledger.observer {
            let stage = self.stage.settings.name.clone();
            observer.retrying(&Failure::new(id.clone(), stage, tries, fault), delay);
        }
    }
}

/// What carries no value goes past a stage as it is.
pub(super) fn carried_on<In, Out>(id: ItemId, load: Load<In>) -> Envelope<Out> {
    match load {
        Load::Failed(failure) => Envelope::new(id, Load::Failed(failure)),
        _ => Envelope::new(id, Load::Unfinished),
    }
}
