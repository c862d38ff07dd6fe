//! A stage: its settings, its queue, and the state that its workers share.
//!
//! A stage never knows its neighbours. It takes from the queue before it and
//! hands over through its link. Its number of workers is a target that may
//! change while it runs: the conductor starts what is missing, a worker whose
//! number is beyond the target retires after its item.
//!
//! Not here: what a worker does in its life (`run/stage_loop.rs`, `run/io_loop.rs`).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Waker,
    thread,
    time::Duration,
};

use paceline_queue::{Hold, Queue};

use crate::{
    account::{Held, Ledger, StageCounters},
    chunk,
    clock::Clock,
    event::StageState,
    item::{Envelope, Load},
    journal::Lag,
    meter,
    outlet::{
        Outlet, QueueLink, Slot,
        order::{Order, OrderOutlet},
    },
    pace::{Bounds, Counts},
    retry::Retry,
    run::Core,
    sync::{Notice, lock},
};

/// What hosts a stage's work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Tasks on the engine's event loops.
    Io,
    /// Threads that may wait.
    Blocking,
    /// Threads that compute.
    Cpu,
    /// A child process an item.
    Command,
    /// Long-lived worker processes.
    Serve,
    /// The engine's own loop that makes batches.
    Batch,
}

impl Kind {
    /// Returns the name used in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Io => "io",
            Self::Blocking => "blocking",
            Self::Cpu => "cpu",
            Self::Command => "command",
            Self::Serve => "serve",
            Self::Batch => "batch",
        }
    }

    /// Whether its work is counted on to use a core each.
    pub(crate) fn computes(self) -> bool {
        matches!(self, Self::Cpu | Self::Command | Self::Serve)
    }

    /// Whether one loop has many of its workers, and says how they spend their time.
    pub(crate) fn shares_loops(self) -> bool {
        matches!(self, Self::Io | Self::Serve)
    }

    /// What may be decided about the workers of a stage that leaves it to us,
    /// where `sharing` stages share the cores.
    fn bounds(self, cores: usize, sharing: usize) -> Bounds {
        match self {
            Self::Io => Bounds::io(),
            Self::Blocking => Bounds::blocking(),
            Self::Cpu => Bounds::cpu(cores, sharing),
            Self::Command => Bounds::command(cores, sharing),
            Self::Batch => Bounds::fixed(1),
            Self::Serve => Bounds::serve(cores),
        }
    }
}

/// How many items a stage works on at once.
///
/// ```
/// use paceline::Workers;
///
/// assert_eq!(Workers::from(3), Workers::Fixed(3));
/// assert_eq!(Workers::auto().max(8), Workers::UpTo(8));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Workers {
    /// As many as the run finds to be of use, by what it measures; what it
    /// begins with and the most depend on the kind.
    #[default]
    Auto,
    /// As many as are of use, but no more than this.
    UpTo(usize),
    /// So many.
    Fixed(usize),
}

impl Workers {
    /// As many as are of use.
    #[must_use]
    pub const fn auto() -> Self {
        Self::Auto
    }

    /// No more than `most`. It takes the place of the most that the kind has,
    /// so it may also be more than that.
    #[must_use]
    pub const fn max(self, most: usize) -> Self {
        match self {
            Self::Auto | Self::UpTo(_) => Self::UpTo(most),
            Self::Fixed(workers) if workers <= most => self,
            Self::Fixed(_) => Self::Fixed(most),
        }
    }

    /// Whether it is left to the run.
    pub(crate) const fn is_auto(self) -> bool {
        !matches!(self, Self::Fixed(_))
    }
}

impl From<usize> for Workers {
    fn from(workers: usize) -> Self {
        Self::Fixed(workers)
    }
}

/// Returns how many cores this process may use: the affinity mask and a
/// control group's quota count.
///
/// Found out once: it takes a dozen files and more to read.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| thread::available_parallelism().map_or(1, usize::from))
}

/// What the builder is told of a stage.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The stage's place in the pipeline, counted from 0.
    pub(crate) index: usize,
    pub(crate) name: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) workers: Workers,
    pub(crate) queue: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) retry: Retry,
    pub(crate) ordered: bool,
}

/// The time between asking a child to stop and killing it, unless said.
const GRACE: Duration = Duration::from_secs(5);

impl Settings {
    pub(crate) fn new(index: usize, name: &str, kind: Kind) -> Self {
        Self {
            index,
            name: name.into(),
            kind,
            workers: Workers::Auto,
            queue: None,
            timeout: None,
            grace: GRACE,
            retry: Retry::never(),
            ordered: false,
        }
    }

    /// What may be decided about its workers, where `sharing` stages share the
    /// cores of which `budget` may be kept busy.
    pub(crate) fn bounds(&self, budget: f64, sharing: usize) -> Bounds {
        // The most depends on the machine: what waits keeps no core busy.
        let affordable = (budget.ceil().max(1.0) as usize).min(cores());
        let seed = self.kind.bounds(affordable, sharing).seed;
        let bounds = Bounds { seed, ..self.kind.bounds(cores(), sharing) };
        match self.workers {
            Workers::Auto => bounds,
            Workers::UpTo(most) => bounds.at_most(most),
            Workers::Fixed(workers) if self.kind != Kind::Batch => Bounds::fixed(workers),
            Workers::Fixed(_) => bounds,
        }
    }
}

/// How an item is copied for another attempt: set where retries are asked for.
pub(crate) type Copier<In> = Arc<OnceLock<fn(&In) -> In>>;

/// A stage on its way in: settings, queue and shared state.
pub(crate) struct Stage<In> {
    pub(crate) settings: Settings,
    pub(crate) queue: Queue<Envelope<In>>,
    pub(crate) counters: Arc<StageCounters>,
    pub(crate) copier: Copier<In>,
    /// How many workers there should be.
    pub(crate) target: AtomicUsize,
    /// Told when the target has changed.
    pub(crate) resized: Notice,
    /// Which workers live; of an `io` stage, which of its loops.
    pub(crate) alive: Mutex<Alive>,
    /// Set when a worker has seen the end of the queue: no new ones then.
    pub(crate) has_ended: AtomicBool,
    capacity: AtomicUsize,
    chunk_limit: Arc<AtomicUsize>,
    /// Each keeps its place in the queue meanwhile.
    retries: Mutex<Retries<In>>,
    /// The threads of its workers, by worker, if somebody wants to look at them.
    pub(crate) threads: Mutex<BTreeMap<usize, meter::Thread>>,
    /// Time without a core of threads that have ended, in nanoseconds.
    pub(crate) queued_before: AtomicU64,
    /// Its worker processes, and what they are at, where it has such.
    pub(crate) processes: meter::Processes,
    pub(crate) attendance: meter::Attendance,
    /// What a kill would have it answer again.
    pub(crate) lag: Lag,
}

/// Whether a worker lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Gone,
    AtWork,
    Leaving,
}

/// Which workers live, by their numbers.
#[derive(Default)]
pub(crate) struct Alive {
    presences: Vec<Presence>,
    /// Counted, for thousands may leave one after the other.
    at_work: usize,
}

impl Alive {
    pub(crate) fn set(&mut self, worker: usize, presence: Presence) {
        if self.presences.len() <= worker {
            self.presences.resize(worker + 1, Presence::Gone);
        }
        let before = std::mem::replace(&mut self.presences[worker], presence);
        self.at_work += usize::from(presence == Presence::AtWork);
        self.at_work -= usize::from(before == Presence::AtWork);
    }

    pub(crate) fn is_gone(&self, worker: usize) -> bool {
        self.presences.get(worker).is_none_or(|presence| *presence == Presence::Gone)
    }
}

/// What waits for another attempt, by the clock's timer that ends its wait.
type Retries<In> = BTreeMap<(Duration, u64), (Hold<Envelope<In>>, Envelope<In>)>;

impl<In> Stage<In> {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            queue: Queue::bounded(1),
            counters: Arc::default(),
            copier: Arc::default(),
            target: AtomicUsize::new(0),
            resized: Notice::default(),
            alive: Mutex::default(),
            has_ended: AtomicBool::new(false),
            capacity: AtomicUsize::new(1),
            chunk_limit: Arc::new(AtomicUsize::new(1)),
            retries: Mutex::default(),
            threads: Mutex::default(),
            queued_before: AtomicU64::new(0),
            processes: meter::Processes::default(),
            attendance: meter::Attendance::default(),
            lag: Lag::default(),
        }
    }

    /// Sets the number of workers, the bound of the queue, and with them the
    /// size of chunks; `upstream` workers push into it.
    pub(crate) fn open(&self, upstream: usize, workers: usize) {
        self.target.store(workers, Ordering::Relaxed);
        self.fit(upstream);
    }

    /// Divides the capacity between the queue and what workers hold in hand,
    /// its own and the `upstream` ones that push into it.
    pub(crate) fn fit(&self, upstream: usize) {
        let workers = self.target.load(Ordering::Relaxed);
        let capacity =
            self.settings.queue.unwrap_or_else(|| self.default_capacity(upstream, workers));
        self.capacity.store(capacity, Ordering::Relaxed);
        let limit = chunk::limit(capacity, upstream + workers, self.most_at_once());
        self.chunk_limit.store(limit, Ordering::Relaxed);
        self.queue.set_capacity(capacity - (limit - 1) * (upstream + workers));
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity.load(Ordering::Relaxed)
    }

    /// The way into it.
    pub(crate) fn link(&self) -> QueueLink<In> {
        QueueLink { queue: self.queue.clone(), most: self.chunk_limit.clone() }
    }

    pub(crate) fn chunk_limit(&self) -> usize {
        self.chunk_limit.load(Ordering::Relaxed)
    }

    /// Changes the number of workers while it runs.
    pub(crate) fn resize(&self, workers: usize) {
        self.target.store(workers, Ordering::Release);
        self.resized.tell();
    }

    /// How many workers there should be now.
    pub(crate) fn workers(&self) -> usize {
        self.target.load(Ordering::Acquire)
    }

    pub(crate) fn is_surplus(&self, worker: usize) -> bool {
        worker >= self.workers()
    }

    /// Lets a worker leave, but not the last one while an item may still come
    /// back for another attempt: nobody would make it.
    pub(crate) fn lets_go(&self, worker: usize) -> bool {
        let mut alive = lock(&self.alive);
        alive.set(worker, Presence::Leaving);
        let must_stay = alive.at_work == 0 && !self.queue.has_ended();
        if must_stay {
            alive.set(worker, Presence::AtWork);
        }
        !must_stay
    }

    /// Starts no more work: what waits here is unfinished.
    pub(crate) fn abandon(&self, core: &Core) {
        let mut left = self.queue.close_now();
        let retries = std::mem::take(&mut *lock(&self.retries));
        for (timer, (hold, envelope)) in retries {
            core.clock.unset(timer);
            left.push_back(envelope);
            drop(hold);
        }
        self.count_fed(&left, 0);
        self.leave_unfinished(left, &core.ledger);
    }

    fn leave_unfinished(&self, left: VecDeque<Envelope<In>>, ledger: &Arc<Ledger>) {
        drop(Held::new(ledger.clone(), Some(self.counters.clone())).with(left));
    }

    /// Counts what the stage has taken in hand; an item that comes back counts once.
    pub(crate) fn count_fed<'i>(
        &self,
        envelopes: impl IntoIterator<Item = &'i Envelope<In>>,
        worker: usize,
    ) where
        In: 'i,
    {
        let fed =
            envelopes.into_iter().filter(|envelope| matches!(envelope.load, Load::Item(_))).count();
        if fed > 0 {
            self.counters.shard(worker).fed.fetch_add(fed as u64, Ordering::Relaxed);
        }
    }

    /// Lets an item wait for its next attempt without a worker.
    ///
    /// # Errors
    ///
    /// Gives the envelope back if as many wait already as the queue may hold.
    pub(crate) fn wait_for_retry(
        &self,
        due: Duration,
        envelope: Envelope<In>,
        clock: &Clock,
    ) -> Result<(), Envelope<In>> {
        let Some(hold) = self.queue.hold() else { return Err(envelope) };
        let mut retries = lock(&self.retries);
        // It wakes nobody: the conductor looks here at each timer.
        let timer = clock.set(due, Waker::noop().clone());
        retries.insert(timer, (hold, envelope));
        Ok(())
    }

    /// Puts back what is due.
    pub(crate) fn release_due(&self, core: &Core) {
        let mut retries = lock(&self.retries);
        let soon = core.clock.now().saturating_add(Duration::from_nanos(1));
        let later = retries.split_off(&(soon, 0));
        let due = std::mem::replace(&mut *retries, later);
        drop(retries);
        for (timer, (hold, envelope)) in due {
            core.clock.unset(timer);
            if let Err(refused) = hold.put_back(envelope) {
                self.leave_unfinished([refused.into_item()].into(), &core.ledger);
            }
        }
    }

    /// How many items may be before it and in it at once.
    pub(crate) fn places(&self) -> usize {
        self.capacity() + self.target.load(Ordering::Relaxed)
    }

    /// What it has counted up to `now`, but the waits for room, which the next
    /// queue knows if it has no loop for all its workers; and the time that
    /// others have waited for room in its own.
    pub(crate) fn counts(&self, now: Duration) -> (Counts, Duration) {
        let (counters, queue) = (&self.counters, self.queue.stats());
        let (busy, squares) = counters.busy(now);
        let cpu = Duration::from_nanos(counters.sum(|shard| &shard.cpu));
        let (mut cpu, mut queued) = (Some(cpu), None);
        let (mut starved, mut blocked) = (queue.waited_on_empty, Duration::ZERO);
        match self.settings.kind {
            Kind::Cpu | Kind::Blocking => {
                let before = self.queued_before.load(Ordering::Relaxed);
                queued = Some(Duration::from_nanos(before));
                for thread in lock(&self.threads).values() {
                    let seen = thread.look();
                    cpu = cpu.zip(seen).map(|(cpu, (more, _))| cpu + more);
                    queued = queued.zip(seen).map(|(queued, (_, more))| queued + more);
                }
            }
            Kind::Command => {
                // Children that ended soon have told all themselves.
                let elder = now.saturating_sub(OLD_ENOUGH);
                for pid in counters.children(elder, meter::MOST_CHILDREN) {
                    cpu = cpu.map(|cpu| cpu + meter::child_cpu(pid));
                }
            }
            Kind::Io => {
                queued = Some(Duration::ZERO);
                [_, starved, blocked] = self.attendance.look(now).0;
            }
            Kind::Serve => return (self.counts_of_processes(now), queue.waited_on_full),
            Kind::Batch => {}
        }
        let counts = Counts {
            busy,
            squares,
            cpu,
            waiting_for_core: queued,
            starved,
            blocked,
            ..self.tallies()
        };
        (counts, queue.waited_on_full)
    }

    /// The same for worker processes.
    fn counts_of_processes(&self, now: Duration) -> Counts {
        let ([busy, starved, blocked], starting) = self.attendance.look(now);
        let seen = self.processes.look(now);
        Counts {
            busy,
            squares: self.counters.busy(now).1,
            cpu: Some(seen.used.cpu),
            waiting_for_core: Some(seen.used.queued),
            starved,
            blocked,
            starting,
            start: seen.start,
            memory: seen.memory,
            ..self.tallies()
        }
    }

    /// What it has counted that is no time.
    fn tallies(&self) -> Counts {
        let counters = &self.counters;
        let fed = counters.sum(|shard| &shard.fed);
        let answered = counters.sum(|shard| &shard.ok) + counters.sum(|shard| &shard.failed);
        let (workers, depth) = (self.target.load(Ordering::Relaxed), self.queue.depth());
        let in_hand = fed.saturating_sub(answered);
        Counts {
            workers,
            entered: fed,
            done: answered,
            tries: fed + counters.sum(|shard| &shard.retried),
            pushback: counters.sum(|shard| &shard.pushback),
            depth,
            is_ending: self.queue.is_closed() && depth as u64 + in_hand < workers as u64,
            ..Counts::default()
        }
    }

    /// The most items that are taken at once, however quick they are.
    fn most_at_once(&self) -> usize {
        match self.settings.kind {
            // A wake-up of another process costs more than a lock.
            Kind::Serve => 4 * chunk::MOST,
            _ => chunk::MOST,
        }
    }

    fn default_capacity(&self, upstream: usize, workers: usize) -> usize {
        let capacity = default_capacity::<In>(upstream, workers);
        match self.settings.kind {
            // Worker processes are handed many requests at once, if these are quick.
            Kind::Serve => capacity.max(4 * self.most_at_once() * (upstream + workers).min(8)),
            _ => capacity,
        }
    }

    pub(crate) fn state(&self) -> StageState {
        let counters = &self.counters;
        let answered = counters.sum(|shard| &shard.ok)
            + counters.sum(|shard| &shard.failed)
            + counters.sum(|shard| &shard.unfinished);
        let waiting_for_retry = lock(&self.retries).len();
        let taken = counters.sum(|shard| &shard.fed).saturating_sub(answered);
        StageState {
            name: self.settings.name.to_string(),
            depth: self.queue.depth(),
            capacity: self.capacity(),
            in_service: taken.saturating_sub(waiting_for_retry as u64),
            waiting_for_retry,
        }
    }
}

/// From this age on a child's CPU time is asked for while it runs.
const OLD_ENOUGH: Duration = Duration::from_millis(100);

/// Cheap values wait in large numbers, so that they can be passed in
/// batches; what owns something (a file's content, perhaps) in small ones.
fn default_capacity<In>(upstream: usize, workers: usize) -> usize {
    if std::mem::needs_drop::<In>() { (2 * upstream.max(workers)).clamp(16, 1024) } else { 4096 }
}

/// A stage on its way out: the link, and the order if it keeps one.
pub(crate) struct WayOut<'a, Out> {
    pub(crate) slot: Slot<'a, Out>,
    pub(crate) order: OnceLock<Order<Out>>,
}

impl<'a, Out: Send> WayOut<'a, Out> {
    pub(crate) fn new(slot: Slot<'a, Out>) -> Self {
        Self { slot, order: OnceLock::new() }
    }

    /// Keeps the order, if that is asked for.
    pub(crate) fn open(&self, settings: &Settings) {
        if settings.ordered {
            self.order.get_or_init(Order::new);
        }
    }

    /// Answers for what still waits for its turn.
    pub(crate) fn abandon(&self, core: &Core) {
        if let Some(order) = self.order.get() {
            order.abandon(&core.ledger);
        }
    }

    /// One worker's outlet.
    pub(crate) fn outlet(&self, ledger: &Arc<Ledger>) -> Box<dyn Outlet<Out> + '_> {
        let plain = self.slot.get().expect("links are joined before a run").outlet(ledger);
        match self.order.get() {
            None => plain,
            Some(order) => Box::new(OrderOutlet::new(order, plain, ledger)),
        }
    }
}
