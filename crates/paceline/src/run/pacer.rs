//! The pace of a run: looks at it now and then, asks the controller, and
//! does what it decides. What was seen says in the end what bounded the run.
//!
//! It lives in the conductor, whose sleep its looks divide. Where nothing
//! moves it looks less and less often, and never so often that looking takes
//! more than a thousandth of a core.
//!
//! Not here: what is decided and why (`pace.rs`).

use std::{sync::atomic::Ordering, time::Duration};

use super::Core;
use crate::{
    meter,
    node::Node,
    pace::{Bound, Bounds, Controller, Counts, Memory, Settings, Snapshot, Survey},
    stage::Kind,
    sync::lock,
};

/// What is beyond the last stage: the queue to the sink, if there is one.
pub(crate) type Exit<'a> = Box<dyn Fn() -> paceline_queue::Stats + Send + Sync + 'a>;

/// The part of a core that looking may take, at first and later.
const COST: [f64; 2] = [0.01, 0.001];
const AT_FIRST: Duration = Duration::from_secs(3);

/// The longest time between two looks, where nothing moves.
const RAREST: Duration = Duration::from_secs(2);

/// Memory is looked at this often.
const MEMORY_EVERY: Duration = Duration::from_secs(1);

/// And the cores that there are this often: a quota or an affinity may change.
const CORES_EVERY: Duration = Duration::from_secs(10);

/// What bounded a run, by the time that it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bounded {
    /// All cores were busy.
    Cores,
    /// The stage at this place, counted from 0, had all the workers that it might have.
    Stage(usize),
    /// What the stage at this place waits for gave no more.
    Outside(usize),
    /// The source gave no more.
    Source,
    /// The sink took no more.
    Sink,
}

/// What a run's pace came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paced {
    /// The fewest and the most workers of each stage.
    pub(crate) ranges: Vec<(usize, usize)>,
    /// For how long each bound was the one that counted.
    bounds: Vec<(Bounded, Duration)>,
    /// Cores in use, times seconds, and the seconds.
    used: (f64, f64),
}

impl Paced {
    /// What bounded the run for most of it.
    pub(crate) fn bounded(&self) -> Option<Bounded> {
        self.bounds.iter().max_by_key(|(_, time)| *time).map(|(bound, _)| *bound)
    }

    /// The cores that were in use on average.
    pub(crate) fn cores_used(&self) -> Option<f64> {
        (self.used.1 > 0.0).then(|| self.used.0 / self.used.1)
    }

    fn note(&mut self, survey: &Survey) {
        let last = survey.workers.len() - 1;
        let bound = match survey.bound {
            None => return,
            Some(Bound::Cores) => Bounded::Cores,
            Some(Bound::Stage(0)) => Bounded::Source,
            Some(Bound::Stage(place)) if place == last => Bounded::Sink,
            Some(Bound::Stage(place)) if survey.full[place] => Bounded::Outside(place - 1),
            Some(Bound::Stage(place)) => Bounded::Stage(place - 1),
        };
        let seconds = survey.span.as_secs_f64();
        self.used = (self.used.0 + survey.cores_used * seconds, self.used.1 + seconds);
        match self.bounds.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, time)) => *time += survey.span,
            None => self.bounds.push((bound, survey.span)),
        }
    }
}

/// What may be decided about the stages, and what they begin with.
pub(crate) fn bounds(core: &Core, nodes: &[Box<dyn Node + '_>]) -> Vec<Bounds> {
    let settings = nodes.iter().map(|node| node.stage().settings());
    let sharing = settings.filter(|it| it.kind.computes() && it.workers.is_auto()).count();
    nodes.iter().map(|node| node.stage().settings().bounds(core.cores, sharing)).collect()
}

/// The looks at a run.
pub(crate) struct Pacer {
    controller: Controller,
    due: Duration,
    /// What was done when it was last looked, and for how many looks it has been so.
    done: u64,
    idle: u32,
    memory: Option<Memory>,
    memory_due: Duration,
    cores_due: Duration,
    /// CPU time that the looks have taken.
    cost: Duration,
}

impl Pacer {
    pub(crate) fn new(core: &Core, nodes: &[Box<dyn Node + '_>]) -> Option<Self> {
        if !core.is_measured {
            return None;
        }
        let ends = || std::iter::once(Bounds::fixed(1));
        let stages = ends().chain(bounds(core, nodes)).chain(ends()).collect();
        let settings = Settings::new(core.cores, stages).random((core.fraction() * 1e15) as u64);
        let paced = Paced {
            ranges: nodes
                .iter()
                .map(|node| (node.stage().workers(), node.stage().workers()))
                .collect(),
            ..Paced::default()
        };
        *lock(&core.paced) = paced;
        Some(Self {
            controller: Controller::new(settings),
            due: core.clock.now(),
            done: 0,
            idle: 0,
            memory: None,
            memory_due: Duration::ZERO,
            cores_due: Duration::ZERO,
            cost: Duration::ZERO,
        })
    }

    /// Looks if it is time to, and returns when to look again.
    pub(crate) fn look(
        &mut self,
        core: &Core,
        nodes: &[Box<dyn Node + '_>],
        exit: Option<&Exit<'_>>,
    ) -> Option<Duration> {
        if !core.clock.runs() {
            // The bell is rung when it goes on.
            return None;
        }
        let now = core.clock.now();
        if now < self.due {
            return Some(self.due - now);
        }
        let began = meter::thread_cpu();
        if now >= self.memory_due {
            self.memory = meter::memory();
            self.memory_due = now + MEMORY_EVERY;
        }
        let mut snapshot = self.snapshot(now, core, nodes, exit);
        if now >= self.cores_due {
            let most = core.cpu_budget.unwrap_or(f64::INFINITY);
            snapshot.cores = Some(meter::cores().min(most));
            self.cores_due = now + CORES_EVERY;
        }
        let done = snapshot.stages.iter().map(|stage| stage.entered + stage.done).sum();
        // What starts will be at work soon, and then there is much to see.
        let is_starting = snapshot.stages.iter().any(|stage| stage.starting > 0);
        self.idle = if done == self.done && !is_starting { self.idle + 1 } else { 0 };
        self.done = done;
        let mut look = self.controller.look(&snapshot);
        let mut paced = lock(&core.paced);
        for decision in &look.decisions {
            let (fewest, most) = &mut paced.ranges[decision.stage - 1];
            (*fewest, *most) = ((*fewest).min(decision.to), (*most).max(decision.to));
            nodes[decision.stage - 1].resize(decision.to);
        }
        if let Some(survey) = &look.survey {
            paced.note(survey);
        }
        drop(paced);
        if !look.decisions.is_empty() {
            core.fit(nodes);
        }
        let spent = |began: Duration| meter::thread_cpu().saturating_sub(began);
        if let (Some(survey), Some(observer)) = (&mut look.survey, &core.ledger.observer) {
            survey.cost = self.cost + spent(began);
            observer.paced(survey);
        }
        let cost = spent(began);
        self.cost += cost;
        let age = now.saturating_sub(core.started);
        let dear = cost.div_f64(COST[usize::from(age > AT_FIRST)]);
        let idle = look.next * 2_u32.saturating_pow(self.idle.saturating_sub(3).min(6));
        let next = dear.max(idle).min(RAREST).max(look.next);
        self.due = now + next;
        Some(next)
    }

    fn snapshot(
        &self,
        now: Duration,
        core: &Core,
        nodes: &[Box<dyn Node + '_>],
        exit: Option<&Exit<'_>>,
    ) -> Snapshot {
        let taken = core.ledger.taken.load(Ordering::Relaxed);
        let end = |busy: Duration, done: u64| Counts {
            workers: 1,
            entered: done,
            done,
            busy,
            cpu: Some(Duration::ZERO),
            waiting_for_core: Some(Duration::ZERO),
            ..Counts::default()
        };
        let mut stages = vec![end(core.source.busy(now).0, taken)];
        // One loop has many workers of these kinds: it knows how many of them wait.
        let mut knows = false;
        for node in nodes {
            let (counts, before) = node.stage().counts(now);
            if let Some(upstream) = stages.last_mut()
                && !knows
            {
                upstream.blocked = before;
            }
            stages.push(counts);
            knows = node.stage().settings().kind.shares_loops();
        }
        let exit = exit.map(|exit| exit());
        let sunk = exit.map_or_else(|| core.ledger.ended(), |queue| queue.popped);
        if let (Some(last), Some(queue), false) = (stages.last_mut(), exit, knows) {
            last.blocked = queue.waited_on_full;
        }
        stages.push(Counts {
            depth: exit.map_or(0, |queue| queue.depth),
            ..end(core.sink.busy(now).0, sunk)
        });
        let process = meter::process_cpu();
        share_polls(&mut stages, nodes, process);
        let of_kind = |of: fn(Kind) -> bool| -> Duration {
            let fits =
                nodes.iter().zip(&stages[1..]).filter(|(node, _)| of(node.stage().settings().kind));
            fits.filter_map(|(_, counts)| counts.cpu).sum()
        };
        let cpu = Some(process + of_kind(|kind| matches!(kind, Kind::Command | Kind::Serve)));
        Snapshot { at: now, stages, cpu, memory: self.memory, cores: None }
    }
}

/// The time of polls counts as CPU time, and a poll may be pre-empted. All
/// polls together take no more CPU time than the threads of stages leave of
/// the program's; what is beyond that was time without a core.
fn share_polls(stages: &mut [Counts], nodes: &[Box<dyn Node + '_>], process: Duration) {
    let kinds = || nodes.iter().map(|node| node.stage().settings().kind);
    let sum = |stages: &[Counts], of: fn(Kind) -> bool| -> f64 {
        let fits = kinds().zip(&stages[1..]).filter(|(kind, _)| of(*kind));
        fits.filter_map(|(_, counts)| counts.cpu).sum::<Duration>().as_secs_f64()
    };
    let threads = sum(stages, |kind| matches!(kind, Kind::Cpu | Kind::Blocking));
    let polls = sum(stages, |kind| kind == Kind::Io);
    let left = (process.as_secs_f64() - threads).max(0.0);
    if polls <= left || polls <= 0.0 {
        return;
    }
    for (kind, counts) in kinds().zip(&mut stages[1..]) {
        if let (Kind::Io, Some(cpu)) = (kind, &mut counts.cpu) {
            let real = cpu.mul_f64(left / polls);
            counts.waiting_for_core = Some(cpu.saturating_sub(real));
            *cpu = real;
        }
    }
}
