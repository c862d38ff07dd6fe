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
use paceline_journal::Known;

use crate::{
    args::{Budget, Pacing, When},
    exit_code,
    item::{Identity, Origin, Value},
    journal::{self, Base, Feed, Numbered, Record},
    kept::Keeper,
    lines::Lines,
    message::{Problem, harmless, reason},
    report::{
        Batch, Console, Reporter, StageRecord, Tracked, display::Display, faults, json,
        pacing::freeze, summary,
    },
    results::{Results, Trouble},
    signals::{self, Controls, Seen, Watch},
    source::{Interrupt, Item, SourceError},
    spec::Stage,
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
    /// How the pace is set and told of.
    pub(crate) pacing: Pacing,
    /// Has outputs wait, if they are to come in order.
    pub(crate) keeper: Option<Keeper>,
    /// What the run is recorded by, if it is.
    pub(crate) recorded: Option<Recorded>,
}

/// The journal's part in a run.
pub(crate) struct Recorded {
    pub(crate) record: Record,
    /// What earlier sessions have left, if there were any.
    pub(crate) feed: Option<Feed>,
    /// What they have done and perhaps not printed.
    pub(crate) unprinted: Vec<Known>,
    /// The names of the stages, for what is told of these.
    pub(crate) stages: Arc<[String]>,
    /// How results are printed.
    pub(crate) prints_output: bool,
}

impl Recorded {
    /// A run that has just begun.
    pub(crate) fn begun(record: Record, stages: &[Stage], prints_output: bool) -> Self {
        let stages = stages.iter().map(|stage| stage.name.clone()).collect();
        Self { record, feed: None, unprinted: Vec::new(), stages, prints_output }
    }
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
    let Options { reporter, interrupt, lines, keeper, recorded, .. } = options;
    let console = reporter.console().clone();
    let stop = Stop::new();
    reporter.may_stop(&stop);
    let cut_short = Arc::default();
    let (record, numbered, unprinted, stages, prints_output) = match recorded {
        None => (None, None, Vec::new(), Arc::default(), false),
        Some(Recorded { record, feed, unprinted, stages, prints_output }) => {
            (Some(record), Some(Numbered::new(feed)), unprinted, stages, prints_output)
        }
    };
    let taken = Taken {
        inputs,
        taken: 0,
        numbered,
        stages: stages.clone(),
        reporter: reporter.clone(),
        interrupt: interrupt.clone(),
        cut_short: Arc::clone(&cut_short),
    };
    stop.when_stopped(move || interrupt.stop());
    let clock = Clock::system();
    let mut items = Pipeline::from_iter(taken);
    if let Some(record) = record.clone() {
        items = items.record(move |answered| match answered.outcome {
            Ok(value) => value.origins.first().map_or(0, |origin| record.taken(origin)),
            Err(_) => 0,
        });
    }
    let mut pipeline = build(items).stop(&stop).clock(&clock).observer(reporter.clone());
    if let Some(record) = &record {
        pipeline = pipeline.journal(record.journal());
    }
    if let Some(Budget(cores)) = options.pacing.cpu_budget {
        pipeline = pipeline.cpu_budget(cores);
    }
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
        record: record.clone(),
    };
    printer.print_again(unprinted, &stages, prints_output);
    let print = printer.clone();
    let mut ended = pipeline.for_each_outcome(move |outcome| print.print(outcome)).run();
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
    if let (Ok(summary), Some(path)) = (&ended, &options.pacing.freeze)
        && let Err(error) = freeze(path, summary)
    {
        let reason = reason(&error);
        console.line(&format!("warning: could not write `{}`: {reason}", path.display()));
    }
    let has_worked = ended.as_ref().map_or(true, |summary| summary.taken > 0);
    if let (Ok(summary), Some(record)) = (&mut ended, &record) {
        add(record.base(), summary);
    }
    let idle = match (&ended, &record, has_worked) {
        (Ok(summary), Some(record), false) if record.is_resumed() => why_idle(summary),
        _ => None,
    };
    if let (Ok(summary), Some(why)) = (&ended, idle) {
        if !options.quiet {
            console.line(&format!("nothing to do: {why}\n{}", summary.account()));
        }
    } else if let Ok(summary) = &ended
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
    let seen = watch.seen();
    let mut unrecorded = None;
    if let Some(record) = record {
        let status = status_of(&ended, &trouble, &cut_short, &seen, &reporter);
        let has_ended = cut_short.is_none() && ended.as_ref().is_ok_and(|all| all.source_ended);
        unrecorded = record.finish(journal::ending(status), status, has_ended).err();
        if let Err(error) = &ended
            && error.kind() == paceline::ErrorKind::Journal
        {
            // It is told as the error of the run.
            unrecorded = None;
        }
    }
    let status = status(ended, trouble, cut_short, &seen, &reporter);
    if let Some(error) = unrecorded {
        console.line(&format!("error: {error}"));
        return Ok(ExitCode::from(exit_code::TROUBLE));
    }
    Ok(ExitCode::from(status))
}

/// Why a run that is gone on with had no item to work on, unless it was stopped before.
fn why_idle(summary: &Summary) -> Option<&'static str> {
    match (summary.failed, summary.unfinished) {
        (0, 0) if summary.source_ended => Some("all is done"),
        (0, 1..) => Some("no item has failed"),
        _ => None,
    }
}

/// Makes the account one of all sessions of the run.
fn add(base: Base, summary: &mut Summary) {
    summary.taken += base.ok + base.failed + base.unfinished;
    summary.ok += base.ok;
    summary.failed += base.failed;
    summary.unfinished += base.unfinished;
    summary.source_ended &= base.source_ended.unwrap_or(true);
}

/// The status with which [`status`] will end the program.
fn status_of(
    ended: &Result<Summary, paceline::Error>,
    trouble: &Option<Trouble>,
    cut_short: &Option<CutShort>,
    seen: &Seen,
    reporter: &Reporter,
) -> u8 {
    if let Some(signal) = seen.signal() {
        return 128_u8.saturating_add(u8::try_from(signal).unwrap_or(0));
    }
    if seen.is_reader_gone() || matches!(trouble, Some(Trouble::ReaderGone)) {
        return 128 + 13;
    }
    if trouble.is_some() || reporter.has_log_trouble() {
        return exit_code::TROUBLE;
    }
    match (cut_short, ended) {
        (Some(CutShort::Failed(_)), _) | (_, Err(_)) => exit_code::TROUBLE,
        (Some(CutShort::Stopped), Ok(_)) => exit_code::UNFINISHED,
        (None, Ok(summary)) => exit_code::of(summary),
    }
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
    /// Numbers items by the journal, if there is one.
    numbered: Option<Numbered>,
    stages: Arc<[String]>,
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
        match self.next_left() {
            None => {}
            Some(Ok(value)) => return Some(value),
            Some(Err(error)) => {
                *lock(&self.cut_short) = Some(CutShort::Failed(error));
                return None;
            }
        }
        let next = loop {
            match (self.inputs.next(), &mut self.numbered) {
                (Some(Ok((item, parts))), Some(numbered)) => match numbered.number(&item) {
                    Some((number, identity)) => {
                        break Some(Ok((item, parts, number, Some(identity))));
                    }
                    None => continue,
                },
                (Some(Ok((item, parts))), None) => {
                    break Some(Ok((item, parts, self.taken + 1, None)));
                }
                (Some(Err(error)), _) => break Some(Err(error)),
                (None, _) => break None,
            }
        };
        match next {
            Some(Ok((item, parts, number, identity))) => {
                self.taken += 1;
                let origin = Arc::new(Origin { seq: self.taken, number, identity, item, parts });
                self.reporter.taken(&origin, Vec::new());
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
        let (least, most) = self.inputs.size_hint();
        match &self.numbered {
            Some(numbered) if numbered.leaves_out() => (0, most.filter(|_| !numbered.has_left())),
            _ => (least, most),
        }
    }
}

impl<I> Taken<I> {
    /// The next item that an earlier session has left, with what it made of it.
    fn next_left(&mut self) -> Option<Result<Value, SourceError>> {
        if self.interrupt.is_stopped() {
            return None;
        }
        let known = match self.numbered.as_mut()?.next_left()? {
            Ok(known) => known,
            Err(error) => return Some(Err(SourceError::new(error.to_string()))),
        };
        self.taken += 1;
        let (origin, stages) = known_origin(self.taken, &known, &self.stages);
        self.reporter.taken(&origin, stages);
        Some(Ok(Value::recalling(origin, known.results)))
    }
}

/// An item that the journal knows, and what it has of its stages.
fn known_origin(seq: u64, known: &Known, names: &[String]) -> (Arc<Origin>, Vec<StageRecord>) {
    let (item, parts) = Item::restored(known.item.value.clone(), known.item.detail.as_deref());
    let (id, ordinal) = (known.item.id, known.item.ordinal);
    let identity = Some(Identity { id, ordinal, is_recorded: true });
    let stages = names.iter().zip(&known.results).map(|(name, made)| StageRecord {
        name: name.clone(),
        status: "ok",
        attempts: made.attempts,
        service: Duration::from_micros(made.service_us),
    });
    let stages = stages.collect();
    (Arc::new(Origin { seq, number: known.item.seq, identity, item, parts }), stages)
}

/// Puts what became of the items on standard output.
#[derive(Clone)]
struct Printer {
    results: Arc<Mutex<Results>>,
    reporter: Arc<Reporter>,
    json: bool,
    lines: Option<Lines>,
    record: Option<Record>,
}

impl Printer {
    /// Prints what earlier sessions have done and could not say that it was printed.
    fn print_again(&self, unprinted: Vec<Known>, stages: &[String], prints_output: bool) {
        let Some(record) = &self.record else { return };
        let mut results = lock(&self.results);
        let mut batches: Vec<(Option<u64>, Vec<Known>)> = Vec::new();
        for known in unprinted {
            let batch = known.results.last().and_then(|made| made.batch).map(|(batch, _)| batch);
            match batches.last_mut().filter(|(last, _)| batch.is_some() && *last == batch) {
                Some((_, of)) => of.push(known),
                None => batches.push((batch, vec![known])),
            }
        }
        for (batch, items) in batches {
            let Some(made) = items[0].results.last() else { continue };
            let tracked: Vec<Tracked> = items
                .iter()
                .map(|known| {
                    let (origin, stages) = known_origin(0, known, stages);
                    let batch = batch.map(|number| Batch::of(number, 0));
                    Tracked { origin, batch, stages, leaky: false }
                })
                .collect();
            if self.json {
                let value = match made.value.strip_suffix(b"\n") {
                    Some(line) if prints_output => line,
                    _ => &made.value,
                };
                results.line(json::ok(&tracked, value).to_string().as_bytes());
            } else if prints_output {
                let origins: Vec<_> = tracked.into_iter().map(|tracked| tracked.origin).collect();
                let output = Keeper::default().hold(&made.value);
                results.output(&output, self.reporter.tag(&origins).as_deref());
            } else {
                results.line(&made.value);
            }
            if !results.has_trouble() {
                record.printed_before(items.iter().map(|known| known.item.seq).collect());
            }
        }
    }

    fn print(&self, outcome: Result<Value, Failure>) {
        let last = match outcome {
            Ok(value) => {
                self.print_value(&value);
                if let Some(record) = &self.record
                    && !lock(&self.results).has_trouble()
                {
                    record.printed(&value, self.json);
                }
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
        self.reporter.turn_of(value.turn());
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
