//! Where a run is recorded, as the engine sees it.
//!
//! The engine knows no files and no formats. Whoever builds a pipeline says
//! for each stage what is recorded of an answer, by
//! [`Pipeline::record`](crate::Pipeline::record), and gets a number for it; the envelope
//! carries that number on. Whoever takes an envelope out of a queue waits until its number is
//! recorded, so that no stage and no sink ever sees what a kill could undo.
//! The wait is on the taking side: the worker that has answered is free for
//! its next item at once, and by the time that somebody comes for the
//! result it has mostly been recorded.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{Mutex, OnceLock},
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    error::{Error, ErrorKind},
    failure::{BoxError, Failure},
    item::{Envelope, ItemId},
    run::Core,
    sync::lock,
};

/// The durable record of a run.
///
/// ```
/// use std::{sync::{Arc, atomic::{AtomicU64, Ordering}}, task::{Context, Poll}};
/// use paceline::{BoxError, Journal, Pipeline};
///
/// /// Counts what it is to record, and calls it recorded at once.
/// #[derive(Default)]
/// struct Count(AtomicU64);
///
/// impl Journal for Count {
///     fn is_recorded(&self, _: u64) -> bool {
///         true
///     }
///     fn poll_recorded(&self, _: u64, _: bool, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
///         Poll::Ready(Ok(()))
///     }
/// }
///
/// let journal = Arc::new(Count::default());
/// let count = journal.clone();
/// Pipeline::from_iter(1..=5)
///     .cpu("double", |n: u32| Ok::<_, BoxError>(2 * n))
///     .record(move |_| 1 + count.0.fetch_add(1, Ordering::Relaxed))
///     .journal(journal.clone())
///     .discard()
///     .run()?;
/// assert_eq!(journal.0.load(Ordering::Relaxed), 5);
/// # Ok::<(), paceline::Error>(())
/// ```
pub trait Journal: Send + Sync {
    /// Returns whether all up to this entry is recorded, without waiting.
    fn is_recorded(&self, entry: u64) -> bool;

    /// Waits until all up to this entry is recorded. `is_urgent` says that
    /// whoever waits has nothing else to do.
    ///
    /// # Errors
    ///
    /// If it cannot be. The run is then killed, and items that are not recorded are unfinished.
    fn poll_recorded(
        &self,
        entry: u64,
        is_urgent: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>>;
}

/// A stage's answer for an item, as it is to be recorded.
#[derive(Debug)]
pub struct Answered<'a, T> {
    /// The item, or the items of a batch.
    pub item: &'a ItemId,
    /// The value, or why there is none.
    pub outcome: Result<&'a T, &'a Failure>,
    /// How many attempts were made.
    pub attempts: u32,
    /// The slot of the worker, from 1.
    pub slot: usize,
    /// The time from the start of the last attempt to its outcome.
    pub service: Duration,
}

/// What records a stage's answers, and gives the number of each.
pub(crate) type Record<'a, T> = dyn Fn(&Answered<'_, T>) -> u64 + Send + Sync + 'a;

/// What a stage does beside its work, of items of type `In` that become `Out`.
pub(crate) struct Hooks<'a, In, Out> {
    pub(crate) recorder: OnceLock<Box<Record<'a, Out>>>,
    pub(crate) recalled: OnceLock<Recalled<In, Out>>,
}

impl<'a, In, Out> Hooks<'a, In, Out> {
    pub(crate) fn recorder(&self) -> Option<&Record<'a, Out>> {
        self.recorder.get().map(|record| &**record)
    }
}

impl<In, Out> Default for Hooks<'_, In, Out> {
    fn default() -> Self {
        Self { recorder: OnceLock::new(), recalled: OnceLock::new() }
    }
}

/// What tells whether an item has been answered by this stage already.
pub(crate) struct Recalled<In, Out> {
    pub(crate) is_recalled: fn(&In) -> bool,
    pub(crate) recall: fn(In) -> Out,
}

/// The last entry that must be recorded before these envelopes may be seen; 0 if there is none.
pub(crate) fn last_entry<'e, T: 'e>(
    core: &Core,
    envelopes: impl IntoIterator<Item = &'e Envelope<T>>,
) -> u64 {
    match core.journal {
        None => 0,
        Some(_) => envelopes.into_iter().map(|envelope| envelope.entry).max().unwrap_or_default(),
    }
}

/// Waits until this entry is recorded, and tells whether it is.
///
/// If not, nothing is recorded any more: the run is killed.
pub(crate) async fn recorded(core: &Core, last: u64, is_urgent: bool) -> bool {
    let Some(journal) = core.journal.as_ref().filter(|_| last > 0) else { return true };
    if journal.is_recorded(last) {
        return true;
    }
    match poll_fn(|context| journal.poll_recorded(last, is_urgent, context)).await {
        Ok(()) => true,
        Err(cause) => {
            core.fail(Error::new(ErrorKind::Journal, line(&*cause)));
            core.stop.kill();
            false
        }
    }
}

/// Quicker work than this is cheap to do again, and answers too fast to be counted one by one.
const CHEAP: Duration = Duration::from_micros(100);

/// A stage that answers less often than this can do without an answer that is not recorded.
const SELDOM: Duration = Duration::from_millis(5);

/// So many answers may be unrecorded with few workers: commits cost less by the dozen, and this
/// is how many children two cores can end in some three milliseconds.
const FEW: usize = 4;

/// The answers of a stage that are not recorded yet, which a kill would have it make again.
///
/// They are bounded, however long a commit takes: a stage begins no attempt while there are more
/// than it has workers (or [`FEW`]), and none at all where that costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Lag(Mutex<Unrecorded>);

#[derive(Debug, Default)]
struct Unrecorded {
    entries: VecDeque<u64>,
    /// So many there may be when another attempt begins.
    most: usize,
}

impl Unrecorded {
    fn forget_recorded(&mut self, journal: &dyn Journal) {
        while self.entries.front().is_some_and(|entry| journal.is_recorded(*entry)) {
            self.entries.pop_front();
        }
    }
}

impl Lag {
    /// Notes an answer of a stage with so many workers, and has it recorded soon if it must be.
    pub(crate) fn answered(&self, core: &Core, entry: u64, service: Duration, workers: usize) {
        let Some(journal) = core.journal.as_ref().filter(|_| entry > 0 && service >= CHEAP) else {
            return;
        };
        let is_seldom = service >= SELDOM.saturating_mul(workers as u32);
        let mut unrecorded = lock(&self.0);
        unrecorded.most = if is_seldom { 0 } else { workers.max(FEW) };
        unrecorded.entries.push_back(entry);
        unrecorded.forget_recorded(&**journal);
        let is_urgent = unrecorded.entries.len() >= unrecorded.most;
        drop(unrecorded);
        if is_urgent {
            // So that by the next attempt there is nothing to wait for.
            let _ = journal.poll_recorded(entry, true, &mut Context::from_waker(Waker::noop()));
        }
    }

    /// The entry that must be recorded before another attempt may begin, if there is one.
    pub(crate) fn surplus(&self, core: &Core) -> Option<u64> {
        let journal = core.journal.as_ref()?;
        let mut unrecorded = lock(&self.0);
        unrecorded.forget_recorded(&**journal);
        let surplus = unrecorded.entries.len().checked_sub(unrecorded.most + 1);
        surplus.map(|last| unrecorded.entries[last])
    }
}

/// An error and its causes on one line.
fn line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line
}
