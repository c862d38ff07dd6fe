//! What `resume`, `retry` and `each --resume` do, and what they leave alone.

use crate::{
    numbers, set_of,
    support::{Started, World},
};

/// A pipeline whose second stage fails on items with a file `bad-ITEM`.
const PICKY: &str = r#"
[source]
lines = "items"
[[stage]]
name = "one"
shell = 'echo {} >> one.log; echo {}-1'
[[stage]]
name = "two"
shell = 'echo {in} >> two.log; test ! -e bad-{in} && echo {one}-2'
"#;

fn picky(items: &str, bad: &[&str]) -> World {
    let world = World::with(PICKY);
    world.write("items", items);
    for item in bad {
        world.write(&format!("bad-{item}"), "");
    }
    world
}

#[test]
fn failed_items_get_new_attempts_where_they_failed_and_results_are_printed_once() {
    let world = picky("a\nb\nc\n", &["b"]);
    let ended = world.run([""; 0]).end().exits(1).counts(3, 2, 1, 0);
    assert_eq!(ended.sorted(), ["a-1-2", "c-1-2"]);
    std::fs::remove_file(world.path("bad-b")).unwrap();
    let ended = world.resume([""; 0]).end().exits(0).counts(3, 3, 0, 0);
    assert_eq!(ended.lines(), ["b-1-2"]);
    assert_eq!((world.count("one.log"), world.count("two.log")), (3, 4));
    let ended = world.resume([""; 0]).end().exits(0).counts(3, 3, 0, 0);
    assert_eq!((ended.text(), world.count("two.log")), ("", 4));
    ended.says("nothing to do");
}

#[test]
fn retry_makes_new_attempts_at_failed_items_alone() {
    let world = picky("a\nb\nc\n", &["a", "c"]);
    world.run(["--halt", "soon,fail=2"]).end();
    let failed = world.paceline(["failed", "--export"]).end().exits(0);
    let failed: Vec<String> = failed.sorted().into_iter().map(str::to_owned).collect();
    assert_eq!(failed, ["a", "c"]);
    std::fs::remove_file(world.path("bad-a")).unwrap();
    world.write("items", "a\nb\nc\nnew\n");
    let ended = world.paceline(["retry"]).end();
    assert!(ended.lines().contains(&"a-1-2"), "{ended:?}");
    assert!(!world.set("one.log").contains("new"), "retry does not look at the source");
    assert_eq!(ended.account().unwrap()[2], 1, "{}", ended.stderr);
}

#[test]
fn the_source_is_read_again_in_whatever_order_and_new_items_are_taken() {
    let world = picky("a\nb\na\n", &[]);
    world.run([""; 0]).end().exits(0).counts(3, 3, 0, 0);
    world.write("items", "new\na\nb\na\nb\n");
    let ended = world.resume([""; 0]).end().exits(0).counts(5, 5, 0, 0);
    assert_eq!(ended.sorted(), ["b-1-2", "new-1-2"]);
}

#[test]
fn items_of_standard_input_come_from_the_journal() {
    let world = picky("", &["b"]);
    let pipeline = PICKY.replace("lines = \"items\"", "lines = \"-\"");
    world.write("p.toml", pipeline);
    world.run([""; 0]).input("a\nb\nc\n").end().exits(1).counts(3, 2, 1, 0);
    std::fs::remove_file(world.path("bad-b")).unwrap();
    let ended = world.resume([""; 0]).input("not read\n").end().exits(0).counts(3, 3, 0, 0);
    assert_eq!(ended.lines(), ["b-1-2"]);
}

#[test]
fn fields_and_broken_lines_of_standard_input_come_from_the_journal_too() {
    let world = World::with(
        r#"
[source]
jsonl = "-"
[[stage]]
name = "one"
shell = 'test -e fixed && echo {name}'
"#,
    );
    let items = "{\"name\": \"x\"}\nbroken\n";
    world.run([""; 0]).input(items).end().exits(1).counts(2, 0, 2, 0);
    world.write("fixed", "");
    let ended = world.resume([""; 0]).end().exits(1).counts(2, 1, 1, 0).says("line 2 is no JSON");
    assert_eq!(ended.lines(), ["x"]);
}

#[test]
fn items_of_the_command_line_are_known_even_if_none_was_taken() {
    let world = World::with("[[stage]]\nname = \"one\"\nshell = 'test -e go && echo {}'\n");
    world.run(["--halt", "soon", "--", "a", "b", "c", "d", "e", "f"]).end().exits(3);
    world.write("go", "");
    let ended = world.resume([""; 0]).end().exits(0).counts(6, 6, 0, 0);
    assert_eq!(ended.sorted(), ["a", "b", "c", "d", "e", "f"]);
}

#[test]
fn a_stopped_run_goes_on_at_the_stage_where_each_item_stopped() {
    let world = World::chain(40);
    let mut started = world.run([""; 0]).start();
    started.until("some are done", || world.has("three.log") && world.count("three.log") > 4);
    started.signal(rustix::process::Signal::INT);
    let first = started.end().ends_by(rustix::process::Signal::INT);
    let (one, two) = (world.count("one.log"), world.count("two.log"));
    let second = world.resume([""; 0]).end().exits(0).counts(40, 40, 0, 0);
    let mut printed = first.printed();
    assert!(printed.is_disjoint(&second.printed()), "{printed:?} {:?}", second.printed());
    printed.extend(second.printed());
    assert_eq!(printed, set_of(40));
    // What the signal interrupted began again; nothing else did.
    assert!(world.count("one.log") <= 40 + 3 && one <= 40, "{one}");
    assert!(world.count("two.log") <= 40 + 3 && two <= 40, "{two}");
}

#[test]
fn what_the_summary_calls_left_is_what_resume_takes_up() {
    let world = World::chain(30);
    let started = world.run([""; 0]).start();
    drained(started, &world);
    let ended = world.resume(["p.toml", "--json"]).end().exits(0).counts(30, 30, 0, 0);
    for object in ended.json() {
        assert_eq!(object["status"], "ok");
        assert_eq!(object["stages"].as_array().unwrap().len(), 3, "{object}");
    }
}

fn drained(mut started: Started<'_>, world: &World) {
    started.until("one is done", || world.has("three.log"));
    started.signal(rustix::process::Signal::USR2);
    started.end().exits(3);
}

#[test]
fn each_skips_what_its_journal_has_as_done() {
    let world = World::new();
    let script = "test ! -e bad-\"$1\" && echo \"out $1\"";
    world.write("bad-2", "");
    let words = ["--journal", "j.db", "--resume", "sh", "-c", script, "sh"];
    let ended = world.each(words).input(numbers(3)).end().exits(1).counts(3, 2, 1, 0);
    assert_eq!(ended.sorted(), ["out 1", "out 3"]);
    std::fs::remove_file(world.path("bad-2")).unwrap();
    let ended = world.each(words).input(numbers(4)).end().exits(0);
    assert_eq!(ended.sorted(), ["out 2", "out 4"]);
    world.each(words).input(numbers(4)).end().exits(0).says("nothing to do");
    world.each(["--resume", "echo"]).input("").end().exits(2).says("--journal");
    world.paceline(["resume", "--journal", "j.db"]).end().exits(2).says("`paceline each`");
}

#[test]
fn several_input_sources_and_placeholders_come_back_from_the_journal() {
    let world = World::new();
    let words = ["--journal", "j.db", "--resume", "sh", "-c", "test -e go && echo $2+$1", "sh"];
    let items = ["{1}", "{2}", ":::", "a b", "c", ":::", "1"];
    world
        .each(words)
        .arg(items[0])
        .arg(items[1])
        .arg(":::")
        .arg("a b")
        .arg("c")
        .arg(":::")
        .arg("1")
        .end()
        .exits(1);
    world.write("go", "");
    let run = items.iter().fold(world.each(words), |run, word| run.arg(word));
    assert_eq!(run.end().exits(0).sorted(), ["1+a b", "1+c"]);
}

#[test]
fn batches_that_were_made_go_on_as_they_were() {
    let world = World::with(
        r#"
[source]
lines = "items"
[[stage]]
name = "pack"
shell = 'echo {} >> pack.log; echo packed {}'
batch = { items = 3 }
workers = 1
[[stage]]
name = "send"
shell = 'test -e go && echo {#} {}'
"#,
    );
    world.write("items", numbers(7));
    world.run([""; 0]).end().exits(1).counts(7, 0, 7, 0);
    world.write("go", "");
    let ended = world.resume([""; 0]).end().exits(0).counts(7, 7, 0, 0);
    assert_eq!(ended.sorted(), ["1 packed 1 2 3", "2 packed 4 5 6", "3 packed 7"]);
    assert_eq!(world.count("pack.log"), 3, "no batch was packed again");
    world.write("items", numbers(8));
    assert_eq!(world.resume([""; 0]).end().exits(0).lines(), ["4 packed 8"]);
}

#[test]
fn a_name_that_an_earlier_session_has_made_is_still_taken() {
    let world = World::with(
        r#"
[source]
lines = "items"
[[stage]]
name = "one"
shell = 'echo {}'
to = "out/same"
workers = 1
"#,
    );
    world.write("items", "a\n");
    world.run([""; 0]).end().exits(0);
    world.write("items", "a\nb\n");
    world.resume([""; 0]).end().exits(1).counts(2, 1, 1, 0).says("belongs to item 1");
    assert_eq!(world.read("out/same"), "a\n");
}

#[test]
fn jobs_see_the_same_identity_in_every_session_whatever_is_put_before_them() {
    let world = World::with(
        "[source]\nlines = \"items\"\n[[stage]]\nname = \"one\"\n\
         shell = 'echo {} $PACELINE_ITEM >> ids; test -e go'\n",
    );
    world.write("items", "a\nb\na\n");
    world.run(["--json"]).end().exits(1);
    let before = world.set("ids");
    assert_eq!(before.len(), 3, "{before:?}");
    world.write("items", "new\na\nb\na\n");
    world.write("go", "");
    std::fs::remove_file(world.path("ids")).unwrap();
    let ended = world.resume(["--json"]).end().exits(0);
    let after = world.set("ids");
    assert!(after.is_superset(&before) && after.len() == 4, "{before:?} {after:?}");
    let ids: Vec<_> = ended.json().iter().map(|object| object["id"].clone()).collect();
    assert!(before.iter().all(|line| ids.iter().any(|id| line.ends_with(id.as_str().unwrap()))));
}

#[test]
fn nothing_is_recorded_if_that_is_said_and_by_each_unless_it_is() {
    let world = World::chain(2);
    world.run(["--no-journal"]).end().exits(0);
    assert!(!world.has(".paceline"));
    world.each(["true", ":::", "a"]).end().exits(0);
    assert!(!world.has(".paceline"));
    world.resume([""; 0]).end().exits(2).says("there is no journal").says("hint");
    world.run(["--journal", "other.db"]).end().exits(0);
    assert!(world.has("other.db") && !world.has(".paceline"));
}

#[test]
fn f4_a_second_runner_is_refused_and_told_the_first_ones_number() {
    let world = World::with(
        "[source]\nvalues = [\"a\"]\n[[stage]]\nname = \"one\"\nshell = 'echo > on; cat gate'\n",
    );
    world.fifo("gate");
    let mut first = world.run([""; 0]).start();
    first.until("the job runs", || world.has("on"));
    let pid = first.child.id();
    let refused = world.run([""; 0]).end().exits(2);
    assert!(refused.stderr.contains(&format!("in use by process {pid}")), "{}", refused.stderr);
    // Looking is always possible.
    let status = world.paceline(["status"]).end().exits(0);
    assert!(status.text().contains("running"), "{}", status.text());
    std::fs::write(world.path("gate"), "").unwrap();
    first.end().exits(0);
}

#[test]
fn a_pipeline_file_is_never_taken_for_another_one() {
    let world = picky("a\n", &[]);
    world.run(["-q"]).end().exits(0);
    world.write("other.toml", PICKY.replace("{one}-2", "{one}-3"));
    for words in
        [&["resume"][..], &["retry"], &["status"], &["failed"], &["resume", "--changed", "rerun"]]
    {
        world.paceline(words).arg("other.toml").end().exits(2).says("has no run of `other.toml`");
    }
    world.resume(["-q", "p.toml"]).end().exits(0);
    // Under another path it is the same, unless there is still a file where it was.
    std::fs::create_dir(world.path("moved")).unwrap();
    for name in ["p.toml", "items", ".paceline"] {
        std::fs::rename(world.path(name), world.path(format!("moved/{name}"))).unwrap();
    }
    let ended = world.resume(["moved/p.toml"]).end().exits(0).counts(1, 1, 0, 0);
    ended.says("nothing to do: all is done");
}

#[test]
fn retry_says_that_nothing_has_failed_where_items_are_left() {
    let world = picky("a\nb\nc\n", &["b"]);
    world.run(["-q", "--halt", "now"]).end();
    std::fs::remove_file(world.path("bad-b")).unwrap();
    world.paceline(["retry", "-q"]).end();
    let ended = world.paceline(["retry"]).end();
    match ended.account() {
        Some([3, 3, 0, 0]) => ended.exits(0).says("nothing to do: all is done"),
        _ => ended.exits(3).says("nothing to do: no item has failed"),
    };
}

#[test]
fn resume_takes_the_settings_of_the_pace_that_run_takes() {
    let world = picky("a\nb\n", &["b"]);
    world.run(["-q", "--freeze", "plan.toml"]).end().exits(1);
    std::fs::remove_file(world.path("bad-b")).unwrap();
    let words = ["--workers-from", "plan.toml", "--pace-log", "log", "--cpu-budget", "1"];
    world.resume(words).arg("--freeze").arg("again.toml").end().exits(0).counts(2, 2, 0, 0);
    assert!(world.has("log") && world.has("again.toml"));
    world.resume(["--workers-from", "gone"]).end().exits(2).says("gone");
}
