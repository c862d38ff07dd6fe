//! Runs that are recorded, killed, and gone on with: the whole program.

#[expect(dead_code, reason = "the tests of `run` use the rest")]
#[path = "../cli/support.rs"]
mod support;

mod changes;
mod crash;
mod disk;
mod queries;
mod resume;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
};

use support::{Ended, Run, Started, World};

/// Three stages that each leave a line for every attempt, and a source of lines.
const CHAIN: &str = r#"
[source]
lines = "items"
[[stage]]
name = "one"
shell = 'echo {} >> one.log; echo {}'
workers = 3
[[stage]]
name = "two"
shell = 'echo {in} >> two.log; echo {}'
to = "out/{in}"
workers = 3
[[stage]]
name = "three"
shell = 'echo {in} $PACELINE_ITEM >> three.log; echo {in}'
workers = 2
"#;

impl World {
    /// The chain above with the items `1` to `last`.
    fn chain(last: usize) -> Self {
        let world = Self::with(CHAIN);
        world.write("items", numbers(last));
        world
    }

    /// One item, and this script for it.
    fn of_one_job(script: &str) -> Self {
        Self::with(&format!(
            "[source]\nvalues = [\"a\"]\n[[stage]]\nname = \"one\"\nworkers = 1\nshell = '''{script}'''\n"
        ))
    }

    fn resume<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Run<'_> {
        words.into_iter().fold(self.paceline(["resume"]), Run::arg)
    }

    fn each<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Run<'_> {
        words.into_iter().fold(self.paceline(["each"]), Run::arg)
    }

    /// The lines of a file, each once.
    fn set(&self, name: &str) -> BTreeSet<String> {
        self.read(name).lines().map(str::to_owned).collect()
    }

    fn count(&self, name: &str) -> usize {
        self.read(name).lines().count()
    }

    /// The processes that this program has started.
    fn children_of(&self, started: &Started<'_>) -> BTreeMap<i32, String> {
        let parent = started.child.id().to_string();
        let is_child = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(')').next().and_then(|rest| rest.split(' ').nth(2)) == Some(&parent)
        };
        let pids = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        let name = |pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        pids.filter(|pid| is_child(*pid))
            .map(|pid| (pid, String::from_utf8_lossy(&name(pid)).into_owned()))
            .collect()
    }

    /// One value out of the journal.
    fn sql<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let path = self.path(".paceline/journal.db");
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

impl Ended {
    /// The lines of standard output, each once.
    fn printed(&self) -> BTreeSet<String> {
        self.lines().into_iter().map(str::to_owned).collect()
    }
}

/// The numbers up to `last`, each on a line.
fn numbers(last: usize) -> String {
    (1..=last).map(|number| format!("{number}\n")).collect()
}

fn set_of(last: usize) -> BTreeSet<String> {
    numbers(last).lines().map(str::to_owned).collect()
}
