//! Memory that two processes share, by way of a file in memory.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::fs::{MemfdFlags, SealFlags};

/// A file in memory, written to as memory: a write is no system call, and
/// what was written is in the file whatever ends the writer.
///
/// Whoever has the file can read it meanwhile, and sees writes in any order;
/// once the writer has ended it sees all of them.
///
/// ```
/// use std::os::unix::fs::FileExt;
/// use paceline_process::SharedMemory;
///
/// let file = SharedMemory::create("notes", 4096)?;
/// let mut memory = SharedMemory::open(&file)?;
/// memory.write(8, b"begun");
/// memory.set_number(0, 5);
/// let mut read = [0; 13];
/// file.read_exact_at(&mut read, 0)?;
/// assert_eq!(&read, b"\x05\0\0\0\0\0\0\0begun");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct SharedMemory {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and only this value has it.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    /// Makes a file of so many zeroes that has no name but for people, and
    /// whose size nobody can change.
    ///
    /// # Errors
    ///
    /// If the system has no descriptor or no memory for it.
    pub fn create(name: &str, size: usize) -> io::Result<File> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(super::above_standard(rustix::fs::memfd_create(name, flags)?)?);
        file.set_len(size as u64)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(file)
    }

    /// Maps all of a file that was made by [`create`](Self::create), here or
    /// in another process.
    ///
    /// # Errors
    ///
    /// If it is another kind of file, or cannot be mapped.
    pub fn open(file: &File) -> io::Result<Self> {
        let of_ours = io::Error::other("the file was not made to be shared as memory");
        // What could shrink could take memory away under our hands.
        match rustix::fs::fcntl_get_seals(file) {
            Ok(seals) if seals.contains(SealFlags::SHRINK) => {}
            _ => return Err(of_ours),
        }
        let size = usize::try_from(file.metadata()?.len()).map_err(|_| of_ours)?;
        let (access, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping wherever there is room touches none of our memory.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), size, access, shared, file.as_fd().as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, size })
    }

    /// Returns how many bytes there are.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Copies `bytes` to the place `at`.
    ///
    /// # Panics
    ///
    /// If they do not fit.
    pub fn write(&mut self, at: usize, bytes: &[u8]) {
        let fits = at <= self.size && bytes.len() <= self.size - at;
        assert!(fits, "bytes are written within shared memory");
        // SAFETY: the range is inside the mapping, which is ours to write to until it is dropped
        // and cannot overlap `bytes`: nobody gets a reference into it. Others may read it through
        // the file meanwhile, which the kernel does for them.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.as_ptr().add(at), bytes.len());
        }
    }

    /// Writes a number at the place `8 * index`, in one piece: whoever reads
    /// it sees the one before or this one. What was written before is there
    /// when it is.
    ///
    /// # Panics
    ///
    /// If it does not fit.
    pub fn set_number(&mut self, index: usize, number: u64) {
        assert!(index < self.size / 8, "numbers are written within shared memory");
        // SAFETY: inside the mapping, which begins at a page and so is aligned; other accesses to
        // it are either by this value, one at a time, or through the file.
        let place = unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast::<u64>().add(index)) };
        place.store(number.to_le(), Ordering::Release);
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing has a pointer into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_could_shrink_is_refused() {
        let fd = rustix::fs::memfd_create(c"any", MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(fd);
        file.set_len(4096).unwrap();
        SharedMemory::open(&file).unwrap_err();
        SharedMemory::open(&File::open("/dev/null").unwrap()).unwrap_err();
        let ours = SharedMemory::create("any", 4096).unwrap();
        ours.set_len(0).unwrap_err();
        assert_eq!(SharedMemory::open(&ours).unwrap().size(), 4096);
    }

    #[test]
    #[should_panic(expected = "within shared memory")]
    fn nothing_is_written_past_the_end() {
        let file = SharedMemory::create("any", 4096).unwrap();
        SharedMemory::open(&file).unwrap().write(4090, b"too long");
    }
}
