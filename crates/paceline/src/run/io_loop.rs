//! The loop of an `io` stage on one event loop: it takes items, has many
//! attempts under way at once, and hands their answers over.
//!
//! A worker is a slot here and not a loop of its own: while it has nothing to
//! do it is a number, and at work it is little more than the future that the
//! stage's author made. A hundred thousand workers cost what a hundred
//! thousand such futures do.
//!
//! A worker whose answer waits for room downstream keeps its slot, so that as
//! many items as there are workers are in hand and no more.
//!
//! Stopping: as for any worker, from [`StopLevel::Halt`](crate::StopLevel::Halt)
//! on no attempt is started (`run/attempts.rs`).

use std::{
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    sync::atomic::Ordering,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};

use self::slots::{Slots, share};
use super::{
    Core,
    attempts::{Answer, Attempts},
};
use crate::{
    account::{Held, Shard},
    chunk::Chunk,
    item::Envelope,
    journal::{Hooks, last_entry, recorded},
    meter::{Attendance, Shares},
    outlet::{BoxFuture, Outlet},
    stage::{Stage, cores},
    sync::{Either, first},
    watch::Watch,
    worker::Work,
};

mod slots;

/// Answers are handed over when the first has waited this long for others.
const LONG: Duration = Duration::from_micros(20);

/// After how many chunks the event loop gets a turn to look for events.
const TURNS: usize = 8;

/// How many loops a stage with so many workers has.
pub(crate) fn loops(workers: usize) -> usize {
    workers.min(cores())
}

/// One of the loops of a stage.
pub(crate) struct IoLoop<'s, In, Out, W> {
    stage: &'s Stage<In>,
    core: &'s Core,
    attempts: Attempts<'s, In, Out, W>,
    /// Which of the stage's loops it is, from 0.
    place: usize,
}

impl<'s, In, Out, W> IoLoop<'s, In, Out, W>
where
    In: Send,
    Out: Send + 's,
    W: Work<In, Out>,
{
    pub(crate) fn new(
        stage: &'s Stage<In>,
        work: &'s W,
        hooks: &'s Hooks<'_, In, Out>,
        core: &'s Core,
        place: usize,
    ) -> Self {
        Self { stage, core, attempts: Attempts::new(stage, work, hooks, core), place }
    }

    pub(crate) async fn run(mut self, outlet: Box<dyn Outlet<Out> + 's>) {
        let Self { stage, core, place, .. } = self;
        if core.ledger.observer.is_some() {
            self.attempts.seat = core.watch.as_ref().map(Watch::seat);
        }
        let mut inbox = Held::new(core.ledger.clone(), Some(stage.counters.clone()));
        let mut chunk = Chunk::new();
        let mut crew = AtWork::new(core, stage.counters.shard(place), &stage.attendance, outlet);
        let mut are_quick = false;
        for turn in 1_usize.. {
            let Some(workers) = self.until_room(&mut crew, true).await else { break };
            // Where items wait for nothing, more are taken than can be begun at once.
            let quick = if are_quick { stage.chunk_limit() } else { 1 };
            let most = chunk.size(crew.slots.room().max(quick));
            let popped = stage.queue.pop_batch_async(&mut inbox, most);
            let resized = stage.resized.until(|| stage.workers() != workers);
            match crew.until(first(popped, resized)).await {
                Either::First(Ok(_)) => crew.is_waiting = true,
                Either::First(Err(_)) if self.has_ended(&mut crew).await => break,
                Either::First(Err(_)) | Either::Second(()) => continue,
            }
            // Should it fail, the run is killed, and none of these is worked on.
            let recorded = pin!(recorded(core, last_entry(core, inbox.iter()), true));
            crew.until(recorded).await;
            self.attempts.books.count_fed(inbox.iter(), place);
            let (items, taken) = (inbox.len(), core.clock.now());
            let mut started = taken;
            while !inbox.is_empty() {
                self.until_room(&mut crew, false).await;
                while crew.slots.room() > 0
                    && let Some(envelope) = inbox.pop_front()
                {
                    let slot = crew.slots.take().expect("there is room");
                    crew.running.push(self.work_on(slot, started, envelope));
                }
                crew.begin().await;
                started = core.clock.now();
            }
            chunk.took(items, started.saturating_sub(taken));
            are_quick = crew.running.is_empty();
            if turn % TURNS == 0 {
                crew.until(pin!(tokio::task::yield_now())).await;
            }
        }
    }

    /// Waits until a worker is free, and gives the number of the stage's workers; `None` if there
    /// are so few by now that this loop has none, and it may leave.
    async fn until_room<F>(&self, crew: &mut AtWork<'s, Out, F>, may_leave: bool) -> Option<usize>
    where
        F: Future<Output = Ended<Out>>,
    {
        let Self { stage, place, .. } = *self;
        loop {
            let workers = stage.workers();
            crew.slots.set_most(share(workers, place, cores()));
            let in_use = crew.in_use();
            if in_use == 0 && stage.is_surplus(place) {
                if may_leave && stage.lets_go(place) {
                    return None;
                }
                crew.slots.set_most(1);
            }
            if crew.slots.room() > 0 {
                return Some(workers);
            }
            let resized = stage.resized.until(|| stage.workers() != workers);
            first(pin!(crew.until_less(in_use)), resized).await;
        }
    }

    /// Takes note that the queue has ended, and tells whether it still has when all at work have
    /// come to an end: an item may have gone back for another attempt.
    async fn has_ended<F>(&self, crew: &mut AtWork<'s, Out, F>) -> bool
    where
        F: Future<Output = Ended<Out>>,
    {
        self.stage.has_ended.store(true, Ordering::Relaxed);
        crew.is_waiting = false;
        let in_use = crew.in_use();
        if in_use > 0 {
            crew.until_less(in_use).await;
        }
        crew.in_use() == 0 && self.stage.lets_go(self.place)
    }

    /// One worker's way with one item.
    fn work_on(
        &self,
        slot: usize,
        started: Duration,
        mut envelope: Envelope<In>,
    ) -> impl Future<Output = Ended<Out>> {
        let worker = self.place + slot * cores();
        let shard = self.stage.counters.shard(self.place);
        let serving = shard.serve(started, &self.core.clock);
        async move {
            let answer = self.attempts.answer(worker, &mut envelope);
            // What panics here is no item's work.
            let answer = match AssertUnwindSafe(answer).catch_unwind().await {
                Ok(answer) => Some(answer),
                Err(panic) => {
                    self.core.panicked(panic);
                    None
                }
            };
            let at = self.core.clock.now();
            Ended { slot, answer, at, service: serving.end(at) }
        }
    }
}

/// What became of one worker's item.
struct Ended<Out> {
    slot: usize,
    answer: Option<Answer<Out>>,
    at: Duration,
    service: Duration,
}

/// The workers of a loop that are at work, and the answers that they hand over.
struct AtWork<'s, Out, F> {
    core: &'s Core,
    shard: &'s Shard,
    attendance: &'s Attendance,
    slots: Slots,
    running: FuturesUnordered<F>,
    outbox: Held<Out>,
    /// The slots of those whose answers are in the outbox.
    answered: Vec<usize>,
    /// The way downstream, unless that is full.
    outlet: Option<Box<dyn Outlet<Out> + 's>>,
    full: Option<Full<'s, Out>>,
    /// Whether those who are free wait for an item: not any more when the queue has ended.
    is_waiting: bool,
    /// How many were last seen to wait for an item, and for room.
    waiting: Shares,
}

/// A push that waits for room downstream, and with it the workers of these slots.
struct Full<'s, Out> {
    push: BoxFuture<'s, Box<dyn Outlet<Out> + 's>>,
    slots: Vec<usize>,
}

impl<'s, Out, F> AtWork<'s, Out, F>
where
    Out: Send + 's,
    F: Future<Output = Ended<Out>>,
{
    fn new(
        core: &'s Core,
        shard: &'s Shard,
        attendance: &'s Attendance,
        outlet: Box<dyn Outlet<Out> + 's>,
    ) -> Self {
        Self {
            core,
            shard,
            attendance,
            slots: Slots::default(),
            running: FuturesUnordered::new(),
            outbox: Held::new(core.ledger.clone(), None),
            answered: Vec::new(),
            outlet: Some(outlet),
            full: None,
            is_waiting: true,
            waiting: Shares::default(),
        }
    }

    /// Polls those that were added for the first time.
    async fn begin(&mut self) {
        poll_fn(|context| {
            self.poll(context);
            Poll::Ready(())
        })
        .await;
    }

    /// Goes on with the work until `wait` is over.
    async fn until<T>(&mut self, mut wait: impl Future<Output = T> + Unpin) -> T {
        poll_fn(|context| {
            let waited = Pin::new(&mut wait).poll(context);
            if waited.is_pending() {
                self.poll(context);
            }
            waited
        })
        .await
    }

    /// Goes on with the work until less than so many slots are in use.
    async fn until_less(&mut self, in_use: usize) {
        poll_fn(|context| {
            self.poll(context);
            if self.in_use() < in_use { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn in_use(&self) -> usize {
        self.running.len() + self.with_answer()
    }

    fn with_answer(&self) -> usize {
        self.answered.len() + self.full.as_ref().map_or(0, |full| full.slots.len())
    }

    /// Polls whoever was woken, and hands over what can be.
    fn poll(&mut self, context: &mut Context<'_>) {
        let (mut ok, mut since) = (0, None);
        while let Poll::Ready(Some(ended)) = self.running.poll_next_unpin(context) {
            let now = ended.at;
            ok += u64::from(self.settle(ended));
            let waited = now.saturating_sub(*since.get_or_insert(now));
            if waited > LONG || self.outlet.as_ref().is_some_and(|outlet| outlet.is_wanted()) {
                self.hand_over(context);
                since = None;
            }
        }
        self.shard.ok.fetch_add(ok, Ordering::Relaxed);
        self.hand_over(context);
        let idle = if self.is_waiting { self.slots.room() } else { 0 };
        let blocked = self.with_answer() as f64;
        self.note_waiting(Shares { idle: idle as f64, blocked, ..Shares::default() });
    }

    /// Takes what became of a worker's item, and tells whether that is a value.
    fn settle(&mut self, Ended { slot, answer, service, .. }: Ended<Out>) -> bool {
        let Some(answer) = answer else {
            self.slots.give_back(slot);
            return false;
        };
        if answer.was_worked_on {
            self.shard.served(1, service);
        }
        let is_ok = answer.is_ok();
        match answer.envelope {
            Some(envelope) => {
                self.outbox.push_back(envelope);
                self.answered.push(slot);
            }
            None => self.slots.give_back(slot),
        }
        is_ok
    }

    /// Hands over what there is room for. Whose answer has gone is free.
    fn hand_over(&mut self, context: &mut Context<'_>) {
        loop {
            if let Some(full) = &mut self.full {
                let Poll::Ready(outlet) = full.push.as_mut().poll(context) else { return };
                full.slots.drain(..).for_each(|slot| self.slots.give_back(slot));
                (self.outlet, self.full) = (Some(outlet), None);
            }
            if self.outbox.is_empty() {
                return;
            }
            let mut outlet = self.outlet.take().expect("the way is free where no push waits");
            if outlet.try_push(&mut self.outbox) {
                self.answered.drain(..).for_each(|slot| self.slots.give_back(slot));
                self.outlet = Some(outlet);
                return;
            }
            let empty = self.outbox.sibling();
            let mut left = std::mem::replace(&mut self.outbox, empty);
            let push = Box::pin(async move {
                outlet.push(&mut left).await;
                outlet
            });
            self.full = Some(Full { push, slots: std::mem::take(&mut self.answered) });
        }
    }
}

impl<Out, F> AtWork<'_, Out, F> {
    /// Notes how many wait for an item, and for room.
    fn note_waiting(&mut self, waiting: Shares) {
        let before = std::mem::replace(&mut self.waiting, waiting);
        if before != waiting {
            self.attendance.change(self.core.clock.now(), before, waiting);
        }
    }
}

impl<Out, F> Drop for AtWork<'_, Out, F> {
    fn drop(&mut self) {
        self.note_waiting(Shares::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BoxError, Clock, Stop,
        account::Ledger,
        item::{ItemId, Load},
        monitor::Monitor,
        stage::{Kind, Settings},
        worker::{Attempt, future::Futures},
    };

    /// How much memory a worker takes beside the future that it waits for.
    fn beside<Fut>(function: impl Fn(u64, Attempt) -> Fut + Send + Sync) -> usize
    where
        Fut: Future<Output = Result<(), BoxError>> + Send,
    {
        let stage = Stage::new(Settings::new(0, "many", Kind::Io));
        let stop = Stop::new();
        let ledger = Ledger::new(stop.clone(), None, None);
        let core = Core::new(ledger, Clock::system(), stop, Monitor::default());
        let (work, hooks) = (Futures::new(function), Hooks::default());
        let io_loop = IoLoop::new(&stage, &work, &hooks, &core, 0);
        let envelope = Envelope::new(ItemId::of_source(1), Load::Item(7));
        size_of_val(&io_loop.work_on(0, Duration::ZERO, envelope)) - size_of::<Fut>()
    }

    #[test]
    fn a_worker_that_waits_is_little_more_than_its_future() {
        // 448 as it is written. It was 3,000 when each worker had a loop of its own.
        let small = beside(|_, _| async {
            tokio::task::yield_now().await;
            Ok(())
        });
        let large = beside(|_, _| async {
            let kept = std::hint::black_box([7_u8; 10_000]);
            tokio::task::yield_now().await;
            std::hint::black_box(kept);
            Ok(())
        });
        assert!(small <= 512 && large <= 512, "{small} and {large} bytes");
    }
}
