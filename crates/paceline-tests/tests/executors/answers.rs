//! Answers: rows 49 to 56.

use std::{
    pin::pin,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use paceline::{
    Answer, BoxError, Canceller, FailureKind, Outcome, Promise, Until, as_completed, wait,
};

use paceline_tests::{Census, Counted, ON_PURPOSE, millis, watched};

type Pair<T> = (Promise<T>, Answer<T>);

fn pair<T>() -> Pair<T> {
    Answer::pending("test", 1)
}

fn keep<T>(promise: Promise<T>, value: T) {
    promise.keep(|| Ok::<_, BoxError>(value));
}

fn fail<T>(promise: Promise<T>) {
    promise.keep(|| Err::<T, BoxError>("no luck".into()));
}

fn several<T>(count: u64) -> (Vec<Promise<T>>, Vec<Answer<T>>) {
    (1..=count).map(|number| Answer::pending("test", number)).unzip()
}

#[test]
fn f49_only_work_that_has_not_begun_can_be_cancelled() {
    let (promise, mut answer) = pair::<u32>();
    assert!(answer.cancel(), "pending");
    assert!(answer.cancel(), "cancelled already");
    assert!(!promise.start(), "it must not begin");
    assert_eq!(answer.try_get().unwrap().unwrap_err().kind(), FailureKind::Cancelled);

    let (promise, mut answer) = pair::<u32>();
    assert!(promise.start());
    assert!(!answer.cancel(), "running");
    assert!(promise.is_cancelled(), "but it is asked to end");
    keep(promise, 7);
    assert!(!answer.cancel(), "done");
    assert_eq!(answer.try_get().unwrap().unwrap(), 7);
}

#[test]
fn f49_what_was_cancelled_never_runs() {
    let (promise, answer) = pair::<u32>();
    assert!(answer.cancel());
    promise.keep(|| -> Result<u32, BoxError> { panic!("it ran") });
    assert_eq!(answer.wait().unwrap_err().kind(), FailureKind::Cancelled);
}

#[test]
fn f50_a_wait_gives_the_value_the_error_or_the_cancellation_and_nothing_before() {
    let (promise, mut answer) = pair::<u32>();
    assert!(answer.wait_for(Duration::ZERO).is_none(), "a probe");
    let started = Instant::now();
    assert!(answer.wait_for(millis(20)).is_none());
    assert!(started.elapsed() >= millis(20));
    keep(promise, 7);
    assert_eq!(answer.wait_for(Duration::ZERO).unwrap().unwrap(), 7);

    let (promise, mut answer) = pair::<u32>();
    promise.keep(|| "seven".parse::<u32>());
    let failure = answer.wait_for(millis(1)).unwrap().unwrap_err();
    assert_eq!(failure.kind(), FailureKind::Failed);
    assert_eq!(failure.to_string(), "item 1 failed in stage `test`");
    assert!(failure.cause().is::<std::num::ParseIntError>(), "the source is kept");

    let (_promise, answer) = pair::<u32>();
    answer.cancel();
    assert_eq!(answer.wait().unwrap_err().kind(), FailureKind::Cancelled);
}

#[test]
fn f50_an_outcome_is_taken_once_and_asking_again_never_hangs() {
    let (promise, mut answer) = pair::<u32>();
    keep(promise, 7);
    assert_eq!(answer.try_get().unwrap().unwrap(), 7);
    let again = answer.wait_for(Duration::MAX).unwrap().unwrap_err();
    assert_eq!(again.kind(), FailureKind::Closed);
    assert_eq!(again.cause().to_string(), "the outcome was taken before");
    let (told, heard) = mpsc::channel();
    answer.on_done(move |outcome| told.send(outcome.is_err()).unwrap());
    assert!(heard.recv().unwrap());
    assert_eq!(answer.wait().unwrap_err().kind(), FailureKind::Closed);
}

#[test]
fn f51_a_thread_that_waits_is_woken_by_value_error_cancellation_and_a_lost_promise() {
    watched(|| {
        type End = fn(Promise<u32>, Canceller);
        let ends: [(End, Option<FailureKind>); 5] = [
            (|promise, _| keep(promise, 7), None),
            (|promise, _| fail(promise), Some(FailureKind::Failed)),
            (|promise, _| panic_in(promise), Some(FailureKind::Panic)),
            (|_promise, canceller| assert!(canceller.cancel()), Some(FailureKind::Cancelled)),
            (|promise, _| drop(promise), Some(FailureKind::Closed)),
        ];
        for (end, kind) in ends {
            for is_limited in [false, true] {
                let (promise, mut answer) = pair::<u32>();
                let canceller = answer.canceller();
                let waits = Arc::new(Barrier::new(2));
                let waiter = thread::spawn({
                    let waits = waits.clone();
                    move || {
                        waits.wait();
                        match is_limited {
                            true => answer.wait_for(Duration::from_secs(20)).expect("in time"),
                            false => answer.wait(),
                        }
                    }
                });
                waits.wait();
                end(promise, canceller);
                let outcome = waiter.join().unwrap();
                assert_eq!(outcome.err().map(|failure| failure.kind()), kind);
            }
        }
    });
}

fn panic_in<T>(promise: Promise<T>) {
    promise.keep(|| -> Result<T, BoxError> { panic!("{ON_PURPOSE}") });
}

#[test]
fn f52_callbacks_run_once_in_order_at_once_if_done_and_on_cancel_too() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let note = |what: &'static str| {
        let said = said.clone();
        move |outcome: &Outcome<u32>| {
            let kind = outcome.as_ref().err().map(|failure| failure.kind());
            said.lock().unwrap().push((what, kind));
        }
    };
    let (promise, answer) = pair::<u32>();
    answer.on_done(note("first"));
    answer.on_done(note("second"));
    assert_eq!(*said.lock().unwrap(), []);
    keep(promise, 7);
    answer.on_done(note("late"));
    assert_eq!(*said.lock().unwrap(), [("first", None), ("second", None), ("late", None)]);
    assert_eq!(answer.wait().unwrap(), 7);

    let (promise, answer) = pair::<u32>();
    said.lock().unwrap().clear();
    answer.on_done(note("cancelled"));
    answer.cancel();
    drop(promise);
    assert_eq!(*said.lock().unwrap(), [("cancelled", Some(FailureKind::Cancelled))]);
}

#[test]
fn f52_a_callback_that_panics_stops_neither_the_others_nor_the_outcome() {
    watched(|| {
        let (promise, answer) = pair::<u32>();
        let (told, heard) = mpsc::channel();
        answer.on_done(|_| panic!("{ON_PURPOSE}"));
        answer.on_done(move |outcome| told.send(*outcome.as_ref().unwrap()).unwrap());
        keep(promise, 7);
        assert_eq!(heard.recv().unwrap(), 7);
        answer.on_done(|_| panic!("{ON_PURPOSE}"));
        assert_eq!(answer.wait().unwrap(), 7);
    });
}

#[test]
fn f52_callbacks_that_come_while_the_outcome_is_set_run_exactly_once() {
    watched(|| {
        for _ in 0..10_000 {
            let (promise, answer) = pair::<u32>();
            let calls = Arc::new(AtomicUsize::new(0));
            thread::scope(|scope| {
                scope.spawn(|| keep(promise, 7));
                for _ in 0..3 {
                    let calls = calls.clone();
                    answer.on_done(move |_| {
                        calls.fetch_add(1, Ordering::SeqCst);
                    });
                }
            });
            assert_eq!(calls.load(Ordering::SeqCst), 3);
            assert_eq!(answer.wait().unwrap(), 7);
        }
    });
}

#[test]
fn f53_the_first_outcome_stays_and_a_second_is_handed_back() {
    // A second `set` does not compile: the first uses the promise up. What is
    // left is the race with a cancellation.
    let (promise, answer) = pair::<String>();
    assert!(answer.cancel());
    let refused = promise.set(Ok::<_, BoxError>("late".to_owned())).unwrap_err();
    assert_eq!(refused.unwrap(), "late");
    assert_eq!(answer.wait().unwrap_err().kind(), FailureKind::Cancelled);
}

#[test]
fn f53_a_cancellation_and_an_outcome_at_once_leave_exactly_one() {
    watched(|| {
        for _ in 0..10_000 {
            let (promise, answer) = pair::<u32>();
            let canceller = answer.canceller();
            let set = thread::scope(|scope| {
                let set = scope.spawn(|| promise.set(Ok::<_, BoxError>(7)).is_ok());
                let was_cancelled = canceller.cancel();
                let was_set = set.join().unwrap();
                assert_ne!(was_set, was_cancelled);
                was_set
            });
            assert_eq!(answer.wait().is_ok(), set);
        }
    });
}

#[test]
fn f54_a_wait_for_several_gives_both_sets_back() {
    let (mut promises, answers) = several::<u32>(4);
    keep(promises.remove(2), 3);
    let waited = wait(answers, Until::FirstDone, None);
    assert_eq!((waited.done.len(), waited.unfinished.len()), (1, 3));

    // Cancelled is done and no failure, so the time is over first.
    waited.unfinished[0].cancel();
    let answers = waited.unfinished.into_iter().chain(waited.done);
    let waited = wait(answers, Until::FirstFailure, Some(millis(5)));
    assert_eq!((waited.done.len(), waited.unfinished.len()), (2, 2));

    let (first, second) = (promises.remove(1), promises.remove(1));
    fail(first);
    let waited = wait(waited.unfinished, Until::FirstFailure, None);
    assert_eq!((waited.done.len(), waited.unfinished.len()), (1, 1));
    assert!(waited.done[0].has_failed());

    keep(second, 4);
    let answers = waited.done.into_iter().chain(waited.unfinished);
    let waited = wait(answers, Until::AllDone, None);
    assert_eq!((waited.done.len(), waited.unfinished.len()), (2, 0));
    let values: Vec<Option<u32>> = waited.done.into_iter().map(|one| one.wait().ok()).collect();
    assert_eq!(values, [None, Some(4)], "in the order given");
    assert!(wait::<u32>([], Until::AllDone, None).done.is_empty(), "none at all is no wait");
}

#[test]
fn f54_a_wait_for_several_is_woken_by_what_comes_meanwhile() {
    watched(|| {
        for until in [Until::AllDone, Until::FirstDone, Until::FirstFailure] {
            let (promises, answers) = several::<u32>(3);
            let waiter = thread::spawn(move || wait(answers, until, None));
            promises.into_iter().for_each(fail);
            let waited = waiter.join().unwrap();
            assert!(!waited.done.is_empty());
            assert_eq!(waited.done.len() + waited.unfinished.len(), 3);
        }
    });
}

#[test]
fn f55_a_hundred_answers_that_come_while_a_waiter_registers_lose_no_wake_up() {
    watched(|| {
        let (give, given) = mpsc::channel::<Vec<Promise<u64>>>();
        let setter = thread::spawn(move || {
            given.into_iter().flatten().for_each(|promise| keep(promise, 1));
        });
        for round in 0..10_000 {
            let (promises, answers) = several::<u64>(100);
            give.send(promises).unwrap();
            let sum: u64 = match round % 2 {
                0 => as_completed(answers).map(|(_, outcome)| outcome.unwrap()).sum(),
                _ => {
                    let waited = wait(answers, Until::AllDone, None);
                    waited.done.into_iter().map(|answer| answer.wait().unwrap()).sum()
                }
            };
            assert_eq!(sum, 100);
        }
        drop(give);
        setter.join().unwrap();
    });
}

#[test]
fn f55_a_waiter_and_an_outcome_that_meet_lose_no_wake_up() {
    watched(|| {
        let (give, given) = mpsc::channel::<Promise<u32>>();
        let setter = thread::spawn(move || given.into_iter().for_each(|one| keep(one, 7)));
        for round in 0..20_000 {
            let (promise, mut answer) = pair::<u32>();
            give.send(promise).unwrap();
            let outcome = match round % 2 {
                0 => answer.wait(),
                _ => answer.wait_for(Duration::from_secs(20)).expect("woken in time"),
            };
            assert_eq!(outcome.unwrap(), 7);
        }
        drop(give);
        setter.join().unwrap();
    });
}

#[test]
fn f56_outcomes_come_as_completed_those_first_that_are_there() {
    let (mut promises, answers) = several::<&str>(3);
    keep(promises.remove(2), "there before");
    let mut outcomes = as_completed(answers);
    assert!(matches!(outcomes.next(), Some((2, Ok("there before")))));
    let late = outcomes.next_within(millis(5)).unwrap_err();
    assert_eq!(late.to_string(), "2 of 3 unfinished");
    keep(promises.remove(1), "second");
    fail(promises.remove(0));
    assert!(matches!(outcomes.next(), Some((1, Ok("second")))));
    assert!(matches!(outcomes.next_within(Duration::ZERO), Ok(Some((0, Err(_))))));
    assert!(outcomes.next().is_none());
    assert!(matches!(outcomes.next_within(Duration::ZERO), Ok(None)));
}

#[test]
fn f56_an_outcome_that_was_given_is_not_kept() {
    let census = Census::default();
    let (promises, answers) = several::<Counted>(10);
    for (number, promise) in promises.into_iter().enumerate() {
        keep(promise, census.make(number as u64));
    }
    let mut outcomes = as_completed(answers);
    for left in (0..10).rev() {
        drop(outcomes.next().unwrap());
        assert_eq!(census.alive(), left);
    }
}

#[test]
fn f56_what_is_left_can_be_cancelled() {
    let (promises, answers) = several::<u32>(3);
    assert!(promises[0].start());
    let outcomes = as_completed(answers);
    assert_eq!(outcomes.cancel(), 2, "one is running");
    assert!(promises.iter().all(Promise::is_cancelled));
}

#[test]
fn r59_1_an_answer_gives_the_value_or_the_error_by_a_take_once_rule() {
    let (promise, answer) = pair::<Vec<u8>>();
    keep(promise, vec![1]);
    assert_eq!(answer.wait().unwrap(), [1]); // `answer` is used up: a second read does not compile.
    let (promise, answer) = pair::<Vec<u8>>();
    fail(promise);
    let failure = answer.wait().unwrap_err();
    let again = failure.clone();
    assert_eq!(again.cause().to_string(), "no luck", "a failure is read as often as wanted");
}

/// Counts how often a task is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn r59_9_an_answer_is_awaited_and_wakes_its_task_once() {
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let mut context = Context::from_waker(&waker);
    let (promise, answer) = pair::<u32>();
    let mut answer = pin!(answer);
    assert!(answer.as_mut().poll(&mut context).is_pending());
    assert!(answer.as_mut().poll(&mut context).is_pending());
    keep(promise, 7);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert!(matches!(answer.as_mut().poll(&mut context), Poll::Ready(Ok(7))));
    drop(waker);
    assert_eq!(Arc::strong_count(&wakes), 1, "no waker is kept");
}

#[tokio::test]
async fn r59_9_an_answer_of_a_thread_is_awaited_by_a_task() {
    let (promise, answer) = pair::<u32>();
    let worker = thread::spawn(move || keep(promise, 7));
    assert_eq!(answer.await.unwrap(), 7);
    worker.join().unwrap();

    let (promises, answers) = several::<u32>(3);
    let worker = thread::spawn(move || promises.into_iter().for_each(|one| keep(one, 2)));
    let (mut outcomes, mut sum) = (as_completed(answers), 0);
    while let Some((_, outcome)) = outcomes.next_async().await {
        sum += outcome.unwrap();
    }
    assert_eq!(sum, 6);
    worker.join().unwrap();
}

#[tokio::test]
async fn whoever_does_the_work_can_wait_to_be_asked_to_end() {
    let (promise, mut answer) = pair::<u32>();
    assert!(promise.start());
    let work = tokio::spawn(async move {
        promise.cancelled().await;
        promise.set(Ok::<_, BoxError>(9)).unwrap();
    });
    assert!(!answer.cancel(), "it runs");
    assert_eq!((&mut answer).await.unwrap(), 9, "what it gave while being cancelled counts");
    work.await.unwrap();
}
