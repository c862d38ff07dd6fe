//! Children: chains joined by pipes, and many short jobs.

use std::{
    ffi::CStr,
    io::Read,
    process::{Command as StdCommand, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use paceline::{Attempt, BoxError, Job, Output, Pipeline};
use paceline_process::{Chain, Command, Stdout};

use crate::{
    cpu,
    harness::{Bar, Contest, Options, timed},
};

mod bare;

pub(crate) const ABOUT: &str = "\
`head | cat | wc` over zeros: the kernel's pipes between the children, so paceline moves no
bytes; `sh -c` does the same. `/bin/true`: time a job with so many at once, by a `command` stage,
by threads around the standard library's `Command`, and by threads around a bare `posix_spawn` and
`waitpid`, which is the machine's ceiling; with the output thrown away and captured.";

const PACELINE: &str = "paceline";
const STD: &str = "std Command on threads";
const BARE: &str = "bare posix_spawn";
const SHELL: &str = "sh -c";
pub(crate) const TRUE: &str = "/bin/true";

pub(crate) fn contests(options: &Options) -> Vec<Contest> {
    let mut contests = vec![chain(options.amount(1 << 30))];
    for captured in [false, true] {
        for workers in [2, 4, 8] {
            contests.push(jobs(workers, options.amount(2000), captured));
        }
    }
    contests
}

fn chain(bytes: usize) -> Contest {
    let title = format!("chain of three, {} MiB", bytes >> 20);
    let mut contest = Contest::new(title, "ms").measure("CPU time of ours", "ms");
    contest.bars.push(Bar::times(PACELINE, 1.0, &[SHELL]));
    contest.bars.push(Bar::at_most(1, PACELINE, 5.0));
    let measured = move |run: &dyn Fn() -> String| {
        let cpu = cpu::own();
        let time = timed(|| assert_eq!(run().trim(), bytes.to_string()));
        [time, cpu::own() - cpu].map(|time| time.as_secs_f64() * 1000.0).to_vec()
    };
    contest.add(PACELINE, move || {
        measured(&|| {
            let head = Command::new("head").args(["-c", &bytes.to_string(), "/dev/zero"]);
            let count = Command::new("wc").arg("-c").stdout(Stdout::Capture);
            let output = Chain::new([head, Command::new("cat"), count]).run().expect("it runs");
            output.stdout().to_text().expect("digits").to_string()
        })
    });
    contest.add(SHELL, move || {
        measured(&|| {
            let script = format!("head -c {bytes} /dev/zero | cat | wc -c");
            let output = StdCommand::new("sh").args(["-c", &script]).output().expect("it runs");
            String::from_utf8(output.stdout).expect("digits")
        })
    });
    contest
}

fn jobs(workers: usize, jobs: usize, captured: bool) -> Contest {
    let what = if captured { "captured" } else { "not captured" };
    let mut contest = Contest::new(format!("{workers} at once, {what}"), "us");
    contest.bars.push(Bar::times(PACELINE, if captured { 1.08 } else { 1.05 }, &[BARE]));
    let mut add = |name, run: fn(usize, usize, bool) -> Duration| {
        contest.add(name, move || {
            vec![run(workers, jobs, captured).as_nanos() as f64 / jobs as f64 / 1000.0]
        });
    };
    add(PACELINE, by_paceline);
    add(STD, by_std);
    add(BARE, |workers, jobs, captured| by_bare(&[c"/bin/true"], workers, jobs, captured));
    contest
}

fn by_paceline(workers: usize, jobs: usize, captured: bool) -> Duration {
    let stdout = if captured { Stdout::Capture } else { Stdout::Null };
    let started = Instant::now();
    let summary = Pipeline::from_iter(0..jobs)
        .command_job("true", True(stdout))
        .workers(workers)
        .run()
        .expect("it runs");
    assert_eq!(summary.ok, jobs as u64);
    started.elapsed()
}

/// Runs `true` for each item.
struct True(Stdout);

impl Job<usize> for True {
    type Out = ();
    type State = ();

    fn start(&self, _: &usize, _: &Attempt) -> Result<(Chain, ()), BoxError> {
        Ok((Chain::new([Command::new(TRUE).stdout(self.0.clone())]), ()))
    }

    fn finish(&self, _: usize, (): (), output: Output) -> Result<(), BoxError> {
        output.check()?;
        Ok(())
    }
}

/// `workers` threads, each of which runs one job after the other.
fn on_threads(workers: usize, jobs: usize, job: impl Fn() + Sync) -> Duration {
    let taken = AtomicUsize::new(0);
    timed(|| {
        thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while taken.fetch_add(1, Ordering::Relaxed) < jobs {
                        job();
                    }
                });
            }
        });
    })
}

fn by_std(workers: usize, jobs: usize, captured: bool) -> Duration {
    on_threads(workers, jobs, || {
        let mut command = StdCommand::new(TRUE);
        command.stdin(Stdio::null());
        command.stdout(if captured { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().expect("it starts");
        if let Some(mut stdout) = child.stdout.take() {
            let mut output = Vec::new();
            stdout.read_to_end(&mut output).expect("a pipe can be read");
            assert!(output.is_empty());
        }
        assert!(child.wait().expect("it ends").success());
    })
}

/// Threads around the C library alone.
pub(crate) fn by_bare(command: &[&CStr], workers: usize, jobs: usize, captured: bool) -> Duration {
    let run = if captured { bare::run_captured } else { bare::run };
    on_threads(workers, jobs, || run(command))
}
