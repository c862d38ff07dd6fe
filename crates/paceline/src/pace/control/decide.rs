//! What follows from a survey: growth, shrinking, and experiments.

use std::time::Duration;

use super::{
    super::{
        decision::{Decision, Survey, Why},
        measure::{Estimate, Snapshot},
        solve::{Bound, Demand, Solution, solve},
    },
    CORES_SATURATED, Controller, MOST_SLACK, SATURATED, SHRINK_AFTER, TICK, TICK_AT_FIRST, YOUNG,
};

/// What a decision is made of.
pub(super) struct View<'a> {
    pub(super) now: &'a Snapshot,
    pub(super) smooth: &'a [Option<Estimate>],
    pub(super) limits: &'a [usize],
    pub(super) solution: &'a Solution,
    pub(super) cores: f64,
    pub(super) age: Duration,
}

impl Controller {
    pub(super) fn decide(
        &mut self,
        view: &View<'_>,
        survey: &Survey,
        seconds: f64,
    ) -> Vec<Decision> {
        let at = view.now.at;
        if let Some(decisions) = self.refused(at, survey) {
            if self.experiment.take().is_some() {
                self.tries.note(at, false);
            }
            return decisions;
        }
        if let Some(decisions) = self.resolve(view, survey, seconds) {
            return decisions;
        }
        if let Some(decisions) = self.judge(view, survey) {
            return decisions;
        }
        let (used, reach) = self.used(view, survey);
        if let Some(decisions) = self.grow(view, reach) {
            return decisions;
        }
        if let Some(decisions) = self.more_slack(view, used, reach, seconds) {
            return decisions;
        }
        if let Some(decisions) = self.shrink(view) {
            return decisions;
        }
        self.try_something(view, survey, used)
    }

    /// Where what bounds the rate is not used to the full, and more of it is
    /// not needed, chance must be to blame: more slack against it.
    fn more_slack(
        &mut self,
        view: &View<'_>,
        used: f64,
        reach: f64,
        seconds: f64,
    ) -> Option<Vec<Decision>> {
        let full = match view.solution.bound {
            Bound::Cores => CORES_SATURATED,
            Bound::Stage(_) => SATURATED,
        };
        if used != reach {
            return None;
        }
        let (sum, time) = (self.use_since.0 + used * seconds, self.use_since.1 + seconds);
        self.use_since = (sum, time);
        let enough = if view.age < YOUNG { 0.3 } else { 1.0 };
        if time < enough {
            return None;
        }
        self.use_since = (0.0, 0.0);
        let (mean, at) = (sum / time, view.now.at);
        self.is_used = mean >= full;
        if let Some(before) = self.before_raise.take() {
            self.is_vain = mean < before + 0.01;
            self.tries.note(at, !self.is_vain);
        }
        let is_time = at >= self.tries.at || view.age < YOUNG;
        if self.is_used || self.is_vain || !is_time {
            return None;
        }
        let slack = self.slack;
        while self.slack < MOST_SLACK {
            self.slack = (self.slack + 0.25).min(MOST_SLACK);
            let wanted = solve(&self.demands_again(view), view.cores, self.slack).workers;
            let more = wanted.into_iter().enumerate();
            let more = more.filter(|&(place, wanted)| wanted > self.stages[place].workers);
            let decisions = self.set(more.collect(), Why::Slack);
            // One more of many would tell nothing.
            if decisions.iter().any(|it| it.to as f64 >= 1.1 * it.from as f64 + 0.5) {
                self.before_raise = Some(mean);
                if std::mem::take(&mut self.is_trimmed) {
                    // The trim was one too many.
                    self.tries.note(at, false);
                }
                return Some(decisions);
            }
        }
        // Nothing is to be had by it.
        self.slack = slack;
        None
    }

    /// How much of what bounds the rate is used: of what is there, and of what may be.
    pub(super) fn used(&self, view: &View<'_>, survey: &Survey) -> (f64, f64) {
        match view.solution.bound {
            Bound::Cores => (survey.cores_used / survey.cores, survey.cores_used / survey.cores),
            Bound::Stage(place) => {
                let seen = survey.estimates[place].unwrap_or_default();
                let busy = seen.in_service + seen.queued * seen.rate;
                let workers = self.stages[place].workers.max(1) as f64;
                (busy / workers, busy / view.limits[place].max(1) as f64)
            }
        }
    }

    fn grow(&mut self, view: &View<'_>, reach: f64) -> Option<Vec<Decision>> {
        let wants = |place: usize, wanted: usize| {
            let stage = &self.stages[place];
            !stage.bounds.is_fixed && wanted as f64 >= 1.1 * stage.workers as f64 + 0.5
        };
        let wanted = || view.solution.workers.iter().copied().enumerate();
        if reach >= 0.97 || !wanted().any(|(place, wanted)| wants(place, wanted)) {
            return None;
        }
        let grown = wanted().filter(|&(place, wanted)| wanted > self.stages[place].workers);
        let grown: Vec<_> = grown.collect();
        Some(self.set(grown, Why::Needed(view.solution.bound)))
    }

    fn shrink(&mut self, view: &View<'_>) -> Option<Vec<Decision>> {
        let mut shrunk = Vec::new();
        for (place, stage) in self.stages.iter_mut().enumerate() {
            let wanted = view.solution.workers[place];
            let is_seen = view.smooth[place].as_ref().is_some_and(|seen| seen.done >= 8.0);
            let is_idle = is_seen && wanted as f64 <= 0.85 * stage.workers as f64 - 0.75;
            if !is_idle || stage.bounds.is_fixed {
                stage.idle = None;
                continue;
            }
            let (since, votes, most) = stage.idle.unwrap_or((view.now.at, 0, 1));
            let (votes, most) = (votes + 1, most.max(wanted));
            stage.idle = Some((since, votes, most));
            if votes >= 3 && view.now.at.saturating_sub(since) >= SHRINK_AFTER {
                stage.idle = None;
                let least = (0.6 * stage.workers as f64).ceil() as usize;
                shrunk.push((place, most.max(least)));
            }
        }
        (!shrunk.is_empty()).then(|| self.set(shrunk, Why::Idle))
    }

    /// Cuts the stages whose outside has refused attempts.
    fn refused(&mut self, at: Duration, survey: &Survey) -> Option<Vec<Decision>> {
        let mut cut = Vec::new();
        for (place, stage) in self.stages.iter_mut().enumerate() {
            let Some(seen) = survey.estimates[place].as_ref() else { continue };
            let refused = seen.pushback > 0.02 && !stage.bounds.is_fixed;
            if refused && stage.outside.pushed_back(at, stage.workers, seen) {
                cut.push((place, stage.outside.limit(stage.workers)));
            }
        }
        (!cut.is_empty()).then(|| self.set(cut, Why::Refused))
    }

    pub(super) fn demands_again(&self, view: &View<'_>) -> Vec<Demand> {
        let visits = self.visits();
        (0..self.stages.len())
            .map(|place| {
                let seen = view.smooth[place].as_ref();
                self.demand(place, seen, visits[place], view.limits[place], false)
            })
            .collect()
    }

    /// Makes decisions of those numbers that are new.
    pub(super) fn set(&self, wanted: Vec<(usize, usize)>, why: Why) -> Vec<Decision> {
        let differs = |&(place, to): &(usize, usize)| {
            let stage = &self.stages[place];
            !stage.bounds.is_fixed && to != stage.workers && to > 0
        };
        let wanted = wanted.into_iter().filter(differs);
        wanted
            .map(|(stage, to)| Decision { stage, from: self.stages[stage].workers, to, why })
            .collect()
    }

    pub(super) fn apply(&mut self, decisions: &[Decision], now: &Snapshot, age: Duration) {
        for decision in decisions {
            let stage = &mut self.stages[decision.stage];
            stage.workers = decision.to;
            stage.idle = None;
            stage.moved();
        }
        self.steady_since = now.at;
        self.use_since = (0.0, 0.0);
        // What is in service was begun before the move, and what the outside had too much of
        // has to go first: the length of an item.
        let item = decisions.iter().filter_map(|decision| {
            let stage = &self.stages[decision.stage];
            (stage.past.items > 0.0).then(|| stage.past.service / stage.past.items)
        });
        let settles = Duration::from_secs_f64(item.fold(0.0, f64::max).min(2.0));
        let least = if age < YOUNG { TICK_AT_FIRST } else { 2 * TICK };
        self.blackout = Some(now.at + settles.max(least).mul_f64(0.9));
    }
}
