//! How many items a worker takes at once.
//!
//! Cheap items are taken up to 64 at a time, so that a lock is paid for once
//! for many; dear ones one by one, so that no worker sits on items that an
//! idle one could have. The worker times whole chunks and not items: reading
//! the clock for each would cost more than the work it measures.

use std::time::Duration;

/// 64: larger chunks gained under 3 % with three stages of trivial work (benches).
pub(crate) const MOST: usize = 64;

/// A chunk that took longer than this holds items back.
const LONG: Duration = Duration::from_micros(20);

/// 8: to look before each item took a third more time with trivial work, mostly
/// since envelopes were then moved one by one (benches).
const STRETCH: usize = 8;

/// The size of one worker's next chunk.
pub(crate) struct Chunk {
    size: usize,
    is_slow: bool,
}

impl Chunk {
    pub(crate) fn new() -> Self {
        Self { size: 1, is_slow: true }
    }

    /// How many items to take, at most `limit`.
    pub(crate) fn size(&self, limit: usize) -> usize {
        self.size.min(limit)
    }

    /// Whether results are handed over before each further item.
    pub(crate) fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// How many items to work on between two looks whether somebody waits.
    pub(crate) fn at_a_stretch(&self) -> usize {
        if self.is_slow { 1 } else { STRETCH }
    }

    /// Learns from a chunk of `items` that took `time`.
    pub(crate) fn took(&mut self, items: usize, time: Duration) {
        self.is_slow = time > LONG * items as u32;
        if time > LONG {
            self.size = (self.size / 4).max(1);
        } else if items == self.size && time < LONG / 2 {
            self.size = (self.size * 2).min(MOST);
        }
    }
}

/// The most that a worker may take from a queue with this capacity, such
/// that chunks in hand take no more than a quarter of it.
///
/// What workers hold beyond one item each is taken off the queue's own
/// bound, so that no more than `capacity + workers` items are ever between
/// the stages.
pub(crate) fn limit(capacity: usize, workers: usize, most: usize) -> usize {
    (1 + capacity / (4 * workers.max(1))).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cheap_items_are_taken_in_growing_chunks_and_dear_ones_singly() {
        let mut chunk = Chunk::new();
        for _ in 0..10 {
            chunk.took(chunk.size(MOST), Duration::from_nanos(100));
        }
        assert_eq!(chunk.size(MOST), MOST);
        for _ in 0..5 {
            chunk.took(MOST, Duration::from_millis(1));
        }
        assert_eq!(chunk.size(MOST), 1);
        assert_eq!(chunk.size(1), 1);
    }

    #[test]
    fn small_queues_have_no_chunks() {
        assert_eq!(limit(1, 1, MOST), 1);
        assert_eq!(limit(3, 1, MOST), 1);
        assert_eq!(limit(1024, 1, MOST), MOST);
        assert_eq!(limit(1024, 4, MOST), MOST);
    }
}
