//! Retries and timeouts: how often, how late, and what ends them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use paceline::{
    Attempt, Clock, Command, Failure, FailureKind, Fault, ItemId, Observer, Pipeline, Retry, Stop,
    StopLevel,
};

use paceline_tests::{Gate, Given, assert_conserved, millis, until, watched};

const SECOND: Duration = Duration::from_secs(1);

/// Counts the attempts at each item.
#[derive(Clone, Default)]
struct Attempts(Arc<Mutex<BTreeMap<u64, u32>>>);

impl Attempts {
    /// Notes one more, and returns its number.
    fn note(&self, item: u64) -> u32 {
        let mut attempts = self.0.lock().unwrap();
        let attempt = attempts.entry(item).or_default();
        *attempt += 1;
        *attempt
    }

    fn of(&self, item: u64) -> u32 {
        self.0.lock().unwrap().get(&item).copied().unwrap_or(0)
    }
}

#[test]
fn an_item_has_as_many_attempts_as_the_policy_gives() {
    watched(|| {
        for retry in [Retry::times(3), Retry::times(3).backoff(Duration::from_micros(100))] {
            let attempts = Attempts::default();
            // Item n succeeds at attempt n.
            let summary = Pipeline::from_iter(1..=6_u64)
                .blocking("try", |n| {
                    if u64::from(attempts.note(n)) >= n { Given::Ok(()) } else { Err("no".into()) }
                })
                .retry(retry)
                .run()
                .unwrap();
            assert_conserved(&summary);
            assert_eq!((summary.ok, summary.failed), (4, 2));
            assert_eq!([1, 2, 3, 4, 5, 6].map(|n| attempts.of(n)), [1, 2, 3, 4, 4, 4]);
            assert!(summary.failures.iter().all(|failure| failure.attempts() == 4));
            assert_eq!(summary.stages[0].retried, 1 + 2 + 3 + 3 + 3);
            assert_eq!(summary.stages[0].fed, 6, "an item that comes back is fed once");
        }
    });
}

#[test]
fn a_permanent_fault_is_not_tried_again() {
    watched(|| {
        let attempts = Attempts::default();
        let summary = Pipeline::from_iter([1])
            .cpu("try", |n| {
                attempts.note(n);
                Err::<(), _>(Fault::new(FailureKind::Io, "gone").permanent())
            })
            .retry(Retry::times(5))
            .run()
            .unwrap();
        assert_eq!((attempts.of(1), summary.stages[0].retried), (1, 0));
        assert_eq!(summary.failures[0].kind(), FailureKind::Io);
    });
}

#[test]
fn retries_wait_for_the_clock_and_longer_each_time() {
    watched(|| {
        let clock = Clock::manual();
        let attempts = Attempts::default();
        let noted = attempts.clone();
        let running =
            Pipeline::from_iter([7])
                .blocking("try", move |n| {
                    if noted.note(n) < 4 { Err("not yet".into()) } else { Given::Ok(()) }
                })
                .retry(Retry::times(3).backoff(SECOND).jitter(false))
                .clock(&clock)
                .discard()
                .start()
                .unwrap();
        for (made, wait) in [(1, 1), (2, 2), (3, 4)] {
            until("the retry waits", || clock.timers() == 1);
            assert_eq!(attempts.of(7), made);
            clock.advance(wait * SECOND - millis(1));
            assert_eq!(clock.timers(), 1, "not a moment too early");
            assert_eq!(attempts.of(7), made);
            clock.advance(millis(1));
        }
        assert_eq!(running.join().unwrap().ok, 1);
        assert_eq!((attempts.of(7), clock.timers()), (4, 0));
    });
}

#[test]
fn an_item_that_waits_for_its_retry_holds_no_worker() {
    watched(|| {
        let clock = Clock::manual();
        let attempts = Attempts::default();
        let noted = attempts.clone();
        let running = Pipeline::from_iter(1..=50)
            .blocking("try", move |n| {
                if n == 1 && noted.note(n) == 1 { Err("once".into()) } else { Given::Ok(()) }
            })
            .workers(1)
            .queue(2)
            .retry(Retry::times(1).backoff(SECOND).jitter(false))
            .clock(&clock)
            .discard()
            .start()
            .unwrap();
        until("all others are done", || running.progress().ok == 49);
        assert_eq!(clock.timers(), 1);
        clock.advance(SECOND);
        assert_eq!(running.join().unwrap().ok, 50);
    });
}

#[test]
fn more_items_may_wait_for_their_retry_than_the_queue_holds() {
    watched(|| {
        let attempts = Attempts::default();
        for io in [false, true] {
            let attempts = attempts.clone();
            let fails_twice = move |n: u64| {
                if attempts.note(n) % 3 == 0 { Given::Ok(n) } else { Err("again".into()) }
            };
            let numbers = Pipeline::from_iter(0..300);
            let staged = if io {
                let fails_twice = Arc::new(fails_twice);
                numbers.io("try", move |n| {
                    let fails_twice = fails_twice.clone();
                    async move { fails_twice(n) }
                })
            } else {
                numbers.blocking("try", fails_twice)
            };
            let (mut values, summary) = staged
                .workers(3)
                .queue(1)
                .retry(Retry::times(2).backoff(Duration::from_micros(200)))
                .collect()
                .unwrap();
            assert_conserved(&summary);
            values.sort_unstable();
            assert!(values.into_iter().eq(0..300));
            assert_eq!(summary.stages[0].retried, 600);
        }
    });
}

#[test]
fn retries_that_wait_when_the_run_is_stopped_are_unfinished_or_made_as_the_level_says() {
    watched(|| {
        for level in [StopLevel::Drain, StopLevel::Halt, StopLevel::Cancel, StopLevel::Kill] {
            let clock = Clock::manual();
            let stop = Stop::new();
            let attempts = Attempts::default();
            let (noted, gate) = (attempts.clone(), Gate::default());
            let full = gate.clone();
            let running = Pipeline::from_iter(1_u64..)
                .blocking("try", move |n| {
                    full.wait();
                    if noted.note(n) == 1 { Err("once".into()) } else { Given::Ok(()) }
                })
                .workers(2)
                .queue(4)
                .retry(Retry::times(1).backoff(SECOND).jitter(false))
                .clock(&clock)
                .stop(&stop)
                .discard()
                .start()
                .unwrap();
            until("queue, workers and source are full", || running.progress().taken == 7);
            gate.open();
            // Four wait in their places, two more with their workers.
            until("as many retries wait as can", || clock.timers() == 6);
            stop.rise(level);
            if level == StopLevel::Drain {
                until("all is done", || {
                    clock.advance(SECOND);
                    let progress = running.progress();
                    progress.ok == progress.taken
                });
            }
            let summary = running.join().unwrap();
            assert_conserved(&summary);
            assert_eq!(summary.stopped, level);
            if level == StopLevel::Drain {
                assert_eq!(summary.unfinished, 0);
            } else {
                assert_eq!((summary.ok, summary.failed), (0, 0));
                assert!(summary.unfinished >= 6);
            }
            assert_eq!(clock.timers(), 0, "no timer is left");
        }
    });
}

#[test]
fn a_retry_is_made_also_when_its_worker_became_one_too_many_at_the_end() {
    watched(|| {
        for _ in 0..20 {
            let clock = Clock::manual();
            let (held, gate) = (Gate::default(), Gate::default());
            let (tell, hold) = (held.clone(), gate.clone());
            let is_first = AtomicBool::new(true);
            let running = Pipeline::from_iter(0..2)
                .blocking("try", move |n| {
                    if n == 1 && is_first.swap(false, Ordering::SeqCst) {
                        tell.open();
                        hold.wait();
                        return Err("once".into());
                    }
                    Given::Ok(())
                })
                .workers(4)
                .retry(Retry::times(1).backoff(SECOND).jitter(false))
                .clock(&clock)
                .discard()
                .start()
                .unwrap();
            held.wait();
            until("the other item is done", || running.progress().ok == 1);
            running.monitor().set_workers("try", 1);
            gate.open();
            until("the retry waits, or the run has ended without it", || {
                clock.timers() == 1 || running.progress().unfinished == 1
            });
            clock.advance(SECOND);
            let summary = running.join().unwrap();
            assert_eq!((summary.ok, summary.unfinished), (2, 0));
        }
    });
}

/// Counts what is told about retries and overdue items.
#[derive(Default)]
struct Told {
    retrying: AtomicUsize,
    overdue: AtomicUsize,
}

impl Observer for Told {
    fn retrying(&self, _: &Failure, _: Duration) {
        self.retrying.fetch_add(1, Ordering::SeqCst);
    }

    fn overdue(&self, _: &ItemId, _: &str, _: Duration) {
        self.overdue.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_future_is_dropped_at_its_timeout_and_the_item_may_be_tried_again() {
    watched(|| {
        let clock = Clock::manual();
        let attempts = Attempts::default();
        let noted = attempts.clone();
        let (tell, dropped) = mpsc::channel();
        let running = Pipeline::from_iter([1])
            .io("wait", move |n| {
                let attempt = noted.note(n);
                let tell = tell.clone();
                async move {
                    if attempt > 1 {
                        return Given::Ok(());
                    }
                    let _told_on_drop = TellOnDrop(tell);
                    std::future::pending().await
                }
            })
            .timeout(SECOND)
            .retry(Retry::times(1))
            .clock(&clock)
            .discard()
            .start()
            .unwrap();
        until("it waits", || clock.timers() == 1);
        clock.advance(SECOND);
        dropped.recv().unwrap();
        assert_eq!(running.join().unwrap().ok, 1);
        assert_eq!(attempts.of(1), 2);
    });
}

struct TellOnDrop(mpsc::Sender<()>);

impl Drop for TellOnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn a_function_sees_its_timeout_and_fails_by_it_whatever_it_returns() {
    watched(|| {
        let clock = Clock::manual();
        let told = Arc::new(Told::default());
        let running = Pipeline::from_iter([1])
            .cpu("compute", |_| {
                while !paceline::is_cancelled() {
                    std::thread::yield_now();
                }
                Given::Ok(())
            })
            .timeout(SECOND)
            .clock(&clock)
            .observer(told.clone())
            .discard()
            .start()
            .unwrap();
        until("it computes", || clock.timers() == 1);
        clock.advance(SECOND);
        let summary = running.join().unwrap();
        assert_conserved(&summary);
        assert_eq!(summary.failures[0].kind(), FailureKind::Timeout);
        assert_eq!(told.overdue.load(Ordering::SeqCst), 1);
        assert!(!paceline::is_cancelled(), "outside a stage nothing is cancelled");
    });
}

#[test]
fn a_child_is_stopped_at_its_timeout_and_tried_again() {
    watched(|| {
        let told = Arc::new(Told::default());
        let summary = Pipeline::from_iter([1])
            .command("sleep", |_, attempt: &Attempt| {
                let seconds = if attempt.number() == 1 { "60" } else { "0" };
                Command::new("sleep").arg(seconds)
            })
            .timeout(millis(300))
            .retry(Retry::times(1))
            .observer(told.clone())
            .discard()
            .run()
            .unwrap();
        assert_eq!((summary.ok, told.retrying.load(Ordering::SeqCst)), (1, 1));
    });
}
