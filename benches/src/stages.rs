//! Three stages of trivial work in process.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use paceline::{BoxError, Pipeline};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use tokio::sync::{Mutex, mpsc};

use crate::{
    cpu,
    harness::{Bar, Contest, Options, timed},
};

pub(crate) const ABOUT: &str = "\
Time an item through three stages of trivial work, 2 million numbers, queues for 1024 items, with
one and with two workers a stage. By hand: threads and channels of crossbeam, carrying single
items or vectors of 64; tasks and channels of tokio (a lock around the receiver where two share
it). rayon has no queues and no stages: it is the floor that cutting the range up sets.";

const PACELINE: &str = "paceline";
const SINGLE: &str = "crossbeam";
const VECTORS: &str = "crossbeam, vectors of 64";

const BOUND: usize = 1024;
const VECTOR: usize = 64;

pub(crate) fn contests(options: &Options) -> Vec<Contest> {
    [1, 2].map(|workers| contest(workers, options.amount(2_000_000) as u64)).into()
}

fn contest(workers: usize, items: u64) -> Contest {
    let each = if workers == 1 { "1 worker" } else { "2 workers" };
    let mut contest = Contest::new(format!("{each} a stage"), "ns").measure("CPU time", "ns");
    let single = if workers == 1 { 0.4 } else { 0.15 };
    contest.bars.push(Bar::times(PACELINE, single, &[SINGLE]));
    contest.bars.push(Bar::times(PACELINE, 1.3, &[VECTORS]));
    let mut add = |name, run: fn(usize, u64, &Arc<Sum>) -> u64| {
        contest.add(name, move || {
            let sum = Arc::new(Sum::default());
            let cpu = cpu::own();
            let time: Duration = timed(|| assert_eq!(run(workers, items, &sum), items));
            let cpu = cpu::own() - cpu;
            sum.check(items);
            [time, cpu].map(|time| time.as_nanos() as f64 / items as f64).to_vec()
        });
    };
    add(PACELINE, by_paceline);
    add(SINGLE, by_crossbeam);
    add(VECTORS, by_crossbeam_vectors);
    add("tokio tasks, mpsc", by_tokio);
    add("rayon", by_rayon);
    contest
}

fn first(item: u64) -> u64 {
    black_box(item) + 1
}

fn second(item: u64) -> u64 {
    black_box(item) ^ 0x5555
}

/// What came out at the end, of each 64th item: a write for each would be most of the work.
#[derive(Default)]
struct Sum(AtomicU64);

impl Sum {
    fn third(&self, item: u64) {
        if black_box(item).is_multiple_of(64) {
            self.0.fetch_add(item, Ordering::Relaxed);
        }
    }

    fn check(&self, items: u64) {
        let expected = (0..items).map(|item| second(first(item)));
        let expected: u64 = expected.filter(|item| item.is_multiple_of(64)).sum();
        assert_eq!(self.0.load(Ordering::Relaxed), expected, "the sum is wrong");
    }
}

fn by_paceline(workers: usize, items: u64, sum: &Arc<Sum>) -> u64 {
    let summary = Pipeline::from_iter(0..items)
        .cpu("first", |item| Ok::<_, BoxError>(first(item)))
        .workers(workers)
        .queue(BOUND)
        .cpu("second", |item| Ok::<_, BoxError>(second(item)))
        .workers(workers)
        .queue(BOUND)
        .cpu("third", |item| {
            sum.third(item);
            Ok::<_, BoxError>(())
        })
        .workers(workers)
        .queue(BOUND)
        .run()
        .expect("it runs");
    summary.ok
}

fn by_crossbeam(workers: usize, items: u64, sum: &Arc<Sum>) -> u64 {
    let channels: [_; 3] = std::array::from_fn(|_| crossbeam_channel::bounded(BOUND));
    let [(source, into_first), (out_of_first, into_second), (out_of_second, into_third)] = channels;
    thread::scope(|scope| {
        scope.spawn(move || (0..items).for_each(|item| source.send(item).expect("open")));
        let mut last = Vec::new();
        for _ in 0..workers {
            let (rx, tx) = (into_first.clone(), out_of_first.clone());
            scope.spawn(move || rx.iter().for_each(|item| tx.send(first(item)).expect("open")));
            let (rx, tx) = (into_second.clone(), out_of_second.clone());
            scope.spawn(move || rx.iter().for_each(|item| tx.send(second(item)).expect("open")));
            let rx = into_third.clone();
            last.push(scope.spawn(move || rx.iter().map(|item| sum.third(item)).count() as u64));
        }
        drop((into_first, into_second, into_third, out_of_first, out_of_second));
        last.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    })
}

fn by_crossbeam_vectors(workers: usize, items: u64, sum: &Arc<Sum>) -> u64 {
    let channels: [_; 3] = std::array::from_fn(|_| crossbeam_channel::bounded(BOUND / VECTOR));
    let [(source, into_first), (out_of_first, into_second), (out_of_second, into_third)] = channels;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut items = 0..items;
            loop {
                let vector: Vec<u64> = items.by_ref().take(VECTOR).collect();
                if vector.is_empty() {
                    return;
                }
                source.send(vector).expect("open");
            }
        });
        let mut last = Vec::new();
        for _ in 0..workers {
            let (rx, tx) = (into_first.clone(), out_of_first.clone());
            scope.spawn(move || {
                for vector in &rx {
                    tx.send(vector.into_iter().map(first).collect::<Vec<_>>()).expect("open");
                }
            });
            let (rx, tx) = (into_second.clone(), out_of_second.clone());
            scope.spawn(move || {
                for vector in &rx {
                    tx.send(vector.into_iter().map(second).collect::<Vec<_>>()).expect("open");
                }
            });
            let rx = into_third.clone();
            last.push(scope.spawn(move || {
                let items = rx.iter().flatten().map(|item| sum.third(item));
                items.count() as u64
            }));
        }
        drop((into_first, into_second, into_third, out_of_first, out_of_second));
        last.into_iter().map(|thread| thread.join().expect("no thread panics")).sum()
    })
}

fn by_tokio(workers: usize, items: u64, sum: &Arc<Sum>) -> u64 {
    type Shared = Arc<Mutex<mpsc::Receiver<u64>>>;

    async fn next(rx: &Shared) -> Option<u64> {
        rx.lock().await.recv().await
    }

    async fn pass(rx: Shared, tx: mpsc::Sender<u64>, work: fn(u64) -> u64) {
        while let Some(item) = next(&rx).await {
            tx.send(work(item)).await.expect("open");
        }
    }

    let open = || {
        let (tx, rx) = mpsc::channel(BOUND);
        (tx, Arc::new(Mutex::new(rx)))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build();
    runtime.expect("a runtime can be made").block_on(async {
        let [(source, into_first), (out_of_first, into_second), (out_of_second, into_third)] =
            std::array::from_fn(|_| open());
        tokio::spawn(async move {
            for item in 0..items {
                source.send(item).await.expect("open");
            }
        });
        let mut last = Vec::new();
        for _ in 0..workers {
            tokio::spawn(pass(into_first.clone(), out_of_first.clone(), first));
            tokio::spawn(pass(into_second.clone(), out_of_second.clone(), second));
            let (rx, sum) = (into_third.clone(), sum.clone());
            last.push(tokio::spawn(async move {
                let mut count = 0;
                while let Some(item) = next(&rx).await {
                    sum.third(item);
                    count += 1;
                }
                count
            }));
        }
        drop((out_of_first, out_of_second));
        let mut count = 0;
        for task in last {
            count += task.await.expect("no task panics");
        }
        count
    })
}

fn by_rayon(_workers: usize, items: u64, sum: &Arc<Sum>) -> u64 {
    let outputs = (0..items).into_par_iter().map(first).map(second).map(|item| sum.third(item));
    outputs.count() as u64
}
