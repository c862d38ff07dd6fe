//! The two kinds of end a queue has, behind one face, so that a test runs on
//! every pairing; and waits for events that only the queue knows of.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use paceline_queue::{Closed, PopError, PushError, Queue, Taken};

/// How a thread uses the queue: blocking, or driving the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Waiting,
    Async,
}

/// The end that pushes and the end that pops, in every pairing.
pub(crate) const FRONTS: [(End, End); 4] = [
    (End::Waiting, End::Waiting),
    (End::Async, End::Async),
    (End::Waiting, End::Async),
    (End::Async, End::Waiting),
];

impl End {
    pub(crate) fn push<T>(self, queue: &Queue<T>, item: T) -> Result<(), PushError<T>> {
        match self {
            End::Waiting => queue.push(item),
            End::Async => block_on(queue.push_async(item)),
        }
    }

    pub(crate) fn push_batch<T>(
        self,
        queue: &Queue<T>,
        buffer: &mut VecDeque<T>,
    ) -> Result<(), Closed> {
        match self {
            End::Waiting => queue.push_batch(buffer),
            End::Async => block_on(queue.push_batch_async(buffer)),
        }
    }

    pub(crate) fn pop<T>(self, queue: &Queue<T>) -> Result<T, PopError> {
        match self {
            End::Waiting => queue.pop(),
            End::Async => block_on(queue.pop_async()),
        }
    }

    pub(crate) fn pop_batch<T>(
        self,
        queue: &Queue<T>,
        buffer: &mut VecDeque<T>,
        max: usize,
    ) -> Result<usize, Closed> {
        match self {
            End::Waiting => queue.pop_batch(buffer, max),
            End::Async => block_on(queue.pop_batch_async(buffer, max)),
        }
    }

    pub(crate) fn take<T>(self, queue: &Queue<T>) -> Result<Taken<T>, PopError> {
        match self {
            End::Waiting => queue.take(),
            End::Async => block_on(queue.take_async()),
        }
    }

    pub(crate) fn join<T>(self, queue: &Queue<T>) {
        match self {
            End::Waiting => queue.join(),
            End::Async => block_on(queue.join_async()),
        }
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives a future on this thread, parked while it is pending.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Polls once with a waker that does nothing.
pub(crate) fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Gives the turn away until `condition` holds; the watchdog bounds it.
pub(crate) fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

pub(crate) fn consumers_waiting<T>(queue: &Queue<T>, count: usize) {
    until(|| queue.waiting_consumers() == count);
}

pub(crate) fn producers_waiting<T>(queue: &Queue<T>, count: usize) {
    until(|| queue.stats().waiting_producers == count);
}

pub(crate) fn joiners_waiting<T>(queue: &Queue<T>, count: usize) {
    until(|| queue.stats().waiting_joiners == count);
}
