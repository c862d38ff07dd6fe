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

/// The three lines of waiters. Touched only when somebody waits or did.
#[derive(Debug, Default)]
struct Lines {
    pushers: Waiters,
    consumers: Waiters,
    joiners: Waiters,
}

/// What the lock guards.
// The order is kept in memory: an operation that neither waits nor wakes
// touches only the first fields, which share two cache lines with the lock.
#[repr(C)]
pub(crate) struct State<T> {
    items: VecDeque<T>,
    pub(crate) capacity: usize,
    /// Items that were popped and may come back.
    pub(crate) holds: usize,
    /// Items that were taken and not answered.
    pub(crate) in_flight: usize,
    popped: u64,
    high_water: usize,
    /// How many stand in the three lines together.
    waiting: usize,
    pub(crate) phase: Phase,

    /// Producer handles alive.
    pub(crate) producers: usize,
    put_back: u64,
    discarded: u64,
    lines: Lines,
}

/// A copy of the counts.
pub(crate) struct Counts {
    pub(crate) high_water: usize,
    pub(crate) pushed: u64,
    pub(crate) popped: u64,
    pub(crate) put_back: u64,
    pub(crate) discarded: u64,
}

impl<T> State<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        State {
            items: VecDeque::new(),
            capacity,
            holds: 0,
            in_flight: 0,
            popped: 0,
            high_water: 0,
            waiting: 0,
            phase: Phase::Open,
            producers: 0,
            put_back: 0,
            discarded: 0,
            lines: Lines::default(),
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            high_water: self.high_water,
            // Nothing is lost, so this one need not be counted.
            pushed: self.popped + self.discarded + self.items.len() as u64 - self.put_back,
            popped: self.popped,
            put_back: self.put_back,
            discarded: self.discarded,
        }
    }

    pub(crate) fn line(&self, side: Side) -> &Waiters {
        match side {
            Side::Push => &self.lines.pushers,
            Side::Pop => &self.lines.consumers,
            Side::Join => &self.lines.joiners,
        }
    }

    /// Lets `change` enter, stay in or leave the line of `side`.
    pub(crate) fn change_line<R>(
        &mut self,
        side: Side,
        change: impl FnOnce(&mut Waiters) -> R,
    ) -> R {
        let line = match side {
            Side::Push => &mut self.lines.pushers,
            Side::Pop => &mut self.lines.consumers,
            Side::Join => &mut self.lines.joiners,
        };
        let before = line.waiting();
        let result = change(line);
        self.waiting = self.waiting - before + line.waiting();
        result
    }

    /// Whether [`settle`](Self::settle) could find someone to wake.
    pub(crate) fn has_waiting(&self) -> bool {
        self.waiting > 0
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
        self.note_depth();
    }

    /// Moves the first `count` of `buffer` to the back.
    pub(crate) fn push_many(&mut self, buffer: &mut VecDeque<T>, count: usize) {
        move_front(buffer, &mut self.items, count);
        self.note_depth();
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let item = self.items.pop_front()?;
        self.popped += 1;
        Some(item)
    }

    /// Moves up to `max` from the front to the end of `buffer`.
    pub(crate) fn pop_many(&mut self, buffer: &mut VecDeque<T>, max: usize) -> usize {
        let count = self.items.len().min(max);
        move_front(&mut self.items, buffer, count);
        self.popped += count as u64;
        count
    }

    /// Returns an item to the front, without regard to room.
    pub(crate) fn put_back(&mut self, item: T) {
        self.items.push_front(item);
        self.put_back += 1;
        self.note_depth();
    }

    /// Takes everything out, to be dropped or kept by the caller.
    pub(crate) fn discard(&mut self) -> VecDeque<T> {
        self.discarded += self.items.len() as u64;
        std::mem::take(&mut self.items)
    }

    /// Moves the queue forward to `phase`; never back.
    pub(crate) fn advance(&mut self, phase: Phase) {
        self.phase = self.phase.max(phase);
    }

    /// Wakes whoever has something to do, as many as can proceed.
    pub(crate) fn settle(&mut self, wakes: &mut Wakes) {
        self.wake_consumers(wakes);
        self.wake_pushers(wakes);
        if self.is_answered() {
            self.change_line(Side::Join, |joiners| joiners.wake_all(wakes));
        }
    }

    fn wake_consumers(&mut self, wakes: &mut Wakes) {
        let (has_ended, depth) = (self.has_ended(), self.items.len());
        self.change_line(Side::Pop, |consumers| {
            if has_ended {
                consumers.wake_all(wakes);
            } else {
                consumers.wake_for(depth, wakes);
            }
        });
    }

    fn wake_pushers(&mut self, wakes: &mut Wakes) {
        let (is_closed, room) = (self.phase > Phase::Open, self.room());
        // A batch is worth waiting for half the room: it is woken once and
        // not at each pop. Beside single items it takes its turn like them,
        // else they would keep the queue too full for it forever.
        let usable = self.capacity.saturating_sub(self.holds);
        let half_drained = self.items.len() <= usable / 2;
        self.change_line(Side::Push, |pushers| {
            if is_closed {
                pushers.wake_all(wakes);
            } else if half_drained || pushers.has_single() {
                pushers.wake_for(room, wakes);
            }
        });
    }

    fn note_depth(&mut self) {
        self.high_water = self.high_water.max(self.items.len());
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
