//! Rounds: the same stages used again and again, by one thread that both
//! feeds and drains them.
//!
//! A round is a fan-out and a fan-in around the whole pipeline: all of its
//! items go in, and the round is over when all are answered. The threads are
//! started once. One thread can do both ends with every queue bounded,
//! because it never waits for room alone: it takes results meanwhile.

use std::{collections::VecDeque, pin::pin};

use paceline_queue::{Producer, Queue};

use crate::{
    account::Held,
    chunk,
    error::Error,
    failure::Failure,
    item::Envelope,
    pipeline::Pipeline,
    run::{
        Core,
        sink::{self, OnUnwind},
    },
    stop::StopLevel,
    summary::Summary,
    sync::{Either, block_on, first},
};

/// How many items wait at the entrance.
const ENTRANCE: usize = 64;

/// The handle on which rounds are run.
///
/// ```
/// use paceline::{Pipeline, Rounds};
///
/// // Each round doubles all numbers; the threads are the same in all rounds.
/// let (numbers, _) = Pipeline::rounds(
///     |numbers| numbers.cpu("double", |n: u64| Ok::<_, paceline::BoxError>(2 * n)).workers(2),
///     |rounds: &mut Rounds<'_, u64, u64>| {
///         let mut numbers = vec![1, 2, 3];
///         for _ in 0..10 {
///             let answers = rounds.run(numbers).expect("nobody stops it");
///             numbers = answers.into_iter().flatten().collect();
///         }
///         numbers
///     },
/// )?;
/// assert_eq!(numbers, [1024, 2048, 3072]);
/// # Ok::<(), paceline::Error>(())
/// ```
pub struct Rounds<'s, In, Out> {
    entrance: Producer<In>,
    exit: &'s Queue<Envelope<Out>>,
    core: &'s Core,
    /// Items fed so far, in all rounds.
    fed: u64,
}

/// The run was stopped in the middle of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the run was stopped in the middle of a round")
    }
}

impl std::error::Error for Stopped {}

impl<'a, In: Send + 'a> Pipeline<'a, In> {
    /// Starts the stages that `build` adds, lets `body` run rounds through
    /// them, and ends when `body` does.
    ///
    /// # Errors
    ///
    /// If paceline could not run it; an item's failure is part of its round.
    pub fn rounds<Out, Prev, R>(
        build: impl FnOnce(Pipeline<'a, In>) -> Pipeline<'a, Out, Prev>,
        body: impl FnOnce(&mut Rounds<'_, In, Out>) -> R,
    ) -> Result<(R, Summary), Error>
    where
        Out: Send + 'a,
    {
        let items = Queue::bounded(ENTRANCE);
        let entrance = items.producer();
        let mut pipeline = Pipeline::from_iter(std::iter::from_fn(move || items.pop().ok()));
        pipeline.plan.has_rounds = true;
        build(pipeline).run_with(|core, exit| {
            let guard = OnUnwind { core, queue: exit };
            let mut rounds = Rounds { entrance, exit, core, fed: 0 };
            let output = body(&mut rounds);
            drop(rounds);
            std::mem::forget(guard);
            // A round that was stopped leaves answers behind, and more may come.
            block_on(sink::drain(core, exit, |_, _| {}));
            output
        })
    }
}

impl<In: Send, Out: Send> Rounds<'_, In, Out> {
    /// Runs one round and returns what became of each item, in the order in
    /// which they were given.
    ///
    /// Waits until every item is answered. A failure takes nothing from the
    /// others nor from the next round. Values that a stage fanned out follow
    /// each other in the place of the item they came from.
    ///
    /// # Errors
    ///
    /// [`Stopped`] if the run is stopped before the round is complete.
    pub fn run(
        &mut self,
        items: impl IntoIterator<Item = In>,
    ) -> Result<Vec<Result<Out, Failure>>, Stopped> {
        let mut items: VecDeque<In> = items.into_iter().collect();
        self.fed += items.len() as u64;
        let mut answers = Vec::with_capacity(items.len());
        block_on(self.exchange(&mut items, &mut answers))?;
        answers.sort_by_key(|(number, _)| *number);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }

    /// Feeds and drains at once until all that was ever fed is answered.
    async fn exchange(
        &mut self,
        items: &mut VecDeque<In>,
        answers: &mut Vec<(u64, Result<Out, Failure>)>,
    ) -> Result<(), Stopped> {
        let ledger = self.core.ledger.clone();
        let mut inbox = Held::new(ledger.clone(), None);
        while ledger.ended() < self.fed {
            if self.core.stop.level() > StopLevel::None {
                return Err(Stopped);
            }
            let feed = pin!(async {
                if !items.is_empty() {
                    let _ = self.entrance.push_batch_async(items).await;
                }
                // Fed: only answers or a stop go on from here.
                self.core.stop.reached(StopLevel::Drain).await;
            });
            let popped = self.exit.pop_batch_async(&mut inbox, chunk::MOST);
            // An item of which nothing is left ends on the way and never comes out.
            let complete = ledger.has_ended.until(|| ledger.ended() >= self.fed);
            match first(first(popped, complete), feed).await {
                Either::First(Either::First(Ok(_)) | Either::Second(())) => {}
                Either::First(Either::First(Err(_))) | Either::Second(()) => return Err(Stopped),
            }
            sink::see_recorded(self.core, &mut inbox).await;
            ledger.end_all(&mut inbox, |id, output| {
                let number = id.sequence_numbers().first().copied().unwrap_or(0);
                answers.push((number, output.into()));
            });
        }
        Ok(())
    }
}
