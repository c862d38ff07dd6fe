//! What the workers are at, for whoever looks.

use std::sync::atomic::Ordering;

use super::{ServeLoop, State};
use crate::{meter::Shares, worker::serve::Exchange};

impl<In, X> ServeLoop<'_, In, X>
where
    In: Send,
    X: Exchange<In>,
    X::Out: Send,
{
    /// Tells whoever looks how the workers spend their time from now on.
    pub(super) fn note(&mut self, is_blocked: bool) {
        if !self.core.is_measured {
            return;
        }
        let now = self.core.clock.now();
        let target = self.stage.target.load(Ordering::Relaxed);
        let mut shares = Shares::default();
        for (index, seat) in self.seats.iter_mut().enumerate() {
            if let State::Taken(worker) = &mut seat.state
                && let Some(start) = worker.begins(now)
            {
                self.stage.processes.begins(worker.process.id(), start);
            }
            let share = match &seat.state {
                State::Empty => Some(0.0),
                State::Taken(worker) => worker.share(),
                State::Leaving => Some(1.0),
            };
            match share {
                None => shares.starting += 1,
                Some(share) => {
                    shares.busy += share;
                    shares.idle += if index < target { 1.0 - share } else { 0.0 };
                }
            }
        }
        shares.idle += target.saturating_sub(self.seats.len()) as f64;
        if is_blocked {
            // They have what they have in hand, and get nothing more: a part of it is done
            // meanwhile, which nobody here sees.
            let blocked = shares.busy + shares.idle;
            shares = Shares { blocked, starting: shares.starting, ..Shares::default() };
        }
        self.stage.attendance.note(now, shares);
    }
}
