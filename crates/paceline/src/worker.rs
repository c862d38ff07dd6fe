//! What does a stage's work on one item at a time.
//!
//! One trait for all kinds: an attempt takes a payload and gives the next
//! one, or says why not. It ends early by itself at its timeout and when the
//! run is cancelled; how that is done is what the kinds differ in. Each kind
//! is a file: a function on a thread, a future on an event loop, a child
//! process. Long-lived worker processes have a loop of their own, since each
//! has several items in hand.
//!
//! Not here: queues, retries and counting, which are the stage's loop.

use std::{any::Any, borrow::Cow, future::Future, time::Duration};

use crate::{
    account::Shard, failure::Fault, item::ItemId, run::Core, stage::Settings, watch::Seat,
};

pub(crate) mod command;
pub(crate) mod function;
pub(crate) mod future;
pub(crate) mod serve;

/// Which attempt of which worker a piece of work belongs to.
///
/// ```
/// use paceline::{Attempt, Command, Pipeline};
///
/// let (lines, _) = Pipeline::from_iter(["x"])
///     .command("say", |item: &&str, attempt: &Attempt| {
///         Command::new("echo").arg(*item).arg(attempt.slot().to_string())
///     })
///     .workers(1)
///     .collect()?;
/// assert_eq!(lines[0].stdout().to_text()?, "x 1\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    pub(crate) number: u32,
    pub(crate) slot: usize,
}

impl Attempt {
    /// Returns which attempt at the item in this stage it is, counted from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Returns the slot of the worker, from 1 to the stage's workers. No two
    /// attempts that run at once in a stage have the same.
    pub fn slot(&self) -> usize {
        self.slot
    }
}

/// What an attempt may use of its surroundings.
pub(crate) struct Surroundings<'a> {
    pub(crate) attempt: Attempt,
    pub(crate) item: &'a ItemId,
    pub(crate) settings: &'a Settings,
    pub(crate) core: &'a Core,
    pub(crate) shard: &'a Shard,
    /// Where a poll is told of while it goes on.
    pub(crate) seat: Option<&'a Seat>,
}

/// A stage's work.
pub(crate) trait Work<In, Out>: Send + Sync {
    /// Makes one attempt at `item` without a future, where work that needs
    /// nothing of its surroundings has a thread to itself.
    fn call(&self, _item: In, _attempt: Attempt) -> Result<Out, Fault> {
        unreachable!("only functions have threads to themselves")
    }

    /// Makes one attempt at `item`.
    fn attempt(
        &self,
        item: In,
        surroundings: &Surroundings<'_>,
    ) -> impl Future<Output = Result<Out, Fault>> + Send;
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let said: Cow<'_, str> = if let Some(text) = panic.downcast_ref::<&str>() {
        Cow::Borrowed(text)
    } else if let Some(text) = panic.downcast_ref::<String>() {
        Cow::Borrowed(text)
    } else {
        Cow::Borrowed("with a value that is no text")
    };
    format!("the worker panicked: {said}")
}

/// The fault of an attempt that took longer than its stage allows.
pub(crate) fn timed_out(timeout: Duration) -> Fault {
    Fault::new(crate::FailureKind::Timeout, format!("took longer than {timeout:?}"))
}

/// The fault of an attempt that was stopped with the run.
pub(crate) fn cancelled() -> Fault {
    Fault::new(crate::FailureKind::Cancelled, "the run was stopped").permanent()
}
