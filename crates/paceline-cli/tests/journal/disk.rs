//! F3 and F7: disks that are full or fail, and disks across a network.

use std::{path::Path, process::Command};

use crate::{
    set_of,
    support::{Ended, World},
};

const ITEMS: usize = 30;

/// After a session that could not record: nothing is called done that is not, and with room it
/// goes on to the end.
fn goes_on(world: &World, failed: Ended) {
    let mut printed = failed.printed();
    if world.paceline(["status"]).end().code != Some(0) {
        // Not even the run was recorded, so it has not begun.
        assert_eq!(failed.code, Some(2), "{failed:?}");
        assert!(!world.has("one.log"), "no job runs without a record");
        world.run(["-q"]).end().exits(0);
        return;
    }
    let connection = rusqlite::Connection::open(world.path(".paceline/journal.db")).unwrap();
    let sql = "SELECT CAST(i.value AS TEXT) FROM items i JOIN results r USING (run, seq) \
               WHERE r.stage = 2 AND r.outcome = 'ok'";
    let mut statement = connection.prepare(sql).unwrap();
    let done: Vec<String> =
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    drop(statement);
    drop(connection);
    let unrecorded: Vec<&String> = printed.iter().filter(|item| !done.contains(item)).collect();
    assert!(unrecorded.is_empty(), "printed and not recorded: {unrecorded:?}");
    printed.extend(world.resume(["-q"]).end().exits(0).printed());
    assert_eq!(printed, set_of(ITEMS));
    assert_eq!(world.sql::<String>("PRAGMA integrity_check"), "ok");
}

#[test]
fn f3_a_journal_that_may_not_grow_ends_the_run_with_4_and_it_goes_on_with_room() {
    for blocks in [60, 100, 140, 200, 400] {
        let world = World::chain(ITEMS);
        // As a full disk does it, without one: writes past the limit fail.
        let script = format!("ulimit -f {blocks}; exec \"$PACELINE\" run -q p.toml");
        let ended = world.sh(&script).end();
        if ended.code == Some(0) {
            continue;
        }
        assert!(matches!(ended.code, Some(2 | 4)), "{blocks}: {ended:?}");
        assert!(ended.stderr.contains("journal.db"), "{}", ended.stderr);
        goes_on(&world, ended);
    }
}

fn has_strace() -> bool {
    Command::new("strace").args(["-f", "true"]).output().is_ok_and(|output| output.status.success())
}

fn injected(world: &World, inject: &str, words: &[&str]) -> Ended {
    let call = inject.split(':').next().unwrap();
    let strace = ["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e"];
    let run = world.program("strace", strace).arg(format!("inject={inject}"));
    let run = run.arg(env!("CARGO_BIN_EXE_paceline")).arg("run").arg("-q");
    words.iter().fold(run, |run, word| run.arg(word)).arg("p.toml").end()
}

/// Runs with each of these writes failing. Without strace the test above is all there is.
fn fails_at(call: &str, error: &str, words: &[&str], counts: impl IntoIterator<Item = u32>) {
    if !has_strace() {
        return;
    }
    let mut failures = 0;
    for count in counts {
        let world = World::chain(ITEMS);
        // Outputs are synced as well, and one that cannot be is a failure of its item.
        world.write("p.toml", crate::CHAIN.replace("to = \"out/{in}\"\n", ""));
        let ended = injected(&world, &format!("{call}:error={error}:when={count}+"), words);
        if ended.code == Some(0) {
            continue;
        }
        failures += 1;
        assert!(matches!(ended.code, Some(2 | 4)), "{call} {count}: {ended:?}");
        assert!(ended.stderr.contains("journal.db"), "{call} {count}: {}", ended.stderr);
        let words = match error {
            "ENOSPC" => "no space left on device",
            _ => "input/output error",
        };
        let is_told = [words, "is the disk full?"].iter().any(|words| ended.stderr.contains(words));
        assert!(is_told, "{call} {count}: {}", ended.stderr);
        goes_on(&world, ended);
    }
    assert!(failures > 0, "{call} was never made to fail");
}

/// One of three in a check, all of them in a soak.
fn counts(last: u32) -> impl Iterator<Item = u32> {
    let step = if std::env::var_os("PACELINE_SOAK_SECONDS").is_some() { 1 } else { 6 };
    (1..=last).step_by(step)
}

#[test]
fn f3_a_full_disk_at_the_nth_write_ends_the_run_with_4() {
    fails_at("pwrite64", "ENOSPC", &[], counts(40));
}

#[test]
fn f3_a_failed_write_at_the_nth_write_ends_the_run_with_4() {
    fails_at("pwrite64", "EIO", &[], counts(40).skip(1));
}

#[test]
fn f3_a_failed_sync_is_not_tried_again() {
    fails_at("fsync", "EIO", &["--durable"], counts(20));
}

#[test]
fn f7_across_a_network_there_is_no_log_and_people_are_told() {
    if !has_strace() {
        return;
    }
    let world = World::chain(5);
    // The first eight bytes of what `fstatfs` gives are the kind of file system.
    let ended = injected(&world, "fstatfs:poke_exit=@arg2=6969000000000000", &[]);
    if ended.stderr.contains("poke_exit") {
        return;
    }
    let ended = ended.exits(0).says("lies on NFS");
    assert_eq!(ended.printed(), set_of(5));
    assert_ne!(world.sql::<String>("PRAGMA journal_mode"), "wal");
    assert!(!Path::new(&world.path(".paceline/journal.db-wal")).exists());
}
