//! The event loop for plain programs, and both bridges: from a thread onto
//! the loop, and off the loop to a thread.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use paceline::{Answer, BoxError, ErrorKind, EventLoop, FailureKind, LoopHandle, off_loop};
use paceline_queue::Queue;

use paceline_tests::{Gate, millis, thread_names, until, watched};

/// Says that it was dropped.
struct Bomb(Arc<AtomicUsize>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future that never ends, and says when it began and when it was dropped.
fn endless(
    began: Gate,
    dropped: &Arc<AtomicUsize>,
) -> impl Future<Output = Result<(), BoxError>> + Send + 'static {
    let bomb = Bomb(dropped.clone());
    async move {
        let _bomb = bomb;
        began.open();
        std::future::pending().await
    }
}

fn start() -> EventLoop {
    EventLoop::start("loop-under-test").unwrap()
}

#[test]
fn b25_a_thread_submits_async_work_and_waits_for_its_value() {
    watched(|| {
        let event_loop = start();
        let answers: Vec<Answer<u64>> = thread::scope(|scope| {
            let submit = |n: u64| {
                let event_loop = &event_loop;
                scope.spawn(move || {
                    event_loop.submit(async move {
                        tokio::time::sleep(millis(5)).await;
                        Ok::<_, BoxError>(n * n)
                    })
                })
            };
            let threads: Vec<_> = (0..8).map(submit).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let squares: Vec<_> = answers.into_iter().map(|answer| answer.wait().unwrap()).collect();
        assert_eq!(squares, [0, 1, 4, 9, 16, 25, 36, 49]);
        let leftover = event_loop.close().unwrap();
        assert_eq!((leftover.cancelled, leftover.still_blocked), (0, 0));
        until("its thread has ended", || {
            !thread_names().iter().any(|name| name.starts_with("loop-under-test"))
        });
    });
}

#[test]
fn b26_errors_panics_and_cancellations_arrive_as_such() {
    watched(|| {
        let event_loop = start();
        let failed = event_loop.submit(async { Err::<(), _>("no such page") }).wait().unwrap_err();
        assert_eq!(failed.kind(), FailureKind::Failed);
        assert_eq!(std::error::Error::source(&failed).unwrap().to_string(), "no such page");

        async fn panics() -> Result<(), BoxError> {
            panic!("on purpose")
        }
        let panicked = event_loop.submit(panics()).wait().unwrap_err();
        assert_eq!(panicked.kind(), FailureKind::Panic);

        let (began, dropped) = (Gate::default(), Arc::default());
        let answer = event_loop.submit(endless(began.clone(), &dropped));
        began.wait();
        answer.cancel();
        assert_eq!(answer.wait().unwrap_err().kind(), FailureKind::Cancelled);
        assert_eq!(dropped.load(Ordering::SeqCst), 1, "it had gone when the answer came");
        // The loop has survived all of it.
        assert_eq!(event_loop.submit(async { Ok::<_, BoxError>(1) }).wait().unwrap(), 1);
    });
}

#[test]
fn b27_a_wait_that_times_out_cancels_the_work_and_leaves_nothing() {
    watched(|| {
        let event_loop = start();
        let (began, dropped) = (Gate::default(), Arc::default());
        let since = Instant::now();
        let failure = event_loop.call(millis(50), endless(began, &dropped)).unwrap_err();
        assert!(since.elapsed() >= millis(50));
        assert_eq!(failure.kind(), FailureKind::Timeout);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        until("no task is left", || event_loop.handle().tasks() == 0);
    });
}

#[test]
fn b27_a_wait_that_times_out_may_leave_the_work_alone() {
    watched(|| {
        let event_loop = start();
        let (gate, opened) = tokio::sync::oneshot::channel();
        let mut answer =
            event_loop.submit(async { opened.await.map_err(BoxError::from).map(|()| "late") });
        assert!(answer.wait_for(millis(10)).is_none());
        gate.send(()).unwrap();
        assert_eq!(answer.wait().unwrap(), "late");
    });
}

#[test]
fn b27_a_value_given_while_being_cancelled_at_the_limit_wins() {
    watched(|| {
        let event_loop = start();
        // It blocks its loop beyond the limit and is ready then: the value is there.
        let outcome = event_loop.call(millis(20), async {
            paceline_tests::block_for(millis(100));
            Ok::<_, BoxError>("there after all")
        });
        assert_eq!(outcome.unwrap(), "there after all");
    });
}

#[test]
fn b28_a_loop_that_has_gone_answers_at_once() {
    watched(|| {
        let event_loop = start();
        let handle = event_loop.handle();
        drop(event_loop);
        let failure = handle.submit(async { Ok::<_, BoxError>(()) }).wait().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Closed);
        let reason = std::error::Error::source(&failure).unwrap().to_string();
        assert_eq!(reason, "the event loop `loop-under-test` has ended");
        let failure = handle.call(millis(10), async { Ok::<_, BoxError>(()) }).unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Closed);
    });
}

#[test]
fn b28_work_submitted_while_the_loop_ends_is_answered_whatever_the_race() {
    watched(|| {
        for _ in 0..if cfg!(debug_assertions) { 300 } else { 10_000 } {
            let event_loop = start();
            let handle = event_loop.handle();
            let submitter = thread::spawn(move || {
                (0..20).map(|n| handle.submit(async move { Ok::<_, BoxError>(n) })).collect()
            });
            event_loop.close().unwrap();
            let answers: Vec<Answer<u32>> = submitter.join().unwrap();
            for answer in answers {
                match answer.wait() {
                    Ok(_) => {}
                    Err(failure) => assert!(
                        matches!(failure.kind(), FailureKind::Closed | FailureKind::Cancelled),
                        "{failure:?}"
                    ),
                }
            }
        }
    });
}

#[test]
fn b29_ten_blocking_functions_run_off_the_loop_once_each_while_it_turns() {
    watched(|| {
        let event_loop = start();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (seen, gate) = (calls.clone(), Gate::default());
        let answer = event_loop.submit(async move {
            let on_loop = thread::current().id();
            let begun: Vec<_> = (0..10)
                .map(|n| {
                    let (calls, gate) = (calls.clone(), gate.clone());
                    off_loop(move || {
                        calls.lock().unwrap().push(n);
                        gate.wait();
                        assert_ne!(thread::current().id(), on_loop);
                        Ok::<_, BoxError>(n)
                    })
                })
                .collect();
            // All ten block, and the loop still turns.
            while calls.lock().unwrap().len() < 10 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(millis(1)).await;
            gate.open();
            let mut sum = 0;
            for answer in begun {
                sum += answer.await?;
            }
            Ok::<_, BoxError>(sum)
        });
        assert_eq!(answer.wait().unwrap(), 45);
        let mut seen = seen.lock().unwrap().clone();
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<i32>>());
    });
}

#[test]
fn b29_errors_and_panics_off_the_loop_come_back() {
    watched(|| {
        let event_loop = start();
        let answer = event_loop.submit(async {
            let failed = off_loop(|| Err::<(), _>("no disk")).await.unwrap_err();
            let panicked = off_loop(|| -> Result<(), BoxError> { panic!("on purpose") }).await;
            Ok::<_, BoxError>((failed.kind(), panicked.unwrap_err().kind()))
        });
        assert_eq!(answer.wait().unwrap(), (FailureKind::Failed, FailureKind::Panic));
    });
}

#[test]
fn b29_off_loop_works_in_an_io_stage_and_nowhere_without_a_loop() {
    watched(|| {
        let (values, _) = paceline::Pipeline::from_iter([1, 2])
            .io("square", |n: u32| off_loop(move || Ok::<_, BoxError>(n * n)))
            .ordered()
            .collect()
            .unwrap();
        assert_eq!(values, [1, 4]);
        let failure = off_loop(|| Ok::<_, BoxError>(())).wait().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Closed);
    });
}

#[test]
fn b30_a_wait_for_a_blocking_function_that_is_cancelled_gets_nothing_later() {
    watched(|| {
        let (gate, began) = (Gate::default(), Gate::default());
        let (told, heard) = mpsc::channel();
        let event_loop = start();
        let (inside, inner_gate) = (began.clone(), gate.clone());
        let answer = event_loop.submit(async move {
            let value = off_loop(move || {
                inside.open();
                inner_gate.wait();
                Ok::<_, BoxError>("too late")
            });
            let value = value.await?;
            told.send(value)?;
            Ok::<_, BoxError>(())
        });
        began.wait();
        answer.cancel();
        assert_eq!(answer.wait().unwrap_err().kind(), FailureKind::Cancelled);
        let handle = event_loop.handle();
        let closing = thread::spawn(move || event_loop.close());
        until("the loop ends", || {
            let probe = handle.submit(async { Ok::<_, BoxError>(()) }).wait();
            probe.is_err_and(|failure| failure.kind() == FailureKind::Closed)
        });
        // The function returns to a loop that is ending or has ended.
        gate.open();
        let leftover = closing.join().unwrap().unwrap();
        assert_eq!((leftover.still_blocked, leftover.failures.len()), (0, 0));
        assert!(heard.recv().is_err(), "nothing was delivered, and the sender has gone");
    });
}

#[test]
fn r62_2_an_outcome_of_each_kind_crosses_from_the_loop_to_a_thread() {
    watched(|| {
        let event_loop = start();
        let kind = |outcome: paceline::Outcome<u32>| outcome.map_err(|failure| failure.kind());
        assert_eq!(kind(event_loop.call(millis(5000), async { Ok::<_, BoxError>(7) })), Ok(7));
        let failed = event_loop.call(millis(5000), async { Err::<u32, _>("no") });
        assert_eq!(kind(failed), Err(FailureKind::Failed));
        let never = std::future::pending::<Result<u32, BoxError>>();
        assert_eq!(kind(event_loop.call(millis(20), never)), Err(FailureKind::Timeout));
        let answer = event_loop.submit(std::future::pending::<Result<u32, BoxError>>());
        answer.cancel();
        assert_eq!(kind(answer.wait()), Err(FailureKind::Cancelled));
    });
}

#[test]
fn r62_3_the_loop_keeps_turning_while_a_blocking_function_runs() {
    watched(|| {
        let event_loop = start();
        let answer = event_loop.submit(async {
            let gate = Gate::default();
            let opener = gate.clone();
            let blocked = off_loop(move || {
                gate.wait();
                Ok::<_, BoxError>(())
            });
            // Only this task, on the same loop, ends the block.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            opener.open();
            blocked.await.map_err(BoxError::from)
        });
        answer.wait().unwrap();
    });
}

#[test]
fn r62_4_one_queue_joins_threads_and_tasks_in_any_pairing() {
    watched(|| {
        let event_loop = start();
        for (push_on_loop, pop_on_loop) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let queue = Queue::bounded(2);
            let producer = queue.producer();
            let popped: Answer<Vec<u32>> = if pop_on_loop {
                let queue = queue.clone();
                event_loop.submit(async move {
                    let mut popped = Vec::new();
                    while let Ok(item) = queue.take_async().await {
                        popped.push(*item);
                    }
                    Ok::<_, BoxError>(popped)
                })
            } else {
                let (promise, answer) = Answer::pending("thread", 1);
                let queue = queue.clone();
                thread::spawn(move || {
                    let mut popped = Vec::new();
                    while let Ok(item) = queue.take() {
                        popped.push(*item);
                    }
                    promise.set(Ok::<_, BoxError>(popped)).unwrap();
                });
                answer
            };
            if push_on_loop {
                let pushed = event_loop.submit(async move {
                    for n in 0..100 {
                        producer.push_async(n).await.map_err(|_| "closed")?;
                    }
                    Ok::<_, BoxError>(())
                });
                pushed.wait().unwrap();
            } else {
                (0..100).for_each(|n| producer.push(n).unwrap());
                drop(producer);
            }
            assert_eq!(popped.wait().unwrap(), (0..100).collect::<Vec<u32>>());
            queue.join();
        }
    });
}

#[test]
fn r62_6_the_waiting_bridge_on_the_loop_itself_is_a_failure() {
    watched(|| {
        let event_loop = start();
        let handle: LoopHandle = event_loop.handle();
        let answer = event_loop.submit(async move {
            let waited = handle.submit(async { Ok::<_, BoxError>(1) }).wait();
            let called = handle.call(millis(1000), async { Ok::<_, BoxError>(1) });
            Ok::<_, BoxError>([waited, called].map(|outcome| outcome.unwrap_err().kind()))
        });
        assert_eq!(answer.wait().unwrap(), [FailureKind::WouldBlock; 2]);
        let other = start();
        let closed = event_loop.submit(async move {
            let error = other.close().unwrap_err();
            Ok::<_, BoxError>(error.kind())
        });
        assert_eq!(closed.wait().unwrap(), ErrorKind::Invalid);
    });
}

#[test]
fn a_loop_is_closed_by_a_task_of_another_one() {
    watched(|| {
        let (first, second) = (start(), start());
        let (began, dropped) = (Gate::default(), Arc::default());
        let left = second.submit(endless(began.clone(), &dropped));
        began.wait();
        let closed =
            first.submit(async move { Ok::<_, BoxError>(second.close_async().await.cancelled) });
        assert_eq!(closed.wait().unwrap(), 1);
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
        assert_eq!(left.wait().unwrap_err().kind(), FailureKind::Cancelled);
    });
}

#[test]
fn ten_thousand_tasks_left_over_are_cancelled_in_a_moment() {
    watched(|| {
        let event_loop = start();
        let dropped = Arc::default();
        let answers: Vec<_> =
            (0..10_000).map(|_| event_loop.submit(endless(Gate::default(), &dropped))).collect();
        // The last has begun, so all before it have.
        until("all tasks have begun", || event_loop.handle().tasks() == 10_000);
        event_loop.submit(async { Ok::<_, BoxError>(()) }).wait().unwrap();
        let since = Instant::now();
        let leftover = event_loop.close().unwrap();
        assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
        assert_eq!(leftover.cancelled, 10_000);
        assert_eq!(dropped.load(Ordering::SeqCst), 10_000);
        drop(answers);
    });
}
