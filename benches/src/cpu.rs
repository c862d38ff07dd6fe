//! The CPU time of this process: it says what a contestant costs also when
//! the machine is busy with something else.

use std::{mem::MaybeUninit, time::Duration};

/// Returns the CPU time that this process has used, without its children's.
pub(crate) fn own() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the call fills `usage` if it returns 0.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    of(&usage)
}

/// Returns the CPU time that this process has used, and its children that were reaped.
pub(crate) fn with_children() -> Duration {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the call fills `usage` if it returns 0.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()), 0);
        usage.assume_init()
    };
    own() + of(&usage)
}

/// Returns the CPU time that the kernel tells of.
pub(crate) fn of(usage: &libc::rusage) -> Duration {
    [usage.ru_utime, usage.ru_stime]
        .map(|time| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000))
        .iter()
        .sum()
}
