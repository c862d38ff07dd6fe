//! What `run` and `each` have in common: a pipeline is run under the watch
//! of signals and a display, its results go out, and its end decides the
//! status.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use paceline::{Clock, Failure, Halt, Pipeline, Stop, Summary};

use crate::{
    args::When,
    exit_code,
    item::{Origin, Value},
    kept::Keeper,
    lines::Lines,
    message::{Problem, harmless, reason},
    report::{Console, Reporter, Tracked, display::Display, faults, json, summary},
    results::{Results, Trouble},
    signals::{self, Controls, Seen, Watch},
    source::{Interrupt, Item, SourceError},
};

/// How a run is watched and told of.
pub(crate) struct Options {
    /// What the display calls it.
    pub(crate) name: String,
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) progress: When,
    pub(crate) halt: Option<Halt>,
    /// Whether the summary is told of a run without trouble that no terminal sees.
    pub(crate) always_sums_up: bool,
    pub(crate) reporter: Arc<Reporter>,
    /// What wakes the source when the run is stopped.
    pub(crate) interrupt: Interrupt,
    /// What prints the jobs' lines as they come, if they do.
    pub(crate) lines: Option<Lines>,
    /// Has outputs wait, if they are to come in order.
    pub(crate) keeper: Option<Keeper>,
}

/// An item and the value of each input source.
pub(crate) type Input = Result<(Item, Vec<Bytes>), SourceError>;

/// Runs the stages that `build` adds, on `inputs`.
///
/// # Errors
///
/// If it cannot begin.
pub(crate) fn drive<I>(
    options: Options,
    inputs: I,
    build: impl FnOnce(Pipeline<'static, Value>) -> Pipeline<'static, Value, Value>,
) -> Result<ExitCode, Problem>
where
    I: Iterator<Item = Input> + Send + 'static,
{
    let Options { reporter, interrupt, lines, keeper, .. } = options;
    let console = reporter.console().clone();
    let stop = Stop::new();
    reporter.may_stop(&stop);
    let cut_short = Arc::default();
    let taken = Taken {
        inputs,
        taken: 0,
        reporter: reporter.clone(),
        interrupt: interrupt.clone(),
        cut_short: Arc::clone(&cut_short),
    };
    stop.when_stopped(move || interrupt.stop());
    let clock = Clock::system();
    let mut pipeline =
        build(Pipeline::from_iter(taken)).stop(&stop).clock(&clock).observer(reporter.clone());
    if let Some(halt) = options.halt {
        pipeline = pipeline.halt(halt);
    }
    let controls = Controls {
        stop: stop.clone(),
        monitor: pipeline.monitor(),
        console: console.clone(),
        is_quiet: options.quiet,
        clock: clock.clone(),
    };
    let monitor = pipeline.monitor();
    let watch = Watch::begin(controls).map_err(cannot_begin)?;
    let when = if options.quiet { When::Never } else { options.progress };
    let display = Display::show(&options.name, when, &console, pipeline.monitor());

    let results = Arc::new(Mutex::new(Results::new(stop, watch.seen())));
    if let Some(lines) = &lines {
        lines.begin(results.clone(), console.clone(), keeper).map_err(cannot_begin)?;
    }
    let printer = Printer {
        results: results.clone(),
        reporter: reporter.clone(),
        json: options.json,
        lines: lines.clone(),
    };
    let print = printer.clone();
    let ended = pipeline.for_each_outcome(move |outcome| print.print(outcome)).run();
    drop(display);
    tell_survivors(&console);

    for (tracked, failure) in reporter.take_failed() {
        printer.print_failure(tracked, &failure);
    }
    reporter.turn_of(u64::MAX);
    if let Some(lines) = &lines {
        lines.end_waiting();
    }
    let mut results = lock(&results);
    if options.json {
        for tracked in reporter.take_unfinished() {
            results.line(json::unfinished(&tracked).to_string().as_bytes());
        }
    }
    if let Ok(summary) = &ended
        && !options.quiet
        && (options.always_sums_up || !summary.is_complete() || io::stderr().is_terminal())
    {
        console.line(summary::text(summary).trim_end());
    }
    if ended.is_err() && !options.quiet {
        console.line(&summary::account(&monitor.progress()));
    }
    let trouble = results.take_trouble();
    let cut_short = lock(&cut_short).take();
    Ok(ExitCode::from(status(ended, trouble, cut_short, &watch.seen(), &reporter)))
}

/// How long what jobs have left behind may take to go when it was killed.
const SETTLE: Duration = Duration::from_secs(5);

/// Ends what jobs have left behind, and tells of what cannot be ended.
fn tell_survivors(console: &Console) {
    for survivor in paceline_process::settle(SETTLE) {
        let name = harmless(survivor.name().as_bytes());
        console.line(&format!("warning: could not end process {} ({name})", survivor.pid()));
    }
}

/// The problem of a process that lacks what every run needs.
pub(crate) fn cannot_begin(error: io::Error) -> Problem {
    Problem::new(format!("cannot begin: {}", reason(&error)))
}

/// How a run ends whose job log cannot be written any more.
pub(crate) fn unlogged(console: &Console, error: &io::Error) -> ExitCode {
    console.line(&format!("error: could not write to the job log: {}", reason(error)));
    ExitCode::from(exit_code::TROUBLE)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The items of the source, numbered and known to the reporter.
struct Taken<I> {
    inputs: I,
    taken: u64,
    reporter: Arc<Reporter>,
    interrupt: Interrupt,
    cut_short: Arc<Mutex<Option<CutShort>>>,
}

/// Why a source gave nothing more, if it may have had more.
enum CutShort {
    /// The run was stopped while the source was waited for.
    Stopped,
    Failed(SourceError),
}

impl<I: Iterator<Item = Input>> Iterator for Taken<I> {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        match self.inputs.next() {
            Some(Ok((item, parts))) => {
                self.taken += 1;
                let origin = Arc::new(Origin { seq: self.taken, item, parts });
                self.reporter.taken(&origin);
                Some(Value::new(origin))
            }
            Some(Err(error)) => {
                *lock(&self.cut_short) = Some(CutShort::Failed(error));
                None
            }
            None => {
                // A source that knows that it is empty has ended all the same.
                if self.interrupt.is_stopped() && self.inputs.size_hint().1 != Some(0) {
                    *lock(&self.cut_short) = Some(CutShort::Stopped);
                }
                None
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inputs.size_hint()
    }
}

/// Puts what became of the items on standard output.
#[derive(Clone)]
struct Printer {
    results: Arc<Mutex<Results>>,
    reporter: Arc<Reporter>,
    json: bool,
    lines: Option<Lines>,
}

impl Printer {
    fn print(&self, outcome: Result<Value, Failure>) {
        let last = match outcome {
            Ok(value) => {
                self.print_value(&value);
                value.origins.last().map(|origin| origin.seq)
            }
            Err(failure) => {
                self.print_failure(self.reporter.told(&failure), &failure);
                failure.item().sequence_numbers().last().copied()
            }
        };
        if let (Some(lines), Some(last)) = (&self.lines, last) {
            lines.turn_to(last + 1);
        }
    }

    fn print_value(&self, value: &Value) {
        self.reporter.turn_of(value.owner());
        let mut results = lock(&self.results);
        if self.json {
            let numbers: Vec<u64> = value.origins.iter().map(|origin| origin.seq).collect();
            let tracked = self.reporter.tracked(&numbers);
            match value.result() {
                Ok(result) => results.line(json::ok(&tracked, &result).to_string().as_bytes()),
                Err(error) => results.failed(error),
            }
        } else if let Some(output) = value.output() {
            results.output(output, self.reporter.tag(&value.origins).as_deref());
        } else {
            results.line(&value.bytes());
        }
    }

    fn print_failure(&self, tracked: Vec<Tracked>, failure: &Failure) {
        if let Some(first) = tracked.first() {
            self.reporter.turn_of(first.origin.seq);
        }
        let mut results = lock(&self.results);
        if self.json {
            results.line(json::failed(&tracked, failure).to_string().as_bytes());
        } else if let Some(output) = faults::output(failure) {
            let origins: Vec<_> = tracked.into_iter().map(|tracked| tracked.origin).collect();
            results.output(output, self.reporter.tag(&origins).as_deref());
        }
    }
}

/// Decides how the program ends, and says why where that is not told yet.
fn status(
    ended: Result<Summary, paceline::Error>,
    trouble: Option<Trouble>,
    cut_short: Option<CutShort>,
    seen: &Seen,
    reporter: &Reporter,
) -> u8 {
    let console = reporter.console();
    if let Some(signal) = seen.signal() {
        return signals::end_by(signal);
    }
    if seen.is_reader_gone() || matches!(trouble, Some(Trouble::ReaderGone)) {
        return signals::end_by_broken_pipe();
    }
    if let Some(Trouble::Failed(error)) = trouble {
        let reason = reason(&error);
        console.line(&format!("error: could not write to standard output: {reason}"));
        return exit_code::TROUBLE;
    }
    if let Some(error) = reporter.log_trouble() {
        unlogged(console, &error);
        return exit_code::TROUBLE;
    }
    if let Some(CutShort::Failed(error)) = &cut_short {
        console.line(&format!("error: {error}"));
        return exit_code::TROUBLE;
    }
    match ended {
        Ok(_) if cut_short.is_some() => exit_code::UNFINISHED,
        Ok(summary) => exit_code::of(&summary),
        Err(error) => {
            console.line(&format!("error: {}", harmless(error.to_string().as_bytes())));
            exit_code::TROUBLE
        }
    }
}
