//! `paceline check`: what a file would do, and nothing done.

use std::{
    ffi::OsString,
    fmt::Write as _,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt,
    os::unix::ffi::OsStringExt,
    path::Path,
    process::ExitCode,
};

use crate::{
    args,
    commands::open_items,
    message::{Problem, harmless, reason},
    output_file::Target,
    source::{Interrupt, Item, Location, Origin, Step},
    spec::{self, Framing, Pipeline, Python, Serve, Stage, Work, Workers},
    template::{ExpandError, Values},
    words,
};

/// Runs the command.
///
/// # Errors
///
/// Whatever is wrong with the file or its source.
pub(crate) fn check(args: args::Check) -> Result<ExitCode, Problem> {
    let file = spec::load(&args.file)?;
    let first = first_item(&file, args.inputs)?;
    let text = describe(&file, first.as_ref());
    let mut stdout = io::stdout();
    Ok(crate::printed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())))
}

/// The stages, and what each would do with the first item.
fn describe(file: &Pipeline, first: Option<&Item>) -> String {
    let mut text = format!("pipeline `{}`\n", harmless(file.name.as_bytes()));
    let _ = match first {
        Some(Item { defect: Some(defect), .. }) => {
            let _ = writeln!(text, "first item fails: {}", harmless(defect.to_string().as_bytes()));
            return text + &stage_lines(file);
        }
        Some(item) => writeln!(text, "first item: {}", words::quote(&item.bytes)),
        None if is_open(file) => writeln!(text, "first item: known when the source is read"),
        None => writeln!(text, "first item: none"),
    };
    let mut value = first.map(|item| item.bytes.to_vec());
    let mut names = Vec::new();
    for stage in &file.stages {
        let _ = writeln!(text, "\nstage {}", line(stage));
        let known = Known { item: first, value: value.as_deref(), names: &names };
        for command in commands(stage, &known) {
            let _ = writeln!(text, "    {command}");
        }
        value = known.result(stage);
        names.push((stage.name.clone(), value.clone()));
    }
    text
}

/// The stages where no item can be shown going through them.
fn stage_lines(file: &Pipeline) -> String {
    file.stages.iter().map(|stage| format!("\nstage {}\n", line(stage))).collect()
}

/// The first item, if it can be had without running or waiting for anything.
fn first_item(file: &Pipeline, inputs: Vec<OsString>) -> Result<Option<Item>, Problem> {
    if inputs.is_empty() && is_open(file) {
        return Ok(None);
    }
    let interrupt = Interrupt::new()
        .map_err(|error| Problem::new(format!("cannot begin: {}", reason(&error))))?;
    let inputs = inputs.into_iter().map(OsString::into_vec).collect();
    match open_items(file, inputs, &interrupt)?.step() {
        Ok(Step::Item(item)) => Ok(Some(item)),
        Ok(Step::End | Step::Stopped) => Ok(None),
        Err(error) => Err(Problem::new(error.to_string())),
    }
}

/// Whether what the source holds is known only when it is run or waited for.
fn is_open(file: &Pipeline) -> bool {
    use Location::Stdin;
    matches!(
        file.source,
        None | Some(
            Origin::Command { .. }
                | Origin::Lines { from: Stdin, .. }
                | Origin::Jsonl(Stdin)
                | Origin::Csv(Stdin)
        )
    )
}

/// A stage in a line: its name, its kind and what is set.
fn line(stage: &Stage) -> String {
    let mut line = format!("`{}`: {}", harmless(stage.name.as_bytes()), stage.work.key());
    let _ = match stage.workers {
        Workers::Auto => write!(line, ", workers auto"),
        Workers::UpTo(most) => write!(line, ", workers auto, at most {most}"),
        Workers::Fixed(workers) => write!(line, ", workers {workers}"),
    };
    if let Some(timeout) = stage.timeout {
        let _ = write!(line, ", timeout {timeout:?}");
    }
    if stage.retry.times > 0 {
        let _ = write!(line, ", up to {} attempts", u64::from(stage.retry.times) + 1);
    }
    if let Some(batch) = stage.batch {
        let _ = write!(line, ", batches of {}", batch.items);
    }
    if stage.ordered {
        line.push_str(", ordered");
    }
    if stage.isolation.is_some() {
        line.push_str(", isolated");
    }
    line
}

/// What is known of the first item before a stage, without running anything.
struct Known<'a> {
    item: Option<&'a Item>,
    value: Option<&'a [u8]>,
    names: &'a [(String, Option<Vec<u8>>)],
}

impl Known<'_> {
    /// Expands with what is known; what is not stays as its placeholder.
    fn expand<T>(
        &self,
        expand: impl FnOnce(&Values<'_>) -> Result<T, ExpandError>,
    ) -> Result<T, ExpandError> {
        let values = [self.value.unwrap_or(b"{}")];
        let inputs = [self.item.map_or(&b"{in}"[..], |item| &item.bytes)];
        let names = |name: &str| {
            let unknown = || format!("{{{name}}}").into_bytes();
            if let Some((_, value)) = self.names.iter().find(|(stage, _)| stage == name) {
                return Ok(vec![value.clone().unwrap_or_else(unknown).into()]);
            }
            match self.item {
                Some(item) => item.field(name).map(|field| vec![field.into_owned().into()]),
                None => Ok(vec![unknown().into()]),
            }
        };
        expand(&Values {
            inputs: &inputs,
            sources: &inputs,
            out: Some(b"{out}"),
            names: Some(&names),
            ..Values::new(&values)
        })
    }

    /// What the stage makes of the item, where that is known beforehand.
    fn result(&self, stage: &Stage) -> Option<Vec<u8>> {
        self.value?;
        let to = stage.to.as_ref()?;
        self.expand(|values| to.expand(values)).ok()
    }
}

/// What the stage would do with the first item, quoted for a shell.
fn commands(stage: &Stage, known: &Known<'_>) -> Vec<String> {
    let quoted = |arguments: Vec<OsString>| {
        words::quote_all(arguments.iter().map(|argument| argument.as_bytes()))
    };
    let work = match &stage.work {
        Work::Run(command) => known.expand(|values| command.expand(values)).map(quoted),
        Work::Shell(script) => known.expand(|values| script.expand(values)).map(quoted),
        Work::Pipe(commands) => commands
            .iter()
            .map(|command| known.expand(|values| command.expand(values)).map(quoted))
            .collect::<Result<Vec<_>, _>>()
            .map(|commands| commands.join(" | ")),
        Work::Fetch(url) => known
            .expand(|values| url.expand(values))
            .map(|url| format!("fetch {}", words::quote(&url))),
        Work::Put(put) => known
            .expand(|values| put.url.expand(values))
            .map(|url| format!("put {}", words::quote(&url))),
        Work::Resize { width, height } => {
            let side = |side: &Option<u32>| side.map_or("any".to_owned(), |side| side.to_string());
            Ok(format!("resize to fit {} x {}", side(width), side(height)))
        }
        Work::Serve(serve) => Ok(serve_line(serve)),
        Work::Python(python) => Ok(python_line(python)),
    };
    let to = stage.to.as_ref().map(|to| {
        let expanded =
            known.expand(|values| to.expand(values)).map_err(|error| error.to_string())?;
        // What is not known yet cannot be judged.
        if known.value.is_some() {
            Target::new(Path::new(""), to.literal_prefix(), &expanded)
                .map_err(|error| error.line())?;
        }
        Ok(format!("to {}", words::quote(&expanded)))
    });
    std::iter::once(work.map_err(|error| error.to_string()))
        .chain(to)
        .map(|line: Result<String, String>| {
            line.unwrap_or_else(|error| {
                format!("fails for this item: {}", harmless(error.as_bytes()))
            })
        })
        .collect()
}

fn serve_line(serve: &Serve) -> String {
    let framing = match serve.framing {
        Framing::Lines => "a line",
        Framing::Json => "a JSON object",
    };
    let command = words::quote_all(serve.command.iter().map(Vec::as_slice));
    format!("{command}, {framing} an item{}", recycled(serve.max_items))
}

fn python_line(python: &Python) -> String {
    let Python { module, function, interpreter, max_items } = python;
    let interpreter = words::quote(interpreter.as_bytes());
    harmless(format!("{module}:{function} in {interpreter}{}", recycled(*max_items)).as_bytes())
}

fn recycled(max_items: Option<u64>) -> String {
    max_items.map_or_else(String::new, |items| format!(", replaced after {items} items"))
}
