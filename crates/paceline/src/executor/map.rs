//! A function applied to many items by a pool: in order, or as they come.
//!
//! Both keep a window of answers ahead of whoever asks: as many as the queue
//! and the workers hold, so that workers are busy and memory is bounded.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::poll_fn,
    sync::Arc,
    time::Duration,
};

use super::{
    submit::{Reason, Refused, Submitter},
    threads::Threads,
};
use crate::{
    answer::{Answer, Outcome},
    answers::Watch,
    clock::Clock,
    failure::{BoxError, Failure, FailureKind, Fault},
    item::ItemId,
    sync::block_on,
};

/// The outcomes of [`Submitter::map`], in the order of the items.
///
/// Asking for the next waits until its work is done. Dropping it cancels
/// what has not begun, asks what is running to end, and does not wait.
#[must_use = "dropping it cancels what has not begun"]
pub struct Map<'m, Out> {
    ahead: VecDeque<Answer<Out>>,
    feed: Feed<'m, Out>,
}

impl<Out> Map<'_, Out> {
    /// Limits the time from now to the last outcome.
    ///
    /// When it is over, what has not begun is cancelled, what is running is
    /// asked to end, and the next outcome is a failure of kind
    /// [`Timeout`](FailureKind::Timeout), the last one; nothing is waited for.
    ///
    /// ```
    /// use std::time::Duration;
    /// use paceline::{FailureKind, ThreadPool};
    ///
    /// let pool = ThreadPool::builder("slow").workers(1).build()?;
    /// let endless = |_: u32| {
    ///     while !paceline::is_cancelled() {
    ///         std::hint::spin_loop();
    ///     }
    ///     Ok::<_, paceline::BoxError>(())
    /// };
    /// let mut outcomes = pool.map(1..=3, endless).within(Duration::from_millis(10));
    /// assert_eq!(outcomes.next().unwrap().unwrap_err().kind(), FailureKind::Timeout);
    /// assert!(outcomes.next().is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn within(mut self, limit: Duration) -> Self {
        self.feed.limit(limit);
        self
    }

    fn fill(&mut self) {
        while self.ahead.len() < self.feed.window {
            match self.feed.next(false) {
                Some(answer) => self.ahead.push_back(answer),
                None => break,
            }
        }
    }

    fn cancel(&mut self) {
        for answer in self.ahead.drain(..) {
            answer.cancel();
        }
    }
}

impl<Out> Iterator for Map<'_, Out> {
    type Item = Outcome<Out>;

    fn next(&mut self) -> Option<Outcome<Out>> {
        self.fill();
        let mut answer = match self.ahead.pop_front() {
            Some(answer) => answer,
            // The queue is full of others' work.
            None => self.feed.next(true)?,
        };
        match self.feed.due {
            None => Some(answer.wait()),
            Some((due, _)) => {
                let outcome = self.feed.clock.block_on_until(due, &mut answer);
                Some(outcome.unwrap_or_else(|| {
                    answer.cancel();
                    self.cancel();
                    Err(self.feed.time_is_over(answer.number()))
                }))
            }
        }
    }
}

impl<Out> Drop for Map<'_, Out> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<Out> fmt::Debug for Map<'_, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

/// The outcomes of [`Submitter::map_unordered`] as they come, each with the
/// position of its item, from 0.
///
/// ```
/// use paceline::ThreadPool;
///
/// let pool = ThreadPool::builder("double").workers(2).build()?;
/// let doubled = pool.map_unordered(1..=3, |n: u32| Ok::<_, paceline::BoxError>(2 * n));
/// let mut doubled: Vec<_> = doubled.map(|(place, outcome)| (place, outcome.unwrap())).collect();
/// doubled.sort();
/// assert_eq!(doubled, [(0, 2), (1, 4), (2, 6)]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it cancels what has not begun"]
pub struct MapUnordered<'m, Out> {
    ahead: HashMap<usize, Answer<Out>>,
    watch: Arc<Watch>,
    feed: Feed<'m, Out>,
}

impl<Out> MapUnordered<'_, Out> {
    /// As [`Map::within`].
    pub fn within(mut self, limit: Duration) -> Self {
        self.feed.limit(limit);
        self
    }

    fn fill(&mut self) {
        while self.ahead.len() < self.feed.window {
            // With nothing ahead there is nothing else to wait for than room.
            let Some(answer) = self.feed.next(self.ahead.is_empty()) else { break };
            self.keep(answer);
        }
    }

    fn keep(&mut self, answer: Answer<Out>) {
        let place = self.feed.given as usize - 1;
        self.watch.add(place, &answer);
        self.ahead.insert(place, answer);
    }

    fn cancel(&mut self) {
        for (_, answer) in self.ahead.drain() {
            answer.cancel();
        }
    }
}

impl<Out> Iterator for MapUnordered<'_, Out> {
    type Item = (usize, Outcome<Out>);

    fn next(&mut self) -> Option<(usize, Outcome<Out>)> {
        self.fill();
        if self.ahead.is_empty() {
            return None;
        }
        if self.watch.is_empty() && self.feed.due.is_none() {
            let first = self.ahead.keys().min().copied();
            first
                .and_then(|place| self.ahead.get(&place))
                .inspect(|answer| answer.help_if_inside());
        }
        let next = poll_fn(|context| self.watch.poll_next(context));
        let came = match self.feed.due {
            None => Some(block_on(next)),
            Some((due, _)) => self.feed.clock.block_on_until(due, next),
        };
        if let Some(place) = came {
            let mut answer = self.ahead.remove(&place)?;
            return Some((place, answer.try_get()?));
        }
        let place = self.ahead.keys().min().copied()?;
        self.cancel();
        Some((place, Err(self.feed.time_is_over(place as u64 + 1))))
    }
}

impl<Out> Drop for MapUnordered<'_, Out> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<Out> fmt::Debug for MapUnordered<'_, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapUnordered").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

/// Gives items to the pool, as far as there is room.
struct Feed<'m, Out> {
    /// Gives the next item; whether it may wait for room, and until when.
    give: Box<dyn FnMut(u64, Room) -> Given<Out> + 'm>,
    name: Arc<str>,
    clock: Clock,
    window: usize,
    /// How many items were given.
    given: u64,
    /// When the time is over, and how long it was.
    due: Option<(Duration, Duration)>,
    is_over: bool,
}

/// What to do where there is no room.
enum Room {
    IfAny,
    Wait(Option<Duration>),
}

enum Given<Out> {
    Answer(Answer<Out>),
    NoRoom,
    NoItem,
    Refused(Fault),
}

impl<'m, Out> Feed<'m, Out> {
    fn new<'s, I, E, F>(submitter: &Submitter<'s>, mut items: I, function: F) -> Self
    where
        's: 'm,
        I: Iterator + 'm,
        I::Item: Send + 's,
        F: Fn(I::Item) -> Result<Out, E> + Send + Sync + 's,
        E: Into<BoxError> + 's,
        Out: Send + 's,
    {
        let threads: &Threads<'s> = submitter.threads();
        let (name, clock) = (threads.crew.name.clone(), threads.crew.clock.clone());
        let window = threads.queue.capacity().saturating_add(submitter.workers());
        let submitter = submitter.clone();
        let function = Arc::new(function);
        // What found no room, to be given first.
        let mut held = None;
        let give = move |number, room| {
            let work = held.take().or_else(|| {
                let (item, function) = (items.next()?, function.clone());
                Some(move || function(item))
            });
            let Some(work) = work else { return Given::NoItem };
            let given = match room {
                Room::IfAny => submitter.try_numbered(number, work),
                Room::Wait(due) => submitter.submit_numbered(number, work, due),
            };
            match given {
                Ok(answer) => Given::Answer(answer),
                Err(Refused { work, reason: Reason::Full }) => {
                    held = Some(work);
                    Given::NoRoom
                }
                Err(Refused { reason, .. }) => Given::Refused(reason.into_fault()),
            }
        };
        Self { give: Box::new(give), name, clock, window, given: 0, due: None, is_over: false }
    }

    fn limit(&mut self, limit: Duration) {
        self.due = Some((self.clock.now().saturating_add(limit), limit));
    }

    /// Gives the next item. `None`: there is no room, or nothing more.
    fn next(&mut self, may_wait: bool) -> Option<Answer<Out>> {
        if self.is_over {
            return None;
        }
        let due = self.due.map(|(due, _)| due);
        let room = if may_wait { Room::Wait(due) } else { Room::IfAny };
        let fault = match (self.give)(self.given + 1, room) {
            Given::Answer(answer) => {
                self.given += 1;
                return Some(answer);
            }
            Given::NoRoom if !may_wait => return None,
            Given::NoRoom => self.timed_out(),
            Given::NoItem => {
                self.is_over = true;
                return None;
            }
            Given::Refused(fault) => fault,
        };
        self.given += 1;
        self.is_over = true;
        let (promise, answer) = Answer::pending(self.name.clone(), self.given);
        promise.end(Err(fault));
        Some(answer)
    }

    /// The failure in place of the first outcome that came too late; the last one.
    fn time_is_over(&mut self, number: u64) -> Failure {
        self.is_over = true;
        Failure::new(ItemId::of_source(number), self.name.clone(), 1, self.timed_out())
    }

    fn timed_out(&self) -> Fault {
        let limit = self.due.map_or(Duration::ZERO, |(_, limit)| limit);
        Fault::new(FailureKind::Timeout, format!("not all outcomes came within {limit:?}"))
    }
}

impl<'m, Out> Map<'m, Out> {
    pub(crate) fn new<'s, I, E, F>(submitter: &Submitter<'s>, items: I, function: F) -> Self
    where
        's: 'm,
        I: Iterator + 'm,
        I::Item: Send + 's,
        F: Fn(I::Item) -> Result<Out, E> + Send + Sync + 's,
        E: Into<BoxError> + 's,
        Out: Send + 's,
    {
        let feed = Feed::new(submitter, items, function);
        let mut map = Self { ahead: VecDeque::new(), feed };
        map.fill();
        map
    }
}

impl<'m, Out> MapUnordered<'m, Out> {
    pub(crate) fn new<'s, I, E, F>(submitter: &Submitter<'s>, items: I, function: F) -> Self
    where
        's: 'm,
        I: Iterator + 'm,
        I::Item: Send + 's,
        F: Fn(I::Item) -> Result<Out, E> + Send + Sync + 's,
        E: Into<BoxError> + 's,
        Out: Send + 's,
    {
        let feed = Feed::new(submitter, items, function);
        let mut map = Self { ahead: HashMap::new(), watch: Arc::default(), feed };
        while map.ahead.len() < map.feed.window {
            let Some(answer) = map.feed.next(false) else { break };
            map.keep(answer);
        }
        map
    }
}
