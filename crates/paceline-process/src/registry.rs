//! Who of this program's children is known, and which jobs are alive.
//!
//! A job is a child or a chain: what one [`Group`] stands for. Whoever starts
//! children holds [`starting`] until they are entered here, so that whoever
//! holds [`alone`] sees no child of ours that is not known and not a stray.
//!
//! Not here: what is done about strays (`sweep.rs`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{
    LazyLock, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

use crate::exit::Signal;
use crate::group::{Group, WeakGroup};
use crate::proc::Stat;

static STARTING: RwLock<()> = RwLock::new(());
static REGISTRY: LazyLock<Mutex<Registry>> = LazyLock::new(Mutex::default);
static NEXT_JOB: AtomicU64 = AtomicU64::new(1);

#[derive(Default)]
struct Registry {
    jobs: HashMap<u64, Job>,
    /// Every child that somebody will reap: those of jobs, helpers of our
    /// own, and strays whose end is waited for.
    known: HashMap<i32, Owner>,
    /// Descendants of ended jobs that have been killed but are not, or not
    /// yet, children of ours, with their start times.
    condemned: HashMap<i32, u64>,
    /// The places in the guard's table that are free again.
    free_slots: Vec<usize>,
    slots: usize,
    is_stopped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Job(u64),
    Helper,
    Stray,
}

struct Job {
    group: WeakGroup,
    leader: i32,
    /// A moment before its first process was there.
    since: u64,
    slot: usize,
    has_ended: bool,
    /// Killed, and left to the reaper.
    is_dropped: bool,
}

/// What is alive that could have started a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Live,
    Ended,
}

fn registry() -> MutexGuard<'static, Registry> {
    // The registry is whole between any two statements that change it.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Must be held from before a child is started until it is entered.
pub(crate) fn starting() -> RwLockReadGuard<'static, ()> {
    STARTING.read().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps children from being started meanwhile.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    STARTING.write().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a number that no other job of this program has.
pub(crate) fn next_job() -> u64 {
    NEXT_JOB.fetch_add(1, Ordering::Relaxed)
}

/// Enters a job that was started after the tick `since`, and returns its
/// place in the guard's table.
pub(crate) fn enter(job: u64, group: &Group, since: u64) -> usize {
    let mut registry = registry();
    let registry = &mut *registry;
    for pid in group.pids() {
        registry.known.insert(pid, Owner::Job(job));
    }
    let slot = registry.free_slots.pop().unwrap_or_else(|| {
        registry.slots += 1;
        registry.slots - 1
    });
    let leader = group.leader_id();
    let entry =
        Job { group: group.downgrade(), leader, since, slot, has_ended: false, is_dropped: false };
    registry.jobs.insert(job, entry);
    slot
}

/// Notes that a job is over: what is left of it is a stray from here on.
pub(crate) fn end(job: u64) -> Option<usize> {
    let mut registry = registry();
    let job = registry.jobs.get_mut(&job)?;
    job.has_ended = true;
    Some(job.slot)
}

/// Notes that a job has been killed and that the reaper will see its end.
pub(crate) fn drop_job(job: u64) {
    if let Some(job) = registry().jobs.get_mut(&job) {
        job.is_dropped = true;
    }
}

/// Forgets a job whose processes have been reaped.
pub(crate) fn leave(job: u64, pids: impl Iterator<Item = i32>) {
    for pid in pids {
        forget(pid, Owner::Job(job));
    }
    let mut registry = registry();
    if let Some(job) = registry.jobs.remove(&job) {
        registry.free_slots.push(job.slot);
    }
}

/// Enters a child that serves this crate itself.
pub(crate) fn enter_helper(pid: i32) {
    registry().known.insert(pid, Owner::Helper);
}

/// Enters a stray whose end somebody waits for.
pub(crate) fn enter_stray(pid: i32) {
    registry().known.insert(pid, Owner::Stray);
}

/// Forgets a helper that has been reaped.
pub(crate) fn forget_helper(pid: i32) {
    forget(pid, Owner::Helper);
}

/// Forgets a stray that has been reaped, or that nobody will wait for.
pub(crate) fn forget_stray(pid: i32) {
    forget(pid, Owner::Stray);
}

fn forget(pid: i32, owner: Owner) {
    let mut registry = registry();
    // The number of a reaped process may already be another's.
    if registry.known.get(&pid) == Some(&owner) {
        registry.known.remove(&pid);
    }
}

/// Returns those that have been killed, strays and dropped jobs, and that the
/// reaper has yet to see gone.
pub(crate) fn dying() -> Vec<i32> {
    let registry = registry();
    let strays = registry.known.iter().filter(|(_, owner)| **owner == Owner::Stray);
    let dropped = registry.jobs.values().filter(|job| job.is_dropped);
    strays.map(|(pid, _)| *pid).chain(dropped.map(|job| job.leader)).collect()
}

/// Notes who is to be killed and reaped whenever it comes to us.
pub(crate) fn condemn(descendants: &[(i32, Stat)]) {
    registry().condemned.extend(descendants.iter().map(|(pid, stat)| (*pid, stat.start)));
}

/// Says whether this process has been condemned.
pub(crate) fn is_condemned(pid: i32, stat: &Stat) -> bool {
    registry().condemned.get(&pid) == Some(&stat.start)
}

/// Forgets those condemned who are gone, whoever has reaped them.
pub(crate) fn forget_the_gone() {
    let is_there = |pid: i32, start: u64| Stat::of(pid).is_some_and(|stat| stat.start == start);
    registry().condemned.retain(|pid, start| is_there(*pid, *start));
}

/// Leaves those that nobody here knows.
pub(crate) fn retain_unknown(pids: &mut Vec<i32>) {
    if !pids.is_empty() {
        let registry = registry();
        pids.retain(|pid| !registry.known.contains_key(pid));
    }
}

/// Says how it is about the job whose group is numbered `group`.
pub(crate) fn job_of_group(group: i32) -> Option<Life> {
    let registry = registry();
    registry.jobs.values().find(|job| job.leader == group).map(Job::life)
}

/// Says whether the job is alive; one that was forgotten is not.
pub(crate) fn life_of(job: u64) -> Life {
    registry().jobs.get(&job).map_or(Life::Ended, Job::life)
}

/// Says whether a job is alive that was there at the tick. One that was started in that very
/// tick, of 10 ms, counts: better to leave a stray until that job ends than to end what is its.
pub(crate) fn life_at(tick: u64) -> Life {
    let registry = registry();
    let mut jobs = registry.jobs.values();
    if jobs.any(|job| !job.has_ended && job.since <= tick) { Life::Live } else { Life::Ended }
}

/// Kills the groups of all jobs, which are over then.
pub(crate) fn kill_all() {
    for job in registry().jobs.values_mut() {
        job.has_ended = true;
    }
    signal_all(Signal::KILL);
}

/// Says whether no job is alive.
pub(crate) fn is_idle() -> bool {
    registry().jobs.values().all(|job| job.has_ended)
}

/// Returns the groups of all jobs that are alive.
fn groups() -> Vec<Group> {
    registry().jobs.values().filter_map(|job| job.group.upgrade()).collect()
}

/// Says whether jobs are to be stopped (as by Ctrl-Z) when they are started.
pub(crate) fn is_stopped() -> bool {
    registry().is_stopped
}

/// Stops the processes of all jobs, as Ctrl-Z does, and of those to come.
///
/// For a program that is about to stop itself. They are sent SIGSTOP and not
/// SIGTSTP, which has no effect on a group that no shell looks after. What
/// has left its job's group goes on.
pub fn stop_all_jobs() {
    registry().is_stopped = true;
    signal_all(Signal::STOP);
}

/// Lets all jobs go on after [`stop_all_jobs`].
pub fn continue_all_jobs() {
    registry().is_stopped = false;
    signal_all(Signal::CONT);
}

fn signal_all(signal: Signal) {
    // Not under the lock: a group that ends holds its own and waits for ours.
    for group in groups() {
        // It can fail only for processes that became another user's.
        let _ = group.signal(signal);
    }
}

impl Job {
    fn life(&self) -> Life {
        if self.has_ended { Life::Ended } else { Life::Live }
    }
}
