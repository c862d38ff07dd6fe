//! The demands on queues that stand on their own (item 55).

use std::collections::VecDeque;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use paceline_queue::{
    PopError, PopTimeoutError, PushError, PushTimeoutError, TryPopError, TryPushError,
};

use crate::ends::{FRONTS, consumers_waiting, joiners_waiting, producers_waiting};
use crate::watchdog::watched;

#[test]
fn r55_1_a_consumer_blocks_on_an_empty_queue_and_wakes_on_the_first_push() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            let written = AtomicBool::new(false);
            thread::scope(|scope| {
                let popper = scope.spawn(|| {
                    let item = pop.pop(&queue);
                    (item, written.load(Ordering::Relaxed))
                });
                consumers_waiting(&queue, 1);
                written.store(true, Ordering::Relaxed); // seen because of the push
                push.push(&queue, 'a').unwrap();
                assert_eq!(popper.join().unwrap(), (Ok('a'), true));
            });
        }
    });
}

#[test]
fn r55_2_with_capacity_one_the_second_push_returns_only_after_the_first_pop() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            push.push(&queue, 1).unwrap();
            let popped = AtomicBool::new(false);
            thread::scope(|scope| {
                let pusher = scope.spawn(|| {
                    push.push(&queue, 2).unwrap();
                    assert!(popped.load(Ordering::Relaxed));
                });
                producers_waiting(&queue, 1);
                popped.store(true, Ordering::Relaxed);
                assert_eq!(pop.pop(&queue), Ok(1));
                pusher.join().unwrap();
            });
            assert_eq!(queue.stats().high_water, 1);
        }
    });
}

#[test]
fn r55_3_join_returns_when_the_last_item_is_answered_and_not_before() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(8);
            pop.join(&queue); // never used
            for _ in 0..2 {
                (0..5).for_each(|n| push.push(&queue, n).unwrap());
                let mut taken = Vec::from_iter((0..5).map(|_| pop.take(&queue).unwrap()));
                let last = taken.pop();
                thread::scope(|scope| {
                    let joiners = [(); 3].map(|()| scope.spawn(|| pop.join(&queue)));
                    joiners_waiting(&queue, 3);
                    drop(taken);
                    assert_eq!(queue.stats().waiting_joiners, 3);
                    drop(last);
                    joiners.into_iter().for_each(|joiner| joiner.join().unwrap());
                });
                pop.join(&queue);
            }
        }
    });
}

#[test]
fn r55_4_a_closed_queue_delivers_the_rest_and_then_every_consumer_sees_the_end() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(16);
            (0..10).for_each(|n| push.push(&queue, n).unwrap());
            queue.close();
            assert_eq!(push.push(&queue, 10), Err(PushError(10)));
            let delivered = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..5 {
                    scope.spawn(|| {
                        while pop.pop(&queue).is_ok() {
                            delivered.fetch_add(1, Ordering::Relaxed);
                        }
                        assert_eq!(pop.pop(&queue), Err(PopError::Closed));
                    });
                }
            });
            assert_eq!(delivered.into_inner(), 10);
        }
    });
}

#[test]
fn r55_5_the_queue_closes_by_itself_when_the_last_producer_goes() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(4);
            let producer = queue.producer();
            thread::scope(|scope| {
                let consumers = [(); 4]
                    .map(|()| scope.spawn(|| std::iter::from_fn(|| pop.pop(&queue).ok()).count()));
                for producer in [producer.clone(), producer.clone(), producer] {
                    scope.spawn(move || (0..100).for_each(|n| push.push(&producer, n).unwrap()));
                }
                let popped: usize = consumers.map(|consumer| consumer.join().unwrap()).iter().sum();
                assert_eq!(popped, 300);
            });
        }
    });
}

#[test]
fn r55_5_a_producer_that_panics_counts_as_gone() {
    watched(|watch| {
        let queue = watch.queue::<u8>(1);
        let producer = queue.producer();
        thread::spawn(move || {
            let _producer = producer;
            panic!("a producer that fails, on purpose");
        })
        .join()
        .unwrap_err();
        assert_eq!(queue.pop(), Err(PopError::Closed));
    });
}

#[test]
fn r55_5_a_queue_that_never_had_a_producer_stays_open() {
    watched(|watch| {
        let queue = watch.queue(1);
        drop(queue.clone());
        queue.push('a').unwrap();
        assert!(!queue.is_closed());
    });
}

/// How often the kernel put a thread of this process to sleep so far.
#[cfg(target_os = "linux")]
fn voluntary_switches(thread: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn r55_13_a_waiting_consumer_sleeps_while_nothing_comes_for_it() {
    watched(|watch| {
        let queue = watch.queue::<u8>(1);
        let (tell, told) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                let name = fs::read_link("/proc/thread-self").unwrap();
                tell.send(name.into_os_string().into_string().unwrap()).unwrap();
                assert_eq!(queue.pop(), Err(PopError::Closed));
            });
            let thread = told.recv().unwrap();
            consumers_waiting(&queue, 1);
            let before = voluntary_switches(&thread);
            // Whatever happens that gives it nothing to do must not wake it.
            for n in 1..=2_000 {
                queue.set_capacity(n);
                drop(queue.hold());
                drop(queue.clone());
                assert_eq!(queue.stats().waiting_consumers, 1);
                thread::yield_now();
            }
            // One, if it had not yet fallen asleep when first counted.
            assert!(voluntary_switches(&thread) - before <= 1);
            queue.close();
        });
    });
}

#[test]
fn r55_15_timed_and_try_forms_tell_full_empty_and_closed_apart() {
    watched(|watch| {
        let queue = watch.queue(1);
        let limit = Duration::from_millis(2);
        assert_eq!(queue.try_pop(), Err(TryPopError::Empty));
        assert_eq!(queue.pop_timeout(limit), Err(PopTimeoutError::Timeout));
        assert_eq!(queue.push_timeout(1, limit), Ok(()));
        assert_eq!(queue.try_push(2), Err(TryPushError::Full(2)));
        assert_eq!(queue.push_timeout(2, limit), Err(PushTimeoutError::Timeout(2)));
        assert_eq!(queue.pop_timeout(limit), Ok(1));
        queue.close();
        assert_eq!(queue.try_pop(), Err(TryPopError::Closed));
        assert_eq!(queue.pop_timeout(limit), Err(PopTimeoutError::Closed));
        assert_eq!(queue.try_push(2), Err(TryPushError::Closed(2)));
        assert_eq!(queue.push_timeout(2, limit), Err(PushTimeoutError::Closed(2)));
    });
}

#[test]
fn r55_15_a_timed_wait_ends_early_when_there_is_something_to_do() {
    watched(|watch| {
        let queue = watch.queue(1);
        let long = Duration::from_secs(600); // the watchdog is shorter
        thread::scope(|scope| {
            let popper = scope.spawn(|| queue.pop_timeout(long));
            consumers_waiting(&queue, 1);
            queue.push(1).unwrap();
            assert_eq!(popper.join().unwrap(), Ok(1));

            queue.push(2).unwrap();
            let pusher = scope.spawn(|| queue.push_timeout(3, long));
            producers_waiting(&queue, 1);
            assert_eq!(queue.pop(), Ok(2));
            assert_eq!(pusher.join().unwrap(), Ok(()));

            let joiner = scope.spawn(|| queue.join_timeout(long));
            joiners_waiting(&queue, 1);
            assert_eq!(queue.pop(), Ok(3));
            assert_eq!(joiner.join().unwrap(), Ok(()));
        });
    });
}

#[test]
fn r55_18_the_capacity_changes_while_items_flow_and_none_is_lost() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            let done = AtomicBool::new(false);
            thread::scope(|scope| {
                scope.spawn(|| {
                    for n in 0..3_000 {
                        push.push_batch(&queue, &mut VecDeque::from([n; 3])).unwrap();
                    }
                    queue.close();
                });
                scope.spawn(|| {
                    for n in (1..=32).cycle() {
                        if done.load(Ordering::Relaxed) {
                            break;
                        }
                        queue.set_capacity(n);
                        thread::yield_now();
                    }
                });
                let popped = Vec::from_iter(std::iter::from_fn(|| pop.pop(&queue).ok()));
                done.store(true, Ordering::Relaxed);
                assert!(popped.into_iter().eq((0..3_000).flat_map(|n| [n; 3])));
            });
            assert!(queue.stats().high_water <= 32);
        }
    });
}
