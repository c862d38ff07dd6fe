//! Item 53: threads for calls that block.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use paceline::{BoxError, FailureKind, Pipeline, Running};

use paceline_tests::{
    Gate, Given, assert_conserved, block_for, millis, thread_names, threads_called, until,
    until_no_thread_is_left, watched, watched_alone,
};

#[test]
fn r53_1_five_blocking_calls_on_five_workers_take_as_long_as_one() {
    watched_alone(|| {
        let five_calls_on = |workers| {
            let started = Instant::now();
            let summary = Pipeline::from_iter(0..5)
                .blocking("call", |_| {
                    block_for(millis(100));
                    Given::Ok(())
                })
                .workers(workers)
                .run()
                .unwrap();
            assert_eq!(summary.ok, 5);
            started.elapsed()
        };
        let side_by_side = five_calls_on(5);
        assert!(side_by_side >= millis(100) && side_by_side < millis(300), "{side_by_side:?}");
        assert!(five_calls_on(1) >= millis(500));
    });
}

#[test]
fn r53_2_the_caller_computes_while_calls_are_in_flight() {
    watched(|| {
        let computed = Gate::default();
        let waits_for_it = computed.clone();
        let running = Pipeline::from_iter(0..5)
            .blocking("call", move |_| {
                let _: () = waits_for_it.wait();
                Given::Ok(())
            })
            .workers(5)
            .discard()
            .start()
            .unwrap();
        until("all calls are in flight", || in_flight(&running) == 5);
        assert_eq!((1..=1000_u64).sum::<u64>(), 500_500);
        assert_eq!(running.progress().ok, 0, "no call could have ended before the computation");
        computed.open();
        assert_eq!(running.join().unwrap().ok, 5);
    });
}

/// The items in the first stage's hands.
fn in_flight(running: &Running<'_>) -> u64 {
    running.progress().stages.first().map_or(0, |stage| stage.in_flight)
}

const NUMBERS: [u64; 4] = [2_139_079, 1_214_759, 1_516_637, 1_852_285];

fn factors(number: u64) -> Vec<u64> {
    (1..=number).filter(|candidate| number.is_multiple_of(*candidate)).collect()
}

#[test]
fn r53_3_the_four_numbers_have_these_factors() {
    watched(|| {
        let (found, _) = Pipeline::from_iter(NUMBERS)
            .cpu("factor", |number| Given::Ok(factors(number)))
            .ordered()
            .collect()
            .unwrap();
        let expected: [&[u64]; 4] = [
            &[1, 101, 21179, 2139079],
            &[1, 7, 13, 49, 91, 637, 1907, 13349, 24791, 93443, 173537, 1214759],
            &[1, 19, 79823, 1516637],
            &[1, 5, 271, 1355, 1367, 6835, 370457, 1852285],
        ];
        assert_eq!(found, expected);
    });
}

#[test]
fn r53_4_threads_do_not_slow_computing_down() {
    watched_alone(|| {
        let work = || NUMBERS.into_iter().cycle().take(40);
        let once = || {
            let started = Instant::now();
            work().for_each(|number| assert!(factors(number).len() > 3));
            let serial = started.elapsed();
            let started = Instant::now();
            let (found, _) = Pipeline::from_iter(work())
                .cpu("factor", |number| Given::Ok(factors(number)))
                .workers(2)
                .collect()
                .unwrap();
            assert_eq!(found.len(), 40);
            (serial, started.elapsed())
        };
        // Others use the machine too: one undisturbed round of five is enough.
        let is_no_slower = |(serial, threads): (Duration, Duration)| {
            threads.as_secs_f64() <= 1.15 * serial.as_secs_f64()
        };
        assert!((0..5).any(|_| is_no_slower(once())));
    });
}

#[test]
fn r53_5_a_failure_and_a_panic_name_their_item_and_the_others_finish() {
    watched(|| {
        let summary = Pipeline::from_iter(1..=6)
            .blocking("call", |number| match number {
                2 => Err(BoxError::from("no such file")),
                5 => panic!("on purpose: five"),
                _ => Ok(()),
            })
            .workers(3)
            .run()
            .unwrap();
        assert_conserved(&summary);
        assert_eq!((summary.ok, summary.failed), (4, 2));
        let told: BTreeMap<_, _> = summary
            .failures
            .iter()
            .map(|failure| (failure.to_string(), (failure.kind(), failure.cause().to_string())))
            .collect();
        assert_eq!(
            told["item 2 failed in stage `call`"],
            (FailureKind::Failed, "no such file".into())
        );
        assert_eq!(
            told["item 5 failed in stage `call`"],
            (FailureKind::Panic, "the worker panicked: on purpose: five".into())
        );
    });
}

#[test]
fn r53_6_a_stage_has_as_many_threads_as_workers_and_none_afterwards() {
    watched_alone(|| {
        let most = AtomicUsize::new(0);
        let names = Mutex::new(Vec::new());
        Pipeline::from_iter(0..200)
            .blocking("six-download", |_| {
                most.fetch_max(threads_called("six-download"), Ordering::SeqCst);
                names.lock().unwrap().push(thread::current().name().unwrap().to_owned());
                Given::Ok(())
            })
            .workers(4)
            .run()
            .unwrap();
        assert!(most.load(Ordering::SeqCst) <= 4, "{:?}", thread_names());
        assert!(names.lock().unwrap().iter().all(|name| name == "six-download"));
        until_no_thread_is_left("six-download");
    });
}

#[test]
fn r53_8_no_worker_gets_less_than_a_quarter_of_its_share() {
    watched_alone(|| {
        let taken = Mutex::new(BTreeMap::new());
        Pipeline::from_iter(0..10_000)
            .blocking("share", |_| {
                block_for(Duration::from_micros(50));
                *taken
                    .lock()
                    .unwrap()
                    .entry(format!("{:?}", thread::current().id()))
                    .or_insert(0) += 1;
                Given::Ok(())
            })
            .workers(4)
            .run()
            .unwrap();
        let taken = taken.into_inner().unwrap();
        assert_eq!(taken.len(), 4, "{taken:?}");
        assert!(taken.values().all(|items| *items >= 10_000 / 4 / 4), "{taken:?}");
    });
}

/// CPU time and voluntary context switches of all threads called `name`.
fn used_by(name: &str) -> (Duration, u64) {
    let mut nanos = 0;
    let mut switches = 0;
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |what| fs::read_to_string(task.path().join(what)).unwrap_or_default();
        if read("comm").trim() == name {
            let first = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
            nanos += first(&read("schedstat")).unwrap_or(0);
            let status = read("status");
            let line =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            switches += line.and_then(first).unwrap_or(0);
        }
    }
    (Duration::from_nanos(nanos), switches)
}

#[test]
fn r53_7_workers_with_nothing_to_do_use_no_cpu() {
    watched_alone(|| {
        let (cpu, _, _) = idle_for_a_second();
        assert!(cpu < millis(10), "idle workers used {cpu:?}");
    });
}

#[test]
fn r55_13_workers_with_nothing_to_do_are_not_woken() {
    watched_alone(|| {
        let (_, switches, workers) = idle_for_a_second();
        assert!(switches < 5 * workers, "{workers} idle workers were woken {switches} times");
    });
}

/// What the idle workers of two stages, one starved and one full, use in a second.
fn idle_for_a_second() -> (Duration, u64, u64) {
    let (entered, gate) = (Gate::default(), Gate::default());
    let (tell, hold) = (entered.clone(), gate.clone());
    let running = Pipeline::from_iter(0..100)
        .blocking("idle-full", Given::Ok)
        .workers(4)
        .queue(1)
        .blocking("idle-holds", move |_| {
            tell.open();
            hold.wait();
            Given::Ok(())
        })
        .workers(1)
        .queue(1)
        .blocking("idle-starved", Given::Ok)
        .workers(4)
        .discard()
        .start()
        .unwrap();
    entered.wait();
    until("the source is blocked too", || running.progress().taken >= 6);
    block_for(millis(50));
    let used = || ["idle-full", "idle-starved"].map(used_by);
    let before = used();
    block_for(Duration::from_secs(1));
    let after = used();
    gate.open();
    assert_eq!(running.join().unwrap().ok, 100);
    let cpu = |used: [(Duration, u64); 2]| used[0].0 + used[1].0;
    let switches = |used: [(Duration, u64); 2]| used[0].1 + used[1].1;
    (cpu(after) - cpu(before), switches(after) - switches(before), 8)
}
