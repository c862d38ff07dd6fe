//! Reaps, in the background, children whose handles were dropped.
//!
//! One thread, which is there only while there is something to reap. What it
//! is given has been killed, so it waits for moments, unless the kernel holds
//! a process in a system call that cannot be interrupted.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::group::Group;
use crate::linux::{self, Watch};

static REAPER: Mutex<Option<Reaper>> = Mutex::new(None);

/// What the running thread has yet to take over, and how to tell it.
struct Reaper {
    waiting: Vec<Group>,
    bell: Arc<OwnedFd>,
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
    let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reaper) = &mut *reaper {
        reaper.waiting.push(group);
        linux::ring(&reaper.bell);
        return;
    }
    if let Ok(bell) = linux::bell() {
        let bell = Arc::new(bell);
        let thread = thread::Builder::new().name("paceline-reaper".to_owned());
        let rung = Arc::clone(&bell);
        // The lock is held: the thread looks for work only once it is there.
        if thread.spawn(move || reap_until_idle(&rung)).is_ok() {
            *reaper = Some(Reaper { waiting: vec![group], bell });
            return;
        }
    }
    drop(reaper);
    // Neither a descriptor nor a thread to be had: wait here.
    let _ = group.wait_until(None);
    group.finish();
}

fn reap_until_idle(bell: &OwnedFd) {
    let mut dying: Vec<Group> = Vec::new();
    loop {
        {
            let mut reaper = REAPER.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(reaper) = &mut *reaper {
                linux::silence(bell);
                dying.append(&mut reaper.waiting);
            }
            dying.retain(|group| {
                let ended = group.look().is_some();
                if ended {
                    group.finish();
                }
                !ended
            });
            if dying.is_empty() {
                // Under the lock: whoever comes later starts another thread.
                *reaper = None;
                return;
            }
        }
        let mut watched = vec![(bell.as_fd(), Watch::Readable)];
        let mut all_seen = false;
        for group in &dying {
            let before = watched.len();
            watched.extend(group.watched());
            all_seen |= watched.len() == before;
        }
        if all_seen {
            // By another thread, a moment ago: take it out before waiting.
            continue;
        }
        if linux::wait_any(&watched, None).is_err() {
            // Too many for one poll(2), or no memory: take them one by one.
            if let Some(group) = dying.pop() {
                let _ = group.wait_until(None);
                group.finish();
            }
        }
    }
}
