//! A test's surroundings: a folder, the program in it, and a look at what it left.
//!
//! Every program that a test starts carries the test's cookie in its
//! environment, and so do all its descendants. When the folder is dropped,
//! none of them may be alive and no temporary file may be left.

use std::{
    cell::Cell,
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

const COOKIE: &str = "PACELINE_TEST_COOKIE";

/// After this a program hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// How long what was killed may take to be gone.
const DYING: Duration = Duration::from_secs(2);

/// A folder in which the program runs.
pub(crate) struct World {
    folder: tempfile::TempDir,
    cookie: String,
    may_leave_temporary_files: Cell<bool>,
}

impl World {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("cli-").tempdir().unwrap();
        let cookie = format!("{}-{count}", std::process::id());
        Self { folder, cookie, may_leave_temporary_files: Cell::new(false) }
    }

    /// A world with `text` as the pipeline file `p.toml`.
    pub(crate) fn with(text: &str) -> Self {
        let world = Self::new();
        world.write("p.toml", text);
        world
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A file as text; `missing` if there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read(self.path(name))
            .map_or_else(|_| "missing".to_owned(), |bytes| String::from_utf8(bytes).unwrap())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The names in a folder, sorted.
    pub(crate) fn list(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// Makes a named pipe, on which jobs can wait.
    pub(crate) fn fifo(&self, name: &str) {
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, self.path(name), FileType::Fifo, mode, 0).unwrap();
    }

    /// The program with these arguments, not yet started.
    pub(crate) fn paceline<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Run<'_> {
        self.program(env!("CARGO_BIN_EXE_paceline"), arguments)
    }

    /// `paceline run p.toml` with these INPUTs or options.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Run<'_> {
        let mut run = self.paceline(["run", "p.toml"]);
        run.command.args(arguments);
        run
    }

    /// Another program; `sh` finds ours as `$PACELINE`.
    pub(crate) fn program<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Run<'_> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env(COOKIE, &self.cookie)
            .env("PACELINE", env!("CARGO_BIN_EXE_paceline"))
            .env_remove("NO_COLOR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Run { world: self, command, input: None }
    }

    /// A script for `sh`.
    pub(crate) fn sh(&self, script: &str) -> Run<'_> {
        self.program("sh", ["-c", script])
    }

    /// For a test that kills the program in a way that it cannot clean up after.
    pub(crate) fn may_leave_temporary_files(&self) {
        self.may_leave_temporary_files.set(true);
    }

    /// The living processes of this test, with their command lines.
    pub(crate) fn family(&self) -> BTreeMap<i32, String> {
        let needle = format!("{COOKIE}={}", self.cookie).into_bytes();
        let is_ours = |pid: &i32| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|all| all.split(|byte| *byte == 0).any(|entry| entry == needle))
        };
        let command_line = |pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&line).replace('\0', " "))
        };
        let pids = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(is_ours).map(command_line).collect()
    }

    /// Ends every process of this test, as a power cut would.
    pub(crate) fn kill_family(&self) {
        for pid in self.family().into_keys().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn temporary_files(&self) -> Vec<PathBuf> {
        walkdir::WalkDir::new(self.folder.path())
            .into_iter()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(".paceline-"))
            .map(walkdir::DirEntry::into_path)
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let end = Instant::now() + DYING;
        let mut left = self.family();
        while !left.is_empty() && Instant::now() < end {
            tick();
            left = self.family();
        }
        self.kill_family();
        if !thread::panicking() {
            assert!(left.is_empty(), "left running: {left:?}");
            let files = self.temporary_files();
            assert!(self.may_leave_temporary_files.get() || files.is_empty(), "left: {files:?}");
        }
    }
}

/// A program that is about to be started.
pub(crate) struct Run<'w> {
    world: &'w World,
    command: Command,
    input: Option<Vec<u8>>,
}

impl<'w> Run<'w> {
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What the program finds on its standard input.
    pub(crate) fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.command.stdin(Stdio::piped());
        self.input = Some(input.into());
        self
    }

    /// Lets the test write to the program's standard input.
    pub(crate) fn open_input(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    pub(crate) fn stdout(mut self, to: impl Into<Stdio>) -> Self {
        self.command.stdout(to);
        self
    }

    pub(crate) fn start(mut self) -> Started<'w> {
        let mut child = self.command.spawn().unwrap();
        if let Some(input) = self.input.take() {
            let mut stdin = child.stdin.take().unwrap();
            // A program may end before it has read all, which closes the pipe.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let stdout = child.stdout.take().map(read_all);
        let stderr = child.stderr.take().map(read_all);
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        Started { world: self.world, child, pid, pidfd, stdout, stderr }
    }

    /// Runs the program to its end.
    pub(crate) fn end(self) -> Ended {
        self.start().end()
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        from.read_to_end(&mut all).unwrap();
        all
    })
}

/// Lets a moment go by, while something that gives no event is waited for.
fn tick() {
    let moment = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    let _ = poll(&mut [], Some(&moment));
}

/// A program that runs.
pub(crate) struct Started<'w> {
    world: &'w World,
    pub(crate) child: Child,
    pid: Pid,
    pidfd: std::os::fd::OwnedFd,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Started<'_> {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits until something has happened outside the program.
    pub(crate) fn until(&mut self, what: &str, mut has_happened: impl FnMut() -> bool) {
        let end = Instant::now() + LIMIT;
        while !has_happened() {
            let has_ended = self.has_ended_after(Duration::from_millis(5));
            if Instant::now() > end || has_ended && !has_happened() {
                panic!("{what} did not happen, ended: {has_ended}; {}", self.give_up());
            }
        }
    }

    /// Whether it ends within `time`.
    pub(crate) fn has_ended_after(&self, time: Duration) -> bool {
        let time = Timespec::try_from(time).unwrap();
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&time)).is_ok_and(|ready| ready > 0)
    }

    fn give_up(&mut self) -> String {
        let family = self.world.family();
        self.world.kill_family();
        let stderr = self.stderr.take().map(|reader| reader.join().unwrap()).unwrap_or_default();
        format!("processes: {family:?}, stderr: {}", String::from_utf8_lossy(&stderr))
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Ended {
        if !self.has_ended_after(LIMIT) {
            panic!("hangs; {}", self.give_up());
        }
        let status = self.child.wait().unwrap();
        let collect = |reader: Option<JoinHandle<Vec<u8>>>| {
            reader.map(|reader| reader.join().unwrap()).unwrap_or_default()
        };
        let ended = Ended {
            stdout: collect(self.stdout.take()),
            stderr: String::from_utf8_lossy(&collect(self.stderr.take())).into_owned(),
            code: status.code(),
            signal: status.signal(),
        };
        if let Some(account) = ended.account() {
            let [taken, ok, failed, unfinished] = account;
            assert_eq!(taken, ok + failed + unfinished, "{}", ended.stderr);
        }
        ended
    }
}

/// What a program left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl Ended {
    /// Asserts the exit status.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!((self.code, self.signal), (Some(code), None), "{}", self.stderr);
        self
    }

    /// Asserts that a signal ended it.
    #[track_caller]
    pub(crate) fn ends_by(self, signal: Signal) -> Self {
        assert_eq!(self.signal, Some(signal.as_raw()), "code {:?}: {}", self.code, self.stderr);
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<&str> {
        self.text().lines().collect()
    }

    /// The lines in an order that does not depend on the jobs.
    pub(crate) fn sorted(&self) -> Vec<&str> {
        let mut lines = self.lines();
        lines.sort_unstable();
        lines
    }

    /// The objects of `--json`, by their `seq`.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &&str| serde_json::from_str(line).unwrap();
        let mut objects: Vec<serde_json::Value> = self.lines().iter().map(parse).collect();
        objects.sort_by_key(|object| object["seq"].as_u64());
        objects
    }

    /// Taken, ok, failed and unfinished, from the last line.
    pub(crate) fn account(&self) -> Option<[u64; 4]> {
        let line = self.stderr.lines().rfind(|line| line.starts_with("in "))?;
        let numbers: Vec<u64> = line
            .split(',')
            .next()?
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        numbers.try_into().ok()
    }

    /// Asserts the account.
    #[track_caller]
    pub(crate) fn counts(self, taken: u64, ok: u64, failed: u64, unfinished: u64) -> Self {
        assert_eq!(self.account(), Some([taken, ok, failed, unfinished]), "{}", self.stderr);
        self
    }

    /// Asserts that standard error has this in it.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no `{text}` in: {}", self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn says_not(self, text: &str) -> Self {
        assert!(!self.stderr.contains(text), "`{text}` in: {}", self.stderr);
        self
    }
}
