//! A worker's life: take, work, hand over.
//!
//! The loop of whoever works on one item at a time: on a thread, or with a
//! child process. It takes a chunk, makes an attempt at each item, and hands
//! over what it holds before it starts another item whenever someone downstream
//! waits or its items take long. It ends when the queue has ended or when the
//! stage has more workers than it should.
//!
//! Stopping: from [`StopLevel::Halt`] on no attempt is started, and what is
//! in hand is carried on as unfinished.

use std::{sync::atomic::Ordering, thread, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::{Core, attempts::Attempts, books::carried_on};
use crate::{
    account::{Held, Shard},
    chunk::Chunk,
    item::{Envelope, Load},
    journal::{Hooks, last_entry, recorded},
    meter::Thread,
    outlet::Outlet,
    stage::Stage,
    stop::StopLevel,
    sync::{Either, first, lock},
    worker::{Attempt, Work},
};

/// How often a worker on a thread gives up the core before it sleeps on an
/// empty queue. 4: more gained nothing on two cores (benches).
const YIELDS: usize = 4;

/// A thread's CPU time is read when this much has passed since: a system call.
const CPU_READ_EVERY: Duration = Duration::from_millis(10);

/// One worker of a stage.
pub(crate) struct StageLoop<'s, In, Out, W> {
    stage: &'s Stage<In>,
    core: &'s Core,
    attempts: Attempts<'s, In, Out, W>,
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
    pub(crate) fn new(
        stage: &'s Stage<In>,
        work: &'s W,
        hooks: &'s Hooks<'_, In, Out>,
        core: &'s Core,
        worker: usize,
    ) -> Self {
        let attempts = Attempts::new(stage, work, hooks, core);
        let on_thread = attempts.books.is_on_thread();
        let is_plain = on_thread
            && stage.settings.timeout.is_none()
            && stage.copier.get().is_none()
            && attempts.books.recorder.is_none()
            && attempts.books.recalled.is_none()
            && core.ledger.observer.is_none();
        Self {
            stage,
            core,
            attempts,
            worker,
            on_thread,
            is_plain,
            ok: 0,
            passed: 0,
            cpu_seen: 0,
            thread: None,
        }
    }

    pub(crate) async fn run(mut self, mut outlet: Box<dyn Outlet<Out> + '_>) {
        let ledger = &self.core.ledger;
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
            self.attempts.books.count_fed(inbox.iter(), self.worker);
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
                } else if let Some(mut envelope) = inbox.pop_front() {
                    let answer = self.attempts.answer(self.worker, &mut envelope).await;
                    self.ok += u64::from(answer.is_ok());
                    self.passed += u64::from(!answer.was_worked_on);
                    outbox.extend(answer.envelope);
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

    fn shard(&self) -> &'s Shard {
        self.attempts.books.shard(self.worker)
    }

    /// Answers for one envelope at once.
    ///
    /// It does what [`answer`](Attempts::answer) does for the common case, a
    /// function that is called once, without making a future for each item.
    // The id is lent to nobody, copies are: so it stays in registers.
    #[inline(always)]
    fn answer_plain(&mut self, Envelope { id, load, .. }: Envelope<In>) -> Envelope<Out> {
        let books = &self.attempts.books;
        let load = match load {
            Load::Item(_) if self.core.stop.level() >= StopLevel::Halt => {
                self.passed += 1;
                books.unfinished(self.worker, id.clone(), 0).load
            }
            Load::Item(item) => {
                match self.attempts.work.call(item, Attempt { number: 1, slot: self.worker + 1 }) {
                    Ok(value) => {
                        self.ok += 1;
                        Load::Item(value)
                    }
                    Err(fault) => {
                        let no_time = Duration::ZERO;
                        books.given_up(self.worker, id.clone(), fault, 1, no_time).load
                    }
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
