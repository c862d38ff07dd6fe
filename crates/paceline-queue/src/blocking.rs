//! Threads that must not wait: those that run an event loop.
//!
//! A thread of an event loop that waits for a queue holds up every task of
//! the loop, perhaps the very one that would end the wait. The loop says so
//! by a guard, and the waiting operations refuse to be called under it.

use std::cell::Cell;
use std::marker::PhantomData;

thread_local! {
    static IS_EVENT_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// Says that the calling thread runs an event loop, until this is dropped.
///
/// Until then every waiting operation of every queue panics on this thread,
/// also one that would not have to wait this time: a mistake that shows only
/// under load is hard to find. The `try_` forms, the async forms, and those
/// with a limit of zero are not affected.
///
/// # Examples
///
/// ```
/// use paceline_queue::{OnEventLoop, Queue};
///
/// let queue = Queue::bounded(1);
/// let _here = OnEventLoop::enter();
/// queue.try_push('a')?;
/// assert!(std::panic::catch_unwind(|| queue.pop()).is_err());
/// assert_eq!(queue.try_pop(), Ok('a'));
/// # Ok::<(), paceline_queue::TryPushError<char>>(())
/// ```
#[derive(Debug)]
#[must_use = "it counts until it is dropped"]
pub struct OnEventLoop {
    was: bool,
    /// It is about this thread, so it stays there.
    not_send: PhantomData<*const ()>,
}

impl OnEventLoop {
    /// Says that the calling thread runs an event loop.
    pub fn enter() -> Self {
        Self { was: IS_EVENT_LOOP.replace(true), not_send: PhantomData }
    }

    /// Returns whether the calling thread runs an event loop.
    #[must_use]
    #[inline]
    pub fn is_here() -> bool {
        IS_EVENT_LOOP.get()
    }
}

impl Drop for OnEventLoop {
    fn drop(&mut self) {
        IS_EVENT_LOOP.set(self.was);
    }
}

/// Refuses to wait where that would hold up an event loop.
#[inline]
#[track_caller]
pub(crate) fn refuse_on_event_loop() {
    if OnEventLoop::is_here() {
        refused();
    }
}

#[cold]
#[track_caller]
fn refused() -> ! {
    panic!(
        "a waiting operation of a queue was called on an event loop, which it would hold up: \
         await the `_async` form, or move the work to a thread"
    );
}
