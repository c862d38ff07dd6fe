//! Fan-in: several items become one batch, by count or by age.
//!
//! One loop makes all batches of a stage, in the order in which items
//! arrive, so that a batch is as full as it can be. Batches count anew from
//! 1 and answer for all their items.
//!
//! Stopping: from [`StopLevel::Halt`](crate::StopLevel::Halt) on, what has
//! been gathered is carried on as unfinished.

use std::{
    any::Any,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Duration,
};

use super::Core;
use crate::{
    account::Held,
    failure::{Failure, FailureKind, Fault},
    item::{Envelope, Family, ItemId, Load},
    journal::{last_entry, recorded},
    outlet::{Outlet, hand_on},
    stage::Stage,
    stop::StopLevel,
    sync::{Either, first},
    worker::panic_message,
};

/// How batches are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batching {
    /// The most items in a batch, 1 or more.
    pub(crate) items: usize,
    /// How long the first item of a batch waits for the last, if not for ever.
    pub(crate) wait: Option<Duration>,
}

/// The queue before a fan-in, where it is not the usual one: large batches
/// hold many values anyway, and one by one each would cost a wake-up.
pub(crate) fn queue_for<T>(items: usize) -> Option<usize> {
    /// That of cheap values is longer still.
    const MOST: usize = 1024;
    (std::mem::needs_drop::<T>() && items > 16).then(|| items.min(MOST))
}

/// A part of a batch that an earlier run has made: it is made of the same parts again.
///
/// ```
/// let part = paceline::Part { batch: 7, items: 2, of: 6 };
/// # let _ = part;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// The batch's number.
    pub batch: u64,
    /// How many of its items this part stands for.
    pub items: usize,
    /// How many items it had.
    pub of: usize,
}

/// The loop that makes a stage's batches.
pub(crate) struct FanIn<'s, T, U, M> {
    stage: &'s Stage<T>,
    core: &'s Core,
    batching: Batching,
    recalled: Option<fn(&T) -> Option<Part>>,
    merge: &'s M,
    values: Vec<T>,
    ids: Vec<ItemId>,
    /// Batches of an earlier run that are not all here yet, by number.
    again: BTreeMap<u64, Again<T>>,
    due: Option<Duration>,
    position: u64,
    /// Batches made so far; positions also count what is carried past.
    batches: u64,
    outbox: Held<U>,
}

/// A batch of an earlier run, as far as its parts are here.
struct Again<T> {
    values: Vec<T>,
    ids: Vec<ItemId>,
    items: usize,
}

impl<'s, T, U, M> FanIn<'s, T, U, M>
where
    T: Send,
    U: Send,
    M: Fn(Vec<T>, u64) -> U + Sync,
{
    pub(crate) fn new(
        stage: &'s Stage<T>,
        core: &'s Core,
        batching: Batching,
        recalled: Option<fn(&T) -> Option<Part>>,
        merge: &'s M,
    ) -> Self {
        let outbox = Held::new(core.ledger.clone(), None);
        let (values, ids) = (Vec::new(), Vec::new());
        Self {
            stage,
            core,
            batching,
            recalled,
            merge,
            values,
            ids,
            again: BTreeMap::new(),
            due: None,
            position: 0,
            batches: 0,
            outbox,
        }
    }

    pub(crate) async fn run(mut self, mut outlet: Box<dyn Outlet<U> + '_>) {
        let mut inbox = Held::new(self.core.ledger.clone(), Some(self.stage.counters.clone()));
        loop {
            // Items that keep coming must not keep a batch from its age.
            if self.due.is_some_and(|due| self.core.clock.now() >= due) {
                self.close_batch();
                hand_on(&mut *outlet, &mut self.outbox).await;
            }
            let popped = self.stage.queue.pop_batch_async(&mut inbox, self.stage.chunk_limit());
            let ended = match self.due {
                None => popped.await.is_err(),
                Some(due) => match first(popped, self.core.clock.until(due)).await {
                    Either::First(popped) => popped.is_err(),
                    Either::Second(()) => {
                        self.close_batch();
                        false
                    }
                },
            };
            recorded(self.core, last_entry(self.core, inbox.iter()), true).await;
            self.stage.count_fed(inbox.iter(), 0);
            while let Some(envelope) = inbox.pop_front() {
                self.gather(envelope);
                if self.outbox.len() >= outlet.most() {
                    hand_on(&mut *outlet, &mut self.outbox).await;
                }
            }
            if ended {
                self.close_batch();
                // Without all its parts it goes on as it is.
                for (number, Again { values, ids, .. }) in std::mem::take(&mut self.again) {
                    self.merge(number, values, ids);
                }
            }
            hand_on(&mut *outlet, &mut self.outbox).await;
            if ended {
                self.stage.has_ended.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    fn gather(&mut self, Envelope { id, entry, load }: Envelope<T>) {
        let carried = match load {
            Load::Item(value) => {
                if let Some(part) = self.recalled.and_then(|recalled| recalled(&value)) {
                    return self.gather_again(id, value, part);
                }
                self.values.push(value);
                self.ids.push(id);
                if self.values.len() >= self.batching.items {
                    self.close_batch();
                } else if self.values.len() == 1 {
                    let now = self.core.clock.now();
                    self.due = self.batching.wait.map(|wait| now.saturating_add(wait));
                }
                return;
            }
            Load::Failed(failure) => Load::Failed(failure),
            Load::Unfinished => Load::Unfinished,
            Load::Again(_) => unreachable!("making a batch is never tried again"),
        };
        self.send(vec![id], carried, entry);
    }

    /// Puts a part to the others of its batch.
    fn gather_again(&mut self, id: ItemId, value: T, part: Part) {
        let again = self.again.entry(part.batch).or_insert_with(|| Again {
            values: Vec::new(),
            ids: Vec::new(),
            items: 0,
        });
        again.values.push(value);
        again.ids.push(id);
        again.items += part.items;
        if again.items >= part.of
            && let Some(Again { values, ids, .. }) = self.again.remove(&part.batch)
        {
            self.merge(part.batch, values, ids);
        }
    }

    /// Sends what has been gathered on its way.
    fn close_batch(&mut self) {
        self.due = None;
        if self.values.is_empty() {
            return;
        }
        let (values, ids) = (std::mem::take(&mut self.values), std::mem::take(&mut self.ids));
        self.batches += 1;
        self.merge(self.batches, values, ids);
    }

    fn merge(&mut self, number: u64, values: Vec<T>, ids: Vec<ItemId>) {
        let items = values.len() as u64;
        let shard = self.stage.counters.shard(0);
        if self.core.stop.level() >= StopLevel::Halt {
            shard.unfinished.fetch_add(items, Ordering::Relaxed);
            self.send(ids, Load::Unfinished, 0);
        } else {
            match catch_unwind(AssertUnwindSafe(|| (self.merge)(values, number))) {
                Ok(value) => {
                    shard.ok.fetch_add(items, Ordering::Relaxed);
                    self.send(ids, Load::Item(value), 0);
                }
                Err(panic) => {
                    shard.failed.fetch_add(items, Ordering::Relaxed);
                    let failure = self.failure(&ids, &*panic);
                    self.core.ledger.note_failure(&failure);
                    self.send(ids, Load::Failed(failure), 0);
                }
            }
        }
    }

    fn failure(&self, ids: &[ItemId], panic: &(dyn Any + Send)) -> Failure {
        let item = Family::sole_member(ids.to_vec(), 0);
        let fault = Fault::new(FailureKind::Panic, panic_message(panic));
        Failure::new(item, self.stage.settings.name.clone(), 1, fault)
    }

    fn send(&mut self, parents: Vec<ItemId>, load: Load<U>, entry: u64) {
        self.position += 1;
        let id = Family::sole_member(parents, self.position);
        self.outbox.push_back(Envelope::new(id, load).recorded_as(entry));
    }
}
