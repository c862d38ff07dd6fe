//! The way in: takes items from the source and hands them to the first stage.
//!
//! Items are gathered only while the iterator says that more are at hand
//! (the lower bound of its `size_hint`), so that an item never waits here for
//! one that the source does not have yet.
//!
//! Stopping: from [`StopLevel::Drain`] on nothing more is taken. A source
//! that is waiting for its next item notices when it has got it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::Core;
use crate::{
    account::Held,
    chunk::Chunk,
    error::{Error, ErrorKind},
    item::{Envelope, ItemId, Load},
    journal::{Answered, Hooks, Record},
    outlet::{BoxFuture, Outlet, Slot, hand_on},
    stop::StopLevel,
    sync::first,
    worker::panic_message,
};

/// Where items come from.
pub(crate) trait Source<'a>: Send {
    /// Feeds the first stage until the source ends or the run is stopped.
    fn feed<'s>(&'s mut self, core: &'s Core) -> BoxFuture<'s, ()>;
}

/// An iterator as a source.
pub(crate) struct Items<'a, I: Iterator> {
    pub(crate) items: I,
    pub(crate) slot: Slot<'a, I::Item>,
    pub(crate) hooks: Arc<Hooks<'a, (), I::Item>>,
}

impl<'a, I> Source<'a> for Items<'a, I>
where
    I: Iterator + Send,
    I::Item: Send,
{
    fn feed<'s>(&'s mut self, core: &'s Core) -> BoxFuture<'s, ()> {
        Box::pin(async move {
            let link = self.slot.get().expect("links are joined before a run");
            let mut feed = Feed {
                core,
                outlet: link.outlet(&core.ledger),
                outbox: Held::new(core.ledger.clone(), None),
                taken: 0,
                recorder: self.hooks.recorder().map(|record| record as _),
            };
            let fed = feed.all(&mut self.items).await;
            feed.hand_over().await;
            match fed {
                Ok(is_at_end) => core.ledger.source_ended.store(is_at_end, Ordering::Relaxed),
                Err(error) => core.fail(error),
            }
        })
    }
}

struct Feed<'s, T> {
    core: &'s Core,
    outlet: Box<dyn Outlet<T> + 's>,
    outbox: Held<T>,
    taken: u64,
    recorder: Option<&'s Record<'s, T>>,
}

impl<T> Feed<'_, T> {
    /// Takes items until there are no more, and tells whether that was the reason to end.
    async fn all(&mut self, items: &mut (impl Iterator<Item = T> + Send)) -> Result<bool, Error> {
        let mut chunk = Chunk::new();
        while let Some(room) = self.admitted().await {
            let started = self.core.clock.now();
            let serving = self.core.source.shard(0).serve(started, &self.core.clock);
            let is_at_end = self.gather(items, chunk.size(room), &chunk)?;
            let ended = self.core.clock.now();
            serving.end(ended);
            chunk.took(self.outbox.len().max(1), ended.saturating_sub(started));
            self.hand_over().await;
            if is_at_end {
                // A source may give up waiting because the run is being stopped.
                if self.core.stop.level() == StopLevel::None {
                    return Ok(true);
                }
                break;
            }
        }
        // A source that knows that it is empty has ended all the same.
        caught(|| items.size_hint().1 == Some(0))
    }

    /// Takes up to `most` items, as long as they are at hand and nobody waits
    /// for those taken. Tells whether there are no more.
    fn gather(
        &mut self,
        items: &mut impl Iterator<Item = T>,
        most: usize,
        chunk: &Chunk,
    ) -> Result<bool, Error> {
        caught(|| {
            loop {
                let left = most - self.outbox.len();
                let few = left.min(chunk.at_a_stretch()).min(items.size_hint().0.max(1));
                let before = self.outbox.len();
                self.outbox.extend(items.by_ref().take(few).map(|item| {
                    self.taken += 1;
                    let id = ItemId::of_source(self.taken);
                    let entry = self.recorder.map_or(0, |record| {
                        let service = Duration::ZERO;
                        let outcome = Ok(&item);
                        record(&Answered { item: &id, outcome, attempts: 0, slot: 0, service })
                    });
                    Envelope::new(id, Load::Item(item)).recorded_as(entry)
                }));
                if self.outbox.len() < before + few {
                    return true;
                }
                if few == left
                    || items.size_hint().0 == 0
                    || chunk.is_slow()
                    || self.outlet.is_wanted()
                    || self.core.stop.level() > StopLevel::None
                {
                    return false;
                }
            }
        })
    }

    /// Waits while as many items are inside as an ordered run may hold, and
    /// tells how many may be taken; `None` if the run is being stopped.
    async fn admitted(&mut self) -> Option<usize> {
        let Core { ledger, stop, window, .. } = self.core;
        let mut room = self.outlet.most();
        if self.core.least_window.is_some() {
            // It may change with the number of workers.
            let window = || window.load(Ordering::Relaxed);
            let has_room = ledger.has_ended.until(|| ledger.in_flight() < window());
            first(has_room, stop.reached(StopLevel::Drain)).await;
            let left = window().saturating_sub(ledger.in_flight());
            room = room.min(usize::try_from(left).unwrap_or(usize::MAX));
        }
        (stop.level() == StopLevel::None).then_some(room)
    }

    async fn hand_over(&mut self) {
        self.core.ledger.taken.fetch_add(self.outbox.len() as u64, Ordering::SeqCst);
        hand_on(&mut *self.outlet, &mut self.outbox).await;
    }
}

/// Asks the source; its panic is an error of the run.
fn caught<R>(ask: impl FnOnce() -> R) -> Result<R, Error> {
    catch_unwind(AssertUnwindSafe(ask)).map_err(|panic| {
        let message = panic_message(&*panic).replace("the worker", "the source");
        Error::new(ErrorKind::Source, message)
    })
}
