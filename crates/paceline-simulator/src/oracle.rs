//! The best fixed numbers of workers that a search can find.
//!
//! One or two tuned stages: the whole grid. More: one number at a time, and
//! pairs of neighbours, from three beginnings until nothing gains. Of those
//! within 3 % of the best rate, the fewest workers, measured again on new
//! draws, since the best of many is lucky as well as good.

use std::collections::HashMap;

use paceline::pace::{Demand, solve};

use crate::world::{Plan, World};

const GRID: [usize; 14] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128];
const WARM_UP: f64 = 2.0;
const LENGTH: f64 = 5.0;

/// What the search found.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// Workers of the tuned stages, in order.
    pub workers: Vec<usize>,
    /// Items of the source in a second.
    pub rate: f64,
    /// All that was measured: workers and rate.
    pub surface: Vec<(Vec<usize>, f64)>,
}

impl Oracle {
    /// All workers together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.workers.iter().sum()
    }
}

/// The places of the tuned stages, the source being 0.
#[must_use]
pub fn tuned(plan: &Plan) -> Vec<usize> {
    let stages = plan.stages.iter().enumerate().filter(|(_, stage)| !stage.bounds.is_fixed);
    stages.map(|(place, _)| place + 1).collect()
}

/// The rate with these workers, as it is at the time `at` and after.
#[must_use]
pub fn rate(plan: &Plan, workers: &[usize], at: f64, seed: u64, length: f64) -> f64 {
    let mut plan = plan.clone();
    plan.items = None;
    // The regime at that time is there from the beginning.
    plan.changes.retain(|(time, _)| *time <= at);
    plan.changes.iter_mut().for_each(|(time, _)| *time = 0.0);
    let mut world = World::new(&plan, seed);
    for (place, &workers) in tuned(&plan).into_iter().zip(workers) {
        world.set_workers(place, workers);
    }
    let longest = plan.stages.iter().map(|stage| (stage.cpu + stage.wait) * stage.spread.max(1.0));
    let warm_up = WARM_UP + 4.0 * longest.sum::<f64>();
    world.run_until(warm_up);
    let before = world.through();
    world.run_until(warm_up + length);
    (world.through() - before) / length
}

struct Search<'a> {
    plan: &'a Plan,
    at: f64,
    most: Vec<usize>,
    seen: HashMap<Vec<usize>, f64>,
}

impl Search<'_> {
    fn rate(&mut self, workers: &[usize]) -> f64 {
        if let Some(rate) = self.seen.get(workers) {
            return *rate;
        }
        let rate = rate(self.plan, workers, self.at, 77, LENGTH);
        self.seen.insert(workers.to_vec(), rate);
        rate
    }

    fn grid(&self, stage: usize) -> Vec<usize> {
        let most = self.most[stage];
        let mut grid: Vec<usize> = GRID.into_iter().filter(|&workers| workers < most).collect();
        grid.push(most.min(GRID[GRID.len() - 1]));
        grid
    }

    /// Whether `rate` is worth more than `best`: more, or as much with fewer workers.
    fn is_better(&mut self, candidate: &[usize], best: &[usize]) -> bool {
        let (new, old) = (self.rate(candidate), self.rate(best));
        let fewer = candidate.iter().sum::<usize>() < best.iter().sum::<usize>();
        new > old * 1.01 || (fewer && new > old * 0.995)
    }

    fn climb(&mut self, mut best: Vec<usize>) -> Vec<usize> {
        let stages = best.len();
        for _ in 0..8 {
            let before = best.clone();
            for stage in 0..stages {
                for workers in self.grid(stage) {
                    let mut candidate = best.clone();
                    candidate[stage] = workers;
                    if self.is_better(&candidate, &best) {
                        best = candidate;
                    }
                }
            }
            for (a, b) in (0..stages).flat_map(|a| (a + 1..stages).map(move |b| (a, b))) {
                for (up, down) in [(1, 1), (1, -1), (-1, 1), (2, 1), (1, 2)] {
                    let mut candidate = best.clone();
                    let grids = (self.grid(a), self.grid(b));
                    candidate[a] = step(&grids.0, best[a], up);
                    candidate[b] = step(&grids.1, best[b], down);
                    if self.is_better(&candidate, &best) {
                        best = candidate;
                    }
                }
            }
            if best == before {
                break;
            }
        }
        best
    }
}

fn step(grid: &[usize], from: usize, by: isize) -> usize {
    let place = grid.iter().position(|&workers| workers >= from).unwrap_or(grid.len() - 1);
    grid[(place as isize + by).clamp(0, grid.len() as isize - 1) as usize]
}

/// What the solver says of the true means.
fn solved(plan: &Plan, most: &[usize]) -> Vec<usize> {
    let mut visits = 1.0;
    let mut demands = Vec::new();
    for stage in &plan.stages {
        let limit =
            if stage.bounds.is_fixed { stage.bounds.most } else { stage.bounds.most.min(128) };
        demands.push(Demand {
            visits,
            cpu: stage.cpu,
            service: stage.cpu + stage.wait,
            spread: stage.spread,
            limit,
        });
        visits *= stage.gain;
    }
    let workers = solve(&demands, plan.cores, 1.0).workers;
    let tuned = tuned(plan).into_iter().zip(most);
    tuned.map(|(place, &most)| workers[place - 1].min(most)).collect()
}

/// Searches the best workers for the regime at the time `at`.
#[must_use]
pub fn search(plan: &Plan, at: f64) -> Oracle {
    let places = tuned(plan);
    let most: Vec<usize> =
        places.iter().map(|&place| plan.stages[place - 1].bounds.most.min(128)).collect();
    let mut search = Search { plan, at, most: most.clone(), seen: HashMap::new() };
    if places.len() <= 2 {
        let first = search.grid(0);
        let second = if places.len() == 2 { search.grid(1) } else { vec![0] };
        for (&a, &b) in first.iter().flat_map(|a| second.iter().map(move |b| (a, b))) {
            search.rate(&[a, b][..places.len()]);
        }
    } else {
        let cores: Vec<usize> = most.iter().map(|&most| most.min(plan.cores as usize)).collect();
        for start in [vec![1; places.len()], cores, solved(plan, &most)] {
            search.climb(start);
        }
    }
    choose(plan, at, search.seen)
}

/// The fewest workers within 3 % of the best, measured again.
fn choose(plan: &Plan, at: f64, seen: HashMap<Vec<usize>, f64>) -> Oracle {
    let mut surface: Vec<(Vec<usize>, f64)> = seen.into_iter().collect();
    surface.sort_by(|(a, x), (b, y)| y.total_cmp(x).then(a.cmp(b)));
    let again = |workers: &[usize], seeds: std::ops::Range<u64>| {
        let count = (seeds.end - seeds.start) as f64;
        seeds.map(|seed| rate(plan, workers, at, seed, 2.0 * LENGTH)).sum::<f64>() / count
    };
    let top: Vec<f64> =
        surface.iter().take(5).map(|(workers, _)| again(workers, 100..102)).collect();
    let best = top.iter().copied().fold(0.0, f64::max);
    let mut near: Vec<&(Vec<usize>, f64)> =
        surface.iter().filter(|(_, rate)| *rate >= 0.96 * best).collect();
    near.sort_by_key(|(workers, _)| workers.iter().sum::<usize>());
    let chosen = near
        .iter()
        .take(12)
        .find(|(workers, _)| again(workers, 100..102) >= 0.97 * best)
        .map_or_else(|| surface[0].0.clone(), |(workers, _)| workers.clone());
    let rate = again(&chosen, 200..203);
    Oracle { workers: chosen, rate, surface }
}

/// The best number that all tuned stages share, as far as their limits go.
#[must_use]
pub fn uniform(plan: &Plan, at: f64) -> Vec<usize> {
    let most: Vec<usize> =
        tuned(plan).iter().map(|&place| plan.stages[place - 1].bounds.most.min(128)).collect();
    let with = |workers: usize| most.iter().map(|&most| most.min(workers)).collect::<Vec<_>>();
    let rated = GRID.map(|workers| (rate(plan, &with(workers), at, 77, LENGTH), workers));
    let best = rated.iter().map(|(rate, _)| *rate).fold(0.0, f64::max);
    let fewest = rated.iter().find(|(rate, _)| *rate >= 0.97 * best);
    with(fewest.map_or(1, |(_, workers)| *workers))
}
