//! What a program must be, so that nothing of its jobs stays behind.
//!
//! A library cannot decide by itself that orphans come to this process, or
//! that the executable is started a second time. So the program says it, as
//! the first thing it does, by [`init`]. Without it this crate works on
//! process groups alone.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Resource, Rlimit};

use crate::proc::{self, Children, Stat};
use crate::{guard, isolate, linux, registry};

static PROGRAM: OnceLock<Program> = OnceLock::new();

/// The soft limit of descriptors that jobs get back; 0 if ours was not raised.
static JOBS_DESCRIPTORS: AtomicU64 = AtomicU64::new(0);

/// What [`init`] may do.
///
/// ```
/// use paceline_process::Options;
///
/// let options = Options::default().only_parent(true);
/// # let _ = options;
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Options {
    guard: bool,
    only_parent: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { guard: true, only_parent: false }
    }
}

impl Options {
    /// Sets whether a guard cleans up when this program is killed; yes unless
    /// set. It is started with the first job.
    pub fn guard(mut self, wanted: bool) -> Options {
        self.guard = wanted;
        self
    }

    /// Says that this program starts no children but through this crate; not
    /// so unless set.
    ///
    /// Then an orphan that comes to this program is a job's, even if it has
    /// left its group and wiped its environment, and is ended with the jobs
    /// that may have started it. Otherwise such a one is left alone, for it
    /// could be what other code has started.
    pub fn only_parent(mut self, is_so: bool) -> Options {
        self.only_parent = is_so;
        self
    }
}

/// This program, once it has called [`init`].
#[derive(Debug)]
pub struct Program {
    pid: u32,
    run: String,
    /// The value of [`proc::OUTER`] for the jobs, if we are a job ourselves.
    outer: Option<OsString>,
    options: Options,
    /// Children from before, when another program had our process number.
    inherited: Vec<i32>,
    children: Children,
    is_subreaper: bool,
    outlives_hangup: bool,
    closed: [bool; 3],
}

/// Prepares this process to run jobs and to leave nothing of them behind.
///
/// Must be the first thing that `main` does, before there is another thread.
/// Later calls change nothing. In detail:
///
/// - If this process was started by this crate to serve another (as its guard
///   or as the helper of an isolated job), it does so and never returns.
/// - SIGCHLD has its default action. No signal is blocked. Signals that were
///   ignored get a handler that does nothing, and so are at their default in
///   jobs; see [`Program::outlives_hangup`] for SIGHUP.
/// - Standard streams that were closed are `/dev/null`; see
///   [`Program::is_closed`]. Jobs inherit no descriptor but these three.
/// - Orphaned descendants come to this process, which ends them with their
///   job and reaps them.
/// - Jobs get `PACELINE_RUN` and `PACELINE_JOB` in their environment, by which
///   their descendants are found. Values set for a
///   [`Command`](crate::Command) give way to these.
///
/// What of this the system refuses is told by [`coverage`].
///
/// ```
/// fn main() {
///     paceline_process::init(paceline_process::Options::default());
///     // ...
/// }
/// ```
#[expect(clippy::needless_doctest_main, reason = "the place of the call is the point")]
pub fn init(options: Options) -> &'static Program {
    PROGRAM.get_or_init(|| {
        if let Some(run) = guard::asked_for() {
            guard::serve(&run);
        }
        if let Some(task) = isolate::asked_for() {
            isolate::serve(&task);
        }
        let closed = linux::closed_at_start();
        linux::fill_standard_streams();
        linux::close_inherited_on_exec();
        let outlives_hangup = linux::signals::handle_ignored_signals();
        linux::signals::unblock_signals();
        let is_subreaper =
            rustix::process::set_child_subreaper(Some(rustix::process::getpid())).is_ok();
        let children = Children::open();
        Program {
            pid: std::process::id(),
            run: new_run_id(),
            outer: outer(),
            options,
            inherited: children.read(),
            children,
            is_subreaper,
            outlives_hangup,
            closed,
        }
    })
}

/// Returns this program if it has called [`init`].
pub(crate) fn get() -> Option<&'static Program> {
    PROGRAM.get()
}

/// An id that no other run has, on this machine or another.
fn new_run_id() -> String {
    match fs::read_to_string("/proc/sys/kernel/random/uuid") {
        Ok(id) => id.trim_end().to_owned(),
        Err(_) => format!("{}-{}", std::process::id(), linux::now_in_ticks()),
    }
}

/// What we are to the runner whose job we are, and to its own, outwards.
fn outer() -> Option<OsString> {
    let run = std::env::var_os(proc::RUN)?;
    let mut outer = std::env::var_os(proc::OUTER).unwrap_or_default();
    if !outer.is_empty() {
        outer.push(":");
    }
    outer.push(run);
    outer.push("/");
    outer.push(std::env::var_os(proc::JOB).unwrap_or_default());
    Some(outer)
}

impl Program {
    /// Returns the id of this run: the `PACELINE_RUN` of all its jobs.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Says whether SIGHUP was ignored at the start, as `nohup` has it: this
    /// program is to outlive its terminal, and must not end by that signal.
    #[must_use]
    pub fn outlives_hangup(&self) -> bool {
        self.outlives_hangup
    }

    /// Says whether standard stream `number` (0 to 2) was closed at the start.
    ///
    /// What is written to it now vanishes, which for results is an error.
    #[must_use]
    pub fn is_closed(&self, number: usize) -> bool {
        self.closed.get(number).is_some_and(|closed| *closed)
    }

    pub(crate) fn is_this_process(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn wants_guard(&self) -> bool {
        self.options.guard
    }

    /// Says whether all orphans must be jobs'.
    pub(crate) fn is_only_parent(&self) -> bool {
        // Children from before have descendants too, and they come to us.
        self.options.only_parent && !self.inherited.iter().any(|pid| is_our_child(*pid))
    }

    /// Returns the children of the main thread that were not there before.
    pub(crate) fn unknown_children(&self) -> Vec<i32> {
        let mut children = self.children.read();
        children.retain(|pid| !self.inherited.contains(pid));
        children
    }

    /// Says whether this program has no child that nobody knows.
    pub(crate) fn is_childless(&self) -> bool {
        let mut unknown = self.unknown_children();
        registry::retain_unknown(&mut unknown);
        unknown.is_empty() && registry::dying().is_empty()
    }

    /// Returns the variables that mark what belongs to job number `job`.
    pub(crate) fn marks(&self, job: u64) -> impl Iterator<Item = (&'static str, OsString)> {
        let own = [(proc::RUN, OsString::from(&self.run)), (proc::JOB, job.to_string().into())];
        let outer = self.outer.as_deref().map(|outer: &OsStr| (proc::OUTER, outer.to_owned()));
        own.into_iter().chain(outer)
    }
}

fn is_our_child(pid: i32) -> bool {
    let stat = Stat::of(pid);
    stat.is_some_and(|stat| u32::try_from(stat.parent) == Ok(std::process::id()))
}

/// Allows this program `needed` open descriptors, if the hard limit does.
///
/// Returns how many it may have. Jobs have the limit that this program was
/// started with. Call this before the first job.
///
/// One job takes up to three: its descriptor and two pipes; and a fourth
/// while it is being started or is given input.
pub fn raise_descriptor_limit(needed: u64) -> u64 {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let wanted = limit.maximum.map_or(needed, |hard| needed.min(hard));
    if wanted <= soft {
        return soft;
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        Ok(()) => {
            // The first call has seen what this program was started with.
            let first = Ordering::Relaxed;
            let _ = JOBS_DESCRIPTORS.compare_exchange(0, soft, first, first);
            wanted
        }
        Err(_) => soft,
    }
}

/// Returns the soft limit that jobs must get back, if ours is another.
pub(crate) fn jobs_descriptors() -> Option<u64> {
    Some(JOBS_DESCRIPTORS.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
}

/// Which means against leftovers this program has on this system.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Coverage {
    /// Whether [`init`] was called. If not, process groups are all there is.
    pub is_initialised: bool,
    /// Whether orphaned descendants come to this process.
    pub is_subreaper: bool,
    /// Whether the kernel lists our children; else all of `/proc` is searched
    /// at each job's end.
    pub lists_children: bool,
    /// The guard's process id, or why there is none.
    pub guard: Result<u32, String>,
    /// Whether [`isolated`](crate::Command::isolate) jobs can be started, or
    /// why not.
    pub isolation: Result<(), String>,
    /// Whether control groups are used: never, in this version.
    pub uses_control_groups: bool,
}

/// Finds out which means against leftovers there are; starts the guard.
///
/// Takes some milliseconds: isolation is tried out.
#[must_use]
pub fn coverage() -> Coverage {
    let no_init = || "the program has not asked for it at its start".to_owned();
    let program = get();
    let guard = match guard::get() {
        None if program.is_some() => Err("not wanted by the program".to_owned()),
        None => Err(no_init()),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(guard)) if guard.is_running() => Ok(guard.pid),
        Some(Ok(_)) => Err("it was ended by somebody".to_owned()),
    };
    Coverage {
        is_initialised: program.is_some(),
        is_subreaper: program.is_some_and(|program| program.is_subreaper),
        lists_children: program.is_some_and(|program| program.children.is_cheap()),
        guard,
        isolation: isolate::is_possible().map_err(ToOwned::to_owned),
        uses_control_groups: false,
    }
}

impl Coverage {
    /// Returns what would be left running, and when, each as a sentence.
    #[must_use]
    pub fn gaps(&self) -> Vec<&'static str> {
        let mut gaps = Vec::new();
        if !self.is_subreaper {
            gaps.push("A process that leaves its job's group outlives the job.");
        }
        if self.guard.is_err() {
            gaps.push("If paceline itself is killed, its jobs go on.");
        } else if self.isolation.is_ok() {
            gaps.push(
                "If paceline itself is killed, a process lives on that has left its job's group, \
                 wiped its environment and lost its parent, unless the job is isolated.",
            );
        } else {
            gaps.push(
                "If paceline itself is killed, a process lives on that has left its job's group, \
                 wiped its environment and lost its parent.",
            );
        }
        gaps
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let yes_no = |yes: bool| if yes { "yes" } else { "no" };
        writeln!(f, "orphans come to us (subreaper): {}", yes_no(self.is_subreaper))?;
        match &self.guard {
            Ok(pid) => writeln!(f, "guard: process {pid}")?,
            Err(why) => writeln!(f, "guard: no: {why}")?,
        }
        match &self.isolation {
            Ok(()) => writeln!(f, "isolation (PID namespace): possible")?,
            Err(why) => writeln!(f, "isolation (PID namespace): no: {why}")?,
        }
        write!(f, "control groups: {}", yes_no(self.uses_control_groups))
    }
}
