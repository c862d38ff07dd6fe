//! `paceline advise`: measures a sample of the items, and says which
//! concurrency would help, how much, and why.
//!
//! Each item of the sample is run once, some of them alone, the others a few
//! at once, to see whether that helps as much as it should.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt,
    process::ExitCode,
    time::{Duration, Instant},
};

use paceline::{Command, Pipeline, Stderr, cores};

use crate::{
    args,
    commands::{drive::cannot_begin, each},
    exit_code, inputs,
    message::Problem,
    report::summary::short,
    source::Interrupt,
    template::{CommandTemplate, Dialect, Values},
};

/// A process costs about a millisecond to start: below this it is most of an item's time.
const QUICK: f64 = 0.004;

/// From this many waits at once on, threads are too dear.
const MANY: usize = 256;

/// A sample beside which processes waited for a core for more than this share
/// of the time says little.
const BUSY: f64 = 0.2;

/// The address space of a thread's stack, in MiB, as Rust has it.
const STACK: usize = 2;

/// What was measured of the items: seconds.
#[derive(Clone, Copy, Debug)]
struct Measured {
    wall: f64,
    cpu: f64,
    /// How many times as fast the items were with some at once, and how many those were.
    at_once: Option<(usize, f64)>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
struct Question {
    items: usize,
    cores: usize,
    target: Option<f64>,
    is_python: bool,
}

/// What is advised.
#[derive(Clone, Debug, PartialEq)]
struct Advice {
    nature: &'static str,
    wait: f64,
    workers: usize,
    predicted: f64,
    alone: f64,
    tool: String,
    why: String,
    warning: Option<String>,
    table: Vec<(usize, f64)>,
}

/// How long all items take with so many workers.
fn predicted(measured: &Measured, question: &Question, workers: usize) -> f64 {
    let rounds = question.items.div_ceil(workers.max(1)) as f64;
    let cores = question.items as f64 * measured.cpu / question.cores as f64;
    (rounds * measured.wall).max(cores).max(measured.wall)
}

fn advise(measured: &Measured, question: &Question) -> Advice {
    let share = if measured.wall > 0.0 { measured.cpu / measured.wall } else { 1.0 };
    let wait = (1.0 - share).clamp(0.0, 1.0);
    let nature = match share {
        share if share >= 0.7 => "CPU bound",
        share if share <= 0.3 => "I/O bound",
        _ => "mixed",
    };
    let time = |workers: usize| predicted(measured, question, workers);
    let alone = time(1);
    // Beyond it the cores are busy, or each item has a worker.
    let useful = match nature {
        "CPU bound" => question.cores,
        _ => (question.cores as f64 * measured.wall / measured.cpu.max(1e-9)).ceil() as usize,
    };
    let useful = useful.clamp(1, question.items.max(1));
    let mut warning = None;
    // What is measured is never exact: 3 % over the target is on it.
    let quick = measured.wall < QUICK;
    let meets =
        |workers: &usize| question.target.is_some_and(|target| time(*workers) <= 1.03 * target);
    let workers = match question.target {
        None if quick => 1,
        None => {
            (1..=useful).find(|&workers| time(workers) <= 1.02 * time(useful)).unwrap_or(useful)
        }
        Some(target) => (1..=useful).find(|workers| meets(workers)).unwrap_or_else(|| {
            warning = Some(format!(
                "the target of {} cannot be met: {} at best, with {useful} workers",
                shown(target),
                shown(time(useful))
            ));
            useful
        }),
    };
    let (tool, why) = if quick {
        let batch = (0.1 / measured.wall.max(1e-6)).ceil() as usize;
        (
            "stay serial, or batch".to_owned(),
            format!(
                "an item takes no longer than to start and hand over its job; give many to one: `-n {}`",
                batch.clamp(2, 1000)
            ),
        )
    } else if workers == 1 {
        ("serial".to_owned(), "one after the other is fast enough".to_owned())
    } else if nature == "CPU bound" {
        let tool = if question.is_python {
            "processes, not threads"
        } else {
            "processes or threads, one a core"
        };
        let why = if question.is_python {
            "Python's interpreter lock lets one thread compute at a time; processes have one each"
        } else {
            "they compute, and only cores do that"
        };
        (tool.to_owned(), why.to_owned())
    } else if workers > MANY {
        (
            "async (`fetch`, or an `io` stage)".to_owned(),
            format!(
                "{workers} threads would reserve {} MiB for their stacks; {workers} futures take a few KiB each",
                workers * STACK
            ),
        )
    } else {
        (
            "threads, async, or processes".to_owned(),
            "they mostly wait, and waits overlap".to_owned(),
        )
    };
    if nature == "CPU bound" && warning.is_none() {
        warning = Some(format!(
            "more than {} will not help: there are {} cores, and the items keep them busy",
            useful, question.cores
        ));
    }
    if let Some((width, gain)) = measured.at_once {
        let should = (alone / time(width)).min(width as f64);
        if gain < 0.6 * should && warning.is_none() {
            warning = Some(format!(
                "with {width} at once it was {gain:.1} times as fast and not {should:.1}: something \
                 else is shared, such as a disk, a lock or a server"
            ));
        }
    }
    let mut widths = vec![1, 2, 4, 8, 16, 32, 64, workers];
    widths.retain(|width| *width <= useful.max(workers));
    widths.sort_unstable();
    widths.dedup();
    let table = widths.into_iter().map(|width| (width, time(width))).collect();
    Advice { nature, wait, workers, predicted: time(workers), alone, tool, why, warning, table }
}

/// The noun, as wide for one as for many.
fn workers(count: usize) -> &'static str {
    if count == 1 { "worker " } else { "workers" }
}

fn shown(seconds: f64) -> String {
    short(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)))
}

impl Advice {
    fn text(&self, measured: &Measured, question: &Question, sample: usize) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "{}: an item takes {}, of which {} on a core ({:.0} % waiting), by a sample of {sample}",
            self.nature,
            shown(measured.wall),
            shown(measured.cpu),
            self.wait * 100.0
        );
        if let Some((width, gain)) = measured.at_once {
            let _ = writeln!(text, "{width} at once were {gain:.1} times as fast");
        }
        let _ = writeln!(text, "predicted for {} items:", question.items);
        for (width, time) in &self.table {
            let _ = writeln!(
                text,
                "  {width:>6} {}  {:>10}  {:.1} x",
                workers(*width),
                shown(*time),
                self.alone / time.max(1e-9)
            );
        }
        let _ = writeln!(
            text,
            "advice: {} {}, {} predicted; {}: {}",
            self.workers,
            workers(self.workers).trim_end(),
            shown(self.predicted),
            self.tool,
            self.why
        );
        if let Some(warning) = &self.warning {
            let _ = writeln!(text, "warning: {warning}");
        }
        text
    }

    fn json(&self, measured: &Measured, question: &Question, sample: usize) -> serde_json::Value {
        serde_json::json!({
            "nature": self.nature, "wait": self.wait,
            "wall_ms": measured.wall * 1e3, "cpu_ms": measured.cpu * 1e3,
            "sample": sample, "items": question.items, "cores": question.cores,
            "workers": self.workers, "predicted_ms": self.predicted * 1e3,
            "speed_up": self.alone / self.predicted.max(1e-9),
            "tool": self.tool, "why": self.why, "warning": self.warning,
            "predictions": self.table.iter()
                .map(|(width, time)| serde_json::json!({ "workers": width, "ms": time * 1e3 }))
                .collect::<Vec<_>>(),
        })
    }
}

/// Runs the command.
///
/// # Errors
///
/// Whatever is wrong before anything is run.
pub(crate) fn run(args: args::Advise) -> Result<ExitCode, Problem> {
    let (command, said) = inputs::divide(args.words, &args.arg_file)?;
    if command.is_empty() {
        return Err(Problem::new("there is no command to take advice for")
            .hint("name it before the items: `paceline advise sleep ::: 0.1 0.1 0.1`".to_owned()));
    }
    let interrupt = Interrupt::new().map_err(cannot_begin)?;
    let words: Vec<&[u8]> = command.iter().map(|word| word.as_bytes()).collect();
    let template = CommandTemplate::parse_arguments(&words, Dialect::Each { replace: b"{}" })
        .map_err(|error| {
            Problem::new(format!("in the command: {error}")).hint(error.hint(false))
        })?;
    each::check_holes(template.holes(), said.len().max(1))?;
    let mut jobs = Vec::new();
    let mut items = 0;
    for input in inputs::open(said, args.null, false, &interrupt)? {
        let (_, parts) = input.map_err(|error| Problem::new(error.to_string()))?;
        items += 1;
        if jobs.len() < args.sample {
            let sources: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
            let values = Values {
                values: &sources,
                inputs: &sources,
                sources: &sources,
                seq: items as u64,
                slot: 1,
                out: None,
                names: None,
            };
            let words = template.expand(&values);
            jobs.push(words.map_err(|error| Problem::new(error.to_string()))?);
        }
    }
    if jobs.is_empty() {
        return Err(Problem::new("there is no item to measure")
            .hint("give some: `paceline advise sleep ::: 0.1 0.1 0.1`".to_owned()));
    }
    let sample = jobs.len();
    // Of few, all are measured alone.
    let rest = jobs.split_off(if sample >= 4 { sample.div_ceil(2) } else { sample });
    let (alone, mut failed) = measure(jobs, 1)?;
    let mut measured = alone.items;
    if rest.len() >= 2 {
        let width = cores().max(2).min(rest.len());
        let count = rest.len() as f64;
        let (at_once, more) = measure(rest, width)?;
        failed += more;
        measured.at_once = Some((width, measured.wall * count / at_once.took.max(1e-9)));
    }
    let program = command[0].to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let question = Question {
        items: args.items.unwrap_or(items),
        cores: cores(),
        target: args.target.map(|target| target.0.as_secs_f64()),
        is_python: program.starts_with("python"),
    };
    let advice = advise(&measured, &question);
    let text = if args.json {
        format!("{}\n", advice.json(&measured, &question, sample))
    } else {
        advice.text(&measured, &question, sample)
    };
    if failed > 0 {
        note(&format!(
            "{failed} of {sample} jobs of the sample failed, and may have been shorter for it"
        ));
    }
    if let Some(share) = alone.stalled.filter(|share| *share > BUSY) {
        note(&format!(
            "something else used the cores: for {:.0} % of the time a process had to wait for one, \
             which looks like waiting; measure again when the machine is quiet",
            share * 100.0
        ));
    }
    match io::stdout().write_all(text.as_bytes()).and_then(|()| crate::check_open()) {
        Ok(()) => Ok(ExitCode::from(exit_code::OK)),
        Err(error) => Ok(crate::unprinted(&error)),
    }
}

fn note(text: &str) {
    let _ = io::stderr().write_all(format!("note: {text}\n").as_bytes());
}

/// How long processes of this machine had to wait for a core, if the kernel tells.
fn stalled() -> Option<Duration> {
    let text = fs::read_to_string("/proc/pressure/cpu").ok()?;
    let some = text.lines().find(|line| line.starts_with("some "))?;
    let total = some.split(' ').find_map(|word| word.strip_prefix("total="))?;
    Some(Duration::from_micros(total.parse().ok()?))
}

/// What one measurement gives.
struct Timed {
    /// The items' means.
    items: Measured,
    /// The time of all, in seconds.
    took: f64,
    /// The share of it in which a process of the machine had to wait for a core.
    stalled: Option<f64>,
}

/// Runs these jobs with so many workers, and says how many failed.
fn measure(jobs: Vec<Vec<std::ffi::OsString>>, workers: usize) -> Result<(Timed, usize), Problem> {
    let count = jobs.len() as f64;
    let before = stalled();
    let began = Instant::now();
    let (outputs, summary) = Pipeline::from_iter(jobs)
        .command_job("sample", Sample)
        .workers(workers)
        .collect()
        .map_err(|error| Problem::new(error.to_string()))?;
    let took = began.elapsed().as_secs_f64();
    if let Some(failure) = summary.failures.first()
        && outputs.is_empty()
    {
        return Err(Problem::new(format!(
            "no item of the sample could be run: {}",
            failure.cause()
        )));
    }
    let cpu: f64 = outputs.iter().map(|(cpu, _)| cpu.as_secs_f64()).sum();
    let wall = summary.stages[0].busy.as_secs_f64() / count;
    let failed = outputs.iter().filter(|(_, is_ok)| !is_ok).count();
    let items = Measured { wall, cpu: cpu / outputs.len().max(1) as f64, at_once: None };
    let stalled = before.zip(stalled()).map(|(before, after)| {
        after.saturating_sub(before).as_secs_f64().min(took) / took.max(1e-9)
    });
    Ok((Timed { items, took, stalled }, failed))
}

/// A job of the sample: what it used, and whether it was successful.
struct Sample;

impl paceline::Job<Vec<std::ffi::OsString>> for Sample {
    type Out = (Duration, bool);
    type State = ();

    fn start(
        &self,
        words: &Vec<std::ffi::OsString>,
        _: &paceline::Attempt,
    ) -> Result<(paceline::Chain, ()), paceline::BoxError> {
        let command = Command::new(&words[0]).args(&words[1..]);
        let command = command.stdout(paceline::Stdout::Null).stderr(Stderr::Null);
        Ok((paceline::Chain::new([command]), ()))
    }

    fn finish(
        &self,
        _: Vec<std::ffi::OsString>,
        (): (),
        output: paceline::Output,
    ) -> Result<(Duration, bool), paceline::BoxError> {
        let cpu = output.cpu();
        Ok((cpu, output.check().is_ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(items: usize, target: Option<f64>) -> Question {
        Question { items, cores: 2, target, is_python: false }
    }

    #[test]
    fn r56_5_waits_need_as_many_workers_as_the_target_says() {
        let measured = Measured { wall: 0.101, cpu: 0.001, at_once: None };
        let advice = advise(&measured, &question(45, Some(0.5)));
        assert_eq!(advice.nature, "I/O bound");
        assert!((9..=12).contains(&advice.workers), "{advice:?}");
        assert!((0.4..=0.52).contains(&advice.predicted), "{advice:?}");
    }

    #[test]
    fn r56_6_what_computes_gets_a_worker_a_core_and_a_warning() {
        let measured = Measured { wall: 0.0205, cpu: 0.020, at_once: None };
        let advice = advise(&measured, &question(100, None));
        assert_eq!((advice.nature, advice.workers), ("CPU bound", 2));
        assert!(advice.alone / advice.predicted <= 2.1, "{advice:?}");
        assert!(advice.warning.unwrap().contains("will not help"));
        let python = Question { is_python: true, ..question(100, None) };
        assert_eq!(super::advise(&measured, &python).tool, "processes, not threads");
    }

    #[test]
    fn r56_7_tiny_work_stays_serial_or_goes_in_batches() {
        let measured = Measured { wall: 1e-6, cpu: 1e-6, at_once: None };
        let advice = advise(&measured, &question(1000, None));
        assert!(advice.tool.contains("serial") && advice.tool.contains("batch"), "{advice:?}");
        assert!(advice.why.contains("-n "), "{advice:?}");
        assert_eq!(advice.workers, 1);
    }

    #[test]
    fn r56_8_ten_thousand_waits_are_for_async_because_of_the_stacks() {
        let measured = Measured { wall: 0.1, cpu: 1e-6, at_once: None };
        let advice = advise(&measured, &question(10_000, Some(0.1)));
        assert_eq!(advice.workers, 10_000);
        assert!(advice.tool.contains("async"), "{advice:?}");
        assert!(advice.why.contains("stacks"), "{advice:?}");
    }

    #[test]
    fn a_target_that_cannot_be_met_is_said_and_the_best_is_named() {
        let measured = Measured { wall: 0.020, cpu: 0.020, at_once: None };
        let advice = advise(&measured, &question(100, Some(0.1)));
        assert_eq!(advice.workers, 2);
        assert!(advice.warning.unwrap().contains("cannot be met"));
    }
}
