//! Runs the jobs of a sample, and measures them.

use std::{
    ffi::OsString,
    time::{Duration, Instant},
};

use paceline::{
    Attempt, BoxError, Chain, Command, FailureKind, Job as Work, Output, Pipeline, Stderr, Stdin,
    Stdout,
};

use super::queued;
use crate::message::Problem;

/// A job of the sample.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) words: Vec<OsString>,
    pub(super) stdin: Option<Vec<u8>>,
}

/// What one measurement gives. Times are seconds.
#[derive(Debug, Default)]
pub(super) struct Timed {
    /// The means of the jobs that were successful: as long as they took, and on a core.
    pub(super) wall: f64,
    pub(super) cpu: f64,
    /// How far the mean of `wall` may be off by chance, squared.
    pub(super) variance: f64,
    /// How long they had no core though they could have computed, on average.
    pub(super) queued: f64,
    pub(super) successful: usize,
    /// How the first that failed ended.
    pub(super) failure: Option<String>,
}

/// Runs these jobs with so many workers.
///
/// # Errors
///
/// The program cannot be run at all.
pub(super) fn measure(
    jobs: Vec<Job>,
    workers: usize,
    timeout: Option<Duration>,
) -> Result<Timed, Problem> {
    let mut pipeline = Pipeline::from_iter(jobs).command_job("sample", Sample).workers(workers);
    if let Some(timeout) = timeout {
        pipeline = pipeline.timeout(timeout);
    }
    let (collected, queued) = queued::during(|| pipeline.collect());
    let (outputs, summary) = collected.map_err(|error| Problem::new(error.to_string()))?;
    let queued = queued / outputs.len().max(1) as f64;
    let mut timed = Timed { queued, ..Timed::default() };
    let mut walls = Vec::new();
    for job in &outputs {
        match &job.failure {
            None => {
                walls.push(job.wall.as_secs_f64());
                timed.cpu += job.cpu.as_secs_f64();
            }
            Some(failure) => timed.failure = timed.failure.or_else(|| Some(failure.clone())),
        }
    }
    if let Some(failure) = summary.failures.first() {
        if outputs.is_empty()
            && matches!(
                failure.kind(),
                FailureKind::NotFound | FailureKind::NotExecutable | FailureKind::TooLong
            )
        {
            let text = format!("no item of the sample could be run: {}", failure.cause());
            return Err(Problem::new(text));
        }
        timed.failure = timed.failure.or_else(|| Some(failure.cause().to_string()));
    }
    timed.cpu /= walls.len().max(1) as f64;
    Ok(timed.of(&walls))
}

impl Timed {
    /// With the jobs that took these times.
    pub(super) fn of(self, walls: &[f64]) -> Self {
        let count = walls.len().max(1) as f64;
        let wall = walls.iter().sum::<f64>() / count;
        let squares: f64 = walls.iter().map(|one| (one - wall).powi(2)).sum();
        let variance = squares / (count - 1.0).max(1.0) / count;
        Self { successful: walls.len(), wall, variance, ..self }
    }
}

/// What a job came to.
struct Ended {
    wall: Duration,
    cpu: Duration,
    failure: Option<String>,
}

struct Sample;

impl Work<Job> for Sample {
    type Out = Ended;
    type State = Instant;

    fn start(&self, job: &Job, _: &Attempt) -> Result<(Chain, Instant), BoxError> {
        let mut command = Command::new(&job.words[0]).args(&job.words[1..]);
        if let Some(bytes) = &job.stdin {
            command = command.stdin(Stdin::from(bytes.clone()));
        }
        let command = command.stdout(Stdout::Null).stderr(Stderr::Null);
        Ok((Chain::new([command]), Instant::now()))
    }

    fn finish(&self, _: Job, began: Instant, output: Output) -> Result<Ended, BoxError> {
        let (wall, cpu) = (began.elapsed(), output.cpu());
        Ok(Ended { wall, cpu, failure: output.check().err().map(|error| error.to_string()) })
    }
}
