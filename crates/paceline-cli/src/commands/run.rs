//! `paceline run`: the stages of a file as a pipeline of the engine.

use std::{
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use paceline::{Failure, Pipeline, Stop, Summary};

use crate::{
    args,
    commands::{check_supported, open_items},
    exit_code,
    item::{Origin, Value},
    message::{Problem, harmless, reason},
    report::{Console, Reporter, display::Display, json, summary},
    results::{Results, Trouble},
    signals::{self, Controls, Watch},
    source::{Interrupt, Items, SourceError},
    spec,
    stages::{self, Workshop},
};

/// Runs the command.
///
/// # Errors
///
/// Whatever is wrong before anything is run.
pub(crate) fn run(args: args::Run) -> Result<ExitCode, Problem> {
    let file = spec::load(&args.file)?;
    check_supported(&file)?;
    let cannot_begin = |error| Problem::new(format!("cannot begin: {}", reason(&error)));
    let interrupt = Interrupt::new().map_err(cannot_begin)?;
    let items = open_items(&file, args.inputs, &interrupt)?;

    let console = Console::default();
    if let Some(note) = items.note().filter(|_| !args.quiet) {
        console.line(&format!("note: {}", harmless(note.as_bytes())));
    }
    let reporter = Arc::new(Reporter::new(console.clone(), !args.quiet, args.json));
    let shop = Workshop::new(&file, reporter.clone()).map_err(cannot_begin)?;
    let stop = Stop::new();
    stop.when_stopped(move || interrupt.stop());

    let source_error = Arc::default();
    let error = Arc::clone(&source_error);
    let taken = Taken { items, taken: 0, reporter: reporter.clone(), error };
    let mut pipeline = stages::add_all(Pipeline::from_iter(taken), &file.stages, &shop)
        .stop(&stop)
        .observer(reporter.clone());
    if let Some(halt) = args.halt {
        pipeline = pipeline.halt(halt.0);
    }
    let monitor = pipeline.monitor();
    let controls = Controls {
        stop: stop.clone(),
        monitor: monitor.clone(),
        console: console.clone(),
        is_quiet: args.quiet,
    };
    let watch = Watch::begin(controls).map_err(cannot_begin)?;
    let when = if args.quiet { args::When::Never } else { args.progress };
    let display = Display::show(&file.name, when, &console, monitor);

    let results = Arc::new(Mutex::new(Results::new(stop)));
    let printer = Printer { results: results.clone(), reporter: reporter.clone(), json: args.json };
    let ended = pipeline.for_each_outcome(move |outcome| printer.print(outcome)).run();
    drop(display);

    let mut results = lock(&results);
    if args.json {
        for tracked in reporter.take_unfinished() {
            results.line(json::unfinished(&tracked).to_string().as_bytes());
        }
    }
    if let Ok(summary) = &ended
        && !args.quiet
    {
        console.line(summary::text(summary).trim_end());
    }
    let trouble = results.take_trouble();
    let source_error = lock(&source_error).take();
    Ok(ExitCode::from(status(ended, trouble, source_error, &watch, &console)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The items of the source, numbered and known to the reporter.
struct Taken {
    items: Items,
    taken: u64,
    reporter: Arc<Reporter>,
    error: Arc<Mutex<Option<SourceError>>>,
}

impl Iterator for Taken {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        match self.items.next()? {
            Ok(item) => {
                self.taken += 1;
                let origin = Arc::new(Origin { seq: self.taken, item });
                self.reporter.taken(&origin);
                Some(Value::new(origin))
            }
            Err(error) => {
                *lock(&self.error) = Some(error);
                None
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.items.size_hint()
    }
}

/// Puts what became of the items on standard output.
struct Printer {
    results: Arc<Mutex<Results>>,
    reporter: Arc<Reporter>,
    json: bool,
}

impl Printer {
    fn print(&self, outcome: Result<Value, Failure>) {
        let mut results = lock(&self.results);
        match outcome {
            Ok(value) if self.json => {
                let numbers: Vec<u64> = value.origins.iter().map(|origin| origin.seq).collect();
                let tracked = self.reporter.tracked(&numbers);
                results.line(json::ok(&tracked, &value.bytes()).to_string().as_bytes());
            }
            Ok(value) => results.line(&value.bytes()),
            Err(failure) if self.json => {
                let tracked = self.reporter.tracked(&failure.item().sequence_numbers());
                results.line(json::failed(&tracked, &failure).to_string().as_bytes());
            }
            Err(_) => {}
        }
    }
}

/// Decides how the program ends, and says why where that is not told yet.
fn status(
    ended: Result<Summary, paceline::Error>,
    trouble: Option<Trouble>,
    source_error: Option<SourceError>,
    watch: &Watch,
    console: &Console,
) -> u8 {
    if let Some(signal) = watch.signal() {
        return signals::end_by(signal);
    }
    if watch.is_reader_gone() || matches!(trouble, Some(Trouble::ReaderGone)) {
        return signals::end_by_broken_pipe();
    }
    if let Some(Trouble::Failed(error)) = trouble {
        let reason = reason(&error);
        console.line(&format!("error: could not write to standard output: {reason}"));
        return exit_code::TROUBLE;
    }
    if let Some(error) = source_error {
        console.line(&format!("error: {error}"));
        return exit_code::TROUBLE;
    }
    match ended {
        Ok(summary) => exit_code::of(&summary),
        Err(error) => {
            console.line(&format!("error: {}", harmless(error.to_string().as_bytes())));
            exit_code::TROUBLE
        }
    }
}
