//! Holds the pace against the best numbers of workers that a search finds,
//! and against other ways to find them, in simulated time.
//!
//! `docs/pacing.md` tells what came of it.
#![expect(clippy::print_stdout, reason = "it prints tables")]

use std::{env, fs, io::Write as _, process::ExitCode};

use paceline_simulator::{
    oracle::{self, Oracle},
    policy::{self, Aimd, Fill, Fixed, Gradient},
    scenarios,
    trial::{self, Score},
    world::Plan,
};

const USAGE: &str = "\
Usage: paceline-simulator [--all-policies] [--surface] [--oracles FILE] [--only TEXT] SET...

Sets: named, the seed of random pipelines (1000 and 5000 are for tuning), or
hold-out, hold-out-2 and hold-out-3: those of seeds that nothing was tuned on.

  --all-policies  the other ways to find numbers of workers too
  --surface       print all that the search has measured, as CSV
  --only TEXT     only the pipelines whose name contains TEXT
  --oracles FILE  take the best numbers from there, and add those searched
  --trace         print what the pace decides
  --seed N        with these draws, for --trace; 11 unless set (tables are of 11, 12 and 13)";

const SEEDS: std::ops::Range<u64> = 11..14;

fn main() -> ExitCode {
    let (mut all, mut surface, mut trace, mut only, mut kept, mut sets) =
        (false, false, false, None, None, Vec::new());
    let mut draws = SEEDS.start;
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--all-policies" => all = true,
            "--surface" => surface = true,
            "--trace" => trace = true,
            "--seed" => draws = arguments.next().and_then(|it| it.parse().ok()).unwrap_or(draws),
            "--only" => only = arguments.next(),
            "--oracles" => kept = arguments.next(),
            "named" => sets.push(("named".to_owned(), scenarios::named())),
            "hold-out" => sets.push((argument, scenarios::random(scenarios::HOLD_OUT))),
            "hold-out-2" => sets.push((argument, scenarios::random(scenarios::HOLD_OUT_2))),
            "hold-out-3" => sets.push((argument, scenarios::random(scenarios::HOLD_OUT_3))),
            seed => match seed.parse() {
                Ok(seed) => sets.push((argument, scenarios::random(seed))),
                Err(_) => {
                    println!("{USAGE}");
                    return ExitCode::from(2);
                }
            },
        }
    }
    for (name, mut plans) in sets {
        plans.retain(|plan| only.as_ref().is_none_or(|only| plan.name.contains(only)));
        if trace {
            plans.iter().for_each(|plan| show(plan, draws));
            continue;
        }
        table(&name, &plans, all, surface, kept.as_deref());
    }
    ExitCode::SUCCESS
}

/// When the regimes of a plan begin.
fn regimes(plan: &Plan) -> Vec<f64> {
    let mut times = vec![0.0];
    times.extend(plan.changes.iter().map(|(time, _)| *time));
    times.dedup();
    times
}

fn oracles(plan: &Plan, kept: Option<&str>) -> Vec<(f64, Oracle)> {
    regimes(plan).into_iter().map(|time| (time, known(plan, time, kept))).collect()
}

/// The best numbers: what the file `kept` says of them, or what a search finds, which it is told.
/// A search takes longer than all runs of the pace.
fn known(plan: &Plan, time: f64, kept: Option<&str>) -> Oracle {
    let key = format!("{}\t{time}\t", plan.name);
    let text = kept.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(&key)).and_then(|line| {
        let (rate, workers) = line.split_once('\t')?;
        let workers = workers.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Oracle { workers, rate: rate.parse().ok()?, surface: Vec::new() })
    });
    found.unwrap_or_else(|| {
        let oracle = oracle::search(plan, time);
        if let Some(path) = kept {
            let workers: Vec<String> = oracle.workers.iter().map(usize::to_string).collect();
            let line = format!("{key}{}\t{}\n", oracle.rate, workers.join(" "));
            let file = fs::OpenOptions::new().create(true).append(true).open(path);
            if let Err(error) = file.and_then(|mut file| file.write_all(line.as_bytes())) {
                println!("{path}: {error}");
            }
        }
        oracle
    })
}

fn table(name: &str, plans: &[Plan], all: bool, surface: bool, kept: Option<&str>) {
    println!("\n### {name}\n");
    let mut head = "| pipeline | best workers | its rate /s | rate | workers | 95 % after | work | moves/min | dip | at server | misses |".to_owned();
    let mut line = "|---|---|---|---|---|---|---|---|---|---|---|".to_owned();
    if all {
        head += " cores | uniform | fill rule | AIMD | Gradient2 |";
        line += "---|---|---|---|---|";
    }
    println!("{head}\n{line}");
    let mut scores = Vec::new();
    let mut others: Vec<Vec<Score>> = vec![Vec::new(); 5];
    for plan in plans {
        let oracles = oracles(plan, kept);
        if surface {
            for (workers, rate) in &oracles[0].1.surface {
                let workers: Vec<String> = workers.iter().map(usize::to_string).collect();
                println!("{},{},{rate:.2}", plan.name, workers.join(" "));
            }
        }
        let run = |make: &mut dyn FnMut(u64) -> (Box<dyn policy::Policy>, Option<Vec<usize>>)| {
            let runs: Vec<Score> = SEEDS
                .map(|seed| {
                    let (mut policy, start) = make(seed);
                    trial::run(plan, &mut *policy, start.as_deref(), &oracles, seed)
                })
                .collect();
            trial::mean(&runs)
        };
        let score = run(&mut |seed| (Box::new(policy::pace(plan, seed)), None));
        let best = &oracles.last().expect("there is a regime").1;
        let chance = run(&mut |_| (Box::new(Fixed), Some(best.workers.clone())));
        let mut row = format!(
            "| {} | {:?} | {:.0} | {:.3} | {:.2} | {:.1} s | {:.3} | {:.0} | {} | {} | {} |",
            plan.name,
            best.workers,
            best.rate,
            score.rate,
            score.workers,
            score.time,
            score.work,
            score.moves,
            if plan.items.is_some() {
                String::new()
            } else {
                format!("{:.2} ({:.2})", score.dip, chance.dip)
            },
            score.crowd.map_or(String::new(), |crowd| format!("{crowd:.2}")),
            misses(plan, &score, &chance, best),
        );
        if all {
            let cores: Vec<usize> =
                oracle::tuned(plan).iter().map(|_| plan.cores_told as usize).collect();
            let uniform = oracle::uniform(plan, 0.0);
            let found = [
                run(&mut |_| (Box::new(Fixed), Some(cores.clone()))),
                run(&mut |_| (Box::new(Fixed), Some(uniform.clone()))),
                run(&mut |_| (Box::new(Fill::new(plan)), None)),
                run(&mut |_| (Box::new(Aimd::new(plan)), None)),
                run(&mut |_| (Box::new(Gradient::new(plan)), None)),
            ];
            for (place, score) in found.into_iter().enumerate() {
                row += &format!(" {:.2} ({:.1}x) |", score.rate, score.workers);
                others[place].push(score);
            }
        }
        println!("{row}");
        scores.push(score);
    }
    println!();
    println!(
        "| policy | rate: worst | p10 | median | geomean | workers: p50 | p90 | worst | 95 % after: p50 | p90 | worst | work: worst | median |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    sum_up("pace", &scores);
    if all {
        for (name, scores) in
            ["workers = cores", "best uniform number", "fill rule", "AIMD", "Gradient2"]
                .iter()
                .zip(&others)
        {
            sum_up(name, scores);
        }
    }
}

/// What the scenario falls short of, of what was set as a goal for each.
fn misses(plan: &Plan, score: &Score, chance: &Score, best: &Oracle) -> String {
    if plan.items.is_some() {
        // A job of two seconds may take a quarter longer.
        return if score.rate < 0.8 { "time".to_owned() } else { String::new() };
    }
    let mut visits = 1.0;
    let fewest = plan.stages.iter().map(|stage| {
        let here = visits;
        visits *= stage.gain;
        here
    });
    let slowest = 200.0 / (best.rate * fewest.fold(f64::INFINITY, f64::min));
    let goals = [
        ("rate", score.rate < 0.95),
        ("workers", score.workers > 1.25 && score.more > 1.0),
        ("time", score.time > slowest.max(10.0)),
        ("work", score.work < 0.9),
        // Of a run's twenty seconds: two moves.
        ("moves", score.moves > 6.5),
        // A second is short: what the best numbers fall to by chance is no one's fault.
        ("dip", score.dip < 0.9 * chance.dip.min(1.0)),
        ("server", score.crowd.is_some_and(|crowd| crowd > 1.5)),
    ];
    let missed: Vec<&str> = goals.iter().filter(|goal| goal.1).map(|goal| goal.0).collect();
    missed.join(", ")
}

fn sum_up(name: &str, scores: &[Score]) {
    if scores.is_empty() {
        return;
    }
    let sorted = |of: fn(&Score) -> f64| {
        let mut values: Vec<f64> = scores.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let at =
        |values: &[f64], part: f64| values[((values.len() - 1) as f64 * part).round() as usize];
    let (rate, workers) = (sorted(|score| score.rate), sorted(|score| score.workers));
    let (time, work) = (sorted(|score| score.time), sorted(|score| score.work));
    let geomean = (rate.iter().map(|rate| rate.ln()).sum::<f64>() / rate.len() as f64).exp();
    println!(
        "| {name} | {:.3} | {:.3} | {:.3} | {geomean:.3} | {:.2} | {:.2} | {:.2} | {:.1} s | {:.1} s | {:.1} s | {:.3} | {:.3} |",
        rate[0],
        at(&rate, 0.1),
        at(&rate, 0.5),
        at(&workers, 0.5),
        at(&workers, 0.9),
        at(&workers, 1.0),
        at(&time, 0.5),
        at(&time, 0.9),
        at(&time, 1.0),
        work[0],
        at(&work, 0.5),
    );
}

/// Prints a run of the pace, survey by survey.
fn show(plan: &Plan, seed: u64) {
    let mut world = paceline_simulator::world::World::new(plan, seed);
    let mut controller = policy::pace(plan, seed);
    println!("{}", plan.name);
    let mut look = 0.0;
    while world.now < 30.0 && !world.is_over() {
        world.run_until(look);
        let seen = controller.look(&world.snapshot());
        for decision in &seen.decisions {
            world.set_workers(decision.stage, decision.to);
        }
        if let Some(survey) = seen.survey {
            println!(
                "{:6.2} s  rate {:7.1} of {:7.1} {:?}  cores {:.2}/{:.2} slack {:.2} workers {:?} full {:?}{}",
                world.now,
                survey.rate,
                survey.possible,
                survey.bound,
                survey.cores_used,
                survey.cores,
                survey.slack,
                survey.workers,
                survey.full,
                survey.held.unwrap_or(""),
            );
            for decision in survey.decisions {
                println!(
                    "          stage {}: {} -> {}, {}",
                    decision.stage, decision.from, decision.to, decision.why
                );
            }
        }
        look += seen.next.as_secs_f64();
    }
}
