//! Limits: workers, time, attempts, failures, and those of the system.

use std::{fs, io::Write};

use crate::{World, numbers};

#[test]
fn numbers_that_make_no_sense_are_usage_errors() {
    let world = World::new();
    let refused = |words: &[&str]| {
        world.each(words.iter().chain(&["touch", "ran", ":::", "x"])).end().exits(2);
        assert!(!world.has("ran"), "{words:?}");
    };
    for width in ["0", "-1", "x", "", "0%", "-5%", "1.5", "%", "99999999999999999999"] {
        refused(&["-j", width]);
        refused(&["--then", "true", "--then-workers", width]);
    }
    for number in ["0", "-1", "x"] {
        refused(&["-n", number]);
    }
    for time in ["0", "0s", "x", "-1s", "5 parsecs"] {
        refused(&["--timeout", time]);
    }
    for halt in ["later", "now,fail=0", "soon,fail=0%", "soon,fail=101%", "now,3"] {
        refused(&["--halt", halt]);
    }
    refused(&["-I", ""]);
    refused(&["--retries", "-1"]);
    refused(&["--backoff", "x"]);
    refused(&["--grace", "x"]);
    refused(&["--progress", "sometimes"]);
    refused(&["--no-such-option"]);
}

#[test]
fn as_many_jobs_run_at_once_as_workers_say() {
    let world = World::new();
    let script = "mkdir one-$1; while test $(ls -d one-* | wc -l) -lt 3; do sleep 0.01; done";
    world.each(["-j3", "sh", "-c", script, "sh", ":::", "a", "b", "c"]).end().exits(0);
    let script = "mkdir only && sleep 0.01 && rmdir only";
    world.each(["-j1", "sh", "-c", script]).input(numbers(5)).end().exits(0);
    for width in ["auto", "100%", "0.1%", "1000%"] {
        world.each(["-j", width, "true", ":::", "x"]).end().exits(0);
    }
}

#[test]
fn r52_17_the_report_says_which_process_failed_how_and_after_how_long() {
    let world = World::new();
    let script =
        "test $1 != slow || sleep 9; test $1 != bad || exit 7; test $1 != hit || kill -9 $$";
    let words = ["-k", "--json", "--timeout", "300ms", "--grace", "1s", "sh", "-c", script, "sh"];
    let items = [":::", "good", "slow", "bad", "hit"];
    let ended = world.each(words.iter().chain(&items)).end().exits(1);
    let told = ended.json();
    let brief = |index: usize| {
        let (item, error) = (&told[index], &told[index]["error"]);
        format!("{} {} {} {}", item["in"], error["kind"], error["code"], error["signal"])
    };
    assert_eq!(brief(0), r#""good" null null null"#);
    assert_eq!(brief(1), r#""slow" "timeout" null null"#);
    assert_eq!(brief(2), r#""bad" "exit" 7 null"#);
    assert_eq!(brief(3), r#""hit" "signal" null 9"#);
    let ms = |index: usize| told[index]["stages"][0]["ms"].as_f64().unwrap();
    assert!(ms(1) >= 300.0 && ms(1) < 1300.0 + 1000.0, "{}", ms(1));
}

#[test]
fn a_job_that_ignores_the_asking_is_killed_after_the_grace() {
    let world = World::new();
    let script = "trap 'echo asked' TERM; while :; do sleep 0.1; done";
    let words =
        ["--json", "--timeout", "200ms", "--grace", "300ms", "sh", "-c", script, ":::", "x"];
    let ended = world.each(words).end().exits(1);
    assert_eq!(ended.json()[0]["error"]["kind"], "timeout");
    let words = ["--timeout", "200ms", "--grace", "300ms", "sh", "-c", script, ":::", "x"];
    assert_eq!(world.each(words).end().exits(1).text(), "asked\n");
    let words =
        ["--timeout", "0.2", "--grace", "0", "sh", "-c", "trap '' TERM; sleep 9", ":::", "x"];
    world.each(words).end().exits(1);
    world.each(["--timeout", "1h", "true", ":::", "x"]).end().exits(0);
}

#[test]
fn retries_are_extra_attempts() {
    let world = World::new();
    let script = "echo >>tries-$1; test $(wc -l <tries-$1) -gt $1";
    let words = ["--json", "--retries", "2", "--backoff", "1ms", "sh", "-c", script, "sh"];
    let ended = world.each(words).input("0\n1\n2\n3\n").end().exits(1).counts(4, 3, 1, 0);
    let attempts: Vec<_> =
        ended.json().iter().map(|object| object["attempts"].as_u64().unwrap()).collect();
    assert_eq!(attempts, [1, 2, 3, 3]);
    assert_eq!(world.read("tries-3").len(), 3);
    ended.says("(after 3 attempts)");
    // What cannot be started is not tried again.
    let ended = world.each(["--json", "--retries", "5", "no-such-program", ":::", "x"]).end();
    assert_eq!(ended.exits(1).json()[0]["attempts"], 1);
}

#[test]
fn a_wait_for_another_attempt_frees_the_slot() {
    let world = World::new();
    let script = "case $1 in a) test -e b-was-here;; b) touch b-was-here;; esac";
    let words = ["-j1", "--retries", "1", "--backoff", "1s", "sh", "-c", script, "sh"];
    world.each(words).input("a\nb\n").end().exits(0);
}

#[test]
fn failures_stop_the_run_when_there_are_enough() {
    let world = World::new();
    let counted = |halt: &str, script: &str| {
        let words = ["-j1", "--halt", halt, "sh", "-c", script, "sh"];
        world.each(words).input(numbers(200)).end().exits(3).account().unwrap()
    };
    for how in ["soon", "now"] {
        assert_eq!(counted(how, "test $1 != 3")[1..3], [2, 1]);
        assert_eq!(counted(&format!("{how},fail=3"), "test $1 -lt 5")[1..3], [4, 3]);
        // What came through is counted when it is printed, some time after its job has ended.
        let [_, ok, failed, _] = counted(&format!("{how},fail=20%"), "test $(($1 % 5)) != 0");
        assert!(
            (2..20).contains(&failed) && (8..100).contains(&ok),
            "{how}: {ok} ok, {failed} failed"
        );
        // Too few have been answered for a share to mean anything.
        assert_eq!(counted(&format!("{how},fail=100%"), "false")[1..3], [0, 10]);
    }
    let words = ["--halt", "now,fail=3", "false", ":::", "a", "b"];
    world.each(words).end().exits(1).counts(2, 0, 2, 0);
    world.each(["--halt", "now", "true", ":::", "a", "b"]).end().exits(0);
    world.each(["-j1", "--halt", "now", "false", ":::", "a"]).end().exits(1).counts(1, 0, 1, 0);
}

#[test]
fn a_halt_now_stops_what_runs_and_a_halt_soon_does_not() {
    let world = World::new();
    let script = "case $1 in a) touch runs; sleep $2; touch done-$3;; \
                  *) while ! test -e runs; do sleep 0.01; done; exit 1;; esac";
    let scripted = |how, sleep| {
        let mut run =
            world.each(["-j2", "--halt", how, "sh", "-c", script, "sh", "{}", sleep, how]);
        run = run.input("a\nb\n");
        run.end()
    };
    scripted("soon", "0.3").exits(1).counts(2, 1, 1, 0);
    assert!(world.has("done-soon"));
    scripted("now", "100").exits(3).counts(2, 0, 1, 1);
    assert!(!world.has("done-now"));
}

#[test]
fn few_descriptors_make_fewer_jobs_and_no_failures() {
    let world = World::new();
    for limit in ["--nofile=64", "--nofile=30"] {
        let script = format!("seq 1000 | prlimit {limit} \"$PACELINE\" each -j100 echo");
        let ended = world.sh(&script).end().exits(0);
        let mut numbers: Vec<u32> =
            ended.lines().iter().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=1000).collect::<Vec<_>>());
        ended.says("at once and not 100").says("ulimit -n");
    }
}

#[test]
fn a_job_waits_where_descriptors_are_lacking_for_a_moment() {
    let world = World::new();
    // Fewer than the estimate of what is open thinks are left.
    let script = "exec 3</dev/null 4<&3 5<&3 6<&3 7<&3 8<&3 9<&3; ulimit -n 44; \
                  seq 100 | \"$PACELINE\" each --line-buffered -j3 echo 9<&3 3<&9";
    let ended = world.sh(script).end().exits(0);
    assert_eq!(ended.lines().len(), 100);
}

#[test]
fn two_thousand_jobs_at_once_take_a_handful_of_threads() {
    const JOBS: usize = 2000;
    let world = World::new();
    world.fifo("gate");
    let script = "prlimit --nofile=10000 \"$PACELINE\" each -j2000 --shell 'read x <gate' <items & \
                  echo $! >pid; wait $!";
    world.write("items", numbers(JOBS as u32));
    let mut started = world.sh(script).start();
    let mut pid = String::new();
    let children = |pid: &str| -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", pid.trim())).into_iter().flatten();
        let lists = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")));
        lists.map(|list| list.unwrap_or_default().split_whitespace().count()).sum()
    };
    started.until("all jobs", || {
        pid = world.read("pid");
        children(&pid) >= JOBS
    });
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
    let number = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    assert!(number("Threads:") < 20, "{status}");
    assert!(number("VmHWM:") < 150 << 10, "{status}");
    let mut gate = world.gate("gate");
    gate.write_all(&vec![b'\n'; JOBS]).unwrap();
    started.end().exits(0);
}
