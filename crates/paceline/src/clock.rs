//! The engine's one clock, which can be stopped.
//!
//! Every limit in time goes through it: timeouts, backoffs, grace periods.
//! Job control pauses it, so that no timer runs while the jobs stand still;
//! tests move a manual one by hand. A timer is a waker in a map ordered by
//! due time; the run's conductor sleeps until the first and wakes it.
//!
//! Not here: the measuring of service times that happen between two wakes,
//! which reads the same clock but sets no timer.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::time::Sleep;

use crate::sync::{Bell, lock};

/// A clock that counts from when it was made and can be paused.
///
/// Clones are handles on the same clock.
///
/// ```
/// use std::time::Duration;
/// use paceline::Clock;
///
/// let clock = Clock::manual();
/// assert_eq!(clock.now(), Duration::ZERO);
/// clock.advance(Duration::from_secs(3600));
/// assert_eq!(clock.now(), Duration::from_secs(3600));
/// ```
#[derive(Clone)]
pub struct Clock(Arc<Shared>);

struct Shared {
    origin: Instant,
    kind: Kind,
    /// Nanoseconds that the clock stood still, up to the last resume; a manual clock's time.
    offset: AtomicU64,
    /// `NOT_PAUSED`, or the time that the clock shows while it stands still.
    frozen: AtomicU64,
    timers: Mutex<Timers>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    System,
    Manual,
}

#[derive(Default)]
struct Timers {
    due: BTreeMap<(Duration, u64), Waker>,
    next: u64,
    bells: Vec<Weak<Bell>>,
    /// Alarms that wait for a paused clock to go on.
    paused: Vec<Waker>,
}

const NOT_PAUSED: u64 = u64::MAX;

impl Clock {
    /// A clock that runs with the machine's monotonic clock.
    pub fn system() -> Self {
        Self::new(Kind::System)
    }

    /// A clock that stands at zero and moves only by [`advance`](Self::advance), for tests.
    pub fn manual() -> Self {
        Self::new(Kind::Manual)
    }

    fn new(kind: Kind) -> Self {
        Self(Arc::new(Shared {
            origin: Instant::now(),
            kind,
            offset: AtomicU64::new(0),
            frozen: AtomicU64::new(NOT_PAUSED),
            timers: Mutex::default(),
        }))
    }

    /// Returns the time since the clock was made, without the time it was paused.
    pub fn now(&self) -> Duration {
        let frozen = self.0.frozen.load(Ordering::Acquire);
        if frozen != NOT_PAUSED {
            return Duration::from_nanos(frozen);
        }
        let offset = Duration::from_nanos(self.0.offset.load(Ordering::Acquire));
        match self.0.kind {
            Kind::System => self.0.origin.elapsed().saturating_sub(offset),
            Kind::Manual => offset,
        }
    }

    /// Stops the clock: no timer fires until [`resume`](Self::resume). Harmless to repeat.
    pub fn pause(&self) {
        let _guard = lock(&self.0.timers);
        if self.0.frozen.load(Ordering::Acquire) == NOT_PAUSED {
            self.0.frozen.store(nanos(self.now()), Ordering::Release);
        }
    }

    /// Lets the clock go on from where it stopped. Harmless to repeat.
    pub fn resume(&self) {
        let mut timers = lock(&self.0.timers);
        let frozen = self.0.frozen.load(Ordering::Acquire);
        if frozen != NOT_PAUSED {
            if self.0.kind == Kind::System {
                let stood = nanos(self.0.origin.elapsed()).saturating_sub(frozen);
                self.0.offset.store(stood, Ordering::Release);
            }
            self.0.frozen.store(NOT_PAUSED, Ordering::Release);
        }
        timers.ring();
        let paused = std::mem::take(&mut timers.paused);
        drop(timers);
        paused.into_iter().for_each(Waker::wake);
    }

    /// Moves a manual clock forward; what becomes due fires.
    ///
    /// # Panics
    ///
    /// If the clock is not a manual one.
    pub fn advance(&self, by: Duration) {
        assert!(self.0.kind == Kind::Manual, "only a manual clock is moved by hand");
        self.0.offset.fetch_add(nanos(by), Ordering::AcqRel);
        self.fire_due();
        lock(&self.0.timers).ring();
    }

    /// Returns how many timers are set: what a test waits for before it moves the clock.
    pub fn timers(&self) -> usize {
        lock(&self.0.timers).due.len()
    }

    /// Waits until the clock shows `due`.
    pub(crate) fn until(&self, due: Duration) -> Timer {
        Timer { clock: self.clone(), due, key: None }
    }

    /// Waits for `length` from now.
    pub(crate) fn sleep(&self, length: Duration) -> Timer {
        self.until(self.now().saturating_add(length))
    }

    /// Sets a timer that wakes `waker`, and returns the key to take it back with.
    pub(crate) fn set(&self, due: Duration, waker: Waker) -> (Duration, u64) {
        let mut timers = lock(&self.0.timers);
        let key = (due, timers.next);
        timers.next += 1;
        let is_first = timers.due.first_key_value().is_none_or(|(&(first, _), _)| due < first);
        timers.due.insert(key, waker);
        if is_first {
            timers.ring();
        }
        key
    }

    /// Has a timer that is set wake `waker`; `false` if it has fired.
    fn keep(&self, key: (Duration, u64), waker: &Waker) -> bool {
        let mut timers = lock(&self.0.timers);
        let set = timers.due.get_mut(&key);
        set.map(|set| set.clone_from(waker)).is_some()
    }

    pub(crate) fn unset(&self, key: (Duration, u64)) {
        lock(&self.0.timers).due.remove(&key);
    }

    /// Wakes every timer that is due, and returns how long it is to the next one.
    /// `None`: there is none that time alone will bring.
    pub(crate) fn fire_due(&self) -> Option<Duration> {
        let now = self.now();
        let mut timers = lock(&self.0.timers);
        let later = timers.due.split_off(&(now.saturating_add(Duration::from_nanos(1)), 0));
        let due = std::mem::replace(&mut timers.due, later);
        let next = timers.due.first_key_value().map(|(&(due, _), _)| due.saturating_sub(now));
        drop(timers);
        due.into_values().for_each(Waker::wake);
        next.filter(|_| self.runs())
    }

    /// Runs a future on this thread until it is ready or the clock shows `due`;
    /// `None` for the latter. Needs nobody to fire timers.
    pub(crate) fn block_on_until<F: Future>(&self, due: Duration, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        let bell = Bell::here();
        self.add_bell(&bell);
        let waker = Waker::from(bell.clone());
        let mut context = Context::from_waker(&waker);
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                return Some(output);
            }
            let now = self.now();
            if now >= due {
                return None;
            }
            // A paused clock rings when it goes on, a manual one when it is moved.
            bell.wait(self.runs().then(|| due - now));
        }
    }

    /// Whether time alone moves it.
    pub(crate) fn runs(&self) -> bool {
        self.0.kind == Kind::System && self.0.frozen.load(Ordering::Acquire) == NOT_PAUSED
    }

    /// Rings `bell` when a timer is set that is due before all others, and when the clock goes on.
    pub(crate) fn add_bell(&self, bell: &Arc<Bell>) {
        let mut timers = lock(&self.0.timers);
        timers.bells.retain(|bell| bell.strong_count() > 0);
        timers.bells.push(Arc::downgrade(bell));
    }
}

impl Timers {
    fn ring(&self) {
        self.bells.iter().filter_map(Weak::upgrade).for_each(|bell| bell.ring());
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("now", &self.now()).finish_non_exhaustive()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX - 1)
}

/// A wait for a point in time. Dropping it leaves no trace.
pub(crate) struct Timer {
    clock: Clock,
    due: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.due {
            self.end();
            return Poll::Ready(());
        }
        // It stays where it is: to set it again would wake the conductor each time.
        if self.key.is_some_and(|key| self.clock.keep(key, context.waker())) {
            return Poll::Pending;
        }
        let key = self.clock.set(self.due, context.waker().clone());
        self.key = Some(key);
        // Between the look and the setting the time may have come.
        if self.clock.now() >= self.due {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Timer {
    fn end(&mut self) {
        if let Some(key) = self.key.take() {
            self.clock.unset(key);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.end();
    }
}

/// A wait for a point in time where nobody fires the clock's timers: outside
/// a run. The clock says when it is over; to be woken, tokio's timer is used.
///
/// It sets no timer before it is polled. Polled after its end it is over still.
pub(crate) struct Alarm {
    clock: Clock,
    due: Duration,
    /// For a clock that is moved by hand.
    timer: Option<Timer>,
    /// For one that runs.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    pub(crate) fn new(clock: &Clock, due: Duration) -> Self {
        Self { clock: clock.clone(), due, timer: None, sleep: None }
    }

    pub(crate) fn after(clock: &Clock, length: Duration) -> Self {
        Self::new(clock, clock.now().saturating_add(length))
    }

    /// Whether the time has come; if not, the task will be woken.
    pub(crate) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        Pin::new(self).poll(context).is_ready()
    }

    /// Registers with a clock that is paused; `false` if it is not.
    fn wait_for_resume(&self, context: &Context<'_>) -> bool {
        let mut timers = lock(&self.clock.0.timers);
        let is_paused = !self.clock.runs();
        if is_paused && !timers.paused.iter().any(|waker| waker.will_wake(context.waker())) {
            timers.paused.push(context.waker().clone());
        }
        is_paused
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = self.clock.now();
            if now >= self.due {
                (self.timer, self.sleep) = (None, None);
                return Poll::Ready(());
            }
            if self.clock.0.kind == Kind::Manual {
                let (clock, due) = (self.clock.clone(), self.due);
                let timer = self.timer.get_or_insert_with(|| clock.until(due));
                return Pin::new(timer).poll(context);
            }
            if self.wait_for_resume(context) {
                self.sleep = None;
                return Poll::Pending;
            }
            // A pause makes it too early, and then there is another.
            let left = self.due - now;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            std::task::ready!(sleep.as_mut().poll(context));
            self.sleep = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task::Waker};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn is_ready(timer: Pin<&mut Timer>) -> bool {
        timer.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_timer_is_ready_when_the_clock_shows_its_time_and_not_before() {
        let clock = Clock::manual();
        let mut timer = pin!(clock.sleep(2 * SECOND));
        assert!(!is_ready(timer.as_mut()));
        clock.advance(SECOND);
        assert!(!is_ready(timer.as_mut()));
        clock.advance(SECOND);
        assert!(is_ready(timer.as_mut()));
    }

    #[test]
    fn a_dropped_timer_leaves_no_trace() {
        let clock = Clock::manual();
        {
            let mut timer = pin!(clock.sleep(SECOND));
            assert!(!is_ready(timer.as_mut()));
            assert_eq!(clock.timers(), 1);
        }
        assert_eq!(clock.timers(), 0);
    }

    #[test]
    fn a_timer_that_is_polled_again_wakes_its_new_waker_and_rings_once() {
        let clock = Clock::manual();
        let bell = Bell::here();
        clock.add_bell(&bell);
        let mut timer = pin!(clock.sleep(SECOND));
        assert!(!is_ready(timer.as_mut()));
        assert!(bell.has_rung());
        bell.wait(None);
        let woken = Bell::here();
        let waker = Waker::from(woken.clone());
        assert!(timer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(!bell.has_rung());
        assert_eq!(clock.timers(), 1);
        clock.advance(SECOND);
        assert!(woken.has_rung());
        assert!(is_ready(timer.as_mut()));
    }

    #[test]
    fn a_paused_clock_stands_still() {
        let clock = Clock::system();
        clock.pause();
        let before = clock.now();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(2) {}
        assert_eq!(clock.now(), before);
        clock.resume();
        assert!(clock.now() - before < Duration::from_millis(2), "the pause was not left out");
    }

    #[test]
    fn what_is_due_fires_and_the_next_wait_is_told() {
        let clock = Clock::system();
        let now = clock.now();
        clock.set(now, Waker::noop().clone());
        clock.set(now + 3600 * SECOND, Waker::noop().clone());
        let next = clock.fire_due().expect("one timer is left");
        assert!(next > 3500 * SECOND);
        assert_eq!(clock.timers(), 1);
    }
}
