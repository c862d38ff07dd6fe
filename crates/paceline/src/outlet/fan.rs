//! Fan-out: one value becomes as many items as it yields.
//!
//! Values are pulled from the iterator as downstream takes them, so that an
//! endless or huge fan-out costs no memory. The members count anew from 1, in
//! the order in which they pass, and answer together for the item they came
//! from: it has ended when the last of them has.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{BoxFuture, Link, Outlet, Slot};
use crate::{
    account::{Held, Ledger},
    failure::{Failure, FailureKind, Fault},
    item::{Ending, Envelope, Family, ItemId, Load},
    worker::panic_message,
};

/// The link that splits values.
pub(crate) struct FanLink<'a, U> {
    next: Slot<'a, U>,
    stage: Arc<str>,
    position: AtomicU64,
}

impl<'a, U> FanLink<'a, U> {
    pub(crate) fn new(next: Slot<'a, U>, stage: Arc<str>) -> Self {
        Self { next, stage, position: AtomicU64::new(1) }
    }
}

impl<T, U> Link<T> for FanLink<'_, U>
where
    T: IntoIterator<Item = U> + Send,
    T::IntoIter: Send,
    U: Send,
{
    fn outlet<'s>(&'s self, ledger: &Arc<Ledger>) -> Box<dyn Outlet<T> + 's>
    where
        T: 's,
    {
        let inner = self.next.get().expect("links are joined before a run").outlet(ledger);
        let made = Held::new(ledger.clone(), None);
        Box::new(FanOutlet::<T> {
            stage: &self.stage,
            next_position: &self.position,
            inner,
            made,
            current: None,
            ledger: ledger.clone(),
        })
    }
}

struct FanOutlet<'s, T: IntoIterator> {
    stage: &'s Arc<str>,
    next_position: &'s AtomicU64,
    inner: Box<dyn Outlet<T::Item> + 's>,
    made: Held<T::Item>,
    current: Option<Split<T::IntoIter>>,
    ledger: Arc<Ledger>,
}

/// A value that is being split.
struct Split<I> {
    parent: ItemId,
    family: Arc<Family>,
    values: I,
    /// What is recorded of the value it comes from.
    entry: u64,
}

impl<T: IntoIterator> FanOutlet<'_, T> {
    fn position(&self) -> u64 {
        self.next_position.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes members until there is a batch of them or nothing left to split.
    fn make(&mut self, held: &mut Held<T>) {
        // An endless fan-out must not go on for nobody.
        if self.inner.is_closed() || self.ledger.is_cancelled() {
            self.give_up();
            held.abandon();
        }
        let most = self.inner.most();
        while self.made.len() < most {
            match self.current.take() {
                Some(split) => self.next_member(split),
                None => match held.pop_front() {
                    Some(envelope) => self.open(envelope),
                    None => return,
                },
            }
        }
    }

    fn open(&mut self, Envelope { id, entry, load }: Envelope<T>) {
        match load {
            Load::Item(value) => {
                let family = Family::new(vec![id.clone()]);
                match catch_unwind(AssertUnwindSafe(|| value.into_iter())) {
                    Ok(values) => self.current = Some(Split { parent: id, family, values, entry }),
                    Err(panic) => self.panicked(id, family, panic),
                }
            }
            Load::Failed(failure) => self.carry_on(id, Load::Failed(failure)),
            Load::Unfinished => self.carry_on(id, Load::Unfinished),
            Load::Again(_) => unreachable!("only a stage's own queue holds retries"),
        }
    }

    /// Passes on what carries no value, under its new position.
    fn carry_on(&mut self, id: ItemId, load: Load<T::Item>) {
        let id = Family::sole_member(vec![id], self.position());
        self.made.push_back(Envelope::new(id, load));
    }

    fn next_member(&mut self, mut split: Split<T::IntoIter>) {
        match catch_unwind(AssertUnwindSafe(|| split.values.next())) {
            Ok(Some(value)) => {
                self.add(&split.family, Load::Item(value), split.entry);
                self.current = Some(split);
            }
            Ok(None) => self.close(&split.family, Ending::Ok),
            Err(panic) => self.panicked(split.parent, split.family, panic),
        }
    }

    fn add(&mut self, family: &Arc<Family>, load: Load<T::Item>, entry: u64) {
        family.grow();
        let id = ItemId { position: self.position(), family: Some(family.clone()) };
        self.made.push_back(Envelope::new(id, load).recorded_as(entry));
    }

    /// The failure goes on as the last member, so that it is met at the end like any other.
    fn panicked(&mut self, parent: ItemId, family: Arc<Family>, panic: Box<dyn Any + Send>) {
        let fault = Fault::new(FailureKind::Panic, panic_message(&*panic));
        let failure = Failure::new(parent, self.stage.clone(), 1, fault);
        self.ledger.note_failure(&failure);
        self.add(&family, Load::Failed(failure), 0);
        self.close(&family, Ending::Ok);
    }

    fn give_up(&mut self) {
        if let Some(split) = self.current.take() {
            self.close(&split.family, Ending::Unfinished);
        }
    }

    /// The maker's own membership ends: no more members follow.
    fn close(&self, family: &Arc<Family>, ending: Ending) {
        let maker = ItemId { position: 0, family: Some(family.clone()) };
        self.ledger.end(&maker, ending);
    }
}

impl<T: IntoIterator> Drop for FanOutlet<'_, T> {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl<T> Outlet<T> for FanOutlet<'_, T>
where
    T: IntoIterator + Send,
    T::IntoIter: Send,
    T::Item: Send,
{
    fn try_push(&mut self, held: &mut Held<T>) -> bool {
        loop {
            self.make(held);
            if self.made.is_empty() {
                return true;
            }
            if !self.inner.try_push(&mut self.made) {
                return false;
            }
        }
    }

    fn push<'a>(&'a mut self, held: &'a mut Held<T>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            loop {
                self.make(held);
                if self.made.is_empty() {
                    return;
                }
                self.inner.push(&mut self.made).await;
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
