//! How the workers of a stage spend their time, where one loop has many.
//!
//! The loop says what they are at whenever that changes, and whoever looks
//! adds up: so an item still in hand counts for as long as it has been.

use std::{sync::Mutex, time::Duration};

use crate::sync::lock;

/// How many workers are at what. One that takes several items at once is at
/// work by the part of them that it has.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Shares {
    /// At work.
    pub(crate) busy: f64,
    /// Without an item.
    pub(crate) idle: f64,
    /// Waiting for room behind them.
    pub(crate) blocked: f64,
    /// Added to those that there were, and not yet able to begin.
    pub(crate) starting: usize,
}

/// The sums over time of [`Shares`].
#[derive(Debug, Default)]
pub(crate) struct Attendance(Mutex<Sums>);

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    at: Duration,
    now: Shares,
    /// Seconds.
    past: [f64; 3],
}

impl Sums {
    fn go_on(&mut self, at: Duration) {
        let seconds = at.saturating_sub(self.at).as_secs_f64();
        let Shares { busy, idle, blocked, .. } = self.now;
        for (sum, share) in self.past.iter_mut().zip([busy, idle, blocked]) {
            *sum += share * seconds;
        }
        self.at = self.at.max(at);
    }
}

impl Attendance {
    /// Says what the workers are at from now on.
    pub(crate) fn note(&self, at: Duration, shares: Shares) {
        let mut sums = lock(&self.0);
        sums.go_on(at);
        sums.now = shares;
    }

    /// Says what has changed for the workers of one loop of several.
    pub(crate) fn change(&self, at: Duration, before: Shares, after: Shares) {
        let mut sums = lock(&self.0);
        sums.go_on(at);
        sums.now.busy += after.busy - before.busy;
        sums.now.idle += after.idle - before.idle;
        sums.now.blocked += after.blocked - before.blocked;
        sums.now.starting = sums.now.starting + after.starting - before.starting;
    }

    /// The times up to `at` that workers were busy, idle and blocked, and how many are starting.
    pub(crate) fn look(&self, at: Duration) -> ([Duration; 3], usize) {
        let mut sums = *lock(&self.0);
        sums.go_on(at);
        (sums.past.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))), sums.now.starting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_counts_up_to_the_look_and_parts_of_workers_count_in_part() {
        let attendance = Attendance::default();
        let second = Duration::from_secs(1);
        attendance.note(second, Shares { busy: 1.5, idle: 0.5, ..Shares::default() });
        assert_eq!(attendance.look(3 * second).0, [3 * second, second, Duration::ZERO]);
        attendance.note(3 * second, Shares { blocked: 2.0, starting: 1, ..Shares::default() });
        assert_eq!(attendance.look(4 * second), ([3 * second, second, 2 * second], 1));
        // A clock that was read before the lock was taken.
        assert_eq!(attendance.look(2 * second).0[0], 3 * second);
    }

    #[test]
    fn each_loop_of_several_counts_for_as_long_as_it_waits() {
        let attendance = Attendance::default();
        let second = Duration::from_secs(1);
        let none = Shares::default();
        let [three, two] = [3.0, 2.0].map(|idle| Shares { idle, ..none });
        attendance.change(second, none, three);
        attendance.change(2 * second, none, two);
        assert_eq!(attendance.look(3 * second).0[1], (3 + 5) * second);
        attendance.change(3 * second, three, Shares { blocked: 1.0, ..none });
        attendance.change(4 * second, two, none);
        let idle = (3 + 5 + 2) * second;
        assert_eq!(attendance.look(5 * second).0, [Duration::ZERO, idle, 2 * second]);
    }
}
