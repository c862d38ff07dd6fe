//! Where items and answers meet: requests are made, answers settled.
//!
//! The books are those of any stage's loop ([`Books`]); what is
//! added here is that answers come later, and for several items at once.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Duration,
};

use super::worker::{Sent, Trouble, Worker};
use crate::{
    account::Held,
    failure::{BoxError, FailureKind, Fault},
    item::{Again, Envelope, ItemId, Load},
    journal::Hooks,
    run::{Core, books::Books},
    stage::Stage,
    worker::{
        Attempt, panic_message,
        serve::{
            Exchange, Form, Framing, Serve,
            framing::{Reader, Said},
            slate::Written,
        },
    },
};

/// An item that waits for a worker, or for its answer.
pub(super) struct Task<In> {
    id: ItemId,
    item: In,
    /// Attempts made before.
    pub(super) tries: u32,
    /// Whether it is sent to a worker that has nothing else, so that its fate is its own.
    pub(super) is_alone: bool,
    /// How often it was the first in line when a worker died that had not begun it.
    pub(super) losses: u32,
}

impl<In> Task<In> {
    pub(super) fn new(id: ItemId, item: In, tries: u32) -> Self {
        Self { id, item, tries, is_alone: false, losses: 0 }
    }
}

pub(super) struct Desk<'s, In, X: Exchange<In>> {
    stage: &'s Stage<In>,
    core: &'s Core,
    exchange: &'s X,
    framing: Framing,
    books: Books<'s, In, X::Out>,
    seat: usize,
    /// Items answered with a value since the counters were written.
    ok: u64,
    pub(super) pending: VecDeque<Task<In>>,
    /// What waits for its next attempt here, since as many wait in the stage as may.
    delayed: Vec<(Duration, Task<In>)>,
    /// Whether one waits for its next attempt in the stage, and will come by the queue.
    pub(super) has_put_back: bool,
    pub(super) outbox: Held<X::Out>,
}

impl<'s, In, X> Desk<'s, In, X>
where
    In: Send,
    X: Exchange<In>,
    X::Out: Send,
{
    pub(super) fn new(
        stage: &'s Stage<In>,
        framing: Framing,
        exchange: &'s X,
        hooks: &'s Hooks<'_, In, X::Out>,
        core: &'s Core,
    ) -> Self {
        Self {
            stage,
            core,
            exchange,
            framing,
            books: Books::new(stage, hooks, core),
            seat: 0,
            ok: 0,
            pending: VecDeque::new(),
            delayed: Vec::new(),
            has_put_back: false,
            outbox: Held::new(core.ledger.clone(), None),
        }
    }

    /// Counts what follows as this worker's.
    pub(super) fn answer_for(&mut self, seat: usize) {
        if seat != self.seat {
            self.count_ok();
            self.seat = seat;
        }
    }

    /// Writes the counter of items answered with a value.
    fn count_ok(&mut self) {
        let ok = std::mem::take(&mut self.ok);
        if ok > 0 {
            self.books.shard(self.seat).ok.fetch_add(ok, Ordering::Relaxed);
        }
    }

    /// Leaves what no worker has heard of unfinished.
    pub(super) fn leave_pending(&mut self) {
        let delayed = std::mem::take(&mut self.delayed).into_iter().map(|(_, task)| task);
        for task in std::mem::take(&mut self.pending).into_iter().chain(delayed) {
            self.outbox.push_back(self.books.unfinished(self.seat, task.id, task.tries));
        }
    }

    /// Whether nothing waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.delayed.is_empty()
    }

    /// When something that waits here has its next attempt.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.delayed.iter().map(|(due, _)| *due).min()
    }

    /// Takes up what is due.
    pub(super) fn release_due(&mut self) {
        if self.delayed.is_empty() {
            return;
        }
        let now = self.core.clock.now();
        let due = self.delayed.extract_if(.., |(due, _)| *due <= now);
        self.pending.extend(due.map(|(_, task)| task));
    }

    /// How many items are here.
    pub(super) fn len(&self) -> usize {
        self.pending.len() + self.delayed.len()
    }

    /// Appends the request for an item to those of a worker.
    pub(super) fn send(
        &mut self,
        task: Task<In>,
        attempt: &Attempt,
        worker: &mut Worker<In>,
        now: Duration,
    ) {
        let from = worker.process.position();
        let id = worker.next_id();
        let requests = &mut worker.process.requests;
        let end = requests.bytes.len();
        let asked = caught(|| requests.ask(self.exchange, self.framing, &task.item, (id, attempt)));
        match asked {
            Ok(()) => worker.took(task, from, now),
            Err(fault) => {
                requests.bytes.truncate(end);
                self.give_up(task, fault, Duration::ZERO);
            }
        }
    }

    /// Settles all that the worker has said.
    pub(super) fn hear(&mut self, worker: &mut Worker<In>, serve: &Serve) -> Result<(), Trouble> {
        let now = self.core.clock.now();
        let mut answers = 0;
        // What is settled is no longer in the worker, so its reader may lend its bytes meanwhile.
        let mut reader = std::mem::replace(&mut worker.process.reader, Reader::new(self.framing));
        let heard = loop {
            let said = match reader.next() {
                Ok(Some(said)) => said,
                Ok(None) => break Ok(()),
                Err(garbage) => break Err(Trouble::Garbage(garbage.0)),
            };
            let (id, result, is_followed) = match said {
                Said::Ready { at_once, takes_batches } => {
                    worker.is_ready_for(at_once, now);
                    worker.process.requests.takes_batches = takes_batches;
                    continue;
                }
                Said::Fatal(error) => break Err(Trouble::Fatal(error)),
                Said::Answer { id, result, is_followed } => (id, result, is_followed),
            };
            let Some(sent) = worker.answered(id) else {
                if worker.has_answered_before(id) {
                    continue;
                }
                break Err(Trouble::Garbage(match id {
                    Some(id) => format!("an answer with the id {id}, which is not open"),
                    None => "a line that nobody asked for".to_owned(),
                }));
            };
            answers += 1;
            let service = now.saturating_sub(worker.in_hand_since(&sent));
            if is_followed {
                // One line in, one line out: what else came may be the rest of its answer.
                worker.in_flight.push_front(sent);
                break Err(Trouble::Garbage("more than one line for one item".to_owned()));
            }
            match result {
                Ok((form, bytes)) => self.accept(sent, form, &bytes, service),
                Err(remote) => {
                    self.give_up(sent.task, Fault::new(FailureKind::Worker, remote), service);
                }
            }
        };
        worker.process.reader = reader;
        if answers > 0 {
            let each = worker.learn(answers, now, serve);
            self.stage_served(answers, each);
        }
        heard
    }

    fn stage_served(&mut self, answers: u64, each: Duration) {
        self.count_ok();
        let shard = self.books.shard(self.seat);
        shard.served(answers, each);
        shard.was_busy(each * u32::try_from(answers).unwrap_or(u32::MAX));
    }

    /// Settles the answers that a dead worker had written down and not sent,
    /// and finds out which item it had begun last.
    pub(super) fn hear_last(&mut self, worker: &mut Worker<In>) {
        let Some(Written { begun, answers }) = worker.process.read_slate(false) else { return };
        worker.had_begun(begun);
        self.hear_written(worker, begun, answers);
    }

    /// Settles the answers that a worker has written down and not sent, since
    /// the item in hand keeps it; tells whether there were any.
    pub(super) fn look(&mut self, seat: usize, worker: &mut Worker<In>, serve: &Serve) -> bool {
        self.answer_for(seat);
        let now = self.core.clock.now();
        worker.was_looked_at();
        // It may write at the very moment; then it will be heard of.
        let Some(Written { begun, answers }) = worker.process.read_slate(true) else {
            return false;
        };
        let settled = self.hear_written(worker, begun, answers);
        if settled > 0 {
            worker.has_said_in_advance();
            let each = worker.learn(settled, now, serve);
            self.stage_served(settled, each);
        }
        settled > 0
    }

    /// Settles answers from a slate that are still open, and counts them. The
    /// item begun last is in hand until its answer is sent or another begins.
    fn hear_written(
        &mut self,
        worker: &mut Worker<In>,
        begun: Option<u32>,
        answers: Vec<u8>,
    ) -> u64 {
        let mut settled = 0;
        let mut reader = Reader::new(Framing::Frames);
        *reader.room() = answers;
        let now = self.core.clock.now();
        while let Ok(Some(said)) = reader.next() {
            // What was sent before is not open any more.
            if let Said::Answer { id, result, .. } = said
                && id != begun
                && let Some(sent) = worker.answered(id)
            {
                settled += 1;
                let service = now.saturating_sub(worker.in_hand_since(&sent));
                match result {
                    Ok((form, bytes)) => self.accept(sent, form, &bytes, service),
                    Err(remote) => {
                        self.give_up(sent.task, Fault::new(FailureKind::Worker, remote), service);
                    }
                }
            }
        }
        self.count_ok();
        settled
    }

    /// Makes the value of an answer.
    fn accept(&mut self, sent: Sent<In>, form: Form, answer: &[u8], service: Duration) {
        let Task { id, item, tries, .. } = sent.task;
        let spare = match self.books.spare(&item, tries + 1) {
            Ok(spare) => spare,
            Err(fault) => return self.fail(id, fault, tries + 1, service),
        };
        let attempt = Attempt { number: tries + 1, slot: self.seat + 1 };
        match caught(|| self.exchange.answer(item, &attempt, form, answer)) {
            Ok(value) => {
                self.ok += 1;
                let envelope = self.books.done(self.seat, id, value, tries + 1, service);
                self.outbox.push_back(envelope);
            }
            Err(fault) => match spare {
                Some((item, _)) => self.give_up(Task::new(id, item, tries), fault, service),
                None => self.fail(id, fault, tries + 1, service),
            },
        }
    }

    /// Ends an attempt that did not succeed: another follows, or none.
    pub(super) fn give_up(&mut self, task: Task<In>, fault: Fault, service: Duration) {
        let Task { id, item, tries, .. } = task;
        let number = tries + 1;
        let may_try = !fault.is_permanent() && !self.books.was_stopped(&fault);
        let retry = &self.stage.settings.retry;
        let delay = retry.delay_before(number + 1, self.core.fraction());
        let Some(delay) = delay.filter(|_| may_try) else {
            return self.fail(id, fault, number, service);
        };
        self.books.retrying(self.seat, &id, fault, number, delay);
        if delay.is_zero() {
            self.pending.push_back(Task::new(id, item, number));
            return;
        }
        let due = self.core.clock.now().saturating_add(delay);
        let envelope = Envelope::new(id, Load::Again(Box::new(Again { item, tries: number })));
        match self.stage.wait_for_retry(due, envelope, &self.core.clock) {
            Ok(()) => {
                self.has_put_back = true;
                self.core.ring();
            }
            // As many wait already as may: this one waits here, as it would with a worker.
            Err(Envelope { id, load: Load::Again(again), .. }) => {
                self.delayed.push((due, Task::new(id, again.item, again.tries)));
            }
            Err(_) => unreachable!("the refused envelope is the one that was offered"),
        }
    }

    fn fail(&mut self, id: ItemId, fault: Fault, number: u32, service: Duration) {
        let envelope = self.books.given_up(self.seat, id, fault, number, service);
        self.outbox.push_back(envelope);
    }
}

/// Calls what the stage's author wrote. A panic in it is a fault.
fn caught<T>(call: impl FnOnce() -> Result<T, BoxError>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(|| call().map_err(Fault::from_error))) {
        Ok(result) => result,
        Err(panic) => Err(Fault::new(FailureKind::Panic, panic_message(&*panic))),
    }
}
