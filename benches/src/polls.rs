//! What watching the event loops costs a poll.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use paceline::{BoxError, Observer, Pipeline};

use crate::harness::{Bar, Contest, Options, timed};

pub(crate) const ABOUT: &str = "\
A future that only wakes itself, polled again and again in an `io` stage of one worker: with the
watch off, with it on, and with it on and an observer who would be told of a poll that is stuck.";

const OFF: &str = "watch off";
const ON: &str = "watch on";
const OBSERVED: &str = "watch on, observed";

struct Nobody;

impl Observer for Nobody {}

pub(crate) fn contests(options: &Options) -> Vec<Contest> {
    let polls = options.amount(2_000_000);
    let mut contest = Contest::new(format!("{polls} polls"), "ns a poll");
    contest.bars.push(Bar::above(OBSERVED, 100.0, OFF));
    contest.add(OFF, move || vec![each(polls, |pipeline| pipeline.watch(None))]);
    contest.add(ON, move || vec![each(polls, |pipeline| pipeline)]);
    contest
        .add(OBSERVED, move || vec![each(polls, |pipeline| pipeline.observer(Arc::new(Nobody)))]);
    vec![contest]
}

type Polls<'a> = Pipeline<'a, (), usize>;

/// Nanoseconds a poll.
fn each(polls: usize, set: impl FnOnce(Polls<'_>) -> Polls<'_>) -> f64 {
    let pipeline = Pipeline::from_iter([polls])
        .io("poll", |mut left: usize| {
            poll_fn(move |context| {
                left -= 1;
                context.waker().wake_by_ref();
                if left == 0 { Poll::Ready(Ok::<_, BoxError>(())) } else { Poll::Pending }
            })
        })
        .workers(1);
    let time: Duration = timed(|| {
        let summary = set(pipeline).run().expect("it can be run");
        assert!(summary.is_complete());
    });
    time.as_nanos() as f64 / polls as f64
}
