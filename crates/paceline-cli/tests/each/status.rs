//! How the program ends, and what it says on standard error.

use rustix::process::Signal;

use crate::{World, numbers};

#[test]
fn each_status_means_what_the_contract_says() {
    let world = World::new();
    world.each(["true", ":::", "a"]).end().exits(0);
    world.each(["true"]).input("").end().exits(0);
    world.each(["false", ":::", "a"]).end().exits(1);
    world.each::<&str>([]).end().exits(2).says("no command").says("hint: ");
    world.each([":::", "a"]).end().exits(2).says("no command").says("hint: ");
    world.each(["", ":::", "a"]).end().exits(2);
    world.each([" ", ":::", "a"]).end().exits(2);
    let words = ["-j1", "--halt", "soon,fail=2", "false"];
    world.each(words).input(numbers(90)).end().exits(3);
    world.each(["--joblog", "/dev/full", "true", ":::", "a"]).end().exits(4);
}

#[test]
fn nothing_is_said_of_a_run_that_went_well() {
    let world = World::new();
    let ended = world.each(["true"]).input(numbers(3)).end().exits(0);
    assert_eq!(ended.stderr, "");
    let ended = world.each(["-q", "false"]).input(numbers(3)).end().exits(1);
    assert_eq!(ended.stderr, "");
    let ended = world.each(["-q", "sh", "-c", "echo e >&2; exit 1", ":::", "a"]).end().exits(1);
    assert_eq!(ended.stderr, "e\n");
}

#[test]
fn a_failure_is_told_at_once_and_summed_up_at_the_end() {
    let world = World::new();
    world.fifo("gate");
    let script = "case $1 in a) exit 3;; b) read x <gate;; esac";
    let words = ["-j1", "--then", "true", "sh", "-c", script, "sh", ":::", "a", "b"];
    let ended = world.sh("exec 2>err; exec \"$PACELINE\" each \"$@\"");
    let ended = words.iter().fold(ended.arg("each"), crate::Run::arg);
    let mut started = ended.start();
    started.until("the line", || world.read("err").contains("failed: a: stage `sh`: "));
    assert!(!world.read("err").contains("in 2 = "));
    use std::io::Write;
    let mut gate = world.gate("gate");
    gate.write_all(b"\n").unwrap();
    started.end().exits(1);
    let said = world.read("err");
    assert!(
        said.ends_with('\n') && said.contains("in 2 = ok 1 + failed 1 + unfinished 0, "),
        "{said}"
    );
    assert!(said.contains("bottleneck: `"), "{said}");
    let header = said.lines().find(|line| line.starts_with("stage ")).unwrap();
    let columns: Vec<_> = header.split_whitespace().collect();
    let expected =
        ["stage", "done", "failed", "retried", "workers", "busy", "waiting", "p50", "p99", "queue"];
    assert_eq!(columns, expected);
}

#[test]
fn a_display_is_shown_where_it_is_asked_for() {
    let world = World::new();
    let words = ["--progress", "always", "sleep", ":::", "1.2"];
    world.each(words).end().exits(0).says("sleep: 1 in, 0 ok");
    let words = ["-q", "--progress", "always", "sleep", ":::", "1.2"];
    assert_eq!(world.each(words).end().exits(0).stderr, "");
}

/// A job that has started says so by a file; the reader of it waits.
const WAITING: &str = "touch runs-$1; while :; do sleep 0.1; done";

#[test]
fn a_signal_stops_the_jobs_and_is_raised_again() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let world = World::new();
        let words = ["-j2", "sh", "-c", WAITING, "sh"];
        let mut started = world.each(words).input(numbers(10)).start();
        started.until("two jobs", || world.has("runs-1") && world.has("runs-2"));
        started.signal(signal);
        let ended = started.end().ends_by(signal);
        assert_eq!(ended.account().unwrap()[1..3], [0, 0]);
        assert!(!world.has("runs-3"));
    }
}

#[test]
fn a_second_signal_does_not_wait_for_the_grace() {
    let world = World::new();
    let script = "trap 'touch asked' TERM; touch runs; while :; do sleep 0.05; done";
    let words = ["--grace", "1h", "sh", "-c", script, ":::", "x"];
    let mut started = world.each(words).start();
    started.until("the job", || world.has("runs"));
    started.signal(Signal::INT);
    started.until("the asking", || world.has("asked"));
    started.signal(Signal::TERM);
    started.end().ends_by(Signal::INT);
}

#[test]
fn a_signal_kills_what_ignores_the_asking_after_the_grace() {
    let world = World::new();
    let script = "trap '' TERM; touch runs; while :; do sleep 0.05; done";
    let words = ["--grace", "200ms", "--line-buffered", "sh", "-c", script, ":::", "x"];
    let mut started = world.each(words).start();
    started.until("the job", || world.has("runs"));
    started.signal(Signal::TERM);
    started.end().ends_by(Signal::TERM);
}

#[test]
fn hang_ups_that_were_ignored_stay_ignored() {
    let world = World::new();
    let script = "trap '' HUP; exec \"$PACELINE\" each \"$@\"";
    let job = "touch runs; while ! test -e done; do sleep 0.01; done; echo end";
    let run = world.sh(script).arg("sh").arg("sh").arg("-c").arg(job).arg(":::").arg("x");
    let mut started = run.start();
    started.until("the job", || world.has("runs"));
    started.signal(Signal::HUP);
    world.write("done", "");
    assert_eq!(started.end().exits(0).text(), "end\n");
}

#[test]
fn a_drain_finishes_what_was_taken_and_takes_no_more() {
    let world = World::new();
    let job = "touch runs; while ! test -e done; do sleep 0.01; done; echo $1";
    let mut started = world.each(["-j1", "sh", "-c", job, "sh"]).open_input().start();
    let mut input = started.child.stdin.take().unwrap();
    use std::io::Write;
    input.write_all(b"a\n").unwrap();
    started.until("the job", || world.has("runs"));
    started.signal(Signal::USR1);
    started.signal(Signal::USR2);
    world.write("done", "");
    let ended = started.end().exits(3).counts(1, 1, 0, 0);
    assert_eq!(ended.text(), "a\n");
    ended.says("1 in, ");
    drop(input);
}

#[test]
fn help_names_every_option() {
    let world = World::new();
    let ended = world.each(["--help"]).end().exits(0);
    for option in [
        "--workers",
        "--ordered",
        "--then",
        "--then-workers",
        "--timeout",
        "--grace",
        "--retries",
        "--backoff",
        "--halt",
        "--tag",
        "--line-buffered",
        "--ungrouped",
        "--dry-run",
        "--joblog",
        "--json",
        "--progress",
        "--quiet",
        "--null",
        "--skip-empty",
        "--shell",
        "--stdin",
        "-I",
        "-n",
        "-a",
        ":::",
        "::::",
        ":::+",
        "::::+",
    ] {
        assert!(ended.text().contains(option), "{option}");
    }
}
