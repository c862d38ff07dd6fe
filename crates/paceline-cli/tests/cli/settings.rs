//! Every setting of a stage: workers, queue, time, retries, order, batches.

use std::time::{Duration, Instant};

use crate::support::World;

fn stage(rest: &str) -> World {
    World::with(&format!("[[stage]]\nname = \"s\"\n{rest}\n"))
}

#[test]
fn no_two_live_jobs_share_a_slot() {
    // A job holds its slot's folder for as long as it lives.
    let world = stage("shell = \"mkdir slot{%} && echo {%} && rmdir slot{%}\"\nworkers = 3");
    let items: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let ended = world.run(items).end().exits(0).counts(60, 60, 0, 0);
    assert!(ended.lines().iter().all(|slot| ["1", "2", "3"].contains(slot)), "{}", ended.text());
}

#[test]
fn as_many_jobs_run_at_once_as_the_file_says() {
    // Each waits until all three are there.
    let script = "touch here{}; while [ $(ls | grep -c here) -lt 3 ]; do sleep 0.01; done";
    let world = stage(&format!("shell = \"{script}\"\nworkers = 3\nqueue = 1"));
    world.run(["1", "2", "3"]).end().exits(0).counts(3, 3, 0, 0);
}

#[test]
fn results_come_in_the_order_of_the_input_if_asked_for() {
    let world =
        stage("shell = \"[ {} = 1 ] && read x < gate; echo {}\"\nordered = true\nworkers = 2");
    world.fifo("gate");
    let mut items: Vec<String> = (1..=20).map(|number| number.to_string()).collect();
    items.push("open".to_owned());
    world.write(
        "p.toml",
        "[[stage]]\nname = \"s\"\nordered = true\nworkers = 2\n\
         shell = \"case {} in 1) read x < gate;; 20) echo > gate;; esac; echo {}\"",
    );
    let ended = world.run(&items[..20]).end().exits(0);
    assert_eq!(ended.lines(), items[..20].iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_job_that_ignores_term_is_killed_after_the_grace_period() {
    let world = stage(
        "shell = \"trap '' TERM; touch started; (sleep 60 & wait); sleep 60\"\n\
         timeout = \"300ms\"\ngrace = \"200ms\"",
    );
    let before = Instant::now();
    world.run(["x"]).end().exits(1).counts(1, 0, 1, 0).says("took longer than 300ms");
    assert!(before.elapsed() < Duration::from_secs(10));
    assert!(world.has("started"));
}

#[test]
fn a_job_may_clean_up_when_its_time_is_over() {
    let world = stage(
        "shell = \"trap 'touch cleaned; exit 0' TERM; echo said >&2; sleep 60 & wait\"\n\
         timeout = \"300ms\"\ngrace = \"30s\"",
    );
    world.run(["x"]).end().exits(1).counts(1, 0, 1, 0).says("said");
    assert!(world.has("cleaned"));
}

#[test]
fn a_failed_item_gets_as_many_extra_attempts_as_the_file_says() {
    let world = stage(
        "shell = 'echo $PACELINE_ATTEMPT >> tries; test $(wc -l < tries) -ge 3'\n\
         retry = { times = 2, backoff = \"1ms\" }",
    );
    let ended = world.run(["x", "--json"]).end().exits(0).counts(1, 1, 0, 0);
    assert_eq!(world.read("tries"), "1\n2\n3\n");
    assert_eq!(ended.json()[0]["attempts"], 3);

    let world = stage("shell = 'echo >> tries; exit 9'\nretry = { times = 2 }");
    world.run(["x"]).end().exits(1).counts(1, 0, 1, 0).says("exit status 9 (after 3 attempts)");
    assert_eq!(world.read("tries").lines().count(), 3);
}

#[test]
fn waits_before_attempts_grow_from_the_backoff() {
    let world = stage(
        "run = \"false\"\nretry = { times = 3, backoff = \"40ms\", factor = 3, max = \"100ms\", \
         jitter = false }",
    );
    let before = Instant::now();
    world.run(["x"]).end().exits(1);
    // 40 + 100 + 100
    assert!(before.elapsed() >= Duration::from_millis(240), "{:?}", before.elapsed());
}

#[test]
fn a_program_that_is_missing_gets_one_attempt() {
    let world = stage("run = \"no-such-program\"\nretry = { times = 5, backoff = \"1h\" }");
    world.run(["x"]).end().exits(1).says_not("attempts");
}

#[test]
fn a_wait_for_a_retry_frees_the_worker() {
    // The first item fails until the second has run, with a single worker.
    let world = stage(
        "shell = \"[ {} = b ] && touch b; test -e b\"\nworkers = 1\n\
         retry = { times = 50, backoff = \"20ms\", factor = 1 }",
    );
    world.run(["a", "b"]).end().exits(0).counts(2, 2, 0, 0);
}

#[test]
fn a_batch_is_one_command_with_several_arguments() {
    let world =
        stage("run = \"printf '[%s]' {#} {} x{}x {in}\"\nbatch = { items = 2 }\nordered = true");
    let ended = world.run(["a", "b c", "d"]).end().exits(0).counts(3, 3, 0, 0);
    assert_eq!(ended.lines(), ["[1][a][b c][xa b cx][a][b c]", "[2][d][xdx][d]"]);
}

#[test]
fn a_batch_is_one_object_and_several_items_of_the_account() {
    let world = stage("run = \"sh -c 'test $1 != c' x\"\nbatch = { items = 2 }");
    let ended = world.run(["a", "b", "c", "d", "e", "--json"]).end().exits(1);
    let objects = ended.json();
    assert_eq!(objects.len(), 3);
    let told: Vec<_> = objects.iter().map(|o| (o["in"].clone(), o["status"].clone())).collect();
    let list = |names: &[&str]| serde_json::json!(names);
    assert_eq!(told[0], (list(&["a", "b"]), "ok".into()));
    assert_eq!(told[1], (list(&["c", "d"]), "failed".into()));
    assert_eq!(told[2], (list(&["e"]), "ok".into()));
    assert_eq!(objects[2]["seq"], 3);
    ended.counts(5, 3, 2, 0).says("failed: c and 1 more: stage `s`");
}

#[test]
fn a_batch_goes_on_without_waiting_for_ever() {
    let world = stage("run = \"echo\"\nbatch = { items = 100, wait = \"20ms\" }");
    let mut run = world.run([""; 0]).stdout(std::fs::File::create(world.path("out")).unwrap());
    run = run.open_input();
    let mut run = run.start();
    let mut input = run.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"a\nb\n").unwrap();
    run.until("a batch that is not full", || world.read("out").ends_with("b\n"));
    drop(input);
    run.end().exits(0).counts(2, 2, 0, 0);
}

#[test]
fn a_batch_on_standard_input_is_a_line_for_each_value() {
    let world = stage("run = \"wc -l\"\nstdin = true\nbatch = { items = 2 }\nordered = true");
    assert_eq!(world.run(["a", "b", "c"]).end().exits(0).lines(), ["2", "1"]);
}

#[test]
fn a_batch_after_another_stage_has_all_its_results() {
    let world = World::with(
        "[[stage]]\nname = \"up\"\nrun = \"sh -c 'echo $0 | tr a-z A-Z'\"\nordered = true\n\
         [[stage]]\nname = \"all\"\nrun = \"echo {} + {in} + {up}\"\nbatch = { items = 2 }\n\
         [[stage]]\nname = \"end\"\nrun = \"echo {#}: {} / {up}\"",
    );
    let ended = world.run(["a", "b"]).end().exits(0).counts(2, 2, 0, 0);
    assert_eq!(ended.lines(), ["1: A B + a b + A B / A B"]);
}

#[test]
fn no_item_fails_because_the_open_files_are_few() {
    for stage in ["run = \"cat\"", "run = \"cat\"\nto = \"made/{}\"", "pipe = [\"cat\", \"cat\"]"] {
        let world = World::with(&format!(
            "[[stage]]\nname = \"s\"\nworkers = 200\nstdin = true\n{stage}\n"
        ));
        let script = "ulimit -n 96; seq 300 | \"$PACELINE\" run p.toml";
        world.sh(script).end().exits(0).counts(300, 300, 0, 0);
    }
}
