//! The stages `run`, `shell` and `pipe`: child processes.

use std::{
    ffi::OsString,
    fs::File,
    os::unix::ffi::OsStrExt,
    sync::{Arc, OnceLock},
};

use paceline::{
    Attempt, BoxError, Chain, Command, FailureKind, Fault, Job, Output, Stderr, Stdin, Stdout,
};

use super::{Prints, Step, job_environment};
use crate::{
    item::Value,
    kept::Kept,
    lines::{Ends, JobLines},
    output_file::{OutputFile, ReservedFile},
    report::faults,
    spec::Work,
    template::Placeholder,
};

/// Runs the commands of a stage for each value.
pub(super) struct Commands {
    step: Step,
    /// Whether the commands name `{out}`, and so make the file themselves.
    names_out: bool,
    /// The programs without arguments, whose clones share where each was found.
    programs: Vec<OnceLock<Command>>,
    /// What takes nothing: for jobs that write to a standard output that is closed.
    no_stdout: Option<Arc<File>>,
}

/// The file that an attempt makes.
pub(super) enum Making {
    /// None: the result is the output.
    Nothing,
    /// Its standard output becomes the file.
    Captured(OutputFile),
    /// The command makes the file under the name it is given.
    Reserved(ReservedFile),
}

impl Commands {
    pub(super) fn new(step: Step) -> Self {
        let names_out = match &step.stage.work {
            Work::Run(command) => command.holes().any(|hole| hole.kind == Placeholder::Out),
            Work::Shell(script) => script.holes().any(|hole| hole.kind == Placeholder::Out),
            Work::Pipe(commands) => commands
                .iter()
                .flat_map(|command| command.holes())
                .any(|hole| hole.kind == Placeholder::Out),
            _ => false,
        };
        let commands = match &step.stage.work {
            Work::Pipe(commands) => commands.len(),
            _ => 1,
        };
        let closed = step.prints == Prints::Directly && crate::check_open().is_err();
        // Opened for reading: a job is told that it cannot write, as with our own closed output.
        let no_stdout = closed.then(|| File::open("/dev/null").ok()).flatten().map(Arc::new);
        Self { step, names_out, programs: vec![OnceLock::new(); commands], no_stdout }
    }

    fn making(&self, value: &Value, attempt: &Attempt) -> Result<Making, Fault> {
        let Some(target) = self.step.target(value, attempt.slot())? else {
            return Ok(Making::Nothing);
        };
        let claims = &self.step.shop.claims;
        if self.names_out {
            target.reserve(claims, value.owner()).map(Making::Reserved)
        } else {
            target.create(claims, value.owner()).map(Making::Captured)
        }
        .map_err(faults::of_opening)
    }

    /// The arguments of each command of the stage.
    fn arguments(
        &self,
        value: &Value,
        slot: usize,
        out: Option<&[u8]>,
    ) -> Result<Vec<Vec<OsString>>, Fault> {
        value.expand(&self.step.shop.stages, slot, out, |values| match &self.step.stage.work {
            Work::Run(command) => Ok(vec![command.expand(values)?]),
            Work::Shell(script) => Ok(vec![script.expand(values)?]),
            Work::Pipe(commands) => commands.iter().map(|command| command.expand(values)).collect(),
            _ => unreachable!("the stage was added as what it is"),
        })
    }

    /// Where the last command's standard output goes.
    fn stdout(&self, making: &Making, ends: Option<&Ends>) -> Result<Stdout, Fault> {
        match (making, ends) {
            (Making::Captured(output), _) => match output.file().try_clone() {
                Ok(file) => Ok(Stdout::File(Arc::new(file))),
                Err(error) => Err(faults::of_opening(output.write_failed(error))),
            },
            (_, Some(ends)) if self.step.prints != Prints::Nothing => {
                Ok(Stdout::File(ends.stdout.clone()))
            }
            _ if self.step.prints == Prints::Directly => Ok(match &self.no_stdout {
                Some(file) => Stdout::File(file.clone()),
                None => Stdout::Inherit,
            }),
            _ => Ok(Stdout::Capture),
        }
    }

    /// Tells on what is known of every job that has ended, however it did, and
    /// whether a descendant of it held its lines.
    fn tell(&self, value: &Value, output: &mut Output, lines: Option<JobLines>) -> bool {
        let reporter = &self.step.shop.reporter;
        if let Some(record) = &self.step.shop.record {
            record.job_ended(value, self.step.index, output);
        }
        reporter.pass_on(&value.origins, output.take_stderr());
        let holds_lines = lines.as_ref().is_some_and(JobLines::end);
        let passed_on = lines.map_or(0, |lines| lines.written());
        reporter.job_ended(&value.origins, output.stdout().len() + passed_on);
        holds_lines
    }

    /// Has what a job wrote wait for its turn, if it has one.
    fn keep(&self, output: Output) -> Result<Arc<Kept>, Fault> {
        let (stdout, _) = output.into_streams();
        match &self.step.shop.keeper {
            None => Ok(Arc::new(stdout.into())),
            Some(keeper) => keeper.keep(stdout).map(Arc::new).map_err(|(_, error)| {
                Fault::new(FailureKind::Io, format!("could not keep the output: {error}"))
            }),
        }
    }

    /// Has a fault carry what the job wrote to where it is printed.
    fn with_output(&self, fault: Fault, output: Output) -> Fault {
        match self.step.prints {
            Prints::Nothing => fault,
            Prints::Whole | Prints::Directly => match self.keep(output) {
                Ok(output) => faults::with_output(fault, output),
                Err(fault) => fault,
            },
        }
    }

    /// One of the stage's commands, by its place, with what is the same for all of them.
    fn command(
        &self,
        index: usize,
        arguments: Vec<OsString>,
        environment: &[(&str, String)],
        ends: Option<&Ends>,
    ) -> Command {
        let stage = &self.step.stage;
        let program = self.programs[index].get_or_init(|| Command::new(&arguments[0]));
        let mut command = if program.argv()[0] == arguments[0] {
            program.clone().args(&arguments[1..])
        } else {
            Command::from_argv(arguments)
        };
        match (&stage.cwd, &self.step.shop.jobs_run_in) {
            (Some(cwd), _) => command = command.cwd(self.step.shop.folder.join(cwd)),
            (None, Some(folder)) => command = command.cwd(folder),
            (None, None) => {}
        }
        match ends {
            Some(ends) => command = command.stderr(Stderr::File(ends.stderr.clone())),
            None if self.step.prints == Prints::Directly => {}
            None => command = command.stderr(Stderr::Capture),
        }
        if let Some(isolation) = stage.isolation {
            command = command.isolate(isolation);
        }
        for (name, value) in environment {
            command = command.env(name, value);
        }
        for (name, value) in &stage.env {
            command = command.env(name, value);
        }
        command
    }
}

impl Job<Value> for Commands {
    type Out = Value;
    type State = (Making, Option<JobLines>);

    fn start(&self, value: &Value, attempt: &Attempt) -> Result<(Chain, Self::State), BoxError> {
        value.check()?;
        let making = self.making(value, attempt)?;
        let out = match &making {
            Making::Reserved(file) => Some(file.path().as_os_str().as_bytes()),
            _ => None,
        };
        let arguments = self.arguments(value, attempt.slot(), out)?;
        let (lines, ends) = match &self.step.shop.lines {
            None => (None, None),
            Some(lines) => {
                let (lines, ends) =
                    lines.open(value.turn(), self.step.shop.reporter.tag(&value.origins))?;
                (Some(lines), Some(ends))
            }
        };
        self.step.shop.reporter.job_starts(&value.origins, &arguments);
        let environment = job_environment(&self.step, value, attempt);
        let mut commands = Vec::with_capacity(arguments.len());
        let last = arguments.len() - 1;
        for (index, arguments) in arguments.into_iter().enumerate() {
            let mut command = self.command(index, arguments, &environment, ends.as_ref());
            if index == 0 && self.step.stage.stdin {
                command =
                    command.stdin(Stdin::from(value.as_input(self.step.stage.batch.is_some())));
            }
            if index == last {
                command = command.stdout(self.stdout(&making, ends.as_ref())?);
            }
            commands.push(command);
        }
        Ok((Chain::new(commands), (making, lines)))
    }

    fn stopped(
        &self,
        value: &Value,
        (_, lines): Self::State,
        mut output: Output,
        fault: Fault,
    ) -> Fault {
        self.tell(value, &mut output, lines);
        self.with_output(fault, output)
    }

    fn finish(
        &self,
        value: Value,
        (making, lines): Self::State,
        mut output: Output,
    ) -> Result<Value, BoxError> {
        let holds_lines = self.tell(&value, &mut output, lines);
        if output.is_leaky() || holds_lines {
            self.step.shop.reporter.leaky(&value.origins, &self.step.stage.name);
        }
        let output = match output.check() {
            Ok(output) => output,
            Err(error) => {
                let fault = faults::of_exit(&self.step.stage, &error);
                return Err(self.with_output(fault, error.into_output()).into());
            }
        };
        let result = match making {
            Making::Nothing if self.step.prints != Prints::Nothing => {
                return Ok(value.printing(self.keep(output)?));
            }
            Making::Nothing => {
                let (stdout, _) = output.into_streams();
                let bytes = stdout.into_bytes().map_err(|error| {
                    Fault::new(FailureKind::Io, format!("could not read the output: {error}"))
                })?;
                without_last_newline(bytes)
            }
            Making::Captured(file) => {
                let result = self.step.path_result(file.spelled());
                file.commit().map_err(faults::of_step)?;
                result
            }
            Making::Reserved(file) => {
                let result = self.step.path_result(file.spelled());
                file.commit().map_err(faults::of_step)?;
                result
            }
        };
        Ok(value.then(result))
    }
}

fn without_last_newline(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    bytes
}
