//! Runs a job in a PID namespace, whose end nothing in it survives.
//!
//! The program cannot be put there by posix_spawn, and as the namespace's
//! first process it would not hear a TERM. So this program's executable is
//! started in its place, twice over:
//!
//! ```text
//! runner ── helper ── init of the namespace ── the program
//!           │         reaps; when it ends, the kernel kills all the rest
//!           child of the runner, ends as the program ended
//! ```
//!
//! All three are in the job's group, so signals reach the program as ever,
//! and the other two let them pass. The helper watches the runner: should
//! that be killed, it kills the init. Should the helper be killed, the kernel
//! kills the init.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, Stdio};
use std::sync::OnceLock;

use rustix::process::{Pid, Signal};

use crate::linux::{self, Watch};
use crate::program;
use crate::registry;

/// The first argument that makes this program a helper.
pub(crate) const ARGUMENT: &str = "__isolate";

/// This program's executable, even if its file has been replaced.
pub(crate) const OURSELVES: &str = "/proc/self/exe";

/// The helper's own failures, told apart from the program's by convention
/// alone, as with `env` and `timeout`.
const REFUSED: i32 = 125;
const NOT_EXECUTABLE: i32 = 126;

/// How a job is kept apart from the rest of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isolation {
    /// In a PID namespace of its own: when the job ends, or this program,
    /// for whatever reason, the kernel kills every process of the job,
    /// whatever it has done to get away.
    ///
    /// It costs some milliseconds a start. The job has process numbers of its
    /// own, which differ from those in `/proc`. Where this program is not
    /// root it takes a user namespace too, in which files of other users
    /// belong to `nobody` and `sudo` does not work.
    Pid,
}

/// What a helper is to do.
#[derive(Debug)]
pub(crate) struct Task {
    runner: i32,
    /// None to find out whether it can be done.
    program: Option<OsString>,
    argv: Vec<OsString>,
}

/// Returns the helper's arguments for running `program` as `argv`.
pub(crate) fn arguments(program: &Path, argv: &[OsString]) -> Vec<OsString> {
    let mut arguments = vec![ARGUMENT.into(), process::id().to_string().into(), program.into()];
    arguments.extend_from_slice(argv);
    arguments
}

/// Says why jobs cannot be isolated, if they cannot; tries it only once.
pub(crate) fn is_possible() -> Result<(), &'static str> {
    static POSSIBLE: OnceLock<Result<(), String>> = OnceLock::new();
    POSSIBLE.get_or_init(try_out).as_ref().copied().map_err(String::as_str)
}

fn try_out() -> Result<(), String> {
    if program::get().is_none() {
        return Err("the program has not called `init` first of all".to_owned());
    }
    let starting = registry::starting();
    let helper = process::Command::new(OURSELVES)
        .args([ARGUMENT, &process::id().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let pid = i32::try_from(helper.id()).unwrap_or(0);
    registry::enter_helper(pid);
    drop(starting);
    let output = helper.wait_with_output();
    registry::forget_helper(pid);
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim_end().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Says whether this process has been started to be a helper, and what for.
pub(crate) fn asked_for() -> Option<Task> {
    let mut arguments = env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    // Whoever types this gets what the program makes of such arguments.
    let runner = arguments.next()?.to_str()?.parse().ok()?;
    if u32::try_from(runner) != Ok(std::os::unix::process::parent_id()) {
        return None;
    }
    Some(Task { runner, program: arguments.next(), argv: arguments.collect() })
}

/// Is the helper: ends as the program of the task ended.
pub(crate) fn serve(task: &Task) -> ! {
    linux::signals::outlive_requests();
    match isolate(task) {
        Ok(status) => linux::signals::end_like(status),
        Err(error) => {
            let _ = io::stderr().write_all(format!("{error}\n").as_bytes());
            process::exit(REFUSED)
        }
    }
}

fn isolate(task: &Task) -> io::Result<i32> {
    let runner = Pid::from_raw(task.runner).map(linux::open_pidfd).transpose()?;
    if u32::try_from(task.runner) != Ok(std::os::unix::process::parent_id()) {
        return Err(io::Error::other("the runner has ended"));
    }
    enter_namespaces()?;
    let (told, tell) = linux::pipe()?;
    let Some(init) = linux::fork()? else {
        drop(told);
        serve_as_init(task, &tell)
    };
    drop(tell);
    // Only the program may hold the output open.
    linux::drop_standard_streams();
    let mut watched = vec![(told.as_fd(), Watch::Readable)];
    watched.extend(runner.iter().map(|runner| (runner.as_fd(), Watch::Readable)));
    linux::wait_any(&watched, None)?;
    let mut status = Vec::with_capacity(4);
    let told =
        if is_readable(&told) { linux::read_into(&told, &mut status).is_ok() } else { false };
    if !told || status.is_empty() {
        // The runner is gone, or somebody has killed the init.
        let _ = rustix::process::kill_process(init, Signal::KILL);
    }
    let (_, ended) = linux::wait_child(Some(init))?;
    Ok(status.try_into().map_or(ended, i32::from_ne_bytes))
}

fn is_readable(pipe: &OwnedFd) -> bool {
    linux::set_nonblocking(pipe).is_ok()
        && !matches!(
            rustix::event::poll(
                &mut [rustix::event::PollFd::new(pipe, rustix::event::PollFlags::IN)],
                Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
            ),
            Ok(0)
        )
}

/// Sees to it that the next child is in a PID namespace of its own.
fn enter_namespaces() -> io::Result<()> {
    // Root needs no user namespace, and would lose its rights over the files
    // of others in one.
    if linux::unshare_pids(false).is_ok() {
        return Ok(());
    }
    let user = rustix::process::geteuid().as_raw();
    let group = rustix::process::getegid().as_raw();
    linux::unshare_pids(true)?;
    // We stay who we are. Without the first, the third is refused.
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Is the first process of the namespace: runs the program, reaps orphans,
/// and takes everything with it when it ends.
fn serve_as_init(task: &Task, tell: &OwnedFd) -> ! {
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    let Some(program) = &task.program else { process::exit(0) };
    // The helper may have died before the line above; then nobody reads.
    let is_alone = {
        let flags = rustix::event::PollFlags::empty();
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut pipe = [rustix::event::PollFd::new(tell, flags)];
        !matches!(rustix::event::poll(&mut pipe, Some(&now)), Ok(0))
    };
    if is_alone {
        process::exit(REFUSED);
    }
    let name = task.argv.first().map_or(OsStr::new("?"), OsString::as_os_str);
    let mut builder = process::Command::new(program);
    builder.arg0(name).args(task.argv.iter().skip(1));
    let status = match builder.spawn() {
        Ok(child) => {
            linux::drop_standard_streams();
            let child = i32::try_from(child.id()).unwrap_or(0);
            loop {
                match linux::wait_child(None) {
                    Ok((pid, status)) if pid == child => break status,
                    Ok(_) => {}
                    Err(_) => break REFUSED << 8,
                }
            }
        }
        Err(error) => {
            let line = format!("could not execute `{}`: {error}\n", name.display());
            let _ = io::stderr().write_all(line.as_bytes());
            NOT_EXECUTABLE << 8
        }
    };
    let _ = linux::write_some(tell, &status.to_ne_bytes());
    process::exit(0)
}
