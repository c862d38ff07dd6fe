//! The solver: from what each stage needs to the numbers of workers.
//!
//! The greatest rate that the cores and every stage's limit allow, and then
//! the fewest workers for that rate. Sources: Kalavri et al., "Three steps is
//! all you need" (DS2), OSDI 2018, for capacity from useful time; Kuchnik et
//! al., "Plumber", MLSys 2022, for the budget of cores; Little's law; the
//! square-root staffing rule for the slack.

/// What the solver knows of a stage.
///
/// ```
/// use paceline::pace::{Bound, Demand, solve};
///
/// // 10 ms of waiting and 2 ms of computing, on two cores.
/// let fetch = Demand { visits: 1.0, cpu: 0.0, service: 0.010, spread: 0.5, limit: 64 };
/// let parse = Demand { visits: 1.0, cpu: 0.002, service: 0.002, spread: 0.5, limit: 4 };
/// let solution = solve(&[fetch, parse], 2.0, 0.5);
/// assert_eq!(solution.bound, Bound::Cores);
/// assert_eq!(solution.rate, 1000.0);
/// assert_eq!(solution.workers, [11, 3]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// How many of its items come of one item of the source.
    pub visits: f64,
    /// CPU time of an item, in seconds.
    pub cpu: f64,
    /// Time of an item in service, in seconds.
    pub service: f64,
    /// Standard deviation of the service time, as a part of its mean.
    pub spread: f64,
    /// The most workers that it may have now.
    pub limit: usize,
}

/// What bounds the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The cores are busy.
    Cores,
    /// The stage at this place has all the workers that it may have.
    Stage(usize),
}

/// What the solver found.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// Workers for each stage.
    pub workers: Vec<usize>,
    /// Items of the source in a second that they can do.
    pub rate: f64,
    /// What bounds the rate.
    pub bound: Bound,
}

/// Finds the greatest rate that `cores` allow, and the fewest workers for it.
///
/// `slack` scales what a stage gets beyond the mean number in service, so
/// that chance leaves no worker idle for want of an item or of room.
#[must_use]
pub fn solve(demands: &[Demand], cores: f64, slack: f64) -> Solution {
    let cpu: f64 = demands.iter().map(|stage| stage.visits * stage.cpu).sum();
    let mut rate = if cpu > 0.0 { cores / cpu } else { f64::INFINITY };
    let mut bound = Bound::Cores;
    for (place, stage) in demands.iter().enumerate() {
        let work = stage.visits * stage.service;
        if work > 0.0 && stage.limit as f64 / work < rate {
            rate = stage.limit as f64 / work;
            bound = Bound::Stage(place);
        }
    }
    let workers = demands.iter().map(|stage| {
        let work = stage.visits * stage.service;
        // Without a bound there is no rate to have workers for.
        let mean = if work > 0.0 && rate.is_finite() { rate * work } else { 0.0 };
        let wanted = mean + slack * stage.spread.clamp(0.5, 2.0) * mean.sqrt();
        // A hair less, or 4.000000001 would be five workers.
        ((wanted - 1e-6).ceil() as usize).clamp(1, stage.limit.max(1))
    });
    Solution { workers: workers.collect(), rate, bound }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn demand() -> impl Strategy<Value = Demand> {
        let parts = (0.05..20.0, 0.0..0.02, 0.0..0.2, 0.0..3.0, 1_usize..200);
        parts.prop_map(|(visits, cpu, wait, spread, limit)| Demand {
            visits,
            cpu,
            service: cpu + wait,
            spread,
            limit,
        })
    }

    proptest! {
        #[test]
        fn no_limit_is_exceeded_and_the_rate_is_feasible(
            demands in prop::collection::vec(demand(), 1..6),
            cores in 0.5..64.0,
            slack in 0.0..3.0,
        ) {
            let Solution { workers, rate, .. } = solve(&demands, cores, slack);
            let cpu: f64 = demands.iter().map(|stage| stage.visits * stage.cpu).sum();
            if rate.is_finite() {
                prop_assert!(rate * cpu <= cores * 1.000_001);
            }
            for (stage, &workers) in demands.iter().zip(&workers) {
                prop_assert!((1..=stage.limit).contains(&workers));
                if rate.is_finite() {
                    let needed = rate * stage.visits * stage.service;
                    prop_assert!(workers as f64 >= needed - 1e-3, "{workers} for {needed}");
                }
            }
        }

        #[test]
        fn more_cores_or_higher_limits_are_never_worse(
            demands in prop::collection::vec(demand(), 1..6),
            cores in 0.5..64.0,
        ) {
            let before = solve(&demands, cores, 0.5).rate;
            prop_assert!(solve(&demands, cores * 2.0, 0.5).rate >= before);
            let wider: Vec<Demand> = demands
                .iter()
                .map(|stage| Demand { limit: stage.limit * 2, ..*stage })
                .collect();
            prop_assert!(solve(&wider, cores, 0.5).rate >= before);
        }
    }
}
