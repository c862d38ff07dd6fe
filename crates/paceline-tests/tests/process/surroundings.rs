//! Programs that were started badly, and short of resources.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::support::run;

#[test]
fn p44_interrupted_calls_are_made_again() {
    run(|world| {
        let report = world.path_text("report");
        let mut runner = world
            .command(env!("CARGO_BIN_EXE_runner"))
            .args(["interrupted", &report])
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(runner.id()).unwrap()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !fs::exists(world.path("report.ready")).unwrap() && Instant::now() < deadline {
            assert_eq!(runner.wait_timeout(Duration::from_millis(5)).unwrap(), None);
        }
        for _ in 0..1000 {
            rustix::process::kill_process(pid, Signal::USR1).unwrap();
            if let Some(exit) = runner.wait_timeout(Duration::from_micros(500)).unwrap() {
                panic!("ended early: {exit}, {}", fs::read_to_string(&report).unwrap());
            }
        }
        rustix::process::kill_process(pid, Signal::USR2).unwrap();
        runner.communicate(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(fs::read_to_string(&report).unwrap(), "ok");
    });
}

#[test]
fn p47_all_works_with_standard_streams_closed() {
    run(|world| {
        let all = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"];
        for closed in all {
            world.runner_in(&format!("exec {closed}; exec"), "everything");
        }
        for closed in ["0", "1", "2", "01", "02", "12", "012"] {
            world.runner_in("exec", &format!("closed{closed}"));
        }
    });
}

#[test]
fn p48_all_works_with_sigchld_ignored() {
    run(|world| {
        // `sh` would undo its own trap before `exec`; `env` does not.
        world.runner_in("exec env --ignore-signal=CHLD", "everything");
    });
}

/// F18.
#[test]
fn all_works_with_odd_inherited_state() {
    run(|world| {
        for state in [
            "umask 777; exec",
            "unset HOME; exec",
            "trap '' HUP INT QUIT PIPE; exec",
            "mkdir gone && cd gone && rmdir ../gone; exec",
            "exec setsid -w",
            "exec env -u PATH",
            "cd /; PATH=usr/bin:bin; export PATH; exec",
        ] {
            // Inside the test's own directory, where `gone` may be made.
            let state = format!("cd {}; {state}", world.path_text(""));
            world.runner_in(&state, "everything");
        }
    });
}

#[test]
fn a_status_taken_by_others_is_no_success() {
    run(|world| world.runner_in("exec", "lost"));
}

/// F13.
#[test]
fn running_out_of_descriptors_is_an_error_and_passes() {
    run(|world| world.runner_in("ulimit -n 40; exec", "exhaust"));
}

/// F13: it would run twice, since it is started anew when there is room.
#[test]
fn what_cannot_be_started_for_want_of_descriptors_has_not_run() {
    run(|world| world.runner_in("ulimit -n 40; exec", "begun"));
}

/// F13: the first has been at work, so that the chain cannot be started anew.
#[test]
fn a_chain_that_has_begun_waits_for_the_descriptor_that_another_thread_has_taken() {
    run(|world| world.runner_in("ulimit -n 40; exec", "robbed"));
}

/// F16: root has no limit, so another user it must be, with 1,100 pipes.
#[test]
fn f16_small_pipes_are_no_deadlock() {
    run(|world| {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(world.path(""), Some(65530), None).unwrap();
        let user = "exec setpriv --reuid=65530 --clear-groups prlimit --nofile=4000";
        world.runner_in(user, "small-pipes");
    });
}

/// F14: root has no limit, so another user it must be.
#[test]
fn f14_running_out_of_processes_is_an_error_and_passes() {
    run(|world| {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(world.path(""), Some(65534), None).unwrap();
        let user = "exec setpriv --reuid=65534 --clear-groups prlimit --nproc=20";
        world.runner_in(user, "exhaust-processes");
    });
}
