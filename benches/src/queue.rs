//! The queue alone: numbers from producers to consumers, and nothing else.

use std::{
    collections::VecDeque,
    hint,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use paceline_queue::{Producer, Queue};
use tokio::runtime::{Handle, Runtime};

use self::peers::{
    AsyncChannel, Awaits, Crossbeam, Flume, Kanal, Paceline, Peer, TokioMpsc, Waits,
};
use crate::harness::{Bar, Contest, Options, median, timed};

mod peers;

pub(crate) const ABOUT: &str = "\
Time an item from producers to consumers through one queue. Waiting ends are threads, async ends
tasks on a multi-threaded tokio runtime with two workers. `batches` are paceline's own, of 64;
they gather nothing in a queue for one item. Wake-up: the median time from a push to the idle
consumer having the item.";

const BATCHES: &str = "paceline batches";
const BATCH: usize = 64;

/// Who is on which side, and how much passes.
#[derive(Clone, Copy)]
struct Shape {
    /// Producers, and as many consumers.
    ends: usize,
    capacity: usize,
    items: usize,
}

impl Shape {
    /// The numbers that producer `number` pushes.
    fn numbers(self, number: usize) -> impl Iterator<Item = u64> + Send {
        (number as u64..self.items as u64).step_by(self.ends)
    }
}

pub(crate) fn contests(options: &Options) -> Vec<Contest> {
    let runtime = Arc::new(runtime());
    let mut contests = Vec::new();
    for (ends, capacity) in [(1, 1024), (4, 1024), (1, 1), (4, 1)] {
        // With room for one item every push is a hand-over from thread to thread.
        let items = options.amount(if capacity == 1 { 20_000 } else { 400_000 });
        let shape = Shape { ends, capacity, items };
        contests.push(waiting(shape));
        for (push, pop) in
            [(Side::Tasks, Side::Tasks), (Side::Threads, Side::Tasks), (Side::Tasks, Side::Threads)]
        {
            contests.push(mixed(shape, push, pop, &runtime));
        }
    }
    contests.push(wake_ups("threads", options.amount(2000), None));
    contests.push(wake_ups("tasks", options.amount(2000), Some(&runtime)));
    contests
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime can be made")
}

fn contest(shape: Shape, what: &str) -> Contest {
    let Shape { ends, capacity, .. } = shape;
    let mut contest = Contest::new(format!("{ends} to {ends}, {what}, bound {capacity}"), "ns");
    contest.bars = vec![
        Bar::times(Paceline::NAME, 1.0, &[Flume::NAME]),
        Bar::times(Paceline::NAME, 1.0, &[AsyncChannel::NAME]),
    ];
    contest
}

/// Threads on both sides: here crossbeam takes part, and batches do.
fn waiting(shape: Shape) -> Contest {
    fn add<P: Waits>(contest: &mut Contest, shape: Shape) {
        contest.add_timed(P::NAME, shape.items, move || {
            cross::<P>(shape, |txs| push_threads::<P>(txs, shape), pop_threads::<P>)
        });
    }
    let mut contest = contest(shape, "waiting ends");
    if shape.capacity >= BATCH {
        contest.bars.push(Bar::times(BATCHES, 0.5, &[Crossbeam::NAME]));
    }
    add::<Paceline>(&mut contest, shape);
    contest.add_timed(BATCHES, shape.items, move || {
        cross::<Paceline>(
            shape,
            |txs| crew(txs, move |number, tx| push_batches(&tx, shape, number)),
            |rxs| crew(rxs, |_, rx| pop_batches(&rx)),
        )
    });
    add::<Crossbeam>(&mut contest, shape);
    add::<Flume>(&mut contest, shape);
    add::<AsyncChannel>(&mut contest, shape);
    add::<Kanal>(&mut contest, shape);
    if shape.ends == 1 {
        add::<TokioMpsc>(&mut contest, shape);
    }
    contest
}

/// What waits at an end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Side {
    Threads,
    Tasks,
}

/// Tasks on at least one side.
fn mixed(shape: Shape, push: Side, pop: Side, runtime: &Arc<Runtime>) -> Contest {
    struct Scene<'a>(Contest, Shape, Side, Side, &'a Arc<Runtime>);

    fn add<P: Waits + Awaits>(Scene(contest, shape, push, pop, runtime): &mut Scene<'_>) {
        let (shape, push, pop, runtime) = (*shape, *push, *pop, runtime.clone());
        contest.add_timed(P::NAME, shape.items, move || {
            cross::<P>(
                shape,
                |txs| match push {
                    Side::Threads => push_threads::<P>(txs, shape),
                    Side::Tasks => push_tasks::<P>(txs, shape, &runtime),
                },
                |rxs| match pop {
                    Side::Threads => pop_threads::<P>(rxs),
                    Side::Tasks => pop_tasks::<P>(rxs, &runtime),
                },
            )
        });
    }
    let what = match (push, pop) {
        (Side::Tasks, Side::Tasks) => "async ends",
        (Side::Threads, _) => "waiting push, async pop",
        (_, Side::Threads) => "async push, waiting pop",
    };
    let mut scene = Scene(contest(shape, what), shape, push, pop, runtime);
    add::<Paceline>(&mut scene);
    add::<Flume>(&mut scene);
    add::<AsyncChannel>(&mut scene);
    add::<Kanal>(&mut scene);
    if shape.ends == 1 {
        add::<TokioMpsc>(&mut scene);
    }
    scene.0
}

/// Someone at work, to be waited for.
enum Hand<R> {
    Thread(thread::JoinHandle<R>),
    Task(tokio::task::JoinHandle<R>, Handle),
}

impl<R> Hand<R> {
    fn join(self) -> R {
        match self {
            Hand::Thread(thread) => thread.join().expect("no thread panics"),
            Hand::Task(task, runtime) => runtime.block_on(task).expect("no task panics"),
        }
    }
}

/// Times a crossing of all numbers, from making the channel on.
fn cross<P: Peer>(
    shape: Shape,
    push: impl FnOnce(Vec<P::Tx>) -> Vec<Hand<()>>,
    pop: impl FnOnce(Vec<P::Rx>) -> Vec<Hand<u64>>,
) -> Duration {
    timed(|| {
        let (txs, rxs) = P::open(shape.capacity, shape.ends, shape.ends);
        let poppers = pop(rxs);
        push(txs).into_iter().for_each(Hand::join);
        let sum: u64 = poppers.into_iter().map(Hand::join).sum();
        let items = shape.items as u64;
        assert_eq!(sum, items * (items - 1) / 2, "items were lost or doubled");
    })
}

/// A thread for each of `ends`.
fn crew<E: Send + 'static, R: Send + 'static>(
    ends: Vec<E>,
    work: impl Fn(usize, E) -> R + Clone + Send + 'static,
) -> Vec<Hand<R>> {
    let hands = ends.into_iter().enumerate().map(|(number, end)| {
        let work = work.clone();
        Hand::Thread(thread::spawn(move || work(number, end)))
    });
    hands.collect()
}

fn push_threads<P: Waits>(txs: Vec<P::Tx>, shape: Shape) -> Vec<Hand<()>> {
    crew(txs, move |number, tx| shape.numbers(number).for_each(|item| P::push(&tx, item)))
}

fn pop_threads<P: Waits>(rxs: Vec<P::Rx>) -> Vec<Hand<u64>> {
    crew(rxs, |_, mut rx| {
        let mut sum = 0;
        while let Some(item) = P::pop(&mut rx) {
            sum += item;
        }
        sum
    })
}

fn push_batches(tx: &Producer<u64>, shape: Shape, number: usize) {
    let mut numbers = shape.numbers(number);
    let mut batch = VecDeque::with_capacity(BATCH);
    loop {
        batch.extend(numbers.by_ref().take(BATCH));
        if batch.is_empty() {
            return;
        }
        tx.push_batch(&mut batch).expect("open");
    }
}

fn pop_batches(rx: &Queue<u64>) -> u64 {
    let mut batch = VecDeque::with_capacity(BATCH);
    let mut sum = 0;
    while rx.pop_batch(&mut batch, BATCH).is_ok() {
        sum += batch.drain(..).sum::<u64>();
    }
    sum
}

fn push_tasks<P: Awaits>(txs: Vec<P::Tx>, shape: Shape, runtime: &Runtime) -> Vec<Hand<()>> {
    let hands = txs.into_iter().enumerate().map(|(number, tx)| {
        let task = runtime.spawn(async move {
            for item in shape.numbers(number) {
                P::push_async(&tx, item).await;
            }
        });
        Hand::Task(task, runtime.handle().clone())
    });
    hands.collect()
}

fn pop_tasks<P: Awaits>(rxs: Vec<P::Rx>, runtime: &Runtime) -> Vec<Hand<u64>> {
    let hands = rxs.into_iter().map(|mut rx| {
        let task = runtime.spawn(async move {
            let mut sum = 0;
            while let Some(item) = P::pop_async(&mut rx).await {
                sum += item;
            }
            sum
        });
        Hand::Task(task, runtime.handle().clone())
    });
    hands.collect()
}

/// How long an idle consumer takes to have what was pushed.
fn wake_ups(consumer: &str, pings: usize, runtime: Option<&Arc<Runtime>>) -> Contest {
    let mut contest = Contest::new(format!("wake-up of {consumer}"), "ns");
    let peers = match runtime {
        None => vec![Crossbeam::NAME, Flume::NAME, AsyncChannel::NAME, Kanal::NAME],
        Some(_) => vec![Flume::NAME, AsyncChannel::NAME, Kanal::NAME, TokioMpsc::NAME],
    };
    contest.bars.push(Bar::times(Paceline::NAME, 1.2, &peers));
    match runtime {
        None => {
            fn add<P: Waits>(contest: &mut Contest, pings: usize) {
                contest.add(P::NAME, move || {
                    vec![ping::<P>(pings, |rx, note| {
                        crew(vec![rx], move |_, mut rx| {
                            while let Some(sent) = P::pop(&mut rx) {
                                note.take(sent);
                            }
                        })
                    })]
                });
            }
            add::<Paceline>(&mut contest, pings);
            add::<Crossbeam>(&mut contest, pings);
            add::<Flume>(&mut contest, pings);
            add::<AsyncChannel>(&mut contest, pings);
            add::<Kanal>(&mut contest, pings);
        }
        Some(runtime) => {
            fn add<P: Waits + Awaits>(contest: &mut Contest, pings: usize, runtime: &Arc<Runtime>) {
                let runtime = runtime.clone();
                contest.add(P::NAME, move || {
                    vec![ping::<P>(pings, |mut rx, note| {
                        let task = runtime.spawn(async move {
                            while let Some(sent) = P::pop_async(&mut rx).await {
                                note.take(sent);
                            }
                        });
                        vec![Hand::Task(task, runtime.handle().clone())]
                    })]
                });
            }
            add::<Paceline>(&mut contest, pings, runtime);
            add::<Flume>(&mut contest, pings, runtime);
            add::<AsyncChannel>(&mut contest, pings, runtime);
            add::<Kanal>(&mut contest, pings, runtime);
            add::<TokioMpsc>(&mut contest, pings, runtime);
        }
    }
    contest
}

/// Where the consumer notes when it had the item.
struct Note {
    origin: Instant,
    took: AtomicU64,
}

impl Note {
    fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    fn take(&self, sent: u64) {
        self.took.store((self.now() - sent).max(1), Ordering::Release);
    }
}

/// Pushes again and again to a consumer that sleeps, and returns the median
/// of the times until it has the item.
fn ping<P: Waits>(pings: usize, consumer: impl FnOnce(P::Rx, Arc<Note>) -> Vec<Hand<()>>) -> f64 {
    /// Long enough for anybody to give up looking and sleep.
    const IDLE: Duration = Duration::from_micros(150);
    let note = Arc::new(Note { origin: Instant::now(), took: AtomicU64::new(0) });
    let (mut txs, mut rxs) = P::open(16, 1, 1);
    let (tx, rx) = (txs.remove(0), rxs.remove(0));
    let hands = consumer(rx, note.clone());
    let times = (0..pings).map(|_| {
        let idle_since = Instant::now();
        while idle_since.elapsed() < IDLE {
            hint::spin_loop();
        }
        P::push(&tx, note.now());
        loop {
            match note.took.swap(0, Ordering::Acquire) {
                0 => hint::spin_loop(),
                took => return took as f64,
            }
        }
    });
    let times = times.collect();
    drop(tx);
    hands.into_iter().for_each(Hand::join);
    median(times)
}
