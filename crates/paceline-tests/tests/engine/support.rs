//! What the engine's tests share: a watchdog, the law of conservation, ways
//! to wait for an event, and a look at this process's threads.

use std::{
    any::Any,
    collections::hash_map::RandomState,
    fmt::Write as _,
    fs,
    hash::BuildHasher,
    io::Write as _,
    panic,
    sync::{
        Arc, Condvar, Mutex, Once, RwLock,
        atomic::{AtomicI64, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use paceline::{BoxError, Summary};

/// What stage functions of the tests give.
pub(crate) type Given<T> = Result<T, BoxError>;

pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// How long a test may take before it is a hang.
const LIMIT: Duration = Duration::from_secs(30);

/// Shared by all tests; held alone by those that count or time what the process does.
static PROCESS: RwLock<()> = RwLock::new(());

/// Runs `body` and fails if it panics; after 30 s shows what every thread
/// waits for and ends the process, in place of hanging.
pub(crate) fn watched(body: impl FnOnce() + Send + 'static) {
    let _shared = PROCESS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    limited(LIMIT, body);
}

/// As [`watched`], while no other test runs in this process.
pub(crate) fn watched_alone(body: impl FnOnce() + Send + 'static) {
    let _alone = PROCESS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    limited(LIMIT, body);
}

/// As [`watched_alone`], for a body that limits its parts itself.
pub(crate) fn alone(body: impl FnOnce()) {
    let _alone = PROCESS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    quieten();
    body();
}

/// Runs `body` on a thread of its own, and ends the process if it takes longer than `limit`.
pub(crate) fn limited<R: Send + 'static>(
    limit: Duration,
    body: impl FnOnce() -> R + Send + 'static,
) -> R {
    quieten();
    let name = thread::current().name().unwrap_or("unnamed").to_owned();
    let (end, ended) = mpsc::channel::<()>();
    let run = move || {
        let _end = end;
        body()
    };
    let running = thread::Builder::new().name("test-body".into()).spawn(run).unwrap();
    if ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
        let report = format!("test `{name}` still runs after {limit:?}; its threads:\n{}", waits());
        let _ = std::io::stderr().write_all(report.as_bytes());
        std::process::abort();
    }
    running.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
}

/// What each thread of this process is called and waits for.
fn waits() -> String {
    let mut text = String::new();
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let read = |what| fs::read_to_string(task.path().join(what)).unwrap_or_default();
        let _ = writeln!(text, "  {:16} {}", read("comm").trim(), read("wchan"));
    }
    text
}

/// The beginning of every panic that a test causes on purpose.
pub(crate) const ON_PURPOSE: &str = "on purpose";

/// What a panic said, if that was text.
pub(crate) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("")
}

/// Keeps panics that are caused on purpose out of the output.
fn quieten() {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let is_on_purpose = message(panic.payload()).starts_with(ON_PURPOSE);
            if !is_on_purpose {
                usual(panic);
            }
        }));
    });
}

/// Every item of the source is ok, failed or unfinished: exactly one of them;
/// and so for each stage.
#[track_caller]
pub(crate) fn assert_conserved(summary: &Summary) {
    let answered = summary.ok + summary.failed + summary.unfinished;
    assert_eq!(answered, summary.taken, "items lost or doubled: {summary:?}");
    for stage in &summary.stages {
        let answered = stage.ok + stage.failed + stage.unfinished;
        assert_eq!(answered, stage.fed, "items lost or doubled in a stage: {stage:?}");
    }
}

/// A gate that is closed until somebody opens it, for good.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let is_open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(is_open, |is_open| !*is_open).unwrap());
    }
}

/// A call that blocks its thread this long: nobody ever sends.
pub(crate) fn block_for(length: Duration) {
    let (_sender, receiver) = mpsc::channel::<()>();
    let _ = receiver.recv_timeout(length);
}

/// Gives up the core until `condition` holds, and fails after ten seconds.
#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < Duration::from_secs(10), "never happened: {what}");
        thread::yield_now();
    }
}

/// The names of this process's threads.
pub(crate) fn thread_names() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

/// How many threads have a name that begins with `prefix`.
pub(crate) fn threads_called(prefix: &str) -> usize {
    thread_names().iter().filter(|name| name.starts_with(prefix)).count()
}

/// Waits until no thread of the engine, and none of a stage whose name begins
/// with `prefix`, is left. A thread that has ended is seen a moment longer.
#[track_caller]
pub(crate) fn until_no_thread_is_left(prefix: &str) {
    until("all threads have ended", || threads_called("paceline") + threads_called(prefix) == 0);
}

pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many are at something at once, and the most that ever were.
#[derive(Default)]
pub(crate) struct Peak {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Peak {
    pub(crate) fn enter(&self) -> Inside<'_> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Inside(self)
    }

    pub(crate) fn now(&self) -> usize {
        self.now.load(Ordering::SeqCst)
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

pub(crate) struct Inside<'p>(&'p Peak);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts how many values of it are alive.
#[derive(Clone, Default)]
pub(crate) struct Census(Arc<Counts>);

#[derive(Default)]
struct Counts {
    alive: AtomicI64,
    most: AtomicI64,
}

/// A value that a [`Census`] counts.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) number: u64,
    census: Census,
}

impl Census {
    pub(crate) fn make(&self, number: u64) -> Counted {
        let alive = self.0.alive.fetch_add(1, Ordering::SeqCst) + 1;
        self.0.most.fetch_max(alive, Ordering::SeqCst);
        Counted { number, census: self.clone() }
    }

    pub(crate) fn alive(&self) -> i64 {
        self.0.alive.load(Ordering::SeqCst)
    }

    pub(crate) fn most(&self) -> i64 {
        self.0.most.load(Ordering::SeqCst)
    }
}

impl std::fmt::Debug for Census {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} alive", self.alive())
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.census.make(self.number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.census.0.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A number that is another one in each process.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
