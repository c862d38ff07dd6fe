//! Groups of futures: rows 74 to 76, requirements R60.

use std::{
    future::{Future, pending, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use paceline::{
    BoxError, Clock, FailureKind, Fault, Group, GroupErrorKind, Members, Reason, Stop, StopLevel,
    as_completed,
};
use tokio::sync::{Notify, oneshot};

use paceline_tests::{
    Census, Given, ON_PURPOSE, Peak, alone, millis, thread_names, until, watched,
};

mod endings;

/// Runs a future on a runtime of its own, with timers, under the watchdog.
fn run<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    watched(|| runtime().block_on(body()));
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

type Boxed<T> = Pin<Box<dyn Future<Output = Given<T>> + Send>>;

fn ok<T: Send + 'static>(value: T) -> Boxed<T> {
    Box::pin(async { Ok(value) })
}

fn err<T: 'static>(what: &'static str) -> Boxed<T> {
    Box::pin(async move { Err(what.into()) })
}

#[test]
fn r60_1_ten_thousand_waits_at_once_take_little_more_than_one() {
    alone(|| {
        let before = resident();
        let started = Instant::now();
        let (threads, sum) = runtime().block_on(async {
            let begun = AtomicUsize::new(0);
            let threads = AtomicUsize::new(0);
            let waits = (0..10_000_u64).map(|n| {
                let (begun, threads) = (&begun, &threads);
                async move {
                    if begun.fetch_add(1, Ordering::SeqCst) == 9999 {
                        threads.store(thread_names().len(), Ordering::SeqCst);
                    }
                    tokio::time::sleep(millis(100)).await;
                    Given::Ok(n)
                }
            });
            let values = Group::new("waits").gather(waits).await.unwrap();
            (threads.into_inner(), values.into_iter().sum::<u64>())
        });
        let took = started.elapsed();
        assert_eq!(sum, 49_995_000);
        assert!(took >= millis(100) && took < Duration::from_secs(1), "took {took:?}");
        assert!(threads <= paceline::cores() + 3, "{threads} threads");
        let added = resident().saturating_sub(before);
        assert!(added < 30 << 20, "{} bytes a wait", added / 10_000);
    });
}

#[test]
fn r60_1_a_hundred_thousand_waits_at_once() {
    alone(|| {
        let started = Instant::now();
        let values = runtime().block_on(async {
            let waits = (0..100_000_u64).map(|n| async move {
                tokio::time::sleep(millis(100)).await;
                Given::Ok(n)
            });
            Group::new("waits").gather(waits).await.unwrap()
        });
        assert_eq!(values.len(), 100_000);
        assert!(started.elapsed() < Duration::from_secs(3), "took {:?}", started.elapsed());
    });
}

/// The most memory this process has had, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

#[test]
fn r60_2_gather_keeps_the_order_whatever_comes_first() {
    run(|| async {
        let (told, heard) = oneshot::channel();
        let last = async move {
            heard.await.unwrap();
            Given::Ok("first")
        };
        let futures: [Boxed<&str>; 3] = [
            Box::pin(last),
            ok("second"),
            Box::pin(async {
                told.send(()).unwrap();
                Ok("third")
            }),
        ];
        assert_eq!(Group::new("r60").gather(futures).await.unwrap(), ["first", "second", "third"]);
        assert_eq!(Group::new("none").gather(Vec::<Boxed<()>>::new()).await.unwrap(), []);
    });
}

#[test]
fn r60_2_gather_all_keeps_every_outcome() {
    run(|| async {
        let panics: Boxed<u32> = Box::pin(async { panic!("{ON_PURPOSE}") });
        let futures = [ok(1), err("no luck"), ok(3), panics];
        let outcomes = Group::new("r60").gather_all(futures).await;
        let kinds: Vec<_> =
            outcomes.iter().map(|one| one.as_ref().err().map(|failure| failure.kind())).collect();
        let (failed, panicked) = (Some(FailureKind::Failed), Some(FailureKind::Panic));
        assert_eq!(kinds, [None, failed, None, panicked]);
        assert_eq!(outcomes[1].as_ref().unwrap_err().to_string(), "item 2 failed in stage `r60`");
    });
}

#[test]
fn r60_3_no_member_runs_when_the_group_has_ended() {
    run(|| async {
        let peak = Peak::default();
        let members = (0..100_u32).map(|n| {
            let peak = &peak;
            async move {
                let _inside = peak.enter();
                for _ in 0..n % 7 {
                    tokio::task::yield_now().await;
                }
                if n == 60 { Err("no luck") } else { Ok(n) }
            }
        });
        assert!(Group::new("r60-3").gather(members).await.is_err());
        assert_eq!(peak.now(), 0);
        assert!(peak.most() > 1);
    });
}

#[test]
fn r60_3_members_may_borrow_what_outlives_the_group() {
    run(|| async {
        let words = vec!["a".to_owned(), "bb".to_owned()];
        let lengths = words.iter().map(|word| async { Given::Ok(word.len()) });
        assert_eq!(Group::new("borrow").gather(lengths).await.unwrap(), [1, 2]);
        let total = AtomicUsize::new(0);
        Group::new("borrow")
            .scope(async |members: Members<'_>| {
                for word in &words {
                    let total = &total;
                    let member =
                        async move { Given::Ok(total.fetch_add(word.len(), Ordering::SeqCst)) };
                    drop(members.add(member).unwrap());
                }
                Given::Ok(())
            })
            .await
            .unwrap();
        assert_eq!(total.into_inner(), 3);
    });
}

#[test]
fn r60_4_no_more_than_the_limit_are_in_flight_and_futures_are_made_as_needed() {
    run(|| async {
        let (peak, made) = (Peak::default(), AtomicUsize::new(0));
        let futures = (0..5000).map(|n| {
            let made_now = made.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(made_now <= n + 500, "made ahead of the limit");
            let peak = &peak;
            async move {
                let _inside = peak.enter();
                tokio::task::yield_now().await;
                Given::Ok(n)
            }
        });
        let values = Group::new("r60-4").limit(500).gather(futures).await.unwrap();
        assert_eq!(values, (0..5000).collect::<Vec<_>>());
        assert_eq!(peak.most(), 500);
    });
}

#[test]
fn r60_4_a_scope_keeps_its_limit_and_says_when_there_is_room() {
    run(|| async {
        let (peak, total) = (Arc::new(Peak::default()), AtomicUsize::new(0));
        let at_once = peak.clone();
        Group::new("r60-4s")
            .limit(10)
            .scope(async |members: Members<'_>| {
                for _ in 0..500 {
                    members.room().await;
                    assert!(members.unfinished() < 10);
                    let (peak, total) = (at_once.clone(), &total);
                    let member = async move {
                        let _inside = peak.enter();
                        tokio::task::yield_now().await;
                        Given::Ok(total.fetch_add(1, Ordering::SeqCst))
                    };
                    drop(members.add(member).unwrap());
                }
                Given::Ok(())
            })
            .await
            .unwrap();
        assert_eq!((peak.most(), total.into_inner()), (10, 500));
    });
}

#[test]
fn r60_5_members_go_on_while_the_body_handles_an_outcome() {
    run(|| async {
        for _ in 0..100 {
            // The body takes the lock that a member in flight waits for, or holds, in turn.
            let lock = tokio::sync::Mutex::new(0_u32);
            Group::new("r60-5")
                .limit(2)
                .scope(async |members: Members<'_>| {
                    let answers = (0..6).map(|_| {
                        let lock = &lock;
                        members.add(async move {
                            let mut held = lock.lock().await;
                            tokio::task::yield_now().await;
                            *held += 1;
                            Given::Ok(())
                        })
                    });
                    let mut outcomes =
                        as_completed(answers.map(Result::unwrap).collect::<Vec<_>>());
                    while let Some((_, outcome)) = outcomes.next_async().await {
                        outcome?;
                        *lock.lock().await += 1;
                    }
                    Given::Ok(())
                })
                .await
                .unwrap();
            assert_eq!(lock.into_inner(), 12);
        }
    });
}

#[test]
fn r60_6_the_same_function_works_on_threads_and_in_groups() {
    fn parse(text: &str) -> Result<u32, std::num::ParseIntError> {
        text.parse()
    }
    run(|| async {
        let pool = paceline::ThreadPool::builder("r60-6").build().unwrap();
        let waiting: Vec<u32> = pool.map(["1", "2"], parse).map(Result::unwrap).collect();
        let awaited = ["1", "2"].map(|text| async move { parse(text) });
        assert_eq!(Group::new("r60-6").gather(awaited).await.unwrap(), waiting);
        // Mixed: members that await answers of threads.
        let mixed = ["3", "4"].map(|text| pool.submit(move || parse(text)).unwrap());
        assert_eq!(Group::new("r60-6").gather(mixed).await.unwrap(), [3, 4]);
    });
}

#[test]
fn r60_7_a_member_that_takes_too_long_is_dropped_and_has_timed_out() {
    run(|| async {
        let (clock, census) = (Clock::manual(), Census::default());
        let kept = census.make(1);
        let slow: Boxed<u32> = Box::pin(async move {
            let _kept = kept;
            pending().await
        });
        let group = Group::new("r60-7").clock(&clock).timeout(millis(50)).gather_all([ok(1), slow]);
        let mut group = pin!(group);
        assert!(poll_once(group.as_mut()).await.is_none());
        assert_eq!(clock.timers(), 1);
        clock.advance(millis(49));
        assert!(poll_once(group.as_mut()).await.is_none());
        clock.advance(millis(1));
        let outcomes = group.await;
        assert_eq!(*outcomes[0].as_ref().unwrap(), 1);
        assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), FailureKind::Timeout);
        assert_eq!((census.alive(), clock.timers()), (0, 0));
    });
}

#[test]
fn r60_7_a_group_that_takes_too_long_ends_as_timed_out_after_its_members() {
    run(|| async {
        let (clock, peak) = (Clock::manual(), Peak::default());
        let members = (0..3).map(|_| async {
            let _inside = peak.enter();
            pending::<Given<()>>().await
        });
        let mut group = pin!(Group::new("r60-7").clock(&clock).within(millis(50)).gather(members));
        assert!(poll_once(group.as_mut()).await.is_none());
        clock.advance(millis(50));
        let error = group.await.unwrap_err();
        assert_eq!(error.kind(), GroupErrorKind::Timeout);
        assert_eq!(error.to_string(), "group `r60-7` ran out of time");
        assert_eq!((error.dropped(), peak.now()), (3, 0));

        let slow = Group::new("late").clock(&clock).within(millis(50));
        let futures = [ok(1), Box::pin(pending())];
        let mut all = pin!(slow.gather_all(futures));
        assert!(poll_once(all.as_mut()).await.is_none());
        clock.advance(millis(50));
        let outcomes = all.await;
        assert!(outcomes[0].is_ok());
        assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), FailureKind::Timeout);
    });
}

#[test]
fn r60_7_limits_run_with_the_machine_clock_too_and_stand_still_while_it_is_paused() {
    run(|| async {
        let started = Instant::now();
        let slow = [pending::<Given<()>>()];
        let error = Group::new("r60-7").within(millis(20)).gather(slow).await.unwrap_err();
        assert_eq!(error.kind(), GroupErrorKind::Timeout);
        assert!(started.elapsed() >= millis(20));

        let (clock, paused) = (Clock::system(), Instant::now());
        clock.pause();
        let resumes = async {
            tokio::time::sleep(millis(60)).await;
            clock.resume();
        };
        let group = Group::new("r60-7").clock(&clock).within(millis(20));
        let slow = [pending::<Given<()>>()];
        let (error, ()) = tokio::join!(group.gather(slow), resumes);
        assert_eq!(error.unwrap_err().kind(), GroupErrorKind::Timeout);
        assert!(paused.elapsed() >= millis(80), "the pause does not count");
    });
}

/// Polls a future once.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[test]
fn a_member_that_is_cancelled_by_its_answer_is_dropped_and_stops_nobody() {
    run(|| async {
        let (census, begun) = (Census::default(), Notify::new());
        let counted = census.clone();
        let outcome = Group::new("cancel").scope(async |members: Members<'_>| {
            let kept = counted.make(1);
            let begun = &begun;
            let sleeper = members.add(async move {
                let _kept = kept;
                begun.notify_one();
                pending::<Given<()>>().await
            });
            let sleeper = sleeper.unwrap();
            begun.notified().await;
            assert!(!sleeper.cancel(), "it runs");
            assert_eq!(sleeper.await.unwrap_err().kind(), FailureKind::Cancelled);
            assert_eq!(counted.alive(), 0);
            let never = members.add(async { Given::<()>::Err("it ran".into()) }).unwrap();
            assert!(never.cancel(), "it has not begun");
            Given::Ok(7)
        });
        assert_eq!(outcome.await.unwrap(), 7);
    });
}

#[test]
fn a_group_wakes_for_members_that_others_wake() {
    watched(|| {
        // Members that wait for threads: woken from outside, 10,000 times.
        let pool = paceline::ThreadPool::builder("woken").workers(2).build().unwrap();
        runtime().block_on(async {
            for _ in 0..100 {
                let answers = (0..100).map(|n| pool.submit(move || Given::Ok(n)).unwrap());
                let values = Group::new("woken").limit(7).gather(answers).await.unwrap();
                assert_eq!(values.into_iter().sum::<u64>(), 4950);
            }
        });
        pool.shutdown().unwrap();
        until("no thread is left", || paceline_tests::threads_called("woken") == 0);
    });
}

#[test]
fn errors_of_a_group_go_with_a_question_mark() -> Result<(), BoxError> {
    let values = runtime().block_on(Group::new("question").gather([ok(1), ok(2)]))?;
    assert_eq!(values, [1, 2]);
    Ok(())
}

#[test]
fn a_group_that_starts_many_gives_others_their_turn_meanwhile() {
    run(|| async {
        let started = AtomicUsize::new(0);
        let members = (0..10_000).map(|_| async {
            started.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
            Given::Ok(())
        });
        let other = async {
            tokio::task::yield_now().await;
            started.load(Ordering::Relaxed)
        };
        let (values, seen) = tokio::join!(Group::new("many").gather(members), other);
        assert_eq!(values.unwrap().len(), 10_000);
        assert!(seen < 10_000, "all began before anybody else had a turn");
    });
}
