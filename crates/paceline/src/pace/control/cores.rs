//! The cores that a run really gets.
//!
//! It may be told of more than it gets: others compute too, or a quota holds
//! it back. Both show in the same way: work of ours is ready to run, more
//! than there are cores, and yet not all of them are ours. They differ in
//! what more workers do. Beside others these get more of the cores; under a
//! quota they only wait for each other, and what was got is all there is.

use std::time::Duration;

/// So much must be ready for each core, and so little of it at work.
const READY: f64 = 1.1;
const AT_WORK: f64 = 0.92;

/// Of how much more that is ready, at least, more cores are expected; and what part of it.
const MORE: f64 = 1.2;
const GAINS: f64 = 0.3;

/// How long it holds that there are no more, at first and at last.
const HOLDS: Duration = Duration::from_secs(20);
const HOLDS_AT_MOST: Duration = Duration::from_secs(160);

#[derive(Clone, Copy, Debug)]
pub(super) struct Cores {
    told: f64,
    /// Surveys in a row that were short of cores.
    short: u32,
    /// What was ready and what was at work when it was first so.
    base: Option<(f64, f64)>,
    /// All that is got, and until when that counts.
    most: Option<(f64, Duration)>,
    holds: Duration,
}

impl Cores {
    pub(super) fn new(told: f64) -> Self {
        let told = if told.is_finite() { told.max(0.01) } else { 1.0 };
        Self { told, short: 0, base: None, most: None, holds: HOLDS }
    }

    /// There are so many now.
    pub(super) fn tell(&mut self, told: f64) {
        if told.is_finite() && told > 0.0 && (told - self.told).abs() > 0.01 {
            *self = Self::new(told);
        }
    }

    /// Takes in how much was at work, and how much had no core though it was ready.
    pub(super) fn note(&mut self, at: Duration, at_work: f64, without: f64) {
        let ready = at_work + without;
        if !ready.is_finite() {
            return;
        }
        if let Some((_, until)) = self.most {
            if at < until {
                return;
            }
            (self.most, self.base) = (None, None);
        }
        if ready < READY * self.told || at_work > AT_WORK * self.told {
            self.short = 0;
            return;
        }
        self.short += 1;
        if self.short < 2 {
            return;
        }
        let (ready_then, at_work_then) = *self.base.get_or_insert((ready, at_work));
        let grown = ready / ready_then;
        if grown < MORE {
            return;
        }
        if (at_work / at_work_then).ln() < GAINS * grown.ln() {
            self.most = Some((at_work.max(0.01), at + self.holds));
            self.holds = (self.holds * 2).min(HOLDS_AT_MOST);
        }
        self.base = Some((ready, at_work));
    }

    /// The cores that may be counted on.
    pub(super) fn count(&self) -> f64 {
        self.most.map_or(self.told, |(most, _)| most.min(self.told))
    }

    /// Whether others have some of them, so that it takes workers to get more.
    pub(super) fn are_shared(&self) -> bool {
        self.short >= 2 && self.most.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_quota_shows_when_more_that_is_ready_gets_no_more() {
        let mut cores = Cores::new(8.0);
        for (second, ready) in [9.0, 9.0, 11.0].into_iter().enumerate() {
            cores.note(SECOND * second as u32, 6.0, ready - 6.0);
        }
        assert_eq!((cores.count(), cores.are_shared()), (6.0, false));
        cores.note(30 * SECOND, 6.0, 1.0);
        assert_eq!(cores.count(), 8.0, "it is looked at again later");
    }

    #[test]
    fn beside_others_more_that_is_ready_gets_more() {
        let mut cores = Cores::new(8.0);
        for (second, ready) in [9.0, 9.0, 12.0, 16.0].into_iter().enumerate() {
            let at_work = 8.0 * ready / (ready + 8.0);
            cores.note(SECOND * second as u32, at_work, ready - at_work);
        }
        assert_eq!((cores.count(), cores.are_shared()), (8.0, true));
        cores.note(9 * SECOND, 7.9, 8.1);
        assert!(!cores.are_shared(), "the others have gone");
    }

    #[test]
    fn what_is_told_anew_counts_and_nonsense_does_not() {
        let mut cores = Cores::new(8.0);
        cores.tell(f64::NAN);
        cores.tell(-1.0);
        assert_eq!(cores.count(), 8.0);
        cores.tell(1.5);
        assert_eq!(cores.count(), 1.5);
        assert_eq!(Cores::new(f64::NAN).count(), 1.0);
    }
}
