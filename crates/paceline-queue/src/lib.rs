//! A bounded first-in, first-out queue between threads, tasks, or both.
//!
//! Many producers and many consumers share a [`Queue`]. Each operation comes
//! in a form that blocks the thread, one that only tries, one with a time
//! limit, and one to `await`; all of them work on the same queue at the same
//! time. The async forms are plain futures and need no particular runtime.
//!
//! | to | wait | try | at most | await |
//! |---|---|---|---|---|
//! | push an item | [`push`] | [`try_push`] | [`push_timeout`] | [`push_async`] |
//! | push a buffer | [`push_batch`] | [`try_push_batch`] | | [`push_batch_async`] |
//! | pop an item | [`pop`] | [`try_pop`] | [`pop_timeout`] | [`pop_async`] |
//! | pop several | [`pop_batch`] | [`try_pop_batch`] | [`pop_batch_timeout`] | [`pop_batch_async`] |
//! | take, and answer later | [`take`] | [`try_take`] | [`take_timeout`] | [`take_async`] |
//! | see everything answered | [`join`] | | [`join_timeout`] | [`join_async`] |
//!
//! One lock guards the items and whether the queue is closed, so a push and a
//! [`close`] cannot miss each other. Batches cross under one lock together;
//! they are the way to move cheap items fast. Nothing polls: an idle queue
//! costs no time at all.
//!
//! # Example
//!
//! Two stages. The queue closes itself when its last producer goes, and every
//! consumer is told the end, however many there are:
//!
//! ```
//! use std::thread;
//! use paceline_queue::Queue;
//!
//! let numbers = Queue::bounded(8);
//! let squares = Queue::bounded(8);
//! let (feed, out) = (numbers.producer(), squares.producer());
//! thread::scope(|scope| {
//!     for out in [out.clone(), out] {
//!         let numbers = &numbers;
//!         scope.spawn(move || {
//!             while let Ok(number) = numbers.pop() {
//!                 out.push(number * number).unwrap();
//!             }
//!         });
//!     }
//!     scope.spawn(move || {
//!         for number in 1..=100_u64 {
//!             feed.push(number).unwrap(); // waits while `numbers` is full
//!         }
//!     });
//!
//!     let mut sum = 0;
//!     while let Ok(square) = squares.pop() {
//!         sum += square;
//!     }
//!     assert_eq!(sum, 338_350);
//! });
//! ```
//!
//! # What is guaranteed when stopped
//!
//! - [`close`] refuses further pushes, and hands a refused item back to whoever
//!   pushed it. What is inside is delivered, then every consumer is told the
//!   end, once it asks. Nobody who waited before is forgotten.
//! - [`close_now`] hands what is inside to its caller. Every wait to push or
//!   pop ends.
//! - A future dropped before it was ready did nothing: a pop has taken
//!   nothing, a push has added nothing, a batch has left what it did not push
//!   in the buffer. A wake-up it was given goes to the next in line.
//! - An item is answered exactly once: at the pop, when the [`Taken`] guard is
//!   dropped (also by a panic), or by [`close_now`].
//! - A panic in an item's `Drop` or in a consumer does not harm the queue;
//!   items are never dropped under its lock, so their `Drop` may use it.
//!
//! A waiting operation on a thread that runs an event loop would hold up all
//! of its tasks; it panics there, if the loop has said so by [`OnEventLoop`].
//!
//! Nothing is kept across a crash of the process.
//!
//! Not here: other orders than first in, first out (there are no priorities),
//! and anything that knows what a stage is.
//!
//! [`push`]: Queue::push
//! [`try_push`]: Queue::try_push
//! [`push_timeout`]: Queue::push_timeout
//! [`push_async`]: Queue::push_async
//! [`push_batch`]: Queue::push_batch
//! [`try_push_batch`]: Queue::try_push_batch
//! [`push_batch_async`]: Queue::push_batch_async
//! [`pop`]: Queue::pop
//! [`try_pop`]: Queue::try_pop
//! [`pop_timeout`]: Queue::pop_timeout
//! [`pop_async`]: Queue::pop_async
//! [`pop_batch`]: Queue::pop_batch
//! [`try_pop_batch`]: Queue::try_pop_batch
//! [`pop_batch_timeout`]: Queue::pop_batch_timeout
//! [`pop_batch_async`]: Queue::pop_batch_async
//! [`take`]: Queue::take
//! [`try_take`]: Queue::try_take
//! [`take_timeout`]: Queue::take_timeout
//! [`take_async`]: Queue::take_async
//! [`join`]: Queue::join
//! [`join_timeout`]: Queue::join_timeout
//! [`join_async`]: Queue::join_async
//! [`close`]: Queue::close
//! [`close_now`]: Queue::close_now

mod answer;
mod blocking;
mod error;
mod future;
mod hold;
mod join;
mod operation;
mod pop;
mod producer;
mod push;
mod queue;
mod shared;
mod state;
mod stats;
mod sync;
mod wait;
mod waiters;

pub use answer::{Answer, Taken};
pub use blocking::OnEventLoop;
pub use error::{
    Closed, JoinTimeoutError, PopError, PopTimeoutError, PushError, PushTimeoutError, TryPopError,
    TryPushError,
};
pub use future::{JoinFuture, PopBatchFuture, PopFuture, PushBatchFuture, PushFuture, TakeFuture};
pub use hold::{Hold, PutBackError};
pub use producer::Producer;
pub use queue::Queue;
pub use stats::Stats;
