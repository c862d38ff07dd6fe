//! Failures in words, and the program's own failures as those of the engine.

use std::error::Error;

use paceline::{Failure, FailureKind, Fault};
use paceline_process::{ErrorKind, ExitError};

use crate::{
    message::harmless,
    spec::{Stage, Work},
    steps::{Kind, StepError},
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
    if error.is_permanent() { fault.permanent() } else { fault }
}

/// Makes a failure of a stage's command one of the engine's. A script is
/// named by what it is, for its text would fill the line.
pub(crate) fn of_exit(stage: &Stage, error: ExitError) -> Fault {
    let said = match stage.work {
        Work::Shell(_) => error.exit().to_string(),
        _ => error.to_string(),
    };
    let (code, signal) = (error.exit().code(), error.exit().signal());
    let kind = if signal.is_some() { FailureKind::Signal } else { FailureKind::Exit };
    Fault::new(kind, said).with_code(code).with_signal(signal.map(|signal| signal.as_raw()))
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

/// The cause of a failure with all that caused it, and what would help.
pub(crate) fn reason(failure: &Failure) -> String {
    let mut line = failure.cause().to_string();
    let mut cause = failure.cause().source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    if let Some(hint) = hint(failure) {
        line.push_str("; ");
        line.push_str(hint);
    }
    harmless(line.as_bytes())
}

fn hint(failure: &Failure) -> Option<&'static str> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(failure.cause());
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<paceline_process::Error>() {
            return match error.kind() {
                ErrorKind::TooLong => Some("`stdin = true` has no such limit"),
                _ => error.hint(),
            };
        }
        cause = error.source();
    }
    None
}
