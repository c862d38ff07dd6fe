//! `paceline run`: the stages of a file as a pipeline of the engine.

use std::{process::ExitCode, sync::Arc};

use paceline_process::Isolation;

use crate::{
    args,
    commands::{
        drive::{Options, cannot_begin, drive},
        open_items,
    },
    message::{Problem, harmless},
    report::{Console, Reporter},
    source::{Interrupt, Item},
    spec,
    stages::{self, Prints, Workshop},
};

/// Runs the command.
///
/// # Errors
///
/// Whatever is wrong before anything is run.
pub(crate) fn run(args: args::Run) -> Result<ExitCode, Problem> {
    let mut file = spec::load(&args.file)?;
    if args.isolate {
        for stage in file.stages.iter_mut().filter(|stage| stage.work.is_command()) {
            stage.isolation = Some(Isolation::Pid);
        }
    }
    let interrupt = Interrupt::new().map_err(cannot_begin)?;
    let items = open_items(&file, args.inputs, &interrupt)?;

    let console = Console::default();
    if let Some(note) = items.note().filter(|_| !args.quiet) {
        console.line(&format!("note: {}", harmless(note.as_bytes())));
    }
    let reporter = Arc::new(Reporter::new(console).quiet(args.quiet).recording(args.json));
    let shop = Workshop::of_file(&file, reporter.clone()).map_err(cannot_begin)?;
    let options = Options {
        name: file.name,
        json: args.json,
        quiet: args.quiet,
        progress: args.progress,
        halt: args.halt.map(|halt| halt.0),
        always_sums_up: true,
        reporter,
        interrupt,
        lines: None,
        keeper: None,
    };
    let inputs = items.map(|item| item.map(alone));
    drive(options, inputs, |items| stages::add_all(items, &file.stages, &shop, Prints::Nothing))
}

/// An item of the only source.
fn alone(item: Item) -> (Item, Vec<bytes::Bytes>) {
    let parts = vec![item.bytes.clone()];
    (item, parts)
}
