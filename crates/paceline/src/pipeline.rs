//! The builder: a chain of stages, each checked against the one before.
//!
//! `Pipeline<'a, T, Prev>` gives items of type `T`; `Prev` is what the last
//! stage takes, which only its retries need to know. `'a` is what the stages
//! may borrow: a run ends before its call returns, so borrowing is free.
//! Whatever is said about workers, limits or order is about the last stage.
//!
//! Not here: how it runs (`run.rs`).

use std::{future::Future, sync::Arc, time::Duration};

use paceline_process::{Command, Output};
use paceline_queue::Queue;

use crate::{
    account::{Halt, Ledger, Output as Last},
    chunk,
    clock::Clock,
    error::{Error, ErrorKind},
    event::Observer,
    failure::{BoxError, Failure},
    item::{Envelope, ItemId},
    journal::{Answered, Hooks, Journal, Recalled},
    monitor::Monitor,
    node::{Batches, Crew, Node},
    outlet::{EndLink, Link, QueueLink, Slot, fan::FanLink},
    retry::Retry,
    run::{
        self, Core,
        fan_in::{self, Batching, Part},
        feed::{Items, Source},
        pacer::Exit,
        sink,
    },
    runnable::Runnable,
    stage::{Copier, Kind, Settings, Stage, WayOut, Workers},
    stop::Stop,
    summary::Summary,
    sync::block_on,
    watch::{LONGEST_POLL, Watch},
    worker::{
        Attempt, Work,
        command::{Children, Job, OneCommand},
        function::Function,
        future::Futures,
    },
};

mod serve;

/// A pipeline on its way to being run.
///
/// See the [crate's documentation](crate) for a first one, and each method
/// for its part. Nothing happens before one of [`run`](Pipeline::run),
/// [`collect`](Pipeline::collect), [`outcomes`](Pipeline::outcomes), or
/// [`Runnable::run`].
#[must_use = "a pipeline does nothing until it is run"]
pub struct Pipeline<'a, T, Prev = ()> {
    pub(crate) plan: Plan<'a>,
    tail: Slot<'a, T>,
    copier: Copier<Prev>,
    hooks: Arc<Hooks<'a, Prev, T>>,
}

/// All of a pipeline but the types of its items.
pub(crate) struct Plan<'a> {
    source: Box<dyn Source<'a> + 'a>,
    nodes: Vec<Box<dyn Node + 'a>>,
    /// The stages whose values are split, by index.
    fans: Vec<usize>,
    stop: Stop,
    clock: Clock,
    monitor: Monitor,
    observer: Option<Arc<dyn Observer>>,
    journal: Option<Arc<dyn Journal>>,
    /// Closes the queue before the sink, where there will be no sink.
    close_exit: Option<run::CloseExit<'a>>,
    halt: Option<Halt>,
    stall_after: Option<Duration>,
    watch: Option<Duration>,
    /// How many items of the source may be inside at once, if a stage keeps the order.
    window: u64,
    /// How many cores may be used, if not all.
    cpu_budget: Option<f64>,
    /// What waits for the sink.
    exit: Option<Exit<'a>>,
    /// Whether the source goes on after each round.
    pub(crate) has_rounds: bool,
    misuse: Option<Error>,
}

impl<'a, T: Send + 'a> Pipeline<'a, T> {
    /// Begins a pipeline that takes its items from an iterator.
    ///
    /// The iterator is read on a thread of its own, as fast as the stages
    /// take items and no faster; it may be endless. While its `size_hint`
    /// says that more items are at hand they are handed over in batches.
    ///
    /// # When stopped
    ///
    /// From a drain on, no further item is asked for; an iterator that is
    /// waiting for its next item must come back by itself.
    #[expect(
        clippy::should_implement_trait,
        reason = "a pipeline is no collection: it only begins with an iterator"
    )]
    pub fn from_iter<I>(items: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'a,
    {
        let tail = Slot::default();
        let hooks = Arc::<Hooks<'_, _, _>>::default();
        let source = Items { items: items.into_iter(), slot: tail.clone(), hooks: hooks.clone() };
        let plan = Plan {
            source: Box::new(source),
            nodes: Vec::new(),
            fans: Vec::new(),
            stop: Stop::new(),
            clock: Clock::system(),
            monitor: Monitor::default(),
            observer: None,
            journal: None,
            close_exit: None,
            halt: None,
            stall_after: None,
            watch: Some(LONGEST_POLL),
            window: 0,
            cpu_budget: None,
            exit: None,
            has_rounds: false,
            misuse: None,
        };
        Self { plan, tail, copier: Copier::default(), hooks }
    }
}

/// Adding stages.
impl<'a, T: Send + 'a, Prev> Pipeline<'a, T, Prev> {
    /// Adds a stage that computes: a function on threads, as many as are of use
    /// unless [`workers`](Self::workers) says otherwise, at most two a core.
    ///
    /// An error or a panic is a failure of that item alone.
    pub fn cpu<Out, E, F>(self, name: &str, function: F) -> Pipeline<'a, Out, T>
    where
        F: Fn(T) -> Result<Out, E> + Send + Sync + 'a,
        E: Into<BoxError> + 'a,
        Out: Send + 'a,
    {
        self.cpu_with(name, move |item, _| function(item))
    }

    /// As [`cpu`](Self::cpu), with a function that is told which attempt it makes.
    pub fn cpu_with<Out, E, F>(self, name: &str, function: F) -> Pipeline<'a, Out, T>
    where
        F: Fn(T, Attempt) -> Result<Out, E> + Send + Sync + 'a,
        E: Into<BoxError> + 'a,
        Out: Send + 'a,
    {
        self.stage(name, Kind::Cpu, Function::new(function))
    }

    /// Adds a stage that may wait (for a disk, a lock, a network): a function
    /// on threads, as many as are of use unless [`workers`](Self::workers) says
    /// otherwise, at most 128.
    ///
    /// An error or a panic is a failure of that item alone.
    pub fn blocking<Out, E, F>(self, name: &str, function: F) -> Pipeline<'a, Out, T>
    where
        F: Fn(T) -> Result<Out, E> + Send + Sync + 'a,
        E: Into<BoxError> + 'a,
        Out: Send + 'a,
    {
        self.blocking_with(name, move |item, _| function(item))
    }

    /// As [`blocking`](Self::blocking), with a function that is told which attempt it makes.
    pub fn blocking_with<Out, E, F>(self, name: &str, function: F) -> Pipeline<'a, Out, T>
    where
        F: Fn(T, Attempt) -> Result<Out, E> + Send + Sync + 'a,
        E: Into<BoxError> + 'a,
        Out: Send + 'a,
    {
        self.stage(name, Kind::Blocking, Function::new(function))
    }

    /// Adds an asynchronous stage: a future an item, as many at once as are of
    /// use unless [`workers`](Self::workers) says otherwise, at most 512 then.
    /// Ten thousand cost little.
    ///
    /// The futures run inside a tokio runtime with its timers and its I/O,
    /// on as many threads as there are cores, shared by all stages of this
    /// kind. A future that does not come back from a poll holds up others.
    ///
    /// ```
    /// use std::time::Duration;
    /// use paceline::Pipeline;
    ///
    /// let (answers, _) = Pipeline::from_iter(0..1000)
    ///     .io("ask", |n: u32| async move {
    ///         tokio::time::sleep(Duration::from_millis(10)).await;
    ///         Ok::<_, paceline::BoxError>(n + 1)
    ///     })
    ///     .workers(1000)
    ///     .collect()?;
    /// assert_eq!(answers.len(), 1000);
    /// # Ok::<(), paceline::Error>(())
    /// ```
    pub fn io<Out, E, F, Fut>(self, name: &str, function: F) -> Pipeline<'a, Out, T>
    where
        F: Fn(T) -> Fut + Send + Sync + 'a,
        Fut: Future<Output = Result<Out, E>> + Send + 'a,
        E: Into<BoxError> + 'a,
        Out: Send + 'a,
    {
        self.io_with(name, move |item, _| function(item))
    }

    /// As [`io`](Self::io), with a function that is told which attempt it makes.
    pub fn io_with<Out, E, F, Fut>(self, name: &str, function: F) -> Pipeline<'a, Out, T>
    where
        F: Fn(T, Attempt) -> Fut + Send + Sync + 'a,
        Fut: Future<Output = Result<Out, E>> + Send + 'a,
        E: Into<BoxError> + 'a,
        Out: Send + 'a,
    {
        self.stage(name, Kind::Io, Futures::new(function))
    }

    /// Adds a stage that runs a child process an item and gives its output.
    ///
    /// Standard output is captured. A status other than 0 is a failure of the
    /// item, and so is a child that a signal ended or that could not be
    /// started. See [`command_job`](Self::command_job) for chains, and for making
    /// something else of the output.
    ///
    /// # When stopped
    ///
    /// At the stage's timeout, and when the run is cancelled, the child's
    /// process group is asked to end and killed after the
    /// [grace period](Self::grace).
    ///
    /// ```
    /// use paceline::{Attempt, Command, Pipeline};
    ///
    /// let (outputs, _) = Pipeline::from_iter(["a", "b"])
    ///     .command("shout", |word: &&str, _: &Attempt| Command::new("echo").arg(*word).arg("!"))
    ///     .ordered()
    ///     .collect()?;
    /// assert_eq!(outputs[1].stdout().to_text()?, "b !\n");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn command<M>(self, name: &str, make: M) -> Pipeline<'a, Output, T>
    where
        M: Fn(&T, &Attempt) -> Command + Send + Sync + 'a,
    {
        self.command_job(name, OneCommand(make))
    }

    /// Adds a stage that runs the children that `job` says for each item:
    /// chains, other outputs, other results.
    pub fn command_job<J>(self, name: &str, job: J) -> Pipeline<'a, J::Out, T>
    where
        J: Job<T> + 'a,
        J::Out: Send + 'a,
    {
        self.stage(name, Kind::Command, Children(job))
    }

    fn stage<Out, W>(mut self, name: &str, kind: Kind, work: W) -> Pipeline<'a, Out, T>
    where
        Out: Send + 'a,
        W: Work<T, Out> + 'a,
    {
        let stage = Stage::new(Settings::new(self.plan.nodes.len(), name, kind));
        self.join_to(stage.link());
        let copier = stage.copier.clone();
        let tail = Slot::default();
        let way_out = WayOut::new(tail.clone());
        let hooks = Arc::<Hooks<'_, _, _>>::default();
        self.plan.nodes.push(Box::new(Crew { stage, work, hooks: hooks.clone(), way_out }));
        Pipeline { plan: self.plan, tail, copier, hooks }
    }

    /// Fan-out: each value becomes as many items as it yields.
    ///
    /// An [`Option`] is a value that yields one item or none, so this is also
    /// how a stage leaves items out. Values are pulled from the iterator as
    /// the next stage takes them. An item of the source is ok when all that
    /// came of it is.
    ///
    /// ```
    /// use paceline::Pipeline;
    ///
    /// let (even, summary) = Pipeline::from_iter(0..10)
    ///     .cpu("keep the even", |n: u32| Ok::<_, paceline::BoxError>((n % 2 == 0).then_some(n)))
    ///     .fan_out()
    ///     .collect()?;
    /// assert_eq!(even.len(), 5);
    /// assert_eq!(summary.ok, 10);
    /// # Ok::<(), paceline::Error>(())
    /// ```
    pub fn fan_out<U>(mut self) -> Pipeline<'a, U>
    where
        T: IntoIterator<Item = U>,
        T::IntoIter: Send,
        U: Send + 'a,
    {
        let next = Slot::default();
        let last = self.plan.nodes.last();
        let name = last.map_or_else(|| "source".into(), |node| node.settings().name.clone());
        self.plan.fans.extend(self.plan.nodes.len().checked_sub(1));
        self.join_to(FanLink::new(next.clone(), name));
        Pipeline { plan: self.plan, tail: next, copier: Copier::default(), hooks: Arc::default() }
    }

    /// Fan-in: up to `items` items become one value.
    ///
    /// A batch that is not full goes on when its first item has waited for
    /// `wait`, or, with `None`, when the source has ended; so in
    /// [`rounds`](Self::rounds) a `wait` is needed. A failure later on is a
    /// failure of all items of the batch.
    ///
    /// ```
    /// use paceline::Pipeline;
    ///
    /// let (sizes, _) = Pipeline::from_iter(0..7)
    ///     .fan_in(3, None)
    ///     .cpu("count", |batch: Vec<u32>| Ok::<_, paceline::BoxError>(batch.len()))
    ///     .ordered()
    ///     .collect()?;
    /// assert_eq!(sizes, [3, 3, 1]);
    /// # Ok::<(), paceline::Error>(())
    /// ```
    pub fn fan_in(self, items: usize, wait: Option<Duration>) -> Pipeline<'a, Vec<T>> {
        self.fan_in_with(items, wait, |batch, _| batch)
    }

    /// As [`fan_in`](Self::fan_in), with `merge` making the value of a batch
    /// and its number, which counts from 1. It must be quick: it holds up the
    /// next batch.
    pub fn fan_in_with<U, M>(
        self,
        items: usize,
        wait: Option<Duration>,
        merge: M,
    ) -> Pipeline<'a, U>
    where
        U: Send + 'a,
        M: Fn(Vec<T>, u64) -> U + Send + Sync + 'a,
    {
        self.fan_in_inner(items, wait, None, merge)
    }

    /// As [`fan_in_with`](Self::fan_in_with), for a run that goes on with an
    /// earlier one: an item of which `recalled` tells that it was part of a
    /// batch is put with the others of that batch, and with no more.
    /// `merge` is then given that batch's number.
    pub fn fan_in_recalling<U, M>(
        self,
        items: usize,
        wait: Option<Duration>,
        recalled: fn(&T) -> Option<Part>,
        merge: M,
    ) -> Pipeline<'a, U>
    where
        U: Send + 'a,
        M: Fn(Vec<T>, u64) -> U + Send + Sync + 'a,
    {
        self.fan_in_inner(items, wait, Some(recalled), merge)
    }

    fn fan_in_inner<U, M>(
        mut self,
        items: usize,
        wait: Option<Duration>,
        recalled: Option<fn(&T) -> Option<Part>>,
        merge: M,
    ) -> Pipeline<'a, U>
    where
        U: Send + 'a,
        M: Fn(Vec<T>, u64) -> U + Send + Sync + 'a,
    {
        if items == 0 {
            self.misused("a batch of 0 items");
        }
        if wait.is_none() && self.plan.has_rounds {
            self.misused("a batch without a time limit in rounds: it would wait for more for ever");
        }
        let mut settings = Settings::new(self.plan.nodes.len(), "batch", Kind::Batch);
        settings.queue = fan_in::queue_for::<T>(items);
        let stage = Stage::new(settings);
        self.join_to(stage.link());
        let tail = Slot::default();
        let way_out = WayOut::new(tail.clone());
        let batching = Batching { items, wait };
        self.plan.nodes.push(Box::new(Batches { stage, batching, recalled, merge, way_out }));
        Pipeline { plan: self.plan, tail, copier: Copier::default(), hooks: Arc::default() }
    }

    fn join_to(&mut self, link: impl Link<T> + 'a) {
        if self.tail.set(Box::new(link)).is_err() {
            unreachable!("a tail is joined once, when the next stage is added");
        }
    }
}

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
        let is_batch = self.plan.nodes.last().map(|node| node.settings().kind == Kind::Batch);
        if is_batch == Some(true) {
            self.misused("a record of what is no stage's answer");
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
            Some(node) if node.settings().kind != Kind::Batch => change(node.settings_mut()),
            _ => self.misused(&format!("{what} set where there is no stage to have it")),
        }
        self
    }

    fn misused(&mut self, what: &str) {
        self.plan.misuse.get_or_insert_with(|| Error::new(ErrorKind::Invalid, what));
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
            self.misused("a budget of no cores");
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
    /// the [longest](Summary::longest_poll). Work of that sort belongs into a
    /// stage of another kind, or off the loop.
    pub fn watch(mut self, longest_poll: impl Into<Option<Duration>>) -> Self {
        self.plan.watch = longest_poll.into();
        if self.plan.watch == Some(Duration::ZERO) {
            self.misused("a watch for polls that take no time: every poll would be one");
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

/// Running it.
impl<'a, T: Send + 'a, Prev> Pipeline<'a, T, Prev> {
    /// Throws the last stage's values away: what they were made for has
    /// happened on the way.
    pub fn discard(mut self) -> Runnable<'a> {
        if self.plan.journal.is_some() {
            // An item has not ended before that is recorded, which somebody has to wait for.
            return self.for_each(drop);
        }
        self.join_to(EndLink);
        Runnable::new(self.plan, Box::new(|_: &Core| ()))
    }

    /// Gives each of the last stage's values to `take`, on the thread that
    /// runs the pipeline.
    ///
    /// The values come as they are finished, or in order if the last stage is
    /// [`ordered`](Self::ordered). If `take` panics the run is cancelled and
    /// the panic goes on to the caller.
    pub fn for_each(self, mut take: impl FnMut(T) + Send + 'a) -> Runnable<'a> {
        self.for_each_outcome(move |outcome| {
            if let Ok(value) = outcome {
                take(value);
            }
        })
    }

    /// Gives what became of each item, a value or a failure, to `take`, as
    /// [`for_each`](Self::for_each) does with values.
    ///
    /// Items that a fan-out left out and those left unfinished are not among them.
    pub fn for_each_outcome(
        mut self,
        mut take: impl FnMut(Result<T, Failure>) + Send + 'a,
    ) -> Runnable<'a> {
        let queue = self.last_queue();
        let take = move |_: &ItemId, output: Last<'_, T>| take(output.into());
        Runnable::new(
            self.plan,
            Box::new(move |core: &Core| block_on(sink::drain(core, &queue, take))),
        )
    }

    /// Joins the last stage to a queue, and returns that.
    fn last_queue(&mut self) -> Queue<Envelope<T>> {
        let capacity = if std::mem::needs_drop::<T>() { 16 } else { 1024 };
        let queue = Queue::bounded(capacity);
        let of_exit = queue.clone();
        self.plan.exit = Some(Box::new(move || of_exit.stats()));
        let most = Arc::new(chunk::limit(capacity, 1, chunk::MOST).into());
        self.join_to(QueueLink { queue: queue.clone(), most });
        let exit = queue.clone();
        self.plan.close_exit = Some(Box::new(move |core| sink::close(core, &exit)));
        queue
    }

    /// Runs it and returns the last stage's values with the summary.
    ///
    /// The values come as they were finished, or in order if the last stage
    /// is [`ordered`](Self::ordered). Failures are in the summary.
    ///
    /// # Errors
    ///
    /// If paceline could not run it; an item's failure is no error.
    pub fn collect(self) -> Result<(Vec<T>, Summary), Error> {
        let (outcomes, summary) = self.outcomes()?;
        Ok((outcomes.into_iter().flatten().collect(), summary))
    }

    /// Runs it and returns what became of each item: a value or a failure.
    ///
    /// In order if the last stage is [`ordered`](Self::ordered). Items that a
    /// fan-out left out, and those left unfinished, are not among them.
    ///
    /// # Errors
    ///
    /// If paceline could not run it; an item's failure is no error.
    pub fn outcomes(mut self) -> Result<(Vec<Result<T, Failure>>, Summary), Error> {
        let queue = self.last_queue();
        let mut outcomes = Vec::new();
        let take = |_: &ItemId, output: Last<'_, T>| outcomes.push(output.into());
        let ((), summary) =
            self.plan.run(|core: &Core| block_on(sink::drain(core, &queue, take)))?;
        Ok((outcomes, summary))
    }

    /// Runs it with `sink` taking what leaves the last stage.
    pub(crate) fn run_with<R>(
        mut self,
        sink: impl FnOnce(&Core, &Queue<Envelope<T>>) -> R,
    ) -> Result<(R, Summary), Error> {
        let queue = self.last_queue();
        self.plan.run(|core| sink(core, &queue))
    }
}

impl<'a, Prev> Pipeline<'a, (), Prev> {
    /// Runs it, and returns when every item is answered and every thread has
    /// ended.
    ///
    /// There is only a `run` where the last stage gives `()`: values that
    /// nobody takes are a mistake. [`discard`](Self::discard),
    /// [`for_each`](Self::for_each) and [`collect`](Self::collect) say what
    /// is to become of them.
    ///
    /// # Errors
    ///
    /// If paceline could not run it; an item's failure is no error.
    ///
    /// # When stopped
    ///
    /// On drain, items already inside are finished. On cancel, children are
    /// asked to stop, killed after `grace`, and their items are unfinished in
    /// the summary.
    pub fn run(self) -> Result<Summary, Error> {
        self.discard().run()
    }
}

impl Plan<'_> {
    pub(crate) fn handles(&self) -> (Monitor, Stop) {
        (self.monitor.clone(), self.stop.clone())
    }

    /// Refuses what cannot work, and runs the rest.
    pub(crate) fn run<R>(mut self, sink: impl FnOnce(&Core) -> R) -> Result<(R, Summary), Error> {
        self.check()?;
        self.keep_order_where_needed();
        let ledger = Ledger::new(self.stop.clone(), self.halt, self.observer.take());
        let mut core = Core::new(ledger, self.clock, self.stop, self.monitor);
        core.stall_after = self.stall_after;
        core.watch = self.watch.map(Watch::new);
        core.journal = self.journal.take();
        let keeps_order = self.nodes.iter().any(|node| node.settings().ordered);
        core.least_window = keeps_order.then_some(self.window);
        core.cores = self.cpu_budget.unwrap_or(core.cores);
        let leaves_it_to_us = self.nodes.iter().any(|node| node.settings().workers.is_auto());
        core.is_measured = leaves_it_to_us || core.ledger.observer.is_some();
        let stages =
            self.nodes.iter().map(|node| (node.settings().name.clone(), node.counters().clone()));
        core.monitor.open(core.ledger.clone(), stages.collect());
        let exits = run::Exits { close: self.close_exit, look: self.exit.as_ref() };
        run::run(&core, &self.nodes, self.source, exits, sink)
    }

    fn check(&mut self) -> Result<(), Error> {
        if let Some(misuse) = self.misuse.take() {
            return Err(misuse);
        }
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        let mut names: Vec<&str> = Vec::new();
        for settings in self.nodes.iter().map(|node| node.settings()) {
            let name = &*settings.name;
            if settings.kind == Kind::Batch {
                continue;
            }
            if name.is_empty() {
                return invalid("a stage has no name".into());
            }
            if names.contains(&name) {
                return invalid(format!("two stages are called `{name}`"));
            }
            names.push(name);
            if matches!(settings.workers, Workers::Fixed(0) | Workers::UpTo(0)) {
                return invalid(format!("stage `{name}` has 0 workers"));
            }
            if settings.queue == Some(0) {
                return invalid(format!("stage `{name}` has a queue for 0 items"));
            }
            if settings.timeout == Some(Duration::ZERO) {
                return invalid(format!("stage `{name}` has a timeout of 0"));
            }
        }
        Ok(())
    }

    /// What counts items anew before an ordered stage must meet them in order.
    fn keep_order_where_needed(&mut self) {
        let Some(last) = self.nodes.iter().rposition(|node| node.settings().ordered) else {
            return;
        };
        for fan in self.fans.iter().filter(|&&fan| fan < last) {
            self.nodes[*fan].settings_mut().ordered = true;
        }
        for batch in 1..last {
            if self.nodes[batch].settings().kind == Kind::Batch {
                self.nodes[batch - 1].settings_mut().ordered = true;
            }
        }
    }
}
