//! What the engine tells while it runs.
//!
//! An observer is told and cannot change the run. It is called by whichever
//! worker the event happened to, so it must be quick and must not wait for
//! the run itself. Without an observer none of this costs anything.
//!
//! Not here: counters that can be read at any time, which are
//! [`Progress`](crate::Progress).

use std::time::Duration;

use crate::{
    failure::Failure,
    item::{Ending, ItemId},
    pace::Survey,
};

/// Whoever is told of events. All methods do nothing unless written.
///
/// If one panics the run is cancelled, and the panic goes on to whoever runs
/// the pipeline when every thread has ended.
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU64, Ordering}};
/// use paceline::{Ending, Observer, Pipeline};
///
/// #[derive(Default)]
/// struct Count(AtomicU64);
///
/// impl Observer for Count {
///     fn item_ended(&self, _item: u64, _ending: &Ending) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
/// }
///
/// let count = Arc::new(Count::default());
/// Pipeline::from_iter(0..5)
///     .cpu("drop", |_| Ok::<_, paceline::BoxError>(()))
///     .observer(count.clone())
///     .run()?;
/// assert_eq!(count.0.load(Ordering::Relaxed), 5);
/// # Ok::<(), paceline::Error>(())
/// ```
pub trait Observer: Send + Sync {
    /// A stage has answered for an item, for good.
    fn stage_ended(&self, _event: &StageEnded<'_>) {}

    /// An attempt failed and the item gets another one after `delay`.
    fn retrying(&self, _failure: &Failure, _delay: Duration) {}

    /// An item failed for good. Told at once, before the item's own ending.
    fn failed(&self, _failure: &Failure) {}

    /// An item on a thread has run longer than its stage's timeout; a thread
    /// cannot be killed, so its attempt fails when the worker returns.
    fn overdue(&self, _item: &ItemId, _stage: &str, _timeout: Duration) {}

    /// A future of an `io` stage has not come back from a poll for longer than
    /// [`Pipeline::watch`](crate::Pipeline::watch) allows: it holds up every
    /// other future of its event loop, perhaps for ever. Told once a poll,
    /// while it goes on.
    fn stuck_poll(&self, _item: &ItemId, _stage: &str, _so_far: Duration) {}

    /// A poll of an `io` stage's future took longer than
    /// [`Pipeline::watch`](crate::Pipeline::watch) allows. Told once a poll,
    /// when it has ended.
    fn slow_poll(&self, _item: &ItemId, _stage: &str, _took: Duration) {}

    /// The pace has looked at the run for a while, and perhaps changed the
    /// numbers of workers. Told by the run's service thread.
    fn paced(&self, _survey: &Survey) {}

    /// A `command` stage has waited for a second to start a child, since the
    /// system has no processes or descriptors left. It goes on waiting while
    /// other children run, whose end gives some back. Told once an item that waits.
    fn waits_to_start(&self, _stage: &str, _why: &str) {}

    /// An item of the source has ended; each one ends exactly once.
    fn item_ended(&self, _item: u64, _ending: &Ending) {}

    /// Nothing has moved for the time set by
    /// [`Pipeline::stall_after`](crate::Pipeline::stall_after) while items are inside.
    fn stalled(&self, _stages: &[StageState]) {}
}

/// A stage's answer for an item.
#[derive(Debug)]
pub struct StageEnded<'a> {
    /// The item, or the items of a batch.
    pub item: &'a ItemId,
    /// The stage, counted from 0.
    pub stage: usize,
    /// The stage's name.
    pub name: &'a str,
    /// What became of the item here.
    pub ending: &'a Ending,
    /// How many attempts were made.
    pub attempts: u32,
    /// The time from the start of the last attempt to its outcome.
    pub service: Duration,
}

/// What a stage is doing, for a report of a stall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageState {
    /// The stage's name.
    pub name: String,
    /// Items waiting before it.
    pub depth: usize,
    /// The most that may wait there.
    pub capacity: usize,
    /// Items that its workers have in hand.
    pub in_service: u64,
    /// Items that wait for another attempt.
    pub waiting_for_retry: usize,
}
