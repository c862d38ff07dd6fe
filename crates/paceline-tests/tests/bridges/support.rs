//! What these tests share: a watchdog, a gate, calls that block, a look at
//! this process's threads.

use std::{
    fs, panic,
    sync::{
        Arc, Condvar, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

pub(crate) const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// Runs `body` and fails if it panics; after 30 s it ends the process, in place of hanging.
pub(crate) fn watched<R: Send + 'static>(body: impl FnOnce() -> R + Send + 'static) -> R {
    let (end, ended) = mpsc::channel::<()>();
    let run = move || {
        let _end = end;
        body()
    };
    let running = thread::Builder::new().name("test-body".into()).spawn(run).unwrap();
    if ended.recv_timeout(Duration::from_secs(30)) == Err(RecvTimeoutError::Timeout) {
        let threads = thread_names().join(", ");
        panic!("still running after 30 s; its threads: {threads}");
    }
    running.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
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
