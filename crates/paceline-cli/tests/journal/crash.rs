//! F1 and F2: `kill -9` at random moments and at every named one.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    io::Write as _,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    set_of,
    support::{Ended, World},
};

/// How many jobs of the chain run at once in its last stage.
const LAST_WORKERS: usize = 2;

/// Tells something to whoever looks at the test's output.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

struct Random(u64);

impl Random {
    /// From a random number, which is told where a test fails.
    fn new() -> Self {
        let seed = RandomState::new().hash_one(std::process::id());
        say(&format!("seed: {seed}"));
        Self(seed)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Goes on until the run is done; gives all that was printed, in how many lines, and how often it
/// was killed.
fn until_done(
    world: &World,
    is_new: bool,
    mut kill_after: impl FnMut() -> Option<Duration>,
) -> (BTreeSet<String>, usize, usize) {
    let (mut printed, mut lines, mut kills) = (BTreeSet::new(), 0, 0);
    let mut is_first = is_new;
    loop {
        let has_run = !is_first && world.has(".paceline/journal.db") && has_begun(world);
        let run = if has_run { world.resume(["-q"]) } else { world.run(["-q"]) };
        is_first = false;
        let started = run.start();
        let is_killed = match kill_after() {
            Some(time) => !started.has_ended_after(time),
            None => false,
        };
        if is_killed {
            started.signal(Signal::KILL);
        }
        let ended: Ended = started.end();
        lines += ended.lines().len();
        printed.extend(ended.printed());
        match (ended.code, ended.signal) {
            (Some(0), _) => return (printed, lines, kills),
            (None, Some(9)) => kills += 1,
            _ => panic!("{ended:?}"),
        }
    }
}

/// Whether the run itself was recorded before the kill.
fn has_begun(world: &World) -> bool {
    world.paceline(["status"]).end().code == Some(0)
}

/// Asserts what no kill may change.
fn check(world: &World, items: usize, kills: usize, printed: &BTreeSet<String>) {
    assert_eq!(*printed, set_of(items), "every result was printed");
    let sink: BTreeSet<(String, String)> = world
        .set("three.log")
        .into_iter()
        .map(|line| line.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap())
        .collect();
    let seen: BTreeSet<String> = sink.iter().map(|(item, _)| item.clone()).collect();
    assert_eq!(seen, set_of(items), "the last stage has seen every item");
    assert_eq!(sink.len(), items, "an item has one identity in all sessions");
    let attempts = world.count("three.log");
    // Besides what ran, as many answers as may be unrecorded: four, with so few workers. With them
    // that is less than the eight jobs that the three stages have at once.
    let most = items + kills * (LAST_WORKERS + 4);
    assert!(attempts <= most, "{attempts} attempts of {items} items with {kills} kills");
    assert_eq!(world.list("out").len(), items, "an output for each and nothing else");
    assert_eq!(world.sql::<String>("PRAGMA integrity_check"), "ok");
    let ok: i64 = world.sql("SELECT count(*) FROM results WHERE stage = 2 AND outcome = 'ok'");
    assert_eq!(ok, items as i64);
    let twice: i64 = world.sql("SELECT count(*) - count(DISTINCT id) FROM items");
    assert_eq!(twice, 0);
}

#[test]
fn f1_killed_at_random_moments_a_run_comes_to_the_same_end() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    // So many kills, or as many as the time allows.
    let (kills, soak) = (number("PACELINE_F1_KILLS"), number("PACELINE_SOAK_SECONDS"));
    let (items, longest, wanted, limit) = match (kills, soak) {
        (None, None) => (150, 300, 50, 60),
        (Some(kills), _) => (2000, 1500, kills as usize, 30 * kills),
        (None, Some(seconds)) => (2000, 1500, usize::MAX, seconds),
    };
    let end = Instant::now() + Duration::from_secs(limit);
    let mut random = Random::new();
    let (mut all, mut twice) = (0, 0);
    while all < wanted && Instant::now() < end {
        let world = World::chain(items);
        let left = wanted - all;
        let mut planned = 0;
        let (printed, lines, kills) = until_done(&world, true, || {
            planned += 1;
            (planned <= left).then(|| Duration::from_millis(5 + random.below(longest)))
        });
        check(&world, items, kills, &printed);
        (all, twice) = (all + kills, twice + lines - printed.len());
    }
    say(&format!("{all} kills, {twice} lines printed twice"));
    // A kill can come between the write of a line and that of its mark, and hardly ever does.
    assert!(twice <= 5 + all / 10, "{twice} lines were printed twice with {all} kills");
    assert!(all >= 50 || soak.is_some(), "{all} kills in a minute");
}

/// Where the program can be killed by name.
const POINTS: [&str; 9] = [
    "output.before-sync",
    "output.after-sync",
    "output.before-rename",
    "output.after-rename",
    "answer.before-record",
    "answer.before-enqueue",
    "journal.before-commit",
    "journal.after-commit",
    "result.before-mark",
];

#[test]
fn f2_killed_at_every_named_point_a_run_comes_to_the_same_end() {
    let counts: &[u32] = if std::env::var_os("PACELINE_SOAK_SECONDS").is_some() {
        &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]
    } else {
        &[1, 2, 5, 20]
    };
    const ITEMS: usize = 20;
    for point in POINTS {
        let mut kills = 0;
        for count in counts {
            let world = World::chain(ITEMS);
            let fail = format!("{point}:{count}");
            let ended = world.run(["-q", "--durable"]).env("PACELINE_FAIL", &fail).end();
            let was_killed = ended.signal == Some(9);
            assert!(was_killed || ended.code == Some(0), "{fail}: {ended:?}");
            let mut printed = ended.printed();
            if was_killed {
                kills += 1;
                printed.extend(until_done(&world, false, || None).0);
            }
            check(&world, ITEMS, 1, &printed);
        }
        assert!(kills > 0, "{point} was never reached");
    }
}

#[test]
fn f2_what_was_printed_and_not_committed_is_not_printed_again() {
    let (mut kills, mut twice) = (0, 0);
    // How many commits a run takes depends on how busy the machine is.
    for count in [3, 6, 12, 20, 30] {
        let world = World::chain(30);
        let fail = format!("journal.before-commit:{count}");
        let ended = world.run(["-q"]).env("PACELINE_FAIL", &fail).end();
        kills += usize::from(ended.signal == Some(9));
        let resumed = world.resume(["-q"]).end().exits(0);
        let printed = [ended.lines(), resumed.lines()].concat();
        let set: BTreeSet<&str> = printed.iter().copied().collect();
        assert_eq!(set.len(), 30, "{fail}: every line");
        twice += printed.len() - set.len();
    }
    assert!(kills >= 2, "killed {kills} times");
    // The kill may have come between the write of a line and that of its mark.
    assert!(twice <= 1, "{twice} lines were printed twice");
}

#[test]
fn what_a_killed_run_has_left_running_is_ended_before_its_items_run_again() {
    let world = World::of_one_job(
        r#"test ! -e second || exec echo again; setsid sh -c "echo \$\$ >> pids; exec sleep 1000" & echo $$ >> pids; exec sleep 1000"#,
    );
    let mut started = world.run(["-q"]).start();
    started.until("the jobs run", || world.has("pids") && world.count("pids") == 2);
    // Neither the program nor its guard gets to clean up.
    let is_guard = |(_, line): &(i32, String)| line.contains("guard");
    let guard = world.children_of(&started).into_iter().find(is_guard).expect("there is a guard");
    let guard = rustix::process::Pid::from_raw(guard.0).unwrap();
    rustix::process::kill_process(guard, Signal::KILL).unwrap();
    started.signal(Signal::KILL);
    started.end();
    let left: Vec<String> =
        world.read("pids").lines().map(|pid| format!("/proc/{pid}/fd")).collect();
    let lives = |of: &String| std::fs::read_dir(of).is_ok_and(|mut open| open.next().is_some());
    assert!(left.iter().all(lives), "both are left");
    world.write("second", "");
    assert_eq!(world.resume(["-q"]).end().exits(0).text(), "again\n");
    assert!(!left.iter().any(lives), "resume has ended them");
}

#[test]
fn unfinished_outputs_of_a_killed_run_are_removed() {
    // By whoever comes next: the same run, or another.
    for next in ["resume", "run"] {
        let world = World::with(
            r#"
[source]
values = ["a"]
[[stage]]
name = "one"
shell = 'echo half; test -e second || (echo > on; sleep 1000)'
to = "deep/{in}/{in}.txt"
"#,
        );
        let mut started = world.run(["-q"]).start();
        started.until("the job runs", || world.has("on"));
        started.signal(Signal::KILL);
        started.end();
        assert_eq!(world.list("deep/a").len(), 1, "an unfinished file");
        world.write("second", "");
        world.paceline([next, "-q", "p.toml"]).end().exits(0);
        assert_eq!(world.list("deep/a"), ["a.txt"]);
    }
}
