//! The pipeline file: read, checked, and told about where it is wrong.
//!
//! The file is read into a tree that knows the place of everything in it, and
//! checked part by part; the first thing wrong ends it, before any item runs.
//! What is left is a [`Pipeline`] of checked values.
//!
//! Not here: whether programs, folders and files exist, and how work is done.

pub(crate) mod duration;
mod retry;
mod size;
mod source;
mod stage;
#[cfg(test)]
mod tests;
mod texts;
mod tree;
mod work;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paceline_process::Isolation;

use crate::message::{Place, Problem, reason};
use crate::source::{Interrupt, Items, Origin};
use crate::template::{CommandTemplate, ShellTemplate, Template, UrlTemplate};

use tree::{Fault, Tree};

/// The longest pipeline file, in bytes.
const LONGEST_FILE: u64 = 4 << 20;

/// The most stages of a pipeline.
const MOST_STAGES: usize = 1000;

/// A pipeline file that is right.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    /// The `name`, or the file's stem.
    pub(crate) name: String,
    /// The file's folder: paths in the file are relative to it, and jobs run in it.
    pub(crate) folder: PathBuf,
    pub(crate) source: Option<Origin>,
    /// Where the file says the source.
    pub(crate) source_place: Option<Place>,
    /// One or more.
    pub(crate) stages: Vec<Stage>,
}

/// A stage as the file says it.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) work: Work,
    /// The file that is the result.
    pub(crate) to: Option<Template>,
    pub(crate) workers: Workers,
    /// The capacity of the queue before the stage; `None` leaves it to the engine.
    pub(crate) queue: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) grace: Duration,
    pub(crate) retry: Retry,
    /// Whether the value is the standard input of its job.
    pub(crate) stdin: bool,
    pub(crate) ordered: bool,
    pub(crate) batch: Option<Batch>,
    /// Where jobs run, if not in the pipeline's folder; relative to that.
    pub(crate) cwd: Option<PathBuf>,
    /// Set for the jobs, in the order of the names.
    pub(crate) env: Vec<(String, String)>,
    /// How jobs are kept apart, if they are.
    pub(crate) isolation: Option<Isolation>,
    /// All that decides what the stage makes of an item, in one spelling: for its hash.
    pub(crate) definition: String,
    /// Where the file says the stage's name.
    pub(crate) place: Place,
}

/// How many items a stage may have in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workers {
    Auto,
    /// As `Auto`, and no more than this, 1 or more.
    UpTo(usize),
    /// 1 or more.
    Fixed(usize),
}

/// When a failed item gets another attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Retry {
    /// Extra attempts.
    pub(crate) times: u32,
    /// The wait before the first of them.
    pub(crate) backoff: Duration,
    /// How much longer each wait is than the one before it; 1 or more.
    pub(crate) factor: f64,
    /// The longest wait.
    pub(crate) max: Option<Duration>,
    pub(crate) jitter: bool,
}

/// How items are put together for one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The most items of a batch, 1 or more.
    pub(crate) items: usize,
    /// How long the first item of a batch waits for others; `None` waits for a full batch or the end.
    pub(crate) wait: Option<Duration>,
}

/// What a stage does with an item.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    Run(CommandTemplate),
    Shell(ShellTemplate),
    /// One command or more, joined by pipes.
    Pipe(Vec<CommandTemplate>),
    Serve(Serve),
    Python(Python),
    Fetch(UrlTemplate),
    /// The box to fit in; at least one side is there.
    Resize {
        width: Option<u32>,
        height: Option<u32>,
    },
    Put(Put),
}

/// Long-lived worker processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Serve {
    /// The program and its arguments.
    pub(crate) command: Vec<Vec<u8>>,
    pub(crate) framing: Framing,
    /// After how many items a worker is replaced.
    pub(crate) max_items: Option<u64>,
}

/// How items and answers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Lines,
    Json,
}

/// A Python function in long-lived worker processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Python {
    pub(crate) module: String,
    pub(crate) function: String,
    pub(crate) interpreter: String,
    /// After how many items a worker is replaced.
    pub(crate) max_items: Option<u64>,
}

impl Python {
    /// The interpreter where the file names none.
    pub(crate) const INTERPRETER: &'static str = "python3";
}

/// Sending a file.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    /// The file to send; `None` is the one that the value names.
    pub(crate) from: Option<Template>,
    pub(crate) url: UrlTemplate,
}

impl Stage {
    /// A stage of a command on the command line, with nothing else said.
    pub(crate) fn of_command(name: String, work: Work) -> Self {
        let nowhere = Place::find("the command line", "", 0..0);
        Self {
            name,
            work,
            to: None,
            workers: Workers::Auto,
            queue: None,
            timeout: None,
            grace: stage::GRACE,
            retry: Retry::default(),
            stdin: false,
            ordered: false,
            batch: None,
            cwd: None,
            env: Vec::new(),
            isolation: None,
            definition: String::new(),
            place: nowhere,
        }
    }
}

impl Work {
    /// Whether an item is the work of child processes of its own.
    pub(crate) fn is_command(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Shell(_) | Self::Pipe(_))
    }

    /// Whether it is done by processes, of an item or of a worker.
    pub(crate) fn has_processes(&self) -> bool {
        self.is_command() || matches!(self, Self::Serve(_) | Self::Python(_))
    }

    /// The key of the file that says this work.
    pub(crate) fn key(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Shell(_) => "shell",
            Self::Pipe(_) => "pipe",
            Self::Serve(_) => "serve",
            Self::Python(_) => "python",
            Self::Fetch(_) => "fetch",
            Self::Resize { .. } => "resize",
            Self::Put(_) => "put",
        }
    }
}

/// Reads and checks the pipeline file at `path`.
///
/// # Errors
///
/// When the file cannot be read, is over 4 MiB, or is wrong; the problem has the place.
pub(crate) fn load(path: &Path) -> Result<Pipeline, Problem> {
    let shown = path.display();
    let refused = |error| {
        Problem::new(format!("cannot read the pipeline file `{shown}`: {}", reason(&error)))
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(refused)?;
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(Problem::new(format!(
            "the pipeline file `{shown}` is over the limit of 4 MiB"
        ))
        .hint("items belong in a file that `lines`, `jsonl` or `csv` names".to_owned()));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => parse(text, path),
        Err(error) => {
            let line = 1 + memchr::memchr_iter(b'\n', &bytes[..error.valid_up_to()]).count();
            Err(Problem::new(format!("line {line} of the pipeline file `{shown}` is not UTF-8")))
        }
    }
}

/// Checks `text`, the content of the pipeline file at `path`.
///
/// # Errors
///
/// When it is wrong: the first thing found, with its place.
pub(crate) fn parse(text: &str, path: &Path) -> Result<Pipeline, Problem> {
    let file = path.display().to_string();
    checked(text, path, &file).map_err(|fault| fault.into_problem(&file, text))
}

fn checked(text: &str, path: &Path, file: &str) -> Result<Pipeline, Fault> {
    let tree = Tree::parse(text)?;
    let root = tree.root();
    root.check_keys(&["name", "source", "stage"])?;
    let name = match root.get("name") {
        Some(name) => name.filled_string()?.to_owned(),
        None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let source = root.get("source").map(|value| source::read(&value)).transpose()?;
    let folder = path.parent().unwrap_or(Path::new("")).to_owned();
    let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
    let fields = texts::Fields::of(source.as_ref(), &folder);
    let mut stages: Vec<Stage> = Vec::new();
    let mut lines = HashMap::new();
    let tables = stage_tables(&root)?;
    let mut positions = HashMap::new();
    for (position, table) in tables.iter().enumerate() {
        if let Some(name) = stage::name_of(table) {
            positions.entry(name).or_insert(position);
        }
    }
    for (position, table) in tables.iter().enumerate() {
        let scope = texts::Scope { stages: &positions, position, fields: &fields };
        let stage = stage::read(table, &scope, |span| Place::find(file, text, span))?;
        if let Some(line) = lines.insert(stage.name.clone(), stage.place.line) {
            let span = table.get("name").map(|name| name.span()).unwrap_or_default();
            return Err(Fault::at(span, format!("a second stage is called `{}`", stage.name))
                .hint(format!("the first one is on line {line}; give this one another name")));
        }
        stages.push(stage);
    }
    let source_place =
        root.get("source").map(|value| Place::find(file, text, source::span(&value)));
    Ok(Pipeline { name, folder, source, source_place, stages })
}

fn stage_tables<'t>(root: &tree::Table<'t>) -> Result<Vec<tree::Table<'t>>, Fault> {
    const HINT: &str = "a stage begins with `[[stage]]`, then `name = \"...\"` and its work";
    let Some(value) = root.get("stage") else {
        return Err(Fault::new("the pipeline has no stage").hint(HINT.to_owned()));
    };
    let Some(values) = value.as_array() else {
        return Err(Fault::at(value.span(), "`stage` is one table, and not a list of them")
            .hint("write `[[stage]]` with double brackets".to_owned()));
    };
    if values.is_empty() {
        return Err(Fault::at(value.span(), "the pipeline has no stage").hint(HINT.to_owned()));
    }
    if values.len() > MOST_STAGES {
        let message =
            format!("the pipeline has {} stages, over the limit of {MOST_STAGES}", values.len());
        return Err(Fault::at(value.span(), message));
    }
    let table = |(index, value): (usize, tree::Value<'t>)| {
        value.named(format!("stage {}", index + 1)).table()
    };
    values.into_iter().enumerate().map(table).collect()
}

impl Pipeline {
    /// Opens the source of the file, or gives `None` if it says none.
    ///
    /// # Errors
    ///
    /// When a file cannot be read; with the place of the source.
    pub(crate) fn open_source(&self, interrupt: &Interrupt) -> Result<Option<Items>, Problem> {
        let Some(origin) = &self.source else { return Ok(None) };
        match (Items::open(origin, &self.folder, interrupt), &self.source_place) {
            (Err(problem), Some(place)) => Err(problem.at(place.clone())),
            (items, _) => items.map(Some),
        }
    }
}
