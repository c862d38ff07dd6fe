//! All of a pipeline but the types of its items: checked, then run.

use std::{sync::Arc, time::Duration};

use crate::{
    account::{Halt, Ledger},
    clock::Clock,
    error::{Error, ErrorKind},
    event::Observer,
    journal::Journal,
    monitor::Monitor,
    node::Node,
    run::{self, Core, feed::Source, pacer::Exit},
    stage::{Kind, Workers},
    stop::Stop,
    summary::Summary,
    watch::{LONGEST_POLL, Watch},
};

/// All of a pipeline but the types of its items.
pub(crate) struct Plan<'a> {
    pub(super) source: Box<dyn Source<'a> + 'a>,
    pub(super) nodes: Vec<Box<dyn Node + 'a>>,
    /// The stages whose values are split, by index.
    pub(super) fans: Vec<usize>,
    pub(super) stop: Stop,
    pub(super) clock: Clock,
    pub(super) monitor: Monitor,
    pub(super) observer: Option<Arc<dyn Observer>>,
    pub(super) journal: Option<Arc<dyn Journal>>,
    /// Closes the queue before the sink, where there will be no sink.
    pub(super) close_exit: Option<run::CloseExit<'a>>,
    pub(super) halt: Option<Halt>,
    pub(super) stall_after: Option<Duration>,
    pub(super) watch: Option<Duration>,
    /// How many items of the source may be inside at once, if a stage keeps the order.
    pub(super) window: u64,
    /// How many cores may be used, if not all.
    pub(super) cpu_budget: Option<f64>,
    /// What waits for the sink.
    pub(super) exit: Option<Exit<'a>>,
    /// Whether the source goes on after each round.
    pub(crate) has_rounds: bool,
    pub(super) misuse: Option<Error>,
}

impl<'a> Plan<'a> {
    /// A plan without stages, with the settings of one of which nothing is said.
    pub(super) fn new(source: Box<dyn Source<'a> + 'a>) -> Self {
        Self {
            source,
            nodes: Vec::new(),
            fans: Vec::new(),
            stop: Stop::new(),
            clock: Clock::system(),
            monitor: Monitor::default(),
            observer: None,
            journal: None,
            close_exit: None,
            halt: None,
            stall_after: None,
            watch: Some(LONGEST_POLL),
            window: 0,
            cpu_budget: None,
            exit: None,
            has_rounds: false,
            misuse: None,
        }
    }

    /// Notes a mistake in how the pipeline was put together; the first one is told when it is run.
    pub(super) fn misused(&mut self, what: &str) {
        self.misuse.get_or_insert_with(|| Error::new(ErrorKind::Invalid, what));
    }

    pub(crate) fn handles(&self) -> (Monitor, Stop) {
        (self.monitor.clone(), self.stop.clone())
    }

    /// Refuses what cannot work, and runs the rest.
    pub(crate) fn run<R>(mut self, sink: impl FnOnce(&Core) -> R) -> Result<(R, Summary), Error> {
        self.check()?;
        self.keep_order_where_needed();
        let ledger = Ledger::new(self.stop.clone(), self.halt, self.observer.take());
        let mut core = Core::new(ledger, self.clock, self.stop, self.monitor);
        core.stall_after = self.stall_after;
        core.watch = self.watch.map(Watch::new);
        core.journal = self.journal.take();
        let keeps_order = self.nodes.iter().any(|node| node.stage().settings().ordered);
        core.least_window = keeps_order.then_some(self.window);
        core.cpu_budget = self.cpu_budget;
        core.cores = self.cpu_budget.unwrap_or(core.cores);
        let leaves_it_to_us =
            self.nodes.iter().any(|node| node.stage().settings().workers.is_auto());
        core.is_measured = leaves_it_to_us || core.ledger.observer.is_some();
        let stages = self
            .nodes
            .iter()
            .map(|node| (node.stage().settings().name.clone(), node.stage().counters().clone()));
        core.monitor.open(core.ledger.clone(), stages.collect());
        let exits = run::Exits { close: self.close_exit, look: self.exit.as_ref() };
        run::run(&core, &self.nodes, self.source, exits, sink)
    }

    fn check(&mut self) -> Result<(), Error> {
        if let Some(misuse) = self.misuse.take() {
            return Err(misuse);
        }
        let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
        let mut names: Vec<&str> = Vec::new();
        for settings in self.nodes.iter().map(|node| node.stage().settings()) {
            let name = &*settings.name;
            if settings.kind == Kind::Batch {
                continue;
            }
            if name.is_empty() {
                return invalid("a stage has no name".into());
            }
            if names.contains(&name) {
                return invalid(format!("two stages are called `{name}`"));
            }
            names.push(name);
            if matches!(settings.workers, Workers::Fixed(0) | Workers::UpTo(0)) {
                return invalid(format!("stage `{name}` has 0 workers"));
            }
            if settings.queue == Some(0) {
                return invalid(format!("stage `{name}` has a queue for 0 items"));
            }
            if settings.timeout == Some(Duration::ZERO) {
                return invalid(format!("stage `{name}` has a timeout of 0"));
            }
        }
        Ok(())
    }

    /// What counts items anew before an ordered stage must meet them in order.
    fn keep_order_where_needed(&mut self) {
        let Some(last) = self.nodes.iter().rposition(|node| node.stage().settings().ordered) else {
            return;
        };
        for fan in self.fans.iter().filter(|&&fan| fan < last) {
            self.nodes[*fan].stage_mut().settings_mut().ordered = true;
        }
        for batch in 1..last {
            if self.nodes[batch].stage().settings().kind == Kind::Batch {
                self.nodes[batch - 1].stage_mut().settings_mut().ordered = true;
            }
        }
    }
}
