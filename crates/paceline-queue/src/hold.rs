//! A slot kept for an item that may come back, as one waiting for a retry.

use std::error::Error;
use std::fmt;

use crate::queue::Queue;
use crate::state::Phase;

/// A slot of a queue kept for an item that was popped and may come back.
///
/// It occupies one slot of the capacity. While any hold exists, consumers of
/// a closed and empty queue wait on and are not told the end, and
/// [`join`](Queue::join) does not return. Dropping it gives the slot up.
///
/// Take the hold before the item's last consumer could leave: between the pop
/// and the hold, others may be told the end.
pub struct Hold<T> {
    queue: Queue<T>,
}

/// The queue was closed at once; the item that was to come back is inside.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PutBackError<T>(pub T);

impl<T> Hold<T> {
    pub(crate) fn new(queue: &Queue<T>) -> Option<Self> {
        let held = queue.shared.locked(|state| {
            let free = state.holds < state.capacity && state.phase < Phase::ClosedNow;
            state.holds += usize::from(free);
            free
        });
        held.then(|| Hold { queue: queue.clone() })
    }

    /// Returns `item` to the front of the queue, also if that is full or
    /// closed. Does not wait.
    ///
    /// # Errors
    ///
    /// Returns [`PutBackError`] with `item` inside after
    /// [`close_now`](Queue::close_now): nobody would pop it.
    pub fn put_back(self, item: T) -> Result<(), PutBackError<T>> {
        // The hold ends under the same lock as the item returns (below, and
        // not by dropping it), or the end could be told in between.
        let refused = self.queue.shared.locked(|state| {
            if state.phase == Phase::ClosedNow {
                return Some(item);
            }
            state.put_back(item);
            None
        });
        drop(self);
        refused.map_or(Ok(()), |item| Err(PutBackError(item)))
    }
}

impl<T> Drop for Hold<T> {
    fn drop(&mut self) {
        self.queue.shared.locked(|state| state.holds -= 1);
    }
}

impl<T> fmt::Debug for Hold<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(&self.queue).finish()
    }
}

impl<T> PutBackError<T> {
    /// Gives the item back.
    pub fn into_item(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for PutBackError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PutBackError(..)")
    }
}

impl<T> fmt::Display for PutBackError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue is closed")
    }
}

impl<T> Error for PutBackError<T> {}
