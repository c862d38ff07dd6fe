//! Pools of threads that answer for what is submitted.

use std::{
    collections::VecDeque,
    process::Command,
    sync::mpsc,
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use paceline::{Answer, BoxError, ThreadPool};
use rayon::prelude::*;

use crate::harness::{Bar, Contest, Options, timed};

pub(crate) const ABOUT: &str = "\
Time an item of trivial work for a pool of two threads. By hand: threads that take boxed functions
from a crossbeam channel with the same bound, each with a channel of one for its answer. rayon's
queue has no bound, and its map splits the items among the threads without a hand-over for each.
Python is `concurrent.futures.ThreadPoolExecutor`, measured within itself.";

const PACELINE: &str = "paceline";
const BY_HAND: &str = "by hand on crossbeam";
const RAYON: &str = "rayon";
const PYTHON: &str = "Python";

const WORKERS: usize = 2;
const QUEUE: usize = 1024;

pub(crate) fn contests(options: &Options) -> Vec<Contest> {
    vec![
        all_then_wait(options.amount(1_000_000)),
        one_by_one(options.amount(100_000)),
        map(options.amount(1_000_000)),
    ]
}

fn pool() -> ThreadPool {
    ThreadPool::builder("bench").workers(WORKERS).queue(QUEUE).build().expect("it is valid")
}

fn rayon_pool() -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build().expect("it is valid")
}

/// The work: too little to measure, and not nothing.
fn work(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn all_then_wait(items: usize) -> Contest {
    let mut contest = Contest::new("submit all, then wait for each", "ns");
    contest.bars.push(Bar::times(PACELINE, 1.1, &[BY_HAND]));
    contest.add_timed(PACELINE, items, move || {
        let pool = pool();
        timed(|| {
            let submit = |n| pool.submit(move || Ok::<_, BoxError>(work(n))).expect("it is open");
            let answers: Vec<Answer<u64>> = (0..items as u64).map(submit).collect();
            answers.into_iter().for_each(|answer| {
                answer.wait().expect("it is done");
            });
        })
    });
    contest.add_timed(BY_HAND, items, move || {
        let pool = ByHand::new();
        timed(|| {
            let answers: Vec<_> = (0..items as u64).map(|n| pool.submit(move || work(n))).collect();
            answers.into_iter().for_each(|answer| {
                answer.recv().expect("it is done");
            });
        })
    });
    contest.add_timed(RAYON, items, move || {
        let pool = rayon_pool();
        timed(|| {
            let submit = |n| {
                let (told, heard) = mpsc::sync_channel(1);
                pool.spawn(move || told.send(work(n)).expect("it is waited for"));
                heard
            };
            let answers: Vec<_> = (0..items as u64).map(submit).collect();
            answers.into_iter().for_each(|answer| {
                answer.recv().expect("it is done");
            });
        })
    });
    python(&mut contest, items / 10, "[f.result() for f in [pool.submit(work, n) for n in items]]");
    contest
}

fn one_by_one(items: usize) -> Contest {
    let mut contest = Contest::new("submit and wait, one by one", "ns");
    contest.bars.push(Bar::times(PACELINE, 1.1, &[BY_HAND]));
    contest.add_timed(PACELINE, items, move || {
        let pool = pool();
        timed(|| {
            for n in 0..items as u64 {
                let answer = pool.submit(move || Ok::<_, BoxError>(work(n))).expect("it is open");
                answer.wait().expect("it is done");
            }
        })
    });
    contest.add_timed(BY_HAND, items, move || {
        let pool = ByHand::new();
        timed(|| {
            for n in 0..items as u64 {
                pool.submit(move || work(n)).recv().expect("it is done");
            }
        })
    });
    contest.add_timed(RAYON, items, move || {
        let pool = rayon_pool();
        timed(|| {
            for n in 0..items as u64 {
                pool.install(|| work(n));
            }
        })
    });
    python(&mut contest, items / 10, "[pool.submit(work, n).result() for n in items]");
    contest
}

fn map(items: usize) -> Contest {
    let mut contest = Contest::new("map, in order", "ns");
    contest.bars.push(Bar::times(PACELINE, 1.1, &[BY_HAND]));
    contest.add_timed(PACELINE, items, move || {
        let pool = pool();
        timed(|| {
            let outcomes = pool.map(0..items as u64, |n| Ok::<_, BoxError>(work(n)));
            assert_eq!(outcomes.filter(Result::is_ok).count(), items);
        })
    });
    contest.add_timed(BY_HAND, items, move || {
        let pool = ByHand::new();
        timed(|| {
            let mut ahead = VecDeque::new();
            for n in 0..items as u64 {
                ahead.push_back(pool.submit(move || work(n)));
                if ahead.len() > QUEUE {
                    ahead.pop_front().map(|answer: Receiver<u64>| answer.recv());
                }
            }
            ahead.into_iter().for_each(|answer| {
                answer.recv().expect("it is done");
            });
        })
    });
    contest.add_timed(RAYON, items, move || {
        let pool = rayon_pool();
        timed(|| {
            let all = || (0..items as u64).into_par_iter().map(work).collect::<Vec<_>>();
            assert_eq!(pool.install(all).len(), items);
        })
    });
    python(&mut contest, items / 10, "list(pool.map(work, items))");
    contest
}

type Boxed = Box<dyn FnOnce() + Send>;

/// What one writes in a hurry.
struct ByHand {
    queue: Option<Sender<Boxed>>,
    threads: Vec<JoinHandle<()>>,
}

impl ByHand {
    fn new() -> Self {
        let (queue, work) = bounded::<Boxed>(QUEUE);
        let threads = (0..WORKERS).map(|_| {
            let work = work.clone();
            thread::spawn(move || work.iter().for_each(|work| work()))
        });
        Self { queue: Some(queue), threads: threads.collect() }
    }

    fn submit<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Receiver<T> {
        let (told, heard) = bounded(1);
        let work = Box::new(move || drop(told.send(work())));
        self.queue.as_ref().expect("it is open").send(work).expect("it is open");
        heard
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.queue = None;
        self.threads.drain(..).for_each(|thread| thread.join().expect("no work panics"));
    }
}

/// Adds Python's pool, if there is a Python.
fn python(contest: &mut Contest, items: usize, expression: &str) {
    let script = format!(
        "import time\n\
         from concurrent.futures import ThreadPoolExecutor\n\
         def work(n): return n * 0x9e3779b97f4a7c15 & 0xffffffffffffffff\n\
         items = range({items})\n\
         with ThreadPoolExecutor({WORKERS}) as pool:\n\
         \x20   started = time.perf_counter()\n\
         \x20   {expression}\n\
         \x20   print((time.perf_counter() - started) * 1e9 / {items})\n"
    );
    let run = move || {
        let output = Command::new("python3").args(["-c", &script]).output().ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse::<f64>().ok()
    };
    match run() {
        Some(_) => contest.add(PYTHON, move || vec![run().expect("Python ran before")]),
        None => contest.absent.push(PYTHON),
    }
}
