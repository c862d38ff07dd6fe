//! The writing half of an answer.

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use super::{Outcome, Shared};
use crate::{
    failure::{BoxError, FailureKind, Fault},
    sync::lock,
    worker::panic_message,
};

/// The writing half of an [`Answer`](super::Answer): whoever holds it owes the outcome.
///
/// An outcome cannot be set twice, since setting it uses the promise up. A
/// promise dropped without an outcome, also by a panic, answers with a
/// failure of kind [`Closed`](FailureKind::Closed).
///
/// ```
/// use paceline::{Answer, FailureKind};
///
/// let (promise, answer) = Answer::<u32>::pending("bridge", 1);
/// drop(promise);
/// assert_eq!(answer.wait().unwrap_err().kind(), FailureKind::Closed);
/// ```
pub struct Promise<T> {
    /// `None` once the outcome is set.
    pub(super) shared: Option<Arc<Shared<T>>>,
}

impl<T> Promise<T> {
    fn shared(&self) -> &Shared<T> {
        self.shared.as_ref().expect("only setting the outcome takes it, and uses the promise up")
    }

    /// Notes that the work begins, and returns whether it should: not if the
    /// answer was cancelled. From now on it can only be asked to end.
    pub fn start(&self) -> bool {
        self.shared().start(None)
    }

    /// As [`start`](Self::start), for work that looks at `asked` to see
    /// whether it should end.
    pub(crate) fn start_with(&self, asked: &Arc<AtomicBool>) -> bool {
        self.shared().start(Some(asked))
    }

    /// Does the work, unless the answer was cancelled, and answers with what
    /// it returned. A panic in it is a failure.
    pub fn keep<E: Into<BoxError>>(self, work: impl FnOnce() -> Result<T, E>) {
        if self.start() {
            self.end(caught(work));
        }
    }

    /// Answers with this value or error.
    ///
    /// # Errors
    ///
    /// Gives `result` back if the answer was cancelled before the work began:
    /// the outcome that was first stays.
    pub fn set<E: Into<BoxError>>(self, result: Result<T, E>) -> Result<(), Result<T, E>> {
        if !self.start() {
            return Err(result);
        }
        self.end(result.map_err(Fault::from_error));
        Ok(())
    }

    /// Answers; the work has been started and was not cancelled before.
    pub(crate) fn end(mut self, result: Result<T, Fault>) {
        if let Some(shared) = self.shared.take() {
            let outcome = result.map_err(|fault| shared.failure(fault));
            shared.end(outcome);
        }
    }

    /// As [`end`](Self::end), with a failure that others have too.
    pub(crate) fn end_as(mut self, outcome: Outcome<T>) {
        if let Some(shared) = self.shared.take() {
            shared.end(outcome);
        }
    }

    /// Returns whether the work was asked to end. Never waits.
    pub fn is_cancelled(&self) -> bool {
        self.shared().is_asked.load(Ordering::SeqCst)
    }

    /// Waits until the work is asked to end; for ever if it never is.
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + Unpin
    where
        T: Send,
    {
        Asked { shared: self.shared() }
    }
}

/// Calls `work`; a panic in it is a fault.
pub(crate) fn caught<T, E: Into<BoxError>>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Fault::from_error),
        Err(panic) => Err(Fault::new(FailureKind::Panic, panic_message(&*panic))),
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        if shared.start(None) {
            let reason = format!("`{}` went away without an answer", shared.name);
            shared.end(Err(shared.failure(Fault::new(FailureKind::Closed, reason))));
        }
    }
}

impl<T> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared().show("Promise", f)
    }
}

/// The wait of [`Promise::cancelled`].
struct Asked<'p, T> {
    shared: &'p Shared<T>,
}

impl<T> Future for Asked<'_, T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let before = lock(&self.shared.state).writer.replace(context.waker().clone());
        drop(before);
        // After the waker is in place: either this sees the question or the asker the waker.
        if self.shared.is_asked.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }
}
