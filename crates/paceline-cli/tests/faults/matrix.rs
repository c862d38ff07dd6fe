//! Ten ways not to end, and every end that a job or its runner can come to.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    hostile::{Hostile, KINDS},
    repeated, say,
    support::Ended,
    watched,
};

/// As given by `--grace` below.
const GRACE: Duration = Duration::from_millis(500);

/// How much later than the grace period all must be over.
const MARGIN: Duration = Duration::from_secs(1);

/// What a machine with other things to do may take longer.
const SLACK: Duration = Duration::from_secs(2);

/// The times of one row of the matrix.
struct Row {
    ending: &'static str,
    times: Vec<(&'static str, Duration)>,
}

impl Row {
    fn new(ending: &'static str) -> Self {
        Self { ending, times: Vec::new() }
    }

    fn enter(&mut self, kind: &'static str, time: Duration) {
        self.times.push((kind, time));
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        let worst = self.times.iter().max_by_key(|(_, time)| *time);
        if let Some((kind, time)) = worst {
            let count = self.times.len();
            say(&format!("{}: {count} kinds, none left, at worst {time:?} ({kind})", self.ending));
        }
    }
}

/// Asserts that nothing lives when the runner has ended, and soon not its guard either.
#[track_caller]
fn nothing_lives(hostile: &Hostile, since: Instant, limit: Duration) -> Duration {
    let elapsed = since.elapsed();
    let survivors = hostile.survivors();
    assert!(survivors.is_empty(), "{}: survived the run: {survivors:?}", hostile.kind);
    assert!(elapsed < limit + SLACK, "{}: took {elapsed:?}", hostile.kind);
    hostile.await_nothing(Instant::now(), MARGIN + SLACK);
    elapsed
}

fn signalled(ending: &'static str, signal: Signal) {
    watched(move || {
        repeated(|| {
            let mut row = Row::new(ending);
            for kind in KINDS {
                let hostile = Hostile::new(kind);
                let mut run = hostile.each(&["--grace", "0.5"], &[]).start();
                run.until("the start", || hostile.is_up());
                let since = Instant::now();
                run.signal(signal);
                run.end().ends_by(signal).counts(1, 0, 0, 1);
                row.enter(kind, nothing_lives(&hostile, since, GRACE + MARGIN));
            }
        });
    });
}

#[test]
fn nothing_outlives_an_interrupted_run() {
    signalled("INT", Signal::INT);
}

#[test]
fn nothing_outlives_a_terminated_run() {
    signalled("TERM", Signal::TERM);
}

#[test]
fn nothing_outlives_a_run_whose_terminal_is_gone() {
    signalled("HUP", Signal::HUP);
}

#[test]
fn nothing_outlives_a_run_that_is_interrupted_twice() {
    watched(|| {
        repeated(|| {
            let mut row = Row::new("second INT");
            for kind in KINDS {
                let hostile = Hostile::new(kind);
                let mut run = hostile.each(&["--grace", "100"], &[]).start();
                run.until("the start", || hostile.is_up());
                let since = Instant::now();
                // Two at once may come to one.
                run.signal(Signal::INT);
                let mut ended = false;
                while !ended {
                    crate::pause(Duration::from_millis(50));
                    run.signal(Signal::INT);
                    ended = run.child.try_wait().unwrap().is_some();
                }
                run.end().ends_by(Signal::INT).counts(1, 0, 0, 1);
                row.enter(kind, nothing_lives(&hostile, since, MARGIN));
            }
        });
    });
}

#[test]
fn nothing_outlives_an_attempt_that_takes_too_long() {
    watched(|| {
        repeated(|| {
            let mut row = Row::new("timeout");
            for kind in KINDS {
                let hostile = Hostile::new(kind);
                let since = Instant::now();
                let options = ["--grace", "0.5", "--timeout", "0.7", "--json"];
                let ended = hostile.each(&options, &[]).end().exits(1);
                assert_eq!(ended.json()[0]["error"]["kind"], "timeout", "{kind}");
                assert!(!hostile.world.list("up").is_empty(), "{kind} had not begun");
                let limit = Duration::from_millis(700) + GRACE + MARGIN;
                row.enter(kind, nothing_lives(&hostile, since, limit));
            }
        });
    });
}

#[test]
fn nothing_outlives_a_run_that_halts_at_the_first_failure() {
    watched(|| {
        repeated(|| {
            let mut row = Row::new("--halt now");
            for kind in KINDS {
                let hostile = Hostile::new(kind);
                let options = ["-j2", "--grace", "0.5", "--halt", "now"];
                let mut run = hostile.each(&options, &["bad"]).start();
                run.until("the start", || hostile.is_up());
                let since = Instant::now();
                hostile.fail();
                run.end().exits(3).counts(2, 0, 1, 1);
                row.enter(kind, nothing_lives(&hostile, since, GRACE + MARGIN));
            }
        });
    });
}

#[test]
fn nothing_outlives_a_killed_runner() {
    watched(|| {
        repeated(|| {
            let mut row = Row::new("KILL of the runner");
            // The one left out leaves no trace; see `isolate.rs`.
            for kind in KINDS.into_iter().filter(|kind| *kind != "wiped") {
                let hostile = Hostile::new(kind);
                let mut run = hostile.each(&[], &[]).start();
                run.until("the start", || hostile.is_up());
                run.signal(Signal::KILL);
                let since = Instant::now();
                row.enter(kind, hostile.await_nothing(since, MARGIN + SLACK));
                run.end().ends_by(Signal::KILL);
            }
        });
    });
}

/// The one object of `--json`.
fn object(ended: &Ended) -> serde_json::Value {
    ended.json().remove(0)
}

#[test]
fn what_a_job_leaves_is_ended_with_it_and_is_no_leak_unless_it_holds_the_output() {
    watched(|| {
        repeated(|| {
            let mut row = Row::new("the normal end");
            // That one is its own leftover, and does not end.
            for kind in KINDS.into_iter().filter(|kind| *kind != "exec-chain") {
                let hostile = Hostile::new(kind);
                let mut run = hostile.each(&["--json"], &[]).start();
                run.until("the start", || hostile.is_up());
                let since = Instant::now();
                hostile.open_gate();
                let ended = run.end().exits(0);
                let object = object(&ended);
                assert_eq!(object["status"], "ok", "{kind}: {object}");
                assert_eq!(object["leaky"], kind == "holds-stdout", "{kind}: {object}");
                let elapsed = nothing_lives(&hostile, since, MARGIN);
                let drain = Duration::from_millis(200);
                assert!(
                    kind != "holds-stdout" || elapsed >= drain,
                    "what holds the output is waited for: {elapsed:?}"
                );
                row.enter(kind, elapsed);
            }
        });
    });
}
