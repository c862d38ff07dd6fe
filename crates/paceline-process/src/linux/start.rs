//! Starts a program: the one place where a process runs code of ours before
//! it executes another program.
//!
//! As posix_spawn does, the new process borrows our memory, whatever its
//! size, while the calling thread sleeps. Three things are otherwise. The
//! kernel makes the pidfd together with the process, so that there never is
//! one that cannot be watched. The step that failed is told. And the limit of
//! descriptors is set before the program can look at it.
//!
//! Not here: where the program is and what it is given (`spawn.rs`).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::{Pid, Rlimit};

/// What to execute, and how.
pub(crate) struct Start<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) argv: &'a Pointers<'a>,
    pub(crate) environment: &'a Pointers<'a>,
    pub(crate) cwd: Option<&'a CStr>,
    /// What becomes 0, 1 and 2: each is that already, or numbered 3 or higher.
    pub(crate) streams: [RawFd; 3],
    /// The group to join, or `None` to lead a new one.
    pub(crate) leader: Option<Pid>,
    /// The limit of descriptors, if it is to be another than ours.
    pub(crate) descriptors: Option<Rlimit>,
}

/// Strings as execve(2) takes them, which live at least for `'a`.
pub(crate) struct Pointers<'a> {
    /// The last one is null.
    all: Vec<*const c_char>,
    strings: std::marker::PhantomData<&'a CStr>,
}

impl<'a> Pointers<'a> {
    pub(crate) fn new(strings: impl Iterator<Item = &'a CStr>) -> Pointers<'a> {
        let all = strings.map(CStr::as_ptr).chain([ptr::null()]).collect();
        Pointers { all, strings: std::marker::PhantomData }
    }
}

/// What could not be done; no process is left.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// There can be no new process, or its group or streams cannot be set.
    Process(io::Error),
    /// The directory cannot be entered.
    Cwd(io::Error),
    /// The program cannot be executed.
    Program(io::Error),
}

/// Where the new process is; what it leaves there is why it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Process,
    Cwd,
    Program,
}

/// What the new process is told, and where it tells why it failed.
struct Plan {
    program: *const c_char,
    argv: *const *const c_char,
    environment: *const *const c_char,
    cwd: *const c_char,
    streams: [RawFd; 3],
    group: libc::pid_t,
    descriptors: Option<libc::rlimit>,
    /// Whether the kernel has seen to it that it has no handler of ours.
    has_no_handlers: bool,
    step: Step,
    error: c_int,
}

/// 32 KiB: the new process makes a handful of system calls and no more.
type Stack = MaybeUninit<[u128; 2048]>;

/// Starts a program; returns when it is being executed.
///
/// # Errors
///
/// The step that failed, with the system's error.
pub(crate) fn start(start: &Start<'_>) -> Result<(Pid, OwnedFd), NotStarted> {
    let number = |limit: Option<u64>| limit.unwrap_or(libc::RLIM_INFINITY);
    let mut plan = Plan {
        program: start.program.as_ptr(),
        argv: start.argv.all.as_ptr(),
        environment: start.environment.all.as_ptr(),
        cwd: start.cwd.map_or(ptr::null(), CStr::as_ptr),
        streams: start.streams,
        group: start.leader.map_or(0, |leader| leader.as_raw_nonzero().get()),
        descriptors: start.descriptors.map(|limit| libc::rlimit {
            rlim_cur: number(limit.current),
            rlim_max: number(limit.maximum),
        }),
        has_no_handlers: false,
        step: Step::Process,
        error: 0,
    };
    debug_assert!((0..3).all(|number| {
        let stream = start.streams[number as usize];
        stream == number || stream > 2
    }));
    let (pid, pidfd, error) = clone(&mut plan);
    let Some(pid) = Pid::from_raw(pid.max(0)) else {
        return Err(NotStarted::Process(error));
    };
    // SAFETY: the kernel has made it for us, and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    if plan.error == 0 {
        // Its number is that of a standard stream only where one was closed. There it stays if
        // there is no other: it is ours alone in either place.
        let above = if pidfd.as_raw_fd() > 2 { None } else { super::duplicate(&pidfd).ok() };
        return Ok((pid, above.unwrap_or(pidfd)));
    }
    // It has ended, or is about to: nothing else can be done by it now.
    super::reap(pid);
    let error = io::Error::from_raw_os_error(plan.error);
    Err(match plan.step {
        Step::Process => NotStarted::Process(error),
        Step::Cwd => NotStarted::Cwd(error),
        Step::Program => NotStarted::Program(error),
    })
}

/// Makes the process and waits until it executes its program or has failed.
///
/// Returns its number and pidfd, or a negative number and the error.
fn clone(plan: &mut Plan) -> (libc::pid_t, RawFd, io::Error) {
    let mut stack: Stack = MaybeUninit::uninit();
    let mut pidfd: c_int = -1;
    // SAFETY: The new process shares our memory, and this thread stands still until it has executed
    // its program or ended (CLONE_VFORK). So `plan`, `stack` and what `plan` points to live as long
    // as it uses them, and nobody else touches them: `plan` is borrowed mutably, `stack` is here.
    // It runs `child` on `stack` and never comes back from it into our frames. `child` keeps to
    // what may be done there.
    // All signals are blocked in it until it has no handler of ours any more, since a handler would
    // run on our memory; here they are let through again, as they were.
    unsafe {
        let mut all: libc::sigset_t = mem::zeroed();
        let mut before: libc::sigset_t = mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        plan.has_no_handlers = true;
        let made = clone3::make(plan, &mut stack, &mut pidfd);
        let (pid, error) = made.unwrap_or_else(|| {
            plan.has_no_handlers = false;
            make(plan, &mut stack, &mut pidfd)
        });
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut());
        (pid, pidfd, error)
    }
}

/// What the new process and we have of each other, and what it tells the world at its end.
const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD;

/// Makes the process by the call that every Linux has.
///
/// # Safety
///
/// As in [`clone`], which alone calls it.
unsafe fn make(plan: &mut Plan, stack: &mut Stack, pidfd: &mut c_int) -> (libc::pid_t, io::Error) {
    // SAFETY: as in `clone`. The stack is given by its upper end, aligned to 16 bytes. The kernel
    // writes the pidfd to the first argument behind `plan`; the others are not used.
    unsafe {
        let pid = libc::clone(
            child,
            ptr::from_mut(stack).add(1).cast::<c_void>(),
            FLAGS | libc::SIGCHLD,
            ptr::from_mut(plan).cast::<c_void>(),
            ptr::from_mut(pidfd),
            ptr::null_mut::<c_void>(),
            ptr::null_mut::<c_void>(),
        );
        (pid, io::Error::last_os_error())
    }
}

/// The call of newer kernels, which takes our handlers from the new process at once: to ask about
/// each of the 64 signals is most of what it would do before it executes its program.
#[cfg(target_arch = "x86_64")]
mod clone3 {
    use std::arch::asm;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Since Linux 5.5; the libc crate's is no `u64`.
    const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

    /// Whether the kernel, or whoever filters calls to it, has refused.
    static IS_REFUSED: AtomicBool = AtomicBool::new(false);

    /// Makes the process; `None` if it cannot be made in this way.
    ///
    /// # Safety
    ///
    /// As in [`clone`], which alone calls it.
    pub(super) unsafe fn make(
        plan: &mut Plan,
        stack: &mut Stack,
        pidfd: &mut c_int,
    ) -> Option<(libc::pid_t, io::Error)> {
        if IS_REFUSED.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: as in `clone`; the rest of it is integers, for which 0 means nothing.
        let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
        arguments.flags = u64::from(FLAGS.unsigned_abs()) | CLONE_CLEAR_SIGHAND;
        arguments.pidfd = ptr::from_mut(pidfd) as u64;
        arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
        arguments.stack = ptr::from_mut(stack) as u64;
        arguments.stack_size = size_of::<Stack>() as u64;
        let result: isize;
        // SAFETY: as in `clone`. The kernel keeps all registers but rax, rcx and r11, in the new
        // process too, which begins at the upper end of `stack`, aligned to 16 bytes as a call
        // needs it, and from where `child` does not return.
        unsafe {
            asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, r8",
                "call r9",
                "ud2",
                "2:",
                inlateout("rax") libc::SYS_clone3 as isize => result,
                in("rdi") &raw const arguments,
                in("rsi") size_of::<libc::clone_args>(),
                in("r8") ptr::from_mut(plan),
                in("r9") child as extern "C" fn(*mut c_void) -> c_int,
                lateout("rcx") _,
                lateout("r11") _,
            );
        }
        let error = c_int::try_from(-result).unwrap_or(0);
        if matches!(error, libc::ENOSYS | libc::EINVAL | libc::EPERM) {
            IS_REFUSED.store(true, Ordering::Relaxed);
            return None;
        }
        let pid = libc::pid_t::try_from(result).unwrap_or(-1);
        Some((pid, io::Error::from_raw_os_error(error)))
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod clone3 {
    use super::*;

    /// Of other processors we have no way to test it on.
    pub(super) unsafe fn make(
        _: &mut Plan,
        _: &mut Stack,
        _: &mut c_int,
    ) -> Option<(libc::pid_t, io::Error)> {
        None
    }
}

/// What the new process does. It must not allocate, panic, take a lock, or
/// write to any memory but its stack, `plan` and `errno`, which nobody reads.
extern "C" fn child(plan: *mut c_void) -> c_int {
    // SAFETY: `clone` passes a `Plan` that nobody else uses meanwhile. All calls are system calls
    // and little else, which may be made between fork and exec; their pointers are to the stack or
    // are those that `Start` keeps alive. The strings end in NUL, the lists of them in null.
    unsafe {
        let plan = &mut *plan.cast::<Plan>();
        plan.error = match prepare(plan) {
            Some(()) => {
                plan.step = Step::Program;
                libc::execve(plan.program, plan.argv, plan.environment);
                *libc::__errno_location()
            }
            None => *libc::__errno_location(),
        };
        libc::_exit(127)
    }
}

/// Sets what the program inherits; `None`, with `errno` set, if a step fails.
///
/// # Safety
///
/// As for [`child`], which alone calls it.
unsafe fn prepare(plan: &mut Plan) -> Option<()> {
    let done = |result: c_int| (result >= 0).then_some(());
    // SAFETY: as in `child`.
    unsafe {
        done(libc::setpgid(0, plan.group))?;
        for (number, stream) in (0..).zip(plan.streams) {
            if stream != number {
                done(libc::dup2(stream, number))?;
            }
        }
        if let Some(limit) = &plan.descriptors {
            // It fails where another process has lowered ours meanwhile: then that one it is.
            libc::setrlimit(libc::RLIMIT_NOFILE, limit);
        }
        plan.step = Step::Cwd;
        if !plan.cwd.is_null() {
            done(libc::chdir(plan.cwd))?;
        }
        plan.step = Step::Process;
        if plan.has_no_handlers {
            forget_pending();
        } else {
            forget_handlers();
        }
        let mut none: libc::sigset_t = mem::zeroed();
        libc::sigemptyset(&raw mut none);
        done(-libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))
    }
}

/// Gives SIGPIPE, which Rust's runtime ignores, its default, and forgets what
/// came for all of our group before we left it: that is our starter's to
/// handle. A TSTP would stop this process before it executes anything, and our
/// starter, who waits for that, too.
///
/// # Safety
///
/// As for [`child`].
unsafe fn forget_pending() {
    // SAFETY: as in `child`; the dispositions are no functions.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGPIPE, &raw const action, ptr::null_mut());
        let mut pending: libc::sigset_t = mem::zeroed();
        libc::sigpending(&raw mut pending);
        for signal in 1..=LAST_SIGNAL {
            if libc::sigismember(&raw const pending, signal) != 1 {
                continue;
            }
            let mut before: libc::sigaction = mem::zeroed();
            action.sa_sigaction = libc::SIG_IGN;
            libc::sigaction(signal, &raw const action, &raw mut before);
            libc::sigaction(signal, &raw const before, ptr::null_mut());
        }
    }
}

/// Gives every signal that has a handler of ours, and SIGPIPE, which Rust's
/// runtime ignores, its default. What is ignored stays ignored.
///
/// # Safety
///
/// As for [`child`].
unsafe fn forget_handlers() {
    // SAFETY: as in `child`; both dispositions are no functions.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        for signal in 1..=LAST_SIGNAL {
            // glibc keeps two to itself and refuses; exec takes their handlers away.
            if libc::sigaction(signal, ptr::null(), &raw mut action) != 0 {
                continue;
            }
            let is_handled = !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
            let is_rusts = signal == libc::SIGPIPE && action.sa_sigaction == libc::SIG_IGN;
            if !(is_handled || is_rusts) {
                continue;
            }
            action = mem::zeroed();
            if is_handled {
                // As for `forget_pending`.
                action.sa_sigaction = libc::SIG_IGN;
                libc::sigaction(signal, &raw const action, ptr::null_mut());
            }
            action.sa_sigaction = libc::SIG_DFL;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}

/// Linux has 64 signals.
const LAST_SIGNAL: c_int = 64;
