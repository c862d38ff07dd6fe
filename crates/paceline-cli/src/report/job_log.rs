//! `--joblog`: a table in the columns of GNU parallel's.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use paceline::{Ending, StageEnded};

use crate::words;

const HEADER: &[u8] =
    b"Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

/// The log, open for writing.
#[derive(Debug)]
pub(crate) struct JobLog(Mutex<State>);

#[derive(Debug)]
struct State {
    file: File,
    /// The jobs that run, by the number of their first item.
    running: HashMap<u64, Running>,
    trouble: Option<io::Error>,
}

#[derive(Debug)]
struct Running {
    /// The number of the first item in the run.
    number: u64,
    command: Vec<u8>,
    /// By the wall clock, since 1970.
    started: Duration,
    /// By one that nobody sets.
    since: Instant,
    received: u64,
}

impl JobLog {
    /// Makes the log at `path`, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened. That it cannot be written is
    /// [trouble](Self::take_trouble), as it is later.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let trouble = file.write_all(HEADER).err();
        Ok(Self(Mutex::new(State { file, running: HashMap::new(), trouble })))
    }

    /// Notes what is about to run.
    pub(crate) fn starts(&self, seq: u64, number: u64, commands: &[Vec<OsString>]) {
        let commands: Vec<String> = commands
            .iter()
            .map(|arguments| words::quote_all(arguments.iter().map(|word| word.as_bytes())))
            .collect();
        let command = commands.join(" | ").replace('\n', "\\n").into_bytes();
        self.state().running.insert(
            seq,
            Running { number, command, started: now(), since: Instant::now(), received: 0 },
        );
    }

    /// Notes how much a job has written.
    pub(crate) fn received(&self, seq: u64, bytes: u64) {
        if let Some(running) = self.state().running.get_mut(&seq) {
            running.received = bytes;
        }
    }

    /// Writes the row of a job that has ended for good, and tells whether all
    /// is written so far.
    pub(crate) fn ended(&self, event: &StageEnded<'_>) -> bool {
        let Some(&seq) = event.item.sequence_numbers().first() else { return true };
        let mut state = self.state();
        // What failed before it came to a job has no row.
        let Some(Running { number, command, started, since, received }) =
            state.running.remove(&seq)
        else {
            return true;
        };
        let (exit, signal) = match event.ending {
            Ending::Ok => (0, 0),
            Ending::Failed(failure) => {
                (failure.code().unwrap_or(-1), failure.signal().unwrap_or(0))
            }
            Ending::Unfinished => (-1, 0),
        };
        let mut row = format!(
            "{number}\t:\t{:.3}\t{:.3}\t0\t{received}\t{exit}\t{signal}\t",
            started.as_secs_f64(),
            since.elapsed().as_secs_f64()
        )
        .into_bytes();
        row.extend_from_slice(&command);
        row.push(b'\n');
        if state.trouble.is_none()
            && let Err(error) = state.file.write_all(&row)
        {
            state.trouble = Some(error);
        }
        state.trouble.is_none()
    }

    /// Whether a row could not be written.
    pub(crate) fn has_trouble(&self) -> bool {
        self.state().trouble.is_some()
    }

    /// Why a row could not be written, if one could not.
    pub(crate) fn take_trouble(&self) -> Option<io::Error> {
        self.state().trouble.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a timestamp for people; the runtime is an `Instant`'s"
)]
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
