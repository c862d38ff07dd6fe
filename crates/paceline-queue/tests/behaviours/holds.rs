//! Items that were popped and may come back.

use std::thread;

use paceline_queue::{PopError, PutBackError, TryPopError, TryPushError};

use crate::ends::{FRONTS, consumers_waiting, joiners_waiting, producers_waiting};
use crate::watchdog::watched;

#[test]
fn an_item_put_back_is_the_next_one_popped() {
    watched(|watch| {
        let queue = watch.queue(3);
        queue.push_batch(&mut (1..=3).collect()).unwrap();
        let first = queue.pop().unwrap();
        queue.hold().unwrap().put_back(first).unwrap();
        assert_eq!(queue.close_now(), [1, 2, 3]);
    });
}

#[test]
fn a_hold_occupies_a_slot_and_gives_it_up_when_dropped() {
    watched(|watch| {
        for (push, _) in FRONTS {
            let queue = watch.queue(2);
            let (first, second) = (queue.hold().unwrap(), queue.hold().unwrap());
            assert!(queue.hold().is_none(), "no more holds than the capacity");
            assert_eq!(queue.try_push('a'), Err(TryPushError::Full('a')));
            thread::scope(|scope| {
                let pusher = scope.spawn(|| push.push(&queue, 'a'));
                producers_waiting(&queue, 1);
                drop(first);
                pusher.join().unwrap().unwrap();
            });
            assert_eq!(queue.try_push('b'), Err(TryPushError::Full('b')));
            drop(second);
            queue.try_push('b').unwrap();
        }
    });
}

#[test]
fn an_item_can_be_put_back_into_a_full_queue() {
    watched(|watch| {
        let queue = watch.queue(2);
        queue.push_batch(&mut (1..=2).collect()).unwrap();
        let hold = queue.hold().unwrap();
        hold.put_back(0).unwrap();
        assert_eq!(queue.depth(), 3);
        assert_eq!(queue.try_push(9), Err(TryPushError::Full(9)));
        assert_eq!(queue.close_now(), [0, 1, 2]);
    });
}

#[test]
fn a_closed_empty_queue_does_not_end_while_a_hold_exists() {
    watched(|watch| {
        for (_, pop) in FRONTS {
            let queue = watch.queue(2);
            queue.push('a').unwrap();
            queue.close();
            let item = pop.pop(&queue).unwrap();
            let hold = queue.hold().unwrap();
            assert_eq!(queue.try_pop(), Err(TryPopError::Empty));
            thread::scope(|scope| {
                let consumers = [(); 2].map(|()| scope.spawn(|| pop.pop(&queue)));
                consumers_waiting(&queue, 2);
                hold.put_back(item).unwrap();
                let mut popped = consumers.map(|consumer| consumer.join().unwrap());
                popped.sort_by_key(Result::is_err);
                assert_eq!(popped, [Ok('a'), Err(PopError::Closed)]);
            });
        }
    });
}

#[test]
fn dropping_the_last_hold_tells_every_consumer_the_end() {
    watched(|watch| {
        for (_, pop) in FRONTS {
            let queue = watch.queue::<char>(2);
            queue.close();
            let holds = (queue.hold().unwrap(), queue.hold().unwrap());
            thread::scope(|scope| {
                let consumers = [(); 3].map(|()| scope.spawn(|| pop.pop(&queue)));
                consumers_waiting(&queue, 3);
                drop(holds.0);
                assert_eq!(queue.waiting_consumers(), 3);
                drop(holds.1);
                for consumer in consumers {
                    assert_eq!(consumer.join().unwrap(), Err(PopError::Closed));
                }
            });
        }
    });
}

#[test]
fn nothing_can_be_put_back_after_close_now() {
    watched(|watch| {
        let queue = watch.queue(2);
        let hold = queue.hold().unwrap();
        assert_eq!(queue.close_now(), []);
        assert_eq!(queue.pop(), Err(PopError::Closed), "a hold does not keep this end back");
        assert_eq!(hold.put_back('a'), Err(PutBackError('a')));
        assert!(queue.hold().is_none());
        queue.join();
    });
}

#[test]
fn join_waits_for_an_item_on_hold() {
    watched(|watch| {
        for (_, end) in FRONTS {
            let queue = watch.queue(1);
            queue.push('a').unwrap();
            let hold = queue.hold().unwrap();
            let item = end.pop(&queue).unwrap();
            thread::scope(|scope| {
                let joiner = scope.spawn(|| end.join(&queue));
                joiners_waiting(&queue, 1);
                hold.put_back(item).unwrap();
                assert_eq!(queue.stats().waiting_joiners, 1);
                end.pop(&queue).unwrap();
                joiner.join().unwrap();
            });
        }
    });
}

#[test]
fn a_batch_waiting_beside_holds_is_woken_though_half_the_room_never_comes() {
    watched(|watch| {
        let queue = watch.queue(4);
        let _holds = [(); 3].map(|()| queue.hold().unwrap());
        thread::scope(|scope| {
            scope.spawn(|| queue.push_batch(&mut (0..3).collect()).unwrap());
            assert_eq!([(); 3].map(|()| queue.pop().unwrap()), [0, 1, 2]);
        });
    });
}
