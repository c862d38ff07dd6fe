//! How groups end: rows 74 to 76.

use super::*;

#[test]
fn t74_the_first_failure_stops_the_others_and_the_body_and_all_failures_are_told() {
    run(|| async {
        let census = Census::default();
        let stop = Stop::new();
        let group = Group::new("t74").stop(&stop).grace(Duration::from_secs(20));
        let (inner, counted) = (stop.clone(), census.clone());
        let outcome = group.scope(async |members: Members<'_>| {
            let body = counted.make(0);
            let kept = counted.make(1);
            let sleeper = async move {
                let _kept = kept;
                pending::<Given<()>>().await
            };
            let cleaner = async {
                inner.reached(StopLevel::Cancel).await;
                Given::<()>::Err("cleaning up failed".into())
            };
            let cancelled = async {
                inner.reached(StopLevel::Cancel).await;
                Err::<(), _>(Fault::new(FailureKind::Cancelled, "as asked"))
            };
            let quick = async { Given::<()>::Err("the first".into()) };
            let sleeping = members.add(sleeper).unwrap();
            drop(members.add(cleaner).unwrap());
            drop(members.add(cancelled).unwrap());
            drop(members.add(quick).unwrap());
            // Cancelled from the answer's side, so that the grace period need not pass.
            inner.reached(StopLevel::Cancel).await;
            sleeping.cancel();
            drop(body);
            Given::Ok(())
        });
        let error = outcome.await.unwrap_err();
        assert_eq!(error.kind(), GroupErrorKind::Failed);
        assert_eq!(
            error.to_string(),
            "item 4 failed in stage `t74`: the first; item 2 failed in stage `t74`: cleaning up failed"
        );
        assert_eq!(error.failures().len(), 2, "cancelled is not failed");
        assert_eq!(census.alive(), 0);
    });
}

#[test]
fn t74_without_grace_the_others_are_dropped_before_the_group_ends() {
    run(|| async {
        for _ in 0..10_000 {
            let census = Census::default();
            let sleeper = |number| {
                let kept = census.make(number);
                let sleeper: Boxed<()> = Box::pin(async move {
                    let _kept = kept;
                    pending().await
                });
                sleeper
            };
            let futures = [sleeper(1), err("no luck"), sleeper(2)];
            let error = Group::new("t74").gather(futures).await.unwrap_err();
            assert_eq!((error.failures().len(), error.dropped()), (1, 2));
            assert_eq!(census.alive(), 0);
        }
    });
}

#[test]
fn t74_an_error_of_the_body_stops_the_members() {
    run(|| async {
        let census = Census::default();
        let counted = census.clone();
        let outcome = Group::new("t74b").scope(async move |members: Members<'_>| {
            let kept = counted.make(1);
            let answer = members.add(async move {
                let _kept = kept;
                pending::<Given<()>>().await
            });
            drop(answer);
            Given::<()>::Err("the body gave up".into())
        });
        let error = outcome.await.unwrap_err();
        assert_eq!(error.to_string(), "item 0 failed in stage `t74b`: the body gave up");
        assert_eq!(census.alive(), 0);
    });
}

#[test]
fn t75_stopped_from_outside_all_end_and_the_group_was_cancelled() {
    run(|| async {
        let (stop, census) = (Stop::new(), Census::default());
        let begun = Arc::new(AtomicUsize::new(0));
        let futures = (0..10).map(|number| {
            let (kept, begun, stop) = (census.make(number), begun.clone(), stop.clone());
            async move {
                let _kept = kept;
                if begun.fetch_add(1, Ordering::SeqCst) == 9 {
                    stop.cancel();
                }
                pending::<Given<()>>().await
            }
        });
        let error = Group::new("t75").stop(&stop).gather(futures).await.unwrap_err();
        assert_eq!(error.kind(), GroupErrorKind::Cancelled);
        assert_eq!(error.to_string(), "group `t75` was stopped");
        assert!(error.was_stopped());
        assert_eq!((error.dropped(), census.alive()), (10, 0));
    });
}

#[test]
fn t75_a_failed_clean_up_wins_over_the_cancellation_which_is_not_lost() {
    run(|| async {
        let stop = Stop::new();
        let inner = stop.clone();
        let cleaner = async {
            inner.reached(StopLevel::Cancel).await;
            tokio::task::yield_now().await;
            Given::<()>::Err("cleaning up failed".into())
        };
        let group = Group::new("t75").stop(&stop).grace(Duration::from_secs(20));
        let (error, ()) = tokio::join!(group.gather([cleaner]), async { stop.cancel() });
        let error = error.unwrap_err();
        assert_eq!(error.kind(), GroupErrorKind::Failed);
        assert!(error.was_stopped(), "both are told");
        assert_eq!(stop.level(), StopLevel::Cancel, "and the stop stays for whoever is next");
    });
}

#[test]
fn t75_a_group_that_is_dropped_has_dropped_all_its_members() {
    run(|| async {
        for round in 0..10_000_u64 {
            let census = Census::default();
            let counted = census.clone();
            let mut group = Box::pin(Group::new("t75").scope(async |members: Members<'_>| {
                for number in 0..3 {
                    let (kept, again) = (counted.make(number), members.clone());
                    let member = async move {
                        let (_kept, _again) = (kept, again);
                        pending::<Given<()>>().await
                    };
                    drop(members.add(member).unwrap());
                }
                pending::<Given<()>>().await
            }));
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..round % 3 {
                assert!(group.as_mut().poll(&mut context).is_pending());
            }
            drop(group);
            assert_eq!(census.alive(), 0);
        }
    });
}

#[test]
fn t76_members_add_members_and_growth_ends_at_a_failure() {
    run(|| async {
        fn grow(
            members: Members<'_>,
            count: Arc<AtomicUsize>,
        ) -> Pin<Box<dyn Future<Output = Given<()>> + Send + '_>> {
            Box::pin(async move {
                if count.fetch_add(1, Ordering::SeqCst) >= 1000 {
                    return Err("enough".into());
                }
                for _ in 0..2 {
                    match members.add(grow(members.clone(), count.clone())) {
                        Ok(answer) => drop(answer),
                        Err(_closed) => break,
                    }
                }
                tokio::task::yield_now().await;
                Ok(())
            })
        }
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let outcome = Group::new("hydra").scope(async move |members: Members<'_>| {
            drop(members.add(grow(members.clone(), counted)).unwrap());
            Given::Ok(())
        });
        let error = outcome.await.unwrap_err();
        assert!(error.failures().iter().all(|one| one.cause().to_string() == "enough"));
        assert_eq!(Arc::strong_count(&count), 1, "what was added and never begun is gone too");
    });
}

#[test]
fn t76_adding_after_the_end_or_after_a_failure_is_refused_and_hands_the_future_back() {
    run(|| async {
        let ended = Group::new("t76").scope(async |members: Members<'_>| Given::Ok(members));
        let members = ended.await.unwrap();
        let refused = members.add(async { Given::Ok(7) }).unwrap_err();
        assert!(matches!(refused.reason, Reason::Closed));
        assert_eq!(refused.work.await.unwrap(), 7, "it comes back and was not begun");

        let census = Census::default();
        let late = Arc::new(Mutex::new(None));
        let (later, stop) = (late.clone(), Stop::new());
        let inner = stop.clone();
        let counted = census.clone();
        let group = Group::new("t76").stop(&stop).grace(Duration::from_secs(20));
        let outcome = group.scope(async |members: Members<'_>| {
            let adder = members.clone();
            let inner = inner.clone();
            let watcher = async move {
                inner.reached(StopLevel::Cancel).await;
                let kept = counted.make(1);
                let refused = adder.add(async move { Given::Ok(kept.number) });
                *later.lock().unwrap() = Some(refused.is_err());
                Given::Ok(())
            };
            drop(members.add(watcher).unwrap());
            drop(members.add(err::<()>("no luck")).unwrap());
            Given::Ok(())
        });
        assert!(outcome.await.is_err());
        assert_eq!(*late.lock().unwrap(), Some(true));
        assert_eq!(census.alive(), 0);
    });
}
