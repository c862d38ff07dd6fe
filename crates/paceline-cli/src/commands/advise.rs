//! `paceline advise`: measures a sample of the items, and says which
//! concurrency would help, how much, and why.
//!
//! Each item of the sample is run once, some of them alone, the others a few
//! at once, to see whether that helps as much as it should.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use paceline::cores;

use crate::{
    args,
    commands::{drive::cannot_begin, each},
    exit_code, inputs,
    item::lines_of,
    message::Problem,
    report::summary::short,
    source::Interrupt,
    spec::Work,
    template::Values,
};

mod queued;
mod sample;

use sample::{Job, Timed, measure};

/// A process costs about a millisecond to start: below this it is most of an item's time.
const QUICK: f64 = 0.004;

/// From this many waits at once on, threads are too dear.
const MANY: usize = 256;

/// Where computing takes so many times its CPU time, it is said that the machine is busy.
const BUSY: f64 = 1.25;

/// The address space of a thread's stack, in MiB, as Rust has it.
const STACK: usize = 2;

/// What was measured of the items: seconds.
#[derive(Clone, Copy, Debug)]
struct Measured {
    wall: f64,
    cpu: f64,
    at_once: Option<AtOnce>,
}

/// What it brought to run some at once.
#[derive(Clone, Copy, Debug)]
struct AtOnce {
    workers: usize,
    /// How many times as fast the items were.
    gain: f64,
    /// Whether an item took longer than alone by more than the difference between items explains.
    is_surely_slower: bool,
}

impl AtOnce {
    fn of(workers: usize, alone: &Timed, at_once: &Timed) -> Self {
        // Cores that others have are no matter of how many are at once.
        let quiet = |timed: &Timed| Measured::quiet(timed.wall, timed.cpu, timed.queued).wall;
        let chance = (alone.variance + at_once.variance).sqrt();
        let (alone, at_once) = (quiet(alone), quiet(at_once));
        Self {
            workers,
            gain: workers as f64 * alone / at_once.max(1e-9),
            is_surely_slower: at_once - alone > 2.0 * chance,
        }
    }
}

impl Measured {
    /// What the items would take without others on the cores, for which they had none for
    /// `queued`.
    fn quiet(wall: f64, cpu: f64, queued: f64) -> Self {
        Self { wall: (wall - queued).max(cpu.min(wall)), cpu, at_once: None }
    }
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
    /// Whether the target, if there is one, is met.
    meets_target: bool,
    table: Vec<(usize, f64)>,
}

/// How long all items take with so many workers, of which `serial` does not overlap (Amdahl's law).
fn predicted(measured: &Measured, question: &Question, workers: usize, serial: f64) -> f64 {
    let items = question.items as f64;
    let rounds = question.items.div_ceil(workers.max(1)) as f64;
    let cores = items * measured.cpu / question.cores as f64;
    let shared = items * measured.wall * (serial + (1.0 - serial) / workers.max(1) as f64);
    (rounds * measured.wall).max(cores).max(shared).max(measured.wall)
}

fn advise(measured: &Measured, question: &Question) -> Advice {
    let share = if measured.wall > 0.0 { measured.cpu / measured.wall } else { 1.0 };
    let wait = (1.0 - share).clamp(0.0, 1.0);
    let nature = match share {
        share if share >= 0.7 => "CPU bound",
        share if share <= 0.3 => "I/O bound",
        _ => "mixed",
    };
    let mut warning = None;
    let mut serial = 0.0;
    if let Some(AtOnce { workers, gain, is_surely_slower: true }) = measured.at_once {
        let width = workers as f64;
        let should = (predicted(measured, question, 1, 0.0)
            / predicted(measured, question, workers, 0.0))
        .min(width);
        if gain < 0.6 * should {
            serial = ((1.0 / gain - 1.0 / width) / (1.0 - 1.0 / width)).clamp(0.0, 1.0);
            warning = Some(format!(
                "with {workers} at once it was {gain:.1} times as fast and not {should:.1}: something \
                 else is shared, such as a disk, a lock or a server; more still may help even \
                 less, or harm"
            ));
        }
    }
    let time = |workers: usize| predicted(measured, question, workers, serial);
    let alone = time(1);
    // Beyond it the cores are busy, or each item has a worker.
    let useful = match nature {
        "CPU bound" => question.cores,
        _ => (question.cores as f64 * measured.wall / measured.cpu.max(1e-9)).ceil() as usize,
    };
    let useful = useful.clamp(1, question.items.max(1));
    // What is measured is never exact: 3 % over the target is on it.
    let quick = measured.wall < QUICK;
    let meets =
        |workers: &usize| question.target.is_some_and(|target| time(*workers) <= 1.03 * target);
    let mut meets_target = true;
    let workers = match question.target {
        None if quick => 1,
        None => {
            // Where something is shared, the last tenth is not worth a crowd.
            let enough = if serial > 0.0 { 1.1 } else { 1.02 } * time(useful);
            (1..=useful).find(|&workers| time(workers) <= enough).unwrap_or(useful)
        }
        Some(target) => (1..=useful).find(|workers| meets(workers)).unwrap_or_else(|| {
            meets_target = false;
            let because = warning.take().map_or(String::new(), |shared| format!("; {shared}"));
            warning = Some(format!(
                "the target of {} cannot be met: {} at best, with {useful} workers{because}",
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
    } else if workers == 1 && serial > 0.0 {
        ("serial".to_owned(), "more at once were hardly faster".to_owned())
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
            if serial > 0.0 {
                "they mostly wait, but their waits hardly overlap".to_owned()
            } else {
                "they mostly wait, and waits overlap".to_owned()
            },
        )
    };
    if nature == "CPU bound" && warning.is_none() {
        warning = Some(format!(
            "more than {} will not help: there are {} cores, and the items keep them busy",
            useful, question.cores
        ));
    }
    let mut widths = vec![1, 2, 4, 8, 16, 32, 64, workers];
    widths.retain(|width| *width <= useful.max(workers));
    widths.sort_unstable();
    widths.dedup();
    let table = widths.into_iter().map(|width| (width, time(width))).collect();
    let predicted = time(workers);
    Advice { nature, wait, workers, predicted, alone, tool, why, warning, meets_target, table }
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
        if let Some(AtOnce { workers, gain, .. }) = measured.at_once {
            let _ = writeln!(text, "{workers} at once were {gain:.1} times as fast");
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
            "meets_target": question.target.map(|_| self.meets_target),
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
    let (command, said) = inputs::divide(args.job.words.clone(), &args.job.arg_file)?;
    if command.is_empty() {
        return Err(Problem::new("there is no command to take advice for")
            .hint("name it before the items: `paceline advise sleep ::: 0.1 0.1 0.1`".to_owned()));
    }
    let interrupt = Interrupt::new().map_err(cannot_begin)?;
    let work = each::work(&args.job, &command)?;
    each::check_holes(each::holes(&work), said.len().max(1).saturating_mul(args.job.batch))?;
    let (mut jobs, mut items) = (Vec::new(), 0);
    let mut inputs = inputs::open(said, args.job.null, args.job.skip_empty, &interrupt)?.peekable();
    while inputs.peek().is_some() {
        let mut parts = Vec::new();
        for input in inputs.by_ref().take(args.job.batch) {
            let (_, values) = input.map_err(|error| Problem::new(error.to_string()))?;
            items += 1;
            parts.extend(values);
        }
        if jobs.len() < args.sample {
            let sources: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
            let stdin = args.job.stdin.then(|| lines_of(&sources, args.job.batch > 1));
            jobs.push(Job { words: words(&work, &sources, items as u64)?, stdin });
        }
    }
    if jobs.is_empty() {
        return Err(Problem::new("there is no item to measure")
            .hint("give some: `paceline advise sleep ::: 0.1 0.1 0.1`".to_owned()));
    }
    let sample = jobs.len();
    let (jobs, rest) = divide(jobs);
    let limit = args.timeout.map(|timeout| timeout.0);
    let alone = measure(jobs, 1, limit)?;
    let mut measured = Measured::quiet(alone.wall, alone.cpu, alone.queued);
    let (mut successful, mut failure) = (alone.successful, alone.failure.clone());
    if rest.len() >= 2 {
        let width = cores().max(2).min(rest.len());
        let at_once = measure(rest, width, limit)?;
        if alone.successful > 0 && at_once.successful > 0 {
            measured.at_once = Some(AtOnce::of(width, &alone, &at_once));
        }
        successful += at_once.successful;
        failure = failure.or(at_once.failure);
        if alone.successful == 0 {
            measured = Measured::quiet(at_once.wall, at_once.cpu, at_once.queued);
        }
    }
    let failed = sample - successful;
    let how = failure.unwrap_or_default();
    if successful == 0 {
        // A job that fails takes another time than one that does not.
        let hint = "see what is wrong with: paceline each, the same words, and `-j 1`".to_owned();
        let all = if sample == 1 { "the only job" } else { "all jobs" };
        let text = format!("no advice: {all} of the sample of {sample} failed: {how}");
        crate::tell(&Problem::new(text).hint(hint));
        return Ok(ExitCode::from(exit_code::FAILED));
    }
    let program = command[0].to_string_lossy();
    let program = program.split([' ', '\t']).next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    let question = Question {
        items: args.items.unwrap_or(items).div_ceil(args.job.batch),
        cores: cores(),
        target: args.target.map(|target| target.0.as_secs_f64()),
        is_python: program.starts_with("python"),
    };
    let advice = advise(&measured, &question);
    let text = if args.json {
        format!("{}\n", advice.json(&measured, &question, successful))
    } else {
        advice.text(&measured, &question, successful)
    };
    if failed > 0 {
        note(&format!(
            "{failed} of {sample} jobs of the sample failed and count for nothing here: {how}"
        ));
    }
    // Of what computes little, a moment says nothing of the machine.
    let crowding = 1.0 + alone.queued / alone.cpu.max(1e-9);
    if crowding > BUSY && alone.queued > 0.1 * alone.wall {
        note(&format!(
            "the machine is busy: computing took {:.1} times as long as it would alone; that was \
             taken off, but measure again when it is quiet",
            crowding
        ));
    }
    let is_good = failed == 0 && advice.meets_target;
    match io::stdout().write_all(text.as_bytes()).and_then(|()| crate::check_open()) {
        Ok(()) => Ok(ExitCode::from(if is_good { exit_code::OK } else { exit_code::FAILED })),
        Err(error) => Ok(crate::unprinted(&error)),
    }
}

/// The words of the job for these values.
fn words(work: &Work, sources: &[&[u8]], seq: u64) -> Result<Vec<std::ffi::OsString>, Problem> {
    let values =
        Values { values: sources, inputs: sources, sources, seq, slot: 1, out: None, names: None };
    let words = match work {
        Work::Shell(script) => script.expand(&values),
        Work::Run(command) => command.expand(&values),
        _ => unreachable!("it is a command or a script"),
    };
    words.map_err(|error| Problem::new(error.to_string()))
}

/// Which jobs are to run alone, and which some at once: every other one, so that items that get
/// larger or smaller on the way are on both sides. Of few, all run alone.
fn divide(jobs: Vec<Job>) -> (Vec<Job>, Vec<Job>) {
    if jobs.len() < 4 {
        return (jobs, Vec::new());
    }
    let (mut alone, mut at_once) = (Vec::new(), Vec::new());
    for (index, job) in jobs.into_iter().enumerate() {
        if index % 2 == 0 { alone.push(job) } else { at_once.push(job) }
    }
    (alone, at_once)
}

fn note(text: &str) {
    let _ = io::stderr().write_all(format!("note: {text}\n").as_bytes());
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
    fn r56_6_on_a_busy_machine_what_computes_is_still_cpu_bound() {
        // 20 ms of computing took 60 ms, since others computed too.
        let busy = Measured::quiet(0.060, 0.020, 0.040);
        assert_eq!(advise(&busy, &question(100, None)).nature, "CPU bound");
        let waits = Measured::quiet(0.101, 0.001, 0.002);
        assert_eq!(advise(&waits, &question(100, None)).nature, "I/O bound");
        let threads = Measured::quiet(0.010, 0.020, 0.0);
        assert!(threads.wall > 0.0, "several threads in a job");
    }

    fn timed(walls: &[f64]) -> Timed {
        Timed::default().of(walls)
    }

    #[test]
    fn items_that_differ_are_not_taken_for_something_that_is_shared() {
        let jobs =
            (0..10).map(|number| Job { words: vec![number.to_string().into()], stdin: None });
        let (alone, at_once) = divide(jobs.collect());
        let numbers = |jobs: &[Job]| {
            jobs.iter().map(|job| job.words[0].to_str().unwrap().to_owned()).collect::<String>()
        };
        assert_eq!((&*numbers(&alone), &*numbers(&at_once)), ("02468", "13579"));

        let advice = |alone: &[f64], at_once: &[f64]| {
            let (alone, at_once) = (timed(alone), timed(at_once));
            let gain = AtOnce::of(2, &alone, &at_once);
            let measured = Measured { wall: alone.wall, cpu: 0.0001, at_once: Some(gain) };
            advise(&measured, &question(100, None))
        };
        let differ = advice(&[0.1, 0.1, 0.5, 0.1], &[0.1, 0.6, 0.9, 0.1]);
        assert_eq!((differ.warning, differ.workers), (None, 100));
        let shared = advice(&[0.1, 0.11, 0.1, 0.1], &[0.2, 0.21, 0.2, 0.2]);
        assert!(shared.warning.unwrap().contains("something else is shared"));
        assert_eq!(shared.workers, 1, "two at once took as long as one after the other");

        let (alone, mut at_once) = (timed(&[0.1, 0.11, 0.1, 0.1]), timed(&[0.2, 0.21, 0.2, 0.2]));
        at_once.queued = 0.1;
        let busy = AtOnce::of(2, &alone, &at_once);
        assert!(!busy.is_surely_slower, "others had the cores: {busy:?}");
    }

    #[test]
    fn a_target_that_cannot_be_met_is_said_and_the_best_is_named() {
        let measured = Measured { wall: 0.020, cpu: 0.020, at_once: None };
        let advice = advise(&measured, &question(100, Some(0.1)));
        assert_eq!((advice.workers, advice.meets_target), (2, false));
        assert!(advice.warning.unwrap().contains("cannot be met"));
    }
}
