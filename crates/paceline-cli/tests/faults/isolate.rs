//! `isolate = "pid"` and `--isolate`: jobs that nothing outlives.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::{
    hostile::{Hostile, KINDS},
    say,
    support::World,
    watched,
};

/// Whether this system allows it; if not the test is skipped, loudly.
fn is_possible() -> bool {
    let ended = World::new().paceline(["doctor"]).end().exits(0);
    let is = ended.text().contains("isolation (PID namespace): possible");
    if !is {
        say(&format!("SKIPPED, since jobs cannot be isolated here: {}", ended.text()));
    }
    is
}

#[test]
fn nothing_at_all_outlives_isolated_jobs_whose_runner_is_killed() {
    watched(|| {
        if !is_possible() {
            return;
        }
        let mut worst = (Duration::ZERO, "");
        for kind in KINDS {
            let hostile = Hostile::new(kind);
            let mut run = hostile.each(&["--isolate"], &[]).start();
            run.until("the start", || hostile.is_up());
            run.signal(Signal::KILL);
            let elapsed = hostile.await_nothing(Instant::now(), Duration::from_secs(3));
            worst = worst.max((elapsed, kind));
            run.end().ends_by(Signal::KILL);
        }
        say(&format!("KILL of the runner of isolated jobs: at worst {worst:?}"));
    });
}

#[test]
fn nothing_outlives_isolated_jobs_that_are_stopped_or_end() {
    watched(|| {
        if !is_possible() {
            return;
        }
        for kind in KINDS {
            let hostile = Hostile::new(kind);
            let mut run = hostile.each(&["--isolate", "--grace", "0.3"], &[]).start();
            run.until("the start", || hostile.is_up());
            run.signal(Signal::TERM);
            run.end().ends_by(Signal::TERM).counts(1, 0, 0, 1);
            assert!(hostile.survivors().is_empty(), "{kind}: {:?}", hostile.survivors());
        }
        for kind in KINDS.into_iter().filter(|kind| *kind != "exec-chain") {
            let hostile = Hostile::new(kind);
            let mut run = hostile.each(&["--isolate", "--json"], &[]).start();
            run.until("the start", || hostile.is_up());
            hostile.open_gate();
            let ended = run.end().exits(0);
            assert_eq!(ended.json()[0]["status"], "ok", "{kind}");
            assert!(hostile.survivors().is_empty(), "{kind}: {:?}", hostile.survivors());
        }
    });
}

#[test]
fn an_isolated_stage_gives_what_any_other_gives() {
    watched(|| {
        if !is_possible() {
            return;
        }
        let world = World::with(
            "[[stage]]\nname = \"own\"\nisolate = \"pid\"\nshell = 'echo $$ $PPID {}'\n\
             [[stage]]\nname = \"to\"\nisolate = \"pid\"\nrun = \"cat\"\nstdin = true\n\
             to = \"made/{in}\"\n\
             [[stage]]\nname = \"pipe\"\nisolate = \"pid\"\npipe = [\"cat {to}\", \"tr a-z A-Z\"]\n",
        );
        assert_eq!(world.run(["a", "b"]).end().exits(0).sorted(), ["2 1 A", "2 1 B"]);
        assert_eq!(world.read("made/a"), "2 1 a");
        let check = world.paceline(["check", "p.toml", "a"]).end().exits(0);
        assert_eq!(check.text().matches(", isolated").count(), 3, "{}", check.text());
    });
}

#[test]
fn isolation_can_be_had_for_all_commands_of_a_run() {
    watched(|| {
        if !is_possible() {
            return;
        }
        let world = World::with(
            "[[stage]]\nname = \"a\"\nshell = 'echo $$'\n[[stage]]\nname = \"b\"\nshell = 'echo {} $$'\n",
        );
        assert_eq!(world.run(["--isolate", "x"]).end().exits(0).lines(), ["2 2"]);
        let each = world.paceline(["each", "--isolate", "sh", "-c", "echo $$", ":::", "x"]);
        assert_eq!(each.end().exits(0).lines(), ["2"]);
    });
}

#[test]
fn an_isolated_job_fails_as_any_other() {
    watched(|| {
        if !is_possible() {
            return;
        }
        let world = World::new();
        let script = "case $1 in *[0-9]) exit $1;; *) kill -$1 $$; esac";
        let each =
            ["each", "--isolate", "--json", "sh", "-c", script, "sh", ":::", "7", "SEGV", "0"];
        let objects = world.paceline(each).end().exits(1).json();
        assert_eq!(objects[0]["error"]["code"], 7);
        assert_eq!(objects[1]["error"]["signal"], 11);
        assert_eq!(objects[2]["status"], "ok");
        let missing = world.paceline(["each", "--isolate", "--json", "no-such", ":::", "a"]);
        assert_eq!(missing.end().exits(1).json()[0]["error"]["kind"], "not-found");
    });
}

#[test]
fn where_isolation_is_not_to_be_had_the_items_fail_and_say_so() {
    watched(|| {
        let world = World::new();
        // In a user namespace without users nobody may make another one.
        if world.sh("unshare --user true").end().code != Some(0) {
            say("SKIPPED, since isolation cannot be forbidden here");
            return;
        }
        let run =
            "exec unshare --user \"$PACELINE\" each --json --isolate --retries 2 true ::: a b";
        let ended = world.sh(run).end().exits(1);
        let ended = ended.says("could not isolate `true`").says("run it without isolation");
        for object in ended.json() {
            assert_eq!(object["error"]["kind"], "io", "{object}");
            assert_eq!(object["attempts"], 1, "another attempt cannot help: {object}");
        }
    });
}
