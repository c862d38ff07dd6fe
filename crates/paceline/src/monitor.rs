//! A look into a run from outside, and the way to change its workers.

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, atomic::Ordering},
};

use crate::{
    account::{Ledger, StageCounters},
    sync::{Bell, lock},
};

/// A handle that shows how far a run is and changes its workers.
///
/// Clones are handles on the same run. It may be asked before, during and
/// after the run, from any thread; it never waits.
///
/// ```
/// use paceline::Pipeline;
///
/// let pipeline = Pipeline::from_iter(0..100)
///     .cpu("square", |n: u64| Ok::<_, paceline::BoxError>(n * n))
///     .discard();
/// let monitor = pipeline.monitor();
/// pipeline.run()?;
/// assert_eq!(monitor.progress().ok, 100);
/// # Ok::<(), paceline::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Monitor(Arc<Shared>);

#[derive(Default)]
struct Shared {
    ledger: OnceLock<Arc<Ledger>>,
    stages: OnceLock<Vec<(Arc<str>, Arc<StageCounters>)>>,
    wishes: Mutex<Vec<(String, usize)>>,
    bell: OnceLock<Arc<Bell>>,
}

/// How far a run is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Items taken from the source.
    pub taken: u64,
    /// Items that every stage has answered for.
    pub ok: u64,
    /// Items given up.
    pub failed: u64,
    /// Items left because the run was stopped.
    pub unfinished: u64,
    /// The stages, in order.
    pub stages: Vec<StageProgress>,
}

/// How far a stage is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageProgress {
    /// The stage's name.
    pub name: String,
    /// Items answered with a value.
    pub ok: u64,
    /// Items given up here.
    pub failed: u64,
    /// Attempts after a first one.
    pub retried: u64,
    /// Items in its workers' hands, or waiting for another attempt.
    pub in_flight: u64,
}

impl Monitor {
    pub(crate) fn open(&self, ledger: Arc<Ledger>, stages: Vec<(Arc<str>, Arc<StageCounters>)>) {
        // A monitor belongs to one run; a second opening would be a defect of the builder.
        let _ = self.0.ledger.set(ledger);
        let _ = self.0.stages.set(stages);
    }

    pub(crate) fn set_bell(&self, bell: &Arc<Bell>) {
        let _ = self.0.bell.set(bell.clone());
    }

    pub(crate) fn take_wishes(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut lock(&self.0.wishes))
    }

    /// Returns how far the run is; all zero before it.
    ///
    /// The numbers are read one after the other while the run goes on, so
    /// their sums agree only when it has ended.
    pub fn progress(&self) -> Progress {
        let Some(ledger) = self.0.ledger.get() else { return Progress::default() };
        let stages = self.0.stages.get().map_or(&[][..], Vec::as_slice);
        Progress {
            taken: ledger.taken.load(Ordering::Relaxed),
            ok: ledger.ok.load(Ordering::Relaxed),
            failed: ledger.failed.load(Ordering::Relaxed),
            unfinished: ledger.unfinished.load(Ordering::Relaxed),
            stages: stages.iter().map(|(name, counters)| stage_progress(name, counters)).collect(),
        }
    }

    /// Changes how many workers the stage called `stage` has, 1 or more.
    ///
    /// Does not wait: more workers start at once, surplus ones end after the
    /// item they have in hand. A name that no stage has changes nothing, nor
    /// does it after the run.
    ///
    /// # Panics
    ///
    /// If `workers` is 0.
    pub fn set_workers(&self, stage: &str, workers: usize) {
        assert!(workers > 0, "a stage needs a worker");
        lock(&self.0.wishes).push((stage.to_owned(), workers));
        if let Some(bell) = self.0.bell.get() {
            bell.ring();
        }
    }
}

fn stage_progress(name: &str, counters: &StageCounters) -> StageProgress {
    let ok = counters.sum(|shard| &shard.ok);
    let failed = counters.sum(|shard| &shard.failed);
    let answered = ok + failed + counters.sum(|shard| &shard.unfinished);
    StageProgress {
        name: name.to_owned(),
        ok,
        failed,
        retried: counters.sum(|shard| &shard.retried),
        in_flight: counters.sum(|shard| &shard.fed).saturating_sub(answered),
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Monitor").field(&self.progress()).finish()
    }
}
