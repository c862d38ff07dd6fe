//! Runs a program, and measures it from without.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufWriter, Seek, Write},
    mem::MaybeUninit,
    path::Path,
    process::{self, Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::LOOK_EVERY;
use crate::{cpu, harness::Sample};

/// How to run a program, and what to make of it.
pub(crate) struct Run {
    arguments: Vec<OsString>,
    input: Option<File>,
    /// What part of a second a measurement is told in.
    unit: f64,
    times: usize,
    is_looked_at: bool,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self { arguments: Vec::new(), input: None, unit: 1.0, times: 1, is_looked_at: false }
    }

    pub(crate) fn args<A: Into<OsString>>(mut self, more: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(more.into_iter().map(Into::into));
        self
    }

    pub(crate) fn input(mut self, input: File) -> Self {
        self.input = Some(input);
        self
    }

    /// Tells times in microseconds a job.
    pub(crate) fn each_of(mut self, jobs: usize) -> Self {
        self.unit = 1e-6 * jobs as f64;
        self
    }

    pub(crate) fn in_milliseconds(mut self) -> Self {
        self.unit = 1e-3;
        self
    }

    /// Runs it so many times for one measurement, which is then of one run.
    pub(crate) fn repeated(mut self, times: usize) -> Self {
        self.times = times;
        self
    }

    /// Measures its threads and its memory too, by looking at it again and again.
    pub(crate) fn looked_at(mut self) -> Self {
        self.is_looked_at = true;
        self
    }

    /// Gives the time, the CPU time, and threads and megabytes if it is looked at.
    pub(crate) fn measure(&self, program: &Path) -> Sample {
        let (mut time, mut cpu) = (Duration::ZERO, Duration::ZERO);
        let mut looked = Looked::default();
        for _ in 0..self.times {
            let started = Instant::now();
            let child = self.start(program);
            if self.is_looked_at {
                looked.at(child.id());
            }
            cpu += reap(child);
            time += started.elapsed();
        }
        let told = |time: Duration| time.as_secs_f64() / self.unit / self.times as f64;
        let mut sample = vec![told(time), told(cpu)];
        if self.is_looked_at {
            sample.extend([looked.threads, looked.memory / 1e6]);
        }
        sample
    }

    fn start(&self, program: &Path) -> Child {
        let input = self.input.as_ref().map_or_else(Stdio::null, |mut input| {
            input.rewind().expect("a file can be read again");
            input.try_clone().expect("a file can be shared").into()
        });
        let mut command = Command::new(program);
        command.args(&self.arguments).stdin(input).stdout(Stdio::null());
        command.spawn().expect("what was found can be run")
    }
}

/// The highest that was seen of a process.
#[derive(Default)]
struct Looked {
    threads: f64,
    memory: f64,
}

impl Looked {
    /// Looks until the process has ended.
    fn at(&mut self, pid: u32) {
        // A process that has ended has no memory any more.
        while let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status"))
            && let Some(memory) = number(&status, "VmHWM:")
        {
            self.memory = self.memory.max(memory * 1024.0);
            self.threads = self.threads.max(number(&status, "Threads:").unwrap_or(0.0));
            thread::park_timeout(LOOK_EVERY);
        }
    }
}

fn number(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Waits for the end of `child`, and returns the CPU time of it and its own children.
fn reap(child: Child) -> Duration {
    let pid = libc::pid_t::try_from(child.id()).expect("a process number");
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: `status` and `usage` outlive the call, which fills `usage` if it returns the child.
    let usage = unsafe {
        assert_eq!(libc::wait4(pid, &raw mut status, 0, usage.as_mut_ptr()), pid);
        usage.assume_init()
    };
    assert_eq!(status, 0, "a contestant failed");
    cpu::of(&usage)
}

/// A file without a name that holds each of `numbers` in a line.
pub(crate) fn lines(numbers: impl IntoIterator<Item = usize>) -> File {
    let path = std::env::temp_dir().join(format!("paceline-benches-each-{}", process::id()));
    let write = || -> io::Result<File> {
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        let mut writer = BufWriter::new(&file);
        numbers.into_iter().try_for_each(|number| writeln!(writer, "{number}"))?;
        writer.flush()?;
        drop(writer);
        Ok(file)
    };
    write().expect("a file can be written")
}
