//! Stops, at every level and at random moments, of work of every kind.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use paceline::{Attempt, BoxError, Command, Halt, Observer, Pipeline, Running, Stop, StopLevel};

use paceline_tests::{
    Gate, Given, assert_conserved, block_for, limited, millis, random, until,
    until_no_thread_is_left, watched, watched_alone,
};

const LEVELS: [StopLevel; 4] =
    [StopLevel::Drain, StopLevel::Halt, StopLevel::Cancel, StopLevel::Kill];

#[test]
fn a_stop_before_the_start_takes_nothing() {
    watched(|| {
        for level in LEVELS {
            let stop = Stop::new();
            stop.rise(level);
            let (values, summary) = Pipeline::from_iter(0..100)
                .blocking("first", |n: u32| Given::Ok(n))
                .io("second", |n| async move { Given::Ok(n) })
                .ordered()
                .stop(&stop)
                .collect()
                .unwrap();
            assert!(values.is_empty());
            assert_eq!(summary.account(), "in 0 = ok 0 + failed 0 + unfinished 0");
            assert_eq!((summary.stopped, summary.source_ended), (level, false));
        }
    });
}

#[test]
fn a_drain_finishes_what_is_inside() {
    watched(|| {
        let stop = Stop::new();
        let from_inside = stop.clone();
        let (values, summary) = Pipeline::from_iter(0_u64..)
            .blocking("first", move |n| {
                if n == 300 {
                    from_inside.drain();
                }
                Given::Ok(n)
            })
            .io("second", |n| async move { Given::Ok(n) })
            .stop(&stop)
            .collect()
            .unwrap();
        assert_conserved(&summary);
        assert_eq!((summary.unfinished, summary.failed), (0, 0));
        assert_eq!(values.len() as u64, summary.taken);
        assert!(!summary.source_ended && summary.taken > 300);
    });
}

#[test]
fn a_halt_lets_running_attempts_finish_and_starts_no_more() {
    watched(|| {
        let stop = Stop::new();
        let (entered, gate) = (Gate::default(), Gate::default());
        let (tell, hold) = (entered.clone(), gate.clone());
        let started = Arc::new(AtomicU64::new(0));
        let count = started.clone();
        let running = Pipeline::from_iter(0..100)
            .blocking("work", move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                tell.open();
                let _: () = hold.wait();
                Given::Ok(())
            })
            .workers(1)
            .stop(&stop)
            .discard()
            .start()
            .unwrap();
        entered.wait();
        stop.halt();
        gate.open();
        let summary = running.join().unwrap();
        assert_conserved(&summary);
        assert_eq!((summary.ok, started.load(Ordering::SeqCst)), (1, 1));
        assert!(summary.unfinished > 0);
    });
}

/// How many children of this process run `program`.
fn children_running(program: &str) -> usize {
    let tasks = fs::read_dir("/proc").unwrap().flatten();
    let parent = format!("PPid:\t{}", std::process::id());
    tasks
        .filter(|process| {
            let read = |what| fs::read_to_string(process.path().join(what)).unwrap_or_default();
            read("comm").trim() == program && read("status").lines().any(|line| line == parent)
        })
        .count()
}

#[test]
fn rx_2_a_cancel_reaches_threads_futures_and_children() {
    watched_alone(|| {
        for level in [StopLevel::Cancel, StopLevel::Kill] {
            let stop = Stop::new();
            let asked = Arc::new(AtomicU64::new(0));
            let tell = asked.clone();
            let threads = Pipeline::from_iter(0..100)
                .cpu("rx-thread", move |_| {
                    tell.fetch_add(1, Ordering::SeqCst);
                    while !paceline::is_cancelled() {
                        std::thread::yield_now();
                    }
                    Err::<(), _>(BoxError::from("told to stop"))
                })
                .workers(2)
                .stop(&stop)
                .discard();
            let dropped = Arc::new(AtomicU64::new(0));
            let count = dropped.clone();
            let futures = Pipeline::from_iter(0..100)
                .io("rx-future", move |_| {
                    let count = CountOnDrop(count.clone());
                    async move {
                        let _count = count;
                        std::future::pending::<Given<()>>().await
                    }
                })
                .workers(20)
                .stop(&stop)
                .discard();
            let children = Pipeline::from_iter(0..100)
                .command("rx-child", |_, _: &Attempt| Command::new("sleep").arg("60"))
                .workers(3)
                .stop(&stop)
                .discard();
            let [threads, futures, children] =
                [threads, futures, children].map(|run| run.start().unwrap());
            let count = |run: &Running<'_>| {
                run.progress().stages.first().map_or(0, |stage| stage.in_flight)
            };
            until("threads work", || asked.load(Ordering::SeqCst) == 2);
            until("futures wait", || count(&futures) == 20);
            until("children sleep", || children_running("sleep") == 3);
            let since = Instant::now();
            stop.rise(level);
            for (run, in_flight) in [(threads, 2), (futures, 20), (children, 3)] {
                let summary = run.join().unwrap();
                assert_conserved(&summary);
                assert_eq!((summary.ok, summary.failed), (0, 0), "{summary:?}");
                assert!(summary.unfinished >= in_flight);
            }
            assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
            assert_eq!(dropped.load(Ordering::SeqCst), 20);
            assert_eq!(children_running("sleep"), 0);
            until_no_thread_is_left("rx-");
        }
    });
}

struct CountOnDrop(Arc<AtomicU64>);

impl Drop for CountOnDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn rx_3_an_idle_run_of_every_kind_uses_no_cpu() {
    watched_alone(|| {
        let gate = Gate::default();
        let hold = gate.clone();
        let running = Pipeline::from_iter(0..3)
            .command("idle-child", |_, _: &Attempt| Command::new("sleep").arg("2"))
            .workers(2)
            .io("idle-io", |output| async { Given::Ok(output) })
            .blocking("idle-blocking", move |output| {
                hold.wait();
                Given::Ok(output)
            })
            .cpu("idle-cpu", Given::Ok)
            .ordered()
            .stall_after(Duration::from_secs(30))
            .discard()
            .start()
            .unwrap();
        until("children sleep", || children_running("sleep") == 2);
        block_for(millis(50));
        let used = || rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let (before, since) = (used(), Instant::now());
        block_for(Duration::from_secs(1));
        let after = used();
        let cpu = Duration::try_from(after).unwrap() - Duration::try_from(before).unwrap();
        assert!(cpu < since.elapsed() / 100, "{cpu:?} in {:?}", since.elapsed());
        running.stop().kill();
        gate.open();
        assert_conserved(&running.join().unwrap());
    });
}

/// Counts each item's endings.
#[derive(Default)]
struct Endings(Mutex<Vec<u32>>);

impl Observer for Endings {
    fn item_ended(&self, item: u64, _: &paceline::Ending) {
        let mut endings = self.0.lock().unwrap();
        let place = item as usize;
        if endings.len() <= place {
            endings.resize(place + 1, 0);
        }
        endings[place] += 1;
    }
}

#[test]
fn r55_12_every_item_ends_once_whenever_and_however_the_run_is_stopped() {
    watched(|| {
        for round in 0..60_u64 {
            let level = LEVELS[round as usize % 4];
            let at = random() % 2_000;
            // A hang is told with the moment that brought it about.
            limited(Duration::from_secs(20), move || stop_at(level, at));
        }
    });
}

fn stop_at(level: StopLevel, at: u64) {
    let stop = Stop::new();
    let from_inside = stop.clone();
    let seen = AtomicU64::new(0);
    let endings = Arc::new(Endings::default());
    let (_, summary) = Pipeline::from_iter(0..1_000_u64)
        .blocking("first", |n| if n % 10 == 7 { Err("seven".into()) } else { Given::Ok(n) })
        .workers(2)
        .queue(10)
        .cpu("split", |n| Given::Ok([n, n + 1_000]))
        .workers(2)
        .fan_out()
        .io("second", move |n| {
            if seen.fetch_add(1, Ordering::SeqCst) == at {
                from_inside.rise(level);
            }
            async move {
                tokio::task::yield_now().await;
                Given::Ok(n)
            }
        })
        .workers(20)
        .queue(4)
        .fan_in(3, None)
        .cpu("last", Given::Ok)
        .ordered()
        .observer(endings.clone())
        .stop(&stop)
        .collect()
        .unwrap();
    assert_conserved(&summary);
    let endings = endings.0.lock().unwrap();
    assert_eq!(endings.iter().skip(1).filter(|&&count| count == 1).count() as u64, summary.taken);
    assert!(endings.iter().all(|&count| count <= 1), "an item ended twice");
    if level == StopLevel::Drain {
        assert_eq!(summary.unfinished, 0);
    }
}

#[test]
fn failures_halt_the_run_at_the_limit_that_was_set() {
    watched(|| {
        let fails = |n: u64| if n.is_multiple_of(2) { Err("even".into()) } else { Given::Ok(()) };
        let run = |halt| {
            Pipeline::from_iter(0_u64..)
                .blocking("work", fails)
                .workers(2)
                .halt(halt)
                .run()
                .unwrap()
        };
        let soon = run(Halt::soon().after(10));
        assert_conserved(&soon);
        assert!(soon.failed >= 10 && soon.failed <= 12, "{soon}");
        assert_eq!(soon.stopped, StopLevel::Halt);
        let percent = run(Halt::now().at_percent(40.0));
        assert_conserved(&percent);
        assert_eq!(percent.stopped, StopLevel::Cancel);
    });
}
