//! What a stage waits for may be full: a server, a disk, a lock.
//!
//! More workers then only wait longer. Whether that is so shows in the rate
//! at several numbers in service: its elasticity is 1 where there is room, 0
//! at a full server, and below 0 where crowding slows it down. A stage that
//! gains nothing gets a cap, for a while: what was full may have room again.

use std::time::Duration;

use super::{
    measure::Estimate,
    refusals::{Answer, Refusals},
};

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

/// How often, at first and at last, workers are taken away to see whether that costs anything;
/// three times as long after each time that it did.
const PROBE_AFTER: Duration = Duration::from_secs(3);
const PROBE_AT_MOST: Duration = Duration::from_secs(60);

/// After a probe that surely cost something, the next one is no sooner.
const PROBE_AGAIN: Duration = Duration::from_secs(20);

/// Workers are worth keeping if the rate falls by more than with this elasticity without them:
/// by 3.5 % for a quarter of them.
const WORTH: f64 = 0.125;

/// The workers that a probe leaves: fewer at once where the last one showed that they were of no
/// use.
const PROBE_TO: f64 = 0.75;
const PROBE_ON_TO: f64 = 0.6;

/// How long it is waited for that probe.
const SUSPECTED: Duration = Duration::from_secs(4);

/// What a probe says of the workers that it left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They were of no use.
    Full,
    /// They surely were of use.
    Needed,
    /// They seem to have been.
    Unclear,
}

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
    refusals: Refusals,
    /// The part of its workers that the next probe leaves.
    probe_to: f64,
    /// What was full has become slower: it has lost room, or it is slow by itself. A probe tells,
    /// until then there is no growth.
    suspected_until: Duration,
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
            refusals: Refusals::default(),
            probe_to: PROBE_TO,
            suspected_until: Duration::ZERO,
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
                    let now = seen.rate() / cell.rate();
                    self.changed(at, now);
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

    /// What is outside has changed: it does this part of what it did.
    pub(super) fn changed(&mut self, at: Duration, now: f64) {
        let was_full = self.cap.is_some();
        self.forget(at);
        if was_full && now < 1.0 {
            self.probe_to = (1.1 * now).clamp(0.4, PROBE_TO);
            self.suspected_until = at + SUSPECTED;
        }
    }

    /// Forgets all: what is outside has changed.
    pub(super) fn forget(&mut self, at: Duration) {
        self.cells.clear();
        self.cap = None;
        self.life = LIFE;
        self.strange = 0;
        self.refusals.forget();
        self.probe_every = PROBE_AFTER;
        self.probe_to = PROBE_TO;
        self.probe_at = at;
        self.suspected_until = at;
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
                self.refusals.hold(at, cap.most.round() as usize);
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
                    self.refusals.forget();
                } else {
                    self.cells.retain(|cell| cell.in_service <= most * (1.0 + SAME));
                    self.cap_at(at, most);
                }
                false
            }
            Some(Cap { trial: None, most, until }) => {
                if let Some(more) = self.refusals.step_up(at, most.round() as usize) {
                    self.cap = Some(Cap { most: more as f64, until, trial: None });
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

    /// The most workers that further growth may lead to: where the last growth gained little, the
    /// next waits for more evidence, and where that is there it goes on in small steps.
    pub(super) fn growth(&self, at: Duration, workers: usize, wanted: usize) -> usize {
        if at < self.suspected_until {
            return wanted.min(workers);
        }
        match self.elasticity(5.0) {
            Some((gain, _)) if gain >= GAINS => wanted,
            Some((gain, error)) if gain - error >= FLAT => wanted.min(workers + workers / 3 + 1),
            Some(_) => wanted.min(workers),
            None => wanted,
        }
    }

    /// Heeds that some attempts were refused; true if fewer may ask from now on.
    pub(super) fn pushed_back(&mut self, at: Duration, workers: usize, seen: &Estimate) -> bool {
        match self.refusals.heed(at, workers, seen.in_service, seen.pushback) {
            Answer::Nothing => false,
            Answer::GiveUp => {
                let refusals = std::mem::take(&mut self.refusals);
                self.forget(at);
                self.refusals = refusals;
                false
            }
            Answer::Cut(left) => {
                self.cells.clear();
                // The cuts of one row are one finding: only its first makes the cap live longer.
                let held = self.cap.filter(|cap| cap.trial.is_none() && cap.until > at);
                match held {
                    Some(cap) => self.cap = Some(Cap { most: left as f64, ..cap }),
                    None => {
                        // Who says so is believed longer than what is only inferred.
                        self.life = self.life.max(2 * LIFE);
                        self.cap_at(at, left as f64);
                    }
                }
                left < workers
            }
        }
    }

    /// Whether it is time to take some workers away and see what that costs.
    pub(super) fn wants_probe(&self, at: Duration) -> bool {
        // What refuses tells by itself.
        let is_held = self.cap.is_some_and(|cap| cap.trial.is_some()) || self.refusals.are_heeded();
        !is_held && at >= self.probe_at
    }

    /// How many of these workers a probe leaves.
    pub(super) fn probe_to(&self, workers: usize) -> usize {
        ((workers as f64 * self.probe_to) as usize).max(1)
    }

    /// What a probe says that left the part `left` of the workers, and `kept` of the rate over
    /// `done` items; `None` if that takes more items.
    pub(super) fn verdict(left: f64, kept: f64, done: f64, is_over: bool) -> Option<Verdict> {
        let limit = left.powf(WORTH);
        let doubt = 1.2 / done.max(1.0).sqrt();
        let is_sure = done >= 100.0 && (kept - limit).abs() > doubt;
        match kept > limit {
            _ if !is_sure && !is_over => None,
            true => Some(Verdict::Full),
            false if is_sure => Some(Verdict::Needed),
            false => Some(Verdict::Unclear),
        }
    }

    /// Notes what the probe said, with so many in service.
    pub(super) fn probed(&mut self, at: Duration, verdict: Verdict, in_service: f64) {
        let is_full = verdict == Verdict::Full;
        self.suspected_until = at;
        self.probe_to = if is_full { PROBE_ON_TO } else { PROBE_TO };
        if is_full {
            self.cells.retain(|cell| cell.in_service <= in_service * (1.0 + SAME));
            self.cap_at(at, in_service.max(1.0));
            // There may be more that is of no use.
            self.probe_every = PROBE_AFTER;
            self.probe_at = at;
        } else {
            let least = if verdict == Verdict::Needed { PROBE_AGAIN } else { Duration::ZERO };
            self.probe_every = (self.probe_every * 3).clamp(least, PROBE_AT_MOST);
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
    fn a_server_that_refuses_is_asked_by_fewer_and_then_by_as_many_as_it_takes() {
        let (mut outside, mut workers) = (Outside::default(), 16);
        for half in 2..20 {
            let at = SECOND / 2 * half;
            // It has room for ten.
            let refused = (workers as f64 - 10.0).max(0.0) / 20.0;
            let now = Estimate { pushback: refused, ..seen(workers as f64, 100.0) };
            if refused > 0.0 {
                outside.pushed_back(at, workers, &now);
            } else {
                outside.judge(at, 0.5);
            }
            workers = outside.limit(512);
        }
        assert!((9..=11).contains(&workers), "{workers}");
    }

    #[test]
    fn what_was_full_and_gets_slower_is_probed_before_it_grows() {
        let mut outside = Outside::default();
        outside.cap_at(SECOND, 16.0);
        for second in 1..8 {
            outside.note(SECOND * second, &seen(16.0, 400.0), 1.0);
        }
        assert_eq!(outside.growth(8 * SECOND, 16, 32), 32);
        outside.note(8 * SECOND, &seen(16.0, 150.0), 1.0);
        outside.note(9 * SECOND, &seen(16.0, 150.0), 1.0);
        assert!(outside.wants_probe(9 * SECOND));
        assert_eq!(outside.growth(9 * SECOND, 16, 32), 16);
        let left = outside.probe_to(16);
        assert!((6..=7).contains(&left), "{left}: as many as have gone by the rate");
        outside.probed(10 * SECOND, Verdict::Needed, 6.0);
        assert_eq!(outside.growth(10 * SECOND, 16, 32), 32, "it is slow by itself");
    }

    #[test]
    fn a_probe_says_what_its_items_can_tell() {
        assert_eq!(Outside::verdict(0.75, 0.75, 400.0, false), Some(Verdict::Needed));
        assert_eq!(Outside::verdict(0.75, 1.1, 400.0, false), Some(Verdict::Full));
        assert_eq!(Outside::verdict(0.75, 0.95, 400.0, false), None, "more items may tell");
        assert_eq!(Outside::verdict(0.75, 0.95, 400.0, true), Some(Verdict::Unclear));
        assert_eq!(Outside::verdict(0.75, 0.5, 10.0, false), None, "ten items say nothing");
    }

    #[test]
    fn too_little_was_seen_for_a_verdict() {
        let mut outside = Outside::default();
        outside.note(SECOND, &Estimate { in_service: 10.0, done: 22.0, ..seen(0.0, 0.0) }, 1.0);
        outside.note(SECOND, &Estimate { in_service: 13.0, done: 22.0, ..seen(0.0, 0.0) }, 1.0);
        assert!(!outside.judge(2 * SECOND, 1.0));
    }
}
