//! Reaps, in the background, what has been killed: children whose handles
//! were dropped, and strays.
//!
//! One thread, which is there only while there is something to reap. What it
//! is given has been killed, so it waits for moments, unless the kernel holds
//! a process in a system call that cannot be interrupted. A stray that has
//! ended may leave us its own children, so it is followed by another sweep.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use rustix::process::Pid;

use crate::group::Group;
use crate::linux::{self, Watch};
use crate::{registry, sweep};

static REAPER: Mutex<Option<Reaper>> = Mutex::new(None);

/// What the running thread has yet to take over, and how to tell it.
struct Reaper {
    waiting: Vec<Dying>,
    bell: Arc<OwnedFd>,
}

fn lock() -> MutexGuard<'static, Option<Reaper>> {
    // What it holds is whole between any two statements that change it.
    REAPER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills the group now and sees to it that it is reaped.
///
/// Does not wait, unless no thread can be started.
pub(crate) fn kill_and_reap(group: Group) {
    // It can fail only for processes that became another user's.
    let _ = group.kill();
    if group.look().is_some() {
        group.finish();
        return;
    }
    group.note_dropped();
    if let Err(dying) = hand_over(Dying::Group(group)) {
        dying.wait();
    }
}

/// Gives it to the thread, or back if there is neither a descriptor nor a
/// thread to be had.
fn hand_over(dying: Dying) -> Result<(), Dying> {
    let mut reaper = lock();
    if let Some(reaper) = &mut *reaper {
        reaper.waiting.push(dying);
        linux::ring(&reaper.bell);
        return Ok(());
    }
    let Ok(bell) = linux::bell() else { return Err(dying) };
    let bell = Arc::new(bell);
    let thread = thread::Builder::new().name("paceline-reaper".to_owned());
    let rung = Arc::clone(&bell);
    // The lock is held: the thread looks for work only once it is there.
    if thread.spawn(move || reap_until_idle(&rung)).is_err() {
        return Err(dying);
    }
    *reaper = Some(Reaper { waiting: vec![dying], bell });
    Ok(())
}

/// Sees to it that a stray, which has been killed, is reaped.
pub(crate) fn await_stray(pid: i32, pidfd: OwnedFd) {
    registry::enter_stray(pid);
    if hand_over(Dying::Stray { pid, pidfd }).is_err() {
        // It will be found dead by a later sweep.
        registry::forget_stray(pid);
    }
}

fn reap_until_idle(bell: &OwnedFd) {
    let mut dying: Vec<Dying> = Vec::new();
    loop {
        linux::silence(bell);
        if let Some(reaper) = &mut *lock() {
            dying.append(&mut reaper.waiting);
        }
        // Not under the lock: the end of a group may bring strays here.
        let mut orphans_may_come = false;
        dying.retain(|dying| {
            let is_done = dying.reap();
            orphans_may_come |= is_done && matches!(dying, Dying::Stray { .. });
            !is_done
        });
        if orphans_may_come {
            sweep::sweep();
            registry::forget_the_gone();
        }
        if dying.is_empty() {
            let mut reaper = lock();
            if reaper.as_ref().is_none_or(|reaper| reaper.waiting.is_empty()) {
                // Under the lock: whoever comes later starts another thread.
                *reaper = None;
                return;
            }
            continue;
        }
        let mut watched = vec![(bell.as_fd(), Watch::Readable)];
        let mut all_seen = false;
        for dying in &dying {
            let before = watched.len();
            dying.watch(&mut watched);
            all_seen |= watched.len() == before;
        }
        if all_seen {
            // By another thread, a moment ago: take it out before waiting.
            continue;
        }
        if linux::wait_any(&watched, None).is_err() {
            // Too many for one poll(2), or no memory: take them one by one.
            if let Some(dying) = dying.pop() {
                dying.wait();
            }
        }
    }
}

/// What has been killed and must be reaped.
enum Dying {
    Group(Group),
    Stray { pid: i32, pidfd: OwnedFd },
}

impl Dying {
    /// Reaps it if it has ended.
    fn reap(&self) -> bool {
        match self {
            Dying::Group(group) => {
                let has_ended = group.look().is_some();
                if has_ended {
                    group.finish();
                }
                has_ended
            }
            Dying::Stray { pid, .. } => {
                let Some(number) = Pid::from_raw(*pid) else { return true };
                // Nobody else reaps it meanwhile: it is known.
                let has_ended = linux::reap_if_ended(number);
                if has_ended {
                    registry::forget_stray(*pid);
                }
                has_ended
            }
        }
    }

    fn watch<'a>(&'a self, watched: &mut Vec<(BorrowedFd<'a>, Watch)>) {
        match self {
            Dying::Group(group) => watched.extend(group.watched()),
            Dying::Stray { pidfd, .. } => watched.push((pidfd.as_fd(), Watch::Readable)),
        }
    }

    fn wait(&self) {
        let mut watched = Vec::new();
        self.watch(&mut watched);
        for one in watched {
            let _ = linux::wait_any(&[one], None);
        }
        self.reap();
    }
}
