//! The loop of a stage of worker processes: hand out, listen, settle.
//!
//! One loop has all of a stage's processes, so that an item goes to whoever
//! has room, one that is warm before one that would have to be started. It
//! moves bytes and never waits for a single process. Quick items are sent
//! several at a time, as many as make [`IN_HAND`] of work; slow ones singly.
//!
//! A worker's death costs what it had in hand, which [`worker`] knows; the
//! items behind that go to the next worker as if nothing had been. Dead and
//! dismissed workers end in the background, and their items are answered for
//! when they have.
//!
//! Stopping: from [`StopLevel::Halt`] on nothing more is sent, from
//! [`StopLevel::Cancel`] on the workers are ended with what they have in hand.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::atomic::Ordering,
    task::Poll,
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};

use self::{
    desk::{Desk, Task},
    farewell::{Left, Why},
    worker::{Deadline, Worker},
};
use super::Core;
use crate::{
    account::Held,
    clock::Timer,
    error::{Error, ErrorKind},
    item::{Envelope, Load},
    journal::{Hooks, Recalled, last_entry, recorded},
    outlet::{BoxFuture, Outlet},
    stage::Stage,
    stop::StopLevel,
    worker::{
        Attempt,
        command::is_shortage,
        serve::{Exchange, Framing, Serve},
    },
};

mod attendance;
mod desk;
mod farewell;
mod worker;

/// How much work one worker is sent at once: waking it, and us with its
/// answers, takes a twentieth of a millisecond each, which others compute
/// with. An item that waits behind others longer than this could have been
/// done elsewhere.
const IN_HAND: Duration = Duration::from_millis(20);

/// Of items that take longer than this a worker has no more than its share of
/// what is left.
const SLOW: Duration = Duration::from_micros(100);

/// When a worker is looked at that says nothing although it may have answers.
const SILENT: Duration = Duration::from_millis(20);

/// How soon a start that lacked something is tried again, and for how long.
const LACKING: Duration = Duration::from_millis(20);
const LACKING_AT_MOST: Duration = Duration::from_secs(10);

/// After how many turns without a wait the event loop gets one.
const TURNS: usize = 8;

/// How long a worker that is one too many is kept, where the run decides how
/// many there are: it may soon be needed again, and its start is dear.
const KEPT: Duration = Duration::from_secs(30);

/// How many workers are started before the others are looked at: a start
/// holds up this thread for a millisecond.
const STARTS: usize = 2;

/// A worker's place in the stage: what it is attempts have as their slot.
struct Seat<In> {
    state: State<In>,
    /// Deaths in a row before anything was answered.
    deaths: u32,
    /// Whether a worker was ever here.
    was_taken: bool,
    /// Since when it is one too many.
    surplus: Option<Duration>,
}

enum State<In> {
    Empty,
    Taken(Box<Worker<In>>),
    /// The worker is being ended, and its items wait for that.
    Leaving,
}

/// The loop that serves a stage with worker processes.
pub(crate) struct ServeLoop<'s, In, X: Exchange<In>> {
    stage: &'s Stage<In>,
    serve: &'s Serve,
    core: &'s Core,
    recalled: Option<&'s Recalled<In, X::Out>>,
    desk: Desk<'s, In, X>,
    seats: Vec<Seat<In>>,
    leaving: FuturesUnordered<BoxFuture<'s, Left<In>>>,
    inbox: Held<In>,
    has_ended: bool,
    is_cancelled: bool,
    /// The level of stopping and the number of workers that were acted on: the
    /// wait is for others, also for those that have come since.
    seen: (StopLevel, usize),
    /// Since when starting a worker has lacked something, and when it is tried again.
    lacking: Option<(Duration, Duration)>,
    /// The timer that is set. Earlier than it need be at times: setting one wakes another thread.
    timer: Option<(Duration, Timer)>,
}

impl<'s, In, X> ServeLoop<'s, In, X>
where
    In: Send,
    X: Exchange<In>,
    X::Out: Send,
{
    pub(crate) fn new(
        stage: &'s Stage<In>,
        serve: &'s Serve,
        exchange: &'s X,
        hooks: &'s Hooks<'_, In, X::Out>,
        core: &'s Core,
    ) -> Self {
        Self {
            stage,
            serve,
            core,
            recalled: hooks.recalled.get(),
            desk: Desk::new(stage, serve.framing, exchange, hooks, core),
            seats: Vec::new(),
            leaving: FuturesUnordered::new(),
            inbox: Held::new(core.ledger.clone(), Some(stage.counters.clone())),
            has_ended: false,
            is_cancelled: false,
            seen: (StopLevel::None, 0),
            lacking: None,
            timer: None,
        }
    }

    pub(crate) async fn run(mut self, mut outlet: Box<dyn Outlet<X::Out> + 's>) {
        if self.serve.framing == Framing::Frames && self.core.stop.level() < StopLevel::Drain {
            // Its imports take time, and should they fail nothing need have been done.
            self.make_seats(1);
            self.start_worker(0);
        }
        let mut turns = 0;
        loop {
            self.desk.release_due();
            self.take().await;
            self.obey_stop();
            let lacks_more = self.staff();
            self.hand_out();
            let has_moved = self.listen() | lacks_more;
            self.note(false);
            if std::mem::take(&mut self.desk.has_put_back) {
                // Seen before: the end of the queue is behind what comes back to it.
                self.has_ended = false;
            }
            if !self.desk.outbox.is_empty() && !outlet.try_push(&mut self.desk.outbox) {
                self.note(true);
                outlet.push(&mut self.desk.outbox).await;
                self.note(false);
            }
            if self.is_done() {
                break;
            }
            if has_moved && turns < TURNS {
                turns += 1;
            } else if has_moved {
                turns = 0;
                tokio::task::yield_now().await;
            } else {
                turns = 0;
                self.wait().await;
            }
        }
        self.stage.has_ended.store(true, Ordering::Relaxed);
        drop(outlet);
        self.dismiss_all().await;
    }

    fn level(&self) -> StopLevel {
        self.core.stop.level()
    }

    /// Takes what there is a use for, without waiting.
    async fn take(&mut self) {
        while !self.has_ended {
            let most = self.wanted();
            if most == 0 {
                return;
            }
            match self.stage.queue.try_pop_batch(&mut self.inbox, most) {
                Ok(0) => return,
                Ok(_) => self.sort().await,
                Err(_) => self.has_ended = true,
            }
        }
    }

    /// Puts what came aside: to be worked on, or to be carried past.
    async fn sort(&mut self) {
        if self.inbox.is_empty() {
            return;
        }
        // Should it fail, the run is killed, and none of these is worked on.
        recorded(self.core, last_entry(self.core, self.inbox.iter()), true).await;
        let recalled = self.recalled;
        let is_recalled = |load: &Load<In>| match (recalled, load) {
            (Some(of), Load::Item(item)) => (of.is_recalled)(item),
            _ => false,
        };
        let fed = self.inbox.iter().filter(|envelope| !is_recalled(&envelope.load));
        self.stage.count_fed(fed, 0);
        while let Some(Envelope { id, load, entry }) = self.inbox.pop_front() {
            let past = match load {
                Load::Item(item) if recalled.is_some_and(|of| (of.is_recalled)(&item)) => {
                    recalled.map_or(Load::Unfinished, |of| Load::Item((of.recall)(item)))
                }
                Load::Item(item) => {
                    self.desk.pending.push_back(Task::new(id, item, 0));
                    continue;
                }
                Load::Again(again) => {
                    self.desk.pending.push_back(Task::new(id, again.item, again.tries));
                    continue;
                }
                Load::Failed(failure) => Load::Failed(failure),
                Load::Unfinished => Load::Unfinished,
            };
            self.desk.outbox.push_back(Envelope::new(id, past).recorded_as(entry));
        }
    }

    /// How many items there would be a worker for, beyond those at hand.
    fn wanted(&self) -> usize {
        let target = self.stage.target.load(Ordering::Acquire);
        let limit = self.stage.chunk_limit();
        let missing = target.saturating_sub(self.seats.len());
        let seats = self.seats.iter().take(target);
        let room: usize = seats.map(|seat| seat.room(limit, self.serve)).sum();
        (room + missing).saturating_sub(self.desk.len())
    }

    fn obey_stop(&mut self) {
        let level = self.level();
        self.seen.0 = level;
        if level >= StopLevel::Halt {
            self.desk.leave_pending();
        }
        if level >= StopLevel::Cancel && !self.is_cancelled {
            self.is_cancelled = true;
            (0..self.seats.len()).for_each(|seat| self.lose(seat, Why::Stopped));
        }
    }

    fn make_seats(&mut self, target: usize) {
        while self.seats.len() < target {
            self.seats.push(Seat {
                state: State::Empty,
                deaths: 0,
                was_taken: false,
                surplus: None,
            });
        }
    }

    /// Dismisses workers that have done their part, and starts those there is
    /// work for; tells whether there are more to be started.
    fn staff(&mut self) -> bool {
        let target = self.stage.target.load(Ordering::Acquire);
        self.seen.1 = target;
        self.make_seats(target);
        let now = self.core.clock.now();
        let keeps = if self.stage.settings.workers.is_auto() { KEPT } else { Duration::ZERO };
        for index in 0..self.seats.len() {
            let seat = &mut self.seats[index];
            seat.surplus = (index >= target).then(|| seat.surplus.unwrap_or(now));
            let is_surplus = seat.surplus.is_some_and(|it| now.saturating_sub(it) >= keeps);
            if let State::Taken(worker) = &seat.state
                && worker.in_flight.is_empty()
                && (is_surplus || worker.has_done_its_part(self.serve, now))
            {
                // One that comes here later is an addition again.
                seat.was_taken &= !is_surplus;
                self.lose(index, Why::Dismissed);
            }
        }
        let must_wait = self.lacking.is_some_and(|(_, again)| now < again);
        if self.desk.pending.is_empty() || self.level() >= StopLevel::Halt || must_wait {
            return false;
        }
        let (limit, share) = (self.stage.chunk_limit(), self.share(target));
        let open = self.seats.iter().take(target).filter(|seat| !seat.is_empty());
        let mut room: usize = open.map(|seat| seat.room_in_share(limit, share, self.serve)).sum();
        let mut started = 0;
        for index in 0..target {
            if room >= self.desk.pending.len() {
                return false;
            }
            if self.seats[index].is_empty() {
                if started == STARTS {
                    return true;
                }
                self.start_worker(index);
                started += 1;
                room += 1;
            }
        }
        false
    }

    fn start_worker(&mut self, seat: usize) {
        let now = self.core.clock.now();
        let is_replacement = self.seats[seat].was_taken;
        let name = &self.stage.settings.name;
        match Worker::start(self.serve, seat + 1, name, now, is_replacement) {
            Ok(worker) => {
                self.lacking = None;
                if self.core.is_measured {
                    self.stage.processes.started(worker.process.group(), is_replacement);
                }
                self.seats[seat].was_taken = true;
                self.seats[seat].state = State::Taken(Box::new(worker));
            }
            Err(fault) if is_shortage(&fault) => {
                let since = self.lacking.map_or(now, |(since, _)| since);
                if now.saturating_sub(since) >= LACKING_AT_MOST {
                    self.fail(&format!("could not be started: {fault}"));
                }
                self.lacking = Some((since, now.saturating_add(LACKING)));
            }
            Err(fault) => self.fail(&format!("could not be started: {}", fault.with_causes())),
        }
    }

    /// Ends the run: this stage cannot do its work.
    fn fail(&mut self, why: &str) {
        let name = &self.stage.settings.name;
        let message = format!("stage `{name}`: its worker processes {why}");
        self.core.fail(Error::new(ErrorKind::Worker, message));
        self.core.stop.cancel();
        self.obey_stop();
    }

    /// Sends what waits to those who have room.
    fn hand_out(&mut self) {
        if self.desk.pending.is_empty() {
            return;
        }
        let limit = self.stage.chunk_limit();
        let target = self.stage.target.load(Ordering::Acquire);
        let now = self.core.clock.now();
        let share = self.share(target);
        while let Some(task) = self.desk.pending.pop_front() {
            let ready = self.seats.iter().take(target).enumerate().filter_map(|(index, seat)| {
                let State::Taken(worker) = &seat.state else { return None };
                let fits = worker.is_ready
                    && seat.room_in_share(limit, share, self.serve) > 0
                    && (!task.is_alone || worker.in_flight.is_empty());
                fits.then_some((worker.in_flight.len(), index))
            });
            let Some((_, index)) = ready.min() else {
                self.desk.pending.push_front(task);
                return;
            };
            let State::Taken(worker) = &mut self.seats[index].state else {
                unreachable!("chosen among those taken");
            };
            let attempt = Attempt { number: task.tries + 1, slot: index + 1 };
            self.desk.answer_for(index);
            self.desk.send(task, &attempt, worker, now);
        }
    }

    /// How many of the items that are here there are for each worker, 1 at least:
    /// near the end of the input none has many while another has nothing to do.
    fn share(&self, target: usize) -> usize {
        let in_flight = self.seats.iter().map(|seat| match &seat.state {
            State::Taken(worker) => worker.in_flight.len(),
            State::Empty | State::Leaving => 0,
        });
        let here = self.desk.pending.len() + self.stage.queue.depth() + in_flight.sum::<usize>();
        (here / target.max(1)).max(1)
    }

    /// Moves bytes for all workers and settles what they have answered; tells
    /// whether anything came.
    fn listen(&mut self) -> bool {
        let mut has_moved = false;
        for index in 0..self.seats.len() {
            let State::Taken(worker) = &mut self.seats[index].state else { continue };
            worker.process.write();
            let mut trouble = None;
            if worker.process.read() {
                has_moved = true;
                trouble = self.settle(index);
            }
            let State::Taken(worker) = &mut self.seats[index].state else { continue };
            let over = worker.process.is_over();
            let now = || self.core.clock.now();
            let timeout = self.stage.settings.timeout;
            let late = match worker.deadline(timeout, self.serve.start_within) {
                Some(Deadline::Item(due)) if now() >= due => Some(Why::Late),
                Some(Deadline::Start(due)) if now() >= due => Some(Why::NeverReady),
                _ => None,
            };
            let is_due = worker.look_due().is_some_and(|due| now() >= due);
            // Who has answers to show is not late: the item in hand has its time before it.
            let has_more = trouble.is_none()
                && !over
                && (is_due || matches!(late, Some(Why::Late)) && worker.in_flight.len() > 1)
                && self.desk.look(index, worker, self.serve);
            has_moved |= has_more;
            let late = late.filter(|_| !has_more);
            // What one who is lost had not begun may be sent to others.
            has_moved |= trouble.is_some() || over || late.is_some();
            if let Some(why) = trouble {
                self.lose(index, why);
            } else if over {
                worker.process.read_rest();
                let why = self.settle(index).unwrap_or(Why::Ended);
                self.lose(index, why);
            } else if let Some(why) = late {
                self.lose(index, why);
            }
        }
        has_moved
    }

    /// Settles what the worker has answered, and tells what is wrong with it.
    fn settle(&mut self, index: usize) -> Option<Why> {
        let State::Taken(worker) = &mut self.seats[index].state else { return None };
        self.desk.answer_for(index);
        let heard = self.desk.hear(worker, self.serve);
        if worker.answered > 0 {
            // The program works: those elsewhere died of their items.
            self.seats.iter_mut().for_each(|seat| seat.deaths = 0);
        }
        match heard {
            Ok(()) => None,
            Err(worker::Trouble::Garbage(what)) => Some(Why::Garbage(what)),
            Err(worker::Trouble::Fatal(error)) => {
                self.fail(&format!("cannot begin: {error}"));
                None
            }
        }
    }

    fn is_done(&self) -> bool {
        let is_busy = |seat: &Seat<In>| match &seat.state {
            State::Empty => false,
            State::Taken(worker) => !worker.in_flight.is_empty(),
            State::Leaving => true,
        };
        self.has_ended && self.desk.is_empty() && !self.seats.iter().any(is_busy)
    }

    /// When something is to be done although nothing happens.
    fn next_due(&self) -> Option<Duration> {
        let timeout = self.stage.settings.timeout;
        let workers = self.seats.iter().filter_map(|seat| match &seat.state {
            State::Taken(worker) => worker.due(self.serve, timeout),
            State::Empty | State::Leaving => None,
        });
        let kept = self.seats.iter().filter_map(|seat| match &seat.state {
            State::Taken(worker) if worker.in_flight.is_empty() => {
                seat.surplus.map(|since| since.saturating_add(KEPT))
            }
            _ => None,
        });
        let again = self.lacking.map(|(_, again)| again);
        let again = again.filter(|_| !self.desk.pending.is_empty());
        workers.chain(kept).chain(again).chain(self.desk.next_due()).min()
    }

    fn set_timer(&mut self) {
        match self.next_due() {
            None => {}
            Some(due) if self.timer.as_ref().is_some_and(|(set, _)| *set <= due) => {}
            Some(due) => self.timer = Some((due, self.core.clock.until(due))),
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        self.set_timer();
        let (stage, (level, target)) = (self.stage, self.seen);
        let most = if self.has_ended { 0 } else { self.wanted() };
        let Self { inbox, seats, leaving, timer, .. } = self;
        let mut popped = (most > 0).then(|| stage.queue.pop_batch_async(inbox, most));
        let next_level = if level < StopLevel::Halt { StopLevel::Halt } else { StopLevel::Cancel };
        let mut stopped = pin!(self.core.stop.reached(next_level));
        let mut resized =
            pin!(stage.resized.until(|| stage.target.load(Ordering::Acquire) != target));
        let (mut buried, mut has_rung) = (None, false);
        let ended = poll_fn(|cx| {
            let mut ended = false;
            let mut is_ready = false;
            for seat in seats.iter_mut() {
                if let State::Taken(worker) = &mut seat.state {
                    is_ready |= worker.process.poll_ready(cx);
                }
            }
            if !leaving.is_empty()
                && let Poll::Ready(Some(left)) = leaving.poll_next_unpin(cx)
            {
                (buried, is_ready) = (Some(left), true);
            }
            if let Some((_, timer)) = timer
                && Pin::new(timer).poll(cx).is_ready()
            {
                (has_rung, is_ready) = (true, true);
            }
            if level < StopLevel::Cancel {
                is_ready |= stopped.as_mut().poll(cx).is_ready();
            }
            is_ready |= resized.as_mut().poll(cx).is_ready();
            if let Some(future) = &mut popped
                && let Poll::Ready(result) = Pin::new(future).poll(cx)
            {
                (ended, is_ready) = (result.is_err(), true);
                popped = None;
            }
            if is_ready { Poll::Ready(ended) } else { Poll::Pending }
        })
        .await;
        drop(popped);
        self.has_ended |= ended;
        if has_rung {
            self.timer = None;
        }
        self.sort().await;
        if let Some(left) = buried {
            self.bury(left);
        }
    }
}

impl<In> Seat<In> {
    fn is_empty(&self) -> bool {
        matches!(self.state, State::Empty)
    }

    /// How many items it could take, whoever must be started for them.
    fn room(&self, limit: usize, serve: &Serve) -> usize {
        match &self.state {
            State::Empty => 1,
            State::Taken(worker) => worker.room(limit, serve),
            State::Leaving => 0,
        }
    }

    /// As [`room`](Self::room), but of slow items no more than a share of what there is.
    fn room_in_share(&self, limit: usize, share: usize, serve: &Serve) -> usize {
        let room = self.room(limit, serve);
        match &self.state {
            State::Taken(worker) if worker.is_ready && worker.is_slow() => {
                room.min(share.saturating_sub(worker.in_flight.len()))
            }
            _ => room,
        }
    }
}
