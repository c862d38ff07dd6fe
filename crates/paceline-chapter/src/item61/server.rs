//! The server: accepts on a thread or in a task, and ends without leaving
//! anything. The forms between the two are the steps of the port.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use paceline::{Answer, BoxError, EventLoop, LoopHandle};
use paceline_queue::{Queue, Taken};

use super::{
    connection::{AsyncConnection, Bridged, Connection},
    session::{serve, serve_async},
};

/// How far the server's port has come. Each is a whole server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All by threads.
    Threads,
    /// The connections are asynchronous; threads talk to them over the bridge.
    Connections,
    /// The sessions are too, as tasks; a thread accepts.
    Sessions,
    /// All by tasks.
    Tasks,
}

/// All forms, in the order of the port.
pub const FORMS: [Form; 4] = [Form::Threads, Form::Connections, Form::Sessions, Form::Tasks];

/// The most sessions inside at once.
const MOST: usize = 10_000;

/// How long it waits for room when no connection can be accepted.
const BREATH: Duration = Duration::from_millis(100);

/// A server that runs. It listens when [`Server::start`] returns.
pub struct Server {
    address: SocketAddr,
    acceptor: Acceptor,
    event_loop: Option<EventLoop>,
    shared: Arc<Shared>,
}

enum Acceptor {
    Thread(JoinHandle<()>),
    Task(Answer<()>),
}

struct Shared {
    seed: u64,
    is_stopping: AtomicBool,
    /// A place for each session, answered when it has ended.
    inside: Queue<()>,
    /// The streams of sessions by threads, to cut them off.
    open: Mutex<HashMap<u64, TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

impl Server {
    /// Starts a server on a free port of this machine. The guesses on each
    /// connection follow from `seed`.
    ///
    /// # Errors
    ///
    /// If it cannot listen, or a thread or event loop cannot be started.
    pub fn start(form: Form, seed: u64) -> Result<Self, BoxError> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        // The 128 places of the standard library are few: a client that finds none tries again
        // after a second.
        rustix::net::listen(&listener, BACKLOG)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            seed,
            is_stopping: AtomicBool::new(false),
            inside: Queue::bounded(MOST),
            open: Mutex::default(),
            threads: Mutex::default(),
        });
        let event_loop =
            (form != Form::Threads).then(|| EventLoop::start("guess-server")).transpose()?;
        let handle = event_loop.as_ref().map(EventLoop::handle);
        let accepting = shared.clone();
        let acceptor = match (form, handle) {
            (Form::Tasks, Some(handle)) => {
                let tasks = handle.clone();
                Acceptor::Task(handle.submit(accepting.accept_async(listener, tasks)))
            }
            (form, handle) => {
                let accept = move || accepting.accept(&listener, form, handle.as_ref());
                Acceptor::Thread(thread::Builder::new().name("guess-accept".into()).spawn(accept)?)
            }
        };
        Ok(Self { address, acceptor, event_loop, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, gives the sessions `grace` to end, and then cuts
    /// them off. Returns how many those were. Nothing is left afterwards.
    ///
    /// # Errors
    ///
    /// If its event loop cannot be closed.
    pub fn stop(self, grace: Duration) -> Result<usize, BoxError> {
        let Self { address, acceptor, event_loop, shared } = self;
        shared.is_stopping.store(true, Ordering::SeqCst);
        match acceptor {
            Acceptor::Thread(thread) => {
                // It sees the flag at the next connection, which is this one.
                drop(TcpStream::connect(address));
                let _ = thread.join();
            }
            Acceptor::Task(task) => {
                task.cancel();
                // Cancelled is what it is to be.
                let _ = task.wait();
            }
        }
        let in_time = shared.inside.join_timeout(grace).is_ok();
        let left = if in_time { 0 } else { shared.inside.stats().in_flight };
        for stream in shared.open().values() {
            // Whoever reads it sees its end; that it has one already is as well.
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in std::mem::take(&mut *shared.threads()) {
            let _ = thread.join();
        }
        if let Some(event_loop) = event_loop {
            event_loop.close()?;
        }
        Ok(left)
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more session; `None` if there are too many.
    fn place(&self) -> Option<Taken<()>> {
        self.inside.try_push(()).ok()?;
        self.inside.try_take().ok()
    }

    /// Accepts on this thread until it is told to stop.
    fn accept(self: &Arc<Self>, listener: &TcpListener, form: Form, tasks: Option<&LoopHandle>) {
        for number in 0.. {
            let accepted = listener.accept();
            if self.is_stopping.load(Ordering::SeqCst) {
                return;
            }
            let begun = accepted.and_then(|(stream, _)| self.begin(number, stream, form, tasks));
            if begun.is_err() {
                // Too many descriptors or threads: the end of a session makes room.
                let _ = self.inside.join_timeout(BREATH);
            }
        }
    }

    /// Begins a session for a connection that was accepted.
    fn begin(
        self: &Arc<Self>,
        number: u64,
        stream: TcpStream,
        form: Form,
        tasks: Option<&LoopHandle>,
    ) -> io::Result<()> {
        // Without a place for it the connection is closed.
        let Some(place) = self.place() else { return Ok(()) };
        let seed = self.seed;
        if let (Form::Sessions, Some(tasks)) = (form, tasks) {
            drop(tasks.submit(async move {
                let _place = place;
                serve_async(&mut AsyncConnection::from_std(stream)?, seed).await
            }));
            return Ok(());
        }
        self.open().insert(number, stream.try_clone()?);
        let (shared, tasks) = (self.clone(), tasks.cloned());
        let session = move || {
            let _place = place;
            // What went wrong was told to the other side, or it has gone.
            let _ = match tasks {
                None => Connection::new(stream)
                    .map_err(BoxError::from)
                    .and_then(|mut connection| serve(&mut connection, seed)),
                Some(tasks) => Bridged::new(stream, &tasks)
                    .and_then(|mut connection| serve(&mut connection, seed)),
            };
            shared.open().remove(&number);
        };
        let started = thread::Builder::new().name("guess-session".into()).spawn(session);
        let mut threads = self.threads();
        threads.retain(|thread| !thread.is_finished());
        threads.push(started.inspect_err(|_| drop(self.open().remove(&number)))?);
        Ok(())
    }

    /// Accepts in a task until it is cancelled.
    async fn accept_async(
        self: Arc<Self>,
        listener: TcpListener,
        tasks: LoopHandle,
    ) -> Result<(), BoxError> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                let _ = tokio::time::timeout(BREATH, self.inside.join_async()).await;
                continue;
            };
            let (Some(place), seed) = (self.place(), self.seed) else { continue };
            drop(tasks.submit(async move {
                let _place = place;
                serve_async(&mut AsyncConnection::new(stream)?, seed).await
            }));
        }
    }
}
