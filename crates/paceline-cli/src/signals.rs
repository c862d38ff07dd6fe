//! What signals do to a run, and a reader that goes away.
//!
//! A thread waits for both. The first INT, TERM or HUP cancels the run and is
//! raised again when it has been cleaned up, so that whoever started us sees
//! it; a second one kills what is left. USR1 asks for a line, USR2 drains.
//! TSTP stops the jobs, the clock and us, and CONT lets all go on.
//! When nobody reads standard output any more, the run is cancelled and what
//! still runs after a second is killed.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use paceline::{Clock, Monitor, Stop};
use paceline_process::Options;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Signal, getpid, kill_process},
};
use signal_hook::{
    consts::{SIGCONT, SIGHUP, SIGINT, SIGPIPE, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2},
    iterator::{backend::SignalDelivery, exfiltrator::SignalOnly},
    low_level,
};

use crate::report::{Console, display};

/// How long jobs may take to end when nobody reads their results any more.
const READER_GONE_GRACE: Duration = Duration::from_secs(1);

/// What the thread may do to the run.
pub(crate) struct Controls {
    pub(crate) stop: Stop,
    pub(crate) monitor: Monitor,
    /// Stands still while the terminal has stopped us.
    pub(crate) clock: Clock,
    pub(crate) console: Console,
    /// Whether what happens is told on standard error.
    pub(crate) is_quiet: bool,
}

/// The watch over a run's signals, until it is dropped.
pub(crate) struct Watch {
    seen: Arc<Seen>,
    /// Closing it ends the thread.
    open: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

/// What the watch has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The first signal that ended the run.
    signal: OnceLock<i32>,
    reader_gone: AtomicBool,
}

impl Seen {
    /// The signal that ended the run, if one did.
    pub(crate) fn signal(&self) -> Option<i32> {
        self.signal.get().copied()
    }

    /// Whether the reader of standard output has gone away.
    pub(crate) fn is_reader_gone(&self) -> bool {
        self.reader_gone.load(Ordering::SeqCst)
    }
}

impl Watch {
    /// Begins to watch. Whatever came before is not seen.
    ///
    /// # Errors
    ///
    /// If the process can have no more descriptors or threads.
    pub(crate) fn begin(controls: Controls) -> io::Result<Self> {
        let mut signals = vec![SIGUSR1, SIGUSR2, SIGINT, SIGTERM, SIGTSTP, SIGCONT];
        // Under nohup the user has asked to outlive the terminal.
        if !paceline_process::init(Options::default()).outlives_hangup() {
            signals.push(SIGHUP);
        }
        let (reader, writer) = UnixStream::pair()?;
        let signals = SignalDelivery::with_pipe(reader, writer, SignalOnly, &signals)?;
        let (closed, open) = UnixStream::pair()?;
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let thread = thread::Builder::new()
            .name("signals".into())
            .spawn(move || watch(&controls, signals, &closed, &shared))?;
        Ok(Self { seen, open: Some(open), thread: Some(thread) })
    }

    /// What has been seen, now and later.
    pub(crate) fn seen(&self) -> Arc<Seen> {
        self.seen.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.open.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing to give back, and a panic there has been printed.
            let _ = thread.join();
        }
    }
}

fn watch(
    controls: &Controls,
    mut signals: SignalDelivery<UnixStream, SignalOnly>,
    closed: &UnixStream,
    seen: &Seen,
) {
    let stdout = io::stdout();
    let mut kill_in: Option<Duration> = None;
    loop {
        let mut waits = vec![
            PollFd::new(closed, PollFlags::IN),
            PollFd::new(signals.get_read(), PollFlags::IN),
        ];
        if !seen.reader_gone.load(Ordering::SeqCst) {
            // No events are asked for: errors are told always, and all we want to know.
            waits.push(PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty()));
        }
        let limit = kill_in.and_then(|time| Timespec::try_from(time).ok());
        let ready = match poll(&mut waits, limit.as_ref()) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        };
        if ready == 0 {
            kill_in = None;
            controls.stop.kill();
        }
        let is_over = !waits[0].revents().is_empty();
        if waits.get(2).is_some_and(|wait| wait.revents().contains(PollFlags::ERR)) {
            seen.reader_gone.store(true, Ordering::SeqCst);
            controls.stop.cancel();
            kill_in = Some(READER_GONE_GRACE);
        }
        for signal in signals.pending() {
            act(controls, seen, signal);
        }
        if is_over {
            return;
        }
    }
}

fn act(controls: &Controls, seen: &Seen, signal: i32) {
    match signal {
        SIGUSR1 => controls.console.line(&display::line(&controls.monitor.progress())),
        SIGUSR2 => controls.stop.drain(),
        SIGTSTP => {
            controls.clock.pause();
            paceline_process::stop_all_jobs();
            // Not TSTP, which is caught. It cannot fail: this process is ours.
            let _ = kill_process(getpid(), Signal::STOP);
        }
        SIGCONT => {
            paceline_process::continue_all_jobs();
            controls.clock.resume();
        }
        _ if seen.signal.set(signal).is_ok() => {
            // Before anything is said, which takes as long as standard error lets it.
            controls.stop.cancel();
            if !controls.is_quiet {
                controls.console.line("stopping the jobs; again to kill them");
            }
        }
        _ => controls.stop.kill(),
    }
}

/// Ends this process by `signal`, as if it had never been caught.
pub(crate) fn end_by(signal: i32) -> u8 {
    paceline_process::end_jobs();
    // Comes back only if the signal does not end a process.
    let _ = low_level::emulate_default_handler(signal);
    128_u8.saturating_add(u8::try_from(signal).unwrap_or(0))
}

/// Ends this process as a writer ends whose reader has gone away.
pub(crate) fn end_by_broken_pipe() -> u8 {
    end_by(SIGPIPE)
}
