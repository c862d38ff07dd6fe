//! Item 55: staged pipelines over bounded queues.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use paceline::{Halt, Observer, Pipeline, Retry, StageState, StopLevel};

use paceline_tests::{
    Census, Counted, Gate, Given, Peak, assert_conserved, block_for, millis, until,
    until_no_thread_is_left, watched, watched_alone,
};

#[test]
fn r55_6_a_thousand_items_pass_three_stages_once_each() {
    watched_alone(|| {
        let (mut results, summary) = Pipeline::from_iter(0..1000_u64)
            .blocking("st-download", |n| Given::Ok(n + 1))
            .workers(3)
            .cpu("st-resize", |n| Given::Ok(2 * n))
            .workers(4)
            .blocking("st-upload", |n| Given::Ok(n.to_string()))
            .workers(5)
            .collect()
            .unwrap();
        assert_conserved(&summary);
        assert!(summary.is_complete());
        results.sort_by_key(|text| text.parse::<u64>().unwrap());
        let expected: Vec<_> = (1..=1000).map(|n: u64| (2 * n).to_string()).collect();
        assert_eq!(results, expected);
        until_no_thread_is_left("st-");
    });
}

#[test]
fn r55_7_stages_overlap() {
    watched_alone(|| {
        let five_ms = |n: u32| {
            block_for(millis(5));
            Given::Ok(n)
        };
        let started = Instant::now();
        let summary = Pipeline::from_iter(0..300)
            .blocking("download", five_ms)
            .workers(3)
            .blocking("resize", five_ms)
            .workers(4)
            .blocking("upload", five_ms)
            .workers(5)
            .discard()
            .run()
            .unwrap();
        let took = started.elapsed();
        assert_eq!(summary.ok, 300);
        assert!(took >= millis(500) && took < millis(1000), "{took:?}");
    });
}

#[test]
fn r55_8_no_more_items_are_alive_than_queues_and_hands_hold() {
    watched(|| {
        for (capacities, workers) in
            [([1, 1, 1], [1, 1, 1]), ([2, 1, 3], [2, 1, 2]), ([40, 16, 200], [3, 2, 4])]
        {
            let census = Census::default();
            let made = census.clone();
            let slow = Peak::default();
            let summary = Pipeline::from_iter((0..3_000).map(move |n| made.make(n)))
                .blocking("fast", Given::Ok)
                .workers(workers[0])
                .queue(capacities[0])
                .cpu("also fast", Given::Ok)
                .workers(workers[1])
                .queue(capacities[1])
                .blocking("slow", |item| {
                    let _inside = slow.enter();
                    (0..50).for_each(|_| std::thread::yield_now());
                    drop(item);
                    Given::Ok(())
                })
                .workers(workers[2])
                .queue(capacities[2])
                .run()
                .unwrap();
            assert_conserved(&summary);
            assert_eq!((summary.ok, census.alive()), (3_000, 0));
            // The source has one item in hand, as if it were a worker.
            let places = 1 + capacities.iter().sum::<usize>() + workers.iter().sum::<usize>();
            assert!(census.most() <= places as i64, "{} of at most {places}", census.most());
            assert!(slow.most() <= workers[2]);
        }
    });
}

#[test]
fn r55_8_a_fan_out_makes_no_more_than_the_next_queue_takes() {
    watched(|| {
        for (capacity, workers) in [(1, 1), (3, 2), (100, 2)] {
            let census = Census::default();
            let made = census.clone();
            let summary = Pipeline::from_iter(0..10)
                .cpu("split", move |_: u32| {
                    let made = made.clone();
                    Given::Ok((0..300).map(move |n| made.make(n)))
                })
                .workers(workers)
                .queue(1)
                .fan_out()
                .blocking("slow", |item: Counted| {
                    (0..20).for_each(|_| std::thread::yield_now());
                    drop(item);
                    Given::Ok(())
                })
                .workers(workers)
                .queue(capacity)
                .run()
                .unwrap();
            assert_conserved(&summary);
            assert_eq!((summary.stages[1].ok, census.alive()), (3_000, 0));
            let places = workers + capacity + workers;
            assert!(census.most() <= places as i64, "{} of at most {places}", census.most());
        }
    });
}

#[test]
fn r55_8_retries_keep_the_bound_and_their_spare_copies_are_one_for_each_place() {
    watched(|| {
        let census = Census::default();
        let made = census.clone();
        let tried = Mutex::new(BTreeSet::new());
        let summary = Pipeline::from_iter((0..2_000).map(move |n| made.make(n)))
            .blocking("try", |item| {
                if tried.lock().unwrap().insert(item.number) {
                    return Err("not at first".into());
                }
                Given::Ok(())
            })
            .workers(2)
            .queue(4)
            .retry(Retry::times(1).backoff(Duration::from_micros(50)))
            .run()
            .unwrap();
        assert_conserved(&summary);
        assert_eq!((summary.ok, census.alive()), (2_000, 0));
        let places = 1 + 4 + 2;
        let spares = 2;
        assert!(census.most() <= places + spares, "{}", census.most());
    });
}

#[test]
fn r55_9_one_failing_item_of_twenty_ends_nothing_but_itself() {
    watched(|| {
        let fails_at_5 = |n: u32| if n == 5 { Err("five".into()) } else { Given::Ok(()) };
        let twenty = || Pipeline::from_iter(1..=20).blocking("work", fails_at_5).workers(3);

        let skip = twenty().run().unwrap();
        assert_eq!(skip.account(), "in 20 = ok 19 + failed 1 + unfinished 0");
        assert_eq!(skip.failures[0].to_string(), "item 5 failed in stage `work`");
        assert_eq!(skip.failures[0].cause().to_string(), "five");
        assert_eq!(skip.stopped, StopLevel::None);

        let halt = twenty().queue(1).halt(Halt::soon()).run().unwrap();
        assert_conserved(&halt);
        assert_eq!(halt.failed, 1);
        assert_eq!(halt.stopped, StopLevel::Halt);

        let again = twenty().retry(Retry::times(3)).run().unwrap();
        assert_eq!((again.ok, again.failed), (19, 1));
        assert_eq!(again.failures[0].attempts(), 4);
        assert_eq!(again.stages[0].retried, 3);
    });
}

#[test]
fn items_that_a_stage_lets_past_without_work_have_no_time_of_service() {
    watched(|| {
        let summary = Pipeline::from_iter(0..20)
            .blocking("picky", |n| if n == 7 { Given::Ok(n) } else { Given::Err("not me".into()) })
            .workers(1)
            .blocking("slow", |n| {
                block_for(millis(20));
                Given::Ok(n)
            })
            .workers(1)
            .discard()
            .run()
            .unwrap();
        assert_conserved(&summary);
        assert_eq!((summary.ok, summary.failed), (1, 19));
        let p50 = summary.stages[1].service_p50;
        assert!(p50 >= millis(19), "the one item took 20 ms, the median says {p50:?}");
    });
}

#[test]
fn r55_10_unread_output_never_wedges_a_run() {
    watched(|| {
        let many = || Pipeline::from_iter(0..5_000).cpu("text", |n: u32| Given::Ok(n.to_string()));
        assert_eq!(many().queue(1).discard().run().unwrap().ok, 5_000);
        assert_eq!(many().queue(1).collect().unwrap().0.len(), 5_000);
        // The third way, to leave the output unread, does not compile: tests/compile_fail.
    });
}

#[test]
fn r55_11_start_returns_at_once_and_counters_rise_before_the_join() {
    watched_alone(|| {
        let started = Instant::now();
        let running = Pipeline::from_iter(0..100)
            .blocking("work", |_| {
                block_for(millis(10));
                Given::Ok(())
            })
            .workers(2)
            .discard()
            .start()
            .unwrap();
        assert!(started.elapsed() < millis(50), "{:?}", started.elapsed());
        let mut seen = BTreeSet::new();
        until("three different counts were seen", || {
            seen.insert(running.progress().ok);
            seen.len() >= 3
        });
        assert!(started.elapsed() < millis(500), "they were seen while it ran");
        assert_eq!(running.join().unwrap().ok, 100);
        assert!(started.elapsed() >= millis(500));
    });
}

#[test]
fn r55_12_the_account_adds_up_with_successes_failures_panics_and_timeouts() {
    watched(|| {
        let (values, summary) = Pipeline::from_iter(0..400_u64)
            .io("fetch", |n| async move {
                match n % 8 {
                    0 => Err("fetch".into()),
                    1 => panic!("on purpose: fetch"),
                    2 => std::future::pending().await,
                    _ => Given::Ok(n),
                }
            })
            .workers(50)
            .timeout(millis(5))
            .blocking("look", |n| match n % 8 {
                3 => Err("look".into()),
                4 => panic!("on purpose: look"),
                _ => Given::Ok(n),
            })
            .collect()
            .unwrap();
        assert_conserved(&summary);
        assert_eq!(summary.account(), "in 400 = ok 150 + failed 250 + unfinished 0");
        assert_eq!(summary.stages[0].failed, 150);
        assert_eq!((summary.stages[1].fed, summary.stages[1].failed), (250, 100));
        assert_eq!(values.len(), 150);
    });
}

/// Passes on what the stall detector says.
struct Stalls(Mutex<mpsc::Sender<Vec<StageState>>>);

impl Observer for Stalls {
    fn stalled(&self, stages: &[StageState]) {
        let _ = self.0.lock().unwrap().send(stages.to_vec());
    }
}

#[test]
fn r55_14_ordered_keeps_the_input_order_and_what_it_holds_back_is_bounded() {
    watched(|| {
        let (tell, stalled) = mpsc::channel();
        let gate = Gate::default();
        let head = gate.clone();
        let order = Arc::new(Mutex::new(Vec::new()));
        let seen = order.clone();
        let pipeline = Pipeline::from_iter(0..5_000_u64)
            .blocking("work", move |n| {
                if n == 0 {
                    head.wait();
                }
                Given::Ok(n)
            })
            .workers(4)
            .queue(8)
            .ordered()
            .stall_after(millis(50))
            .observer(Arc::new(Stalls(Mutex::new(tell))))
            .for_each(move |n| seen.lock().unwrap().push(n));
        let running = pipeline.start().unwrap();
        stalled.recv().unwrap();
        let taken = running.progress().taken;
        assert!(taken <= 2 * (8 + 4) + 64, "{taken} items were let in behind the slow one");
        assert!(order.lock().unwrap().is_empty());
        gate.open();
        assert_eq!(running.join().unwrap().ok, 5_000);
        assert!(order.lock().unwrap().iter().copied().eq(0..5_000));
    });
}

#[test]
fn r55_14_unordered_hands_on_what_is_finished_first() {
    watched(|| {
        let gate = Gate::default();
        let mut seen = Vec::new();
        Pipeline::from_iter(0..10)
            .blocking("work", |n| {
                if n == 0 {
                    gate.wait();
                }
                Given::Ok(n)
            })
            .workers(2)
            .for_each(|n| {
                seen.push(n);
                if seen.len() == 9 {
                    gate.open();
                }
            })
            .run()
            .unwrap();
        assert_eq!(seen.last(), Some(&0));
    });
}

#[test]
fn r55_16_a_stall_is_told_once_with_the_state_of_each_stage() {
    watched(|| {
        let (tell, stalled) = mpsc::channel();
        let gate = Gate::default();
        let hold = gate.clone();
        let running = Pipeline::from_iter(0..100)
            .blocking("before", Given::Ok)
            .workers(1)
            .queue(1)
            .blocking("stuck", move |_| {
                let _: () = hold.wait();
                Given::Ok(())
            })
            .workers(2)
            .queue(3)
            .blocking("after", Given::Ok)
            .workers(1)
            .stall_after(millis(100))
            .observer(Arc::new(Stalls(Mutex::new(tell))))
            .discard()
            .start()
            .unwrap();
        let states = stalled.recv().unwrap();
        let state = |name: &str| states.iter().find(|state| state.name == name).unwrap();
        assert_eq!((state("stuck").in_service, state("stuck").depth), (2, 3), "{states:?}");
        assert_eq!(state("stuck").capacity, 3, "full: it blocks the one before");
        assert_eq!((state("after").in_service, state("after").depth), (0, 0), "starved");
        block_for(millis(250));
        assert!(stalled.try_recv().is_err(), "one stall was told twice");
        gate.open();
        assert_eq!(running.join().unwrap().ok, 100);
    });
}

#[test]
fn r55_18_workers_change_while_it_runs_and_bounds_and_account_hold() {
    watched(|| {
        let census = Census::default();
        let made = census.clone();
        let peak = Arc::new(Peak::default());
        let inside = peak.clone();
        // The last item comes when the last wish has been said.
        let said = Gate::default();
        let last = said.clone();
        let items = (0..6_000).map(move |n| {
            if n == 5_999 {
                last.wait();
            }
            made.make(n)
        });
        let running = Pipeline::from_iter(items)
            .blocking("work", move |item| {
                let _inside = inside.enter();
                std::thread::yield_now();
                drop(item);
                Given::Ok(())
            })
            .workers(2)
            .queue(8)
            .discard()
            .start()
            .unwrap();
        let monitor = running.monitor().clone();
        let mut most = 2;
        for target in [6, 1, 3, 8, 2, 1, 5] {
            monitor.set_workers("work", target);
            most = most.max(target);
            let seen = running.progress().ok;
            until("some items passed", || {
                let progress = running.progress();
                progress.ok > seen + 400 || progress.ok > 5_900
            });
        }
        said.open();
        let summary = running.join().unwrap();
        assert_conserved(&summary);
        assert_eq!((summary.ok, census.alive()), (6_000, 0));
        assert_eq!(summary.stages[0].workers, 5);
        assert!(peak.most() <= most, "{} at once", peak.most());
        assert!(census.most() <= (1 + 8 + most) as i64, "{} alive", census.most());
    });
}

#[test]
fn r55_18_fewer_workers_means_fewer_at_once() {
    watched(|| {
        let peak = Arc::new(Peak::default());
        let (inside, gate) = (peak.clone(), Gate::default());
        let hold = gate.clone();
        let (enter, entered) = mpsc::channel();
        let enter = Mutex::new(enter);
        let running = Pipeline::from_iter(0..200)
            .blocking("resized", move |n| {
                let _inside = inside.enter();
                enter.lock().unwrap().send(()).unwrap();
                if n < 4 {
                    hold.wait();
                }
                Given::Ok(inside.now())
            })
            .workers(4)
            .queue(1)
            .for_each(|_| ())
            .start()
            .unwrap();
        (0..4).for_each(|_| entered.recv().unwrap());
        running.monitor().set_workers("resized", 1);
        until("the conductor has seen it", || {
            // A second wish is taken up after the first.
            running.monitor().set_workers("resized", 1);
            true
        });
        gate.open();
        let summary = running.join().unwrap();
        assert_eq!((summary.ok, summary.stages[0].workers), (200, 1));
        assert_eq!(peak.most(), 4);
    });
}
