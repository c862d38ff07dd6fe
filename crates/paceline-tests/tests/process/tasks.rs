//! The forms for tasks.

use std::future::{Future, pending};
use std::pin::pin;
use std::time::{Duration, Instant};

use paceline_process::{Chain, Child, Stdin, Stdout};
use tokio::time::timeout;

use super::support::{assert_echoed, await_exit, is_alive, run, zombies};

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_task_communicates() {
    run(|world| {
        let input: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 251) as u8).collect();
        let mut child = world.echo(&["echo-both"], &input).spawn().unwrap();
        block_on(async {
            let output = child.communicate_async().await.unwrap();
            assert!(output.success());
            assert_echoed(output, &input);
            assert_eq!(zombies(), []);
            // Done is done.
            assert!(child.communicate_async().await.unwrap().success());
            assert!(child.wait_async().await.unwrap().success());
            assert!(child.stop_async(pending()).await.unwrap().success());
        });
    });
}

/// Row 40, for tasks.
#[test]
fn p40_a_dropped_future_loses_nothing() {
    run(|world| {
        let input: Vec<u8> = (0..5_000_000_u32).map(|at| (at % 253) as u8).collect();
        let mut child = world.echo(&["echo-both"], &input).spawn().unwrap();
        block_on(async {
            let mut dropped = 0;
            while timeout(Duration::from_millis(1), child.communicate_async()).await.is_err() {
                dropped += 1;
            }
            assert!(dropped > 0);
        });
        let output = child.into_output().unwrap().check().unwrap();
        assert_echoed(&output, &input);
    });
}

#[test]
fn p48_a_cancelled_wait_leaves_the_child_to_be_waited_for() {
    run(|world| {
        let mut child = world.sh("read line; exit 6").stdin(Stdin::Pipe).spawn().unwrap();
        let stdin = child.take_stdin();
        block_on(async {
            timeout(Duration::from_millis(20), child.wait_async()).await.unwrap_err();
            drop(stdin);
            assert_eq!(child.wait_async().await.unwrap().code(), Some(6));
        });
        assert_eq!(child.wait().unwrap().code(), Some(6));
    });
}

#[test]
fn threads_and_tasks_may_take_turns() {
    run(|world| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let script = "echo one; read line; echo two; read line; echo three";
        let mut child =
            world.sh(script).stdin(Stdin::Pipe).stdout(Stdout::Capture).spawn().unwrap();
        let stdin = child.take_stdin();
        child.communicate(Some(Duration::from_millis(50))).unwrap_err();
        runtime.block_on(async {
            timeout(Duration::from_millis(50), child.communicate_async()).await.unwrap_err();
        });
        child.communicate(Some(Duration::from_millis(50))).unwrap_err();
        drop(stdin);
        runtime.block_on(async {
            let output = child.communicate_async().await.unwrap();
            assert_eq!(output.stdout().to_text().unwrap(), "one\ntwo\nthree\n");
        });
    });
}

#[test]
fn a_stop_waits_for_the_callers_grace() {
    run(|world| {
        let mut child = world.child(&["ignore-term"]).stdout(Stdout::Capture).spawn().unwrap();
        block_on(async {
            while child.stdout().is_empty() {
                let _ = timeout(Duration::from_millis(10), child.communicate_async()).await;
            }
            // A grace period without end: the stop can be given up and made again.
            timeout(Duration::from_millis(50), child.stop_async(pending())).await.unwrap_err();
            assert_eq!(child.poll(), None);
            let output = child.stop_async(tokio::time::sleep(Duration::from_millis(50)));
            assert_eq!(output.await.unwrap().exit().as_i32(), -9);
        });
        assert_eq!(world.family(), []);
        assert_eq!(zombies(), []);
    });
}

#[test]
fn a_stop_ends_early_when_the_group_is_empty() {
    run(|world| {
        let done = world.path_text("done");
        let script = r#"sh -c 'trap "sleep 0.2; echo done > $0; exit" TERM; echo ready; while :; do sleep 0.05; done' "$0" & wait"#;
        let mut child = world.sh(script).arg(&done).stdout(Stdout::Capture).spawn().unwrap();
        block_on(async {
            while child.stdout().is_empty() {
                let _ = timeout(Duration::from_millis(10), child.communicate_async()).await;
            }
            let output = timeout(Duration::from_secs(20), child.stop_async(pending())).await;
            assert_eq!(output.unwrap().unwrap().exit().as_i32(), -15);
        });
        assert_eq!(std::fs::read_to_string(done).unwrap(), "done\n");
    });
}

/// F9, for tasks.
#[test]
fn a_held_pipe_ends_with_the_drain_limit_of_the_caller() {
    run(|world| {
        let leak = || world.child(&["leak"]).stdout(Stdout::Capture).spawn().unwrap();
        let dies = |child: &Child| {
            let text = child.stdout().to_text().unwrap();
            let grandchild = text.trim().parse().unwrap();
            await_exit(grandchild, Instant::now() + Duration::from_secs(1));
            assert!(!is_alive(grandchild));
        };
        block_on(async {
            let mut child = leak();
            let started = Instant::now();
            assert!(child.communicate_async().await.unwrap().is_leaky());
            let took = started.elapsed();
            assert!(
                took >= Duration::from_millis(200) && took < Duration::from_secs(2),
                "{took:?}"
            );
            dies(&child);

            // The caller's own limit, which is asked for once it is needed.
            let mut child = leak();
            let drained =
                timeout(Duration::from_millis(400), child.communicate_async_with(pending));
            drained.await.unwrap_err();
            let output = child.communicate_async_with(|| async {}).await.unwrap();
            assert!(output.is_leaky() && output.success());
            dies(&child);

            let mut child = world.command("true").stdout(Stdout::Capture).spawn().unwrap();
            let asked = || async { panic!("nobody holds the output") };
            assert!(!child.communicate_async_with(asked).await.unwrap().is_leaky());
        });
    });
}

#[test]
fn one_thread_waits_for_many_children() {
    run(|world| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let started = Instant::now();
        let children: Vec<_> = (0..100)
            .map(|index| {
                let script = format!("sleep 0.5; echo {index}");
                world.sh(&script).stdout(Stdout::Capture).spawn().unwrap()
            })
            .collect();
        runtime.block_on(async {
            let tasks: Vec<_> = children
                .into_iter()
                .map(|mut child| {
                    tokio::spawn(async move {
                        child.communicate_async().await.unwrap();
                        child.into_output().unwrap()
                    })
                })
                .collect();
            for (index, task) in tasks.into_iter().enumerate() {
                let text = task.await.unwrap().stdout().to_text().unwrap();
                assert_eq!(text, format!("{index}\n"));
            }
        });
        assert!(started.elapsed() < Duration::from_secs(10));
    });
}

#[test]
fn a_chain_can_be_awaited() {
    run(|world| {
        let chain = Chain::new([
            world.command("yes"),
            world.command("cat"),
            world.command("head").arg("-n2").stdout(Stdout::Capture),
        ]);
        block_on(async {
            let mut child = chain.spawn().unwrap();
            let output = child.communicate_async().await.unwrap();
            assert!(output.success());
            assert_eq!(output.stdout().to_text().unwrap(), "y\ny\n");
        });
    });
}

#[test]
fn a_kill_from_elsewhere_ends_the_wait_of_a_task() {
    run(|world| {
        let mut child = world.command("sleep").arg("30").stdout(Stdout::Capture).spawn().unwrap();
        let group = child.group();
        block_on(async {
            let mut waiting = pin!(child.communicate_async());
            timeout(Duration::from_millis(20), &mut waiting).await.unwrap_err();
            std::thread::spawn(move || group.kill().unwrap()).join().unwrap();
            assert_eq!(waiting.await.unwrap().exit().as_i32(), -9);
        });
    });
}

#[test]
fn the_futures_may_move_between_threads() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    run(|world| {
        let mut child = world.command("true").spawn().unwrap();
        drop(is_send(child.communicate_async()));
        drop(is_send(child.wait_async()));
        drop(is_send(child.stop_async(async {})));
        is_send(child.group());
        assert!(child.wait().unwrap().success());
    });
}
