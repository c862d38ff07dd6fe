//! What each operation does once it holds the lock.
//!
//! An operation is written once, as a step that either finishes or must wait;
//! the waiting, timed and async forms are made from that step in `wait.rs`.
//! So the three cannot differ in what they do.

use std::collections::VecDeque;

use crate::error::Closed;
use crate::state::{Phase, Side, State};

/// One operation of the queue, to be stepped under the lock until it is done.
pub(crate) trait Operation<T> {
    type Output;

    /// In which line it waits.
    const SIDE: Side;

    /// How many items or slots it could use, at least one.
    fn wanted(&self) -> usize {
        1
    }

    /// Does what can be done; `None` if it must wait. `woken` says that it
    /// waited and was told to look again.
    ///
    /// Runs under the lock: it drops no item.
    fn step(&mut self, state: &mut State<T>, woken: bool) -> Option<Self::Output>;
}

impl<T, O: Operation<T>> Operation<T> for &mut O {
    type Output = O::Output;
    const SIDE: Side = O::SIDE;

    fn wanted(&self) -> usize {
        (**self).wanted()
    }

    fn step(&mut self, state: &mut State<T>, woken: bool) -> Option<Self::Output> {
        (**self).step(state, woken)
    }
}

/// Pushes one item; keeps it if it was refused.
pub(crate) struct PushOne<T> {
    item: Option<T>,
}

impl<T> PushOne<T> {
    pub(crate) fn new(item: T) -> Self {
        PushOne { item: Some(item) }
    }

    /// The item, unless it was pushed.
    pub(crate) fn take_item(&mut self) -> Option<T> {
        self.item.take()
    }

    /// The item of a push that was refused.
    pub(crate) fn refused(&mut self) -> T {
        self.item.take().unwrap_or_else(|| unreachable!("a refused push keeps its item"))
    }
}

impl<T> Operation<T> for PushOne<T> {
    type Output = Result<(), Closed>;
    const SIDE: Side = Side::Push;

    fn step(&mut self, state: &mut State<T>, _woken: bool) -> Option<Self::Output> {
        if state.phase > Phase::Open {
            return Some(Err(Closed));
        }
        if state.room() == 0 {
            return None;
        }
        if let Some(item) = self.item.take() {
            state.push(item);
        }
        Some(Ok(()))
    }
}

/// Pushes all of a buffer, as much at a time as there is room.
pub(crate) struct PushBatch<'b, T> {
    pub(crate) buffer: &'b mut VecDeque<T>,
}

impl<T> Operation<T> for PushBatch<'_, T> {
    type Output = Result<(), Closed>;
    const SIDE: Side = Side::Push;

    fn wanted(&self) -> usize {
        self.buffer.len()
    }

    fn step(&mut self, state: &mut State<T>, _woken: bool) -> Option<Self::Output> {
        if self.buffer.is_empty() {
            return Some(Ok(()));
        }
        if state.phase > Phase::Open {
            return Some(Err(Closed));
        }
        let count = state.room().min(self.buffer.len());
        state.push_many(self.buffer, count);
        self.buffer.is_empty().then_some(Ok(()))
    }
}

/// Pops one item, which is answered at once or counted as in flight.
pub(crate) struct PopOne {
    pub(crate) in_flight: bool,
}

impl<T> Operation<T> for PopOne {
    type Output = Result<T, Closed>;
    const SIDE: Side = Side::Pop;

    fn step(&mut self, state: &mut State<T>, _woken: bool) -> Option<Self::Output> {
        match state.pop() {
            Some(item) => {
                state.in_flight += usize::from(self.in_flight);
                Some(Ok(item))
            }
            None if state.has_ended() => Some(Err(Closed)),
            None => None,
        }
    }
}

/// Pops at least one item and at most `max`.
pub(crate) struct PopBatch<'b, T> {
    pub(crate) buffer: &'b mut VecDeque<T>,
    pub(crate) max: usize,
}

impl<T> Operation<T> for PopBatch<'_, T> {
    type Output = Result<usize, Closed>;
    const SIDE: Side = Side::Pop;

    fn wanted(&self) -> usize {
        self.max
    }

    fn step(&mut self, state: &mut State<T>, _woken: bool) -> Option<Self::Output> {
        if self.max == 0 {
            return Some(Ok(0));
        }
        match state.pop_many(self.buffer, self.max) {
            0 if state.has_ended() => Some(Err(Closed)),
            0 => None,
            count => Some(Ok(count)),
        }
    }
}

/// Waits until everything is answered.
pub(crate) struct Join;

impl<T> Operation<T> for Join {
    type Output = ();
    const SIDE: Side = Side::Join;

    fn step(&mut self, state: &mut State<T>, woken: bool) -> Option<()> {
        // A joiner is woken only when all was answered. More may have been
        // pushed since, but that moment is what it waited for.
        (woken || state.is_answered()).then_some(())
    }
}
