//! A stage of long-lived worker processes, as the run sees it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Life, Node, guarded};
use crate::{
    account::StageCounters,
    error::Error,
    event::StageState,
    host::Hosts,
    journal::Hooks,
    outlet::order::Order,
    pace::Counts,
    run::{Core, serve_loop::ServeLoop},
    stage::{Settings, Stage, WayOut},
    summary::Measured,
    worker::serve::{Exchange, Serve},
};

/// A stage whose workers are processes: one loop serves all of them.
pub(crate) struct Servers<'a, In, X: Exchange<In>> {
    pub(crate) stage: Stage<In>,
    pub(crate) serve: Serve,
    pub(crate) exchange: X,
    pub(crate) hooks: Arc<Hooks<'a, In, X::Out>>,
    pub(crate) way_out: WayOut<'a, X::Out>,
}

impl<In, X> Node for Servers<'_, In, X>
where
    In: Send,
    X: Exchange<In>,
    X::Out: Send,
{
    fn settings(&self) -> &Settings {
        &self.stage.settings
    }

    fn settings_mut(&mut self) -> &mut Settings {
        &mut self.stage.settings
    }

    fn counters(&self) -> &Arc<StageCounters> {
        &self.stage.counters
    }

    fn open(&self, upstream: usize, workers: usize) {
        self.stage.open(upstream, workers);
        if self.stage.settings.ordered {
            self.way_out.order.get_or_init(Order::new);
        }
    }

    fn start_missing<'s>(&'s self, hosts: &Hosts<'s, '_>, core: &'s Core) -> Result<(), Error> {
        if !self.stage.missing().contains(&0) {
            return Ok(());
        }
        let settings = &self.stage.settings;
        let life = Life::begin(&self.stage, core, 0);
        let outlet = self.way_out.outlet(&core.ledger);
        let serving = ServeLoop::new(&self.stage, &self.serve, &self.exchange, &self.hooks, core);
        let work = Box::pin(async move {
            let _life = life;
            guarded(core, serving.run(outlet)).await;
        });
        hosts.on_own_loop(settings.index, &settings.name, work)
    }

    fn resize(&self, workers: usize) {
        self.stage.resize(workers);
    }

    fn fit(&self, upstream: usize) {
        self.stage.fit(upstream);
    }

    fn workers(&self) -> usize {
        self.stage.target.load(Ordering::Relaxed)
    }

    fn abandon(&self, core: &Core) {
        self.stage.abandon(core);
    }

    fn settle(&self, core: &Core) {
        self.stage.abandon(core);
        if let Some(order) = self.way_out.order.get() {
            order.abandon(&core.ledger);
        }
    }

    fn release_due(&self, core: &Core) {
        self.stage.release_due(core);
    }

    fn state(&self) -> StageState {
        self.stage.state()
    }

    fn places(&self) -> usize {
        self.stage.places()
    }

    fn gathers(&self) -> usize {
        1
    }

    fn measured(&self) -> Measured {
        Measured::of(&self.stage)
    }

    fn counts(&self, now: Duration) -> (Counts, Duration) {
        self.stage.counts(now)
    }
}
