//! `--dry-run`: what would be run, for a shell to read.

use std::fs::File;

use crate::World;

#[test]
fn a_line_is_printed_for_each_stage_of_each_item_and_nothing_is_run() {
    let world = World::new();
    let words = ["--dry-run", "--then", "cat {} {in} > x", "touch {/}", ":::", "a/b"];
    world.each(words).end().exits(2).says("shell operator `>`").says("--then");
    let words = ["--dry-run", "--then", "cat {} {in}", "--then", "wc {.}", "touch {/}"];
    let ended = world.each(words).input("a/b c\nd\n").end().exits(0);
    assert_eq!(
        ended.lines(),
        ["touch 'b c'", "cat {} 'a/b c'", "wc {}", "touch d", "cat {} d", "wc {}"]
    );
    assert!(!world.has("d"));
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
}

#[test]
fn a_shell_reads_back_every_item() {
    let world = World::new();
    let items = ["a b", "it's", "$(touch canary)", "`x`", "*", "", "~", "a\nb", "\"", "-rf", "é"];
    let words = ["--dry-run", "printf", "<%s>"];
    let ended = world.each(words.iter().chain([":::"].iter()).chain(&items)).end().exits(0);
    assert_eq!(ended.lines().len(), items.len());
    let again = world.program("bash", ["-c", ended.text()]).end().exits(0);
    let expected: String = items.iter().map(|item| format!("<{item}>")).collect();
    assert_eq!(again.text(), expected);
    assert!(!world.has("canary"));
}

#[test]
fn batches_and_scripts_are_shown_as_they_would_run() {
    let world = World::new();
    let ended = world.each(["--dry-run", "-n2", "echo", ":::", "a", "b b", "c"]).end().exits(0);
    assert_eq!(ended.lines(), ["echo a 'b b'", "echo c"]);
    let ended = world.each(["--dry-run", "--shell", "echo {} | wc", ":::", "a b"]).end().exits(0);
    let again = world.program("sh", ["-c", ended.text()]).end().exits(0);
    assert_eq!(again.text().split_whitespace().collect::<Vec<_>>(), ["1", "2", "4"]);
}

#[test]
fn what_could_not_be_run_is_said_in_its_place() {
    let world = World::new();
    let mut input = vec![b'x'; 17 << 20];
    input.extend_from_slice(b"\nok\na\0b\n");
    let ended = world.each(["--dry-run", "echo"]).input(input).end().exits(1);
    let lines = ended.lines();
    assert!(lines[0].starts_with("# item 1: ") && lines[0].contains("16 MiB"), "{}", lines[0]);
    assert_eq!(lines[1], "echo ok");
    assert!(lines[2].starts_with("# item 3: "), "{}", lines[2]);
}

#[test]
fn an_output_that_cannot_be_written_is_trouble() {
    let world = World::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    world.each(["--dry-run", "echo", ":::", "a"]).stdout(full).end().exits(4).says("no space left");
    let ended = world.sh("yes | \"$PACELINE\" each --dry-run echo | head -1").end().exits(0);
    assert_eq!(ended.text(), "echo y\n");
}
