//! What can be said of the last stage, and of the run.

use std::{sync::Arc, time::Duration};

use super::Pipeline;
use crate::{
    account::Halt,
    clock::Clock,
    event::Observer,
    journal::{Answered, Journal, Recalled},
    monitor::Monitor,
    retry::Retry,
    stage::{Copier, Kind, Settings, Workers},
    stop::Stop,
};

/// Settings of the last stage.
impl<'a, T: Send + 'a, Prev> Pipeline<'a, T, Prev> {
    /// Sets how many items the stage works on at once, 1 or more, or the most
    /// of which the run uses as many as help: `Workers::auto().max(8)`.
    ///
    /// Unless set, the run finds the number by what it measures, and changes
    /// it as it goes on; see [`Workers`].
    ///
    /// [`Monitor::set_workers`] changes it while it runs.
    pub fn workers(self, workers: impl Into<Workers>) -> Self {
        let workers = workers.into();
        self.set("workers", |settings| settings.workers = workers)
    }

    /// Sets how many items may wait before the stage, 1 or more.
    ///
    /// Unless set, some thousands for values that own nothing, and a few for
    /// each worker for all others.
    pub fn queue(self, capacity: usize) -> Self {
        self.set("a queue", |settings| settings.queue = Some(capacity))
    }

    /// Sets the longest time that an attempt may take.
    ///
    /// A future is dropped and a child is stopped then. A thread cannot be
    /// killed: its attempt counts as timed out when the function returns,
    /// which [`is_cancelled`](crate::is_cancelled) tells it to do.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set("a timeout", |settings| settings.timeout = Some(timeout))
    }

    /// Sets the time between asking a child to stop and killing it; 5 s unless set.
    pub fn grace(self, grace: Duration) -> Self {
        self.set("a grace period", |settings| settings.grace = grace)
    }

    /// Gives items whose attempt failed another one, as `retry` says.
    ///
    /// An item that waits for its retry has no worker but keeps its place in
    /// the stage's bound.
    pub fn retry(mut self, retry: Retry) -> Self
    where
        Prev: Clone,
    {
        if retry.is_never() {
            self.copier = Copier::default();
        } else {
            self.copier.get_or_init(|| Prev::clone);
        }
        self.set("retries", |settings| settings.retry = retry)
    }

    /// Makes the stage hand on its results in the order of the source.
    ///
    /// Memory stays bounded: the source admits no more than a window of items
    /// at once, so a very slow item holds up the others in the end; see
    /// [`window`](Self::window). A fan-out
    /// or fan-in before this stage then keeps the order too. The window counts
    /// items of the source: behind a fan-out, all values that came of them may
    /// wait here for a slow one.
    pub fn ordered(self) -> Self {
        self.set("order", |settings| settings.ordered = true)
    }

    /// Records the stage's answers: `record` is told of each value, and of each
    /// item that has failed for good, and gives the number of its entry in the
    /// [`journal`](Self::journal). Before a stage is added it records the items of the source.
    ///
    /// It is called by the stage's workers, at once, and must not wait: neither
    /// the next stage nor the sink sees the answer before the entry is recorded.
    pub fn record(mut self, record: impl Fn(&Answered<'_, T>) -> u64 + Send + Sync + 'a) -> Self {
        let is_batch =
            self.plan.nodes.last().map(|node| node.stage().settings().kind == Kind::Batch);
        if is_batch == Some(true) {
            self.plan.misused("a record of what is no stage's answer");
        }
        let _ = self.hooks.recorder.set(Box::new(record));
        self
    }

    /// Lets items pass that the stage has answered for in an earlier run:
    /// those that `is_recalled` knows become what `recall` makes of them.
    /// The stage does not count them.
    pub fn recall(self, is_recalled: fn(&Prev) -> bool, recall: fn(Prev) -> T) -> Self {
        let _ = self.hooks.recalled.set(Recalled { is_recalled, recall });
        self
    }

    fn set(mut self, what: &str, change: impl FnOnce(&mut Settings)) -> Self {
        match self.plan.nodes.last_mut() {
            Some(node) if node.stage().settings().kind != Kind::Batch => {
                change(node.stage_mut().settings_mut())
            }
            _ => self.plan.misused(&format!("{what} set where there is no stage to have it")),
        }
        self
    }
}

/// Settings of the run.
impl<'a, T: Send + 'a, Prev> Pipeline<'a, T, Prev> {
    /// Lets `stop` stop the run.
    pub fn stop(mut self, stop: &Stop) -> Self {
        self.plan.stop = stop.clone();
        self
    }

    /// Stops the run when items have failed.
    pub fn halt(mut self, halt: Halt) -> Self {
        self.plan.halt = Some(halt);
        self
    }

    /// Measures time by `clock`, which can be paused; for tests, moved by hand.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.plan.clock = clock.clone();
        self
    }

    /// Tells `observer` what happens.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.plan.observer = Some(observer);
        self
    }

    /// Lets nobody see an answer before `journal` has recorded it.
    ///
    /// Which answers are recorded, each stage is told by [`record`](Self::record).
    pub fn journal(mut self, journal: Arc<dyn Journal>) -> Self {
        self.plan.journal = Some(journal);
        self
    }

    /// Sets how many cores the run may keep busy; all that this process may
    /// use unless set. Only the choice of workers heeds it: it is no limit that
    /// the system enforces.
    pub fn cpu_budget(mut self, cores: f64) -> Self {
        if cores.is_nan() || cores <= 0.0 {
            self.plan.misused("a budget of no cores");
        }
        self.plan.cpu_budget = Some(cores);
        self
    }

    /// Tells the observer when nothing has moved for `time` while items are inside.
    pub fn stall_after(mut self, time: Duration) -> Self {
        self.plan.stall_after = Some(time);
        self
    }

    /// Sets how long a poll of an `io` stage's future may take, 100 ms unless
    /// set; `None` turns the watch off.
    ///
    /// A future that computes or waits without `.await` holds up every other
    /// one on its event loop. A poll that takes longer is told of while it
    /// still goes on ([`Observer::stuck_poll`], at the latest after twice the
    /// time) and when it has ended ([`Observer::slow_poll`]); the summary has
    /// the [longest](crate::Summary::longest_poll). Work of that sort belongs into a
    /// stage of another kind, or off the loop.
    pub fn watch(mut self, longest_poll: impl Into<Option<Duration>>) -> Self {
        self.plan.watch = longest_poll.into();
        if self.plan.watch == Some(Duration::ZERO) {
            self.plan.misused("a watch for polls that take no time: every poll would be one");
        }
        self
    }

    /// Sets how many items of the source may be inside at once where a stage
    /// keeps the order: how far others may get ahead of a slow one. Their
    /// values wait in memory.
    ///
    /// Twice as many as have a place in a queue or with a worker, and 64,
    /// unless set; never fewer.
    ///
    /// ```
    /// use paceline::Pipeline;
    ///
    /// let (all, _) = Pipeline::from_iter(0..1000)
    ///     .cpu("half", |n: u32| Ok::<_, paceline::BoxError>(n / 2))
    ///     .ordered()
    ///     .window(500)
    ///     .collect()?;
    /// assert!(all.is_sorted());
    /// # Ok::<(), paceline::Error>(())
    /// ```
    pub fn window(mut self, items: u64) -> Self {
        self.plan.window = items;
        self
    }

    /// Returns the handle that shows how far the run is.
    pub fn monitor(&self) -> Monitor {
        self.plan.monitor.clone()
    }
}
