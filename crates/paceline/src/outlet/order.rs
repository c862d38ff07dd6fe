//! Restores the order in which items came from the source.
//!
//! Positions are contiguous, and whatever enters a stage leaves it, so the
//! next position to hand on is always known. Results wait in a buffer that
//! all workers of the stage share. Whoever puts the awaited one in becomes
//! the pusher and hands on all that is ready; nobody else pushes meanwhile,
//! so the order cannot be lost between the buffer and the queue.
//!
//! The buffer itself never makes anyone wait, since the awaited item might
//! be the one that waits. It is bounded by the source, which admits no more
//! than a window of items at once (`run/feed.rs`).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use super::{BoxFuture, Outlet};
use crate::{
    account::{Held, Ledger},
    item::Envelope,
    sync::lock,
};

/// What the workers of an ordered stage share.
pub(crate) struct Order<T>(Mutex<Buffer<T>>);

struct Buffer<T> {
    /// The place of position `next` is the front.
    waiting: VecDeque<Option<Envelope<T>>>,
    next: u64,
    has_pusher: bool,
}

impl<T> Order<T> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Buffer { waiting: VecDeque::new(), next: 1, has_pusher: false }))
    }

    /// Answers for what waits for an item that never came, since the run was
    /// stopped. Only when all workers have ended.
    pub(crate) fn abandon(&self, ledger: &Arc<Ledger>) {
        let left = lock(&self.0).waiting.drain(..).flatten().collect();
        drop(Held::new(ledger.clone(), None).with(left));
    }
}

impl<T> Buffer<T> {
    fn put(&mut self, envelope: Envelope<T>) {
        let place = (envelope.id.position - self.next) as usize;
        if place >= self.waiting.len() {
            self.waiting.resize_with(place + 1, || None);
        }
        self.waiting[place] = Some(envelope);
    }

    fn take_ready(&mut self, ready: &mut Held<T>) {
        while let Some(Some(_)) = self.waiting.front() {
            ready.extend(self.waiting.pop_front().flatten());
            self.next += 1;
        }
    }
}

/// One worker's way through the buffer.
pub(crate) struct OrderOutlet<'s, T> {
    order: &'s Order<T>,
    inner: Box<dyn Outlet<T> + 's>,
    ready: Held<T>,
    is_pusher: bool,
}

impl<'s, T> OrderOutlet<'s, T> {
    pub(crate) fn new(
        order: &'s Order<T>,
        inner: Box<dyn Outlet<T> + 's>,
        ledger: &Arc<Ledger>,
    ) -> Self {
        Self { order, inner, ready: Held::new(ledger.clone(), None), is_pusher: false }
    }

    /// Puts `held` into the buffer, and takes what is ready if the push falls to this worker.
    fn put(&mut self, held: &mut Held<T>) {
        let mut buffer = lock(&self.order.0);
        while let Some(envelope) = held.pop_front() {
            buffer.put(envelope);
        }
        if !buffer.has_pusher {
            buffer.take_ready(&mut self.ready);
            buffer.has_pusher = !self.ready.is_empty();
            self.is_pusher = buffer.has_pusher;
        }
    }

    /// After a push: takes what became ready meanwhile, or lays the push down.
    fn take_more(&mut self) {
        let mut buffer = lock(&self.order.0);
        buffer.take_ready(&mut self.ready);
        buffer.has_pusher = !self.ready.is_empty();
        self.is_pusher = buffer.has_pusher;
    }
}

impl<T: Send> Outlet<T> for OrderOutlet<'_, T> {
    fn try_push(&mut self, held: &mut Held<T>) -> bool {
        self.put(held);
        while self.is_pusher {
            if !self.inner.try_push(&mut self.ready) {
                return false;
            }
            self.take_more();
        }
        true
    }

    fn push<'a>(&'a mut self, held: &'a mut Held<T>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.put(held);
            while self.is_pusher {
                self.inner.push(&mut self.ready).await;
                self.take_more();
            }
        })
    }

    fn most(&self) -> usize {
        self.inner.most()
    }

    fn is_wanted(&self) -> bool {
        self.inner.is_wanted()
    }

    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
}
