//! A run: the engine on one screen.
//!
//! Items enter in [`feed`], are worked on in [`stage_loop`] or [`io_loop`], and
//! leave through their outlets into the next stage's queue, or into the sink.
//! The [`conductor`] keeps the time, the number of workers and the stop. When the
//! source ends, its outlet is dropped; that closes the first queue; its
//! workers end when it is empty, which closes the next queue, and so on to
//! the sink: a run ends by flowing out.
//!
//! **Invariant:** whoever holds an envelope answers for it, so the account
//! adds up in every ending; it is checked here all the same.
//!
//! Not here: how a pipeline is put together (`pipeline.rs`).

use std::{
    any::Any,
    hash::{BuildHasher, RandomState},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering, fence},
    },
    thread,
    time::Duration,
};

use crate::{
    account::{Ledger, StageCounters},
    clock::Clock,
    error::Error,
    host::Hosts,
    journal::Journal,
    meter,
    monitor::Monitor,
    node::Node,
    stage::cores,
    stop::Stop,
    summary::Summary,
    sync::{Bell, Notice, block_on, lock},
    watch::Watch,
};

mod attempts;
mod books;
pub(crate) mod conductor;
pub(crate) mod fan_in;
pub(crate) mod feed;
pub(crate) mod io_loop;
pub(crate) mod pacer;
pub(crate) mod serve_loop;
pub(crate) mod sink;
pub(crate) mod stage_loop;

/// What closes the queue before the sink.
pub(crate) type CloseExit<'a> = Box<dyn FnOnce(&Core) + Send + 'a>;

/// What there is to do with the queue before the sink, if there is one.
pub(crate) struct Exits<'a> {
    pub(crate) close: Option<CloseExit<'a>>,
    pub(crate) look: Option<&'a pacer::Exit<'a>>,
}

/// Runs the stages from the source to the sink, and returns when every item
/// is answered and every thread has ended.
///
/// `sink` runs on the calling thread and takes what the last stage gives
/// until there is nothing more. A panic that is no item's failure cancels the
/// run and goes on from here.
pub(crate) fn run<R>(
    core: &Core,
    nodes: &[Box<dyn Node + '_>],
    mut source: Box<dyn feed::Source<'_> + '_>,
    exits: Exits<'_>,
    sink: impl FnOnce(&Core) -> R,
) -> Result<(R, Summary), Error> {
    open(core, nodes);
    let output = thread::scope(|scope| {
        let hosts = Arc::new(Hosts::new(scope, nodes.len(), cores()));
        let started = start(core, nodes, &mut source, exits.look, &hosts);
        let output = started.map(|()| core.guarded(|| sink(core)));
        if output.is_err() {
            core.stop.kill();
            nodes.iter().for_each(|node| node.stage().abandon(core));
            // No sink takes what comes, and nobody must wait for one.
            exits.close.into_iter().for_each(|close| close(core));
        }
        block_on(core.quiet.until(|| core.live.load(Ordering::SeqCst) == 0));
        // Workers that have all panicked take nothing more: the source must not wait for them.
        for node in nodes {
            core.guarded(|| node.stage().abandon(core));
        }
        hosts.finish();
        core.end();
        output
    });
    nodes.iter().for_each(|node| node.settle(core));
    let summary = Summary::of(core, nodes);
    core.let_panic_go_on();
    if let Some(error) = core.take_error() {
        return Err(error);
    }
    let output = output?;
    summary.check()?;
    Ok((output.expect("a sink that gives nothing has panicked"), summary))
}

/// Gives the stages their first workers and bounds the queues, from the source on.
fn open(core: &Core, nodes: &[Box<dyn Node + '_>]) {
    let mut upstream = 1;
    for (node, bounds) in nodes.iter().zip(pacer::bounds(core, nodes)) {
        node.open(upstream, bounds.seed);
        upstream = bounds.seed;
    }
    core.fit(nodes);
}

/// Starts everything: the stages from the sink's end on, so that no queue
/// closes early, and the source last: jobs begin with the first item, and may
/// take the places of threads that are still to be started.
fn start<'s>(
    core: &'s Core,
    nodes: &'s [Box<dyn Node + '_>],
    source: &'s mut Box<dyn feed::Source<'_> + '_>,
    exit: Option<&'s pacer::Exit<'_>>,
    hosts: &Arc<Hosts<'s, '_>>,
) -> Result<(), Error> {
    for node in nodes.iter().rev() {
        node.start_missing(hosts, core)?;
    }
    let at_hand = hosts.clone();
    hosts.on_thread("paceline", move || conductor::conduct(core, nodes, exit, &at_hand))?;
    hosts.on_thread("paceline-source", move || {
        core.guarded(|| block_on(source.feed(core)));
    })
}

/// The most items that may be inside at once so that what an ordered stage
/// keeps is bounded: twice what fits into the queues and hands anyway, so
/// that one slow item does not hold up the others at once.
fn window(nodes: &[Box<dyn Node + '_>]) -> u64 {
    // Behind a fan-in each place holds as many items of the source as a batch.
    let (mut places, mut in_each) = (0_u64, 1_u64);
    for node in nodes {
        places = places.saturating_add(in_each.saturating_mul(node.places() as u64));
        in_each = in_each.saturating_mul(node.gathers() as u64);
    }
    places.saturating_mul(2).saturating_add(64)
}

/// What all parts of a run share.
pub(crate) struct Core {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) clock: Clock,
    pub(crate) stop: Stop,
    pub(crate) monitor: Monitor,
    pub(crate) journal: Option<Arc<dyn Journal>>,
    /// The least window of items, if a stage keeps the order.
    pub(crate) least_window: Option<u64>,
    /// The most items that may be inside at once then.
    pub(crate) window: AtomicU64,
    /// Whether somebody wants to know where the time goes while it runs.
    pub(crate) is_measured: bool,
    /// How many cores may be used.
    pub(crate) cores: f64,
    /// How many it was told to use at most.
    pub(crate) cpu_budget: Option<f64>,
    /// When the source and the sink were at work.
    pub(crate) source: StageCounters,
    pub(crate) sink: StageCounters,
    pub(crate) paced: Mutex<pacer::Paced>,
    /// After how long without any movement the observer is told.
    pub(crate) stall_after: Option<Duration>,
    /// Who watches the polls of `io` stages.
    pub(crate) watch: Option<Watch>,
    pub(crate) started: Duration,
    /// Workers that live, and who is told when the last has ended.
    pub(crate) live: AtomicUsize,
    pub(crate) quiet: Notice,
    is_over: OnceLock<()>,
    blocked_at_exit: OnceLock<Duration>,
    bell: OnceLock<Arc<Bell>>,
    error: Mutex<Option<Error>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    random: AtomicU64,
}

impl Core {
    pub(crate) fn new(ledger: Ledger, clock: Clock, stop: Stop, monitor: Monitor) -> Self {
        Self {
            ledger: Arc::new(ledger),
            started: clock.now(),
            clock,
            stop,
            monitor,
            journal: None,
            least_window: None,
            window: AtomicU64::new(u64::MAX),
            is_measured: false,
            cores: meter::cores(),
            cpu_budget: None,
            source: StageCounters::default(),
            sink: StageCounters::default(),
            paced: Mutex::default(),
            stall_after: None,
            watch: None,
            live: AtomicUsize::new(0),
            quiet: Notice::default(),
            is_over: OnceLock::new(),
            blocked_at_exit: OnceLock::new(),
            bell: OnceLock::new(),
            error: Mutex::default(),
            panic: Mutex::default(),
            random: AtomicU64::new(RandomState::new().hash_one(0)),
        }
    }

    /// Divides the bounds anew where the number of workers has changed: what
    /// workers hold in hand counts against the queues on both sides of them.
    pub(crate) fn fit(&self, nodes: &[Box<dyn Node + '_>]) {
        let mut upstream = 1;
        for node in nodes {
            node.stage().fit(upstream);
            upstream = node.stage().workers();
        }
        if let Some(least) = self.least_window {
            self.window.store(least.max(window(nodes)), Ordering::Relaxed);
        }
    }

    /// Makes the conductor look again.
    pub(crate) fn ring(&self) {
        // Pairs with the fence in `conduct`: either we see the bell or it sees the change.
        fence(Ordering::SeqCst);
        if let Some(bell) = self.bell.get() {
            bell.ring();
        }
    }

    /// Notes what stopped paceline itself; what is inside is finished.
    pub(crate) fn fail(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.stop.drain();
    }

    /// Runs a part of the run. Its panic cancels the run, and goes on when all has ended.
    pub(crate) fn guarded<R>(&self, part: impl FnOnce() -> R) -> Option<R> {
        catch_unwind(AssertUnwindSafe(part)).map_err(|panic| self.panicked(panic)).ok()
    }

    /// Notes a panic that is no item's failure.
    pub(crate) fn panicked(&self, panic: Box<dyn Any + Send>) {
        lock(&self.panic).get_or_insert(panic);
        self.stop.cancel();
    }

    fn let_panic_go_on(&self) {
        if let Some(panic) = lock(&self.panic).take() {
            resume_unwind(panic);
        }
    }

    /// Notes how long the last stage waited for the sink.
    fn note_blocked_at_exit(&self, time: Duration) {
        self.blocked_at_exit.get_or_init(|| time);
    }

    /// How long the last stage waited for the sink.
    pub(crate) fn blocked_at_exit(&self) -> Duration {
        self.blocked_at_exit.get().copied().unwrap_or_default()
    }

    fn take_error(&self) -> Option<Error> {
        lock(&self.error).take()
    }

    fn end(&self) {
        self.is_over.get_or_init(|| ());
        self.ring();
    }

    /// Returns a random number between 0.5 and 1.5.
    ///
    /// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
    /// Generators" (SplitMix64), OOPSLA 2014.
    pub(crate) fn fraction(&self) -> f64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut bits = self.random.fetch_add(GOLDEN, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        0.5 + (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}
