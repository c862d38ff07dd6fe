//! A stage of long-lived worker processes, as the run sees it.

use std::sync::Arc;

use super::{AnyStage, Life, Node, guarded};
use crate::{
    error::Error,
    host::Hosts,
    journal::Hooks,
    run::{Core, serve_loop::ServeLoop},
    stage::{Stage, WayOut},
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
    fn stage(&self) -> &dyn AnyStage {
        &self.stage
    }

    fn stage_mut(&mut self) -> &mut dyn AnyStage {
        &mut self.stage
    }

    fn open(&self, upstream: usize, workers: usize) {
        self.stage.open(upstream, workers);
        self.way_out.open(&self.stage.settings);
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
        hosts.on_own_loop(settings.index, 0, &settings.name, work)
    }

    fn settle(&self, core: &Core) {
        self.stage.abandon(core);
        self.way_out.abandon(core);
    }
}
