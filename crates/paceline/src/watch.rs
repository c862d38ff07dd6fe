//! The watch over the event loops: which polls of `io` futures take too long.
//!
//! A future that does not come back from a poll holds up all others of its
//! loop, and nobody but the loop would see it. So each loop has a seat, in
//! which it says what it polls and since when. The conductor looks into the
//! seats: at a poll that has gone on for too long it tells the observer at
//! once, so that one that never ends is seen too. The loop tells once more
//! when the poll has ended, with the final figure.
//!
//! The conductor sleeps while nothing is polled: the first poll after a pause
//! rings its bell, and it looks again only as long as there is something new.
//! Without an observer there are no seats, and the longest poll is only noted.
//!
//! Not here: who measures a poll (`worker/future.rs`).

use std::{
    sync::{Arc, Mutex, OnceLock},
    thread::{self, ThreadId},
    time::Duration,
};

use crate::{
    item::ItemId,
    sync::{Bell, lock},
};

/// How long a poll may take before it is told of, unless said.
pub(crate) const LONGEST_POLL: Duration = Duration::from_millis(100);

/// A poll of an `io` stage's future that took longer than
/// [`Pipeline::watch`](crate::Pipeline::watch) allows: it held up every other
/// future of its event loop.
///
/// ```
/// use std::time::{Duration, Instant};
/// use paceline::Pipeline;
///
/// let summary = Pipeline::from_iter(0..10)
///     .io("compute", |n: u32| async move {
///         let since = Instant::now();
///         while n == 7 && since.elapsed() < Duration::from_millis(30) {} // never gives way
///         Ok::<_, paceline::BoxError>(())
///     })
///     .watch(Duration::from_millis(20))
///     .run()?;
/// let longest = summary.longest_poll.expect("one poll took 30 ms");
/// assert_eq!(longest.stage, "compute");
/// # Ok::<(), paceline::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SlowPoll {
    /// The stage's name.
    pub stage: String,
    /// The item that the future worked on.
    pub item: ItemId,
    /// How long the poll took.
    pub took: Duration,
}

/// Watches the polls of a run.
pub(crate) struct Watch {
    /// How long a poll may take.
    pub(crate) limit: Duration,
    /// A seat for each thread with an event loop.
    seats: Mutex<Vec<(ThreadId, Arc<Seat>)>>,
    bell: OnceLock<Arc<Bell>>,
    longest: Mutex<Option<SlowPoll>>,
}

/// What an event loop polls now.
#[derive(Default)]
pub(crate) struct Seat(Mutex<Sitting>);

#[derive(Default)]
struct Sitting {
    polling: Option<Polling>,
    /// Whether the conductor will look here by itself.
    is_watched: bool,
    /// Whether anything was polled since it last looked.
    was_used: bool,
}

struct Polling {
    since: Duration,
    stage: usize,
    item: ItemId,
    is_told: bool,
}

/// A poll that goes on for too long.
pub(crate) struct Stuck {
    /// The stage, counted from 0.
    pub(crate) stage: usize,
    pub(crate) item: ItemId,
    pub(crate) so_far: Duration,
}

impl Watch {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { limit, seats: Mutex::default(), bell: OnceLock::new(), longest: Mutex::default() }
    }

    /// Lets whoever polls after a pause ring `bell`.
    pub(crate) fn set_bell(&self, bell: &Arc<Bell>) {
        // A watch serves one run, which has one conductor.
        let _ = self.bell.set(bell.clone());
    }

    /// The seat of the calling thread.
    pub(crate) fn seat(&self) -> Arc<Seat> {
        let here = thread::current().id();
        let mut seats = lock(&self.seats);
        if let Some((_, seat)) = seats.iter().find(|(thread, _)| *thread == here) {
            return seat.clone();
        }
        let seat = Arc::<Seat>::default();
        seats.push((here, seat.clone()));
        seat
    }

    /// Says what `seat` polls from `now` on.
    pub(crate) fn enter(&self, seat: &Seat, stage: usize, item: &ItemId, now: Duration) {
        let polling = Polling { since: now, stage, item: item.clone(), is_told: false };
        let mut sitting = lock(&seat.0);
        sitting.polling = Some(polling);
        sitting.was_used = true;
        // A conductor that has not yet set its bell has not yet looked here either.
        if !std::mem::replace(&mut sitting.is_watched, true)
            && let Some(bell) = self.bell.get()
        {
            drop(sitting);
            bell.ring();
        }
    }

    /// Says that `seat` polls nothing any more.
    pub(crate) fn leave(seat: &Seat) {
        let polled = lock(&seat.0).polling.take();
        drop(polled);
    }

    /// Notes a poll that took longer than it may.
    #[cold]
    pub(crate) fn note(&self, stage: &str, item: &ItemId, took: Duration) {
        let mut longest = lock(&self.longest);
        if longest.as_ref().is_none_or(|longest| longest.took < took) {
            *longest = Some(SlowPoll { stage: stage.to_owned(), item: item.clone(), took });
        }
    }

    pub(crate) fn longest(&self) -> Option<SlowPoll> {
        lock(&self.longest).clone()
    }

    /// Looks into all seats: gives each poll that takes too long, once, and
    /// after how long to look again, if somebody polls.
    pub(crate) fn look(&self, now: Duration) -> (Vec<Stuck>, Option<Duration>) {
        let (mut stuck, mut next) = (Vec::new(), None);
        let mut look_in = |wait: Duration| {
            next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
        };
        for (_, seat) in &*lock(&self.seats) {
            let mut sitting = lock(&seat.0);
            let was_used = std::mem::take(&mut sitting.was_used);
            match &mut sitting.polling {
                Some(polling) if !polling.is_told => {
                    let so_far = now.saturating_sub(polling.since);
                    if so_far < self.limit {
                        look_in(self.limit - so_far);
                        continue;
                    }
                    polling.is_told = true;
                    stuck.push(Stuck { stage: polling.stage, item: polling.item.clone(), so_far });
                    sitting.is_watched = false;
                }
                None if was_used => look_in(self.limit),
                // Whoever polls next rings.
                Some(_) | None => sitting.is_watched = false,
            }
        }
        (stuck, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn item() -> ItemId {
        ItemId::of_source(7)
    }

    #[test]
    fn a_poll_is_told_of_once_and_not_before_its_time() {
        let watch = Watch::new(100 * MS);
        let seat = watch.seat();
        watch.enter(&seat, 3, &item(), 10 * MS);
        let (stuck, next) = watch.look(90 * MS);
        assert!(stuck.is_empty());
        assert_eq!(next, Some(20 * MS));
        let (stuck, next) = watch.look(110 * MS);
        assert_eq!((stuck[0].stage, stuck[0].so_far, next), (3, 100 * MS, None));
        assert!(watch.look(500 * MS).0.is_empty(), "once is enough");
    }

    #[test]
    fn nobody_looks_again_where_nothing_was_polled() {
        let watch = Watch::new(100 * MS);
        let seat = watch.seat();
        watch.enter(&seat, 0, &item(), MS);
        Watch::leave(&seat);
        assert_eq!(watch.look(2 * MS).1, Some(100 * MS));
        assert_eq!(watch.look(102 * MS).1, None);
    }

    #[test]
    fn the_first_poll_after_a_pause_rings() {
        let watch = Watch::new(100 * MS);
        let bell = Bell::here();
        watch.set_bell(&bell);
        let seat = watch.seat();
        for _ in 0..2 {
            watch.enter(&seat, 0, &item(), MS);
            Watch::leave(&seat);
            bell.wait(None);
            watch.look(MS);
            watch.look(MS);
        }
    }

    #[test]
    fn a_thread_has_one_seat() {
        let watch = Watch::new(MS);
        assert!(Arc::ptr_eq(&watch.seat(), &watch.seat()));
        let elsewhere = thread::scope(|scope| scope.spawn(|| watch.seat()).join().unwrap());
        assert!(!Arc::ptr_eq(&elsewhere, &watch.seat()));
    }
}
