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
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    time::Duration,
};

use super::Core;
use crate::{
    account::Held,
    failure::{Failure, FailureKind, Fault},
    item::{Envelope, Family, ItemId, Load},
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

/// The loop that makes a stage's batches.
pub(crate) struct FanIn<'s, T, U, M> {
    stage: &'s Stage<T>,
    core: &'s Core,
    batching: Batching,
    merge: &'s M,
    values: Vec<T>,
    ids: Vec<ItemId>,
    due: Option<Duration>,
    position: u64,
    /// Batches made so far; positions also count what is carried past.
    batches: u64,
    outbox: Held<U>,
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
        merge: &'s M,
    ) -> Self {
        let outbox = Held::new(core.ledger.clone(), None);
        let (values, ids) = (Vec::new(), Vec::new());
        Self {
            stage,
            core,
            batching,
            merge,
            values,
            ids,
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
            self.stage.count_fed(inbox.iter(), 0);
            while let Some(envelope) = inbox.pop_front() {
                self.gather(envelope);
                if self.outbox.len() >= outlet.most() {
                    hand_on(&mut *outlet, &mut self.outbox).await;
                }
            }
            if ended {
                self.close_batch();
            }
            hand_on(&mut *outlet, &mut self.outbox).await;
            if ended {
                self.stage.has_ended.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    fn gather(&mut self, Envelope { id, load }: Envelope<T>) {
        let carried = match load {
            Load::Item(value) => {
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
        self.send(vec![id], carried);
    }

    /// Sends what has been gathered on its way.
    fn close_batch(&mut self) {
        self.due = None;
        if self.values.is_empty() {
            return;
        }
        let items = self.values.len() as u64;
        let (values, ids) = (std::mem::take(&mut self.values), std::mem::take(&mut self.ids));
        let shard = self.stage.counters.shard(0);
        if self.core.stop.level() >= StopLevel::Halt {
            shard.unfinished.fetch_add(items, Ordering::Relaxed);
            self.send(ids, Load::Unfinished);
        } else {
            self.batches += 1;
            let number = self.batches;
            match catch_unwind(AssertUnwindSafe(|| (self.merge)(values, number))) {
                Ok(value) => {
                    shard.ok.fetch_add(items, Ordering::Relaxed);
                    self.send(ids, Load::Item(value));
                }
                Err(panic) => {
                    shard.failed.fetch_add(items, Ordering::Relaxed);
                    let failure = self.failure(&ids, &*panic);
                    self.core.ledger.note_failure(&failure);
                    self.send(ids, Load::Failed(failure));
                }
            }
        }
    }

    fn failure(&self, ids: &[ItemId], panic: &(dyn Any + Send)) -> Failure {
        let item = Family::sole_member(ids.to_vec(), 0);
        let fault = Fault::new(FailureKind::Panic, panic_message(panic));
        Failure::new(item, self.stage.settings.name.clone(), 1, fault)
    }

    fn send(&mut self, parents: Vec<ItemId>, load: Load<U>) {
        self.position += 1;
        let id = Family::sole_member(parents, self.position);
        self.outbox.push_back(Envelope::new(id, load));
    }
}
