//! The one definition of the command line, from which help, completions and
//! the man page come as well.

use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use paceline::Halt;

use crate::spec::{Workers, duration::parse_duration};

/// Concurrent pipelines that find their own pace.
///
/// You say what each step does; paceline decides how to run it at once, keeps
/// every step supplied and none flooded, loses nothing, leaves nothing
/// running, and tells you where the time went.
#[derive(Debug, Parser)]
#[command(name = "paceline", version, arg_required_else_help = true, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_STATUS: &str = "\
Exit status:
  0      every item is accounted for, and ok
  1      some items failed
  2      the command line or a file is wrong; nothing was run
  3      items or input are left unfinished, none lost
  4      paceline itself could not go on
  128+n  ended by signal n, after the clean-up";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push items through the stages of a pipeline file
    Run(Run),
    /// Run one command for every item, or several in a row
    Each(Each),
    /// Go on with a run: all that is not done
    Resume(Resume),
    /// Make new attempts at the failed items of a run, and at nothing else
    Retry(Resume),
    /// List the runs of the journal
    Runs(Runs),
    /// Show how far a run is, stage by stage
    Status(Query),
    /// Show the failed items of a run and why they failed
    Failed(Failed),
    /// Validate a pipeline file and show what it would do; run nothing
    Check(Check),
    /// Measure a sample of the items, and say which concurrency would help
    Advise(Advise),
    /// Show an item of the chapter at work, with figures measured here
    Demo(Demo),
    /// Say what is done on this system so that no job leaves anything running
    Doctor,
    /// Print a completion script for a shell
    Completions {
        /// The shell that is to complete
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

/// The items are those of the chapter "Concurrency and Parallelism" in a
/// well-known book on Python. Without ITEM: which there are.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// A number from 52 to 64, or `all`
    #[arg(value_name = "52..64|all")]
    pub(crate) item: Option<Items>,
    /// Do not run the Python of the same item for comparison
    #[arg(long)]
    pub(crate) no_python: bool,
}

/// Which items of the chapter to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Items {
    One(u8),
    All,
}

impl FromStr for Items {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(number) if (52..=64).contains(&number) => Ok(Self::One(number)),
            _ if text == "all" => Ok(Self::All),
            _ => Err("the items are 52 to 64, or `all`"),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct Run {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub(crate) file: PathBuf,
    /// Items that take the place of the file's source
    #[arg(value_name = "INPUT")]
    pub(crate) inputs: Vec<OsString>,
    #[command(flatten)]
    pub(crate) conduct: Conduct,
    #[command(flatten)]
    pub(crate) recording: Recording,
    /// Record nothing: the run cannot be resumed
    #[arg(long, conflicts_with_all = ["journal", "durable"])]
    pub(crate) no_journal: bool,
    /// What `resume` does where a stage has changed; a new run has nothing to change
    #[arg(long, value_name = "rerun|keep", hide = true)]
    pub(crate) changed: Option<Changed>,
}

/// How the stages are run and told of.
#[derive(Debug, Args)]
pub(crate) struct Conduct {
    /// Print one JSON object an item on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave out the display, the summary and the line for each failed item
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// When to show the live display on standard error
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) progress: When,
    /// Stop when items fail: `soon` lets running jobs finish, `now` stops
    /// them; after N failures, or when N% of the items answered have failed
    #[arg(long, value_name = "soon|now[,fail=N|N%]")]
    pub(crate) halt: Option<HaltAt>,
    /// Run each job in a PID namespace of its own, which nothing outlives
    #[arg(long)]
    pub(crate) isolate: bool,
    #[command(flatten)]
    pub(crate) pacing: Pacing,
}

/// Where and how a run is recorded.
#[derive(Args, Debug)]
pub(crate) struct Recording {
    /// Record in FILE and not in `.paceline/journal.db` beside the pipeline file
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// Wait for the disk at each commit: what is done survives a power cut
    #[arg(long)]
    pub(crate) durable: bool,
}

/// What becomes of items that were done with an earlier definition of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Changed {
    /// They run again from that stage
    Rerun,
    /// They stand
    Keep,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct Resume {
    /// The number of the run, or its pipeline file; the newest run unless said
    #[arg(value_name = "RUN|PIPELINE.toml")]
    pub(crate) target: Option<OsString>,
    #[command(flatten)]
    pub(crate) recording: Recording,
    /// Where a stage has changed: run what it did again, or keep it
    #[arg(long, value_name = "rerun|keep")]
    pub(crate) changed: Option<Changed>,
    #[command(flatten)]
    pub(crate) conduct: Conduct,
}

#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// The pipeline file whose journal is looked at
    #[arg(value_name = "PIPELINE.toml")]
    pub(crate) pipeline: Option<PathBuf>,
    /// Look at the journal FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// Print one JSON object a run
    #[arg(long)]
    pub(crate) json: bool,
    /// Forget old runs: all but those that `--keep` or `--younger-than` speaks for
    #[arg(long, requires = "keeping")]
    pub(crate) prune: bool,
    /// With `--prune`: keep the newest N runs
    #[arg(long, value_name = "N", group = "keeping", requires = "prune")]
    pub(crate) keep: Option<usize>,
    /// With `--prune`: keep runs that were worked on in the last 30d, 12h, 10m
    #[arg(long, value_name = "DUR", group = "keeping", requires = "prune")]
    pub(crate) younger_than: Option<Age>,
}

#[derive(Debug, Args)]
pub(crate) struct Query {
    /// The number of the run, or its pipeline file; the newest run unless said
    #[arg(value_name = "RUN|PIPELINE.toml")]
    pub(crate) target: Option<OsString>,
    /// Look at the journal FILE
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// Print JSON objects, one a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Failed {
    #[command(flatten)]
    pub(crate) query: Query,
    /// Print the items alone, one a line, ready to be fed again
    #[arg(long, conflicts_with = "json")]
    pub(crate) export: bool,
    /// With `--export`: end items with NUL and not with a newline
    #[arg(short = '0', long, requires = "export")]
    pub(crate) null: bool,
}

/// A duration in which `d` may stand for days: `30d`, or what [`Span`] takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Age(pub(crate) Duration);

impl FromStr for Age {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
        match days {
            Some(days) => Ok(Self(Duration::from_secs(u64::from(days) * 86_400))),
            None => parse_duration(text).map(Self),
        }
    }
}

/// Items are lines of standard input, unless `:::` or `-a` says otherwise.
///
/// The command is executed without a shell. In its words `{}` is the item,
/// `{.}` the item without its last extension, `{/}` its last path component,
/// `{//}` its directory, `{/.}` the last component without extension, `{#}`
/// its number, `{%}` the slot of its worker, `{1}` the value from the first
/// input source. Without any of these the item becomes the last argument.
#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS, override_usage = "\
paceline each [OPTIONS] COMMAND [ARG...]
       paceline each [OPTIONS] COMMAND [ARG...] ::: VALUE... [::: VALUE...]
       paceline each [OPTIONS] COMMAND [ARG...] :::: FILE...")]
pub(crate) struct Each {
    #[command(flatten)]
    pub(crate) job: Job,
    /// How many jobs at once: a number, a percentage of the cores, or `auto`,
    /// which finds as many as are of use; `auto,max=N` at most N of them
    #[arg(
        short = 'j',
        long,
        visible_alias = "jobs",
        value_name = "N|N%|auto",
        default_value = "auto",
        allow_negative_numbers = true
    )]
    pub(crate) workers: Width,
    /// Print outputs, standard error too, in input order
    #[arg(short = 'k', long, visible_alias = "keep-order")]
    pub(crate) ordered: bool,
    /// A further command, fed by the result of the one before
    #[arg(long, value_name = "COMMAND")]
    pub(crate) then: Vec<OsString>,
    #[command(flatten)]
    pub(crate) conduct: Conduct,
    /// How many jobs of the `--then` commands at once
    #[arg(long, value_name = "N|N%|auto")]
    pub(crate) then_workers: Vec<Width>,
    /// The longest time of an attempt: 250ms, 30s, 5m, 1h
    #[arg(long, value_name = "DUR", value_parser = positive_span)]
    pub(crate) timeout: Option<Span>,
    /// The time between asking a job to end and killing it
    #[arg(long, value_name = "DUR", default_value = "5s")]
    pub(crate) grace: Span,
    /// How many extra attempts a failed item gets
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) retries: u32,
    /// The wait before the first extra attempt; it doubles from one to the next
    #[arg(long, value_name = "DUR", default_value = "0s")]
    pub(crate) backoff: Span,
    /// Begin each line of output with the item and a tab
    #[arg(long)]
    pub(crate) tag: bool,
    /// Print lines as they come, whole lines only; with `-k` those of the
    /// first job that has not ended, and the others' when it is their turn
    #[arg(long, conflicts_with = "json")]
    pub(crate) line_buffered: bool,
    /// Let jobs write straight to our output, which may mix
    #[arg(short, long, conflicts_with_all = ["tag", "json", "ordered", "line_buffered"])]
    pub(crate) ungrouped: bool,
    /// Print the commands, quoted for a shell; run nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Write a table of the jobs in the columns of GNU parallel's
    #[arg(long, value_name = "FILE")]
    pub(crate) joblog: Option<PathBuf>,
    /// Record in FILE what becomes of the items; nothing is recorded unless said
    #[arg(long, value_name = "FILE")]
    pub(crate) journal: Option<PathBuf>,
    /// Go on with the newest run in the journal: skip what it has as done
    #[arg(long, requires = "journal", conflicts_with = "dry_run")]
    pub(crate) resume: bool,
    /// With `--resume` and another command than the recorded one: run what it
    /// did again, or keep it
    #[arg(long, value_name = "rerun|keep", requires = "resume")]
    pub(crate) changed: Option<Changed>,
    /// With `--journal`: wait for the disk at each commit
    #[arg(long, requires = "journal")]
    pub(crate) durable: bool,
    /// Record nothing, as it is unless said
    #[arg(long, hide = true, conflicts_with = "journal")]
    pub(crate) no_journal: bool,
}

/// What a job does, and with which items.
#[derive(Debug, Args)]
pub(crate) struct Job {
    /// The command, and after `:::` values or after `::::` files; `:::+` and
    /// `::::+` link to the source before
    #[arg(value_name = "COMMAND [ARG...] [::: VALUE...]", trailing_var_arg = true)]
    pub(crate) words: Vec<OsString>,
    /// Read items from FILE, `-` for standard input; several are combined
    #[arg(short, long, value_name = "FILE")]
    pub(crate) arg_file: Vec<OsString>,
    /// Items end with NUL and not with a newline
    #[arg(short = '0', long)]
    pub(crate) null: bool,
    /// Leave out empty items
    #[arg(long)]
    pub(crate) skip_empty: bool,
    /// Give N items to a job, as arguments
    #[arg(short = 'n', long = "batch", value_name = "N", default_value = "1", value_parser = at_least_one)]
    pub(crate) batch: usize,
    /// Run the command, given as one word, by `sh -c`; items stay data
    #[arg(long)]
    pub(crate) shell: bool,
    /// Give the item on standard input and not as an argument
    #[arg(long)]
    pub(crate) stdin: bool,
    /// Use STR in place of `{}`
    #[arg(short = 'I', long = "replace", value_name = "STR", value_parser = OsStringValueParser::new().try_map(filled))]
    pub(crate) replace: Option<OsString>,
}

/// How the number of workers is found and told of.
#[derive(Debug, Default, Args)]
pub(crate) struct Pacing {
    /// Write what is measured and decided about workers, as lines of JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) pace_log: Option<PathBuf>,
    /// Write the numbers of workers that the run comes to, for `--workers-from`
    #[arg(long, value_name = "FILE")]
    pub(crate) freeze: Option<PathBuf>,
    /// Use the numbers of workers that `--freeze` has written
    #[arg(long, value_name = "FILE")]
    pub(crate) workers_from: Option<PathBuf>,
    /// How many cores `auto` may keep busy: a number such as 1.5, or N%
    #[arg(long, value_name = "N|N%")]
    pub(crate) cpu_budget: Option<Budget>,
}

/// The value of `--cpu-budget`, in cores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Budget(pub(crate) f64);

impl FromStr for Budget {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, scale) = match text.strip_suffix('%') {
            Some(percent) => (percent, paceline::cores() as f64 / 100.0),
            None => (text, 1.0),
        };
        match number.parse::<f64>() {
            Ok(number) if number > 0.0 && number.is_finite() => Ok(Self(number * scale)),
            _ => Err("a budget is a number of cores over 0, or a percentage of them"),
        }
    }
}

/// Each item of the sample is run once: half of them alone, half a few at once.
///
/// Items come from where they come in `each`; without `:::` or `-a`, from
/// standard input. What the jobs print is thrown away. The status is 1 if a
/// job of the sample fails, or if the target cannot be met.
#[derive(Debug, Args)]
pub(crate) struct Advise {
    #[command(flatten)]
    pub(crate) job: Job,
    /// The longest time of a job of the sample: 250ms, 30s, 5m, 1h
    #[arg(long, value_name = "DUR", value_parser = positive_span)]
    pub(crate) timeout: Option<Span>,
    /// How long all items may take
    #[arg(long, value_name = "DUR", value_parser = positive_span)]
    pub(crate) target: Option<Span>,
    /// How many items to run, at most
    #[arg(long, value_name = "N", default_value = "20", value_parser = at_least_one)]
    pub(crate) sample: usize,
    /// How many items there will be; as many as were given unless set
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(crate) items: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub(crate) file: PathBuf,
    /// Items that take the place of the file's source
    #[arg(value_name = "INPUT")]
    pub(crate) inputs: Vec<OsString>,
}

/// When the display is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal
    Auto,
    Always,
    Never,
}

/// The value of `--workers`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Width {
    Auto,
    UpTo(usize),
    Jobs(usize),
    Percent(f64),
}

impl Width {
    /// The workers of a stage of this width; a percentage is of the cores, and at least one.
    pub(crate) fn workers(self) -> Workers {
        match self {
            Self::Auto => Workers::Auto,
            Self::UpTo(most) => Workers::UpTo(most),
            Self::Jobs(jobs) => Workers::Fixed(jobs),
            Self::Percent(percent) => {
                let jobs = (paceline::cores() as f64 * percent / 100.0).round();
                Workers::Fixed((jobs as usize).max(1))
            }
        }
    }
}

/// The most jobs at once that are believed.
const MOST_JOBS: usize = 1_000_000;

impl FromStr for Width {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("auto") {
            if rest.is_empty() {
                return Ok(Self::Auto);
            }
            return match rest.strip_prefix(",max=").map(str::parse::<usize>) {
                Some(Ok(most)) if (1..=MOST_JOBS).contains(&most) => Ok(Self::UpTo(most)),
                _ => {
                    Err("after `auto` comes `,max=N`, with a whole number of at least 1".to_owned())
                }
            };
        }
        if let Some(percent) = text.strip_suffix('%') {
            return match percent.parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 1e6 => Ok(Self::Percent(percent)),
                _ => Err("a percentage is a number over 0".to_owned()),
            };
        }
        match text.parse::<usize>() {
            Ok(jobs) if (1..=MOST_JOBS).contains(&jobs) => Ok(Self::Jobs(jobs)),
            _ => Err("it is a whole number of at least 1, a percentage, or `auto`".to_owned()),
        }
    }
}

/// A duration: `250ms`, `30s`, `5m`, `1h`, `1.5s`, or plain seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span(pub(crate) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self)
    }
}

fn positive_span(text: &str) -> Result<Span, String> {
    match text.parse::<Span>()? {
        Span(Duration::ZERO) => Err("a timeout of 0 would let nothing run".to_owned()),
        span => Ok(span),
    }
}

fn filled(text: OsString) -> Result<OsString, &'static str> {
    if text.is_empty() { Err("it stands for the item, so it cannot be empty") } else { Ok(text) }
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("it is a whole number of at least 1".to_owned()),
    }
}

/// The value of `--halt`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HaltAt(pub(crate) Halt);

impl FromStr for HaltAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (how, when) = match text.split_once(',') {
            Some((how, when)) => (how, Some(when)),
            None => (text, None),
        };
        let halt = match how {
            "soon" => Halt::soon(),
            "now" => Halt::now(),
            _ => return Err(format!("`{how}` is neither `soon` nor `now`")),
        };
        let Some(when) = when else { return Ok(Self(halt)) };
        let number = when
            .strip_prefix("fail=")
            .ok_or_else(|| format!("`{when}` is not `fail=N` or `fail=N%`"))?;
        if let Some(percent) = number.strip_suffix('%') {
            return match percent.parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => {
                    Ok(Self(halt.at_percent(percent)))
                }
                _ => Err(format!("`{number}` is no percentage over 0 and up to 100")),
            };
        }
        match number.parse::<u64>() {
            Ok(failures) if failures > 0 => Ok(Self(halt.after(failures))),
            _ => Err(format!("`{number}` is no whole number of at least 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn halts_are_read_in_every_form() {
        let halt = |text: &str| text.parse::<HaltAt>().map(|HaltAt(halt)| halt);
        assert_eq!(halt("soon"), Ok(Halt::soon()));
        assert_eq!(halt("now,fail=3"), Ok(Halt::now().after(3)));
        assert_eq!(halt("soon,fail=12.5%"), Ok(Halt::soon().at_percent(12.5)));
        for wrong in ["later", "now,3", "soon,fail=0", "soon,fail=0%", "now,fail=101%", "now,fail="]
        {
            assert!(halt(wrong).is_err(), "{wrong}");
        }
    }
}
