//! Polls that hold up an event loop are told of, while they do and after.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use paceline::{BoxError, Clock, ErrorKind, ItemId, Observer, Pipeline};

use paceline_tests::{Gate, block_for, millis, until, watched};

/// What an observer was told: item, stage, time.
type Told = Vec<(Vec<u64>, String, Duration)>;

/// Keeps what it is told, and opens its gate at the first poll that is stuck.
#[derive(Default)]
struct Witness {
    stuck: Mutex<Told>,
    slow: Mutex<Told>,
    seen: Gate,
}

impl Witness {
    fn stuck(&self) -> Told {
        self.stuck.lock().unwrap().clone()
    }

    fn slow(&self) -> Told {
        self.slow.lock().unwrap().clone()
    }
}

impl Observer for Witness {
    fn stuck_poll(&self, item: &ItemId, stage: &str, so_far: Duration) {
        self.stuck.lock().unwrap().push((item.sequence_numbers(), stage.to_owned(), so_far));
        self.seen.open();
    }

    fn slow_poll(&self, item: &ItemId, stage: &str, took: Duration) {
        self.slow.lock().unwrap().push((item.sequence_numbers(), stage.to_owned(), took));
    }
}

#[test]
fn r63_1_a_poll_of_half_a_second_is_told_of_once_with_its_stage_item_and_time() {
    watched(|| {
        let witness = Arc::new(Witness::default());
        let summary = Pipeline::from_iter(1..=5)
            .io("fetch", |n: u32| async move {
                if n == 3 {
                    block_for(millis(500));
                }
                Ok::<_, BoxError>(())
            })
            .observer(witness.clone())
            .run()
            .unwrap();
        let slow = witness.slow();
        let [(item, stage, took)] = &slow[..] else { panic!("one report: {slow:?}") };
        assert_eq!((&item[..], stage.as_str()), (&[3][..], "fetch"));
        assert!((millis(400)..=millis(600)).contains(took), "{took:?}");
        assert_eq!(witness.stuck().len(), 1, "told once while it went on: {:?}", witness.stuck());
        assert_eq!(summary.stages[0].slow_polls, 1);
    });
}

#[test]
fn r63_1_ten_polls_of_20_ms_give_no_report() {
    watched(|| {
        let witness = Arc::new(Witness::default());
        let summary = Pipeline::from_iter([()])
            .io("steps", |()| async {
                for _ in 0..10 {
                    block_for(millis(20));
                    tokio::task::yield_now().await;
                }
                Ok::<_, BoxError>(())
            })
            .observer(witness.clone())
            .run()
            .unwrap();
        assert!(summary.stages[0].cpu >= millis(200), "it did spend its time in polls");
        assert_eq!((witness.slow(), witness.stuck()), (vec![], vec![]));
        assert!(summary.longest_poll.is_none());
    });
}

#[test]
fn r63_2_a_stuck_poll_is_told_of_while_it_is_stuck() {
    watched(|| {
        let witness = Arc::new(Witness::default());
        let seen = witness.seen.clone();
        // The future comes back only when the report has come: without one this would hang.
        Pipeline::from_iter(1..=3)
            .io("stuck", move |n: u32| {
                let seen = seen.clone();
                async move {
                    if n == 2 {
                        seen.wait();
                    }
                    Ok::<_, BoxError>(())
                }
            })
            .observer(witness.clone())
            .run()
            .unwrap();
        let stuck = witness.stuck();
        assert_eq!((&stuck[0].0[..], stuck[0].1.as_str(), stuck.len()), (&[2][..], "stuck", 1));
        assert!((millis(100)..millis(200)).contains(&stuck[0].2), "{stuck:?}");
    });
}

#[test]
fn r63_2_a_poll_that_gets_stuck_after_a_long_rest_is_seen_too() {
    watched(|| {
        let (clock, witness) = (Clock::manual(), Arc::new(Witness::default()));
        let (polled, gates) = (Gate::default(), [(); 3].map(|()| Gate::default()));
        let held = gates.clone();
        let inside = polled.clone();
        let running = Pipeline::from_iter(0..3)
            .io("stuck", move |n: usize| {
                let (inside, gate) = (inside.clone(), held[n].clone());
                async move {
                    inside.open();
                    gate.wait();
                    Ok::<_, BoxError>(())
                }
            })
            .workers(1)
            .clock(&clock)
            .watch(millis(100))
            .observer(witness.clone())
            .discard()
            .start()
            .unwrap();
        polled.wait();
        for (number, gate) in gates.iter().enumerate() {
            // Time passes until it is seen, each poll from anew.
            until("the stuck poll is told of", || {
                clock.advance(millis(10));
                witness.stuck().len() > number
            });
            gate.open();
        }
        running.join().unwrap();
        let items: Vec<_> = witness.stuck().into_iter().map(|(item, ..)| item).collect();
        assert_eq!(items, [[1], [2], [3]]);
        assert_eq!(witness.slow().len(), 3);
    });
}

#[test]
fn r63_3_a_watch_that_is_off_tells_nothing() {
    watched(|| {
        let witness = Arc::new(Witness::default());
        let summary = Pipeline::from_iter([()])
            .io("slow", |()| async {
                block_for(millis(250));
                Ok::<_, BoxError>(())
            })
            .watch(None)
            .observer(witness.clone())
            .run()
            .unwrap();
        assert_eq!((witness.slow(), witness.stuck()), (vec![], vec![]));
        assert!(summary.longest_poll.is_none() && summary.stages[0].slow_polls == 0);
    });
}

#[test]
fn r63_3_a_watch_for_polls_of_no_time_is_refused() {
    let pipeline = Pipeline::from_iter([()]).io("any", |()| async { Ok::<_, BoxError>(()) });
    let error = pipeline.watch(Duration::ZERO).run().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn r63_8_the_summary_names_the_longest_poll_and_its_stage() {
    watched(|| {
        // What a function does before it gives its future counts too, observer or not.
        let summary = Pipeline::from_iter([10_u64, 80, 40])
            .io("first", |n| {
                block_for(millis(n));
                async move { Ok::<_, BoxError>(n) }
            })
            .io("second", |n| async move {
                block_for(millis(n / 2));
                Ok::<_, BoxError>(())
            })
            .watch(millis(30))
            .run()
            .unwrap();
        let longest = summary.longest_poll.expect("polls took longer than 30 ms");
        assert_eq!((longest.stage.as_str(), longest.item.sequence_numbers()), ("first", vec![2]));
        assert!(longest.took >= millis(80));
        assert!(summary.stages[0].slow_polls >= 2 && summary.stages[1].slow_polls >= 1);
    });
}

#[test]
fn t80_a_slow_step_that_panics_is_told_of_and_fails_its_item_alone() {
    watched(|| {
        let witness = Arc::new(Witness::default());
        let summary = Pipeline::from_iter([1, 2])
            .io("slow", |n: u32| async move {
                if n == 1 {
                    block_for(millis(150));
                    panic!("on purpose");
                }
                Ok::<_, BoxError>(())
            })
            .observer(witness.clone())
            .run()
            .unwrap();
        assert_eq!((summary.ok, summary.failed), (1, 1));
        assert_eq!(witness.slow().len(), 1);
    });
}
