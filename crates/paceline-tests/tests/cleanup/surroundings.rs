//! F18: runners that were started badly, and what their jobs see of that.

use std::fs;
use std::time::Duration;

use super::support::{World, run};

/// Runs a keeper where `surroundings` has been before, a piece of a shell's
/// command line, and returns what it and a job of its saw.
fn state_in(world: &World, surroundings: &str) -> Vec<String> {
    let report = world.path_text("report");
    let _ = fs::remove_file(&report);
    let limit = Duration::from_secs(20);
    let output = world
        .sh(&format!("{surroundings} \"$0\" state"))
        .arg(env!("CARGO_BIN_EXE_keeper"))
        .env("KEEPER_REPORT", &report)
        .run_timeout(limit, limit)
        .unwrap();
    let report = fs::read_to_string(&report).unwrap_or_else(|error| error.to_string());
    let lines: Vec<String> = report.lines().map(ToOwned::to_owned).collect();
    assert_eq!(lines.len(), 10, "in `{surroundings}`: {}: {report}", output.exit());
    lines
}

fn mask(lines: &[String], name: &str) -> u64 {
    let line = lines.iter().find_map(|line| line.strip_prefix(&format!("{name}:\t")));
    u64::from_str_radix(line.unwrap(), 16).unwrap()
}

fn bit(signal: u64) -> u64 {
    1 << (signal - 1)
}

/// Ignored in whatever glibc's posix_spawn starts, for its own purposes.
const GLIBC: [u64; 2] = [32, 33];

/// Returns the ignored signals that are anybody's business.
fn ignored(lines: &[String]) -> u64 {
    mask(lines, "SigIgn") & !(bit(GLIBC[0]) | bit(GLIBC[1]))
}

#[test]
fn a_job_gets_clean_signals_and_three_descriptors_wherever_its_runner_was_started() {
    run(|world| {
        for surroundings in [
            "exec",
            "exec env --ignore-signal",
            "exec env --block-signal",
            "exec env --ignore-signal --block-signal",
            "trap '' INT QUIT TERM USR1 TSTP TTIN TTOU; exec",
            "exec 7</etc/passwd 8>/dev/null 9>&1; exec",
            "exec 7</etc/passwd; exec <&-; exec",
            "umask 777; exec",
            "unset HOME; exec",
            "mkdir -p gone && cd gone && rmdir ../gone; exec",
            "exec setsid -w",
        ] {
            let surroundings = format!("cd {}; {surroundings}", world.path_text(""));
            let lines = state_in(world, &surroundings);
            assert_eq!(mask(&lines, "SigBlk"), 0, "{surroundings}");
            assert_eq!(ignored(&lines), 0, "{surroundings}");
            assert_eq!(lines[6], "[0, 1, 2]", "{surroundings}");
            assert_eq!(lines[8], "signal 15 (SIGTERM)", "{surroundings}");
            assert_eq!(lines[9], "exit status 3", "{surroundings}");
        }
    });
}

#[test]
fn under_nohup_too_no_signal_is_ignored_in_a_job() {
    run(|world| assert_eq!(ignored(&state_in(world, "exec nohup")), 0));
}

#[test]
fn closed_standard_streams_are_remembered() {
    run(|world| {
        let cases = [
            ("exec", [false; 3]),
            ("exec <&-; exec", [true, false, false]),
            ("exec >&-; exec", [false, true, false]),
            ("exec 2>&-; exec", [false, false, true]),
            ("exec <&- >&- 2>&-; exec", [true; 3]),
            // Nowhere is not closed, whichever way it has been opened.
            ("exec >/dev/null 2<>/dev/null; exec", [false; 3]),
        ];
        for (surroundings, closed) in cases {
            let lines = state_in(world, surroundings);
            assert_eq!(lines[7], format!("{closed:?}"), "{surroundings}");
            assert_eq!(lines[6], "[0, 1, 2]", "{surroundings}");
        }
    });
}
