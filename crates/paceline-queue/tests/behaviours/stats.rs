//! What the queue counts, and what it shows.

use std::thread;
use std::time::Duration;

use crate::ends::{FRONTS, consumers_waiting, producers_waiting};
use crate::watchdog::watched;

#[test]
fn nothing_is_lost_between_the_counts() {
    watched(|watch| {
        let queue = watch.queue(4);
        queue.push_batch(&mut (0..4).collect()).unwrap();
        let item = queue.pop().unwrap();
        queue.hold().unwrap().put_back(item).unwrap();
        queue.take().unwrap();
        let left = queue.close_now().len() as u64;

        let stats = queue.stats();
        assert_eq!((stats.pushed, stats.popped), (4, 2));
        assert_eq!((stats.put_back, stats.discarded), (1, left));
        assert_eq!((stats.depth, stats.high_water, stats.capacity), (0, 4, 4));
        assert_eq!((stats.in_flight, stats.on_hold), (0, 0));
    });
}

#[test]
fn time_waited_grows_while_someone_waits_and_stays_when_the_wait_is_over() {
    watched(|watch| {
        for (push, pop) in FRONTS {
            let queue = watch.queue(1);
            thread::scope(|scope| {
                scope.spawn(|| pop.pop(&queue).unwrap());
                consumers_waiting(&queue, 1);
                let first = queue.stats().waited_on_empty;
                while queue.stats().waited_on_empty == first {
                    thread::yield_now();
                }
                push.push(&queue, 1).unwrap();
            });
            let waited = queue.stats().waited_on_empty;
            assert!(waited > Duration::ZERO);
            assert_eq!(queue.stats().waited_on_empty, waited);

            push.push(&queue, 2).unwrap();
            assert_eq!(queue.stats().waited_on_full, Duration::ZERO, "nobody had to wait yet");
            thread::scope(|scope| {
                scope.spawn(|| push.push(&queue, 3).unwrap());
                producers_waiting(&queue, 1);
                pop.pop(&queue).unwrap();
            });
            assert!(queue.stats().waited_on_full > Duration::ZERO);
        }
    });
}

#[test]
fn debug_shows_the_state_and_not_the_items() {
    let queue = paceline_queue::Queue::bounded(3);
    queue.push("secret").unwrap();
    queue.close();
    let shown = format!("{queue:?}");
    assert!(shown.contains("Closed") && shown.contains("depth: 1"), "{shown}");
    assert!(shown.contains("capacity: 3") && !shown.contains("secret"), "{shown}");
}
