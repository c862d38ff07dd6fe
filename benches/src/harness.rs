//! Runs contestants against each other, and compares them round by round.
//!
//! A round runs every contestant once, one after the other, so that whatever
//! else the machine does meets all of them alike. Ratios are taken within a
//! round, and the median of those is reported: it says more than the ratio of
//! two medians on a machine with a changing load.
//!
//! Not here: what is measured (a file for each group), and how it is shown
//! (`report.rs`).

use std::time::{Duration, Instant};

/// How to run.
pub(crate) struct Options {
    /// Odd, so that a median is one of the measurements.
    pub(crate) rounds: usize,
    /// A tenth of the work, to see that everything runs.
    pub(crate) quick: bool,
}

impl Options {
    /// Returns how much to do: `full`, or a tenth of it.
    pub(crate) fn amount(&self, full: usize) -> usize {
        if self.quick { full / 10 } else { full }
    }
}

/// What one run of a contestant gave, a value for each measure of its contest.
pub(crate) type Sample = Vec<f64>;

/// What is measured: its name, empty for the contest's own, and its unit.
pub(crate) struct Measure {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
}

/// What must hold, by the project's own word.
pub(crate) struct Bar {
    /// The place of the measure in the contest.
    pub(crate) measure: usize,
    pub(crate) of: &'static str,
    pub(crate) limit: Limit,
}

pub(crate) enum Limit {
    /// At most this many times the best of these.
    Times(f64, Vec<&'static str>),
    /// At most so much above this one, in the unit of the measure.
    Above(f64, &'static str),
    /// At most this.
    AtMost(f64),
}

impl Bar {
    pub(crate) fn times(of: &'static str, most: f64, peers: &[&'static str]) -> Self {
        Self { measure: 0, of, limit: Limit::Times(most, peers.to_vec()) }
    }

    pub(crate) fn above(of: &'static str, most: f64, peer: &'static str) -> Self {
        Self { measure: 0, of, limit: Limit::Above(most, peer) }
    }

    pub(crate) fn at_most(measure: usize, of: &'static str, most: f64) -> Self {
        Self { measure, of, limit: Limit::AtMost(most) }
    }
}

/// Several ways to do the same work.
pub(crate) struct Contest {
    pub(crate) title: String,
    pub(crate) measures: Vec<Measure>,
    pub(crate) bars: Vec<Bar>,
    /// Who would take part, but is not on this machine.
    pub(crate) absent: Vec<&'static str>,
    /// How many rounds it has, if not as many as the others. Odd.
    pub(crate) rounds: Option<usize>,
    contestants: Vec<Contestant>,
}

struct Contestant {
    name: &'static str,
    run: Box<dyn FnMut() -> Sample>,
}

impl Contest {
    /// A contest whose only measure is the time in `unit`.
    pub(crate) fn new(title: impl Into<String>, unit: &'static str) -> Self {
        Self {
            title: title.into(),
            measures: vec![Measure { name: "", unit }],
            bars: Vec::new(),
            absent: Vec::new(),
            rounds: None,
            contestants: Vec::new(),
        }
    }

    pub(crate) fn measure(mut self, name: &'static str, unit: &'static str) -> Self {
        self.measures.push(Measure { name, unit });
        self
    }

    /// Adds a contestant with a value for each measure.
    pub(crate) fn add(&mut self, name: &'static str, run: impl FnMut() -> Sample + 'static) {
        self.contestants.push(Contestant { name, run: Box::new(run) });
    }

    /// Adds a contestant that does `items` of work and says how long it took.
    pub(crate) fn add_timed(
        &mut self,
        name: &'static str,
        items: usize,
        mut run: impl FnMut() -> Duration + 'static,
    ) {
        self.add(name, move || vec![run().as_nanos() as f64 / items as f64]);
    }

    /// Leaves out everyone but `name`, and with them what they would be compared by.
    pub(crate) fn keep(&mut self, name: &str) {
        self.contestants.retain(|contestant| contestant.name == name);
        self.bars.clear();
    }

    /// Runs all rounds, and one before them that does not count.
    pub(crate) fn run(mut self, options: &Options) -> Standing {
        let mut samples = vec![Vec::new(); self.contestants.len()];
        for round in 0..=self.rounds.unwrap_or(options.rounds) {
            for (contestant, samples) in self.contestants.iter_mut().zip(&mut samples) {
                let sample = (contestant.run)();
                assert_eq!(sample.len(), self.measures.len(), "{}", contestant.name);
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
        Standing {
            names: self.contestants.iter().map(|contestant| contestant.name).collect(),
            title: self.title,
            measures: self.measures,
            bars: self.bars,
            absent: self.absent,
            samples,
        }
    }
}

/// A contest that was run.
pub(crate) struct Standing {
    pub(crate) title: String,
    pub(crate) measures: Vec<Measure>,
    pub(crate) bars: Vec<Bar>,
    pub(crate) absent: Vec<&'static str>,
    pub(crate) names: Vec<&'static str>,
    /// By contestant, round and measure.
    samples: Vec<Vec<Sample>>,
}

impl Standing {
    fn values(&self, name: &str, measure: usize) -> Option<impl Iterator<Item = f64>> {
        let index = self.names.iter().position(|&other| other == name)?;
        Some(self.samples[index].iter().map(move |sample| sample[measure]))
    }

    /// Returns the median of what a contestant gave, if it took part.
    pub(crate) fn median(&self, name: &str, measure: usize) -> Option<f64> {
        Some(median(self.values(name, measure)?.collect()))
    }

    /// Returns the median over the rounds of `name` to the best of `peers`.
    pub(crate) fn ratio(&self, name: &str, peers: &[&str], measure: usize) -> Option<f64> {
        let peers: Vec<Vec<f64>> =
            peers.iter().filter_map(|peer| Some(self.values(peer, measure)?.collect())).collect();
        if peers.is_empty() {
            return None;
        }
        let best = |round: usize| peers.iter().map(|peer| peer[round]).fold(f64::MAX, f64::min);
        let rounds = self.values(name, measure)?.enumerate();
        Some(median(rounds.map(|(round, value)| value / best(round)).collect()))
    }

    /// Returns the median over the rounds of how far `name` is above `peer`.
    pub(crate) fn above(&self, name: &str, peer: &str, measure: usize) -> Option<f64> {
        let rounds = self.values(name, measure)?.zip(self.values(peer, measure)?);
        Some(median(rounds.map(|(value, peer)| value - peer).collect()))
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Times `work` from its start to its end.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
