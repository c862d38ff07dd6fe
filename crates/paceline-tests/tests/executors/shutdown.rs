//! How thread pools end, and how their workers begin: rows 61 to 65.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use paceline::{Answer, ErrorKind, FailureKind, Reason, ThreadPool, Until, wait};

use super::pool::{occupy, pool, until_no_thread_of};
use paceline_tests::{Gate, Given, ON_PURPOSE, block_for, watched, watched_alone};

#[test]
fn e61_a_closed_pool_refuses_and_shutdown_waits_and_joins() {
    watched_alone(|| {
        let pool = pool("e61", 3);
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let done = done.clone();
            let work = move || {
                block_for(Duration::from_micros(100));
                Given::Ok(done.fetch_add(1, Ordering::SeqCst))
            };
            drop(pool.submit(work).unwrap());
        }
        let later = pool.submitter();
        let name = thread::spawn(move || thread::current().name().map(str::to_owned));
        assert_eq!(name.join().unwrap(), None);
        let named = pool.submit(|| Given::Ok(thread::current().name().map(str::to_owned)));
        assert_eq!(named.unwrap().wait().unwrap().as_deref(), Some("e61"));
        pool.shutdown().unwrap();
        assert_eq!(done.load(Ordering::SeqCst), 100);
        until_no_thread_of("e61");

        let refused = later.submit(|| Given::Ok(17)).unwrap_err();
        assert!(matches!(refused.reason, Reason::Closed));
        assert_eq!(refused.to_string(), "the pool is closed");
        assert_eq!((refused.work)().unwrap(), 17, "the work comes back");
        assert!(later.try_submit(|| Given::Ok(17)).is_err());
        let mut outcomes = later.map([1], Given::Ok);
        assert_eq!(outcomes.next().unwrap().unwrap_err().kind(), FailureKind::Closed);
        assert!(outcomes.next().is_none());
    });
}

#[test]
fn e62_detached_work_running_and_queued_still_completes_and_the_threads_go() {
    watched_alone(|| {
        let (pool, gate) = (pool("e62", 2), Gate::default());
        let running = occupy(&pool, &gate);
        let queued: Vec<_> = (0..50).map(|n| pool.submit(move || Given::Ok(n)).unwrap()).collect();
        pool.detach(); // returns although nothing can end yet
        gate.open();
        assert!(running.into_iter().all(|answer| answer.wait().is_ok()));
        let values: Vec<i32> = queued.into_iter().map(|answer| answer.wait().unwrap()).collect();
        assert_eq!(values, (0..50).collect::<Vec<_>>());
        until_no_thread_of("e62");
    });
}

#[test]
fn e63_of_fifty_queued_behind_five_workers_those_not_begun_are_cancelled_and_all_end() {
    watched(|| {
        for _ in 0..200 {
            let (pool, gate) = (pool("e63", 5), Gate::default());
            let running = occupy(&pool, &gate);
            let queued: Vec<_> =
                (0..50).map(|n| pool.submit(move || Given::Ok(n)).unwrap()).collect();
            let (told, heard) = mpsc::channel();
            let opener = thread::spawn(move || {
                heard.recv().unwrap();
                gate.open();
            });
            told.send(()).unwrap();
            let cancelled = pool.cancel_queued();
            opener.join().unwrap();
            pool.shutdown().unwrap();
            assert!(running.into_iter().all(|answer| answer.wait().is_ok()));
            let kinds = queued.into_iter().map(|mut answer| {
                let outcome = answer.try_get().expect("none stays pending");
                outcome.err().map(|failure| failure.kind())
            });
            let kinds: Vec<_> = kinds.collect();
            assert!(kinds.iter().flatten().all(|kind| *kind == FailureKind::Cancelled));
            assert_eq!(kinds.iter().flatten().count(), cancelled);
        }
    });
}

#[test]
fn e63_more_than_twenty_are_cancelled_while_none_can_begin() {
    watched(|| {
        let (pool, gate) = (pool("e63m", 5), Gate::default());
        let running = occupy(&pool, &gate);
        let queued: Vec<_> = (0..50).map(|n| pool.submit(move || Given::Ok(n)).unwrap()).collect();
        assert!(queued[7].cancel(), "counted once, by whoever cancelled it");
        assert_eq!(pool.cancel_queued(), 49);
        gate.open();
        assert!(wait(queued, Until::AllDone, None).unfinished.is_empty());
        drop(running);
    });
}

#[test]
fn e64_submit_cancel_shutdown_returns_ten_thousand_times() {
    watched(|| {
        for round in 0..10_000 {
            let pool = pool("e64", 1 + round % 2);
            let answer = pool.submit(|| Given::Ok(7)).unwrap();
            let was_cancelled = answer.cancel();
            pool.shutdown().unwrap();
            assert_eq!(answer.wait().is_err(), was_cancelled);
        }
    });
}

#[test]
fn e64_shutdown_right_after_filling_the_queue_returns() {
    watched(|| {
        for _ in 0..500 {
            let pool = ThreadPool::builder("e64f").workers(2).queue(8).build().unwrap();
            let answers: Vec<_> =
                (0..8).map(|n| pool.submit(move || Given::Ok(n)).unwrap()).collect();
            pool.shutdown().unwrap();
            let sum: i32 = answers.into_iter().map(|answer| answer.wait().unwrap()).sum();
            assert_eq!(sum, 28);
        }
    });
}

#[test]
fn e65_a_pool_that_is_dropped_completes_what_was_submitted() {
    watched_alone(|| {
        let (pool, gate) = (pool("e65", 2), Gate::default());
        let running = occupy(&pool, &gate);
        let queued: Vec<_> = (0..20).map(|n| pool.submit(move || Given::Ok(n)).unwrap()).collect();
        gate.open();
        drop(pool);
        assert!(running.iter().all(Answer::is_done));
        assert!(queued.into_iter().all(|mut answer| answer.try_get().unwrap().is_ok()));
        until_no_thread_of("e65");
    });
}

#[test]
fn e65_a_pool_that_its_own_work_drops_does_not_wait_for_itself() {
    watched_alone(|| {
        let pool = Arc::new(pool("e65own", 1));
        let gate = Gate::default();
        let (own, opened) = (pool.clone(), gate.clone());
        let answer = pool.submit(move || {
            opened.wait();
            drop(own);
            Given::Ok(())
        });
        drop(pool);
        gate.open();
        answer.unwrap().wait().unwrap();
        until_no_thread_of("e65own");
    });
}

#[test]
fn e65_the_initialiser_runs_once_for_each_worker() {
    watched(|| {
        let begun = Arc::new(Mutex::new(Vec::new()));
        let noted = begun.clone();
        let pool = ThreadPool::builder("e65i")
            .workers(3)
            .first(move || {
                noted.lock().unwrap().push(thread::current().id());
                Given::Ok(())
            })
            .build()
            .unwrap();
        let gate = Gate::default();
        drop(occupy(&pool, &gate));
        gate.open();
        assert!(pool.map(0..100, Given::Ok).all(|outcome| outcome.is_ok()));
        pool.shutdown().unwrap();
        let begun = begun.lock().unwrap();
        assert_eq!((begun.len(), begun.iter().collect::<HashSet<_>>().len()), (3, 3));
    });
}

#[test]
fn e65_a_failed_initialiser_fails_what_waits_refuses_what_comes_and_is_told_once() {
    watched(|| {
        for panics in [false, true] {
            let gate = Gate::default();
            let opened = gate.clone();
            let first = move || -> Given<()> {
                opened.wait();
                assert!(!panics, "{ON_PURPOSE}: no licence");
                Err("no licence".into())
            };
            let pool = ThreadPool::builder("e65b").workers(1).first(first).build().unwrap();
            let waits: Vec<_> =
                (0..3).map(|n| pool.submit(move || Given::Ok(n)).unwrap()).collect();
            gate.open();
            for answer in waits {
                let failure = answer.wait().unwrap_err();
                assert_eq!(failure.kind(), FailureKind::Closed);
                assert!(failure.cause().to_string().contains("no licence"), "{failure:?}");
            }
            let refused = pool.submit(|| Given::Ok(0)).unwrap_err();
            assert!(matches!(refused.reason, Reason::Broken(_)));
            let error = pool.shutdown().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Start);
            assert_eq!(error.to_string(), "a worker of `e65b` could not begin");
            assert!(std::error::Error::source(&error).unwrap().to_string().contains("no licence"));
        }
    });
}
