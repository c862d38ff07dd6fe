//! Many waits at once, in a process of their own so that memory can be told.
#![expect(clippy::print_stdout, reason = "the child hands its measurements over")]

use std::{
    env, fs,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use paceline::{BoxError, Group, Pipeline};
use tokio::{sync::Semaphore, time::sleep};

use crate::{
    cpu,
    harness::{Bar, Contest, Options, timed},
};

pub(crate) const ABOUT: &str = "\
Waits of 100 ms, all at once: an `io` stage with as many workers, and a group on a runtime with
one thread, against bare tokio tasks on a multi-threaded runtime with a semaphore. Each run is a process of its own; memory is what it grew
by at its highest, threads are counted while all wait.";

const PACELINE: &str = "paceline io stage";
const GROUP: &str = "paceline group";
const TOKIO: &str = "bare tokio tasks";

/// The argument that makes this program one measurement.
pub(crate) const CHILD: &str = "measure-waits";

const WAIT: Duration = Duration::from_millis(100);

pub(crate) fn contests(options: &Options) -> Vec<Contest> {
    [10_000, 100_000].map(|waits| contest(options.amount(waits))).into()
}

fn contest(waits: usize) -> Contest {
    let mut contest = Contest::new(format!("{waits} waits"), "ms")
        .measure("threads", "")
        .measure("memory added", "MB")
        .measure("memory a wait", "B")
        .measure("CPU time", "ms");
    let cores = thread::available_parallelism().map_or(1, usize::from);
    contest.bars.push(Bar::times(PACELINE, 1.05, &[TOKIO]));
    contest.bars.push(Bar::times(GROUP, 1.05, &[TOKIO]));
    // The main thread, the source, the conductor; the rest are event loops.
    contest.bars.push(Bar::at_most(1, PACELINE, (cores + 3) as f64));
    if waits == 10_000 {
        contest.bars.push(Bar::at_most(2, PACELINE, 30.0));
    }
    for name in [PACELINE, GROUP, TOKIO] {
        contest.add(name, move || {
            let program = env::current_exe().expect("this program has a path");
            let output = Command::new(program).args([CHILD, name, &waits.to_string()]).output();
            let output = output.expect("this program can be run");
            let said = String::from_utf8_lossy(&output.stdout);
            said.split_whitespace().map(|number| number.parse().expect("a number")).collect()
        });
    }
    contest
}

/// Makes one measurement and prints it.
pub(crate) fn run_child(arguments: &[String]) {
    let [name, waits] = arguments else { panic!("a contestant and a number of waits") };
    let waits: usize = waits.parse().expect("a number of waits");
    let inside = Arc::new(Inside { waits, ..Inside::default() });
    let before = status("VmRSS:");
    let time = match name.as_str() {
        PACELINE => timed(|| by_paceline(waits, &inside)),
        GROUP => timed(|| by_group(waits, &inside)),
        TOKIO => timed(|| by_tokio(waits, &inside)),
        unknown => panic!("no contestant is called `{unknown}`"),
    };
    let added = (status("VmHWM:") - before) * 1024.0;
    println!(
        "{} {} {} {} {}",
        time.as_secs_f64() * 1000.0,
        inside.threads.load(Ordering::Relaxed),
        added / 1e6,
        added / waits as f64,
        cpu::own().as_secs_f64() * 1000.0,
    );
}

/// Returns a number from the kernel's account of this process.
fn status(field: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.expect("a number in each field")
}

/// What happened, as seen from within the waits.
#[derive(Default)]
struct Inside {
    waits: usize,
    begun: AtomicUsize,
    threads: AtomicU64,
}

impl Inside {
    /// One wait; the last one to begin counts the threads.
    async fn wait(&self) {
        if self.begun.fetch_add(1, Ordering::Relaxed) + 1 == self.waits {
            self.threads.store(status("Threads:") as u64, Ordering::Relaxed);
        }
        sleep(WAIT).await;
    }
}

fn by_paceline(waits: usize, inside: &Arc<Inside>) {
    let summary = Pipeline::from_iter(0..waits)
        .io("wait", |_| async {
            inside.wait().await;
            Ok::<_, BoxError>(())
        })
        .workers(waits)
        .run()
        .expect("it runs");
    assert_eq!(summary.ok, waits as u64);
}

fn by_group(waits: usize, inside: &Arc<Inside>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let members = (0..waits).map(|_| async {
        inside.wait().await;
        Ok::<_, BoxError>(())
    });
    let group = Group::new("waits").limit(waits).gather(members);
    let values = runtime.expect("a runtime can be made").block_on(group);
    assert_eq!(values.expect("none fails").len(), waits);
}

fn by_tokio(waits: usize, inside: &Arc<Inside>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime can be made").block_on(async {
        let semaphore = Arc::new(Semaphore::new(waits));
        let mut tasks = Vec::new();
        for _ in 0..waits {
            let permit = semaphore.clone().acquire_owned().await.expect("never closed");
            let inside = inside.clone();
            tasks.push(tokio::spawn(async move {
                inside.wait().await;
                drop(permit);
            }));
        }
        for task in tasks {
            task.await.expect("no task panics");
        }
    });
    assert_eq!(inside.begun.load(Ordering::Relaxed), waits);
}
