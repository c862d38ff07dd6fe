//! Rows 1 to 16: what any blocking queue must do, on all ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use paceline_queue::{
    Closed, JoinTimeoutError, PopError, PopTimeoutError, PushError, PushTimeoutError, Queue,
    TryPopError, TryPushError,
};

use crate::ends::{
    End, FRONTS, block_on, consumers_waiting, joiners_waiting, poll_once, producers_waiting,
};
use crate::watchdog::watched;

const A_MOMENT: Duration = Duration::from_millis(5);

#[test]
fn q01_items_come_out_in_the_order_they_went_in() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(8);
            for _ in 0..3 {
                (0..5).for_each(|n| push.push(&queue, n).unwrap());
                let popped = Vec::from_iter((0..5).map(|_| pop.pop(&queue).unwrap()));
                assert_eq!(popped, [0, 1, 2, 3, 4]);
                assert!(queue.is_empty(), "it is usable again after being emptied");
            }
        }
    });
}

#[test]
fn q01_batches_keep_the_order_across_waits() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(7);
            thread::scope(|scope| {
                scope.spawn(|| {
                    for start in (0..3_000).step_by(30) {
                        push.push_batch(&queue, &mut (start..start + 30).collect()).unwrap();
                    }
                    queue.close();
                });
                let mut popped = VecDeque::new();
                while pop.pop_batch(&queue, &mut popped, 11).is_ok() {}
                assert!(popped.into_iter().eq(0..3_000));
            });
        }
    });
}

#[test]
fn q02_a_full_queue_refuses_a_try_and_a_timed_push_and_lets_a_waiting_one_proceed() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(2);
            queue.try_push(1).unwrap();
            queue.try_push(2).unwrap();
            assert_eq!(queue.try_push(3), Err(TryPushError::Full(3)));
            assert_eq!(queue.push_timeout(3, A_MOMENT), Err(PushTimeoutError::Timeout(3)));
            thread::scope(|scope| {
                let pusher = scope.spawn(|| push.push(&queue, 3));
                producers_waiting(&queue, 1);
                assert_eq!(pop.pop(&queue), Ok(1));
                assert_eq!(pusher.join().unwrap(), Ok(()));
            });
            assert_eq!(queue.close_now(), [2, 3]);
        }
    });
}

#[test]
fn q03_an_empty_queue_refuses_a_try_and_a_timed_pop_and_lets_a_waiting_one_proceed() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            assert_eq!(queue.try_pop(), Err(TryPopError::Empty));
            assert_eq!(queue.try_pop_batch(&mut VecDeque::new(), 2), Ok(0));
            assert_eq!(queue.pop_timeout(A_MOMENT), Err(PopTimeoutError::Timeout));
            thread::scope(|scope| {
                let popper = scope.spawn(|| pop.pop(&queue));
                consumers_waiting(&queue, 1);
                push.push(&queue, 7).unwrap();
                assert_eq!(popper.join().unwrap(), Ok(7));
            });
        }
    });
}

#[test]
fn q04_a_push_that_fails_after_it_was_woken_leaves_the_queue_usable() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            queue.push('a').unwrap();
            let mut woken = queue.push_async('b');
            assert!(poll_once(&mut woken).is_pending());
            thread::scope(|scope| {
                let second = scope.spawn(|| push.push(&queue, 'c'));
                producers_waiting(&queue, 2);
                assert_eq!(pop.pop(&queue), Ok('a')); // wakes the future only
                assert_eq!(woken.into_item(), Some('b'));
                assert_eq!(second.join().unwrap(), Ok(()));
            });
            assert_eq!(queue.depth(), 1);
            assert_eq!(pop.pop(&queue), Ok('c'));
        }
    });
}

#[test]
fn q04_a_push_that_is_closed_after_it_was_woken_keeps_its_item() {
    watched(|watch| {
        let queue = watch.queue(1);
        queue.push('a').unwrap();
        let mut woken = queue.push_async('b');
        assert!(poll_once(&mut woken).is_pending());
        assert_eq!(queue.pop(), Ok('a'));
        queue.close();
        assert_eq!(block_on(woken), Err(PushError('b')));
        assert_eq!(queue.pop(), Err(PopError::Closed));
    });
}

#[test]
fn q05_a_pop_that_fails_after_it_was_woken_leaves_the_item_in() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            let mut woken = queue.pop_async();
            assert!(poll_once(&mut woken).is_pending());
            thread::scope(|scope| {
                let second = scope.spawn(|| pop.pop(&queue));
                consumers_waiting(&queue, 2);
                push.push(&queue, 'a').unwrap(); // wakes the future only
                drop(woken);
                assert_eq!(second.join().unwrap(), Ok('a'));
            });
            assert!(queue.is_empty());
        }
    });
}

#[test]
fn q06_a_limit_of_zero_behaves_as_a_try() {
    watched(|watch| {
        let queue = watch.queue(1);
        let zero = Duration::ZERO;
        assert_eq!(queue.pop_timeout(zero), Err(PopTimeoutError::Timeout));
        assert_eq!(
            queue.pop_batch_timeout(&mut VecDeque::new(), 1, zero),
            Err(PopTimeoutError::Timeout)
        );
        assert!(queue.take_timeout(zero).is_err());
        assert_eq!(queue.push_timeout(1, zero), Ok(()));
        assert_eq!(queue.push_timeout(2, zero), Err(PushTimeoutError::Timeout(2)));
        assert_eq!(queue.join_timeout(zero), Err(JoinTimeoutError));
        assert_eq!(queue.pop_timeout(zero), Ok(1));
        assert_eq!(queue.join_timeout(zero), Ok(()));
        assert_eq!(queue.stats().waited_on_full + queue.stats().waited_on_empty, zero);
    });
}

#[test]
fn q06_a_limit_past_the_end_of_time_is_none() {
    watched(|watch| {
        let queue = watch.queue(1);
        thread::scope(|scope| {
            let popper = scope.spawn(|| queue.pop_timeout(Duration::MAX));
            consumers_waiting(&queue, 1);
            queue.push(1).unwrap();
            assert_eq!(popper.join().unwrap(), Ok(1));
        });
    });
}

#[test]
fn q07_join_returns_only_after_every_item_is_answered_and_works_again() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(4);
            let sum = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while let Ok(item) = pop.take(&queue) {
                            sum.fetch_add(*item, Ordering::Relaxed);
                        }
                    });
                }
                for round in 1..=2 {
                    (0..100).for_each(|n| push.push(&queue, n).unwrap());
                    push.join(&queue);
                    assert_eq!(sum.load(Ordering::Relaxed), 4_950 * round);
                }
                queue.close();
            });
        }
    });
}

#[test]
fn q08_an_item_is_answered_once_wherever_its_guard_goes() {
    watched(|watch| {
        let queue = watch.queue(4);
        queue.push_batch(&mut (0..4).collect()).unwrap();

        let first = queue.take().unwrap();
        let (second, answer) = queue.take().unwrap().into_parts();
        assert_eq!((*first, second, queue.stats().in_flight), (0, 1, 2));
        drop(first);
        thread::spawn(move || drop(answer)).join().unwrap();
        assert_eq!(queue.stats().in_flight, 0);

        let third = queue.take().unwrap();
        thread::spawn(move || {
            let _in_work = third;
            panic!("a worker that fails, on purpose");
        })
        .join()
        .unwrap_err();
        assert_eq!(queue.pop(), Ok(3));
        queue.join();
    });
}

#[test]
fn q09_shrinking_keeps_all_items_and_growing_wakes_waiting_pushers() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(4);
            queue.push_batch(&mut (0..4).collect()).unwrap();
            queue.set_capacity(2);
            assert_eq!((queue.depth(), queue.capacity()), (4, 2));
            for n in 0..3 {
                assert_eq!(queue.try_push(9), Err(TryPushError::Full(9)));
                assert_eq!(pop.pop(&queue), Ok(n));
            }
            queue.try_push(4).unwrap();
            thread::scope(|scope| {
                let pushers = [5, 6].map(|n| {
                    scope.spawn({
                        let queue = &queue;
                        move || push.push(queue, n)
                    })
                });
                producers_waiting(&queue, 2);
                queue.set_capacity(4);
                pushers.into_iter().for_each(|pusher| pusher.join().unwrap().unwrap());
            });
            assert_eq!(queue.depth(), 4);
        }
    });
}

#[test]
fn q10_a_closed_empty_queue_refuses_everything_in_every_form() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            queue.close();
            assert_eq!(push.push(&queue, 1), Err(PushError(1)));
            assert_eq!(queue.try_push(1), Err(TryPushError::Closed(1)));
            assert_eq!(queue.push_timeout(1, A_MOMENT), Err(PushTimeoutError::Closed(1)));
            let mut buffer = VecDeque::from([1, 2]);
            assert_eq!(push.push_batch(&queue, &mut buffer), Err(Closed));
            assert_eq!(queue.try_push_batch(&mut buffer), Err(Closed));
            assert_eq!(buffer, [1, 2]);
            refuses_all_pops(&queue, pop);
        }
    });
}

fn refuses_all_pops(queue: &Queue<i32>, pop: End) {
    let mut buffer = VecDeque::new();
    assert_eq!(pop.pop(queue), Err(PopError::Closed));
    assert_eq!(queue.try_pop(), Err(TryPopError::Closed));
    assert_eq!(queue.pop_timeout(A_MOMENT), Err(PopTimeoutError::Closed));
    assert_eq!(pop.pop_batch(queue, &mut buffer, 8), Err(Closed));
    assert_eq!(queue.try_pop_batch(&mut buffer, 8), Err(Closed));
    assert_eq!(queue.pop_batch_timeout(&mut buffer, 8, A_MOMENT), Err(PopTimeoutError::Closed));
    assert_eq!(pop.take(queue).unwrap_err(), PopError::Closed);
    assert_eq!(queue.try_take().unwrap_err(), TryPopError::Closed);
    assert_eq!(queue.take_timeout(A_MOMENT).unwrap_err(), PopTimeoutError::Closed);
}

#[test]
fn q11_a_closed_queue_refuses_pushes_and_delivers_what_is_left() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(4);
            queue.push_batch(&mut (0..3).collect()).unwrap();
            queue.close();
            assert_eq!(push.push(&queue, 9), Err(PushError(9)));
            assert_eq!(Vec::from_iter((0..3).map(|_| pop.pop(&queue).unwrap())), [0, 1, 2]);
            refuses_all_pops(&queue, pop);
        }
    });
}

#[test]
fn q12_close_now_gives_the_content_out_and_join_waits_for_what_was_taken() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(4);
            (0..3).for_each(|n| push.push(&queue, n).unwrap());
            let taken = pop.take(&queue).unwrap();
            thread::scope(|scope| {
                let joiner = scope.spawn(|| pop.join(&queue));
                joiners_waiting(&queue, 1);
                assert_eq!(queue.close_now(), [1, 2]);
                assert_eq!(queue.stats().waiting_joiners, 1, "one item is still in flight");
                refuses_all_pops(&queue, pop);
                drop(taken);
                joiner.join().unwrap();
            });
        }
    });
}

#[test]
fn q12_close_now_wakes_a_joiner_when_nothing_was_taken() {
    watched(|watch| {
        for (_, joining) in FRONTS {
            let queue = watch.queue(4);
            queue.push(1).unwrap();
            thread::scope(|scope| {
                let joiner = scope.spawn(|| joining.join(&queue));
                joiners_waiting(&queue, 1);
                assert_eq!(queue.close_now(), [1]);
                joiner.join().unwrap();
            });
        }
    });
}

#[test]
fn q13_states_only_go_forward_and_repeating_is_harmless() {
    watched(|watch| {
        let queue = watch.queue(4);
        queue.push_batch(&mut (0..2).collect()).unwrap();
        assert!(!queue.is_closed());
        queue.close();
        queue.close();
        assert!(queue.is_closed());
        assert_eq!(queue.pop(), Ok(0), "closing twice still delivers");
        assert_eq!(queue.close_now(), [1]);
        assert_eq!(queue.close_now(), []);
        queue.close();
        drop(queue.producer());
        assert!(queue.hold().is_none(), "closed now, and not merely closed");
        assert_eq!(queue.pop(), Err(PopError::Closed));
    });
}

#[test]
fn q14_closing_wakes_every_waiting_consumer() {
    watched(|watch| {
        for now in [false, true] {
            let queue = watch.queue::<u8>(1);
            thread::scope(|scope| {
                let consumers: Vec<_> = (0..6)
                    .map(|n| {
                        let end = [End::Waiting, End::Async][n % 2];
                        scope.spawn({
                            let queue = &queue;
                            move || end.pop(queue)
                        })
                    })
                    .collect();
                consumers_waiting(&queue, 6);
                if now {
                    drop(queue.close_now())
                } else {
                    queue.close()
                }
                for consumer in consumers {
                    assert_eq!(consumer.join().unwrap(), Err(PopError::Closed));
                }
            });
        }
    });
}

#[test]
fn q14_closing_wakes_every_waiting_pusher_and_hands_the_items_back() {
    watched(|watch| {
        for now in [false, true] {
            let queue = watch.queue(1);
            queue.push(99).unwrap();
            thread::scope(|scope| {
                let pushers: Vec<_> = (0..6)
                    .map(|n| {
                        let end = [End::Waiting, End::Async][n % 2];
                        scope.spawn({
                            let queue = &queue;
                            move || end.push(queue, n)
                        })
                    })
                    .collect();
                let batch = scope.spawn(|| {
                    let mut buffer = VecDeque::from([7, 8]);
                    (queue.push_batch(&mut buffer), buffer)
                });
                producers_waiting(&queue, 7);
                if now {
                    drop(queue.close_now())
                } else {
                    queue.close()
                }
                for (n, pusher) in pushers.into_iter().enumerate() {
                    assert_eq!(pusher.join().unwrap(), Err(PushError(n)));
                }
                assert_eq!(batch.join().unwrap(), (Err(Closed), VecDeque::from([7, 8])));
            });
        }
    });
}

#[test]
fn q14_a_close_at_any_moment_leaves_nobody_waiting() {
    watched(|watch| {
        for round in 0..2_000 {
            let queue = watch.queue(1);
            let (push, pop) = FRONTS[round % 4];
            thread::scope(|scope| {
                scope.spawn(|| while push.push(&queue, 1).is_ok() {});
                scope.spawn(|| while pop.pop(&queue).is_ok() {});
                if round % 8 < 4 { queue.close() } else { drop(queue.close_now()) }
            });
        }
    });
}

#[test]
fn q15_many_threads_and_a_close_in_mid_flow_lose_and_double_nothing() {
    const ITEMS: usize = 65_536;
    watched(|watch| {
        for (now, (push, pop)) in [false, true].into_iter().flat_map(|now| FRONTS.map(|f| (now, f)))
        {
            let queue = watch.queue(64);
            let seen: Vec<AtomicUsize> = (0..ITEMS).map(|_| AtomicUsize::new(0)).collect();
            let see = |n: usize| {
                seen[n].fetch_add(1, Ordering::Relaxed);
            };
            let ends = AtomicUsize::new(0);
            thread::scope(|scope| {
                for start in 0..4 {
                    let (queue, see) = (&queue, &see);
                    scope.spawn(move || {
                        for n in (start..ITEMS).step_by(4) {
                            if let Err(PushError(refused)) = push.push(queue, n) {
                                see(refused);
                            }
                        }
                    });
                }
                for _ in 0..6 {
                    scope.spawn(|| {
                        while let Ok(item) = pop.take(&queue) {
                            see(*item);
                        }
                        ends.fetch_add(1, Ordering::Relaxed);
                    });
                }
                for _ in 0..2 {
                    scope.spawn(|| pop.join(&queue));
                }
                while queue.stats().popped < ITEMS as u64 / 2 {
                    thread::yield_now();
                }
                if now {
                    queue.close_now().into_iter().for_each(see);
                } else {
                    queue.close();
                }
            });
            assert_eq!(ends.into_inner(), 6, "each consumer is told the end once");
            assert!(seen.iter().all(|count| count.load(Ordering::Relaxed) == 1));
        }
    });
}

/// Counts how many exist.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(alive))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn q16_the_queue_keeps_no_item_that_was_popped_refused_or_cancelled() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let alive = Arc::new(AtomicUsize::new(0));
            let is_alive = |count| assert_eq!(alive.load(Ordering::SeqCst), count);
            let queue = watch.queue(2);
            push.push(&queue, Counted::new(&alive)).unwrap();
            push.push(&queue, Counted::new(&alive)).unwrap();

            let mut cancelled = queue.push_async(Counted::new(&alive));
            assert!(poll_once(&mut cancelled).is_pending());
            is_alive(3);
            drop(cancelled);
            is_alive(2);

            drop(pop.pop(&queue).unwrap());
            is_alive(1);
            drop(pop.take(&queue).unwrap());
            is_alive(0);

            push.push(&queue, Counted::new(&alive)).unwrap();
            drop(queue.close_now());
            is_alive(0);
            drop(push.push(&queue, Counted::new(&alive)));
            is_alive(0);
        }
    });
}

#[test]
fn q16_the_last_handle_drops_what_was_left_inside() {
    let alive = Arc::new(AtomicUsize::new(0));
    let queue = Queue::bounded(2);
    queue.push(Counted::new(&alive)).unwrap();
    drop(queue);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

/// Pushes to its own queue when it is dropped, and looks at it.
struct Echo(Option<Queue<Echo>>);

impl Drop for Echo {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            assert!(queue.depth() <= queue.capacity());
            let _full_or_closed = queue.try_push(Echo(None));
        }
    }
}

#[test]
fn q16_an_item_may_use_its_queue_while_it_is_dropped() {
    watched(|watch| {
        let queue = watch.queue(2);
        let echo = || Echo(Some(queue.clone()));

        queue.try_push(echo()).unwrap();
        drop(queue.pop());
        assert_eq!(queue.depth(), 1);

        drop(queue.pop());
        queue.try_push(echo()).unwrap();
        queue.try_push(echo()).unwrap();
        drop(queue.try_push(echo()));
        drop(queue.push_async(echo()));
        let mut waiting = queue.push_async(echo());
        assert!(poll_once(&mut waiting).is_pending());
        drop(waiting);

        let mut buffer = VecDeque::new();
        assert_eq!(queue.pop_batch(&mut buffer, 1), Ok(1));
        buffer.clear();
        drop(queue.take().unwrap());
        drop(queue.close_now());
        assert!(queue.is_empty());
    });
}

#[test]
fn q16_a_panic_in_an_items_drop_leaves_the_queue_usable() {
    struct Grenade(bool);
    impl Drop for Grenade {
        fn drop(&mut self) {
            assert!(!self.0, "a drop that fails, on purpose");
        }
    }
    watched(|watch| {
        let queue = watch.queue(2);
        queue.try_push(Grenade(true)).map_err(drop).unwrap();
        thread::spawn({
            let queue = queue.clone();
            move || drop(queue.take())
        })
        .join()
        .unwrap_err();
        queue.join(); // the unwinding answered it
        queue.try_push(Grenade(false)).map_err(drop).unwrap();
        assert!(queue.pop().is_ok());
    });
}
