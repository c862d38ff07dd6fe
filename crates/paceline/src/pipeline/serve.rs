//! Adding a stage of long-lived worker processes.

use std::sync::Arc;

use super::Pipeline;
use crate::{
    journal::Hooks,
    node::serve::Servers,
    outlet::Slot,
    stage::{Kind, Settings, Stage, WayOut},
    worker::serve::{Exchange, Serve},
};

impl<'a, T: Send + 'a, Prev> Pipeline<'a, T, Prev> {
    /// Adds a stage whose work is done by long-lived worker processes. Unless
    /// [`workers`](Self::workers) says how many, there is one a core at
    /// first, and more where they are seen to wait.
    ///
    /// Each is started when there is work for it, and kept for later items.
    /// Whatever a worker does (exit, crash, hang, talk nonsense) costs the
    /// item in hand alone: it fails with
    /// [`FailureKind::Worker`](crate::FailureKind::Worker), and another
    /// worker takes the dead one's place. A worker that dies three times in a
    /// row before it has answered anything ends the run with an
    /// [`Error`](crate::Error) of kind
    /// [`ErrorKind::Worker`](crate::ErrorKind::Worker), and so does one that
    /// cannot be started.
    ///
    /// # When stopped
    ///
    /// At an item's [`timeout`](Self::timeout) its worker is asked to end and
    /// killed after the [grace period](Self::grace), and so are all when the
    /// run is cancelled. At the end of the run workers see the end of their
    /// input, and have the grace period (two seconds at most) to end by
    /// themselves.
    pub fn serve<X>(mut self, name: &str, serve: Serve, exchange: X) -> Pipeline<'a, X::Out, T>
    where
        X: Exchange<T> + 'a,
        X::Out: Send + 'a,
    {
        let stage = Stage::new(Settings::new(self.plan.nodes.len(), name, Kind::Serve));
        self.join_to(stage.link());
        let copier = stage.copier.clone();
        let tail = Slot::default();
        let way_out = WayOut::new(tail.clone());
        let hooks = Arc::<Hooks<'_, _, _>>::default();
        let servers = Servers { stage, serve, exchange, hooks: hooks.clone(), way_out };
        self.plan.nodes.push(Box::new(servers));
        Pipeline { plan: self.plan, tail, copier, hooks }
    }
}
