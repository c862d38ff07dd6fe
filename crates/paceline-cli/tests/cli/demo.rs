//! `demo`: the chapter's items, listed, shown and refused.

use rustix::process::Signal;

use crate::support::World;

#[test]
fn demo_lists_its_items_and_refuses_others() {
    let world = World::new();
    let list = world.paceline(["demo"]).end().exits(0);
    let numbers: Vec<_> = list.lines()[1..].iter().map(|line| line[2..4].to_owned()).collect();
    assert_eq!(numbers[..4], ["52", "53", "54", "55"]);
    for number in ["51", "65", "x", "-1"] {
        world.paceline(["demo", number]).end().exits(2);
    }
}

#[test]
fn demo_shows_what_it_measured_here() {
    let world = World::new();
    let shown = world.paceline(["demo", "54", "--no-python"]).end().exits(0);
    assert_eq!(shown.lines()[0], "54. Shared state: no increment is lost");
    assert_eq!(shown.text().matches(": 500000").count(), 3, "{}", shown.text());
    assert!(!shown.text().contains("Python"));
}

#[test]
fn demo_says_it_when_there_is_no_python_to_compare_with() {
    let world = World::new();
    let shown = world.paceline(["demo", "54"]).env("PATH", "/nowhere").end().exits(0);
    assert!(shown.text().contains("no comparison with Python"), "{}", shown.text());
}

#[test]
fn demo_ends_by_sigpipe_when_nobody_reads_it() {
    let world = World::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    world.paceline(["demo", "54", "--no-python"]).stdout(writer).end().ends_by(Signal::PIPE);
}

#[test]
fn r64_1_r56_3_worker_processes_give_the_divisors_and_the_generations_of_the_row() {
    let world = World::new();
    // It fails unless both come out as they must.
    let shown = world.paceline(["demo", "64", "--no-python"]).end().exits(0);
    assert!(shown.text().contains("processes: 180 generations"), "{}", shown.text());
}

#[test]
fn rx_4_each_of_the_thirteen_items_has_a_demonstration_and_a_place_in_the_guides() {
    let world = World::new();
    let list = world.paceline(["demo"]).end().exits(0);
    for page in ["chapter.md", "chapter.ko.md"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(page);
        let guide = std::fs::read_to_string(path).unwrap();
        for number in 52..=64 {
            let is_listed =
                list.lines().iter().any(|line| line.starts_with(&format!("  {number}  ")));
            assert!(is_listed, "{number}: {}", list.text());
            assert!(guide.contains(&format!("\n## {number}. ")), "{number} in {page}");
        }
    }
}
