//! What tests count: items of an account, what is at work at once, values that are alive.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use paceline::{BoxError, Summary};

/// What stage functions of the tests give.
pub type Given<T> = Result<T, BoxError>;

/// Every item of the source is ok, failed or unfinished: exactly one of them;
/// and so for each stage.
#[track_caller]
pub fn assert_conserved(summary: &Summary) {
    let answered = summary.ok + summary.failed + summary.unfinished;
    assert_eq!(answered, summary.taken, "items lost or doubled: {summary:?}");
    for stage in &summary.stages {
        let answered = stage.ok + stage.failed + stage.unfinished;
        assert_eq!(answered, stage.fed, "items lost or doubled in a stage: {stage:?}");
    }
}

/// How many are at something at once, and the most that ever were.
#[derive(Default)]
pub struct Peak {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Peak {
    /// Counts the caller in until what it gives is dropped.
    pub fn enter(&self) -> Inside<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Inside(self)
    }

    /// How many are inside.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    /// The most that were ever inside.
    pub fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

/// Somebody whom a [`Peak`] counts.
pub struct Inside<'p>(&'p Peak);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts how many values of it are alive.
#[derive(Clone, Default)]
pub struct Census(Arc<Counts>);

#[derive(Default)]
struct Counts {
    alive: AtomicI64,
    most: AtomicI64,
}

/// A value that a [`Census`] counts.
#[derive(Debug)]
pub struct Counted {
    /// What tells it from others.
    pub number: u64,
    census: Census,
}

impl Census {
    /// Makes a value that counts as long as it lives.
    pub fn make(&self, number: u64) -> Counted {
        let alive = self.0.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(alive, Ordering::SeqCst);
        Counted { number, census: self.clone() }
    }

    /// How many are alive.
    pub fn alive(&self) -> i64 {
        self.0.alive.load(Ordering::SeqCst)
    }

    /// The most that were ever alive.
    pub fn most(&self) -> i64 {
        self.0.most.load(Ordering::SeqCst)
    }
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} alive", self.alive())
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.census.make(self.number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.census.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A number that is another one in each process.
pub fn random() -> u64 {
    RandomState::new().hash_one(0)
}
