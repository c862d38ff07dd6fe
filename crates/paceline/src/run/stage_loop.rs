//! A worker's life: take, work, hand over.
//!
//! The same loop for every kind of work. It takes a chunk, makes an attempt
//! at each item, and hands over what it holds before it starts another item
//! whenever someone downstream waits or its items take long. It ends when the
//! queue has ended or when the stage has more workers than it should.
//!
//! Stopping: from [`StopLevel::Halt`] on no attempt is started, and what is
//! in hand is carried on as unfinished.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::Core;
use crate::{
    account::{Held, Shard},
    chunk::Chunk,
    error::{Error, ErrorKind},
    event::StageEnded,
    failure::{Failure, FailureKind, Fault},
    item::{Again, Ending, Envelope, ItemId, Load},
    journal::{Answered, Hooks, Recalled, Record, last_entry, recorded},
    meter::Thread,
    outlet::Outlet,
    stage::{Kind, Stage},
    stop::StopLevel,
    sync::{Either, first, lock},
    watch::{Seat, Watch},
    worker::{Attempt, Surroundings, Work, command, panic_message},
};

/// How often a worker on a thread gives up the core before it sleeps on an
/// empty queue. 4: more gained nothing on two cores (benches).
const YIELDS: usize = 4;

/// A thread's CPU time is read when this much has passed since: a system call.
const CPU_READ_EVERY: Duration = Duration::from_millis(10);

/// One worker of a stage.
pub(crate) struct StageLoop<'s, In, Out, W> {
    stage: &'s Stage<In>,
    work: &'s W,
    recorder: Option<&'s Record<'s, Out>>,
    recalled: Option<&'s Recalled<In, Out>>,
    core: &'s Core,
    worker: usize,
    /// Whether it has a thread to itself.
    on_thread: bool,
    /// Whether an item takes one call of a function and nothing else: no
    /// other attempts, no limit in time, nobody to be told.
    is_plain: bool,
    /// Items answered with a value since the counters were written.
    ok: u64,
    /// Items let past without work since then: they had no time in service.
    passed: u64,
    /// CPU time of the thread that the counters know of, in nanoseconds.
    cpu_seen: u64,
    /// Its thread, if somebody wants to look at it.
    thread: Option<Thread>,
    /// Where its event loop says what it polls, if somebody is to be told of it.
    seat: Option<Arc<Seat>>,
}

/// The answers for the next few items, where the work is plain.
struct Answers<'a, 's, In, Out, W> {
    worker: &'a mut StageLoop<'s, In, Out, W>,
    inbox: &'a mut Held<In>,
    few: usize,
}

impl<In: Send, Out, W: Work<In, Out>> Iterator for Answers<'_, '_, In, Out, W> {
    type Item = Envelope<Out>;

    // Inlined, so that an envelope is made where it is kept: to make it first and move it then
    // cost three times as much (benches).
    #[inline(always)]
    fn next(&mut self) -> Option<Envelope<Out>> {
        self.few = self.few.checked_sub(1)?;
        let envelope = self.inbox.pop_front()?;
        Some(self.worker.answer_plain(envelope))
    }
}

impl<'s, In: Send, Out, W: Work<In, Out>> StageLoop<'s, In, Out, W> {
    pub(crate) async fn run(mut self, mut outlet: Box<dyn Outlet<Out> + '_>) {
        let ledger = &self.core.ledger;
        if self.stage.settings.kind == Kind::Io && ledger.observer.is_some() {
            // A worker stays on its event loop.
            self.seat = self.core.watch.as_ref().map(Watch::seat);
        }
        if self.on_thread && self.core.is_measured {
            let thread = Thread::here();
            lock(&self.stage.threads).insert(self.worker, thread.clone());
            self.thread = Some(thread);
        }
        let mut inbox = Held::new(ledger.clone(), Some(self.stage.counters.clone()));
        let mut outbox = Held::new(ledger.clone(), None);
        let mut chunk = Chunk::new();
        let mut cpu_read = Duration::ZERO;
        let mut ended = self.core.clock.now();
        while let Some(has_waited) = self.take(&mut inbox, &chunk).await {
            let items = inbox.len();
            // Should it fail, the run is killed, and none of these is worked on.
            recorded(self.core, last_entry(self.core, inbox.iter()), true).await;
            self.stage.count_fed(
                inbox.iter().filter(|envelope| !self.is_recalled(&envelope.load)),
                self.worker,
            );
            // Without a wait in between, a chunk starts when the one before has ended.
            let started = if has_waited { self.core.clock.now() } else { ended };
            let mut blocked = Duration::ZERO;
            let mut serving = self.shard().serve(started, &self.core.clock);
            while !inbox.is_empty() {
                if !outbox.is_empty()
                    && (chunk.is_slow() || outlet.is_wanted())
                    && !outlet.try_push(&mut outbox)
                {
                    let full_since = self.core.clock.now();
                    serving.end(full_since);
                    outlet.push(&mut outbox).await;
                    let now = self.core.clock.now();
                    serving = self.shard().serve(now, &self.core.clock);
                    blocked += now.saturating_sub(full_since);
                }
                if self.is_plain {
                    let few = inbox.len().min(chunk.at_a_stretch());
                    outbox.extend(self.answers(&mut inbox, few));
                } else if let Some(envelope) = inbox.pop_front() {
                    outbox.extend(self.answer(envelope).await);
                }
            }
            ended = self.core.clock.now();
            serving.end(ended);
            let busy = ended.saturating_sub(started).saturating_sub(blocked);
            chunk.took(items, busy);
            let worked = items as u64 - std::mem::take(&mut self.passed);
            if worked > 0 {
                self.shard().served(worked, busy / worked as u32);
            }
            self.shard().ok.fetch_add(std::mem::take(&mut self.ok), Ordering::Relaxed);
            if self.on_thread && ended.saturating_sub(cpu_read) >= CPU_READ_EVERY {
                cpu_read = ended;
                self.read_cpu();
            }
            if !outbox.is_empty() && !outlet.try_push(&mut outbox) {
                outlet.push(&mut outbox).await;
                ended = self.core.clock.now();
            }
        }
        if self.on_thread {
            self.read_cpu();
        }
    }

    /// Waits for a chunk, and tells whether it had to; `None` if there is none.
    async fn take(&self, inbox: &mut Held<In>, chunk: &Chunk) -> Option<bool> {
        let stage = self.stage;
        if stage.is_surplus(self.worker) && stage.lets_go(self.worker) {
            return None;
        }
        let most = chunk.size(stage.chunk_limit());
        for look in 0..if self.on_thread { YIELDS } else { 1 } {
            match stage.queue.try_pop_batch(inbox, most) {
                Ok(0) => {}
                Ok(_) => return Some(look > 0),
                Err(_) if self.has_ended() => return None,
                Err(_) => break,
            }
            if self.on_thread {
                thread::yield_now();
            }
        }
        let mut may_go = true;
        loop {
            let popped = stage.queue.pop_batch_async(inbox, most);
            let surplus = stage.resized.until(|| may_go && stage.is_surplus(self.worker));
            match first(popped, surplus).await {
                Either::First(Ok(_)) => return Some(true),
                Either::First(Err(_)) if self.has_ended() => return None,
                Either::First(Err(_)) => {}
                Either::Second(()) if stage.lets_go(self.worker) => return None,
                Either::Second(()) => may_go = false,
            }
        }
    }

    /// Takes note that the queue has ended, and tells whether it still has for this worker.
    fn has_ended(&self) -> bool {
        self.stage.has_ended.store(true, Ordering::Relaxed);
        self.stage.lets_go(self.worker)
    }

    fn answers<'a>(
        &'a mut self,
        inbox: &'a mut Held<In>,
        few: usize,
    ) -> Answers<'a, 's, In, Out, W> {
        Answers { worker: self, inbox, few }
    }

    /// Whether this stage has answered for the item in an earlier run.
    fn is_recalled(&self, load: &Load<In>) -> bool {
        match (load, self.recalled) {
            (Load::Item(item), Some(recalled)) => (recalled.is_recalled)(item),
            _ => false,
        }
    }

    /// Answers for one envelope at once.
    ///
    /// It does what [`answer`](Self::answer) does for the common case, a
    /// function that is called once, without making a future for each item.
    // The id is lent to nobody, copies are: so it stays in registers.
    #[inline(always)]
    fn answer_plain(&mut self, Envelope { id, load, .. }: Envelope<In>) -> Envelope<Out> {
        let load = match load {
            Load::Item(_) if self.core.stop.level() >= StopLevel::Halt => {
                self.passed += 1;
                self.unfinished(id.clone(), 0);
                Load::Unfinished
            }
            Load::Item(item) => {
                match self.work.call(item, Attempt { number: 1, slot: self.worker + 1 }) {
                    Ok(value) => {
                        self.ok += 1;
                        Load::Item(value)
                    }
                    Err(fault) => self.given_up(id.clone(), fault, 1, Duration::ZERO).load,
                }
            }
            Load::Again(_) => unreachable!("plain work is not tried again"),
            Load::Failed(_) | Load::Unfinished => {
                self.passed += 1;
                return carried_on(id, load);
            }
        };
        Envelope::new(id, load)
    }

    /// Answers for one envelope: with a value, with a failure, or with
    /// nothing if it waits for another attempt.
    async fn answer(&mut self, envelope: Envelope<In>) -> Option<Envelope<Out>> {
        let Envelope { mut id, load, entry } = envelope;
        if let Load::Failed(_) | Load::Unfinished = load {
            self.passed += 1;
            return Some(carried_on(id, load).recorded_as(entry));
        }
        let (mut item, mut tries) = match load {
            Load::Item(item) => (item, 0),
            Load::Again(again) => (again.item, again.tries),
            Load::Failed(_) | Load::Unfinished => unreachable!("carried on above"),
        };
        if let Some(recalled) = self.recalled.filter(|of| (of.is_recalled)(&item)) {
            self.passed += 1;
            return Some(Envelope::new(id, Load::Item((recalled.recall)(item))));
        }
        let tries_before = tries;
        if self.recorder.is_some() {
            self.stage.lag.caught_up(self.core).await;
        }
        loop {
            if self.core.stop.level() >= StopLevel::Halt {
                self.passed += u64::from(tries == tries_before);
                self.unfinished(id.clone(), tries);
                return Some(Envelope::new(id, Load::Unfinished));
            }
            tries += 1;
            let spare = match self.spare(&item, tries) {
                Ok(spare) => spare,
                Err(fault) => return Some(self.given_up(id, fault, tries, Duration::ZERO)),
            };
            let (result, service) = self.attempt(item, &id, tries).await;
            let fault = match result {
                Ok(value) => return Some(self.done(id, value, tries, service)),
                Err(fault) => fault,
            };
            if let Some(refused) = command::refused(&fault) {
                let message = format!("stage `{}`: {refused}", self.stage.settings.name);
                self.core.fail(Error::new(ErrorKind::Start, message));
                self.core.stop.cancel();
                self.unfinished(id.clone(), tries - 1);
                return Some(Envelope::new(id, Load::Unfinished));
            }
            if fault.is_pushback() {
                self.shard().pushback.fetch_add(1, Ordering::Relaxed);
            }
            let may_try = !fault.is_permanent() && !self.was_stopped(&fault);
            let Some((again, delay)) = spare.filter(|_| may_try) else {
                return Some(self.given_up(id, fault, tries, service));
            };
            self.retrying(&id, fault, tries, delay);
            if delay.is_zero() {
                item = again;
                continue;
            }
            let envelope = Envelope::new(id, Load::Again(Box::new(Again { item: again, tries })));
            let due = self.core.clock.now().saturating_add(delay);
            let Err(kept) = self.stage.wait_for_retry(due, envelope, &self.core.clock) else {
                self.core.ring();
                return None;
            };
            // As many wait already as may: this one waits with its worker.
            let halted = self.core.stop.reached(StopLevel::Halt);
            first(self.core.clock.until(due), halted).await;
            let Load::Again(again) = kept.load else {
                unreachable!("the refused envelope is the one that was offered");
            };
            (id, item) = (kept.id, again.item);
        }
    }

    async fn attempt(&self, item: In, id: &ItemId, number: u32) -> (Result<Out, Fault>, Duration) {
        let core = self.core;
        let settings = &self.stage.settings;
        let surroundings = Surroundings {
            attempt: Attempt { number, slot: self.worker + 1 },
            item: id,
            stage: &settings.name,
            stage_index: settings.index,
            timeout: settings.timeout,
            grace: settings.grace,
            clock: &core.clock,
            stop: &core.stop,
            shard: self.shard(),
            observer: core.ledger.observer.as_ref(),
            watch: core.watch.as_ref(),
            seat: self.seat.as_deref(),
        };
        match (&core.ledger.observer, self.recorder) {
            (None, None) => (self.work.attempt(item, &surroundings).await, Duration::ZERO),
            _ => {
                let started = core.clock.now();
                let result = self.work.attempt(item, &surroundings).await;
                (result, core.clock.now().saturating_sub(started))
            }
        }
    }

    /// Notes the CPU time of this worker's thread.
    fn read_cpu(&mut self) {
        let used = clock_gettime(ClockId::ThreadCPUTime);
        let nanos = used.tv_sec as u64 * 1_000_000_000 + used.tv_nsec as u64;
        if let Some(thread) = &self.thread {
            thread.counted.store(nanos, Ordering::Relaxed);
        }
        self.shard().cpu.fetch_add(nanos - self.cpu_seen, Ordering::Relaxed);
        self.cpu_seen = nanos;
    }
}

/// The books that a worker keeps, whatever its work is.
impl<'s, In: Send, Out, W> StageLoop<'s, In, Out, W> {
    pub(crate) fn new(
        stage: &'s Stage<In>,
        work: &'s W,
        hooks: &'s Hooks<'_, In, Out>,
        core: &'s Core,
        worker: usize,
        on_thread: bool,
    ) -> Self {
        let is_plain = on_thread
            && stage.settings.timeout.is_none()
            && stage.copier.get().is_none()
            && hooks.recorder.get().is_none()
            && hooks.recalled.get().is_none()
            && core.ledger.observer.is_none();
        Self {
            stage,
            work,
            recorder: hooks.recorder().map(|record| record as _),
            recalled: hooks.recalled.get(),
            core,
            worker,
            on_thread,
            is_plain,
            ok: 0,
            passed: 0,
            cpu_seen: 0,
            thread: None,
            seat: None,
        }
    }

    /// Answers for another worker from here on.
    pub(super) fn answer_for(&mut self, worker: usize) {
        if worker != self.worker {
            self.count_ok();
            self.worker = worker;
        }
    }

    /// Writes the counter of items answered with a value.
    pub(super) fn count_ok(&mut self) {
        let ok = std::mem::take(&mut self.ok);
        if ok > 0 {
            self.shard().ok.fetch_add(ok, Ordering::Relaxed);
        }
    }

    pub(super) fn shard(&self) -> &'s Shard {
        self.stage.counters.shard(self.worker)
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

    pub(super) fn done(
        &mut self,
        id: ItemId,
        value: Out,
        tries: u32,
        service: Duration,
    ) -> Envelope<Out> {
        self.ok += 1;
        self.tell(&id, &Ending::Ok, tries, service);
        let entry = self.record(&id, Ok(&value), tries, service);
        Envelope::new(id, Load::Item(value)).recorded_as(entry)
    }

    /// Records an answer, if the stage's are, and gives the number of its entry.
    fn record(
        &self,
        item: &ItemId,
        outcome: Result<&Out, &Failure>,
        attempts: u32,
        service: Duration,
    ) -> u64 {
        let slot = self.worker + 1;
        let answered = Answered { item, outcome, attempts, slot, service };
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
        id: ItemId,
        fault: Fault,
        tries: u32,
        service: Duration,
    ) -> Envelope<Out> {
        if self.was_stopped(&fault) {
            self.unfinished(id.clone(), tries);
            return Envelope::new(id, Load::Unfinished);
        }
        self.shard().failed.fetch_add(1, Ordering::Relaxed);
        let failure = Failure::new(id.clone(), self.stage.settings.name.clone(), tries, fault);
        self.tell(&id, &Ending::Failed(failure.clone()), tries, service);
        self.core.ledger.note_failure(&failure);
        let entry = self.record(&id, Err(&failure), tries, service);
        Envelope::new(id, Load::Failed(failure)).recorded_as(entry)
    }

    /// Whether an attempt did not succeed because the run was cancelled: it
    /// was stopped, or a function was told to end and did.
    pub(super) fn was_stopped(&self, fault: &Fault) -> bool {
        match fault.kind() {
            FailureKind::Cancelled => true,
            FailureKind::Panic => false,
            _ => self.on_thread && self.core.stop.level() >= StopLevel::Cancel,
        }
    }

    #[cold]
    pub(super) fn unfinished(&self, id: ItemId, tries: u32) {
        self.shard().unfinished.fetch_add(1, Ordering::Relaxed);
        if tries > 0 {
            self.tell(&id, &Ending::Unfinished, tries, Duration::ZERO);
        }
    }

    fn tell(&self, item: &ItemId, ending: &Ending, attempts: u32, service: Duration) {
        if let Some(observer) = &self.core.ledger.observer {
            let name = &*self.stage.settings.name;
            let stage = self.stage.settings.index;
            observer.stage_ended(&StageEnded { item, stage, name, ending, attempts, service });
        }
    }

    pub(super) fn retrying(&self, id: &ItemId, fault: Fault, tries: u32, delay: Duration) {
        self.shard().retried.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &self.core.ledger.observer {
            let stage = self.stage.settings.name.clone();
            observer.retrying(&Failure::new(id.clone(), stage, tries, fault), delay);
        }
    }
}

/// What carries no value goes past a stage as it is.
fn carried_on<In, Out>(id: ItemId, load: Load<In>) -> Envelope<Out> {
    match load {
        Load::Failed(failure) => Envelope::new(id, Load::Failed(failure)),
        _ => Envelope::new(id, Load::Unfinished),
    }
}

impl<In, Out, W> StageLoop<'_, In, Out, W> {
    /// Nobody looks at this thread any more.
    fn leave_thread(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let mut threads = lock(&self.stage.threads);
        if let Some((_, queued)) = thread.look() {
            let nanos = u64::try_from(queued.as_nanos()).unwrap_or(u64::MAX);
            self.stage.queued_before.fetch_add(nanos, Ordering::Relaxed);
        }
        threads.remove(&self.worker);
    }
}

impl<In, Out, W> Drop for StageLoop<'_, In, Out, W> {
    fn drop(&mut self) {
        self.leave_thread();
    }
}
