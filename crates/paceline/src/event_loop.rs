//! An event loop for plain programs, and the bridges between it and threads.
//!
//! From a thread onto the loop: [`EventLoop::submit`]. From the loop to a
//! thread: [`off_loop`]. Both give an [`Answer`], so values, errors, panics
//! and cancellations cross in the same form, and none gets lost: a loop that
//! has gone answers too.
//!
//! The loop counts its tasks. When it ends it refuses new ones, drops the
//! futures of those that are left, and waits until the last of them has gone.
//!
//! Not here: the event loops of `io` stages (`host.rs`), which poll what a
//! run borrows; and a program that is one future (`event_loop/runner.rs`).

use std::{
    any::Any,
    cell::RefCell,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use futures_util::FutureExt;
use paceline_queue::OnEventLoop;
use tokio::runtime::{self, Runtime};

use crate::{
    answer::{Answer, Outcome, Promise},
    error::{Error, ErrorKind},
    failure::{BoxError, Failure, FailureKind, Fault},
    sync::{Either, Notice, first, lock},
    worker::panic_message,
};

pub(crate) mod interrupt;
pub(crate) mod runner;

/// How long the end of a loop waits for blocking functions, unless said.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// How long work that was cancelled at its limit may take to go.
const CLEAN_UP: Duration = Duration::from_secs(1);

/// A thread with an event loop, for programs that are not asynchronous.
///
/// Any thread submits futures and gets [`Answer`]s. The futures run inside a
/// tokio runtime with its timers and its I/O, one at a time.
///
/// ```
/// use std::time::Duration;
/// use paceline::{BoxError, EventLoop};
///
/// let event_loop = EventLoop::start("pages")?;
/// let answer = event_loop.submit(async {
///     tokio::time::sleep(Duration::from_millis(5)).await;
///     Ok::<_, BoxError>(42)
/// });
/// assert_eq!(answer.wait()?, 42);
/// assert_eq!(event_loop.close()?.cancelled, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # When stopped
///
/// [`close`](Self::close) cancels what is left and waits for its end. Dropping
/// it does the same without waiting. Either way every answer gets an outcome.
pub struct EventLoop {
    handle: LoopHandle,
    ended: Answer<Leftover>,
    thread: Option<JoinHandle<()>>,
}

/// What submits work to an event loop. Clones are handles on the same loop.
///
/// ```
/// use paceline::{BoxError, EventLoop, FailureKind};
///
/// let event_loop = EventLoop::start("pages")?;
/// let handle = event_loop.handle();
/// event_loop.close()?;
/// // A loop that has gone answers too.
/// let failure = handle.submit(async { Ok::<_, BoxError>(1) }).wait().unwrap_err();
/// assert_eq!(failure.kind(), FailureKind::Closed);
/// # Ok::<(), paceline::Error>(())
/// ```
#[derive(Clone)]
pub struct LoopHandle(Arc<Shared>);

/// What was left when an event loop ended.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Leftover {
    /// How many tasks had not ended by themselves. They were cancelled, and
    /// have gone.
    pub cancelled: u64,
    /// What failed while the loop ended: panics in the clean-up of tasks, and errors.
    pub failures: Vec<Failure>,
    /// How many functions, moved [off the loop](off_loop), still run. They
    /// cannot be ended; nobody hears of them any more.
    pub still_blocked: usize,
}

/// What the handles, the tasks and the thread of a loop share.
pub(crate) struct Shared {
    name: Arc<str>,
    runtime: runtime::Handle,
    next: AtomicU64,
    tasks: Mutex<Tasks>,
    is_closing: AtomicBool,
    /// Told when the loop closes.
    closed: Notice,
    /// Told when the last task has gone.
    emptied: Notice,
    /// Functions off the loop that have not returned.
    blocking: AtomicUsize,
    cancelled: AtomicU64,
    failures: Mutex<Vec<Failure>>,
}

#[derive(Default)]
struct Tasks {
    count: usize,
    is_closed: bool,
}

thread_local! {
    /// The loop that this thread runs.
    static HERE: RefCell<Option<Arc<Shared>>> = const { RefCell::new(None) };
}

impl EventLoop {
    /// Starts an event loop on a thread called `name`.
    ///
    /// # Errors
    ///
    /// If the thread or its runtime cannot be started.
    pub fn start(name: &str) -> Result<Self, Error> {
        let (runtime, shared) = prepare(name, None)?;
        let (promise, ended) = Answer::pending(name, 0);
        let on_its_thread = shared.clone();
        let body = move || {
            let closing = on_its_thread.clone();
            let ((), leftover) = drive(runtime, &on_its_thread, || GRACE, closing.closing());
            // Nobody may be left to hear of it.
            let _ = promise.set(Ok::<_, BoxError>(leftover));
        };
        let builder = thread::Builder::new().name(name.replace('\0', ""));
        let thread = builder.spawn(body).map_err(|error| {
            let what = format!("could not start a thread for the event loop `{name}`");
            Error::new(ErrorKind::Start, what).caused_by(error)
        })?;
        Ok(Self { handle: LoopHandle(shared), ended, thread: Some(thread) })
    }

    /// Returns a handle that submits work from anywhere.
    pub fn handle(&self) -> LoopHandle {
        self.handle.clone()
    }

    /// As [`LoopHandle::submit`].
    pub fn submit<T, E, F>(&self, future: F) -> Answer<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.handle.submit(future)
    }

    /// As [`LoopHandle::call`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn call<T, E, F>(&self, limit: Duration, future: F) -> Outcome<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Into<BoxError> + 'static,
    {
        self.handle.call(limit, future)
    }

    /// Ends the loop: cancels its tasks, waits until they have gone, and then
    /// at most 5 s for functions [off the loop](off_loop).
    ///
    /// A task that does not come back from a poll keeps it waiting.
    ///
    /// # Errors
    ///
    /// If this thread runs an event loop itself, which the wait would hold up;
    /// the loop then ends without anybody waiting for it.
    pub fn close(mut self) -> Result<Leftover, Error> {
        self.handle.0.close();
        if OnEventLoop::is_here() {
            let what = "closing an event loop waits, which would hold up the one of this \
                        thread: use `close_async`, or drop it";
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let leftover = self.ended.wait_for(Duration::MAX).and_then(Result::ok);
        self.join();
        Ok(leftover.unwrap_or_default())
    }

    /// As [`close`](Self::close), for tasks of another loop.
    pub async fn close_async(mut self) -> Leftover {
        self.handle.0.close();
        let leftover = (&mut self.ended).await.unwrap_or_default();
        self.join();
        leftover
    }

    /// Joins the thread, which has said its last word.
    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of the loop itself was told by the panic hook; all its answers are given.
            let _ = thread.join();
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        self.handle.0.close();
    }
}

impl fmt::Debug for EventLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventLoop").field(&self.handle).finish()
    }
}

impl LoopHandle {
    /// Lets the loop run `future`, and returns the answer to come. Never waits.
    ///
    /// An error or a panic in it is a failure of the answer alone. Cancelling
    /// the answer drops the future, at its next `.await`; the answer comes
    /// when it has gone.
    ///
    /// # When stopped
    ///
    /// When the loop ends the future is dropped, and the answer is a failure
    /// of kind [`Cancelled`](FailureKind::Cancelled). A loop that has ended
    /// answers [`Closed`](FailureKind::Closed).
    pub fn submit<T, E, F>(&self, future: F) -> Answer<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let shared = &self.0;
        let number = shared.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (promise, answer) = Answer::pending(shared.name.clone(), number);
        let Some(counted) = shared.enter() else {
            let reason = format!("the event loop `{}` has ended", shared.name);
            let _ = promise.set(Err(Fault::new(FailureKind::Closed, reason)));
            return answer;
        };
        let ended_late = shared.clone();
        answer.on_done(move |outcome| {
            if let Err(failure) = outcome {
                ended_late.note(failure);
            }
        });
        shared.runtime.spawn(carry(counted, promise, future));
        answer
    }

    /// Runs `future` on the loop and waits for its outcome at most `limit`;
    /// then it is cancelled, and nothing of it is left on the loop.
    ///
    /// # Errors
    ///
    /// Its failure; of kind [`Timeout`](FailureKind::Timeout) if it took
    /// longer, and of kind [`WouldBlock`](FailureKind::WouldBlock) on a
    /// thread that runs an event loop, where nothing is submitted.
    pub fn call<T, E, F>(&self, limit: Duration, future: F) -> Outcome<T>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: Into<BoxError> + 'static,
    {
        let failure = |kind, reason: String| {
            let (promise, answer) = Answer::pending(self.0.name.clone(), 0);
            let _ = promise.set(Err(Fault::new(kind, reason)));
            answer.wait()
        };
        if OnEventLoop::is_here() {
            let what = "waiting for it would hold up the event loop of this thread: `submit` and \
                        `await` it";
            return failure(FailureKind::WouldBlock, what.into());
        }
        let mut answer = self.submit(future);
        if let Some(outcome) = answer.wait_for(limit) {
            return outcome;
        }
        answer.cancel();
        // A loop that is stuck must not hold up its caller as well.
        match answer.wait_for(CLEAN_UP) {
            Some(Err(failure)) if failure.kind() != FailureKind::Cancelled => Err(failure),
            Some(Ok(value)) => Ok(value),
            _ => failure(FailureKind::Timeout, format!("took longer than {limit:?}")),
        }
    }

    /// Returns how many tasks there are. Never waits.
    pub fn tasks(&self) -> usize {
        lock(&self.0.tasks).count
    }
}

impl fmt::Debug for LoopHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tasks = self.tasks();
        f.debug_struct("LoopHandle").field("name", &self.0.name).field("tasks", &tasks).finish()
    }
}

/// Moves a function that blocks to a thread, from a task of any event loop,
/// and returns the answer to come. Never waits.
///
/// The loop goes on meanwhile. The function is called exactly once, unless
/// the answer is cancelled before it began. What it needs it takes along by
/// capturing it. Works in `io` stages, in [`EventLoop`] and [`Runner`](crate::Runner),
/// and in any tokio runtime, on the threads of which it runs.
///
/// ```
/// use paceline::{BoxError, EventLoop, off_loop};
///
/// let event_loop = EventLoop::start("files")?;
/// let answer = event_loop.submit(async {
///     let text = off_loop(|| std::fs::read_to_string("/proc/self/comm")).await?;
///     Ok::<_, BoxError>(text.len())
/// });
/// assert!(answer.wait()? > 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # When stopped
///
/// A function that runs cannot be ended. Dropping the answer, or the end of
/// the loop, forgets its outcome: nothing is delivered later.
/// [`Leftover::still_blocked`] counts those that were left behind.
pub fn off_loop<T, E>(function: impl FnOnce() -> Result<T, E> + Send + 'static) -> Answer<T>
where
    T: Send + 'static,
    E: Into<BoxError>,
{
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let (promise, answer) = Answer::pending("off_loop", NEXT.fetch_add(1, Ordering::Relaxed));
    let Ok(runtime) = runtime::Handle::try_current() else {
        let reason = "no event loop runs here: call the function itself";
        let _ = promise.set(Err(Fault::new(FailureKind::Closed, reason)));
        return answer;
    };
    let counted = HERE.with_borrow(|here| here.as_ref().map(Blocking::begin));
    let on_thread = move || {
        promise.keep(function);
        drop(counted);
    };
    // tokio panics if it has no thread and cannot start one; the promise that goes with it answers.
    let _ = catch_unwind(AssertUnwindSafe(|| runtime.spawn_blocking(on_thread)));
    answer
}

/// Carries a future to its end, or to that of its loop.
async fn carry<T, E, F>(counted: Counted, promise: Promise<T>, future: F)
where
    F: Future<Output = Result<T, E>>,
    T: Send,
    E: Into<BoxError>,
{
    if !promise.start() {
        return;
    }
    let mut work = Box::pin(AssertUnwindSafe(future).catch_unwind());
    // The work comes first: what is ready when it is cancelled counts.
    let ended = first(first(&mut work, promise.cancelled()), counted.0.closing()).await;
    if matches!(ended, Either::Second(())) {
        counted.0.cancelled.fetch_add(1, Ordering::Relaxed);
    }
    // A future is dropped before its answer comes, so that its clean-up is over then.
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(work)));
    let result = match (ended, dropped) {
        (Either::First(Either::First(Ok(result))), Ok(())) => result.map_err(Fault::from_error),
        (Either::First(Either::First(Err(panic))), _) | (_, Err(panic)) => Err(panicked(&*panic)),
        (Either::First(Either::Second(())), Ok(())) => Err(cancelled("cancelled")),
        (Either::Second(()), Ok(())) => Err(cancelled("the event loop has ended")),
    };
    // Refused is it only if it was cancelled before it began.
    let _ = promise.set(result);
}

fn panicked(panic: &(dyn Any + Send)) -> Fault {
    Fault::new(FailureKind::Panic, panic_message(panic))
}

fn cancelled(why: &'static str) -> Fault {
    Fault::new(FailureKind::Cancelled, why).permanent()
}

/// Makes what a loop needs; at most `threads` threads for functions off the loop.
pub(crate) fn prepare(name: &str, threads: Option<usize>) -> Result<(Runtime, Arc<Shared>), Error> {
    let mut builder = runtime::Builder::new_current_thread();
    if let Some(threads) = threads {
        builder.max_blocking_threads(threads);
    }
    let runtime = builder.enable_all().thread_name("paceline-off").build().map_err(|error| {
        let what = format!("could not start the event loop `{name}`");
        Error::new(ErrorKind::Start, what).caused_by(error)
    })?;
    let shared = Shared {
        name: name.into(),
        runtime: runtime.handle().clone(),
        next: AtomicU64::new(0),
        tasks: Mutex::default(),
        is_closing: AtomicBool::new(false),
        closed: Notice::default(),
        emptied: Notice::default(),
        blocking: AtomicUsize::new(0),
        cancelled: AtomicU64::new(0),
        failures: Mutex::default(),
    };
    Ok((runtime, Arc::new(shared)))
}

/// Runs `main` and the tasks of the loop on this thread; ends the tasks that
/// are left; gives functions off the loop as long as `grace` says.
pub(crate) fn drive<R>(
    runtime: Runtime,
    shared: &Arc<Shared>,
    grace: impl FnOnce() -> Duration,
    main: impl Future<Output = R>,
) -> (R, Leftover) {
    let _here = OnEventLoop::enter();
    let before = HERE.replace(Some(shared.clone()));
    let output = runtime.block_on(main);
    shared.close();
    runtime.block_on(shared.emptied.until(|| lock(&shared.tasks).count == 0));
    HERE.set(before);
    runtime.shutdown_timeout(grace());
    let leftover = Leftover {
        cancelled: shared.cancelled.load(Ordering::Relaxed),
        failures: std::mem::take(&mut *lock(&shared.failures)),
        still_blocked: shared.blocking.load(Ordering::SeqCst),
    };
    (output, leftover)
}

impl Shared {
    /// Takes one more task, unless the loop ends.
    fn enter(self: &Arc<Self>) -> Option<Counted> {
        let mut tasks = lock(&self.tasks);
        if tasks.is_closed {
            return None;
        }
        tasks.count += 1;
        Some(Counted(self.clone()))
    }

    /// Takes no more tasks, and cancels those there are. Harmless to repeat.
    fn close(&self) {
        lock(&self.tasks).is_closed = true;
        self.is_closing.store(true, Ordering::SeqCst);
        self.closed.tell();
    }

    /// Waits until the loop closes.
    fn closing(&self) -> impl Future<Output = ()> + Send + Unpin {
        self.closed.until(|| self.is_closing.load(Ordering::SeqCst))
    }

    /// Notes what failed while the loop ends: there may be nobody else to hear of it.
    fn note(&self, failure: &Failure) {
        if self.is_closing.load(Ordering::SeqCst) && failure.kind() != FailureKind::Cancelled {
            lock(&self.failures).push(failure.clone());
        }
    }

    /// The handle of the loop.
    pub(crate) fn handle(self: &Arc<Self>) -> LoopHandle {
        LoopHandle(self.clone())
    }
}

/// A task, for as long as there is anything left of it.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        let is_last = {
            let mut tasks = lock(&self.0.tasks);
            tasks.count -= 1;
            tasks.count == 0 && tasks.is_closed
        };
        if is_last {
            self.0.emptied.tell();
        }
    }
}

/// A function off the loop, until it has returned.
struct Blocking(Arc<Shared>);

impl Blocking {
    fn begin(shared: &Arc<Shared>) -> Self {
        shared.blocking.fetch_add(1, Ordering::SeqCst);
        Self(shared.clone())
    }
}

impl Drop for Blocking {
    fn drop(&mut self) {
        self.0.blocking.fetch_sub(1, Ordering::SeqCst);
    }
}
