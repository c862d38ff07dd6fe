//! Points at which a test ends the program as `kill -9` would.
//!
//! `PACELINE_FAIL=output.after-rename:3` ends it when that point is reached for
//! the third time. Only in builds for tests: those with debug assertions.

/// Is at the point called `name`.
#[cfg(not(debug_assertions))]
pub(crate) fn reach(_name: &'static str) {}

/// Is at the point called `name`.
#[cfg(debug_assertions)]
pub(crate) fn reach(name: &'static str) {
    use std::sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    };
    static ASKED_FOR: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let asked_for = ASKED_FOR.get_or_init(|| {
        let said = std::env::var("PACELINE_FAIL").ok()?;
        let (point, count) = said.rsplit_once(':')?;
        Some((point.to_owned(), count.parse().ok()?))
    });
    if let Some((point, count)) = asked_for
        && point == name
        && REACHED.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        let me = rustix::process::getpid();
        let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
    }
}
