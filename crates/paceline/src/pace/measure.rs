//! What is measured, and what follows from two measurements.
//!
//! Everything is a sum that only grows, so a look that is missed loses
//! nothing, and every estimate is a ratio of sums: a mean of ratios would
//! give a short item as much weight as a long one.

use std::time::Duration;

/// What a pipeline has counted up to a moment.
///
/// See [the module](crate::pace) for an example.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it was taken, by a clock that only goes forward.
    pub at: Duration,
    /// The stages from the source to the sink, both among them.
    pub stages: Vec<Counts>,
    /// CPU time of all that the run has started and of the program itself.
    pub cpu: Option<Duration>,
    /// What memory is used of what may be.
    pub memory: Option<Memory>,
    /// How many cores there are for the run now, if that is looked at.
    pub cores: Option<f64>,
}

/// Memory in bytes.
///
/// ```
/// let memory = paceline::pace::Memory { used: 3 << 30, budget: 4 << 30 };
/// assert!(memory.used < memory.budget);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// What is used.
    pub used: u64,
    /// What may be used.
    pub budget: u64,
}

/// What one stage has counted. Times are sums over its workers.
///
/// ```
/// use paceline::pace::Counts;
///
/// let counts = Counts { workers: 4, ..Counts::default() };
/// assert_eq!(counts.done, 0);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// How many workers it has now.
    pub workers: usize,
    /// Items that it has taken in hand.
    pub entered: u64,
    /// Items that it has answered.
    pub done: u64,
    /// Attempts that it has made.
    pub tries: u64,
    /// Attempts that were told to come back later.
    pub pushback: u64,
    /// Time that attempts were in service, with that of those still running.
    pub busy: Duration,
    /// The sum of the squares of service times, in seconds squared.
    pub squares: f64,
    /// CPU time used, if it can be known.
    pub cpu: Option<Duration>,
    /// Time that its work was ready to run and had no core, if it can be known.
    pub waiting_for_core: Option<Duration>,
    /// Time that workers waited for an item.
    pub starved: Duration,
    /// Time that workers waited for room downstream.
    pub blocked: Duration,
    /// Items that wait before it.
    pub depth: usize,
    /// Whether it has fewer items left than workers, and gets no more. Nothing
    /// is decided about it any more: what it is now says nothing of before.
    pub is_ending: bool,
    /// Workers that were decided on and have yet to begin, where that takes
    /// time. Nothing is concluded meanwhile: they use cores, and do no items.
    pub starting: usize,
    /// How long a worker takes to begin, where that counts.
    pub start: Option<Duration>,
    /// The memory that a worker takes, in bytes, if that is known.
    pub memory: Option<u64>,
}

/// What a stage is like, estimated over a stretch of time. Times are seconds.
///
/// ```
/// use paceline::pace::Estimate;
///
/// let waiting = Estimate { service: 0.100, cpu: 0.002, ..Estimate::default() };
/// assert!(waiting.cpu_share() < 0.3);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    /// Items answered.
    pub done: f64,
    /// Items answered in a second.
    pub rate: f64,
    /// CPU time of an item.
    pub cpu: f64,
    /// Time of an item in service, without that for which it had no core.
    pub service: f64,
    /// Time of an item for which it had no core.
    pub queued: f64,
    /// How many were in service on average.
    pub in_service: f64,
    /// Standard deviation of the service time, as a part of its mean.
    pub spread: f64,
    /// The part of the workers' time that they waited for items.
    pub starved: f64,
    /// The part of the workers' time that they waited for room, or with an item for its next
    /// attempt.
    pub blocked: f64,
    /// The part of the attempts that were told to come back later.
    pub pushback: f64,
    /// The part of the workers' time that is accounted for.
    pub accounted: f64,
}

impl Estimate {
    /// What a stage was like between two looks, in `seconds`; `None` if it had nothing to do.
    pub(super) fn between(before: &Counts, after: &Counts, seconds: f64) -> Option<Self> {
        let done = after.done.saturating_sub(before.done) as f64;
        let busy = after.busy.saturating_sub(before.busy).as_secs_f64();
        if (done == 0.0 && busy == 0.0) || seconds <= 0.0 {
            return None;
        }
        let grown = |of: fn(&Counts) -> Option<Duration>| {
            let (before, after) = (of(before), of(after));
            before.zip(after).map_or(0.0, |(b, a)| a.saturating_sub(b).as_secs_f64())
        };
        let (cpu, queued) = (grown(|c| c.cpu), grown(|c| c.waiting_for_core));
        // Nothing answered yet: what is in service is taken for half done.
        let items = done.max(0.5);
        // A thread waits for a core also between items; that is no part of theirs.
        let queued = queued.min((busy - cpu).max(0.0));
        let served = (busy - queued).max(0.0);
        let workers = before.workers.max(1) as f64 * seconds;
        let starved = after.starved.saturating_sub(before.starved).as_secs_f64();
        let blocked = after.blocked.saturating_sub(before.blocked).as_secs_f64();
        let tries = after.tries.saturating_sub(before.tries) as f64;
        let pushback = after.pushback.saturating_sub(before.pushback) as f64;
        // A worker may wait with its item for the next attempt, which nobody counts: what is
        // left of its time, where attempts are made again.
        let again = |counts: &Counts| counts.tries.saturating_sub(counts.entered);
        let known = busy + starved + blocked;
        let rests = if again(after) > again(before) { (workers - known).max(0.0) } else { 0.0 };
        let blocked = blocked + rests;
        let squares = (after.squares - before.squares).max(0.0);
        let mean = busy / items;
        Some(Self {
            done,
            rate: done / seconds,
            cpu: cpu / items,
            service: served / items,
            queued: queued / items,
            in_service: served / seconds,
            spread: if done >= 8.0 && mean > 0.0 {
                (squares / done / (mean * mean) - 1.0).max(0.0).sqrt()
            } else {
                1.0
            },
            starved: starved / workers,
            blocked: blocked / workers,
            pushback: if tries > 0.0 { pushback / tries } else { 0.0 },
            accounted: (busy + starved + blocked) / workers,
        })
    }

    /// Time of an item in service that is no CPU time.
    #[must_use]
    pub fn wait(&self) -> f64 {
        (self.service - self.cpu).max(0.0)
    }

    /// CPU time over service time: near 0 for what waits, 1 for what computes,
    /// more for children with several threads.
    #[must_use]
    pub fn cpu_share(&self) -> f64 {
        if self.service > 0.0 { self.cpu / self.service } else { 0.0 }
    }

    /// In words: `CPU-bound`, `waiting`, or `mixed`.
    #[must_use]
    pub fn nature(&self) -> &'static str {
        match self.cpu_share() {
            share if share >= 0.7 => "CPU-bound",
            share if share <= 0.3 => "waiting",
            _ => "mixed",
        }
    }
}
