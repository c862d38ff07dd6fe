//! Giving work to a pool: waiting, trying, awaiting; closing and cancelling.

use std::{
    error::Error,
    fmt, io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use paceline_queue::{OnEventLoop, PushError, TryPushError};

use super::{
    map::{Map, MapUnordered},
    threads::{Task, Threads, Work, tie},
};
use crate::{
    answer::Answer,
    crew::Help,
    failure::{BoxError, FailureKind, Fault},
};

/// The way to give work to a pool. Clones are handles on the same pool, for
/// other threads and for the work itself; they do not keep the pool open.
///
/// Work is a function that returns a `Result`; an error and a panic become
/// the [`Failure`](crate::Failure) of its [`Answer`], and the worker goes on.
///
/// **Work that submits work.** A worker never waits for itself: if its own
/// pool's queue is full, it does the new work at once; if it waits for an
/// answer of its own pool that has not begun, it does that work. In a
/// [`scope`](super::ThreadPoolBuilder::scope) the second is not possible;
/// there the last worker that would wait gets a failure of kind
/// [`Deadlock`](FailureKind::Deadlock) that names the pool.
///
/// ```
/// use paceline::{BoxError, ThreadPool};
///
/// let pool = ThreadPool::builder("nested").workers(1).queue(1).build()?;
/// let inner = pool.submitter();
/// let answer = pool.submit(move || -> Result<u32, BoxError> {
///     Ok(inner.submit(|| Ok::<_, BoxError>(41))?.wait()? + 1)
/// })?;
/// assert_eq!(answer.wait()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Submitter<'s> {
    threads: Arc<Threads<'s>>,
}

impl<'s> Submitter<'s> {
    pub(crate) fn new(threads: Arc<Threads<'s>>) -> Self {
        Self { threads }
    }

    pub(crate) fn threads(&self) -> &Arc<Threads<'s>> {
        &self.threads
    }

    /// Returns another handle on the pool.
    pub fn submitter(&self) -> Self {
        self.clone()
    }

    /// Returns the pool's name.
    pub fn name(&self) -> &str {
        &self.threads.crew.name
    }

    /// Returns the most threads that the pool has.
    pub fn workers(&self) -> usize {
        self.threads.crew.most()
    }

    /// Returns how much work waits to begin. Never waits.
    pub fn queued(&self) -> usize {
        self.threads.queue.depth()
    }

    /// Gives `work` to the pool, waiting while the queue is full.
    ///
    /// The wait ends when a worker takes something or the pool is closed. A
    /// worker of this pool never waits here: it does the work at once.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the work inside, if the pool is closed or broken, if
    /// no thread could be started, or if the wait would hold up an event loop.
    pub fn submit<T, E, F>(&self, work: F) -> Result<Answer<T>, Refused<F>>
    where
        F: FnOnce() -> Result<T, E> + Send + 's,
        E: Into<BoxError> + 's,
        T: Send + 's,
    {
        self.submit_numbered(self.number(), work, None)
    }

    /// Gives `work` to the pool if there is room now. Never waits.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit), and if the queue is full.
    pub fn try_submit<T, E, F>(&self, work: F) -> Result<Answer<T>, Refused<F>>
    where
        F: FnOnce() -> Result<T, E> + Send + 's,
        E: Into<BoxError> + 's,
        T: Send + 's,
    {
        self.try_numbered(self.number(), work)
    }

    /// Gives `work` to the pool; the task waits while the queue is full.
    ///
    /// # Errors
    ///
    /// As [`submit`](Self::submit).
    ///
    /// # When stopped
    ///
    /// Cancel-safe: dropped before it is ready, the work was given to nobody,
    /// and is dropped with it.
    pub async fn submit_async<T, E, F>(&self, work: F) -> Result<Answer<T>, Refused<F>>
    where
        F: FnOnce() -> Result<T, E> + Send + 's,
        E: Into<BoxError> + 's,
        T: Send + 's,
    {
        let (task, answer) = self.prepare(self.number(), work)?;
        let expected = Expected(&self.threads);
        match self.threads.queue.push_async(task.clone()).await {
            Ok(()) => {
                std::mem::forget(expected);
                Ok(answer)
            }
            Err(PushError(_)) => {
                std::mem::forget(expected);
                Err(self.give_back(&task, self.closed()))
            }
        }
    }

    /// Applies `function` to each item and gives the outcomes in order, an
    /// error at its place.
    ///
    /// Bounded: at most as many items as the queue and the workers hold are
    /// taken from `items` ahead of what was asked for; the first of them at
    /// once. See [`Map`] for limits in time. Closing the pool ends it with a
    /// failure.
    pub fn map<'m, I, Out, E, F>(&self, items: I, function: F) -> Map<'m, Out>
    where
        's: 'm,
        I: IntoIterator,
        I::IntoIter: 'm,
        I::Item: Send + 's,
        F: Fn(I::Item) -> Result<Out, E> + Send + Sync + 's,
        E: Into<BoxError> + 's,
        Out: Send + 's,
    {
        Map::new(self, items.into_iter(), function)
    }

    /// As [`map`](Self::map), giving outcomes as they come, each with the
    /// position of its item, from 0.
    pub fn map_unordered<'m, I, Out, E, F>(&self, items: I, function: F) -> MapUnordered<'m, Out>
    where
        's: 'm,
        I: IntoIterator,
        I::IntoIter: 'm,
        I::Item: Send + 's,
        F: Fn(I::Item) -> Result<Out, E> + Send + Sync + 's,
        E: Into<BoxError> + 's,
        Out: Send + 's,
    {
        MapUnordered::new(self, items.into_iter(), function)
    }

    /// Refuses further work and returns at once; what was submitted is still
    /// done. Harmless to repeat.
    pub fn close(&self) {
        self.threads.queue.close();
    }

    /// Closes the pool, cancels what has not begun, and returns how much that
    /// was. What is running goes on. Never waits.
    pub fn cancel_queued(&self) -> usize {
        self.threads.refuse_queued(FailureKind::Cancelled)
    }

    /// As [`cancel_queued`](Self::cancel_queued), and asks what is running to
    /// end, by [`is_cancelled`](crate::is_cancelled).
    pub fn cancel(&self) -> usize {
        // In this order: a worker whose work ends when asked would begin what is queued.
        let cancelled = self.cancel_queued();
        self.threads.crew.stop.cancel();
        cancelled
    }

    /// Gives work to the pool, waiting for room; [`Reason::Full`] if there is none until `due`.
    pub(crate) fn submit_numbered<T, E, F>(
        &self,
        number: u64,
        work: F,
        due: Option<Duration>,
    ) -> Result<Answer<T>, Refused<F>>
    where
        F: FnOnce() -> Result<T, E> + Send + 's,
        E: Into<BoxError> + 's,
        T: Send + 's,
    {
        let threads = &self.threads;
        if threads.crew.is_here() {
            return self.try_or_do(number, work);
        }
        if OnEventLoop::is_here() {
            let refused = |refused: Refused<F>| match refused.reason {
                Reason::Full => Refused { reason: Reason::WouldBlock, ..refused },
                _ => refused,
            };
            return self.try_numbered(number, work).map_err(refused);
        }
        let (task, answer) = self.prepare(number, work)?;
        let pushed = match due {
            None => Some(threads.queue.push(task.clone())),
            Some(due) => {
                let push = threads.queue.push_async(task.clone());
                threads.crew.clock.block_on_until(due, push)
            }
        };
        match pushed {
            Some(Ok(())) => Ok(answer),
            Some(Err(PushError(_))) => Err(self.give_back(&task, self.closed())),
            None => Err(self.give_back(&task, Reason::Full)),
        }
    }

    /// Gives work to the pool if there is room; a worker does it at once otherwise.
    fn try_or_do<T, E, F>(&self, number: u64, work: F) -> Result<Answer<T>, Refused<F>>
    where
        F: FnOnce() -> Result<T, E> + Send + 's,
        E: Into<BoxError> + 's,
        T: Send + 's,
    {
        match self.try_numbered(number, work) {
            Err(Refused { work, reason: Reason::Full }) => {
                let (promise, answer) = Answer::pending(self.threads.crew.name.clone(), number);
                self.threads.crew.unfinished.fetch_add(1, Ordering::SeqCst);
                Work::new(promise, work).help(&self.threads.crew);
                Ok(answer)
            }
            result => result,
        }
    }

    pub(crate) fn try_numbered<T, E, F>(
        &self,
        number: u64,
        work: F,
    ) -> Result<Answer<T>, Refused<F>>
    where
        F: FnOnce() -> Result<T, E> + Send + 's,
        E: Into<BoxError> + 's,
        T: Send + 's,
    {
        let (task, answer) = self.prepare(number, work)?;
        match self.threads.queue.try_push(task.clone()) {
            Ok(()) => Ok(answer),
            Err(TryPushError::Full(_)) => Err(self.give_back(&task, Reason::Full)),
            Err(TryPushError::Closed(_)) => Err(self.give_back(&task, self.closed())),
        }
    }

    fn number(&self) -> u64 {
        self.threads.numbers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Makes the task, its answer, and sees to a thread for it.
    #[expect(clippy::type_complexity, reason = "a name for the pair would say less")]
    fn prepare<T, E, F>(
        &self,
        number: u64,
        work: F,
    ) -> Result<(Arc<Work<T, F>>, Answer<T>), Refused<F>>
    where
        F: FnOnce() -> Result<T, E> + Send + 's,
        E: Into<BoxError> + 's,
        T: Send + 's,
    {
        if let Err(error) = self.threads.expect_one() {
            return Err(Refused { work, reason: Reason::NoThread(error) });
        }
        let (promise, answer) = Answer::pending(self.threads.crew.name.clone(), number);
        let task = Arc::new(Work::new(promise, work));
        let erased: Arc<dyn Task + 's> = task.clone();
        tie(&self.threads, &answer, &erased);
        Ok((task, answer))
    }

    fn give_back<T, F>(&self, task: &Work<T, F>, reason: Reason) -> Refused<F> {
        self.threads.expect_one_less();
        let (_, work) = task.take().expect("what was refused has been seen by nobody");
        Refused { work, reason }
    }

    fn closed(&self) -> Reason {
        match self.threads.broken() {
            Some(reason) => Reason::Broken(reason.to_owned()),
            None => Reason::Closed,
        }
    }
}

impl Clone for Submitter<'_> {
    fn clone(&self) -> Self {
        Self { threads: self.threads.clone() }
    }
}

impl fmt::Debug for Submitter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitter")
            .field("name", &self.name())
            .field("workers", &self.workers())
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}

/// One piece of work that is expected; dropped, it is not.
struct Expected<'p, 's>(&'p Threads<'s>);

impl Drop for Expected<'_, '_> {
    fn drop(&mut self) {
        self.0.expect_one_less();
    }
}

/// A pool did not take a piece of work, which is inside.
pub struct Refused<F> {
    /// The work, untouched.
    pub work: F,
    /// Why it was refused.
    pub reason: Reason,
}

/// Why a pool refused work.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The queue is full; a later try may succeed.
    Full,
    /// The pool is closed.
    Closed,
    /// What each worker does first did not succeed, as the text says.
    Broken(String),
    /// No thread could be started.
    NoThread(io::Error),
    /// The queue is full, and the wait for room would hold up an event loop.
    WouldBlock,
}

// By hand, since functions are not `Debug`.
impl<F> fmt::Debug for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<F> fmt::Display for Refused<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

impl<F> Error for Refused<F> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Reason::NoThread(error) => Some(error),
            _ => None,
        }
    }
}

impl Reason {
    pub(crate) fn into_fault(self) -> Fault {
        Fault::new(FailureKind::Closed, self.to_string())
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the pool's queue is full",
            Self::Closed => "the pool is closed",
            Self::Broken(reason) => reason,
            Self::WouldBlock => {
                "waiting for room would hold up the event loop of this thread: use `submit_async`"
            }
            Self::NoThread(_) => "could not start a thread for the pool",
        })
    }
}
