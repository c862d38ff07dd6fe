//! What a run came to: the account, and where the time went.

use std::{fmt, sync::atomic::Ordering, time::Duration};

use crate::{
    error::{Error, ErrorKind},
    failure::Failure,
    node::Node,
    run::{Core, pacer::Bounded},
    stage::{Kind, Stage, Workers},
    stop::StopLevel,
    sync::lock,
    watch::{SlowPoll, Watch},
};

/// The account of a run that has ended.
///
/// It always adds up: `taken = ok + failed + unfinished`, in total and for
/// each stage. The engine checks that before it gives one out.
///
/// ```
/// use paceline::Pipeline;
///
/// let summary = Pipeline::from_iter(["1", "2", "x"])
///     .cpu("parse", |text: &str| text.parse::<u32>().map(drop))
///     .run()?;
/// assert_eq!(summary.account(), "in 3 = ok 2 + failed 1 + unfinished 0");
/// # Ok::<(), paceline::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Items taken from the source.
    pub taken: u64,
    /// Items that every stage has answered for.
    pub ok: u64,
    /// Items that a stage gave up.
    pub failed: u64,
    /// Items that were inside when the run was stopped.
    pub unfinished: u64,
    /// Whether the source was read to its end.
    pub source_ended: bool,
    /// How firmly the run was stopped, if it was.
    pub stopped: StopLevel,
    /// The first failures, at most 100, in the order in which they happened.
    pub failures: Vec<Failure>,
    /// How long the run took.
    pub elapsed: Duration,
    /// The longest poll of an `io` stage's future, if one took longer than
    /// [`Pipeline::watch`](crate::Pipeline::watch) allows.
    pub longest_poll: Option<SlowPoll>,
    /// The stages, in order.
    pub stages: Vec<StageSummary>,
    /// What bounded the run for most of the time, if it was long enough to see.
    pub bounded_by: Option<Bounded>,
    /// The cores that were in use on average, if that was seen.
    pub cores_used: Option<f64>,
    /// The cores that might be used.
    pub cores: f64,
}

/// What a stage did in a run. All times are sums over its workers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StageSummary {
    /// The stage's name.
    pub name: String,
    /// What hosted its work.
    pub kind: Kind,
    /// How many workers it had at the end.
    pub workers: usize,
    /// The fewest and the most workers that it had.
    pub workers_range: (usize, usize),
    /// What its number of workers was to be.
    pub wanted: Workers,
    /// Items that came to it. Failures carried past it do not count.
    pub fed: u64,
    /// Items it answered with a value.
    pub ok: u64,
    /// Items it gave up.
    pub failed: u64,
    /// Items that were before it or in it when the run was stopped.
    pub unfinished: u64,
    /// Attempts after a first one.
    pub retried: u64,
    /// Time that items were in service.
    pub busy: Duration,
    /// CPU time used; for `io` an upper bound.
    pub cpu: Duration,
    /// Polls of an `io` stage's futures that took longer than
    /// [`Pipeline::watch`](crate::Pipeline::watch) allows.
    pub slow_polls: u64,
    /// Time that workers waited for input.
    pub starved: Duration,
    /// Time that workers waited for room downstream.
    pub blocked: Duration,
    /// Half of the items were in service for at most this long.
    pub service_p50: Duration,
    /// 99 of 100 items were in service for at most this long.
    pub service_p99: Duration,
    /// The most items that waited before it at once.
    pub high_water: usize,
    /// The most items that might wait there.
    pub capacity: usize,
}

impl Summary {
    pub(crate) fn of(core: &Core, nodes: &[Box<dyn Node + '_>]) -> Self {
        let ledger = &core.ledger;
        let mut stages: Vec<_> = nodes.iter().map(|node| node.stage().measured()).collect();
        // Waiting for room is measured at the queue that was full, the next stage's. Where one
        // loop has many workers it waits there once for all of them, and has counted them itself.
        for next in 1..stages.len() {
            if !stages[next - 1].kind.shares_loops() {
                stages[next - 1].blocked = stages[next].pushers_waited;
            }
        }
        if let Some(last) = stages.last_mut().filter(|last| !last.kind.shares_loops()) {
            last.blocked = core.blocked_at_exit();
        }
        let paced = lock(&core.paced).clone();
        for (stage, range) in stages.iter_mut().zip(&paced.ranges) {
            stage.workers_range = (range.0.min(stage.workers), range.1.max(stage.workers));
        }
        let mut failures = std::mem::take(&mut *lock(&ledger.failures));
        failures.shrink_to_fit();
        Self {
            taken: ledger.taken.load(Ordering::SeqCst),
            ok: ledger.ok.load(Ordering::SeqCst),
            failed: ledger.failed.load(Ordering::SeqCst),
            unfinished: ledger.unfinished.load(Ordering::SeqCst),
            source_ended: ledger.source_ended.load(Ordering::SeqCst),
            stopped: core.stop.level(),
            failures,
            elapsed: core.clock.now().saturating_sub(core.started),
            longest_poll: core.watch.as_ref().and_then(Watch::longest),
            stages: stages.into_iter().map(|stage| stage.summary).collect(),
            bounded_by: paced.bounded(),
            cores_used: paced.cores_used(),
            cores: core.cores,
        }
    }

    /// Checks that nothing was lost and nothing counted twice.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| {
            Err(Error::new(ErrorKind::Account, format!("the account does not add up: {what}")))
        };
        if self.taken != self.ok + self.failed + self.unfinished {
            return wrong(self.account());
        }
        for stage in &self.stages {
            if stage.fed != stage.ok + stage.failed + stage.unfinished {
                return wrong(format!(
                    "stage `{}` had {} = ok {} + failed {} + unfinished {}",
                    stage.name, stage.fed, stage.ok, stage.failed, stage.unfinished
                ));
            }
        }
        Ok(())
    }

    /// Returns the account as a line: `in 120 = ok 118 + failed 2 + unfinished 0`.
    pub fn account(&self) -> String {
        format!(
            "in {} = ok {} + failed {} + unfinished {}",
            self.taken, self.ok, self.failed, self.unfinished
        )
    }

    /// Returns whether the source ended and every item is ok.
    pub fn is_complete(&self) -> bool {
        self.source_ended && self.ok == self.taken
    }

    /// Returns the stage whose workers were busy for the greatest part of the
    /// run, with that part, from 0 to 1; `None` if there was no item.
    pub fn bottleneck(&self) -> Option<(&StageSummary, f64)> {
        self.stages
            .iter()
            .filter(|stage| stage.fed > 0 && stage.kind != Kind::Batch)
            .map(|stage| (stage, stage.utilisation(self.elapsed)))
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
    }
}

impl fmt::Display for Summary {
    /// The account.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.account())
    }
}

impl StageSummary {
    /// Returns busy worker time over worker time available in a run of this
    /// length, from 0 to 1.
    pub fn utilisation(&self, elapsed: Duration) -> f64 {
        let available = elapsed.as_secs_f64() * self.workers as f64;
        if available > 0.0 { (self.busy.as_secs_f64() / available).min(1.0) } else { 0.0 }
    }
}

/// A stage's summary, and what belongs into that of the stage before it.
pub(crate) struct Measured {
    summary: StageSummary,
    pushers_waited: Duration,
}

impl std::ops::Deref for Measured {
    type Target = StageSummary;

    fn deref(&self) -> &StageSummary {
        &self.summary
    }
}

impl std::ops::DerefMut for Measured {
    fn deref_mut(&mut self) -> &mut StageSummary {
        &mut self.summary
    }
}

impl Measured {
    pub(crate) fn of<In>(stage: &Stage<In>) -> Self {
        let counters = &stage.counters;
        let queue = stage.queue.stats();
        let service = counters.service();
        let (starved, blocked) = if stage.settings.kind.shares_loops() {
            // All have ended, so it does not matter when one looks.
            let ([_, idle, blocked], _) = stage.attendance.look(Duration::ZERO);
            (idle, blocked)
        } else {
            (queue.waited_on_empty, Duration::ZERO)
        };
        let summary = StageSummary {
            name: stage.settings.name.to_string(),
            kind: stage.settings.kind,
            workers: stage.target.load(Ordering::Relaxed),
            workers_range: (
                stage.target.load(Ordering::Relaxed),
                stage.target.load(Ordering::Relaxed),
            ),
            wanted: stage.settings.workers,
            fed: counters.sum(|shard| &shard.fed),
            ok: counters.sum(|shard| &shard.ok),
            failed: counters.sum(|shard| &shard.failed),
            unfinished: counters.sum(|shard| &shard.unfinished),
            retried: counters.sum(|shard| &shard.retried),
            busy: counters.busy(Duration::ZERO).0,
            cpu: Duration::from_nanos(counters.sum(|shard| &shard.cpu)),
            slow_polls: counters.sum(|shard| &shard.slow_polls),
            starved,
            blocked,
            service_p50: Duration::from_nanos(service.value_at_quantile(0.5)),
            service_p99: Duration::from_nanos(service.value_at_quantile(0.99)),
            high_water: queue.high_water,
            capacity: stage.capacity(),
        };
        Self { summary, pushers_waited: queue.waited_on_full }
    }
}
