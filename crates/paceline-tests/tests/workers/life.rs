//! How workers live: how many, how long, and how they end.

use std::{collections::BTreeSet, time::Duration};

use paceline::{Framing, Stop};

use crate::support::{FRAMINGS, assert_nothing_left, limited, obey, server, short, stage};

#[test]
fn r64_2_w66_two_workers_are_two_processes_and_idle_ones_are_used_again() {
    limited(|| {
        for framing in FRAMINGS {
            let (pids, _) =
                stage(vec!["pid"; 500], server(framing, &[])).workers(2).collect().unwrap();
            let pids: BTreeSet<_> = pids.into_iter().collect();
            assert!(pids.len() <= 2, "{pids:?}");
            assert!(!pids.contains(&std::process::id().to_string()));
            // Both have work when both are kept busy.
            let orders = ["hang", "hang"];
            let (outcomes, _) = stage(orders, server(framing, &[]))
                .workers(2)
                .timeout(Duration::from_millis(300))
                .outcomes()
                .unwrap();
            assert_eq!(short(&outcomes), ["timeout!", "timeout!"]);
        }
    });
}

#[test]
fn w73_r64_6_a_worker_is_replaced_after_exactly_so_many_items() {
    limited(|| {
        for framing in FRAMINGS {
            for most in [1, 2, 3, 7] {
                let serve = server(framing, &[]).max_items(most);
                let (outcomes, _) = obey(vec!["pid"; 50], serve);
                let pids: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
                let pids: Vec<_> = pids.chunk_by(|a, b| a == b).collect();
                let sizes: Vec<_> = pids.iter().map(|same| same.len() as u64).collect();
                let (last, full) = sizes.split_last().unwrap();
                assert!(full.iter().all(|size| *size == most), "{framing:?} {sizes:?}");
                assert_eq!(*last, if 50 % most == 0 { most } else { 50 % most });
            }
        }
    });
}

#[test]
fn r64_13_a_worker_that_has_grown_is_replaced_between_items() {
    limited(|| {
        for framing in FRAMINGS {
            let serve = server(framing, &[]).max_memory(64 << 20);
            let (outcomes, _) = obey(["pid", "grow 100", "pid", "pid"], serve);
            let pids = short(&outcomes);
            assert_eq!(pids[0], pids[1]);
            assert_ne!(pids[1], pids[2]);
            assert_eq!(pids[2], pids[3]);
        }
    });
}

#[test]
fn r64_13_an_idle_worker_ends_and_another_comes_with_the_next_item() {
    limited(|| {
        for framing in FRAMINGS {
            let (send, orders) = std::sync::mpsc::sync_channel::<String>(0);
            let (told, heard) = std::sync::mpsc::channel();
            let run = std::thread::spawn(move || {
                paceline::Pipeline::from_iter(orders)
                    .serve(
                        "serve",
                        server(framing, &[]).idle_after(Duration::from_millis(50)),
                        crate::support::Text,
                    )
                    .workers(1)
                    .for_each(move |pid| told.send(pid).unwrap())
                    .run()
                    .unwrap()
            });
            send.send("pid".to_owned()).unwrap();
            let first = heard.recv().unwrap();
            while std::path::Path::new(&format!("/proc/{first}")).exists() {
                std::thread::yield_now();
            }
            send.send("pid".to_owned()).unwrap();
            assert_ne!(heard.recv().unwrap(), first);
            drop(send);
            assert_eq!(run.join().unwrap().ok, 2);
        }
    });
}

#[test]
fn a_cancelled_run_ends_its_workers_and_leaves_their_items_unfinished() {
    limited(|| {
        for framing in FRAMINGS {
            let stop = Stop::new();
            let seen = stop.clone();
            let orders = std::iter::once("say a").chain(std::iter::repeat_n("hang", 20));
            let summary = stage(orders, server(framing, &[]))
                .workers(2)
                .stop(&stop)
                .for_each(move |_| seen.cancel())
                .run()
                .unwrap();
            assert_eq!((summary.ok, summary.failed), (1, 0), "{framing:?}");
            assert!(summary.unfinished > 0);
            assert_nothing_left();
        }
    });
}

#[test]
fn a_cancel_that_comes_while_items_are_handed_out_is_not_missed() {
    limited(|| {
        // The second item is on its way when the first is seen, and nothing happens after.
        for _ in 0..40 {
            let stop = Stop::new();
            let seen = stop.clone();
            let summary = stage(["say a", "hang", "hang"], server(Framing::Lines, &[]))
                .workers(2)
                .stop(&stop)
                .for_each(move |_| seen.cancel())
                .run()
                .unwrap();
            assert_eq!((summary.ok, summary.unfinished), (1, 2));
        }
        assert_nothing_left();
    });
}

#[test]
fn a_halted_run_finishes_what_workers_have_in_hand() {
    limited(|| {
        for framing in FRAMINGS {
            let stop = Stop::new();
            let seen = stop.clone();
            let orders = (0..10_000).map(|n| format!("say {n}"));
            let summary = stage(orders, server(framing, &[]))
                .workers(2)
                .stop(&stop)
                .for_each(move |_| seen.halt())
                .run()
                .unwrap();
            assert_eq!(summary.failed, 0);
            assert_eq!(summary.taken, summary.ok + summary.unfinished);
            assert_nothing_left();
        }
    });
}

#[test]
fn order_is_kept_across_workers_and_deaths() {
    limited(|| {
        for framing in FRAMINGS {
            let orders = (0..2000).map(|n| match n % 100 {
                50 => "exit 1".to_owned(),
                _ => format!("say {n}"),
            });
            let (outcomes, _) =
                stage(orders, server(framing, &[])).workers(3).ordered().outcomes().unwrap();
            for (n, outcome) in outcomes.iter().enumerate() {
                match outcome {
                    Ok(value) => assert_eq!(*value, n.to_string()),
                    Err(_) => assert_eq!(n % 100, 50),
                }
            }
        }
    });
}

#[test]
fn stages_of_workers_follow_each_other_and_a_queue_of_one_is_enough() {
    limited(|| {
        let orders = (0..200).map(|n| format!("say say {n}"));
        let (outcomes, _) = stage(orders, server(Framing::Json, &[]))
            .workers(2)
            .queue(1)
            .serve("next", server(Framing::Frames, &[]), crate::support::Text)
            .workers(1)
            .queue(1)
            .ordered()
            .outcomes()
            .unwrap();
        let expected: Vec<_> = (0..200).map(|n| n.to_string()).collect();
        assert_eq!(short(&outcomes), expected);
    });
}
