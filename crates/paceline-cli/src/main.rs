//! The `paceline` program: concurrent pipelines that find their own pace.
//!
//! `main` reads the command line and hands over to one of `commands`; the
//! rest of the program is what they share. Everything that runs items is the
//! engine's, in the crate `paceline`.

mod args;
mod commands;
mod exit_code;
mod fail_point;
mod inputs;
mod item;
mod journal;
mod kept;
mod lines;
mod message;
mod output_file;
mod report;
mod results;
mod signals;
mod source;
mod spec;
mod stages;
mod steps;
mod template;
mod words;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use paceline_process::Options;

use crate::{
    args::{Cli, Command},
    message::{Problem, reason, wants_colour},
};

fn main() -> ExitCode {
    // Before there is another thread. It also serves as the guard of another of our kind.
    paceline_process::init(Options::default().only_parent(true));
    // Nor is it to read its arguments if it is a worker of `demo 64`.
    match paceline_chapter::item64::serve_if_asked() {
        Ok(false) => {}
        Ok(true) => return ExitCode::from(exit_code::OK),
        Err(error) => return trouble(&Problem::new(error.to_string())),
    }
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(problem) => {
            tell(&problem);
            ExitCode::from(exit_code::USAGE)
        }
    }
}

fn tell(problem: &Problem) {
    // There is no better place to say that standard error is gone.
    let _ = io::stderr().write_all(problem.render(wants_colour()).as_bytes());
}

fn run(command: Command) -> Result<ExitCode, Problem> {
    match command {
        Command::Run(args) => commands::run::run(args),
        Command::Each(args) => commands::each::each(args),
        Command::Resume(args) => commands::resume::resume(args, commands::resume::What::NotDone),
        Command::Retry(args) => commands::resume::resume(args, commands::resume::What::Failed),
        Command::Runs(args) => commands::runs::runs(args),
        Command::Status(args) => commands::runs::status(args),
        Command::Failed(args) => commands::runs::failed(args),
        Command::Check(args) => commands::check::check(args),
        Command::Advise(args) => commands::advise::run(args),
        Command::Demo(args) => Ok(commands::demo::demo(&args)),
        Command::Doctor => Ok(printed(commands::doctor::doctor())),
        Command::Completions { shell } => Ok(printed(commands::generate::completions(shell))),
        Command::Man => Ok(printed(commands::generate::man())),
    }
}

fn printed(written: io::Result<()>) -> ExitCode {
    match written.and_then(|()| check_open()) {
        Ok(()) => ExitCode::from(exit_code::OK),
        Err(error) => unprinted(&error),
    }
}

/// Says whether there is a standard output. Where it was closed, what is
/// written now vanishes without an error.
fn check_open() -> io::Result<()> {
    let is_closed = paceline_process::init(Options::default()).is_closed(1);
    if is_closed { Err(io::Error::other("it is closed")) } else { Ok(()) }
}

/// How a command ends whose output could not be written.
fn unprinted(error: &io::Error) -> ExitCode {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return ExitCode::from(signals::end_by_broken_pipe());
    }
    trouble(&Problem::new(format!("could not write to standard output: {}", reason(error))))
}

/// How a command ends that had begun and cannot go on.
fn trouble(problem: &Problem) -> ExitCode {
    tell(problem);
    ExitCode::from(exit_code::TROUBLE)
}
