//! A file, or anything else to write to, that a thread of its own owns.
//!
//! Threads and tasks hand over bytes through one bounded queue; the thread
//! takes whatever has gathered, makes one write of it, and flushes when
//! nothing more waits. So the event loop never waits for a disk, a slow disk
//! makes its writers wait, and a line costs no round trip between threads.
//!
//! What goes wrong is kept: from then on every write fails with it at once,
//! those that wait too.

use std::{
    collections::VecDeque,
    error, fmt,
    fs::{File, OpenOptions},
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use paceline_queue::{OnEventLoop, Queue};

use crate::{
    answer::{Answer, Promise},
    error::{Error, ErrorKind},
    failure::BoxError,
    sync::{Notice, block_on, lock},
    worker::panic_message,
};

/// The most writes that wait.
const WAITING: usize = 256;

/// How many bytes are written at once, if so many wait.
const AT_ONCE: usize = 64 * 1024;

/// Writes to a file on a thread of its own, for threads and tasks.
///
/// Bytes of one write stay together; writes come out in the order in which
/// they were accepted. At most 256 of them wait; whoever writes more waits.
/// A write is accepted before it is in the file: [`flush`](Self::flush) and
/// [`close`](Self::close) tell that all is.
///
/// ```
/// use std::{fs, sync::Arc};
/// use paceline::{BoxError, EventLoop, Writer};
///
/// let path = std::env::temp_dir().join(format!("paceline-writer-{}", std::process::id()));
/// let writer = Arc::new(Writer::create(&path)?);
/// let event_loop = EventLoop::start("lines")?;
/// let from_a_task = writer.clone();
/// let written = event_loop.submit(async move {
///     from_a_task.write_async("one\n").await?;
///     Ok::<_, BoxError>(())
/// });
/// written.wait()?;
/// writer.write("two\n")?;
/// writer.close()?;
/// assert_eq!(fs::read_to_string(&path)?, "one\ntwo\n");
/// # fs::remove_file(&path)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # When stopped
///
/// Dropping it ends it as [`close`](Self::close) does, without waiting and
/// without anybody to hear of an error.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    /// What it writes to, as messages say it.
    name: String,
    queue: Queue<Order>,
    /// What went wrong, once something has.
    trouble: OnceLock<Trouble>,
    has_ended: AtomicBool,
    /// Told when the thread has ended.
    ended: Notice,
}

/// What the thread is told to do.
enum Order {
    Write(Vec<u8>),
    /// Answers when all before it is out.
    Flush(Promise<()>),
}

impl Writer {
    /// Writes to the file at `path`, which is made, or emptied if it exists.
    ///
    /// Does not wait for that: if it cannot be, writes fail.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        Self::start(&format!("`{}`", path.display()), move || File::create(path))
    }

    /// As [`create`](Self::create), behind what the file has.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn append(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let name = format!("`{}`", path.display());
        Self::start(&name, move || OpenOptions::new().create(true).append(true).open(path))
    }

    /// Writes to whatever `open` gives, which is called on the thread that
    /// then owns it. `name` is for messages.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn start<W: Write>(
        name: &str,
        open: impl FnOnce() -> io::Result<W> + Send + 'static,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            queue: Queue::bounded(WAITING),
            trouble: OnceLock::new(),
            has_ended: AtomicBool::new(false),
            ended: Notice::default(),
        });
        let on_thread = shared.clone();
        let builder = thread::Builder::new().name("paceline-write".into());
        let thread = builder.spawn(move || on_thread.serve(open)).map_err(|error| {
            let what = format!("could not start a thread to write to {name}");
            Error::new(ErrorKind::Start, what).caused_by(error)
        })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Hands `bytes` over, waiting while too much waits to be written.
    ///
    /// # Errors
    ///
    /// What has gone wrong with the file so far, in which case nothing more
    /// will be written; after [`close`](Self::close); and on a thread that
    /// runs an event loop, which the wait would hold up.
    pub fn write(&self, bytes: impl Into<Vec<u8>>) -> io::Result<()> {
        refuse_on_event_loop("write_async")?;
        let pushed = self.shared.queue.push(Order::Write(bytes.into()));
        pushed.map_err(|_| self.shared.refusal())
    }

    /// As [`write`](Self::write), for tasks. Dropped before it is ready,
    /// nothing of it is written.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn write_async(&self, bytes: impl Into<Vec<u8>>) -> io::Result<()> {
        let pushed = self.shared.queue.push_async(Order::Write(bytes.into())).await;
        pushed.map_err(|_| self.shared.refusal())
    }

    /// Waits until all that was handed over before is written and flushed.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    pub fn flush(&self) -> io::Result<()> {
        refuse_on_event_loop("flush_async")?;
        let (promise, flushed) = Answer::pending("writer", 0);
        let pushed = self.shared.queue.push(Order::Flush(promise));
        pushed.map_err(|_| self.shared.refusal())?;
        if flushed.wait().is_ok() {
            return Ok(());
        }
        // The thread is about to say why.
        block_on(self.shared.end());
        Err(self.shared.refusal())
    }

    /// As [`flush`](Self::flush), for tasks.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn flush_async(&self) -> io::Result<()> {
        let (promise, flushed) = Answer::pending("writer", 0);
        let pushed = self.shared.queue.push_async(Order::Flush(promise)).await;
        pushed.map_err(|_| self.shared.refusal())?;
        if flushed.await.is_ok() {
            return Ok(());
        }
        self.shared.end().await;
        Err(self.shared.refusal())
    }

    /// Takes no more writes, and waits until all is written, flushed and
    /// closed, and the thread has ended. Harmless to repeat.
    ///
    /// # Errors
    ///
    /// What has gone wrong with the file, at whichever time; and on a thread
    /// that runs an event loop, where nothing is done.
    pub fn close(&self) -> io::Result<()> {
        refuse_on_event_loop("close_async")?;
        self.shared.queue.close();
        block_on(self.shared.end());
        self.join()
    }

    /// As [`close`](Self::close), for tasks.
    ///
    /// # Errors
    ///
    /// What has gone wrong with the file, at whichever time.
    pub async fn close_async(&self) -> io::Result<()> {
        self.shared.queue.close();
        self.shared.end().await;
        self.join()
    }

    /// Joins the thread, which has done all it does, and tells how it went.
    fn join(&self) -> io::Result<()> {
        let thread = lock(&self.thread).take();
        if let Some(thread) = thread {
            // Its panics are its trouble already.
            let _ = thread.join();
        }
        self.shared.trouble().map_or(Ok(()), Err)
    }
}

fn refuse_on_event_loop(instead: &str) -> io::Result<()> {
    if OnEventLoop::is_here() {
        let what = format!("this would hold up the event loop of this thread: use `{instead}`");
        return Err(io::Error::new(io::ErrorKind::WouldBlock, what));
    }
    Ok(())
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("to", &self.shared.name)
            .field("waiting", &self.shared.queue.depth())
            .field("trouble", &self.shared.trouble.get())
            .finish()
    }
}

impl Shared {
    /// The life of the thread.
    fn serve<W: Write>(&self, open: impl FnOnce() -> io::Result<W>) {
        let served = catch_unwind(AssertUnwindSafe(|| {
            let mut out = open().map_err(|error| Trouble::new("open", &self.name, error))?;
            self.write_all(&mut out).map_err(|error| Trouble::new("write to", &self.name, error))
            // Dropped and so closed here, before anybody is told of the end.
        }));
        let served = served.unwrap_or_else(|panic| {
            let panicked = io::Error::other(panic_message(&*panic));
            Err(Trouble::new("write to", &self.name, panicked))
        });
        if let Err(trouble) = served {
            // First, so that whoever is refused finds it.
            let _ = self.trouble.set(trouble);
            drop(self.queue.close_now());
        }
        self.has_ended.store(true, Ordering::SeqCst);
        self.ended.tell();
    }

    fn write_all(&self, out: &mut impl Write) -> io::Result<()> {
        let (mut orders, mut bytes) = (VecDeque::new(), Vec::new());
        loop {
            if self.queue.pop_batch(&mut orders, WAITING).is_err() {
                return out.flush();
            }
            for order in orders.drain(..) {
                match order {
                    Order::Write(more) => {
                        bytes.extend_from_slice(&more);
                        if bytes.len() >= AT_ONCE {
                            out.write_all(&bytes)?;
                            bytes.clear();
                        }
                    }
                    Order::Flush(promise) => {
                        out.write_all(&bytes)?;
                        bytes.clear();
                        out.flush()?;
                        // Nobody may be left to hear of it.
                        let _ = promise.set(Ok::<_, BoxError>(()));
                    }
                }
            }
            out.write_all(&bytes)?;
            bytes.clear();
            bytes.shrink_to(AT_ONCE);
            if self.queue.is_empty() {
                out.flush()?;
            }
        }
    }

    /// Waits until the thread has nothing left to do.
    async fn end(&self) {
        self.ended.until(|| self.has_ended.load(Ordering::SeqCst)).await;
    }

    fn trouble(&self) -> Option<io::Error> {
        let trouble = self.trouble.get()?.clone();
        Some(io::Error::new(trouble.source.kind(), trouble))
    }

    /// Why nothing more is taken.
    fn refusal(&self) -> io::Error {
        self.trouble().unwrap_or_else(|| {
            let what = format!("the writer to {} is closed", self.name);
            io::Error::new(io::ErrorKind::BrokenPipe, what)
        })
    }
}

/// What went wrong with a file, which many are told.
#[derive(Clone, Debug)]
struct Trouble {
    what: String,
    source: Arc<io::Error>,
}

impl Trouble {
    fn new(what: &str, name: &str, source: io::Error) -> Self {
        Self { what: format!("could not {what} {name}"), source: Arc::new(source) }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.source)
    }
}

impl error::Error for Trouble {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.source()
    }
}
