//! Tells followers that their file has changed, by the kernel's word.
//!
//! Each follower has a queue for one signal: many changes are one reason to
//! look. Threads pop it, tasks await it. Where the kernel cannot tell (a file
//! system without it, too many watches), it is signalled ten times a second.

use std::{
    collections::HashMap,
    io,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    thread::{self, JoinHandle},
    time::Duration,
};

use paceline_queue::Queue;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

/// How often a file that the kernel does not watch is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A signal that there may be something new; closed when there is no more.
pub(crate) type Signal = Queue<()>;

/// Watches files until it is dropped.
pub(crate) struct Changes {
    /// Closing it ends the thread.
    line: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

struct Watches {
    kernel: Option<OwnedFd>,
    /// Which files a watch is about.
    files: HashMap<i32, Vec<usize>>,
    /// The same for their folders, where a new file may take the name.
    folders: HashMap<i32, Vec<usize>>,
    followed: Vec<(PathBuf, Signal)>,
    unwatched: Vec<usize>,
}

impl Changes {
    /// Watches these files, and gives the signal of each, given once already.
    pub(crate) fn of(paths: &[PathBuf]) -> io::Result<(Self, Vec<Signal>)> {
        let signals: Vec<Signal> = paths.iter().map(|_| Queue::bounded(1)).collect();
        let followed = paths.iter().cloned().zip(signals.iter().cloned()).collect();
        let kernel = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok();
        let mut watches = Watches {
            kernel,
            files: HashMap::new(),
            folders: HashMap::new(),
            followed,
            unwatched: Vec::new(),
        };
        for (number, signal) in signals.iter().enumerate() {
            if watches.add(number).is_err() {
                watches.unwatched.push(number);
            }
            // After the watch: what came before it is found now.
            let _ = signal.try_push(());
        }
        let (line, end) = UnixStream::pair()?;
        let builder = thread::Builder::new().name("changes".into());
        let thread = builder.spawn(move || watches.serve(&end))?;
        Ok((Self { line: Some(line), thread: Some(thread) }, signals))
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        drop(self.line.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Watches {
    /// Watches a file, and the folder of its name.
    fn add(&mut self, number: usize) -> io::Result<()> {
        let kernel = self.kernel.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        let path = &self.followed[number].0;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let coming = WatchFlags::CREATE | WatchFlags::MOVED_TO;
        let folder = inotify::add_watch(kernel, folder, coming)?;
        let changes = WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::MOVE_SELF;
        let file = inotify::add_watch(kernel, path, changes)?;
        for (watches, watch) in [(&mut self.folders, folder), (&mut self.files, file)] {
            let numbers = watches.entry(watch).or_default();
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        Ok(())
    }

    fn serve(mut self, end: &UnixStream) {
        loop {
            let mut polled = vec![PollFd::new(end, PollFlags::IN)];
            polled.extend(self.kernel.iter().map(|kernel| PollFd::new(kernel, PollFlags::IN)));
            let limit = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
            let limit = (!self.unwatched.is_empty()).then_some(&limit);
            match poll(&mut polled, limit) {
                Err(Errno::INTR) => continue,
                Err(_) => return,
                Ok(_) => {}
            }
            if !polled[0].revents().is_empty() {
                return;
            }
            for number in self.changed() {
                // A signal that was not taken yet is reason enough to look.
                let _ = self.followed[number].1.try_push(());
            }
        }
    }

    /// The files that may have changed; those whose name is new are watched anew.
    fn changed(&mut self) -> Vec<usize> {
        let mut changed = self.unwatched.clone();
        let mut renamed = Vec::new();
        if let Some(kernel) = &self.kernel {
            let mut buffer = [MaybeUninit::uninit(); 8192];
            let mut events = inotify::Reader::new(kernel, &mut buffer);
            while let Ok(event) = events.next() {
                changed.extend(self.files.get(&event.wd()).into_iter().flatten());
                let named = |number: &&usize| {
                    let name = self.followed[**number].0.file_name();
                    name.map(|name| name.as_encoded_bytes())
                        == event.file_name().map(|name| name.to_bytes())
                };
                let in_folder = self.folders.get(&event.wd()).into_iter().flatten();
                renamed.extend(in_folder.filter(named).copied());
                if event.wd() < 0 {
                    // The kernel has lost events: anything may have changed.
                    changed.extend(0..self.followed.len());
                }
            }
        }
        for number in &renamed {
            // If it has gone again there is another event to come.
            let _ = self.add(*number);
        }
        changed.extend(renamed);
        changed.sort_unstable();
        changed.dedup();
        changed
    }
}

/// Whether two paths are one file, as far as both exist.
pub(crate) fn is_same_file(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (a.metadata(), b.metadata()) {
        (Ok(a), Ok(b)) => (a.dev(), a.ino()) == (b.dev(), b.ino()),
        _ => false,
    }
}
