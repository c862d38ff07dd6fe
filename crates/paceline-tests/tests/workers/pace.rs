//! How many worker processes a stage gets that leaves their number to the run.

use std::{
    fs,
    io::Write as _,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use paceline::{
    Bounded, Clock, Framing, Observer, Pipeline, Summary, Workers, cores, pace::Survey,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::{Text, assert_nothing_left, children, limited, server, stage};

#[derive(Default)]
struct Surveys(Mutex<Vec<Survey>>);

impl Observer for Surveys {
    fn paced(&self, survey: &Survey) {
        self.0.lock().unwrap().push(survey.clone());
    }
}

/// Runs so many of one order with workers that are left to the run.
fn paced(order: &str, count: usize, framing: Framing) -> (Vec<String>, Summary, Vec<Survey>) {
    let surveys = Arc::new(Surveys::default());
    let orders = (0..count).map(|_| order.to_owned());
    let run = stage(orders, server(framing, &[])).ordered().observer(surveys.clone()).collect();
    let (answers, summary) = run.unwrap();
    assert_nothing_left();
    let surveys = std::mem::take(&mut *surveys.0.lock().unwrap());
    (answers, summary, surveys)
}

#[test]
fn b25_r64_worker_processes_that_wait_become_more_and_are_faster_than_one_a_core() {
    limited(|| {
        for framing in [Framing::Frames, Framing::Lines] {
            let count = 150 * cores();
            let began = Instant::now();
            let (answers, summary, surveys) = paced("nap 20", count, framing);
            let took = began.elapsed();
            assert_eq!(answers.len(), count, "{summary}");
            assert!(summary.is_complete(), "{summary}");
            let stage = &summary.stages[0];
            assert_eq!(stage.wanted, Workers::Auto);
            assert_eq!(stage.workers_range.0, cores(), "it begins with one a core");
            assert!(stage.workers_range.1 >= 2 * cores(), "{:?}", stage.workers_range);
            // One a core take at least 150 times 20 ms.
            assert!(took < Duration::from_secs(3), "{framing:?} took {took:?}");
            let seen = surveys.iter().filter_map(|survey| survey.estimates[1]);
            let natures: Vec<_> = seen.map(|estimate| estimate.nature()).collect();
            assert!(natures.iter().all(|nature| *nature == "waiting"), "{natures:?}");
        }
    });
}

#[test]
fn b25_r64_worker_processes_that_compute_are_known_by_their_own_clocks() {
    limited(|| {
        let (answers, summary, surveys) = paced("burn 4", 300 * cores(), Framing::Frames);
        assert_eq!(answers.len(), 300 * cores());
        assert_eq!(summary.bounded_by, Some(Bounded::Cores));
        let cpu = surveys.iter().filter_map(|survey| survey.estimates[1]).map(|seen| seen.cpu);
        let cpu: Vec<f64> = cpu.collect();
        let middle = {
            let mut sorted = cpu.clone();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        };
        assert!((0.003..0.006).contains(&middle), "4 ms each, and it saw {cpu:?}");
        // Beside others more of them get more cores, so on a busy machine there may be a few more.
        assert!(summary.stages[0].workers_range.1 <= 8 * cores(), "{:?}", summary.stages[0]);
    });
}

#[test]
fn b25_r64_a_number_of_worker_processes_that_is_said_stays_and_a_most_is_kept() {
    limited(|| {
        let orders = || vec!["nap 10"; 60];
        let fixed =
            stage(orders(), server(Framing::Frames, &[])).workers(3).discard().run().unwrap();
        assert_eq!(fixed.stages[0].workers_range, (3, 3));
        let most = Workers::auto().max(2);
        let few =
            stage(orders(), server(Framing::Frames, &[])).workers(most).discard().run().unwrap();
        assert!(few.stages[0].workers_range.1 <= 2, "{:?}", few.stages[0].workers_range);
        assert_nothing_left();
    });
}

#[test]
fn b25_r64_workers_that_are_one_too_many_finish_what_they_have_and_end_half_a_minute_later() {
    limited(|| {
        let folder = tempfile::tempdir().unwrap();
        let fifos: Vec<_> = (0..4).map(|n| folder.path().join(n.to_string())).collect();
        for fifo in &fifos {
            mknodat(CWD, fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        }
        let (order, orders) = mpsc::channel::<String>();
        let clock = Clock::manual();
        let answers = Arc::new(Mutex::new(Vec::new()));
        let pipeline = Pipeline::from_iter(orders)
            .serve("serve", server(Framing::Lines, &[]), Text)
            .queue(8)
            .clock(&clock)
            .for_each({
                let answers = answers.clone();
                move |answer: String| answers.lock().unwrap().push(answer)
            });
        let monitor = pipeline.monitor();
        monitor.set_workers("serve", 4);
        let running = thread::spawn(move || pipeline.run().unwrap());
        for fifo in &fifos {
            order.send(format!("read {}", fifo.display())).unwrap();
        }
        // A FIFO opens when the other end does: all four have theirs in hand then.
        let open: Vec<_> = fifos
            .iter()
            .map(|fifo| fs::OpenOptions::new().write(true).open(fifo).unwrap())
            .collect();
        assert_eq!(children(), 4);
        monitor.set_workers("serve", 2);
        for (number, mut end) in open.into_iter().enumerate() {
            end.write_all(number.to_string().as_bytes()).unwrap();
        }
        until(|| answers.lock().unwrap().len() == 4);
        let mut all = answers.lock().unwrap().clone();
        all.sort();
        assert_eq!(all, ["0", "1", "2", "3"], "nothing is lost");
        assert_eq!(children(), 4, "they may be needed again");
        // The loop takes note of the surplus when it next has something to do.
        order.send("say a".to_owned()).unwrap();
        until(|| answers.lock().unwrap().len() == 5);
        clock.advance(Duration::from_secs(31));
        until(|| children() == 2);
        order.send("say b".to_owned()).unwrap();
        until(|| answers.lock().unwrap().len() == 6);
        drop(order);
        let summary = running.join().unwrap();
        assert!(summary.is_complete(), "{summary}");
        assert_eq!(summary.stages[0].workers, 2);
        assert_nothing_left();
    });
}

/// Waits until `is_so`: what is waited for is a process, and tells nobody here.
fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        thread::yield_now();
    }
}
