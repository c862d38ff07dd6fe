//! The loop: takes in looks at a run, and decides about its workers.
//!
//! A survey is a few looks long. Each one gives estimates, the solver makes
//! numbers of them, and what differs enough is applied: up at once, down
//! after the third survey that says so. Then the loop waits for the effect,
//! and takes a step back only if it was surely worse. When nothing is left to
//! do it tries, one thing at a time, whether fewer workers do as well.

use std::time::Duration;

use super::{
    decision::{Bounds, Look, Settings, Survey},
    measure::{Counts, Estimate, Snapshot},
    solve::{Demand, solve},
    verify::Rates,
};

mod cores;
mod decide;
mod stage;
#[cfg(test)]
mod tests;
mod tries;

use cores::Cores;
use decide::View;
use stage::{Experiment, Stage, Tries};

const TICK: Duration = Duration::from_millis(100);
const TICK_AT_FIRST: Duration = Duration::from_millis(50);
/// The time in which everything is done sooner: a short run sees nothing else.
const YOUNG: Duration = Duration::from_secs(3);
/// Workers that take so long to begin come in large steps.
const SLOW_START: Duration = Duration::from_millis(500);
const SLACK: f64 = 0.8;
const MOST_SLACK: f64 = 6.0;
const LEAST_SLACK: f64 = 0.6;
/// Where a hand-over costs as much as the work, workers do not help.
const TINY: f64 = 2e-6;
/// How long it must look as if fewer would do.
const SHRINK_AFTER: Duration = Duration::from_millis(700);
/// A clock that says so is broken, and times added to it would not fit.
const LATEST: Duration = Duration::from_secs(1 << 40);
/// Nobody has more, whatever somebody says.
const MOST_WORKERS: usize = 1 << 24;
/// So many items are remembered where nothing happens.
const QUIET: f64 = 400.0;
const SATURATED: f64 = 0.96;
const CORES_SATURATED: f64 = 0.97;

/// Decides about the workers of a pipeline, look by look.
///
/// See [the module](crate::pace) for an example.
#[derive(Clone, Debug)]
pub struct Controller {
    cores: Cores,
    stages: Vec<Stage>,
    slack: f64,
    began: Option<Duration>,
    /// Until when the first workers were still starting, and whether anything was seen since.
    awake: Duration,
    has_seen: bool,
    /// Where the survey under way began.
    open: Snapshot,
    ticks: u32,
    last: Snapshot,
    rates: Rates,
    /// Until when looks are left out, since a move has yet to show.
    blackout: Option<Duration>,
    experiment: Option<Experiment>,
    tries: Tries,
    /// Whether the last change of the slack was a trim that seemed to cost nothing.
    is_trimmed: bool,
    steady_since: Duration,
    /// How much of the bound was used since the last change: the sum over time, and the time.
    use_since: (f64, f64),
    /// Whether what bounds the rate is used to the full.
    is_used: bool,
    /// What was used before the slack was raised, and whether that gained nothing.
    before_raise: Option<f64>,
    is_vain: bool,
    /// Surveys in a row whose times did not add up.
    unaccounted: u32,
    /// Memory that was used at the beginning.
    memory_at_first: Option<u64>,
    random: u64,
}

impl Controller {
    /// A controller that has seen nothing yet; the stages have their seeds.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            cores: Cores::new(settings.cores),
            stages: settings.stages.into_iter().map(Stage::new).collect(),
            slack: SLACK,
            began: None,
            awake: Duration::ZERO,
            has_seen: false,
            open: Snapshot::default(),
            ticks: 0,
            last: Snapshot::default(),
            rates: Rates::default(),
            blackout: None,
            experiment: None,
            tries: Tries::new(Duration::ZERO, 0),
            is_trimmed: false,
            steady_since: Duration::ZERO,
            use_since: (0.0, 0.0),
            is_used: true,
            before_raise: None,
            is_vain: false,
            unaccounted: 0,
            memory_at_first: None,
            random: settings.random,
        }
    }

    /// Takes in what a run has counted, and decides. The numbers of workers
    /// that it decides on are taken to be in effect at once.
    pub fn look(&mut self, now: &Snapshot) -> Look {
        if now.stages.len() != self.stages.len() || now.stages.is_empty() || now.at > LATEST {
            return Look { decisions: Vec::new(), next: TICK, survey: None };
        }
        let Some(began) = self.began else {
            self.began = Some(now.at);
            self.steady_since = now.at;
            self.tries.note(now.at, true);
            self.memory_at_first = now.memory.map(|memory| memory.used);
            self.heed_others(now);
            self.begin_survey(now);
            return Look { decisions: Vec::new(), next: self.next(Duration::ZERO), survey: None };
        };
        let is_starting = now.stages.iter().any(|stage| stage.starting > 0);
        if is_starting && !self.has_seen {
            // It is young from when there is something to see.
            self.awake = now.at;
        }
        let age = now.at.saturating_sub(began.max(self.awake));
        self.heed_others(now);
        let survey = self.take_in(now, age);
        self.has_seen |= survey.is_some();
        self.last = now.clone();
        let decisions = survey.as_ref().map_or_else(Vec::new, |survey| survey.decisions.clone());
        if !decisions.is_empty() {
            self.apply(&decisions, now, age);
        }
        Look { decisions, next: self.next(age), survey }
    }

    /// Returns the workers of each stage.
    #[must_use]
    pub fn workers(&self) -> Vec<usize> {
        self.stages.iter().map(|stage| stage.workers).collect()
    }

    /// Whoever else has changed a number of workers is right, and a stage that
    /// runs out of items keeps what it has.
    fn heed_others(&mut self, now: &Snapshot) {
        for (stage, counts) in self.stages.iter_mut().zip(&now.stages) {
            let is_changed = counts.workers != stage.workers;
            let is_ending = counts.is_ending && !stage.bounds.is_fixed;
            if counts.workers > 0 && (is_changed || is_ending) {
                stage.workers = counts.workers.min(MOST_WORKERS);
                stage.bounds = Bounds::fixed(stage.workers);
                self.experiment = None;
                // What ends now was as it is for all of the survey.
                if is_changed {
                    self.blackout = Some(now.at + TICK_AT_FIRST);
                }
            }
        }
    }

    fn begin_survey(&mut self, now: &Snapshot) {
        self.open = now.clone();
        self.last = now.clone();
        self.ticks = 0;
        self.rates.clear();
    }

    /// The time to the next look: a fifth more or less than the usual.
    fn next(&mut self, age: Duration) -> Duration {
        // Source: Marsaglia, "Xorshift RNGs", 2003.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let part = (self.random >> 11) as f64 / (1_u64 << 53) as f64;
        let usual = if age < YOUNG { TICK_AT_FIRST } else { TICK };
        usual.mul_f64(0.8 + 0.4 * part)
    }

    fn take_in(&mut self, now: &Snapshot, age: Duration) -> Option<Survey> {
        let is_starting = now.stages.iter().any(|stage| stage.starting > 0);
        if is_starting || self.blackout.is_some_and(|until| now.at < until) {
            self.begin_survey(now);
            return None;
        }
        self.ticks += 1;
        let tick = now.at.saturating_sub(self.last.at).as_secs_f64();
        if tick > 0.0 {
            self.rates.push(self.rate(&self.last, now, tick));
        }
        let seconds = now.at.saturating_sub(self.open.at).as_secs_f64();
        let pairs = || self.open.stages.iter().zip(&now.stages);
        let estimates: Vec<Option<Estimate>> =
            pairs().map(|(before, after)| Estimate::between(before, after, seconds)).collect();
        if !self.is_ready(&estimates, seconds, age) {
            return None;
        }
        if !self.is_settled(&estimates, now.at) {
            self.begin_survey(now);
            return None;
        }
        let survey = self.survey(now, estimates, seconds, age);
        let rates = std::mem::take(&mut self.rates);
        if !survey.decisions.is_empty() && self.experiment.is_none() {
            let grown = survey.decisions.iter().any(|decision| decision.to > decision.from);
            if grown {
                self.experiment = Some(Experiment::Grown { before: self.workers(), rates });
            }
        }
        self.begin_survey(now);
        Some(survey)
    }

    /// Items of the source in a second, by what all stages have done.
    fn rate(&self, before: &Snapshot, after: &Snapshot, seconds: f64) -> f64 {
        let (mut sum, mut count, mut visits) = (0.0, 0.0, 1.0);
        for (place, stage) in self.stages.iter().enumerate() {
            let (b, a) = (&before.stages[place], &after.stages[place]);
            if !stage.bounds.is_fixed && visits > 0.0 {
                sum += a.done.saturating_sub(b.done) as f64 / visits;
                count += 1.0;
            }
            visits *= stage.gain();
        }
        if count > 0.0 { sum / count / seconds } else { 0.0 }
    }

    /// Whether enough was seen to decide by.
    fn is_ready(&self, estimates: &[Option<Estimate>], seconds: f64, age: Duration) -> bool {
        let is_young = age < YOUNG;
        let is_steady = self.last.at.saturating_sub(self.steady_since) > YOUNG;
        let (ticks, patience) = match (is_young, is_steady && self.experiment.is_none()) {
            (true, _) => (2, 0.4),
            (false, false) => (3, 2.0),
            (false, true) => (8, 2.0),
        };
        if self.ticks < ticks || seconds <= 0.0 {
            return false;
        }
        let is_enough = |(stage, seen): (&Stage, &Option<Estimate>)| {
            let Some(seen) = seen else { return true };
            let worth = if is_young { 12.0 } else { 12.0 + 3.0 * stage.workers as f64 };
            stage.bounds.is_fixed || seen.done >= worth
        };
        seconds >= patience || self.stages.iter().zip(estimates).all(is_enough)
    }

    /// Whether what was begun before the last move is gone from where it made items slower.
    fn is_settled(&self, estimates: &[Option<Estimate>], at: Duration) -> bool {
        let since = at.saturating_sub(self.steady_since).as_secs_f64();
        self.stages.iter().zip(estimates).all(|(stage, seen)| {
            let moved = stage.base.is_none() && !stage.bounds.is_fixed;
            !moved || seen.is_none_or(|seen| since >= (seen.service + seen.queued).min(2.0))
        })
    }

    fn survey(
        &mut self,
        now: &Snapshot,
        estimates: Vec<Option<Estimate>>,
        seconds: f64,
        age: Duration,
    ) -> Survey {
        let used = self.cores_used(now, seconds);
        if let Some(told) = now.cores {
            self.cores.tell(told);
        }
        self.cores.note(now.at, used, self.without_core(now, seconds));
        let cores = self.cores.count();
        let is_loaded = used > 0.9 * cores;
        self.learn(now, &estimates, seconds, is_loaded);
        let visits = self.visits();
        let smooth: Vec<Option<Estimate>> = self
            .stages
            .iter()
            .zip(&estimates)
            .map(|(stage, seen)| seen.as_ref().map(|seen| stage.past.estimate(seen)))
            .collect();
        let known = |place: usize| now.stages[place].waiting_for_core.is_some();
        let limits = self.limits(now, &smooth, age);
        let mut demands: Vec<Demand> = (0..self.stages.len())
            .map(|place| {
                self.demand(place, smooth[place].as_ref(), visits[place], limits[place], {
                    is_loaded && !known(place)
                })
            })
            .collect();
        // What the program itself uses for an item is no stage's.
        let counted: f64 = demands.iter().map(|stage| stage.visits * stage.cpu).sum();
        let rate = self.rate(&self.open, now, seconds);
        let own = if rate > 0.0 { (used / rate - counted).max(0.0) } else { 0.0 };
        demands.push(Demand { visits: 1.0, cpu: own, service: 0.0, spread: 0.0, limit: 1 });
        let mut solution = solve(&demands, cores, self.slack);
        solution.workers.pop();
        let mut survey = Survey {
            at: now.at,
            span: now.at.saturating_sub(self.open.at),
            workers: self.workers(),
            rate,
            possible: solution.rate,
            bound: solution.rate.is_finite().then_some(solution.bound),
            cores_used: used,
            cores,
            slack: self.slack,
            full: self.stages.iter().map(|stage| stage.outside.is_capped()).collect(),
            held: self.held(&estimates),
            decisions: Vec::new(),
            cost: Duration::ZERO,
            estimates,
        };
        if survey.held.is_none() && survey.bound.is_some() {
            let view =
                View { now, smooth: &smooth, limits: &limits, solution: &solution, cores, age };
            survey.decisions = self.decide(&view, &survey, seconds);
        }
        survey
    }

    fn cores_used(&self, now: &Snapshot, seconds: f64) -> f64 {
        let sum = |snapshot: &Snapshot| -> f64 {
            let cpu = |counts: &Counts| counts.cpu.unwrap_or_default().as_secs_f64();
            snapshot.stages.iter().map(cpu).sum()
        };
        let stages = sum(now) - sum(&self.open);
        let all = now
            .cpu
            .zip(self.open.cpu)
            .map_or(0.0, |(now, open)| now.saturating_sub(open).as_secs_f64());
        stages.max(all).max(0.0) / seconds
    }

    /// How many workers had no core though their work was ready, on average.
    fn without_core(&self, now: &Snapshot, seconds: f64) -> f64 {
        let sum = |snapshot: &Snapshot| -> f64 {
            let queued = |counts: &Counts| counts.waiting_for_core.unwrap_or_default();
            snapshot.stages.iter().map(|counts| queued(counts).as_secs_f64()).sum()
        };
        (sum(now) - sum(&self.open)).max(0.0) / seconds
    }

    /// Updates what is known of each stage.
    fn learn(
        &mut self,
        now: &Snapshot,
        estimates: &[Option<Estimate>],
        seconds: f64,
        is_loaded: bool,
    ) {
        let is_quiet = now.at.saturating_sub(self.steady_since) > YOUNG;
        for (place, seen) in estimates.iter().enumerate() {
            let entered = |counts: &Counts| counts.entered as f64 + counts.depth as f64;
            let came = now.stages.get(place + 1).zip(self.open.stages.get(place + 1));
            let came = came.map_or(0.0, |(now, open)| entered(now) - entered(open));
            let stage = &mut self.stages[place];
            let Some(seen) = seen else { continue };
            stage.flow.into = stage.flow.into * 0.95 + seen.done;
            stage.flow.out = (stage.flow.out * 0.95 + came).max(0.0);
            // Few items say little, so more of the past is kept; and more where nothing happens.
            let keep = if seen.done < 30.0 { 0.75 } else { 0.4 };
            let keep = if is_quiet { f64::max(keep, QUIET / (QUIET + seen.done)) } else { keep };
            stage.past.add(seen, keep);
            if !is_loaded {
                let wait =
                    stage.quiet_wait.map_or(seen.wait(), |quiet| 0.5 * (quiet + seen.wait()));
                stage.quiet_wait = Some(wait);
            } else if let Some(quiet) = &mut stage.quiet_wait {
                *quiet = quiet.min(seen.wait());
            }
            let is_known = now.stages[place].waiting_for_core.is_some() || !is_loaded;
            if let Some(before) = stage.has_changed(now.at, seen)
                && is_known
            {
                stage.forget();
                stage.past.add(seen, 0.0);
                stage.outside.changed(now.at, before, seen.service);
                // Whatever was found out is to be found out again, and what is there now first.
                self.tries = Tries::new(now.at, 2 * place + 1);
                // What it did to the rate is not what our last move did.
                self.experiment = None;
                // This survey was of both.
                continue;
            }
            // A stage that is not at work all the time says nothing of what it waits for: it is
            // others that set its rate.
            let is_at_work = seen.starved + seen.blocked < 0.15 && !is_loaded;
            if !stage.bounds.is_fixed && seen.cpu_share() <= 0.7 && is_known && is_at_work {
                stage.outside.note(now.at, seen, seconds);
            }
        }
    }

    fn visits(&self) -> Vec<f64> {
        let mut visits = 1.0;
        self.stages
            .iter()
            .map(|stage| {
                let here = visits;
                visits *= stage.gain();
                here
            })
            .collect()
    }

    /// The most workers that each stage may have now.
    fn limits(
        &mut self,
        now: &Snapshot,
        estimates: &[Option<Estimate>],
        age: Duration,
    ) -> Vec<usize> {
        let room = self.room_in_memory(now);
        let all = self.stages.iter_mut().zip(estimates).zip(&now.stages);
        all.map(|((stage, seen), counts)| {
            if stage.bounds.is_fixed {
                return stage.workers;
            }
            let room = counts.memory.zip(now.memory).map_or(room, |(each, memory)| {
                Some(fits(memory.budget.saturating_sub(memory.used), each))
            });
            let waits = seen.as_ref().is_some_and(|seen| seen.cpu_share() < 0.1);
            // A step takes a start, where that is slow.
            let start = counts.start.unwrap_or_default();
            let factor = if waits && (age < YOUNG / 2 || start > SLOW_START) { 4 } else { 2 };
            let mut limit = stage.bounds.most.min(stage.workers.saturating_mul(factor));
            if let Some((worse, until)) = stage.worse {
                if now.at < until {
                    limit = limit.min(worse.saturating_sub(1));
                } else {
                    stage.worse = None;
                }
            }
            let tiny = seen.as_ref().is_some_and(|seen| seen.service < TINY && seen.done > 100.0);
            limit = stage.outside.growth(now.at, stage.workers, limit);
            // A run lasts as long again as it has, if nothing else is known: to start a worker
            // must not take longer than that.
            let is_dear = start > now.at.saturating_sub(self.began.unwrap_or_default());
            if tiny || is_dear || room == Some(0) {
                limit = limit.min(stage.workers);
            } else if let Some(room) = room {
                limit = limit.min(stage.workers.saturating_add(room));
            }
            stage.outside.limit(limit).max(1)
        })
        .collect()
    }

    /// How many workers more the memory has room for, by what those there take.
    fn room_in_memory(&self, now: &Snapshot) -> Option<usize> {
        let memory = now.memory?;
        if memory.used >= memory.budget {
            return Some(0);
        }
        let workers: usize = self.stages.iter().map(|stage| stage.workers).sum();
        let grown = memory.used.saturating_sub(self.memory_at_first?);
        let each = grown / workers.max(1) as u64;
        (each > 0).then(|| fits(memory.budget - memory.used, each))
    }

    fn demand(
        &self,
        place: usize,
        seen: Option<&Estimate>,
        visits: f64,
        limit: usize,
        hides_queue: bool,
    ) -> Demand {
        let Some(seen) = seen else {
            return Demand { visits: 0.0, cpu: 0.0, service: 0.0, spread: 1.0, limit };
        };
        let quiet = self.stages[place].quiet_wait;
        // At a full server each waits for all the others there: it takes as much less as fewer ask.
        let is_crowded = self.stages[place].outside.is_capped() && seen.in_service > limit as f64;
        let crowd = if is_crowded { limit as f64 / seen.in_service } else { 1.0 };
        let service = match quiet.filter(|_| hides_queue) {
            // A busy machine would look like a slow server.
            Some(quiet) => seen.cpu + seen.wait().min(quiet),
            // Others have the cores: fewer of ours would not wait less for one.
            None if self.cores.are_shared() => seen.service + seen.queued,
            None => seen.service * crowd,
        };
        Demand { visits, cpu: seen.cpu, service, spread: seen.spread, limit }
    }

    /// Whether the clocks can be trusted: a worker's time is service or waiting.
    fn held(&mut self, estimates: &[Option<Estimate>]) -> Option<&'static str> {
        let is_off = |(stage, seen): (&Stage, &Option<Estimate>)| {
            seen.as_ref().is_some_and(|seen| {
                let counts = !stage.bounds.is_fixed && seen.service > 50.0 * TINY;
                // Not measured at all: a snapshot need not tell of waits.
                let is_told = seen.starved > 0.0 || seen.blocked > 0.0;
                counts && is_told && !(0.75..=1.25).contains(&seen.accounted)
            })
        };
        let off = self.stages.iter().zip(estimates).any(is_off);
        self.unaccounted = if off { self.unaccounted + 1 } else { 0 };
        (self.unaccounted > 3).then_some("the times of the workers do not add up")
    }
}

fn fits(room: u64, each: u64) -> usize {
    usize::try_from(room / each.max(1)).unwrap_or(usize::MAX)
}
