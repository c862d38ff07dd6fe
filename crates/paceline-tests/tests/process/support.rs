//! A test's surroundings: a time limit, and a look at what it left behind.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use paceline_process::{Command, Output, Stderr, Stdin, Stdout};
use rustix::process::{Pid, PidfdFlags, Signal};

const COOKIE: &str = "PACELINE_TEST_COOKIE";
const LIMIT: Duration = Duration::from_secs(60);

/// Descriptors and zombies belong to the process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// What a test gets: commands whose descendants can be found again, and a
/// directory that goes away.
pub(crate) struct World {
    cookie: String,
    directory: PathBuf,
}

impl World {
    /// Describes a command whose whole family carries this test's cookie.
    pub(crate) fn command(&self, program: &str) -> Command {
        Command::new(program).env(COOKIE, &self.cookie)
    }

    pub(crate) fn sh(&self, script: &str) -> Command {
        self.command("sh").args(["-c", script])
    }

    /// Describes the helper program in one of its modes.
    pub(crate) fn child(&self, arguments: &[&str]) -> Command {
        self.command(env!("CARGO_BIN_EXE_child")).args(arguments)
    }

    /// Describes the helper in a mode that gives `input` back on both streams, which are captured.
    pub(crate) fn echo(&self, arguments: &[&str], input: &[u8]) -> Command {
        self.child(arguments)
            .stdin(Stdin::from(input))
            .stdout(Stdout::Capture)
            .stderr(Stderr::Capture)
    }

    /// Returns a path in the test's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Returns the path as text, for a shell's arguments.
    pub(crate) fn path_text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Runs the other helper in surroundings that the script makes.
    ///
    /// The script is the beginning of a command line that ends in the runner
    /// and its arguments.
    pub(crate) fn runner_in(&self, surroundings: &str, mode: &str) {
        self.runner_within(Duration::from_secs(20), surroundings, mode);
    }

    /// The same with another time limit, which is below that of a test.
    pub(crate) fn runner_within(&self, limit: Duration, surroundings: &str, mode: &str) {
        let report = self.path_text("report");
        let script = format!("{surroundings} \"$0\" \"$@\"");
        let output = self
            .sh(&script)
            .args([env!("CARGO_BIN_EXE_runner"), mode, &report])
            .run_timeout(limit, Duration::from_secs(1))
            .unwrap();
        let report = fs::read_to_string(&report).unwrap_or_else(|error| error.to_string());
        assert_eq!(report, "ok", "in `{surroundings}`: {}", output.exit());
    }

    /// Returns the living processes of this test, with their command lines.
    pub(crate) fn family(&self) -> Vec<(i32, String)> {
        let needle = format!("{COOKIE}={}", self.cookie).into_bytes();
        process_ids()
            .filter(|pid| *pid != rustix::process::getpid().as_raw_nonzero().get())
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|all| all.split(|byte| *byte == 0).any(|entry| entry == needle))
            })
            .map(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                (pid, String::from_utf8_lossy(&line).replace('\0', " "))
            })
            .collect()
    }

    /// Waits until no process of this test is alive; what was killed needs a
    /// moment to die.
    pub(crate) fn family_dies_within(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        loop {
            let family = self.family();
            let Some((pid, _)) = family.first() else { return };
            assert!(Instant::now() < deadline, "left running: {family:?}");
            await_exit(*pid, deadline);
        }
    }
}

/// Runs a test within the time limit, then asserts that nothing is left.
pub(crate) fn run(test: impl FnOnce(&World) + Send + 'static) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cookie = format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let directory = std::env::temp_dir().join(format!("paceline-test-{cookie}"));
    fs::create_dir_all(&directory).unwrap();
    let world = World { cookie, directory };
    let descriptors = descriptors();

    let (finished, finish) = mpsc::channel();
    let (world_sender, world_receiver) = mpsc::channel();
    let body = thread::Builder::new().name("test-body".to_owned());
    let worker = body.spawn(move || {
        let result = panic::catch_unwind(AssertUnwindSafe(|| test(&world)));
        world_sender.send(world).unwrap();
        finished.send(()).unwrap();
        result
    });
    if finish.recv_timeout(LIMIT + soak()) == Err(RecvTimeoutError::Timeout) {
        panic!("not done in time:\n{}", dump());
    }
    let result = worker.unwrap().join().unwrap();
    let world = world_receiver.recv().unwrap();
    let left = world.family();
    let directory = world.directory.clone();
    let checked = panic::catch_unwind(AssertUnwindSafe(|| {
        world.family_dies_within(Duration::from_secs(1));
        eventually("no zombies", || zombies().is_empty());
        eventually("descriptors as before", || self::descriptors() == descriptors);
    }));
    for (pid, _) in left {
        if let Some(pid) = Pid::from_raw(pid) {
            // A number of a process that carries our cookie moments ago.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    let _ = fs::remove_dir_all(directory);
    if let Err(panic) = result {
        panic::resume_unwind(panic);
    }
    if let Err(panic) = checked {
        panic::resume_unwind(panic);
    }
}

/// Both streams gave back all of the input.
#[track_caller]
pub(crate) fn assert_echoed(output: &Output, input: &[u8]) {
    assert!(output.stdout().to_bytes().unwrap() == input);
    assert!(output.stderr().to_bytes().unwrap() == input);
}

/// Returns how long a race is run: a second, or `PACELINE_SOAK_SECONDS`.
pub(crate) fn soak() -> Duration {
    let seconds = std::env::var("PACELINE_SOAK_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(1))
}

/// Asserts that something becomes true within a second.
pub(crate) fn eventually(what: &str, is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while !is_true() {
        assert!(
            Instant::now() < deadline,
            "not within a second: {what}; zombies {:?}, descriptors {:?}",
            zombies(),
            descriptors()
        );
        pause(Duration::from_millis(5));
    }
}

/// Waits for something that has no event: another process's state in `/proc`.
fn pause(time: Duration) {
    let time = rustix::event::Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() };
    let _ = rustix::event::poll(&mut [], Some(&time));
}

/// Waits until the process has ended or the deadline has passed.
pub(crate) fn await_exit(pid: i32, deadline: Instant) {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let Some(pid) = Pid::from_raw(pid) else { return };
    let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return };
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap(),
        tv_nsec: left.subsec_nanos().into(),
    };
    let _ = rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left));
}

pub(crate) fn is_alive(pid: i32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// Returns the open descriptors of this process, and what they are.
pub(crate) fn descriptors() -> BTreeSet<(i32, PathBuf)> {
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let number = path.file_name()?.to_str()?.parse().ok()?;
            // The directory being read has no target any more.
            let target = fs::read_link(&path).ok()?;
            (!target.to_string_lossy().ends_with("/fd")).then_some((number, target))
        })
        .collect()
}

/// Returns the children of this process that nobody has reaped.
pub(crate) fn zombies() -> Vec<i32> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    process_ids().filter(|pid| state_and_parent(*pid) == Some(('Z', me))).collect()
}

fn state_and_parent(pid: i32) -> Option<(char, i32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn process_ids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Says what every thread of this process and each of its children does.
fn dump() -> String {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    let mut text = String::new();
    for entry in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let task = entry.path().display().to_string();
        text += &format!(
            "{} {} {}\n",
            task,
            read(format!("{task}/comm")).trim(),
            read(format!("{task}/wchan")).trim()
        );
        for pid in read(format!("{task}/children")).split_whitespace() {
            text += &format!(
                "  child {pid} {} {}\n",
                read(format!("/proc/{pid}/cmdline")).replace('\0', " "),
                read(format!("/proc/{pid}/wchan")).trim()
            );
        }
    }
    text
}
