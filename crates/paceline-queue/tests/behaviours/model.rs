//! Random operations against a model: a deque, a bound and a few flags.
//!
//! Futures stay pending between operations, are polled again or cancelled.
//! After each operation as many of them must have been woken as could proceed:
//! that is the whole law of wake-ups.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use paceline_queue::{
    Answer, Closed, Hold, JoinFuture, PopError, PopFuture, PushError, PushFuture, PutBackError,
    Queue, TryPopError, TryPushError,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    TryPush,
    TryPop,
    TryPushBatch(usize),
    TryPopBatch(usize),
    Take,
    Answer,
    Hold,
    DropHold,
    PutBack,
    SetCapacity(usize),
    Close,
    CloseNow,
    StartPush,
    PollPush(usize),
    CancelPush(usize),
    StartPop,
    PollPop(usize),
    CancelPop(usize),
    StartJoin,
}

fn op() -> impl Strategy<Value = Op> {
    let small = 0..6_usize;
    prop_oneof![
        4 => Just(Op::TryPush),
        4 => Just(Op::TryPop),
        2 => small.clone().prop_map(Op::TryPushBatch),
        2 => small.clone().prop_map(Op::TryPopBatch),
        2 => Just(Op::Take),
        2 => Just(Op::Answer),
        1 => Just(Op::Hold),
        1 => Just(Op::DropHold),
        2 => Just(Op::PutBack),
        1 => (1..6_usize).prop_map(Op::SetCapacity),
        1 => Just(Op::Close),
        1 => Just(Op::CloseNow),
        3 => Just(Op::StartPush),
        2 => small.clone().prop_map(Op::PollPush),
        2 => small.clone().prop_map(Op::CancelPush),
        3 => Just(Op::StartPop),
        2 => small.clone().prop_map(Op::PollPop),
        2 => small.prop_map(Op::CancelPop),
        1 => Just(Op::StartJoin),
    ]
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A future with the flag its waker sets.
struct Pending<F> {
    future: F,
    woken: Arc<Flag>,
}

impl<F: Future + Unpin> Pending<F> {
    fn new(future: F) -> Self {
        Pending { future, woken: Arc::default() }
    }

    fn poll(&mut self) -> Poll<F::Output> {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.woken));
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }
}

fn count_woken<F>(pending: &[Pending<F>]) -> usize {
    pending.iter().filter(|pending| pending.woken.0.load(Ordering::SeqCst)).count()
}

struct World<'q> {
    queue: &'q Queue<u32>,
    next: u32,
    items: VecDeque<u32>,
    capacity: usize,
    closed: bool,
    closed_now: bool,
    taken: Vec<(u32, Answer<u32>)>,
    holds: Vec<Hold<u32>>,
    pushes: Vec<(u32, Pending<PushFuture<'q, u32>>)>,
    pops: Vec<Pending<PopFuture<'q, u32>>>,
    joins: Vec<Pending<JoinFuture<'q, u32>>>,
}

impl<'q> World<'q> {
    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.items.len() + self.holds.len())
    }

    fn has_ended(&self) -> bool {
        self.closed_now || self.closed && self.items.is_empty() && self.holds.is_empty()
    }

    fn expect_pop(&mut self) -> Result<u32, TryPopError> {
        let ended = self.has_ended();
        self.items.pop_front().ok_or(if ended { TryPopError::Closed } else { TryPopError::Empty })
    }

    fn run(&mut self, op: Op) {
        let queue = self.queue;
        match op {
            Op::TryPush => {
                let item = self.fresh();
                let expected = match (self.closed, self.room()) {
                    (true, _) => Err(TryPushError::Closed(item)),
                    (false, 0) => Err(TryPushError::Full(item)),
                    (false, _) => {
                        self.items.push_back(item);
                        Ok(())
                    }
                };
                assert_eq!(queue.try_push(item), expected);
            }
            Op::TryPop => {
                let expected = self.expect_pop();
                assert_eq!(queue.try_pop(), expected);
            }
            Op::TryPushBatch(count) => {
                let mut buffer: VecDeque<u32> = (0..count).map(|_| self.fresh()).collect();
                let mut left = buffer.clone();
                let expected = if self.closed && count > 0 {
                    Err(Closed)
                } else {
                    let fits = self.room().min(count);
                    self.items.extend(left.drain(..fits));
                    Ok(fits)
                };
                assert_eq!(queue.try_push_batch(&mut buffer), expected);
                assert_eq!(buffer, left);
            }
            Op::TryPopBatch(max) => {
                let mut buffer = VecDeque::new();
                let ended = self.has_ended();
                let count = self.items.len().min(max);
                let expected: VecDeque<u32> = self.items.drain(..count).collect();
                let result = queue.try_pop_batch(&mut buffer, max);
                if max > 0 && count == 0 && ended {
                    assert_eq!(result, Err(Closed));
                } else {
                    assert_eq!(result, Ok(count));
                }
                assert_eq!(buffer, expected);
            }
            Op::Take => {
                let expected = self.expect_pop();
                let taken = queue.try_take();
                assert_eq!(taken.as_ref().map(|taken| **taken), expected.as_ref().copied());
                self.taken.extend(taken.map(|taken| taken.into_parts()));
            }
            Op::Answer => drop(self.taken.pop()),
            Op::Hold => {
                let expected = self.holds.len() < self.capacity && !self.closed_now;
                let hold = queue.hold();
                assert_eq!(hold.is_some(), expected);
                self.holds.extend(hold);
            }
            Op::DropHold => drop(self.holds.pop()),
            Op::PutBack => {
                if let Some(hold) = self.holds.pop() {
                    let item = self.fresh();
                    if self.closed_now {
                        assert_eq!(hold.put_back(item), Err(PutBackError(item)));
                    } else {
                        self.items.push_front(item);
                        assert_eq!(hold.put_back(item), Ok(()));
                    }
                }
            }
            Op::SetCapacity(capacity) => {
                self.capacity = capacity;
                queue.set_capacity(capacity);
            }
            Op::Close => {
                self.closed = true;
                queue.close();
            }
            Op::CloseNow => {
                (self.closed, self.closed_now) = (true, true);
                assert_eq!(queue.close_now(), std::mem::take(&mut self.items));
            }
            Op::StartPush => {
                let item = self.fresh();
                self.pushes.push((item, Pending::new(queue.push_async(item))));
                self.poll_push(self.pushes.len() - 1);
            }
            Op::PollPush(index) if index < self.pushes.len() => self.poll_push(index),
            Op::CancelPush(index) if index < self.pushes.len() => {
                let (item, push) = self.pushes.remove(index);
                assert_eq!(push.future.into_item(), Some(item));
            }
            Op::StartPop => {
                self.pops.push(Pending::new(queue.pop_async()));
                self.poll_pop(self.pops.len() - 1);
            }
            Op::PollPop(index) if index < self.pops.len() => self.poll_pop(index),
            Op::CancelPop(index) if index < self.pops.len() => drop(self.pops.remove(index)),
            Op::StartJoin => {
                let mut join = Pending::new(queue.join_async());
                match join.poll() {
                    Poll::Ready(()) => assert!(self.is_answered()),
                    Poll::Pending => self.joins.push(join),
                }
            }
            Op::PollPush(_) | Op::CancelPush(_) | Op::PollPop(_) | Op::CancelPop(_) => {}
        }
        self.check();
    }

    fn poll_push(&mut self, index: usize) {
        let expected = match (self.closed, self.room()) {
            (true, _) => Poll::Ready(Err(PushError(self.pushes[index].0))),
            (false, 0) => Poll::Pending,
            (false, _) => {
                self.items.push_back(self.pushes[index].0);
                Poll::Ready(Ok(()))
            }
        };
        assert_eq!(self.pushes[index].1.poll(), expected);
        if expected.is_ready() {
            self.pushes.remove(index);
        }
    }

    fn poll_pop(&mut self, index: usize) {
        let expected = match self.expect_pop() {
            Ok(item) => Poll::Ready(Ok(item)),
            Err(TryPopError::Closed) => Poll::Ready(Err(PopError::Closed)),
            Err(TryPopError::Empty) => Poll::Pending,
        };
        assert_eq!(self.pops[index].poll(), expected);
        if expected.is_ready() {
            self.pops.remove(index);
        }
    }

    fn is_answered(&self) -> bool {
        self.items.is_empty() && self.taken.is_empty() && self.holds.is_empty()
    }

    fn check(&mut self) {
        let stats = self.queue.stats();
        assert_eq!((stats.depth, stats.capacity), (self.items.len(), self.capacity));
        assert_eq!((stats.in_flight, stats.on_hold), (self.taken.len(), self.holds.len()));
        assert_eq!(
            stats.pushed + stats.put_back,
            stats.popped + stats.discarded + stats.depth as u64
        );
        assert_eq!(stats.waiting_consumers, self.queue.waiting_consumers());

        let pops = if self.has_ended() { usize::MAX } else { self.items.len() };
        assert!(count_woken(&self.pops) >= pops.min(self.pops.len()), "a consumer sleeps on");
        let pushes = if self.closed { usize::MAX } else { self.room() };
        let woken = self.pushes.iter().filter(|(_, push)| push.woken.0.load(Ordering::SeqCst));
        assert!(woken.count() >= pushes.min(self.pushes.len()), "a pusher sleeps on");
        if self.is_answered() {
            for mut join in self.joins.drain(..) {
                assert!(join.woken.0.load(Ordering::SeqCst), "a joiner sleeps on");
                assert!(join.poll().is_ready());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn any_sequence_of_operations_does_what_the_model_does(
        capacity in 1..5_usize,
        ops in prop::collection::vec(op(), 1..60),
    ) {
        let queue = Queue::bounded(capacity);
        let mut world = World {
            queue: &queue, next: 0, items: VecDeque::new(), capacity,
            closed: false, closed_now: false,
            taken: Vec::new(), holds: Vec::new(),
            pushes: Vec::new(), pops: Vec::new(), joins: Vec::new(),
        };
        for op in ops {
            world.run(op);
        }
    }
}
