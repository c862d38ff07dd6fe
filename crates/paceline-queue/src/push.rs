//! Putting items in: one or a batch; waiting, trying, timed and async.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::{Closed, PushError, PushTimeoutError, TryPushError};
use crate::future::{PushBatchFuture, PushFuture};
use crate::operation::{PushBatch, PushOne};
use crate::queue::Queue;
use crate::wait::Waiting;

/// # Pushing
impl<T> Queue<T> {
    /// Adds `item` at the back, waiting while the queue is full.
    ///
    /// This wait is the pipeline's backpressure. It ends when a consumer makes
    /// room or when the queue is closed; it has no time limit of its own.
    ///
    /// # Errors
    ///
    /// Returns [`PushError`] with `item` inside if the queue is closed, before
    /// or during the wait. The item was then seen by nobody.
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn push(&self, item: T) -> Result<(), PushError<T>> {
        let mut push = PushOne::new(item);
        match self.shared.wait(&mut push, None) {
            Some(Ok(())) => Ok(()),
            Some(Err(Closed)) | None => Err(PushError(push.refused())),
        }
    }

    /// Adds `item` at the back if there is room now. Does not wait.
    ///
    /// # Errors
    ///
    /// Returns the item inside [`TryPushError::Full`] if there is no free
    /// slot, inside [`TryPushError::Closed`] if the queue is closed.
    pub fn try_push(&self, item: T) -> Result<(), TryPushError<T>> {
        let mut push = PushOne::new(item);
        match self.shared.attempt(&mut push) {
            Some(Ok(())) => Ok(()),
            Some(Err(Closed)) => Err(TryPushError::Closed(push.refused())),
            None => Err(TryPushError::Full(push.refused())),
        }
    }

    /// Adds `item` at the back, waiting at most `limit` while the queue is
    /// full. A limit of zero does not wait.
    ///
    /// # Errors
    ///
    /// Returns the item inside [`PushTimeoutError::Timeout`] if there was no
    /// room for the whole time, inside [`PushTimeoutError::Closed`] if the
    /// queue is closed, before or during the wait.
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn push_timeout(&self, item: T, limit: Duration) -> Result<(), PushTimeoutError<T>> {
        let mut push = PushOne::new(item);
        match self.shared.wait(&mut push, Some(limit)) {
            Some(Ok(())) => Ok(()),
            Some(Err(Closed)) => Err(PushTimeoutError::Closed(push.refused())),
            None => Err(PushTimeoutError::Timeout(push.refused())),
        }
    }

    /// Adds `item` at the back, suspending the task while the queue is full.
    ///
    /// # Errors
    ///
    /// The future gives [`PushError`] with `item` inside if the queue is
    /// closed, before or during the wait.
    ///
    /// # When stopped
    ///
    /// Cancel-safe: a future dropped before it was ready has pushed nothing,
    /// and the free slot it may have been woken for goes to the next in line.
    /// The item is dropped with it, unless it is first recovered:
    ///
    /// ```
    /// # use std::pin::pin;
    /// # use std::task::{Context, Poll, Waker};
    /// # use paceline_queue::Queue;
    /// let queue = Queue::bounded(1);
    /// queue.push("first")?;
    ///
    /// let mut push = queue.push_async("second");
    /// # let mut context = Context::from_waker(Waker::noop());
    /// # assert!(Future::poll(pin!(&mut push), &mut context).is_pending());
    /// // Something else was more urgent.
    /// assert_eq!(push.into_item(), Some("second"));
    /// assert_eq!(queue.depth(), 1);
    /// # Ok::<(), paceline_queue::PushError<&str>>(())
    /// ```
    pub fn push_async(&self, item: T) -> PushFuture<'_, T> {
        PushFuture(Waiting::new(&self.shared, PushOne::new(item)))
    }

    /// Adds everything in `buffer` at the back, in order, waiting as needed.
    ///
    /// As much as fits goes in at once, under one lock. What does not fit
    /// waits; to be woken seldom, it waits until the queue has half drained,
    /// or for one slot if one item is left. Items of other producers may come
    /// in between.
    ///
    /// # Errors
    ///
    /// Returns [`Closed`] if the queue is closed, before or during the wait.
    /// What was not pushed is still in `buffer`, and only that.
    ///
    /// # Examples
    ///
    /// ```
    /// # use std::collections::VecDeque;
    /// # use paceline_queue::Queue;
    /// let queue = Queue::bounded(100);
    /// let mut buffer = VecDeque::from([1, 2, 3]);
    /// queue.push_batch(&mut buffer)?;
    /// assert!(buffer.is_empty());
    ///
    /// assert_eq!(queue.pop_batch(&mut buffer, 64)?, 3);
    /// assert_eq!(buffer, [1, 2, 3]);
    /// # Ok::<(), paceline_queue::Closed>(())
    /// ```
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn push_batch(&self, buffer: &mut VecDeque<T>) -> Result<(), Closed> {
        self.shared.wait(&mut PushBatch { buffer }, None).unwrap_or(Err(Closed))
    }

    /// Adds as much of `buffer` as fits now and says how much. Does not wait.
    ///
    /// The rest stays in `buffer`; 0 means that the queue is full, or that
    /// there was nothing to push.
    ///
    /// # Errors
    ///
    /// Returns [`Closed`] if the queue is closed and there was something to
    /// push; it is all still in `buffer`.
    pub fn try_push_batch(&self, buffer: &mut VecDeque<T>) -> Result<usize, Closed> {
        let before = buffer.len();
        self.shared.attempt(&mut PushBatch { buffer }).unwrap_or(Ok(()))?;
        Ok(before - buffer.len())
    }

    /// Adds everything in `buffer` at the back, in order, suspending the task
    /// as needed; otherwise like [`push_batch`](Queue::push_batch).
    ///
    /// # Errors
    ///
    /// The future gives [`Closed`] if the queue is closed, before or during
    /// the wait. What was not pushed is still in `buffer`.
    ///
    /// # When stopped
    ///
    /// Cancel-safe: what was not pushed when the future is dropped is still
    /// in `buffer`, and only that.
    pub fn push_batch_async<'a>(&'a self, buffer: &'a mut VecDeque<T>) -> PushBatchFuture<'a, T> {
        PushBatchFuture(Waiting::new(&self.shared, PushBatch { buffer }))
    }
}
