//! The stages of a pipeline file, made into those of the engine.
//!
//! Each kind of work is a file. All of them take a [`Value`] and give the one
//! that the next stage sees. What they share for a run is a [`Workshop`].
//!
//! Not here: the reading of the file (`spec.rs`) and what the built-in steps
//! do (`steps.rs`).

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use paceline::{Attempt, Fault, Pipeline, Retry};

use crate::{
    item::Value,
    journal::Record,
    kept::Keeper,
    lines::Lines,
    output_file::{Claims, Target},
    report::{Reporter, faults},
    spec::{self, Stage, Work, Workers},
    steps::{Http, file_url, put::Stores},
};

mod built_in;
mod command;
mod room;
mod serve;

/// The most requests at once of a stage that leaves its workers to us: more
/// would be rude to a server.
const MOST_REQUESTS: usize = 64;

/// What all stages of a run share.
#[derive(Debug)]
pub(crate) struct Workshop {
    /// The folder that names in files and outputs are relative to, absolute.
    pub(crate) folder: PathBuf,
    /// Where jobs run, if not where this program does.
    pub(crate) jobs_run_in: Option<PathBuf>,
    /// The names of the stages, in order.
    pub(crate) stages: Vec<String>,
    /// Which item has which output file.
    pub(crate) claims: Claims,
    /// What is told of each answer, if there is a journal.
    pub(crate) record: Option<Record>,
    /// The numbers of the last batches that earlier sessions have made, by stage.
    pub(crate) last_batch: HashMap<usize, u64>,
    pub(crate) http: Http,
    pub(crate) stores: Stores,
    pub(crate) reporter: Arc<Reporter>,
    /// Has outputs wait, if they are to come in order.
    pub(crate) keeper: Option<Keeper>,
    /// What prints the lines of jobs as they come, if it is not whole outputs.
    pub(crate) lines: Option<Lines>,
}

impl Workshop {
    /// The workshop of a pipeline file.
    ///
    /// # Errors
    ///
    /// If the working directory is gone and the file's folder is relative to it.
    pub(crate) fn of_file(file: &spec::Pipeline, reporter: Arc<Reporter>) -> std::io::Result<Self> {
        let folder = std::path::absolute(&file.folder)?;
        let stages = file.stages.iter().map(|stage| stage.name.clone()).collect();
        let jobs_run_in = Some(folder.clone());
        Ok(Self { jobs_run_in, ..Self::new(folder, stages, reporter) })
    }

    /// A workshop whose jobs run where this program does.
    pub(crate) fn new(folder: PathBuf, stages: Vec<String>, reporter: Arc<Reporter>) -> Self {
        let http = Http::default();
        Self {
            folder,
            jobs_run_in: None,
            stages,
            claims: Claims::default(),
            record: None,
            last_batch: HashMap::new(),
            stores: Stores::new(http.clone()),
            http,
            reporter,
            keeper: None,
            lines: None,
        }
    }

    /// Has this session's answers recorded.
    pub(crate) fn recorded_by(&mut self, record: Option<Record>) {
        self.claims = Claims::recorded_by(record.clone());
        self.record = record;
    }

    /// Takes the name of the file that `stage` has made for the item `number` in
    /// an earlier session: `made` is its result.
    pub(crate) fn take_name(&self, stage: &Stage, number: u64, made: &[u8]) {
        use std::os::unix::{ffi::OsStrExt, fs::MetadataExt};
        let path = match stage.work {
            Work::Put(_) if stage.to.is_none() => match file_url::path(made) {
                Ok(Some(path)) => self.path(&path),
                _ => return,
            },
            _ => self.path(made),
        };
        // A folder that is gone has no names that could be taken.
        let Some((folder, name)) = path.parent().zip(path.file_name()) else { return };
        if let Ok(found) = std::fs::metadata(folder) {
            let _ = self.claims.claim((found.dev(), found.ino()), name.as_bytes(), number);
        }
    }

    /// A path of the pipeline file or of an item, as this process reaches it.
    fn path(&self, value: &[u8]) -> PathBuf {
        self.folder.join(<Path as AsRef<Path>>::as_ref(as_path(value)))
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// One stage of the run.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The stage's place, counted from 0.
    pub(crate) index: usize,
    pub(crate) stage: Arc<Stage>,
    pub(crate) shop: Arc<Workshop>,
    /// How many items it works on at once.
    pub(crate) workers: paceline::Workers,
    /// Whether results are given as absolute paths, since a later stage runs elsewhere.
    pub(crate) absolute: bool,
    /// What becomes of its jobs' output.
    pub(crate) prints: Prints,
}

/// What becomes of the standard output of a stage's jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prints {
    /// It is the result, or becomes the file.
    Nothing,
    /// It is printed as it is, in one piece.
    Whole,
    /// The jobs write straight to ours.
    Directly,
}

impl Step {
    /// The file that `to` names for this value, if the stage has a `to`.
    fn target(&self, value: &Value, slot: usize) -> Result<Option<Target>, Fault> {
        let Some(to) = &self.stage.to else { return Ok(None) };
        let expanded = value.expand(&self.shop.stages, slot, None, |values| to.expand(values))?;
        let target = Target::new(&self.shop.folder, to.literal_prefix(), &expanded);
        target.map(Some).map_err(faults::of_step)
    }

    /// The result of a stage whose file is `spelled`.
    fn path_result(&self, spelled: &[u8]) -> Vec<u8> {
        use std::os::unix::ffi::OsStringExt;
        if self.absolute {
            self.shop.path(spelled).into_os_string().into_vec()
        } else {
            spelled.to_vec()
        }
    }
}

/// Adds the stages, in order; `last_prints` says what becomes of the last one's output.
pub(crate) fn add_all(
    items: Pipeline<'static, Value>,
    stages: &[Stage],
    shop: &Arc<Workshop>,
    last_prints: Prints,
) -> Pipeline<'static, Value, Value> {
    let mut widths: Vec<paceline::Workers> = stages.iter().map(workers).collect();
    let of_processes =
        stages.iter().zip(&mut widths).filter(|(stage, _)| stage.work.has_processes());
    let mut of_processes: Vec<(&mut paceline::Workers, u64)> =
        of_processes.map(|(stage, width)| (width, room::of_each_job(stage))).collect();
    room::fit(&mut of_processes, shop.reporter.console());
    let step = |index: usize| Step {
        index,
        workers: widths[index],
        prints: if index + 1 == stages.len() { last_prints } else { Prints::Nothing },
        stage: Arc::new(stages[index].clone()),
        shop: shop.clone(),
        absolute: stages[index + 1..].iter().any(|later| later.cwd.is_some()),
    };
    (1..stages.len()).fold(add(items, step(0)), |pipeline, index| add(pipeline, step(index)))
}

/// Adds one stage.
fn add<P>(pipeline: Pipeline<'static, Value, P>, step: Step) -> Pipeline<'static, Value, Value> {
    match step.stage.batch {
        None => add_work(pipeline, step),
        Some(batch) => {
            let reporter = step.shop.reporter.clone();
            let last = step.shop.last_batch.get(&step.index).copied().unwrap_or_default();
            let merge = move |batch: Vec<Value>, number| {
                // One that an earlier session has made has its number; new ones follow.
                let is_known = batch.first().is_some_and(|value| value.part().is_some());
                let number = if is_known { number } else { last + number };
                let value = Value::merge(batch, number);
                reporter.batched(&value.origins, number);
                value
            };
            add_work(pipeline.fan_in_recalling(batch.items, batch.wait, Value::part, merge), step)
        }
    }
}

fn add_work<P>(
    pipeline: Pipeline<'static, Value, P>,
    step: Step,
) -> Pipeline<'static, Value, Value> {
    let (stage, workers) = (step.stage.clone(), step.workers);
    let (index, record) = (step.index, step.shop.record.clone());
    let name = stage.name.as_str();
    let added = match stage.work {
        Work::Run(_) | Work::Shell(_) | Work::Pipe(_) => {
            pipeline.command_job(name, command::Commands::new(step))
        }
        Work::Fetch(_) => built_in::add_fetch(pipeline, step),
        Work::Put(_) => built_in::add_put(pipeline, step),
        Work::Resize { width, height } => built_in::add_resize(pipeline, step, width, height),
        Work::Serve(_) => serve::add_serve(pipeline, step),
        Work::Python(_) => serve::add_python(pipeline, step),
    };
    let added = with_settings(added.workers(workers), &stage);
    match record {
        None => added,
        Some(record) => added
            .record(move |answered| record.answered(index, answered))
            .recall(Value::is_recalled, Value::recall),
    }
}

fn with_settings(
    mut pipeline: Pipeline<'static, Value, Value>,
    stage: &Stage,
) -> Pipeline<'static, Value, Value> {
    pipeline = pipeline.grace(stage.grace);
    let ahead = stage.batch.and_then(|batch| batches_ahead(batch.items));
    if let Some(capacity) = stage.queue.or(ahead) {
        pipeline = pipeline.queue(capacity);
    }
    if let Some(timeout) = stage.timeout {
        pipeline = pipeline.timeout(timeout);
    }
    if stage.ordered {
        pipeline = pipeline.ordered();
    }
    pipeline.retry(retry(&stage.retry))
}

/// How many batches of so many items may wait, where the usual number would
/// take much memory.
fn batches_ahead(items: usize) -> Option<usize> {
    const ITEMS: usize = 4096;
    (items > ITEMS / 16).then(|| (ITEMS / items).max(paceline::cores()))
}

/// How many items the stage works on at once.
pub(crate) fn workers(stage: &Stage) -> paceline::Workers {
    match (stage.workers, &stage.work) {
        (Workers::Fixed(workers), _) => paceline::Workers::Fixed(workers),
        (Workers::UpTo(most), _) => paceline::Workers::UpTo(most),
        (Workers::Auto, Work::Fetch(_) | Work::Put(_)) => paceline::Workers::UpTo(MOST_REQUESTS),
        (Workers::Auto, _) => paceline::Workers::Auto,
    }
}

fn retry(retry: &spec::Retry) -> Retry {
    let policy =
        Retry::times(retry.times).backoff(retry.backoff).factor(retry.factor).jitter(retry.jitter);
    match retry.max {
        Some(max) => policy.max(max),
        None => policy,
    }
}

/// What a job is told of itself in its environment, beside `PACELINE_RUN` and
/// `PACELINE_JOB`, by which its descendants are found.
fn job_environment(step: &Step, value: &Value, attempt: &Attempt) -> Vec<(&'static str, String)> {
    let id = match value.origins.as_slice() {
        [one] => one.id(),
        many => {
            let mut hasher = blake3::Hasher::new();
            many.iter().for_each(|origin| {
                hasher.update(origin.id().as_bytes());
            });
            hasher.finalize().to_hex()[..32].to_owned()
        }
    };
    vec![
        ("PACELINE_STAGE", step.stage.name.clone()),
        ("PACELINE_ITEM", id),
        ("PACELINE_SEQ", value.number.to_string()),
        ("PACELINE_SLOT", attempt.slot().to_string()),
        ("PACELINE_ATTEMPT", attempt.number().to_string()),
    ]
}
