//! Where a stage's results go: the way from one stage into the next.
//!
//! An outlet is one worker's end of it, a link makes one for each worker. The
//! plain outlet pushes into the next stage's queue; the others stand before
//! it and change what passes: `order.rs` restores the input order, `fan.rs`
//! turns one item into many. A stage knows none of this: it hands over what
//! it holds.
//!
//! Not here: the queue itself (its own crate), and fan-in, which needs a
//! loop of its own (`run/fan_in.rs`).

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use paceline_queue::{Producer, Queue};

use crate::{
    account::{Held, Ledger},
    chunk,
    item::Envelope,
};

pub(crate) mod fan;
pub(crate) mod order;

/// A future on its way through a trait object.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One worker's way out.
pub(crate) trait Outlet<T>: Send {
    /// Hands on what can go without waiting, and tells whether that was all.
    fn try_push(&mut self, held: &mut Held<T>) -> bool;

    /// Hands on all of it, waiting while what is downstream is full. Ends
    /// early only when downstream takes nothing any more; what is left then
    /// is answered for as unfinished.
    fn push<'a>(&'a mut self, held: &'a mut Held<T>) -> BoxFuture<'a, ()>;

    /// How many items may be gathered here before they are handed on, such
    /// that the bound of what is downstream holds.
    fn most(&self) -> usize;

    /// Whether someone downstream waits for an item right now.
    fn is_wanted(&self) -> bool;

    /// Whether downstream takes nothing any more.
    fn is_closed(&self) -> bool;
}

/// What workers get their outlets from.
pub(crate) trait Link<T>: Send + Sync {
    fn outlet<'s>(&'s self, ledger: &Arc<Ledger>) -> Box<dyn Outlet<T> + 's>
    where
        T: 's;
}

/// The place for a link, filled when the next stage is known.
pub(crate) type Slot<'a, T> = Arc<OnceLock<Box<dyn Link<T> + 'a>>>;

/// Hands on everything, without a future where none is needed.
pub(crate) async fn hand_on<T>(outlet: &mut (dyn Outlet<T> + '_), held: &mut Held<T>) {
    if !held.is_empty() && !outlet.try_push(held) {
        outlet.push(held).await;
    }
}

/// The link into a queue.
pub(crate) struct QueueLink<T> {
    pub(crate) queue: Queue<Envelope<T>>,
    /// How many items whoever pushes may gather first.
    pub(crate) most: Arc<AtomicUsize>,
}

impl<T: Send> Link<T> for QueueLink<T> {
    fn outlet<'s>(&'s self, _: &Arc<Ledger>) -> Box<dyn Outlet<T> + 's>
    where
        T: 's,
    {
        Box::new(QueueOutlet { producer: self.queue.producer(), most: self.most.clone() })
    }
}

/// The way into a queue. The queue closes when the last of these is dropped.
struct QueueOutlet<T> {
    producer: Producer<Envelope<T>>,
    most: Arc<AtomicUsize>,
}

impl<T: Send> Outlet<T> for QueueOutlet<T> {
    fn try_push(&mut self, held: &mut Held<T>) -> bool {
        if self.producer.try_push_batch(held).is_err() {
            held.abandon();
        }
        held.is_empty()
    }

    fn push<'a>(&'a mut self, held: &'a mut Held<T>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if self.producer.push_batch_async(held).await.is_err() {
                held.abandon();
            }
        })
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    fn is_wanted(&self) -> bool {
        self.producer.waiting_consumers() > 0
    }

    fn is_closed(&self) -> bool {
        self.producer.is_closed()
    }
}

/// The end of a pipeline whose last values nobody takes: items end here.
pub(crate) struct EndLink;

impl<T: Send> Link<T> for EndLink {
    fn outlet<'s>(&'s self, ledger: &Arc<Ledger>) -> Box<dyn Outlet<T> + 's>
    where
        T: 's,
    {
        Box::new(EndOutlet(ledger.clone()))
    }
}

struct EndOutlet(Arc<Ledger>);

impl<T: Send> Outlet<T> for EndOutlet {
    fn try_push(&mut self, held: &mut Held<T>) -> bool {
        self.0.end_all(held, |_, _| {});
        true
    }

    fn push<'a>(&'a mut self, held: &'a mut Held<T>) -> BoxFuture<'a, ()> {
        self.try_push(held);
        Box::pin(async {})
    }

    fn most(&self) -> usize {
        chunk::MOST
    }

    fn is_wanted(&self) -> bool {
        false
    }

    fn is_closed(&self) -> bool {
        false
    }
}

impl<T> Held<T> {
    /// Answers for everything inside: it goes no further.
    pub(crate) fn abandon(&mut self) {
        let items: VecDeque<_> = std::mem::take(&mut **self);
        drop(self.sibling().with(items));
    }
}
