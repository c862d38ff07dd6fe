//! Counted handles: the queue closes itself when the last one goes.

use std::fmt;
use std::ops::Deref;

use crate::queue::Queue;
use crate::state::Phase;

/// A counted handle for pushing; see [`Queue::producer`].
///
/// Derefs to the [`Queue`], so it offers everything the queue does. Dropping
/// the last one closes the queue, also when that happens while a panic
/// unwinds.
pub struct Producer<T> {
    queue: Queue<T>,
}

impl<T> Producer<T> {
    pub(crate) fn new(queue: &Queue<T>) -> Self {
        queue.shared.locked(|state| state.producers += 1);
        Producer { queue: queue.clone() }
    }
}

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        Producer::new(&self.queue)
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        self.queue.shared.locked(|state| {
            state.producers -= 1;
            if state.producers == 0 {
                state.advance(Phase::Closed);
            }
        });
    }
}

impl<T> Deref for Producer<T> {
    type Target = Queue<T>;

    fn deref(&self) -> &Queue<T> {
        &self.queue
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Producer").field(&self.queue).finish()
    }
}
