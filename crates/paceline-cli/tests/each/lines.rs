//! `--line-buffered`: lines as they come, whole lines only.

use std::fs::File;

use crate::{World, numbers};

#[test]
fn a_line_comes_while_its_job_still_runs() {
    let world = World::new();
    world.fifo("gate");
    let script = "printf 'one\\ntw'; echo e >&2; read x <gate; printf 'o\\nthree'; exit 3";
    let out = File::create(world.path("out")).unwrap();
    let words = ["--line-buffered", "sh", "-c", script, "sh", ":::", "x"];
    let mut started = world.each(words).stdout(out).start();
    started.until("the first line", || world.read("out") == "one\n");
    use std::io::Write;
    let mut gate = world.gate("gate");
    gate.write_all(b"\n").unwrap();
    started.end().exits(1).says("e\n").says("exit status 3");
    assert_eq!(world.read("out"), "one\ntwo\nthree");
}

#[test]
fn lines_of_many_jobs_are_whole() {
    let world = World::new();
    let script = "for n in 1 2 3 4 5 6 7 8; do printf $1; printf '%2000s' ''; echo $1; done; \
                  for n in 1 2 3; do printf $1 >&2; echo e$1 >&2; done";
    let words = ["--line-buffered", "-j8", "sh", "-c", script, "sh"];
    let ended = world.each(words).input(numbers(100)).end().exits(0);
    assert_eq!(ended.lines().len(), 800);
    for line in ended.lines() {
        let number = &line[..line.find(' ').unwrap()];
        assert_eq!(line, format!("{number}{:2000}{number}", ""));
    }
    assert_eq!(ended.stderr.lines().count(), 300);
    for line in ended.stderr.lines() {
        let (before, after) = line.split_once('e').unwrap();
        assert_eq!(before, after);
    }
}

#[test]
fn a_tag_begins_each_line_and_the_last_one_gets_its_end() {
    let world = World::new();
    let script = "printf 'a\\n\\nb'; printf 'e\\nf' >&2";
    let words = ["--line-buffered", "--tag", "sh", "-c", script, "sh", ":::", "x"];
    let ended = world.each(words).end().exits(0);
    assert_eq!(ended.text(), "x\ta\nx\t\nx\tb\n");
    assert_eq!(ended.stderr, "x\te\nx\tf\n");
}

#[test]
fn not_a_byte_of_a_long_output_is_lost() {
    let world = World::new();
    let script = "seq 200000; printf end";
    let ended = world.each(["--line-buffered", "sh", "-c", script, ":::", "x"]).end().exits(0);
    assert_eq!(ended.text(), numbers(200_000) + "end");
}

#[test]
fn a_line_longer_than_memory_should_hold_is_passed_on_in_pieces() {
    let world = World::new();
    let script = "head -c 40000000 /dev/zero | tr '\\0' x; grep VmHWM /proc/$PPID/status >&2";
    let words = ["--line-buffered", "--tag", "sh", "-c", script, ":::", "t"];
    let ended = world.each(words).end().exits(0);
    assert_eq!(ended.stdout.len(), 40_000_000 + 3);
    assert!(ended.stdout.starts_with(b"t\txx") && ended.stdout.ends_with(b"x\n"));
    let most: u64 = ended.stderr.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert!(most < 100 << 10, "{most} KiB");
}

#[test]
fn what_a_stopped_job_wrote_is_printed_too() {
    let world = World::new();
    let script = "trap '' TERM; echo out; printf part; while :; do sleep 1; done";
    let options = ["--line-buffered", "--timeout", "300ms", "--grace", "100ms"];
    let job = ["sh", "-c", script, "sh", ":::", "x"];
    assert_eq!(world.each(options.iter().chain(&job)).end().exits(1).text(), "out\npart");
}

#[test]
fn stages_before_the_last_keep_their_results() {
    let world = World::new();
    let words = ["--line-buffered", "-k", "--then", "echo {}{}", "sh", "-c", "echo $1; echo e >&2"];
    let ended = world.each(words.iter().chain(&["sh", ":::", "a", "b"])).end().exits(0);
    assert_eq!(ended.text(), "aa\nbb\n");
    assert_eq!(ended.stderr, "e\ne\n");
    let words = ["--line-buffered", "--then", "echo {}{}", "echo", ":::", "a"];
    assert_eq!(world.each(words).end().exits(0).text(), "aa\n");
}

#[test]
fn a_reader_that_has_enough_ends_the_run() {
    let world = World::new();
    let script = "(\"$PACELINE\" each --line-buffered yes ::: a b; echo $? >code) | head -1";
    assert_eq!(world.sh(script).end().exits(0).lines().len(), 1);
    assert_eq!(world.read("code"), "141\n");
}
