//! The loop: takes in looks at a run, and decides about its workers.
//!
//! A survey is a few looks long. Each one gives estimates, the solver makes
//! numbers of them, and what differs enough is applied: up at once, down
//! after the third survey that says so. Then the loop waits for the effect,
//! and takes a step back only if it was surely worse. When nothing is left to
//! do it tries, one thing at a time, whether fewer workers do as well.

use std::{fmt, time::Duration};

use super::{
    measure::{Counts, Estimate, Snapshot},
    outside::Outside,
    solve::{Bound, Demand, Solution, solve},
    verify::Rates,
};

/// What may be decided about a stage.
///
/// ```
/// use paceline::pace::Bounds;
///
/// assert!(Bounds::fixed(3).is_fixed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The workers it begins with.
    pub seed: usize,
    /// The most it may have.
    pub most: usize,
    /// Whether nothing is decided about it.
    pub is_fixed: bool,
}

impl Bounds {
    /// A stage whose workers someone else has decided on; the source and the
    /// sink are such, with one.
    #[must_use]
    pub const fn fixed(workers: usize) -> Self {
        Self { seed: workers, most: workers, is_fixed: true }
    }

    /// Futures on an event loop: one more costs little.
    #[must_use]
    pub const fn io() -> Self {
        Self { seed: 4, most: 512, is_fixed: false }
    }

    /// Threads that may wait.
    #[must_use]
    pub const fn blocking() -> Self {
        Self { seed: 4, most: 128, is_fixed: false }
    }

    /// Threads that compute, where `sharing` stages share the cores.
    #[must_use]
    pub fn cpu(cores: usize, sharing: usize) -> Self {
        Self { seed: (cores / sharing.max(1)).max(1), most: 2 * cores.max(1), is_fixed: false }
    }

    /// Child processes, where `sharing` stages share the cores.
    #[must_use]
    pub fn command(cores: usize, sharing: usize) -> Self {
        // 32: children that wait for a network are worth it on a small machine too.
        let most = (4 * cores).max(32);
        Self { seed: (cores / sharing.max(1)).max(1), most, is_fixed: false }
    }

    /// With no more than `most`.
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        let most = most.max(1);
        Self { seed: self.seed.min(most), most, ..self }
    }
}

/// What a controller is told once.
///
/// ```
/// use paceline::pace::{Bounds, Settings};
///
/// let settings = Settings::new(2.0, vec![Bounds::fixed(1)]);
/// assert_eq!(settings.cores, 2.0);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// How many cores may be used.
    pub cores: f64,
    /// The stages from the source to the sink, both among them.
    pub stages: Vec<Bounds>,
    /// Where the random lengths of the intervals begin: two programs on one
    /// machine must not move in step.
    pub random: u64,
}

impl Settings {
    /// Settings for so many cores and these stages.
    #[must_use]
    pub const fn new(cores: f64, stages: Vec<Bounds>) -> Self {
        Self { cores, stages, random: 1 }
    }

    /// Begins the random numbers elsewhere.
    #[must_use]
    pub const fn random(mut self, random: u64) -> Self {
        self.random = random;
        self
    }
}

/// A change of a stage's number of workers.
///
/// ```
/// use paceline::pace::{Bound, Decision, Why};
///
/// let decision = Decision { stage: 1, from: 4, to: 8, why: Why::Needed(Bound::Cores) };
/// assert_eq!(decision.why.to_string(), "as many as keep the cores busy");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The stage's place, the source being 0.
    pub stage: usize,
    /// How many workers it had.
    pub from: usize,
    /// How many it gets.
    pub to: usize,
    /// What for.
    pub why: Why,
}

/// Why a stage gets another number of workers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// The rate that this bound allows takes so many.
    Needed(Bound),
    /// Chance leaves what bounds the rate idle at times: more against it.
    Slack,
    /// More are there than the rate takes.
    Idle,
    /// What it waits for does no more with further ones.
    Full,
    /// What it waits for told it to come back later.
    Refused,
    /// A look whether fewer do as well.
    Probe,
    /// Fewer did not do as well.
    NoProbe,
    /// Less slack is enough.
    Trim,
    /// Less slack was not enough.
    NoTrim,
    /// The last change made it slower.
    Slower,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Needed(Bound::Cores) => "as many as keep the cores busy",
            Self::Needed(Bound::Stage(_)) => "as many as the rate takes",
            Self::Slack => "more against chance",
            Self::Idle => "fewer do as much",
            Self::Full => "what it waits for gives no more",
            Self::Refused => "what it waits for refused some",
            Self::Probe => "to see whether fewer do as well",
            Self::NoProbe => "fewer did not do as well",
            Self::Trim => "to see whether less slack is enough",
            Self::NoTrim => "less slack was not enough",
            Self::Slower => "the last change made it slower",
        })
    }
}

/// What was seen over a few looks, and what was made of it.
///
/// ```
/// use std::time::Duration;
/// use paceline::pace::{Bounds, Controller, Settings, Snapshot};
///
/// let mut controller = Controller::new(Settings::new(2.0, vec![]));
/// let look = controller.look(&Snapshot::default());
/// assert!(look.survey.is_none(), "one look says nothing yet");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// When it ended.
    pub at: Duration,
    /// How long it was.
    pub span: Duration,
    /// What the stages were like; `None` for one that had nothing to do.
    pub estimates: Vec<Option<Estimate>>,
    /// The workers they had.
    pub workers: Vec<usize>,
    /// Items of the source that went through in a second.
    pub rate: f64,
    /// Items of the source in a second that should be possible.
    pub possible: f64,
    /// What bounds that.
    pub bound: Option<Bound>,
    /// Cores in use.
    pub cores_used: f64,
    /// Cores that there are for us.
    pub cores: f64,
    /// How much the stages get beyond the mean number in service.
    pub slack: f64,
    /// Which stages' outsides give no more.
    pub full: Vec<bool>,
    /// Why nothing is decided, if that is so.
    pub held: Option<&'static str>,
    /// What was decided.
    pub decisions: Vec<Decision>,
}

/// What came of a look.
///
/// See [`Survey`] for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Look {
    /// What is to be changed.
    pub decisions: Vec<Decision>,
    /// How long to wait before the next look.
    pub next: Duration,
    /// What was seen, when a survey has ended.
    pub survey: Option<Survey>,
}

const TICK: Duration = Duration::from_millis(100);
const TICK_AT_FIRST: Duration = Duration::from_millis(50);
/// The time in which everything is done sooner: a short run sees nothing else.
const YOUNG: Duration = Duration::from_secs(3);
const SLACK: f64 = 0.8;
const MOST_SLACK: f64 = 6.0;
const LEAST_SLACK: f64 = 0.6;
/// Where a hand-over costs as much as the work, workers do not help.
const TINY: f64 = 2e-6;
/// How long no more slack is tried at first, after it has gained nothing.
const RAISE_AGAIN: Duration = Duration::from_secs(5);
/// How long it must look as if fewer would do.
const SHRINK_AFTER: Duration = Duration::from_millis(700);
const SATURATED: f64 = 0.96;
const CORES_SATURATED: f64 = 0.97;

/// Decides about the workers of a pipeline, look by look.
///
/// See [the module](crate::pace) for an example.
#[derive(Clone, Debug)]
pub struct Controller {
    cores: f64,
    stages: Vec<Stage>,
    slack: f64,
    began: Option<Duration>,
    /// Where the survey under way began.
    open: Snapshot,
    ticks: u32,
    last: Snapshot,
    rates: Rates,
    /// Until when looks are left out, since a move has yet to show.
    blackout: Option<Duration>,
    experiment: Option<Experiment>,
    trim_at: Duration,
    trim_every: Duration,
    steady_since: Duration,
    /// How much of the bound was used since the last change: the sum over time, and the time.
    use_since: (f64, f64),
    /// Whether what bounds the rate is used to the full.
    is_used: bool,
    /// What was used before the slack was raised, and until when that is not tried again.
    before_raise: Option<f64>,
    no_raise: (Duration, Duration),
    /// Surveys in a row whose times did not add up.
    unaccounted: u32,
    /// Memory that was used at the beginning.
    memory_at_first: Option<u64>,
    random: u64,
}

/// What is under way to see what it does; never two at once.
#[derive(Clone, Debug)]
enum Experiment {
    /// After a growth: the workers and the rates before.
    Grown { before: Vec<usize>, rates: Rates },
    /// After a growth was taken back: the rates that it had.
    Reverted { rates: Rates },
    /// Fewer workers for one stage.
    Probe { stage: usize, before: usize, rate: f64, seen: Estimate, seconds: f64, until: Duration },
    /// Less slack.
    Trim { before: Vec<usize>, slack: f64, used: f64, seconds: f64, sum: f64 },
}

#[derive(Clone, Debug)]
struct Stage {
    bounds: Bounds,
    workers: usize,
    /// The recent past, fading.
    past: Sums,
    /// Items that came out for one that went in.
    flow: Flow,
    outside: Outside,
    /// Since when and how often fewer would have done, and the most that was wanted meanwhile.
    idle: Option<(Duration, u32, usize)>,
    /// The wait of an item when the cores were not busy.
    quiet_wait: Option<f64>,
    /// What it was like after its last change; the base for "has changed by itself".
    base: Option<(Estimate, Duration)>,
    changed_since: Option<Duration>,
    /// A number that was tried and surely worse, and until when that counts.
    worse: Option<(usize, Duration)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    items: f64,
    done: f64,
    service: f64,
    cpu: f64,
    queued: f64,
    squares: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    into: f64,
    out: f64,
}

impl Sums {
    /// Adds a survey, and lets the past fade to `keep` of itself.
    fn add(&mut self, seen: &Estimate, keep: f64) {
        let items = seen.done.max(0.5);
        let mean = seen.service + seen.queued;
        let fade = |past: &mut f64, new: f64| *past = *past * keep + new;
        fade(&mut self.items, items);
        fade(&mut self.done, seen.done);
        fade(&mut self.service, seen.service * items);
        fade(&mut self.cpu, seen.cpu * items);
        fade(&mut self.queued, seen.queued * items);
        fade(&mut self.squares, (seen.spread * seen.spread + 1.0) * mean * mean * items);
    }

    fn estimate(&self, seen: &Estimate) -> Estimate {
        let mean = (self.service + self.queued) / self.items;
        Estimate {
            done: self.done,
            cpu: self.cpu / self.items,
            service: self.service / self.items,
            queued: self.queued / self.items,
            spread: (self.squares / self.items / (mean * mean) - 1.0).max(0.0).sqrt(),
            ..*seen
        }
    }
}

impl Stage {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            workers: bounds.seed,
            past: Sums::default(),
            flow: Flow::default(),
            outside: Outside::default(),
            idle: None,
            quiet_wait: None,
            base: None,
            changed_since: None,
            worse: None,
        }
    }

    /// Items that came out for one that went in.
    fn gain(&self) -> f64 {
        if self.flow.into < 1.0 {
            return 1.0;
        }
        let gain = self.flow.out / self.flow.into;
        // What is still inside blurs the count; most stages give one for one.
        if (gain - 1.0).abs() < 0.03 { 1.0 } else { gain }
    }

    /// Whether its work has changed though its workers have not: for most of a
    /// second, by more than chance explains.
    fn has_changed(&mut self, at: Duration, now: &Estimate) -> bool {
        let enough = 30.0 * (1.0 + now.spread * now.spread);
        if now.done < enough {
            return false;
        }
        let Some((base, _)) = &self.base else {
            self.base = Some((*now, at));
            return false;
        };
        let differs = |a: f64, b: f64| (a - b).abs() > 0.25 * b.max(0.02 * base.service);
        if !differs(now.cpu, base.cpu) && !differs(now.wait(), base.wait()) {
            self.changed_since = None;
            return false;
        }
        let since = *self.changed_since.get_or_insert(at);
        if at.saturating_sub(since) < Duration::from_millis(800) {
            return false;
        }
        self.changed_since = None;
        self.base = Some((*now, at));
        true
    }
}

impl Controller {
    /// A controller that has seen nothing yet; the stages have their seeds.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            cores: settings.cores,
            stages: settings.stages.into_iter().map(Stage::new).collect(),
            slack: SLACK,
            began: None,
            open: Snapshot::default(),
            ticks: 0,
            last: Snapshot::default(),
            rates: Rates::default(),
            blackout: None,
            experiment: None,
            trim_at: Duration::from_secs(4),
            trim_every: Duration::from_secs(4),
            steady_since: Duration::ZERO,
            use_since: (0.0, 0.0),
            is_used: true,
            before_raise: None,
            no_raise: (Duration::ZERO, RAISE_AGAIN),
            unaccounted: 0,
            memory_at_first: None,
            random: settings.random,
        }
    }

    /// Takes in what a run has counted, and decides. The numbers of workers
    /// that it decides on are taken to be in effect at once.
    pub fn look(&mut self, now: &Snapshot) -> Look {
        if now.stages.len() != self.stages.len() || now.stages.is_empty() {
            return Look { decisions: Vec::new(), next: TICK, survey: None };
        }
        let Some(began) = self.began else {
            self.began = Some(now.at);
            self.steady_since = now.at;
            self.trim_at = now.at + self.trim_every;
            self.memory_at_first = now.memory.map(|memory| memory.used);
            for (stage, counts) in self.stages.iter_mut().zip(&now.stages) {
                stage.workers = counts.workers;
            }
            self.begin_survey(now);
            return Look { decisions: Vec::new(), next: self.next(Duration::ZERO), survey: None };
        };
        let age = now.at.saturating_sub(began);
        self.heed_others(now);
        let survey = self.take_in(now, age);
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

    /// Whoever else has changed a number of workers is right.
    fn heed_others(&mut self, now: &Snapshot) {
        for (stage, counts) in self.stages.iter_mut().zip(&now.stages) {
            if counts.workers != stage.workers && counts.workers > 0 {
                stage.workers = counts.workers;
                stage.bounds = Bounds::fixed(counts.workers);
                self.experiment = None;
                self.blackout = Some(now.at + TICK_AT_FIRST);
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
        if self.blackout.is_some_and(|until| now.at < until) {
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
        if self.ticks < ticks {
            return false;
        }
        let is_enough = |(stage, seen): (&Stage, &Option<Estimate>)| {
            let Some(seen) = seen else { return true };
            let worth = if is_young { 12.0 } else { 12.0 + 3.0 * stage.workers as f64 };
            stage.bounds.is_fixed || seen.done >= worth
        };
        seconds >= patience || self.stages.iter().zip(estimates).all(is_enough)
    }

    fn survey(
        &mut self,
        now: &Snapshot,
        estimates: Vec<Option<Estimate>>,
        seconds: f64,
        age: Duration,
    ) -> Survey {
        let used = self.cores_used(now, seconds);
        let cores = self.cores;
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

    /// Updates what is known of each stage.
    fn learn(
        &mut self,
        now: &Snapshot,
        estimates: &[Option<Estimate>],
        seconds: f64,
        is_loaded: bool,
    ) {
        for (place, seen) in estimates.iter().enumerate() {
            let entered = |counts: &Counts| counts.entered as f64 + counts.depth as f64;
            let came = now.stages.get(place + 1).zip(self.open.stages.get(place + 1));
            let came = came.map_or(0.0, |(now, open)| entered(now) - entered(open));
            let stage = &mut self.stages[place];
            let Some(seen) = seen else { continue };
            stage.flow.into = stage.flow.into * 0.95 + seen.done;
            stage.flow.out = (stage.flow.out * 0.95 + came).max(0.0);
            // Few items say little, so more of the past is kept.
            let keep = if seen.done < 30.0 { 0.75 } else { 0.4 };
            stage.past.add(seen, keep);
            if !is_loaded {
                let wait =
                    stage.quiet_wait.map_or(seen.wait(), |quiet| 0.5 * (quiet + seen.wait()));
                stage.quiet_wait = Some(wait);
            } else if let Some(quiet) = &mut stage.quiet_wait {
                *quiet = quiet.min(seen.wait());
            }
            let is_known = now.stages[place].waiting_for_core.is_some() || !is_loaded;
            if stage.has_changed(now.at, seen) && is_known {
                stage.past = Sums::default();
                stage.past.add(seen, 0.0);
                stage.outside.forget(now.at);
                stage.worse = None;
                self.trim_every = Duration::from_secs(4);
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
        let all = self.stages.iter_mut().zip(estimates);
        all.map(|(stage, seen)| {
            if stage.bounds.is_fixed {
                return stage.workers;
            }
            let waits = seen.as_ref().is_some_and(|seen| seen.cpu_share() < 0.1);
            let factor = if waits && age < YOUNG / 2 { 4 } else { 2 };
            let mut limit = stage.bounds.most.min(stage.workers.saturating_mul(factor));
            if let Some((worse, until)) = stage.worse {
                if now.at < until {
                    limit = limit.min(worse.saturating_sub(1));
                } else {
                    stage.worse = None;
                }
            }
            let tiny = seen.as_ref().is_some_and(|seen| seen.service < TINY && seen.done > 100.0);
            if tiny || room == Some(0) || stage.outside.is_doubtful() {
                limit = limit.min(stage.workers);
            } else if let Some(room) = room {
                limit = limit.min(stage.workers + room);
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
        (each > 0)
            .then(|| usize::try_from((memory.budget - memory.used) / each).unwrap_or(usize::MAX))
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
        let service = match quiet.filter(|_| hides_queue) {
            // A busy machine would look like a slow server.
            Some(quiet) => seen.cpu + seen.wait().min(quiet),
            None => seen.service,
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

/// What a decision is made of.
struct View<'a> {
    now: &'a Snapshot,
    smooth: &'a [Option<Estimate>],
    limits: &'a [usize],
    solution: &'a Solution,
    cores: f64,
    age: Duration,
}

impl Controller {
    fn decide(&mut self, view: &View<'_>, survey: &Survey, seconds: f64) -> Vec<Decision> {
        let at = view.now.at;
        if let Some(decisions) = self.resolve(view, survey, seconds) {
            return decisions;
        }
        if let Some(decisions) = self.refused(at, survey) {
            return decisions;
        }
        let mut cut = Vec::new();
        for (place, stage) in self.stages.iter_mut().enumerate() {
            let Some(seen) = survey.estimates[place].as_ref() else { continue };
            let is_outside = seen.cpu_share() <= 0.7 && !stage.bounds.is_fixed;
            if is_outside && stage.outside.judge(at, seen.spread) {
                let to = stage.outside.limit(stage.workers);
                cut.push((place, to));
            }
        }
        if cut.iter().any(|&(place, to)| to < self.stages[place].workers) {
            return self.set(cut, Why::Full);
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
        self.experiment_with(view, survey, used)
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
        if let Some(before) = self.before_raise.take()
            && mean < before + 0.01
        {
            self.no_raise = (at + self.no_raise.1, (self.no_raise.1 * 2).min(6 * RAISE_AGAIN));
        }
        if self.is_used || at < self.no_raise.0 {
            return None;
        }
        while self.slack < MOST_SLACK {
            self.slack = (self.slack + 0.25).min(MOST_SLACK);
            let wanted = solve(&self.demands_again(view), view.cores, self.slack).workers;
            let more = wanted.into_iter().enumerate();
            let more = more.filter(|&(place, wanted)| wanted > self.stages[place].workers);
            let decisions = self.set(more.collect(), Why::Slack);
            if !decisions.is_empty() {
                self.before_raise = Some(mean);
                return Some(decisions);
            }
        }
        None
    }

    /// How much of what bounds the rate is used: of what is there, and of what may be.
    fn used(&self, view: &View<'_>, survey: &Survey) -> (f64, f64) {
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
            if refused && stage.outside.pushed_back(at, stage.workers, seen.in_service) {
                cut.push((place, stage.outside.limit(stage.workers)));
            }
        }
        (!cut.is_empty()).then(|| self.set(cut, Why::Refused))
    }

    /// Tries whether fewer workers do as well.
    fn experiment_with(&mut self, view: &View<'_>, survey: &Survey, used: f64) -> Vec<Decision> {
        let at = view.now.at;
        if view.age < YOUNG / 2 || self.experiment.is_some() {
            return Vec::new();
        }
        let is_loaded = survey.cores_used > 0.9 * survey.cores;
        for place in 0..self.stages.len() {
            let stage = &self.stages[place];
            let Some(seen) = survey.estimates[place].as_ref() else { continue };
            let hides = is_loaded && view.now.stages[place].waiting_for_core.is_none();
            let may = !stage.bounds.is_fixed
                && view.solution.bound == Bound::Stage(place)
                && stage.workers >= 4
                && seen.cpu_share() <= 0.5
                && seen.starved + seen.blocked < 0.1
                && !hides
                && stage.outside.wants_probe(at);
            if let Some((rate, done)) = stage.outside.rate_at(seen.in_service)
                && may
                && done >= 40.0
            {
                let before = stage.workers;
                self.experiment = Some(Experiment::Probe {
                    stage: place,
                    before,
                    rate,
                    seen: Estimate::default(),
                    seconds: 0.0,
                    until: at + Duration::from_secs(3),
                });
                return self.set(vec![(place, before * 3 / 4)], Why::Probe);
            }
        }
        let quiet = at.saturating_sub(self.steady_since) >= Duration::from_secs(2);
        let may_trim = self.is_used || at < self.no_raise.0;
        if quiet && may_trim && at >= self.trim_at && self.slack > LEAST_SLACK {
            let slack = self.slack;
            self.slack = (slack * 0.7).max(LEAST_SLACK);
            let solution = solve(&self.demands_again(view), view.cores, self.slack);
            let fewer: Vec<_> = (0..self.stages.len())
                .filter(|&place| !self.stages[place].bounds.is_fixed)
                .map(|place| (place, solution.workers[place].min(self.stages[place].workers)))
                .collect();
            let before = self.workers();
            let decisions = self.set(fewer, Why::Trim);
            self.trim_at = at + self.trim_every;
            if !decisions.is_empty() {
                self.experiment =
                    Some(Experiment::Trim { before, slack, used, seconds: 0.0, sum: 0.0 });
            }
            return decisions;
        }
        Vec::new()
    }

    fn demands_again(&self, view: &View<'_>) -> Vec<Demand> {
        let visits = self.visits();
        (0..self.stages.len())
            .map(|place| {
                let seen = view.smooth[place].as_ref();
                self.demand(place, seen, visits[place], view.limits[place], false)
            })
            .collect()
    }

    /// Ends the experiment under way if it has an outcome; `None` lets other decisions be made.
    fn resolve(&mut self, view: &View<'_>, survey: &Survey, seconds: f64) -> Option<Vec<Decision>> {
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
            Experiment::Probe { stage: place, before, rate, mut seen, seconds: so_far, until } => {
                let now = survey.estimates[place].unwrap_or_default();
                let total = so_far + seconds;
                seen.done += now.done;
                seen.in_service = (seen.in_service * so_far + now.in_service * seconds) / total;
                if seen.done < 150.0 && at < until {
                    let seconds = total;
                    self.experiment = Some(Experiment::Probe {
                        stage: place,
                        before,
                        rate,
                        seen,
                        seconds,
                        until,
                    });
                    return Some(Vec::new());
                }
                let is_full = seen.done / total > 0.94 * rate;
                let stage = &mut self.stages[place];
                stage.outside.probed(at, is_full, seen.in_service);
                if is_full {
                    return None;
                }
                Some(self.set(vec![(place, before)], Why::NoProbe))
            }
            Experiment::Trim { before, slack, used, seconds: so_far, sum } => {
                let (now, _) = self.used(view, survey);
                let (total, sum) = (so_far + seconds, sum + now * seconds);
                if total < 1.0 {
                    let seconds = total;
                    self.experiment = Some(Experiment::Trim { before, slack, used, seconds, sum });
                    return Some(Vec::new());
                }
                if sum / total >= used.min(CORES_SATURATED) - 0.01 {
                    self.trim_every = Duration::from_secs(4);
                    return None;
                }
                self.slack = slack;
                self.trim_every = (self.trim_every * 2).min(Duration::from_secs(30));
                self.trim_at = at + self.trim_every;
                Some(self.set(before.into_iter().enumerate().collect(), Why::NoTrim))
            }
        }
    }

    /// Makes decisions of those numbers that are new.
    fn set(&self, wanted: Vec<(usize, usize)>, why: Why) -> Vec<Decision> {
        let differs = |&(place, to): &(usize, usize)| {
            let stage = &self.stages[place];
            !stage.bounds.is_fixed && to != stage.workers && to > 0
        };
        let wanted = wanted.into_iter().filter(differs);
        wanted
            .map(|(stage, to)| Decision { stage, from: self.stages[stage].workers, to, why })
            .collect()
    }

    fn apply(&mut self, decisions: &[Decision], now: &Snapshot, age: Duration) {
        for decision in decisions {
            let stage = &mut self.stages[decision.stage];
            stage.workers = decision.to;
            stage.idle = None;
            stage.base = None;
            stage.changed_since = None;
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
