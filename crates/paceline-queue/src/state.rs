//! What the lock guards, and who has something to do after a change of it.
//!
//! Operations change the state and then call [`State::settle`], which wakes
//! waiters until what is promised covers what there is. No operation thinks
//! about wake-ups itself, so none can forget one.
//!
//! Items are never dropped in here: their `Drop` may use the same queue.
//!
//! Not here: waiting itself; that is in `wait.rs`.

use std::collections::VecDeque;

use crate::waiters::{Waiters, Wakes};

/// How far the queue is closed. Only goes forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Open,
    Closed,
    ClosedNow,
}

/// What somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Push,
    Pop,
    Join,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) high_water: usize,
    pub(crate) pushed: u64,
    pub(crate) popped: u64,
    pub(crate) put_back: u64,
    pub(crate) discarded: u64,
}

pub(crate) struct State<T> {
    items: VecDeque<T>,
    pub(crate) capacity: usize,
    pub(crate) phase: Phase,
    /// Producer handles alive.
    pub(crate) producers: usize,
    /// Items that were popped and may come back.
    pub(crate) holds: usize,
    /// Items that were taken and not answered.
    pub(crate) in_flight: usize,
    pub(crate) counts: Counts,
    pub(crate) pushers: Waiters,
    pub(crate) consumers: Waiters,
    pub(crate) joiners: Waiters,
}

impl<T> State<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        State {
            items: VecDeque::new(),
            capacity,
            phase: Phase::Open,
            producers: 0,
            holds: 0,
            in_flight: 0,
            counts: Counts::default(),
            pushers: Waiters::default(),
            consumers: Waiters::default(),
            joiners: Waiters::default(),
        }
    }

    pub(crate) fn waiters(&mut self, side: Side) -> &mut Waiters {
        match side {
            Side::Push => &mut self.pushers,
            Side::Pop => &mut self.consumers,
            Side::Join => &mut self.joiners,
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.items.len()
    }

    /// Slots that a push may fill.
    pub(crate) fn room(&self) -> usize {
        self.capacity.saturating_sub(self.holds).saturating_sub(self.items.len())
    }

    /// Whether consumers are told that nothing more will come.
    pub(crate) fn has_ended(&self) -> bool {
        match self.phase {
            Phase::Open => false,
            Phase::Closed => self.items.is_empty() && self.holds == 0,
            Phase::ClosedNow => true,
        }
    }

    /// Whether everything pushed was popped, and everything taken answered.
    pub(crate) fn is_answered(&self) -> bool {
        self.items.is_empty() && self.in_flight == 0 && self.holds == 0
    }

    /// Adds `item` at the back. The caller has looked at [`room`](Self::room).
    pub(crate) fn push(&mut self, item: T) {
        self.items.push_back(item);
        self.count_pushed(1);
    }

    /// Moves the first `count` of `buffer` to the back.
    pub(crate) fn push_many(&mut self, buffer: &mut VecDeque<T>, count: usize) {
        move_front(buffer, &mut self.items, count);
        self.count_pushed(count);
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.items.pop_front()?;
        self.counts.popped += 1;
        Some(item)
    }

    /// Moves up to `max` from the front to the end of `buffer`.
    pub(crate) fn pop_many(&mut self, buffer: &mut VecDeque<T>, max: usize) -> usize {
        let count = self.items.len().min(max);
        move_front(&mut self.items, buffer, count);
        self.counts.popped += count as u64;
        count
    }

    /// Returns an item to the front, without regard to room.
    pub(crate) fn put_back(&mut self, item: T) {
        self.items.push_front(item);
        self.counts.put_back += 1;
        self.counts.high_water = self.counts.high_water.max(self.items.len());
    }

    /// Takes everything out, to be dropped or kept by the caller.
    pub(crate) fn discard(&mut self) -> VecDeque<T> {
        self.counts.discarded += self.items.len() as u64;
        std::mem::take(&mut self.items)
    }

    /// Moves the queue forward to `phase`; never back.
    pub(crate) fn advance(&mut self, phase: Phase) {
        self.phase = self.phase.max(phase);
    }

    /// Wakes whoever has something to do, as many as can proceed.
    #[inline]
    pub(crate) fn settle(&mut self, wakes: &mut Wakes) {
        if self.consumers.waiting() > 0 {
            self.wake_consumers(wakes);
        }
        if self.pushers.waiting() > 0 {
            self.wake_pushers(wakes);
        }
        if self.joiners.waiting() > 0 && self.is_answered() {
            self.joiners.wake_all(wakes);
        }
    }

    fn wake_consumers(&mut self, wakes: &mut Wakes) {
        if self.has_ended() {
            return self.consumers.wake_all(wakes);
        }
        while let Some(wanted) = self.consumers.first_wanted() {
            let left = self.items.len().saturating_sub(self.consumers.promised());
            if left == 0 {
                break;
            }
            self.consumers.wake_first(wanted.min(left), wakes);
        }
    }

    fn wake_pushers(&mut self, wakes: &mut Wakes) {
        if self.phase > Phase::Open {
            return self.pushers.wake_all(wakes);
        }
        // A batch is worth waiting for half the room: it is woken once and
        // not at each pop. Beside single items it takes its turn like them,
        // else they would keep the queue too full for it forever.
        let usable = self.capacity.saturating_sub(self.holds);
        if !self.pushers.has_single() && self.items.len() > usable / 2 {
            return;
        }
        while let Some(wanted) = self.pushers.first_wanted() {
            let left = self.room().saturating_sub(self.pushers.promised());
            if left == 0 {
                break;
            }
            self.pushers.wake_first(wanted.min(left), wakes);
        }
    }

    fn count_pushed(&mut self, count: usize) {
        self.counts.pushed += count as u64;
        self.counts.high_water = self.counts.high_water.max(self.items.len());
    }
}

/// Moves the first `count` of `from` to the end of `to`.
fn move_front<T>(from: &mut VecDeque<T>, to: &mut VecDeque<T>, count: usize) {
    if count == from.len() {
        to.append(from);
    } else {
        to.extend(from.drain(..count));
    }
}
