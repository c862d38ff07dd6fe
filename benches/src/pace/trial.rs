//! One run of a scenario, and what it counted.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use paceline::{Observer, Summary, Workers, pace::Survey};

use crate::cpu;

const BUCKET: Duration = Duration::from_millis(50);
const BUCKETS: usize = 1000;

/// What a run is asked for.
pub(super) struct Trial {
    numbers: Option<Vec<usize>>,
    length: Duration,
    items: Option<u64>,
    /// From when on the waits are longer.
    pub(super) slow_from: Option<Duration>,
    pub(super) meter: Arc<Meter>,
    pub(super) is_observed: bool,
}

impl Trial {
    pub(super) fn new(
        numbers: Option<&[usize]>,
        length: Duration,
        items: Option<u64>,
        slow_from: Option<Duration>,
    ) -> Self {
        let is_observed = numbers.is_none();
        let numbers = numbers.map(<[usize]>::to_vec);
        Self { numbers, length, items, slow_from, meter: Arc::new(Meter::new()), is_observed }
    }

    /// A short run with these numbers, in the regime that counts.
    pub(super) fn look(
        numbers: &[usize],
        length: Duration,
        _: Option<u64>,
        regime: Option<Duration>,
    ) -> Self {
        Self::new(Some(numbers), length, None, regime.map(|_| Duration::ZERO))
    }

    /// The same as a plain program would run it.
    pub(super) fn unobserved(mut self) -> Self {
        self.is_observed = false;
        self
    }

    /// The workers of the stage at `place`.
    pub(super) fn workers(&self, place: usize) -> Workers {
        self.numbers.as_ref().map_or(Workers::Auto, |numbers| Workers::Fixed(numbers[place]))
    }

    /// The items, until the time is over or they are all taken.
    pub(super) fn items(&self) -> impl Iterator<Item = u64> + Send + use<> {
        let (meter, length) = (self.meter.clone(), self.length);
        let most = self.items.unwrap_or(u64::MAX);
        let is_timed = self.items.is_none();
        (0..most).take_while(move |_| !is_timed || meter.began.elapsed() < length)
    }

    /// Whether the waits are long by now.
    pub(super) fn is_slow(&self) -> bool {
        self.slow_from.is_some_and(|from| self.meter.began.elapsed() >= from)
    }

    pub(super) fn ended(&self, summary: &Summary) -> Outcome {
        assert!(summary.is_complete(), "{summary}");
        let counts = self.meter.buckets.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        Outcome {
            took: self.meter.began.elapsed(),
            counts,
            cpu: (cpu::with_children() - self.meter.cpu_before).as_secs_f64() / summary.ok as f64,
            seen: std::mem::take(&mut *self.meter.seen.lock().expect("nobody panicked")),
            moves: std::mem::take(&mut *self.meter.moves.lock().expect("nobody panicked")),
            last: summary.stages.iter().map(|stage| stage.workers).collect(),
        }
    }
}

/// A survey: when it was, all workers together, and the CPU time that looking has taken so far.
struct Seen {
    at: Duration,
    workers: f64,
    cost: Duration,
}

/// Counts what comes out, by time, and listens to the pace.
pub(super) struct Meter {
    began: Instant,
    cpu_before: Duration,
    buckets: Vec<AtomicU64>,
    seen: Mutex<Vec<Seen>>,
    moves: Mutex<Vec<Duration>>,
}

impl Meter {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            cpu_before: cpu::with_children(),
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            seen: Mutex::default(),
            moves: Mutex::default(),
        }
    }

    /// An item has come out.
    pub(super) fn count(&self) {
        let bucket = (self.began.elapsed().as_nanos() / BUCKET.as_nanos()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }
}

impl Observer for Meter {
    fn paced(&self, survey: &Survey) {
        let at = self.began.elapsed();
        let stages = &survey.workers[1..survey.workers.len() - 1];
        let workers = stages.iter().sum::<usize>() as f64;
        let seen = Seen { at, workers, cost: survey.cost };
        self.seen.lock().expect("nobody panicked").push(seen);
        if !survey.decisions.is_empty() {
            self.moves.lock().expect("nobody panicked").push(at);
        }
    }
}

/// What a run came to.
pub(super) struct Outcome {
    pub(super) took: Duration,
    counts: Vec<u64>,
    /// CPU time of an item, with all that was spent around it, in seconds.
    pub(super) cpu: f64,
    seen: Vec<Seen>,
    pub(super) moves: Vec<Duration>,
    /// The workers at the end.
    pub(super) last: Vec<usize>,
}

impl Outcome {
    /// Items in a second between these times, to the next bucket.
    pub(super) fn between(&self, from: Duration, to: Duration) -> f64 {
        let bucket = |at: Duration| (at.as_nanos() / BUCKET.as_nanos()) as usize;
        let (from, to) = (bucket(from), bucket(to).min(BUCKETS));
        let sum: u64 = self.counts[from..to].iter().sum();
        sum as f64 / ((to - from) as f64 * BUCKET.as_secs_f64())
    }

    /// The fewest items in a second of any second between these times.
    pub(super) fn least(&self, from: Duration, to: Duration) -> f64 {
        const SECOND: Duration = Duration::from_secs(1);
        let begins = (0..).map(|step| from + step * BUCKET).take_while(|at| *at + SECOND <= to);
        begins.map(|at| self.between(at, at + SECOND)).fold(f64::INFINITY, f64::min)
    }

    /// The part of a core that looking took from the last survey before `from` to the last of all;
    /// `None` if it is the same.
    pub(super) fn looking(&self, from: Duration) -> Option<f64> {
        let first = self.seen.iter().rev().find(|seen| seen.at <= from).or(self.seen.first())?;
        let last = self.seen.last()?;
        let time = last.at.saturating_sub(first.at).as_secs_f64();
        (time > 0.0).then(|| (last.cost - first.cost).as_secs_f64() / time)
    }

    /// The mean of all workers together from then on, by the time that they were there.
    pub(super) fn mean_workers(&self, from: Duration) -> Option<f64> {
        let late: Vec<_> = self.seen.iter().filter(|seen| seen.at >= from).collect();
        let late = if late.is_empty() { self.seen.last().into_iter().collect() } else { late };
        let ends = late.iter().skip(1).map(|seen| seen.at).chain([self.took]);
        let (mut sum, mut time) = (0.0, 0.0);
        for (seen, end) in late.iter().zip(ends) {
            let span = end.saturating_sub(seen.at).as_secs_f64();
            sum += seen.workers * span;
            time += span;
        }
        (time > 0.0).then(|| sum / time)
    }
}
