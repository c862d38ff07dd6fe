//! Items that are answered when their guard goes, so that `join` can wait.

use std::fmt;
use std::ops::{Deref, DerefMut};

use crate::queue::Queue;

/// An item taken from a queue, answered when this guard is dropped.
///
/// It is in flight until then, and [`Queue::join`] waits for it. The item is
/// dropped before it counts as answered.
///
/// # Examples
///
/// ```
/// # use paceline_queue::Queue;
/// let queue = Queue::bounded(4);
/// queue.push(String::from("photo"))?;
///
/// let taken = queue.take()?;
/// assert_eq!(taken.len(), 5); // a `Taken<String>` is used like a `String`
/// assert_eq!(queue.stats().in_flight, 1);
///
/// drop(taken);
/// queue.join(); // returns at once
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Taken<T> {
    // The order matters: fields are dropped from the first to the last.
    item: T,
    answer: Answer<T>,
}

impl<T> Taken<T> {
    /// For an item that was just popped and counted as in flight.
    pub(crate) fn new(item: T, queue: &Queue<T>) -> Self {
        Taken { item, answer: Answer { queue: queue.clone() } }
    }

    /// Returns the item and, apart from it, the duty to answer it.
    ///
    /// The item is answered when the [`Answer`] is dropped, wherever the item
    /// is by then.
    #[must_use = "dropping the answer answers the item"]
    pub fn into_parts(self) -> (T, Answer<T>) {
        (self.item, self.answer)
    }
}

impl<T> Deref for Taken<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T> DerefMut for Taken<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

impl<T: fmt::Debug> fmt::Debug for Taken<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Taken").field(&self.item).finish()
    }
}

/// The duty to answer one item that was taken; dropping it answers.
///
/// There is exactly one for each item taken, so an item cannot be answered
/// twice.
#[must_use = "dropping the answer answers the item"]
pub struct Answer<T> {
    queue: Queue<T>,
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        self.queue.shared.locked(|state| state.in_flight -= 1);
    }
}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Answer").field(&self.queue).finish()
    }
}
