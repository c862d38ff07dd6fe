//! Timeouts, the grace period, and what is killed.

use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

use paceline_process::{ErrorKind, Signal, Stderr, Stdin, Stdout};

use super::support::{assert_echoed, await_exit, is_alive, run, zombies};

const LIMIT: Duration = Duration::from_millis(100);
const GRACE: Duration = Duration::from_millis(400);

#[test]
fn r52_6_a_limit_ends_a_sleep_by_term() {
    run(|world| {
        let started = Instant::now();
        let sleep = world.command("sleep").arg("10");
        let error = sleep.run_timeout(LIMIT, Duration::from_secs(5)).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(1));
        assert_eq!(*error.kind(), ErrorKind::Timeout { limit: LIMIT });
        assert_eq!(error.argv(), sleep.argv());
        assert_eq!(error.to_string(), "`sleep 10` was not done after 100ms");
        assert_eq!(error.partial().unwrap().exit().unwrap().as_i32(), -15);
        assert_eq!(zombies(), []);
    });
}

#[test]
fn r52_7_a_child_that_ignores_term_is_killed_after_the_grace_period() {
    run(|world| {
        let mut child = world.child(&["ignore-term"]).stdout(Stdout::Capture).spawn().unwrap();
        // Until it ignores TERM; then the limit and the grace period.
        while child.stdout().is_empty() {
            child.communicate(Some(Duration::from_millis(10))).unwrap_err();
        }
        let started = Instant::now();
        child.communicate(Some(LIMIT)).unwrap_err();
        let output = child.stop(GRACE).unwrap();
        let took = started.elapsed();
        assert_eq!(output.exit().as_i32(), -9);
        assert_eq!(output.stdout().to_text().unwrap(), "ready\n");
        assert!(took >= LIMIT + GRACE, "{took:?}");
        assert!(took < LIMIT + GRACE + Duration::from_millis(500), "{took:?}");
    });
}

/// Row 42 too.
#[test]
fn r52_8_a_shells_grandchild_dies_with_it() {
    run(|world| {
        let started = Instant::now();
        let error = world
            .sh("sleep 30 & wait")
            .stdout(Stdout::Capture)
            .stderr(Stderr::Capture)
            .run_timeout(Duration::from_millis(200), Duration::from_secs(5))
            .unwrap_err();
        assert!(started.elapsed() < Duration::from_millis(1500));
        assert!(matches!(error.kind(), ErrorKind::Timeout { .. }));
        assert_eq!(world.family(), []);
        assert_eq!(zombies(), []);
    });
}

#[test]
fn p42_a_grandchild_that_ignores_term_and_holds_the_pipe_is_killed() {
    run(|world| {
        let started = Instant::now();
        let mut child = world
            .sh(r#"(trap "" TERM; echo ready; sleep 30) & wait"#)
            .stdout(Stdout::Capture)
            .spawn()
            .unwrap();
        while child.stdout().is_empty() {
            child.communicate(Some(Duration::from_millis(10))).unwrap_err();
        }
        child.stop(Duration::from_millis(200)).unwrap();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(world.family(), []);
    });
}

#[test]
fn p41_a_timeout_holds_the_output_so_far_and_the_child_is_reaped() {
    run(|world| {
        let error = world
            .sh("echo out; echo err >&2; exec sleep 30")
            .stdout(Stdout::Capture)
            .stderr(Stderr::Capture)
            .run_timeout(Duration::from_millis(500), Duration::from_secs(5))
            .unwrap_err();
        assert_eq!(zombies(), []);
        let partial = error.into_partial().unwrap();
        assert_eq!(partial.stdout().to_text().unwrap(), "out\n");
        assert_eq!(partial.stderr().to_text().unwrap(), "err\n");
        assert_eq!(partial.exit().unwrap().as_i32(), -15);
        assert!(partial.elapsed() >= Duration::from_millis(500));
    });
}

/// Row 40 too.
#[test]
fn r52_12_output_before_a_timeout_is_kept_and_completed() {
    run(|world| {
        let input: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        // A reader that pauses in the middle, so that limits pass by then.
        let mut child = world
            .sh("head -c 1500000; sleep 0.3; cat")
            .stdin(Stdin::from(input.as_slice()))
            .stdout(Stdout::Capture)
            .spawn()
            .unwrap();
        let mut timeouts = 0;
        let mut seen = 0;
        let output = loop {
            match child.communicate(Some(Duration::from_millis(20))) {
                Ok(output) => break output,
                Err(error) => {
                    assert!(matches!(error.kind(), ErrorKind::Timeout { .. }));
                    let partial = error.partial().unwrap();
                    assert_eq!(partial.exit(), None);
                    let length = usize::try_from(partial.stdout().len()).unwrap();
                    assert!(length >= seen);
                    seen = length;
                    // Spilled or not, it is the beginning of what is to come.
                    assert!(partial.stdout().to_bytes().unwrap() == input[..length]);
                    timeouts += 1;
                }
            }
        };
        assert!(timeouts > 1);
        // What `head` read ahead is gone: a pipe cannot be put back. So only
        // the order and the absence of doubles can be asked of the rest.
        let bytes = output.stdout().to_bytes().unwrap();
        assert!(bytes[..1_500_000] == input[..1_500_000]);
        assert!(input.ends_with(&bytes[1_500_000..]));
    });
}

#[test]
fn p40_communicating_again_sends_no_input_twice() {
    run(|world| {
        let input: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 253) as u8).collect();
        let mut child = world.echo(&["echo-both"], &input).spawn().unwrap();
        while child.communicate(Some(Duration::from_micros(200))).is_err() {}
        let output = child.into_output().unwrap().check().unwrap();
        assert_echoed(&output, &input);
    });
}

#[test]
fn p43_a_child_that_closed_its_output_can_be_waited_for_again_and_again() {
    run(|world| {
        let mut child = world
            .child(&["close-stdout"])
            .stdout(Stdout::Capture)
            .stderr(Stderr::Capture)
            .spawn()
            .unwrap();
        while child.stderr().is_empty() {
            child.communicate(Some(Duration::from_millis(10))).unwrap_err();
        }
        let before = processor_time();
        for _ in 0..5 {
            child.communicate(Some(Duration::from_millis(100))).unwrap_err();
        }
        let spent = processor_time() - before;
        assert!(spent < Duration::from_millis(100), "spun for {spent:?}");
        let output = child.stop(Duration::from_secs(5)).unwrap();
        assert_eq!(output.stdout().to_text().unwrap(), "last words\n");
        assert_eq!(output.exit().as_i32(), -15);
    });
}

/// Returns the processor time of the calling thread.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// F9.
#[test]
fn p42_a_held_pipe_ends_with_the_drain_limit_and_is_called_leaky() {
    run(|world| {
        for _ in 0..5 {
            let mut child = world.child(&["leak"]).stdout(Stdout::Capture).spawn().unwrap();
            child.wait().unwrap();
            let started = Instant::now();
            let output = child.communicate(None).unwrap();
            let took = started.elapsed();
            assert!(took > Duration::from_millis(150) && took < Duration::from_secs(1), "{took:?}");
            assert!(output.is_leaky());
            assert!(output.success());
            let text = output.stdout().to_text().unwrap();
            await_exit(text.trim().parse().unwrap(), Instant::now() + Duration::from_secs(1));
            assert!(!is_alive(text.trim().parse().unwrap()), "the grandchild lives");
        }
        let quiet = world.sh("sleep 30 >/dev/null 2>&1 & echo hi").stdout(Stdout::Capture);
        let output = quiet.run().unwrap();
        assert!(!output.is_leaky(), "nobody held the pipe");
        world.family_dies_within(Duration::from_secs(1));
    });
}

#[test]
fn a_process_outside_the_group_cannot_hold_up_the_end() {
    run(|world| {
        let output = world.child(&["leak-outside"]).stdout(Stdout::Capture).run().unwrap();
        assert!(output.is_leaky());
        // It is beyond the group; the test itself has to end it.
        let text = output.stdout().to_text().unwrap();
        assert!(world.sh(&format!("kill -KILL {}", text.trim())).run().unwrap().success());
        world.family_dies_within(Duration::from_secs(1));
    });
}

#[test]
fn a_child_may_use_its_grace_period() {
    run(|world| {
        let done = world.path_text("done");
        let mut child = world.child(&["slow-term", &done]).stdout(Stdout::Pipe).spawn().unwrap();
        child.take_stdout().unwrap().read_exact(&mut [0; 6]).unwrap();
        let started = Instant::now();
        let output = child.stop(Duration::from_secs(20)).unwrap();
        assert_eq!(output.exit().code(), Some(0));
        assert!(started.elapsed() < Duration::from_secs(10));
        assert_eq!(fs::read_to_string(done).unwrap(), "done\n");
    });
}

#[test]
fn a_grandchild_may_use_the_grace_period_after_its_shell_is_gone() {
    run(|world| {
        let done = world.path_text("done");
        // The shell dies of TERM at once; its child ends when it has written.
        let script = r#"sh -c 'trap "sleep 0.3; echo done > $0; exit" TERM; echo ready; while :; do sleep 0.05; done' "$0" & wait"#;
        let mut child = world.sh(script).arg(&done).stdout(Stdout::Pipe).spawn().unwrap();
        child.take_stdout().unwrap().read_exact(&mut [0; 6]).unwrap();
        let output = child.stop(Duration::from_secs(20)).unwrap();
        assert_eq!(output.exit().as_i32(), -15);
        assert_eq!(fs::read_to_string(done).unwrap(), "done\n");
    });
}

#[test]
fn a_stopped_child_is_told_to_end_too() {
    run(|world| {
        // With a handler of its own: without one TERM ends it even stopped.
        let done = world.path_text("done");
        let mut child = world.child(&["slow-term", &done]).stdout(Stdout::Pipe).spawn().unwrap();
        child.take_stdout().unwrap().read_exact(&mut [0; 6]).unwrap();
        child.signal(Signal::STOP).unwrap();
        assert_eq!(child.stop(Duration::from_secs(20)).unwrap().exit().code(), Some(0));
    });
}

#[test]
fn a_stop_after_the_end_changes_nothing() {
    run(|world| {
        let mut child = world.sh("echo hi; exit 3").stdout(Stdout::Capture).spawn().unwrap();
        child.wait().unwrap();
        let output = child.stop(Duration::from_secs(5)).unwrap();
        assert_eq!(output.exit().code(), Some(3));
        assert_eq!(output.stdout().to_text().unwrap(), "hi\n");
        assert_eq!(child.stop(Duration::ZERO).unwrap().exit().code(), Some(3));
        assert_eq!(child.communicate(None).unwrap().exit().code(), Some(3));
    });
}

#[test]
fn two_hundred_grandchildren_die_with_one_stop() {
    run(|world| {
        let mut child = world.child(&["family", "200"]).stdout(Stdout::Pipe).spawn().unwrap();
        child.take_stdout().unwrap().read_exact(&mut [0; 6]).unwrap();
        assert_eq!(world.family().len(), 201);
        child.stop(Duration::from_secs(5)).unwrap();
        assert_eq!(world.family(), []);
    });
}
