//! Jobs in a namespace of their own.

use std::time::Duration;

use paceline_process::{Command, ErrorKind, Isolation, Stdout};

use super::keeper::{Keeper, Survivors, command};
use super::support::{World, run};

/// Says whether this system allows it, and if not, why the test is skipped.
pub(crate) fn is_possible(world: &World) -> bool {
    let text = said(command(world, &["coverage"]));
    let possible = text.contains("isolation: Ok(())");
    if !possible {
        use std::io::Write;
        let _ = std::io::stderr().write_all(format!("skipped, no isolation: {text}\n").as_bytes());
    }
    possible
}

fn said(command: Command) -> String {
    let limit = Duration::from_secs(20);
    let output = command.stdout(Stdout::Capture).run_timeout(limit, limit).unwrap();
    output.check().unwrap().stdout().to_text().unwrap().trim_end().to_owned()
}

fn isolated(world: &World, arguments: &[&str]) -> String {
    said(command(world, &[&["isolated"], arguments].concat()))
}

#[test]
fn an_isolated_job_ends_as_any_other() {
    run(|world| {
        if !is_possible(world) {
            return;
        }
        assert_eq!(isolated(world, &["echo", "hello"]), "exit status 0|hello\n|");
        assert_eq!(isolated(world, &["sh", "-c", "exit 7"]), "exit status 7||");
        assert_eq!(isolated(world, &["sh", "-c", "kill -USR1 $$"]), "signal 10 (SIGUSR1)||");
        assert_eq!(isolated(world, &["sh", "-c", "kill -SEGV $$"]), "signal 11 (SIGSEGV)||");
        assert_eq!(
            isolated(world, &["sh", "-c", "echo $$; exec >&-; exit 0"]),
            "exit status 0|2\n|"
        );
        let refused = isolated(world, &["/etc/passwd"]);
        assert!(refused.starts_with("NotExecutable"), "{refused}");
        let missing = isolated(world, &["/no/such/program"]);
        assert!(missing.starts_with("NotFound"), "{missing}");
        let too_long = isolated(world, &["sh", "-c", "trap 'exit 9' TERM; sleep 300 & wait"]);
        assert!(too_long.starts_with("Timeout"), "{too_long}");
    });
}

#[test]
fn an_isolated_job_is_killed_with_its_runner_even_without_a_guard() {
    run(|world| {
        if !is_possible(world) {
            return;
        }
        let survivors = Survivors::in_directory(world.path("wiped"));
        let arguments = ["end", "killed", "wiped", survivors.directory()];
        let without = command(world, &arguments).env("KEEPER_ALONE", "1");
        let mut keeper = Keeper::start(without.env("KEEPER_ISOLATES", "1"));
        assert_eq!(keeper.line(), "ready 0");
        keeper.kill();
        survivors.die_within(Duration::from_secs(1), "isolated");
    });
}

#[test]
fn isolation_is_refused_to_a_program_that_has_not_been_prepared() {
    run(|world| {
        let command = world.command("true").isolate(Isolation::Pid);
        let error = command.spawn().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotSupported { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "could not isolate `true`: the program has not called `init` first of all"
        );
    });
}
