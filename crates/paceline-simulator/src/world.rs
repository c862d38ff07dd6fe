//! A pipeline in simulated time.
//!
//! Events and no steps: an item's work is a few CPU bursts and waits. Cores
//! are shared evenly by all bursts that are ready, those of a neighbour
//! included. Waits end by a timer, or pass a server that has its own ways of
//! being full. Everything the live engine counts is counted here too.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};

use paceline::pace::{Bounds, Counts, Snapshot};

use crate::random::Random;

/// What a stage waits for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Server {
    /// Has room for all.
    Free,
    /// Serves so many at once, the others in the order in which they came.
    Slots(usize),
    /// Slows all down as they become more (the universal scalability law).
    Knee { contention: f64, crosstalk: f64 },
    /// Refuses whoever comes when so many are there.
    Rejecting(usize),
    /// Begins no more than so many in a second.
    Bucket(f64),
}

/// A stage: the means of an item's work, and what it passes.
#[derive(Clone, Debug)]
pub struct StagePlan {
    pub cpu: f64,
    pub wait: f64,
    pub spread: f64,
    pub server: Server,
    /// How many items may wait before it.
    pub queue: usize,
    /// How many items come out for one that goes in.
    pub gain: f64,
    pub bounds: Bounds,
    /// One item in ten costs this many times as much.
    pub tail: f64,
}

/// What changes on the way.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// So many threads of a neighbour compute all the time.
    Neighbours(f64),
    /// The waits of a stage are this many times as long.
    Waits(usize, f64),
    /// The CPU times of a stage are this many times as long.
    Work(usize, f64),
    /// A stage's server has so many slots.
    Slots(usize, usize),
}

/// A pipeline, its machine, and what happens to both.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub cores: f64,
    /// What the pace is told; more than there are where a quota is hidden.
    pub cores_told: f64,
    /// CPU time of the source for an item, and its wait.
    pub source: (f64, f64),
    pub stages: Vec<StagePlan>,
    pub changes: Vec<(f64, Change)>,
    /// Whether the time without a core is known, as it is of threads and not of children.
    pub sees_queue: bool,
    /// How many items there are; endless unless said.
    pub items: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    /// A wait of stage `.0` ends; CPU time `.1` follows.
    Waited(usize, f64),
    /// A refused item may be tried again by stage `.0`; true if a worker waits with it.
    Back(usize, bool),
    /// The change of this number.
    Change(usize),
}

#[derive(Clone, Copy, Debug)]
struct At<E> {
    time: f64,
    order: u64,
    what: E,
}

impl<E> PartialEq for At<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl<E> Eq for At<E> {}
impl<E> PartialOrd for At<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for At<E> {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        other.time.total_cmp(&self.time).then(other.order.cmp(&self.order))
    }
}

/// What follows a CPU burst.
#[derive(Clone, Copy, Debug)]
enum After {
    /// A wait of stage `.0` of this length, then this CPU time.
    Wait(usize, f64, f64),
    /// The item of stage `.0` is done.
    Done(usize),
}

#[derive(Debug)]
struct Stage {
    plan: StagePlan,
    workers: usize,
    waiting: usize,
    in_service: usize,
    computing: usize,
    /// Workers that hold this many items for which there is no room.
    blocked: VecDeque<u32>,
    /// Refused items that wait for another attempt, each in a place of the queue.
    held: usize,
    /// Workers that wait with theirs, since there was no such place.
    resting: usize,
    at_server: usize,
    /// How many are served there; the others stand in line.
    served: usize,
    line: VecDeque<(f64, f64)>,
    next_token: f64,
    slower: f64,
    heavier: f64,
    entered: u64,
    done: u64,
    tries: u64,
    pushback: u64,
    busy: f64,
    cpu: f64,
    queued: f64,
    starved: f64,
    full: f64,
    squares: f64,
    /// The sum of workers over time, for the mean.
    worker_time: f64,
}

/// The state of a simulated run.
#[derive(Debug)]
pub struct World {
    plan: Plan,
    pub now: f64,
    random: Random,
    stages: Vec<Stage>,
    events: BinaryHeap<At<Event>>,
    bursts: BinaryHeap<At<After>>,
    /// CPU time that a burst which was always ready would have got.
    virtual_time: f64,
    order: u64,
    neighbours: f64,
    left: u64,
}

impl World {
    /// A run that has not begun; stages have `workers`.
    #[must_use]
    pub fn new(plan: &Plan, seed: u64) -> Self {
        let end = |cpu, wait| StagePlan {
            cpu,
            wait,
            spread: 0.2,
            server: Server::Free,
            queue: 16,
            gain: 1.0,
            bounds: Bounds::fixed(1),
            tail: 1.0,
        };
        let source = end(plan.source.0, plan.source.1);
        let sink = end(2e-6, 0.0);
        let all = std::iter::once(source).chain(plan.stages.iter().cloned()).chain([sink]);
        let mut world = Self {
            now: 0.0,
            random: Random::new(seed),
            stages: all.map(Stage::new).collect(),
            events: BinaryHeap::new(),
            bursts: BinaryHeap::new(),
            virtual_time: 0.0,
            order: 0,
            neighbours: 0.0,
            left: plan.items.unwrap_or(u64::MAX),
            plan: plan.clone(),
        };
        for (number, (time, _)) in plan.changes.iter().enumerate() {
            world.at(*time, Event::Change(number));
        }
        world.start(0);
        world
    }

    /// Gives a stage of the plan (the source is 0) so many workers.
    pub fn set_workers(&mut self, stage: usize, workers: usize) {
        self.stages[stage].workers = workers;
        self.start(stage);
    }

    /// Goes on until `time`, or until all items are through.
    pub fn run_until(&mut self, time: f64) {
        while self.now < time && !self.is_over() {
            let ready = self.bursts.len() as f64;
            let share = (self.plan.cores / (ready + self.neighbours)).min(1.0);
            let burst = self.bursts.peek().map_or(f64::INFINITY, |burst| {
                self.now + ((burst.time - self.virtual_time) / share).max(0.0)
            });
            let event = self.events.peek().map_or(f64::INFINITY, |event| event.time);
            let next = burst.min(event).min(time);
            self.pass(next - self.now, share);
            self.now = next;
            if next == time && burst > time && event > time {
                return;
            }
            if burst <= event {
                if let Some(burst) = self.bursts.pop() {
                    self.virtual_time = self.virtual_time.max(burst.time);
                    self.burst_ended(burst.what);
                }
            } else if let Some(event) = self.events.pop() {
                self.happens(event.what);
            }
        }
    }

    /// Whether all items are through.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.left == 0 && self.inside() == 0
    }

    fn inside(&self) -> usize {
        self.stages.iter().map(|stage| stage.waiting + stage.at_work() + stage.held).sum()
    }

    fn pass(&mut self, time: f64, share: f64) {
        self.virtual_time += time * share;
        for stage in &mut self.stages {
            let (serving, full) = (stage.in_service as f64, stage.blocked.len() as f64);
            let computing = stage.computing as f64;
            stage.busy += serving * time;
            stage.cpu += computing * share * time;
            stage.queued += computing * (1.0 - share) * time;
            stage.full += full * time;
            let idle = stage.workers as f64 - stage.at_work() as f64;
            stage.starved += idle.max(0.0) * time;
            stage.worker_time += stage.workers as f64 * time;
        }
    }

    fn at(&mut self, time: f64, what: Event) {
        self.order += 1;
        self.events.push(At { time, order: self.order, what });
    }

    /// Lets idle workers of a stage take what waits.
    fn start(&mut self, place: usize) {
        loop {
            let is_source = place == 0;
            let left = self.left;
            let stage = &mut self.stages[place];
            if stage.at_work() >= stage.workers {
                return;
            }
            if is_source {
                if left == 0 {
                    return;
                }
                self.left = left.saturating_sub(1);
            } else {
                if stage.waiting == 0 {
                    return;
                }
                stage.waiting -= 1;
            }
            let stage = &mut self.stages[place];
            stage.entered += 1;
            stage.tries += 1;
            stage.in_service += 1;
            let (plan, random) = (&stage.plan, &mut self.random);
            // One in ten is heavy, the others so much lighter that the mean stays.
            let tail = match plan.tail {
                1.0 => 1.0,
                tail => (if random.part() < 0.1 { tail } else { 1.0 }) / (0.9 + 0.1 * tail),
            };
            let cpu = random.around(plan.cpu, plan.spread) * stage.heavier * tail;
            let wait = random.around(plan.wait, plan.spread) * stage.slower * tail;
            stage.squares += (cpu + wait).powi(2);
            match (cpu > 0.0, wait > 0.0) {
                (true, true) => self.burst(place, cpu / 2.0, After::Wait(place, wait, cpu / 2.0)),
                (false, true) => self.wait(place, wait, 0.0),
                _ => self.burst(place, cpu, After::Done(place)),
            }
            if !is_source {
                self.let_in(place);
            }
        }
    }

    /// Lets a blocked worker before `place` hand over into the room that is there.
    fn let_in(&mut self, place: usize) {
        let mut freed = false;
        while self.stages[place].has_room() {
            let before = &mut self.stages[place - 1];
            let Some(held) = before.blocked.front_mut() else { break };
            *held -= 1;
            if *held == 0 {
                before.blocked.pop_front();
                freed = true;
            }
            self.stages[place].waiting += 1;
        }
        if freed {
            self.start(place - 1);
        }
    }

    fn burst(&mut self, place: usize, cpu: f64, after: After) {
        self.stages[place].computing += 1;
        self.order += 1;
        self.bursts.push(At { time: self.virtual_time + cpu, order: self.order, what: after });
    }

    fn burst_ended(&mut self, after: After) {
        match after {
            After::Wait(place, wait, cpu) => {
                self.stages[place].computing -= 1;
                self.wait(place, wait, cpu);
            }
            After::Done(place) => {
                self.stages[place].computing -= 1;
                self.done(place);
            }
        }
    }

    fn wait(&mut self, place: usize, wait: f64, cpu: f64) {
        let now = self.now;
        let stage = &mut self.stages[place];
        stage.at_server += 1;
        let there = stage.at_server;
        let length = match stage.plan.server {
            Server::Free => wait,
            Server::Slots(slots) if stage.served >= slots => {
                stage.line.push_back((wait, cpu));
                return;
            }
            Server::Slots(_) => wait,
            Server::Knee { contention, crosstalk } => {
                let others = (there - 1) as f64;
                wait * (1.0 + contention * others + crosstalk * others * there as f64)
            }
            Server::Rejecting(most) if there > most => {
                stage.at_server -= 1;
                stage.pushback += 1;
                stage.in_service -= 1;
                stage.entered -= 1;
                // As many wait without a worker as the queue may hold.
                let rests = stage.held >= stage.plan.queue;
                if rests {
                    stage.resting += 1;
                } else {
                    stage.held += 1;
                }
                let back = now + 0.1 * (0.5 + self.random.part());
                self.at(back, Event::Back(place, rests));
                self.start(place);
                return;
            }
            Server::Rejecting(_) => wait,
            Server::Bucket(rate) => {
                stage.next_token = stage.next_token.max(now) + 1.0 / rate;
                stage.next_token - now + wait
            }
        };
        stage.served += 1;
        self.at(now + length, Event::Waited(place, cpu));
    }

    /// Serves those in line for whom there are slots.
    fn serve(&mut self, place: usize) {
        let stage = &mut self.stages[place];
        let Server::Slots(slots) = stage.plan.server else { return };
        while stage.served < slots
            && let Some((wait, cpu)) = stage.line.pop_front()
        {
            stage.served += 1;
            self.order += 1;
            let what = Event::Waited(place, cpu);
            self.events.push(At { time: self.now + wait, order: self.order, what });
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Waited(place, cpu) => {
                let stage = &mut self.stages[place];
                stage.at_server -= 1;
                stage.served -= 1;
                self.serve(place);
                if cpu > 0.0 {
                    self.burst(place, cpu, After::Done(place));
                } else {
                    self.done(place);
                }
            }
            Event::Back(place, rests) => {
                let stage = &mut self.stages[place];
                let waits = if rests { &mut stage.resting } else { &mut stage.held };
                *waits -= 1;
                stage.waiting += 1;
                self.start(place);
            }
            Event::Change(number) => match self.plan.changes[number].1 {
                Change::Neighbours(threads) => self.neighbours = threads,
                Change::Waits(place, times) => self.stages[place].slower = times,
                Change::Work(place, times) => self.stages[place].heavier = times,
                Change::Slots(place, slots) => {
                    self.stages[place].plan.server = Server::Slots(slots);
                    self.serve(place);
                }
            },
        }
    }

    fn done(&mut self, place: usize) {
        let gain = self.stages[place].plan.gain;
        let extra = self.random.part() < gain.fract();
        let stage = &mut self.stages[place];
        stage.in_service -= 1;
        stage.done += 1;
        let mut out = gain as u32 + u32::from(extra);
        if place + 1 < self.stages.len() {
            let next = &mut self.stages[place + 1];
            while out > 0 && next.has_room() {
                next.waiting += 1;
                out -= 1;
            }
            if out > 0 {
                self.stages[place].blocked.push_back(out);
            }
            self.start(place + 1);
            self.let_in(place + 1);
        }
        self.start(place);
    }

    /// What the engine would have counted.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let time = |seconds: f64| Duration::from_secs_f64(seconds.max(0.0));
        let counts = |stage: &Stage| Counts {
            workers: stage.workers,
            entered: stage.entered,
            done: stage.done,
            tries: stage.tries,
            pushback: stage.pushback,
            busy: time(stage.busy),
            squares: stage.squares,
            cpu: Some(time(stage.cpu)),
            waiting_for_core: self.plan.sees_queue.then(|| time(stage.queued)),
            starved: time(stage.starved),
            blocked: time(stage.full),
            depth: stage.waiting,
            ..Counts::default()
        };
        Snapshot {
            at: time(self.now),
            stages: self.stages.iter().map(counts).collect(),
            ..Snapshot::default()
        }
    }

    /// Items of the source that have come through so far.
    #[must_use]
    pub fn through(&self) -> f64 {
        let visits: f64 = self.plan.stages.iter().map(|stage| stage.gain).product();
        let sink = &self.stages[self.stages.len() - 1];
        sink.done as f64 / visits
    }

    /// The sum over tuned stages of workers times seconds.
    #[must_use]
    pub fn worker_time(&self) -> f64 {
        let tuned = self.stages.iter().filter(|stage| !stage.plan.bounds.is_fixed);
        tuned.map(|stage| stage.worker_time).sum()
    }

    /// CPU seconds used.
    #[must_use]
    pub fn cpu_time(&self) -> f64 {
        self.stages.iter().map(|stage| stage.cpu).sum()
    }

    /// How many are at the server of a stage now.
    #[must_use]
    pub fn at_server(&self, place: usize) -> usize {
        self.stages[place].at_server
    }
}

impl Stage {
    /// Workers that have something in hand.
    fn at_work(&self) -> usize {
        self.in_service + self.blocked.len() + self.resting
    }

    fn has_room(&self) -> bool {
        self.waiting + self.held < self.plan.queue
    }

    fn new(plan: StagePlan) -> Self {
        Self {
            workers: plan.bounds.seed,
            plan,
            waiting: 0,
            in_service: 0,
            computing: 0,
            blocked: VecDeque::new(),
            held: 0,
            resting: 0,
            at_server: 0,
            served: 0,
            line: VecDeque::new(),
            next_token: 0.0,
            slower: 1.0,
            heavier: 1.0,
            entered: 0,
            done: 0,
            tries: 0,
            pushback: 0,
            busy: 0.0,
            cpu: 0.0,
            queued: 0.0,
            starved: 0.0,
            full: 0.0,
            squares: 0.0,
            worker_time: 0.0,
        }
    }
}
