//! Failures in words, and the program's own failures as those of the engine.

use std::{error::Error, ffi::OsString, fmt, io, os::unix::ffi::OsStrExt, sync::Arc};

use paceline::{Failure, FailureKind, Fault, RemoteError};
use paceline_process::{ErrorKind, ExitError};
use rustix::io::Errno;

use crate::{
    kept::Kept,
    message::{harmless, words_of},
    spec::{Stage, Work},
    steps::{Kind, StepError},
    words,
};

/// Makes a failure of a built-in step one of the engine's.
pub(crate) fn of_step(error: StepError) -> Fault {
    let kind = match error.kind() {
        Kind::Io => FailureKind::Io,
        Kind::Timeout => FailureKind::Timeout,
        Kind::TooLong => FailureKind::TooLong,
        Kind::Cancelled => FailureKind::Cancelled,
    };
    let fault = Fault::new(kind, error.line());
    let fault = if error.is_pushback() { fault.pushback() } else { fault };
    if error.is_permanent() { fault.permanent() } else { fault }
}

/// Makes a failure to open what a job needs one of the engine's. Where
/// descriptors are lacking, the engine waits for those of other jobs, if it is
/// given the system's error as it is.
pub(crate) fn of_opening(error: StepError) -> Fault {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let number = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        if let Some(number) = number
            && [Errno::MFILE, Errno::NFILE].iter().any(|errno| errno.raw_os_error() == number)
        {
            return Fault::new(FailureKind::Io, io::Error::from_raw_os_error(number));
        }
        cause = inner.source();
    }
    of_step(error)
}

/// Makes a failure of a stage's command one of the engine's. A script is
/// named by what it is, for its text would fill the line.
pub(crate) fn of_exit(stage: &Stage, error: &ExitError) -> Fault {
    let exit = error.exit();
    let said = match stage.work {
        Work::Shell(_) => exit.to_string(),
        Work::Pipe(ref commands) => format!(
            "command {} of {}, `{}` failed: {exit}",
            error.index() + 1,
            commands.len(),
            shown(error.argv())
        ),
        _ => format!("`{}` failed: {exit}", shown(error.argv())),
    };
    let (code, signal) = (error.exit().code(), error.exit().signal());
    let kind = if signal.is_some() { FailureKind::Signal } else { FailureKind::Exit };
    Fault::new(kind, said).with_code(code).with_signal(signal.map(|signal| signal.as_raw()))
}

/// A job that failed, and what it had written to its standard output.
#[derive(Debug)]
pub(crate) struct JobFailed {
    message: String,
    output: Arc<Kept>,
}

impl fmt::Display for JobFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for JobFailed {}

/// Lets a fault carry the job's output to where it is printed.
pub(crate) fn with_output(fault: Fault, output: Arc<Kept>) -> Fault {
    let (code, signal) = (fault.code(), fault.signal());
    let cause = JobFailed { message: fault.to_string(), output };
    Fault::new(fault.kind(), cause).with_code(code).with_signal(signal)
}

/// What the failed job had written, if that is to be printed as it is.
pub(crate) fn output(failure: &Failure) -> Option<&Arc<Kept>> {
    failure.cause().downcast_ref::<JobFailed>().map(|failed| &failed.output)
}

/// A command as one would type it, cut where it would fill more than a line or two.
fn shown(argv: &[OsString]) -> String {
    const LONGEST: usize = 200;
    let mut line = words::quote_all(argv.iter().map(|word| word.as_bytes()));
    if let Some((end, _)) = line.char_indices().nth(LONGEST) {
        line.truncate(end);
        line.push_str("...");
    }
    line
}

/// Tells where and why an item failed, on one line.
pub(crate) fn told(failure: &Failure) -> String {
    let stage = harmless(failure.stage().as_bytes());
    let attempts = match failure.attempts() {
        0 | 1 => String::new(),
        attempts => format!(" (after {attempts} attempts)"),
    };
    format!("stage `{stage}`: {}{attempts}", reason(failure))
}

/// The worker's stack where an item failed, if there is one.
pub(crate) fn traceback(failure: &Failure) -> Option<&str> {
    failure.cause().downcast_ref::<RemoteError>()?.traceback().map(str::trim_end)
}

/// The cause of a failure with all that caused it, and what would help.
pub(crate) fn reason(failure: &Failure) -> String {
    let mut line = line(failure.cause());
    if let Some(hint) = hint(failure) {
        line.push_str("; ");
        line.push_str(hint);
    }
    harmless(line.as_bytes())
}

/// An error and its causes on one line, each said once.
pub(crate) fn line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = words_of(error);
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line
}

fn hint(failure: &Failure) -> Option<&'static str> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(failure.cause());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<paceline_process::Error>() {
            return match error.kind() {
                ErrorKind::TooLong => {
                    Some("standard input has no such limit: `--stdin`, or `stdin = true` in a file")
                }
                _ => error.hint(),
            };
        }
        cause = error.source();
    }
    None
}
