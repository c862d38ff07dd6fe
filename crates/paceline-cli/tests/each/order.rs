//! `-k`: the order of the input, however late a job is.

use std::{fs::File, io::Write};

use crate::{World, most_memory, numbers};

#[test]
fn outputs_come_in_input_order_and_those_of_failed_jobs_too() {
    let world = World::new();
    let script = "test $(($1 % 3)) = 0 && sleep 0.02; echo $1; test $(($1 % 7)) != 0";
    let words = ["-k", "-j8", "sh", "-c", script, "sh"];
    let ended = world.each(words).input(numbers(100)).end().exits(1).counts(100, 86, 14, 0);
    assert_eq!(ended.text(), numbers(100));
    let words = ["-k", "-j8", "--tag", "--then", "echo", "echo"];
    let ended = world.each(words).input(numbers(50)).end().exits(0);
    let expected: String = (1..=50).map(|number| format!("{number}\t{number}\n")).collect();
    assert_eq!(ended.text(), expected);
}

#[test]
fn retried_items_keep_their_place() {
    let world = World::new();
    let script = "test $PACELINE_ATTEMPT = 3 -o $(($1 % 2)) = 0 && echo $1";
    let words = ["-k", "-j4", "--retries", "2", "--backoff", "10ms", "sh", "-c", script, "sh"];
    assert_eq!(world.each(words).input(numbers(30)).end().exits(0).text(), numbers(30));
}

#[test]
fn memory_is_bounded_however_late_the_first_job_is() {
    const JOBS: usize = 3000;
    let world = World::new();
    world.fifo("gate");
    std::fs::create_dir(world.path("seen")).unwrap();
    let script = "case $1 in 1) read x <gate;; *) >seen/$1;; esac; head -c 100000 /dev/zero";
    let words = ["-k", "-j4", "sh", "-c", script, "sh"];
    let mut started = world.each(words).input(numbers(JOBS as u32)).start();
    // All go on; what they write waits in a file, and not in a file each.
    started.until("the others", || world.list("seen").len() == JOBS - 1);
    let files = std::fs::read_dir(format!("/proc/{}/fd", started.child.id())).unwrap().count();
    assert!(files < 100, "{files} open files");
    let mut gate = world.gate("gate");
    gate.write_all(b"\n").unwrap();
    let most = most_memory(&started.child);
    assert!(most < 64 << 10, "{most} KiB");
    assert_eq!(started.end().exits(0).stdout.len(), JOBS * 100_000);
}

#[test]
fn a_late_job_does_not_make_the_others_wait_for_nothing() {
    let world = World::new();
    world.fifo("gate");
    let script = "case $1 in 1) read x <gate;; 60) echo >gate;; esac; echo $1";
    let words = ["-k", "-j2", "sh", "-c", script, "sh"];
    assert_eq!(world.each(words).input(numbers(100)).end().exits(0).text(), numbers(100));
}

#[test]
fn standard_error_comes_in_order_too_and_with_its_output() {
    let world = World::new();
    world.fifo("gate");
    // The third begins when the second has ended, and lets the first end.
    let script = "case $1 in 1) read x <gate;; 3) echo >gate;; esac; echo o$1; echo e$1 >&2";
    let words = ["-k", "-j2", "sh", "-c", script, "sh", ":::", "1", "2", "3"];
    let ended = world.each(words).end().exits(0);
    assert_eq!((ended.text(), &*ended.stderr), ("o1\no2\no3\n", "e1\ne2\ne3\n"));
    // The same of all stages, of failed attempts and of failed jobs; both into one file.
    let then = "sh -c 'echo f$1 >&2; echo $1; test $1 != 2' sh";
    let both = "\"$PACELINE\" each -q -k -j2 --tag --retries 1 --then \"$THEN\" \
                sh -c \"$SCRIPT\" sh ::: 1 2 3 2>&1; echo $?";
    let script = "case $1 in 1) read x <gate;; 3) echo >gate;; esac; echo e$1 >&2; echo $1";
    let ended = world.sh(both).env("THEN", then).env("SCRIPT", script).end().exits(0);
    let tagged = ["1\te1", "1\tf1", "1\t1", "2\te2", "2\tf2", "2\tf2", "2\t2"];
    assert_eq!(ended.lines()[..7], tagged);
    assert_eq!(ended.lines()[7..], ["3\te3", "3\tf3", "3\t3", "1"]);
}

#[test]
fn standard_error_of_items_left_unfinished_is_passed_on_in_the_end() {
    let world = World::new();
    world.fifo("gate");
    let script = "case $1 in 1) echo e1 >&2; read x <gate; exec sleep 100;; 3) echo >gate; exit 1;; \
                  *) echo e2 >&2;; esac";
    let words =
        ["-q", "-k", "-j2", "--halt", "now", "sh", "-c", script, "sh", ":::", "1", "2", "3"];
    assert_eq!(world.each(words).end().exits(3).stderr, "e1\ne2\n");
}

#[test]
fn lines_of_the_first_unfinished_job_come_as_they_are_written_and_others_wait() {
    let world = World::new();
    world.fifo("gate");
    let script = "case $1 in 1) echo a; echo e1 >&2; read x <gate; echo b;; \
                  2) seq 300000; echo e2 >&2;; 3) echo c; touch third;; esac";
    let out = File::create(world.path("out")).unwrap();
    let words = ["-k", "--line-buffered", "-j2", "--joblog", "log", "sh", "-c", script, "sh"];
    let mut started = world.each(words).input("1\n2\n3\n").stdout(out).start();
    started.until("the first line, and the end of the second job", || {
        world.read("out") == "a\n" && world.has("third")
    });
    assert_eq!(world.read("out"), "a\n");
    let mut gate = world.gate("gate");
    gate.write_all(b"\n").unwrap();
    let ended = started.end().exits(0);
    assert_eq!(world.read("out"), "a\nb\n".to_owned() + &numbers(300_000) + "c\n");
    assert_eq!(ended.stderr, "e1\ne2\n");
    // The job log knows how much came by lines.
    let log = world.read("log");
    let received: Vec<_> = log.lines().skip(1).map(|row| row.split('\t').nth(5)).collect();
    assert!(["4", "1988895", "2"].iter().all(|bytes| received.contains(&Some(bytes))), "{log}");
}

#[test]
fn lines_in_order_are_those_of_failed_and_retried_items_and_batches_too() {
    let world = World::new();
    let script = "sleep 0.$((9 - $1)); echo $*; exit $(($1 % 2))";
    let words = ["-q", "-k", "-n2", "--line-buffered", "--retries", "1", "-j8", "sh", "-c", script];
    let ended = world.each(words.iter().chain(&["sh"])).input(numbers(5)).end().exits(1);
    assert_eq!(ended.text(), "1 2\n1 2\n3 4\n3 4\n5\n5\n");
    // One that never comes to a job does not keep those behind it waiting.
    let input = format!("a\n{}\nc\n", "b".repeat(200_000));
    let words = ["-q", "-k", "--line-buffered", "echo"];
    assert_eq!(world.each(words).input(input).end().exits(1).text(), "a\nc\n");
}
