//! A reader that goes away, a full device, and memory that stays flat.

use std::fs::File;

use rustix::process::Signal;

use crate::support::World;

#[test]
fn a_reader_that_has_enough_ends_the_run_by_sigpipe() {
    let world =
        World::with("[[stage]]\nname = \"s\"\nshell = \"echo >> jobs; echo {}\"\nworkers = 2");
    let script = "set -o pipefail; yes | \"$PACELINE\" run p.toml | head -1; echo ${PIPESTATUS[1]}";
    let ended = world.program("bash", ["-c", script]).end();
    assert_eq!(ended.lines(), ["y", "141"], "{}", ended.stderr);
    assert!(world.read("jobs").lines().count() < 100);
}

#[test]
fn a_reader_that_goes_away_while_jobs_are_silent_ends_them() {
    let world = World::with(
        "[[stage]]\nname = \"s\"\nshell = \"trap '' TERM; touch started; sleep 100; sleep 100\"\ngrace = \"100s\"",
    );
    let (reader, writer) = std::io::pipe().unwrap();
    let mut run = world.run(["x"]).stdout(writer).start();
    run.until("the job's start", || world.has("started"));
    let before = std::time::Instant::now();
    drop(reader);
    run.end().ends_by(Signal::PIPE).counts(1, 0, 0, 1);
    assert!(before.elapsed().as_secs() < 8);
}

#[test]
fn a_reader_that_is_gone_from_the_start_lets_nothing_be_printed() {
    let world = World::with("[[stage]]\nname = \"s\"\nrun = \"echo\"");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    world.run(["x"]).stdout(writer).end().ends_by(Signal::PIPE);
}

#[test]
fn a_signal_ends_the_run_though_nobody_reads_its_results() {
    let world =
        World::with("[[stage]]\nname = \"s\"\nshell = \"touch started; head -c 200000 /dev/zero\"");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut run = world.run(["x", "y", "z"]).stdout(writer).start();
    // A full pipe cannot be seen from here, but its first bytes can.
    run.until("the first result", || has_input(&reader));
    run.signal(Signal::INT);
    run.end().ends_by(Signal::INT);
}

fn has_input(reader: &std::io::PipeReader) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [rustix::event::PollFd::new(reader, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

#[test]
fn a_full_device_is_an_error_of_its_own() {
    let world = World::with("[[stage]]\nname = \"s\"\nshell = \"echo >> jobs; echo\"\nworkers = 1");
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let items: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    for json in [&[][..], &["--json".to_owned()]] {
        let ended = world.run(items.iter().chain(json)).stdout(full()).end().exits(4);
        ended.says("error: could not write to standard output: no space left on device");
    }
    assert!(world.read("jobs").lines().count() < 200);
    for arguments in [&["check", "p.toml"][..], &["man"], &["completions", "bash"]] {
        world.paceline(arguments).stdout(full()).end().exits(4).says("standard output");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        world.paceline(arguments).stdout(writer).end().ends_by(Signal::PIPE);
    }
}

#[test]
fn a_run_without_standard_streams_still_does_its_work() {
    let world = World::with("[[stage]]\nname = \"s\"\nshell = \"touch {}; echo done\"");
    world.sh("exec \"$PACELINE\" run p.toml made <&- 2>&-").end().exits(0);
    assert!(world.has("made"));
    std::fs::remove_file(world.path("made")).unwrap();
    // The result has nowhere to go, which is an error and not a success.
    world.sh("exec \"$PACELINE\" run p.toml made <&- >&- 2>&-").end().exits(4);
    assert!(world.has("made"));
}

#[test]
fn memory_is_flat_however_many_items_wait_before_a_slow_sink() {
    // No job runs: every item fails in a built-in stage before any work.
    let world = World::with("[[stage]]\nname = \"s\"\nput = \"file:out/{}\"\n");
    let script =
        "yes ../leads/out/of/the/folder | head -200000 | \"$PACELINE\" run p.toml --json -q";
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut run = world.sh(&format!("echo $$ > pid; {script} & wait $!")).stdout(writer).start();
    let mut peak = 0;
    let mut lines = 0;
    let mut buffer = [0; 1 << 16];
    run.until("the pid", || world.read("pid").ends_with('\n'));
    loop {
        let read = std::io::Read::read(&mut reader, &mut buffer).unwrap();
        if read == 0 {
            break;
        }
        lines += buffer[..read].iter().filter(|byte| **byte == b'\n').count();
        if lines.is_multiple_of(64) {
            peak = peak.max(most_memory(&world));
        }
    }
    run.end();
    assert_eq!(lines, 200_000);
    assert!(peak > 0 && peak < 40 << 10, "{peak} KiB");
}

fn most_memory(world: &World) -> u64 {
    let family = world.family();
    let ours = family.iter().filter(|(_, line)| line.contains("run p.toml --json -q"));
    ours.filter_map(|(pid, _)| std::fs::read_to_string(format!("/proc/{pid}/status")).ok())
        .filter_map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.to_owned();
            line.trim().trim_end_matches(" kB").parse().ok()
        })
        .max()
        .unwrap_or(0)
}
