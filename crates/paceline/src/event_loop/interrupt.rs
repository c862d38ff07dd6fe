//! Ctrl-C for a program that is one future.
//!
//! A thread of its own hears the signal: an event loop that is stuck could
//! not. The signal handler writes a byte into a socket, the thread reads it.

use std::{
    future::Future,
    io::{self, Read},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use signal_hook::{
    SigId,
    consts::SIGINT,
    low_level::{self, pipe},
};

use crate::{
    error::{Error, ErrorKind},
    sync::Notice,
};

/// Listens for SIGINT until it is dropped.
pub(crate) struct Interrupt {
    heard: Arc<Heard>,
    handler: SigId,
    /// The end that the handler writes to; shutting it ends the thread.
    line: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Heard {
    has_come: AtomicBool,
    changed: Notice,
}

impl Interrupt {
    /// Begins to listen. From the first signal on the process has `grace` to
    /// end this; then it is ended.
    pub(crate) fn listen(grace: Duration) -> Result<Self, Error> {
        Self::try_listen(grace).map_err(|error| {
            Error::new(ErrorKind::Start, "could not listen for Ctrl-C").caused_by(error)
        })
    }

    fn try_listen(grace: Duration) -> io::Result<Self> {
        let (line, ear) = UnixStream::pair()?;
        let heard = Arc::<Heard>::default();
        let on_thread = heard.clone();
        let builder = thread::Builder::new().name("paceline-int".into());
        let thread = builder.spawn(move || hear(ear, &on_thread, grace))?;
        let handler = pipe::register(SIGINT, line.try_clone()?);
        let handler = handler.inspect_err(|_| drop(line.shutdown(Shutdown::Both)))?;
        Ok(Self { heard, handler, line, thread: Some(thread) })
    }

    /// Waits for the first signal.
    pub(crate) fn came(&self) -> impl Future<Output = ()> + Unpin {
        self.heard.changed.until(|| self.has_come())
    }

    pub(crate) fn has_come(&self) -> bool {
        self.heard.has_come.load(Ordering::SeqCst)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        low_level::unregister(self.handler);
        // The thread ends when it reads the end of the line.
        let _ = self.line.shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Waits for the first signal and tells of it; at the second, or when the
/// grace period is over, ends the process.
fn hear(mut ear: UnixStream, heard: &Heard, grace: Duration) {
    let mut byte = [0];
    if !matches!(ear.read(&mut byte), Ok(1)) {
        return;
    }
    heard.has_come.store(true, Ordering::SeqCst);
    heard.changed.tell();
    let end = Instant::now() + grace;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        // A limit of zero is no limit to a socket.
        let is_over = left.is_zero() || ear.set_read_timeout(Some(left)).is_err();
        match if is_over { Ok(1) } else { ear.read(&mut byte) } {
            // The run has ended in time.
            Ok(0) => return,
            Ok(_) => break,
            // The time is over, or another signal came between.
            Err(_) => {}
        }
    }
    // As if nobody had listened: whoever waits for this process sees what ended it.
    let _ = low_level::emulate_default_handler(SIGINT);
}
