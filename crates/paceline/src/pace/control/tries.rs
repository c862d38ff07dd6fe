//! What is tried: other numbers of workers than the solver's, one thing at a
//! time, to see whether they do as well or better.

use std::time::Duration;

use super::{
    super::{
        decision::{Decision, Survey, Why},
        outside::{Outside, Verdict},
        solve::{Bound, solve},
    },
    CORES_SATURATED, Controller, LEAST_SLACK, YOUNG,
    decide::View,
    stage::{Experiment, Look},
};

/// How long a look with other workers takes at most, and one that follows from what was seen.
const LONGEST: Duration = Duration::from_secs(4);
const CHECK: Duration = Duration::from_secs(1);

impl Controller {
    /// Caps the stages whose outside gives no more; a cut is a look whether it does as well.
    pub(super) fn judge(&mut self, view: &View<'_>, survey: &Survey) -> Option<Vec<Decision>> {
        let at = view.now.at;
        for place in 0..self.stages.len() {
            let Some(seen) = survey.estimates[place].as_ref() else { continue };
            let stage = &mut self.stages[place];
            let is_outside = seen.cpu_share() <= 0.7 && !stage.bounds.is_fixed;
            if is_outside && stage.outside.judge(at, seen.spread) {
                let to = stage.outside.limit(stage.workers);
                if to < self.stages[place].workers {
                    return self.look_with(place, to, survey, at, Why::Full);
                }
            }
        }
        None
    }

    /// Looks what another number of workers does.
    fn look_with(
        &mut self,
        stage: usize,
        to: usize,
        survey: &Survey,
        at: Duration,
        why: Why,
    ) -> Option<Vec<Decision>> {
        let seen = survey.estimates[stage].as_ref()?;
        let rate = self.stages[stage].outside.rate_at(seen.in_service);
        let look = Look {
            stage,
            before: self.stages[stage].workers,
            rate: rate.unwrap_or((seen.rate, seen.done)),
            done: 0.0,
            in_service: 0.0,
            seconds: 0.0,
            until: at + if why == Why::Full { CHECK } else { LONGEST },
        };
        self.experiment = Some(Experiment::Look(look));
        Some(self.set(vec![(stage, to)], why))
    }

    /// Tries whether fewer workers do as well, or more than a cap allows do better.
    pub(super) fn try_something(
        &mut self,
        view: &View<'_>,
        survey: &Survey,
        used: f64,
    ) -> Vec<Decision> {
        let at = view.now.at;
        if view.age < YOUNG / 2 || at < self.tries.at || self.experiment.is_some() {
            return Vec::new();
        }
        let (first, kinds) = (self.tries.turn, 2 * self.stages.len() + 1);
        for turn in (0..kinds).map(|more| (first + more) % kinds) {
            let tried = match turn.checked_sub(1) {
                None => self.trim(view, used),
                Some(place) => self.other_number(place / 2, place % 2 == 1, view, survey),
            };
            if let Some(decisions) = tried {
                self.tries.turn = (turn + 1) % kinds;
                return decisions;
            }
        }
        Vec::new()
    }

    fn other_number(
        &mut self,
        place: usize,
        more: bool,
        view: &View<'_>,
        survey: &Survey,
    ) -> Option<Vec<Decision>> {
        let stage = &mut self.stages[place];
        let seen = survey.estimates[place].as_ref()?;
        let is_loaded = survey.cores_used > 0.9 * survey.cores;
        let hides = is_loaded && view.now.stages[place].waiting_for_core.is_none();
        let may = !stage.bounds.is_fixed
            && view.solution.bound == Bound::Stage(place)
            && seen.cpu_share() <= 0.5
            && seen.starved + seen.blocked < 0.1
            && !hides;
        if !may {
            return None;
        }
        let at = view.now.at;
        let (to, why) = if more {
            let to = stage.outside.more(at, stage.workers)?.min(stage.bounds.most);
            (to, Why::Needed(Bound::Stage(place)))
        } else {
            (stage.outside.fewer(stage.workers, seen)?, Why::Probe)
        };
        (to != stage.workers).then(|| self.look_with(place, to, survey, at, why)).flatten()
    }

    /// Less slack for all stages.
    fn trim(&mut self, view: &View<'_>, used: f64) -> Option<Vec<Decision>> {
        let at = view.now.at;
        let quiet = at.saturating_sub(self.steady_since) >= Duration::from_secs(2);
        let may_trim = self.is_used || self.is_vain;
        if !quiet || !may_trim || self.slack <= LEAST_SLACK {
            return None;
        }
        self.is_vain = false;
        let slack = self.slack;
        self.slack = (slack * 0.7).max(LEAST_SLACK);
        let solution = solve(&self.demands_again(view), view.cores, self.slack);
        let fewer: Vec<_> = (0..self.stages.len())
            .filter(|&place| !self.stages[place].bounds.is_fixed)
            .map(|place| (place, solution.workers[place].min(self.stages[place].workers)))
            .collect();
        let before = self.workers();
        let decisions = self.set(fewer, Why::Trim);
        // One of many is not worth a move.
        let gone: usize = decisions.iter().map(|it| it.from - it.to).sum();
        if (gone as f64) < 0.05 * before.iter().sum::<usize>() as f64 {
            self.slack = slack;
            return None;
        }
        self.experiment = Some(Experiment::Trim { before, slack, used, seconds: 0.0, sum: 0.0 });
        Some(decisions)
    }

    /// Ends the experiment under way if it has an outcome; `None` lets other decisions be made.
    pub(super) fn resolve(
        &mut self,
        view: &View<'_>,
        survey: &Survey,
        seconds: f64,
    ) -> Option<Vec<Decision>> {
        let at = view.now.at;
        match self.experiment.take()? {
            Experiment::Grown { before, rates } => {
                if !rates.is_surely_better_than(&self.rates) {
                    return None;
                }
                let back: Vec<_> = before.into_iter().enumerate().collect();
                for &(place, workers) in &back {
                    let stage = &mut self.stages[place];
                    if stage.workers > workers {
                        stage.worse = Some((stage.workers, at + Duration::from_secs(10)));
                    }
                }
                let rates = std::mem::take(&mut self.rates);
                self.experiment = Some(Experiment::Reverted { rates });
                Some(self.set(back, Why::Slower))
            }
            Experiment::Reverted { rates } => {
                if self.rates.mean() < 1.05 * rates.mean() {
                    // It is as slow as with more: something else has happened.
                    self.stages.iter_mut().for_each(|stage| stage.worse = None);
                }
                None
            }
            Experiment::Look(mut look) => {
                let now = survey.estimates[look.stage].unwrap_or_default();
                look.seconds += seconds;
                look.done += now.done;
                look.in_service += now.in_service * seconds;
                self.looked(look, at)
            }
            Experiment::Trim { before, slack, used, seconds: so_far, sum } => {
                let (now, _) = self.used(view, survey);
                let (total, sum) = (so_far + seconds, sum + now * seconds);
                if total < 1.0 {
                    let seconds = total;
                    self.experiment = Some(Experiment::Trim { before, slack, used, seconds, sum });
                    return Some(Vec::new());
                }
                self.is_trimmed = sum / total >= used.min(CORES_SATURATED) - 0.01;
                self.tries.note(at, self.is_trimmed);
                if self.is_trimmed {
                    return None;
                }
                self.slack = slack;
                Some(self.set(before.into_iter().enumerate().collect(), Why::NoTrim))
            }
        }
    }

    fn looked(&mut self, look: Look, at: Duration) -> Option<Vec<Decision>> {
        let stage = &mut self.stages[look.stage];
        let left = stage.workers as f64 / look.before as f64;
        let kept = look.done / look.seconds / look.rate.0;
        let done = (look.rate.1, look.done);
        let Some(verdict) = Outside::verdict(left, kept, done, at >= look.until) else {
            self.experiment = Some(Experiment::Look(look));
            return Some(Vec::new());
        };
        stage.outside.tried(verdict, (left, kept), look.in_service / look.seconds);
        let is_full = left < 1.0 && verdict == Verdict::Useless;
        let has_room = left > 1.0 && verdict == Verdict::Needed;
        self.tries.note(at, is_full || has_room);
        if is_full {
            // There may be more that is of no use.
            (self.tries.at, self.tries.turn) = (at, 2 * look.stage + 1);
        }
        if is_full || has_room {
            return None;
        }
        Some(self.set(
            vec![(look.stage, look.before)],
            if left < 1.0 { Why::NoProbe } else { Why::Full },
        ))
    }
}
