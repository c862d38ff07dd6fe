//! Taking items that must be answered, and waiting until all are.

use std::time::Duration;

use crate::answer::Taken;
use crate::error::{Closed, JoinTimeoutError, PopError, PopTimeoutError, TryPopError};
use crate::future::{JoinFuture, TakeFuture};
use crate::operation::{Join, PopOne};
use crate::queue::Queue;
use crate::wait::Waiting;

const IN_FLIGHT: PopOne = PopOne { in_flight: true };

/// # Taking and joining
impl<T> Queue<T> {
    /// Takes the item at the front, in flight until its guard is dropped;
    /// otherwise like [`pop`](Queue::pop).
    ///
    /// # Errors
    ///
    /// Returns [`PopError::Closed`] where [`pop`](Queue::pop) would.
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn take(&self) -> Result<Taken<T>, PopError> {
        match self.shared.wait(&mut { IN_FLIGHT }, None) {
            Some(Ok(item)) => Ok(Taken::new(item, self)),
            Some(Err(Closed)) | None => Err(PopError::Closed),
        }
    }

    /// Takes the item at the front if there is one now, in flight until its
    /// guard is dropped. Does not wait.
    ///
    /// # Errors
    ///
    /// As [`try_pop`](Queue::try_pop).
    pub fn try_take(&self) -> Result<Taken<T>, TryPopError> {
        match self.shared.attempt(&mut { IN_FLIGHT }) {
            Some(Ok(item)) => Ok(Taken::new(item, self)),
            Some(Err(Closed)) => Err(TryPopError::Closed),
            None => Err(TryPopError::Empty),
        }
    }

    /// Takes the item at the front, waiting at most `limit`, in flight until
    /// its guard is dropped. A limit of zero does not wait.
    ///
    /// # Errors
    ///
    /// As [`pop_timeout`](Queue::pop_timeout).
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn take_timeout(&self, limit: Duration) -> Result<Taken<T>, PopTimeoutError> {
        match self.shared.wait(&mut { IN_FLIGHT }, Some(limit)) {
            Some(Ok(item)) => Ok(Taken::new(item, self)),
            Some(Err(Closed)) => Err(PopTimeoutError::Closed),
            None => Err(PopTimeoutError::Timeout),
        }
    }

    /// Takes the item at the front, suspending the task while the queue is
    /// empty; in flight until its guard is dropped.
    ///
    /// # Errors
    ///
    /// The future gives [`PopError::Closed`] where [`pop`](Queue::pop) would.
    ///
    /// # When stopped
    ///
    /// Cancel-safe: a future dropped before it was ready has taken nothing,
    /// and nothing waits for an answer from it.
    pub fn take_async(&self) -> TakeFuture<'_, T> {
        TakeFuture { queue: self, waiting: Waiting::new(&self.shared, IN_FLIGHT) }
    }

    /// Waits until everything pushed was popped and every item taken was
    /// answered.
    ///
    /// Returns at once if that is so already, as in a queue never used.
    /// Any number of joiners may wait, each as often as it likes; all return
    /// when the last answer is given, also if more is pushed right after. An
    /// item on [`hold`](Queue::hold) is not answered.
    ///
    /// # When stopped
    ///
    /// Closing does not end the wait, for what is inside is still delivered.
    /// [`close_now`](Queue::close_now) answers what is inside; the wait is
    /// then only for items in flight and holds.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::thread;
    /// # use paceline_queue::Queue;
    ///
    /// let queue = Queue::bounded(16);
    /// let producer = queue.producer();
    /// thread::scope(|scope| {
    ///     for _ in 0..2 {
    ///         scope.spawn(|| {
    ///             while let Ok(item) = queue.take() {
    ///                 let _work: u64 = *item * 2;
    ///             } // each item is answered here, when its guard goes
    ///         });
    ///     }
    ///     for number in 0..100_u64 {
    ///         producer.push(number).unwrap();
    ///     }
    ///     queue.join();
    ///     assert_eq!(queue.stats().in_flight, 0);
    ///     drop(producer); // lets the consumers go
    /// });
    /// ```
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn join(&self) {
        self.shared.wait(&mut Join, None);
    }

    /// Waits like [`join`](Queue::join), at most `limit`. A limit of zero
    /// only looks.
    ///
    /// # Errors
    ///
    /// Returns [`JoinTimeoutError`] if not everything was answered in time.
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn join_timeout(&self, limit: Duration) -> Result<(), JoinTimeoutError> {
        self.shared.wait(&mut Join, Some(limit)).ok_or(JoinTimeoutError)
    }

    /// Suspends the task until everything is answered, like
    /// [`join`](Queue::join).
    pub fn join_async(&self) -> JoinFuture<'_, T> {
        JoinFuture(Waiting::new(&self.shared, Join))
    }
}
