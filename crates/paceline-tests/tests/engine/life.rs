//! Small and large runs, the ways to start one, and where it is called from.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use paceline::{
    BoxError, Ending, Error, Failure, FailureKind, Fault, Observer, Pipeline, StageEnded, Summary,
};

use paceline_tests::{Gate, Given, assert_conserved, millis, until, watched};

/// A chain of every kind but children.
fn every_kind(items: std::ops::Range<u64>) -> Pipeline<'static, u64, u64> {
    Pipeline::from_iter(items)
        .cpu("one", |n| Given::Ok(n + 1))
        .blocking("two", |n| Given::Ok(n + 1))
        .io("three", |n| async move { Given::Ok(n + 1) })
        .cpu("four", |n| Given::Ok(vec![n]))
        .fan_out()
        .cpu("five", |n| Given::Ok(n - 3))
        .ordered()
}

#[test]
fn none_one_and_a_hundred_thousand_items_pass() {
    watched(|| {
        for count in [0, 1, 2, 100_000] {
            let (values, summary) = every_kind(0..count).collect().unwrap();
            assert_conserved(&summary);
            assert!(summary.is_complete());
            assert!(values.into_iter().eq(0..count));
            assert_eq!(every_kind(0..count).discard().run().unwrap().ok, count);
        }
    });
}

#[test]
fn a_source_without_stages_is_a_pipeline_too() {
    watched(|| {
        let (values, summary) = Pipeline::from_iter(0..1_000).collect().unwrap();
        assert!(values.into_iter().eq(0..1_000));
        assert_eq!(summary.ok, 1_000);
        assert_eq!(Pipeline::from_iter(0..1_000).discard().run().unwrap().ok, 1_000);
        let (halves, _) = Pipeline::from_iter(0..1_000).fan_in(500, None).collect().unwrap();
        assert_eq!(halves.len(), 2);
        let (flat, _) =
            Pipeline::from_iter([vec![1, 2], vec![], vec![3]]).fan_out().collect().unwrap();
        assert_eq!(flat, [1, 2, 3]);
    });
}

#[test]
fn a_source_that_waits_for_the_results_of_its_own_items_gets_them() {
    watched(|| {
        // It cannot say that more is at hand: it waits for what it gave.
        let (give, given) = mpsc::channel();
        let mut next = 0;
        let items = std::iter::from_fn(move || {
            if next > 0 {
                assert_eq!(given.recv().unwrap(), next - 1);
            }
            next += 1;
            (next <= 3_000).then_some(next - 1)
        });
        let give = Mutex::new(give);
        let summary = Pipeline::from_iter(items)
            .cpu("pass", Given::Ok)
            .cpu("give", |n| {
                give.lock().unwrap().send(n)?;
                Given::Ok(())
            })
            .run()
            .unwrap();
        assert_eq!(summary.ok, 3_000);
    });
}

#[test]
fn a_run_in_a_scope_borrows_what_outlives_the_scope() {
    watched(|| {
        let words = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let total = AtomicU64::new(0);
        thread::scope(|scope| {
            let running = Pipeline::from_iter(&words)
                .blocking("add", |word: &String| {
                    total.fetch_add(word.len() as u64, Ordering::Relaxed);
                    Given::Ok(())
                })
                .discard()
                .start_in(scope)
                .unwrap();
            assert_eq!(running.join().unwrap().ok, 3);
            // One that nobody joins is waited for at the end of the scope.
            drop(
                Pipeline::from_iter(&words)
                    .io("add", |word: &String| async {
                        total.fetch_add(word.len() as u64, Ordering::Relaxed);
                        Given::Ok(())
                    })
                    .discard()
                    .start_in(scope)
                    .unwrap(),
            );
        });
        assert_eq!(total.into_inner(), 6);
    });
}

#[test]
fn a_run_may_be_called_inside_a_tokio_runtime() {
    watched(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let run = || every_kind(0..500).collect().unwrap().1.ok;
        runtime.block_on(async {
            assert_eq!(run(), 500, "on the loop's own thread");
            assert_eq!(tokio::task::spawn_blocking(run).await.unwrap(), 500);
            let entered = every_kind(0..500).discard().start().unwrap();
            assert_eq!(entered.join().unwrap().ok, 500);
        });
    });
}

#[test]
fn a_run_may_be_called_inside_a_stage_of_another() {
    watched(|| {
        let (inner, _) = Pipeline::from_iter(1..=4_u64)
            .blocking("outer", |n| {
                let (values, _) = every_kind(0..n * 100).collect()?;
                assert!(!paceline::is_cancelled());
                Ok::<_, Error>(values.len())
            })
            .workers(2)
            .ordered()
            .collect()
            .unwrap();
        assert_eq!(inner, [100, 200, 300, 400]);
        let (inner, _) = Pipeline::from_iter(1..=2_u64)
            .io(
                "outer",
                |n| async move { every_kind(0..n).collect().map(|(values, _)| values.len()) },
            )
            .ordered()
            .collect()
            .unwrap();
        assert_eq!(inner, [1, 2]);
    });
}

/// Counts all that an observer is told.
#[derive(Default)]
struct Everything {
    stages: Mutex<BTreeMap<(String, Vec<u64>), u32>>,
    items: Mutex<BTreeMap<u64, Vec<&'static str>>>,
    failed: AtomicU64,
}

impl Observer for Everything {
    fn stage_ended(&self, event: &StageEnded<'_>) {
        let key = (event.name.to_owned(), event.item.sequence_numbers());
        *self.stages.lock().unwrap().entry(key).or_default() += 1;
        assert!(event.attempts > 0);
    }

    fn failed(&self, _: &Failure) {
        self.failed.fetch_add(1, Ordering::SeqCst);
    }

    fn item_ended(&self, item: u64, ending: &Ending) {
        let ending = match ending {
            Ending::Ok => "ok",
            Ending::Unfinished => "unfinished",
            Ending::Failed(_) => "failed",
        };
        self.items.lock().unwrap().entry(item).or_default().push(ending);
    }
}

#[test]
fn an_observer_hears_of_each_item_and_of_each_stages_answer_once() {
    watched(|| {
        let everything = Arc::new(Everything::default());
        let summary: Summary = Pipeline::from_iter(1..=900_u64)
            .blocking("first", |n| if n % 9 == 0 { Err("nine".into()) } else { Given::Ok(n) })
            .workers(3)
            .io(
                "second",
                |n| async move { if n % 10 == 0 { Err("ten".into()) } else { Given::Ok(n) } },
            )
            .observer(everything.clone())
            .discard()
            .run()
            .unwrap();
        let items = everything.items.lock().unwrap();
        assert!(items.keys().copied().eq(1..=900));
        for (number, endings) in &*items {
            let expected = if number % 9 == 0 || number % 10 == 0 { "failed" } else { "ok" };
            assert_eq!(*endings, [expected]);
        }
        let stages = everything.stages.lock().unwrap();
        assert_eq!(stages.len(), 900 + 800);
        assert!(stages.values().all(|&count| count == 1));
        assert_eq!(everything.failed.load(Ordering::SeqCst), summary.failed);
    });
}

#[test]
fn rx_1_a_failure_says_which_item_where_what_kind_and_why() {
    watched(|| {
        let (_, summary) = Pipeline::from_iter(0..6_u64)
            .io("say", |n| async move {
                match n {
                    0 => Err(BoxError::from(std::io::Error::other("of its own"))),
                    1 => panic!("on purpose: to be told"),
                    2 => std::future::pending().await,
                    3 => Err(Fault::new(FailureKind::Io, "a kind of its own").into()),
                    _ => Ok(n),
                }
            })
            .timeout(millis(20))
            .command("exit", |n, _| {
                let script = if *n == 4 { "exit 3" } else { "kill -9 $$" };
                paceline::Command::new("sh").args(["-c", script])
            })
            .collect()
            .unwrap();
        assert_conserved(&summary);
        let failure = |number| {
            let of = |failure: &&Failure| failure.item().sequence_numbers() == [number];
            summary.failures.iter().find(of).unwrap()
        };
        let kinds = [1, 2, 3, 4, 5, 6].map(|number| failure(number).kind());
        use FailureKind::{Exit, Failed, Io, Panic, Signal, Timeout};
        assert_eq!(kinds, [Failed, Panic, Timeout, Io, Exit, Signal]);
        assert!(failure(1).cause().is::<std::io::Error>());
        assert_eq!((failure(5).code(), failure(5).signal()), (Some(3), None));
        assert_eq!((failure(6).code(), failure(6).signal()), (None, Some(9)));
        assert_eq!(failure(6).to_string(), "item 6 failed in stage `exit`");
    });
}

#[test]
fn a_builder_refuses_what_cannot_work() {
    watched(|| {
        let numbers = || Pipeline::from_iter(0..3).cpu("work", |n: u32| Given::Ok(n));
        let told = |pipeline: Pipeline<'_, u32, u32>| pipeline.collect().unwrap_err().to_string();
        assert_eq!(told(numbers().workers(0)), "stage `work` has 0 workers");
        assert_eq!(told(numbers().queue(0)), "stage `work` has a queue for 0 items");
        assert_eq!(told(numbers().timeout(millis(0))), "stage `work` has a timeout of 0");
        assert_eq!(told(numbers().cpu("work", Given::Ok)), "two stages are called `work`");
        assert_eq!(told(numbers().cpu("", Given::Ok)), "a stage has no name");
        let nowhere = Pipeline::from_iter(0..3_u32).workers(2).cpu("work", Given::Ok);
        assert_eq!(told(nowhere), "workers set where there is no stage to have it");
    });
}

#[test]
fn a_slow_sink_holds_the_run_up_and_loses_nothing() {
    watched(|| {
        let (first, gate) = (Gate::default(), Gate::default());
        let (tell, hold) = (first.clone(), gate.clone());
        let seen = Arc::new(AtomicU64::new(0));
        let count = seen.clone();
        let running = Pipeline::from_iter(0..10_000_u64)
            .cpu("text", |n| Given::Ok(n.to_string()))
            .queue(2)
            .for_each(move |_| {
                tell.open();
                hold.wait();
                count.fetch_add(1, Ordering::SeqCst);
            })
            .start()
            .unwrap();
        first.wait();
        let inside = || running.progress().taken - running.progress().ok;
        let mut before = inside();
        until("nothing moves", || {
            paceline_tests::block_for(millis(10));
            std::mem::replace(&mut before, inside()) == before
        });
        assert!(inside() < 100, "{} went in before one came out", inside());
        gate.open();
        assert_eq!(running.join().unwrap().ok, 10_000);
        assert_eq!(seen.load(Ordering::SeqCst), 10_000);
    });
}

/// Whether the thread of this process called `name` sleeps.
fn sleeps(name: &str) -> bool {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    threads.flatten().any(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.contains(&format!("({name}) S"))
    })
}

#[test]
fn the_last_stage_is_blocked_while_its_values_are_not_taken() {
    watched(|| {
        let (give, given) = mpsc::channel::<()>();
        let held = Mutex::new(Some(given));
        let summary = Pipeline::from_iter(0..200_u64)
            .cpu("blocked-maker", |n| Given::Ok(n.to_string()))
            .workers(1)
            .for_each(move |_| {
                // The first value is kept until there is no room for any other.
                if let Some(given) = held.lock().unwrap().take() {
                    given.recv().unwrap();
                }
            });
        let monitor = summary.monitor();
        let running = summary.start().unwrap();
        until("the stage to stand still", || {
            let stages = monitor.progress().stages;
            stages.first().is_some_and(|stage| stage.ok > 17) && sleeps("blocked-maker")
        });
        give.send(()).unwrap();
        let summary = running.join().unwrap();
        assert!(summary.stages[0].blocked > millis(0), "{summary:?}");
    });
}
