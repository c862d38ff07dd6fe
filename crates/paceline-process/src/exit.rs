//! How a child ended, and what it used.
//!
//! A signal stays a signal: the shell's 128 + n never appears here, since it
//! cannot be told from a program that exits with that number.
//!
//! Not here: whether an end counts as a failure for a chain (`output.rs`).

use std::fmt;
use std::time::Duration;

/// How a child ended: with an exit code, or by a signal.
///
/// ```
/// use paceline_process::{Command, Exit};
///
/// let output = Command::new("sh").args(["-c", "exit 3"]).run()?;
/// assert_eq!(output.exit().code(), Some(3));
/// assert_eq!(output.exit().to_string(), "exit status 3");
///
/// let output = Command::new("sh").args(["-c", "kill -TERM $$"]).run()?;
/// assert_eq!(output.exit().signal().map(|signal| signal.as_raw()), Some(15));
/// assert_eq!(output.exit().as_i32(), -15);
/// assert_eq!(output.exit().to_string(), "signal 15 (SIGTERM)");
/// # Ok::<(), paceline_process::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Exit(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Code(i32),
    Signal { signal: Signal, dumped: bool },
    Lost,
}

impl Exit {
    /// The end of a child whose status somebody else has taken.
    ///
    /// Happens only if other code of this program reaps children that are not
    /// its own, as `waitpid(-1)` does. It counts as a failure.
    pub const LOST: Exit = Exit(Kind::Lost);

    /// Returns the end by `exit(code)`.
    #[must_use]
    pub const fn from_code(code: i32) -> Exit {
        Exit(Kind::Code(code))
    }

    pub(crate) const fn from_signal(signal: i32, dumped: bool) -> Exit {
        Exit(Kind::Signal { signal: Signal(signal), dumped })
    }

    /// Says whether the child exited with code 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self.0, Kind::Code(0))
    }

    /// Returns the exit code, 0 to 255, unless a signal ended the child.
    #[must_use]
    pub const fn code(self) -> Option<i32> {
        match self.0 {
            Kind::Code(code) => Some(code),
            _ => None,
        }
    }

    /// Returns the signal that ended the child, if one did.
    #[must_use]
    pub const fn signal(self) -> Option<Signal> {
        match self.0 {
            Kind::Signal { signal, .. } => Some(signal),
            _ => None,
        }
    }

    /// Says whether the child left a core file, or would have.
    #[must_use]
    pub const fn core_dumped(self) -> bool {
        matches!(self.0, Kind::Signal { dumped: true, .. })
    }

    /// Returns the end as one number: the exit code, or `-n` for signal n.
    ///
    /// A lost status is 255, as no success may be made up for it.
    #[must_use]
    pub const fn as_i32(self) -> i32 {
        match self.0 {
            Kind::Code(code) => code,
            Kind::Signal { signal, .. } => -signal.0,
            Kind::Lost => 255,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Kind::Code(code) => write!(f, "exit status {code}"),
            Kind::Signal { signal, .. } => write!(f, "signal {signal}"),
            Kind::Lost => f.write_str("unknown exit status"),
        }
    }
}

/// A signal, by its number on this system.
///
/// ```
/// use paceline_process::Signal;
///
/// assert_eq!(Signal::HUP.to_string(), "1 (SIGHUP)");
/// assert_eq!(Signal::from_raw(99).to_string(), "99");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// The terminal has gone away.
    pub const HUP: Signal = Signal(libc::SIGHUP);
    /// Ctrl-C.
    pub const INT: Signal = Signal(libc::SIGINT);
    /// Ctrl-\, which asks for a core file as well.
    pub const QUIT: Signal = Signal(libc::SIGQUIT);
    /// End without being asked; cannot be ignored.
    pub const KILL: Signal = Signal(libc::SIGKILL);
    /// For programs' own use.
    pub const USR1: Signal = Signal(libc::SIGUSR1);
    /// For programs' own use.
    pub const USR2: Signal = Signal(libc::SIGUSR2);
    /// A write to a pipe that nobody reads any more.
    pub const PIPE: Signal = Signal(libc::SIGPIPE);
    /// Please end.
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// Go on after a stop.
    pub const CONT: Signal = Signal(libc::SIGCONT);
    /// Stop; cannot be ignored.
    pub const STOP: Signal = Signal(libc::SIGSTOP);

    /// Returns the signal numbered `number`, which need not exist.
    #[must_use]
    pub const fn from_raw(number: i32) -> Signal {
        Signal(number)
    }

    /// Returns the signal's number.
    #[must_use]
    pub const fn as_raw(self) -> i32 {
        self.0
    }

    /// Returns the signal's name, such as `SIGTERM`, if it has one.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            libc::SIGHUP => "SIGHUP",
            libc::SIGINT => "SIGINT",
            libc::SIGQUIT => "SIGQUIT",
            libc::SIGILL => "SIGILL",
            libc::SIGTRAP => "SIGTRAP",
            libc::SIGABRT => "SIGABRT",
            libc::SIGBUS => "SIGBUS",
            libc::SIGFPE => "SIGFPE",
            libc::SIGKILL => "SIGKILL",
            libc::SIGUSR1 => "SIGUSR1",
            libc::SIGSEGV => "SIGSEGV",
            libc::SIGUSR2 => "SIGUSR2",
            libc::SIGPIPE => "SIGPIPE",
            libc::SIGALRM => "SIGALRM",
            libc::SIGTERM => "SIGTERM",
            libc::SIGSTKFLT => "SIGSTKFLT",
            libc::SIGCHLD => "SIGCHLD",
            libc::SIGCONT => "SIGCONT",
            libc::SIGSTOP => "SIGSTOP",
            libc::SIGTSTP => "SIGTSTP",
            libc::SIGTTIN => "SIGTTIN",
            libc::SIGTTOU => "SIGTTOU",
            libc::SIGURG => "SIGURG",
            libc::SIGXCPU => "SIGXCPU",
            libc::SIGXFSZ => "SIGXFSZ",
            libc::SIGVTALRM => "SIGVTALRM",
            libc::SIGPROF => "SIGPROF",
            libc::SIGWINCH => "SIGWINCH",
            libc::SIGIO => "SIGIO",
            libc::SIGPWR => "SIGPWR",
            libc::SIGSYS => "SIGSYS",
            _ => return None,
        })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{} ({name})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What a child used of the machine, with its descendants that it waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    user: Duration,
    system: Duration,
    max_rss: u64,
}

impl Usage {
    pub(crate) const fn new(user: Duration, system: Duration, max_rss: u64) -> Usage {
        Usage { user, system, max_rss }
    }

    /// Returns the processor time spent in the program's own code.
    #[must_use]
    pub const fn user(self) -> Duration {
        self.user
    }

    /// Returns the processor time spent in the kernel for it.
    #[must_use]
    pub const fn system(self) -> Duration {
        self.system
    }

    /// Returns the processor time in all.
    #[must_use]
    pub const fn cpu(self) -> Duration {
        self.user.saturating_add(self.system)
    }

    /// Returns the most memory that was resident at once, in bytes.
    ///
    /// A child shares its starter's memory until it executes its program, and
    /// Linux counts that: the figure is never below what the starting program
    /// itself had resident.
    #[must_use]
    pub const fn max_rss(self) -> u64 {
        self.max_rss
    }
}

/// The end of one child: how, and what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub(crate) exit: Exit,
    pub(crate) usage: Usage,
}

impl Ended {
    /// Returns how it ended.
    #[must_use]
    pub const fn exit(self) -> Exit {
        self.exit
    }

    /// Returns what it used.
    #[must_use]
    pub const fn usage(self) -> Usage {
        self.usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_number_and_words() {
        let cases = [
            (Exit::from_code(0), 0, "exit status 0"),
            (Exit::from_code(255), 255, "exit status 255"),
            (Exit::from_signal(15, false), -15, "signal 15 (SIGTERM)"),
            (Exit::from_signal(11, true), -11, "signal 11 (SIGSEGV)"),
            (Exit::from_signal(64, false), -64, "signal 64"),
            (Exit::LOST, 255, "unknown exit status"),
        ];
        for (exit, number, words) in cases {
            assert_eq!((exit.as_i32(), exit.to_string().as_str()), (number, words));
            assert_eq!(exit.success(), number == 0);
        }
    }
}
