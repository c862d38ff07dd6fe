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
#[cfg(not(loom))]
use std::sync::TryLockError;
use std::time::Duration;

/// How often a thread looks whether the lock is free before it sleeps for it.
// The lock is held for some ten nanoseconds, sleeping costs thousands.
// Measured with 4 to 4 on two cores: 20 to 50 ns an item, 90 to 500 without.
#[cfg(not(loom))]
const LOOKS: u32 = 10;

/// How long it stays away between two looks, in rounds of `spin_loop`.
// Looking more often takes the lock's cache line from whoever holds it. Away
// for about a microsecond, it leaves the holder to do several operations.
#[cfg(not(loom))]
const ROUNDS_AWAY: u32 = 32;

/// Locks `mutex`, also after a panic of another holder.
///
/// What runs under the queue's lock leaves the state whole at every point
/// where it could panic, so poison says nothing.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(not(loom))]
    match mutex.try_lock() {
        Ok(guard) => return guard,
        Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {}
    }
    lock_contended(mutex)
}

#[cold]
fn lock_contended<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    #[cfg(not(loom))]
    for _ in 0..LOOKS {
        for _ in 0..ROUNDS_AWAY {
            std::hint::spin_loop();
        }
        match mutex.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {}
        }
    }
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
