//! Puts right what this program was started with, for itself and its jobs.
//!
//! Whatever starts us may have blocked or ignored signals and left files
//! open, and jobs would inherit all of it: one that ignores TERM cannot be
//! stopped, and one that holds somebody's pipe open keeps its reader waiting.
//!
//! Not here: what a signal does to a run (`signals.rs`).

use std::{fs, io, mem, ptr, sync::Arc};

use signal_hook::{
    consts::{FORBIDDEN, SIGHUP, SIGPIPE},
    flag,
};

/// The signals that a program can have an answer to; the ones after are for
/// real time and libc's own.
const LAST_SIGNAL: i32 = 31;

/// Lets jobs inherit no signal setting and no descriptor but 0, 1 and 2.
///
/// To be called before there is a second thread. Returns whether HUP was
/// ignored, as `nohup` has it.
///
/// # Errors
///
/// If a signal cannot be given a handler.
pub(crate) fn put_right() -> io::Result<bool> {
    unblock_signals()?;
    let ignored = ignored_signals();
    // A handler that does nothing: for us it is as good as none, and what is
    // handled here is at its default in a job. Jobs have SIGPIPE so anyway.
    for signal in (1..=LAST_SIGNAL).filter(|signal| ignored & bit(*signal) != 0) {
        if signal != SIGPIPE && !FORBIDDEN.contains(&signal) {
            flag::register(signal, Arc::default())?;
        }
    }
    close_on_exec();
    Ok(ignored & bit(SIGHUP) != 0)
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// The signals that are ignored, as bits.
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn unblock_signals() -> io::Result<()> {
    // SAFETY: a `sigset_t` is integers, for which all zeroes is a value; it is
    // a live local of the type that both calls take, and no old mask is asked
    // for.
    let done = unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(done)) }
}

/// Lets what is open from number 3 up end with this program.
fn close_on_exec() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for number in numbers.filter(|number| *number > 2) {
        // SAFETY: fcntl(2) takes three numbers. If the number is no open
        // descriptor any more, as that of this folder, it says so and does
        // nothing.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
