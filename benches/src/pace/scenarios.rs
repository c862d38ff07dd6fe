//! The pipelines, for two cores or more.

use std::{
    env,
    hint::black_box,
    sync::{Arc, mpsc},
    time::Duration,
};

use paceline::{Attempt, BoxError, Command, Exchange, Form, Pipeline, Serve};
use rustix::time::{ClockId, clock_gettime};
use tokio::{sync::Semaphore, time::sleep};

use super::trial::{Outcome, Trial};

/// The argument that makes this program a child of a scenario.
pub(crate) const CHILD: &str = "pace-child";

/// Few, so that a run ends soon after its time is over.
const QUEUE: usize = 32;

const US: u64 = 1;
const MS: u64 = 1000;

pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// Where the search begins, and the most for each stage.
    pub(super) start: &'static [usize],
    pub(super) most: &'static [usize],
    /// How long a run is, and from when on it counts as steady.
    pub(super) length: Duration,
    pub(super) steady: Duration,
    /// A job with an end.
    pub(super) items: Option<u64>,
    /// When the waits become three times as long.
    pub(super) regime: Option<Duration>,
    pub(super) run: fn(&Trial) -> Outcome,
}

impl Scenario {
    /// A run by `auto`, or with fixed numbers, which have no ramp: shorter, and in the last regime.
    pub(super) fn trial(&self, numbers: Option<&[usize]>) -> Trial {
        match numbers {
            None => Trial::new(None, self.length, self.items, self.regime),
            Some(_) => {
                let regime = self.regime.map(|_| Duration::ZERO);
                Trial::new(numbers, FIXED.1, self.items, regime)
            }
        }
    }
}

/// From when on, and until when, a run with fixed numbers counts.
pub(super) const FIXED: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_millis(2500));

const USUAL: Scenario = Scenario {
    name: "",
    start: &[],
    most: &[],
    length: Duration::from_secs(6),
    steady: Duration::from_secs(4),
    items: None,
    regime: None,
    run: io_cpu_io,
};

pub(super) fn all() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "waits 40 ms, computes 4 ms, waits 20 ms",
            start: &[24, 3, 12],
            most: &[128, 8, 128],
            ..USUAL
        },
        Scenario {
            name: "server with 12 slots",
            start: &[16, 1],
            most: &[64, 4],
            run: slots,
            ..USUAL
        },
        Scenario {
            name: "server three times slower from 2 s on",
            start: &[64, 3],
            most: &[160, 6],
            length: Duration::from_secs(10),
            steady: Duration::from_secs(8),
            regime: Some(Duration::from_secs(2)),
            run: slower,
            ..USUAL
        },
        Scenario {
            name: "a child an item, 3 ms of CPU and 6 ms of waiting",
            start: &[5],
            most: &[32],
            run: children,
            ..USUAL
        },
        Scenario {
            name: "worker processes, 1 ms of CPU",
            start: &[2],
            most: &[8],
            run: workers,
            ..USUAL
        },
        Scenario {
            name: "worker processes that wait 20 ms",
            start: &[24],
            most: &[32],
            run: waiting_workers,
            ..USUAL
        },
        Scenario {
            name: "ordered output of waits with long tails",
            start: &[24, 3],
            most: &[128, 8],
            run: ordered,
            ..USUAL
        },
        Scenario {
            name: "tiny items, 5 us and 10 us",
            start: &[1, 1],
            most: &[4, 4],
            run: tiny,
            ..USUAL
        },
        Scenario {
            name: "a job of 2 s",
            start: &[26, 3],
            most: &[128, 8],
            items: Some(950),
            steady: Duration::ZERO,
            run: job,
            ..USUAL
        },
    ]
}

pub(super) fn by_hand() -> Vec<Scenario> {
    let by_items = |name, items, run| Scenario { name, items: Some(items), run, ..USUAL };
    vec![
        by_items("by hand: computes 1 ms", 2000, computes as fn(&Trial) -> Outcome),
        by_items("by hand: tiny items", 100_000, tiny),
        // It begins with the only number that it may have: what is left is the price of looking.
        by_items("by hand: tiny items, one worker each and no more", 100_000, held),
        by_items("by hand: `/bin/true` for each", 1000, trues),
    ]
}

/// Computes until the thread's own clock says that this much CPU time was used: computing by the
/// clock on the wall would look the same without a core.
fn burn(micros: u64) {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
    };
    let until = now() + micros * 1000;
    while now() < until {
        black_box(until);
    }
}

/// A time around `micros`, from a third of it to three times, the same for the same item.
fn around(micros: u64, item: u64) -> u64 {
    // Source: Steele, Lea, Flood (SplitMix64), OOPSLA 2014.
    let mut bits = item.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let part = ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    // The mean of 3^x over -1..1 is 1.2137.
    (micros as f64 * 3_f64.powf(2.0 * part - 1.0) / 1.2137) as u64
}

async fn wait(micros: u64) {
    sleep(Duration::from_micros(micros)).await;
}

type Done = Result<u64, BoxError>;

fn finish<'a, Out: Send + 'a>(trial: &'a Trial, pipeline: Pipeline<'a, Out, u64>) -> Outcome {
    let pipeline =
        if trial.is_observed { pipeline.observer(trial.meter.clone()) } else { pipeline };
    let summary = pipeline.for_each(|_| trial.meter.count()).run().expect("it runs");
    trial.ended(&summary)
}

/// Gives the first stage its workers, and has a second one that computes for so long.
fn then_compute<'a>(
    trial: &Trial,
    asked: Pipeline<'a, u64, u64>,
    micros: u64,
) -> Pipeline<'a, u64, u64> {
    asked
        .workers(trial.workers(0))
        .queue(QUEUE)
        .cpu("compute", move |n: u64| {
            burn(around(micros, n + 1));
            Done::Ok(n)
        })
        .workers(trial.workers(1))
        .queue(QUEUE)
}

fn io_cpu_io(trial: &Trial) -> Outcome {
    let before = Pipeline::from_iter(trial.items()).io("before", |n: u64| async move {
        wait(around(40 * MS, n)).await;
        Done::Ok(n)
    });
    let pipeline = then_compute(trial, before, 4 * MS)
        .io("after", |n: u64| async move {
            wait(around(20 * MS, n + 2)).await;
            Done::Ok(n)
        })
        .workers(trial.workers(2))
        .queue(QUEUE);
    finish(trial, pipeline)
}

fn slots(trial: &Trial) -> Outcome {
    let server = Arc::new(Semaphore::new(12));
    let asked = Pipeline::from_iter(trial.items()).io("ask", move |n: u64| {
        let server = server.clone();
        async move {
            let _slot = server.acquire().await?;
            wait(around(40 * MS, n)).await;
            Done::Ok(n)
        }
    });
    finish(trial, then_compute(trial, asked, 500 * US))
}

fn slower(trial: &Trial) -> Outcome {
    let asked = Pipeline::from_iter(trial.items()).io("ask", |n: u64| {
        let times = if trial.is_slow() { 3 } else { 1 };
        async move {
            wait(times * around(30 * MS, n)).await;
            Done::Ok(n)
        }
    });
    finish(trial, then_compute(trial, asked, 3 * MS))
}

fn children(trial: &Trial) -> Outcome {
    let program = env::current_exe().expect("this program has a path");
    let pipeline = Pipeline::from_iter(trial.items())
        .command("child", |n: &u64, _: &Attempt| {
            let times = [around(3 * MS, *n), around(6 * MS, n + 1)].map(|it| it.to_string());
            Command::new(&program).arg(CHILD).args(times)
        })
        .workers(trial.workers(0))
        .queue(QUEUE);
    finish(trial, pipeline)
}

fn trues(trial: &Trial) -> Outcome {
    let command = Command::new("/bin/true");
    let pipeline = Pipeline::from_iter(trial.items())
        .command("true", |_: &u64, _: &Attempt| command.clone())
        .workers(trial.workers(0))
        .queue(QUEUE);
    finish(trial, pipeline)
}

/// A child or a worker process of a scenario.
pub(crate) fn run_child(arguments: &[String]) {
    match arguments {
        [cpu, waits] => {
            burn(cpu.parse().expect("a number of microseconds"));
            nap(waits.parse().expect("a number of microseconds"));
        }
        [_waits] => serve_with(|number| nap(around(20 * MS, number))),
        _ => serve_with(|number| burn(around(MS, number))),
    }
}

fn nap(micros: u64) {
    // Nobody sends anything: it is a wait.
    let (_keep, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_micros(micros));
}

fn serve_with(work: fn(u64)) {
    let served = paceline::serve(|number: Vec<u8>| {
        let number: u64 = std::str::from_utf8(&number)?.parse()?;
        work(number);
        Ok::<Vec<u8>, BoxError>(number.to_string().into())
    });
    served.expect("the runner is there");
}

/// A number's digits, there and back.
struct Digits;

impl Exchange<u64> for Digits {
    type Out = u64;

    fn request(&self, item: &u64, _: &Attempt, to: &mut Vec<u8>) -> Result<Form, BoxError> {
        to.extend_from_slice(item.to_string().as_bytes());
        Ok(Form::Bytes)
    }

    fn answer(&self, _: u64, _: &Attempt, _: Form, answer: &[u8]) -> Result<u64, BoxError> {
        Ok(std::str::from_utf8(answer)?.parse()?)
    }
}

fn workers(trial: &Trial) -> Outcome {
    serving(trial, &[])
}

fn waiting_workers(trial: &Trial) -> Outcome {
    serving(trial, &["waits"])
}

fn serving(trial: &Trial, arguments: &[&str]) -> Outcome {
    let program = env::current_exe().expect("this program has a path");
    let serve = Serve::frames(Command::new(program).arg(CHILD).args(arguments));
    let pipeline = Pipeline::from_iter(trial.items())
        .serve("serve", serve, Digits)
        .workers(trial.workers(0))
        .queue(QUEUE);
    finish(trial, pipeline)
}

fn ordered(trial: &Trial) -> Outcome {
    let asked = Pipeline::from_iter(trial.items())
        .io("ask", |n: u64| async move {
            // One in ten takes eight times as long.
            let tail = if n % 10 == 7 { 8 } else { 1 };
            wait(around(tail * 15 * MS, n)).await;
            Done::Ok(n)
        })
        .ordered();
    finish(trial, then_compute(trial, asked, 3 * MS).ordered())
}

fn tiny(trial: &Trial) -> Outcome {
    tiny_with(trial, usize::MAX)
}

fn held(trial: &Trial) -> Outcome {
    tiny_with(trial, 1)
}

fn tiny_with(trial: &Trial, most: usize) -> Outcome {
    let workers = |place: usize| match most {
        usize::MAX => trial.workers(place),
        most => trial.workers(place).max(most),
    };
    let pipeline = Pipeline::from_iter(trial.items())
        .cpu("first", |n: u64| {
            burn(5 * US);
            Done::Ok(n)
        })
        .workers(workers(0))
        .cpu("second", |n: u64| {
            burn(10 * US);
            Done::Ok(n)
        })
        .workers(workers(1));
    finish(trial, pipeline)
}

fn computes(trial: &Trial) -> Outcome {
    let pipeline = Pipeline::from_iter(trial.items())
        .cpu("compute", |n: u64| {
            burn(around(MS, n));
            Done::Ok(n)
        })
        .workers(trial.workers(0))
        .queue(QUEUE);
    finish(trial, pipeline)
}

fn job(trial: &Trial) -> Outcome {
    let pipeline = Pipeline::from_iter(trial.items())
        .io("ask", |n: u64| async move {
            wait(around(50 * MS, n)).await;
            Done::Ok(n)
        })
        .workers(trial.workers(0))
        .queue(QUEUE)
        .cpu("compute", |n: u64| {
            burn(around(4 * MS, n + 1));
            Done::Ok(n)
        })
        .workers(trial.workers(1))
        .queue(QUEUE);
    finish(trial, pipeline)
}
