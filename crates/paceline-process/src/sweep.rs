//! Ends what has left its job's group: strays.
//!
//! As a subreaper this program adopts every orphan among its descendants. So
//! a stray, however it got away, is sooner or later a child of ours that
//! nobody started: sooner, when its parent is gone; later, when we have ended
//! its parent. Whose it is, is told by the group it is in, by the mark in its
//! environment, and otherwise by its start time: while a job lives that was
//! there when it was started, it may be that job's.
//!
//! Looking costs a read of one short list and is done at each job's end. All
//! else here happens only if somebody is on that list whom nobody knows.
//!
//! Not here: waiting for the end of what was killed (`reaper.rs`).

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::linux::{self, Watch};
use crate::proc::{self, Mark, Stat};
use crate::program::{self, Program};
use crate::reaper;
use crate::registry::{self, Life};

/// One that has ended before it could be killed may have left a child in its
/// place, and that one too. They cannot win for ever.
const MAX_LOOKS: usize = 1000;

/// What is to be done about an unknown child of ours.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Not a job's, or not certainly: none of our business.
    Foreign,
    /// Part of a job that is alive.
    Spared,
    /// Left over from a job that has ended.
    Stray,
}

/// A process that outlived its job and could not be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    pid: u32,
    name: String,
}

impl Survivor {
    /// Returns its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the name of the program it runs, cut to 15 bytes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Ends strays of jobs that have ended, and sees to it that they are reaped.
///
/// This happens at each job's end by itself. A program whose jobs run for
/// long may call it now and then, for the sake of orphans in them that end by
/// themselves and that nobody but this program can reap. Without
/// [`init`](crate::init) it does nothing.
pub fn sweep() {
    let _ = end_strays();
}

/// Returns those that were met at the last look: none, unless they have won so far.
fn end_strays() -> Vec<i32> {
    let Some(program) = program::get() else { return Vec::new() };
    let mut unknown = program.unknown_children();
    registry::retain_unknown(&mut unknown);
    if unknown.is_empty() {
        return Vec::new();
    }
    // Once more, when every child that was started has been entered.
    let _alone = registry::alone();
    let mut met = Vec::new();
    for _ in 0..MAX_LOOKS {
        met = program.unknown_children();
        registry::retain_unknown(&mut met);
        met.retain(|pid| end_if_stray(program, *pid));
        if met.is_empty() {
            break;
        }
    }
    met
}

/// Kills descendants of a job that is over, wherever they are.
///
/// They were seen before their parents died; later it could not be told whose
/// they are.
pub(crate) fn end_descendants(descendants: &[(i32, Stat)]) {
    registry::condemn(descendants);
    for (pid, stat) in descendants {
        proc::kill(*pid, stat);
    }
}

/// Ends what is left of ended jobs, and waits for that, but not past `limit`.
///
/// Returns what is still there then. Live jobs are left alone. For the end of
/// a run, after the last job's.
pub fn settle(limit: Duration) -> Vec<Survivor> {
    let deadline = Instant::now().checked_add(limit);
    loop {
        let met = end_strays();
        let mut dying = registry::dying();
        dying.extend(met);
        if dying.is_empty() {
            return Vec::new();
        }
        if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let survivor = |pid: i32| Survivor { pid: pid.unsigned_abs(), name: proc::name(pid) };
            return dying.into_iter().map(survivor).collect();
        }
        // What has ended is reaped in the background, and gone soon.
        let soon = Instant::now().checked_add(Duration::from_millis(1));
        let alive = dying.into_iter().filter(|pid| Stat::of(*pid).is_some_and(|s| !s.is_dead()));
        let pidfd = alive.filter_map(Pid::from_raw).find_map(|pid| linux::open_pidfd(pid).ok());
        let _ = match &pidfd {
            Some(pidfd) => linux::wait_any(&[(pidfd.as_fd(), Watch::Readable)], deadline),
            None => linux::wait_any(&[], soon),
        };
    }
}

/// Returns whether there was one.
fn end_if_stray(program: &Program, pid: i32) -> bool {
    let Some(stat) = Stat::of(pid) else { return false };
    let Some(number) = Pid::from_raw(pid) else { return false };
    let verdict = judge(program, pid, &stat);
    if stat.is_dead() {
        // An orphan of a live job has no other parent than us either.
        return verdict != Verdict::Foreign && linux::reap_if_ended(number);
    }
    if verdict != Verdict::Stray {
        return false;
    }
    let descendants = proc::descendants(pid);
    // Nobody but us can reap it: the number is still its own.
    let _ = rustix::process::kill_process(number, rustix::process::Signal::KILL);
    end_descendants(&descendants);
    // Without a descriptor to be had it is reaped at another look.
    linux::open_pidfd(number).is_ok_and(|pidfd| {
        reaper::await_stray(pid, pidfd);
        true
    })
}

fn judge(program: &Program, pid: i32, stat: &Stat) -> Verdict {
    let of = |life| match life {
        Life::Live => Verdict::Spared,
        Life::Ended => Verdict::Stray,
    };
    if registry::is_condemned(pid, stat) {
        return Verdict::Stray;
    }
    if let Some(life) = registry::job_of_group(stat.group) {
        return of(life);
    }
    // The environment of what has ended is gone.
    match proc::mark(pid, program.run()) {
        Some(Mark::Job(job)) => of(registry::life_of(job)),
        Some(Mark::Run) => of(registry::life_at(stat.start)),
        None if program.is_only_parent() => of(registry::life_at(stat.start)),
        None => Verdict::Foreign,
    }
}
