//! Nothing is left running, and nothing is lost: hostile jobs, signals at any
//! moment, job control, isolation, and programs started in odd states.
//!
//! Each test ends by itself or is ended by a watchdog. With
//! `PACELINE_SOAK_SECONDS` set, the matrix and the random signals are repeated
//! for that long.

mod hostile;
mod isolate;
mod job_control;
mod many;
mod matrix;
mod signals;
mod state;
#[path = "../cli/support.rs"]
#[expect(dead_code, reason = "it serves other tests too")]
mod support;

use std::{
    fs,
    io::{self, Write},
    panic,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use rustix::event::{Timespec, poll};

/// Runs a test; after a minute, and the time for a soak, it has failed.
fn watched(test: impl FnOnce() + Send + 'static) {
    let limit = Duration::from_secs(120) + soak();
    let (sender, ended) = mpsc::channel::<()>();
    let test = thread::spawn(move || {
        // Closed at the end, also by a panic.
        let _sender = sender;
        test();
    });
    match ended.recv_timeout(limit) {
        Err(RecvTimeoutError::Timeout) => panic!("not done after {limit:?}"),
        _ => {
            if let Err(cause) = test.join() {
                panic::resume_unwind(cause);
            }
        }
    }
}

/// How long random tests are repeated.
fn soak() -> Duration {
    let seconds = std::env::var("PACELINE_SOAK_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Repeats what has chance in it, at least once.
fn repeated(mut once: impl FnMut()) {
    let end = Instant::now() + soak();
    let mut count = 0;
    loop {
        once();
        count += 1;
        if Instant::now() >= end {
            break;
        }
    }
    if count > 1 {
        say(&format!("{count} rounds"));
    }
}

/// Tells whoever runs the tests.
fn say(text: &str) {
    let _ = io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// Lets a time go by, while something that gives no event is waited for.
fn pause(time: Duration) {
    let _ = poll(&mut [], Some(&Timespec::try_from(time).unwrap()));
}

const MOMENT: Duration = Duration::from_millis(2);

/// The letter that the kernel gives for what a process does, such as `T` for stopped.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
