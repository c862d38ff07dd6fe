//! The way out: takes what the last stage gives, on the caller's thread.

use paceline_queue::Queue;

use super::Core;
use crate::{
    account::{Held, Output},
    chunk::{self, Chunk},
    item::{Envelope, ItemId, Load},
    journal::{last_entry, recorded},
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
    let guard = OnUnwind { core, queue };
    let mut inbox = Held::new(core.ledger.clone(), None);
    let mut chunk = Chunk::new();
    while queue.pop_batch_async(&mut inbox, chunk.size(chunk::MOST)).await.is_ok() {
        see_recorded(core, &mut inbox).await;
        let (items, started) = (inbox.len(), core.clock.now());
        let serving = core.sink.shard(0).serve(started, &core.clock);
        core.ledger.end_all(&mut inbox, &mut take);
        let ended = core.clock.now();
        serving.end(ended);
        chunk.took(items, ended.saturating_sub(started));
    }
    core.note_blocked_at_exit(queue.stats().waited_on_full);
    std::mem::forget(guard);
}

/// Closes the way out where there is no sink, and answers for what is in it.
pub(crate) fn close<T>(core: &Core, queue: &Queue<Envelope<T>>) {
    let left = queue.close_now();
    drop(Held::new(core.ledger.clone(), None).with(left));
}

/// Waits until what has come is recorded. What cannot be is unfinished: nobody is told of a value
/// that a kill could undo.
pub(crate) async fn see_recorded<T>(core: &Core, inbox: &mut Held<T>) {
    // Not urgent: while the sink waits the stages go on.
    let last = last_entry(core, inbox.iter());
    if !recorded(core, last, false).await {
        for envelope in inbox.iter_mut() {
            if let Load::Item(_) = envelope.load {
                envelope.load = Load::Unfinished;
            }
        }
    }
}

/// Closes the way out when the sink panics.
pub(crate) struct OnUnwind<'s, T> {
    pub(crate) core: &'s Core,
    pub(crate) queue: &'s Queue<Envelope<T>>,
}

impl<T> Drop for OnUnwind<'_, T> {
    fn drop(&mut self) {
        self.core.stop.cancel();
        close(self.core, self.queue);
    }
}
