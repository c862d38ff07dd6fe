//! Ways to find numbers of workers: the pace, and what else is done.

use std::time::Duration;

use paceline::pace::{Bounds, Controller, Counts, Decision, Settings, Snapshot, Why};

use crate::world::Plan;

/// Decides about workers, look by look.
pub trait Policy {
    /// Takes in a look, and gives the changes and the time to the next look.
    fn look(&mut self, now: &Snapshot) -> (Vec<Decision>, Duration);
}

impl Policy for Controller {
    fn look(&mut self, now: &Snapshot) -> (Vec<Decision>, Duration) {
        let look = Controller::look(self, now);
        (look.decisions, look.next)
    }
}

/// The bounds of all stages, source and sink among them.
#[must_use]
pub fn bounds(plan: &Plan) -> Vec<Bounds> {
    let end = [Bounds::fixed(1)];
    let stages = plan.stages.iter().map(|stage| stage.bounds);
    end.into_iter().chain(stages).chain(end).collect()
}

/// The pace.
#[must_use]
pub fn pace(plan: &Plan, seed: u64) -> Controller {
    let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Controller::new(Settings::new(plan.cores_told, bounds(plan)).random(seed))
}

/// Nothing is ever changed.
#[derive(Debug)]
pub struct Fixed;

impl Policy for Fixed {
    fn look(&mut self, _: &Snapshot) -> (Vec<Decision>, Duration) {
        (Vec::new(), Duration::from_secs(1))
    }
}

/// What most rules need: the bounds and the look before.
#[derive(Debug)]
struct Base {
    bounds: Vec<Bounds>,
    before: Option<Snapshot>,
}

impl Base {
    fn new(plan: &Plan) -> Self {
        Self { bounds: bounds(plan), before: None }
    }

    /// Asks `rule` for the workers of each tuned stage since the look before.
    fn each(
        &mut self,
        now: &Snapshot,
        mut rule: impl FnMut(usize, &Counts, &Snapshot) -> f64,
    ) -> Vec<Decision> {
        let mut decisions = Vec::new();
        if let Some(before) = &self.before {
            for (stage, bounds) in self.bounds.iter().enumerate().filter(|(_, b)| !b.is_fixed) {
                let from = now.stages[stage].workers;
                let to = rule(stage, &before.stages[stage], before);
                let to = (to.round() as usize).clamp(1, bounds.most);
                if to != from {
                    decisions.push(Decision { stage, from, to, why: Why::Idle });
                }
            }
        }
        self.before = Some(now.clone());
        decisions
    }
}

/// A worker more where items wait and room is after, one fewer where workers wait.
///
/// The rule of Suleman et al., "Feedback-directed pipeline parallelism"
/// (PACT 2010), and its kin, with the fill of queues as the signal.
#[derive(Debug)]
pub struct Fill {
    base: Base,
    queues: Vec<usize>,
}

impl Fill {
    /// For this pipeline.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let queues = plan.stages.iter().map(|stage| stage.queue);
        Self { base: Base::new(plan), queues: [16].into_iter().chain(queues).chain([16]).collect() }
    }
}

impl Policy for Fill {
    fn look(&mut self, now: &Snapshot) -> (Vec<Decision>, Duration) {
        let queues = &self.queues;
        let fill = |place: usize| now.stages[place].depth as f64 / queues[place] as f64;
        let decisions = self.base.each(now, |stage, _, _| {
            let workers = now.stages[stage].workers as f64;
            if fill(stage) > 0.75 && fill(stage + 1) < 0.75 {
                workers + 1.0
            } else if fill(stage) < 0.1 {
                workers - 1.0
            } else {
                workers
            }
        });
        (decisions, Duration::from_millis(20))
    }
}

/// A worker more while the service time stays near its average, a tenth fewer when it does not.
///
/// As the adaptive concurrency of log shippers does it, for what waits; what
/// computes has as many workers as there are cores.
#[derive(Debug)]
pub struct Aimd {
    base: Base,
    average: Vec<(f64, f64)>,
}

impl Aimd {
    /// For this pipeline.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { average: vec![(0.0, 0.0); plan.stages.len() + 2], base: Base::new(plan) }
    }
}

/// The mean service time since `before`, and the part of it that is CPU.
fn service(before: &Counts, now: &Counts) -> Option<(f64, f64)> {
    let done = now.done.saturating_sub(before.done) as f64;
    let busy = now.busy.saturating_sub(before.busy).as_secs_f64();
    let cpu = now.cpu.unwrap_or_default().saturating_sub(before.cpu.unwrap_or_default());
    (done > 0.0 && busy > 0.0).then(|| (busy / done, cpu.as_secs_f64() / busy))
}

impl Policy for Aimd {
    fn look(&mut self, now: &Snapshot) -> (Vec<Decision>, Duration) {
        let average = &mut self.average;
        let decisions = self.base.each(now, |stage, before, _| {
            let counts = &now.stages[stage];
            let workers = counts.workers as f64;
            let Some((service, share)) = service(before, counts) else { return workers };
            if share > 0.7 {
                return workers;
            }
            let (mean, deviation) = &mut average[stage];
            if *mean == 0.0 {
                *mean = service;
            }
            let is_slow = service > *mean + 2.0 * *deviation;
            *deviation += 0.4 * ((service - *mean).abs() - *deviation);
            *mean += 0.4 * (service - *mean);
            let refused = counts.pushback > before.pushback;
            if is_slow || refused { workers * 0.9 } else { workers + 1.0 }
        });
        (decisions, Duration::from_millis(200))
    }
}

/// The limit times the ratio of the long to the short average of the service time.
///
/// The `Gradient2` limit of Netflix's concurrency-limits, for every stage.
#[derive(Debug)]
pub struct Gradient {
    base: Base,
    long: Vec<f64>,
}

impl Gradient {
    /// For this pipeline.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self { long: vec![0.0; plan.stages.len() + 2], base: Base::new(plan) }
    }
}

impl Policy for Gradient {
    fn look(&mut self, now: &Snapshot) -> (Vec<Decision>, Duration) {
        let long = &mut self.long;
        let decisions = self.base.each(now, |stage, before, _| {
            let counts = &now.stages[stage];
            let workers = counts.workers as f64;
            let Some((short, _)) = service(before, counts) else { return workers };
            let long = &mut long[stage];
            *long = if *long == 0.0 { short } else { *long + (short - *long) * 2.0 / 601.0 };
            if *long / short > 2.0 {
                *long *= 0.95;
            }
            let gradient = (1.5 * *long / short).clamp(0.5, 1.0);
            let wanted = workers * gradient + workers.sqrt();
            // A limit that is not used does not grow.
            let busy = counts.busy.saturating_sub(before.busy).as_secs_f64();
            if busy / 0.2 < workers / 2.0 { workers } else { workers * 0.8 + wanted * 0.2 }
        });
        (decisions, Duration::from_millis(200))
    }
}
