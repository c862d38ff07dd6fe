//! What the kernel knows of threads, children and memory.
//!
//! A worker counts its own CPU time when an item has ended, and a child's
//! when it is reaped. For what still runs, and for the time in which a thread
//! was ready and had no core, whoever looks asks the kernel, by the files
//! under `/proc`. Where one cannot be read the answer is `None`.

use std::{
    fs,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::{
    thread::sched_getaffinity,
    time::{ClockId, clock_gettime},
};

use crate::{pace::Memory, stage};

mod attendance;
mod processes;

pub(crate) use attendance::{Attendance, Shares};
pub(crate) use processes::{Processes, memory as memory_of};

/// How deep descendants of a child are looked for.
const DEEPEST: u32 = 3;

/// How many children of a stage are looked at, at most: the eldest.
pub(crate) const MOST_CHILDREN: usize = 32;

/// A worker's thread, to be looked at by others.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    path: Arc<str>,
    /// CPU time that the thread itself has counted, in nanoseconds.
    pub(crate) counted: Arc<AtomicU64>,
}

impl Thread {
    /// The calling thread.
    pub(crate) fn here() -> Self {
        let path = format!("/proc/self/task/{}/schedstat", rustix::thread::gettid());
        Self { path: path.into(), counted: Arc::default() }
    }

    /// CPU time that it has not counted yet, and the time it had no core so far.
    pub(crate) fn look(&self) -> Option<(Duration, Duration)> {
        let text = fs::read_to_string(&*self.path).ok()?;
        let mut numbers = text.split_ascii_whitespace().map_while(|number| number.parse().ok());
        let (used, queued): (u64, u64) = (numbers.next()?, numbers.next()?);
        let uncounted = used.saturating_sub(self.counted.load(Ordering::Relaxed));
        Some((Duration::from_nanos(uncounted), Duration::from_nanos(queued)))
    }
}

/// CPU time of this process, all its threads together.
pub(crate) fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

/// CPU time of the calling thread.
pub(crate) fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    let used = clock_gettime(clock);
    Duration::new(used.tv_sec.unsigned_abs(), u32::try_from(used.tv_nsec).unwrap_or(0))
}

/// CPU time of a child that still runs, and of its descendants. The kernel
/// counts it here in steps of 10 ms.
pub(crate) fn child_cpu(pid: u32) -> Duration {
    let mut ticks = 0;
    add_ticks(pid, 0..4, DEEPEST, &mut ticks);
    time_of(ticks)
}

/// CPU time of the descendants of a child that still runs, without its own.
fn others_cpu(pid: u32) -> Duration {
    let mut ticks = 0;
    add_ticks(pid, 2..4, DEEPEST, &mut ticks);
    time_of(ticks)
}

fn time_of(ticks: u64) -> Duration {
    // Linux tells it in USER_HZ, which is 100 on every architecture we run on.
    Duration::from_millis(10 * ticks)
}

/// Adds those of utime, stime, cutime and cstime that are asked for, and all
/// of the descendants'.
fn add_ticks(pid: u32, which: Range<usize>, deeper: u32, ticks: &mut u64) {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return };
    // The second field is a name in parentheses, which may hold blanks and parentheses.
    let Some((_, fields)) = stat.rsplit_once(')') else { return };
    // utime, stime, cutime, cstime are fields 14 to 17.
    let times = fields.split_ascii_whitespace().skip(11 + which.start).take(which.len());
    *ticks += times.filter_map(|time| time.parse::<u64>().ok()).sum::<u64>();
    if deeper > 0
        && let Ok(children) = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
    {
        for child in children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()) {
            add_ticks(child, 0..4, deeper - 1, ticks);
        }
    }
}

/// How many cores this process may use: those of its affinity mask, and no more than the quota
/// of its control group and of those above it, which need not be a whole number.
pub(crate) fn cores() -> f64 {
    let whole = stage::cores() as f64;
    // The standard library rounds a quota down.
    let Ok(mask) = sched_getaffinity(None) else { return whole };
    group_path()
        .and_then(|path| quota(&path))
        .map_or(whole, |quota| f64::from(mask.count()).min(quota).max(0.01))
}

/// The least quota of this control group and those above it, in cores.
fn quota(path: &str) -> Option<f64> {
    let group = Path::new(path.trim_start_matches('/'));
    let quotas = group.ancestors().filter_map(|group| {
        let file = Path::new("/sys/fs/cgroup").join(group).join("cpu.max");
        parse_quota(&fs::read_to_string(file).ok()?)
    });
    quotas.min_by(f64::total_cmp)
}

/// Reads `50000 100000`; `max 100000` is none.
fn parse_quota(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

/// The path of this process's control group.
fn group_path() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// What memory is used of what may be: nine tenths of the machine's, or of
/// the control group's if that has less.
pub(crate) fn memory() -> Option<Memory> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let value = |name: &str| -> Option<u64> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
        };
        let total = value("MemTotal:")?;
        Some(Memory { used: total.saturating_sub(value("MemAvailable:")?), budget: total / 10 * 9 })
    });
    let group = group_memory();
    let room = |memory: &Memory| memory.budget.saturating_sub(memory.used);
    [machine, group].into_iter().flatten().min_by_key(room)
}

/// The same for the control group, if it has a limit.
fn group_memory() -> Option<Memory> {
    let path = group_path()?;
    let number = |file: &str| -> Option<u64> {
        fs::read_to_string(format!("/sys/fs/cgroup{path}/{file}")).ok()?.trim().parse().ok()
    };
    let limit: u64 = number("memory.max")?;
    Some(Memory { used: number("memory.current")?, budget: limit / 10 * 9 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burn(time: Duration) {
        let until = thread_cpu() + time;
        while thread_cpu() < until {}
    }

    #[test]
    fn a_threads_cpu_time_is_seen_by_others_while_it_runs() {
        let (tell, hear) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            burn(Duration::from_millis(30));
            tell.send(Thread::here()).unwrap();
            let _ = ended.recv();
        });
        let seen = hear.recv().unwrap().look();
        drop(end);
        thread.join().unwrap();
        // A kernel without these counts says nothing.
        if let Some((used, _)) = seen {
            assert!(used >= Duration::from_millis(20), "{used:?}");
        }
    }

    #[test]
    fn a_running_process_has_used_what_its_clock_says() {
        burn(Duration::from_millis(60));
        let (seen, known) = (child_cpu(std::process::id()), process_cpu());
        assert!(seen >= Duration::from_millis(30), "{seen:?} of {known:?}");
    }

    #[test]
    fn a_quota_may_be_a_part_of_a_core_and_none_is_none() {
        assert_eq!(parse_quota("50000 100000\n"), Some(0.5));
        assert_eq!(parse_quota("150000 100000"), Some(1.5));
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota("0 100000"), None);
        assert_eq!(parse_quota("nonsense"), None);
        let cores = cores();
        assert!(cores > 0.0 && cores < stage::cores() as f64 + 1.0, "{cores}");
    }

    #[test]
    fn memory_is_used_and_has_a_bound() {
        let memory = memory().expect("Linux tells of its memory");
        assert!(memory.used > 0 && memory.budget > 0);
    }
}
