//! The live display: one line on standard error while a run goes on.

use std::{
    io::{self, IsTerminal},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use paceline::{Monitor, Progress};

use super::Console;
use crate::{args::When, message::harmless};

/// How often the display changes: fast enough to look alive, too rare to cost anything.
const REFRESH: Duration = Duration::from_millis(100);

/// How often a line is written where `--progress always` meets no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// A display that is shown until it is dropped.
pub(crate) struct Display {
    /// Dropping it ends the thread.
    open: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Display {
    /// Shows the run's progress if `when` says so.
    pub(crate) fn show(name: &str, when: When, console: &Console, monitor: Monitor) -> Self {
        let is_shown = match when {
            When::Always => true,
            When::Never => false,
            When::Auto => io::stderr().is_terminal(),
        };
        if !is_shown {
            return Self { open: None, thread: None };
        }
        let (open, closed) = mpsc::channel();
        let name = harmless(name.as_bytes());
        let console = console.clone();
        let builder = thread::Builder::new().name("display".into());
        // Without a thread there is no display; the run goes on all the same.
        let thread = if io::stderr().is_terminal() {
            let bar = bar(&name, &console);
            builder.spawn(move || {
                while closed.recv_timeout(REFRESH) == Err(RecvTimeoutError::Timeout) {
                    bar.set_message(line(&monitor.progress()));
                    bar.tick();
                }
                bar.finish_and_clear();
            })
        } else {
            builder.spawn(move || {
                while closed.recv_timeout(LINE_EVERY) == Err(RecvTimeoutError::Timeout) {
                    console.line(&format!("{name}: {}", line(&monitor.progress())));
                }
            })
        };
        Self { open: Some(open), thread: thread.ok() }
    }
}

fn bar(name: &str, console: &Console) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}  {msg}  {elapsed}") {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    console.set_display(bar.clone());
    bar
}

impl Drop for Display {
    fn drop(&mut self) {
        drop(self.open.take());
        if let Some(thread) = self.thread.take() {
            // Only drawing can fail there, and the run does not depend on it.
            let _ = thread.join();
        }
    }
}

/// How far a run is, on one line: also the answer to SIGUSR1.
pub(crate) fn line(progress: &Progress) -> String {
    let mut parts = vec![format!("{} in, {} ok", progress.taken, progress.ok)];
    if progress.failed > 0 {
        parts.push(format!("{} failed", progress.failed));
    }
    let stages = progress.stages.iter().filter(|stage| stage.name != "batch").map(|stage| {
        format!("{} {} (+{})", harmless(stage.name.as_bytes()), stage.ok, stage.in_flight)
    });
    format!("{} | {}", parts.join(", "), stages.collect::<Vec<_>>().join(" > "))
}
