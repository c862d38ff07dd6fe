//! Who counts: the ledger of the run and the counters of each stage.
//!
//! The ledger takes the ending of every item, once. Whoever holds an
//! envelope answers for it: it hands it on, ends it, or, when it is dropped
//! with its buffer ([`Held`]), ends it as unfinished. So an item cannot
//! vanish, whichever way a worker ends.
//!
//! Stage counters are sharded, so that workers do not share cache lines, and
//! written once a chunk. Not here: the table people read (`summary.rs`).

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::{
    clock::Clock,
    event::Observer,
    failure::Failure,
    item::{Ending, Envelope, ItemId, Load},
    stop::{Stop, StopLevel},
    sync::{Notice, lock},
};

/// When failures stop the run.
///
/// ```
/// use paceline::{Halt, Pipeline};
///
/// let (_, summary) = Pipeline::from_iter(1..)
///     .cpu("fail", |n: u64| Err::<(), _>(format!("no {n}")))
///     .halt(Halt::soon().after(3))
///     .collect()?;
/// assert!(summary.failed >= 3);
/// # Ok::<(), paceline::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Halt {
    level: StopLevel,
    limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Limit {
    Failures(u64),
    Percent(f64),
}

impl Halt {
    /// Starts no further attempt after the first failure; running ones finish.
    pub const fn soon() -> Self {
        Self { level: StopLevel::Halt, limit: Limit::Failures(1) }
    }

    /// Stops running attempts too, after the first failure.
    pub const fn now() -> Self {
        Self { level: StopLevel::Cancel, limit: Limit::Failures(1) }
    }

    /// After this many failures and not at the first.
    #[must_use]
    pub const fn after(mut self, failures: u64) -> Self {
        self.limit = Limit::Failures(failures);
        self
    }

    /// When this share of the items answered so far has failed, in percent,
    /// and at least 10 are answered.
    #[must_use]
    pub const fn at_percent(mut self, percent: f64) -> Self {
        self.limit = Limit::Percent(percent);
        self
    }

    fn is_reached(&self, failed: u64, answered: u64) -> bool {
        match self.limit {
            Limit::Failures(limit) => failed >= limit,
            Limit::Percent(percent) => {
                answered >= 10 && failed as f64 * 100.0 >= percent * answered as f64
            }
        }
    }
}

/// How many failures the summary keeps with their causes; all are counted.
pub(crate) const KEPT_FAILURES: usize = 100;

/// The account of a run.
pub(crate) struct Ledger {
    pub(crate) taken: AtomicU64,
    pub(crate) ok: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) unfinished: AtomicU64,
    /// Whether the source was read to its end.
    pub(crate) source_ended: AtomicBool,
    pub(crate) failures: Mutex<Vec<Failure>>,
    /// Failures noted, ahead of the endings of their items.
    noted: AtomicU64,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// Told when items have ended.
    pub(crate) has_ended: Notice,
    stop: Stop,
    halt: Option<Halt>,
}

impl Ledger {
    pub(crate) fn new(stop: Stop, halt: Option<Halt>, observer: Option<Arc<dyn Observer>>) -> Self {
        Self {
            taken: AtomicU64::new(0),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            unfinished: AtomicU64::new(0),
            source_ended: AtomicBool::new(false),
            failures: Mutex::default(),
            noted: AtomicU64::new(0),
            observer,
            has_ended: Notice::default(),
            stop,
            halt,
        }
    }

    /// Takes the ending of whatever `id` stands for.
    pub(crate) fn end(&self, id: &ItemId, ending: Ending) {
        match &id.family {
            None => {
                self.end_source_item(id.position, &ending);
                self.has_ended.tell();
            }
            Some(family) => {
                if let Some((parents, ending)) = family.member_ended(ending) {
                    for parent in parents {
                        self.end(parent, ending.clone());
                    }
                }
            }
        }
    }

    /// Ends all envelopes of `done` that have come through every stage, with
    /// one write for the plain ones, and gives their values to `take`.
    pub(crate) fn end_all<T>(&self, done: &mut Held<T>, mut take: impl FnMut(&ItemId, Output<T>)) {
        let mut plain = 0;
        while let Some(Envelope { id, load, .. }) = done.pop_front() {
            let ending = match load {
                Load::Item(value) => {
                    take(&id, Output::Value(value));
                    Ending::Ok
                }
                Load::Failed(failure) => {
                    take(&id, Output::Failure(&failure));
                    Ending::Failed(failure)
                }
                Load::Unfinished => Ending::Unfinished,
                Load::Again(_) => unreachable!("only a stage's own queue holds retries"),
            };
            if matches!(ending, Ending::Ok) && id.family.is_none() && self.observer.is_none() {
                plain += 1;
            } else {
                self.end(&id, ending);
            }
        }
        if plain > 0 {
            self.ok.fetch_add(plain, Ordering::Relaxed);
            self.judge();
            self.has_ended.tell();
        }
    }

    fn end_source_item(&self, position: u64, ending: &Ending) {
        let counter = match ending {
            Ending::Ok => &self.ok,
            Ending::Unfinished => &self.unfinished,
            Ending::Failed(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(observer) = &self.observer {
            observer.item_ended(position, ending);
        }
        if matches!(ending, Ending::Ok) {
            self.judge();
        }
    }

    /// Notes that an item failed for good, as soon as that is known.
    pub(crate) fn note_failure(&self, failure: &Failure) {
        {
            let mut failures = lock(&self.failures);
            if failures.len() < KEPT_FAILURES {
                failures.push(failure.clone());
            }
        }
        if let Some(observer) = &self.observer {
            observer.failed(failure);
        }
        if self.halt.is_some() {
            let items = failure.item().sequence_numbers().len() as u64;
            self.noted.fetch_add(items, Ordering::SeqCst);
            self.judge();
        }
    }

    /// Stops the run where enough has failed. A share may be reached by an
    /// item that came through: with the tenth answer the first failure counts.
    fn judge(&self) {
        let Some(halt) = self.halt else { return };
        let failed = self.noted.load(Ordering::SeqCst);
        if failed > 0 && halt.is_reached(failed, failed + self.ok.load(Ordering::Relaxed)) {
            self.stop.rise(halt.level);
        }
    }

    /// Whether running attempts are being stopped.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.stop.level() >= StopLevel::Cancel
    }

    /// Items taken and not yet ended.
    pub(crate) fn in_flight(&self) -> u64 {
        self.taken.load(Ordering::SeqCst).saturating_sub(self.ended())
    }

    /// Items that have ended, whichever way.
    pub(crate) fn ended(&self) -> u64 {
        self.ok.load(Ordering::SeqCst)
            + self.failed.load(Ordering::SeqCst)
            + self.unfinished.load(Ordering::SeqCst)
    }
}

/// What comes out of the last stage for an item.
pub(crate) enum Output<'a, T> {
    Value(T),
    Failure(&'a Failure),
}

impl<T> From<Output<'_, T>> for Result<T, Failure> {
    fn from(output: Output<'_, T>) -> Self {
        match output {
            Output::Value(value) => Ok(value),
            Output::Failure(failure) => Err(failure.clone()),
        }
    }
}

/// Envelopes in someone's hands. Dropped with envelopes inside, it answers
/// for them: what carries work is unfinished.
pub(crate) struct Held<T> {
    items: VecDeque<Envelope<T>>,
    ledger: Arc<Ledger>,
    /// The stage that had taken them, if one had.
    stage: Option<Arc<StageCounters>>,
}

impl<T> Held<T> {
    pub(crate) fn new(ledger: Arc<Ledger>, stage: Option<Arc<StageCounters>>) -> Self {
        Self { items: VecDeque::new(), ledger, stage }
    }

    /// An empty buffer of the same owner.
    pub(crate) fn sibling(&self) -> Self {
        Self::new(self.ledger.clone(), self.stage.clone())
    }

    pub(crate) fn with(mut self, items: VecDeque<Envelope<T>>) -> Self {
        self.items = items;
        self
    }
}

impl<T> Deref for Held<T> {
    type Target = VecDeque<Envelope<T>>;

    fn deref(&self) -> &Self::Target {
        &self.items
    }
}

impl<T> DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.items
    }
}

impl<T> Held<T> {
    fn let_go(&self, Envelope { id, load, .. }: Envelope<T>) {
        let ending = match &load {
            Load::Item(_) | Load::Again(_) => {
                if let Some(stage) = &self.stage {
                    stage.shard(0).unfinished.fetch_add(1, Ordering::Relaxed);
                }
                Ending::Unfinished
            }
            Load::Failed(failure) => Ending::Failed(failure.clone()),
            Load::Unfinished => Ending::Unfinished,
        };
        self.ledger.end(&id, ending);
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        let mut panicked = None;
        while let Some(envelope) = self.items.pop_front() {
            // A payload's drop and an observer may panic; the others are answered for all
            // the same. A second panic while one is under way would end the process.
            let let_go = catch_unwind(AssertUnwindSafe(|| self.let_go(envelope)));
            panicked = panicked.or(let_go.err());
        }
        if let Some(panic) = panicked
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// The counters of one stage. All times are nanoseconds, all sums grow only.
#[derive(Default)]
pub(crate) struct StageCounters {
    shards: [Shard; SHARDS],
}

const SHARDS: usize = 8;

/// One worker's part of the counters (or a few workers'), on cache lines of its own.
#[repr(align(128))]
#[derive(Default)]
pub(crate) struct Shard {
    /// Items taken to be worked on; one that comes back for a retry counts once.
    pub(crate) fed: AtomicU64,
    pub(crate) ok: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) unfinished: AtomicU64,
    pub(crate) retried: AtomicU64,
    /// Attempts that were told to come back later.
    pub(crate) pushback: AtomicU64,
    /// The children that run, and since when.
    pub(crate) children: Mutex<Vec<(u32, Duration)>>,
    /// CPU time used for them.
    pub(crate) cpu: AtomicU64,
    /// Polls that took longer than the watch allows.
    pub(crate) slow_polls: AtomicU64,
    service: Mutex<Service>,
}

/// Times of service, and who is in service now.
#[derive(Default)]
struct Service {
    histogram: Option<Histogram<u64>>,
    /// Time in service of those who no longer are.
    ended: Duration,
    /// How many are, and the sum of the times at which they began.
    serving: u32,
    began: Duration,
    /// The sum of the squares of service times, in seconds squared.
    squares: f64,
}

impl Shard {
    /// Notes that `count` items took `service` each.
    pub(crate) fn served(&self, count: u64, service: Duration) {
        let nanos = u64::try_from(service.as_nanos()).unwrap_or(u64::MAX).max(1);
        let mut times = lock(&self.service);
        times.squares += service.as_secs_f64().powi(2) * count as f64;
        let histogram = times.histogram.get_or_insert_with(service_histogram);
        histogram.record_n(nanos, count).expect("the histogram resizes itself");
    }

    /// Notes time in service that nobody could see before it was over.
    pub(crate) fn was_busy(&self, time: Duration) {
        lock(&self.service).ended += time;
    }

    /// Notes that a worker is at work from `at` on; its time counts from now
    /// on, whenever it ends.
    pub(crate) fn serve<'c>(&self, at: Duration, clock: &'c Clock) -> Serving<'_, 'c> {
        let mut times = lock(&self.service);
        times.serving += 1;
        times.began += at;
        Serving { shard: self, clock, began: Some(at) }
    }
}

/// A worker at work. Dropped, it is at work no more.
pub(crate) struct Serving<'s, 'c> {
    shard: &'s Shard,
    clock: &'c Clock,
    began: Option<Duration>,
}

impl Serving<'_, '_> {
    /// Ends at the time `at`, and gives how long it was.
    pub(crate) fn end(mut self, at: Duration) -> Duration {
        self.end_at(at)
    }

    fn end_at(&mut self, at: Duration) -> Duration {
        let Some(began) = self.began.take() else { return Duration::ZERO };
        let service = at.saturating_sub(began);
        let mut times = lock(&self.shard.service);
        times.serving -= 1;
        times.began = times.began.saturating_sub(began);
        times.ended += service;
        service
    }
}

impl Drop for Serving<'_, '_> {
    fn drop(&mut self) {
        if self.began.is_some() {
            self.end_at(self.clock.now());
        }
    }
}

/// Two digits are enough for a table, and keep a histogram at some 40 KB.
fn service_histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new(2).expect("2 significant digits are in range");
    histogram.auto(true);
    histogram
}

impl StageCounters {
    pub(crate) fn shard(&self, worker: usize) -> &Shard {
        &self.shards[worker % SHARDS]
    }

    /// The eldest children that run, of those that were there at the time `at`.
    pub(crate) fn children(&self, at: Duration, most: usize) -> Vec<u32> {
        let all = self.shards.iter().flat_map(|shard| lock(&shard.children).clone());
        let mut all: Vec<(u32, Duration)> = all.filter(|(_, since)| *since <= at).collect();
        all.sort_by_key(|(_, since)| *since);
        all.into_iter().take(most).map(|(pid, _)| pid).collect()
    }

    pub(crate) fn sum(&self, counter: impl Fn(&Shard) -> &AtomicU64) -> u64 {
        self.shards.iter().map(|shard| counter(shard).load(Ordering::Relaxed)).sum()
    }

    /// Time in service up to `now`, with that of those still in service, and
    /// the sum of the squares of service times.
    pub(crate) fn busy(&self, now: Duration) -> (Duration, f64) {
        let mut all = (Duration::ZERO, 0.0);
        for shard in &self.shards {
            let times = lock(&shard.service);
            // A clock is read before the lock is taken: it may be a little behind.
            all.0 += times.ended + (now * times.serving).saturating_sub(times.began);
            all.1 += times.squares;
        }
        all
    }

    /// The service times of all shards together.
    pub(crate) fn service(&self) -> Histogram<u64> {
        let mut all = service_histogram();
        for shard in &self.shards {
            if let Some(histogram) = &lock(&shard.service).histogram {
                all.add(histogram).expect("both resize themselves");
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        failure::{FailureKind, Fault},
        item::Family,
    };

    fn ledger() -> Arc<Ledger> {
        Arc::new(Ledger::new(Stop::new(), None, None))
    }

    #[test]
    fn envelopes_dropped_with_their_buffer_are_unfinished() {
        let ledger = ledger();
        ledger.taken.store(2, Ordering::Relaxed);
        let mut held = Held::new(ledger.clone(), None);
        held.push_back(Envelope::new(ItemId::of_source(1), Load::Item(())));
        let failure = Failure::new(
            ItemId::of_source(2),
            "stage".into(),
            1,
            Fault::new(FailureKind::Failed, "no"),
        );
        held.push_back(Envelope::new(ItemId::of_source(2), Load::Failed(failure)));
        drop(held);
        assert_eq!(ledger.unfinished.load(Ordering::Relaxed), 1);
        assert_eq!(ledger.failed.load(Ordering::Relaxed), 1);
        assert_eq!(ledger.in_flight(), 0);
    }

    #[test]
    fn an_item_that_became_many_ends_with_the_last_of_them_and_as_the_worst() {
        let ledger = ledger();
        ledger.taken.store(1, Ordering::Relaxed);
        let family = Family::new(vec![ItemId::of_source(1)]);
        let member = |position| ItemId { position, family: Some(family.clone()) };
        family.grow();
        family.grow();
        ledger.end(&member(1), Ending::Unfinished);
        ledger.end(&member(2), Ending::Ok);
        assert_eq!(ledger.in_flight(), 1, "whoever makes the members is not done");
        ledger.end(&member(3), Ending::Ok);
        assert_eq!(ledger.unfinished.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn an_item_still_in_service_counts_as_long_as_it_has_been() {
        let (clock, counters) = (Clock::manual(), StageCounters::default());
        let second = Duration::from_secs(1);
        let first = counters.shard(0).serve(clock.now(), &clock);
        clock.advance(second);
        let other = counters.shard(0).serve(clock.now(), &clock);
        clock.advance(second);
        assert_eq!(counters.busy(clock.now()).0, 3 * second);
        first.end(clock.now());
        clock.advance(second);
        assert_eq!(counters.busy(clock.now()).0, 4 * second);
        drop(other);
        clock.advance(second);
        assert_eq!(counters.busy(clock.now()).0, 4 * second);
    }

    #[test]
    fn a_share_of_failures_halts_only_after_ten_answers() {
        let halt = Halt::soon().at_percent(50.0);
        assert!(!halt.is_reached(9, 9));
        assert!(halt.is_reached(5, 10));
        assert!(!halt.is_reached(4, 10));
    }
}
