//! What the worker processes of a stage use, by the kernel's account.
//!
//! The stage's loop says which there are, the conductor looks at them: CPU
//! time by the clock of each process, which counts all its threads, and the
//! time that its first thread had no core. That is a file to be read, so only
//! a few processes are asked for it in a look, in turns: sums only grow, and
//! what comes later is not lost. What costs more to find out, the memory of a
//! process and the CPU time of those that it has started itself, is looked at
//! rarely and of one at a time, unless there are such.

use std::{collections::BTreeMap, fs, sync::Mutex, time::Duration};

use paceline_process::Group;

use crate::sync::lock;

/// How often the dear things of one process are looked at.
const RARELY: Duration = Duration::from_millis(250);

/// How many processes a look asks how long they had no core, some more or less.
const ASKED: usize = 8;

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
    /// When the dear things are looked at, and of the process from which number on.
    rarely: Option<(Duration, u32)>,
    turn: usize,
}

#[derive(Debug)]
struct Process {
    group: Group,
    /// What it had used when it began, once it has; its start is no item's.
    before: Option<Used>,
    seen: Used,
    /// CPU time of processes that it has started.
    others: Duration,
    /// What it has resident.
    memory: Option<u64>,
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
    fn look(&mut self, asks: bool) {
        // Reaped: what was seen last counts.
        let Some(cpu) = self.group.cpu() else { return };
        self.seen.cpu = self.seen.cpu.max(cpu + self.others);
        if asks && let Some(queued) = queued(self.group.id()) {
            self.seen.queued = queued;
        }
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
        let (seen, others, memory) = (Used::default(), Duration::ZERO, None);
        lock(&self.0).there.insert(group.id(), Process { group, before, seen, others, memory });
    }

    /// It begins with its work, `start` after its own beginning if that is known.
    pub(crate) fn begins(&self, id: u32, start: Option<Duration>) {
        let mut known = lock(&self.0);
        known.start = start.or(known.start);
        if let Some(process) = known.there.get_mut(&id)
            && process.before.is_none()
        {
            process.look(true);
            process.before = Some(process.seen);
        }
    }

    /// It is seen off.
    pub(crate) fn left(&self, id: u32) {
        let mut known = lock(&self.0);
        if let Some(mut process) = known.there.remove(&id) {
            process.look(true);
            known.left.add(process.used());
        }
    }

    /// Looks at all of them.
    pub(crate) fn look(&self, now: Duration) -> Seen {
        let mut known = lock(&self.0);
        known.look_at_dear(now);
        let turns = known.there.len().div_ceil(ASKED).max(1);
        known.turn = (known.turn + 1) % turns;
        let (turn, mut used) = (known.turn, known.left);
        // What one of them does the others do too.
        let start_some = known.there.values().any(|process| !process.others.is_zero());
        for (index, (id, process)) in known.there.iter_mut().enumerate() {
            if start_some {
                process.others = process.others.max(super::others_cpu(*id));
            }
            process.look(index % turns == turn);
            used.add(process.used());
        }
        let memory = known.there.values().filter_map(|process| process.memory).max();
        Seen { used, start: known.start, memory }
    }
}

impl Known {
    /// Looks at what is dear to find out, of the next process.
    fn look_at_dear(&mut self, now: Duration) {
        let from = match self.rarely {
            Some((at, _)) if now < at => return,
            Some((_, from)) => from,
            None => 0,
        };
        let next = self.there.range(from..).next().or(self.there.first_key_value());
        let Some(id) = next.map(|(id, _)| *id) else { return };
        self.rarely = Some((now + RARELY, id.saturating_add(1)));
        if let Some(process) = self.there.get_mut(&id) {
            process.memory = memory(id);
            process.others = process.others.max(super::others_cpu(id));
        }
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
