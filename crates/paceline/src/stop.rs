//! How a run is told to stop, and how firmly.
//!
//! Four levels, each firmer than the one before; a level only ever rises.
//! Whoever waits registers with the stop and is woken on each rise.
//!
//! Not here: what each part of the engine does at a level; that is said
//! where it is done (`feed.rs`, `attempts.rs`, `conductor.rs`).

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU8, Ordering},
    },
};

use crate::sync::{Bell, Notice, lock};

/// How firmly a run is being stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum StopLevel {
    /// It runs on.
    None = 0,
    /// Take nothing more from the source; finish what is inside.
    Drain = 1,
    /// Start no further attempt; let running ones finish.
    Halt = 2,
    /// Stop running attempts too: children get TERM, then KILL after the grace period.
    Cancel = 3,
    /// No grace: children get KILL at once.
    Kill = 4,
}

/// The handle that stops a run, from anywhere.
///
/// Clones are handles on the same run. Make one before the run with
/// [`Stop::new`] and give it to [`Pipeline::stop`](crate::Pipeline::stop).
///
/// ```
/// use paceline::{Pipeline, Stop};
///
/// let stop = Stop::new();
/// let from_inside = stop.clone();
/// let (first, _) = Pipeline::from_iter(1..)
///     .cpu("seen", move |n: u64| {
///         if n == 10 {
///             from_inside.drain();
///         }
///         Ok::<_, paceline::BoxError>(n)
///     })
///     .stop(&stop)
///     .collect()?;
/// assert!(first.len() >= 10);
/// # Ok::<(), paceline::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Stop(Arc<Shared>);

#[derive(Default)]
struct Shared {
    level: AtomicU8,
    risen: Notice,
    bells: Mutex<Vec<Weak<Bell>>>,
    first_calls: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
}

impl Stop {
    /// Makes a stop that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes nothing more from the source and finishes what is inside.
    pub fn drain(&self) {
        self.rise(StopLevel::Drain);
    }

    /// Starts no further attempt and lets the running ones finish.
    pub fn halt(&self) {
        self.rise(StopLevel::Halt);
    }

    /// Stops running attempts as soon as is safe; their items stay unfinished.
    pub fn cancel(&self) {
        self.rise(StopLevel::Cancel);
    }

    /// As [`cancel`](Self::cancel), without a grace period for children.
    pub fn kill(&self) {
        self.rise(StopLevel::Kill);
    }

    /// Stops at `level` or firmer. A level lower than the present one changes nothing.
    pub fn rise(&self, level: StopLevel) {
        if self.0.level.fetch_max(level as u8, Ordering::SeqCst) < level as u8 {
            self.0.risen.tell();
            lock(&self.0.bells).iter().filter_map(Weak::upgrade).for_each(|bell| bell.ring());
            let calls = std::mem::take(&mut *lock(&self.0.first_calls));
            calls.into_iter().for_each(|call| call());
        }
    }

    /// Calls `call` once, as soon as the run is being stopped at whichever
    /// level; at once if it is already.
    ///
    /// For a source that waits for input: nothing more is asked of it then,
    /// and this is how it learns that it need not wait. `call` runs in
    /// whoever stops the run, so it must not wait.
    pub fn when_stopped(&self, call: impl FnOnce() + Send + 'static) {
        let mut calls = lock(&self.0.first_calls);
        if self.level() == StopLevel::None {
            calls.push(Box::new(call));
        } else {
            drop(calls);
            call();
        }
    }

    /// Returns how firmly the run is being stopped.
    pub fn level(&self) -> StopLevel {
        match self.0.level.load(Ordering::Relaxed) {
            0 => StopLevel::None,
            1 => StopLevel::Drain,
            2 => StopLevel::Halt,
            3 => StopLevel::Cancel,
            _ => StopLevel::Kill,
        }
    }

    /// Waits until the run is being stopped at `level` or more firmly.
    pub fn reached(&self, level: StopLevel) -> impl Future<Output = ()> + Send + Unpin {
        self.0.risen.until(move || self.level() >= level)
    }

    pub(crate) fn add_bell(&self, bell: &Arc<Bell>) {
        let mut bells = lock(&self.0.bells);
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(bell));
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stop").field(&self.level()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::block_on;

    #[test]
    fn a_level_only_rises() {
        let stop = Stop::new();
        stop.cancel();
        stop.drain();
        assert_eq!(stop.level(), StopLevel::Cancel);
    }

    #[test]
    fn a_call_for_the_stop_is_made_once_and_at_once_when_late() {
        let (stop, (told, heard)) = (Stop::new(), std::sync::mpsc::channel());
        let early = told.clone();
        stop.when_stopped(move || early.send("early").unwrap());
        stop.drain();
        stop.cancel();
        stop.when_stopped(move || told.send("late").unwrap());
        assert_eq!(heard.iter().collect::<Vec<_>>(), ["early", "late"]);
    }

    #[test]
    fn whoever_waits_for_a_level_is_woken_by_a_firmer_one() {
        let stop = Stop::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| block_on(stop.reached(StopLevel::Halt)));
            stop.kill();
            waiter.join().unwrap();
        });
    }
}
