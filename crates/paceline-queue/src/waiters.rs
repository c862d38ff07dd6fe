//! Who waits, in the order they came, and how each of them is woken.
//!
//! A waiter enters a list and gets a [`Place`]. To wake it is to promise it
//! so many items (or slots): it leaves the line but keeps its place until it
//! has come back under the lock, taken what there is, and left or gone back to
//! the front. The list knows the sum of its promises, so whoever holds the
//! lock can tell whether one more waiter has something to do. A waiter that
//! was woken and gave up takes its promise with it when it leaves, and the
//! next look at the sum wakes another: that is all there is to passing a
//! wake-up on.
//!
//! Not here: what is promised, and when; that is in `state.rs`.

use std::task::Waker;
use std::time::{Duration, Instant};

use crate::sync::thread::Thread;

/// How to wake a waiter: a parked thread or a task.
#[derive(Debug)]
pub(crate) enum Wake {
    Thread(Thread),
    Task(Waker),
}

impl Wake {
    fn wake(self) {
        match self {
            Wake::Thread(thread) => thread.unpark(),
            Wake::Task(waker) => waker.wake(),
        }
    }
}

/// Wake-ups collected under the lock, to be sent after it is dropped.
#[derive(Debug, Default)]
pub(crate) struct Wakes {
    // Most calls wake nobody or one; those must not allocate.
    first: Option<Wake>,
    rest: Vec<Wake>,
}

impl Wakes {
    pub(crate) fn add(&mut self, wake: Wake) {
        match self.first {
            None => self.first = Some(wake),
            Some(_) => self.rest.push(wake),
        }
    }

    pub(crate) fn send(self) {
        if let Some(wake) = self.first {
            wake.wake();
        }
        for wake in self.rest {
            wake.wake();
        }
    }
}

/// A waiter's place in one [`Waiters`]. Given back by [`Waiters::leave`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place(usize);

#[derive(Debug)]
struct Slot {
    /// `None` in a free slot and once the waiter was woken.
    wake: Option<Wake>,
    wanted: usize,
    /// What was promised to a waiter that was woken.
    promise: Option<usize>,
    /// Since when its owner waits; `None` in a free slot.
    since: Option<Instant>,
    previous: Option<usize>,
    next: Option<usize>,
}

/// A line of waiters; every operation takes constant time.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    slots: Vec<Slot>,
    /// First of the free slots, which are chained by `next`.
    free: Option<usize>,
    front: Option<usize>,
    back: Option<usize>,
    waiting: usize,
    /// How many of those in line want one thing and not a batch.
    single: usize,
    promised: usize,
}

impl Waiters {
    /// How many are in line, not counting those that were woken.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Whether someone in line wants just one item or slot.
    pub(crate) fn has_single(&self) -> bool {
        self.single > 0
    }

    pub(crate) fn is_woken(&self, place: &Place) -> bool {
        self.slots[place.0].promise.is_some()
    }

    /// How long those who wait now have waited together.
    pub(crate) fn waited_so_far(&self, now: Instant) -> Duration {
        let since = self.slots.iter().filter_map(|slot| slot.since);
        since.map(|since| now.saturating_duration_since(since)).sum()
    }

    /// Joins the line at the back.
    pub(crate) fn enter(&mut self, wake: Wake, wanted: usize, since: Option<Instant>) -> Place {
        let slot =
            Slot { wake: Some(wake), wanted, promise: None, since, previous: None, next: None };
        let index = match self.free {
            Some(index) => {
                self.free = self.slots[index].next;
                self.slots[index] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
        };
        self.link_back(index);
        Place(index)
    }

    /// Stays in line, or goes back to its front after a wake-up in vain.
    ///
    /// Returns the wake that is no longer needed: dropping it may run foreign
    /// code and so must wait until the lock is dropped.
    pub(crate) fn stay(&mut self, place: &Place, wake: Wake, wanted: usize) -> Option<Wake> {
        let index = place.0;
        let woken = self.slots[index].promise.take();
        match woken {
            Some(promise) => self.promised -= promise,
            None => self.count(index, false),
        }
        self.slots[index].wanted = wanted;
        let old = match (&self.slots[index].wake, &wake) {
            // Saves a task the price of exchanging its waker for the same one.
            (Some(Wake::Task(old)), Wake::Task(new)) if old.will_wake(new) => Some(wake),
            _ => self.slots[index].wake.replace(wake),
        };
        match woken {
            Some(_) => self.link_front(index),
            None => self.count(index, true),
        }
        old
    }

    /// Gives the place back, with the promise if there was one.
    pub(crate) fn leave(&mut self, place: Place) -> Option<Wake> {
        let index = place.0;
        match self.slots[index].promise.take() {
            Some(promise) => self.promised -= promise,
            None => self.unlink(index),
        }
        let slot = &mut self.slots[index];
        slot.since = None;
        slot.next = self.free;
        self.free = Some(index);
        slot.wake.take()
    }

    /// Wakes from the front until the promises cover `available`.
    ///
    /// Each is promised what it wants, the last one what is left.
    pub(crate) fn wake_for(&mut self, available: usize, wakes: &mut Wakes) {
        while let Some(front) = self.front {
            let left = available.saturating_sub(self.promised);
            if left == 0 {
                break;
            }
            self.wake_first(front, self.slots[front].wanted.min(left), wakes);
        }
    }

    /// Takes everyone out of the line, promised nothing: each has an answer.
    pub(crate) fn wake_all(&mut self, wakes: &mut Wakes) {
        while let Some(front) = self.front {
            self.wake_first(front, 0, wakes);
        }
    }

    fn wake_first(&mut self, front: usize, promise: usize, wakes: &mut Wakes) {
        self.unlink(front);
        self.promised += promise;
        let slot = &mut self.slots[front];
        slot.promise = Some(promise);
        if let Some(wake) = slot.wake.take() {
            wakes.add(wake);
        }
    }

    fn count(&mut self, index: usize, enters: bool) {
        let single = usize::from(self.slots[index].wanted == 1);
        if enters {
            self.waiting += 1;
            self.single += single;
        } else {
            self.waiting -= 1;
            self.single -= single;
        }
    }

    fn link_back(&mut self, index: usize) {
        self.count(index, true);
        self.slots[index].previous = self.back;
        self.slots[index].next = None;
        match self.back {
            Some(back) => self.slots[back].next = Some(index),
            None => self.front = Some(index),
        }
        self.back = Some(index);
    }

    fn link_front(&mut self, index: usize) {
        self.count(index, true);
        self.slots[index].previous = None;
        self.slots[index].next = self.front;
        match self.front {
            Some(front) => self.slots[front].previous = Some(index),
            None => self.back = Some(index),
        }
        self.front = Some(index);
    }

    fn unlink(&mut self, index: usize) {
        self.count(index, false);
        let (previous, next) = (self.slots[index].previous, self.slots[index].next);
        match previous {
            Some(previous) => self.slots[previous].next = next,
            None => self.front = next,
        }
        match next {
            Some(next) => self.slots[next].previous = previous,
            None => self.back = previous,
        }
    }
}
