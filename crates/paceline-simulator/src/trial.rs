//! A policy at work on a pipeline, and what came of it.

use crate::{
    oracle::{Oracle, tuned},
    policy::Policy,
    world::{Plan, Server, World},
};

/// How long a run is.
pub const LENGTH: f64 = 30.0;
/// From when on it counts as steady.
pub const STEADY: f64 = 10.0;

/// What came of one or several runs, against the best there is.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Steady rate over that of the oracle.
    pub rate: f64,
    /// Mean workers over those of the oracle.
    pub workers: f64,
    /// Mean workers beyond those of the oracle, for each tuned stage.
    pub more: f64,
    /// When 95 % were reached and held for 5 s.
    pub time: f64,
    /// Work done in the whole run over that of the oracle in the same time.
    pub work: f64,
    /// Moves a minute.
    pub moves: f64,
    /// The least rate of a second over that of the oracle.
    pub dip: f64,
    /// How many were at a server with slots, over the slots.
    pub crowd: Option<f64>,
}

/// Lets `policy` run `plan` once, held against `before` and, from a change on, `after`.
#[must_use]
pub fn run(
    plan: &Plan,
    policy: &mut dyn Policy,
    start: Option<&[usize]>,
    oracles: &[(f64, Oracle)],
    seed: u64,
) -> Score {
    let mut world = World::new(plan, seed);
    if let Some(start) = start {
        for (place, &workers) in tuned(plan).into_iter().zip(start) {
            world.set_workers(place, workers);
        }
    }
    let oracle_at =
        |time: f64| &oracles.iter().rev().find(|(from, _)| *from <= time).unwrap_or(&oracles[0]).1;
    let last_change = oracles.last().map_or(0.0, |(from, _)| *from);
    let steady = if last_change > 0.0 { last_change + 5.0 } else { STEADY };
    let end = if last_change > 0.0 { last_change + 20.0 } else { LENGTH };
    let mut look = 0.0;
    let mut score = Score::default();
    let (mut at_steady, mut moves, mut crowd, mut crowded) = (None, 0.0, 0.0, 0.0);
    let mut seconds = Vec::new();
    let mut next_second = 0.25;
    let slots = plan.stages.iter().enumerate().find_map(|(place, stage)| match stage.server {
        Server::Slots(slots) => Some((place + 1, slots)),
        _ => None,
    });
    while world.now < end && !world.is_over() {
        let next = f64::min(look, next_second).min(end);
        world.run_until(next);
        if world.now >= steady && at_steady.is_none() {
            at_steady = Some((world.now, world.through(), world.worker_time()));
        }
        if world.now >= next_second {
            seconds.push((world.now, world.through()));
            next_second += 0.25;
            if let Some((place, _)) = slots
                && world.now >= steady
            {
                crowd += world.at_server(place) as f64;
                crowded += 1.0;
            }
        }
        if world.now >= look {
            let (decisions, wait) = policy.look(&world.snapshot());
            if world.now >= steady {
                moves += f64::from(u8::from(!decisions.is_empty()));
            }
            for decision in decisions {
                world.set_workers(decision.stage, decision.to);
            }
            look = world.now + wait.as_secs_f64();
        }
    }
    let oracle = oracle_at(world.now);
    if let Some(items) = plan.items {
        // A short job: its time against that of the best numbers from the start on.
        let best = items as f64 / oracle.rate;
        score.rate = best / world.now;
        score.work = score.rate;
        score.workers = world.worker_time() / world.now / oracle.total() as f64;
        return score;
    }
    let (since, through, worker_time) = at_steady.unwrap_or_default();
    let span = world.now - since;
    score.rate = (world.through() - through) / span / oracle.rate;
    let mean = (world.worker_time() - worker_time) / span;
    score.workers = mean / oracle.total() as f64;
    score.more = (mean - oracle.total() as f64) / oracle.workers.len() as f64;
    let mut best = 0.0;
    let mut from = 0.0;
    for (time, _) in &seconds {
        best += (time - from) * oracle_at(from).rate;
        from = *time;
    }
    score.work = world.through() / best.max(1e-9);
    score.moves = moves * 60.0 / span;
    let late: Vec<f64> = seconds
        .windows(5)
        .filter(|window| window[0].0 >= steady)
        .map(|window| (window[4].1 - window[0].1) / (window[4].0 - window[0].0))
        .collect();
    score.dip = late.into_iter().fold(f64::INFINITY, f64::min) / oracle.rate;
    score.crowd = slots.filter(|_| crowded > 0.0).map(|(_, slots)| {
        let slots = plan
            .changes
            .iter()
            .rev()
            .find_map(|(_, change)| match change {
                crate::world::Change::Slots(_, slots) => Some(*slots),
                _ => None,
            })
            .unwrap_or(slots);
        crowd / crowded / slots as f64
    });
    score.time = reached(&seconds, last_change, oracle.rate);
    score
}

/// The time from `since` on until the mean over 2 s is 95 % of `rate` and stays so for 5 s.
fn reached(seconds: &[(f64, f64)], since: f64, rate: f64) -> f64 {
    let means: Vec<(f64, f64)> = seconds
        .windows(9)
        .map(|window| {
            let ((a, x), (b, y)) = (window[0], window[8]);
            (a, (y - x) / (b - a))
        })
        .filter(|(at, _)| *at >= since)
        .collect();
    let is_reached = |place: &usize| {
        let held = means[*place..].iter().take(20);
        // 2 s hold chance as well: what is near counts.
        held.clone().map(|(_, mean)| mean).sum::<f64>() / held.len() as f64 >= 0.95 * rate
            && means[*place].1 >= 0.93 * rate
    };
    let first = (0..means.len()).find(is_reached);
    first.map_or(f64::INFINITY, |place| means[place].0 - since + if place == 0 { 0.0 } else { 1.0 })
}

/// The mean over runs.
#[must_use]
pub fn mean(scores: &[Score]) -> Score {
    let count = scores.len() as f64;
    let of = |part: fn(&Score) -> f64| scores.iter().map(part).sum::<f64>() / count;
    Score {
        rate: of(|score| score.rate),
        workers: of(|score| score.workers),
        more: of(|score| score.more),
        time: of(|score| score.time),
        work: of(|score| score.work),
        moves: of(|score| score.moves),
        dip: of(|score| score.dip),
        crowd: scores[0].crowd.map(|_| of(|score| score.crowd.unwrap_or_default())),
    }
}
