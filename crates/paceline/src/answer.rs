//! What became of work that somebody else does: a value, or why there is none.
//!
//! One type for threads and tasks: [`Answer`] is waited for, probed, or
//! awaited. [`Promise`] is its writing half. The two share one state behind
//! one lock: pending, running, done. Nothing foreign (a callback, a waker, a
//! value's drop) runs under that lock.
//!
//! Not here: waiting for several at once (`answers.rs`), and who does the
//! work (`executor.rs`, `group.rs`).

use std::{
    fmt,
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use paceline_queue::OnEventLoop;

use crate::{
    crew::{self, Crew, Help},
    failure::{Failure, FailureKind, Fault},
    item::ItemId,
    sync::{block_on, block_on_for, lock},
};

mod promise;

pub use promise::Promise;
pub(crate) use promise::caught;

/// What becomes of a piece of work: its value, or the failure that names it.
pub type Outcome<T> = Result<T, Failure>;

/// The answer to come for a piece of work that somebody else does.
///
/// It is pending until the work begins, then running, then done; cancelled
/// before it begins, it is done too. A thread [waits](Self::wait) for it, a
/// task awaits it, both on the same type:
///
/// ```
/// use paceline::{Answer, BoxError};
///
/// let (promise, answer) = Answer::<u32>::pending("sums", 1);
/// let worker = std::thread::spawn(move || promise.keep(|| Ok::<_, BoxError>(1 + 1)));
/// assert_eq!(answer.wait()?, 2);
/// # worker.join().unwrap();
/// # Ok::<(), paceline::Failure>(())
/// ```
///
/// **The outcome is taken once.** [`wait`](Self::wait) uses the answer up.
/// [`wait_for`](Self::wait_for), [`try_get`](Self::try_get) and `await` by
/// reference leave it behind empty: asked again it gives a failure of kind
/// [`Closed`](FailureKind::Closed), and never waits. The failure can be
/// cloned and read as often as wanted.
///
/// Dropping it cancels nothing: the work goes on, and nobody hears of it.
///
/// # When stopped
///
/// If whoever was to answer goes away without doing so, the outcome is a
/// failure of kind [`Closed`](FailureKind::Closed). No wait is left hanging.
#[must_use = "dropping it forgets the outcome; the work goes on"]
pub struct Answer<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    /// Who does the work, as failures name it: a pool, a group, a bridge.
    name: Arc<str>,
    number: u64,
    /// Whether the work was asked to end.
    is_asked: AtomicBool,
    state: Mutex<State<T>>,
}

struct State<T> {
    phase: Phase<T>,
    was_cancelled: bool,
    /// The one reader that waits.
    reader: Option<Waker>,
    /// The writer, if it waits to be asked to end.
    writer: Option<Waker>,
    callbacks: Vec<Callback<T>>,
    /// What the running work looks at to see whether it was asked to end.
    asked: Option<Arc<AtomicBool>>,
    /// The work itself, for a worker of its pool that would wait for it.
    help: Option<Weak<dyn Help>>,
    /// The crew whose worker waits for this.
    blocked: Option<Arc<Crew>>,
}

enum Phase<T> {
    Pending,
    Running,
    /// Callbacks see the outcome now; who waits sees it after them.
    Telling,
    Done(Outcome<T>),
    Taken,
}

type Callback<T> = Box<dyn FnOnce(&Outcome<T>) + Send>;

impl<T> Answer<T> {
    /// Makes an answer that is pending, and the promise of it.
    ///
    /// Failures name them: who does the work, and the number of the work there.
    pub fn pending(name: impl Into<Arc<str>>, number: u64) -> (Promise<T>, Self) {
        let state = State {
            phase: Phase::Pending,
            was_cancelled: false,
            reader: None,
            writer: None,
            callbacks: Vec::new(),
            asked: None,
            help: None,
            blocked: None,
        };
        let shared = Arc::new(Shared {
            name: name.into(),
            number,
            is_asked: AtomicBool::new(false),
            state: Mutex::new(state),
        });
        (Promise { shared: Some(shared.clone()) }, Self { shared })
    }

    /// Waits for the outcome and gives it.
    ///
    /// The wait has no limit of its own; it ends when the work does, when the
    /// answer is cancelled, or when whoever was to answer goes away.
    ///
    /// # Errors
    ///
    /// The [`Failure`] of the work. On a thread that runs an event loop, a
    /// failure of kind [`WouldBlock`](FailureKind::WouldBlock) if the work is
    /// not done: `await` it there.
    ///
    /// A worker of a pool that waits for its own pool does the work itself if
    /// it has not begun; should all workers wait for one another, the last
    /// gets a failure of kind [`Deadlock`](FailureKind::Deadlock) that names
    /// the pool.
    pub fn wait(mut self) -> Outcome<T> {
        if let Some(crew) = crew::here(&self.shared.name) {
            self.help(&crew);
            if !self.shared.block(&crew) {
                return Err(self.shared.deadlock(&crew));
            }
        }
        match self.try_get() {
            Some(outcome) => outcome,
            None if OnEventLoop::is_here() => Err(self.shared.would_block()),
            None => block_on(self),
        }
    }

    /// Waits for the outcome at most `limit`; `None` if the work is not done
    /// by then. A limit of zero does not wait.
    ///
    /// # Errors
    ///
    /// As [`wait`](Self::wait). After a failure of kind
    /// [`WouldBlock`](FailureKind::WouldBlock) the outcome is still to come.
    pub fn wait_for(&mut self, limit: Duration) -> Option<Outcome<T>> {
        match self.try_get() {
            None if limit > Duration::ZERO && OnEventLoop::is_here() => {
                Some(Err(self.shared.would_block()))
            }
            None if limit > Duration::ZERO => block_on_for(self, limit),
            outcome => outcome,
        }
    }

    /// Returns the outcome if the work is done. Never waits.
    pub fn try_get(&mut self) -> Option<Outcome<T>> {
        self.shared.take(&mut lock(&self.shared.state))
    }

    /// Returns whether there is an outcome. Never waits.
    pub fn is_done(&self) -> bool {
        matches!(lock(&self.shared.state).phase, Phase::Done(_) | Phase::Taken)
    }

    /// Returns whether the work is done and did not succeed; work that was
    /// cancelled has not failed. Never waits.
    pub fn has_failed(&self) -> bool {
        match &lock(&self.shared.state).phase {
            Phase::Done(Err(failure)) => failure.kind() != FailureKind::Cancelled,
            _ => false,
        }
    }

    /// Cancels the work if it has not begun, and returns whether it is cancelled.
    ///
    /// Work that has not begun never will, and the outcome is a failure of
    /// kind [`Cancelled`](FailureKind::Cancelled). Work that is running is
    /// asked to end, which it can see by [`is_cancelled`](crate::is_cancelled)
    /// or [`Promise::cancelled`]; the outcome is whatever it then gives.
    /// Harmless to repeat. Never waits.
    pub fn cancel(&self) -> bool {
        self.shared.cancel_pending()
    }

    /// Returns a handle that cancels as [`cancel`](Self::cancel) does, for
    /// whoever does not wait.
    pub fn canceller(&self) -> Canceller
    where
        T: Send + 'static,
    {
        Canceller(self.shared.clone())
    }

    /// Calls `callback` with the outcome, exactly once; at once if there is one.
    ///
    /// Callbacks are called in the order in which they came, by whoever sets
    /// the outcome, and before anybody who waits is told; so a callback should
    /// not wait. One that panics is reported by the panic hook as any panic,
    /// and stops neither the others nor the outcome.
    pub fn on_done(&self, callback: impl FnOnce(&Outcome<T>) + Send + 'static) {
        let outcome = {
            let mut state = lock(&self.shared.state);
            match mem::replace(&mut state.phase, Phase::Telling) {
                Phase::Done(outcome) => {
                    state.callbacks.push(Box::new(callback));
                    outcome
                }
                Phase::Taken => {
                    state.phase = Phase::Taken;
                    drop(state);
                    return call(callback, &Err(self.shared.taken()));
                }
                unfinished => {
                    state.phase = unfinished;
                    state.callbacks.push(Box::new(callback));
                    return;
                }
            }
        };
        self.shared.end(outcome);
    }

    /// Returns the number of the work.
    pub(crate) fn number(&self) -> u64 {
        self.shared.number
    }

    /// Lets whoever waits inside the pool do this work.
    pub(crate) fn set_help(&self, help: Weak<dyn Help>) {
        lock(&self.shared.state).help = Some(help);
    }

    /// Does the work here and now if this thread belongs to the pool that
    /// owes it and it has not begun.
    pub(crate) fn help_if_inside(&self) {
        if let Some(crew) = crew::here(&self.shared.name) {
            self.help(&crew);
        }
    }

    fn help(&self, crew: &Crew) {
        let work = {
            let state = lock(&self.shared.state);
            let is_pending = matches!(state.phase, Phase::Pending);
            state.help.as_ref().filter(|_| is_pending).and_then(Weak::upgrade)
        };
        work.into_iter().for_each(|work| work.help(crew));
    }

    /// Wakes `waker` when there is an outcome; returns whether there is one
    /// already. There is one reader, so the last waker counts.
    pub(crate) fn watch(&self, waker: &Waker) -> bool {
        let mut state = lock(&self.shared.state);
        let is_done = matches!(state.phase, Phase::Done(_) | Phase::Taken);
        let before = match is_done {
            true => state.reader.take(),
            false => state.reader.replace(waker.clone()),
        };
        drop(state);
        drop(before);
        is_done
    }
}

fn call<T>(callback: impl FnOnce(&Outcome<T>), outcome: &Outcome<T>) {
    // The panic hook has told of it; there is nobody else to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| callback(outcome)));
}

/// Gives the outcome. Needs no particular runtime.
///
/// Cancel-safe: dropped before it is ready, nothing is lost.
impl<T> Future for Answer<T> {
    type Output = Outcome<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome<T>> {
        let waker = context.waker().clone();
        let (outcome, before) = {
            let mut state = lock(&self.shared.state);
            match self.shared.take(&mut state) {
                Some(outcome) => (Some(outcome), state.reader.take()),
                None => (None, state.reader.replace(waker)),
            }
        };
        drop(before);
        outcome.map_or(Poll::Pending, Poll::Ready)
    }
}

impl<T> Unpin for Answer<T> {}

impl<T> fmt::Debug for Answer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.show("Answer", f)
    }
}

/// Cancels the work of an [`Answer`] that somebody else waits for. Clones
/// are handles on the same work.
///
/// ```
/// use paceline::{Answer, FailureKind};
///
/// let (_promise, answer) = Answer::<u32>::pending("example", 1);
/// let canceller = answer.canceller();
/// let waiter = std::thread::spawn(move || answer.wait());
/// assert!(canceller.cancel());
/// assert_eq!(waiter.join().unwrap().unwrap_err().kind(), FailureKind::Cancelled);
/// ```
#[derive(Clone)]
pub struct Canceller(Arc<dyn Cancel>);

impl Canceller {
    /// As [`Answer::cancel`].
    pub fn cancel(&self) -> bool {
        self.0.cancel()
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

trait Cancel: Send + Sync {
    fn cancel(&self) -> bool;
}

impl<T: Send> Cancel for Shared<T> {
    fn cancel(&self) -> bool {
        self.cancel_pending()
    }
}

impl<T> Shared<T> {
    fn failure(&self, fault: Fault) -> Failure {
        Failure::new(ItemId::of_source(self.number), self.name.clone(), 1, fault)
    }

    #[cold]
    fn would_block(&self) -> Failure {
        let what = "waiting for it would hold up the event loop of this thread: `await` it";
        self.failure(Fault::new(FailureKind::WouldBlock, what))
    }

    #[cold]
    fn deadlock(&self, crew: &Crew) -> Failure {
        let (most, name) = (crew.most(), &crew.name);
        let what = format!("all {most} workers of `{name}` wait for work that only they could do");
        self.failure(Fault::new(FailureKind::Deadlock, what))
    }

    /// Notes that the work begins, unless it was cancelled; returns whether it should.
    fn start(&self, asked: Option<&Arc<AtomicBool>>) -> bool {
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Pending) {
            state.phase = Phase::Running;
        }
        if let Some(asked) = asked {
            asked.store(self.is_asked.load(Ordering::SeqCst), Ordering::SeqCst);
            state.asked = Some(asked.clone());
        }
        !state.was_cancelled
    }

    fn taken(&self) -> Failure {
        self.failure(Fault::new(FailureKind::Closed, "the outcome was taken before"))
    }

    /// Notes that a worker of `crew` is about to wait for this, and returns
    /// whether it may.
    fn block(&self, crew: &Arc<Crew>) -> bool {
        let mut state = lock(&self.state);
        if matches!(state.phase, Phase::Done(_) | Phase::Taken) {
            return true;
        }
        let may = crew.block();
        if may {
            state.blocked = Some(crew.clone());
        }
        may
    }

    /// Takes the outcome if there is one.
    fn take(&self, state: &mut State<T>) -> Option<Outcome<T>> {
        match mem::replace(&mut state.phase, Phase::Taken) {
            Phase::Done(outcome) => Some(outcome),
            Phase::Taken => Some(Err(self.taken())),
            unfinished => {
                state.phase = unfinished;
                None
            }
        }
    }

    /// Sets the outcome: calls the callbacks, those too that come meanwhile, and
    /// then tells whoever waits. The phase is `Running` or `Telling`, and the
    /// caller the only one who may leave it.
    fn end(&self, outcome: Outcome<T>) {
        loop {
            let callbacks = {
                let mut state = lock(&self.state);
                let callbacks = mem::take(&mut state.callbacks);
                if callbacks.is_empty() {
                    state.phase = Phase::Done(outcome);
                    let reader = state.reader.take();
                    let unused = (state.writer.take(), state.asked.take(), state.help.take());
                    if let Some(crew) = state.blocked.take() {
                        crew.unblock();
                    }
                    drop(state);
                    drop(unused);
                    reader.into_iter().for_each(Waker::wake);
                    return;
                }
                state.phase = Phase::Telling;
                callbacks
            };
            callbacks.into_iter().for_each(|callback| call(callback, &outcome));
        }
    }

    fn cancel_pending(&self) -> bool {
        self.is_asked.store(true, Ordering::SeqCst);
        let (writer, is_pending, was_cancelled) = {
            let mut state = lock(&self.state);
            if let Some(asked) = &state.asked {
                asked.store(true, Ordering::SeqCst);
            }
            let is_pending = matches!(state.phase, Phase::Pending);
            if is_pending {
                state.phase = Phase::Running;
                state.was_cancelled = true;
            }
            (state.writer.take(), is_pending, state.was_cancelled)
        };
        writer.into_iter().for_each(Waker::wake);
        if is_pending {
            let reason = "cancelled before it began";
            self.end(Err(self.failure(Fault::new(FailureKind::Cancelled, reason))));
        }
        was_cancelled
    }

    fn show(&self, what: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = match lock(&self.state).phase {
            Phase::Pending => "pending",
            Phase::Running => "running",
            Phase::Telling | Phase::Done(_) => "done",
            Phase::Taken => "taken",
        };
        f.debug_struct(what)
            .field("name", &self.name)
            .field("number", &self.number)
            .field("phase", &phase)
            .finish()
    }
}
