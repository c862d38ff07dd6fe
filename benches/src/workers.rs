//! Long-lived worker processes against a child an item, and against Python's pools.

use std::{
    env, fs,
    io::{self, BufRead, BufWriter, Read, Write},
    path::PathBuf,
    process::{Command as StdCommand, Stdio},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use paceline::{Attempt, BoxError, Command, Exchange, Form, Pipeline, Serve};

use crate::harness::{Bar, Contest, Options, timed};

pub(crate) const ABOUT: &str = "\
Time an item in a stage of two worker processes that echo it, in the three framings, against a
stage that starts `/bin/true` for each, and of worker processes in Python (the worker of `python`
stages) against `python3 -c pass` for each: these two do 1/1000 of the items. Starting the workers
counts, and so does their end. Then Python functions, two processes everywhere: one that gives back
what it gets, and one that computes for a millisecond. Here the clock runs from when all processes
are started and have answered to the last answer, for paceline as for the others. Python's pools get
chunks as their own documents advise (`chunksize` of a quarter of a worker's share); pypeln, which
has none and takes some hundred times as long, starts its processes within its time, and does a
fiftieth of the quick items.";

const CHILD: &str = "a child an item";
const LINES: &str = "`lines`";
const JSON: &str = "`json`";
const FRAMES: &str = "`frames`";
const PYTHON: &str = "python workers";
const PYTHON_EACH: &str = "python an item";
const PACELINE: &str = "paceline";
/// The name, that in the script, and of how many quick items one is done.
const PEERS: [(&str, &str, usize); 4] = [
    ("concurrent.futures", "futures", 1),
    ("multiprocessing.Pool", "pool", 1),
    ("mpire", "mpire", 1),
    ("pypeln", "pypeln", 50),
];

/// The argument that makes this program a worker.
pub(crate) const WORKER: &str = "work";

const WORKERS: usize = 2;

/// The worker of `python` stages, and what reads it.
const SHIM: &str = include_str!("../../crates/paceline-cli/src/stages/python/worker.py");
const READ_SHIM: &str = "\
import os,sys
n=int(sys.argv[1]);b=b''
while len(b)<n:b+=os.read(0,n-len(b))
exec(compile(b,'<paceline>','exec'))
";

/// The functions, and the pools that call them.
const FUNCTIONS: &str = include_str!("workers/functions.py");
const POOLS: &str = include_str!("workers/pools.py");

pub(crate) fn contests(options: &Options) -> Vec<Contest> {
    let python = Python::find();
    let mut contests = vec![framings(options.amount(300_000))];
    match &python {
        Some(python) => {
            contests.push(python.against_an_item_each(options.amount(500_000)));
            for (function, title, items) in [
                ("same", "a function that does nothing", 500_000),
                ("busy", "a function of a millisecond", 3_000),
            ] {
                contests.push(python.against_pools(function, title, options.amount(items)));
            }
        }
        None => contests[0].absent.push("python3"),
    }
    contests
}

/// A worker of one of the framings.
pub(crate) fn run_child(arguments: &[String]) {
    let worked = match arguments.first().map(String::as_str) {
        Some("lines") => echo(|line, out| {
            out.write_all(line)?;
            out.flush()
        }),
        Some("json") => echo(|line, out| out.write_all(line)),
        _ => paceline::serve(Ok::<Vec<u8>, BoxError>),
    };
    worked.expect("the runner is there");
}

/// Gives each line to `answer`, and sends what has gathered before it waits.
fn echo(answer: impl Fn(&[u8], &mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut input = io::BufReader::with_capacity(64 * 1024, io::stdin());
    let mut output = BufWriter::with_capacity(64 * 1024, io::stdout());
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        answer(&line, &mut output)?;
        line.clear();
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
    Ok(())
}

/// A number's digits, there and back.
struct Digits;

impl Exchange<u64> for Digits {
    type Out = u64;

    fn request(&self, item: &u64, _: &Attempt, to: &mut Vec<u8>) -> Result<Form, BoxError> {
        write!(to, "{item}")?;
        Ok(Form::Bytes)
    }

    fn answer(&self, _: u64, _: &Attempt, _: Form, answer: &[u8]) -> Result<u64, BoxError> {
        Ok(std::str::from_utf8(answer)?.parse()?)
    }
}

/// The time that `items` take in workers like these. Checks that they came.
fn by_serve(serve: Serve, items: usize) -> Duration {
    timed(|| {
        let mut sum = 0;
        let summary = Pipeline::from_iter(0..items as u64)
            .serve("echo", serve, Digits)
            .workers(WORKERS)
            .for_each(|number| sum += number)
            .run()
            .expect("it runs");
        assert_eq!(summary.ok, items as u64, "{summary}");
        assert_eq!(sum, items as u64 * (items as u64 - 1) / 2);
    })
}

/// Items that come when all workers have answered something, and the clock
/// that runs from then on.
struct Course {
    items: std::ops::Range<u64>,
    /// The workers that have answered, by their places.
    answered_by: Arc<AtomicU64>,
    /// Hears of each answer.
    answers: Receiver<()>,
    sent_before: usize,
    started: Arc<OnceLock<Instant>>,
}

impl Iterator for Course {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        if self.started.get().is_none() {
            if self.answered_by.load(Ordering::Relaxed).count_ones() < WORKERS as u32 {
                self.sent_before += 1;
                return Some(0);
            }
            self.answers.iter().take(self.sent_before).for_each(drop);
            self.started.get_or_init(Instant::now);
        }
        self.items.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (if self.started.get().is_some() { self.items.size_hint().0 } else { 0 }, None)
    }
}

/// As [`Digits`], and tells who has answered.
struct Watched(Arc<AtomicU64>);

impl Exchange<u64> for Watched {
    type Out = u64;

    fn request(&self, item: &u64, attempt: &Attempt, to: &mut Vec<u8>) -> Result<Form, BoxError> {
        Digits.request(item, attempt, to)
    }

    fn answer(&self, item: u64, of: &Attempt, form: Form, said: &[u8]) -> Result<u64, BoxError> {
        let place = 1 << (of.slot() % 64);
        if self.0.load(Ordering::Relaxed) & place == 0 {
            self.0.fetch_or(place, Ordering::Relaxed);
        }
        Digits.answer(item, of, form, said)
    }
}

/// The time that `items` take in workers like these that have all begun.
fn by_warm(serve: Serve, items: usize) -> Duration {
    let (answered_by, started) = (Arc::<AtomicU64>::default(), Arc::<OnceLock<_>>::default());
    let (tell, answers): (Sender<()>, _) = channel();
    let course = Course {
        items: 0..items as u64,
        answered_by: answered_by.clone(),
        answers,
        sent_before: 0,
        started: started.clone(),
    };
    let (mut sum, mut count, mut last) = (0, 0, None);
    let summary = Pipeline::from_iter(course)
        .serve("call", serve, Watched(answered_by))
        .workers(WORKERS)
        .for_each(|number| {
            if started.get().is_some() {
                sum += number;
                count += 1;
                if count == items {
                    last = Some(Instant::now());
                }
            } else {
                tell.send(()).expect("the source waits for it");
            }
        })
        .run()
        .expect("it runs");
    assert_eq!(summary.failed, 0, "{summary}");
    assert_eq!(sum, items as u64 * (items as u64 - 1) / 2);
    last.expect("all items came") - *started.get().expect("it started")
}

/// The time that a child for each of `items` takes.
fn by_children(command: &Command, items: usize) -> Duration {
    timed(|| {
        let summary = Pipeline::from_iter(0..items)
            .command("child", |_: &usize, _: &Attempt| command.clone())
            .workers(WORKERS)
            .discard()
            .run()
            .expect("it runs");
        assert_eq!(summary.ok, items as u64);
    })
}

fn framings(items: usize) -> Contest {
    let mut contest = Contest::new("echo", "ns");
    let children = (items / 1000).max(100);
    let command = Command::new("/bin/true");
    contest.add_timed(CHILD, children, move || by_children(&command, children));
    for (name, framing) in [(LINES, "lines"), (JSON, "json"), (FRAMES, "frames")] {
        contest.bars.push(Bar::times(name, 1.0 / 300.0, &[CHILD]));
        contest.add_timed(name, items, move || {
            let program = env::current_exe().expect("this program has a path");
            let command = Command::new(program).args([WORKER, framing]);
            let serve = match framing {
                "lines" => Serve::lines(command),
                "json" => Serve::json(command),
                _ => Serve::frames(command),
            };
            by_serve(serve, items)
        });
    }
    contest
}

/// An interpreter, and a folder with the functions in it.
struct Python {
    interpreter: PathBuf,
    folder: PathBuf,
}

impl Python {
    fn find() -> Option<Self> {
        let interpreter = PathBuf::from(env::var_os("PYTHON").unwrap_or_else(|| "python3".into()));
        let output = StdCommand::new(&interpreter)
            .args(["-c", "import sys; print(sys.executable)"])
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        // The interpreter itself: what stands before it on the path may be a script.
        let interpreter = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
        let folder =
            env::temp_dir().join(format!("paceline-benches-workers-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder can be made");
        fs::write(folder.join("functions.py"), FUNCTIONS).expect("it can be written");
        Some(Self { interpreter, folder })
    }

    fn workers(&self, function: &str) -> Serve {
        let command = Command::new(&self.interpreter)
            .args(["-c", READ_SHIM, &SHIM.len().to_string(), "functions", function])
            .arg(&self.folder);
        Serve::frames(command).prelude(SHIM)
    }

    fn against_an_item_each(&self, items: usize) -> Contest {
        let mut contest = Contest::new("python", "ns");
        contest.bars.push(Bar::times(PYTHON, 1.0 / 5000.0, &[PYTHON_EACH]));
        let serve = self.workers("same");
        contest.add_timed(PYTHON, items, move || by_serve(serve.clone(), items));
        let command = Command::new(&self.interpreter).args(["-c", "pass"]);
        let children = (items / 5000).max(50);
        contest.add_timed(PYTHON_EACH, children, move || by_children(&command, children));
        contest
    }

    fn against_pools(&self, function: &'static str, title: &str, items: usize) -> Contest {
        let mut contest = Contest::new(title, "ns");
        let serve = self.workers(function);
        contest.add_timed(PACELINE, items, move || by_warm(serve.clone(), items));
        for (name, module, part) in PEERS {
            let items = if function == "same" { items / part } else { items };
            let mut pool = StdCommand::new(&self.interpreter);
            pool.args(["-c", POOLS, module, function, &items.to_string(), &WORKERS.to_string()])
                .current_dir(&self.folder)
                .stdin(Stdio::null());
            match pool.args(["0"]).output() {
                Ok(output) if output.status.success() => {}
                _ => {
                    contest.absent.push(name);
                    continue;
                }
            }
            contest.bars.push(Bar::times(PACELINE, 1.0, &[name]));
            let (interpreter, folder) = (self.interpreter.clone(), self.folder.clone());
            contest.add_timed(name, items, move || {
                let mut child = StdCommand::new(&interpreter)
                    .args(["-c", POOLS, module, function])
                    .args([items.to_string(), WORKERS.to_string(), "1".to_owned()])
                    .current_dir(&folder)
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .spawn()
                    .expect("python runs");
                let mut said = String::new();
                child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
                assert!(child.wait().expect("it ends").success(), "{name} failed");
                Duration::from_secs_f64(said.trim().parse().expect("seconds"))
            });
        }
        contest
    }
}
