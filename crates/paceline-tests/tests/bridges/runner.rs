//! A program that is one future: what it leaves, nesting, and Ctrl-C.

use std::{
    env,
    os::unix::process::ExitStatusExt,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use paceline::{BoxError, ErrorKind, FailureKind, Runner, off_loop};
use rustix::process::{Pid, Signal, kill_process};

use paceline_tests::{Gate, block_for, millis, watched};

struct CountsDrops(Arc<AtomicUsize>);

impl Drop for CountsDrops {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("on purpose, in the clean-up");
    }
}

#[test]
fn t79_leftover_tasks_are_cancelled_and_awaited_and_their_failures_reported() {
    watched(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let seen = dropped.clone();
        let ended = Runner::new()
            .run(|tasks| async move {
                let began = Arc::new(AtomicUsize::new(0));
                for n in 0..3 {
                    let (counts, began) = (CountsDrops(dropped.clone()), began.clone());
                    // Nobody keeps the answer.
                    drop(tasks.submit(async move {
                        let _counts = counts;
                        let _panics = (n == 1).then(|| PanicsWhenDropped);
                        began.fetch_add(1, Ordering::SeqCst);
                        std::future::pending::<Result<(), BoxError>>().await
                    }));
                }
                while began.load(Ordering::SeqCst) < 3 {
                    tokio::task::yield_now().await;
                }
                "done"
            })
            .unwrap();
        assert_eq!(ended.output, Some("done"));
        assert_eq!(seen.load(Ordering::SeqCst), 3, "all had gone when it returned");
        let kinds: Vec<_> = ended.leftover.failures.iter().map(|failure| failure.kind()).collect();
        assert_eq!(kinds, [FailureKind::Panic]);
        assert_eq!(ended.leftover.cancelled, 3);
    });
}

#[test]
fn t79_a_nested_run_is_refused() {
    watched(|| {
        let ended = Runner::new().run(|_| async { Runner::new().run(|_| async {}).map(drop) });
        let refused = ended.unwrap().output.unwrap().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Invalid);
        assert!(refused.to_string().contains("await the future"), "{refused}");
        // Also under a runtime that is not ours.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(async { Runner::new().run(|_| async {}).is_err() }));
        // And afterwards this thread is free again.
        assert!(Runner::new().run(|_| async {}).is_ok());
        assert!(Runner::new().threads(0).run(|_| async {}).is_err());
    });
}

#[test]
fn t79_a_blocking_function_is_waited_for_as_long_as_the_grace_period_says() {
    watched(|| {
        let gate = Gate::default();
        let inside = gate.clone();
        let since = Instant::now();
        let ended = Runner::new()
            .grace(millis(50))
            .run(|_| async move {
                let began = Gate::default();
                let begun = began.clone();
                let answer = off_loop(move || {
                    begun.open();
                    inside.wait();
                    Ok::<_, BoxError>(())
                });
                began.wait();
                drop(answer);
            })
            .unwrap();
        assert!((millis(50)..Duration::from_secs(5)).contains(&since.elapsed()));
        assert_eq!(ended.leftover.still_blocked, 1);
        gate.open();
    });
}

#[test]
fn t79_a_panic_of_the_future_goes_on_when_what_it_left_has_gone() {
    watched(|| {
        let dropped = Arc::new(AtomicUsize::new(0));
        let counts = CountsDrops(dropped.clone());
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            Runner::new().run(|tasks| async move {
                drop(tasks.submit(async move {
                    let _counts = counts;
                    std::future::pending::<Result<(), BoxError>>().await
                }));
                panic!("on purpose")
            })
        }));
        let ran = ran.map(|ended| ended.map(|ended: paceline::Ended<()>| ended.output));
        assert!(ran.is_err());
        assert_eq!(dropped.load(Ordering::SeqCst), 1);
    });
}

/// Set for a copy of this program that plays a part below.
const PART: &str = "PACELINE_TEST_PART";

/// Starts a copy of this program that plays the part of `interrupted_program`.
fn program(part: &str) -> (Child, impl FnMut() -> String) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "runner::interrupted_program", "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let said = move || {
        let said = lines.by_ref().map(Result::unwrap).find_map(|line| {
            let (_, said) = line.split_once("said: ")?;
            Some(said.to_owned())
        });
        said.unwrap_or_default()
    };
    (child, said)
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[expect(clippy::print_stdout, reason = "the program above reads it")]
fn say(what: &str) {
    println!("said: {what}");
}

/// Not a test by itself: the program that the tests below interrupt.
#[test]
fn interrupted_program() {
    let Ok(part) = env::var(PART) else { return };
    let ended = Runner::new()
        .interruptible()
        .grace(if part == "waits" { Duration::from_secs(20) } else { millis(500) })
        .run(|_| async {
            match part.as_str() {
                "waits" => say("ready"),
                "stuck" => {
                    say("ready");
                    // The loop itself never comes back.
                    block_for(Duration::from_secs(60));
                }
                "blocked" => {
                    let answer = off_loop(|| {
                        say("ready");
                        block_for(Duration::from_secs(60));
                        Ok::<_, BoxError>(())
                    });
                    let _ = answer.await;
                }
                other => panic!("no part is called `{other}`"),
            }
            std::future::pending::<()>().await;
        })
        .unwrap();
    assert!(ended.output.is_none());
    say(&format!("interrupted, still blocked {}", ended.leftover.still_blocked));
    std::process::exit(3);
}

#[test]
fn t79_the_first_interrupt_cancels_the_future_and_comes_out_as_such() {
    watched(|| {
        let (mut child, mut said) = program("waits");
        assert_eq!(said(), "ready");
        interrupt(&child);
        assert_eq!(said(), "interrupted, still blocked 0");
        assert_eq!(child.wait().unwrap().code(), Some(3));
    });
}

#[test]
fn r62_9_an_interrupt_with_a_blocked_thread_ends_within_the_grace_period() {
    watched(|| {
        let (mut child, mut said) = program("blocked");
        assert_eq!(said(), "ready");
        let since = Instant::now();
        interrupt(&child);
        assert_eq!(said(), "interrupted, still blocked 1");
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert!(since.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn r62_9_an_interrupt_with_a_stuck_loop_ends_the_process_after_the_grace_period() {
    watched(|| {
        let (mut child, mut said) = program("stuck");
        assert_eq!(said(), "ready");
        let since = Instant::now();
        interrupt(&child);
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
        assert!((millis(400)..Duration::from_secs(5)).contains(&since.elapsed()));
    });
}

#[test]
fn r62_9_the_second_interrupt_ends_the_process_at_once() {
    watched(|| {
        let (mut child, mut said) = program("stuck");
        assert_eq!(said(), "ready");
        let since = Instant::now();
        // Two signals at once may come as one: the second is sent until it is heard.
        while child.try_wait().unwrap().is_none() {
            interrupt(&child);
            assert!(since.elapsed() < Duration::from_secs(10));
            std::thread::yield_now();
        }
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::INT.as_raw()));
        assert!(since.elapsed() < millis(400), "not after the grace period: {:?}", since.elapsed());
    });
}
