//! Limits in time for a future: rows 77 and 78.

use std::{
    future::{Future, pending, poll_fn, ready},
    pin::{Pin, pin},
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use paceline::{BoxError, Clock, Deadline, FailureKind, Fault, Stop, StopLevel};

use paceline_tests::{Census, Given, millis};

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A future that is ready when it is polled for the `n`th time.
fn after_polls(n: usize) -> impl Future<Output = usize> {
    let mut polls = 0;
    poll_fn(move |_| {
        polls += 1;
        if polls == n { Poll::Ready(polls) } else { Poll::Pending }
    })
}

#[test]
fn t77_a_scope_gives_the_value_or_expires_and_has_dropped_the_future() {
    let (clock, census) = (Clock::manual(), Census::default());
    let deadline = Deadline::after_on(&clock, millis(50));
    let kept = census.make(1);
    let mut scope = pin!(deadline.scope(async move {
        let _kept = kept;
        pending::<()>().await
    }));
    assert!(poll(scope.as_mut()).is_pending());
    clock.advance(millis(49));
    assert!(poll(scope.as_mut()).is_pending());
    clock.advance(millis(1));
    let Poll::Ready(Err(expired)) = poll(scope.as_mut()) else { panic!("the time is over") };
    assert_eq!(expired.limit(), millis(50));
    assert_eq!(clock.timers(), 0);

    let deadline = Deadline::after_on(&clock, millis(50));
    assert!(matches!(poll(pin!(deadline.scope(ready(7)))), Poll::Ready(Ok(7))));
    assert!(!deadline.has_expired());
}

#[test]
fn t77_a_foreign_cancellation_stays_one() {
    // To cancel is to drop: there is no error that a scope could take for its own.
    let (clock, census) = (Clock::manual(), Census::default());
    let deadline = Deadline::after_on(&clock, millis(50));
    let kept = census.make(1);
    {
        let mut scope = pin!(deadline.scope(async move {
            let _kept = kept;
            pending::<()>().await
        }));
        assert!(poll(scope.as_mut()).is_pending());
    }
    assert_eq!(census.alive(), 0);
    assert!(!deadline.has_expired());
    // A fault of that kind passes through as it is.
    let fault = || Err::<(), _>(Fault::new(FailureKind::Cancelled, "by somebody else"));
    let Poll::Ready(Ok(Err(fault))) = poll(pin!(deadline.scope(ready(fault())))) else {
        panic!("the scope changed it")
    };
    assert_eq!(fault.kind(), FailureKind::Cancelled);
}

#[test]
fn t77_of_nested_scopes_that_expire_together_the_outermost_is_told() {
    for _ in 0..10_000 {
        let clock = Clock::manual();
        let (outer, inner) =
            (Deadline::after_on(&clock, millis(50)), Deadline::after_on(&clock, millis(20)));
        let mut nested = pin!(outer.scope(inner.scope(pending::<()>())));
        assert!(poll(nested.as_mut()).is_pending());
        clock.advance(millis(50));
        let Poll::Ready(Err(expired)) = poll(nested.as_mut()) else { panic!("both have passed") };
        assert_eq!(expired.limit(), millis(50), "the outer one");
    }
    // The inner alone is the inner's, and the outer goes on.
    let clock = Clock::manual();
    let (outer, inner) =
        (Deadline::after_on(&clock, millis(50)), Deadline::after_on(&clock, millis(20)));
    let mut nested = pin!(outer.scope(inner.scope(pending::<()>())));
    assert!(poll(nested.as_mut()).is_pending());
    clock.advance(millis(20));
    let Poll::Ready(Ok(Err(expired))) = poll(nested.as_mut()) else { panic!("the inner passed") };
    assert_eq!(expired.limit(), millis(20));
}

#[test]
fn t77_a_deadline_is_moved_until_it_has_expired() {
    let clock = Clock::manual();
    let deadline = Deadline::after_on(&clock, millis(50));
    let mut scope = pin!(deadline.scope(pending::<()>()));
    assert!(poll(scope.as_mut()).is_pending());
    assert!(deadline.reschedule(millis(80)));
    clock.advance(millis(79));
    assert!(poll(scope.as_mut()).is_pending());
    assert!(deadline.reschedule(millis(5)), "nearer");
    clock.advance(millis(5));
    assert!(poll(scope.as_mut()).is_ready());
    assert!(!deadline.reschedule(millis(80)), "too late");
    assert!(poll(pin!(deadline.scope(ready(())))).is_ready_and_err());
}

trait IsReadyAndErr {
    fn is_ready_and_err(&self) -> bool;
}

impl<T, E> IsReadyAndErr for Poll<Result<T, E>> {
    fn is_ready_and_err(&self) -> bool {
        matches!(self, Poll::Ready(Err(_)))
    }
}

#[tokio::test]
async fn t77_moving_a_deadline_wakes_the_scope_that_waits_for_it() {
    let deadline = Deadline::after(Duration::from_secs(3600));
    let scope = deadline.scope(pending::<()>());
    let (ended, moved) = tokio::join!(scope, async { deadline.reschedule(millis(5)) });
    assert!(moved);
    assert_eq!(ended.unwrap_err().limit(), millis(5));
}

#[test]
fn t78_a_deadline_that_has_passed_begins_nothing() {
    let clock = Clock::manual();
    let deadline = Deadline::after_on(&clock, Duration::ZERO);
    let polls = AtomicUsize::new(0);
    let counting = poll_fn(|_| {
        polls.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(())
    });
    assert!(poll(pin!(deadline.scope(counting))).is_ready_and_err());
    assert_eq!(polls.load(Ordering::SeqCst), 0);
    let work = |_: Stop| -> std::future::Ready<Given<()>> { panic!("it was called") };
    let Poll::Ready(Err(fault)) = poll(pin!(deadline.wind_down(millis(5), work))) else {
        panic!("it waits")
    };
    assert_eq!(fault.kind(), FailureKind::Timeout);
}

#[test]
fn t78_work_that_is_done_gives_its_value_also_by_a_limit_of_zero() {
    let (promise, mut answer) = paceline::Answer::<u32>::pending("done", 1);
    promise.keep(|| Given::Ok(7));
    assert_eq!(answer.wait_for(Duration::ZERO).unwrap().unwrap(), 7);
}

#[test]
fn t78_when_the_time_is_over_the_clean_up_is_awaited_before_the_timeout_is_told() {
    let (clock, steps) = (Clock::manual(), AtomicUsize::new(0));
    let deadline = Deadline::after_on(&clock, millis(50));
    let mut work = pin!(deadline.wind_down(Duration::from_secs(60), async |stop: Stop| {
        stop.reached(StopLevel::Cancel).await;
        steps.fetch_add(1, Ordering::SeqCst);
        after_polls(3).await;
        steps.fetch_add(1, Ordering::SeqCst);
        Err::<(), _>(Fault::new(FailureKind::Cancelled, "as asked"))
    }));
    assert!(poll(work.as_mut()).is_pending());
    clock.advance(millis(50));
    let mut polls = 0;
    let fault = loop {
        polls += 1;
        match poll(work.as_mut()) {
            Poll::Ready(result) => break result.unwrap_err(),
            Poll::Pending => assert_eq!(steps.load(Ordering::SeqCst), 1),
        }
    };
    assert!(polls > 1, "it was waited for");
    assert_eq!(steps.load(Ordering::SeqCst), 2);
    assert_eq!(
        (fault.kind(), fault.to_string().as_str()),
        (FailureKind::Timeout, "took longer than 50ms")
    );
}

#[test]
fn t78_a_value_given_while_being_cancelled_wins() {
    for late_by in 0..2 {
        let clock = Clock::manual();
        let deadline = Deadline::after_on(&clock, millis(50));
        let mut work = pin!(deadline.wind_down(millis(10), async |stop: Stop| {
            stop.reached(StopLevel::Cancel).await;
            after_polls(1 + late_by).await;
            Given::Ok("all the same")
        }));
        assert!(poll(work.as_mut()).is_pending());
        clock.advance(millis(50));
        let value = loop {
            if let Poll::Ready(value) = poll(work.as_mut()) {
                break value;
            }
        };
        assert_eq!(value.unwrap(), "all the same");
    }
    // Done in the very moment that the time is over.
    let clock = Clock::manual();
    let deadline = Deadline::after_on(&clock, millis(50));
    let mut work = pin!(deadline.wind_down(millis(10), async |_| Given::Ok(after_polls(2).await)));
    assert!(poll(work.as_mut()).is_pending());
    clock.advance(millis(50));
    assert!(matches!(poll(work.as_mut()), Poll::Ready(Ok(2))));
}

#[test]
fn t77_an_error_from_cleaning_up_is_told_with_the_timeout_as_its_context() {
    let clock = Clock::manual();
    let deadline = Deadline::after_on(&clock, millis(50));
    let mut work = pin!(deadline.wind_down(millis(10), async |stop: Stop| {
        stop.reached(StopLevel::Cancel).await;
        Err::<(), BoxError>("the disk is full".into())
    }));
    assert!(poll(work.as_mut()).is_pending());
    clock.advance(millis(50));
    let Poll::Ready(Err(fault)) = poll(work.as_mut()) else { panic!("it has ended") };
    assert_eq!(fault.kind(), FailureKind::Failed);
    assert_eq!(
        fault.to_string(),
        "the disk is full; it was told to end, since it took longer than 50ms"
    );
}

#[test]
fn t78_work_that_does_not_end_is_dropped_after_the_grace_period() {
    let (clock, census) = (Clock::manual(), Census::default());
    let deadline = Deadline::after_on(&clock, millis(50));
    let kept = census.make(1);
    let mut work = pin!(deadline.wind_down(millis(10), |_| async move {
        let _kept = kept;
        pending::<Given<()>>().await
    }));
    assert!(poll(work.as_mut()).is_pending());
    clock.advance(millis(50));
    assert!(poll(work.as_mut()).is_pending());
    clock.advance(millis(10));
    let Poll::Ready(Err(fault)) = poll(work.as_mut()) else { panic!("the grace is over") };
    assert_eq!(fault.kind(), FailureKind::Timeout);
}

#[test]
fn t78_a_wait_that_is_dropped_drops_the_work() {
    let (clock, census) = (Clock::manual(), Census::default());
    for number in 0..10_000 {
        let deadline = Deadline::after_on(&clock, millis(50));
        let kept = census.make(number);
        let mut work = Box::pin(deadline.wind_down(millis(10), |_| async move {
            let _kept = kept;
            pending::<Given<()>>().await
        }));
        assert!(poll(work.as_mut()).is_pending());
        drop(work);
        assert_eq!((census.alive(), clock.timers()), (0, 0));
    }
}

#[tokio::test]
async fn t78_the_machine_clock_ends_waits_too() {
    let started = Instant::now();
    let deadline = Deadline::after(millis(20));
    let fault = deadline.wind_down(millis(5), |_| pending::<Given<()>>()).await.unwrap_err();
    assert_eq!(fault.kind(), FailureKind::Timeout);
    assert!(started.elapsed() >= millis(25));
}
