//! The handle of a queue: making one, closing it, looking at it.
//!
//! Not here: pushing, popping and joining, which are in `push.rs`, `pop.rs`
//! and `join.rs`.

use std::collections::VecDeque;
use std::fmt;

use crate::hold::Hold;
use crate::producer::Producer;
use crate::shared::Shared;
use crate::state::Phase;
use crate::stats::Stats;
use crate::sync::Arc;

/// A bounded first-in, first-out queue that can be closed and joined.
///
/// Any number of threads and tasks push and pop at the same time, with the
/// waiting and the async operations in any mixture. A clone is another handle
/// of the same queue and costs a reference count; handles are not counted as
/// producers, see [`producer`](Queue::producer).
///
/// # Examples
///
/// ```
/// use std::thread;
/// use paceline_queue::{PopError, Queue};
///
/// let queue = Queue::bounded(2);
/// let producer = queue.producer();
/// thread::scope(|scope| {
///     scope.spawn(move || {
///         for number in 1..=4 {
///             producer.push(number).unwrap(); // waits while two are inside
///         }
///         // The last producer goes, and the queue closes.
///     });
///     assert_eq!((1..=4).map(|_| queue.pop().unwrap()).sum::<i32>(), 10);
///     assert_eq!(queue.pop(), Err(PopError::Closed));
/// });
/// ```
pub struct Queue<T> {
    pub(crate) shared: Arc<Shared<T>>,
}

impl<T> Queue<T> {
    /// Creates an empty, open queue for at most `capacity` items.
    ///
    /// Memory is taken as it is used, not for `capacity` items at once.
    ///
    /// # Panics
    ///
    /// If `capacity` is 0: nothing could ever be pushed.
    #[must_use]
    pub fn bounded(capacity: usize) -> Self {
        assert!(capacity > 0, "a queue needs a capacity of at least 1");
        Queue { shared: Arc::new(Shared::new(capacity)) }
    }

    /// Returns a counted handle for pushing.
    ///
    /// When the last producer is dropped the queue closes, as by
    /// [`close`](Queue::close): consumers get what is inside and then the end,
    /// however many they are. A queue that never had a producer does not
    /// close by itself. A producer of a closed queue can be had; its pushes
    /// are refused.
    ///
    /// # Examples
    ///
    /// ```
    /// # use paceline_queue::{PopError, Queue};
    /// let queue = Queue::bounded(8);
    /// let first = queue.producer();
    /// let second = first.clone();
    ///
    /// first.push("a")?;
    /// drop(first);
    /// assert!(!queue.is_closed());
    ///
    /// drop(second);
    /// assert_eq!(queue.pop(), Ok("a"));
    /// assert_eq!(queue.pop(), Err(PopError::Closed));
    /// # Ok::<(), paceline_queue::PushError<&str>>(())
    /// ```
    #[must_use = "dropping the only producer closes the queue"]
    pub fn producer(&self) -> Producer<T> {
        Producer::new(self)
    }

    /// Refuses pushes from now on; what is inside is still delivered.
    ///
    /// Everyone waiting to push is refused at once and keeps the item.
    /// Everyone waiting to pop is told the end when nothing is inside and no
    /// [`Hold`] may bring an item back. Does not wait. Harmless to repeat, and
    /// after [`close_now`](Queue::close_now) it changes nothing.
    pub fn close(&self) {
        self.shared.locked(|state| state.advance(Phase::Closed));
    }

    /// Closes the queue and takes what is inside, in order.
    ///
    /// Everyone waiting to push or to pop is refused at once, and so is
    /// whoever comes later. The items returned count as answered: a
    /// [`join`](Queue::join) waits on only for items taken and not answered.
    /// Does not wait. Repeating it is harmless and returns nothing.
    ///
    /// # Examples
    ///
    /// ```
    /// # use paceline_queue::{PopError, Queue};
    /// let queue = Queue::bounded(8);
    /// queue.push('a')?;
    /// queue.push('b')?;
    ///
    /// assert_eq!(queue.close_now(), ['a', 'b']);
    /// assert_eq!(queue.pop(), Err(PopError::Closed));
    /// # Ok::<(), paceline_queue::PushError<char>>(())
    /// ```
    #[must_use = "these are the items nobody will pop"]
    pub fn close_now(&self) -> VecDeque<T> {
        self.shared.locked(|state| {
            state.advance(Phase::ClosedNow);
            state.discard()
        })
    }

    /// Returns whether pushes are refused.
    ///
    /// There may still be items to pop.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.locked(|state| state.phase > Phase::Open)
    }

    /// Returns whether whoever pops would be told the end.
    ///
    /// A consumer that has popped an item may still put it on
    /// [`hold`](Queue::hold), and so take the end back.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.shared.locked(|state| state.has_ended())
    }

    /// Returns how many items wait in the queue now.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.shared.locked(|state| state.depth())
    }

    /// Returns whether no item waits in the queue now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.depth() == 0
    }

    /// Returns the most items that may wait in the queue.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.locked(|state| state.capacity)
    }

    /// Changes the capacity while the queue is in use.
    ///
    /// More capacity wakes those who wait to push, as many as now fit. With
    /// less, everything inside stays, and pushes are refused or wait until
    /// the depth is below the new bound.
    ///
    /// # Panics
    ///
    /// If `capacity` is 0.
    pub fn set_capacity(&self, capacity: usize) {
        assert!(capacity > 0, "a queue needs a capacity of at least 1");
        self.shared.locked(|state| state.capacity = capacity);
    }

    /// Keeps a slot for an item that was popped and may come back.
    ///
    /// Returns `None` if there are as many holds as the capacity, or after
    /// [`close_now`](Queue::close_now). Does not wait.
    ///
    /// # Examples
    ///
    /// An item that failed goes first in line for its next attempt, and the
    /// others do not see the end before it is done:
    ///
    /// ```
    /// # use paceline_queue::{Queue, TryPopError};
    /// let queue = Queue::bounded(2);
    /// queue.push("flaky")?;
    /// queue.close();
    ///
    /// let item = queue.pop()?;
    /// let hold = queue.hold().ok_or("no slot left to hold")?;
    /// assert_eq!(queue.try_pop(), Err(TryPopError::Empty)); // not the end
    ///
    /// hold.put_back(item)?;
    /// assert_eq!(queue.try_pop(), Ok("flaky"));
    /// assert_eq!(queue.try_pop(), Err(TryPopError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use = "dropping the hold gives the slot up"]
    pub fn hold(&self) -> Option<Hold<T>> {
        Hold::new(self)
    }

    /// Returns how many consumers wait for an item and were not woken yet.
    ///
    /// One relaxed load, without the lock: cheap enough to ask once per item,
    /// and possibly out of date by the time it is read. A consumer counts from
    /// when it parks or its future is first pending, not while it still looks
    /// a few times before that.
    #[must_use]
    pub fn waiting_consumers(&self) -> usize {
        self.shared.waiting_consumers()
    }

    /// Returns counts and times since the queue was made, as of one moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.shared)
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Queue { shared: Arc::clone(&self.shared) }
    }
}

/// Shows the state and who waits, not the items.
impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        let phase = self.shared.locked(|state| state.phase);
        f.debug_struct("Queue")
            .field("phase", &phase)
            .field("depth", &stats.depth)
            .field("capacity", &stats.capacity)
            .field("in_flight", &stats.in_flight)
            .field("on_hold", &stats.on_hold)
            .field("waiting_producers", &stats.waiting_producers)
            .field("waiting_consumers", &stats.waiting_consumers)
            .field("waiting_joiners", &stats.waiting_joiners)
            .finish()
    }
}
