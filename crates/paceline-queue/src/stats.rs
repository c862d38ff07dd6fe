//! What a queue counted: for reports, and for finding the pace.

use std::time::{Duration, Instant};

use crate::shared::Shared;
use crate::state::Side;

/// Counts and times of one queue, all from one moment.
///
/// Nothing is lost between them:
/// `pushed + put_back == popped + discarded + depth`.
///
/// # Examples
///
/// ```
/// # use paceline_queue::Queue;
/// let queue = Queue::bounded(8);
/// queue.push('a')?;
/// queue.push('b')?;
/// queue.pop()?;
///
/// let stats = queue.stats();
/// assert_eq!((stats.pushed, stats.popped), (2, 1));
/// assert_eq!((stats.depth, stats.high_water), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// How many items wait in the queue.
    pub depth: usize,
    /// The greatest depth so far.
    pub high_water: usize,
    /// The most items that may wait.
    pub capacity: usize,
    /// Items pushed so far.
    pub pushed: u64,
    /// Items popped or taken so far, each time they were.
    pub popped: u64,
    /// Items put back by a [`Hold`](crate::Hold).
    pub put_back: u64,
    /// Items given out by [`close_now`](crate::Queue::close_now).
    pub discarded: u64,
    /// Items taken and not answered.
    pub in_flight: usize,
    /// Holds that exist.
    pub on_hold: usize,
    /// Producer handles that exist.
    pub producers: usize,
    /// Pushers waiting for room, not counting those just woken.
    pub waiting_producers: usize,
    /// Consumers waiting for an item, not counting those just woken.
    pub waiting_consumers: usize,
    /// Joiners waiting for the last answer, not counting those just woken.
    pub waiting_joiners: usize,
    /// Time spent waiting for room, summed over all who waited or still do.
    ///
    /// Only real waits are measured; an operation that finds room or an item
    /// at once reads no clock.
    pub waited_on_full: Duration,
    /// Time spent waiting for an item, summed over all who waited or still do.
    pub waited_on_empty: Duration,
}

impl Stats {
    pub(crate) fn of<T>(shared: &Shared<T>) -> Stats {
        let now = Instant::now();
        shared.locked(|state| {
            let counts = state.counts();
            let (pushers, consumers) = (state.line(Side::Push), state.line(Side::Pop));
            Stats {
                depth: state.depth(),
                high_water: counts.high_water,
                capacity: state.capacity,
                pushed: counts.pushed,
                popped: counts.popped,
                put_back: counts.put_back,
                discarded: counts.discarded,
                in_flight: state.in_flight,
                on_hold: state.holds,
                producers: state.producers,
                waiting_producers: pushers.waiting(),
                waiting_consumers: consumers.waiting(),
                waiting_joiners: state.line(Side::Join).waiting(),
                waited_on_full: shared.waits(Side::Push).total() + pushers.waited_so_far(now),
                waited_on_empty: shared.waits(Side::Pop).total() + consumers.waited_so_far(now),
            }
        })
    }
}
