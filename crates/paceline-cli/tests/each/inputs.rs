//! What an item is, and where items come from.

use std::io::Write;

use crate::{World, most_memory, numbers};

#[test]
fn every_byte_but_the_separator_is_kept() {
    let world = World::new();
    let all: Vec<u8> = (1..=255).collect();
    let ended = world.each(["-0", "printf", "%s"]).input(all.clone()).end().exits(0);
    assert_eq!(ended.stdout, all);

    let single: Vec<u8> = (1..=255).flat_map(|byte| [byte, 0]).collect();
    let words = ["-0", "-n", "500", "printf", r"%s\0"];
    assert_eq!(world.each(words).input(single.clone()).end().exits(0).stdout, single);

    let lines: Vec<u8> = (1..=255).filter(|byte| *byte != b'\n').flat_map(|b| [b, b'\n']).collect();
    let words = ["-n", "500", "printf", r"%s\n"];
    assert_eq!(world.each(words).input(lines.clone()).end().exits(0).stdout, lines);
}

#[test]
fn empty_lines_are_items_and_nothing_is_trimmed() {
    let world = World::new();
    let input = "\n a \n\n\tb\r\n a \n";
    let words = ["-k", "printf", "<%s>"];
    let ended = world.each(words).input(input).end().exits(0);
    assert_eq!(ended.text(), "<>< a ><><\tb\r>< a >");
    let ended = world.each(["--skip-empty", "-k", "printf", "<%s>"]).input(input).end().exits(0);
    assert_eq!(ended.text(), "< a ><\tb\r>< a >");
    let ended = world.each(["--skip-empty", "-k", "printf", "<%s>", ":::", "", "x", ""]).end();
    assert_eq!(ended.exits(0).text(), "<x>");
}

#[test]
fn the_last_separator_may_be_missing_and_is_no_item() {
    let world = World::new();
    for input in ["a\nb", "a\nb\n"] {
        assert_eq!(world.each(["-k", "echo"]).input(input).end().exits(0).text(), "a\nb\n");
    }
    for input in ["a\nx\0b", "a\nx\0b\0"] {
        let ended = world.each(["-0", "-k", "printf", "%s;"]).input(input).end().exits(0);
        assert_eq!(ended.text(), "a\nx;b;");
    }
    assert_eq!(world.each(["echo"]).input("").end().exits(0).text(), "");
    assert_eq!(world.each(["echo", ":::"]).end().exits(0).text(), "");
}

#[test]
fn items_that_are_equal_are_items_all_the_same() {
    let world = World::new();
    let ended = world.each(["--json", "echo"]).input("x\nx\nx\n").end().exits(0);
    let ids: std::collections::BTreeSet<_> =
        ended.json().iter().map(|object| object["id"].to_string()).collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn the_first_job_starts_before_the_input_has_ended() {
    let world = World::new();
    let mut started = world.each(["touch"]).open_input().start();
    let mut input = started.child.stdin.take().unwrap();
    input.write_all(b"first\nsec").unwrap();
    started.until("the first job", || world.has("first"));
    assert!(!world.has("sec"));
    input.write_all(b"ond\n").unwrap();
    started.until("the second job", || world.has("second"));
    drop(input);
    started.end().exits(0);
}

#[test]
fn a_batch_that_is_full_starts_before_the_input_has_ended() {
    let world = World::new();
    let mut started = world.each(["-n2", "touch"]).open_input().start();
    let mut input = started.child.stdin.take().unwrap();
    input.write_all(b"a\nb\nc\n").unwrap();
    started.until("the first batch", || world.has("b"));
    assert!(!world.has("c"));
    drop(input);
    started.end().exits(0);
    assert!(world.has("c"));
}

#[test]
fn values_and_files_leave_standard_input_alone() {
    let world = World::new();
    world.write("list", "x\ny\n");
    let mut started = world.each(["-k", "echo", ":::", "a"]).open_input().start();
    let input = started.child.stdin.take();
    assert_eq!(started.end().exits(0).text(), "a\n");
    drop(input);
    assert_eq!(world.each(["-k", "-a", "list", "echo"]).end().exits(0).text(), "x\ny\n");
    assert_eq!(world.each(["-k", "echo", "::::", "list"]).end().exits(0).text(), "x\ny\n");
    let ended = world.each(["-k", "-a", "-", "echo"]).input("z\n").end().exits(0);
    assert_eq!(ended.text(), "z\n");
}

#[test]
fn several_sources_are_combined_and_the_last_varies_fastest() {
    let world = World::new();
    world.write("list", "1\n2\n");
    let combined = |words: &[&str], input: &str| {
        let ended = world.each(["-k", "echo"].iter().chain(words)).input(input).end().exits(0);
        ended.text().to_owned()
    };
    assert_eq!(combined(&[":::", "a", "b", ":::", "1", "2"], ""), "a 1\na 2\nb 1\nb 2\n");
    assert_eq!(combined(&[":::", "a", "b", "::::", "list"], ""), "a 1\na 2\nb 1\nb 2\n");
    assert_eq!(combined(&["::::", "list", "-"], "x\ny\n"), "1 x\n1 y\n2 x\n2 y\n");
    assert_eq!(combined(&[":::", "a", "b", ":::+", "c", "d"], ""), "a c\nb d\n");
    assert_eq!(combined(&[":::", "a", "b", "::::+", "list"], ""), "a 1\nb 2\n");
    let linked = [":::", "x", "y", ":::", "a", "b", ":::+", "1", "2"];
    assert_eq!(combined(&linked, ""), "x a 1\nx b 2\ny a 1\ny b 2\n");
    let ended = world.each(["-k", "-a", "list", "echo", ":::", "a", "b"]).end().exits(0);
    assert_eq!(ended.text(), "1 a\n1 b\n2 a\n2 b\n");
    assert_eq!(combined(&[":::", "a", ":::"], ""), "");
}

#[test]
fn the_slowest_source_is_streamed() {
    let world = World::new();
    let words = ["touch", "{1}{2}", "::::", "-", ":::", "x", "y"];
    let mut started = world.each(words).open_input().start();
    let mut input = started.child.stdin.take().unwrap();
    input.write_all(b"a\n").unwrap();
    started.until("both jobs of the first line", || world.has("ax") && world.has("ay"));
    drop(input);
    started.end().exits(0);
}

#[test]
fn sources_that_make_no_sense_are_usage_errors() {
    let world = World::new();
    let refused = |words: &[&str], said: &str| {
        let ended = world.each(["touch", "ran"].iter().chain(words)).input("x\n").end().exits(2);
        ended.says(said).says("hint: ");
        assert!(!world.has("ran"), "{words:?}");
    };
    refused(&[":::", "a", "b", ":::+", "c"], "linked sources differ in length: 2 and 1");
    refused(&["::::"], "after `::::` a file has to be named");
    refused(&["::::", ":::", "a"], "after `::::` a file has to be named");
    refused(&[":::+", "a"], "`:::+` links to the source before it");
    refused(&["::::+", "list"], "`::::+` links to the source before it");
    world.each(["touch", "ran", "::::", "nowhere"]).end().exits(2).says("`nowhere`");
    world.each(["-a", "nowhere", "touch", "ran"]).end().exits(2).says("`nowhere`");
    world.each(["-a", "/", "touch", "ran"]).end().exits(2).says("it is a folder");
    assert!(!world.has("ran"));
}

#[test]
fn an_item_that_cannot_be_run_fails_alone() {
    let world = World::new();
    let mut input = vec![b'x'; 17 << 20];
    input.extend_from_slice(b"\nshort\n");
    let ended = world.each(["echo"]).input(input).end().exits(1).counts(2, 1, 1, 0);
    assert_eq!(ended.text(), "short\n");
    ended.says("over the limit of 16 MiB");

    let mut input = vec![b'x'; 200_000];
    input.extend_from_slice(b"\nshort\na\0b\n");
    let ended = world.each(["echo"]).input(input.clone()).end().exits(1).counts(3, 1, 2, 0);
    assert_eq!(ended.text(), "short\n");
    ended.says("too long").says("`--stdin`").says("a\\x00b").says("NUL");

    let ended = world.each(["-k", "--stdin", "wc", "-c"]).input(input).end().exits(0);
    assert_eq!(ended.text().split_whitespace().collect::<Vec<_>>(), ["200000", "5", "3"]);
}

#[test]
fn a_million_items_are_read_in_little_memory() {
    const MOST: u64 = 48 << 10;
    let world = World::new();
    let mut started =
        world.each(["--dry-run", "true"]).open_input().stdout(std::process::Stdio::null()).start();
    let mut input = started.child.stdin.take().unwrap();
    input.write_all(numbers(1_000_000).as_bytes()).unwrap();
    let most = most_memory(&started.child);
    assert!(most < MOST, "{most} KiB");
    drop(input);
    started.end().exits(0);
}

#[test]
fn memory_does_not_grow_with_the_number_of_jobs() {
    let world = World::new();
    let tell = "case $1 in 300|3000) grep VmHWM /proc/$PPID/status;; esac";
    let ended = world.each(["-k", "-j4", "sh", "-c", tell, "sh"]).input(numbers(3000)).end();
    let ended = ended.exits(0);
    let memory: Vec<u64> = ended
        .lines()
        .iter()
        .filter_map(|line| line.split_whitespace().nth(1)?.parse().ok())
        .collect();
    assert!(memory.len() == 2 && memory[1] < memory[0] + (4 << 10), "{memory:?} KiB");
}
