//! How children end, and how that is seen.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use paceline_process::{Signal, Stderr, Stdin, Stdout};

use super::support::{await_exit, eventually, run, soak, zombies};

#[test]
fn r52_1_echo_gives_its_line_and_success() {
    run(|world| {
        let output = world
            .command("echo")
            .arg("hello")
            .stdout(Stdout::Capture)
            .stderr(Stderr::Capture)
            .run()
            .unwrap();
        assert!(output.success());
        assert_eq!(output.stdout().to_text().unwrap(), "hello\n");
        assert!(output.stderr().is_empty());
        output.check().unwrap();
    });
}

/// Row 35 too.
#[test]
fn r52_2_a_failure_is_an_error_only_when_asked() {
    run(|world| {
        let command = world.child(&["exit", "3"]).stdout(Stdout::Capture).stderr(Stderr::Capture);
        let output = command.run().unwrap();
        assert_eq!(output.exit().code(), Some(3));
        let error = output.check().unwrap_err();
        assert_eq!(error.argv(), command.argv());
        assert_eq!(error.exit().code(), Some(3));
        assert_eq!(error.stdout().as_bytes(), Some(&b"out\n"[..]));
        assert_eq!(error.stderr().as_bytes(), Some(&b"err\n"[..]));
        assert!(error.to_string().ends_with("child exit 3` failed: exit status 3"), "{error}");

        let killed = world.child(&["raise", "9"]).run().unwrap();
        assert_eq!(killed.exit().signal(), Some(Signal::KILL));
        assert_eq!(killed.exit().code(), None);
        assert_eq!(killed.exit().as_i32(), -9);
    });
}

#[test]
fn p35_check_keeps_what_the_child_said() {
    run(|world| {
        let output = world.sh("echo why >&2; exit 7").stderr(Stderr::Capture).run().unwrap();
        let error = output.check().unwrap_err();
        assert_eq!(error.index(), 0);
        assert_eq!(error.into_output().stderr().to_text().unwrap(), "why\n");
    });
}

#[test]
fn r52_3_a_poll_says_nothing_until_the_end_and_the_same_ever_after() {
    run(|world| {
        let mut child = world.child(&["await-input"]).stdin(Stdin::Pipe).spawn().unwrap();
        assert_eq!(child.poll(), None);
        assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), None);
        assert_eq!(child.wait_timeout(Duration::from_millis(20)).unwrap(), None);
        drop(child.take_stdin());
        assert!(child.wait().unwrap().success());
        for _ in 0..3 {
            assert_eq!(child.poll().unwrap().as_i32(), 0);
        }
        thread::scope(|scope| {
            let polls: Vec<_> = (0..4).map(|_| scope.spawn(|| child.poll())).collect();
            for poll in polls {
                assert_eq!(poll.join().unwrap().unwrap().as_i32(), 0);
            }
        });
    });
}

#[test]
fn r52_4_ten_sleeps_take_as_long_as_one() {
    run(|world| {
        let started = Instant::now();
        let sleep = world.command("sleep").arg("1");
        let children: Vec<_> = (0..10).map(|_| sleep.spawn().unwrap()).collect();
        for child in &children {
            assert!(child.wait().unwrap().success());
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(1) && took < Duration::from_millis(2500), "{took:?}");
    });
}

#[test]
fn p31_many_threads_may_wait_at_once_and_again() {
    run(|world| {
        let mut child = world.sh("read line; exit 5").stdin(Stdin::Pipe).spawn().unwrap();
        let stdin = child.take_stdin();
        let waiting = Barrier::new(9);
        thread::scope(|scope| {
            let waits: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        waiting.wait();
                        [child.wait().unwrap(), child.wait().unwrap(), child.poll().unwrap()]
                    })
                })
                .collect();
            waiting.wait();
            drop(stdin);
            for wait in waits {
                assert!(wait.join().unwrap().iter().all(|exit| exit.code() == Some(5)));
            }
        });
    });
}

#[test]
fn p31_all_exit_codes_are_kept() {
    run(|world| {
        for code in 0..=255 {
            let exit = world.sh(&format!("exit {code}")).run().unwrap().exit();
            assert_eq!(exit.as_i32(), code);
        }
    });
}

#[test]
fn p32_a_wait_sees_the_kill_of_another_thread() {
    run(|world| {
        let until = Instant::now() + soak();
        while Instant::now() < until {
            let child = Arc::new(world.command("sleep").arg("30").spawn().unwrap());
            let waiter = {
                let child = Arc::clone(&child);
                thread::spawn(move || child.wait().unwrap())
            };
            child.kill().unwrap();
            assert_eq!(child.wait().unwrap().as_i32(), -9);
            assert_eq!(waiter.join().unwrap().as_i32(), -9);
        }
    });
}

#[test]
fn p33_a_signal_after_the_end_is_a_success_and_reaches_nobody() {
    run(|world| {
        // Ended and not looked at, ended and looked at, ended and reaped.
        let child = world.command("true").stdout(Stdout::Capture).spawn().unwrap();
        let id = i32::try_from(child.id()).unwrap();
        await_exit(id, Instant::now() + Duration::from_secs(10));
        child.terminate().unwrap();
        assert!(child.poll().unwrap().success());
        child.kill().unwrap();
        assert_eq!(zombies(), [id], "the number must stay ours");

        let mut child = child;
        child.communicate(None).unwrap();
        assert_eq!(zombies(), []);
        child.kill().unwrap();
        child.group().signal(Signal::HUP).unwrap();
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn p33_a_signal_never_reaches_who_has_the_number_next() {
    run(|world| {
        for _ in 0..500 {
            let child = world.command("true").spawn().unwrap();
            child.wait().unwrap();
            // Root can say which number comes next; others are spared this.
            let last = (child.id() - 1).to_string();
            if std::fs::write("/proc/sys/kernel/ns_last_pid", last).is_err() {
                return;
            }
            let stranger = world.command("sleep").arg("30").spawn().unwrap();
            if stranger.id() == child.id() {
                child.kill().unwrap();
                child.group().terminate().unwrap();
                assert_eq!(stranger.wait_timeout(Duration::from_millis(100)).unwrap(), None);
                return;
            }
        }
        panic!("the number was always taken by somebody else");
    });
}

#[test]
fn p33_signals_and_reaping_may_race() {
    run(|world| {
        let until = Instant::now() + soak();
        while Instant::now() < until {
            let child = Arc::new(world.command("true").spawn().unwrap());
            let group = child.group();
            let killer = thread::spawn(move || {
                while group.poll().is_none() {
                    group.signal(Signal::CONT).unwrap();
                }
                group.kill().unwrap();
            });
            assert!(child.wait().unwrap().success());
            killer.join().unwrap();
        }
    });
}

#[test]
fn p32_an_end_seen_by_one_thread_first_is_not_missed_by_another() {
    run(|world| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let command = world.command("true").stdout(Stdout::Capture);
        let until = Instant::now() + soak();
        for round in 0.. {
            if Instant::now() > until {
                break;
            }
            let mut child = command.spawn().unwrap();
            let group = child.group();
            let looker = thread::spawn(move || while group.poll().is_none() {});
            match round % 4 {
                0 => assert!(child.communicate(None).unwrap().success()),
                1 => assert!(child.stop(Duration::from_secs(60)).is_ok()),
                2 => assert!(runtime.block_on(child.communicate_async()).unwrap().success()),
                // The reaper must see it too.
                _ => drop(child),
            }
            looker.join().unwrap();
        }
    });
}

#[test]
fn p34_a_signal_comes_out_as_itself() {
    run(|world| {
        let cases = [(Signal::TERM, -15), (Signal::KILL, -9), (Signal::HUP, -1)];
        for (signal, number) in cases {
            let child = world.command("sleep").arg("30").spawn().unwrap();
            child.signal(signal).unwrap();
            let exit = child.wait().unwrap();
            assert_eq!((exit.as_i32(), exit.signal()), (number, Some(signal)));
            assert!(!exit.success());
        }
        let aborted = world.child(&["abort"]).run().unwrap().exit();
        assert_eq!(aborted.as_i32(), -6);
        assert_eq!(aborted.to_string(), "signal 6 (SIGABRT)");

        let child = world.command("sleep").arg("30").spawn().unwrap();
        child.signal(Signal::from_raw(40)).unwrap();
        assert_eq!(child.wait().unwrap().to_string(), "signal 40");
        assert!(world.command("true").spawn().unwrap().signal(Signal::from_raw(4000)).is_err());
    });
}

#[test]
fn r52_15_a_dropped_handle_leaves_nothing() {
    run(|world| {
        let mut children: Vec<_> = (0..20)
            .map(|_| {
                let child = world.child(&["family", "2"]).stdout(Stdout::Pipe);
                child.spawn().unwrap()
            })
            .collect();
        for child in &mut children {
            let mut ready = [0; 6];
            std::io::Read::read_exact(&mut child.take_stdout().unwrap(), &mut ready).unwrap();
        }
        assert_eq!(world.family().len(), 60);
        drop(children);
        world.family_dies_within(Duration::from_secs(1));
        eventually("all reaped", || zombies().is_empty());
    });
}

#[test]
fn p48_a_dropped_handle_reaps_a_child_that_others_killed() {
    run(|world| {
        let child = world.command("sleep").arg("30").spawn().unwrap();
        let id = child.id();
        assert!(world.sh(&format!("kill -KILL {id}")).run().unwrap().success());
        drop(child);
        let ended = world.command("true").spawn().unwrap();
        await_exit(i32::try_from(ended.id()).unwrap(), Instant::now() + Duration::from_secs(10));
        drop(ended);
        eventually("all reaped", || zombies().is_empty());
    });
}

#[test]
fn p48_a_signal_to_a_finished_child_is_not_sent_on_drop() {
    run(|world| {
        let child = world.sh("exit 4").spawn().unwrap();
        let group = child.group();
        assert_eq!(child.wait().unwrap().code(), Some(4));
        drop(child);
        assert_eq!(group.poll().unwrap().code(), Some(4));
    });
}

#[test]
fn a_child_that_leaves_its_group_is_still_signalled() {
    run(|world| {
        let mut child = world.child(&["change-group"]).stdout(Stdout::Pipe).spawn().unwrap();
        let mut ready = [0; 6];
        std::io::Read::read_exact(&mut child.take_stdout().unwrap(), &mut ready).unwrap();
        assert_eq!(child.stop(Duration::from_secs(10)).unwrap().exit().as_i32(), -15);
    });
}

#[test]
fn time_and_memory_are_the_childs() {
    run(|world| {
        let output = world
            .child(&["use-memory", "100000000"])
            .stdout(Stdout::Capture)
            .run()
            .unwrap()
            .check()
            .unwrap();
        let usage = output.exits()[0].usage();
        assert!(usage.max_rss() > 90_000_000, "{usage:?}");
        assert!(usage.cpu() > Duration::from_millis(1), "{usage:?}");
        assert!(usage.cpu() < output.elapsed() * 2, "{usage:?} in {:?}", output.elapsed());
    });
}

/// F11, for a short while.
#[test]
fn a_thousand_children_leave_nothing() {
    run(|world| {
        let command = world.command("true");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..250 {
                        assert!(command.run().unwrap().success());
                    }
                });
            }
        });
        assert_eq!(zombies(), []);
    });
}
