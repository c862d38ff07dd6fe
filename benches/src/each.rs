//! `paceline each` against the programs that people run jobs with.
//!
//! Every run is a process of its own, and what it cost is asked of the kernel
//! when it is reaped: its CPU time is that of its jobs too.
//!
//! Not here: how a program is run and measured (`each/program.rs`).

use std::{env, path::PathBuf, process::Command, time::Duration};

use crate::{
    children,
    each::program::{Run, lines},
    harness::{Bar, Contest, Options},
};

pub(crate) mod program;

pub(crate) const ABOUT: &str = "\
The program itself. `/bin/true` for each line of a file: time and CPU time a job, of the runner
and its jobs together, against a loop of `posix_spawn` and `waitpid` on as many threads, which is
the machine's ceiling, and against the peers found here; not captured with `-u`, captured as
`each` does unless told otherwise. GNU parallel does a fifth of the jobs. Start-up is one job.
Memory is the highest of the runner itself, without its jobs.";

const PACELINE: &str = "paceline each";
const BARE: &str = "bare posix_spawn";
const XARGS: &str = "xargs";
const GNU: &str = "GNU parallel";
const MOREUTILS: &str = "moreutils parallel";
const RUST: &str = "rust-parallel";

/// The argument that makes this program a bare loop.
pub(crate) const CHILD: &str = "run-bare";

pub(crate) fn contests(options: &Options) -> Vec<Contest> {
    let peers = Peers::find();
    let mut contests = Vec::new();
    for captured in [false, true] {
        for workers in [2, 4, 8] {
            contests.push(jobs(&peers, workers, options.amount(3000), captured));
        }
    }
    contests.push(start_up(&peers));
    contests.push(sleepers(&peers, options.amount(1000)));
    contests.push(memory(
        "10 M lines to 100 k, `-n 1000 true`",
        &["-j2", "-n1000", "true"],
        options,
    ));
    contests.push(memory("10 M lines to 100 k, `--dry-run`", &["--dry-run", "true"], options));
    contests
}

/// The programs that there are.
struct Peers {
    paceline: PathBuf,
    xargs: Option<PathBuf>,
    gnu: Option<PathBuf>,
    moreutils: Option<PathBuf>,
    rust: Option<PathBuf>,
}

impl Peers {
    fn find() -> Self {
        Self {
            paceline: paceline(),
            xargs: find("xargs"),
            gnu: find("parallel").filter(|path| {
                let output = Command::new(path).arg("--version").output();
                output.is_ok_and(|output| output.stdout.starts_with(b"GNU parallel"))
            }),
            moreutils: find("parallel.moreutils"),
            rust: find("rust-parallel"),
        }
    }

    /// Adds whoever is here, and notes who is not. Bare loops are always here.
    fn add(&self, contest: &mut Contest, name: &'static str, run: Run) {
        let program = match name {
            PACELINE => Some(self.paceline.clone()),
            BARE => Some(env::current_exe().expect("this program has a path")),
            XARGS => self.xargs.clone(),
            GNU => self.gnu.clone(),
            MOREUTILS => self.moreutils.clone(),
            RUST => self.rust.clone(),
            unknown => unreachable!("`{unknown}` is no peer"),
        };
        match program {
            Some(program) => contest.add(name, move || run.measure(&program)),
            None => contest.absent.push(name),
        }
    }
}

/// The program under test, beside this one unless `PACELINE` says where.
pub(crate) fn paceline() -> PathBuf {
    let beside = || {
        let program = env::current_exe().expect("this program has a path");
        program.with_file_name("paceline")
    };
    let path = env::var_os("PACELINE").map_or_else(beside, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: build it by `cargo build --release -p paceline-cli`, or say where it is \
         by the variable PACELINE",
        path.display()
    );
    path
}

fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn jobs(peers: &Peers, workers: usize, jobs: usize, captured: bool) -> Contest {
    let what = if captured { "captured" } else { "not captured" };
    let mut contest =
        Contest::new(format!("{workers} at once, {what}"), "us").measure("CPU time", "us");
    contest.bars.push(Bar::times(PACELINE, if captured { 1.08 } else { 1.05 }, &[BARE]));
    contest.bars.push(Bar::times(PACELINE, 1.0, &[XARGS, GNU, MOREUTILS, RUST]));
    let j = &workers.to_string();
    let each = |jobs| Run::new().each_of(jobs).input(lines(1..=jobs));
    let fewer = jobs / 5;
    let true_ = children::TRUE;
    if captured {
        peers.add(&mut contest, PACELINE, each(jobs).args(["each", "-j", j, true_]));
        let run = Run::new().each_of(jobs).args([CHILD, "captured", j, &jobs.to_string()]);
        peers.add(&mut contest, BARE, run);
        peers.add(&mut contest, GNU, each(fewer).args(["-j", j, true_]));
    } else {
        peers.add(&mut contest, PACELINE, each(jobs).args(["each", "-u", "-j", j, true_]));
        let run = Run::new().each_of(jobs).args([CHILD, "not captured", j, &jobs.to_string()]);
        peers.add(&mut contest, BARE, run);
        peers.add(&mut contest, XARGS, each(jobs).args(["-P", j, "-n", "1", true_]));
        // It takes items from its command line alone.
        let items = (1..=jobs).map(|item| item.to_string());
        let run = Run::new().each_of(jobs).args(["-j", j, true_, "--"]).args(items);
        peers.add(&mut contest, MOREUTILS, run);
        peers.add(&mut contest, GNU, each(fewer).args(["-u", "-j", j, true_]));
    }
    // It captures in any case.
    peers.add(&mut contest, RUST, each(jobs).args(["-j", j, true_]));
    contest
}

/// Is the bare loop.
pub(crate) fn run_child(arguments: &[String]) {
    let [what, workers, jobs] = arguments else { panic!("what, how many at once, and how many") };
    let number = |text: &String| text.parse().expect("a number");
    // With an argument, as the others give one: GNU's `true` sets up its locale then, 0.2 ms.
    children::by_bare(&[c"/bin/true", c"1"], number(workers), number(jobs), what == "captured");
}

fn start_up(peers: &Peers) -> Contest {
    let mut contest = Contest::new("start-up", "ms").measure("CPU time", "ms");
    contest.bars.push(Bar::above(PACELINE, 4.0, XARGS));
    contest.bars.push(Bar::times(PACELINE, 0.05, &[GNU]));
    let one = || Run::new().in_milliseconds().repeated(10);
    peers.add(&mut contest, PACELINE, one().args(["each", "true", ":::", "1"]));
    peers.add(&mut contest, XARGS, one().input(lines(1..=1)).args(["true"]));
    peers.add(&mut contest, MOREUTILS, one().args(["true", "--", "1"]));
    peers.add(&mut contest, GNU, one().args(["true", ":::", "1"]));
    peers.add(&mut contest, RUST, one().args(["true", ":::", "1"]));
    contest
}

fn sleepers(peers: &Peers, sleepers: usize) -> Contest {
    let mut contest = Contest::new(format!("{sleepers} at once, `sleep 1`"), "ms")
        .measure("CPU time", "ms")
        .measure("threads", "")
        .measure("memory", "MB");
    contest.bars.push(Bar::times(PACELINE, 1.0, &[XARGS, GNU, MOREUTILS, RUST]));
    contest.bars.push(Bar::at_most(3, PACELINE, 30.0));
    let j = &sleepers.to_string();
    let all = || {
        let ones = lines(std::iter::repeat_n(1, sleepers));
        Run::new().in_milliseconds().looked_at().input(ones)
    };
    peers.add(&mut contest, PACELINE, all().args(["each", "-j", j, "sleep"]));
    peers.add(&mut contest, XARGS, all().args(["-P", j, "-n", "1", "sleep"]));
    peers.add(&mut contest, RUST, all().args(["-j", j, "sleep"]));
    contest
}

/// The same work on few items and on many, in the memory that it took.
fn memory(title: &str, arguments: &[&str], options: &Options) -> Contest {
    const FEW: &str = "paceline each, 100 k";
    const MANY: &str = "paceline each, 10 M";
    let mut contest = Contest::new(title, "ms")
        .measure("CPU time", "ms")
        .measure("threads", "")
        .measure("memory", "MB");
    contest.bars.push(Bar::at_most(3, MANY, 30.0));
    contest.bars.push(Bar { measure: 3, ..Bar::times(MANY, 1.1, &[FEW]) });
    for (name, count) in [(MANY, options.amount(10_000_000)), (FEW, options.amount(100_000))] {
        let run = Run::new().in_milliseconds().looked_at().input(lines(1..=count));
        let run = run.args(["each"]).args(arguments.iter().copied());
        let program = paceline();
        contest.add(name, move || run.measure(&program));
    }
    contest
}

/// How often a running program is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
