//! The run's one service thread: time, stops, and the number of workers.
//!
//! It sleeps until the next timer is due or somebody rings its bell: a stop,
//! an earlier timer, a wish for more workers. It never touches items, but to
//! put back those whose retry is due and to abandon queues when the run is
//! halted.

use std::{
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
    time::Duration,
};

use super::{
    Core,
    pacer::{Exit, Pacer},
};
use crate::{host::Hosts, node::Node, stop::StopLevel, sync::Bell};

/// Keeps a run going until it is over.
pub(crate) fn conduct<'s>(
    core: &'s Core,
    nodes: &'s [Box<dyn Node + '_>],
    exit: Option<&Exit<'_>>,
    hosts: &Arc<Hosts<'s, '_>>,
) {
    let bell = core.bell.get_or_init(Bell::here);
    core.clock.add_bell(bell);
    core.stop.add_bell(bell);
    core.monitor.set_bell(bell);
    if let Some(watch) = &core.watch {
        watch.set_bell(bell);
    }
    fence(Ordering::SeqCst);
    let mut watches = Watches { stall: Stall::new(core, nodes), pacer: Pacer::new(core, nodes) };
    while core.is_over.get().is_none() {
        // An observer that panics must not end the only one who stops the run.
        if let Some(next) = core.guarded(|| look(core, nodes, exit, hosts, &mut watches)) {
            bell.wait(next);
        }
    }
}

/// Does what is due, and returns how long it is to the next.
fn look<'s>(
    core: &'s Core,
    nodes: &'s [Box<dyn Node + '_>],
    exit: Option<&Exit<'_>>,
    hosts: &Arc<Hosts<'s, '_>>,
    watches: &mut Watches,
) -> Option<Duration> {
    let next = core.clock.fire_due();
    if core.stop.level() >= StopLevel::Halt {
        nodes.iter().for_each(|node| node.stage().abandon(core));
    }
    resize(core, nodes);
    let look_again = watches.pacer.as_mut().and_then(|pacer| pacer.look(core, nodes, exit));
    for node in nodes {
        node.stage().release_due(core);
        // A worker that cannot be started now is tried again with the next bell; the
        // others do its work meanwhile.
        drop(node.start_missing(hosts, core));
    }
    let others = [look_again, watches.stall.look(core, nodes), look_at_polls(core, nodes)];
    others.into_iter().chain([next]).flatten().min()
}

/// Tells the observer of polls that take too long, and returns when to look again.
fn look_at_polls(core: &Core, nodes: &[Box<dyn Node + '_>]) -> Option<Duration> {
    let (stuck, next) = core.watch.as_ref()?.look(core.clock.now());
    if let Some(observer) = &core.ledger.observer {
        for poll in stuck {
            observer.stuck_poll(
                &poll.item,
                &nodes[poll.stage].stage().settings().name,
                poll.so_far,
            );
        }
    }
    // The bell is rung when a clock that stands still goes on.
    next.filter(|_| core.clock.runs())
}

/// Does what was asked for through the monitor.
fn resize(core: &Core, nodes: &[Box<dyn Node + '_>]) {
    let wishes = core.monitor.take_wishes();
    if wishes.is_empty() {
        return;
    }
    for (stage, workers) in wishes {
        for node in nodes.iter().filter(|node| *node.stage().settings().name == *stage) {
            node.resize(workers);
        }
    }
    core.fit(nodes);
}

/// Who looks at the run from time to time.
struct Watches {
    stall: Stall,
    pacer: Option<Pacer>,
}

/// Looks whether anything moves.
struct Stall {
    moved: u64,
    since: Duration,
    is_told: bool,
}

impl Stall {
    fn new(core: &Core, nodes: &[Box<dyn Node + '_>]) -> Self {
        Self { moved: movement(core, nodes), since: core.clock.now(), is_told: false }
    }

    /// Tells the observer once for each stall, and returns when to look again.
    fn look(&mut self, core: &Core, nodes: &[Box<dyn Node + '_>]) -> Option<Duration> {
        let limit = core.stall_after?;
        let moved = movement(core, nodes);
        let now = core.clock.now();
        if moved != self.moved || core.ledger.in_flight() == 0 {
            *self = Self { moved, since: now, is_told: false };
        }
        let stood = now.saturating_sub(self.since);
        if stood >= limit && !self.is_told {
            self.is_told = true;
            if let Some(observer) = &core.ledger.observer {
                let states: Vec<_> = nodes.iter().map(|node| node.stage().state()).collect();
                observer.stalled(&states);
            }
        }
        Some(if self.is_told { limit } else { limit.saturating_sub(stood) })
    }
}

/// A number that changes whenever anything moves.
fn movement(core: &Core, nodes: &[Box<dyn Node + '_>]) -> u64 {
    let stages: u64 = nodes
        .iter()
        .map(|node| {
            let counters = node.stage().counters();
            counters.sum(|shard| &shard.fed)
                + counters.sum(|shard| &shard.ok)
                + counters.sum(|shard| &shard.failed)
                + counters.sum(|shard| &shard.retried)
        })
        .sum();
    stages + core.ledger.taken.load(Ordering::Relaxed)
}
