//! A time limit for tests.

use std::{sync::mpsc, thread, time::Duration};

/// Runs `body`, and fails if it does not end within a minute.
pub(crate) fn watched(body: impl FnOnce() + Send + 'static) {
    let (end, ended) = mpsc::channel::<()>();
    let running = thread::spawn(move || {
        let _end = end;
        body();
    });
    let hangs = ended.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout);
    assert!(!hangs, "still running after a minute");
    running.join().unwrap();
}
