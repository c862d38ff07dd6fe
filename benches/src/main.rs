//! paceline against its peers, on this machine, in one run.
//!
//! Each group is a few contests, each contest a few ways to do the same
//! work. See `docs/performance.md` for what came of it, and
//! [`harness`] for how it is compared.
#![expect(clippy::print_stderr, reason = "it tells how far it is")]

use std::{env, process::ExitCode};

use crate::harness::{Contest, Options};

mod children;
mod cpu;
mod each;
mod executor;
mod harness;
mod journal;
mod pace;
mod polls;
mod queue;
mod report;
mod stages;
mod waits;
mod workers;

/// The contests about one part of paceline.
struct Group {
    name: &'static str,
    about: &'static str,
    contests: fn(&Options) -> Vec<Contest>,
}

const GROUPS: [Group; 9] = [
    Group { name: "queue", about: queue::ABOUT, contests: queue::contests },
    Group { name: "stages", about: stages::ABOUT, contests: stages::contests },
    Group { name: "executor", about: executor::ABOUT, contests: executor::contests },
    Group { name: "waits", about: waits::ABOUT, contests: waits::contests },
    Group { name: "polls", about: polls::ABOUT, contests: polls::contests },
    Group { name: "children", about: children::ABOUT, contests: children::contests },
    Group { name: "each", about: each::ABOUT, contests: each::contests },
    Group { name: "journal", about: journal::ABOUT, contests: journal::contests },
    Group { name: "workers", about: workers::ABOUT, contests: workers::contests },
];

const USAGE: &str = "\
Usage: paceline-benches [--rounds N] [--quick] [--write] [--only TEXT] [--alone NAME] [GROUP]...
       paceline-benches pace [--pairs N] [--quick] [--write] [--only TEXT]

Groups: queue, stages, executor, waits, polls, children, each, journal, workers; all unless some are named.

  --rounds N   measure each contestant N times, an odd number; 9 unless set
  --quick      a tenth of the work in 3 rounds, to see that everything runs
  --write      write docs/performance.md; with groups, their sections of it
  --only TEXT  only the contests whose title contains TEXT
  --alone NAME only this contestant, to be looked at with a profiler";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [first, rest @ ..] = arguments.as_slice() {
        let run_child = match first.as_str() {
            waits::CHILD => Some(waits::run_child as fn(&[String])),
            each::CHILD => Some(each::run_child as fn(&[String])),
            workers::WORKER => Some(workers::run_child as fn(&[String])),
            pace::CHILD => Some(pace::run_child as fn(&[String])),
            _ => None,
        };
        if let Some(run_child) = run_child {
            run_child(rest);
            return ExitCode::SUCCESS;
        }
        if first == "pace" {
            return match pace::run(rest) {
                Ok(()) => ExitCode::SUCCESS,
                Err(complaint) => {
                    eprintln!("{complaint}");
                    ExitCode::from(2)
                }
            };
        }
    }
    match parse(arguments) {
        Ok(wish) => {
            run(&wish);
            ExitCode::SUCCESS
        }
        Err(complaint) => {
            eprintln!("{complaint}\n\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

/// What the command line asks for.
struct Wish {
    options: Options,
    groups: Vec<String>,
    only: Option<String>,
    alone: Option<String>,
    write: bool,
}

fn parse(arguments: Vec<String>) -> Result<Wish, String> {
    let (mut rounds, mut quick, mut write) = (None, false, false);
    let (mut groups, mut only, mut alone) = (Vec::new(), None, None);
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => quick = true,
            "--write" => write = true,
            "--only" => only = Some(arguments.next().ok_or("--only needs a text")?),
            "--alone" => alone = Some(arguments.next().ok_or("--alone needs a name")?),
            "--rounds" => {
                let number = arguments.next().and_then(|number| number.parse().ok());
                rounds = Some(number.filter(|n| n % 2 == 1).ok_or("--rounds needs an odd number")?);
            }
            name if GROUPS.iter().any(|group| group.name == name) => groups.push(argument),
            unknown => return Err(format!("`{unknown}` is neither an option nor a group")),
        }
    }
    let rounds = rounds.unwrap_or(if quick { 3 } else { 9 });
    Ok(Wish { options: Options { rounds, quick }, groups, only, alone, write })
}

fn run(wish: &Wish) {
    let is_wanted = |name: &str| wish.groups.is_empty() || wish.groups.iter().any(|g| g == name);
    let mut report = report::Report::new(&wish.options);
    for group in GROUPS.iter().filter(|group| is_wanted(group.name)) {
        let mut standings = Vec::new();
        for mut contest in (group.contests)(&wish.options) {
            if let Some(name) = &wish.alone {
                contest.keep(name);
            }
            if wish.only.as_ref().is_some_and(|text| !contest.title.contains(text)) {
                continue;
            }
            eprintln!("{}: {}", group.name, contest.title);
            let standing = contest.run(&wish.options);
            standings.extend((!standing.names.is_empty()).then_some(standing));
        }
        report.add(group.name, group.about, &standings);
    }
    let order: Vec<&str> = GROUPS.iter().map(|group| group.name).collect();
    report.finish(wish.write, &order);
}
