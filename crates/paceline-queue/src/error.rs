//! Why an operation did not do what was asked: one small type for each.
//!
//! A push that is refused hands its item back inside the error.

use std::error::Error;
use std::fmt;

/// The queue was closed; the item it did not take is inside.
///
/// Given by [`push`](crate::Queue::push) and
/// [`push_async`](crate::Queue::push_async).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PushError<T>(pub T);

/// Why [`try_push`](crate::Queue::try_push) did not take the item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TryPushError<T> {
    /// There is no free slot; a later try may succeed.
    Full(T),
    /// The queue is closed; no later try can succeed.
    Closed(T),
}

/// Why [`push_timeout`](crate::Queue::push_timeout) did not take the item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PushTimeoutError<T> {
    /// The queue stayed full for the whole time given.
    Timeout(T),
    /// The queue is closed; no later try can succeed.
    Closed(T),
}

/// Why [`pop`](crate::Queue::pop) gave no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PopError {
    /// The queue is closed and everything in it was delivered.
    Closed,
}

/// Why [`try_pop`](crate::Queue::try_pop) gave no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryPopError {
    /// Nothing is in the queue now; a later try may succeed.
    Empty,
    /// The queue is closed and everything in it was delivered.
    Closed,
}

/// Why [`pop_timeout`](crate::Queue::pop_timeout) gave no item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PopTimeoutError {
    /// Nothing came for the whole time given.
    Timeout,
    /// The queue is closed and everything in it was delivered.
    Closed,
}

/// The queue is closed: to a batch of pushes it gives no room, to a batch of
/// pops it has nothing left.
///
/// What was not pushed is still in the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// Not everything was answered within the time given to
/// [`join_timeout`](crate::Queue::join_timeout).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinTimeoutError;

impl<T> PushError<T> {
    /// Gives the item back.
    pub fn into_item(self) -> T {
        self.0
    }
}

impl<T> TryPushError<T> {
    /// Gives the item back.
    pub fn into_item(self) -> T {
        match self {
            TryPushError::Full(item) | TryPushError::Closed(item) => item,
        }
    }
}

impl<T> PushTimeoutError<T> {
    /// Gives the item back.
    pub fn into_item(self) -> T {
        match self {
            PushTimeoutError::Timeout(item) | PushTimeoutError::Closed(item) => item,
        }
    }
}

const CLOSED: &str = "the queue is closed";

// By hand, so that `unwrap` and `?` work for items that are not `Debug`.
impl<T> fmt::Debug for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushError(..)")
    }
}

impl<T> fmt::Debug for TryPushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryPushError::Full(_) => "Full(..)",
            TryPushError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Debug for PushTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushTimeoutError::Timeout(_) => "Timeout(..)",
            PushTimeoutError::Closed(_) => "Closed(..)",
        })
    }
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CLOSED)
    }
}

impl<T> fmt::Display for TryPushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryPushError::Full(_) => "the queue is full",
            TryPushError::Closed(_) => CLOSED,
        })
    }
}

impl<T> fmt::Display for PushTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PushTimeoutError::Timeout(_) => "the queue stayed full for the whole time given",
            PushTimeoutError::Closed(_) => CLOSED,
        })
    }
}

impl fmt::Display for PopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CLOSED)
    }
}

impl fmt::Display for TryPopError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TryPopError::Empty => "the queue is empty",
            TryPopError::Closed => CLOSED,
        })
    }
}

impl fmt::Display for PopTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PopTimeoutError::Timeout => "the queue stayed empty for the whole time given",
            PopTimeoutError::Closed => CLOSED,
        })
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CLOSED)
    }
}

impl fmt::Display for JoinTimeoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not everything was answered within the time given")
    }
}

impl<T> Error for PushError<T> {}
impl<T> Error for TryPushError<T> {}
impl<T> Error for PushTimeoutError<T> {}
impl Error for PopError {}
impl Error for TryPopError {}
impl Error for PopTimeoutError {}
impl Error for Closed {}
impl Error for JoinTimeoutError {}
