//! What this process does about signals, and what it leaves to the programs that it executes.

use std::{mem, ptr};

use rustix::process::{Resource, Rlimit};

/// Returns all signals that can have a handler, as their numbers.
fn signals() -> impl Iterator<Item = i32> {
    (1..=libc::SIGRTMAX()).filter(|signal| !matches!(*signal, libc::SIGKILL | libc::SIGSTOP))
}

fn disposition(signal: i32) -> Option<libc::sighandler_t> {
    // SAFETY: as in `keep_statuses`.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        (libc::sigaction(signal, ptr::null(), &raw mut action) == 0).then_some(action.sa_sigaction)
    }
}

fn set_disposition(signal: i32, handler: libc::sighandler_t) {
    // SAFETY: `handler` is SIG_DFL, SIG_IGN or one of the functions below,
    // which do nothing that a handler may not. glibc keeps two signals to
    // itself and refuses.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

extern "C" fn do_nothing(_: i32) {}

/// Goes on ignoring the signal. A restarted read from or write to the
/// terminal would raise it again, and again, if it were only handled.
extern "C" fn ignore_again(signal: i32) {
    set_disposition(signal, libc::SIG_IGN);
}

fn idle_handler(signal: i32) -> libc::sighandler_t {
    let handler: extern "C" fn(i32) = match signal {
        libc::SIGTTIN | libc::SIGTTOU => ignore_again,
        _ => do_nothing,
    };
    handler as *const () as libc::sighandler_t
}

/// Gives inherited ignored signals a handler that does nothing.
///
/// They stay without effect here, but a handler, unlike "ignored", is not
/// inherited by the programs that we execute. SIGPIPE is left as it is, which
/// Rust's runtime ignores itself and a start restores. Two that glibc keeps to
/// itself (32 and 33) stay as they were inherited.
///
/// Returns whether SIGHUP was ignored, as `nohup` has it.
pub(crate) fn handle_ignored_signals() -> bool {
    set_disposition(libc::SIGCHLD, libc::SIG_DFL);
    let outlives_hangup = disposition(libc::SIGHUP) == Some(libc::SIG_IGN);
    for signal in signals().filter(|signal| *signal != libc::SIGPIPE) {
        if disposition(signal) == Some(libc::SIG_IGN) {
            set_disposition(signal, idle_handler(signal));
        }
    }
    outlives_hangup
}

/// The signals by which people and programs end or control others.
const REQUESTS: [i32; 9] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

/// Survives requests to end, and leaves none of that to programs executed.
pub(crate) fn outlive_requests() {
    for signal in REQUESTS {
        if disposition(signal) != Some(libc::SIG_IGN) {
            set_disposition(signal, idle_handler(signal));
        }
    }
}

/// Lets every signal through, whatever was blocked when we were executed.
pub(crate) fn unblock_signals() {
    // SAFETY: both calls only fill or read the local set.
    unsafe {
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Ends this process the way the child ended whose `status` is given.
pub(crate) fn end_like(status: i32) -> ! {
    if libc::WIFSIGNALED(status) {
        // One core file is enough.
        let none = Rlimit { current: Some(0), maximum: Some(0) };
        let _ = rustix::process::setrlimit(Resource::Core, none);
        let signal = libc::WTERMSIG(status);
        set_disposition(signal, libc::SIG_DFL);
        // SAFETY: raise(3) takes a number; the signal is not blocked.
        unsafe { libc::raise(signal) };
    }
    std::process::exit(libc::WEXITSTATUS(status))
}
