//! What a stage may have answered and not recorded: what a kill can undo (F2).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    thread::{self, ThreadId},
    time::Duration,
};

use paceline::{BoxError, Clock, Journal, Pipeline};

use paceline_tests::{Given, assert_conserved, millis, until, watched};

const ITEMS: u64 = 20;

/// Records nothing before it is told to.
#[derive(Default)]
struct Held {
    given: AtomicU64,
    committed: AtomicU64,
    /// Those who wait, by their threads, and whether they can do nothing else.
    waiting: Mutex<HashMap<ThreadId, (bool, Waker)>>,
}

impl Held {
    /// Records all that it has been given.
    fn commit(&self) {
        self.committed.store(self.given.load(Ordering::SeqCst), Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap());
        waiting.into_values().for_each(|(_, waker)| waker.wake());
    }

    /// How many workers wait.
    fn stuck(&self) -> usize {
        self.waiting.lock().unwrap().values().filter(|(is_urgent, _)| *is_urgent).count()
    }
}

impl Journal for Held {
    fn is_recorded(&self, entry: u64) -> bool {
        self.committed.load(Ordering::SeqCst) >= entry
    }

    fn poll_recorded(
        &self,
        entry: u64,
        is_urgent: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>> {
        let mut waiting = self.waiting.lock().unwrap();
        if self.is_recorded(entry) {
            return Poll::Ready(Ok(()));
        }
        // Who only asks for a commit, by the waker that wakes nobody, does not wait for it.
        if !context.waker().data().is_null() {
            let waiter = (is_urgent, context.waker().clone());
            waiting.insert(thread::current().id(), waiter);
        }
        Poll::Pending
    }
}

/// Has `workers` work on the items, `each` of which takes so long, and commits whenever nobody
/// can go on; tells how many answers each commit had.
fn commits(workers: usize, each: Duration) -> Vec<u64> {
    let journal = Arc::new(Held::default());
    let clock = Clock::manual();
    let run = thread::spawn({
        let (journal, clock, record) = (journal.clone(), clock.clone(), journal.clone());
        move || {
            let time = clock.clone();
            Pipeline::from_iter(1..=ITEMS)
                .blocking("work", move |n| {
                    time.advance(each);
                    Given::Ok(n)
                })
                .workers(workers)
                // No chunks: whoever waits has one item in hand.
                .queue(2)
                .record(move |_| 1 + record.given.fetch_add(1, Ordering::SeqCst))
                .journal(journal)
                .clock(&clock)
                .discard()
                .run()
                .unwrap()
        }
    });
    let mut sizes = Vec::new();
    let mut before = 0;
    while before < ITEMS {
        until("nobody can go on", || {
            let left = ITEMS - journal.given.load(Ordering::SeqCst);
            journal.stuck() as u64 == left.min(workers as u64)
        });
        let given = journal.given.load(Ordering::SeqCst);
        sizes.push(given - before);
        before = given;
        journal.commit();
    }
    // The sink may have come to wait since.
    until("the run ends", || {
        journal.commit();
        run.is_finished()
    });
    assert_conserved(&run.join().unwrap());
    sizes
}

#[test]
fn f2_a_stage_begins_nothing_more_while_many_of_its_answers_are_not_recorded() {
    watched(|| {
        for workers in [1, 2, 8] {
            let sizes = commits(workers, millis(1));
            // As many as there are workers, or four, and what ran meanwhile.
            let most = workers.max(4) + workers;
            assert!(sizes.iter().all(|size| *size <= most as u64), "{workers}: {sizes:?}");
            assert!(sizes[0] > 4, "it need not wait for each: {sizes:?}");
        }
    });
}

#[test]
fn f2_an_answer_that_took_long_is_recorded_before_the_next_attempt() {
    watched(|| {
        for workers in [1, 2] {
            let sizes = commits(workers, millis(50));
            assert!(sizes.iter().all(|size| *size <= workers as u64), "{workers}: {sizes:?}");
        }
    });
}

#[test]
fn f2_what_is_cheap_to_do_again_waits_for_no_commit() {
    watched(|| assert_eq!(commits(2, Duration::ZERO), [ITEMS]));
}
