//! `paceline resume`, `retry`, and `each --resume`: a run is gone on with.
//!
//! Commands come from the pipeline file and never from the journal, which
//! only says what they have made so far.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    process::ExitCode,
};

use paceline_journal::{Journal, NewRun, Progress, StageSpec};

use super::{
    drive::{Recorded, cannot_begin},
    open_items, run,
};
use crate::{
    args::{self, Changed},
    journal::{self, Base, Feed, Opened, problem},
    message::{Problem, harmless},
    report::Console,
    source::{Interrupt, Items},
    spec::Stage,
    stages::Workshop,
};

/// Which items are worked on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// All that are not done, and those of the source that are new.
    NotDone,
    /// Those that have failed.
    Failed,
}

/// A run as the command line names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    Newest,
    Number(u64),
    Pipeline(PathBuf),
}

impl Target {
    pub(super) fn of(said: Option<&OsStr>) -> Self {
        let Some(said) = said else { return Self::Newest };
        match said.to_str().and_then(|text| text.parse().ok()) {
            Some(number) => Self::Number(number),
            None => Self::Pipeline(PathBuf::from(said)),
        }
    }

    pub(super) fn pipeline(&self) -> Option<&Path> {
        match self {
            Self::Pipeline(path) => Some(path),
            Self::Newest | Self::Number(_) => None,
        }
    }
}

/// The file's path as the journal has it.
pub(super) fn recorded_path(pipeline: &Path) -> Result<Vec<u8>, Problem> {
    let path = std::path::absolute(pipeline).map_err(cannot_begin)?;
    Ok(path.into_os_string().into_vec())
}

/// The problem of a journal in which nothing is to be found.
pub(super) fn no_journal(path: &Path) -> Problem {
    let path = harmless(path.as_os_str().as_bytes());
    Problem::new(format!("there is no journal `{path}`")).hint(
        "`paceline run` makes one beside the pipeline file; name that file, or `--journal FILE`"
            .to_owned(),
    )
}

/// The problem of a journal that has no run of this pipeline file, or none at all.
pub(super) fn no_run(journal: &Path, pipeline: Option<&Path>) -> Problem {
    let journal = harmless(journal.as_os_str().as_bytes());
    match pipeline.map(|path| harmless(path.as_os_str().as_bytes())) {
        None => Problem::new(format!("the journal `{journal}` has no run"))
            .hint("`paceline run PIPELINE.toml` begins one".to_owned()),
        Some(path) => Problem::new(format!("the journal `{journal}` has no run of `{path}`"))
            .hint("`paceline runs` lists those it has".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
///
/// Whatever is wrong before anything is run.
pub(crate) fn resume(args: args::Resume, what: What) -> Result<ExitCode, Problem> {
    let target = Target::of(args.target.as_deref());
    let place = journal::place(args.recording.journal.as_deref(), target.pipeline());
    if !place.exists() {
        return Err(no_journal(&place));
    }
    let console = Console::default();
    let mut journal = journal::open(&place, args.recording.durable, &console)?;
    let number = find(&journal, &target)?;
    let recorded = journal.run(number).map_err(|error| problem(&error))?;
    if recorded.command != "run" {
        return Err(Problem::new(format!("run {number} is one of `paceline each`")).hint(
            "run that command again with `--journal FILE --resume`: commands are not taken from \
             a journal"
                .to_owned(),
        ));
    }
    let path = pipeline_file(&target, &recorded, &place)?;
    let file = run::load(&path, &args.conduct)?;
    let interrupt = Interrupt::new().map_err(cannot_begin)?;
    let items = match (what, recorded.source.as_str()) {
        (What::Failed, _) | (What::NotDone, "stdin") => Items::given([], &interrupt),
        (What::NotDone, "inputs") => {
            let inputs = journal.inputs(number).map_err(|error| problem(&error))?;
            open_items(&file, inputs, &interrupt)?
        }
        (What::NotDone, _) => open_items(&file, Vec::new(), &interrupt)?,
    };
    journal::clean_up_after(&journal, number)?;
    settle_changes(&mut journal, number, &file.stages, args.changed)?;
    let progress = journal.progress(number).map_err(|error| problem(&error))?;
    let is_stdin = recorded.source == "stdin";
    if is_stdin && !progress.source_ended && !args.conduct.quiet {
        console.line(
            "note: standard input was not read to its end; only what was taken from it is known",
        );
    }
    let reporter = run::reporter(&file, console, &args.conduct)?;
    let mut shop = Workshop::of_file(&file, reporter).map_err(cannot_begin)?;
    let durable = args.recording.durable;
    let next = Next { number, what, durable, prints_output: false };
    let recorded = begin(journal, progress, next, &file.stages, &mut shop)?;
    run::conduct(file, args.conduct, shop, items, interrupt, Some(recorded))
}

/// The journal's part in `each --journal`, with or without `--resume`.
///
/// # Errors
///
/// If the journal cannot be opened, or the command is not the recorded one.
pub(super) fn of_each(
    path: &Path,
    args: &args::Each,
    stages: &[Stage],
    shop: &mut Workshop,
) -> Result<Recorded, Problem> {
    let mut journal = journal::open(path, args.durable, shop.reporter.console())?;
    let newest = match args.resume {
        true => journal.newest("each", None).map_err(|error| problem(&error))?,
        false => None,
    };
    let Some(number) = newest else {
        let run = NewRun {
            command: "each".to_owned(),
            name: stages[0].name.clone(),
            source: "file".to_owned(),
            stages: journal::stage_specs(stages),
            ..NewRun::default()
        };
        let (journal, number) = journal::begin(journal, &run)?;
        let record = Opened::new(journal, number, args.durable).record(shop.reporter.clone())?;
        shop.recorded_by(Some(record.clone()));
        return Ok(Recorded::begun(record, stages, true));
    };
    journal::clean_up_after(&journal, number)?;
    settle_changes(&mut journal, number, stages, args.changed)?;
    let progress = journal.progress(number).map_err(|error| problem(&error))?;
    let durable = args.durable;
    let next = Next { number, what: What::NotDone, durable, prints_output: true };
    begin(journal, progress, next, stages, shop)
}

/// The session that is about to begin.
#[derive(Clone, Copy)]
struct Next {
    /// Of the run.
    number: u64,
    what: What,
    durable: bool,
    prints_output: bool,
}

/// Begins another session.
fn begin(
    mut journal: Journal,
    mut progress: Progress,
    Next { number, what, durable, prints_output }: Next,
    stages: &[Stage],
    shop: &mut Workshop,
) -> Result<Recorded, Problem> {
    let mut unprinted = std::mem::take(&mut progress.unprinted);
    if !prints_output {
        // An empty result is an empty line.
        unprinted.append(&mut progress.unprinted_empty);
        unprinted.sort_unstable();
    }
    let unprinted = match what {
        What::NotDone => progress.of(&unprinted).map_err(|error| problem(&error))?,
        What::Failed => Vec::new(),
    };
    let base = match what {
        What::NotDone => Base { ok: progress.done, ..Base::default() },
        What::Failed => Base {
            ok: progress.done,
            unfinished: progress.unfinished,
            source_ended: Some(progress.source_ended),
            ..Base::default()
        },
    };
    let pending = progress.pending(true, what == What::NotDone);
    let known: HashSet<_> = std::mem::take(&mut progress.known);
    let feed = Feed { pending, known, last: progress.last_seq };
    journal.go_on(number, &journal::session()).map_err(|error| problem(&error))?;
    let opened = Opened { journal, run: number, base, durable, is_resumed: true };
    let record = opened.record(shop.reporter.clone())?;
    shop.recorded_by(Some(record.clone()));
    shop.last_batch = std::mem::take(&mut progress.last_batch);
    journal::take_names(&progress, stages, shop)?;
    let names = stages.iter().map(|stage| stage.name.clone()).collect();
    Ok(Recorded { record, feed: Some(feed), unprinted, stages: names, prints_output })
}

fn find(journal: &Journal, target: &Target) -> Result<u64, Problem> {
    let newest = |command: &str, pipeline: Option<&[u8]>| {
        journal.newest(command, pipeline).map_err(|error| problem(&error))
    };
    let found = match target {
        Target::Number(number) => return Ok(*number),
        Target::Pipeline(path) => newest("run", Some(&recorded_path(path)?))?,
        // Better told that it is one of `each` than that there is none.
        Target::Newest => match newest("run", None)? {
            None => newest("each", None)?,
            found => found,
        },
    };
    found.ok_or_else(|| no_run(journal.path(), target.pipeline()))
}

/// The pipeline file of a run: the one that is named, or where the journal has it.
fn pipeline_file(target: &Target, recorded: &NewRun, place: &Path) -> Result<PathBuf, Problem> {
    if let Some(path) = target.pipeline() {
        return Ok(path.to_owned());
    }
    let path = PathBuf::from(OsString::from_vec(recorded.pipeline.clone().unwrap_or_default()));
    // The file lies beside the journal's folder, also if both have been moved.
    let beside = place.parent().and_then(Path::parent).zip(path.file_name());
    let beside = beside.map(|(folder, name)| folder.join(name));
    Ok(match beside {
        Some(beside) if !path.exists() && beside.exists() => beside,
        _ => path,
    })
}

/// Sees to it that the run has the stages of `stages`.
///
/// # Errors
///
/// If one has changed and nobody has said what is to be done.
fn settle_changes(
    journal: &mut Journal,
    run: u64,
    stages: &[Stage],
    said: Option<Changed>,
) -> Result<(), Problem> {
    let recorded = journal.stages(run).map_err(|error| problem(&error))?;
    let now = journal::stage_specs(stages);
    let is_same = |(a, b): &(&StageSpec, &StageSpec)| a.definition == b.definition;
    let same = recorded.iter().zip(&now).take_while(is_same).count();
    if same == recorded.len() && same == now.len() {
        if recorded != now {
            journal.change_stages(run, &now, None).map_err(|error| problem(&error))?;
        }
        return Ok(());
    }
    let Some(said) = said else {
        let name = now.get(same).or(recorded.get(same)).map_or("", |stage| &stage.name);
        let what = match (recorded.get(same), now.get(same)) {
            (Some(_), Some(_)) => "has changed",
            (None, _) => "is new",
            (_, None) => "is gone",
        };
        let message =
            format!("stage `{}` {what} since run {run} was recorded", harmless(name.as_bytes()));
        return Err(Problem::new(message).hint(
            "`--changed rerun` runs items again from there on, `--changed keep` lets stand what \
             is done"
                .to_owned(),
        ));
    };
    match said {
        Changed::Rerun => journal.change_stages(run, &now, Some(same)),
        Changed::Keep => journal.keep_stages(run, &now),
    }
    .map_err(|error| problem(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_its_number_or_its_file() {
        assert_eq!(Target::of(None), Target::Newest);
        assert_eq!(Target::of(Some("3".as_ref())), Target::Number(3));
        assert_eq!(Target::of(Some("3.toml".as_ref())), Target::Pipeline("3.toml".into()));
    }
}
