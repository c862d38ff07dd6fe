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
    sync::atomic::Ordering,
};

use super::Core;
use crate::{
    account::Held,
    chunk::{self, Chunk},
    error::{Error, ErrorKind},
    item::{Envelope, ItemId, Load},
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
}

impl<T> Feed<'_, T> {
    /// Takes items until there are no more, and tells whether that was the reason to end.
    async fn all(&mut self, items: &mut (impl Iterator<Item = T> + Send)) -> Result<bool, Error> {
        let mut chunk = Chunk::new();
        let mut since = self.core.clock.now();
        loop {
            let is_last_at_hand = items.size_hint().0 == 0;
            if self.outbox.len() >= chunk.size(chunk::MOST)
                || !self.outbox.is_empty()
                    && (is_last_at_hand || chunk.is_slow() || self.outlet.is_wanted())
            {
                let now = self.core.clock.now();
                chunk.took(self.outbox.len(), now.saturating_sub(since));
                self.hand_over().await;
                since = self.core.clock.now();
            }
            if !self.is_admitted().await {
                // A source that knows that it is empty has ended all the same.
                return Ok(items.size_hint().1 == Some(0));
            }
            match catch_unwind(AssertUnwindSafe(|| items.next())) {
                Ok(Some(item)) => {
                    self.taken += 1;
                    let id = ItemId::of_source(self.taken);
                    self.outbox.push_back(Envelope::new(id, Load::Item(item)));
                }
                Ok(None) => return Ok(true),
                Err(panic) => {
                    let message = panic_message(&*panic).replace("the worker", "the source");
                    return Err(Error::new(ErrorKind::Source, message));
                }
            }
        }
    }

    /// Waits while as many items are inside as an ordered run may hold, and
    /// tells whether another may be taken at all.
    async fn is_admitted(&mut self) -> bool {
        let Core { ledger, stop, window, .. } = self.core;
        if let Some(window) = *window
            && ledger.in_flight() + self.outbox.len() as u64 >= window
        {
            self.hand_over().await;
            let has_room = ledger.has_ended.until(|| ledger.in_flight() < window);
            first(has_room, stop.reached(StopLevel::Drain)).await;
        }
        stop.level() == StopLevel::None
    }

    async fn hand_over(&mut self) {
        self.core.ledger.taken.fetch_add(self.outbox.len() as u64, Ordering::SeqCst);
        hand_on(&mut *self.outlet, &mut self.outbox).await;
    }
}
