//! A stage as the run sees it: something that can be opened, started,
//! resized and abandoned, whatever the types of its items.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::FutureExt;

use crate::{
    account::StageCounters,
    error::Error,
    event::StageState,
    host::Hosts,
    journal::Hooks,
    outlet::BoxFuture,
    pace::Counts,
    run::{
        Core,
        fan_in::{Batching, FanIn, Part},
        io_loop::{self, IoLoop},
        stage_loop::StageLoop,
    },
    stage::{Kind, Presence, Settings, Stage, WayOut},
    summary::Measured,
    sync::{block_on, lock},
    worker::{Work, function},
};

pub(crate) mod serve;

/// A stage, whatever its items are.
pub(crate) trait AnyStage: Send + Sync {
    fn settings(&self) -> &Settings;
    fn settings_mut(&mut self) -> &mut Settings;
    fn counters(&self) -> &Arc<StageCounters>;
    /// Gives it `workers`, and bounds; `upstream` is the number of workers that push into it.
    fn open(&self, upstream: usize, workers: usize);
    /// Divides the bound anew, where `upstream` workers push into it.
    fn fit(&self, upstream: usize);
    fn resize(&self, workers: usize);
    /// How many workers there should be now.
    fn workers(&self) -> usize;
    /// Ends the queue at once; what is in it is unfinished. Harmless to repeat.
    fn abandon(&self, core: &Core);
    /// Puts back items whose retry is due.
    fn release_due(&self, core: &Core);
    fn state(&self) -> StageState;
    /// How many items may be in its queue and in the hands of its workers at once.
    fn places(&self) -> usize;
    fn measured(&self) -> Measured;
    /// What it has counted up to `now`, and the time that others have waited for room before it.
    fn counts(&self, now: Duration) -> (Counts, Duration);
}

/// What a run does with a stage and those who work for it.
pub(crate) trait Node: Send + Sync {
    fn stage(&self) -> &dyn AnyStage;
    fn stage_mut(&mut self) -> &mut dyn AnyStage;
    /// Starts the workers that there should be and are not.
    fn start_missing<'s>(&'s self, hosts: &Hosts<'s, '_>, core: &'s Core) -> Result<(), Error>;

    /// See [`AnyStage::open`].
    fn open(&self, upstream: usize, workers: usize) {
        self.stage().open(upstream, workers);
    }

    /// Asks for so many workers.
    fn resize(&self, workers: usize) {
        self.stage().resize(workers);
    }

    /// Answers for whatever is left when all workers have ended.
    fn settle(&self, core: &Core) {
        self.stage().abandon(core);
    }

    /// How many items may be before it and in it at once.
    fn places(&self) -> usize {
        self.stage().places()
    }

    /// How many items it makes one of.
    fn gathers(&self) -> usize {
        1
    }
}

impl<T: Send> AnyStage for Stage<T> {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn settings_mut(&mut self) -> &mut Settings {
        &mut self.settings
    }

    fn counters(&self) -> &Arc<StageCounters> {
        &self.counters
    }

    fn open(&self, upstream: usize, workers: usize) {
        self.open(upstream, workers);
    }

    fn fit(&self, upstream: usize) {
        self.fit(upstream);
    }

    fn resize(&self, workers: usize) {
        self.resize(workers);
    }

    fn workers(&self) -> usize {
        self.workers()
    }

    fn abandon(&self, core: &Core) {
        self.abandon(core);
    }

    fn release_due(&self, core: &Core) {
        self.release_due(core);
    }

    fn state(&self) -> StageState {
        self.state()
    }

    fn places(&self) -> usize {
        self.places()
    }

    fn measured(&self) -> Measured {
        Measured::of(self)
    }

    fn counts(&self, now: Duration) -> (Counts, Duration) {
        self.counts(now)
    }
}

/// A stage whose workers work on items.
pub(crate) struct Crew<'a, In, Out, W> {
    pub(crate) stage: Stage<In>,
    pub(crate) work: W,
    pub(crate) hooks: Arc<Hooks<'a, In, Out>>,
    pub(crate) way_out: WayOut<'a, Out>,
}

/// A stage that makes batches.
pub(crate) struct Batches<'a, T, U, M> {
    pub(crate) stage: Stage<T>,
    pub(crate) batching: Batching,
    pub(crate) recalled: Option<fn(&T) -> Option<Part>>,
    pub(crate) merge: M,
    pub(crate) way_out: WayOut<'a, U>,
}

impl<In, Out, W> Crew<'_, In, Out, W>
where
    In: Send,
    Out: Send,
    W: Work<In, Out>,
{
    fn start_worker<'s>(
        &'s self,
        worker: usize,
        hosts: &Hosts<'s, '_>,
        core: &'s Core,
    ) -> Result<(), Error> {
        let stage = &self.stage;
        let settings = &stage.settings;
        let (work, hooks) = (&self.work, &*self.hooks);
        let life = Life::begin(stage, core, worker);
        let outlet = self.way_out.outlet(&core.ledger);
        if settings.kind == Kind::Io {
            return hosts.on_shared_loop(
                settings.index,
                worker,
                Box::pin(async move {
                    let _life = life;
                    guarded(core, IoLoop::new(stage, work, hooks, core, worker).run(outlet)).await;
                }),
            );
        }
        let work = async move {
            let _life = life;
            let stage_loop = StageLoop::new(stage, work, hooks, core, worker);
            guarded(core, stage_loop.run(outlet)).await;
        };
        match settings.kind {
            Kind::Cpu | Kind::Blocking => hosts.on_thread(&settings.name, move || {
                function::enter(&core.stop, &core.clock);
                block_on(work);
            }),
            Kind::Command => {
                hosts.on_own_loop(settings.index, worker, &settings.name, Box::pin(work))
            }
            Kind::Io | Kind::Batch | Kind::Serve => unreachable!("they have loops of their own"),
        }
    }
}

/// Runs a worker's loop to its end. What panics in there is no item's work.
async fn guarded(core: &Core, work: impl Future<Output = ()>) {
    if let Err(panic) = AssertUnwindSafe(work).catch_unwind().await {
        core.panicked(panic);
    }
}

/// A worker's life as the run counts it, from before its start to its end.
struct Life<'s, T> {
    stage: &'s Stage<T>,
    core: &'s Core,
    worker: usize,
}

impl<'s, T> Life<'s, T> {
    fn begin(stage: &'s Stage<T>, core: &'s Core, worker: usize) -> Self {
        core.live.fetch_add(1, Ordering::SeqCst);
        lock(&stage.alive).set(worker, Presence::AtWork);
        Self { stage, core, worker }
    }
}

impl<T> Drop for Life<'_, T> {
    fn drop(&mut self) {
        lock(&self.stage.alive).set(self.worker, Presence::Gone);
        if !self.stage.has_ended.load(Ordering::Relaxed) {
            // The target may have grown again while this worker was on its way out.
            self.core.ring();
        }
        if self.core.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.core.quiet.tell();
        }
    }
}

impl<T> Stage<T> {
    /// The numbers of the workers that there should be and are not.
    fn missing(&self) -> Vec<usize> {
        if self.has_ended.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let alive = lock(&self.alive);
        let wanted = match self.settings.kind {
            // Its loops have many workers each.
            Kind::Io => io_loop::loops(self.workers()),
            _ => self.workers(),
        };
        (0..wanted).filter(|worker| alive.is_gone(*worker)).collect()
    }
}

impl<In, Out, W> Node for Crew<'_, In, Out, W>
where
    In: Send,
    Out: Send,
    W: Work<In, Out>,
{
    fn stage(&self) -> &dyn AnyStage {
        &self.stage
    }

    fn stage_mut(&mut self) -> &mut dyn AnyStage {
        &mut self.stage
    }

    fn open(&self, upstream: usize, workers: usize) {
        self.stage.open(upstream, workers);
        self.way_out.open(&self.stage.settings);
    }

    fn start_missing<'s>(&'s self, hosts: &Hosts<'s, '_>, core: &'s Core) -> Result<(), Error> {
        self.stage
            .missing()
            .into_iter()
            .try_for_each(|worker| self.start_worker(worker, hosts, core))
    }

    fn settle(&self, core: &Core) {
        self.stage.abandon(core);
        self.way_out.abandon(core);
    }
}

impl<T, U, M> Node for Batches<'_, T, U, M>
where
    T: Send,
    U: Send,
    M: Fn(Vec<T>, u64) -> U + Send + Sync,
{
    fn stage(&self) -> &dyn AnyStage {
        &self.stage
    }

    fn stage_mut(&mut self) -> &mut dyn AnyStage {
        &mut self.stage
    }

    fn start_missing<'s>(&'s self, hosts: &Hosts<'s, '_>, core: &'s Core) -> Result<(), Error> {
        for worker in self.stage.missing() {
            let life = Life::begin(&self.stage, core, worker);
            let outlet = self.way_out.outlet(&core.ledger);
            let batches = FanIn::new(&self.stage, core, self.batching, self.recalled, &self.merge);
            let work: BoxFuture<'s, ()> = Box::pin(async move {
                let _life = life;
                guarded(core, batches.run(outlet)).await;
            });
            hosts.on_thread(&self.stage.settings.name, move || block_on(work))?;
        }
        Ok(())
    }

    /// One loop makes all batches, whatever is wished for.
    fn resize(&self, _workers: usize) {}

    fn places(&self) -> usize {
        self.stage.places().saturating_add(self.batching.items)
    }

    fn gathers(&self) -> usize {
        self.batching.items
    }
}
