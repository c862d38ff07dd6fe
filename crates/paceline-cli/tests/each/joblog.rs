//! `--joblog`: the columns of GNU parallel's.

use crate::{World, numbers};

/// The rows as cells, by `Seq` and command.
fn rows(log: &str) -> Vec<Vec<String>> {
    let mut lines = log.lines();
    let header = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand";
    assert_eq!(lines.next(), Some(header));
    let cells = |line: &str| line.splitn(9, '\t').map(str::to_owned).collect::<Vec<_>>();
    let mut rows: Vec<_> = lines.map(cells).collect();
    rows.sort_by_key(|row| (row[0].parse::<u64>().unwrap(), row[8].clone()));
    rows
}

#[test]
fn a_row_tells_how_a_job_ended() {
    let world = World::new();
    let words = ["--joblog", "log", "--timeout", "300ms", "sh", "-c", ":::"];
    let jobs = ["echo abc", "exit 3", "kill -9 $$", "sleep 9", "echo 'a\nb'"];
    world.each(words.iter().chain(&jobs)).end().exits(1);
    let rows = rows(&world.read("log"));
    let ends: Vec<[&str; 4]> =
        rows.iter().map(|row| [&*row[0], &*row[5], &*row[6], &*row[7]]).collect();
    assert_eq!(ends[0], ["1", "4", "0", "0"]);
    assert_eq!(ends[1], ["2", "0", "3", "0"]);
    assert_eq!(ends[2], ["3", "0", "-1", "9"]);
    assert_eq!(ends[3][..3], ["4", "0", "-1"]);
    assert_eq!(ends[4], ["5", "4", "0", "0"]);
    assert_eq!(rows[0][8], "sh -c 'echo abc'");
    assert!(rows[4][8].contains(r"a\nb"), "{}", rows[4][8]);
    for row in &rows {
        assert_eq!((row.len(), &*row[1], &*row[4]), (9, ":", "0"));
        let (started, took) = (row[2].parse::<f64>().unwrap(), row[3].parse::<f64>().unwrap());
        assert!(started > 1.7e9 && (0.0..60.0).contains(&took), "{row:?}");
    }
}

#[test]
fn a_job_that_cannot_be_started_has_no_exit_status() {
    let world = World::new();
    world.each(["--joblog", "log", "no-such-program", ":::", "x"]).end().exits(1);
    let rows = rows(&world.read("log"));
    assert_eq!((&*rows[0][6], &*rows[0][7], &*rows[0][8]), ("-1", "0", "no-such-program x"));
}

#[test]
fn each_stage_of_an_item_has_a_row_and_each_batch_one() {
    let world = World::new();
    world.each(["--joblog", "log", "--then", "cat", "echo", ":::", "a", "b"]).end().exits(1);
    let cells = rows(&world.read("log"));
    let short: Vec<_> =
        cells.iter().map(|row| format!("{} {} {}", row[0], row[6], row[8])).collect();
    assert_eq!(short, ["1 1 cat a", "1 0 echo a", "2 1 cat b", "2 0 echo b"]);
    world.each(["--joblog", "log", "-n2", "true", ":::", "a", "b", "c"]).end().exits(0);
    let cells = rows(&world.read("log"));
    let short: Vec<_> = cells.iter().map(|row| format!("{} {}", row[0], row[8])).collect();
    assert_eq!(short, ["1 true a b", "3 true c"]);
}

#[test]
fn a_retried_job_has_one_row_and_an_item_never_started_has_none() {
    let world = World::new();
    let words = ["-j1", "--retries", "2", "--joblog", "log", "--halt", "soon", "false"];
    world.each(words).input(numbers(50)).end().exits(3);
    let cells = rows(&world.read("log"));
    assert_eq!(cells.len(), 1);
    assert_eq!((&*cells[0][0], &*cells[0][6]), ("1", "1"));
    let mut input = vec![b'x'; 17 << 20];
    input.extend_from_slice(b"\nb\n");
    world.each(["--joblog", "log", "echo"]).input(input).end().exits(1);
    assert_eq!(rows(&world.read("log")).len(), 1);
}

#[test]
fn a_log_that_cannot_be_opened_is_a_usage_error_and_one_that_cannot_be_written_is_trouble() {
    let world = World::new();
    world.each(["--joblog", "no/log", "touch", ":::", "ran"]).end().exits(2).says("`no/log`");
    assert!(!world.has("ran"));
    let words = ["--joblog", "/dev/full", "touch", ":::", "ran"];
    world.each(words).end().exits(4).says("job log: no space left");
    assert!(!world.has("ran"));
    // It fills up in the middle: the run ends, and what runs is finished.
    let script = "ulimit -f 1; yes | \"$PACELINE\" each -q -j2 --joblog log true";
    let ended = world.program("bash", ["-c", &format!("trap '' XFSZ; {script}")]).end().exits(4);
    ended.says("job log: file too large");
}
