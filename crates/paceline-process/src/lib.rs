//! Child processes with timeouts, chains, and nothing left behind.
//!
//! [`Command`] describes a child and [`Chain`] several joined by pipes; both
//! run to an [`Output`], at once or through a [`Child`] that can be polled,
//! waited for, communicated with under a limit, and stopped, by threads and by
//! tasks alike. A child that fails is data; [`Output::check`] makes it an
//! error.
//!
//! The one idea: a child is never alone. It leads a process group, signals go
//! to the group, and the child is reaped last, so that its number cannot have
//! become a stranger's while anybody may still signal it.
//!
//! ```
//! use paceline_process::{Command, Stderr, Stdout};
//! use std::time::Duration;
//!
//! let output = Command::new("sort")
//!     .arg("--version")
//!     .stdout(Stdout::Capture)
//!     .stderr(Stderr::Capture)
//!     .run_timeout(Duration::from_secs(10), Duration::from_secs(1))?
//!     .check()?;
//! assert!(output.stdout().to_text()?.starts_with("sort"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # When stopped
//!
//! Whichever way a child ends (by itself, by [`Child::stop`], by dropping the
//! handle), what is left in its process group is killed and every child is
//! reaped. In a program that has called [`init`] the same goes for descendants
//! that left the group (`setsid`), and a guard does it when the program itself
//! is killed. What is covered, and what is not, is told by [`coverage`].
//!
//! # Signals
//!
//! Nobody else in the program may reap these children (no `waitpid(-1)`). If
//! SIGCHLD is ignored when a child is started, its default is restored, for
//! the kernel would throw the exit status away. Children inherit blocked and
//! ignored signals, but for SIGPIPE, which is at its default in them; after
//! [`init`] they inherit none but an ignored SIGHUP.

mod capture;
mod chain;
mod child;
mod command;
mod environment;
mod error;
mod exit;
mod group;
mod guard;
mod isolate;
mod linux;
mod output;
mod proc;
mod program;
mod reaper;
mod registry;
mod spawn;
mod stop;
mod streams;
mod sweep;
mod task;

pub use capture::{Captured, Reader};
pub use chain::Chain;
pub use child::Child;
pub use command::{Command, Stderr, Stdin, Stdout};
pub use error::{Error, ErrorKind, Partial};
pub use exit::{Ended, Exit, Signal, Usage};
pub use group::Group;
pub use guard::{end_jobs, end_run};
pub use isolate::Isolation;
pub use linux::memory::SharedMemory;
pub use output::{BrokenPipe, ExitError, Output};
pub use program::{Coverage, Options, Program, coverage, init, raise_descriptor_limit};
pub use registry::{continue_all_jobs, stop_all_jobs};
pub use sweep::{Survivor, settle, sweep};
pub use task::ExitWatch;
