//! Runs a test's body on a thread of its own and fails it after ten seconds,
//! showing the queues it was told of, in place of hanging.

use std::fmt::Debug;
use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use paceline_queue::Queue;

const LIMIT: Duration = Duration::from_secs(60);

/// The queues to show when the time is up.
#[derive(Clone, Default)]
pub(crate) struct Watch(Arc<Mutex<Vec<Box<dyn Debug + Send>>>>);

impl Watch {
    /// A queue that is shown when the test does not end.
    pub(crate) fn queue<T: Send + 'static>(&self, capacity: usize) -> Queue<T> {
        let queue = Queue::bounded(capacity);
        let mut seen = self.0.lock().unwrap();
        // A test that makes thousands of queues is shown its last ones.
        if seen.len() == 8 {
            seen.remove(0);
        }
        seen.push(Box::new(queue.clone()));
        queue
    }
}

/// Runs `body` and fails if it panics or takes longer than a minute.
pub(crate) fn watched(body: impl FnOnce(&Watch) + Send + 'static) {
    let watch = Watch::default();
    let (end, ended) = mpsc::channel::<()>();
    let running = thread::spawn({
        let watch = watch.clone();
        move || {
            let _end = end;
            body(&watch);
        }
    });
    match ended.recv_timeout(LIMIT) {
        Err(RecvTimeoutError::Timeout) => {
            panic!("still running after {LIMIT:?}: {:#?}", watch.0.lock().unwrap())
        }
        _ => {
            if let Err(panicked) = running.join() {
                panic::resume_unwind(panicked);
            }
        }
    }
}
