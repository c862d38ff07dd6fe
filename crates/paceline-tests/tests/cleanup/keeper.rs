//! A runner to talk to, and what its jobs leave behind.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use paceline_process::{Child, Command, Signal, Stdin, Stdout};

use super::support::{World, await_exit};

/// A running `keeper`.
pub(crate) struct Keeper {
    child: Child,
    input: Option<PipeWriter>,
    output: BufReader<PipeReader>,
}

pub(crate) fn command(world: &World, arguments: &[&str]) -> Command {
    world.command(env!("CARGO_BIN_EXE_keeper")).args(arguments)
}

impl Keeper {
    pub(crate) fn start(command: Command) -> Keeper {
        let mut child = command.stdin(Stdin::Pipe).stdout(Stdout::Pipe).spawn().unwrap();
        let input = child.take_stdin();
        let output = BufReader::new(child.take_stdout().unwrap());
        Keeper { child, input, output }
    }

    /// Returns the next line that it says, or nothing if it has ended.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn tell(&mut self, text: &str) {
        use std::io::Write;
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Kills the runner, and it alone.
    pub(crate) fn kill(&self) {
        self.child.signal(Signal::KILL).unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it go on to its end.
    pub(crate) fn finish(mut self) {
        self.input = None;
        assert!(self.child.wait().unwrap().success());
    }
}

/// Processes that have said in a directory that they are there.
pub(crate) struct Survivors(PathBuf);

impl Survivors {
    pub(crate) fn in_directory(directory: PathBuf) -> Survivors {
        fs::create_dir(&directory).unwrap();
        Survivors(directory)
    }

    pub(crate) fn directory(&self) -> &str {
        self.0.to_str().unwrap()
    }

    /// Returns who is still alive.
    pub(crate) fn alive(&self) -> Vec<i32> {
        let entries = fs::read_dir(&self.0).unwrap();
        entries.filter_map(|entry| alive(&entry.unwrap().path())).collect()
    }

    pub(crate) fn count(&self) -> usize {
        fs::read_dir(&self.0).unwrap().count()
    }

    /// Asserts that all of them are dead before the deadline.
    pub(crate) fn die_by(&self, deadline: Instant, what: &str) {
        loop {
            let alive = self.alive();
            let Some(pid) = alive.first() else { return };
            assert!(Instant::now() < deadline, "{what}: {} of them live: {alive:?}", alive.len());
            await_exit(*pid, deadline);
        }
    }

    pub(crate) fn die_within(&self, limit: Duration, what: &str) {
        self.die_by(Instant::now() + limit, what);
    }
}

/// Returns the process's number if it lives and is the one that said so.
fn alive(path: &Path) -> Option<i32> {
    let then = fs::read_to_string(path).unwrap();
    let pid: i32 = path.file_name()?.to_str()?.parse().unwrap();
    let now = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (state, started) = state_and_start(&now);
    (state != "Z" && started == state_and_start(&then).1).then_some(pid)
}

fn state_and_start(stat: &str) -> (&str, &str) {
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    (fields[0], fields[19])
}
