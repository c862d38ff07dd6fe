//! A program started in an odd state works all the same, and so do its jobs.

use rustix::process::Signal;

use crate::{
    hostile::open,
    say,
    support::{Run, World},
    watched,
};

/// Three jobs, of which one fails, that leave files.
const EACH: &str = "exec \"$PACELINE\" each -j2 sh -c 'touch \"$D/$1\"; test $1 != b' sh ::: a b c";

fn script<'w>(world: &'w World, before: &str) -> Run<'w> {
    std::fs::create_dir(world.path("d")).unwrap();
    world.sh(&format!("{before}\n{EACH}")).env("D", world.path("d").to_str().unwrap())
}

/// Runs the three jobs after `before`, and asserts what they come to.
#[track_caller]
fn works_after(before: &str) {
    let world = World::new();
    let ended = script(&world, before).end();
    assert_eq!(ended.code, Some(1), "{before}: {:?}", ended);
    assert_eq!(world.list("d"), ["a", "b", "c"], "{before}");
}

#[test]
fn any_standard_stream_may_be_closed() {
    watched(|| {
        for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&-", "0<&- 2>&-", "1>&- 2>&-"] {
            works_after(&format!("exec {closed}"));
        }
        works_after("exec 0<&- 1>&- 2>&-");
    });
}

#[test]
fn results_that_cannot_be_written_since_the_output_is_closed_are_an_error() {
    watched(|| {
        let world = World::new();
        let run = world.sh("exec \"$PACELINE\" each echo ::: a b 1>&-");
        run.end().exits(4).says("could not write to standard output");
        for arguments in ["each --dry-run echo ::: a", "doctor", "man", "completions bash"] {
            let run = world.sh(&format!("exec \"$PACELINE\" {arguments} 1>&-"));
            run.end().exits(4).says("could not write to standard output");
        }
        let run = world.sh("exec \"$PACELINE\" each --json true ::: a b 1>&-");
        run.end().exits(4).says("could not write to standard output");
        let world = World::with("[[stage]]\nname = \"s\"\nrun = \"echo\"\n");
        world.sh("exec \"$PACELINE\" run p.toml a 1>&-").end().exits(4);
        // Nothing is lost where there are no results.
        let world = World::with("[[stage]]\nname = \"s\"\nrun = \"touch\"\n");
        world.sh("exec \"$PACELINE\" run p.toml a b 1>&-").end().exits(0);
        assert!(world.has("a") && world.has("b"));
    });
}

#[test]
fn a_closed_input_is_an_empty_one_or_an_error_but_never_another_file() {
    watched(|| {
        let world = World::new();
        let ended = world.sh("exec \"$PACELINE\" each echo 0<&-").end();
        assert!(matches!(ended.code, Some(0 | 2 | 4)), "{ended:?}");
        assert!(ended.stdout.is_empty());
    });
}

#[test]
fn jobs_have_standard_streams_and_nothing_else_whatever_is_closed() {
    watched(|| {
        for closed in ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "7< /dev/null"] {
            let world = World::new();
            let list = "ls /proc/self/fd > fds; true";
            let run =
                world.sh(&format!("exec {closed}\nexec \"$PACELINE\" each sh -c '{list}' ::: a"));
            run.end().exits(0);
            // The last one is the folder that is being listed.
            assert_eq!(world.read("fds"), "0\n1\n2\n3\n", "{closed}");
        }
    });
}

#[test]
fn ignored_and_blocked_signals_are_neither_for_jobs() {
    watched(|| {
        for before in [
            "trap '' CHLD",
            "trap '' INT TERM HUP QUIT PIPE USR1 USR2 CHLD ALRM TSTP CONT",
            "set -- env --block-signal=INT,TERM,HUP,CHLD,PIPE,USR1,TSTP,CONT",
            "set -- env --ignore-signal=CHLD,PIPE --block-signal=TERM",
        ] {
            let world = World::new();
            let look = "grep -E \"Sig(Blk|Ign)\" /proc/self/status > masks; exit 7";
            let run = world.sh(&format!(
                "{before}\nexec \"$@\" \"$PACELINE\" each --json sh -c '{look}' ::: a"
            ));
            let object = run.end().exits(1).json().remove(0);
            assert_eq!(object["error"]["code"], 7, "{before}: {object}");
            let masks = world.read("masks");
            for line in masks.lines() {
                let mask = u64::from_str_radix(line.split('\t').nth(1).unwrap(), 16).unwrap();
                // Some C libraries ignore the two signals of their own in what they spawn.
                assert_eq!(mask & !(0b11 << 31), 0, "{before}: {masks}");
            }
        }
    });
}

#[test]
fn blocked_signals_stop_a_run_all_the_same() {
    watched(|| {
        let world = World::new();
        let run = "exec env --block-signal=TERM,INT \"$PACELINE\" each \
                   sh -c 'touch up; exec sleep 1000' ::: a";
        let mut run = world.sh(run).start();
        run.until("the start", || world.has("up"));
        run.signal(Signal::TERM);
        run.end().ends_by(Signal::TERM).counts(1, 0, 0, 1);
    });
}

#[test]
fn the_folder_may_be_gone() {
    watched(|| works_after("mkdir gone; cd gone; rmdir ../gone"));
}

#[test]
fn there_need_be_no_home_and_no_environment() {
    watched(|| {
        works_after("unset HOME");
        works_after("unset HOME USER LOGNAME LANG TERM TMPDIR SHELL");
        let world = World::new();
        let run = world.sh("exec env -i \"$PACELINE\" each sh -c 'touch \"$1\"' sh ::: a");
        run.end().exits(0);
        assert!(world.has("a"));
    });
}

#[test]
fn the_umask_may_forbid_everything() {
    watched(|| {
        works_after("umask 777");
        let world = World::new();
        let options = "--line-buffered --joblog log";
        let run = world.sh(&format!("umask 777; exec \"$PACELINE\" each {options} echo ::: a b"));
        assert_eq!(run.end().exits(0).sorted(), ["a", "b"]);
        let run = world
            .sh("umask 777; exec \"$PACELINE\" each -k sh -c 'head -c 2000000 /dev/zero' ::: a");
        assert_eq!(run.end().exits(0).stdout.len(), 2_000_000);
    });
}

#[test]
fn nohup_lets_a_run_and_its_jobs_outlive_the_terminal() {
    watched(|| {
        let world = World::new();
        world.fifo("gate");
        let script = "touch up; read x < gate; echo $1";
        let run = format!("exec nohup \"$PACELINE\" each sh -c '{script}' sh ::: a");
        let mut run = world.sh(&run).start();
        run.until("the start", || world.has("up"));
        run.signal(Signal::HUP);
        run.signal(Signal::USR1);
        open(&world, "gate");
        assert_eq!(run.end().exits(0).lines(), ["a"]);
    });
}

#[test]
fn few_descriptors_mean_fewer_jobs_and_no_failed_ones() {
    watched(|| {
        let world = World::new();
        let each = "seq 300 | prlimit --nofile=64:64 \"$PACELINE\" each -j100 echo";
        assert_eq!(world.sh(each).end().exits(0).lines().len(), 300);
    });
}

/// F32. The clock on the wall is set while a job runs, back and ahead; neither
/// hides the end of a timeout, nor brings it about, nor changes the order.
#[test]
fn f32_a_clock_that_is_set_disturbs_neither_timeouts_nor_order() {
    watched(|| {
        if World::new().sh("command -v faketime").end().code != Some(0) {
            say("SKIPPED, since there is no `faketime`");
            return;
        }
        for shift in ["-1h", "+1d"] {
            for (timeout, is_late) in [("50", false), ("0.3", true)] {
                let world = World::new();
                world.write("shift", "+0");
                world.fifo("gate");
                let job = "touch up; read x < gate; echo $1";
                let run = format!(
                    "export FAKETIME_TIMESTAMP_FILE=\"$PWD/shift\" FAKETIME_NO_CACHE=1\n\
                     exec faketime --exclude-monotonic -f +0 env -u FAKETIME \"$PACELINE\" each \
                     --timeout {timeout} --joblog log -k sh -c '{job}' sh ::: a"
                );
                let mut run = world.sh(&run).start();
                run.until("the start", || world.has("up"));
                world.write("shift", shift);
                if !is_late {
                    open(&world, "gate");
                }
                let ended = run.end();
                if is_late {
                    ended.exits(1).says("took longer than");
                } else {
                    assert_eq!(ended.exits(0).lines(), ["a"], "{shift}");
                }
                let log = world.read("log");
                let column = |number| log.lines().nth(1).unwrap().split('\t').nth(number).unwrap();
                let took: f64 = column(3).trim().parse().unwrap();
                assert!((0.0..60.0).contains(&took), "{shift}: {log}");
            }
        }
    });
}

#[test]
fn what_items_hold_for_a_terminal_does_not_reach_it_in_our_lines() {
    watched(|| {
        const EVIL: &str = "a\x1b[31mred\x1b]0;title\x07\u{9b}2J\u{202e}\r\x08z";
        let is_harmless = |text: &str| {
            assert!(text.contains("red"), "it is told at all: {text}");
            let wrong = text.chars().find(|c| c.is_control() && *c != '\n' && *c != '\t');
            assert_eq!(wrong, None, "{text:?}");
            assert!(!text.contains('\u{202e}'), "{text:?}");
        };
        let world = World::new();
        let each = |options: &[&str], command: &[&str]| {
            let mut arguments = vec!["each"];
            arguments.extend(options);
            arguments.extend(command);
            arguments.extend([":::", EVIL]);
            world.paceline(arguments).end()
        };
        is_harmless(&each(&[], &["false"]).exits(1).stderr);
        is_harmless(each(&["-q", "--tag"], &["sh", "-c", "echo x"]).exits(0).text());
        // For programs: what JSON has escaped is harmless, and the rest is data.
        let json = each(&["--json"], &["true"]).exits(0).stdout;
        assert!(json.iter().all(|byte| *byte >= b' ' || *byte == b'\n'));
        is_harmless(each(&["--dry-run"], &["true"]).exits(0).text());
        for program in [EVIL, "./no/\x1b[31mred"] {
            let ended = world.paceline(["each", "--progress", "never", program, ":::", "a"]).end();
            is_harmless(&ended.exits(1).stderr);
        }
        let leaky = "setsid sleep 1000 & kill -9 $$";
        is_harmless(&each(&[], &["sh", "-c", leaky, "sh"]).exits(1).stderr);
        let world = World::with("[[stage]]\nname = \"s\"\nrun = \"false\"\n");
        is_harmless(&world.run([EVIL]).end().exits(1).stderr);
        is_harmless(world.paceline(["check", "p.toml", EVIL]).end().exits(0).text());
        let missing = world.paceline(["run", "no\x1b[31mred.toml"]).end().exits(2);
        is_harmless(&missing.stderr);
    });
}

/// Another user than root it must be, who has no such limit.
#[test]
fn a_run_that_cannot_start_its_threads_ends_with_an_account_that_adds_up() {
    use std::os::unix::fs::{PermissionsExt, chown};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    watched(|| {
        let world = World::new();
        let program = world.path("paceline");
        std::fs::copy(env!("CARGO_BIN_EXE_paceline"), &program).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        chown(world.path(""), Some(65533), None).unwrap();
        let mut could_not = 0;
        for threads in 1..12 {
            for stages in [&[][..], &["--then", "true"]] {
                let limit = format!("--nproc={threads}");
                let user = ["--reuid=65533", "--clear-groups", "prlimit", &limit, "./paceline"];
                let each = ["each", "-j4", "--halt", "now"];
                let each = user.iter().chain(&each).chain(stages).chain(&["true"]);
                let input: String = (0..300).map(|number| format!("{number}\n")).collect();
                let ended = world.program("setpriv", each).input(input).end();
                if let Some([taken, ok, failed, unfinished]) = ended.account() {
                    assert_eq!(taken, ok + failed + unfinished, "{threads}: {ended:?}");
                }
                match ended.code {
                    Some(4) => {
                        could_not += 1;
                        assert!(ended.account().is_some(), "{threads}: {ended:?}");
                    }
                    // Not even the watch for signals; or all threads and no process; or all.
                    Some(0 | 2 | 3) => {}
                    _ => panic!("{threads}: {ended:?}"),
                }
            }
        }
        assert!(could_not > 4, "{could_not}");
    });
}
