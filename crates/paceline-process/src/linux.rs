//! The system calls of this crate, and nothing else.
//!
//! What rustix offers is used as it is; the few calls it lacks are made through
//! libc. They, and the registration with tokio, are the only unsafe lines of
//! the crate. Every call here is
//! retried when a signal interrupts it. Every descriptor made here is closed
//! on exec and numbered 3 or higher, so that a program that closed its own
//! standard streams cannot write into one of our pipes by accident.
//!
//! Not here: any decision. Who is signalled when is said in `group.rs`.

pub(crate) mod memory;
pub(crate) mod signals;
pub(crate) mod start;

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{MemfdFlags, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, WaitId, WaitIdOptions};
use rustix::thread::UnshareFlags;
use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
use tokio::io::Interest;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use crate::exit::{Exit, Signal, Usage};

/// Returns a pipe as its reading and its writing end.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    Ok((above_standard(reader)?, above_standard(writer)?))
}

/// Opens `/dev/null` for a child.
pub(crate) fn null(watch: Watch) -> io::Result<OwnedFd> {
    let access = match watch {
        Watch::Readable => OFlags::RDONLY,
        Watch::Writable => OFlags::WRONLY,
    };
    let path = c"/dev/null";
    let open = || rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty());
    above_standard(retry_on_intr(open)?)
}

/// Makes reads and writes return at once, for this end of a pipe only.
pub(crate) fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // Freshly made pipes have no other status flag that this could undo.
    Ok(rustix::fs::fcntl_setfl(fd, OFlags::NONBLOCK)?)
}

/// Returns a second descriptor for the same open file.
pub(crate) fn duplicate(fd: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// Returns `fd` under a number that is not a standard stream's.
pub(crate) fn above_standard(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { duplicate(fd) }
}

/// What a read or write that does not wait came to.
#[derive(Debug)]
pub(crate) enum Moved {
    /// So many bytes; more may be possible at once.
    Bytes(usize),
    /// Nothing can be moved until the other end does something.
    WouldBlock,
    /// There is no other end any more.
    Closed,
}

/// Appends what can be read at once to the spare room of `buffer`.
pub(crate) fn read_into(fd: impl AsFd, buffer: &mut Vec<u8>) -> io::Result<Moved> {
    let fd = fd.as_fd();
    match retry_on_intr(|| rustix::io::read(fd, rustix::buffer::spare_capacity(buffer))) {
        Ok(0) => Ok(Moved::Closed),
        Ok(count) => Ok(Moved::Bytes(count)),
        Err(Errno::AGAIN) => Ok(Moved::WouldBlock),
        Err(error) => Err(error.into()),
    }
}

/// Writes as much of `bytes` as the pipe takes at once.
pub(crate) fn write_some(fd: impl AsFd, bytes: &[u8]) -> io::Result<Moved> {
    let fd = fd.as_fd();
    match retry_on_intr(|| rustix::io::write(fd, bytes)) {
        Ok(count) => Ok(Moved::Bytes(count)),
        Err(Errno::AGAIN) => Ok(Moved::WouldBlock),
        Err(Errno::PIPE) => Ok(Moved::Closed),
        Err(error) => Err(error.into()),
    }
}

/// Opens a descriptor for the process numbered `pid`.
///
/// The caller must check afterwards that `pid` still is who was meant.
pub(crate) fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    above_standard(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Returns how the child ended, or `None` while it runs, without reaping it.
///
/// A status that somebody else has taken comes out as [`Exit::LOST`].
pub(crate) fn observe_exit(pidfd: &OwnedFd) -> Option<Exit> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    match retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options)) {
        Ok(None) => None,
        Ok(Some(status)) => Some(match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::from_code(code),
            (None, Some(signal)) => Exit::from_signal(signal, status.dumped()),
            (None, None) => Exit::LOST,
        }),
        // Nobody but us may reap our children, but a foreign library can.
        Err(_) => Some(Exit::LOST),
    }
}

/// Reaps the child `pid`, which has exited, and returns what it used.
///
/// Returns `None` if somebody else has reaped it.
pub(crate) fn reap(pid: Pid) -> Option<Usage> {
    let mut status = 0;
    // SAFETY: `rusage` is plain integers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live locals of the types wait4(2) fills.
        let reaped =
            unsafe { libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, &raw mut usage) };
        if reaped >= 0 {
            return Some(Usage::new(
                duration_of(usage.ru_utime),
                duration_of(usage.ru_stime),
                u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
            ));
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return None;
        }
    }
}

fn duration_of(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

/// Returns the CPU time that the process `pid` has used so far, all its
/// threads together.
///
/// The caller must hold the process unreaped, which keeps its number from
/// being given to anybody else.
pub(crate) fn cpu_of(pid: Pid) -> Option<Duration> {
    let mut clock: libc::clockid_t = 0;
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: the pointer is to a live local of the type that clock_getcpuclockid(3) fills.
    if unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) } != 0 {
        return None;
    }
    // SAFETY: `timespec` is plain integers, for which all zeroes is a value.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    // SAFETY: the pointer is to a live local of the type that clock_gettime(2) fills. Not
    // rustix's: its clocks are those of this process.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Some(Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos))
}

/// Sends `signal` to every process in the group; a group that is gone is fine.
///
/// The caller must hold the group's leader unreaped, which keeps its number
/// from being given to anybody else.
pub(crate) fn signal_group(leader: Pid, signal: Signal) -> io::Result<()> {
    // SAFETY: kill(2) takes two numbers and touches none of our memory.
    let sent = unsafe { libc::kill(-leader.as_raw_nonzero().get(), signal.as_raw()) };
    nothing_to_signal_is_fine(sent.into())
}

/// Sends `signal` to the process behind `pidfd`; one that has ended is fine.
pub(crate) fn signal_pidfd(pidfd: impl AsFd, signal: Signal) -> io::Result<()> {
    // SAFETY: pidfd_send_signal(2) takes two numbers, no `siginfo`, and no
    // flags. rustix has it for named signals only, and ours may be any.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_fd().as_raw_fd(),
            signal.as_raw(),
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    nothing_to_signal_is_fine(sent)
}

fn nothing_to_signal_is_fine(returned: libc::c_long) -> io::Result<()> {
    if returned == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) }
}

/// Says whether the process `pid` is in the group of `leader`.
pub(crate) fn is_in_group(pid: Pid, leader: Pid) -> bool {
    // SAFETY: getpgid(2) takes a number and touches none of our memory. Not
    // rustix's: kernel threads are in group 0, which its `Pid` cannot hold.
    let group = unsafe { libc::getpgid(pid.as_raw_nonzero().get()) };
    group == leader.as_raw_nonzero().get()
}

/// A process of a group that is no child of ours.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) pid: Pid,
    pub(crate) pidfd: Arc<OwnedFd>,
}

/// Opens every process of the group that is alive, apart from `known`.
///
/// Zombies are left out: whoever adopted them reaps them, or, in a container
/// without an init, nobody does.
pub(crate) fn open_members(leader: Pid, known: &[Pid]) -> Vec<Member> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().and_then(Pid::from_raw))
        // One cheap call a process; only what is in the group is opened.
        .filter(|pid| !known.contains(pid) && is_in_group(*pid, leader))
        .filter_map(|pid| {
            let pidfd = open_pidfd(pid).ok()?;
            // Looked at after opening: the number may have changed hands.
            (is_in_group(pid, leader) && is_running(pid))
                .then_some(Member { pid, pidfd: pidfd.into() })
        })
        .collect()
}

fn is_running(pid: Pid) -> bool {
    // `pid (name) state ...`, where the name may hold anything, `)` too.
    fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).is_ok_and(|stat| {
        let after_name = stat.iter().rposition(|byte| *byte == b')').map(|at| &stat[at + 1..]);
        after_name.is_some_and(|rest| !matches!(rest.get(1), None | Some(b'Z' | b'X')))
    })
}

/// Stops the kernel from throwing away the statuses of our children.
///
/// A program started with SIGCHLD ignored inherits that: its children are
/// then reaped by the kernel, their statuses are lost and their numbers free
/// at once, so that a later signal could hit a stranger.
pub(crate) fn keep_statuses() {
    // SAFETY: `sigaction` is integers and a function pointer that may be null
    // (SIG_DFL); sigaction(2) fills it.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        if libc::sigaction(libc::SIGCHLD, ptr::null(), &raw mut action) != 0 {
            return;
        }
        if action.sa_sigaction == libc::SIG_IGN {
            action.sa_sigaction = libc::SIG_DFL;
        } else if action.sa_flags & libc::SA_NOCLDWAIT == 0 {
            return;
        }
        action.sa_flags &= !libc::SA_NOCLDWAIT;
        libc::sigaction(libc::SIGCHLD, &raw const action, ptr::null_mut());
    }
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watch {
    Readable,
    Writable,
}

/// A descriptor that the surrounding tokio runtime watches.
#[derive(Debug)]
pub(crate) struct Watched(AsyncFd<Arc<OwnedFd>>, Watch);

impl Watched {
    /// Registers `fd`. Must be called inside a tokio runtime.
    pub(crate) fn new(fd: &Arc<OwnedFd>, watch: Watch) -> io::Result<Watched> {
        let interest = match watch {
            Watch::Readable => Interest::READABLE,
            Watch::Writable => Interest::WRITABLE,
        };
        // SAFETY: the `AsyncFd` holds a share of the `OwnedFd`, which keeps
        // that descriptor open, and the same one, until it is dropped: it is
        // in a private field here that nothing hands out mutably.
        let fd = unsafe { AsyncFd::register_with_interest(Arc::clone(fd), interest) }?;
        Ok(Watched(fd, watch))
    }

    /// Ready once the descriptor may be; the guard says that it is not.
    pub(crate) fn poll_ready(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<AsyncFdReadyGuard<'_, Arc<OwnedFd>>>> {
        match self.1 {
            Watch::Readable => self.0.poll_read_ready(cx),
            Watch::Writable => self.0.poll_write_ready(cx),
        }
    }

    /// Ready once the descriptor has become readable, for those that stay so.
    pub(crate) fn poll_once(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_ready(cx).map_ok(|mut ready| ready.retain_ready())
    }
}

/// Waits until a descriptor is ready, or `deadline` has passed.
///
/// Says nothing about which: callers try all they have, none of which waits.
pub(crate) fn wait_any(
    watched: &[(BorrowedFd<'_>, Watch)],
    deadline: Option<Instant>,
) -> io::Result<()> {
    let mut fds: Vec<PollFd<'_>> = watched
        .iter()
        .map(|(fd, watch)| {
            PollFd::from_borrowed_fd(
                *fd,
                match watch {
                    Watch::Readable => PollFlags::IN,
                    Watch::Writable => PollFlags::OUT,
                },
            )
        })
        .collect();
    loop {
        let timeout =
            deadline.map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for `time`, with nothing else to wait for.
pub(crate) fn pause(time: Duration) {
    // The only error left is a time out of range, which `timespec` rules out.
    let _ = wait_any(&[], Instant::now().checked_add(time));
}

fn timespec(time: Duration) -> Timespec {
    // Years are as good as for ever, and never out of the kernel's range.
    let time = time.min(Duration::from_secs(u32::MAX.into()));
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(0),
        tv_nsec: time.subsec_nanos().into(),
    }
}

/// Returns a descriptor that becomes readable once `time` has passed.
pub(crate) fn timer(time: Duration) -> io::Result<OwnedFd> {
    let timer = above_standard(rustix::time::timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )?)?;
    // Zero would mean "never" to the kernel.
    let value = timespec(time.max(Duration::from_nanos(1)));
    let interval = timespec(Duration::ZERO);
    rustix::time::timerfd_settime(
        &timer,
        TimerfdTimerFlags::empty(),
        &Itimerspec { it_interval: interval, it_value: value },
    )?;
    Ok(timer)
}

/// Returns a counter that [`ring`] makes readable.
pub(crate) fn bell() -> io::Result<OwnedFd> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    above_standard(rustix::event::eventfd(0, flags)?)
}

/// Makes `bell` readable until [`silence`].
pub(crate) fn ring(bell: &OwnedFd) {
    // Fails only when it is rung 2^64 - 2 times already: then it is readable.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
}

/// Makes `bell` not readable.
pub(crate) fn silence(bell: &OwnedFd) {
    // Fails only when it is silent already.
    let _ = rustix::io::read(bell, &mut [0; 8]);
}

/// Says whether this process may execute the file.
pub(crate) fn is_executable(path: &std::path::Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Which of descriptors 0, 1 and 2 were closed when the program was executed.
static CLOSED_AT_START: AtomicU8 = AtomicU8::new(0);

/// Looks before Rust's runtime does, which opens `/dev/null` in their place
/// before `main` and so leaves no trace of what was closed.
#[used]
// SAFETY: `.init_array` holds pointers to functions that the C runtime calls
// before `main`. This one makes three system calls and writes an atomic.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_closed_streams;

extern "C" fn note_closed_streams() {
    let mut closed = 0;
    for fd in 0..3_u8 {
        // SAFETY: F_GETFD only asks, and a number that is not open is fine.
        if unsafe { libc::fcntl(fd.into(), libc::F_GETFD) } < 0 {
            closed |= 1 << fd;
        }
    }
    CLOSED_AT_START.store(closed, Ordering::Relaxed);
}

/// Says which of descriptors 0, 1 and 2 were closed when we were executed.
pub(crate) fn closed_at_start() -> [bool; 3] {
    let closed = CLOSED_AT_START.load(Ordering::Relaxed);
    [closed & 1 != 0, closed & 2 != 0, closed & 4 != 0]
}

/// Opens `/dev/null` where a standard stream is closed.
pub(crate) fn fill_standard_streams() {
    // The lowest free number is taken, so this ends once all three are open.
    while let Ok(null) = rustix::fs::open(c"/dev/null", OFlags::RDWR, Mode::empty()) {
        if null.as_raw_fd() > 2 {
            break;
        }
        mem::forget(null);
    }
}

/// Points the three standard streams at `/dev/null`, whatever they were.
pub(crate) fn drop_standard_streams() {
    if let Ok(null) = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
    {
        for fd in 0..3 {
            // SAFETY: replaces a standard stream, which nobody owns.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
    }
}

/// Lets children inherit no descriptor but 0, 1 and 2.
pub(crate) fn close_inherited_on_exec() {
    // SAFETY: sets a flag on whatever is open; nothing is closed. A kernel
    // before 5.11 refuses, and is asked one by one.
    let all =
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if all == 0 {
        return;
    }
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let open = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    for fd in open.filter(|fd| *fd > 2).collect::<Vec<_>>() {
        // SAFETY: sets a flag; a number that is closed by now is fine.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Has `last` called when the program exits, but not when a signal ends it.
pub(crate) fn at_exit(last: extern "C" fn()) {
    // SAFETY: the function lives as long as the program; it must not unwind,
    // and for `extern "C"` a panic aborts instead.
    unsafe { libc::atexit(last) };
}

/// Puts the children that this process starts into a PID namespace.
pub(crate) fn unshare_pids(with_users: bool) -> io::Result<()> {
    let users = if with_users { UnshareFlags::NEWUSER } else { UnshareFlags::empty() };
    // SAFETY: neither flag touches the descriptors or memory of this process.
    Ok(unsafe { rustix::thread::unshare_unsafe(users | UnshareFlags::NEWPID) }?)
}

/// Forks: `None` in the child.
///
/// For the helpers alone, which have one thread and are small.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: there is no other thread whose locks the child could miss.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(Pid::from_raw(pid)) }
}

/// Waits for the end of the child `pid`, or of any, and reaps it.
///
/// Returns its number and its status as wait(2) gives it.
pub(crate) fn wait_child(pid: Option<Pid>) -> io::Result<(i32, i32)> {
    let mut status = 0;
    loop {
        let which = pid.map_or(-1, |pid| pid.as_raw_nonzero().get());
        // SAFETY: the pointer is to a live local.
        let reaped = unsafe { libc::waitpid(which, &raw mut status, 0) };
        if reaped >= 0 {
            return Ok((reaped, status));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Reaps the child `pid` if it has ended; the status is nobody's concern.
pub(crate) fn reap_if_ended(pid: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    !matches!(retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), options)), Ok(None))
}

/// Returns a file without a name, in memory.
pub(crate) fn memory_file() -> io::Result<OwnedFd> {
    above_standard(rustix::fs::memfd_create(c"paceline-jobs", MemfdFlags::CLOEXEC)?)
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_at(fd: &OwnedFd, bytes: &[u8], offset: u64) -> io::Result<()> {
    // A memory file takes a few bytes whole or not at all.
    retry_on_intr(|| rustix::io::pwrite(fd, bytes, offset))?;
    Ok(())
}

/// Returns the time since the start of the system, in the unit and by the
/// clock of the start times in `/proc`.
pub(crate) fn now_in_ticks() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Boottime);
    let ticks = rustix::param::clock_ticks_per_second();
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * ticks + nanos * ticks / 1_000_000_000
}

/// Returns the limit of descriptors that jobs get whose soft limit is `soft`.
pub(crate) fn descriptors_of_jobs(soft: u64) -> Rlimit {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    Rlimit { current: Some(soft), maximum: limit.maximum }
}
