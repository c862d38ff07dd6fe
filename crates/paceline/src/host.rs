//! What workers live on: threads of their own, or event loops that many share.
//!
//! An event loop is a thread with a single-threaded tokio runtime that polls
//! the loops of several stages or workers. The `io` stages of a run share as
//! many as there are cores. A `command` stage has a few of its own, since starting a child
//! holds its thread up: with few workers, each is alone on its thread.
//!
//! A loop may borrow what the run's caller owns, since all threads end within
//! the run. That is why these are not tasks of a multi-threaded runtime,
//! which would have to own everything.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    thread::{self, Scope},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use paceline_queue::OnEventLoop;

use crate::{
    error::{Error, ErrorKind},
    outlet::BoxFuture,
    sync::{Notice, lock},
};

/// The hosts of a run.
pub(crate) struct Hosts<'s, 'e> {
    scope: &'s Scope<'s, 'e>,
    /// The shared event loops of the `io` stages.
    io: EventLoops<'s>,
    /// The `io` stages, in the order in which they came: each begins with another event loop.
    sharing: Mutex<Vec<usize>>,
    /// The event loops that stages have to themselves, by stage.
    own: Vec<EventLoops<'s>>,
}

impl<'s, 'e> Hosts<'s, 'e> {
    pub(crate) fn new(scope: &'s Scope<'s, 'e>, stages: usize, cores: usize) -> Self {
        // 8: with a thread a worker up to here, starting children keeps up with a bare loop.
        let own = || EventLoops::at_most((2 * cores).max(8));
        Self {
            scope,
            io: EventLoops { must_not_wait: true, ..EventLoops::at_most(cores) },
            sharing: Mutex::default(),
            own: std::iter::repeat_with(own).take(stages).collect(),
        }
    }

    /// Runs `work` on a thread of its own.
    pub(crate) fn on_thread(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 's,
    ) -> Result<(), Error> {
        let builder = thread::Builder::new().name(thread_name(name));
        match builder.spawn_scoped(self.scope, work) {
            Ok(_) => Ok(()),
            Err(error) => Err(no_thread(name, error)),
        }
    }

    /// Runs a loop of a stage on one of the event loops that all `io` stages share: those of one
    /// stage, which are numbered by `place`, on different ones.
    pub(crate) fn on_shared_loop(
        &self,
        stage: usize,
        place: usize,
        work: BoxFuture<'s, ()>,
    ) -> Result<(), Error> {
        let before = {
            let mut sharing = lock(&self.sharing);
            sharing.iter().position(|known| *known == stage).unwrap_or_else(|| {
                sharing.push(stage);
                sharing.len() - 1
            })
        };
        self.io.add(self, before + place, "paceline-io", work)
    }

    /// Runs a worker's loop on one of the event loops of its stage.
    pub(crate) fn on_own_loop(
        &self,
        stage: usize,
        worker: usize,
        name: &str,
        work: BoxFuture<'s, ()>,
    ) -> Result<(), Error> {
        self.own[stage].add(self, worker, name, work)
    }

    /// Lets the event loops end as soon as they have nothing left to poll.
    ///
    /// Not before all workers have ended: a connection that one loop opened
    /// may be in use by a worker on another.
    pub(crate) fn finish(&self) {
        self.io.finish();
        self.own.iter().for_each(EventLoops::finish);
    }
}

fn no_thread(name: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Start, format!("could not start a thread for `{name}`")).caused_by(error)
}

/// The kernel keeps 15 bytes of a thread's name; the name must hold no NUL.
pub(crate) fn thread_name(name: &str) -> String {
    name.replace('\0', "")
}

/// Event loops that are started as work comes, up to a limit.
struct EventLoops<'s> {
    most: usize,
    /// Whether waiting for a queue is a mistake there: others share the loop.
    must_not_wait: bool,
    /// By their numbers.
    loops: Mutex<BTreeMap<usize, Arc<EventLoop<'s>>>>,
    is_finished: AtomicBool,
}

struct EventLoop<'s> {
    added: Mutex<Vec<BoxFuture<'s, ()>>>,
    is_finished: AtomicBool,
    changed: Notice,
}

impl<'s> EventLoops<'s> {
    fn at_most(most: usize) -> Self {
        Self {
            most,
            must_not_wait: false,
            loops: Mutex::default(),
            is_finished: AtomicBool::new(false),
        }
    }

    /// Adds work to the event loop of this number; those beyond the most begin anew.
    fn add(
        &self,
        hosts: &Hosts<'s, '_>,
        number: usize,
        name: &str,
        work: BoxFuture<'s, ()>,
    ) -> Result<(), Error> {
        let mut loops = lock(&self.loops);
        if self.is_finished.load(Ordering::SeqCst) {
            // All other workers have ended: this one comes too late to find anything.
            return Ok(());
        }
        let number = number % self.most;
        let event_loop = match loops.get(&number) {
            Some(event_loop) => event_loop.clone(),
            None => match EventLoop::start(hosts, name, self.must_not_wait) {
                Ok(event_loop) => {
                    loops.insert(number, event_loop.clone());
                    event_loop
                }
                // Where descriptors or threads are lacking, those there are do its work too.
                Err(error) => match loops.values().nth(number % loops.len().max(1)) {
                    Some(event_loop) => event_loop.clone(),
                    None => return Err(error),
                },
            },
        };
        let is_first = {
            let mut added = lock(&event_loop.added);
            added.push(work);
            added.len() == 1
        };
        // The loop takes all that was added when it looks, so one notice is enough.
        if is_first {
            event_loop.changed.tell();
        }
        Ok(())
    }

    fn finish(&self) {
        let loops = lock(&self.loops);
        self.is_finished.store(true, Ordering::SeqCst);
        for event_loop in loops.values() {
            event_loop.is_finished.store(true, Ordering::SeqCst);
            event_loop.changed.tell();
        }
    }
}

impl<'s> EventLoop<'s> {
    /// Starts a loop that waits for work.
    fn start(hosts: &Hosts<'s, '_>, name: &str, must_not_wait: bool) -> Result<Arc<Self>, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(
            |error| {
                let what = format!("could not start an event loop for `{name}`");
                Error::new(ErrorKind::Start, what).caused_by(error)
            },
        )?;
        let event_loop = Arc::new(Self {
            added: Mutex::default(),
            is_finished: AtomicBool::new(false),
            changed: Notice::default(),
        });
        let on_its_thread = event_loop.clone();
        hosts.on_thread(name, move || {
            let _here = must_not_wait.then(OnEventLoop::enter);
            // tokio lets one task do 128 operations at a turn. To it all workers of this
            // loop are one task, and with thousands of them almost every turn is in vain.
            runtime.block_on(tokio::task::unconstrained(on_its_thread.run()));
            // A name look-up that cannot be stopped must not hold up the end of the run.
            runtime.shutdown_timeout(Duration::from_millis(100));
        })?;
        Ok(event_loop)
    }

    async fn run(&self) {
        let mut workers = Workers::default();
        loop {
            workers.add(lock(&self.added).drain(..));
            if self.is_finished.load(Ordering::SeqCst) {
                return poll_fn(|context| workers.poll_all(context)).await;
            }
            let has_news =
                || self.is_finished.load(Ordering::SeqCst) || !lock(&self.added).is_empty();
            let mut news = pin!(self.changed.until(has_news));
            poll_fn(|context| {
                let _ = workers.poll_all(context);
                news.as_mut().poll(context)
            })
            .await;
        }
    }
}

/// The loops of workers that one event loop polls.
#[derive(Default)]
struct Workers<'s> {
    /// The only one, if there is one: a set of one would have it polled twice after each event,
    /// and ask the system for more events in between.
    alone: Option<BoxFuture<'s, ()>>,
    together: FuturesUnordered<BoxFuture<'s, ()>>,
}

impl<'s> Workers<'s> {
    fn add(&mut self, added: impl Iterator<Item = BoxFuture<'s, ()>>) {
        for worker in added {
            if self.alone.is_none() && self.together.is_empty() {
                self.alone = Some(worker);
            } else {
                self.together.extend(self.alone.take());
                self.together.push(worker);
            }
        }
    }

    /// Polls whoever was woken; ready once all have ended.
    fn poll_all(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(worker) = &mut self.alone {
            if worker.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.alone = None;
        }
        while let Some(()) = ready!(self.together.poll_next_unpin(context)) {}
        Poll::Ready(())
    }
}
