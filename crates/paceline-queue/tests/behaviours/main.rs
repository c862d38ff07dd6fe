//! The behaviours demanded of the queue, one test a row, on every pairing of
//! waiting and async ends where the row allows it.
#![cfg(not(loom))]

mod ends;
mod watchdog;

use std::thread;

use ends::{FRONTS, consumers_waiting, producers_waiting};
use paceline_queue::{PopError, PushError, TryPopError, TryPushError};
use watchdog::watched;

#[test]
fn q01_items_come_out_in_the_order_they_went_in() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(8);
            for _ in 0..3 {
                (0..5).for_each(|n| push.push(&queue, n).unwrap());
                assert_eq!(
                    Vec::from_iter((0..5).map(|_| pop.pop(&queue).unwrap())),
                    [0, 1, 2, 3, 4]
                );
                assert!(queue.is_empty(), "the same queue is usable after being emptied");
            }
        }
    });
}

#[test]
fn q03_a_waiting_pop_proceeds_on_the_next_push() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            assert_eq!(queue.try_pop(), Err(TryPopError::Empty));
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
fn q10_a_closed_empty_queue_refuses_everything() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            queue.push('a').unwrap();
            thread::scope(|scope| {
                let pusher = scope.spawn(|| push.push(&queue, 'b'));
                producers_waiting(&queue, 1);
                queue.close();
                assert_eq!(pusher.join().unwrap(), Err(PushError('b')));
            });
            assert_eq!(pop.pop(&queue), Ok('a'));
            assert_eq!(pop.pop(&queue), Err(PopError::Closed));
            assert_eq!(queue.try_push('c'), Err(TryPushError::Closed('c')));
        }
    });
}
