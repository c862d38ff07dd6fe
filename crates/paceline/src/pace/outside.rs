//! What a stage waits for may be full: a server, a disk, a lock.
//!
//! More workers then only wait longer. Whether that is so shows in the rate
//! at several numbers in service: its elasticity is 1 where there is room, 0
//! at a full server, and below 0 where crowding slows it down. A stage that
//! gains nothing gets a cap, until a look with more workers finds room again.

use std::time::Duration;

use super::{
    measure::Estimate,
    refusals::{Answer, Refusals},
};

/// Numbers in service this near to each other count as one.
const SAME: f64 = 0.15;

/// What was seen longer ago counts no more.
const FORGOTTEN: Duration = Duration::from_secs(60);

/// Below this elasticity, further workers gain nothing.
const FLAT: f64 = 0.15;

/// Above it, further workers are worth it.
const GAINS: f64 = 0.4;

/// How sure one must be: elasticity and its standard error stay below this.
const SURELY_FLAT: f64 = 0.4;

/// Workers are worth keeping if the rate falls by more than with this elasticity without them:
/// by 3.5 % for a quarter of them.
const WORTH: f64 = 0.125;

/// A rate that grows by more than with this elasticity beyond a cap shows that there is room.
const ROOM: f64 = 0.25;

/// A rate that falls by more than with this when those above a cap are taken away was not flat.
const REFUTED: f64 = 0.5;

/// The fewest and the most that a look with fewer workers leaves of them; and what it leaves where
/// nothing says how many are of use: fewer where others were of none before.
const FEWER: (f64, f64) = (0.4, 0.88);
const SOME: f64 = 0.75;
const MORE_OF_THEM: f64 = 0.6;

/// So many items tell what the rate is before a look with fewer.
const ENOUGH: f64 = 60.0;

/// How long it is waited for a look where what was full has become slower.
const SUSPECTED: Duration = Duration::from_secs(4);

/// What a look with other workers says of the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is of no use.
    Useless,
    /// It surely is.
    Needed,
    /// It seems to be.
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

/// What is known of a stage's outside.
#[derive(Clone, Debug, Default)]
pub(super) struct Outside {
    cells: Vec<Cell>,
    /// The most that are of use.
    cap: Option<f64>,
    refusals: Refusals,
    /// The time in service before what was full became slower.
    before: Option<f64>,
    /// What was full has become slower: it has lost room, or it is slow by itself. A look with
    /// fewer tells, until then there is no growth.
    suspected_until: Duration,
    /// Surveys in a row whose rate is not what it was at this number in service.
    strange: u32,
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
                    let before = cell.in_service / cell.rate();
                    self.changed(at, before, seen.in_service / seen.rate());
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

    /// What is outside has changed: an item takes so long that took so long before.
    pub(super) fn changed(&mut self, at: Duration, before: f64, now: f64) {
        let was_full = self.cap.is_some();
        self.forget();
        if was_full && now > before {
            self.before = Some(before);
            self.suspected_until = at + SUSPECTED;
        }
    }

    /// Forgets all: what is outside has changed.
    fn forget(&mut self) {
        let refusals = std::mem::take(&mut self.refusals);
        *self = Self { refusals, ..Self::default() };
        self.refusals.forget();
    }

    /// Returns the most workers that are of use, and `wanted` or fewer.
    pub(super) fn limit(&self, wanted: usize) -> usize {
        self.cap.map_or(wanted, |most| wanted.min((most.round() as usize).max(1)))
    }

    pub(super) fn is_capped(&self) -> bool {
        self.cap.is_some()
    }

    /// Judges by what was seen whether there is room outside; true if it sets a new cap.
    pub(super) fn judge(&mut self, at: Duration, spread: f64) -> bool {
        if let Some(most) = self.cap {
            if let Some(more) = self.refusals.step_up(at, most.round() as usize) {
                self.cap = Some(more as f64);
            }
            return false;
        }
        let Some(knee) = self.knee(spread) else { return false };
        self.cap = Some(1.08 * knee + 1.0);
        true
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
                *self = Self { refusals, ..Self::default() };
                false
            }
            Answer::Cut(left) => {
                self.cells.clear();
                self.cap = Some(left as f64);
                left < workers
            }
        }
    }

    /// With how many fewer it is worth a look whether they do as well.
    pub(super) fn fewer(&self, workers: usize, seen: &Estimate) -> Option<usize> {
        // What refuses tells by itself, and a few items say nothing.
        let (rate, done) = self.rate_at(seen.in_service)?;
        if workers < 4 || self.refusals.are_heeded() || done < ENOUGH {
            return None;
        }
        let now = workers as f64;
        // The least time in service, times the rate, is how many a server with room would hold.
        let low = self.cells.iter().filter(|cell| cell.done >= 10.0);
        let low = low.min_by(|a, b| a.in_service.total_cmp(&b.in_service));
        let low = low.filter(|cell| cell.in_service <= 0.8 * seen.in_service);
        let left = match (self.before, low) {
            // As many as have gone by the time in service.
            (Some(before), _) => (1.1 * before * rate / seen.in_service).min(SOME),
            (None, Some(cell)) => (1.04 * rate * cell.in_service / cell.rate() + 0.5) / now,
            (None, None) if self.cap.is_some() => MORE_OF_THEM,
            (None, None) => SOME,
        };
        let to = (now * left.max(FEWER.0)).round();
        (to <= FEWER.1 * now).then_some(to as usize)
    }

    /// With how many more it is worth a look whether they do better.
    pub(super) fn more(&mut self, at: Duration, workers: usize) -> Option<usize> {
        let most = self.cap.filter(|most| workers as f64 + 0.5 >= *most)?;
        self.refusals.hold(at, workers);
        Some(self.refusals.fewest().unwrap_or((1.35 * most + 1.0) as usize).max(workers + 1))
    }

    /// What a look says that had `left` times the workers and `kept` times the rate, which were
    /// seen over so many items before and then; `None` if that takes more items.
    pub(super) fn verdict(
        left: f64,
        kept: f64,
        done: (f64, f64),
        is_over: bool,
    ) -> Option<Verdict> {
        let limit = left.powf(if left < 1.0 { WORTH } else { ROOM });
        let doubt = 2.0 * (1.0 / done.0.max(1.0) + 1.0 / done.1.max(1.0)).sqrt();
        let is_sure = done.1 >= 100.0 && (kept - limit).abs() > doubt;
        // What is not sure after so long is little: rather fewer.
        let is_useless = if left < 1.0 { kept > limit - 0.2 * doubt } else { kept < limit };
        match is_useless {
            _ if !is_sure && !is_over => None,
            true => Some(Verdict::Useless),
            false if is_sure => Some(Verdict::Needed),
            false => Some(Verdict::Unclear),
        }
    }

    /// Notes what a look said that had `left` times the workers and `kept` times the rate, with so
    /// many in service.
    pub(super) fn tried(&mut self, verdict: Verdict, (left, kept): (f64, f64), in_service: f64) {
        self.before = None;
        self.suspected_until = Duration::ZERO;
        match verdict {
            Verdict::Useless if left < 1.0 => {
                self.cells.retain(|cell| cell.in_service <= in_service * (1.0 + SAME));
                self.cap = Some(in_service.max(1.0));
            }
            Verdict::Needed if left > 1.0 => {
                self.cap = None;
                self.refusals.forget();
            }
            _ if left < 1.0 && self.cap.is_some_and(|cap| in_service / left > 1.1 * cap) => {
                // What is above the cap is of use after all: it was another time that told
                // otherwise.
                let is_refuted = kept.ln() / left.ln() > REFUTED;
                self.cap = (!is_refuted).then_some(in_service / left);
                self.cells.clear();
            }
            _ => {}
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

    /// A server with so many slots, asked by more and more.
    fn asked(slots: f64) -> Outside {
        let mut outside = Outside::default();
        for (second, workers) in [4.0, 8.0, 16.0, 32.0].into_iter().enumerate() {
            let rate = 50.0 * f64::min(workers, slots);
            outside.note(SECOND * second as u32, &seen(workers, rate), 1.0);
        }
        outside
    }

    #[test]
    fn a_full_server_gets_a_cap_near_its_slots_and_later_another_look() {
        let mut outside = asked(12.0);
        assert!(outside.judge(4 * SECOND, 0.5));
        let cap = outside.limit(512);
        assert!((12..=16).contains(&cap), "{cap}");
        assert_eq!(outside.more(8 * SECOND, cap - 1), None, "not as many as may ask do");
        let more = outside.more(9 * SECOND, cap).expect("it is worth a look");
        assert!(more > cap);
        let times = (more as f64 / cap as f64, 1.0);
        outside.tried(Verdict::Useless, times, more as f64);
        assert_eq!(outside.limit(512), cap, "still full");
        outside.tried(Verdict::Needed, (times.0, times.0), more as f64);
        assert_eq!(outside.limit(512), 512, "more gave more");
    }

    #[test]
    fn a_server_with_room_has_no_cap() {
        let mut outside = asked(512.0);
        assert!(!outside.judge(4 * SECOND, 0.5));
        assert_eq!(outside.limit(512), 512);
        assert_eq!(outside.fewer(32, &seen(32.0, 1600.0)), None, "each is of use");
        assert_eq!(outside.more(5 * SECOND, 32), None, "it may have more anyway");
    }

    #[test]
    fn a_look_with_fewer_goes_to_as_many_as_the_shortest_service_makes() {
        let outside = asked(12.0);
        let fewer = outside.fewer(32, &seen(32.0, 600.0)).expect("it is worth a look");
        assert_eq!(fewer, 13);
        assert_eq!(outside.fewer(13, &seen(13.0, 600.0)), None, "there is nothing to gain");
    }

    #[test]
    fn a_cap_that_costs_what_it_took_away_is_none() {
        let mut outside = asked(12.0);
        assert!(outside.judge(4 * SECOND, 0.5));
        let cap = outside.limit(512) as f64;
        outside.tried(Verdict::Needed, (cap / 32.0, cap / 32.0), cap);
        assert_eq!(outside.limit(512), 512, "it was the time, not the number");
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
    fn what_was_full_and_gets_slower_is_looked_at_with_fewer_before_it_grows() {
        let mut outside = asked(16.0);
        assert!(outside.judge(4 * SECOND, 0.5));
        assert_eq!(outside.growth(5 * SECOND, 16, 32), 16);
        outside.changed(8 * SECOND, 0.040, 0.107);
        outside.note(9 * SECOND, &seen(16.0, 150.0), 1.0);
        assert_eq!(outside.growth(9 * SECOND, 16, 32), 16);
        let left = outside.fewer(16, &seen(16.0, 150.0)).expect("a look tells");
        assert!((6..=7).contains(&left), "{left}: as many as have gone by the time in service");
        outside.tried(Verdict::Needed, (left as f64 / 16.0, 0.4), 6.0);
        assert_eq!(outside.growth(10 * SECOND, 16, 32), 32, "it is slow by itself");
    }

    #[test]
    fn a_look_says_what_its_items_can_tell() {
        let of = |left, kept, done, is_over| Outside::verdict(left, kept, (4000.0, done), is_over);
        assert_eq!(of(0.75, 0.75, 400.0, false), Some(Verdict::Needed));
        assert_eq!(of(0.75, 1.1, 400.0, false), Some(Verdict::Useless));
        assert_eq!(of(0.75, 0.92, 400.0, false), None, "more items may tell");
        assert_eq!(of(0.75, 0.92, 400.0, true), Some(Verdict::Unclear));
        assert_eq!(of(0.75, 0.5, 10.0, false), None, "ten items say nothing");
        assert_eq!(of(1.35, 1.35, 2000.0, false), Some(Verdict::Needed));
        assert_eq!(of(1.35, 1.0, 4000.0, false), Some(Verdict::Useless));
    }

    #[test]
    fn too_little_was_seen_for_a_verdict() {
        let mut outside = Outside::default();
        outside.note(SECOND, &Estimate { in_service: 10.0, done: 22.0, ..seen(0.0, 0.0) }, 1.0);
        outside.note(SECOND, &Estimate { in_service: 13.0, done: 22.0, ..seen(0.0, 0.0) }, 1.0);
        assert!(!outside.judge(2 * SECOND, 1.0));
    }
}
