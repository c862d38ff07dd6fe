//! Exit statuses, what is counted, and what goes where.

use crate::support::World;

const FAILING_B: &str =
    "[[stage]]\nname = \"s\"\nshell = \"echo {}; echo note {} >&2; test {} != b\"\nworkers = 1\n";

#[test]
fn all_well_is_0_and_some_failed_is_1() {
    let world = World::with(FAILING_B);
    let ended = world.run(["a", "c"]).end().exits(0).counts(2, 2, 0, 0);
    assert_eq!(ended.sorted(), ["a", "c"]);
    let ended = world.run(["a", "b", "c"]).end().exits(1).counts(3, 2, 1, 0);
    assert_eq!(ended.sorted(), ["a", "c"]);
    ended.says("failed: b: stage `s`: exit status 1");
}

#[test]
fn no_items_at_all_is_0() {
    let world = World::with(FAILING_B);
    world.run([""; 0]).input("").end().exits(0).counts(0, 0, 0, 0);
}

#[test]
fn what_is_wrong_with_the_command_line_is_2() {
    let world = World::with(FAILING_B);
    world.paceline([""; 0]).end().exits(2);
    world.paceline(["run"]).end().exits(2);
    world.paceline(["frobnicate"]).end().exits(2);
    world.paceline(["run", "missing.toml"]).end().exits(2);
    world.run(["--halt", "later", "a"]).end().exits(2);
    world.run(["--unknown"]).end().exits(2);
    world.paceline(["--version"]).end().exits(0);
    world.paceline(["run", "--help"]).end().exits(0);
}

#[test]
fn a_halt_leaves_items_unfinished_and_is_3() {
    let world = World::with(FAILING_B);
    let items = ["b", "x", "x", "x", "x", "x", "x", "x"];
    for halt in ["soon", "now", "soon,fail=1", "now,fail=1"] {
        let ended = world.run(items).arg("--halt").arg(halt).end().exits(3);
        let [taken, ok, failed, unfinished] = ended.account().unwrap();
        assert!(taken <= 8 && failed == 1 && ok < 7, "{halt}: {}", ended.stderr);
        assert!(unfinished > 0 || taken < 8, "{halt}: {}", ended.stderr);
    }
    world.run(items).arg("--halt").arg("now,fail=2").end().exits(1).counts(8, 7, 1, 0);
}

#[test]
fn a_halt_by_percentage_waits_for_ten_answers() {
    let world = World::with(FAILING_B);
    // One of nine is over 10 %, and not yet enough to judge.
    let nine = ["b", "x", "x", "x", "x", "x", "x", "x", "x"];
    world.run(nine).arg("--halt=soon,fail=10%").end().exits(1).counts(9, 8, 1, 0);
    let mut more = nine.to_vec();
    more.extend(["x"; 40]);
    let ended = world.run(more).arg("--halt=soon,fail=10%").end().exits(3);
    assert_eq!(ended.account().unwrap()[2], 1);
}

#[test]
fn a_halt_at_the_very_last_item_leaves_nothing() {
    let world = World::with(FAILING_B);
    world.run(["x", "b"]).arg("--halt=soon").end().exits(1).counts(2, 1, 1, 0);
}

#[test]
fn a_halt_now_stops_running_jobs() {
    let world = World::with(
        "[[stage]]\nname = \"s\"\nworkers = 2\n\
         shell = \"if [ {} = b ]; then while [ ! -e started ]; do sleep 0.01; done; exit 1; fi; touch started; sleep 60\"",
    );
    world.run(["a", "b"]).arg("--halt=now").end().exits(3).counts(2, 0, 1, 1);
}

#[test]
fn standard_output_is_data_and_standard_error_the_rest() {
    let world = World::with(FAILING_B);
    let ended = world.run(["a", "b"]).end().exits(1).says("note a\n").says("note b\n");
    assert_eq!(ended.text(), "a\n");
}

#[test]
fn quiet_leaves_the_jobs_own_words() {
    let world = World::with(FAILING_B);
    let ended = world.run(["a", "b", "-q"]).end().exits(1);
    assert_eq!(ended.text(), "a\n");
    let mut said: Vec<_> = ended.stderr.lines().collect();
    said.sort_unstable();
    assert_eq!(said, ["note a", "note b"]);
}

#[test]
fn what_jobs_say_is_passed_on_byte_by_byte() {
    let world = World::with(
        "[[stage]]\nname = \"s\"\nshell = \"printf '\\\\033[1mbold\\\\rno newline' >&2; head -c 300000 /dev/zero | tr '\\\\0' e >&2\"",
    );
    let ended = world.run(["x", "-q"]).end().exits(0);
    assert_eq!(ended.stderr, format!("\x1b[1mbold\rno newline{}", "e".repeat(300_000)));
}

#[test]
fn the_progress_can_be_had_without_a_terminal() {
    let world = World::with("[[stage]]\nname = \"s\"\nshell = \"sleep 1.2\"");
    world.run(["x", "--progress", "always"]).end().exits(0).says("p: 1 in, 0 ok | s 0 (+1)");
    world.run(["x", "--progress", "never"]).end().exits(0).says_not("p: ");
}

#[test]
fn a_failure_in_one_stage_keeps_the_item_from_the_next() {
    let world = World::with(
        "[[stage]]\nname = \"one\"\nrun = \"sh -c 'test $0 != b && echo $0'\"\n\
         [[stage]]\nname = \"two\"\nrun = \"echo two\"",
    );
    let ended = world.run(["a", "b", "c"]).end().exits(1).counts(3, 2, 1, 0);
    assert_eq!(ended.sorted(), ["two a", "two c"]);
}

#[test]
fn a_leaky_job_keeps_its_status_and_is_told() {
    let world = World::with("[[stage]]\nname = \"s\"\nshell = \"sleep 100 & echo said\"");
    let ended = world.run(["x", "--json"]).end().exits(0).counts(1, 1, 0, 0);
    ended.json()[0]["leaky"].as_bool().filter(|leaky| *leaky).unwrap();
    ended.says("leaky: x: stage `s`");
}

#[test]
fn what_a_job_leaves_behind_is_ended_and_is_no_leak() {
    let world = World::with(
        "[[stage]]\nname = \"s\"\nshell = \"setsid sleep 100 >/dev/null 2>&1 & sleep 100 >/dev/null 2>&1 & echo said\"",
    );
    let ended = world.run(["x", "--json"]).end().exits(0);
    assert_eq!(ended.json()[0]["leaky"], false);
}
