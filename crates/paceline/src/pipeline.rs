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

use crate::{
    failure::BoxError,
    journal::Hooks,
    node::{Batches, Crew},
    outlet::{Link, Slot, fan::FanLink},
    run::{
        fan_in::{self, Batching, Part},
        feed::Items,
    },
    stage::{Copier, Kind, Settings, Stage, WayOut},
    worker::{
        Attempt, Work,
        command::{Children, Job, OneCommand},
        function::Function,
        future::Futures,
    },
};

mod ends;
mod plan;
mod serve;
mod settings;

pub(crate) use plan::Plan;

/// A pipeline on its way to being run.
///
/// See the [crate's documentation](crate) for a first one, and each method
/// for its part. Nothing happens before one of [`run`](Pipeline::run),
/// [`collect`](Pipeline::collect), [`outcomes`](Pipeline::outcomes), or
/// [`Runnable::run`](crate::Runnable::run).
#[must_use = "a pipeline does nothing until it is run"]
pub struct Pipeline<'a, T, Prev = ()> {
    pub(crate) plan: Plan<'a>,
    tail: Slot<'a, T>,
    copier: Copier<Prev>,
    hooks: Arc<Hooks<'a, Prev, T>>,
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
        Self { plan: Plan::new(Box::new(source)), tail, copier: Copier::default(), hooks }
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
        let name =
            last.map_or_else(|| "source".into(), |node| node.stage().settings().name.clone());
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
            self.plan.misused("a batch of 0 items");
        }
        if wait.is_none() && self.plan.has_rounds {
            self.plan
                .misused("a batch without a time limit in rounds: it would wait for more for ever");
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
