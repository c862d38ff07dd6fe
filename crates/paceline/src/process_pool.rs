//! A pool of worker processes that answers with [`Answer`]s.
//!
//! It is a pipeline of one stage of kind `serve`: what is submitted is its
//! source, and every item carries the promise of its answer. So a pool has the
//! stage's ways with crashes, time limits and recycling, and adds none of its
//! own.
//!
//! A promise whose item was given up comes back here ([`Orphans`]) until the
//! failure itself arrives, so that an answer has the reason.

use std::{
    collections::HashMap,
    env,
    ffi::OsStr,
    fmt, io,
    marker::PhantomData,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use paceline_process::Command;
use paceline_queue::Queue;

use crate::{
    answer::{Answer, Outcome, Promise},
    error::{Error, ErrorKind},
    failure::{BoxError, FailureKind, Fault},
    pipeline::Pipeline,
    serve::Wire,
    stop::Stop,
    sync::lock,
    worker::{
        Attempt, cancelled,
        serve::{Exchange, Form, Serve},
    },
};

/// How many jobs may wait in a pool, unless it is told.
const QUEUE: usize = 4096;

/// A pool of worker processes: functions that need more than one process,
/// since they crash, leak, or cannot run beside each other in one.
///
/// A worker is a program that calls [`serve`](crate::serve), often this one,
/// started again. Whatever a worker does costs the job in hand alone: its
/// answer is a failure with the worker's pid, status and last words, and
/// another worker takes its place.
///
/// ```no_run
/// use paceline::{BoxError, Json, ProcessPool};
///
/// fn gcd(Json((a, b)): Json<(u64, u64)>) -> Result<Json<u64>, BoxError> {
///     let divides = |n: &u64| a % n == 0 && b % n == 0;
///     Ok(Json((1..=a.min(b)).rev().find(divides).ok_or("no divisor of 0")?))
/// }
///
/// fn main() -> Result<(), BoxError> {
///     if std::env::args().nth(1).as_deref() == Some("--gcd") {
///         return Ok(paceline::serve(gcd)?);
///     }
///     let pool = ProcessPool::this_program(["--gcd"])?.workers(2).start()?;
///     let answer = pool.submit(Json((1963309, 2265973)))?;
///     let Json(divisor): Json<u64> = answer.wait()?;
///     assert_eq!(divisor, 1);
///     pool.shutdown()?;
///     Ok(())
/// }
/// ```
///
/// Dropping it refuses further jobs and lets those submitted go on.
///
/// # When stopped
///
/// If this process ends, by whatever means, the workers see the end of their
/// input and end; with [`init`](crate::init) they are ended within a second
/// even if they do not look.
pub struct ProcessPool<In, Out> {
    jobs: Queue<Job<In, Out>>,
    name: Arc<str>,
    submitted: AtomicU64,
    stop: Stop,
    broken: Arc<OnceLock<String>>,
    thread: Mutex<Option<JoinHandle<Result<(), Error>>>>,
}

/// A pool that has yet to be started.
#[derive(Clone, Debug)]
#[must_use = "no worker is started before `start`"]
pub struct ProcessPoolBuilder {
    serve: Serve,
    name: String,
    workers: Option<usize>,
    queue: usize,
    timeout: Option<Duration>,
    grace: Option<Duration>,
}

impl ProcessPool<(), ()> {
    /// Begins a pool whose workers are these.
    pub fn of(serve: Serve) -> ProcessPoolBuilder {
        ProcessPoolBuilder {
            serve,
            name: "pool".to_owned(),
            workers: None,
            queue: QUEUE,
            timeout: None,
            grace: None,
        }
    }

    /// Begins a pool whose workers are this program, started with `arguments`.
    /// It must then call [`serve`](crate::serve).
    ///
    /// # Errors
    ///
    /// If the system does not say where this program is.
    pub fn this_program(
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> io::Result<ProcessPoolBuilder> {
        Ok(Self::of(Serve::frames(Command::new(env::current_exe()?).args(arguments))))
    }
}

impl ProcessPoolBuilder {
    /// Sets the name in failures and errors; `pool` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the most workers, 1 or more; as many as there are cores unless set.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Sets how many jobs may wait before [`ProcessPool::submit`] does, 1 or
    /// more; 4,096 unless set.
    pub fn queue(mut self, jobs: usize) -> Self {
        self.queue = jobs;
        self
    }

    /// Sets the longest that a worker may take for a job.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets the time between asking a worker to end and killing it; 5 s unless set.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Replaces a worker after exactly so many jobs, 1 or more.
    pub fn max_items(mut self, jobs: u64) -> Self {
        self.serve = self.serve.max_items(jobs);
        self
    }

    /// Starts the pool, and its first worker with it.
    ///
    /// # Errors
    ///
    /// If a setting is 0, or no thread could be started.
    pub fn start<In, Out>(self) -> Result<ProcessPool<In, Out>, Error>
    where
        In: Wire + Send + 'static,
        Out: Wire + Send + 'static,
    {
        let what = match (self.workers, self.queue, self.timeout) {
            (Some(0), ..) => Some("0 workers"),
            (_, 0, _) => Some("a queue for 0 jobs"),
            (.., Some(Duration::ZERO)) => Some("a timeout of 0"),
            _ => None,
        };
        if let Some(what) = what {
            let message = format!("pool `{}` has {what}", self.name);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let (jobs, stop) = (Queue::bounded(self.queue), Stop::new());
        let (broken, name) = (Arc::new(OnceLock::new()), Arc::<str>::from(&*self.name));
        let manager = Manager {
            jobs: jobs.clone(),
            stop: stop.clone(),
            broken: broken.clone(),
            builder: self,
        };
        let thread = thread::Builder::new().name("paceline-pool".to_owned());
        let thread = thread.spawn(move || manager.run()).map_err(|error| {
            let message = format!("could not start a thread for pool `{name}`");
            Error::new(ErrorKind::Start, message).caused_by(error)
        })?;
        Ok(ProcessPool {
            jobs,
            name,
            submitted: AtomicU64::new(0),
            stop,
            broken,
            thread: Mutex::new(Some(thread)),
        })
    }
}

impl<In, Out> ProcessPool<In, Out>
where
    In: Wire + Send + 'static,
    Out: Wire + Send + 'static,
{
    /// Submits a job, and returns the answer to come.
    ///
    /// It waits while as many jobs wait as may, and not for a worker.
    ///
    /// # Errors
    ///
    /// If the pool was shut down, or is broken: the error says why.
    pub fn submit(&self, job: In) -> Result<Answer<Out>, Error> {
        let number = self.submitted.fetch_add(1, Ordering::Relaxed) + 1;
        let (promise, answer) = Answer::pending(self.name.clone(), number);
        match self.jobs.push(Job { input: job, promise }) {
            Ok(()) => Ok(answer),
            Err(_) => Err(self.refusal()),
        }
    }

    fn refusal(&self) -> Error {
        match self.broken.get() {
            Some(why) => Error::new(ErrorKind::Worker, why.clone()),
            None => Error::new(ErrorKind::Invalid, format!("pool `{}` was shut down", self.name)),
        }
    }

    /// Gives what the workers make of `jobs`, in order.
    ///
    /// Jobs are submitted `chunk` at a time, ahead of what is taken from the
    /// result by as much as may wait in the pool. A failure stands in its
    /// place, and the others go on.
    ///
    /// # Errors
    ///
    /// If `chunk` is 0.
    pub fn map<I>(&self, jobs: I, chunk: usize) -> Result<Mapped<'_, In, Out, I::IntoIter>, Error>
    where
        I: IntoIterator<Item = In>,
    {
        if chunk == 0 {
            return Err(Error::new(ErrorKind::Invalid, "a chunk of 0 jobs"));
        }
        let ahead = self.jobs.capacity().max(chunk);
        let jobs = jobs.into_iter().fuse();
        Ok(Mapped { pool: self, jobs, chunk, ahead, answers: std::collections::VecDeque::new() })
    }

    /// Refuses further jobs, finishes those submitted, and waits until all
    /// workers and threads have ended.
    ///
    /// # Errors
    ///
    /// If the pool is broken: its workers could not be kept going.
    pub fn shutdown(self) -> Result<(), Error> {
        self.jobs.close();
        self.join()
    }

    /// As [`shutdown`](Self::shutdown), but jobs that no worker has begun are
    /// cancelled.
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Self::shutdown).
    pub fn shutdown_cancelling(self) -> Result<(), Error> {
        for job in self.jobs.close_now() {
            job.cancel();
        }
        self.stop.halt();
        self.join()
    }

    /// Ends all workers at once, whatever they do, and waits for their end.
    /// What was not done is cancelled.
    ///
    /// # Errors
    ///
    /// As [`shutdown`](Self::shutdown).
    pub fn kill(self) -> Result<(), Error> {
        for job in self.jobs.close_now() {
            job.cancel();
        }
        self.stop.kill();
        self.join()
    }

    fn join(&self) -> Result<(), Error> {
        match lock(&self.thread).take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl<In, Out> Drop for ProcessPool<In, Out> {
    fn drop(&mut self) {
        self.jobs.close();
    }
}

impl<In, Out> fmt::Debug for ProcessPool<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool")
            .field("name", &self.name)
            .field("waiting", &self.jobs.depth())
            .field("broken", &self.broken.get())
            .finish_non_exhaustive()
    }
}

/// The outcomes of [`ProcessPool::map`], in order.
#[derive(Debug)]
pub struct Mapped<'p, In, Out, I: Iterator> {
    pool: &'p ProcessPool<In, Out>,
    jobs: std::iter::Fuse<I>,
    chunk: usize,
    ahead: usize,
    answers: std::collections::VecDeque<Answer<Out>>,
}

impl<In, Out, I> Iterator for Mapped<'_, In, Out, I>
where
    In: Wire + Send + 'static,
    Out: Wire + Send + 'static,
    I: Iterator<Item = In>,
{
    type Item = Outcome<Out>;

    fn next(&mut self) -> Option<Outcome<Out>> {
        if self.answers.len() + self.chunk <= self.ahead || self.answers.is_empty() {
            for job in self.jobs.by_ref().take(self.chunk) {
                let number = self.pool.submitted.load(Ordering::Relaxed);
                self.answers.push_back(self.pool.submit(job).unwrap_or_else(|error| {
                    let (promise, answer) = Answer::pending(self.pool.name.clone(), number);
                    let _ = promise.set(Err(Fault::new(FailureKind::Closed, error)));
                    answer
                }));
            }
        }
        self.answers.pop_front().map(Answer::wait)
    }
}

/// A job on its way to a worker.
struct Job<In, Out> {
    input: In,
    promise: Promise<Out>,
}

impl<In, Out> Job<In, Out> {
    fn cancel(self) {
        let _ = self.promise.set(Err(cancelled()));
    }
}

/// The promises of items that were given up, by their numbers in the source.
type Orphans<Out> = Arc<Mutex<HashMap<u64, Promise<Out>>>>;

/// A job in the pipeline.
struct Item<In, Out> {
    input: In,
    number: u64,
    promise: Option<Promise<Out>>,
    orphans: Orphans<Out>,
}

impl<In, Out> Drop for Item<In, Out> {
    fn drop(&mut self) {
        if let Some(promise) = self.promise.take() {
            lock(&self.orphans).insert(self.number, promise);
        }
    }
}

/// What is asked for a job, and what keeps its promise.
struct Asking<In, Out>(PhantomData<fn(In) -> Out>);

impl<In, Out> Exchange<Item<In, Out>> for Asking<In, Out>
where
    In: Wire + Send,
    Out: Wire + Send,
{
    type Out = ();

    fn request(
        &self,
        item: &Item<In, Out>,
        _: &Attempt,
        request: &mut Vec<u8>,
    ) -> Result<Form, BoxError> {
        if !item.promise.as_ref().is_some_and(Promise::start) {
            return Err(cancelled().into());
        }
        item.input
            .write(request)
            .map_err(|error| BoxError::from(Fault::new(FailureKind::Failed, error).permanent()))?;
        Ok(In::FORM)
    }

    fn answer(
        &self,
        mut item: Item<In, Out>,
        _: &Attempt,
        _: Form,
        answer: &[u8],
    ) -> Result<(), BoxError> {
        let value = Out::read(answer)?;
        if let Some(promise) = item.promise.take() {
            // Refused is it only if it was cancelled: then nobody wants it.
            let _ = promise.set(Ok::<_, BoxError>(value));
        }
        Ok(())
    }
}

/// What submitted jobs are taken from.
struct Source<In, Out> {
    jobs: Queue<Job<In, Out>>,
    taken: u64,
    orphans: Orphans<Out>,
}

impl<In, Out> Iterator for Source<In, Out> {
    type Item = Item<In, Out>;

    fn next(&mut self) -> Option<Item<In, Out>> {
        let Job { input, promise } = self.jobs.pop().ok()?;
        self.taken += 1;
        let orphans = self.orphans.clone();
        Some(Item { input, number: self.taken, promise: Some(promise), orphans })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.jobs.depth(), None)
    }
}

/// What a pool's thread does: one run.
struct Manager<In, Out> {
    jobs: Queue<Job<In, Out>>,
    stop: Stop,
    broken: Arc<OnceLock<String>>,
    builder: ProcessPoolBuilder,
}

impl<In, Out> Manager<In, Out>
where
    In: Wire + Send + 'static,
    Out: Wire + Send + 'static,
{
    fn run(self) -> Result<(), Error> {
        let ProcessPoolBuilder { serve, name, workers, timeout, grace, .. } = self.builder;
        let orphans = Orphans::<Out>::default();
        let source = Source { jobs: self.jobs.clone(), taken: 0, orphans: orphans.clone() };
        let asking = Asking::<In, Out>(PhantomData);
        let mut stage = Pipeline::from_iter(source).serve(&name, serve, asking).stop(&self.stop);
        if let Some(workers) = workers {
            stage = stage.workers(workers);
        }
        if let Some(timeout) = timeout {
            stage = stage.timeout(timeout);
        }
        if let Some(grace) = grace {
            stage = stage.grace(grace);
        }
        // Whatever stops the run, the source must not go on waiting for jobs.
        let jobs = self.jobs.clone();
        self.stop.when_stopped(move || jobs.close());
        let failed = orphans.clone();
        let ended = stage
            .for_each_outcome(move |outcome| {
                let Err(failure) = outcome else { return };
                for number in failure.item().sequence_numbers() {
                    let promise = lock(&failed).remove(&number);
                    if let Some(promise) = promise.filter(Promise::start) {
                        promise.end_as(Err(failure.clone()));
                    }
                }
            })
            .run();
        let error = ended.err();
        if let Some(error) = &error {
            let _ = self.broken.set(error.to_string());
        }
        let left = std::mem::take(&mut *lock(&orphans)).into_values();
        let waiting = self.jobs.close_now().into_iter().map(|job| job.promise);
        for promise in left.chain(waiting) {
            let fault = match &error {
                Some(error) => Fault::new(FailureKind::Closed, error.to_string()),
                None => cancelled(),
            };
            let _ = promise.set(Err(fault));
        }
        error.map_or(Ok(()), Err)
    }
}
