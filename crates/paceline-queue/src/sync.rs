//! Locks, threads and reference counts: std's, or loom's under `cfg(loom)`.
//!
//! Counters that only inform (statistics, the hint how many consumers wait)
//! are std's in both worlds: no decision of the queue rests on them, and the
//! model checker need not explore them.

#[cfg(not(loom))]
pub(crate) use std::{
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use std::sync::PoisonError;
use std::time::Duration;

/// Locks `mutex`, also after a panic of another holder.
///
/// What runs under the queue's lock leaves the state whole at every point
/// where it could panic, so poison says nothing.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Parks this thread until it is unparked or `limit` has passed.
pub(crate) fn park(limit: Option<Duration>) {
    match limit {
        None => thread::park(),
        #[cfg(not(loom))]
        Some(limit) => thread::park_timeout(limit),
        // The model has no time; a cancelled future takes the same path.
        #[cfg(loom)]
        Some(_) => unreachable!("timed waits are not modelled"),
    }
}
