//! How the number of jobs at once is found, told of, and used again.

use std::time::Instant;

use crate::support::World;

#[test]
fn the_pace_log_says_what_was_measured_and_decided() {
    let world = World::new();
    let words = ["--pace-log", "pace.jsonl", "--freeze", "plan.toml", "sleep"];
    world.each(words).input("0.02\n".repeat(150)).end().exits(0);
    let log: Vec<serde_json::Value> =
        world.read("pace.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!log.is_empty());
    assert_eq!(log[0]["stages"][1]["stage"], "sleep");
    assert!(log[0]["stages"][1]["service_ms"].as_f64().unwrap() >= 20.0, "{}", log[0]);
    let cost: Vec<f64> = log.iter().map(|it| it["pace_cpu_ms"].as_f64().unwrap()).collect();
    assert!(cost[0] > 0.0 && cost.is_sorted(), "{cost:?}");
    let decided = log.iter().flat_map(|survey| survey["decisions"].as_array().unwrap());
    let grown = decided.into_iter().find(|it| it["to"].as_u64() > it["from"].as_u64());
    assert!(grown.is_some(), "children that wait are worth more workers");
    let plan = world.read("plan.toml");
    assert!(plan.lines().any(|line| line.starts_with("\"sleep\" = ")), "{plan:?}");
    let again = ["--workers-from", "plan.toml", "--json", "sleep", "0", ":::", "0"];
    world.each(again).end().exits(0);
}

#[test]
fn a_most_is_kept_and_what_makes_no_sense_is_refused() {
    let world = World::new();
    let ended = world.each(["-j", "auto,max=1", "echo", "{%}", ":::", "a", "b", "c"]).end();
    assert_eq!(ended.exits(0).text(), "1\n1\n1\n");
    for wrong in ["auto,max=0", "auto,most=2", "autox"] {
        world.each(["-j", wrong, "true", ":::", "a"]).end().exits(2);
    }
    world.each(["--cpu-budget", "0", "true", ":::", "a"]).end().exits(2);
    world.each(["--cpu-budget", "50%", "true", ":::", "a"]).end().exits(0);
    let ended = world.each(["--workers-from", "gone.toml", "true", ":::", "a"]).end();
    ended.exits(2).says("gone.toml");
}

#[test]
fn r56_4_advise_measures_a_sample_and_names_workers_and_tool() {
    let world = World::new();
    let items = "0.1\n".repeat(45);
    let words = ["advise", "--target", "500ms", "--sample", "6", "--json", "sleep"];
    let ended = world.paceline(words).input(items).end().exits(0);
    let told = ended.json();
    let advice = &told[0];
    assert_eq!(advice["nature"], "I/O bound");
    assert_eq!(advice["items"], 45);
    assert!(advice["workers"].as_u64().unwrap() >= 9, "{advice}");
    assert!(advice["wait"].as_f64().unwrap() > 0.7, "{advice}");
    let ended = world.paceline(["advise", "sleep", ":::", "0.05", "0.05"]).end().exits(0);
    let told = ended.text();
    assert!(told.contains("advice: ") && told.contains("% waiting"), "{told}");
}

#[test]
fn r56_5_a_run_with_the_advised_workers_takes_about_what_was_predicted() {
    let world = World::new();
    let words = ["advise", "--target", "500ms", "--sample", "6", "--json", "sleep"];
    let ended = world.paceline(words).input("0.1\n".repeat(45)).end().exits(0);
    let advice = &ended.json()[0];
    let workers = advice["workers"].to_string();
    let predicted = advice["predicted_ms"].as_f64().unwrap() / 1e3;
    let took = best_of_three(&world, &["-j", &workers, "sleep"], &"0.1\n".repeat(45));
    assert!((0.7..=1.3).contains(&(took / predicted)), "{took} s and not {predicted} s");
}

#[test]
fn advise_says_what_is_wrong_before_it_measures() {
    let world = World::new();
    for (words, said) in [
        (&["advise"][..], "no command"),
        (&["advise", "true", ":::"], "no item"),
        (&["advise", "--sample", "0", "true", ":::", "a"], "at least 1"),
        (&["advise", "--target", "soon", "true", ":::", "a"], "no duration"),
        (&["advise", "-a", "gone", "true"], "gone"),
        (&["advise", "echo", "{3}", ":::", "a"], "`{3}`"),
        (&["advise", "no-such-program", ":::", "a"], "no-such-program"),
    ] {
        world.paceline(words).end().exits(2).says(said);
    }
    let ended = world.paceline(["advise", "false", ":::", "a", "b"]).end().exits(1);
    let ended = ended.says("all jobs of the sample of 2 failed").says("exit status 1");
    assert_eq!(ended.text(), "", "what fails is no ground for advice");
}

#[test]
fn r56_4_a_job_of_the_sample_that_fails_is_told_and_counts_for_nothing() {
    let world = World::new();
    let script = "test {} != b && sleep 0.05";
    let words = ["advise", "--json", "--shell", script, ":::", "a", "b", "c"];
    let ended = world.paceline(words).end().exits(1).says("1 of 3 jobs of the sample failed");
    let advice = &ended.json()[0];
    assert_eq!(advice["sample"], 2, "{advice}");
    assert!(advice["wall_ms"].as_f64().unwrap() >= 50.0, "{advice}");
    let words = ["advise", "--timeout", "50ms", "sleep", ":::", "30", "30"];
    world.paceline(words).end().exits(1).says("all jobs of the sample of 2 failed");
}

#[test]
fn r56_4_a_target_that_cannot_be_met_ends_with_1_and_one_that_can_with_0() {
    let world = World::new();
    let words = ["advise", "--json", "--target", "1ms", "sleep", ":::", "0.1", "0.1"];
    let ended = world.paceline(words).end().exits(1);
    assert_eq!(ended.json()[0]["meets_target"], false);
    let words = ["advise", "--json", "--target", "1m", "sleep", ":::", "0.1", "0.1"];
    assert_eq!(world.paceline(words).end().exits(0).json()[0]["meets_target"], true);
}

#[test]
fn r56_4_advise_takes_a_command_in_the_forms_that_each_takes() {
    let world = World::new();
    // Two items a job: five jobs of 60 ms.
    let words = ["advise", "--json", "-n", "2", "sleep", ":::"];
    let items = ["0.03"; 10];
    let ended = world.paceline(words.iter().chain(&items)).end().exits(0);
    let advice = &ended.json()[0];
    assert_eq!(advice["items"], 5, "{advice}");
    assert!(advice["wall_ms"].as_f64().unwrap() >= 60.0, "{advice}");
    let words = ["advise", "-I", "@", "test", "@", "=", "a", ":::", "a"];
    world.paceline(words).end().exits(0);
    let words = ["advise", "--stdin", "grep", "-q", "needle", ":::", "a needle"];
    world.paceline(words).end().exits(0);
    world.paceline(["advise", "--shell", "exit 3", ":::", "a"]).end().exits(1).says("3");
    world.paceline(["advise", "--shell", "a", "b", ":::", "c"]).end().exits(2).says("one word");
    let words = ["advise", "--skip-empty", "test", "-n"];
    world.paceline(words).input("\na\n\nb\n").end().exits(0);
}

#[test]
fn r56_6_what_computes_is_told_to_be_cpu_bound_on_a_busy_machine_too() {
    let world = World::new();
    // About 50 ms of computing, and no process but the shell's.
    let script = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
    let words = ["advise", "--json", "--sample", "4", "--shell", script, ":::", "1", "2", "3", "4"];
    let ended = world.paceline(words).end().exits(0);
    let told = ended.json();
    let advice = &told[0];
    assert_eq!(advice["nature"], "CPU bound", "{advice}");
    assert!(advice["speed_up"].as_f64().unwrap() <= paceline::cores() as f64 + 0.1, "{advice}");
    assert!(advice["warning"].as_str().unwrap().contains("will not help"), "{advice}");
}

#[test]
fn r56_7_jobs_that_are_over_at_once_are_for_batches() {
    let world = World::new();
    let ended = world.paceline(["advise", "--json", "true", ":::", "a", "b", "c"]).end().exits(0);
    let advice = &ended.json()[0];
    // On a busy machine even the start of a process takes longer than that.
    let is_quick = advice["wall_ms"].as_f64().unwrap() < 4.0;
    assert_eq!(advice["tool"].as_str().unwrap().contains("batch"), is_quick, "{advice}");
    assert_eq!(advice["why"].as_str().unwrap().contains("-n "), is_quick, "{advice}");
}

/// The least time of three runs, in seconds.
fn best_of_three(world: &World, words: &[&str], items: &str) -> f64 {
    let once = || {
        let began = Instant::now();
        world.each(words).input(items).end().exits(0);
        began.elapsed().as_secs_f64()
    };
    (0..3).map(|_| once()).fold(f64::INFINITY, f64::min)
}

#[test]
fn a_short_run_is_no_slower_than_with_a_job_a_core() {
    let world = World::new();
    let cores = std::thread::available_parallelism().unwrap().to_string();
    for (command, items) in [("true", 200), ("sleep", 40)] {
        let items = "0.05\n".repeat(items);
        let fixed = best_of_three(&world, &["-j", &cores, command], &items);
        let auto = best_of_three(&world, &["-j", "auto", command], &items);
        assert!(auto <= 1.25 * fixed, "{command}: {auto} s, and {fixed} s with a job a core");
    }
}
