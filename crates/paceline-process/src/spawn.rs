//! Starts one process: finds the program, says what it is given, executes it.
//!
//! The child borrows our memory until it executes its program, which costs
//! the same whatever this program's size: forking a program with a gigabyte
//! resident takes 15 ms. What the child does meanwhile is in `linux/start.rs`.
//!
//! Not here: which descriptors become the streams (`chain.rs`).

use std::env;
use std::ffi::{CString, OsStr};
use std::fs;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use crate::command::Command;
use crate::environment::{Changes, Inherited};
use crate::error::{Error, ErrorKind};
use crate::group::Process;
use crate::isolate::{self, Isolation};
use crate::linux::start::{NotStarted, Pointers, Start, start as start_program};
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
    pub(crate) stdin: Stream,
    pub(crate) stdout: Stream,
    pub(crate) stderr: Stream,
}

/// What one of them is: ours, or a descriptor numbered 3 or higher. Clones
/// are the same descriptor.
#[derive(Clone)]
pub(crate) enum Stream {
    Inherit,
    Fd(Arc<OwnedFd>),
    File(Arc<File>),
}

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Stream {
        Stream::Fd(Arc::new(fd))
    }
}

impl Stream {
    /// # Errors
    ///
    /// If the file has the number of a standard stream and there can be no other.
    pub(crate) fn file(file: &Arc<File>) -> io::Result<Stream> {
        Ok(match file.as_raw_fd() {
            0..=2 => linux::duplicate(file)?.into(),
            _ => Stream::File(Arc::clone(file)),
        })
    }

    fn number(&self, inherited: RawFd) -> RawFd {
        match self {
            Stream::Inherit => inherited,
            Stream::Fd(fd) => fd.as_raw_fd(),
            Stream::File(file) => file.as_raw_fd(),
        }
    }
}

/// Starts `command` in the group of `leader`, or as the leader of a new one.
pub(crate) fn start(
    command: &Command,
    wiring: &Wiring,
    leader: Option<Pid>,
    job: u64,
) -> Result<Process, Error> {
    linux::keep_statuses();
    let program = find(command)?;
    let strings = |all: Vec<&OsStr>| -> Result<Vec<CString>, Error> {
        all.into_iter().map(|text| string(command, text)).collect()
    };
    let (path, argv) = match command.isolation {
        None => {
            let argv = strings(command.argv.iter().map(AsRef::as_ref).collect())?;
            (string(command, program.as_os_str())?, argv)
        }
        Some(Isolation::Pid) => {
            check(command, &program)?;
            let arguments = isolate::arguments(&program, &command.argv);
            let arguments = arguments.iter().map(AsRef::as_ref);
            let argv = [OsStr::new("paceline-isolate")].into_iter().chain(arguments).collect();
            (string(command, OsStr::new(isolate::OURSELVES))?, strings(argv)?)
        }
    };
    let mut changes = Changes::default();
    let nul = |_| nul(command);
    for (name, value) in &command.env {
        changes.put(name, value.as_deref()).map_err(nul)?;
    }
    if let Some(program) = program::get() {
        for (name, value) in program.marks(job) {
            changes.put(OsStr::new(name), Some(&value)).map_err(nul)?;
        }
    }
    let inherited =
        (!command.env_clear).then(|| command.known.inherited.get_or_init(Inherited::copy));
    let cwd = command.cwd.as_ref().map(|cwd| string(command, cwd.as_os_str())).transpose()?;
    let arguments = Pointers::new(argv.iter().map(CString::as_c_str));
    let environment = Pointers::new(changes.over(inherited));
    let start = Start {
        program: &path,
        argv: &arguments,
        environment: &environment,
        cwd: cwd.as_deref(),
        streams: [wiring.stdin.number(0), wiring.stdout.number(1), wiring.stderr.number(2)],
        leader,
        descriptors: program::jobs_descriptors().map(linux::descriptors_of_jobs),
    };
    let mut tries = 0;
    loop {
        match start_program(&start) {
            Ok((pid, pidfd)) => {
                return Ok(Process { pid, pidfd: pidfd.into(), argv: command.argv.clone() });
            }
            Err(NotStarted::Program(error))
                if error.raw_os_error() == Some(libc::ETXTBSY) && tries < BUSY_RETRIES =>
            {
                tries += 1;
                linux::pause(BUSY_WAIT);
            }
            Err(NotStarted::Program(error)) => return Err(explain(command, &program, error)),
            Err(NotStarted::Cwd(error)) => return Err(bad_cwd(command, error)),
            Err(NotStarted::Process(error)) if error.raw_os_error() == Some(libc::EAGAIN) => {
                return Err(Error::new(ErrorKind::NoProcesses, &command.argv, Some(error)));
            }
            Err(NotStarted::Process(error)) => return Err(Error::io(error).about(&command.argv)),
        }
    }
}

fn string(command: &Command, text: &OsStr) -> Result<CString, Error> {
    CString::new(text.as_bytes()).map_err(|_| nul(command))
}

fn nul(command: &Command) -> Error {
    Error::new(ErrorKind::NulInArgument, &command.argv, None)
}

fn bad_cwd(command: &Command, error: io::Error) -> Error {
    match &command.cwd {
        Some(cwd) => Error::new(ErrorKind::BadCwd { cwd: cwd.clone() }, &command.argv, Some(error)),
        None => Error::io(error).about(&command.argv),
    }
}

/// Finds out beforehand what an isolated program's own start could not tell.
fn check(command: &Command, program: &Path) -> Result<(), Error> {
    let failed = |error| Err(explain(command, program, error));
    if let Some(cwd) = &command.cwd
        && !fs::metadata(cwd).is_ok_and(|found| found.is_dir())
    {
        return Err(bad_cwd(command, io::Error::from_raw_os_error(libc::ENOENT)));
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
        match command.known.program.get() {
            Some(found) => found.clone(),
            None => {
                let found = search(name).map_err(|kind| Error::new(kind, &command.argv, None))?;
                command.known.program.get_or_init(|| found).clone()
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

/// Finds out why a program could not be executed.
fn explain(command: &Command, program: &Path, error: io::Error) -> Error {
    let given = || PathBuf::from(&command.argv[0]);
    let kind = match error.raw_os_error() {
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
        _ => return Error::io(error).about(&command.argv),
    };
    Error::new(kind, &command.argv, Some(error))
}
