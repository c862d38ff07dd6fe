//! Signals, and that nothing is left running whatever comes.

use rustix::process::Signal;

use crate::support::World;

/// Jobs that say that they have started, and then wait for ever.
const WAITING: &str = "[[stage]]\nname = \"s\"\nworkers = 2\n\
    shell = \"echo half; touch started{#}; read x < gate\"\nto = \"made/{}\"\n";

fn waiting() -> World {
    let world = World::with(WAITING);
    world.fifo("gate");
    world
}

#[test]
fn the_first_signal_stops_the_jobs_and_is_raised_again() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let world = waiting();
        let mut run = world.run(["a", "b", "c"]).start();
        run.until("the jobs' start", || world.has("started1") && world.has("started2"));
        run.signal(signal);
        let ended = run.end().ends_by(signal).counts(3, 0, 0, 3).says("stopping the jobs");
        assert!(ended.stdout.is_empty());
        assert!(world.list("made").is_empty());
    }
}

#[test]
fn a_shell_sees_the_signal() {
    let world = waiting();
    let mut run = world
        .sh("\"$PACELINE\" run p.toml a & pid=$!; echo $pid > pid; wait $pid; echo $?")
        .start();
    run.until("the job's start", || world.has("started1"));
    let pid = world.read("pid").trim().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::TERM)
        .unwrap();
    assert_eq!(run.end().exits(0).lines(), ["143"]);
}

#[test]
fn a_second_signal_kills_at_once() {
    let world = World::with(
        "[[stage]]\nname = \"s\"\ngrace = \"100s\"\n\
         shell = \"trap 'touch asked' TERM; touch started; while true; do sleep 0.05; done\"",
    );
    let mut run = world.run(["a"]).start();
    run.until("the job's start", || world.has("started"));
    run.signal(Signal::INT);
    run.until("the job's TERM", || world.has("asked"));
    run.signal(Signal::TERM);
    run.end().ends_by(Signal::INT).counts(1, 0, 0, 1);
}

#[test]
fn a_job_that_ignores_term_is_killed_after_its_grace() {
    let world = World::with(
        "[[stage]]\nname = \"s\"\ngrace = \"200ms\"\n\
         shell = \"trap '' TERM INT HUP; (setsid sleep 100 &); touch started; sleep 100; sleep 100\"",
    );
    let mut run = world.run(["a"]).start();
    run.until("the job's start", || world.has("started"));
    run.signal(Signal::TERM);
    run.end().ends_by(Signal::TERM).counts(1, 0, 0, 1);
}

#[test]
fn a_signal_reaches_a_run_whose_source_is_silent() {
    let world = World::with("[[stage]]\nname = \"s\"\nrun = \"touch\"");
    let mut run = world.run([""; 0]).open_input().start();
    let mut input = run.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"a\nhalf an item").unwrap();
    run.until("the first job", || world.has("a"));
    run.signal(Signal::INT);
    run.end().ends_by(Signal::INT);
    drop(input);
}

#[test]
fn a_signal_ends_the_sources_command_too() {
    let world = World::with(
        "[source]\ncommand = \"sh -c 'echo a; sleep 100'\"\n[[stage]]\nname = \"s\"\nrun = \"touch\"",
    );
    let mut run = world.run([""; 0]).start();
    run.until("the first job", || world.has("a"));
    run.signal(Signal::INT);
    run.end().ends_by(Signal::INT);
}

#[test]
fn usr1_asks_for_a_line() {
    let world = waiting();
    let mut run = world.sh("exec \"$PACELINE\" run p.toml a 2> said").start();
    run.until("the job's start", || world.has("started1"));
    run.signal(Signal::USR1);
    run.until("a status line", || world.read("said").contains("1 in, 0 ok | s 0 (+1)\n"));
    run.signal(Signal::INT);
    run.end().ends_by(Signal::INT);
}

#[test]
fn usr2_finishes_what_was_taken_and_takes_nothing_more() {
    let world = waiting();
    let mut run = world.run([""; 0]).open_input().start();
    let mut input = run.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"a\nb\n").unwrap();
    run.until("the jobs' start", || world.has("started1") && world.has("started2"));
    run.signal(Signal::USR2);
    // Both readers are there, or come; each takes what is for it.
    let gate = std::fs::File::options().read(true).write(true).open(world.path("gate")).unwrap();
    std::io::Write::write_all(&mut &gate, b"go\ngo\n").unwrap();
    let ended = run.end().exits(3).counts(2, 2, 0, 0);
    drop(input);
    assert_eq!(ended.lines().len(), 2);
}

#[test]
fn a_drain_lets_go_of_a_wait_for_a_retry_in_its_time() {
    let world = World::with(
        "[[stage]]\nname = \"s\"\nshell = \"touch tried; test -e pass\"\n\
         retry = { times = 1000, backoff = \"10ms\", factor = 1 }",
    );
    let mut run = world.run(["a"]).start();
    run.until("the first attempt", || world.has("tried"));
    run.signal(Signal::USR2);
    world.write("pass", "");
    run.end().exits(0).counts(1, 1, 0, 0);
}

#[test]
fn hup_is_ignored_where_it_was_ignored_at_the_start() {
    let world = waiting();
    let mut run = world.sh("trap '' HUP; exec \"$PACELINE\" run p.toml a").start();
    run.until("the job's start", || world.has("started1"));
    run.signal(Signal::HUP);
    run.signal(Signal::USR1);
    std::fs::write(world.path("gate"), "go\n").unwrap();
    run.end().exits(0).counts(1, 1, 0, 0).says_not("stopping");
}

#[test]
fn a_signal_while_waiting_for_a_retry_ends_the_run_at_once() {
    let world = World::with(
        "[[stage]]\nname = \"s\"\nshell = \"touch tried; exit 1\"\nretry = { times = 9, backoff = \"1h\" }",
    );
    let mut run = world.run(["a"]).start();
    run.until("the first attempt", || world.has("tried"));
    run.signal(Signal::INT);
    run.end().ends_by(Signal::INT).counts(1, 0, 0, 1);
}
