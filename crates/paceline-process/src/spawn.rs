//! Starts one process: finds the program, executes it, takes its pidfd.
//!
//! `std::process::Command` is kept on its posix_spawn path, which costs the
//! same whatever this program's size: forking a program with a gigabyte
//! resident takes 15 ms. It leaves that path for a `pre_exec`, a change of
//! user, or a bare program name with `PATH` set for the child; so none of
//! these is used, and programs are looked up here.
//!
//! Not here: which descriptors become the streams (`chain.rs`).

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

use rustix::process::Pid;

use crate::command::Command;
use crate::error::{Error, ErrorKind};
use crate::exit::Signal;
use crate::group::Process;
use crate::isolate::{self, Isolation};
use crate::{linux, program};

/// How often and after what wait a busy program file is tried again.
///
/// While another thread forks, its child holds our descriptors for a moment,
/// also the one through which this program has just written a script: Linux
/// then refuses to execute the file (ETXTBSY). See rust-lang/rust#114554.
const BUSY_RETRIES: u32 = 3;
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// Where to look when `PATH` is not set, as the C library does.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The three streams of a process about to be started.
pub(crate) struct Wiring {
    pub(crate) stdin: process::Stdio,
    pub(crate) stdout: process::Stdio,
    pub(crate) stderr: process::Stdio,
}

/// Starts `command` in the group of `leader`, or as the leader of a new one.
pub(crate) fn start(
    command: &Command,
    wiring: Wiring,
    leader: Option<Pid>,
    job: u64,
) -> Result<Process, Error> {
    linux::keep_statuses();
    let program = find(command)?;
    let mut builder = match command.isolation {
        None => {
            let mut builder = process::Command::new(&program);
            builder.arg0(&command.argv[0]).args(&command.argv[1..]);
            builder
        }
        Some(Isolation::Pid) => {
            check(command, &program)?;
            let mut builder = process::Command::new(isolate::OURSELVES);
            builder.arg0("paceline-isolate").args(isolate::arguments(&program, &command.argv));
            builder
        }
    };
    builder
        .stdin(wiring.stdin)
        .stdout(wiring.stdout)
        .stderr(wiring.stderr)
        .process_group(leader.map_or(0, |leader| leader.as_raw_nonzero().get()));
    if command.env_clear {
        builder.env_clear();
    }
    for (name, value) in &command.env {
        match value {
            Some(value) => builder.env(name, value),
            None => builder.env_remove(name),
        };
    }
    if let Some(program) = program::get() {
        builder.envs(program.marks(job));
    }
    if let Some(cwd) = &command.cwd {
        builder.current_dir(cwd);
    }
    let mut tries = 0;
    let child = loop {
        match builder.spawn() {
            Ok(child) => break child,
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && tries < BUSY_RETRIES => {
                tries += 1;
                linux::pause(BUSY_WAIT);
            }
            Err(error) => return Err(explain(command, &program, error)),
        }
    };
    let pid = Pid::from_child(&child);
    if let Some(soft) = program::jobs_descriptors() {
        linux::limit_descriptors(pid, soft);
    }
    match linux::open_pidfd(pid) {
        Ok(pidfd) => Ok(Process { pid, pidfd: pidfd.into(), argv: command.argv.clone() }),
        Err(error) => {
            undo(child, pid, leader.is_none());
            Err(Error::io(error).about(&command.argv))
        }
    }
}

/// Ends a child that cannot be watched, as if it had never been started.
fn undo(mut child: process::Child, pid: Pid, leads: bool) {
    if leads {
        let _ = linux::signal_group(pid, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Finds out beforehand what an isolated program's own start could not tell.
fn check(command: &Command, program: &Path) -> Result<(), Error> {
    let failed = |error| Err(explain(command, program, error));
    if let Some(cwd) = &command.cwd
        && !fs::metadata(cwd).is_ok_and(|found| found.is_dir())
    {
        return failed(io::Error::from_raw_os_error(libc::ENOENT));
    }
    // Relative to our directory: with another one it has been made absolute.
    match fs::metadata(program) {
        Err(error) => failed(error),
        Ok(found) if !found.is_file() || !linux::is_executable(program) => {
            failed(io::Error::from_raw_os_error(libc::EACCES))
        }
        Ok(_) => Ok(()),
    }
}

/// Returns the path to execute, which has a slash in it.
fn find(command: &Command) -> Result<PathBuf, Error> {
    let name = Path::new(&command.argv[0]);
    let found = if name.as_os_str().as_bytes().contains(&b'/') {
        name.to_owned()
    } else {
        match command.found.get() {
            Some(found) => found.clone(),
            None => {
                let found = search(name).map_err(|kind| Error::new(kind, &command.argv, None))?;
                command.found.get_or_init(|| found).clone()
            }
        }
    };
    if command.cwd.is_none() || found.is_absolute() {
        return Ok(found);
    }
    // The child changes its directory before it executes the program.
    env::current_dir()
        .map(|directory| directory.join(found))
        .map_err(|error| Error::io(error).about(&command.argv))
}

fn search(name: &Path) -> Result<PathBuf, ErrorKind> {
    let path = env::var_os("PATH");
    let path = path.as_deref().unwrap_or(OsStr::new(DEFAULT_PATH));
    let mut refused = false;
    if !name.as_os_str().is_empty() {
        for directory in env::split_paths(path) {
            // An empty entry is the current directory.
            let directory = if directory.as_os_str().is_empty() { ".".into() } else { directory };
            let candidate = directory.join(name);
            if fs::metadata(&candidate).is_ok_and(|found| found.is_file()) {
                if linux::is_executable(&candidate) {
                    return Ok(candidate);
                }
                refused = true;
            }
        }
    }
    let program = name.to_owned();
    Err(if refused {
        ErrorKind::NotExecutable { program }
    } else {
        ErrorKind::NotFound { program }
    })
}

/// Finds out which of its parts made the start of a process fail.
fn explain(command: &Command, program: &Path, error: io::Error) -> Error {
    let given = || PathBuf::from(&command.argv[0]);
    let os_error = error.raw_os_error();
    if let Some(cwd) = &command.cwd
        && let Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::ENAMETOOLONG | libc::ELOOP) =
            os_error
    {
        // The same errors are given for the program: look again.
        let entered = fs::metadata(cwd).map(|found| found.is_dir());
        if !matches!(entered, Ok(true)) || !linux::is_executable(cwd) {
            return Error::new(ErrorKind::BadCwd { cwd: cwd.clone() }, &command.argv, Some(error));
        }
    }
    let kind = match os_error {
        // The file is there, so it is its interpreter that is not.
        Some(libc::ENOENT) if fs::metadata(program).is_ok() => {
            ErrorKind::NotExecutable { program: given() }
        }
        Some(libc::ENOENT | libc::ENOTDIR) => ErrorKind::NotFound { program: given() },
        Some(libc::EACCES | libc::ENOEXEC | libc::ETXTBSY | libc::ELIBBAD | libc::EISDIR) => {
            ErrorKind::NotExecutable { program: given() }
        }
        Some(libc::E2BIG) => ErrorKind::TooLong,
        Some(libc::EAGAIN) => ErrorKind::NoProcesses,
        None if error.kind() == io::ErrorKind::InvalidInput => ErrorKind::NulInArgument,
        _ => return Error::io(error).about(&command.argv),
    };
    Error::new(kind, &command.argv, Some(error))
}
