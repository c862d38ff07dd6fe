//! Panics in every place where a user's code runs: the account adds up,
//! nothing hangs, no thread is left.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use paceline::{
    BoxError, Ending, ErrorKind, FailureKind, Observer, Pipeline, Retry, StageEnded, StageState,
    Summary,
};

use paceline_tests::{
    Given, ON_PURPOSE, assert_conserved, message, millis, until, until_no_thread_is_left,
    watched_alone,
};

/// The stages of these tests are called something with this, to tell their threads.
const MARK: &str = "end-";

/// One panic in a hundred items: it is a failure of its item alone.
fn one_failed(summary: &Summary) {
    assert_conserved(summary);
    assert_eq!(summary.account(), "in 100 = ok 99 + failed 1 + unfinished 0");
    assert_eq!(summary.failures[0].kind(), FailureKind::Panic);
    assert_eq!(summary.failures[0].item().sequence_numbers(), [51]);
    until_no_thread_is_left(MARK);
}

#[test]
fn a_panic_of_a_function_is_a_failure_of_its_item() {
    watched_alone(|| {
        let panics_at_50 = |n: u32| {
            assert!(n != 50, "on purpose: in a function");
            Given::Ok(())
        };
        let hundred = || Pipeline::from_iter(0..100);
        one_failed(&hundred().cpu("end-cpu", panics_at_50).run().unwrap());
        one_failed(&hundred().blocking("end-blocking", panics_at_50).run().unwrap());
        let make = |n: &u32, _: &paceline::Attempt| {
            assert!(*n != 50, "on purpose: making a command");
            paceline::Command::new("true")
        };
        one_failed(&hundred().command("end-command", make).discard().run().unwrap());
    });
}

#[test]
fn a_panic_of_a_future_is_a_failure_of_its_item() {
    watched_alone(|| {
        let in_a_poll = |n: u32| async move {
            tokio::task::yield_now().await;
            assert!(n != 50, "on purpose: in a poll");
            Given::Ok(())
        };
        one_failed(&Pipeline::from_iter(0..100).io("end-io", in_a_poll).run().unwrap());
        let before_the_future = |n: u32| {
            assert!(n != 50, "on purpose: before the future");
            async { Given::Ok(()) }
        };
        one_failed(&Pipeline::from_iter(0..100).io("end-io", before_the_future).run().unwrap());
    });
}

#[test]
fn a_panic_while_a_value_is_split_is_a_failure_of_its_item() {
    watched_alone(|| {
        let parts = |n: u32| {
            let part = move |part| {
                assert!((n, part) != (50, 3), "on purpose: in a fan-out");
                part
            };
            Given::Ok((0..5).map(part))
        };
        let (values, summary) = Pipeline::from_iter(0..100)
            .cpu("end-split", parts)
            .fan_out()
            .cpu("end-parts", Given::Ok)
            .collect()
            .unwrap();
        assert_eq!(values.len(), 99 * 5 + 3, "what was made before the panic goes on");
        one_failed(&summary);
    });
}

/// A number whose copying panics.
struct Uncopyable(u32);

impl Clone for Uncopyable {
    fn clone(&self) -> Self {
        assert!(self.0 != 50, "on purpose: in a clone");
        Self(self.0)
    }
}

#[test]
fn a_panic_while_an_item_is_copied_for_a_retry_is_a_failure_of_its_item() {
    watched_alone(|| {
        let items = || Pipeline::from_iter((0..100).map(Uncopyable));
        let retry = Retry::times(2);
        let work = |_| Given::Ok(());
        one_failed(&items().cpu("end-copy", work).retry(retry).run().unwrap());
        let work = |_| async { Given::Ok(()) };
        one_failed(&items().io("end-copy", work).retry(retry).run().unwrap());
    });
}

/// An error that cannot be made into one.
struct Unspeakable(u32);

impl From<Unspeakable> for BoxError {
    fn from(error: Unspeakable) -> Self {
        panic!("on purpose: in an error's conversion of {}", error.0)
    }
}

#[test]
fn a_panic_while_an_error_is_converted_is_a_failure_of_its_item() {
    watched_alone(|| {
        let fail = |n: u32| if n == 50 { Err(Unspeakable(n)) } else { Ok(()) };
        let items = || Pipeline::from_iter(0..100);
        one_failed(&items().cpu("end-convert", fail).run().unwrap());
        one_failed(&items().io("end-convert", move |n| async move { fail(n) }).run().unwrap());
    });
}

#[test]
fn a_panic_of_the_source_is_an_error_and_what_was_taken_is_finished() {
    watched_alone(|| {
        let done = AtomicU64::new(0);
        let error = Pipeline::from_iter((0..100).inspect(|&n| {
            assert!(n != 50, "on purpose: in the source");
        }))
        .cpu("end-source", |_| {
            done.fetch_add(1, Ordering::Relaxed);
            Given::Ok(())
        })
        .run()
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert_eq!(done.into_inner(), 50);
        until_no_thread_is_left(MARK);
    });
}

/// An iterator that cannot say how many items are left.
struct Unsized;

impl Iterator for Unsized {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        Some(1)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        panic!("on purpose: in a size hint")
    }
}

#[test]
fn a_panic_of_the_sources_size_hint_is_an_error_too() {
    watched_alone(|| {
        let error =
            Pipeline::from_iter(Unsized).cpu("end-source", |_| Given::Ok(())).run().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        until_no_thread_is_left(MARK);
    });
}

/// Runs what panics outside of any item's work: the panic comes to the
/// caller when every thread has ended, and nothing hangs.
#[track_caller]
fn goes_on_to_the_caller<R>(run: impl FnOnce() -> R) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { panic!("it did not panic") };
    let said = message(&*panic);
    assert!(said.starts_with(ON_PURPOSE), "another panic: {said}");
    until_no_thread_is_left(MARK);
}

#[test]
fn a_panic_of_the_sink_goes_on_to_the_caller() {
    watched_alone(|| {
        let endless = || {
            Pipeline::from_iter(0_u64..)
                .blocking("end-first", |n| Given::Ok(n.to_string()))
                .io("end-second", |text| async { Given::Ok(text) })
                .workers(100)
        };
        let take = |text: String| assert!(text != "500", "on purpose: in the sink");
        goes_on_to_the_caller(|| endless().for_each(take).run());
        goes_on_to_the_caller(|| endless().for_each(take).start().unwrap().join());
        goes_on_to_the_caller(|| endless().ordered().for_each(take).run());
    });
}

/// Panics when it is told of something.
#[derive(Default)]
struct Touchy {
    of: &'static str,
    is_done: AtomicBool,
}

impl Touchy {
    fn of(of: &'static str) -> Arc<Self> {
        Arc::new(Self { of, is_done: AtomicBool::new(false) })
    }

    fn told(&self, what: &str) {
        let is_first = what == self.of && !self.is_done.swap(true, Ordering::SeqCst);
        assert!(!is_first, "on purpose: told of {what}");
    }
}

impl Observer for Touchy {
    fn stage_ended(&self, _: &StageEnded<'_>) {
        self.told("stage_ended");
    }

    fn retrying(&self, _: &paceline::Failure, _: std::time::Duration) {
        self.told("retrying");
    }

    fn failed(&self, _: &paceline::Failure) {
        self.told("failed");
    }

    fn overdue(&self, _: &paceline::ItemId, _: &str, _: std::time::Duration) {
        self.told("overdue");
    }

    fn item_ended(&self, _: u64, _: &Ending) {
        self.told("item_ended");
    }

    fn stalled(&self, _: &[StageState]) {
        self.told("stalled");
    }
}

#[test]
fn a_panic_of_the_observer_goes_on_to_the_caller() {
    watched_alone(|| {
        for of in ["stage_ended", "retrying", "failed", "item_ended", "overdue", "stalled"] {
            let chain = || {
                let touchy = Touchy::of(of);
                let observer = touchy.clone();
                let work = move |n: u64| {
                    if n == 50 {
                        return Err("fifty");
                    }
                    // Long enough to be overdue, and for a stall.
                    until("it was told", || n != 60 || touchy.is_done.load(Ordering::SeqCst));
                    Ok(n)
                };
                Pipeline::from_iter(0..300)
                    .blocking("end-work", work)
                    .workers(2)
                    .timeout(millis(10))
                    .retry(Retry::times(1).backoff(millis(1)))
                    .io("end-next", |n| async move { Given::Ok(n) })
                    .ordered()
                    .stall_after(millis(20))
                    .observer(observer)
            };
            goes_on_to_the_caller(|| chain().collect());
            goes_on_to_the_caller(|| chain().discard().run());
        }
    });
}

/// A number whose drop panics, once for all of them or each time.
struct Undroppable(u32, Arc<AtomicBool>);

impl Drop for Undroppable {
    fn drop(&mut self) {
        if self.0 >= 50 && !std::thread::panicking() && !self.1.load(Ordering::SeqCst) {
            panic!("on purpose: in a drop");
        }
    }
}

fn undroppable() -> impl Iterator<Item = Undroppable> + Send {
    let is_harmless = Arc::new(AtomicBool::new(false));
    (0..100).map(move |n| Undroppable(n, is_harmless.clone()))
}

#[test]
fn a_panic_of_an_items_drop_in_its_work_is_a_failure_of_that_item() {
    watched_alone(|| {
        let drops = |item: Undroppable| {
            drop(item);
            Given::Ok(())
        };
        let summary = Pipeline::from_iter(undroppable()).cpu("end-drop", drops).run().unwrap();
        assert_conserved(&summary);
        assert_eq!((summary.ok, summary.failed), (50, 50));
        until_no_thread_is_left(MARK);
    });
}

#[test]
fn a_panic_of_an_items_drop_elsewhere_goes_on_to_the_caller() {
    watched_alone(|| {
        // Often, for at times all workers are gone before the conductor has looked.
        for _ in 0..100 {
            goes_on_to_the_caller(|| {
                Pipeline::from_iter(undroppable()).cpu("end-drop", Given::Ok).discard().run()
            });
        }
        goes_on_to_the_caller(|| {
            let io = |item| async { Given::Ok(item) };
            Pipeline::from_iter(undroppable()).io("end-drop", io).ordered().discard().run()
        });
    });
}

/// A future that never ends and whose drop panics.
struct Clinging;

impl Future for Clinging {
    type Output = Given<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Given<()>> {
        Poll::Pending
    }
}

impl Drop for Clinging {
    fn drop(&mut self) {
        panic!("on purpose: in a future's drop");
    }
}

#[test]
fn a_panic_of_a_futures_drop_hangs_nobody() {
    watched_alone(|| {
        let run = || {
            Pipeline::from_iter(0..3)
                .io("end-cling", |_| Clinging)
                .timeout(millis(5))
                .workers(1)
                .run()
        };
        if let Ok(ran) = catch_unwind(run) {
            let summary = ran.unwrap();
            assert_conserved(&summary);
            assert_eq!(summary.failed, 3);
        }
        until_no_thread_is_left(MARK);
    });
}
