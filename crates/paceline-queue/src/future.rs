//! The futures of the async operations.
//!
//! All are cancel-safe: a future that is dropped before it is ready has
//! taken nothing out and left nothing in line, and passes on a wake-up it was
//! given. None of them needs a particular runtime.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::answer::Taken;
use crate::error::{Closed, PopError, PushError};
use crate::operation::{Join, PopBatch, PopOne, PushBatch, PushOne};
use crate::queue::Queue;
use crate::wait::Waiting;

/// A push being awaited; made by [`Queue::push_async`].
///
/// Dropping it drops the item, which was then seen by nobody;
/// [`take_item`](PushFuture::take_item) and
/// [`into_item`](PushFuture::into_item) cancel the push and keep the item.
#[must_use = "a future does nothing unless it is awaited"]
pub struct PushFuture<'a, T>(pub(crate) Waiting<'a, T, PushOne<T>>);

impl<T> PushFuture<'_, T> {
    /// Cancels the push and gives the item back, or `None` if it was pushed.
    ///
    /// The future must not be polled after this.
    pub fn take_item(&mut self) -> Option<T> {
        self.0.end();
        self.0.operation.take_item()
    }

    /// Cancels the push and gives the item back, or `None` if it was pushed.
    pub fn into_item(mut self) -> Option<T> {
        self.take_item()
    }
}

impl<T> Future for PushFuture<'_, T> {
    type Output = Result<(), PushError<T>>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waiting = &mut self.get_mut().0;
        let pushed = std::task::ready!(waiting.poll(context));
        Poll::Ready(pushed.map_err(|Closed| PushError(waiting.operation.refused())))
    }
}

// No item is ever pinned: it only passes through.
impl<T> Unpin for PushFuture<'_, T> {}

/// A push of a whole buffer being awaited; made by
/// [`Queue::push_batch_async`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct PushBatchFuture<'a, T>(pub(crate) Waiting<'a, T, PushBatch<'a, T>>);

impl<T> Future for PushBatchFuture<'_, T> {
    type Output = Result<(), Closed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.poll(context)
    }
}

/// A pop being awaited; made by [`Queue::pop_async`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct PopFuture<'a, T>(pub(crate) Waiting<'a, T, PopOne>);

impl<T> Future for PopFuture<'_, T> {
    type Output = Result<T, PopError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.poll(context).map_err(|Closed| PopError::Closed)
    }
}

/// A pop of several items being awaited; made by
/// [`Queue::pop_batch_async`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct PopBatchFuture<'a, T>(pub(crate) Waiting<'a, T, PopBatch<'a, T>>);

impl<T> Future for PopBatchFuture<'_, T> {
    type Output = Result<usize, Closed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.get_mut().0.poll(context)
    }
}

/// A take being awaited; made by [`Queue::take_async`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct TakeFuture<'a, T> {
    pub(crate) queue: &'a Queue<T>,
    pub(crate) waiting: Waiting<'a, T, PopOne>,
}

impl<T> Future for TakeFuture<'_, T> {
    type Output = Result<Taken<T>, PopError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let popped = std::task::ready!(this.waiting.poll(context));
        Poll::Ready(match popped {
            Ok(item) => Ok(Taken::new(item, this.queue)),
            Err(Closed) => Err(PopError::Closed),
        })
    }
}

/// A wait for the last answer; made by [`Queue::join_async`].
#[must_use = "a future does nothing unless it is awaited"]
pub struct JoinFuture<'a, T>(pub(crate) Waiting<'a, T, Join>);

impl<T> Future for JoinFuture<'_, T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.get_mut().0.poll(context)
    }
}
