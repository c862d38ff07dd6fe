//! What jobs write, and how it comes out: whole, untouched, never mixed.

use std::fs::File;

use crate::{World, numbers};

/// Waits for a file without asking the clock of anybody.
const UNTIL_DONE: &str = "while ! test -e done; do sleep 0.01; done";

#[test]
fn not_a_byte_is_changed() {
    let world = World::new();
    let all: Vec<u8> = (0..=255).chain([0, 0, 7]).collect();
    world.write("bytes", &all);
    let ended = world.each(["-j1", "cat", ":::", "bytes", "bytes"]).end().exits(0);
    assert_eq!(ended.stdout, [all.clone(), all.clone()].concat());
    let ended = world.each(["sh", "-c", "cat $1 >&2", "sh", ":::", "bytes"]).end().exits(0);
    assert!(ended.stdout.is_empty());
    assert_eq!(ended.stderr, String::from_utf8_lossy(&all));
}

#[test]
fn large_outputs_come_whole_and_are_never_mixed() {
    const LENGTH: usize = 5 << 20;
    let world = World::new();
    let script = "head -c 5242880 /dev/zero | tr '\\0' $1";
    let ended = world.each(["-j8", "sh", "-c", script, "sh"]).input("a\nb\nc\nd\n").end().exits(0);
    assert_eq!(ended.stdout.len(), 4 * LENGTH);
    let mut letters: Vec<u8> = Vec::new();
    for output in ended.stdout.chunks(LENGTH) {
        assert!(output.iter().all(|byte| *byte == output[0]), "mixed");
        letters.push(output[0]);
    }
    letters.sort_unstable();
    assert_eq!(letters, b"abcd");
}

#[test]
fn outputs_of_many_small_jobs_are_never_mixed() {
    let world = World::new();
    let script = "echo $1 a; echo $1 e >&2; echo $1 b; echo $1 f >&2";
    let ended = world.each(["-j8", "sh", "-c", script, "sh"]).input(numbers(200)).end().exits(0);
    let stderr: Vec<_> = ended.stderr.lines().collect();
    let out = ended.lines();
    for (lines, letters) in [(out, ["a", "b"]), (stderr, ["e", "f"])] {
        assert_eq!(lines.len(), 400);
        for pair in lines.chunks(2) {
            let (number, _) = pair[0].split_once(' ').unwrap();
            assert_eq!(
                pair,
                [format!("{number} {}", letters[0]), format!("{number} {}", letters[1])]
            );
        }
    }
}

#[test]
fn what_a_failed_job_wrote_is_printed_too() {
    let world = World::new();
    let script = "echo out; echo err >&2; exit 3";
    let ended = world.each(["sh", "-c", script, "sh", ":::", "x"]).end().exits(1);
    assert_eq!(ended.text(), "out\n");
    ended.says("err\n").says("failed: x: stage `sh`: ").says("exit status 3");
}

#[test]
fn what_a_timed_out_job_wrote_is_printed_too() {
    let world = World::new();
    let script = "trap '' TERM; echo out; echo err >&2; while :; do sleep 1; done";
    let words = ["--timeout", "300ms", "--grace", "100ms", "sh", "-c", script, "sh", ":::", "x"];
    let ended = world.each(words).end().exits(1).counts(1, 0, 1, 0);
    assert_eq!(ended.text(), "out\n");
    ended.says("err\n").says("took longer than 300ms");
}

#[test]
fn a_tag_begins_each_line_of_both_outputs() {
    let world = World::new();
    let script = "printf 'a\\n\\nb'; printf 'e\\nf' >&2";
    let ended = world.each(["--tag", "sh", "-c", script, "sh", ":::", "x y"]).end().exits(0);
    assert_eq!(ended.text(), "x y\ta\nx y\t\nx y\tb\n");
    assert_eq!(ended.stderr, "x y\te\nx y\tf\n");
    let ended = world.each(["--tag", "echo", "z", "{#}", ":::", "\x1b[1m\ta\nb"]).end().exits(0);
    assert_eq!(ended.text(), "\\x1b[1m\\ta\\nb\tz 1\n");
    let ended = world.each(["--tag", "echo", "{1}", ":::", "a", ":::", "b"]).end().exits(0);
    assert_eq!(ended.text(), "a b\ta\n");
    let ended = world.each(["--tag", "true", ":::", "a"]).end().exits(0);
    assert_eq!((ended.text(), &*ended.stderr), ("", ""));
}

#[test]
fn ungrouped_jobs_write_straight_to_ours() {
    let world = World::new();
    let script = format!("echo $1; echo e >&2; {UNTIL_DONE}; echo end");
    let out = File::create(world.path("out")).unwrap();
    let mut started = world.each(["-u", "sh", "-c", &script, "sh", ":::", "x"]).stdout(out).start();
    started.until("the first line", || world.read("out") == "x\n");
    world.write("done", "");
    assert_eq!(started.end().exits(0).stderr, "e\n");
    assert_eq!(world.read("out"), "x\nend\n");
    for other in ["--tag", "--json", "-k", "--line-buffered"] {
        world.each(["-u", other, "true", ":::", "x"]).end().exits(2);
    }
}

#[test]
fn a_reader_that_has_enough_ends_the_run() {
    let world = World::new();
    let script = "set -o pipefail; yes | \"$PACELINE\" each -j4 echo {#} | head -1";
    let ended = world.program("bash", ["-c", script]).end().exits(141);
    assert_eq!(ended.lines().len(), 1);
    // A job that writes nothing sees no closed pipe: it is ended.
    let script = "(\"$PACELINE\" each -j2 'sh -c' ::: 'echo x' 'trap : TERM; sleep 100; sleep 100'; \
                  echo $? >code) | head -1";
    world.sh(script).end().exits(0);
    assert_eq!(world.read("code"), "141\n");
}

#[test]
fn an_output_that_cannot_be_written_is_trouble() {
    let world = World::new();
    for options in [&[][..], &["--tag"], &["--json"], &["-k"], &["--line-buffered"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let words = options.iter().chain(&["echo", ":::", "a", "b"]);
        world.each(words).stdout(full).end().exits(4).says("standard output: no space left");
    }
}

#[test]
fn ungrouped_jobs_are_told_that_they_cannot_write() {
    let world = World::new();
    let run =
        |job: &str| world.sh(&format!("\"$PACELINE\" each -u {job} ::: a >&-; echo $? >code"));
    run("echo").end().exits(0).says("Bad file descriptor").says("failed: a: ");
    assert_eq!(world.read("code"), "1\n");
    run("true").end().exits(0);
    assert_eq!(world.read("code"), "0\n");
}

#[test]
fn a_job_whose_descendant_holds_its_output_is_leaky() {
    let world = World::new();
    let words = ["--json", "sh", "-c", "sleep 100 & echo x", "sh", ":::", "a"];
    let ended = world.each(words).end().exits(0);
    let object = &ended.json()[0];
    assert_eq!((&object["leaky"], &object["value"]), (&true.into(), &"x".into()));
    ended.says("leaky: a: ");
    let words = ["--json", "sh", "-c", "sleep 100 >/dev/null 2>&1 & echo x", "sh", ":::", "a"];
    let ended = world.each(words).end().exits(0);
    assert_eq!(ended.json()[0]["leaky"], false);
}
