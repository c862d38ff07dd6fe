//! When an item whose attempt failed gets another one.
//!
//! A rule without a world: the stage asks it how long to wait, and does the
//! waiting. Not here: which failures are worth a retry (a permanent
//! [`Fault`](crate::Fault) is not).

use std::time::Duration;

/// How often and how late a stage tries an item again.
///
/// ```
/// use std::time::Duration;
/// use paceline::Retry;
///
/// let retry = Retry::times(3).backoff(Duration::from_millis(200)).jitter(false);
/// assert_eq!(retry.delay_before(2, 1.0), Some(Duration::from_millis(200)));
/// assert_eq!(retry.delay_before(3, 1.0), Some(Duration::from_millis(400)));
/// assert_eq!(retry.delay_before(5, 1.0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    times: u32,
    backoff: Duration,
    factor: f64,
    max: Option<Duration>,
    jitter: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self::never()
    }
}

impl Retry {
    /// No further attempt after the first.
    pub const fn never() -> Self {
        Self::times(0)
    }

    /// `times` extra attempts after the first, at once.
    pub const fn times(times: u32) -> Self {
        Self { times, backoff: Duration::ZERO, factor: 2.0, max: None, jitter: true }
    }

    /// Waits this long before the first extra attempt, and longer before each further one.
    #[must_use]
    pub const fn backoff(mut self, backoff: Duration) -> Self {
        self.backoff = backoff;
        self
    }

    /// Multiplies the wait by this from one retry to the next; 2 unless said.
    ///
    /// # Panics
    ///
    /// If `factor` is not a finite number of at least 1.
    #[must_use]
    pub const fn factor(mut self, factor: f64) -> Self {
        assert!(factor.is_finite() && factor >= 1.0, "a retry's factor is a number of at least 1");
        self.factor = factor;
        self
    }

    /// Never waits longer than this before jitter; no limit unless said.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = Some(max);
        self
    }

    /// Whether each wait is drawn between half and one and a half times its length; yes unless said.
    #[must_use]
    pub const fn jitter(mut self, jitter: bool) -> Self {
        self.jitter = jitter;
        self
    }

    /// Returns whether there is any extra attempt.
    pub const fn is_never(&self) -> bool {
        self.times == 0
    }

    /// Returns how long to wait before try number `attempt`, or `None` if the
    /// item has had all its tries.
    ///
    /// Tries count from 1, so `attempt` is 2 for the first retry. `fraction`
    /// is a random number in `0.5..=1.5`; the wait is that part of the
    /// nominal one, so that items that failed together do not come back
    /// together. It has no effect without jitter.
    ///
    /// Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture
    /// Blog, 2015.
    pub fn delay_before(&self, attempt: u32, fraction: f64) -> Option<Duration> {
        if attempt < 2 || attempt > self.times.saturating_add(1) {
            return None;
        }
        let grown = self.backoff.as_secs_f64() * self.factor.powi((attempt - 2).min(1_000) as i32);
        let nominal = self.max.map_or(grown, |max| grown.min(max.as_secs_f64()));
        let drawn = if self.jitter { nominal * fraction } else { nominal };
        // A wait that no clock can hold is as good as the longest that it can.
        Some(Duration::try_from_secs_f64(drawn).unwrap_or(Duration::from_secs(u32::MAX.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_try_is_no_retry() {
        assert_eq!(Retry::times(3).delay_before(1, 1.0), None);
    }

    #[test]
    fn waits_double_until_the_limit() {
        let retry = Retry::times(10).backoff(SECOND).max(5 * SECOND).jitter(false);
        let waits: Vec<_> = (2..7).map(|n| retry.delay_before(n, 1.0).unwrap().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 5, 5]);
    }

    #[test]
    fn jitter_draws_between_half_and_one_and_a_half() {
        let retry = Retry::times(1).backoff(SECOND);
        assert_eq!(retry.delay_before(2, 0.5), Some(SECOND / 2));
        assert_eq!(retry.delay_before(2, 1.5), Some(SECOND * 3 / 2));
    }

    #[test]
    fn a_wait_beyond_every_clock_is_cut_and_not_a_panic() {
        let retry = Retry::times(u32::MAX).backoff(SECOND).factor(1e300);
        assert!(retry.delay_before(u32::MAX, 1.5).is_some());
    }
}
