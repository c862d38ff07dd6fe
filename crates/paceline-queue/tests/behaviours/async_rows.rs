//! Rows 17 to 24: async ends, and threads and tasks on one queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use paceline_queue::{PopError, PopTimeoutError, PushError, Queue};
use tokio::runtime::{Builder, Runtime};

use crate::ends::{block_on, consumers_waiting, poll_once, producers_waiting};
use crate::watchdog::watched;

fn event_loop() -> Runtime {
    Builder::new_current_thread().build().unwrap()
}

/// Counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// Polls once with a waker that counts.
fn poll_with<F: Future + Unpin>(future: &mut F, woken: &Arc<Woken>) -> Poll<F::Output> {
    let waker = Waker::from(Arc::clone(woken));
    std::pin::Pin::new(future).poll(&mut Context::from_waker(&waker))
}

#[test]
fn q17_an_awaited_pop_lets_the_loop_run_others_and_resumes_on_a_push() {
    watched(|watch| {
        let queue = watch.queue(1);
        let event_loop = event_loop();
        event_loop.block_on(async {
            let popper = tokio::spawn({
                let queue = queue.clone();
                async move { queue.pop_async().await }
            });
            while queue.waiting_consumers() == 0 {
                tokio::task::yield_now().await; // others run
            }
            queue.push_async("from a task").await.unwrap();
            assert_eq!(popper.await.unwrap(), Ok("from a task"));
        });
        thread::scope(|scope| {
            scope.spawn(|| {
                consumers_waiting(&queue, 1);
                queue.push("from a thread").unwrap();
            });
            assert_eq!(event_loop.block_on(queue.pop_async()), Ok("from a thread"));
        });
    });
}

#[test]
fn q18_the_second_consumer_gets_the_item_if_the_first_was_cancelled() {
    watched(|watch| {
        let queue = watch.queue(1);
        for _ in 0..10_000 {
            let (first_woken, second_woken) = (Arc::default(), Arc::default());
            let (mut first, mut second) = (queue.pop_async(), queue.pop_async());
            assert!(poll_with(&mut first, &first_woken).is_pending());
            assert!(poll_with(&mut second, &second_woken).is_pending());
            drop(first);
            queue.push(1).unwrap();
            assert_eq!((first_woken.times(), second_woken.times()), (0, 1));
            assert_eq!(poll_with(&mut second, &second_woken), Poll::Ready(Ok(1)));
        }
    });
}

#[test]
fn q19_an_item_meant_for_a_cancelled_consumer_stays_in_and_in_order() {
    watched(|watch| {
        let queue = watch.queue(2);
        for _ in 0..10_000 {
            let (first_woken, second_woken) = (Arc::default(), Arc::default());
            let (mut first, mut second) = (queue.pop_async(), queue.pop_async());
            assert!(poll_with(&mut first, &first_woken).is_pending());
            assert!(poll_with(&mut second, &second_woken).is_pending());
            queue.push(1).unwrap();
            assert_eq!((first_woken.times(), second_woken.times()), (1, 0));
            drop(first);
            assert_eq!(second_woken.times(), 1, "the wake-up is passed on");
            queue.push(2).unwrap();
            drop(second);
            assert_eq!((queue.pop(), queue.pop()), (Ok(1), Ok(2)));
        }
    });
}

#[test]
fn q19_consumers_cancelled_at_any_moment_lose_nothing() {
    const ITEMS: u64 = 10_000;
    watched(|watch| {
        let queue = watch.queue(4);
        thread::scope(|scope| {
            scope.spawn(|| {
                (0..ITEMS).for_each(|n| queue.push(n).unwrap());
                queue.close();
            });
            let consume = || {
                let mut popped = 0;
                loop {
                    let mut cancelled = queue.pop_async();
                    match poll_once(&mut cancelled) {
                        Poll::Ready(Ok(_)) => popped += 1,
                        Poll::Ready(Err(PopError::Closed)) => break popped,
                        Poll::Pending => drop(cancelled),
                    }
                    match queue.pop_timeout(Duration::from_nanos(1)) {
                        Ok(_) => popped += 1,
                        Err(PopTimeoutError::Timeout) => {}
                        Err(PopTimeoutError::Closed) => break popped,
                    }
                }
            };
            let (one, other) = (scope.spawn(consume), scope.spawn(consume));
            assert_eq!(one.join().unwrap() + other.join().unwrap(), ITEMS);
        });
    });
}

#[test]
fn q20_a_push_cancelled_after_a_slot_was_free_passes_the_slot_on_and_keeps_the_item() {
    watched(|watch| {
        let queue = watch.queue(1);
        for _ in 0..10_000 {
            queue.push(String::from("inside")).unwrap();
            let (first_woken, second_woken) = (Arc::default(), Arc::default());
            let mut first = queue.push_async(String::from("cancelled"));
            let mut second = queue.push_async(String::from("second"));
            assert!(poll_with(&mut first, &first_woken).is_pending());
            assert!(poll_with(&mut second, &second_woken).is_pending());

            assert_eq!(queue.pop().unwrap(), "inside");
            assert_eq!((first_woken.times(), second_woken.times()), (1, 0));
            assert_eq!(first.into_item().unwrap(), "cancelled");
            assert_eq!(second_woken.times(), 1, "the slot is passed on");
            assert!(queue.is_empty(), "a cancelled push enqueues nothing");
            assert_eq!(poll_with(&mut second, &second_woken), Poll::Ready(Ok(())));
            assert_eq!(queue.pop().unwrap(), "second");
        }
    });
}

#[test]
fn q20_a_cancelled_batch_keeps_what_it_did_not_push() {
    watched(|watch| {
        let queue = watch.queue(2);
        let mut buffer = VecDeque::from_iter(0..5);
        let mut push = queue.push_batch_async(&mut buffer);
        assert!(poll_once(&mut push).is_pending());
        drop(push);
        assert_eq!(buffer, [2, 3, 4]);
        assert_eq!(queue.close_now(), [0, 1]);
    });
}

#[test]
fn q21_waiters_that_gave_up_leave_no_trace_in_the_lines() {
    watched(|watch| {
        let queue = watch.queue(1);
        for _ in 0..10_000 {
            assert!(poll_once(&mut queue.pop_async()).is_pending());
            assert!(poll_once(&mut queue.join_async()).is_ready());
        }
        queue.push(1).unwrap();
        for _ in 0..10_000 {
            assert!(poll_once(&mut queue.push_async(2)).is_pending());
            assert!(poll_once(&mut queue.join_async()).is_pending());
        }
        let stats = queue.stats();
        assert_eq!(
            (stats.waiting_producers, stats.waiting_consumers, stats.waiting_joiners),
            (0, 0, 0)
        );
    });
}

#[test]
fn q22_as_many_waiting_pushers_are_released_as_slots_appear() {
    watched(|watch| {
        let queue = watch.queue(4);
        queue.push_batch(&mut VecDeque::from([0; 4])).unwrap();
        let woken: Vec<Arc<Woken>> = (0..6).map(|_| Arc::default()).collect();
        let mut pushes: Vec<_> = (1..=6).map(|n| queue.push_async(n)).collect();
        for (push, woken) in pushes.iter_mut().zip(&woken) {
            assert!(poll_with(push, woken).is_pending());
        }
        let times = || woken.iter().map(|woken| woken.times()).collect::<Vec<_>>();

        assert_eq!(queue.pop_batch(&mut VecDeque::new(), 3), Ok(3));
        assert_eq!(times(), [1, 1, 1, 0, 0, 0]);
        for (push, woken) in pushes.iter_mut().zip(&woken).take(3) {
            assert_eq!(poll_with(push, woken), Poll::Ready(Ok(())));
        }
        assert_eq!(times(), [1, 1, 1, 0, 0, 0], "a slot is given once");
        assert_eq!(queue.pop(), Ok(0));
        assert_eq!(times(), [1, 1, 1, 1, 0, 0]);
    });
}

#[test]
fn q22_one_batch_wakes_as_many_consumers_as_it_has_work_for() {
    watched(|watch| {
        let queue = watch.queue(8);
        let woken: Vec<Arc<Woken>> = (0..4).map(|_| Arc::default()).collect();
        let mut buffers: Vec<VecDeque<i32>> = vec![VecDeque::new(); 2];
        let mut batches: Vec<_> =
            buffers.iter_mut().map(|buffer| queue.pop_batch_async(buffer, 3)).collect();
        let mut singles = [queue.pop_async(), queue.pop_async()];
        for (batch, woken) in batches.iter_mut().zip(&woken) {
            assert!(poll_with(batch, woken).is_pending());
        }
        for (single, woken) in singles.iter_mut().zip(&woken[2..]) {
            assert!(poll_with(single, woken).is_pending());
        }
        // Three for the first batch, three for the second, one for a single.
        queue.push_batch(&mut (0..7).collect()).unwrap();
        assert_eq!(woken.iter().map(|woken| woken.times()).collect::<Vec<_>>(), [1, 1, 1, 0]);
    });
}

#[test]
fn q22_a_batch_is_woken_when_the_queue_has_half_drained_and_a_single_item_at_the_next_pop() {
    watched(|watch| {
        let queue = watch.queue(4);
        let fill = || queue.push_batch(&mut VecDeque::from([0; 4])).unwrap();
        let woken = Arc::default();
        let mut buffer = VecDeque::from([1, 2]);

        fill();
        let mut batch = queue.push_batch_async(&mut buffer);
        assert!(poll_with(&mut batch, &woken).is_pending());
        queue.pop().unwrap();
        assert_eq!(woken.times(), 0);
        queue.pop().unwrap();
        assert_eq!(woken.times(), 1);
        assert_eq!(poll_with(&mut batch, &woken), Poll::Ready(Ok(())));
        drop(batch);

        let mut single = queue.push_async(3);
        assert!(poll_with(&mut single, &woken).is_pending());
        queue.pop().unwrap();
        assert_eq!(woken.times(), 2);
    });
}

#[test]
fn q23_capacity_one_with_a_producer_and_a_consumer_task_never_stalls() {
    watched(|watch| {
        let queue = watch.queue(1);
        for event_loop in
            [event_loop(), Builder::new_multi_thread().worker_threads(2).build().unwrap()]
        {
            event_loop.block_on(async {
                let producer = tokio::spawn({
                    let queue = queue.clone();
                    async move {
                        for n in 0..10_000 {
                            queue.push_async(n).await.unwrap();
                        }
                    }
                });
                let consumer = tokio::spawn({
                    let queue = queue.clone();
                    async move {
                        for n in 0..10_000 {
                            assert_eq!(queue.pop_async().await, Ok(n));
                        }
                    }
                });
                producer.await.unwrap();
                consumer.await.unwrap();
            });
        }
    });
}

#[test]
fn q24_async_join_close_and_close_now_mean_the_same_as_for_threads() {
    watched(|watch| {
        event_loop().block_on(async {
            let queue = watch.queue(4);
            queue.join_async().await; // never used

            let worker = tokio::spawn({
                let queue = queue.clone();
                async move {
                    let mut sum = 0;
                    while let Ok(item) = queue.take_async().await {
                        tokio::task::yield_now().await;
                        sum += *item;
                    }
                    sum
                }
            });
            for n in 0..100 {
                queue.push_async(n).await.unwrap();
            }
            queue.join_async().await;
            assert_eq!((queue.depth(), queue.stats().in_flight), (0, 0));
            queue.close();
            assert_eq!(worker.await.unwrap(), 4_950);
            assert_eq!(queue.push_async(1).await, Err(PushError(1)));

            let queue = watch.queue(1);
            queue.push_async('a').await.unwrap();
            let taken = queue.take_async().await.unwrap();
            queue.push_async('b').await.unwrap();
            let mut join = queue.join_async();
            let mut push = queue.push_async('c');
            assert!(poll_once(&mut join).is_pending());
            assert!(poll_once(&mut push).is_pending());
            assert_eq!(queue.close_now(), ['b']);
            assert!(poll_once(&mut join).is_pending(), "an item is still in flight");
            assert_eq!(push.await, Err(PushError('c')));
            assert_eq!(queue.pop_async().await, Err(PopError::Closed));
            drop(taken);
            join.await;
        });
    });
}

#[test]
fn a_pending_future_may_move_to_another_task() {
    watched(|watch| {
        let queue = watch.queue(1);
        let (old, new) = (Arc::default(), Arc::default());
        let mut pop = queue.pop_async();
        assert!(poll_with(&mut pop, &old).is_pending());
        assert!(poll_with(&mut pop, &new).is_pending());
        queue.push('a').unwrap();
        assert_eq!((old.times(), new.times()), (0, 1), "only the last waker is woken");
        assert_eq!(block_on(pop), Ok('a'));
    });
}

#[test]
fn a_task_dropped_by_its_own_wake_up_does_not_deadlock() {
    // The waker owns the future it wakes, and is the last to do so.
    struct Owner {
        _future: std::sync::Mutex<Option<paceline_queue::PopFuture<'static, u8>>>,
    }
    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }
    watched(|_| {
        let queue: &'static Queue<u8> = Box::leak(Box::new(Queue::bounded(1)));
        let owner = Arc::new(Owner { _future: std::sync::Mutex::new(None) });
        let waker = Waker::from(Arc::clone(&owner));
        let mut first = queue.pop_async();
        let mut second = queue.pop_async();
        for pop in [&mut first, &mut second] {
            assert!(std::pin::Pin::new(pop).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        *owner._future.lock().unwrap() = Some(first);
        drop((owner, waker));
        drop(second);
        producers_waiting(queue, 0);
        queue.push(1).unwrap(); // the last waker goes, and its future with it
        assert_eq!(queue.try_pop(), Ok(1));
    });
}

#[test]
fn a_consumer_woken_in_vain_goes_back_to_the_front_of_the_line() {
    watched(|watch| {
        let queue = watch.queue(1);
        let (first_woken, second_woken) = (Arc::default(), Arc::default());
        let (mut first, mut second) = (queue.pop_async(), queue.pop_async());
        assert!(poll_with(&mut first, &first_woken).is_pending());
        assert!(poll_with(&mut second, &second_woken).is_pending());
        queue.push(1).unwrap();
        assert_eq!(queue.try_pop(), Ok(1)); // before the first could
        assert!(poll_with(&mut first, &first_woken).is_pending());
        queue.push(2).unwrap();
        assert_eq!((first_woken.times(), second_woken.times()), (2, 0));
    });
}

#[test]
fn a_joiner_returns_though_more_was_pushed_after_the_last_answer() {
    watched(|watch| {
        let queue = watch.queue(1);
        queue.push(1).unwrap();
        let mut join = queue.join_async();
        assert!(poll_once(&mut join).is_pending());
        assert_eq!(queue.pop(), Ok(1));
        queue.push(2).unwrap();
        assert!(poll_once(&mut join).is_ready());
    });
}
