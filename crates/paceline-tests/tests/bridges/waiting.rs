//! Waiting on an event loop is caught, in place of holding it up.

use std::time::Duration;

use paceline::{Answer, BoxError, FailureKind, Pipeline};
use paceline_queue::Queue;

use paceline_tests::watched;

#[test]
fn r63_9_a_waiting_pop_in_an_io_stage_fails_its_item_and_says_what_to_do() {
    watched(|| {
        let queue = Queue::<u32>::bounded(1);
        let summary = Pipeline::from_iter(1..=3)
            .io("wait", |n: u32| {
                let queue = queue.clone();
                async move {
                    if n == 2 {
                        queue.pop().map_err(BoxError::from)?;
                    }
                    Ok::<_, BoxError>(())
                }
            })
            .run()
            .unwrap();
        assert_eq!((summary.ok, summary.failed), (2, 1));
        let failure = &summary.failures[0];
        assert_eq!(failure.kind(), FailureKind::Panic);
        let cause = std::error::Error::source(failure).unwrap().to_string();
        assert!(cause.contains("event loop") && cause.contains("`_async`"), "{cause}");
    });
}

#[test]
fn r63_9_every_waiting_end_is_caught_and_every_other_end_works_on_a_loop() {
    watched(|| {
        let refused = |waits: fn(&Queue<u32>)| {
            std::panic::catch_unwind(|| waits(&Queue::bounded(1))).is_err()
        };
        let work = move |()| async move {
            let caught = [
                refused(|queue| {
                    let _ = queue.push(1);
                }),
                refused(|queue| {
                    let _ = queue.push_timeout(1, Duration::from_secs(1));
                }),
                refused(|queue| {
                    let _ = queue.push_batch(&mut [1].into());
                }),
                refused(|queue| {
                    let _ = queue.pop();
                }),
                refused(|queue| {
                    let _ = queue.take();
                }),
                refused(|queue| {
                    let _ = queue.pop_batch(&mut [1].into(), 1);
                }),
                refused(|queue| queue.join()),
            ];
            assert_eq!(caught, [true; 7]);
            let queue = Queue::bounded(1);
            queue.try_push(1).unwrap();
            queue.push_timeout(2, Duration::ZERO).unwrap_err();
            assert_eq!(queue.pop_async().await, Ok(1));
            queue.push_async(3).await.unwrap();
            queue.close();
            assert_eq!(queue.pop_timeout(Duration::ZERO), Ok(3));
            Ok::<_, BoxError>(())
        };
        let summary = Pipeline::from_iter([()]).io("ends", work).run().unwrap();
        assert!(summary.is_complete(), "{:?}", summary.failures);
    });
}

#[test]
fn r63_9_threads_of_other_stages_may_wait() {
    watched(|| {
        let queue = Queue::bounded(1);
        let summary = Pipeline::from_iter([1])
            .blocking("push", |n: u32| queue.push(n).map_err(|refused| refused.to_string()))
            .cpu("pop", |()| queue.pop().map(drop))
            .run()
            .unwrap();
        assert!(summary.is_complete(), "{:?}", summary.failures);
    });
}

#[test]
fn r62_6_waiting_for_an_answer_on_a_loop_is_a_failure_and_no_deadlock() {
    watched(|| {
        let work = |()| async {
            let (promise, answer) = Answer::<u32>::pending("elsewhere", 1);
            let failure = answer.wait().unwrap_err();
            assert_eq!(failure.kind(), FailureKind::WouldBlock);
            drop(promise);
            let (promise, mut answer) = Answer::<u32>::pending("elsewhere", 2);
            let failure = answer.wait_for(Duration::from_secs(5)).unwrap().unwrap_err();
            assert_eq!(failure.kind(), FailureKind::WouldBlock);
            // The answer is still to be had, by a probe or by await.
            assert!(answer.wait_for(Duration::ZERO).is_none());
            promise.set(Ok::<_, BoxError>(7)).unwrap();
            assert_eq!(answer.await.unwrap(), 7);
            Ok::<_, BoxError>(())
        };
        let summary = Pipeline::from_iter([()]).io("ask", work).run().unwrap();
        assert!(summary.is_complete(), "{:?}", summary.failures);
    });
}
