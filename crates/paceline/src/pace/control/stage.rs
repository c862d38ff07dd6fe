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
    /// Fewer workers for one stage, or more than its cap.
    Look(Look),
    /// Less slack.
    Trim { before: Vec<usize>, slack: f64, used: f64, seconds: f64, sum: f64 },
}

/// What was before a look with other workers, and what it has seen so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) stage: usize,
    pub(super) before: usize,
    /// Items a second before, and over how many of them.
    pub(super) rate: (f64, f64),
    pub(super) done: f64,
    /// The sum of those in service over time.
    pub(super) in_service: f64,
    pub(super) seconds: f64,
    pub(super) until: Duration,
}

/// When something may be tried: one thing at a time, and twice as late after each that came to
/// nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tries {
    pub(super) at: Duration,
    every: Duration,
    /// Which of the things that can be tried comes first.
    pub(super) turn: usize,
}

impl Tries {
    const FIRST: Duration = Duration::from_secs(3);
    const RAREST: Duration = Duration::from_secs(30);

    pub(super) const fn new(at: Duration, turn: usize) -> Self {
        Self { at, every: Self::FIRST, turn }
    }

    /// Something was tried, and it was worth it or not.
    pub(super) fn note(&mut self, now: Duration, was_worth_it: bool) {
        let longer = if was_worth_it { 1.5 } else { 2.0 };
        self.every = self.every.mul_f64(longer).min(Self::RAREST);
        self.at = now + self.every;
    }
}

/// Items after which it is known well enough what a stage is like.
const SURE: f64 = 150.0;

/// What differs by this part is something else, and by so many standard errors it is no chance.
const DIFFERS: f64 = 0.25;
const BEYOND: f64 = 3.5;

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
    pub(super) base: Option<Estimate>,
    /// What it was like before that change.
    former: Option<Estimate>,
    changed_since: Option<Duration>,
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
            former: None,
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

    /// The workers are others from now on.
    pub(super) fn moved(&mut self) {
        let known = self.base.take().filter(|base| base.done >= SURE);
        self.former = known.or(self.former);
        self.changed_since = None;
    }

    /// The time in service before, if its work has changed by itself: for most of a second with
    /// the same workers, or at once if it is far beyond chance and what more workers explain.
    pub(super) fn has_changed(&mut self, at: Duration, now: &Estimate) -> Option<f64> {
        if now.done < 20.0 {
            return None;
        }
        let known = self.base.filter(|base| base.done >= SURE);
        if let Some(base) = known.or(self.former)
            && is_inexplicable(&base, now)
        {
            return Some(base.service);
        }
        let Some(base) = &mut self.base else {
            self.base = Some(*now);
            return None;
        };
        if base.done < SURE {
            // What a survey alone says is too far off to be held against all that come.
            let sum = base.done + now.done;
            let mean = |a: f64, b: f64| (a * base.done + b * now.done) / sum;
            *base = Estimate {
                done: sum,
                cpu: mean(base.cpu, now.cpu),
                service: mean(base.service, now.service),
                spread: mean(base.spread, now.spread),
                in_service: mean(base.in_service, now.in_service),
                ..*base
            };
            return None;
        }
        let differs = |a: f64, b: f64| (a - b).abs() > DIFFERS * b.max(0.02 * base.service);
        if !differs(now.cpu, base.cpu) && !differs(now.wait(), base.wait()) {
            self.changed_since = None;
            return None;
        }
        if now.done < 30.0 * (1.0 + now.spread * now.spread) {
            return None;
        }
        let since = *self.changed_since.get_or_insert(at);
        (at.saturating_sub(since) >= Duration::from_millis(800)).then_some(base.service)
    }

    /// All that was known of its work is of another time.
    pub(super) fn forget(&mut self) {
        self.past = Sums::default();
        (self.base, self.former, self.changed_since, self.worse) = (None, None, None, None);
    }
}

/// Whether items wait longer than before by more than chance and their number can explain: where
/// all is full it grows with the number, and where crowding slows all down at most with its square.
fn is_inexplicable(before: &Estimate, now: &Estimate) -> bool {
    let crowd = (now.in_service / before.in_service.max(1e-9)).max(1.0).powi(2);
    let most = before.wait() * crowd;
    // At a full server they wait for the same others: their spread says too little.
    let chance = (1.0 / before.done + 1.0 / now.done).sqrt() * before.spread.max(1.0);
    now.wait() > most + f64::max(DIFFERS, BEYOND * chance) * before.service * crowd
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(service: f64, in_service: f64) -> Estimate {
        Estimate { service, in_service, done: 100.0, spread: 0.6, ..Estimate::default() }
    }

    /// A stage that is known well at 20 in service of 30 ms, and then got more workers.
    fn grown() -> Stage {
        let mut stage = Stage::new(Bounds::io());
        for tenth in 0..3 {
            let at = Duration::from_millis(100 * tenth);
            assert_eq!(stage.has_changed(at, &seen(0.030, 20.0)), None);
        }
        stage.moved();
        stage
    }

    #[test]
    fn items_that_take_longer_than_more_workers_explain_show_a_change_after_a_move_too() {
        let at = Duration::from_millis(400);
        assert_eq!(grown().has_changed(at, &seen(0.090, 26.0)), Some(0.030));
        // At a full server each waits as much longer as there are more, at a crowded one more so.
        assert_eq!(grown().has_changed(at, &seen(0.060, 40.0)), None);
        assert_eq!(grown().has_changed(at, &seen(0.120, 40.0)), None);
    }

    #[test]
    fn what_was_tried_in_vain_is_tried_later_and_later() {
        let (mut now, mut waits) = (Duration::ZERO, Vec::new());
        let mut tries = Tries::new(now, 0);
        for _ in 0..6 {
            tries.note(now, false);
            waits.push((tries.at - now).as_secs());
            now = tries.at;
        }
        assert_eq!(waits, [6, 12, 24, 30, 30, 30]);
    }
}
