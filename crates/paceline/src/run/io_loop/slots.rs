//! Which of a loop's slots are free.
//!
//! The slots of a stage are dealt out to its loops in turn, so that each loop
//! has its own and none is waited for. The lowest free one is taken first: a
//! stage whose number of workers has sunk gets by with the slots below it, and
//! what is at work in others ends there.

use std::{cmp::Reverse, collections::BinaryHeap};

/// The slots of one loop, counted from 0 in that loop.
#[derive(Debug, Default)]
pub(super) struct Slots {
    /// How many it may use.
    most: usize,
    /// Those from here on have never been in use.
    fresh: usize,
    free: BinaryHeap<Reverse<usize>>,
    /// How many of those that it may use are in use.
    used: usize,
}

impl Slots {
    /// How many may be taken now.
    pub(super) fn room(&self) -> usize {
        self.most - self.used
    }

    /// How many there may be in use, from here on.
    pub(super) fn set_most(&mut self, most: usize) {
        if self.most != most {
            self.most = most;
            let free = self.free.iter().filter(|Reverse(slot)| *slot < most).count();
            self.used = self.fresh.min(most) - free;
        }
    }

    /// Takes a slot if there is one.
    pub(super) fn take(&mut self) -> Option<usize> {
        if self.room() == 0 {
            return None;
        }
        self.used += 1;
        if let Some(Reverse(slot)) = self.free.pop() {
            return Some(slot);
        }
        self.fresh += 1;
        Some(self.fresh - 1)
    }

    pub(super) fn give_back(&mut self, slot: usize) {
        self.used -= usize::from(slot < self.most);
        self.free.push(Reverse(slot));
    }
}

/// How many of `workers` slots belong to the loop at `place` of `loops`.
pub(super) fn share(workers: usize, place: usize, loops: usize) -> usize {
    workers.saturating_sub(place).div_ceil(loops)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_slot_belongs_to_one_loop() {
        for (workers, loops) in [(0, 2), (1, 2), (5, 2), (7, 3), (64, 64), (3, 8)] {
            let shares: Vec<_> = (0..loops).map(|place| share(workers, place, loops)).collect();
            assert_eq!(shares.iter().sum::<usize>(), workers);
            assert!(shares.is_sorted_by(|a, b| a >= b) && shares[0] - shares[loops - 1] <= 1);
        }
    }

    proptest! {
        #[test]
        fn no_slot_is_given_twice_and_none_beyond_the_most(
            steps in proptest::collection::vec((0..3, 0..12_usize), 0..200),
        ) {
            let (mut slots, mut used, mut most) = (Slots::default(), Vec::new(), 0);
            for (step, number) in steps {
                match step {
                    0 => {
                        most = number;
                        slots.set_most(most);
                    }
                    1 if !used.is_empty() => {
                        slots.give_back(used.swap_remove(number % used.len()));
                    }
                    _ => {
                        let free = (0..most).find(|slot| !used.contains(slot));
                        let taken = slots.take();
                        prop_assert_eq!(taken, free, "the lowest of those that may be used");
                        used.extend(taken);
                    }
                }
                let in_use = used.iter().filter(|slot| **slot < most).count();
                prop_assert_eq!(slots.room(), most - in_use);
            }
        }
    }
}
