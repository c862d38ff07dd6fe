//! Item 54: shared state, with the race, and three ways without it.

use std::{
    convert::Infallible,
    sync::{
        Barrier, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use paceline::{BoxError, Error, Pipeline};

use crate::{
    Item, Show,
    show::{expect, timed},
};

pub(crate) const ITEM: Item =
    Item { number: 54, title: "Shared state: no increment is lost", show };

/// The workers of the chapter's counter.
pub const WORKERS: usize = 5;

/// How often each of them counts.
pub const TIMES: u64 = 100_000;

/// A way of counting so often with each worker.
type Count = fn(u64) -> Result<u64, Error>;

/// Lets the workers, released together, count so often each.
fn together(times: u64, increment: impl Fn() + Sync + Send) -> Result<(), Error> {
    let start = Barrier::new(WORKERS);
    Pipeline::from_iter(0..WORKERS)
        .blocking("count", |_| {
            start.wait();
            (0..times).for_each(|_| increment());
            Ok::<_, Infallible>(())
        })
        .workers(WORKERS)
        // A worker with two of the items would wait at the barrier for ever.
        .queue(1)
        .run()?;
    Ok(())
}

/// Counts by reading and then writing, in two steps: others come in between,
/// and counts are lost. This is what `count += 1` is in Python; in Rust one
/// has to go out of one's way for it, since a plain counter shared between
/// threads does not compile.
///
/// # Errors
///
/// If the threads cannot be started.
pub fn count_in_two_steps(times: u64) -> Result<u64, Error> {
    let count = AtomicU64::new(0);
    together(times, || {
        let read = count.load(Ordering::Relaxed);
        // Whatever may happen between the two steps does: here another thread's turn.
        if read.is_multiple_of(64) {
            thread::yield_now();
        }
        count.store(read + 1, Ordering::Relaxed);
    })?;
    Ok(count.into_inner())
}

/// Counts under a lock.
///
/// # Errors
///
/// If the threads cannot be started.
pub fn count_under_a_lock(times: u64) -> Result<u64, Error> {
    let count = Mutex::new(0);
    together(times, || *count.lock().unwrap_or_else(PoisonError::into_inner) += 1)?;
    Ok(count.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Counts in one step that cannot be divided.
///
/// # Errors
///
/// If the threads cannot be started.
pub fn count_in_one_step(times: u64) -> Result<u64, Error> {
    let count = AtomicU64::new(0);
    together(times, || {
        count.fetch_add(1, Ordering::Relaxed);
    })?;
    Ok(count.into_inner())
}

/// Shares nothing: each worker counts for itself, and the results are added.
///
/// # Errors
///
/// If the threads cannot be started.
pub fn count_apart(times: u64) -> Result<u64, Error> {
    let mut sum = 0;
    Pipeline::from_iter(0..WORKERS)
        .cpu("count", |_| Ok::<_, Infallible>((0..times).fold(0, |count: u64, _| count + 1)))
        .workers(WORKERS)
        .for_each(|count| sum += count)
        .run()?;
    Ok(sum)
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    let expected = WORKERS as u64 * TIMES;
    show.found("five workers count to 100000 each: expected", expected)?;
    let (found, time) = timed(|| count_in_two_steps(TIMES));
    let lost = expected - found?;
    show.took("read, then write: the race", time)?;
    show.found("  counts that were lost", lost)?;
    let mut right = |way: &str, count: Count| -> Result<(), BoxError> {
        let (found, time) = timed(|| count(TIMES));
        expect(found? == expected, way)?;
        Ok(show.took(&format!("{way}: {expected}"), time)?)
    };
    right("under a lock", count_under_a_lock)?;
    right("in one step (atomic)", count_in_one_step)?;
    right("each for itself, then added", count_apart)?;
    show.python(include_str!("../python/item54.py"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_right_way_loses_a_count() {
        for count in [count_under_a_lock, count_in_one_step, count_apart] {
            assert_eq!(count(10_000).unwrap(), 50_000);
        }
    }

    #[test]
    fn two_steps_never_count_too_much() {
        assert!(count_in_two_steps(10_000).unwrap() <= 50_000);
    }
}
