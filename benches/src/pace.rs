//! The pace for real: `workers = auto` against the best fixed numbers that a
//! coarse search finds on this machine, in interleaved pairs.
//!
//! `docs/pacing.md` has what came of it: a row a scenario, so that one can be
//! measured anew without the others.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::{collections::HashMap, fs, path::Path, time::Duration};

use crate::harness::median;

mod scenarios;
mod trial;

use scenarios::{FIXED, Scenario};
use trial::{Outcome, Trial};

pub(crate) use scenarios::{CHILD, run_child};

const USAGE: &str = "\
Usage: paceline-benches pace [--pairs N] [--quick] [--write] [--only TEXT]

  --pairs N    so many pairs of a run by `auto` and one with fixed numbers; 10 unless set
  --quick      two pairs and a short search, to see that everything runs
  --write      put the rows into docs/pacing.md, in the place of those of the same name
  --only TEXT  only the scenarios whose name contains TEXT";

/// Numbers within this part of the best rate are as good; the fewest workers of them are best.
const AS_GOOD: f64 = 0.97;

/// How long the search runs one set of numbers.
const LOOK: Duration = Duration::from_millis(1000);

const HEAD: &str = "\
| scenario | best numbers | their rate /s | rate | 95 % CI | work | dip | workers | auto's | moves/min | CPU/item | looking |
|---|---|---|---|---|---|---|---|---|---|---|---|";

const HEAD_BY_HAND: &str = "\
| scenario | numbers | time of auto over that of the same numbers by hand | 95 % CI |
|---|---|---|---|";

struct Wish {
    pairs: usize,
    quick: bool,
    write: bool,
    only: Option<String>,
}

/// Runs the command; complains in words.
pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let mut wish = Wish { pairs: 10, quick: false, write: false, only: None };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => (wish.quick, wish.pairs) = (true, 2),
            "--write" => wish.write = true,
            "--only" => wish.only = Some(arguments.next().ok_or(USAGE)?.clone()),
            "--pairs" => {
                let pairs = arguments.next().and_then(|number| number.parse().ok());
                wish.pairs = pairs.filter(|pairs| *pairs > 0).ok_or(USAGE)?;
            }
            _ => return Err(format!("`{argument}` is no option\n\n{USAGE}")),
        }
    }
    let wanted = |name: &str| wish.only.as_ref().is_none_or(|only| name.contains(only));
    println!("{HEAD}");
    for scenario in scenarios::all().iter().filter(|scenario| wanted(scenario.name)) {
        keep(&wish, HEAD, &against_the_best(scenario, &wish));
    }
    println!("\n{HEAD_BY_HAND}");
    for scenario in scenarios::by_hand().iter().filter(|scenario| wanted(scenario.name)) {
        keep(&wish, HEAD_BY_HAND, &against_the_same(scenario, &wish));
    }
    Ok(())
}

/// Prints a row, and puts it into the page below the table's head if asked to.
fn keep(wish: &Wish, head: &str, row: &str) {
    println!("{row}");
    if !wish.write {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pacing.md");
    let page = fs::read_to_string(&path).expect("the page can be read");
    fs::write(path, with_row(&page, head, row)).expect("the page can be written");
}

/// The page with this row in the table below `head`, in the place of the one with the same name.
fn with_row(page: &str, head: &str, row: &str) -> String {
    let (before, after) = page.split_once(head).expect("the page has the table");
    let lines = || after[1..].split_inclusive('\n');
    let rows: Vec<&str> = lines().take_while(|line| line.starts_with('|')).collect();
    let rest: String = lines().skip(rows.len()).collect();
    let name = |row: &str| row.split('|').nth(1).map(str::to_owned);
    let line = format!("{row}\n");
    let mut rows: Vec<&str> = rows;
    match rows.iter().position(|old| name(old) == name(row)) {
        Some(place) => rows[place] = &line,
        None => rows.push(&line),
    }
    format!("{before}{head}\n{}{rest}", rows.concat())
}

fn against_the_best(scenario: &Scenario, wish: &Wish) -> String {
    let best = search(scenario, wish.quick);
    let mut ratios: [Vec<f64>; 4] = Default::default();
    let (mut rates, mut moves, mut last) = (Vec::new(), Vec::new(), Vec::new());
    let (mut dips, mut looking) = (Vec::new(), Vec::new());
    for pair in 0..wish.pairs {
        let auto = || (scenario.run)(&scenario.trial(None));
        let fixed = || (scenario.run)(&scenario.trial(Some(&best)));
        // The one that goes first is warm or cold for the other.
        let (auto, fixed) = if pair % 2 == 0 {
            let auto = auto();
            (auto, fixed())
        } else {
            let fixed = fixed();
            (auto(), fixed)
        };
        let sum = best.iter().sum::<usize>() as f64;
        for (ratios, value) in ratios.iter_mut().zip([
            auto.rate(scenario) / fixed.rate_of_fixed(scenario),
            auto.work(scenario) / fixed.rate_of_fixed(scenario),
            auto.workers(scenario).unwrap_or(sum) / sum,
            auto.cpu / fixed.cpu,
        ]) {
            ratios.push(value);
        }
        rates.push(fixed.rate_of_fixed(scenario));
        moves.push(auto.moves(scenario));
        dips.extend(auto.worst_second(scenario).map(|least| least / fixed.rate_of_fixed(scenario)));
        looking.extend(auto.looking(scenario.steady));
        last = auto.last;
    }
    let [rate, work, workers, cpu] = ratios;
    let (low, high) = interval(&rate);
    let shown = |values: &[f64], digits: usize| {
        if values.is_empty() { String::new() } else { format!("{:.digits$}", middle(values)) }
    };
    format!(
        "| {} | {best:?} | {:.0} | {:.3} | {low:.3} to {high:.3} | {:.3} | {} | {:.2} | {last:?} | {:.0} | {:.3} | {} |",
        scenario.name,
        median(rates),
        middle(&rate),
        middle(&work),
        shown(&dips, 3),
        middle(&workers),
        middle(&moves),
        middle(&cpu),
        shown(&looking, 5),
    )
}

/// Runs `auto` once to see what it comes to, and then against that, by the time of all items.
fn against_the_same(scenario: &Scenario, wish: &Wish) -> String {
    let found = (scenario.run)(&scenario.trial(None)).last;
    let mut ratios = Vec::new();
    for pair in 0..wish.pairs {
        let run = |numbers: Option<&[usize]>| -> f64 {
            let trial = scenario.trial(numbers).unobserved();
            (scenario.run)(&trial).took.as_secs_f64()
        };
        let (auto, fixed) = if pair % 2 == 0 {
            let auto = run(None);
            (auto, run(Some(&found)))
        } else {
            let fixed = run(Some(&found));
            (run(None), fixed)
        };
        ratios.push(auto / fixed);
    }
    let (low, high) = interval(&ratios);
    format!("| {} | {found:?} | {:.3} | {low:.3} to {high:.3} |", scenario.name, middle(&ratios))
}

/// One number at a time around the beginning, twice; then the fewest workers of the best.
fn search(scenario: &Scenario, quick: bool) -> Vec<usize> {
    let mut seen: HashMap<Vec<usize>, f64> = HashMap::new();
    let mut look = |numbers: &[usize]| -> f64 {
        *seen.entry(numbers.to_vec()).or_insert_with(|| {
            let trial = Trial::look(numbers, LOOK, scenario.items, scenario.regime);
            (scenario.run)(&trial).steady_of_a_look(LOOK)
        })
    };
    let mut best = scenario.start.to_vec();
    let factors: &[f64] = if quick { &[1.5] } else { &[0.5, 0.7, 1.4, 2.0] };
    for _ in 0..if quick { 1 } else { 2 } {
        let before = best.clone();
        for place in 0..best.len() {
            let from = best[place] as f64;
            for factor in factors {
                let mut numbers = best.clone();
                let least = 1 + usize::from(*factor > 1.0) * from as usize;
                numbers[place] =
                    ((from * factor).round() as usize).max(least).min(scenario.most[place]);
                let (new, old) = (look(&numbers), look(&best));
                let fewer = numbers[place] < best[place];
                if new > 1.02 * old || (fewer && new > AS_GOOD * old) {
                    best = numbers;
                }
            }
        }
        if best == before {
            break;
        }
    }
    // The luckiest of many is not the best of many: the leaders are measured again.
    let mut leaders: Vec<(Vec<usize>, f64)> = seen.into_iter().collect();
    leaders.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    leaders.truncate(4);
    leaders.push((best, 0.0));
    let again: Vec<(Vec<usize>, f64)> = leaders
        .into_iter()
        .map(|(numbers, _)| {
            let trial = Trial::look(&numbers, 2 * LOOK, scenario.items, scenario.regime);
            let rate = (scenario.run)(&trial).steady_of_a_look(2 * LOOK);
            (numbers, rate)
        })
        .collect();
    let top = again.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let good = again.into_iter().filter(|(_, rate)| *rate >= AS_GOOD * top);
    let fewest = good.min_by_key(|(numbers, _)| numbers.iter().sum::<usize>());
    fewest.expect("one of them is the top").0
}

fn middle(values: &[f64]) -> f64 {
    median(values.to_vec())
}

/// The interval that holds the median of 95 of 100 samples drawn anew from these.
fn interval(values: &[f64]) -> (f64, f64) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |most: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % most
    };
    let mut medians: Vec<f64> = (0..1000)
        .map(|_| median((0..values.len()).map(|_| values[next(values.len())]).collect()))
        .collect();
    medians.sort_by(f64::total_cmp);
    (medians[25], medians[974])
}

/// What a run came to, as a scenario counts it.
impl Outcome {
    /// Items in a second of the steady time; of a job with an end, over all of it.
    fn rate(&self, scenario: &Scenario) -> f64 {
        match scenario.items {
            Some(items) => items as f64 / self.took.as_secs_f64(),
            None => self.between(scenario.steady, scenario.length),
        }
    }

    /// The same of a run with fixed numbers.
    fn rate_of_fixed(&self, scenario: &Scenario) -> f64 {
        match scenario.items {
            Some(_) => self.rate(scenario),
            None => self.between(FIXED.0, FIXED.1),
        }
    }

    /// Items in a second from the beginning on, or from the beginning of the last regime.
    fn work(&self, scenario: &Scenario) -> f64 {
        match scenario.items {
            Some(_) => self.rate(scenario),
            None => self.between(scenario.regime.unwrap_or_default(), scenario.length),
        }
    }

    /// Items in a second of the worst second of the steady time; a job with an end has none.
    fn worst_second(&self, scenario: &Scenario) -> Option<f64> {
        scenario.items.is_none().then(|| self.least(scenario.steady, scenario.length))
    }

    fn steady_of_a_look(&self, length: Duration) -> f64 {
        self.between(length / 4, length)
    }

    fn workers(&self, scenario: &Scenario) -> Option<f64> {
        self.mean_workers(scenario.steady)
    }

    fn moves(&self, scenario: &Scenario) -> f64 {
        let time = self.took.saturating_sub(scenario.steady).as_secs_f64();
        let moves = self.moves.iter().filter(|at| **at >= scenario.steady).count();
        if time > 0.0 { moves as f64 * 60.0 / time } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_place_of_the_one_with_its_name_and_a_new_one_comes_last() {
        let head = "| a | b |\n|---|---|";
        let page = format!("before\n\n{head}\n| x | 1 |\n| y | 2 |\n\nafter\n");
        let page = with_row(&page, head, "| x | 3 |");
        let page = with_row(&page, head, "| z | 4 |");
        assert_eq!(page, format!("before\n\n{head}\n| x | 3 |\n| y | 2 |\n| z | 4 |\n\nafter\n"));
    }

    #[test]
    fn the_interval_of_equal_values_is_that_value() {
        assert_eq!(interval(&[1.0, 1.0, 1.0]), (1.0, 1.0));
        let (low, high) = interval(&[0.9, 1.0, 1.1, 0.95, 1.05]);
        assert!(low >= 0.9 && high <= 1.1 && low < high);
    }
}
