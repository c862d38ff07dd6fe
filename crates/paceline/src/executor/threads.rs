//! The threads of a pool and the queue they take from.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle, Scope},
};

use paceline_queue::Queue;

use super::First;
use crate::{
    answer::{Answer, Promise, caught},
    crew::{Crew, Help},
    failure::{BoxError, FailureKind, Fault},
    host::thread_name,
    sync::lock,
    worker::{
        function::{asked_by, enter},
        timed_out,
    },
};

/// A hundred for each worker: enough that workers do not wait for whoever submits.
const QUEUE_FOR_EACH: usize = 100;

/// A pool: its queue, and the threads as they are started.
pub(crate) struct Threads<'s> {
    pub(crate) crew: Arc<Crew>,
    pub(crate) queue: Queue<Arc<dyn Task + 's>>,
    /// Counts what was submitted.
    pub(crate) numbers: AtomicU64,
    /// The threads that are not in a scope, to be joined.
    pub(crate) handles: Mutex<Vec<JoinHandle<()>>>,
    started: AtomicUsize,
    starting: Mutex<()>,
    first: Option<First<'s>>,
    /// Why a worker could not begin, for those whose work is refused for it.
    broken: OnceLock<String>,
    spawn: Spawn<'s>,
    /// Makes work that owns what it uses reachable from its answer.
    pub(crate) help: Option<ToHelp<'s>>,
}

type Spawn<'s> = Box<
    dyn Fn(thread::Builder, Arc<Threads<'s>>) -> io::Result<Option<JoinHandle<()>>>
        + Send
        + Sync
        + 's,
>;

/// Makes a piece of work reachable for whoever waits for it.
type ToHelp<'s> = fn(&Arc<dyn Task + 's>) -> Weak<dyn Help>;

impl Threads<'static> {
    pub(crate) fn owned(
        crew: Arc<Crew>,
        queue: Option<usize>,
        first: Option<First<'static>>,
    ) -> Arc<Self> {
        let spawn: Spawn<'static> =
            Box::new(|builder, threads| builder.spawn(move || threads.work()).map(Some));
        fn weak(task: &Arc<dyn Task + 'static>) -> Weak<dyn Help> {
            let task: Weak<dyn Task> = Arc::downgrade(task);
            task
        }
        Self::new(crew, queue, first, spawn, Some(weak))
    }
}

impl<'s> Threads<'s> {
    pub(crate) fn scoped(
        crew: Arc<Crew>,
        queue: Option<usize>,
        first: Option<First<'s>>,
        scope: &'s Scope<'s, '_>,
    ) -> Arc<Self> {
        let spawn: Spawn<'s> = Box::new(move |builder, threads| {
            builder.spawn_scoped(scope, move || threads.work()).map(|_| None)
        });
        Self::new(crew, queue, first, spawn, None)
    }

    fn new(
        crew: Arc<Crew>,
        queue: Option<usize>,
        first: Option<First<'s>>,
        spawn: Spawn<'s>,
        help: Option<ToHelp<'s>>,
    ) -> Arc<Self> {
        let capacity = queue.unwrap_or(crew.most().saturating_mul(QUEUE_FOR_EACH));
        Arc::new(Self {
            crew,
            queue: Queue::bounded(capacity),
            numbers: AtomicU64::new(0),
            handles: Mutex::default(),
            started: AtomicUsize::new(0),
            starting: Mutex::default(),
            first,
            broken: OnceLock::new(),
            spawn,
            help,
        })
    }

    /// Notes one more piece of work, and starts a thread for it if all that
    /// there are have work already.
    pub(crate) fn expect_one(self: &Arc<Self>) -> io::Result<()> {
        let unfinished = self.crew.unfinished.fetch_add(1, Ordering::SeqCst) + 1;
        let started = self.started.load(Ordering::SeqCst);
        if unfinished <= started || started >= self.crew.most() {
            return Ok(());
        }
        self.start_one().inspect_err(|_| self.expect_one_less())
    }

    pub(crate) fn expect_one_less(&self) {
        self.crew.unfinished.fetch_sub(1, Ordering::SeqCst);
    }

    #[cold]
    fn start_one(self: &Arc<Self>) -> io::Result<()> {
        let _one_at_a_time = lock(&self.starting);
        let started = self.started.load(Ordering::SeqCst);
        // Into a closed queue nothing comes for a further thread to do.
        if started >= self.crew.most() || self.queue.is_closed() {
            return Ok(());
        }
        let builder = thread::Builder::new().name(thread_name(&self.crew.name));
        match (self.spawn)(builder, self.clone()) {
            Ok(handle) => {
                self.started.fetch_add(1, Ordering::SeqCst);
                lock(&self.handles).extend(handle);
                Ok(())
            }
            Err(error) if started == 0 => Err(error),
            // Where threads are lacking, those there are do the work.
            Err(_) => {
                self.crew.limit(started);
                Ok(())
            }
        }
    }

    /// A worker's life.
    fn work(&self) {
        enter(&self.crew.stop, &self.crew.clock);
        self.crew.enter();
        if let Some(first) = &self.first
            && let Err(fault) = caught(first)
        {
            return self.break_down(fault);
        }
        let asked = Arc::default();
        while let Ok(task) = self.queue.pop() {
            // Only the drop of foreign values can panic; the worker outlives it.
            let run = AssertUnwindSafe(|| {
                task.run(&self.crew, &asked);
                drop(task);
            });
            let _ = catch_unwind(run);
        }
    }

    fn break_down(&self, fault: Fault) {
        let reason = format!("a worker of `{}` could not begin: {fault}", self.crew.name);
        if self.broken.set(reason).is_ok() {
            *lock(&self.crew.broken) = Some(fault);
        }
        self.refuse_queued(FailureKind::Closed);
    }

    /// Closes the queue and answers for what is in it; returns for how much.
    pub(crate) fn refuse_queued(&self, kind: FailureKind) -> usize {
        let tasks = self.queue.close_now();
        let refused = tasks.iter().filter(|task| {
            let reason = match kind {
                FailureKind::Cancelled => "cancelled before it began",
                _ => self.broken().unwrap_or("the pool is broken"),
            };
            task.refuse(&self.crew, Fault::new(kind, reason))
        });
        refused.count()
    }

    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.get().map(String::as_str)
    }
}

/// A piece of work as the queue sees it.
pub(crate) trait Task: Help {
    /// Does the work, unless it has begun or was cancelled. It looks at
    /// `asked` to see whether it should end.
    fn run(&self, crew: &Crew, asked: &Arc<AtomicBool>);

    /// Answers for work that is not to begin; returns whether it was still to.
    fn refuse(&self, crew: &Crew, fault: Fault) -> bool;
}

/// A piece of work: whoever takes what is inside does it.
pub(crate) struct Work<T, F>(Mutex<Option<(Promise<T>, F)>>);

impl<T, F> Work<T, F> {
    pub(crate) fn new(promise: Promise<T>, function: F) -> Self {
        Self(Mutex::new(Some((promise, function))))
    }

    pub(crate) fn take(&self) -> Option<(Promise<T>, F)> {
        lock(&self.0).take()
    }
}

impl<T, E, F> Task for Work<T, F>
where
    T: Send,
    E: Into<BoxError>,
    F: FnOnce() -> Result<T, E> + Send,
{
    fn run(&self, crew: &Crew, asked: &Arc<AtomicBool>) {
        let Some((promise, function)) = self.take() else { return };
        if !promise.start_with(asked) {
            crew.unfinished.fetch_sub(1, Ordering::SeqCst);
            return;
        }
        let due = crew.timeout.map(|timeout| crew.clock.now().saturating_add(timeout));
        let mut result = asked_by(asked.clone(), due, || caught(function));
        if let (Some(due), Some(timeout)) = (due, crew.timeout)
            && crew.clock.now() >= due
        {
            result = Err(timed_out(timeout));
        }
        // Before the answer: whoever has it finds this worker free.
        crew.unfinished.fetch_sub(1, Ordering::SeqCst);
        promise.end(result);
    }

    fn refuse(&self, crew: &Crew, fault: Fault) -> bool {
        let Some((promise, function)) = self.take() else { return false };
        crew.unfinished.fetch_sub(1, Ordering::SeqCst);
        let is_refused = promise.set(Err(fault)).is_ok();
        // A foreign drop; it must not keep others from their answers.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(function)));
        is_refused
    }
}

impl<T, E, F> Help for Work<T, F>
where
    T: Send,
    E: Into<BoxError>,
    F: FnOnce() -> Result<T, E> + Send,
{
    fn help(&self, crew: &Crew) {
        // A flag of its own: the work that waits for this one has the worker's.
        self.run(crew, &Arc::default());
    }
}

/// Ties an answer to its work, where the work owns what it uses.
pub(crate) fn tie<'s, T>(threads: &Threads<'s>, answer: &Answer<T>, task: &Arc<dyn Task + 's>) {
    if let Some(help) = threads.help {
        answer.set_help(help(task));
    }
}
