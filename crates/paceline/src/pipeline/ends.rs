//! How a pipeline ends: what becomes of the last stage's values, and the run.

use std::sync::Arc;

use paceline_queue::Queue;

use super::Pipeline;
use crate::{
    account::Output as Last,
    chunk,
    error::Error,
    failure::Failure,
    item::{Envelope, ItemId},
    outlet::{EndLink, QueueLink},
    run::{Core, sink},
    runnable::Runnable,
    summary::Summary,
    sync::block_on,
};

/// Running it.
impl<'a, T: Send + 'a, Prev> Pipeline<'a, T, Prev> {
    /// Throws the last stage's values away: what they were made for has
    /// happened on the way.
    pub fn discard(mut self) -> Runnable<'a> {
        if self.plan.journal.is_some() {
            // An item has not ended before that is recorded, which somebody has to wait for.
            return self.for_each(drop);
        }
        self.join_to(EndLink);
        Runnable::new(self.plan, Box::new(|_: &Core| ()))
    }

    /// Gives each of the last stage's values to `take`, on the thread that
    /// runs the pipeline.
    ///
    /// The values come as they are finished, or in order if the last stage is
    /// [`ordered`](Self::ordered). If `take` panics the run is cancelled and
    /// the panic goes on to the caller.
    pub fn for_each(self, mut take: impl FnMut(T) + Send + 'a) -> Runnable<'a> {
        self.for_each_outcome(move |outcome| {
            if let Ok(value) = outcome {
                take(value);
            }
        })
    }

    /// Gives what became of each item, a value or a failure, to `take`, as
    /// [`for_each`](Self::for_each) does with values.
    ///
    /// Items that a fan-out left out and those left unfinished are not among them.
    pub fn for_each_outcome(
        mut self,
        mut take: impl FnMut(Result<T, Failure>) + Send + 'a,
    ) -> Runnable<'a> {
        let queue = self.last_queue();
        let take = move |_: &ItemId, output: Last<'_, T>| take(output.into());
        Runnable::new(
            self.plan,
            Box::new(move |core: &Core| block_on(sink::drain(core, &queue, take))),
        )
    }

    /// Joins the last stage to a queue, and returns that.
    fn last_queue(&mut self) -> Queue<Envelope<T>> {
        let capacity = if std::mem::needs_drop::<T>() { 16 } else { 1024 };
        let queue = Queue::bounded(capacity);
        let of_exit = queue.clone();
        self.plan.exit = Some(Box::new(move || of_exit.stats()));
        let most = Arc::new(chunk::limit(capacity, 1, chunk::MOST).into());
        self.join_to(QueueLink { queue: queue.clone(), most });
        let exit = queue.clone();
        self.plan.close_exit = Some(Box::new(move |core| sink::close(core, &exit)));
        queue
    }

    /// Runs it and returns the last stage's values with the summary.
    ///
    /// The values come as they were finished, or in order if the last stage
    /// is [`ordered`](Self::ordered). Failures are in the summary.
    ///
    /// # Errors
    ///
    /// If paceline could not run it; an item's failure is no error.
    pub fn collect(self) -> Result<(Vec<T>, Summary), Error> {
        let (outcomes, summary) = self.outcomes()?;
        Ok((outcomes.into_iter().flatten().collect(), summary))
    }

    /// Runs it and returns what became of each item: a value or a failure.
    ///
    /// In order if the last stage is [`ordered`](Self::ordered). Items that a
    /// fan-out left out, and those left unfinished, are not among them.
    ///
    /// # Errors
    ///
    /// If paceline could not run it; an item's failure is no error.
    pub fn outcomes(mut self) -> Result<(Vec<Result<T, Failure>>, Summary), Error> {
        let queue = self.last_queue();
        let mut outcomes = Vec::new();
        let take = |_: &ItemId, output: Last<'_, T>| outcomes.push(output.into());
        let ((), summary) =
            self.plan.run(|core: &Core| block_on(sink::drain(core, &queue, take)))?;
        Ok((outcomes, summary))
    }

    /// Runs it with `sink` taking what leaves the last stage.
    pub(crate) fn run_with<R>(
        mut self,
        sink: impl FnOnce(&Core, &Queue<Envelope<T>>) -> R,
    ) -> Result<(R, Summary), Error> {
        let queue = self.last_queue();
        self.plan.run(|core| sink(core, &queue))
    }
}

impl<'a, Prev> Pipeline<'a, (), Prev> {
    /// Runs it, and returns when every item is answered and every thread has
    /// ended.
    ///
    /// There is only a `run` where the last stage gives `()`: values that
    /// nobody takes are a mistake. [`discard`](Self::discard),
    /// [`for_each`](Self::for_each) and [`collect`](Self::collect) say what
    /// is to become of them.
    ///
    /// # Errors
    ///
    /// If paceline could not run it; an item's failure is no error.
    ///
    /// # When stopped
    ///
    /// On drain, items already inside are finished. On cancel, children are
    /// asked to stop, killed after `grace`, and their items are unfinished in
    /// the summary.
    pub fn run(self) -> Result<Summary, Error> {
        self.discard().run()
    }
}
