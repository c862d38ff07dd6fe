//! Taking items out: one or a batch; waiting, trying, timed and async.

use std::collections::VecDeque;
use std::time::Duration;

use crate::error::{Closed, PopError, PopTimeoutError, TryPopError};
use crate::future::{PopBatchFuture, PopFuture};
use crate::operation::{PopBatch, PopOne};
use crate::queue::Queue;
use crate::wait::Waiting;

const ANSWERED: PopOne = PopOne { in_flight: false };

/// # Popping
///
/// A popped item counts as answered at once; to have [`join`](Queue::join)
/// wait for the work on it, [`take`](Queue::take) it.
impl<T> Queue<T> {
    /// Takes the item at the front, waiting while the queue is empty.
    ///
    /// The wait ends when an item comes or when nothing more can come; it has
    /// no time limit of its own.
    ///
    /// # Errors
    ///
    /// Returns [`PopError::Closed`] if the queue is closed, everything in it
    /// was delivered and nothing is on [`hold`](Queue::hold); or, after
    /// [`close_now`](Queue::close_now), at once.
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn pop(&self) -> Result<T, PopError> {
        match self.shared.wait(&mut { ANSWERED }, None) {
            Some(Ok(item)) => Ok(item),
            Some(Err(Closed)) | None => Err(PopError::Closed),
        }
    }

    /// Takes the item at the front if there is one now. Does not wait.
    ///
    /// # Errors
    ///
    /// Returns [`TryPopError::Empty`] if an item may still come,
    /// [`TryPopError::Closed`] where [`pop`](Queue::pop) would report the end.
    pub fn try_pop(&self) -> Result<T, TryPopError> {
        match self.shared.attempt(&mut { ANSWERED }) {
            Some(Ok(item)) => Ok(item),
            Some(Err(Closed)) => Err(TryPopError::Closed),
            None => Err(TryPopError::Empty),
        }
    }

    /// Takes the item at the front, waiting at most `limit` while the queue
    /// is empty. A limit of zero does not wait.
    ///
    /// # Errors
    ///
    /// Returns [`PopTimeoutError::Timeout`] if nothing came for the whole
    /// time, [`PopTimeoutError::Closed`] where [`pop`](Queue::pop) would
    /// report the end.
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn pop_timeout(&self, limit: Duration) -> Result<T, PopTimeoutError> {
        match self.shared.wait(&mut { ANSWERED }, Some(limit)) {
            Some(Ok(item)) => Ok(item),
            Some(Err(Closed)) => Err(PopTimeoutError::Closed),
            None => Err(PopTimeoutError::Timeout),
        }
    }

    /// Takes the item at the front, suspending the task while the queue is
    /// empty.
    ///
    /// # Errors
    ///
    /// The future gives [`PopError::Closed`] where [`pop`](Queue::pop) would.
    ///
    /// # When stopped
    ///
    /// Cancel-safe: a future dropped before it was ready has taken nothing.
    /// If it had been woken for an item, the next in line is woken for it.
    pub fn pop_async(&self) -> PopFuture<'_, T> {
        PopFuture(Waiting::new(&self.shared, ANSWERED))
    }

    /// Moves up to `max` items from the front to the end of `buffer`, waiting
    /// for the first, and says how many.
    ///
    /// It takes what is there, under one lock, and does not wait for more. A
    /// `max` of 0 returns 0 at once.
    ///
    /// # Errors
    ///
    /// Returns [`Closed`] where [`pop`](Queue::pop) would report the end.
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn pop_batch(&self, buffer: &mut VecDeque<T>, max: usize) -> Result<usize, Closed> {
        self.shared.wait(&mut PopBatch { buffer, max }, None).unwrap_or(Err(Closed))
    }

    /// Moves up to `max` items that are there now to the end of `buffer`, and
    /// says how many: 0 if there is none. Does not wait.
    ///
    /// # Errors
    ///
    /// Returns [`Closed`] where [`pop`](Queue::pop) would report the end.
    pub fn try_pop_batch(&self, buffer: &mut VecDeque<T>, max: usize) -> Result<usize, Closed> {
        self.shared.attempt(&mut PopBatch { buffer, max }).unwrap_or(Ok(0))
    }

    /// Moves up to `max` items from the front to the end of `buffer`, waiting
    /// at most `limit` for the first, and says how many. A limit of zero does
    /// not wait.
    ///
    /// # Errors
    ///
    /// Returns [`PopTimeoutError::Timeout`] if nothing came for the whole
    /// time, [`PopTimeoutError::Closed`] where [`pop`](Queue::pop) would
    /// report the end.
    ///
    /// # Panics
    ///
    /// On a thread that runs an event loop, see [`OnEventLoop`](crate::OnEventLoop).
    #[track_caller]
    pub fn pop_batch_timeout(
        &self,
        buffer: &mut VecDeque<T>,
        max: usize,
        limit: Duration,
    ) -> Result<usize, PopTimeoutError> {
        match self.shared.wait(&mut PopBatch { buffer, max }, Some(limit)) {
            Some(Ok(count)) => Ok(count),
            Some(Err(Closed)) => Err(PopTimeoutError::Closed),
            None => Err(PopTimeoutError::Timeout),
        }
    }

    /// Moves up to `max` items from the front to the end of `buffer`,
    /// suspending the task until there is one, and says how many.
    ///
    /// # Errors
    ///
    /// The future gives [`Closed`] where [`pop`](Queue::pop) would report the
    /// end.
    ///
    /// # When stopped
    ///
    /// Cancel-safe: a future dropped before it was ready has taken nothing.
    pub fn pop_batch_async<'a>(
        &'a self,
        buffer: &'a mut VecDeque<T>,
        max: usize,
    ) -> PopBatchFuture<'a, T> {
        PopBatchFuture(Waiting::new(&self.shared, PopBatch { buffer, max }))
    }
}
