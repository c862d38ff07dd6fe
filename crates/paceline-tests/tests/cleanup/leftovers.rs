//! What jobs leave behind in the course of a run, and what is none of theirs.

use std::time::Duration;

use paceline_process::Stdout;

use super::keeper::{Keeper, Survivors, command};
use super::support::{World, eventually, run};

fn said(world: &World, arguments: &[&str]) -> String {
    let limit = Duration::from_secs(25);
    let output = command(world, arguments).stdout(Stdout::Capture).run_timeout(limit, limit);
    output.unwrap().check().unwrap().stdout().to_text().unwrap().trim_end().to_owned()
}

/// F9.
#[test]
fn a_descendant_that_holds_the_output_is_waited_for_briefly_and_ended() {
    run(|world| {
        let survivors = Survivors::in_directory(world.path("leaks"));
        assert_eq!(said(world, &["leaks", survivors.directory(), "20"]), "ok");
    });
}

/// F11.
#[test]
fn two_thousand_jobs_leave_no_zombie_and_no_descriptor() {
    run(|world| assert_eq!(said(world, &["soak", "2000"]), "0 []"));
}

/// F13: three descriptors a job, and far too few for all at once.
#[test]
fn a_shortage_of_descriptors_is_answered_by_running_fewer() {
    run(|world| {
        let script = r#"ulimit -n 64; exec "$0" shortage 200 100"#;
        let limit = Duration::from_secs(25);
        let keeper = world.sh(script).arg(env!("CARGO_BIN_EXE_keeper"));
        let output = keeper.stdout(Stdout::Capture).run_timeout(limit, limit).unwrap();
        assert_eq!(output.check().unwrap().stdout().to_text().unwrap(), "200 true\n");
    });
}

/// F14: root has no limit, so another user it must be.
#[test]
fn a_shortage_of_processes_is_answered_by_running_fewer() {
    run(|world| {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let script = r#"exec setpriv --reuid=65533 --clear-groups prlimit --nproc=20 \
            "$0" shortage 200 100"#;
        let limit = Duration::from_secs(25);
        let keeper = world.sh(script).arg(env!("CARGO_BIN_EXE_keeper"));
        let output = keeper.stdout(Stdout::Capture).run_timeout(limit, limit).unwrap();
        assert_eq!(output.check().unwrap().stdout().to_text().unwrap(), "200 true\n");
    });
}

#[test]
fn children_that_are_no_jobs_are_left_alone() {
    run(|world| {
        let keeper = command(world, &["foreign"]).env("KEEPER_SHARES", "1");
        let limit = Duration::from_secs(20);
        let output = keeper.stdout(Stdout::Capture).run_timeout(limit, limit).unwrap();
        assert_eq!(output.check().unwrap().stdout().to_text().unwrap(), "ok\n");
    });
}

#[test]
fn children_from_before_are_left_alone() {
    run(|world| {
        // The shell's child becomes the keeper's by `exec`.
        let script = r#"sleep 300 & exec "$0" foreign $!"#;
        let keeper = world.sh(script).arg(env!("CARGO_BIN_EXE_keeper")).env("KEEPER_SHARES", "1");
        let limit = Duration::from_secs(20);
        let output = keeper.stdout(Stdout::Capture).run_timeout(limit, limit).unwrap();
        assert_eq!(output.check().unwrap().stdout().to_text().unwrap(), "ok\n");
    });
}

#[test]
fn orphans_of_a_live_job_are_left_to_it_and_end_with_it() {
    run(|world| {
        let survivors = Survivors::in_directory(world.path("orphans"));
        let mut keeper = Keeper::start(command(world, &["spares", survivors.directory()]));
        assert_eq!(keeper.line(), "ready");
        assert_eq!(survivors.alive().len(), 8, "ended with a job that is not theirs");
        keeper.tell("x");
        assert_eq!(keeper.line(), "stopped");
        assert_eq!(survivors.alive(), []);
        keeper.finish();
    });
}

/// F17, the library's part.
#[test]
fn all_jobs_stop_and_go_on_together() {
    run(|world| {
        let mut keeper = Keeper::start(command(world, &["stop-all"]));
        let line = keeper.line();
        let pids: Vec<&str> = line.split(' ').collect();
        let state = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap()
        };
        assert_eq!(pids.len(), 2, "{line}");
        eventually("both stopped", || pids.iter().all(|pid| state(pid) == 'T'));
        keeper.tell("x");
        assert_eq!(keeper.line(), "continued");
        eventually("both go on", || pids.iter().all(|pid| state(pid) == 'S'));
        keeper.finish();
    });
}

#[test]
fn jobs_get_back_the_limit_that_the_runner_was_started_with() {
    run(|world| {
        let script = r#"ulimit -Sn 100; ulimit -Hn 500; exec "$0" descriptors 300"#;
        let limit = Duration::from_secs(20);
        let keeper = world.sh(script).arg(env!("CARGO_BIN_EXE_keeper"));
        let output = keeper.stdout(Stdout::Capture).run_timeout(limit, limit).unwrap();
        assert_eq!(output.check().unwrap().stdout().to_text().unwrap(), "300 100\n");
    });
}
