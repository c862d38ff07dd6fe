//! How an item is answered for: by attempts, until one succeeds or no other
//! is made.
//!
//! From [`StopLevel::Halt`] on no attempt is started, and an item is carried
//! on as unfinished.
//!
//! Not here: who takes items and hands answers over (`run/stage_loop.rs` for
//! one at a time, `run/io_loop.rs` for many), and what is noted of them
//! (`run/books.rs`).

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    Core,
    books::{Books, carried_on},
};
use crate::{
    error::{Error, ErrorKind},
    failure::Fault,
    item::{Again, Envelope, ItemId, Load},
    journal::{Hooks, recorded},
    stage::Stage,
    stop::StopLevel,
    sync::first,
    watch::Seat,
    worker::{Attempt, Surroundings, Work, command},
};

/// What makes the attempts of a stage's workers.
pub(super) struct Attempts<'s, In, Out, W> {
    pub(super) books: Books<'s, In, Out>,
    pub(super) work: &'s W,
    /// Where their event loop says what it polls, if somebody is to be told of it.
    pub(super) seat: Option<Arc<Seat>>,
}

/// What became of an envelope.
pub(super) struct Answer<Out> {
    /// `None` if it waits for another attempt without a worker.
    pub(super) envelope: Option<Envelope<Out>>,
    /// Whether it was worked on, and not let past.
    pub(super) was_worked_on: bool,
}

impl<Out> Answer<Out> {
    fn past(envelope: Envelope<Out>) -> Self {
        Self { envelope: Some(envelope), was_worked_on: false }
    }

    fn of(envelope: Envelope<Out>) -> Self {
        Self { envelope: Some(envelope), was_worked_on: true }
    }

    /// Whether an attempt gave a value.
    pub(super) fn is_ok(&self) -> bool {
        let load = self.envelope.as_ref().map(|envelope| &envelope.load);
        self.was_worked_on && matches!(load, Some(Load::Item(_)))
    }
}

impl<'s, In, Out, W> Attempts<'s, In, Out, W>
where
    In: Send,
    W: Work<In, Out>,
{
    pub(super) fn new(
        stage: &'s Stage<In>,
        work: &'s W,
        hooks: &'s Hooks<'_, In, Out>,
        core: &'s Core,
    ) -> Self {
        Self { books: Books::new(stage, hooks, core), work, seat: None }
    }

    /// Answers for an envelope, as the worker of this number. What the envelope carries is taken
    /// out of it.
    // A hundred thousand of these may wait at once, so nothing is kept twice: the envelope stays
    // with whoever asks, and what is not needed while an attempt runs is not a local here.
    pub(super) async fn answer(&self, worker: usize, envelope: &mut Envelope<In>) -> Answer<Out> {
        let (mut item, tries_before) = match std::mem::replace(&mut envelope.load, Load::Unfinished)
        {
            Load::Item(item) => (item, 0),
            Load::Again(again) => (again.item, again.tries),
            load @ (Load::Failed(_) | Load::Unfinished) => {
                let past = carried_on(envelope.id.clone(), load);
                return Answer::past(past.recorded_as(envelope.entry));
            }
        };
        if let Some(recalled) = self.books.recalled.filter(|of| (of.is_recalled)(&item)) {
            let value = (recalled.recall)(item);
            return Answer::past(Envelope::new(envelope.id.clone(), Load::Item(value)));
        }
        if let Some(due) = self.unrecorded() {
            // Rare, and boxed like the wait below, for the sake of all that do not wait here.
            Box::pin(recorded(self.books.core, due, true)).await;
        }
        let mut tries = tries_before;
        loop {
            if self.books.core.stop.level() >= StopLevel::Halt {
                let unfinished = self.books.unfinished(worker, envelope.id.clone(), tries);
                let was_worked_on = tries > tries_before;
                return Answer { envelope: Some(unfinished), was_worked_on };
            }
            tries += 1;
            let spare = match self.books.spare(&item, tries) {
                Ok(spare) => spare,
                Err(fault) => {
                    let id = envelope.id.clone();
                    let no_time = Duration::ZERO;
                    return Answer::of(self.books.given_up(worker, id, fault, tries, no_time));
                }
            };
            let surroundings = self.surroundings(worker, &envelope.id, tries);
            let started = self.now_if_told();
            let result = self.work.attempt(item, &surroundings).await;
            let service = self.now_if_told().saturating_sub(started);
            item = match self.settle(worker, &envelope.id, tries, result, service, spare) {
                Next::Answer(answer) => return answer,
                Next::Again(again) => again,
                Next::Wait(again, due) => {
                    let halted = self.books.core.stop.reached(StopLevel::Halt);
                    Box::pin(first(self.books.core.clock.until(due), halted)).await;
                    again
                }
            };
        }
    }

    /// What must be recorded before an attempt may begin, if anything.
    fn unrecorded(&self) -> Option<u64> {
        let Books { stage, core, recorder, .. } = self.books;
        recorder.and_then(|_| stage.lag.surplus(core))
    }

    /// The time, if somebody is told how long an attempt took.
    fn now_if_told(&self) -> Duration {
        let Books { core, recorder, .. } = self.books;
        let is_told = core.ledger.observer.is_some() || recorder.is_some();
        if is_told { core.clock.now() } else { Duration::ZERO }
    }

    fn surroundings<'a>(
        &'a self,
        worker: usize,
        item: &'a ItemId,
        number: u32,
    ) -> Surroundings<'a> {
        let Books { stage, core, .. } = self.books;
        Surroundings {
            attempt: Attempt { number, slot: worker + 1 },
            item,
            settings: &stage.settings,
            core,
            shard: self.books.shard(worker),
            seat: self.seat.as_deref(),
        }
    }

    /// Says what follows from an attempt. `spare` is a copy of the item for another one.
    #[inline]
    fn settle(
        &self,
        worker: usize,
        id: &ItemId,
        tries: u32,
        result: Result<Out, Fault>,
        service: Duration,
        spare: Option<(In, Duration)>,
    ) -> Next<In, Out> {
        match result {
            Ok(value) => {
                let id = id.clone();
                Next::Answer(Answer::of(self.books.done(worker, id, value, tries, service)))
            }
            Err(fault) => self.failed(worker, id, tries, fault, service, spare),
        }
    }

    #[cold]
    fn failed(
        &self,
        worker: usize,
        id: &ItemId,
        tries: u32,
        fault: Fault,
        service: Duration,
        spare: Option<(In, Duration)>,
    ) -> Next<In, Out> {
        let Books { stage, core, .. } = self.books;
        if let Some(refused) = command::refused(&fault) {
            let message = format!("stage `{}`: {refused}", stage.settings.name);
            core.fail(Error::new(ErrorKind::Start, message));
            core.stop.cancel();
            return Next::Answer(Answer::of(self.books.unfinished(worker, id.clone(), tries - 1)));
        }
        if fault.is_pushback() {
            self.books.shard(worker).pushback.fetch_add(1, Ordering::Relaxed);
        }
        let may_try = !fault.is_permanent() && !self.books.was_stopped(&fault);
        let Some((again, delay)) = spare.filter(|_| may_try) else {
            let envelope = self.books.given_up(worker, id.clone(), fault, tries, service);
            return Next::Answer(Answer::of(envelope));
        };
        self.books.retrying(worker, id, fault, tries, delay);
        if delay.is_zero() {
            return Next::Again(again);
        }
        let again = Load::Again(Box::new(Again { item: again, tries }));
        let due = core.clock.now().saturating_add(delay);
        let refused = stage.wait_for_retry(due, Envelope::new(id.clone(), again), &core.clock);
        let Err(Envelope { load: Load::Again(kept), .. }) = refused else {
            core.ring();
            return Next::Answer(Answer { envelope: None, was_worked_on: true });
        };
        // As many wait already as may: this one waits with its worker.
        Next::Wait(kept.item, due)
    }
}

/// What follows from an attempt.
enum Next<In, Out> {
    Answer(Answer<Out>),
    /// Another attempt, at once.
    Again(In),
    /// Another attempt when that time has come.
    Wait(In, Duration),
}
