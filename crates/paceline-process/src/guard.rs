//! Cleans up after this program when it is killed and cannot do so itself.
//!
//! The guard is this program's executable, started a second time, in a
//! process group of its own. It waits for the end of a pipe whose only
//! writing end is ours, so that it cannot miss ours. What it must know of the
//! jobs is in a file in memory that we write and it reads when it is needed:
//! entering a job wakes nobody.
//!
//! A process is a job's if it is in a group entered there, carries the mark
//! of the run, or descends from one of these.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::os::unix::process::CommandExt;
use std::process::{self, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource};

use crate::exit::Signal;
use crate::linux;
use crate::proc::{self, Stat};
use crate::program::{self, Program};
use crate::{registry, sweep};

/// The first argument that makes this program a guard.
pub(crate) const ARGUMENT: &str = "__guard";

/// What the guard reads when there is nothing for it to do.
const CLEAN: &[u8] = b"c";

/// More jobs at once than any machine has processes for.
const MAX_SLOTS: usize = 65_536;

/// After the first pass that finds nobody, how long to wait for those who
/// were being started when this program died. They carry no mark yet then.
const SECOND_LOOKS: [Duration; 3] =
    [Duration::from_millis(20), Duration::from_millis(80), Duration::from_millis(200)];

/// How many of the newest processes are looked at in each look of a chase.
const NEWEST: i32 = 4;

/// After so many looks that found nobody a chase is over: less than a millisecond.
const MISSES: u32 = 50;

/// However many there are, and whatever the kernel holds on to.
const LIMIT: Duration = Duration::from_secs(10);

static GUARD: OnceLock<io::Result<Guard>> = OnceLock::new();

/// The running guard, as its program sees it.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) pid: u32,
    pipe: OwnedFd,
    table: OwnedFd,
    slots: usize,
}

/// A job's place in the table: group, and between which ticks it began.
const ENTRY: usize = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    group: i32,
    since: u64,
    until: u64,
}

impl Entry {
    fn to_bytes(self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..8].copy_from_slice(&i64::from(self.group).to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.since.to_ne_bytes());
        bytes[16..].copy_from_slice(&self.until.to_ne_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Entry> {
        let number = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let group = i32::try_from(number(0)?).ok().filter(|group| *group > 1)?;
        Some(Entry { group, since: number(8)?, until: number(16)? })
    }
}

/// Returns the guard, or why there is none; starts it at the first call.
///
/// `None` if the program has not asked for one.
pub(crate) fn get() -> Option<Result<&'static Guard, &'static io::Error>> {
    let program = program::get()?;
    program.wants_guard().then(|| GUARD.get_or_init(|| start(program.run())).as_ref())
}

fn start(run: &str) -> io::Result<Guard> {
    let (reader, writer) = linux::pipe()?;
    let table = linux::memory_file()?;
    // Past the largest file allowed, a write would end this program.
    let largest = rustix::process::getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    let slots = usize::try_from(largest / ENTRY as u64).unwrap_or(MAX_SLOTS).min(MAX_SLOTS);
    let _starting = registry::starting();
    let guard = process::Command::new("/proc/self/exe")
        .arg0("paceline-guard")
        .args([ARGUMENT, run])
        // Without the marks of an outer run, which would end it with us.
        .env_clear()
        .stdin(Stdio::from(reader))
        .stdout(Stdio::from(linux::duplicate(&table)?))
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    registry::enter_helper(i32::try_from(guard.id()).unwrap_or(0));
    linux::at_exit(leave_clean);
    Ok(Guard { pid: guard.id(), pipe: writer, table, slots })
}

extern "C" fn leave_clean() {
    end_jobs();
}

/// Kills all jobs and strays, and lets the guard go if there were none.
///
/// Happens by itself when the program exits. One that is about to end by a
/// signal calls it before; it must start no jobs afterwards. It does not wait
/// for the dying: [`settle`](crate::settle) does.
pub fn end_jobs() {
    // A fork of this program that ends is not the program.
    if !program::get().is_some_and(Program::is_this_process) {
        return;
    }
    let was_idle = registry::is_idle();
    if !was_idle {
        registry::kill_all();
    }
    // While we are there, orphans have a parent that tells them from others.
    sweep::sweep();
    if let Some(Ok(guard)) = GUARD.get()
        && was_idle
        && program::get().is_some_and(Program::is_childless)
        // Writing to nobody could be a deadly signal.
        && guard.is_running()
    {
        // Without it the guard finds out by itself.
        let _ = linux::write_some(&guard.pipe, CLEAN);
    }
}

impl Guard {
    /// Enters a job. What does not fit is found by its mark alone.
    pub(crate) fn enter(&self, slot: usize, group: i32, since: u64, until: u64) {
        self.write(slot, Entry { group, since, until });
    }

    /// Takes a job out, while its group's number is still its own.
    pub(crate) fn leave(&self, slot: usize) {
        self.write(slot, Entry { group: 0, since: 0, until: 0 });
    }

    fn write(&self, slot: usize, entry: Entry) {
        if slot < self.slots {
            let _ = linux::write_at(&self.table, &entry.to_bytes(), (slot * ENTRY) as u64);
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        let pid = i32::try_from(self.pid).unwrap_or(0);
        Stat::of(pid).is_some_and(|stat| !stat.is_dead())
    }
}

/// Says whether this process has been started to be a guard, and for whom.
pub(crate) fn asked_for() -> Option<String> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let run = arguments.next()?.into_string().ok()?;
    // Whoever types this gets what the program makes of such arguments.
    let stdin = io::stdin().as_fd().try_clone_to_owned().ok().map(File::from)?;
    let is_pipe = stdin.metadata().ok()?.file_type().is_fifo();
    (arguments.next().is_none() && is_pipe).then_some(run)
}

/// Is the guard of `run`: waits for its runner's end and cleans up after it.
pub(crate) fn serve(run: &str) -> ! {
    linux::signals::outlive_requests();
    linux::signals::unblock_signals();
    let _ = std::env::set_current_dir("/");
    let mut said = [0; 1];
    let clean = loop {
        match io::stdin().lock().read(&mut said) {
            Ok(0) => break false,
            Ok(_) => break true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break false,
        }
    };
    if !clean {
        clean_up(run, &entries());
    }
    process::exit(0)
}

/// Returns the jobs that were entered when the runner died.
fn entries() -> Vec<Entry> {
    let Ok(table) = io::stdout().as_fd().try_clone_to_owned() else { return Vec::new() };
    let table = File::from(table);
    let length = table.metadata().map_or(0, |found| found.len());
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let _ = table.read_exact_at(&mut bytes, 0);
    bytes.chunks(ENTRY).filter_map(Entry::from_bytes).collect()
}

/// Kills whatever carries the mark of `run`, another program's run that is over, with its
/// descendants.
///
/// For whoever goes on with what a killed program has begun; `run` is its
/// [`Program::run`]. Its guard does the same, so this waits until nobody is
/// left, some 0.3 s at least and 10 s at most.
pub fn end_run(run: &str) {
    clean_up(run, &[]);
}

fn clean_up(run: &str, jobs: &[Entry]) {
    let groups: HashMap<i32, Entry> = jobs.iter().map(|entry| (entry.group, *entry)).collect();
    let deadline = Instant::now() + LIMIT;
    let mut second_looks = SECOND_LOOKS.iter();
    while Instant::now() < deadline {
        if chase(run, deadline) + kill_all(run, &groups) > 0 {
            linux::pause(Duration::from_millis(1));
        } else if let Some(wait) = second_looks.next() {
            linux::pause(*wait);
        } else {
            return;
        }
    }
}

/// Kills the newest processes as long as they are of `run`, and returns how many that were.
///
/// One that forks and ends for ever is gone by the time that all processes
/// have been looked at. But the newest of its kind has not forked yet.
fn chase(run: &str, deadline: Instant) -> usize {
    let me = i32::try_from(process::id()).unwrap_or(0);
    let (mut killed, mut misses) = (0, 0);
    while misses < MISSES && Instant::now() < deadline {
        let Some(newest) = proc::newest() else { break };
        let met = (0..NEWEST)
            .map(|back| newest - back)
            .filter(|pid| *pid > 1 && *pid != me)
            .filter_map(|pid| Some((pid, Stat::of(pid)?)))
            .filter(|(pid, stat)| !stat.is_dead() && proc::mark(*pid, run).is_some())
            .map(|(pid, stat)| proc::kill(pid, &stat))
            .count();
        killed += met;
        misses = if met == 0 { misses + 1 } else { 0 };
    }
    killed
}

/// Kills once all that can be found, and returns how many that were.
fn kill_all(run: &str, groups: &HashMap<i32, Entry>) -> usize {
    let me = i32::try_from(process::id()).unwrap_or(0);
    let user = proc::user(me);
    let processes: HashMap<i32, Stat> = proc::all()
        .into_iter()
        .filter(|pid| *pid > 1 && *pid != me && proc::user(*pid) == user)
        .filter_map(|pid| Some((pid, Stat::of(pid)?)))
        .filter(|(_, stat)| !stat.is_dead())
        .collect();
    let is_in_group = |pid: i32, stat: &Stat| {
        groups.get(&stat.group).is_some_and(|entry| {
            // The leader began while it was entered; the others later.
            stat.start >= entry.since && (pid != stat.group || stat.start <= entry.until)
        })
    };
    let mut found: HashSet<i32> = processes
        .iter()
        .filter(|(pid, stat)| is_in_group(**pid, stat) || proc::mark(**pid, run).is_some())
        .map(|(pid, _)| *pid)
        .collect();
    loop {
        let more: Vec<i32> = processes
            .iter()
            .filter(|(pid, stat)| found.contains(&stat.parent) && !found.contains(*pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    // A kill of a group cannot be outrun by forking.
    let mut killed = HashSet::new();
    for (pid, stat) in processes.iter().filter(|(pid, stat)| is_in_group(**pid, stat)) {
        if let Some(group) = Pid::from_raw(stat.group)
            && killed.insert(group)
            && Stat::of(*pid).as_ref().is_some_and(|again| again.start == stat.start)
        {
            let _ = linux::signal_group(group, Signal::KILL);
        }
    }
    for pid in &found {
        proc::kill(*pid, &processes[pid]);
    }
    found.len()
}
