//! A worker process and what it has in hand.
//!
//! Which of several items a worker had in hand when it died: those that it
//! had begun, by its own word (the slate), or the first that was written to
//! it, if it has always answered in order. If neither tells, none is blamed:
//! all are tried again, each alone, so that the next death has one culprit.

use std::{collections::VecDeque, time::Duration};

use super::{IN_HAND, SILENT, SLOW, desk::Task};
use crate::{
    failure::Fault,
    worker::serve::{Framing, RemoteError, Serve, process::Process},
};

/// How often an item may be the first in line when a worker dies that says it had begun nothing.
const LOSSES: u32 = 3;

/// An item that was sent, or is about to be.
pub(super) struct Sent<In> {
    pub(super) task: Task<In>,
    pub(super) id: u32,
    /// Where its request begins among the bytes for the worker.
    from: u64,
    pub(super) at: Duration,
}

/// What is wrong with a worker.
pub(super) enum Trouble {
    Garbage(String),
    Fatal(RemoteError),
}

/// When something must have happened.
pub(super) enum Deadline {
    Item(Duration),
    Start(Duration),
}

pub(super) struct Worker<In> {
    pub(super) process: Process,
    pub(super) in_flight: VecDeque<Sent<In>>,
    /// Whether it takes items.
    pub(super) is_ready: bool,
    /// Whether it works on several items at once, as far as is known.
    pub(super) is_concurrent: bool,
    pub(super) answered: u64,
    framing: Framing,
    sent: u64,
    /// Since when the first item is in hand, or nothing is.
    since: Duration,
    started: Duration,
    /// How many items it may have in flight.
    window: usize,
    /// How long an item takes, in nanoseconds, as far as is known.
    pace: u64,
    /// Whether it gets nothing more, since it has grown or has answered twice.
    is_used_up: bool,
    begun: Option<u32>,
    /// The last item whose answer was taken from the slate, and may yet come.
    said_in_advance: Option<u32>,
    /// How often its slate was looked at since it was heard of.
    looks: u32,
    /// Whether it counts as at work when it has no answers yet: from its
    /// start on if it replaces another.
    has_begun: bool,
}

/// So long after its start a worker that does not say when it is ready has
/// begun, or with its first answer; and nobody waits longer for one that does.
const BEGINS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];

impl<In> Worker<In> {
    pub(super) fn start(
        serve: &Serve,
        slot: usize,
        stage: &str,
        now: Duration,
        is_replacement: bool,
    ) -> Result<Self, Fault> {
        Ok(Self {
            process: Process::start(serve, slot, stage)?,
            in_flight: VecDeque::new(),
            is_ready: serve.framing != Framing::Frames,
            is_concurrent: false,
            answered: 0,
            framing: serve.framing,
            sent: 0,
            since: now,
            started: now,
            window: 1,
            pace: 0,
            is_used_up: false,
            begun: None,
            said_in_advance: None,
            looks: 0,
            has_begun: is_replacement,
        })
    }

    /// Takes note that the worker is ready for `at_once` items at once.
    pub(super) fn is_ready_for(&mut self, at_once: u32, now: Duration) {
        self.is_ready = true;
        self.since = now;
        self.is_concurrent = at_once > 1;
        self.window = (at_once as usize).max(1);
    }

    /// What part of it is at work; `None` if it was added and has yet to begin.
    pub(super) fn share(&self) -> Option<f64> {
        if !self.has_begun {
            return None;
        }
        if !self.is_ready {
            return Some(1.0);
        }
        let places = match self.framing {
            Framing::Frames if self.is_concurrent => self.window,
            _ => 1,
        };
        Some((self.in_flight.len() as f64 / places as f64).min(1.0))
    }

    /// Takes note if it has begun since, and gives the time that it took to if it says when.
    pub(super) fn begins(&mut self, now: Duration) -> Option<Option<Duration>> {
        let age = now.saturating_sub(self.started);
        let (is_told, at_most) = match self.framing {
            Framing::Frames => (self.is_ready, BEGINS[1]),
            _ => (self.answered > 0, BEGINS[0]),
        };
        if self.has_begun || (!is_told && age < at_most) {
            return None;
        }
        self.has_begun = true;
        Some((self.framing == Framing::Frames).then_some(age))
    }

    /// How many more items it may be sent.
    pub(super) fn room(&self, limit: usize, serve: &Serve) -> usize {
        if !self.is_ready {
            // One is kept for it.
            return 1;
        }
        // One that is alone has nothing beside it.
        if self.is_used_up || self.in_flight.front().is_some_and(|sent| sent.task.is_alone) {
            return 0;
        }
        let window = match self.framing {
            Framing::Lines => 1,
            // What it has after one item decides whether it gets another.
            _ if serve.max_memory.is_some() => 1,
            _ if self.is_concurrent && self.framing == Framing::Frames => self.window,
            _ => self.window.min(limit),
        };
        let left = usize::try_from(serve.max_items.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        window.saturating_sub(self.in_flight.len()).min(left)
    }

    /// The id of the next request, and where it begins.
    pub(super) fn next_id(&self) -> u32 {
        self.sent as u32
    }

    /// Takes note of an item whose request has been appended, from `from` on.
    pub(super) fn took(&mut self, task: Task<In>, from: u64, now: Duration) {
        if self.in_flight.is_empty() {
            self.since = now;
        }
        self.in_flight.push_back(Sent { task, id: self.next_id(), from, at: now });
        self.sent += 1;
    }

    /// Gives back what `id` was asked for; the first if the framing has none.
    pub(super) fn answered(&mut self, id: Option<u32>) -> Option<Sent<In>> {
        let index = match id {
            None => 0,
            Some(id) => self.in_flight.iter().position(|sent| sent.id == id)?,
        };
        self.is_concurrent |= index > 0;
        let sent = self.in_flight.remove(index)?;
        self.answered += 1;
        Some(sent)
    }

    /// Whether the item with this id was answered before; then the worker
    /// gets nothing more.
    pub(super) fn has_answered_before(&mut self, id: Option<u32>) -> bool {
        // Ids go round, and what was said in advance is not far behind.
        let in_advance = |id: u32| {
            self.said_in_advance.is_some_and(|last| last.wrapping_sub(id) <= u32::MAX / 2)
        };
        let has = id.is_some_and(|id| u64::from(id) < self.sent);
        self.is_used_up |= has && !id.is_some_and(in_advance);
        has
    }

    /// Takes note that all before the first in flight were answered by the slate.
    pub(super) fn has_said_in_advance(&mut self) {
        let first = self.in_flight.front().map_or(self.next_id(), |sent| sent.id);
        self.said_in_advance = Some(first.wrapping_sub(1));
    }

    /// Whether its items take long, as far as is known.
    pub(super) fn is_slow(&self) -> bool {
        Duration::from_nanos(self.pace) >= SLOW
    }

    /// Takes note that its slate is looked at.
    pub(super) fn was_looked_at(&mut self) {
        self.looks = (self.looks + 1).min(16);
    }

    /// When its slate is to be looked at: it has not been heard of for long,
    /// and may have answers that the item in hand keeps from being sent.
    pub(super) fn look_due(&self) -> Option<Duration> {
        let may_have = self.framing == Framing::Frames
            && self.is_ready
            && !self.is_concurrent
            && self.in_flight.len() > 1;
        let silent = SILENT.max(2 * Duration::from_nanos(self.pace));
        may_have.then(|| self.since.saturating_add(silent * (1 << self.looks)))
    }

    /// Since when the item answered first has been in hand.
    pub(super) fn in_hand_since(&self, sent: &Sent<In>) -> Duration {
        if self.is_concurrent { sent.at } else { self.since.max(sent.at) }
    }

    /// Learns from `items` answers that came by `now`, and gives the time that each took.
    pub(super) fn learn(&mut self, items: u64, now: Duration, serve: &Serve) -> Duration {
        let each = now.saturating_sub(self.since) / u32::try_from(items.max(1)).unwrap_or(1);
        self.since = now;
        self.looks = 0;
        if serve.framing == Framing::Json || !self.is_concurrent {
            let nanos = u64::try_from(each.as_nanos()).unwrap_or(u64::MAX).max(4);
            // Much slower at once; else by and by, for others use the cores too.
            self.pace = match nanos / 4 > self.pace {
                true => nanos,
                false => (3 * self.pace).saturating_add(nanos) / 4,
            };
            let pace = Duration::from_nanos(self.pace);
            // Of those that fit at all one waits here, lest the worker be idle until it comes.
            let least = if pace <= IN_HAND { 2 } else { 1 };
            let fits = usize::try_from(IN_HAND.as_nanos() / pace.as_nanos()).unwrap_or(usize::MAX);
            self.window = fits.max(least).min(self.window.saturating_mul(2));
        }
        self.is_used_up |= serve
            .max_memory
            .is_some_and(|most| self.process.memory().is_some_and(|memory| memory > most));
        each
    }

    /// Whether it is to be replaced, or ended until there is work again.
    pub(super) fn has_done_its_part(&self, serve: &Serve, now: Duration) -> bool {
        let age = now.saturating_sub(self.started);
        let idle = now.saturating_sub(self.since);
        self.sent >= serve.max_items
            || self.is_used_up
            || serve.max_age.is_some_and(|most| age >= most && self.sent > 0)
            || serve.idle_after.is_some_and(|most| idle >= most && self.is_ready)
    }

    pub(super) fn deadline(&self, timeout: Option<Duration>, start: Duration) -> Option<Deadline> {
        if !self.is_ready {
            return Some(Deadline::Start(self.started.saturating_add(start)));
        }
        let first = self.in_flight.front()?;
        Some(Deadline::Item(self.in_hand_since(first).saturating_add(timeout?)))
    }

    /// When it is to be looked at although nothing has happened.
    pub(super) fn due(&self, serve: &Serve, timeout: Option<Duration>) -> Option<Duration> {
        if self.is_ready && self.in_flight.is_empty() {
            return serve.idle_after.map(|idle| self.since.saturating_add(idle));
        }
        let deadline = self.deadline(timeout, serve.start_within).map(|deadline| match deadline {
            Deadline::Item(due) | Deadline::Start(due) => due,
        });
        deadline.into_iter().chain(self.look_due()).min()
    }

    /// Takes note of what it had begun last, by its own word.
    pub(super) fn had_begun(&mut self, id: Option<u32>) {
        self.begun = id;
    }

    fn tasks(&mut self) -> impl Iterator<Item = Task<In>> {
        std::mem::take(&mut self.in_flight).into_iter().map(|sent| sent.task)
    }

    /// The first `count` items, and those behind them.
    pub(super) fn split_at(&mut self, count: usize) -> (Vec<Task<In>>, Vec<Task<In>>) {
        let mut items: Vec<_> = self.tasks().collect();
        let rest = items.split_off(count.min(items.len()));
        (items, rest)
    }

    /// The items whose time was over, and those that have theirs before them.
    pub(super) fn split_late(
        &mut self,
        now: Duration,
        timeout: Option<Duration>,
    ) -> (Vec<Task<In>>, Vec<Task<In>>) {
        let late = if self.is_concurrent {
            let is_late = |sent: &&Sent<In>| Some(now.saturating_sub(sent.at)) >= timeout;
            self.in_flight.iter().take_while(is_late).count()
        } else {
            1
        };
        self.split_at(late)
    }

    /// The items that it had in hand when it died, and those behind them.
    pub(super) fn split_at_death(&mut self) -> (Vec<Task<In>>, Vec<Task<In>>) {
        let written = self.process.written();
        let touched = self.in_flight.iter().filter(|sent| sent.from < written).count();
        let in_hand = match self.begun {
            // By ids in a row: those up to the one begun last.
            Some(begun) => {
                let is_begun = |sent: &&Sent<In>| sent.id.wrapping_sub(begun + 1) > u32::MAX / 2;
                self.in_flight.iter().filter(is_begun).count()
            }
            None if self.framing == Framing::Frames => 0,
            None if !self.is_concurrent => touched.min(1),
            None if touched == 1 => 1,
            None => {
                self.in_flight.iter_mut().take(touched).for_each(|sent| sent.task.is_alone = true);
                0
            }
        };
        if in_hand == 0
            && touched > 0
            && let Some(first) = self.in_flight.front_mut()
            && self.framing == Framing::Frames
        {
            first.task.losses += 1;
            if first.task.losses >= LOSSES {
                return self.split_at(1);
            }
        }
        self.split_at(in_hand)
    }
}
