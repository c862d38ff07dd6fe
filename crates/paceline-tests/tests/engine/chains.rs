//! Random chains of stages with random outcomes and stops, against what a
//! sequential reading of the same chain gives.
//!
//! What a stage does with a value is a function of the value alone, so the
//! oracle needs no engine. Values stay apart, so that attempts can be counted
//! for each. Batches are taken apart again at once: which values share one
//! is for the engine to choose.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use paceline::{Failure, FailureKind, Fault, Pipeline, Retry, Stop, StopLevel, Summary};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use paceline_tests::{
    Peak, alone, assert_conserved, limited, open_descriptors, random, until,
    until_no_thread_is_left,
};

/// The threads of these stages are told by this.
const MARK: &str = "chain-";

#[derive(Clone, Copy, Debug)]
enum Kind {
    Cpu,
    Blocking,
    Io,
}

#[derive(Clone, Debug)]
struct Step {
    kind: Kind,
    workers: usize,
    queue: usize,
    ordered: bool,
    retries: u32,
    backoff: Duration,
    /// How many values of a hundred fail in some way.
    failing: u64,
    after: After,
}

/// What becomes of a stage's values before the next stage.
#[derive(Clone, Copy, Debug)]
enum After {
    Nothing,
    /// Each becomes none to two.
    FanOut,
    /// They are gathered and taken apart again.
    FanIn(usize),
}

#[derive(Clone, Debug)]
struct Chain {
    items: u64,
    salt: u64,
    steps: Vec<Step>,
    stop: Option<(StopLevel, u64)>,
    /// A stage whose workers change, to how many, and after how many calls.
    resize: Option<(usize, usize, u64)>,
}

fn steps() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![Just(Kind::Cpu), Just(Kind::Blocking), Just(Kind::Io)];
    let after = prop_oneof![
        4 => Just(After::Nothing),
        2 => Just(After::FanOut),
        1 => (1..6_usize).prop_map(After::FanIn),
    ];
    let backoff = prop_oneof![Just(0), 1..500_u64].prop_map(Duration::from_micros);
    let policy = (0..3_u32, backoff, prop_oneof![Just(0), 1..40_u64]);
    (kind, 1..5_usize, 1..65_usize, any::<bool>(), policy, after).prop_map(
        |(kind, workers, queue, ordered, (retries, backoff, failing), after)| Step {
            kind,
            workers,
            queue,
            ordered,
            retries,
            backoff,
            failing,
            after,
        },
    )
}

fn chains() -> impl Strategy<Value = Chain> {
    let level = prop_oneof![
        Just(StopLevel::Drain),
        Just(StopLevel::Halt),
        Just(StopLevel::Cancel),
        Just(StopLevel::Kill),
    ];
    let stop = prop_oneof![Just(None), (level, 0..300_u64).prop_map(Some)];
    let resize = prop_oneof![Just(None), (0..5_usize, 1..7_usize, 0..100_u64).prop_map(Some)];
    (0..150_u64, any::<u64>(), vec(steps(), 1..6), stop, resize)
        .prop_map(|(items, salt, steps, stop, resize)| Chain { items, salt, steps, stop, resize })
}

/// What a stage does with a value.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Give(u64),
    Fail,
    Panic,
    FailForGood,
    /// Fails until this attempt.
    GiveAt(u32, u64),
}

/// SplitMix64's mixer.
fn mix(a: u64, b: u64) -> u64 {
    let mut bits = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl Chain {
    fn act(&self, stage: usize, value: u64) -> Act {
        let drawn = mix(value, self.salt.wrapping_add(stage as u64));
        let given = mix(drawn, 1);
        if drawn % 100 >= self.steps[stage].failing {
            return Act::Give(given);
        }
        match given % 4 {
            0 => Act::Fail,
            1 => Act::Panic,
            2 => Act::FailForGood,
            _ => Act::GiveAt(2 + (given >> 8) as u32 % 3, given),
        }
    }

    /// The kind of failure and the attempts it took, or the value given.
    fn expected(&self, stage: usize, value: u64) -> Result<u64, (FailureKind, u32)> {
        let tries = self.steps[stage].retries + 1;
        match self.act(stage, value) {
            Act::Give(given) => Ok(given),
            Act::Fail => Err((FailureKind::Failed, tries)),
            Act::Panic => Err((FailureKind::Panic, tries)),
            Act::FailForGood => Err((FailureKind::Io, 1)),
            Act::GiveAt(attempt, given) if attempt <= tries => Ok(given),
            Act::GiveAt(..) => Err((FailureKind::Failed, tries)),
        }
    }
}

/// The values a fan-out makes of one.
fn parts(value: u64) -> impl Iterator<Item = u64> + Send {
    (0..value % 3).map(move |part| mix(value, 100 + part))
}

/// What leaves a chain for one value of the source, in order.
type Left = Result<u64, (usize, FailureKind, u32)>;

fn oracle(chain: &Chain) -> Vec<Left> {
    let mut flow: Vec<Left> = (0..chain.items).map(|n| Ok(mix(n, chain.salt))).collect();
    for (stage, step) in chain.steps.iter().enumerate() {
        let passed = flow.into_iter().map(|left| {
            let value = left?;
            chain.expected(stage, value).map_err(|(kind, tries)| (stage, kind, tries))
        });
        flow = match step.after {
            After::Nothing | After::FanIn(_) => passed.collect(),
            After::FanOut => passed
                .flat_map(|left| match left {
                    Ok(value) => parts(value).map(Ok).collect(),
                    Err(failure) => vec![Err(failure)],
                })
                .collect(),
        };
    }
    flow
}

/// What the stages of one run share.
struct World {
    chain: Chain,
    attempts: Vec<Mutex<HashMap<u64, u32>>>,
    peaks: Vec<Peak>,
    calls: AtomicU64,
    stop: Stop,
    monitor: Mutex<Option<paceline::Monitor>>,
}

impl World {
    fn new(chain: Chain) -> Arc<Self> {
        let stages = chain.steps.len();
        Arc::new(Self {
            chain,
            attempts: (0..stages).map(|_| Mutex::default()).collect(),
            peaks: (0..stages).map(|_| Peak::default()).collect(),
            calls: AtomicU64::new(0),
            stop: Stop::new(),
            monitor: Mutex::default(),
        })
    }

    /// Counts a call, and does what is due at it.
    fn called(&self) {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        if let Some((level, at)) = self.chain.stop
            && at == call
        {
            self.stop.rise(level);
        }
        if let Some((stage, workers, at)) = self.chain.resize
            && at == call
        {
            let monitor = self.monitor.lock().unwrap();
            monitor.as_ref().unwrap().set_workers(&format!("{MARK}{stage}"), workers);
        }
    }

    fn work(&self, stage: usize, value: u64) -> Result<u64, Fault> {
        self.called();
        let attempt = {
            let mut attempts = self.attempts[stage].lock().unwrap();
            let attempt = attempts.entry(value).or_default();
            *attempt += 1;
            *attempt
        };
        assert!(attempt <= self.chain.steps[stage].retries + 1, "too many attempts at {value}");
        match self.chain.act(stage, value) {
            Act::Give(given) => Ok(given),
            Act::Panic => panic!("on purpose: in a chain"),
            Act::FailForGood => Err(Fault::new(FailureKind::Io, "for good").permanent()),
            Act::GiveAt(at, given) if attempt >= at => Ok(given),
            Act::Fail | Act::GiveAt(..) => Err(Fault::new(FailureKind::Failed, "this time")),
        }
    }
}

type Outcomes = (Vec<Result<u64, Failure>>, Summary);

/// Adds the stages from `stage` on, and runs the chain.
fn run_from<Prev>(world: &Arc<World>, stage: usize, so_far: Pipeline<'_, u64, Prev>) -> Outcomes {
    let Some(step) = world.chain.steps.get(stage).cloned() else {
        *world.monitor.lock().unwrap() = Some(so_far.monitor());
        return so_far.stop(&world.stop).outcomes().unwrap();
    };
    let name = format!("{MARK}{stage}");
    let here = world.clone();
    let work = move |value| {
        let _inside = here.peaks[stage].enter();
        here.work(stage, value)
    };
    let staged = match step.kind {
        Kind::Cpu => so_far.cpu(&name, work),
        Kind::Blocking => so_far.blocking(&name, move |value| {
            std::thread::yield_now();
            work(value)
        }),
        Kind::Io => {
            let here = world.clone();
            so_far.io(&name, move |value| {
                let here = here.clone();
                async move {
                    let _inside = here.peaks[stage].enter();
                    match value % 8 {
                        0 => tokio::time::sleep(Duration::from_micros(200)).await,
                        1 | 2 => tokio::task::yield_now().await,
                        _ => {}
                    }
                    here.work(stage, value)
                }
            })
        }
    };
    let retry = Retry::times(step.retries).backoff(step.backoff);
    let staged = staged.workers(step.workers).queue(step.queue).retry(retry);
    let staged = if step.ordered { staged.ordered() } else { staged };
    match step.after {
        After::Nothing => run_from(world, stage + 1, staged),
        After::FanOut => {
            let again = format!("{MARK}parts-{stage}");
            let split = staged.cpu(&again, |value| Ok::<_, Fault>(parts(value)));
            let split = if step.ordered { split.ordered() } else { split };
            run_from(world, stage + 1, split.workers(step.workers).fan_out())
        }
        After::FanIn(items) => run_from(world, stage + 1, staged.fan_in(items, None).fan_out()),
    }
}

/// How often each thing occurs.
fn counts<T: Ord>(things: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    things.into_iter().for_each(|thing| *counts.entry(thing).or_default() += 1);
    counts
}

/// A thing to compare by: values and failures in one order.
type Seen = Result<u64, (String, &'static str, u32)>;

fn check(chain: &Chain) {
    let world = World::new(chain.clone());
    let salt = chain.salt;
    let source = Pipeline::from_iter((0..chain.items).map(|n| mix(n, salt)));
    let (outcomes, summary) = run_from(&world, 0, source);

    assert_conserved(&summary);
    for (stage, step) in chain.steps.iter().enumerate() {
        let most = match chain.resize {
            Some((resized, workers, _)) if resized == stage => workers.max(step.workers),
            _ => step.workers,
        };
        assert!(world.peaks[stage].most() <= most, "stage {stage}: {}", world.peaks[stage].most());
    }
    let stage_called = |stage| format!("{MARK}{stage}");
    let expected: Vec<Seen> = oracle(chain)
        .into_iter()
        .map(|left| left.map_err(|(at, kind, tries)| (stage_called(at), kind.as_str(), tries)))
        .collect();
    let seen: Vec<Seen> = outcomes
        .into_iter()
        .map(|outcome| outcome.map_err(|f| (f.stage().to_owned(), f.kind().as_str(), f.attempts())))
        .collect();
    if summary.stopped == StopLevel::None {
        assert_eq!(summary.unfinished, 0);
        assert_eq!(summary.taken, chain.items);
    }
    if summary.stopped <= StopLevel::Drain && summary.source_ended {
        assert!(summary.unfinished == 0);
        assert_eq!(counts(&seen), counts(&expected));
    } else {
        let most = counts(&expected);
        for (thing, count) in counts(&seen) {
            assert!(count <= most.get(thing).copied().unwrap_or(0), "{thing:?} is too much");
        }
    }
    // In order to the end if nothing behind the last ordered stage mixes it
    // up. What has failed does not wait for its batch, so it may overtake.
    let last = chain.steps.last().unwrap();
    if last.ordered && summary.stopped == StopLevel::None {
        let has_batches = chain.steps.iter().any(|step| matches!(step.after, After::FanIn(_)));
        let matters = |one: &&Seen| one.is_ok() || !has_batches;
        assert!(seen.iter().filter(matters).eq(expected.iter().filter(matters)), "out of order");
    }
}

/// Checks `cases` chains that follow from `seed`.
fn check_some(seed: u64, cases: u32) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let checked = TestRunner::new_with_rng(config, rng).run(&chains(), |chain| {
        limited(Duration::from_secs(30), move || check(&chain));
        Ok(())
    });
    if let Err(wrong) = checked {
        panic!("with PACELINE_SEED={seed}: {wrong}");
    }
}

#[test]
fn random_chains_do_what_a_sequential_reading_says_and_leave_nothing_behind() {
    let read = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first_seed = read("PACELINE_SEED").unwrap_or_else(random);
    let soak = Duration::from_secs(read("PACELINE_SOAK_SECONDS").unwrap_or(0));
    alone(|| {
        let before = open_descriptors();
        let since = Instant::now();
        let mut seed = first_seed;
        loop {
            check_some(seed, 200);
            until_no_thread_is_left(MARK);
            until("descriptors are closed", || open_descriptors() <= before);
            if since.elapsed() >= soak {
                return;
            }
            seed = random();
        }
    });
}
