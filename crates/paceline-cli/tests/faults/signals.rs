//! Signals at any moment, jobs ended by signals, and work that is overdue.

use std::{
    hash::{BuildHasher, RandomState},
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{pause, repeated, say, support::World, watched};

/// Numbers without a pattern that matters.
struct Random(u64);

impl Random {
    fn new() -> Self {
        let given = std::env::var("PACELINE_SEED").ok().and_then(|text| text.parse().ok());
        Self(given.unwrap_or_else(|| RandomState::new().hash_one(std::process::id())) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A job of a few milliseconds that leaves a process behind, and that may not
/// want to end.
const JOB: &str = "case $1 in *7) trap '' TERM; sleep 0.3;; *3) setsid sleep 1000 > /dev/null & ;; \
    *5) sleep 1000 > /dev/null & ;; esac; echo $1";

fn ended_at_a_random_moment(random: &mut Random, signal: Signal) {
    let world = World::new();
    let items: Vec<String> = (0..200).map(|item| item.to_string()).collect();
    let mut arguments = vec!["each", "-j4", "--grace", "0.3", "--progress", "never"];
    if random.below(2) == 0 {
        arguments.push("-k");
    }
    if random.below(2) == 0 {
        arguments.extend(["--then", "echo"]);
    }
    arguments.extend(["sh", "-c", JOB, "sh", ":::"]);
    arguments.extend(items.iter().map(String::as_str));
    let moment = Duration::from_micros(random.below(700_000));
    let run = world.paceline(arguments).start();
    pause(moment);
    let since = Instant::now();
    run.signal(signal);
    let ended = run.end();
    let took = since.elapsed();
    if ended.code == Some(0) {
        assert_eq!(ended.lines().len(), 200, "{moment:?}");
        return;
    }
    let ended = ended.ends_by(signal);
    let limit = Duration::from_millis(1300) + Duration::from_secs(2);
    assert!(took < limit, "{moment:?}: {took:?}");
    match ended.account() {
        // `end` has seen that it adds up. What it calls ok has been printed.
        Some([taken, ok, failed, _]) => {
            assert!(taken <= 200, "{moment:?}");
            assert_eq!(
                (ended.lines().len() as u64, failed),
                (ok, 0),
                "{moment:?}: {}",
                ended.stderr
            );
        }
        // It had not begun.
        None => assert!(ended.stderr.is_empty(), "{moment:?}: {}", ended.stderr),
    }
    let alive = world.family();
    let alive: Vec<_> = alive.values().filter(|line| !line.contains("__guard")).collect();
    assert!(alive.is_empty(), "{moment:?}: {alive:?}");
}

#[test]
fn a_run_can_be_interrupted_at_any_moment() {
    watched(|| {
        repeated(|| {
            let mut random = Random::new();
            say(&format!("PACELINE_SEED={}", random.0));
            for _ in 0..40 {
                ended_at_a_random_moment(&mut random, Signal::INT);
            }
        });
    });
}

#[test]
fn a_runner_can_be_killed_at_any_moment() {
    watched(|| {
        repeated(|| {
            let mut random = Random::new();
            say(&format!("PACELINE_SEED={}", random.0));
            let mut worst = Duration::ZERO;
            for _ in 0..20 {
                let world = World::new();
                let items: Vec<String> = (0..200).map(|item| item.to_string()).collect();
                let mut arguments = vec!["each", "-j4", "sh", "-c", JOB, "sh", ":::"];
                arguments.extend(items.iter().map(String::as_str));
                let run = world.paceline(arguments).start();
                pause(Duration::from_micros(random.below(500_000)));
                run.signal(Signal::KILL);
                let since = Instant::now();
                while !world.family().is_empty() {
                    let left = world.family();
                    assert!(since.elapsed() < Duration::from_secs(3), "left: {left:?}");
                    pause(crate::MOMENT);
                }
                worst = worst.max(since.elapsed());
                run.end();
            }
            say(&format!("nothing lives after at most {worst:?}"));
        });
    });
}

#[test]
fn a_job_ended_by_a_signal_is_told_and_frees_its_slot() {
    watched(|| {
        let world = World::new();
        let script = "ulimit -c 0; case $1 in ok*) ;; *) kill -$1 $$ ;; esac; echo $1";
        let each = ["each", "-j1", "--json", "--retries", "1", "sh", "-c", script, "sh", ":::"];
        let items = ["SEGV", "ok1", "ABRT", "ok2", "KILL", "ok3", "PIPE", "ok4"];
        let objects = world.paceline(each.into_iter().chain(items)).end().exits(1).json();
        for (object, item) in objects.iter().zip(items) {
            match item {
                "SEGV" | "ABRT" | "KILL" | "PIPE" => {
                    let number = match item {
                        "SEGV" => 11,
                        "ABRT" => 6,
                        "KILL" => 9,
                        _ => 13,
                    };
                    assert_eq!(object["error"]["kind"], "signal", "{object}");
                    assert_eq!(object["error"]["signal"], number, "{object}");
                    assert_eq!(object["error"]["code"], serde_json::Value::Null, "{object}");
                    assert_eq!(object["attempts"], 2, "{object}");
                }
                _ => assert_eq!(object["status"], "ok", "{object}"),
            }
        }
        assert_eq!(objects.len(), 8);
    });
}

#[test]
fn a_slot_of_a_killed_job_is_given_to_the_next() {
    watched(|| {
        let world = World::new();
        // Each of both slots loses ten jobs; the slots are two to the end.
        let script = "kill -KILL $$";
        let items: Vec<String> = (0..20).map(|item| item.to_string()).collect();
        let mut arguments = vec!["each", "-j2", "-q", "sh", "-c", script, "sh"];
        arguments.push(":::");
        arguments.extend(items.iter().map(String::as_str));
        world.paceline(arguments).end().exits(1);
    });
}

/// A thread cannot be killed, and an image is worked on by one.
#[test]
fn work_that_cannot_be_killed_is_told_as_overdue() {
    watched(|| {
        let world = World::with(
            "[[stage]]\nname = \"small\"\nresize = { width = 10 }\nto = \"out/small.png\"\n\
             timeout = \"1ms\"\n",
        );
        let image =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/photos/originals/rocket.jpg");
        let ended = world.run([image]).end().says("overdue: ").says("rocket.jpg");
        ended.says("stage `small` takes longer than 1ms and cannot be interrupted").says("in 1 = ");
    });
}
