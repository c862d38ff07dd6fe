//! Short stories of two or three threads, told in every order that matters.
//!
//! Run by `RUSTFLAGS='--cfg loom' cargo test --release -p paceline-queue
//! --test loom`.
#![cfg(loom)]

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::thread;
use paceline_queue::{PopError, PushError, Queue};

/// Explores `story` with at most three preemptions, which finds nearly all
/// that can be found and ends in seconds.
fn in_every_order(story: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(story);
}

fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_item_pushed_wakes_a_consumer_that_is_about_to_wait() {
    in_every_order(|| {
        let queue = Queue::bounded(1);
        let consumer = thread::spawn({
            let queue = queue.clone();
            move || queue.pop()
        });
        queue.push('a').unwrap();
        assert_eq!(consumer.join().unwrap(), Ok('a'));
    });
}

#[test]
fn a_slot_freed_wakes_a_pusher_that_is_about_to_wait() {
    in_every_order(|| {
        let queue = Queue::bounded(1);
        queue.push('a').unwrap();
        let pusher = thread::spawn({
            let queue = queue.clone();
            move || queue.push('b')
        });
        assert_eq!(queue.pop(), Ok('a'));
        assert_eq!(queue.pop(), Ok('b'));
        pusher.join().unwrap().unwrap();
    });
}

#[test]
fn q04_a_push_that_fails_after_it_was_woken_passes_the_slot_on() {
    in_every_order(|| {
        let queue = Queue::bounded(1);
        queue.push('a').unwrap();
        let mut cancelled = queue.push_async('b');
        assert!(poll_once(&mut cancelled).is_pending());
        let pusher = thread::spawn({
            let queue = queue.clone();
            move || queue.push('c')
        });
        let popper = thread::spawn({
            let queue = queue.clone();
            move || queue.pop().unwrap()
        });
        assert_eq!(cancelled.into_item(), Some('b'));
        assert_eq!(popper.join().unwrap(), 'a');
        pusher.join().unwrap().unwrap();
        assert_eq!(queue.close_now(), ['c']);
    });
}

#[test]
fn q14_close_wakes_a_consumer_and_a_pusher() {
    in_every_order(|| {
        let (empty, full) = (Queue::<char>::bounded(1), Queue::bounded(1));
        full.push('a').unwrap();
        let consumer = thread::spawn({
            let empty = empty.clone();
            move || empty.pop()
        });
        let pusher = thread::spawn({
            let full = full.clone();
            move || full.push('b')
        });
        empty.close();
        full.close();
        assert_eq!(consumer.join().unwrap(), Err(PopError::Closed));
        assert_eq!(pusher.join().unwrap(), Err(PushError('b')));
        assert_eq!(full.pop(), Ok('a'));
    });
}

#[test]
fn q14_close_wakes_every_consumer() {
    in_every_order(|| {
        let queue = Queue::<char>::bounded(1);
        let consumer = |queue: Queue<char>| move || queue.pop();
        let first = thread::spawn(consumer(queue.clone()));
        let second = thread::spawn({
            let queue = queue.clone();
            move || block_on(queue.pop_async())
        });
        queue.close();
        assert_eq!(first.join().unwrap(), Err(PopError::Closed));
        assert_eq!(second.join().unwrap(), Err(PopError::Closed));
    });
}

#[test]
fn q18_a_cancelled_consumer_passes_the_item_to_the_other() {
    in_every_order(|| {
        let queue = Queue::bounded(1);
        let mut cancelled = queue.pop_async();
        assert!(poll_once(&mut cancelled).is_pending());
        let other = thread::spawn({
            let queue = queue.clone();
            move || queue.pop()
        });
        let pusher = thread::spawn({
            let queue = queue.clone();
            move || queue.push('a').unwrap()
        });
        drop(cancelled);
        assert_eq!(other.join().unwrap(), Ok('a'));
        pusher.join().unwrap();
    });
}

#[test]
fn q19_an_item_meant_for_a_cancelled_consumer_is_not_lost_and_order_is_kept() {
    in_every_order(|| {
        let queue = Queue::bounded(2);
        let mut chosen = queue.pop_async();
        assert!(poll_once(&mut chosen).is_pending());
        let pusher = thread::spawn({
            let queue = queue.clone();
            move || {
                queue.push(1).unwrap();
                queue.push(2).unwrap();
            }
        });
        drop(chosen);
        assert_eq!(block_on(queue.pop_async()), Ok(1));
        assert_eq!(queue.pop(), Ok(2));
        pusher.join().unwrap();
    });
}

#[test]
fn q20_a_cancelled_push_is_either_in_the_queue_or_with_its_owner() {
    in_every_order(|| {
        let queue = Queue::bounded(1);
        queue.push('a').unwrap();
        let mut push = queue.push_async('b');
        assert!(poll_once(&mut push).is_pending());
        let popper = thread::spawn({
            let queue = queue.clone();
            move || queue.pop().unwrap()
        });
        let pushed = poll_once(&mut push).is_ready();
        assert_eq!(push.into_item().is_none(), pushed);
        assert_eq!(popper.join().unwrap(), 'a');
        assert_eq!(queue.depth(), usize::from(pushed));
    });
}

#[test]
fn close_and_push_cannot_miss_each_other() {
    in_every_order(|| {
        let queue = Queue::bounded(1);
        let pusher = thread::spawn({
            let queue = queue.clone();
            move || queue.push('a')
        });
        let consumer = thread::spawn({
            let queue = queue.clone();
            move || queue.pop()
        });
        queue.close();
        match pusher.join().unwrap() {
            Ok(()) => assert_eq!(consumer.join().unwrap(), Ok('a')),
            Err(PushError('a')) => assert_eq!(consumer.join().unwrap(), Err(PopError::Closed)),
            Err(other) => panic!("{other:?}"),
        }
    });
}

#[test]
fn the_last_producer_closes_the_queue_for_a_waiting_consumer() {
    in_every_order(|| {
        let queue = Queue::bounded(1);
        let producers = [queue.producer(), queue.producer()];
        let threads = producers.map(|producer| thread::spawn(move || drop(producer)));
        assert_eq!(queue.pop(), Err(PopError::Closed));
        for thread in threads {
            thread.join().unwrap();
        }
        let _: Result<(), PushError<char>> = queue.push('a');
    });
}

#[test]
fn a_hold_keeps_the_end_back_until_its_item_was_popped_again() {
    in_every_order(|| {
        let queue = Queue::bounded(1);
        queue.push('a').unwrap();
        queue.close();
        let item = queue.pop().unwrap();
        let hold = queue.hold().unwrap();
        let consumer = thread::spawn({
            let queue = queue.clone();
            move || (queue.pop(), queue.pop())
        });
        hold.put_back(item).unwrap();
        assert_eq!(consumer.join().unwrap(), (Ok('a'), Err(PopError::Closed)));
    });
}

#[test]
fn the_end_of_the_last_hold_wakes_every_consumer() {
    in_every_order(|| {
        let queue = Queue::<char>::bounded(1);
        queue.close();
        let hold = queue.hold().unwrap();
        let consumers =
            [queue.clone(), queue.clone()].map(|queue| thread::spawn(move || queue.pop()));
        drop(hold);
        for consumer in consumers {
            assert_eq!(consumer.join().unwrap(), Err(PopError::Closed));
        }
    });
}

#[test]
fn join_returns_when_the_last_answer_is_given() {
    in_every_order(|| {
        let queue = Queue::bounded(2);
        queue.push('a').unwrap();
        queue.push('b').unwrap();
        let workers = [queue.clone(), queue.clone()]
            .map(|queue| thread::spawn(move || drop(queue.take().unwrap())));
        queue.join();
        let stats = queue.stats();
        assert_eq!((stats.depth, stats.in_flight), (0, 0));
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

#[test]
fn the_last_answer_wakes_every_joiner() {
    in_every_order(|| {
        let queue = Queue::bounded(1);
        queue.push('a').unwrap();
        let (_, answer) = queue.take().unwrap().into_parts();
        let joiner = thread::spawn({
            let queue = queue.clone();
            move || block_on(queue.join_async())
        });
        let other = thread::spawn({
            let queue = queue.clone();
            move || queue.join()
        });
        drop(answer);
        joiner.join().unwrap();
        other.join().unwrap();
    });
}

#[test]
fn a_batch_wakes_no_more_consumers_than_it_must_and_loses_nothing() {
    in_every_order(|| {
        let queue = Queue::bounded(2);
        let consumers = [queue.clone(), queue.clone()].map(|queue| {
            thread::spawn(move || {
                let mut buffer = VecDeque::new();
                while queue.pop_batch(&mut buffer, 2).is_ok() {}
                buffer.len()
            })
        });
        queue.push_batch(&mut VecDeque::from([1, 2, 3])).unwrap();
        queue.close();
        let popped: usize = consumers.map(|consumer| consumer.join().unwrap()).iter().sum();
        assert_eq!(popped, 3);
    });
}
