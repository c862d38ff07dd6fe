//! What `/proc` says of processes: relations, start times, marks.
//!
//! A number read here may be a stranger's a moment later. Whoever acts on it
//! opens the process, reads the start time again, and acts only if it is the
//! same. Our own children are the exception: nobody but us can free their
//! numbers.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::process::Pid;

use crate::exit::Signal;
use crate::linux;

/// The variables by which the processes of a run and a job are known.
pub(crate) const RUN: &str = "PACELINE_RUN";
pub(crate) const JOB: &str = "PACELINE_JOB";
/// In a job that itself runs jobs: what it was to its own runner, and so on
/// outwards, as `RUN/JOB` with `:` between.
pub(crate) const OUTER: &str = "PACELINE_OUTER";

/// A process, as far as its relations go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    state: u8,
    pub(crate) parent: i32,
    pub(crate) group: i32,
    /// In ticks since the start of the system.
    pub(crate) start: u64,
}

impl Stat {
    pub(crate) fn of(pid: i32) -> Option<Stat> {
        // `pid (name) state ...`, where the name may hold anything, `)` too.
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let after_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
        let fields: Vec<&str> = str::from_utf8(&stat[after_name..]).ok()?.split(' ').collect();
        Some(Stat {
            state: *fields.get(1)?.as_bytes().first()?,
            parent: fields.get(2)?.parse().ok()?,
            group: fields.get(3)?.parse().ok()?,
            start: fields.get(20)?.parse().ok()?,
        })
    }

    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Returns the numbers of all processes.
pub(crate) fn all() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the number that was given to a process last, as `/proc/loadavg` has it.
pub(crate) fn newest() -> Option<i32> {
    fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().last()?.parse().ok()
}

/// Returns the user as whom a process runs.
pub(crate) fn user(pid: i32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|found| found.uid())
}

/// Returns a process's own name.
pub(crate) fn name(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii_end()).into_owned()
}

/// What a process that carries the mark of `run` is in that run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Part of this job, itself or through runs of its own.
    Job(u64),
    /// Part of the run, though it does not say of which job.
    Run,
}

/// Says whether a process carries the mark of `run`.
pub(crate) fn mark(pid: i32, run: &str) -> Option<Mark> {
    find_mark(&fs::read(format!("/proc/{pid}/environ")).ok()?, run)
}

fn find_mark(environment: &[u8], run: &str) -> Option<Mark> {
    let value = |name: &str| {
        environment.split(|byte| *byte == 0).find_map(|entry| {
            str::from_utf8(entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?).ok()
        })
    };
    let job = |text: &str| text.parse().map_or(Mark::Run, Mark::Job);
    if value(RUN) == Some(run) {
        return Some(value(JOB).map_or(Mark::Run, job));
    }
    value(OUTER)?.split(':').find_map(|outer| match outer.split_once('/') {
        Some((outer, text)) if outer == run => Some(job(text)),
        _ => None,
    })
}

/// The children of this process that its main thread answers for.
///
/// A child belongs to the thread that started it, and to the main thread once
/// that has ended; and so does every orphan that comes to this process. So
/// there is little in it besides strays, and reading it takes half a
/// microsecond. Where the kernel has no such list, all of `/proc` is searched.
#[derive(Debug)]
pub(crate) struct Children(Option<File>);

impl Children {
    pub(crate) fn open() -> Children {
        let me = std::process::id();
        let file = File::open(format!("/proc/self/task/{me}/children")).ok();
        Children(file.filter(|file| file.read_at(&mut [0; 8], 0).is_ok()))
    }

    pub(crate) fn is_cheap(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn read(&self) -> Vec<i32> {
        match &self.0 {
            Some(file) => read_list(file).unwrap_or_default(),
            None => {
                let me = std::process::id();
                all().into_iter().filter(|pid| is_child_of(*pid, me)).collect()
            }
        }
    }
}

fn is_child_of(pid: i32, parent: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| u32::try_from(stat.parent) == Ok(parent))
}

fn read_list(file: &File) -> io::Result<Vec<i32>> {
    let mut buffer = [0; 4096];
    let mut text = Vec::new();
    loop {
        match file.read_at(&mut buffer, text.len() as u64) {
            Ok(count) => {
                text.extend_from_slice(&buffer[..count]);
                // The kernel leaves less than a number's room when there is more.
                if count + 16 <= buffer.len() {
                    break;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let words = text.split(|byte| *byte == b' ');
    Ok(words.filter_map(|word| str::from_utf8(word).ok()?.parse().ok()).collect())
}

/// Returns the descendants of a process, each before its own children.
pub(crate) fn descendants(pid: i32) -> Vec<(i32, Stat)> {
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { continue };
        for task in tasks.flatten() {
            let Ok(file) = File::open(task.path().join("children")) else { continue };
            for child in read_list(&file).unwrap_or_default() {
                if let Some(stat) = Stat::of(child)
                    && stat.parent == parent
                {
                    found.push((child, stat));
                    parents.push(child);
                }
            }
        }
    }
    found
}

/// Kills the process that had number `pid` when `stat` was read, or nobody.
pub(crate) fn kill(pid: i32, stat: &Stat) {
    let Some(number) = Pid::from_raw(pid) else { return };
    if let Ok(pidfd) = linux::open_pidfd(number)
        // Once it is open the number cannot mean two processes any more.
        && Stat::of(pid).is_some_and(|again| again.start == stat.start)
    {
        let _ = linux::signal_pidfd(&pidfd, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_at_every_depth_and_only_whole() {
        let own = b"A=b\0PACELINE_RUN=one\0PACELINE_JOB=7\0";
        let nested = b"PACELINE_RUN=two\0PACELINE_JOB=9\0PACELINE_OUTER=zero/3:one/7\0";
        assert_eq!(find_mark(own, "one"), Some(Mark::Job(7)));
        assert_eq!(find_mark(nested, "one"), Some(Mark::Job(7)));
        assert_eq!(find_mark(nested, "zero"), Some(Mark::Job(3)));
        assert_eq!(find_mark(b"PACELINE_RUN=one\0", "one"), Some(Mark::Run));
        assert_eq!(find_mark(own, "on"), None);
        assert_eq!(find_mark(own, "two"), None);
        assert_eq!(find_mark(b"XPACELINE_RUN=one\0", "one"), None);
        assert_eq!(find_mark(b"", "one"), None);
    }

    #[test]
    fn our_own_relations_are_read() {
        let me = i32::try_from(std::process::id()).unwrap();
        let stat = Stat::of(me).unwrap();
        assert!(!stat.is_dead());
        assert_eq!(u32::try_from(stat.parent), Ok(std::os::unix::process::parent_id()));
        assert!(stat.start <= linux::now_in_ticks());
    }
}
