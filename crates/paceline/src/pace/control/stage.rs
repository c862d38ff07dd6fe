//! What the controller keeps of each stage, and of what it tries.

use std::time::Duration;

use super::super::{decision::Bounds, measure::Estimate, outside::Outside, verify::Rates};

/// What is under way to see what it does; never two at once.
#[derive(Clone, Debug)]
pub(super) enum Experiment {
    /// After a growth: the workers and the rates before.
    Grown { before: Vec<usize>, rates: Rates },
    /// After a growth was taken back: the rates that it had.
    Reverted { rates: Rates },
    /// Fewer workers for one stage.
    Probe { stage: usize, before: usize, rate: f64, seen: Estimate, seconds: f64, until: Duration },
    /// Less slack.
    Trim { before: Vec<usize>, slack: f64, used: f64, seconds: f64, sum: f64 },
}

/// Items after which it is known well enough what a stage is like.
const SURE: f64 = 150.0;

#[derive(Clone, Debug)]
pub(super) struct Stage {
    pub(super) bounds: Bounds,
    pub(super) workers: usize,
    /// The recent past, fading.
    pub(super) past: Sums,
    /// Items that came out for one that went in.
    pub(super) flow: Flow,
    pub(super) outside: Outside,
    /// Since when and how often fewer would have done, and the most that was wanted meanwhile.
    pub(super) idle: Option<(Duration, u32, usize)>,
    /// The wait of an item when the cores were not busy.
    pub(super) quiet_wait: Option<f64>,
    /// What it was like after its last change; the base for "has changed by itself".
    pub(super) base: Option<(Estimate, Duration)>,
    pub(super) changed_since: Option<Duration>,
    /// A number that was tried and surely worse, and until when that counts.
    pub(super) worse: Option<(usize, Duration)>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) items: f64,
    pub(super) done: f64,
    pub(super) service: f64,
    pub(super) cpu: f64,
    pub(super) queued: f64,
    pub(super) squares: f64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    pub(super) into: f64,
    pub(super) out: f64,
}

impl Sums {
    /// Adds a survey, and lets the past fade to `keep` of itself.
    pub(super) fn add(&mut self, seen: &Estimate, keep: f64) {
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

    pub(super) fn estimate(&self, seen: &Estimate) -> Estimate {
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
    pub(super) fn new(bounds: Bounds) -> Self {
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
    pub(super) fn gain(&self) -> f64 {
        if self.flow.into < 1.0 {
            return 1.0;
        }
        let gain = self.flow.out / self.flow.into;
        // What is still inside blurs the count; most stages give one for one.
        if (gain - 1.0).abs() < 0.03 { 1.0 } else { gain }
    }

    /// What part of the rate it has with the same workers, if its work has changed though they
    /// have not: for most of a second, by more than chance explains.
    pub(super) fn has_changed(&mut self, at: Duration, now: &Estimate) -> Option<f64> {
        let enough = 30.0 * (1.0 + now.spread * now.spread);
        if now.done < enough {
            return None;
        }
        let Some((base, _)) = &mut self.base else {
            self.base = Some((*now, at));
            return None;
        };
        if base.done < SURE {
            // What a survey alone says is too far off to be held against all that come.
            let sum = base.done + now.done;
            let mean = |a: f64, b: f64| (a * base.done + b * now.done) / sum;
            let (cpu, service) = (mean(base.cpu, now.cpu), mean(base.service, now.service));
            *base = Estimate { done: sum, cpu, service, ..*base };
            return None;
        }
        let differs = |a: f64, b: f64| (a - b).abs() > 0.25 * b.max(0.02 * base.service);
        if !differs(now.cpu, base.cpu) && !differs(now.wait(), base.wait()) {
            self.changed_since = None;
            return None;
        }
        let since = *self.changed_since.get_or_insert(at);
        if at.saturating_sub(since) < Duration::from_millis(800) {
            return None;
        }
        let part = base.service / now.service;
        self.changed_since = None;
        self.base = Some((*now, at));
        Some(part)
    }
}
