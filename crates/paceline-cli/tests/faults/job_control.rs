//! Ctrl-Z and back.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    MOMENT,
    hostile::open,
    pause, repeated, say, state,
    support::{Started, World},
    watched,
};

fn pid(run: &Started<'_>) -> i32 {
    i32::try_from(run.child.id()).unwrap()
}

/// All of the family but the runner and its guard.
fn jobs(world: &World, runner: i32) -> Vec<i32> {
    let mut family = world.family();
    family.retain(|other, line| *other != runner && !line.contains("__guard"));
    family.into_keys().collect()
}

/// Waits for the end of a process that takes so long.
fn wait_for(seconds: &str) {
    assert!(std::process::Command::new("sleep").arg(seconds).status().unwrap().success());
}

#[test]
fn jobs_and_timeouts_stand_still_with_the_run() {
    watched(|| {
        let world = World::new();
        world.fifo("gate");
        let script = "touch up$1; sleep 1000 & read x < gate; kill $!; echo $1";
        let each = ["each", "-j2", "--timeout", "2", "sh", "-c", script, "sh", ":::", "1", "2"];
        let mut run = world.paceline(each).start();
        let runner = pid(&run);
        run.until("the start", || {
            world.has("up1") && world.has("up2") && jobs(&world, runner).len() == 4
        });
        let since = Instant::now();
        run.signal(Signal::TSTP);
        let stopped =
            || jobs(&world, runner).iter().chain([&runner]).all(|pid| state(*pid) == Some('T'));
        while !stopped() {
            assert!(since.elapsed() < Duration::from_secs(5), "not all stopped");
            pause(MOMENT);
        }
        let took = since.elapsed();
        say(&format!("stopped after {took:?}"));
        assert!(took < Duration::from_millis(500), "stopped after {took:?}");
        wait_for("3");
        assert!(stopped(), "something goes on by itself");
        run.signal(Signal::CONT);
        open(&world, "gate");
        open(&world, "gate");
        let ended = run.end().exits(0);
        assert_eq!(ended.sorted(), ["1", "2"]);
    });
}

#[test]
fn a_timeout_goes_on_where_it_stood() {
    watched(|| {
        let world = World::new();
        let script = "touch up; exec sleep 1000";
        let each = ["each", "--json", "--timeout", "1", "sh", "-c", script, "sh", ":::", "1"];
        let mut run = world.paceline(each).start();
        run.until("the start", || world.has("up"));
        run.signal(Signal::TSTP);
        let runner = pid(&run);
        run.until("the stop", || state(runner) == Some('T'));
        wait_for("1.5");
        let since = Instant::now();
        run.signal(Signal::CONT);
        let ended = run.end().exits(1);
        assert_eq!(ended.json()[0]["error"]["kind"], "timeout");
        let took = since.elapsed();
        assert!(took > Duration::from_millis(200), "it was as good as over: {took:?}");
    });
}

#[test]
fn a_run_that_is_stopped_again_and_again_while_it_starts_jobs_is_not_disturbed() {
    watched(|| {
        repeated(|| {
            let world = World::new();
            let items: Vec<String> = (0..300).map(|item| item.to_string()).collect();
            // The first job waits, lest all are done before this test has its turn.
            world.fifo("gate");
            let script = "test $1 != 0 || { touch up; read x < gate; }; echo $1";
            let mut arguments = vec!["each", "-j4", "sh", "-c", script, "sh", ":::"];
            arguments.extend(items.iter().map(String::as_str));
            let mut run = world.paceline(arguments).start();
            let runner = pid(&run);
            run.until("the start", || world.has("up"));
            let mut stops = 0;
            while stops < 50 && run.child.try_wait().unwrap().is_none() {
                run.signal(Signal::TSTP);
                let since = Instant::now();
                while state(runner).is_some_and(|state| state != 'T' && state != 'Z') {
                    assert!(since.elapsed() < Duration::from_secs(10), "it does not stop");
                    pause(MOMENT);
                }
                stops += 1;
                run.signal(Signal::CONT);
                if stops == 1 {
                    open(&world, "gate");
                }
                // So that it gets a bit further each time.
                pause(MOMENT);
            }
            say(&format!("stopped {stops} times"));
            assert_eq!(run.end().exits(0).lines().len(), 300);
        });
    });
}

#[test]
fn a_stopped_run_can_be_ended() {
    watched(|| {
        let world = World::new();
        let script = "touch up; exec sleep 1000";
        let mut run = world.paceline(["each", "sh", "-c", script, ":::", "1"]).start();
        run.until("the start", || world.has("up"));
        run.signal(Signal::TSTP);
        let runner = pid(&run);
        run.until("the stop", || state(runner) == Some('T'));
        // As shells do it: what is stopped must go on to end.
        run.signal(Signal::TERM);
        run.signal(Signal::CONT);
        run.end().ends_by(Signal::TERM).counts(1, 0, 0, 1);
    });
}
