//! The way out: takes what the last stage gives, on the caller's thread.

use std::sync::Arc;

use paceline_queue::Queue;

use super::Core;
use crate::{
    account::{Held, Ledger, Output},
    chunk::{self, Chunk},
    item::{Envelope, ItemId},
};

/// Takes everything until the last stage has ended, and gives it to `take`.
///
/// If `take` panics, the run is cancelled before the panic goes on, so that
/// no stage waits for a sink that is gone.
pub(crate) async fn drain<T>(
    core: &Core,
    queue: &Queue<Envelope<T>>,
    mut take: impl FnMut(&ItemId, Output<T>),
) {
    let guard = OnUnwind { core, queue, ledger: &core.ledger };
    let mut inbox = Held::new(core.ledger.clone(), None);
    let mut chunk = Chunk::new();
    while queue.pop_batch_async(&mut inbox, chunk.size(chunk::MOST)).await.is_ok() {
        let (items, started) = (inbox.len(), core.clock.now());
        core.ledger.end_all(&mut inbox, &mut take);
        chunk.took(items, core.clock.now().saturating_sub(started));
    }
    core.note_blocked_at_exit(queue.stats().waited_on_full);
    std::mem::forget(guard);
}

/// Closes the way out when the sink panics.
pub(crate) struct OnUnwind<'s, T> {
    pub(crate) core: &'s Core,
    pub(crate) queue: &'s Queue<Envelope<T>>,
    pub(crate) ledger: &'s Arc<Ledger>,
}

impl<T> Drop for OnUnwind<'_, T> {
    fn drop(&mut self) {
        self.core.stop.cancel();
        let left = self.queue.close_now();
        drop(Held::new(self.ledger.clone(), None).with(left));
    }
}
