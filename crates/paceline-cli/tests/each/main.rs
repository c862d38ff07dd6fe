//! `paceline each` against its contract: the whole program, started and
//! looked at from outside.

#[expect(dead_code, reason = "the tests of `run` use the rest")]
#[path = "../cli/support.rs"]
mod support;

mod dry_run;
mod hostile;
mod inputs;
mod joblog;
mod json;
mod limits;
mod lines;
mod order;
mod output;
mod pace;
mod placeholders;
mod status;

use std::{ffi::OsStr, fs, fs::File, process::Child};

use support::{Run, World};

impl World {
    /// `paceline each` with these words, not yet started.
    fn each<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Run<'_> {
        words.into_iter().fold(self.paceline(["each"]), Run::arg)
    }

    /// Opens a named pipe for writing, which lets those who wait to read it go on.
    ///
    /// As long as it is open, nobody sees its end, and what is written to it
    /// also reaches those who open it later: to be kept until they have ended.
    fn gate(&self, name: &str) -> File {
        File::options().read(true).write(true).open(self.path(name)).unwrap()
    }
}

/// The most memory that a program which still runs has had, in KiB.
fn most_memory(program: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The numbers up to `last`, each on a line, as `seq` has them.
fn numbers(last: u32) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}
