//! Ends a test that hangs, and says what its threads wait for.

use std::{
    any::Any,
    fmt::Write as _,
    fs,
    io::Write as _,
    panic,
    sync::{
        Once, RwLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

/// How long a test may take before it is a hang.
const LIMIT: Duration = Duration::from_secs(30);

/// Shared by all tests; held alone by those that count or time what the process does.
static PROCESS: RwLock<()> = RwLock::new(());

/// Runs `body` and fails if it panics; after 30 s shows what every thread
/// waits for and ends the process, in place of hanging.
pub fn watched<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    let _shared = PROCESS.read().unwrap_or_else(|poisoned| poisoned.into_inner());
    limited(LIMIT, body)
}

/// As [`watched`], while no other test runs in this process.
pub fn watched_alone(body: impl FnOnce() + Send + 'static) {
    let _alone = PROCESS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    limited(LIMIT, body);
}

/// As [`watched_alone`], for a body that limits its parts itself.
pub fn alone(body: impl FnOnce()) {
    let _alone = PROCESS.write().unwrap_or_else(|poisoned| poisoned.into_inner());
    quieten();
    body();
}

/// Runs `body` on a thread of its own, and ends the process if it takes longer than `limit`.
pub fn limited<R: Send + 'static>(limit: Duration, body: impl FnOnce() -> R + Send + 'static) -> R {
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
pub const ON_PURPOSE: &str = "on purpose";

/// What a panic said, if that was text.
pub fn message(panic: &(dyn Any + Send)) -> &str {
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
