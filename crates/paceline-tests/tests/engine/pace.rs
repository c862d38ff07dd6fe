//! The workers of stages that leave them to the run.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use paceline::{BoxError, Clock, Kind, Observer, Pipeline, Workers, pace::Survey};

/// Waits as a server would let it wait: the work under test.
async fn wait(_: u32) -> Result<(), BoxError> {
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(())
}

#[derive(Default)]
struct Surveys(Mutex<Vec<Survey>>);

impl Observer for Surveys {
    fn paced(&self, survey: &Survey) {
        self.0.lock().unwrap().push(survey.clone());
    }
}

#[test]
fn b25_a_stage_that_waits_gets_more_workers_by_itself() {
    let surveys = Arc::new(Surveys::default());
    let summary =
        Pipeline::from_iter(0..4000).io("wait", wait).observer(surveys.clone()).run().unwrap();
    assert!(summary.is_complete());
    let stage = &summary.stages[0];
    assert_eq!(stage.wanted, Workers::Auto);
    // 4000 waits of 10 ms are 40 s one by one.
    assert!(stage.workers_range.1 >= 16, "{:?}", stage.workers_range);
    let surveys = surveys.0.lock().unwrap();
    let grown = surveys.iter().flat_map(|survey| &survey.decisions).find(|it| it.to > it.from);
    let grown = grown.expect("it was decided to grow");
    assert_eq!(grown.stage, 1, "the source is 0");
    assert!(!grown.why.to_string().is_empty());
    assert!(surveys[0].cost > Duration::ZERO, "to look takes time");
    assert!(surveys.windows(2).all(|two| two[0].cost < two[1].cost), "it is the sum so far");
}

#[test]
fn b25_no_more_are_at_work_than_the_most_that_is_allowed() {
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let summary = Pipeline::from_iter(0..1000)
        .io("wait", |n: u32| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let now = &now;
            async move {
                let result = wait(n).await;
                now.fetch_sub(1, Ordering::SeqCst);
                result
            }
        })
        .workers(Workers::auto().max(6))
        .run()
        .unwrap();
    assert!(summary.is_complete());
    assert!(most.into_inner() <= 6);
    assert!(summary.stages[0].workers_range.1 <= 6);
}

#[test]
fn b25_a_number_that_is_said_stays() {
    let surveys = Arc::new(Surveys::default());
    let pipeline = Pipeline::from_iter(0..500).io("wait", wait).workers(3);
    let summary = pipeline.observer(surveys.clone()).run().unwrap();
    assert_eq!(summary.stages[0].workers_range, (3, 3));
    assert!(surveys.0.lock().unwrap().iter().all(|survey| survey.decisions.is_empty()));
}

#[test]
fn b25_a_stage_that_computes_gets_no_more_than_a_few_a_core() {
    let threads = Mutex::new(HashSet::new());
    let summary = Pipeline::from_iter(0..300)
        .cpu("compute", |_: u32| {
            threads.lock().unwrap().insert(std::thread::current().id());
            let until = Instant::now() + Duration::from_millis(2);
            while Instant::now() < until {}
            Ok::<_, BoxError>(())
        })
        .run()
        .unwrap();
    assert!(summary.is_complete());
    assert!(summary.stages[0].workers_range.1 <= 2 * paceline::cores());
}

#[test]
fn b25_what_somebody_else_decides_counts() {
    let pipeline = Pipeline::from_iter(0..2000).io("wait", wait).discard();
    let monitor = pipeline.monitor();
    monitor.set_workers("wait", 5);
    let summary = pipeline.run().unwrap();
    assert_eq!(summary.stages[0].workers, 5);
    assert!(summary.is_complete());
}

#[test]
fn b25_a_clock_that_stands_still_decides_nothing() {
    let clock = Clock::manual();
    let done = AtomicUsize::new(0);
    let summary = Pipeline::from_iter(0..200)
        .blocking("count", |_: u32| {
            done.fetch_add(1, Ordering::Relaxed);
            Ok::<_, BoxError>(())
        })
        .clock(&clock)
        .run()
        .unwrap();
    assert!(summary.is_complete());
    let stage = &summary.stages[0];
    assert_eq!((stage.kind, stage.workers_range), (Kind::Blocking, (4, 4)));
}

#[test]
fn b25_the_order_is_kept_and_the_window_follows_while_workers_change() {
    let (numbers, summary) = Pipeline::from_iter(0..3000)
        .io("wait", |n: u32| async move {
            tokio::time::sleep(Duration::from_millis(u64::from(n % 7))).await;
            Ok::<_, BoxError>(n)
        })
        .ordered()
        .collect()
        .unwrap();
    assert!(summary.is_complete());
    assert!(numbers.iter().copied().eq(0..3000));
    assert!(summary.stages[0].workers_range.1 > 4, "{:?}", summary.stages[0].workers_range);
}

#[test]
fn b25_a_short_run_says_nothing_it_has_not_seen() {
    let summary = Pipeline::from_iter(0..3).io("wait", wait).run().unwrap();
    assert!(summary.is_complete());
    assert_eq!(summary.stages[0].workers_range, (4, 4));
}

#[test]
fn b25_a_stage_that_computes_begins_with_what_the_budget_allows() {
    for (budget, expected) in [(1.0, 1), (0.3, 1), (1e6, paceline::cores())] {
        let pipeline = Pipeline::from_iter(0..3).cpu("compute", |_: u32| Ok::<_, BoxError>(()));
        let summary = pipeline.cpu_budget(budget).run().unwrap();
        assert_eq!(summary.stages[0].workers_range, (expected, expected), "{budget} cores");
    }
}
