//! A pool of threads that runs what is submitted and answers for it: one
//! stage without a pipeline around it.
//!
//! Submitted work goes through the engine's queue to threads that are started
//! as work comes, and each piece has an [`Answer`]. The same functions, the
//! same failures, the same [`is_cancelled`](crate::is_cancelled) as in a
//! stage of kind `cpu` or `blocking`.
//!
//! Not here: what an answer is (`answer.rs`), and limits on futures
//! (`group.rs`).

use std::{fmt, marker::PhantomData, ops::Deref, panic::resume_unwind, thread, time::Duration};

use crate::{
    clock::Clock,
    crew::Crew,
    error::{Error, ErrorKind},
    failure::{BoxError, Fault},
    stage::cores,
    sync::lock,
};

pub(crate) mod map;
pub(crate) mod submit;
pub(crate) mod threads;

use submit::Submitter;
use threads::Threads;

/// A pool of threads for work that owns what it uses.
///
/// Work is submitted, mapped, cancelled through its [`Submitter`], to which
/// it derefs; clones of that are for other threads and for the work itself.
/// Threads are started as work comes, named after the pool, and used again
/// before another is started. For work that borrows there is
/// [`scope`](ThreadPoolBuilder::scope).
///
/// ```
/// use paceline::ThreadPool;
///
/// let pool = ThreadPool::builder("parse").workers(2).build()?;
/// let answer = pool.submit(|| "17".parse::<u32>())?;
/// assert_eq!(answer.wait()?, 17);
///
/// let lengths = pool.map(["a", "bb", "ccc"], |text: &str| Ok::<_, paceline::BoxError>(text.len()));
/// assert_eq!(lengths.collect::<Result<Vec<_>, _>>()?, [1, 2, 3]);
/// pool.shutdown()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # When stopped
///
/// [`shutdown`](Self::shutdown) and dropping the pool refuse further work,
/// wait for what was submitted, and end the threads. [`detach`](Self::detach)
/// does not wait. [`Submitter::cancel_queued`] drops what has not begun.
/// Dropped by its own work, the pool does not wait, since it would wait for
/// itself.
#[must_use = "dropping it waits for what was submitted"]
pub struct ThreadPool {
    submitter: Submitter<'static>,
}

impl ThreadPool {
    /// Begins a pool with this name, which its threads and failures bear.
    pub fn builder(name: impl Into<String>) -> ThreadPoolBuilder<'static> {
        ThreadPoolBuilder {
            name: name.into(),
            workers: cores(),
            queue: None,
            timeout: None,
            clock: Clock::system(),
            first: None,
        }
    }

    /// Refuses further work, waits until all that was submitted is over, and
    /// ends the threads.
    ///
    /// # Errors
    ///
    /// If what each worker does first did not succeed: the cause, told here
    /// and nowhere else. The work then failed, and its answers say so.
    pub fn shutdown(mut self) -> Result<(), Error> {
        self.join();
        self.submitter.threads().crew.take_error().map_or(Ok(()), Err)
    }

    /// Refuses further work and returns at once; what was submitted is still
    /// done, and the threads end after it. A program that ends before them
    /// ends them too.
    pub fn detach(self) {
        self.submitter.close();
        lock(&self.submitter.threads().handles).clear();
    }

    fn join(&mut self) {
        self.submitter.close();
        let threads = self.submitter.threads();
        if threads.crew.is_here() {
            return;
        }
        loop {
            // Anew each time: work at hand may still have started one.
            let handle = lock(&threads.handles).pop();
            let Some(handle) = handle else { return };
            if let Err(panic) = handle.join()
                && !thread::panicking()
            {
                resume_unwind(panic);
            }
        }
    }
}

impl Deref for ThreadPool {
    type Target = Submitter<'static>;

    fn deref(&self) -> &Submitter<'static> {
        &self.submitter
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.join();
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.submitter.fmt(f)
    }
}

/// What each worker does first.
pub(crate) type First<'s> = Box<dyn Fn() -> Result<(), Fault> + Send + Sync + 's>;

/// The settings of a pool, made by [`ThreadPool::builder`].
#[must_use = "it starts nothing until it is built"]
pub struct ThreadPoolBuilder<'e> {
    name: String,
    workers: usize,
    queue: Option<usize>,
    timeout: Option<Duration>,
    clock: Clock,
    first: Option<First<'e>>,
}

impl<'e> ThreadPoolBuilder<'e> {
    /// Sets the most threads, 1 or more; as many as cores unless set.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets how much work may wait, 1 or more; a hundred for each worker unless set.
    pub fn queue(mut self, capacity: usize) -> Self {
        self.queue = Some(capacity);
        self
    }

    /// Sets the longest time that a piece of work may take.
    ///
    /// A thread cannot be killed: the work counts as timed out when its
    /// function returns, which [`is_cancelled`](crate::is_cancelled) tells it to do.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Measures time by `clock`, which can be paused; for tests, moved by hand.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.clock = clock.clone();
        self
    }

    /// Sets what each worker does once, before any work.
    ///
    /// If it fails or panics, the pool is broken: what waits and what comes
    /// later is refused with the reason, and [`ThreadPool::shutdown`] tells the cause.
    pub fn first<E: Into<BoxError>>(
        mut self,
        first: impl Fn() -> Result<(), E> + Send + Sync + 'e,
    ) -> Self {
        self.first = Some(Box::new(move || first().map_err(Fault::from_error)));
        self
    }

    /// Runs `body` with a pool whose work may borrow what outlives this call;
    /// returns when all work is over and every thread has ended.
    ///
    /// ```
    /// use paceline::{BoxError, ThreadPool};
    ///
    /// let words = vec!["a".to_owned(), "bb".to_owned()];
    /// let total = ThreadPool::builder("count").scope(|pool| {
    ///     let answers = words.iter().map(|word| pool.submit(|| Ok::<_, BoxError>(word.len())));
    ///     let answers: Vec<_> = answers.collect::<Result<_, _>>().unwrap();
    ///     answers.into_iter().map(|answer| answer.wait().unwrap()).sum::<usize>()
    /// })?;
    /// assert_eq!(total, 3);
    /// # Ok::<(), paceline::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Of kind [`Invalid`](ErrorKind::Invalid), before `body` runs, for
    /// settings that cannot work; of kind [`Start`](ErrorKind::Start),
    /// afterwards, if a worker could not begin.
    ///
    /// # Panics
    ///
    /// If `body` does, after all threads have ended.
    pub fn scope<R>(self, body: impl for<'s> FnOnce(&PoolScope<'s, 'e>) -> R) -> Result<R, Error> {
        self.check()?;
        let crew = Crew::new(&self.name, self.workers, self.clock, self.timeout);
        let result = thread::scope(|scope| {
            let threads = Threads::scoped(crew.clone(), self.queue, self.first, scope);
            body(&PoolScope { submitter: Submitter::new(threads), env: PhantomData })
        });
        crew.take_error().map_or(Ok(result), Err)
    }

    fn check(&self) -> Result<(), Error> {
        let what = match (self.workers, self.queue) {
            (0, _) => "0 workers",
            (_, Some(0)) => "a queue for 0 items",
            _ => return Ok(()),
        };
        Err(Error::new(ErrorKind::Invalid, format!("pool `{}` has {what}", self.name)))
    }
}

impl ThreadPoolBuilder<'static> {
    /// Makes the pool. No thread is started before there is work.
    ///
    /// # Errors
    ///
    /// Of kind [`Invalid`](ErrorKind::Invalid), for settings that cannot work.
    pub fn build(self) -> Result<ThreadPool, Error> {
        self.check()?;
        let crew = Crew::new(&self.name, self.workers, self.clock, self.timeout);
        Ok(ThreadPool { submitter: Submitter::new(Threads::owned(crew, self.queue, self.first)) })
    }
}

impl fmt::Debug for ThreadPoolBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPoolBuilder")
            .field("name", &self.name)
            .field("workers", &self.workers)
            .field("queue", &self.queue)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A pool for the time of a [`scope`](ThreadPoolBuilder::scope): its work may
/// borrow. It derefs to its [`Submitter`].
pub struct PoolScope<'s, 'e: 's> {
    submitter: Submitter<'s>,
    env: PhantomData<&'e mut &'e ()>,
}

impl<'s> Deref for PoolScope<'s, '_> {
    type Target = Submitter<'s>;

    fn deref(&self) -> &Submitter<'s> {
        &self.submitter
    }
}

/// At the end of the body, also by a panic: the threads would wait for work, and the scope for them.
impl Drop for PoolScope<'_, '_> {
    fn drop(&mut self) {
        self.submitter.close();
    }
}

impl fmt::Debug for PoolScope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.submitter.fmt(f)
    }
}
