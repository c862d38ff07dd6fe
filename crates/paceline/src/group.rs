//! Futures that end together: none of them outlives the group.
//!
//! A group is one future that polls its members. So members may borrow, a
//! group that is dropped has dropped them all before the drop returns, and a
//! member goes on whatever the others wait for. They share the thread of
//! whoever polls the group; work that computes belongs on a pool.
//!
//! Rust cancels a future by dropping it. What needs time to clean up watches
//! the group's [`Stop`] and is given a grace period.
//!
//! Not here: limits in time for a single future (`deadline.rs`).

use std::{
    error::Error,
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};

use crate::{
    answer::Outcome,
    clock::{Alarm, Clock},
    failure::{BoxError, Failure, FailureKind, Fault},
    item::ItemId,
    stop::{Stop, StopLevel},
};

mod member;
pub(crate) mod members;

use member::member;

/// After so many ends in one turn, or so many starts, the group lets others have theirs.
// A runtime also learns in between when its first timer is due: until then each timer that is
// set costs a system call.
const MOST_A_TURN: usize = 128;

/// The settings of a group of futures, and the ways to run one.
///
/// [`gather`](Self::gather) runs the futures of an iterator and gives their
/// values in order; [`gather_all`](Self::gather_all) gives all outcomes;
/// [`scope`](Self::scope) lets futures be added while it runs.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use paceline::Group;
///
/// let words = ["1", "2", "3"];
/// let parsed = words.iter().map(|word| async { word.parse::<u32>() });
/// assert_eq!(Group::new("parse").limit(2).gather(parsed).await?, [1, 2, 3]);
///
/// let words = ["1", "two", "3"];
/// let parsed = words.iter().map(|word| async { word.parse::<u32>() });
/// let error = Group::new("parse").gather(parsed).await.unwrap_err();
/// assert_eq!(error.to_string(), "item 2 failed in stage `parse`: invalid digit found in string");
/// # Ok(()) }
/// ```
///
/// # When stopped
///
/// The first failure, the group's time limit and its [`Stop`] end it: no
/// further member is started, the stop is cancelled for members that watch
/// it, and whatever has not ended after the [grace period](Self::grace) is
/// dropped. The group ends after its last member. Dropping the group drops
/// its members at once.
///
/// # Panics
///
/// Limits in time use the timers of tokio to be woken, so a group with one
/// panics outside a tokio runtime with timers, unless its clock is a manual one.
#[derive(Clone, Debug)]
#[must_use = "a group does nothing until it is run"]
pub struct Group {
    name: Arc<str>,
    limit: usize,
    timeout: Option<Duration>,
    within: Option<Duration>,
    grace: Duration,
    stop: Option<Stop>,
    clock: Clock,
}

impl Group {
    /// Begins a group with this name, which failures bear.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self {
            name: name.into(),
            limit: usize::MAX,
            timeout: None,
            within: None,
            grace: Duration::ZERO,
            stop: None,
            clock: Clock::system(),
        }
    }

    /// Sets how many members run at once, 1 or more; all of them unless set.
    ///
    /// # Panics
    ///
    /// If `limit` is 0: nothing would ever run.
    pub fn limit(mut self, limit: usize) -> Self {
        assert!(limit > 0, "a group needs a limit of at least 1");
        self.limit = limit;
        self
    }

    /// Sets the longest time that one member may take, from its start. Then it is
    /// dropped and has failed, of kind [`Timeout`](FailureKind::Timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the longest time that the whole group may take.
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = Some(limit);
        self
    }

    /// Sets how long members may go on when the group is stopped, for those
    /// that watch its [`stop`](Self::stop) to clean up; zero unless set.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Ties the group to `stop`: cancelled there, the group ends as cancelled;
    /// ended by a failure or by time, it cancels there.
    pub fn stop(mut self, stop: &Stop) -> Self {
        self.stop = Some(stop.clone());
        self
    }

    /// Measures time by `clock`, which can be paused; for tests, moved by hand.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Runs the futures and gives their values in order. The first failure
    /// stops the others.
    ///
    /// Futures are taken from the iterator as the limit allows, so that a
    /// million of them do not exist at once.
    ///
    /// # Errors
    ///
    /// [`GroupError`] with all failures, those too that came while the others
    /// were stopped.
    pub async fn gather<I, T, E>(self, futures: I) -> Result<Vec<T>, GroupError>
    where
        I: IntoIterator,
        I::Item: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let mut values = Vec::new();
        let mut course = Course::new(self, false);
        let keep = |place: usize, outcome| {
            if values.len() <= place {
                values.resize_with(place + 1, || None);
            }
            values[place] = Outcome::ok(outcome);
        };
        course.run(futures.into_iter(), keep).await;
        course.end(|| values.into_iter().flatten().collect())
    }

    /// Runs the futures and gives all outcomes, in order; failures stop nothing.
    ///
    /// If the group is stopped, members that have not ended have failed, of
    /// kind [`Timeout`](FailureKind::Timeout) or
    /// [`Cancelled`](FailureKind::Cancelled); those that were never started
    /// are left out.
    pub async fn gather_all<I, T, E>(self, futures: I) -> Vec<Outcome<T>>
    where
        I: IntoIterator,
        I::Item: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let name = self.name.clone();
        let mut outcomes: Vec<Option<Outcome<T>>> = Vec::new();
        let mut course = Course::new(self, true);
        let keep = |place: usize, outcome| {
            if outcomes.len() <= place {
                outcomes.resize_with(place + 1, || None);
            }
            outcomes[place] = Some(outcome);
        };
        let started = course.run(futures.into_iter(), keep).await;
        outcomes.resize_with(started, || None);
        let kind = match course.why {
            Some(Why::TimeIsOver) => FailureKind::Timeout,
            _ => FailureKind::Cancelled,
        };
        let dropped = |place| {
            let item = ItemId::of_source(place as u64 + 1);
            Failure::new(item, name.clone(), 1, Fault::new(kind, "the group was stopped"))
        };
        let outcomes = outcomes.into_iter().enumerate();
        outcomes.map(|(place, outcome)| outcome.unwrap_or_else(|| Err(dropped(place)))).collect()
    }
}

/// Why a group came to an end before its members did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Failed,
    TimeIsOver,
    Stopped,
}

/// What to do with the members in this turn.
#[derive(PartialEq)]
enum Turn {
    Run,
    /// Start no more, poll those there are.
    WindDown,
    /// Drop them.
    Drop,
}

/// A group on its way to its end.
struct Course {
    group: Group,
    /// Whether failures stop nothing.
    keeps_going: bool,
    why: Option<Why>,
    was_stopped: bool,
    failures: Vec<Failure>,
    time: Option<Alarm>,
    grace: Option<Alarm>,
    dropped: usize,
}

impl Course {
    fn new(group: Group, keeps_going: bool) -> Self {
        let time = group.within.map(|limit| Alarm::after(&group.clock, limit));
        Self {
            group,
            keeps_going,
            why: None,
            was_stopped: false,
            failures: Vec::new(),
            time,
            grace: None,
            dropped: 0,
        }
    }

    /// Says what to do in this turn; `stopped` is ready when the stop was cancelled.
    fn turn(
        &mut self,
        stopped: &mut (impl Future<Output = ()> + Unpin),
        context: &mut Context<'_>,
    ) -> Turn {
        if self.why != Some(Why::Failed) && !self.was_stopped && self.group.stop.is_some() {
            self.was_stopped = Pin::new(stopped).poll(context).is_ready();
        }
        if self.why.is_none() {
            if self.was_stopped {
                self.wind_down(Why::Stopped);
            } else if self.time.as_mut().is_some_and(|time| time.is_over(context)) {
                self.wind_down(Why::TimeIsOver);
            }
        }
        match self.grace.as_mut().map(|grace| grace.is_over(context)) {
            None => Turn::Run,
            Some(false) => Turn::WindDown,
            Some(true) => Turn::Drop,
        }
    }

    fn wind_down(&mut self, why: Why) {
        if self.why.is_none() {
            self.why = Some(why);
            self.grace = Some(Alarm::after(&self.group.clock, self.group.grace));
            if let Some(stop) = &self.group.stop {
                stop.cancel();
            }
        }
    }

    fn failure(&self, number: u64, fault: Fault) -> Failure {
        Failure::new(ItemId::of_source(number), self.group.name.clone(), 1, fault)
    }

    /// Takes note of a failure. Cancelled is not failed.
    fn failed(&mut self, failure: &Failure) {
        if failure.kind() == FailureKind::Cancelled {
            return;
        }
        self.failures.push(failure.clone());
        if !self.keeps_going {
            self.wind_down(Why::Failed);
        }
    }

    /// Runs the futures to the end of the group; returns how many were started.
    async fn run<I, T, E>(
        &mut self,
        mut futures: I,
        mut keep: impl FnMut(usize, Outcome<T>),
    ) -> usize
    where
        I: Iterator,
        I::Item: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        let stop = self.group.stop.clone().unwrap_or_default();
        let mut stopped = stop.reached(StopLevel::Cancel);
        let mut running = FuturesUnordered::new();
        let (mut started, mut are_all) = (0, false);
        poll_fn(|context| {
            let mut starts = 0;
            for _ in 0..MOST_A_TURN {
                match self.turn(&mut stopped, context) {
                    Turn::Run => {
                        while !are_all && running.len() < self.group.limit && starts < MOST_A_TURN {
                            starts += 1;
                            match futures.next() {
                                Some(future) => {
                                    let clock = &self.group.clock;
                                    let time = self.group.timeout.map(|time| (clock.clone(), time));
                                    running.push(member(started, future, time));
                                    started += 1;
                                }
                                None => are_all = true,
                            }
                        }
                    }
                    Turn::WindDown => are_all = true,
                    Turn::Drop => {
                        self.dropped = running.len();
                        running.clear();
                        return Poll::Ready(());
                    }
                }
                match running.poll_next_unpin(context) {
                    // There are more to start.
                    Poll::Pending | Poll::Ready(None) if starts == MOST_A_TURN => break,
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Ready(Some((place, result))) => {
                        let outcome = result.map_err(|fault| self.failure(place as u64 + 1, fault));
                        if let Err(failure) = &outcome {
                            self.failed(failure);
                        }
                        keep(place, outcome);
                    }
                }
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        started
    }

    fn end<R>(self, result: impl FnOnce() -> R) -> Result<R, GroupError> {
        let kind = match self.why {
            // What failed while the group was stopped is told before that.
            _ if !self.failures.is_empty() => GroupErrorKind::Failed,
            None => return Ok(result()),
            Some(Why::TimeIsOver) => GroupErrorKind::Timeout,
            Some(Why::Failed | Why::Stopped) => GroupErrorKind::Cancelled,
        };
        Err(GroupError {
            kind,
            name: self.group.name,
            failures: self.failures,
            was_stopped: self.was_stopped,
            was_late: self.why == Some(Why::TimeIsOver),
            dropped: self.dropped,
        })
    }
}

/// A group did not come to its values. All failures are told together.
#[derive(Clone, Debug)]
pub struct GroupError {
    kind: GroupErrorKind,
    name: Arc<str>,
    failures: Vec<Failure>,
    was_stopped: bool,
    was_late: bool,
    dropped: usize,
}

/// What a group ended by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupErrorKind {
    /// A member failed, perhaps while it cleaned up.
    Failed,
    /// The group's time was over.
    Timeout,
    /// The group's stop was cancelled.
    Cancelled,
}

impl GroupError {
    /// Returns what the group ended by.
    pub fn kind(&self) -> GroupErrorKind {
        self.kind
    }

    /// Returns all failures, in the order in which they came: the one that
    /// stopped the group, and those of members that were being stopped.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Returns whether the group's stop was cancelled from outside, also if a
    /// failure is told in place of that.
    pub fn was_stopped(&self) -> bool {
        self.was_stopped
    }

    /// Returns whether the group's time was over, also if a failure is told
    /// in place of that.
    pub fn was_late(&self) -> bool {
        self.was_late
    }

    /// Returns how many members were dropped before their end.
    pub fn dropped(&self) -> usize {
        self.dropped
    }
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.failures.as_slice()) {
            (GroupErrorKind::Timeout, _) => write!(f, "group `{}` ran out of time", self.name),
            (GroupErrorKind::Cancelled, _) => write!(f, "group `{}` was stopped", self.name),
            (GroupErrorKind::Failed, failures) => {
                for (number, failure) in failures.iter().enumerate() {
                    let between = if number == 0 { "" } else { "; " };
                    write!(f, "{between}{failure}: {}", failure.cause())?;
                }
                Ok(())
            }
        }
    }
}

impl Error for GroupError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failures.first().map(|failure| failure as _)
    }
}
