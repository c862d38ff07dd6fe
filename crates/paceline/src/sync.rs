//! Small tools for waiting: a lock that outlives a panic, a notice that
//! threads and tasks can wait for, and `block_on` for a plain thread.
//!
//! Not here: queues (their own crate) and time (`clock.rs`).

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// Locks, also after a panic elsewhere: every state behind these locks is
/// whole between two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells everyone who waits to look again.
#[derive(Default)]
pub(crate) struct Notice {
    /// How many are registered, so that telling nobody costs one load.
    waiting: AtomicUsize,
    wakers: Mutex<Wakers>,
}

/// The wakers of those who wait, each in a slot.
#[derive(Default)]
struct Wakers {
    slots: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl Wakers {
    fn enter(&mut self, waker: Waker) -> usize {
        match self.free.pop() {
            Some(slot) => {
                self.slots[slot] = Some(waker);
                slot
            }
            None => {
                self.slots.push(Some(waker));
                self.slots.len() - 1
            }
        }
    }

    fn leave(&mut self, slot: usize) -> Option<Waker> {
        self.free.push(slot);
        self.slots[slot].take()
    }
}

impl Notice {
    /// Wakes all who wait. Change what they wait for before the call.
    pub(crate) fn tell(&self) {
        // Pairs with the fence in `Until::poll`: either we see the waiter or it sees the change.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let wakers: Vec<Waker> = lock(&self.wakers).slots.iter().flatten().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until `condition` holds. It is looked at now and after each notice.
    pub(crate) fn until<F: FnMut() -> bool + Unpin>(&self, condition: F) -> Until<'_, F> {
        Until { notice: self, condition, slot: None }
    }
}

/// The wait for a [`Notice`]; dropping it leaves no trace.
pub(crate) struct Until<'a, F> {
    notice: &'a Notice,
    condition: F,
    slot: Option<usize>,
}

impl<F: FnMut() -> bool + Unpin> Future for Until<'_, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if (self.condition)() {
            return Poll::Ready(());
        }
        let notice = self.notice;
        {
            let mut wakers = lock(&notice.wakers);
            match self.slot.and_then(|slot| wakers.slots[slot].as_mut()) {
                Some(waker) => waker.clone_from(context.waker()),
                None => {
                    self.slot = Some(wakers.enter(context.waker().clone()));
                    notice.waiting.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        fence(Ordering::SeqCst);
        if (self.condition)() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            let waker = lock(&self.notice.wakers).leave(slot);
            self.notice.waiting.fetch_sub(1, Ordering::Relaxed);
            drop(waker);
        }
    }
}

/// A thread's alarm bell: whoever rings it makes the thread look again.
pub(crate) struct Bell {
    rung: AtomicBool,
    thread: Thread,
}

impl Bell {
    /// The bell of the calling thread.
    pub(crate) fn here() -> Arc<Self> {
        Arc::new(Self { rung: AtomicBool::new(false), thread: thread::current() })
    }

    pub(crate) fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// Whether it was rung since the last wait.
    pub(crate) fn has_rung(&self) -> bool {
        self.rung.load(Ordering::Relaxed)
    }

    /// Waits until it is rung or `limit` has passed. Only for the bell's own thread.
    pub(crate) fn wait(&self, limit: Option<Duration>) {
        if !self.rung.load(Ordering::SeqCst) {
            match limit {
                Some(limit) => thread::park_timeout(limit),
                None => thread::park(),
            }
        }
        // A swap and not a store: what the ringer did before is seen after it.
        self.rung.swap(false, Ordering::SeqCst);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// Runs a future to its end on this thread, sleeping while it waits.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    block_until(future, None).expect("without a limit the wait ends with the future")
}

/// As [`block_on`], for at most `limit`; `None` if the future is not ready by then.
pub(crate) fn block_on_for<F: Future>(future: F, limit: Duration) -> Option<F::Output> {
    // A limit past the end of time is none.
    block_until(future, Instant::now().checked_add(limit))
}

fn block_until<F: Future>(future: F, end: Option<Instant>) -> Option<F::Output> {
    let mut future = pin!(future);
    let bell = Bell::here();
    let waker = Waker::from(bell.clone());
    let mut context = Context::from_waker(&waker);
    let mut was_long = false;
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return Some(output);
        }
        // The other side is often about to hand over: giving up the core a
        // few times is cheaper than a sleep and a wake.
        let yielding = Instant::now();
        for _ in 0..if was_long { 0 } else { YIELDS } {
            if bell.has_rung() {
                break;
            }
            thread::yield_now();
        }
        let begun = Instant::now();
        let left = end.map(|end| end.saturating_duration_since(begun));
        if left == Some(Duration::ZERO) {
            return None;
        }
        bell.wait(left);
        was_long = begun.elapsed() > LONG || begun - yielding > TURN;
    }
}

/// A wait longer than this says that the other side is not about to hand over.
// As in the queue. With yields at every wait the sink of short jobs had four a job in vain, and
// each let a job's process go first.
const LONG: Duration = Duration::from_micros(50);

/// Nor is it when the turns of others took longer than this: they compute, and
/// who is woken has the core before them, who has yielded after.
// With yields all the same the sink of two processes that compute had ten for each of its waits.
const TURN: Duration = Duration::from_millis(1);

/// 4: more gained nothing on two cores with three stages (benches).
const YIELDS: usize = 4;

/// Waits for whichever is ready first; the first one wins a tie.
///
/// Not an `async fn`: that would keep both futures twice, and they are most
/// of what a worker that waits takes up.
pub(crate) fn first<A, B>(a: A, b: B) -> First<A, B>
where
    A: Future + Unpin,
    B: Future + Unpin,
{
    First { a, b }
}

/// The wait of [`first`].
pub(crate) struct First<A, B> {
    a: A,
    b: B,
}

impl<A, B> Future for First<A, B>
where
    A: Future + Unpin,
    B: Future + Unpin,
{
    type Output = Either<A::Output, B::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = Pin::new(&mut self.a).poll(context) {
            return Poll::Ready(Either::First(output));
        }
        Pin::new(&mut self.b).poll(context).map(Either::Second)
    }
}

/// Which of two was ready.
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}
