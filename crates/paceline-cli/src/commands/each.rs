//! `paceline each`: one command for every item, or several in a row.
//!
//! A pipeline like that of a file: each command is a stage, and what the last
//! one's jobs write is printed as it is.

use std::{
    ffi::{OsStr, OsString},
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use paceline_process::Isolation;

use crate::{
    args::{self, Width},
    commands::{
        drive::{Input, Options, cannot_begin, drive, unlogged},
        resume,
    },
    exit_code, inputs,
    kept::Keeper,
    lines::Lines,
    message::{Problem, reason},
    report::{Console, JobLog, PaceLog, Reporter, pacing::thaw},
    source::Interrupt,
    spec::{Batch, Retry, Stage, Work, Workers},
    stages::{self, Prints, Workshop},
    template::{CommandTemplate, Dialect, Hole, Placeholder, ShellTemplate, Values},
    words,
};

/// Runs the command.
///
/// # Errors
///
/// Whatever is wrong before anything is run.
pub(crate) fn each(args: args::Each) -> Result<ExitCode, Problem> {
    let (command, said) = inputs::divide(args.job.words.clone(), &args.job.arg_file)?;
    if command.is_empty() {
        return Err(Problem::new("there is no command to run for each item")
            .hint("name it before the items: `paceline each gzip ::: a.txt b.txt`".to_owned()));
    }
    let mut stages = stages_of(&args, &command)?;
    if let Some(path) = &args.conduct.pacing.workers_from {
        thaw(path, &mut stages)?;
    }
    check_numbers(&stages, said.len().max(1).saturating_mul(args.job.batch))?;
    let interrupt = Interrupt::new().map_err(cannot_begin)?;
    let inputs = inputs::open(said, args.job.null, args.job.skip_empty, &interrupt)?;
    if args.dry_run {
        return dry_run(&stages, inputs);
    }
    let log = match &args.joblog {
        Some(path) => Some(JobLog::create(path).map_err(|error| cannot_log(path, &error))?),
        None => None,
    };
    if let Some(error) = log.as_ref().and_then(JobLog::take_trouble) {
        return Ok(unlogged(&Console::default(), &error));
    }
    let keeper = args.ordered.then(Keeper::default);
    let pace_log = args.conduct.pacing.pace_log.as_ref();
    let pace_log = pace_log.map(|path| PaceLog::create(path, &stages)).transpose()?;
    let reporter = Arc::new(
        Reporter::new(Console::default())
            .quiet(args.conduct.quiet)
            .recording(args.conduct.json)
            .tagging(args.tag)
            .in_order(keeper.clone())
            .logging(log)
            .pacing(pace_log),
    );
    // The folder may be gone, which is a matter of the jobs alone.
    let folder = std::path::absolute(".").unwrap_or_else(|_| PathBuf::from("."));
    let names = stages.iter().map(|stage| stage.name.clone()).collect();
    let mut shop = Workshop::new(folder, names, reporter.clone());
    shop.keeper = keeper.clone();
    let lines = args.line_buffered.then(Lines::new).transpose().map_err(cannot_begin)?;
    shop.lines = lines.clone();
    let recorded = match &args.journal {
        None => None,
        Some(path) => Some(resume::of_each(path, &args, &stages, &mut shop)?),
    };
    let shop = Arc::new(shop);
    let options = Options {
        name: stages[0].name.clone(),
        json: args.conduct.json,
        quiet: args.conduct.quiet,
        progress: args.conduct.progress,
        halt: args.conduct.halt.map(|halt| halt.0),
        always_sums_up: false,
        reporter,
        interrupt,
        lines,
        pacing: args.conduct.pacing,
        keeper,
        recorded,
    };
    let prints =
        if args.ungrouped && !args.conduct.json { Prints::Directly } else { Prints::Whole };
    let window = AHEAD.saturating_mul(args.job.batch as u64);
    drive(options, inputs, |items| stages::add_all(items, &stages, &shop, prints).window(window))
}

/// How many jobs may be ahead of a late one with the order kept. 10,000 take
/// some 10 MiB beside their outputs, most of which wait in files.
const AHEAD: u64 = 10_000;

fn cannot_log(path: &Path, error: &io::Error) -> Problem {
    Problem::new(format!("cannot write the job log `{}`: {}", path.display(), reason(error)))
}

/// The stages that the command line says.
fn stages_of(args: &args::Each, command: &[OsString]) -> Result<Vec<Stage>, Problem> {
    let mut stages: Vec<Stage> = Vec::new();
    let commands =
        std::iter::once(command.to_vec()).chain(args.then.iter().map(|then| vec![then.clone()]));
    for (index, command) in commands.enumerate() {
        let work = work(&args.job, &command)?;
        let name = name(&stages, &command);
        let mut stage = Stage::of_command(name, work);
        let width = match index.checked_sub(1) {
            None => Some(args.workers),
            Some(then) => args.then_workers.get(then).or(args.then_workers.last()).copied(),
        };
        stage.workers = width.map_or(Workers::Auto, Width::workers);
        stage.timeout = args.timeout.map(|timeout| timeout.0);
        stage.grace = args.grace.0;
        stage.retry = Retry { times: args.retries, backoff: args.backoff.0, ..Retry::default() };
        stage.stdin = args.job.stdin;
        stage.isolation = args.conduct.isolate.then_some(Isolation::Pid);
        stage.definition = definition(args, &command, index == 0);
        stages.push(stage);
    }
    let last = stages.len() - 1;
    stages[last].ordered = args.ordered;
    if args.job.batch > 1 {
        stages[0].batch = Some(Batch { items: args.job.batch, wait: None });
    }
    Ok(stages)
}

/// All that decides what a command makes of an item, in one spelling.
fn definition(args: &args::Each, command: &[OsString], is_first: bool) -> String {
    let words = words::quote_all(command.iter().map(|word| word.as_bytes()));
    let kind = if args.job.shell { "shell" } else { "run" };
    let mut definition = format!("{kind}={words}\nstdin={}\n", args.job.stdin);
    if let Some(replace) = &args.job.replace {
        definition.push_str(&format!("replace={}\n", words::quote_all([replace.as_bytes()])));
    }
    if is_first && args.job.batch > 1 {
        definition.push_str(&format!("batch={}\n", args.job.batch));
    }
    definition
}

/// The work of one command.
pub(super) fn work(job: &args::Job, command: &[OsString]) -> Result<Work, Problem> {
    let replace = job.replace.as_deref().map_or(&b"{}"[..], OsStrExt::as_bytes);
    let dialect = Dialect::Each { replace };
    if job.shell {
        let [script] = command else {
            return Err(Problem::new("`--shell` takes the script as one word").hint(
                "put it in single quotes: paceline each --shell 'grep x {} | wc -l'".to_owned(),
            ));
        };
        let mut script = ShellTemplate::parse(script.as_bytes(), dialect).map_err(|error| {
            Problem::new(format!("in `{}`: {error}", script.to_string_lossy())).hint(error.hint())
        })?;
        if job.stdin {
            script.never_append();
        }
        return Ok(Work::Shell(script));
    }
    let arguments: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
    let mut command = CommandTemplate::parse_arguments(&arguments, dialect).map_err(|error| {
        let shown = words::quote_all(arguments.iter().copied());
        Problem::new(format!("in the command {shown}: {error}")).hint(error.hint(false))
    })?;
    if job.stdin {
        command.never_append();
    }
    Ok(Work::Run(command))
}

/// Refuses placeholders for values that no job has: `most` come to each.
fn check_numbers(stages: &[Stage], most: usize) -> Result<(), Problem> {
    check_holes(holes_of(stages), most)
}

fn holes_of(stages: &[Stage]) -> impl Iterator<Item = &Hole> {
    stages.iter().flat_map(|stage| holes(&stage.work))
}

/// The placeholders of a command or a script.
pub(super) fn holes(work: &Work) -> Box<dyn Iterator<Item = &Hole> + '_> {
    match work {
        Work::Shell(script) => Box::new(script.holes()),
        Work::Run(command) => Box::new(command.holes()),
        _ => unreachable!("`each` runs commands and scripts"),
    }
}

/// The same for the placeholders of one command.
pub(super) fn check_holes<'a>(
    mut holes: impl Iterator<Item = &'a Hole>,
    most: usize,
) -> Result<(), Problem> {
    let number = |hole: &Hole| match hole.kind {
        Placeholder::Source(number) => Some(number),
        _ => None,
    };
    match holes.find_map(|hole| number(hole).filter(|&number| number > most)) {
        None => Ok(()),
        Some(number) => {
            let values = if most == 1 { "one value".to_owned() } else { format!("{most} values") };
            Err(Problem::new(format!("`{{{number}}}` stands for nothing: a job gets {values}"))
                .hint("more come of further `:::` sources, or with `-n`".to_owned()))
        }
    }
}

/// A stage is called as its program, with a number if another is too.
fn name(earlier: &[Stage], command: &[OsString]) -> String {
    let first = command.first().map_or(OsStr::new("each"), OsString::as_os_str);
    let program = first.as_bytes().split(|byte| byte.is_ascii_whitespace()).find(|w| !w.is_empty());
    let program = Path::new(OsStr::from_bytes(program.unwrap_or(b"each")));
    let program = program.file_name().unwrap_or(OsStr::new("each")).to_string_lossy().into_owned();
    let is_taken = |name: &str| earlier.iter().any(|stage| stage.name == name);
    if !is_taken(&program) {
        return program;
    }
    (2..)
        .map(|number| format!("{program}-{number}"))
        .find(|name| !is_taken(name))
        .unwrap_or(program)
}

/// Prints what would be run.
fn dry_run(
    stages: &[Stage],
    inputs: Box<dyn Iterator<Item = Input> + Send>,
) -> Result<ExitCode, Problem> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let size = stages[0].batch.map_or(1, |batch| batch.items);
    let mut number = 0;
    let mut status = exit_code::OK;
    let mut inputs = inputs.peekable();
    while inputs.peek().is_some() {
        let (mut parts, mut defect) = (Vec::new(), None);
        for input in inputs.by_ref().take(size) {
            match input {
                Ok((item, values)) => {
                    defect = defect.or(item.defect);
                    parts.extend(values);
                }
                Err(error) => return Ok(crate::trouble(&Problem::new(error.to_string()))),
            }
        }
        number += 1;
        if let Some(defect) = defect {
            status = exit_code::FAILED;
            if let Err(error) = writeln!(out, "# item {number}: {defect}") {
                return Ok(crate::unprinted(&error));
            }
            continue;
        }
        for (index, stage) in stages.iter().enumerate() {
            let sources: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
            let later = [&b"{}"[..]];
            let values = Values {
                values: if index == 0 { &sources } else { &later },
                inputs: &sources,
                sources: &sources,
                seq: number,
                slot: 1,
                out: None,
                names: None,
            };
            let words = match &stage.work {
                Work::Shell(script) => script.expand(&values),
                Work::Run(command) => command.expand(&values),
                _ => unreachable!("`each` runs commands and scripts"),
            };
            let line = match words {
                Ok(words) => words::quote_all(words.iter().map(|word| word.as_bytes())),
                Err(error) => {
                    status = exit_code::FAILED;
                    format!("# item {number}: {error}")
                }
            };
            if let Err(error) = writeln!(out, "{line}") {
                return Ok(crate::unprinted(&error));
            }
        }
    }
    Ok(match out.flush().and_then(|()| crate::check_open()) {
        Ok(()) => ExitCode::from(status),
        Err(error) => crate::unprinted(&error),
    })
}
