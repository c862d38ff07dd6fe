//! Lines as they come: the output of jobs with `--line-buffered`.
//!
//! The jobs write into pipes of ours. One thread waits for all of them and
//! passes whole lines on, so that no two are mixed; a reader that is slow
//! makes it wait, and so the jobs, and memory holds no more than the
//! beginnings of lines. With the order kept, those of the first item that has
//! not ended come as they are written, and all others wait for their turn.
//!
//! Not here: outputs in one piece, which the engine collects (`results.rs`).

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::{
    kept::{Keeper, Kept},
    report::Console,
    results::Results,
};

/// How long a descendant may hold the output of a job that has ended.
const DRAIN: Duration = Duration::from_millis(200);

/// The longest line that waits for its end; of a longer one pieces are passed on.
const LONGEST_LINE: usize = 16 << 20;

/// What a pipe holds.
const CHUNK: usize = 64 << 10;

/// The way of lines to our output. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Lines(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    coming: Mutex<Vec<Stream>>,
    bell: PipeWriter,
    rung: Mutex<Option<PipeReader>>,
    relay: OnceLock<Relay>,
}

/// Where the lines of a stream go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Out,
    Error,
}

/// One output of one job.
#[derive(Debug)]
struct Stream {
    /// The number of its item, or of the first of a batch.
    owner: u64,
    from: PipeReader,
    way: Way,
    tag: Option<Vec<u8>>,
    /// The beginning of a line.
    partial: Vec<u8>,
    /// Whether a piece of a line has been passed on, so that no tag is due.
    is_within_line: bool,
    is_given_up: Arc<AtomicBool>,
    /// What has been passed on of standard output, in bytes.
    written: Arc<AtomicU64>,
    /// Told when the stream is given up while someone holds it; closed at its end.
    held: Sender<()>,
}

/// The outputs of a job, as long as it runs.
#[derive(Debug)]
pub(crate) struct JobLines {
    lines: Lines,
    is_given_up: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    held: Receiver<()>,
}

/// What a job is to write to.
pub(crate) struct Ends {
    pub(crate) stdout: Arc<File>,
    pub(crate) stderr: Arc<File>,
}

impl Lines {
    /// # Errors
    ///
    /// If the process can have no more descriptors.
    pub(crate) fn new() -> io::Result<Self> {
        let (rung, bell) = io::pipe()?;
        let rung = Mutex::new(Some(rung));
        let coming = Mutex::default();
        Ok(Self(Arc::new(Shared { coming, bell, rung, relay: OnceLock::new() })))
    }

    /// Begins to pass lines on, with a `keeper` in the order of the items.
    ///
    /// # Errors
    ///
    /// If there can be no more threads.
    pub(crate) fn begin(
        &self,
        results: Arc<Mutex<Results>>,
        console: Console,
        keeper: Option<Keeper>,
    ) -> io::Result<()> {
        let Some(rung) = lock(&self.0.rung).take() else { return Ok(()) };
        let turn = keeper.map(|keeper| Turn { keeper, of: Mutex::new((1, BTreeMap::new())) });
        let shared = self.0.clone();
        shared.relay.get_or_init(|| Relay { results, console, turn });
        thread::Builder::new().name("lines".into()).spawn(move || run(&shared, rung))?;
        Ok(())
    }

    /// With the order kept: all items before the one numbered `next` have ended.
    pub(crate) fn turn_to(&self, next: u64) {
        if let Some(relay) = self.0.relay.get() {
            relay.turn_to(next);
        }
    }

    /// Passes on what still waits for its turn, since items have been left unfinished.
    pub(crate) fn end_waiting(&self) {
        self.turn_to(u64::MAX);
    }

    /// Opens the pipes of a job each of whose lines begins with `tag`. `owner`
    /// is the number of its first item.
    ///
    /// # Errors
    ///
    /// If the process can have no more descriptors.
    pub(crate) fn open(&self, owner: u64, tag: Option<Vec<u8>>) -> io::Result<(JobLines, Ends)> {
        let (stdout, out) = io::pipe()?;
        let (stderr, error) = io::pipe()?;
        let (held, told) = mpsc::channel();
        let is_given_up = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let stream = |from, way| Stream {
            owner,
            from,
            way,
            tag: tag.clone(),
            partial: Vec::new(),
            is_within_line: false,
            is_given_up: is_given_up.clone(),
            written: written.clone(),
            held: held.clone(),
        };
        lock(&self.0.coming).extend([stream(stdout, Way::Out), stream(stderr, Way::Error)]);
        self.ring();
        let file = |end: PipeWriter| Arc::new(File::from(OwnedFd::from(end)));
        let ends = Ends { stdout: file(out), stderr: file(error) };
        Ok((JobLines { lines: self.clone(), is_given_up, written, held: told }, ends))
    }

    fn ring(&self) {
        // The thread lives as long as this does, and reads what is rung.
        let _ = (&self.0.bell).write_all(b"!");
    }
}

impl JobLines {
    /// Waits until all that the job has written is passed on, and tells
    /// whether a descendant still holds an output.
    pub(crate) fn end(&self) -> bool {
        match self.held.recv_timeout(DRAIN) {
            Err(RecvTimeoutError::Disconnected) => false,
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => {
                self.is_given_up.store(true, Ordering::SeqCst);
                self.lines.ring();
                self.held.iter().count() > 0
            }
        }
    }
}

impl JobLines {
    /// How much has been passed on of the job's standard output, in bytes.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }
}

impl Drop for JobLines {
    fn drop(&mut self) {
        self.end();
    }
}

/// Where lines go, and when.
#[derive(Debug)]
struct Relay {
    results: Arc<Mutex<Results>>,
    console: Console,
    turn: Option<Turn>,
}

/// Whose turn it is, where the order is kept.
#[derive(Debug)]
struct Turn {
    keeper: Keeper,
    /// The number of the first item that has not ended, and what waits, by the
    /// number of its item.
    of: Mutex<(u64, BTreeMap<u64, Vec<Piece>>)>,
}

type Piece = (Way, Kept);

/// The thread that passes lines on.
fn run(shared: &Shared, rung: PipeReader) {
    if let Some(relay) = shared.relay.get() {
        relay.run(shared, rung);
    }
}

impl Relay {
    fn run(&self, shared: &Shared, mut rung: PipeReader) {
        let mut streams: Vec<Stream> = Vec::new();
        let mut buffer = vec![0; CHUNK];
        loop {
            let is_ready = wait(&rung, &streams, None);
            if is_ready[0] {
                let _ = rung.read(&mut buffer);
            }
            let mut ready = is_ready[1..].iter();
            streams.retain_mut(|stream| {
                !*ready.next().unwrap_or(&false) || stream.pass_on(&mut buffer, self)
            });
            streams.append(&mut lock(&shared.coming));
            streams.retain_mut(|stream| {
                !stream.is_given_up.load(Ordering::SeqCst) || stream.give_up(&mut buffer, self)
            });
        }
    }

    fn write(&self, owner: u64, way: Way, lines: &[u8]) {
        let Some(turn) = &self.turn else { return self.write_now(way, lines) };
        let mut of = lock(&turn.of);
        let (next, waiting) = &mut *of;
        if owner <= *next {
            return self.write_now(way, lines);
        }
        let waiting = waiting.entry(owner).or_default();
        let last = waiting.last_mut().filter(|(last, _)| *last == way).map(|(_, kept)| kept);
        let more = match last {
            None => Some(turn.keep(lines)),
            Some(kept) => {
                if kept.grow(lines) {
                    return;
                }
                kept.join(turn.keep(lines))
            }
        };
        waiting.extend(more.map(|more| (way, more)));
    }

    fn write_now(&self, way: Way, lines: &[u8]) {
        match way {
            Way::Out => lock(&self.results).lines(lines),
            Way::Error => self.console.pass_on_lines(lines),
        }
    }

    fn turn_to(&self, item: u64) {
        let Some(turn) = &self.turn else { return };
        // Held all along, or later lines could come before those that waited.
        let mut of = lock(&turn.of);
        let (next, waiting) = &mut *of;
        *next = item;
        while let Some(first) = waiting.first_entry()
            && *first.key() <= item
        {
            for (way, lines) in first.remove() {
                match way {
                    Way::Out => lock(&self.results).output(&lines, None),
                    Way::Error => self.console.pass_on(&lines, None),
                }
            }
        }
    }
}

impl Turn {
    /// Has lines wait. Where no file will have them, memory must.
    fn keep(&self, lines: &[u8]) -> Kept {
        let mut kept = self.keeper.hold(b"");
        if kept.grow(lines) {
            return kept;
        }
        self.keeper.spool(lines).unwrap_or_else(|_| self.keeper.hold(lines))
    }
}

impl Stream {
    /// Reads once and passes on the lines that are whole; at the end of the
    /// stream the last one too. Tells whether there may be more.
    fn pass_on(&mut self, buffer: &mut [u8], relay: &Relay) -> bool {
        let read = match self.from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Ok(0) | Err(_) => {
                self.flush(relay);
                return false;
            }
            Ok(read) => &buffer[..read],
        };
        if self.way == Way::Out {
            self.written.fetch_add(read.len() as u64, Ordering::SeqCst);
        }
        match memchr::memrchr(b'\n', read) {
            Some(last) => {
                let (whole, rest) = read.split_at(last + 1);
                let mut lines = std::mem::take(&mut self.partial);
                lines.extend_from_slice(whole);
                self.write(&lines, relay);
                lines.clear();
                lines.extend_from_slice(rest);
                self.partial = lines;
            }
            None => self.partial.extend_from_slice(read),
        }
        if self.partial.len() > LONGEST_LINE {
            let piece = std::mem::take(&mut self.partial);
            self.write(&piece, relay);
        }
        true
    }

    /// Passes on what there is by now. It is not kept: false.
    fn give_up(&mut self, buffer: &mut [u8], relay: &Relay) -> bool {
        /// What a pipe holds is one; more comes only while somebody still writes.
        const MOST_READS: usize = 16;
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        for _ in 0..MOST_READS {
            if !wait(&self.from, &[], Some(&now))[0] {
                break;
            }
            if !self.pass_on(buffer, relay) {
                return false;
            }
        }
        self.flush(relay);
        // Nobody waits for it any more if the job's handle is gone.
        let _ = self.held.send(());
        false
    }

    /// Passes on the last line, which has no end.
    fn flush(&mut self, relay: &Relay) {
        let mut last = std::mem::take(&mut self.partial);
        if self.tag.is_some() && (self.is_within_line || !last.is_empty()) {
            last.push(b'\n');
        }
        if !last.is_empty() {
            self.write(&last, relay);
        }
    }

    fn write(&mut self, bytes: &[u8], relay: &Relay) {
        let Some(tag) = &self.tag else { return relay.write(self.owner, self.way, bytes) };
        let mut lines = Vec::with_capacity(bytes.len() + tag.len());
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if !self.is_within_line {
                lines.extend_from_slice(tag);
            }
            lines.extend_from_slice(line);
            self.is_within_line = !line.ends_with(b"\n");
        }
        relay.write(self.owner, self.way, &lines);
    }
}

/// Waits until one of these can be read, and tells which: `first`, then the streams.
fn wait(first: &PipeReader, streams: &[Stream], limit: Option<&Timespec>) -> Vec<bool> {
    let mut waits = vec![PollFd::new(first, PollFlags::IN)];
    waits.extend(streams.iter().map(|stream| PollFd::new(&stream.from, PollFlags::IN)));
    match poll(&mut waits, limit) {
        Ok(_) => waits.iter().map(|wait| !wait.revents().is_empty()).collect(),
        // Interrupted, or no memory for a moment: nothing is ready.
        Err(_) => vec![false; waits.len()],
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
