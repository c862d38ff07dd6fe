//! The threads of a pool as one: what each of them knows of the others.
//!
//! A worker that waits for work of its own pool must not wait for itself.
//! An answer finds here whether it is waited for inside the pool that owes
//! it: then work that has not begun is done by whoever waits, and when all
//! workers wait for one another, the last is told so.
//!
//! Not here: the queue and the threads (`executor.rs`).

use std::{
    cell::RefCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    clock::Clock,
    error::{Error, ErrorKind},
    failure::Fault,
    stop::Stop,
    sync::lock,
};

/// What the workers of one pool share, whatever their work borrows.
pub(crate) struct Crew {
    /// The pool's name; the very same one is in each of its answers.
    pub(crate) name: Arc<str>,
    pub(crate) clock: Clock,
    pub(crate) stop: Stop,
    pub(crate) timeout: Option<Duration>,
    /// The most workers there can be.
    most: AtomicUsize,
    /// How many of them wait for an answer of their own pool.
    blocked: AtomicUsize,
    /// Work that was submitted and is not over.
    pub(crate) unfinished: AtomicUsize,
    /// Why a worker could not begin.
    pub(crate) broken: Mutex<Option<Fault>>,
}

thread_local! {
    static HERE: RefCell<Option<Arc<Crew>>> = const { RefCell::new(None) };
}

/// The crew called `name`, if this thread belongs to it.
pub(crate) fn here(name: &Arc<str>) -> Option<Arc<Crew>> {
    HERE.with_borrow(|here| here.as_ref().filter(|crew| Arc::ptr_eq(&crew.name, name)).cloned())
}

impl Crew {
    pub(crate) fn new(
        name: &str,
        most: usize,
        clock: Clock,
        timeout: Option<Duration>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            clock,
            stop: Stop::new(),
            timeout,
            most: AtomicUsize::new(most),
            blocked: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            broken: Mutex::default(),
        })
    }

    /// Makes this thread one of the crew.
    pub(crate) fn enter(self: &Arc<Self>) {
        HERE.set(Some(self.clone()));
    }

    pub(crate) fn is_here(self: &Arc<Self>) -> bool {
        HERE.with_borrow(|here| here.as_ref().is_some_and(|crew| Arc::ptr_eq(crew, self)))
    }

    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }

    /// Notes that there can be no more workers than these.
    pub(crate) fn limit(&self, most: usize) {
        self.most.store(most, Ordering::SeqCst);
    }

    /// Returns why a worker could not begin, once.
    pub(crate) fn take_error(&self) -> Option<Error> {
        let fault = lock(&self.broken).take()?;
        let what = format!("a worker of `{}` could not begin", self.name);
        Some(Error::new(ErrorKind::Start, what).because(fault))
    }

    /// Notes that a worker waits for the crew's own work, and returns whether
    /// it may: not if nobody would be left to do it.
    pub(crate) fn block(&self) -> bool {
        let may = self.blocked.fetch_add(1, Ordering::SeqCst) + 1 < self.most();
        if !may {
            self.unblock();
        }
        may
    }

    /// Notes that what a worker waited for has come, before it is woken.
    pub(crate) fn unblock(&self) {
        self.blocked.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Work that has not begun, for a worker that waits for it.
pub(crate) trait Help: Send + Sync {
    /// Does the work on this thread, unless it has begun or was refused.
    fn help(&self, crew: &Crew);
}
