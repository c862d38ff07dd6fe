//! Thread pools at work: rows 57 to 60, requirements R59.

use std::{
    collections::HashSet,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use paceline::{
    Answer, BoxError, Clock, ErrorKind, FailureKind, Reason, ThreadPool, Until, as_completed, wait,
};

use paceline_queue::OnEventLoop;

use paceline_tests::{
    Census, Gate, Given, ON_PURPOSE, Peak, block_for, millis, threads_called, until, watched,
    watched_alone,
};

pub(super) fn pool(name: &str, workers: usize) -> ThreadPool {
    ThreadPool::builder(name).workers(workers).build().unwrap()
}

pub(super) fn until_no_thread_of(name: &str) {
    until("the pool's threads have ended", || threads_called(name) == 0);
}

/// Fills every worker with work that waits for the gate, and waits until it runs.
pub(super) fn occupy(pool: &ThreadPool, gate: &Gate) -> Vec<Answer<()>> {
    let begun = Arc::new(AtomicUsize::new(0));
    let answers = (0..pool.workers())
        .map(|_| {
            let (gate, begun) = (gate.clone(), begun.clone());
            let work = move || -> Given<()> {
                begun.fetch_add(1, Ordering::SeqCst);
                gate.wait();
                Ok(())
            };
            pool.submit(work).unwrap()
        })
        .collect();
    until("every worker is busy", || begun.load(Ordering::SeqCst) == pool.workers());
    answers
}

#[test]
fn e57_map_gives_what_the_serial_map_gives_and_an_error_at_its_place() {
    watched(|| {
        let pool = pool("e57", 4);
        let parsed: Vec<_> = pool.map(["1", "two", "3"], str::parse::<u32>).collect();
        assert_eq!(*parsed[0].as_ref().unwrap(), 1);
        let failure = parsed[1].as_ref().unwrap_err();
        assert_eq!(failure.to_string(), "item 2 failed in stage `e57`");
        assert!(failure.cause().is::<std::num::ParseIntError>());
        assert_eq!(*parsed[2].as_ref().unwrap(), 3);

        let squares = pool.map(0..10_000_u64, |n| Given::Ok(n * n));
        let squares: Vec<u64> = squares.map(Result::unwrap).collect();
        assert_eq!(squares, (0..10_000).map(|n| n * n).collect::<Vec<_>>());
        assert_eq!(pool.map([], |n: u64| Given::Ok(n)).count(), 0);
    });
}

#[test]
fn e58_map_begins_at_once_and_takes_no_more_items_than_its_window() {
    watched(|| {
        let pool = ThreadPool::builder("e58").workers(2).queue(4).build().unwrap();
        let (taken, gate) = (Arc::new(AtomicUsize::new(0)), Gate::default());
        let items = {
            let taken = taken.clone();
            (0..1000).inspect(move |_| {
                taken.fetch_add(1, Ordering::SeqCst);
            })
        };
        let work = {
            let gate = gate.clone();
            move |n: usize| {
                gate.wait();
                Given::Ok(n)
            }
        };
        let mut outcomes = pool.map(items, work);
        assert!(taken.load(Ordering::SeqCst) > 0, "it has begun without being asked");
        gate.open();
        for n in 0..1000 {
            assert_eq!(outcomes.next().unwrap().unwrap(), n);
            // The window, and one that was taken and found no room.
            assert!(taken.load(Ordering::SeqCst) <= n + 1 + 4 + 2 + 1);
        }
        assert!(outcomes.next().is_none());
    });
}

#[test]
fn e58_map_unordered_gives_each_outcome_as_it_comes() {
    watched(|| {
        let pool = pool("e58u", 2);
        let gate = Gate::default();
        let work = {
            let gate = gate.clone();
            move |n: usize| {
                if n == 0 {
                    gate.wait();
                }
                Given::Ok(n)
            }
        };
        let mut outcomes = pool.map_unordered(0..500, work);
        let early: Vec<usize> = outcomes.by_ref().take(400).map(|(place, _)| place).collect();
        assert!(!early.contains(&0), "the first item is held");
        gate.open();
        let late = outcomes.map(|(place, outcome)| {
            assert_eq!(outcome.unwrap(), place);
            place
        });
        let all: HashSet<usize> = early.into_iter().chain(late).collect();
        assert_eq!(all.len(), 500);
    });
}

#[test]
fn e59_a_map_whose_time_is_over_says_so_cancels_the_rest_and_waits_for_nothing() {
    watched(|| {
        let clock = Clock::manual();
        let pool = ThreadPool::builder("e59").workers(1).clock(&clock).build().unwrap();
        let (gate, calls) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        let work = {
            let (gate, calls) = (gate.clone(), calls.clone());
            move |n: u32| {
                calls.fetch_add(1, Ordering::SeqCst);
                if n == 1 {
                    gate.wait();
                }
                Given::Ok(n)
            }
        };
        let mut outcomes = pool.map(0..10, work).within(Duration::from_secs(60));
        assert_eq!(outcomes.next().unwrap().unwrap(), 0);
        until("the second runs", || calls.load(Ordering::SeqCst) == 2);
        clock.advance(Duration::from_secs(60));
        let failure = outcomes.next().unwrap().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Timeout);
        assert_eq!(failure.item().to_string(), "item 2");
        assert!(outcomes.next().is_none());
        gate.open();
        pool.shutdown().unwrap();
        assert_eq!(calls.load(Ordering::SeqCst), 2, "what had not begun was cancelled");
    });
}

#[test]
fn e59_maps_that_are_dropped_at_once_cancel_and_hang_nothing() {
    watched(|| {
        let pool = pool("e59s", 2);
        for round in 0..10_000_u64 {
            let mut outcomes = pool.map(0..8_u64, Given::Ok).within(Duration::from_secs(20));
            for n in 0..round % 4 {
                assert_eq!(outcomes.next().unwrap().unwrap(), n);
            }
        }
        pool.shutdown().unwrap();
    });
}

#[test]
fn e60_no_workers_and_no_queue_are_refused() {
    let error = ThreadPool::builder("e60").workers(0).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(error.to_string(), "pool `e60` has 0 workers");
    let error = ThreadPool::builder("e60").queue(0).scope(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "pool `e60` has a queue for 0 items");
}

#[test]
fn e60_an_idle_worker_is_used_before_another_is_started() {
    watched_alone(|| {
        let pool = pool("e60-idle", 4);
        assert_eq!(threads_called("e60-idle"), 0, "no work, no thread");
        for _ in 0..1000 {
            assert_eq!(pool.submit(|| Given::Ok(7)).unwrap().wait().unwrap(), 7);
        }
        assert_eq!(threads_called("e60-idle"), 1);
        let gate = Gate::default();
        let busy = occupy(&pool, &gate);
        assert_eq!(threads_called("e60-idle"), 4);
        gate.open();
        assert!(busy.into_iter().all(|answer| answer.wait().is_ok()));
    });
}

#[test]
fn e60_no_more_than_the_workers_under_fifteen_times_as_much_work() {
    watched_alone(|| {
        let pool = pool("e60-most", 4);
        let peak = Arc::new(Peak::default());
        let answers: Vec<_> = (0..15 * 4)
            .map(|_| {
                let peak = peak.clone();
                pool.submit(move || {
                    let _inside = peak.enter();
                    block_for(millis(1));
                    Given::Ok(threads_called("e60-most"))
                })
            })
            .collect::<Result<_, _>>()
            .unwrap();
        assert!(answers.into_iter().all(|answer| answer.wait().unwrap() <= 4));
        assert_eq!(peak.most(), 4);
    });
}

#[test]
fn r59_2_forty_five_waits_on_ten_workers_take_five_rounds() {
    watched_alone(|| {
        let pool = ThreadPool::builder("r59-2").workers(10).build().unwrap();
        let started = Instant::now();
        let cells = pool.map(0..45, |n: u32| {
            block_for(millis(100));
            Given::Ok(n)
        });
        assert_eq!(cells.map(Result::unwrap).sum::<u32>(), 990);
        let took = started.elapsed();
        assert!(took >= millis(500) && took < millis(900), "took {took:?}");
    });
}

#[test]
fn r59_3_leaving_the_scope_waits_for_all_work_that_may_borrow_and_joins() {
    watched_alone(|| {
        let done = AtomicUsize::new(0);
        let words = vec!["a".to_owned(), "bb".to_owned()];
        let lengths = ThreadPool::builder("r59-3").workers(3).scope(|pool| {
            for _ in 0..50 {
                let work = || {
                    block_for(Duration::from_micros(200));
                    Given::Ok(done.fetch_add(1, Ordering::SeqCst))
                };
                drop(pool.submit(work).unwrap());
            }
            pool.map(&words, |word| Given::Ok(word.len())).map(Result::unwrap).collect::<Vec<_>>()
        });
        assert_eq!(lengths.unwrap(), [1, 2]);
        assert_eq!(done.load(Ordering::SeqCst), 50);
        until_no_thread_of("r59-3");
    });
}

#[test]
fn r59_3_a_panic_in_the_scope_goes_on_after_all_threads_have_ended() {
    watched_alone(|| {
        let done = AtomicBool::new(false);
        let scope = || {
            ThreadPool::builder("r59-3p").scope(|pool| {
                let work = || {
                    done.store(true, Ordering::SeqCst);
                    Given::Ok(())
                };
                drop(pool.submit(work).unwrap());
                panic!("{ON_PURPOSE}");
            })
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(scope)).is_err());
        assert!(done.load(Ordering::SeqCst));
        until_no_thread_of("r59-3p");
    });
}

#[test]
fn r59_4_map_keeps_the_order_and_as_completed_does_not() {
    watched(|| {
        let (pool, gate) = (pool("r59-4", 2), Gate::default());
        let held = gate.clone();
        let slow = pool.submit(move || {
            held.wait();
            Given::Ok("slow")
        });
        let quick = pool.submit(|| Given::Ok("quick"));
        let mut outcomes = as_completed([slow.unwrap(), quick.unwrap()]);
        assert!(matches!(outcomes.next(), Some((1, Ok("quick")))));
        gate.open();
        assert!(matches!(outcomes.next(), Some((0, Ok("slow")))));
    });
}

#[test]
fn r59_5_queued_work_is_cancelled_running_work_is_only_asked() {
    watched(|| {
        let pool = pool("r59-5", 1);
        let runs = Gate::default();
        let begun = runs.clone();
        let running = pool.submit(move || {
            begun.open();
            while !paceline::is_cancelled() {
                thread::yield_now();
            }
            Given::Ok("saw it")
        });
        let running = running.unwrap();
        runs.wait();
        let queued = pool.submit(|| -> Given<()> { panic!("it ran") }).unwrap();
        assert!(queued.cancel());
        assert!(!running.cancel());
        assert_eq!(running.wait().unwrap(), "saw it");
        assert_eq!(queued.wait().unwrap_err().kind(), FailureKind::Cancelled);
        let next = pool.submit(|| Given::Ok(paceline::is_cancelled())).unwrap();
        assert!(!next.wait().unwrap(), "the question was for that work only");
    });
}

#[test]
fn r59_5_cancelling_the_pool_asks_all_and_says_how_many_never_began() {
    watched(|| {
        let pool = pool("r59-5p", 2);
        let begun = Arc::new(AtomicUsize::new(0));
        let endless = || {
            let begun = begun.clone();
            move || {
                begun.fetch_add(1, Ordering::SeqCst);
                while !paceline::is_cancelled() {
                    thread::yield_now();
                }
                Given::Ok(())
            }
        };
        let answers: Vec<_> = (0..10).map(|_| pool.submit(endless()).unwrap()).collect();
        until("two run", || begun.load(Ordering::SeqCst) == 2);
        assert_eq!(pool.cancel(), 8);
        pool.shutdown().unwrap();
        assert_eq!(answers.into_iter().filter_map(|answer| answer.wait().ok()).count(), 2);
    });
}

#[test]
fn r59_6_a_full_queue_makes_submit_wait_and_gives_the_work_back_to_try_submit() {
    watched(|| {
        let pool = ThreadPool::builder("r59-6").workers(1).queue(2).build().unwrap();
        let gate = Gate::default();
        let running = occupy(&pool, &gate);
        let queued: Vec<_> = (0..2).map(|n| pool.submit(move || Given::Ok(n)).unwrap()).collect();
        let refused = pool.try_submit(|| Given::Ok("mine")).unwrap_err();
        assert!(matches!(refused.reason, Reason::Full));
        assert_eq!((refused.work)().unwrap(), "mine");

        let (other, was_given) = (pool.submitter(), Arc::new(AtomicBool::new(false)));
        let given = was_given.clone();
        let waiter = thread::spawn(move || {
            let answer = other.submit(|| Given::Ok(3)).unwrap();
            given.store(true, Ordering::SeqCst);
            answer.wait().unwrap()
        });
        assert_eq!(pool.queued(), 2);
        assert!(!was_given.load(Ordering::SeqCst), "there is no room");
        gate.open();
        assert_eq!(waiter.join().unwrap(), 3);
        assert!(running.into_iter().all(|answer| answer.wait().is_ok()));
        assert!(queued.into_iter().all(|answer| answer.wait().is_ok()));
    });
}

#[tokio::test]
async fn r59_6_a_task_waits_for_room_and_one_that_gives_up_has_submitted_nothing() {
    let pool = ThreadPool::builder("r59-6a").workers(1).queue(1).build().unwrap();
    let (gate, census) = (Gate::default(), Census::default());
    let running = occupy(&pool, &gate);
    let queued = pool.submit_async(|| Given::Ok(1)).await.unwrap();
    {
        let counted = census.make(1);
        let waits = std::pin::pin!(pool.submit_async(move || Given::Ok(counted.number)));
        assert!(tokio::time::timeout(millis(5), waits).await.is_err());
    }
    assert_eq!(census.alive(), 0);
    let third = pool.submit_async(|| Given::Ok(3));
    let third = async { third.await.unwrap().await.unwrap() };
    let (third, ()) = tokio::join!(third, async { gate.open() });
    assert_eq!((queued.await.unwrap(), third), (1, 3));
    assert!(running.into_iter().all(|answer| answer.wait().is_ok()));
    pool.shutdown().unwrap();
}

/// Sums by splitting, with an answer for each half: work that waits for work.
fn sum(pool: &paceline::Submitter<'static>, from: u64, to: u64) -> Given<u64> {
    if to - from <= 1 {
        return Ok(from);
    }
    let middle = (from + to) / 2;
    let halves = [(from, middle), (middle, to)].map(|(from, to)| {
        let pool = pool.clone();
        pool.submitter().submit(move || sum(&pool, from, to)).unwrap()
    });
    let mut total = 0;
    for half in halves {
        total += half.wait()?;
    }
    Ok(total)
}

#[test]
fn r59_7_work_that_waits_for_work_of_its_own_full_pool_is_done() {
    watched(|| {
        for (workers, queue) in [(1, 1), (1, 100), (2, 1), (4, 3)] {
            let pool = ThreadPool::builder("r59-7").workers(workers).queue(queue).build().unwrap();
            let all = pool.submitter();
            let total = pool.submit(move || sum(&all, 0, 2000)).unwrap();
            assert_eq!(total.wait().unwrap(), 1999 * 2000 / 2);
        }
    });
}

#[test]
fn r59_7_collections_of_answers_help_too() {
    watched(|| {
        let pool = ThreadPool::builder("r59-7c").workers(1).build().unwrap();
        let inner = pool.submitter();
        let work = move || -> Given<u64> {
            let submit = |n| inner.submit(move || Given::Ok(n)).unwrap();
            let first: u64 = as_completed((0..10).map(submit)).map(|(_, n)| n.unwrap()).sum();
            let waited = wait((0..10).map(submit), Until::AllDone, None);
            let second: u64 = waited.done.into_iter().map(|answer| answer.wait().unwrap()).sum();
            let third: u64 = inner.map(0..1000, Given::Ok).map(Result::unwrap).sum();
            let fourth = inner.map_unordered(0..1000, Given::Ok);
            Ok(first + second + third + fourth.map(|(_, n)| n.unwrap()).sum::<u64>())
        };
        assert_eq!(pool.submit(work).unwrap().wait().unwrap(), 45 + 45 + 499_500 + 499_500);
    });
}

#[test]
fn r59_7_in_a_scope_the_last_worker_that_would_wait_is_told_which_pool_it_is() {
    watched(|| {
        for round in 0..1000 {
            let workers = 1 + round % 3;
            let outcome = ThreadPool::builder("r59-7s").workers(workers).scope(|pool| {
                let barrier = Arc::new(Barrier::new(workers));
                let outer: Vec<_> = (0..workers)
                    .map(|_| {
                        let (inner, barrier) = (pool.submitter(), barrier.clone());
                        let work = move || {
                            barrier.wait();
                            Given::Ok(inner.submit(|| Given::Ok(1))?.wait())
                        };
                        pool.submit(work).unwrap()
                    })
                    .collect();
                outer.into_iter().map(|answer| answer.wait().unwrap()).collect::<Vec<_>>()
            });
            let failed: Vec<_> = outcome.unwrap().into_iter().filter_map(Result::err).collect();
            assert_eq!(failed.len(), 1, "only the last is refused");
            assert_eq!(failed[0].kind(), FailureKind::Deadlock);
            assert!(failed[0].cause().to_string().contains("`r59-7s`"), "{:?}", failed[0]);
        }
    });
}

#[test]
fn r59_8_a_panic_is_the_failure_of_its_own_answer_and_the_worker_goes_on() {
    watched_alone(|| {
        let pool = pool("r59-8", 1);
        let id = pool.submit(|| Given::Ok(thread::current().id())).unwrap().wait().unwrap();
        let panics = pool.submit(|| -> Given<()> { panic!("{ON_PURPOSE}: 42") }).unwrap();
        let failure = panics.wait().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Panic);
        assert!(failure.cause().to_string().contains("42"));
        let again = pool.submit(|| Given::Ok(thread::current().id())).unwrap().wait().unwrap();
        assert_eq!(id, again);
    });
}

#[test]
fn r59_8_a_panic_while_a_value_is_dropped_harms_no_worker() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("{ON_PURPOSE}: in drop");
        }
    }
    watched(|| {
        let pool = pool("r59-8d", 1);
        let bad = Bad;
        let work = move || {
            let _bad = bad;
            Given::Ok(1)
        };
        assert_eq!(pool.submit(work).unwrap().wait().unwrap_err().kind(), FailureKind::Panic);
        assert_eq!(pool.submit(|| Given::Ok(2)).unwrap().wait().unwrap(), 2);
    });
}

#[tokio::test]
async fn r59_9_the_answer_of_a_pool_is_awaited() {
    let pool = pool("r59-9", 2);
    let answers: Vec<_> = (0..100).map(|n| pool.submit(move || Given::Ok(n)).unwrap()).collect();
    let mut sum = 0;
    for answer in answers {
        sum += answer.await.unwrap();
    }
    assert_eq!(sum, 4950);
    pool.shutdown().unwrap();
}

#[test]
fn work_that_takes_longer_than_the_pool_allows_has_timed_out() {
    watched(|| {
        let clock = Clock::manual();
        let pool = ThreadPool::builder("late").clock(&clock).timeout(millis(50)).build().unwrap();
        let runs = Gate::default();
        let begun = runs.clone();
        let late = pool.submit(move || {
            begun.open();
            while !paceline::is_cancelled() {
                thread::yield_now();
            }
            Given::Ok(())
        });
        runs.wait();
        clock.advance(millis(50));
        let failure = late.unwrap().wait().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Timeout);
        let in_time = pool.submit(|| Given::Ok(paceline::is_cancelled())).unwrap();
        assert!(!in_time.wait().unwrap());
    });
}

#[test]
fn an_idle_pool_keeps_nothing_of_its_last_work() {
    watched(|| {
        let (pool, census) = (pool("kept", 1), Census::default());
        let counted = census.make(1);
        let answer = pool.submit(move || Given::Ok(counted)).unwrap();
        drop(answer.wait());
        until("the argument and the value are gone", || census.alive() == 0);
    });
}

#[test]
fn workers_with_nothing_to_do_take_no_time() {
    watched_alone(|| {
        let pool = pool("idle", 4);
        let gate = Gate::default();
        let busy = occupy(&pool, &gate);
        gate.open();
        assert!(wait(busy, Until::AllDone, None).unfinished.is_empty());
        let cpu = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
            let idle = tasks.filter(|task| {
                let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                name.trim() == "idle"
            });
            idle.map(|task| std::fs::read_to_string(task.path().join("schedstat")).unwrap())
                .map(|text| text.split(' ').next().unwrap().parse::<u64>().unwrap())
                .sum::<u64>()
        };
        let before = cpu();
        block_for(millis(300));
        assert!(cpu() - before < 3_000_000, "an idle pool took {} ns", cpu() - before);
    });
}

#[test]
fn errors_of_a_pool_go_with_a_question_mark() -> Result<(), BoxError> {
    let pool = ThreadPool::builder("question").build()?;
    assert_eq!(pool.submit(|| "17".parse::<u32>())?.wait()?, 17);
    Ok(pool.shutdown()?)
}

#[test]
fn a_wait_on_an_event_loop_is_refused_and_says_what_to_do() {
    watched(|| {
        let pool = ThreadPool::builder("loop").workers(1).queue(1).build().unwrap();
        let gate = Gate::default();
        let running = occupy(&pool, &gate);
        let queued = pool.submit(|| Given::Ok(1)).unwrap();
        {
            let _here = OnEventLoop::enter();
            let refused = pool.submit(|| Given::Ok(2)).unwrap_err();
            assert!(matches!(refused.reason, Reason::WouldBlock));
            assert!(refused.to_string().ends_with("use `submit_async`"));
            let outcomes = as_completed(running);
            assert!(std::panic::catch_unwind(move || { outcomes }.next()).is_err());
        }
        gate.open();
        assert_eq!(queued.wait().unwrap(), 1);
        let _here = OnEventLoop::enter();
        assert!(pool.submit(|| Given::Ok(2)).is_ok(), "there is room");
    });
}
