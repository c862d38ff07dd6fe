//! What people and programs are told of a journal.

use crate::support::World;

const FAILING: &str = r#"
[source]
values = ["good", "bad"]
[[stage]]
name = "check"
shell = 'echo one >&2; echo "two of {}" >&2; test {} != bad || exit 7'
retry = { times = 1 }
"#;

#[test]
fn failures_are_told_with_their_command_and_the_end_of_what_they_said() {
    let world = World::with(FAILING);
    world.run(["-q"]).end().exits(1);
    let text = world.paceline(["failed"]).end().exits(0);
    assert_eq!(
        text.lines(),
        [
            "bad: stage `check`: exit status 7 (after 2 attempts)",
            "    command: sh -c 'echo one >&2; echo \"two of ${1}\" >&2; test \"${1}\" != bad || \
             exit 7' sh bad",
            "    | one",
            "    | two of bad",
            "1 failed item of run 1, `p`",
            "`paceline retry` makes new attempts at them",
        ]
    );
    let json = world.paceline(["failed", "p.toml", "--json"]).end().exits(0).json().remove(0);
    assert_eq!(json["in"], "bad");
    assert_eq!(
        (&json["kind"], &json["code"], &json["attempts"]),
        (&"exit".into(), &7.into(), &2.into())
    );
    assert_eq!(json["stderr"], "one\ntwo of bad\n");
    let export = world.paceline(["failed", "1", "--export"]).end().exits(0);
    assert_eq!(export.text(), "bad\n");
    let export = world.paceline(["failed", "--export", "-0"]).end().exits(0);
    assert_eq!(export.text(), "bad\0");
}

#[test]
fn runs_and_stages_are_told_in_tables_and_as_objects() {
    let world = World::with(FAILING);
    world.run(["-q"]).end().exits(1);
    world.run(["-q"]).end().exits(1);
    let runs = world.paceline(["runs"]).end().exits(0);
    assert_eq!(runs.lines().len(), 4, "{}", runs.text());
    assert!(runs.lines()[3].starts_with("2 runs in `.paceline/journal.db`, "), "{}", runs.text());
    let objects = world.paceline(["runs", "--json"]).end().exits(0);
    for (number, line) in (1..).zip(objects.lines()) {
        let run: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&run["run"], &run["ending"]), (&number.into(), &"failed".into()));
        assert_eq!([&run["in"], &run["ok"], &run["failed"], &run["unfinished"]], [2, 1, 1, 0]);
    }
    let status = world.paceline(["status"]).end().exits(0);
    assert!(status.text().contains("run 2, `p`: in 2 = ok 1 + failed 1 + unfinished 0; failed"));
    let stage = world.paceline(["status", "1", "--json"]).end().exits(0).json().remove(0);
    assert_eq!((&stage["stage"], &stage["retried"]), (&"check".into(), &1.into()));
    assert!(stage["cpu_ms"].as_f64().unwrap() > 0.0, "{stage}");
    assert!(stage["peak_memory_kb"].as_u64().unwrap() > 100, "{stage}");
    world.paceline(["status", "9"]).end().exits(2).says("has no run 9");
    world.paceline(["status", "missing/p.toml"]).end().exits(2).says("there is no journal");
}

#[test]
fn old_runs_are_forgotten_by_number_and_by_age() {
    let world = World::with(FAILING);
    for _ in 0..3 {
        world.run(["-q"]).end().exits(1);
    }
    world.paceline(["runs", "--prune"]).end().exits(2);
    let prune = |words: &[&str]| {
        let run = words.iter().fold(world.paceline(["runs", "--prune"]), |run, word| run.arg(word));
        run.end().exits(0)
    };
    assert!(prune(&["--younger-than", "1d"]).text().starts_with("0 runs forgotten"));
    assert!(prune(&["--keep", "1"]).text().starts_with("2 runs forgotten"));
    assert_eq!(world.paceline(["runs", "--json"]).end().lines().len(), 1);
    assert!(prune(&["--younger-than", "0s"]).text().starts_with("1 run forgotten"));
    world.paceline(["status"]).end().exits(2).says("has no run");
    world.run(["-q"]).end().exits(1);
    assert_eq!(world.sql::<i64>("SELECT max(run) FROM runs"), 4);
}

#[test]
fn what_an_item_holds_is_harmless_on_a_terminal() {
    let world = World::new();
    let words =
        ["--journal", ".paceline/journal.db", "-q", "sh", "-c", "printf '\\033[2J' >&2; false"];
    world.each(words).arg(":::").arg("a\u{1b}[2Jb").end().exits(1);
    let failed = world.paceline(["failed"]).end().exits(0);
    assert!(!failed.text().contains('\u{1b}'), "{}", failed.text());
}

#[test]
fn what_programs_are_told_has_the_names_that_the_page_gives() {
    let world = World::with(FAILING);
    world.run(["-q"]).end().exits(1);
    let page = include_str!("../../../../docs/journal-format.md");
    for command in ["runs", "status", "failed"] {
        let start = format!("- `{command}`, an object a ");
        let line = page.lines().find(|line| line.starts_with(&start)).unwrap();
        // Every word in code but the command itself and what the text between refers to.
        let words = line.split('`').skip(1).step_by(2).skip(1).filter(|word| *word != "each");
        let mut told: Vec<&str> = words.collect();
        let object = world.paceline([command, "--json"]).end().exits(0).json().remove(0);
        let mut names: Vec<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
        told.sort_unstable();
        names.sort_unstable();
        assert_eq!(names, told, "{command}");
    }
}

#[test]
fn a_run_is_said_to_go_on_while_its_process_lives() {
    let world = World::of_one_job(r#"echo > on; exec sleep 1000"#);
    let mut started = world.run(["-q"]).start();
    started.until("the job runs", || world.has("on"));
    let ending = || world.paceline(["runs", "--json"]).end().exits(0).json()[0]["ending"].clone();
    assert_eq!(ending(), "running");
    let status = world.paceline(["status"]).end().exits(0);
    assert!(status.text().contains("unfinished 1; running"), "{}", status.text());
    started.signal(rustix::process::Signal::KILL);
    started.end();
    assert_eq!(ending(), "killed");
}

#[test]
fn what_a_job_used_is_recorded_with_its_worker_and_its_times() {
    let world = World::of_one_job(r#"i=0; while test $i -lt 20000; do i=$((i + 1)); done"#);
    world.run(["-q"]).end().exits(0);
    let number = |sql: &str| world.sql::<i64>(sql);
    let cpu = number("SELECT cpu_us FROM results");
    let service = number("SELECT service_us FROM results");
    assert!(cpu > 1000, "{cpu} us of CPU time");
    assert!(service >= cpu / 2, "{service} us in all, {cpu} of CPU time");
    assert!(number("SELECT peak_memory_kb FROM results") > 100);
    assert_eq!(number("SELECT worker FROM results"), 1);
    assert_eq!(number("SELECT attempts FROM results"), 1);
    let sql = "SELECT r.ended_unix_ms >= i.taken_unix_ms AND i.taken_unix_ms >= \
               s.started_unix_ms AND s.ended_unix_ms >= r.ended_unix_ms \
               FROM results r JOIN items i USING (run, seq) JOIN sessions s USING (run)";
    assert_eq!(number(sql), 1, "times are in order");
    let sql = "SELECT count(*) FROM sessions WHERE version <> '' AND ending = 'complete' AND \
               exit_status = 0 AND pid > 0 AND pid_start > 0 AND boot <> '' AND token <> ''";
    assert_eq!(number(sql), 1);
}
