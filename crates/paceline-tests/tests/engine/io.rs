//! The many workers of an `io` stage, which share a loop on each event loop:
//! what they hold, which slots they have, and what they say of their waits.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use paceline::{Clock, Pipeline, Retry};
use paceline_tests::{Gate, Given, Peak, assert_conserved, block_for, millis, until, watched};

#[test]
fn no_more_items_are_in_hand_than_there_are_workers_and_places() {
    watched(|| {
        let between = Peak::default();
        let inside = Mutex::new(Vec::new());
        let summary = Pipeline::from_iter(0..3_000_u64)
            .io("many", |n| {
                inside.lock().unwrap().push(between.enter());
                async move { Given::Ok(n) }
            })
            .workers(10)
            .queue(3)
            .blocking("one", |_| {
                drop(inside.lock().unwrap().pop());
                Given::Ok(())
            })
            .workers(1)
            .queue(2)
            .run()
            .unwrap();
        assert_conserved(&summary);
        // One is in the hand of the second stage before it is counted there.
        assert!(between.most() <= 10 + 2 + 1, "{}", between.most());
    });
}

#[test]
fn attempts_go_on_while_answers_wait_for_room() {
    watched(|| {
        let gate = Gate::default();
        let (hold, begun) = (gate.clone(), Arc::new(AtomicUsize::new(0)));
        let count = begun.clone();
        let running = Pipeline::from_iter(0..100_u64)
            .io("many", move |n| {
                count.fetch_add(1, Ordering::SeqCst);
                async move { Given::Ok(n) }
            })
            .workers(20)
            .queue(1)
            .blocking("held", move |_| {
                hold.wait();
                Given::Ok(())
            })
            .workers(1)
            .queue(1)
            .discard()
            .start()
            .unwrap();
        // One in hand there, one before it, and one with each worker here.
        until("all workers have an answer", || begun.load(Ordering::SeqCst) == 22);
        gate.open();
        assert_eq!(running.join().unwrap().ok, 100);
    });
}

#[test]
fn no_two_attempts_at_once_have_the_same_slot_while_the_number_of_workers_changes() {
    watched(|| {
        let in_use = Mutex::new(HashSet::new());
        let most = AtomicUsize::new(0);
        let pipeline = Pipeline::from_iter(0..6_000_u64);
        let monitor = pipeline.monitor();
        let summary = pipeline
            .io_with("many", |n, attempt| {
                if n % 200 == 0 {
                    monitor.set_workers("many", 1 + (n as usize / 200 * 7) % 40);
                }
                let slot = attempt.slot();
                let (in_use, most) = (&in_use, &most);
                async move {
                    assert!(in_use.lock().unwrap().insert(slot), "slot {slot} twice");
                    most.fetch_max(slot, Ordering::Relaxed);
                    for _ in 0..n % 5 {
                        tokio::task::yield_now().await;
                    }
                    assert!(in_use.lock().unwrap().remove(&slot));
                    if n % 11 == 0 && attempt.number() == 1 {
                        return Err("again".into());
                    }
                    Given::Ok(())
                }
            })
            .workers(40)
            .retry(Retry::times(2))
            .run()
            .unwrap();
        assert_conserved(&summary);
        assert!(summary.is_complete(), "{:?}", summary.failures);
        assert!(most.into_inner() <= 40);
    });
}

#[test]
fn each_worker_that_waits_counts_for_as_long_as_it_does() {
    watched(|| {
        let clock = Clock::manual();
        let (item, room) = (Gate::default(), Gate::default());
        let (wait_for_item, wait_for_room) = (item.clone(), room.clone());
        let running = Pipeline::from_iter((0..50_u64).inspect(move |_| wait_for_item.wait()))
            .io("many", |n| async move { Given::Ok(n) })
            .workers(4)
            .queue(1)
            .blocking("held", move |_| {
                wait_for_room.wait();
                Given::Ok(())
            })
            .workers(1)
            .queue(1)
            .clock(&clock)
            .discard();
        let monitor = running.monitor();
        let running = running.start().unwrap();
        // By the first of these steps at the latest they wait.
        let pass = || {
            for _ in 0..10 {
                clock.advance(millis(1_000));
                block_for(millis(2));
            }
        };
        pass();
        item.open();
        let answered = || monitor.progress().stages.first().map_or(0, |stage| stage.ok);
        until("all workers have an answer", || answered() == 6);
        pass();
        room.open();
        let summary = running.join().unwrap();
        let stage = &summary.stages[0];
        assert_eq!(summary.ok, 50);
        for (waited, what) in [(stage.starved, "items"), (stage.blocked, "room")] {
            assert!(waited >= millis(4_000), "{waited:?} for {what}");
            assert!(waited <= millis(4 * 21_000), "{waited:?} for {what}");
        }
    });
}
