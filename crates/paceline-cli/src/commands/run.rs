//! `paceline run`: the stages of a file as a pipeline of the engine.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::Path, process::ExitCode, sync::Arc};

use paceline_journal::NewRun;
use paceline_process::Isolation;

use crate::{
    args::{self, Conduct},
    commands::{
        drive::{Options, Recorded, cannot_begin, drive},
        open_items,
    },
    journal::{self, Opened},
    message::{Problem, harmless},
    report::{Console, PaceLog, Reporter, pacing::thaw},
    source::{Interrupt, Item, Items},
    spec::{self, Pipeline},
    stages::{self, Prints, Workshop},
};

/// Runs the command.
///
/// # Errors
///
/// Whatever is wrong before anything is run.
pub(crate) fn run(args: args::Run) -> Result<ExitCode, Problem> {
    let file = load(&args.file, &args.conduct)?;
    let interrupt = Interrupt::new().map_err(cannot_begin)?;
    let inputs: Vec<Vec<u8>> = args.inputs.into_iter().map(OsString::into_vec).collect();
    let source = source_word(&file, &inputs);
    let items = open_items(&file, inputs.clone(), &interrupt)?;

    let console = Console::default();
    if let Some(note) = items.note().filter(|_| !args.conduct.quiet) {
        console.line(&format!("note: {}", harmless(note.as_bytes())));
    }
    let reporter = reporter(&file, console.clone(), &args.conduct)?;
    let recorded = if args.no_journal {
        None
    } else {
        let place = journal::place(args.recording.journal.as_deref(), Some(&args.file));
        let durable = args.recording.durable;
        let journal = journal::open(&place, durable, &console)?;
        let pipeline = std::path::absolute(&args.file).map_err(cannot_begin)?;
        let (journal, number) = journal::begin(
            journal,
            &NewRun {
                command: "run".to_owned(),
                name: file.name.clone(),
                pipeline: Some(pipeline.into_os_string().into_vec()),
                source: source.to_owned(),
                inputs,
                stages: journal::stage_specs(&file.stages),
            },
        )?;
        let record = Opened::new(journal, number, durable).record(reporter.clone())?;
        Some(Recorded::begun(record, &file.stages, false))
    };
    let mut shop = Workshop::of_file(&file, reporter).map_err(cannot_begin)?;
    shop.recorded_by(recorded.as_ref().map(|recorded| recorded.record.clone()));
    conduct(file, args.conduct, shop, items, interrupt, recorded)
}

/// Reads a pipeline file, and sets its stages as the command line wants them.
///
/// # Errors
///
/// If one of the files is wrong.
pub(super) fn load(path: &Path, conduct: &Conduct) -> Result<Pipeline, Problem> {
    let mut file = spec::load(path)?;
    if conduct.isolate {
        for stage in file.stages.iter_mut().filter(|stage| stage.work.is_command()) {
            stage.isolation = Some(Isolation::Pid);
        }
    }
    if let Some(path) = &conduct.pacing.workers_from {
        thaw(path, &mut file.stages)?;
    }
    Ok(file)
}

/// Who tells of the run, and logs its pace if it is to.
///
/// # Errors
///
/// If the log cannot be written.
pub(super) fn reporter(
    file: &Pipeline,
    console: Console,
    conduct: &Conduct,
) -> Result<Arc<Reporter>, Problem> {
    let pace_log = conduct.pacing.pace_log.as_ref();
    let pace_log = pace_log.map(|path| PaceLog::create(path, &file.stages)).transpose()?;
    let reporter = Reporter::new(console).quiet(conduct.quiet).recording(conduct.json);
    Ok(Arc::new(reporter.pacing(pace_log)))
}

/// Pushes the items through the stages of the file.
///
/// # Errors
///
/// If it cannot begin.
pub(super) fn conduct(
    file: Pipeline,
    conduct: Conduct,
    shop: Workshop,
    items: Items,
    interrupt: Interrupt,
    recorded: Option<Recorded>,
) -> Result<ExitCode, Problem> {
    let options = Options {
        name: file.name,
        json: conduct.json,
        quiet: conduct.quiet,
        progress: conduct.progress,
        halt: conduct.halt.map(|halt| halt.0),
        always_sums_up: true,
        reporter: shop.reporter.clone(),
        interrupt,
        lines: None,
        pacing: conduct.pacing,
        keeper: None,
        recorded,
    };
    let shop = Arc::new(shop);
    let inputs = items.map(|item| item.map(alone));
    drive(options, inputs, |items| stages::add_all(items, &file.stages, &shop, Prints::Nothing))
}

/// Where the items come from, in the journal's words.
fn source_word(file: &Pipeline, inputs: &[Vec<u8>]) -> &'static str {
    match &file.source {
        _ if !inputs.is_empty() => "inputs",
        Some(source) if !source.is_stdin() => "file",
        _ => "stdin",
    }
}

/// An item of the only source.
fn alone(item: Item) -> (Item, Vec<bytes::Bytes>) {
    let parts = vec![item.bytes.clone()];
    (item, parts)
}
