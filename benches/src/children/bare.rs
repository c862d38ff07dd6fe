//! Starting and awaiting a child with the C library alone, as the ceiling.

use std::{
    ffi::CStr,
    io::{PipeReader, Read},
    mem::MaybeUninit,
    os::fd::{AsRawFd, OwnedFd},
    ptr,
};

unsafe extern "C" {
    #[link_name = "environ"]
    static ENVIRONMENT: *const *mut libc::c_char;
}

/// Runs a program to its end; its streams are this program's.
pub(super) fn run(command: &[&CStr]) {
    wait(spawn(command, None));
}

/// Runs a program to its end and reads what it writes.
pub(super) fn run_captured(command: &[&CStr]) {
    let (mut reader, writer) = std::io::pipe().expect("a pipe can be made");
    let writer = OwnedFd::from(writer);
    let child = spawn(command, Some(&writer));
    // Ours goes, or the end would never be seen.
    drop(writer);
    read_all(&mut reader);
    wait(child);
}

fn read_all(reader: &mut PipeReader) {
    let mut output = Vec::new();
    reader.read_to_end(&mut output).expect("a pipe can be read");
    assert!(output.is_empty());
}

/// Starts a program by its path and arguments, with its standard output into `stdout` if that is
/// given.
fn spawn(command: &[&CStr], stdout: Option<&OwnedFd>) -> libc::pid_t {
    let mut pid = 0;
    let mut actions = MaybeUninit::uninit();
    let mut arguments: Vec<_> = command.iter().map(|word| word.as_ptr().cast_mut()).collect();
    arguments.push(ptr::null_mut());
    // SAFETY: `actions` is made before it is used and freed after, all pointers are to values
    // that outlive the call, the array of arguments ends with a null, and nothing in this program
    // changes the environment.
    let error = unsafe {
        libc::posix_spawn_file_actions_init(actions.as_mut_ptr());
        if let Some(stdout) = stdout {
            let actions = actions.as_mut_ptr();
            libc::posix_spawn_file_actions_adddup2(actions, stdout.as_raw_fd(), 1);
        }
        let error = libc::posix_spawn(
            &raw mut pid,
            arguments[0],
            actions.as_ptr(),
            ptr::null(),
            arguments.as_ptr(),
            ENVIRONMENT,
        );
        libc::posix_spawn_file_actions_destroy(actions.as_mut_ptr());
        error
    };
    assert_eq!(error, 0, "the child could not be started");
    pid
}

fn wait(pid: libc::pid_t) {
    let mut status = 0;
    // SAFETY: `status` outlives the call, and `pid` is a child that nobody else waits for.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!((waited, status), (pid, 0), "the child failed");
}
