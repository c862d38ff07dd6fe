//! F6: the pipeline has changed between two sessions.

use crate::support::{Ended, World};

const TWO: &str = r#"
[source]
values = ["a", "b"]
[[stage]]
name = "one"
shell = 'echo {}1'
[[stage]]
name = "two"
shell = 'echo {}2'
"#;

/// A run of the two stages that is done, and then the file with `from` changed to `to`.
fn changed(from: &str, to: &str) -> World {
    let world = World::with(TWO);
    world.run([""; 0]).end().exits(0);
    assert!(TWO.contains(from));
    world.write("p.toml", TWO.replace(from, to));
    world
}

fn resume(world: &World, said: Option<&str>) -> Ended {
    let run = world.resume([""; 0]);
    match said {
        None => run.end(),
        Some(said) => run.arg("--changed").arg(said).end(),
    }
}

#[test]
fn f6_a_changed_stage_is_refused_by_name() {
    let world = changed("echo {}2", "echo {}3");
    resume(&world, None).exits(2).says("stage `two` has changed").says("--changed rerun");
}

#[test]
fn f6_rerun_runs_from_the_changed_stage_on_and_no_earlier() {
    let world = changed("echo {}2", "echo {}3; echo {in} >> two.log");
    let ended = resume(&world, Some("rerun")).exits(0).counts(2, 2, 0, 0);
    assert_eq!(ended.sorted(), ["a13", "b13"]);
    resume(&world, None).exits(0).says("nothing to do");
    assert_eq!(world.count("two.log"), 2);
}

#[test]
fn f6_keep_lets_stand_what_is_done() {
    let world = changed("echo {}2", "echo {}3");
    let ended = resume(&world, Some("keep")).exits(0).counts(2, 2, 0, 0);
    assert_eq!(ended.text(), "");
    resume(&world, None).exits(0).says("nothing to do");
}

#[test]
fn f6_a_new_last_stage_is_a_change_too() {
    let more = "echo {}2'\n[[stage]]\nname = \"three\"\nshell = 'echo {}3";
    let world = changed("echo {}2", more);
    resume(&world, None).exits(2).says("stage `three` is new");
    let ended = resume(&world, Some("rerun")).exits(0).counts(2, 2, 0, 0);
    assert_eq!(ended.sorted(), ["a123", "b123"]);
    let world = changed("echo {}2", more);
    resume(&world, Some("keep")).exits(0).says("nothing to do");
    resume(&world, None).exits(0).says("nothing to do");
    let three = world.paceline(["status", "--json"]).end().exits(0).json().remove(2);
    assert_eq!((&three["ok"], &three["retried"]), (&2.into(), &0.into()), "{three}");
}

#[test]
fn f6_a_stage_that_is_gone_is_a_change_too() {
    let world = changed("[[stage]]\nname = \"two\"\nshell = 'echo {}2'\n", "");
    resume(&world, None).exits(2).says("stage `two` is gone");
    resume(&world, Some("keep")).exits(0).counts(2, 2, 0, 0);
}

#[test]
fn f6_what_decides_no_result_is_no_change() {
    let world = changed("shell = 'echo {}2'", "workers = 7\nqueue = 9\nshell = 'echo {}2'");
    resume(&world, None).exits(0).says("nothing to do");
}

#[test]
fn f6_another_command_of_each_is_refused() {
    let world = World::new();
    world.each(["--journal", "j.db", "echo", "{}", ":::", "a"]).end().exits(0);
    let again = ["--journal", "j.db", "--resume"];
    world
        .each(again)
        .arg("printf")
        .arg("{}")
        .arg(":::")
        .arg("a")
        .end()
        .exits(2)
        .says("has changed");
    let rerun =
        world.each(again).arg("--changed").arg("rerun").arg("printf").arg("<{}>").arg(":::");
    assert_eq!(rerun.arg("a").end().exits(0).text(), "<a>");
}

#[test]
fn a_journal_in_a_folder_that_is_not_there_is_refused_before_anything_runs() {
    let world = World::chain(3);
    for words in [
        &["run", "--journal", "gone/j.db", "p.toml"][..],
        &["each", "--journal", "gone/j.db", "touch", ":::", "ran"],
    ] {
        let ended = world.paceline(words).end().exits(2);
        assert!(
            ended.stderr.contains("`gone/j.db`: no such file or directory"),
            "{}",
            ended.stderr
        );
        assert!(!world.has("gone") && !world.has("ran") && !world.has("one.log"));
    }
}
