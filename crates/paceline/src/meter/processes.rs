//! What the worker processes of a stage use, by the kernel's account.
//!
//! The stage's loop says which there are, the conductor looks at them: CPU
//! time by the clock of each process, which counts all its threads, and the
//! time that its first thread had no core. What costs more to find out, its
//! memory and the CPU time of processes that it has started itself, is looked
//! at rarely, unless there are such.

use std::{collections::BTreeMap, fs, sync::Mutex, time::Duration};

use paceline_process::Group;

use crate::sync::lock;

/// How often the dear things are looked at.
const RARELY: Duration = Duration::from_secs(1);

/// The worker processes of a stage.
#[derive(Debug, Default)]
pub(crate) struct Processes(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    there: BTreeMap<u32, Process>,
    /// What those used that have left.
    left: Used,
    /// How long the last took to begin.
    start: Option<Duration>,
    /// The most memory that one has resident.
    memory: Option<u64>,
    rarely: Option<Duration>,
}

#[derive(Debug)]
struct Process {
    group: Group,
    /// What it had used when it began, once it has; its start is no item's.
    before: Option<Used>,
    seen: Used,
    /// CPU time of processes that it has started.
    others: Duration,
}

/// Time on a core, and time without one though there was work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    pub(crate) queued: Duration,
}

/// What a look has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) used: Used,
    pub(crate) start: Option<Duration>,
    pub(crate) memory: Option<u64>,
}

impl Used {
    fn add(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.queued += other.queued;
    }

    fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            queued: self.queued.saturating_sub(before.queued),
        }
    }
}

impl Process {
    fn look(&mut self) {
        // Reaped: what was seen last counts.
        let Some(cpu) = self.group.cpu() else { return };
        let queued = queued(self.group.id()).unwrap_or(self.seen.queued);
        self.seen = Used { cpu: self.seen.cpu.max(cpu + self.others), queued };
    }

    fn used(&self) -> Used {
        self.before.map_or_else(Used::default, |before| self.seen.since(before))
    }
}

impl Processes {
    /// A process was started. One in the place of another is at work from its
    /// start on: that has to be done again and again.
    pub(crate) fn started(&self, group: Group, is_replacement: bool) {
        let before = is_replacement.then(Used::default);
        let (seen, others) = (Used::default(), Duration::ZERO);
        lock(&self.0).there.insert(group.id(), Process { group, before, seen, others });
    }

    /// It begins with its work, `start` after its own beginning if that is known.
    pub(crate) fn begins(&self, id: u32, start: Option<Duration>) {
        let mut known = lock(&self.0);
        known.start = start.or(known.start);
        if let Some(process) = known.there.get_mut(&id)
            && process.before.is_none()
        {
            process.look();
            process.before = Some(process.seen);
        }
    }

    /// It is seen off.
    pub(crate) fn left(&self, id: u32) {
        let mut known = lock(&self.0);
        if let Some(mut process) = known.there.remove(&id) {
            process.look();
            known.left.add(process.used());
        }
    }

    /// Looks at all of them.
    pub(crate) fn look(&self, now: Duration) -> Seen {
        let mut known = lock(&self.0);
        let is_rare = known.rarely.is_none_or(|at| now >= at);
        if is_rare {
            known.rarely = Some(now + RARELY);
            known.memory = known.there.keys().filter_map(|id| memory(*id)).max();
        }
        let mut used = known.left;
        for (id, process) in &mut known.there {
            if is_rare || !process.others.is_zero() {
                process.others = process.others.max(super::others_cpu(*id));
            }
            process.look();
            used.add(process.used());
        }
        Seen { used, start: known.start, memory: known.memory }
    }
}

/// The time that the first thread of a process was ready and had no core.
fn queued(id: u32) -> Option<Duration> {
    let text = fs::read_to_string(format!("/proc/{id}/schedstat")).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// The memory that a process has resident, in bytes.
pub(crate) fn memory(id: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{id}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use paceline_process::{Child, Command, Stdin, Stdout};

    use super::*;

    /// Computes for each line, and says so.
    fn computer() -> Child {
        let script =
            "while read -r n; do i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo; done";
        let command = Command::new("sh").args(["-c", script]);
        command.stdin(Stdin::Pipe).stdout(Stdout::Pipe).spawn().unwrap()
    }

    fn compute(child: &mut Child, to: &mut impl std::io::Write, from: &mut impl std::io::Read) {
        let before = child.group().cpu().unwrap();
        while child.group().cpu().unwrap() < before + Duration::from_millis(10) {
            to.write_all(b"x\n").unwrap();
            from.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn a_process_counts_from_when_it_begins_and_one_that_replaces_another_from_its_start() {
        let processes = Processes::default();
        let mut child = computer();
        let (mut to, mut from) = (child.take_stdin().unwrap(), child.take_stdout().unwrap());
        processes.started(child.group(), false);
        compute(&mut child, &mut to, &mut from);
        assert_eq!(processes.look(Duration::ZERO).used.cpu, Duration::ZERO);
        processes.begins(child.id(), Some(Duration::from_millis(7)));
        compute(&mut child, &mut to, &mut from);
        let seen = processes.look(Duration::from_secs(1));
        assert!(seen.used.cpu >= Duration::from_millis(10), "{seen:?}");
        assert_eq!(seen.start, Some(Duration::from_millis(7)));
        assert!(seen.memory.is_some_and(|memory| memory > 0));
        // What it used stays counted when it has gone, and nobody looks at its number.
        processes.left(child.id());
        drop(to);
        child.communicate(None).unwrap();
        let last = processes.look(Duration::from_secs(2));
        assert!(last.used.cpu >= seen.used.cpu && last.memory.is_none(), "{last:?}");

        let mut child = computer();
        let (mut to, mut from) = (child.take_stdin().unwrap(), child.take_stdout().unwrap());
        processes.started(child.group(), true);
        compute(&mut child, &mut to, &mut from);
        let more = processes.look(Duration::from_secs(3)).used.cpu;
        assert!(more >= last.used.cpu + Duration::from_millis(10), "{more:?} after {last:?}");
    }
}
