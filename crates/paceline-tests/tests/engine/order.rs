//! Order, fan-out and fan-in, alone and together.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use paceline::{Halt, Pipeline, Retry, Stop, StopLevel};

use paceline_tests::{Gate, Given, assert_conserved, millis, watched};

/// Takes a while that differs from item to item.
fn dawdle(n: u64) {
    (0..n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59).for_each(|_| std::thread::yield_now());
}

#[test]
fn order_holds_through_failures_retries_fan_out_and_fan_in() {
    watched(|| {
        for workers in [1, 2, 4] {
            let flaky = AtomicU64::new(0);
            let (values, summary) = Pipeline::from_iter(0..600_u64)
                .blocking("split", |n| {
                    dawdle(n);
                    if n % 7 == 3 {
                        Err("seven".into())
                    } else {
                        Given::Ok((0..n % 4).map(move |part| 10 * n + part))
                    }
                })
                .workers(workers)
                .queue(5)
                .fan_out()
                .io("look", |n| {
                    let fails = flaky.fetch_add(1, Ordering::Relaxed).is_multiple_of(3);
                    async move {
                        if fails {
                            return Err("flaky".into());
                        }
                        tokio::task::yield_now().await;
                        Given::Ok(n)
                    }
                })
                .workers(4 * workers)
                .queue(3)
                .retry(Retry::times(1_000).backoff(Duration::from_micros(10)))
                .fan_in(5, None)
                .cpu("batch", |batch: Vec<u64>| {
                    dawdle(batch[0]);
                    Given::Ok(batch)
                })
                .workers(workers)
                .queue(2)
                .fan_out()
                .blocking("last", |n| {
                    dawdle(n);
                    Given::Ok(n)
                })
                .workers(workers)
                .ordered()
                .collect()
                .unwrap();
            assert_conserved(&summary);
            let expected = (0..600_u64)
                .filter(|n| n % 7 != 3)
                .flat_map(|n| (0..n % 4).map(move |part| 10 * n + part));
            assert!(values.into_iter().eq(expected), "with {workers} workers");
            assert_eq!(summary.failed, 86);
        }
    });
}

#[test]
fn outcomes_come_in_order_with_the_failures_in_their_places() {
    watched(|| {
        let (outcomes, _) = Pipeline::from_iter(0..500_u64)
            .blocking("first", |n| {
                dawdle(n);
                if n % 5 == 0 { Err("five".into()) } else { Given::Ok(n) }
            })
            .workers(4)
            .blocking("second", |n| {
                dawdle(n + 1);
                if n % 7 == 0 { Err("seven".into()) } else { Given::Ok(n) }
            })
            .workers(3)
            .ordered()
            .outcomes()
            .unwrap();
        assert_eq!(outcomes.len(), 500);
        for (outcome, n) in outcomes.into_iter().zip(0..) {
            match outcome {
                Ok(value) => assert_eq!(value, n),
                Err(failure) => {
                    assert_eq!(failure.item().sequence_numbers(), [n + 1]);
                    assert_eq!(failure.stage(), if n % 5 == 0 { "first" } else { "second" });
                }
            }
        }
    });
}

#[test]
fn batches_of_batches_pass_an_ordered_stage() {
    watched(|| {
        let (sizes, summary) = Pipeline::from_iter(0..25_000_u64)
            .fan_in(100, None)
            .fan_in(100, None)
            .cpu("count", |batch: Vec<Vec<u64>>| {
                Given::Ok(batch.iter().map(Vec::len).sum::<usize>())
            })
            .ordered()
            .collect()
            .unwrap();
        assert_eq!(sizes, [10_000, 10_000, 5_000]);
        assert_eq!(summary.ok, 25_000);
    });
}

#[test]
fn a_failure_of_a_batch_is_a_failure_of_all_its_items() {
    watched(|| {
        let (_, summary) =
            Pipeline::from_iter(0..10_u64)
                .fan_in(4, None)
                .cpu("sum", |batch: Vec<u64>| {
                    if batch[0] == 4 { Err("second batch".into()) } else { Given::Ok(batch) }
                })
                .collect()
                .unwrap();
        assert_conserved(&summary);
        assert_eq!((summary.ok, summary.failed), (6, 4));
        assert_eq!(summary.failures[0].item().sequence_numbers(), [5, 6, 7, 8]);
        assert_eq!(summary.failures[0].to_string(), "items 5, 6, 7, 8 failed in stage `sum`");
    });
}

#[test]
fn a_batch_goes_on_at_its_age_though_items_keep_coming() {
    watched(|| {
        let stop = Stop::new();
        let seen = stop.clone();
        let summary = Pipeline::from_iter(0_u64..)
            .fan_in(usize::MAX, Some(millis(2)))
            .cpu("seen", move |_: Vec<u64>| {
                seen.drain();
                Given::Ok(())
            })
            .stop(&stop)
            .run()
            .unwrap();
        assert_conserved(&summary);
        assert_eq!(summary.unfinished, 0);
    });
}

#[test]
fn a_batch_that_waits_goes_on_when_nothing_comes() {
    watched(|| {
        let gate = Gate::default();
        let arrived = gate.clone();
        // The second item comes only when the batch with the first has passed.
        let items = (0..2).inspect(|&n| {
            if n == 1 {
                gate.wait();
            }
        });
        let (sizes, _) = Pipeline::from_iter(items)
            .fan_in(10, Some(millis(1)))
            .cpu("count", |batch: Vec<i32>| {
                arrived.open();
                Given::Ok(batch.len())
            })
            .collect()
            .unwrap();
        assert_eq!(sizes, [1, 1]);
    });
}

#[test]
fn an_endless_fan_out_ends_with_the_run() {
    watched(|| {
        for level in [StopLevel::Halt, StopLevel::Cancel, StopLevel::Kill] {
            let stop = Stop::new();
            let seen = stop.clone();
            let summary = Pipeline::from_iter(0..3_u64)
                .cpu("endless", |n| Given::Ok(n..))
                .fan_out()
                .cpu("take", move |n| {
                    if n == 1_000 {
                        seen.rise(level);
                    }
                    Given::Ok(())
                })
                .stop(&stop)
                .run()
                .unwrap();
            assert_conserved(&summary);
            assert_eq!(summary.ok, 0);
        }
    });
}

#[test]
fn an_item_of_which_nothing_is_left_is_ok() {
    watched(|| {
        let (values, summary) = Pipeline::from_iter(0..1_000_u64)
            .cpu("nothing", |_| Given::Ok(None::<u64>))
            .fan_out()
            .fan_in(10, None)
            .cpu("never", Given::Ok)
            .ordered()
            .collect()
            .unwrap();
        assert!(values.is_empty());
        assert_eq!((summary.ok, summary.stages[2].fed), (1_000, 0));
    });
}

#[test]
fn a_halt_with_an_ordered_stage_keeps_the_account() {
    watched(|| {
        for halt in [Halt::soon(), Halt::now()] {
            for at in [1, 10, 60, 150] {
                let gate = Arc::new(Gate::default());
                let head = gate.clone();
                let (values, summary) = Pipeline::from_iter(0..500_u64)
                    .blocking("work", move |n| {
                        if n == 0 {
                            head.wait();
                        }
                        if n == at {
                            gate.open();
                            return Err("stop here".into());
                        }
                        Given::Ok(n)
                    })
                    .workers(4)
                    .ordered()
                    .blocking("after", |n| {
                        dawdle(n);
                        Given::Ok(n)
                    })
                    .workers(2)
                    .ordered()
                    .halt(halt)
                    .collect()
                    .unwrap();
                assert_conserved(&summary);
                assert!(values.is_sorted());
            }
        }
    });
}
