//! How workers leave, and what becomes of the items that they had in hand.

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::StreamExt;

use super::{ServeLoop, State, desk::Task};
use crate::{
    failure::{FailureKind, Fault},
    stop::StopLevel,
    sync::first,
    worker::{
        cancelled,
        serve::{Exchange, process::Departed},
        timed_out,
    },
};

/// How often a worker may die in a row before it has answered anything.
const DEATHS: u32 = 3;

/// How long a worker may take to end by itself, when its input has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long one may take that has closed its end of the channel, or was not needed.
const ENDING: Duration = Duration::from_millis(200);

/// Why a worker is seen off.
pub(super) enum Why {
    /// It has ended, or takes and says nothing more.
    Ended,
    /// What it said was no answer.
    Garbage(String),
    /// Its item took too long.
    Late,
    /// It was not ready in time.
    NeverReady,
    /// The run was stopped.
    Stopped,
    /// It has done what it should.
    Dismissed,
}

/// A worker that has gone, and the items that it had in hand.
pub(super) struct Left<In> {
    seat: usize,
    why: Why,
    items: Vec<Task<In>>,
    departed: Departed,
}

impl<In, X> ServeLoop<'_, In, X>
where
    In: Send,
    X: Exchange<In>,
    X::Out: Send,
{
    /// Gives a worker up: what it had in hand is answered for when it has
    /// ended, what was behind that goes to the next.
    pub(super) fn lose(&mut self, index: usize, why: Why) {
        let seat = &mut self.seats[index];
        let State::Taken(mut worker) = std::mem::replace(&mut seat.state, State::Leaving) else {
            seat.state = State::Empty;
            return;
        };
        if self.core.is_measured {
            self.stage.processes.left(worker.process.id());
        }
        let stop = &self.core.stop;
        let is_dismissed = matches!(why, Why::Dismissed);
        self.desk.answer_for(index);
        let now = self.core.clock.now();
        let (items, rest) = match why {
            Why::Ended => {
                self.desk.hear_last(&mut worker);
                worker.split_at_death()
            }
            Why::Garbage(_) => worker.split_at(1),
            Why::Late => worker.split_late(now, self.stage.settings.timeout),
            Why::NeverReady | Why::Dismissed => worker.split_at(0),
            Why::Stopped => worker.split_at(usize::MAX),
        };
        if is_dismissed {
            seat.state = State::Empty;
        }
        if matches!(why, Why::Ended | Why::Garbage(_) | Why::NeverReady) {
            seat.deaths = if worker.answered == 0 { seat.deaths + 1 } else { 0 };
        }
        rest.into_iter().rev().for_each(|task| self.desk.pending.push_front(task));
        let (clock, stop) = (self.core.clock.clone(), stop.clone());
        let grace = self.stage.settings.grace;
        let has_begun = worker.is_ready;
        self.leaving.push(Box::pin(async move {
            let patience = match why {
                Why::Dismissed if has_begun => PATIENCE.min(grace),
                // It has done nothing yet, and the end of a run need not wait until it could.
                Why::Dismissed => ENDING.min(grace),
                // It is about to, and its status tells more than how it is made to.
                Why::Ended => ENDING.min(grace),
                _ => Duration::ZERO,
            };
            let patience = async {
                if !patience.is_zero() {
                    let hurried = stop.reached(StopLevel::Cancel);
                    first(clock.sleep(patience), hurried).await;
                }
            };
            let killed = async {
                first(clock.sleep(grace), stop.reached(StopLevel::Kill)).await;
            };
            let departed = worker.process.leave(patience, killed).await;
            Left { seat: index, why, items, departed }
        }));
    }

    /// Answers for the items of a worker that has gone.
    pub(super) fn bury(&mut self, Left { seat, why, items, departed }: Left<In>) {
        let cpu = u64::try_from(departed.cpu.as_nanos()).unwrap_or(u64::MAX);
        self.stage.counters.shard(seat).cpu.fetch_add(cpu, Ordering::Relaxed);
        self.desk.answer_for(seat);
        let timeout = self.stage.settings.timeout.unwrap_or_default();
        let story = story(&why, &departed);
        for task in items {
            let fault = match why {
                Why::Stopped | Why::Dismissed => cancelled(),
                Why::Late => timed_out(timeout),
                Why::Ended | Why::Garbage(_) | Why::NeverReady => {
                    let exit = departed.exit.filter(|_| matches!(why, Why::Ended));
                    let signal = exit.and_then(|exit| exit.signal());
                    Fault::new(FailureKind::Worker, &*story)
                        .with_code(exit.and_then(|exit| exit.code()))
                        .with_signal(signal.map(|signal| signal.as_raw()))
                }
            };
            self.desk.give_up(task, fault, Duration::ZERO);
        }
        if matches!(why, Why::Dismissed) {
            return;
        }
        self.seats[seat].state = State::Empty;
        if self.seats[seat].deaths >= DEATHS && self.level() < StopLevel::Cancel {
            self.fail(&format!(
                "died {DEATHS} times in a row before they had answered anything: {story}"
            ));
        }
    }

    /// Lets all workers end by themselves.
    pub(super) async fn dismiss_all(&mut self) {
        (0..self.seats.len()).for_each(|seat| self.lose(seat, Why::Dismissed));
        while let Some(left) = self.leaving.next().await {
            self.bury(left);
        }
    }
}

/// What became of a worker, in words.
fn story(why: &Why, departed: &Departed) -> String {
    let Departed { id, exit, last_words, .. } = departed;
    let what = match (why, exit) {
        (Why::Garbage(what), _) => format!("gave no proper answer: {what}"),
        (Why::NeverReady, _) => "was not ready in time".to_owned(),
        (_, Some(exit)) => format!("ended before it answered: {exit}"),
        (_, None) => "ended before it answered".to_owned(),
    };
    if last_words.is_empty() {
        format!("worker process {id} {what}")
    } else {
        format!("worker process {id} {what}; it said last: {last_words}")
    }
}
