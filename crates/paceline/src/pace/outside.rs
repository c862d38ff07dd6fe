//! What a stage waits for may be full: a server, a disk, a lock.
//!
//! More workers then only wait longer. Whether that is so shows in the rate
//! at several numbers in service: its elasticity is 1 where there is room, 0
//! at a full server, and below 0 where crowding slows it down. A stage that
//! gains nothing gets a cap, for a while: what was full may have room again.

use std::time::Duration;

use super::measure::Estimate;

/// Numbers in service this near to each other count as one.
const SAME: f64 = 0.15;

/// What was seen longer ago counts no more.
const FORGOTTEN: Duration = Duration::from_secs(20);

/// Below this elasticity, further workers gain nothing.
const FLAT: f64 = 0.15;

/// Above it, further workers are worth it.
const GAINS: f64 = 0.4;

/// How sure one must be: elasticity and its standard error stay below this.
const SURELY_FLAT: f64 = 0.55;

/// How long the first cap holds; each further one twice as long.
const LIFE: Duration = Duration::from_secs(4);
const LONGEST_LIFE: Duration = Duration::from_secs(60);

/// How long a cap is lifted for a look whether there is room again.
const TRIAL: Duration = Duration::from_secs(2);

/// After so many cuts that did not make refusals rarer, they are not heeded for a while.
const VAIN_CUTS: u32 = 3;

/// How often, at first and at last, workers are taken away to see whether that costs anything.
const PROBE_AFTER: Duration = Duration::from_secs(3);
const PROBE_AT_MOST: Duration = Duration::from_secs(30);

/// The rate at about one number in service.
#[derive(Clone, Copy, Debug)]
struct Cell {
    in_service: f64,
    done: f64,
    seconds: f64,
    at: Duration,
}

impl Cell {
    fn rate(&self) -> f64 {
        self.done / self.seconds
    }
}

#[derive(Clone, Copy, Debug)]
struct Cap {
    most: f64,
    until: Duration,
    /// Until when it is lifted for a look.
    trial: Option<Duration>,
}

/// What is known of a stage's outside.
#[derive(Clone, Debug)]
pub(super) struct Outside {
    cells: Vec<Cell>,
    cap: Option<Cap>,
    life: Duration,
    probe_at: Duration,
    probe_every: Duration,
    /// When it was cut since it was refused, and what part of the attempts had been.
    cut: Option<(Duration, f64)>,
    /// How often in a row a cut has not made refusals rarer.
    vain_cuts: u32,
    /// Until when refusals are not heeded: fewer workers do not make them rarer.
    deaf_until: Duration,
    /// Surveys in a row whose rate is not what it was at this number in service.
    strange: u32,
}

impl Default for Outside {
    fn default() -> Self {
        Self {
            cells: Vec::new(),
            cap: None,
            life: LIFE,
            probe_at: PROBE_AFTER,
            probe_every: PROBE_AFTER,
            cut: None,
            vain_cuts: 0,
            deaf_until: Duration::ZERO,
            strange: 0,
        }
    }
}

impl Outside {
    /// Takes in what a survey saw.
    pub(super) fn note(&mut self, at: Duration, estimate: &Estimate, seconds: f64) {
        self.cells.retain(|cell| at.saturating_sub(cell.at) < FORGOTTEN);
        let seen = Cell { in_service: estimate.in_service, done: estimate.done, seconds, at };
        let is_same = |cell: &&mut Cell| {
            (cell.in_service - seen.in_service).abs() <= SAME * cell.in_service.max(seen.in_service)
        };
        match self.cells.iter_mut().find(is_same) {
            None => self.cells.push(seen),
            Some(cell) => {
                let enough = seen.done >= 30.0 * (1.0 + estimate.spread * estimate.spread);
                let differs = (seen.rate() / cell.rate()).ln().abs() > 0.3;
                self.strange = if enough && differs { self.strange + 1 } else { 0 };
                if self.strange >= 2 {
                    self.forget(at);
                    self.cells.push(seen);
                    return;
                }
                // The latest counts most, so that a slow drift is followed.
                let (old, total) = (cell.seconds.min(4.0), cell.seconds.min(4.0) + seconds);
                cell.in_service = (cell.in_service * old + seen.in_service * seconds) / total;
                cell.done = cell.rate() * old + seen.done;
                cell.seconds = total;
                cell.at = at;
            }
        }
    }

    /// Forgets all: what is outside has changed.
    pub(super) fn forget(&mut self, at: Duration) {
        self.cells.clear();
        self.cap = None;
        self.life = LIFE;
        self.strange = 0;
        self.probe_every = PROBE_AFTER;
        self.probe_at = at;
    }

    /// Returns the most workers that are of use, and `wanted` or fewer.
    pub(super) fn limit(&self, wanted: usize) -> usize {
        match &self.cap {
            None => wanted,
            Some(cap) => {
                let most = if cap.trial.is_some() { 1.35 * cap.most + 1.0 } else { cap.most };
                wanted.min((most.round() as usize).max(1))
            }
        }
    }

    pub(super) fn is_capped(&self) -> bool {
        self.cap.is_some()
    }

    /// Judges by what was seen whether there is room outside; true if it sets a new cap.
    pub(super) fn judge(&mut self, at: Duration, spread: f64) -> bool {
        match self.cap {
            Some(cap) if cap.trial.is_none() && at >= cap.until => {
                self.cap = Some(Cap { trial: Some(at + TRIAL), ..cap });
                // Only what is seen from now on tells whether there is room now.
                self.cells.retain(|cell| cell.in_service <= cap.most * (1.0 + SAME));
                false
            }
            Some(Cap { trial: Some(trial), most, .. }) if at >= trial => {
                if self.elasticity(20.0).is_some_and(|(gain, _)| gain > GAINS)
                    && self.cells.iter().any(|cell| cell.in_service > most * (1.0 + SAME))
                {
                    self.cap = None;
                    self.life = LIFE;
                } else {
                    self.cells.retain(|cell| cell.in_service <= most * (1.0 + SAME));
                    self.cap_at(at, most);
                }
                false
            }
            Some(_) => false,
            None => match self.knee(spread) {
                Some(knee) => {
                    self.cap_at(at, 1.08 * knee + 1.0);
                    true
                }
                None => false,
            },
        }
    }

    /// Lets no more than `most` be in service for a while.
    pub(super) fn cap_at(&mut self, at: Duration, most: f64) {
        self.cap = Some(Cap { most, until: at + self.life, trial: None });
        self.life = (self.life * 2).min(LONGEST_LIFE);
    }

    /// Whether the last growth gained so little that the next has to wait for more evidence.
    pub(super) fn is_doubtful(&self) -> bool {
        self.elasticity(5.0).is_some_and(|(gain, _)| gain < GAINS)
    }

    /// Cuts what the outside has refused, once for all refusals of one moment,
    /// to what it had taken: `in_service` of `workers`.
    pub(super) fn pushed_back(&mut self, at: Duration, workers: usize, seen: &Estimate) -> bool {
        let Estimate { in_service, pushback, .. } = *seen;
        if at < self.deaf_until {
            return false;
        }
        if let Some((cut, before)) = self.cut {
            if at.saturating_sub(cut) < Duration::from_millis(500) {
                return false;
            }
            let is_vain = at.saturating_sub(cut) < LIFE * 3 / 4 && pushback > 0.7 * before;
            self.vain_cuts = if is_vain { self.vain_cuts + 1 } else { 0 };
        }
        if self.vain_cuts >= VAIN_CUTS {
            // It refuses some however few ask: that is how it is, and no reason to starve.
            self.forget(at);
            (self.vain_cuts, self.cut) = (0, None);
            self.deaf_until = at + LONGEST_LIFE;
            return false;
        }
        self.cut = Some((at, pushback));
        self.cells.clear();
        let workers = workers as f64;
        self.cap_at(at, (0.9 * in_service).clamp(0.5 * workers, 0.9 * workers).max(1.0));
        true
    }

    /// Whether it is time to take some workers away and see what that costs.
    pub(super) fn wants_probe(&self, at: Duration) -> bool {
        self.cap.is_none_or(|cap| cap.trial.is_none()) && at >= self.probe_at
    }

    /// Notes what the probe said: whether as much was done with fewer workers.
    pub(super) fn probed(&mut self, at: Duration, is_full: bool, in_service: f64) {
        if is_full {
            self.cells.retain(|cell| cell.in_service <= in_service * (1.0 + SAME));
            self.cap_at(at, in_service.max(1.0));
            // There may be more that is of no use.
            self.probe_every = PROBE_AFTER;
            self.probe_at = at + PROBE_AFTER / 2;
        } else {
            self.probe_every = (self.probe_every * 2).min(PROBE_AT_MOST);
            self.probe_at = at + self.probe_every;
        }
    }

    /// Returns the rate seen at about this number in service, with how many items.
    pub(super) fn rate_at(&self, in_service: f64) -> Option<(f64, f64)> {
        let near = |cell: &&Cell| (cell.in_service - in_service).abs() <= SAME * in_service;
        self.cells.iter().find(near).map(|cell| (cell.rate(), cell.done))
    }

    /// How the rate grew with the number in service, at the top: by which power of it, and
    /// the standard error of a rate of items that are all alike.
    fn elasticity(&self, enough: f64) -> Option<(f64, f64)> {
        let cells = || self.cells.iter().filter(|cell| cell.done >= enough);
        let top = cells().max_by(|a, b| a.in_service.total_cmp(&b.in_service))?;
        let below = cells().filter(|cell| cell.in_service <= 0.8 * top.in_service);
        let low = below.max_by(|a, b| a.in_service.total_cmp(&b.in_service))?;
        let step = (top.in_service / low.in_service).ln();
        let error = (1.0 / top.done + 1.0 / low.done).sqrt() / step;
        Some(((top.rate() / low.rate()).ln() / step, error))
    }

    /// The fewest in service that reach the greatest rate, if the last ones gained nothing.
    fn knee(&self, spread: f64) -> Option<f64> {
        let (elasticity, error) = self.elasticity(20.0)?;
        if elasticity >= FLAT || elasticity + error * spread.clamp(0.3, 2.0) >= SURELY_FLAT {
            return None;
        }
        let mut cells: Vec<&Cell> = self.cells.iter().filter(|cell| cell.done >= 20.0).collect();
        cells.sort_by(|a, b| a.in_service.total_cmp(&b.in_service));
        let best = 0.97 * cells.iter().map(|cell| cell.rate()).fold(0.0, f64::max);
        let first = cells.iter().position(|cell| cell.rate() >= best)?;
        let reached = cells[first];
        let Some(before) = first.checked_sub(1).map(|place| cells[place]) else {
            return Some(reached.in_service);
        };
        // Between the two the rate may have grown in proportion and then not at all, or less
        // and less: the middle of what these two say.
        let part = (best / before.rate()).ln() / (reached.rate() / before.rate()).ln();
        let span = (reached.in_service / before.in_service).ln();
        let bent = before.in_service * (span * part.clamp(0.0, 1.0)).exp();
        let straight = (before.in_service * best / before.rate()).min(bent);
        Some((bent * straight).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn seen(in_service: f64, rate: f64) -> Estimate {
        Estimate { in_service, done: rate, rate, ..Estimate::default() }
    }

    #[test]
    fn a_full_server_gets_a_cap_near_its_slots_and_later_another_look() {
        let mut outside = Outside::default();
        for (second, workers) in [4.0, 8.0, 16.0, 32.0].into_iter().enumerate() {
            let rate = 50.0 * f64::min(workers, 12.0);
            outside.note(SECOND * second as u32, &seen(workers, rate), 1.0);
        }
        assert!(outside.judge(4 * SECOND, 0.5));
        let cap = outside.limit(512);
        assert!((12..=16).contains(&cap), "{cap}");
        assert!(!outside.judge(7 * SECOND, 0.5), "it holds for a while");
        outside.judge(9 * SECOND, 0.5);
        assert!(outside.limit(512) > cap, "then there is another look");
        outside.note(10 * SECOND, &seen(1.35 * cap as f64, 600.0), 1.0);
        outside.judge(12 * SECOND, 0.5);
        assert_eq!(outside.limit(512), cap, "still full");
    }

    #[test]
    fn a_server_with_room_has_no_cap_and_one_that_recovers_loses_it() {
        let mut outside = Outside::default();
        for (second, workers) in [4.0, 8.0, 16.0, 32.0].into_iter().enumerate() {
            outside.note(SECOND * second as u32, &seen(workers, 50.0 * workers), 1.0);
        }
        assert!(!outside.judge(4 * SECOND, 0.5));
        assert_eq!(outside.limit(512), 512);
        outside.cap_at(4 * SECOND, 32.0);
        outside.judge(9 * SECOND, 0.5);
        outside.note(10 * SECOND, &seen(44.0, 2200.0), 1.0);
        outside.judge(12 * SECOND, 0.5);
        assert_eq!(outside.limit(512), 512, "more gave more");
    }

    #[test]
    fn refusals_that_cuts_do_not_make_rarer_are_not_heeded() {
        let mut outside = Outside::default();
        let refusing = Estimate { in_service: 30.0, pushback: 0.05, ..Estimate::default() };
        let cuts = (0..20).filter(|&second| outside.pushed_back(SECOND * second, 32, &refusing));
        assert_eq!(cuts.count(), 1 + VAIN_CUTS as usize - 1);
        assert_eq!(outside.limit(512), 512, "the last cut is taken back");
    }

    #[test]
    fn a_refusal_cuts_to_what_was_taken_once_a_moment() {
        let mut outside = Outside::default();
        let refusing = Estimate { in_service: 10.0, pushback: 0.3, ..Estimate::default() };
        assert!(outside.pushed_back(SECOND, 16, &refusing));
        assert_eq!(outside.limit(512), 9);
        assert!(!outside.pushed_back(SECOND + SECOND / 10, 16, &refusing), "the same moment");
    }

    #[test]
    fn too_little_was_seen_for_a_verdict() {
        let mut outside = Outside::default();
        outside.note(SECOND, &Estimate { in_service: 10.0, done: 22.0, ..seen(0.0, 0.0) }, 1.0);
        outside.note(SECOND, &Estimate { in_service: 13.0, done: 22.0, ..seen(0.0, 0.0) }, 1.0);
        assert!(!outside.judge(2 * SECOND, 1.0));
    }
}
