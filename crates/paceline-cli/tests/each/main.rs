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
mod placeholders;
mod status;

use std::{ffi::OsStr, fs::File};

use support::{Run, World};

impl World {
    /// `paceline each` with these words, not yet started.
    fn each<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Run<'_> {
        words.into_iter().fold(self.paceline(["each"]), Run::arg)
    }

    /// Opens a named pipe for writing, which lets those who wait to read it go on.
    ///
    /// As long as it is open, nobody sees its end.
    fn gate(&self, name: &str) -> File {
        File::options().read(true).write(true).open(self.path(name)).unwrap()
    }
}

/// The numbers up to `last`, each on a line, as `seq` has them.
fn numbers(last: u32) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

/// The most memory that a program that runs has had, in KiB.
fn most_memory(started: &support::Started<'_>) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", started.child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}
