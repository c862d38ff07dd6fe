//! Small tools for waiting: a lock that outlives a panic, a notice that
//! threads and tasks can wait for, and `block_on` for a plain thread.
//!
//! Not here: queues (their own crate) and time (`clock.rs`).

use std::{
    collections::BTreeMap,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
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
    wakers: Mutex<BTreeMap<u64, Waker>>,
    next: AtomicU64,
}

impl Notice {
    /// Wakes all who wait. Change what they wait for before the call.
    pub(crate) fn tell(&self) {
        // Pairs with the fence in `Until::poll`: either we see the waiter or it sees the change.
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        let wakers: Vec<Waker> = lock(&self.wakers).values().cloned().collect();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits until `condition` holds. It is looked at now and after each notice.
    pub(crate) fn until<F: FnMut() -> bool + Unpin>(&self, condition: F) -> Until<'_, F> {
        Until { notice: self, condition, registered: None }
    }
}

/// The wait for a [`Notice`]; dropping it leaves no trace.
pub(crate) struct Until<'a, F> {
    notice: &'a Notice,
    condition: F,
    registered: Option<u64>,
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
            match self.registered.and_then(|id| wakers.get_mut(&id)) {
                Some(waker) => waker.clone_from(context.waker()),
                None => {
                    let id = notice.next.fetch_add(1, Ordering::Relaxed);
                    wakers.insert(id, context.waker().clone());
                    notice.waiting.fetch_add(1, Ordering::Relaxed);
                    self.registered = Some(id);
                }
            }
        }
        fence(Ordering::SeqCst);
        if (self.condition)() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        if let Some(id) = self.registered {
            let mut wakers = lock(&self.notice.wakers);
            if wakers.remove(&id).is_some() {
                self.notice.waiting.fetch_sub(1, Ordering::Relaxed);
            }
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
    let mut future = pin!(future);
    let bell = Bell::here();
    let waker = Waker::from(bell.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        // The other side is often about to hand over: giving up the core a
        // few times is cheaper than a sleep and a wake.
        for _ in 0..YIELDS {
            if bell.rung.load(Ordering::Relaxed) {
                break;
            }
            thread::yield_now();
        }
        bell.wait(None);
    }
}

/// 4: more gained nothing on two cores with three stages (benches).
const YIELDS: usize = 4;

/// Waits for whichever is ready first; the first one wins a tie.
pub(crate) async fn first<A, B>(
    a: impl Future<Output = A>,
    b: impl Future<Output = B>,
) -> Either<A, B> {
    let mut a = pin!(a);
    let mut b = pin!(b);
    std::future::poll_fn(|context| {
        if let Poll::Ready(output) = a.as_mut().poll(context) {
            return Poll::Ready(Either::First(output));
        }
        b.as_mut().poll(context).map(Either::Second)
    })
    .await
}

/// Which of two was ready.
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}
