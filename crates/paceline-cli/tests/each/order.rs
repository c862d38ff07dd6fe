//! `-k`: the order of the input, however late a job is.

use std::io::Write;

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
    // As many go on as there is room for outputs that wait; then they wait for the first.
    started.until("the others", || world.list("seen").len() >= 50);
    let mut gate = world.gate("gate");
    gate.write_all(b"\n").unwrap();
    started.until("many", || world.has(&format!("seen/{}", JOBS - 200)));
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
