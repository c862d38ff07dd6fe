//! What a stage waits for may refuse: "come back later".
//!
//! Then fewer ask, at once and for all refusals of one moment. What is of use
//! lies between the most that were not refused and the fewest that were: the
//! cap goes half of the way back up, second by second, until little is left
//! between the two.

use std::time::Duration;

/// Cuts are vain if this part of the workers is left, and refusals are no rarer than this part
/// of what they were. Then they are not heeded for a while.
const VAIN: (f64, f64) = (0.6, 0.7);

/// For how long.
const DEAF: Duration = Duration::from_secs(60);

/// Refusals after a quiet time this long are new ones.
const NEW: Duration = Duration::from_secs(3);

/// Refusals within this time are of attempts made before the cut.
const SAME_MOMENT: Duration = Duration::from_millis(500);

/// How long nobody must have been refused before more may ask.
const QUIET: Duration = Duration::from_secs(1);

/// A row of cuts, without a quiet time between.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// The workers before the first cut, and refusals for each attempt that was not refused.
    workers: usize,
    odds: f64,
}

/// What to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nothing: it is about attempts made before the last cut, or not heeded.
    Nothing,
    /// No more than so many may ask.
    Cut(usize),
    /// Fewer do not help: let all ask as before.
    GiveUp,
}

/// What is known of the refusals of a stage's outside.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusals {
    row: Option<Row>,
    /// When it was last refused, and when more were last let ask.
    refused: Duration,
    stepped: Duration,
    /// The most that were not refused, and the fewest that were.
    good: usize,
    bad: Option<usize>,
    deaf_until: Duration,
}

impl Refusals {
    /// Takes in that the part `refused` of the attempts of so many workers was refused while
    /// `in_service` were in service.
    pub(super) fn heed(
        &mut self,
        at: Duration,
        workers: usize,
        in_service: f64,
        refused: f64,
    ) -> Answer {
        let since = at.saturating_sub(self.refused);
        if at < self.deaf_until || (self.bad.is_some() && since < SAME_MOMENT) {
            return Answer::Nothing;
        }
        // Not the part of the attempts: where all but a few are refused it hardly falls.
        let odds = refused / (1.0 - refused).max(1e-9);
        let row = self.row.filter(|_| since < NEW).unwrap_or(Row { workers, odds });
        if workers as f64 <= VAIN.0 * row.workers as f64 && odds > VAIN.1 * row.odds {
            // It refuses some however few ask: that is how it is, and no reason to starve.
            *self = Self { deaf_until: at + DEAF, ..Self::default() };
            return Answer::GiveUp;
        }
        (self.row, self.refused, self.stepped) = (Some(row), at, at);
        self.bad = Some(self.bad.map_or(workers, |bad| bad.min(workers)));
        if self.good >= workers {
            self.good = 0;
        }
        // Who is refused and asks again at once is in service too, who waits for that is not: the
        // middle of what either would say.
        let taken = 0.5 * (in_service + workers as f64 * (1.0 - refused));
        let left = taken.clamp(0.5 * workers as f64, 0.9 * workers as f64).floor() as usize;
        Answer::Cut(if self.good > 0 { self.good } else { left.max(1) })
    }

    /// Whether what is refused sets the number of those who ask.
    pub(super) fn are_heeded(&self) -> bool {
        self.bad.is_some()
    }

    /// The fewest that were refused.
    pub(super) fn fewest(&self) -> Option<usize> {
        self.bad
    }

    /// So many asked and nobody was refused, if it was so for long enough.
    pub(super) fn hold(&mut self, at: Duration, cap: usize) {
        let is_quiet = at.saturating_sub(self.stepped) >= QUIET;
        if is_quiet && self.bad.is_some_and(|bad| cap < bad) {
            self.good = self.good.max(cap);
        }
    }

    /// How many may ask instead of `cap`, if nobody was refused for long enough.
    pub(super) fn step_up(&mut self, at: Duration, cap: usize) -> Option<usize> {
        let bad = self.bad?;
        if at.saturating_sub(self.stepped) < QUIET {
            return None;
        }
        self.hold(at, cap);
        let gap = bad.saturating_sub(cap);
        if gap <= 1 || gap as f64 <= 0.15 * cap as f64 {
            return None;
        }
        self.stepped = at;
        Some(cap + gap / 2)
    }

    /// What was refused may be taken now.
    pub(super) fn forget(&mut self) {
        *self = Self { deaf_until: self.deaf_until, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn refusals_that_cuts_do_not_make_rarer_are_not_heeded() {
        let (mut refusals, mut workers) = (Refusals::default(), 32);
        for half in 2..40 {
            match refusals.heed(SECOND / 2 * half, workers, 30.0, 0.05) {
                Answer::Cut(left) => workers = left,
                Answer::GiveUp => {
                    assert!((16..=19).contains(&workers), "{workers}");
                    let again = refusals.heed(SECOND * 30, 32, 30.0, 0.5);
                    assert_eq!(again, Answer::Nothing, "it is deaf for a while");
                    return;
                }
                Answer::Nothing => {}
            }
        }
        panic!("it went on with {workers}");
    }

    #[test]
    fn a_server_that_refuses_above_some_is_left_about_so_many_from_any_number() {
        for (room, workers) in
            [(2_usize, 3_usize), (2, 4), (2, 16), (2, 400), (10, 12), (10, 64), (1, 4)]
        {
            let (mut refusals, mut left) = (Refusals::default(), workers);
            for half in 2..60 {
                let at = SECOND / 2 * half;
                // Whoever is refused asks again at once, twenty times while one is served.
                let refused = 20.0 * left.saturating_sub(room) as f64;
                let share = refused / (refused + left.min(room) as f64);
                if share > 0.02 {
                    if let Answer::Cut(fewer) = refusals.heed(at, left, left as f64, share) {
                        assert!(fewer < left, "{fewer} of {left}");
                        left = fewer;
                    }
                } else if let Some(more) = refusals.step_up(at, left) {
                    left = more;
                }
            }
            assert!((room.div_ceil(2)..=room + 1).contains(&left), "{left} of {workers}, {room}");
        }
    }

    #[test]
    fn a_refusal_cuts_once_a_moment_and_no_more_than_half() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.heed(SECOND, 16, 10.0, 0.3), Answer::Cut(10));
        assert_eq!(refusals.heed(SECOND + SECOND / 10, 10, 10.0, 0.3), Answer::Nothing);
        assert_eq!(refusals.heed(2 * SECOND, 11, 1.0, 0.9), Answer::Cut(5));
        assert_eq!(refusals.heed(3 * SECOND, 1, 1.0, 0.1), Answer::Cut(1), "one is the fewest");
    }
}
