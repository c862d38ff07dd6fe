//! Deaths, nonsense and silence, in each framing.

use std::time::Duration;

use paceline::{
    Attempt, BoxError, ErrorKind, Exchange, FailureKind, Form, Framing, Pipeline, Retry,
};

use crate::support::{FRAMINGS, Text, assert_nothing_left, limited, obey, server, short, stage};

/// Orders that end or spoil a worker.
const HOSTILE: [&str; 8] =
    ["exit 3", "exit 0", "abort", "kill", "garbage", "half", "wrong-id x", "panic x"];

#[test]
fn f19_r64_4_w68_whatever_ends_a_worker_costs_the_item_in_hand_alone() {
    limited(|| {
        for framing in FRAMINGS {
            for order in HOSTILE {
                // A line is an answer, whatever it says.
                if ["wrong-id x", "garbage"].contains(&order) && framing == Framing::Lines {
                    continue;
                }
                let orders = ["say a", order, "say b", order, "say c"];
                let (outcomes, summary) = obey(orders, server(framing, &[]));
                let is = short(&outcomes);
                assert_eq!(is, ["a", "worker!", "b", "worker!", "c"], "{framing:?} {order}");
                assert_eq!(summary.account(), "in 5 = ok 3 + failed 2 + unfinished 0");
            }
        }
    });
}

#[test]
fn r64_4_the_failure_has_pid_status_and_last_words() {
    limited(|| {
        for framing in FRAMINGS {
            let (outcomes, _) = obey(["say a", "exit 3", "kill"], server(framing, &[]));
            let exited = outcomes[1].as_ref().unwrap_err();
            assert_eq!((exited.kind(), exited.code()), (FailureKind::Worker, Some(3)));
            let text = exited.cause().to_string();
            assert!(text.starts_with("worker process "), "{text}");
            assert!(text.ends_with("exit status 3; it said last: going"), "{text}");
            let killed = outcomes[2].as_ref().unwrap_err();
            assert_eq!(killed.signal(), Some(9));
            assert!(killed.cause().to_string().contains("signal 9 (SIGKILL)"));
        }
    });
}

#[test]
fn r64_4_items_behind_the_one_in_hand_go_to_a_fresh_worker_and_are_not_its_failure() {
    limited(|| {
        for framing in FRAMINGS {
            // Quick ones first, so that many are sent at once when the worker dies.
            let orders = (0..3000).map(|n| match n % 500 {
                499 => "exit 4".to_owned(),
                _ => format!("say {n}"),
            });
            let (outcomes, summary) = obey(orders, server(framing, &[]));
            assert_eq!(summary.account(), "in 3000 = ok 2994 + failed 6 + unfinished 0");
            for (n, outcome) in outcomes.iter().enumerate() {
                match outcome {
                    Ok(value) => assert_eq!(*value, n.to_string(), "{framing:?}"),
                    Err(failure) => {
                        assert_eq!((n % 500, failure.attempts()), (499, 1), "{framing:?}");
                    }
                }
            }
        }
    });
}

#[test]
fn r64_4_an_item_that_kills_its_worker_once_is_not_silently_done_again() {
    limited(|| {
        let folder = tempfile::tempdir().unwrap();
        for framing in FRAMINGS {
            let mark = folder.path().join(format!("{framing:?}"));
            let before = (0..500).map(|n| format!("say {n}"));
            let orders = before.chain([format!("once {}", mark.display()), "say b".to_owned()]);
            let (outcomes, summary) = obey(orders, server(framing, &[]));
            assert_eq!(summary.account(), "in 502 = ok 501 + failed 1 + unfinished 0");
            assert_eq!(outcomes[500].as_ref().unwrap_err().code(), Some(7), "{framing:?}");
        }
    });
}

#[test]
fn a_retry_gives_the_item_to_another_worker() {
    limited(|| {
        let folder = tempfile::tempdir().unwrap();
        for framing in FRAMINGS {
            let mark = folder.path().join(format!("{framing:?}"));
            let orders = ["say a".to_owned(), format!("once {}", mark.display())];
            let (outcomes, summary) = stage(orders, server(framing, &[]))
                .workers(1)
                .retry(Retry::times(1))
                .ordered()
                .outcomes()
                .unwrap();
            assert_eq!(short(&outcomes), ["a", "again"]);
            assert_eq!(summary.stages[0].retried, 1);
        }
    });
}

#[test]
fn an_item_that_waits_for_another_attempt_keeps_the_stage_from_ending() {
    limited(|| {
        let folder = tempfile::tempdir().unwrap();
        for framing in FRAMINGS {
            let mark = folder.path().join(format!("{framing:?}"));
            // The idle worker has seen the end of the items when the busy one fails.
            let orders = [format!("once {}", mark.display())];
            let (outcomes, summary) = stage(orders, server(framing, &[]))
                .workers(2)
                .retry(Retry::times(1).backoff(Duration::from_millis(50)))
                .outcomes()
                .unwrap();
            assert_eq!((short(&outcomes), summary.unfinished), (vec!["again".to_owned()], 0));
        }
    });
}

#[test]
fn f19_a_worker_that_dies_three_times_before_it_answers_ends_the_run_with_its_last_words() {
    limited(|| {
        for framing in FRAMINGS {
            let orders = (0..100).map(|n| format!("say {n}"));
            let error =
                stage(orders, server(framing, &["exit 5"])).workers(1).collect().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Worker);
            let text = error.to_string();
            assert!(text.contains("died 3 times in a row"), "{text}");
            assert!(text.contains("exit status 5; it said last: going"), "{text}");
            assert_nothing_left();
        }
    });
}

#[test]
fn items_that_kill_do_not_use_up_the_budget_of_a_worker_that_answers() {
    limited(|| {
        for framing in FRAMINGS {
            let orders = ["abort", "abort", "say a", "abort", "abort", "say b"];
            let (outcomes, _) = obey(orders, server(framing, &[]));
            let is = short(&outcomes);
            assert_eq!(is, ["worker!", "worker!", "a", "worker!", "worker!", "b"]);
        }
    });
}

#[test]
fn r64_7_a_failing_initialiser_is_told_once_and_ends_the_run_at_once() {
    limited(|| {
        let orders = (0..100).map(|n| format!("say {n}"));
        let serve = server(Framing::Frames, &["fail no licence"]);
        let error = stage(orders, serve).workers(4).collect().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Worker);
        let expected = "stage `serve`: its worker processes cannot begin: no licence";
        assert_eq!(error.to_string(), expected);
        assert_nothing_left();
    });
}

#[test]
fn a_program_that_is_not_there_ends_the_run_with_its_name() {
    limited(|| {
        let serve = paceline::Serve::lines(paceline::Command::new("no-such-program"));
        let error = stage(["say a"], serve).collect().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Worker);
        assert!(error.to_string().contains("no-such-program"), "{error}");
    });
}

#[test]
fn r64_5_a_timeout_costs_the_item_and_its_worker_alone() {
    limited(|| {
        for framing in FRAMINGS {
            let orders = ["pid", "hang", "pid", "say b"];
            let (outcomes, summary) = stage(orders, server(framing, &[]))
                .workers(1)
                .timeout(Duration::from_millis(300))
                .ordered()
                .outcomes()
                .unwrap();
            assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), FailureKind::Timeout);
            assert_ne!(outcomes[0].as_ref().unwrap(), outcomes[2].as_ref().unwrap());
            assert_eq!(outcomes[3].as_ref().unwrap(), "b");
            assert_eq!(summary.failed, 1);
            assert_nothing_left();
        }
    });
}

#[test]
fn r64_5_a_worker_that_is_deaf_to_the_request_to_end_is_killed_after_the_grace_period() {
    limited(|| {
        for framing in FRAMINGS {
            let (outcomes, _) = stage(["say a", "hang-deaf", "say b"], server(framing, &[]))
                .workers(1)
                .timeout(Duration::from_millis(100))
                .grace(Duration::from_millis(100))
                .ordered()
                .outcomes()
                .unwrap();
            assert_eq!(short(&outcomes), ["a", "timeout!", "b"]);
            assert_nothing_left();
        }
    });
}

#[test]
fn w70_r64_9_a_worker_that_dies_while_64_mib_are_sent_is_an_error_and_no_deadlock() {
    limited(|| {
        for framing in FRAMINGS {
            let big = format!("say {}", "x".repeat(64 << 20));
            // A worker that reads nothing of it and is gone.
            let command = paceline::Command::new("sh").args(["-c", "sleep 0.1; exit 6"]);
            let serve = match framing {
                Framing::Lines => paceline::Serve::lines(command),
                Framing::Json => paceline::Serve::json(command),
                _ => continue,
            };
            let error = stage([big.clone(), big.clone(), big], serve.on_stderr(|_| {}))
                .workers(1)
                .collect()
                .unwrap_err();
            assert!(error.to_string().contains("exit status 6"), "{error}");
        }
        for framing in [Framing::Lines, Framing::Frames] {
            let length = (64 << 20) + 7;
            let big = format!("length {}", "x".repeat(64 << 20));
            let (outcomes, _) = obey(["abort", &big], server(framing, &[]));
            assert_eq!(short(&outcomes), ["worker!", &length.to_string()]);
        }
    });
}

#[test]
fn answers_larger_than_any_pipe_come_whole() {
    limited(|| {
        for framing in FRAMINGS {
            let (outcomes, _) = obey(["huge 3000000", "say a"], server(framing, &[]));
            assert_eq!(outcomes[0].as_ref().unwrap().len(), 3_000_000);
            assert_eq!(outcomes[1].as_ref().unwrap(), "a");
        }
    });
}

#[test]
fn w69_r64_11_prints_and_failed_items_leave_the_worker_as_it_is() {
    limited(|| {
        for framing in [Framing::Json, Framing::Frames] {
            let orders = ["pid", "fail why", "pid"];
            let (outcomes, _) = obey(orders, server(framing, &[]));
            assert_eq!(outcomes[0].as_ref().unwrap(), outcomes[2].as_ref().unwrap());
            let failure = outcomes[1].as_ref().unwrap_err();
            assert_eq!(failure.cause().to_string(), "why");
            let remote = failure.cause().downcast_ref::<paceline::RemoteError>();
            assert_eq!(remote.unwrap().message(), "why");
        }
        let (outcomes, _) = obey(["print a", "print b", "pid"], server(Framing::Frames, &[]));
        assert_eq!(short(&outcomes)[..2], ["a", "b"]);
    });
}

#[test]
fn stray_answers_spoil_the_worker_and_no_other_item() {
    limited(|| {
        for framing in [Framing::Json, Framing::Frames] {
            let (outcomes, _) = obey(["say a", "twice b", "say c"], server(framing, &[]));
            let is = short(&outcomes);
            assert_eq!((&*is[0], &*is[2]), ("a", "c"), "{framing:?}");
        }
        let (outcomes, _) = obey(["say a", "twice b", "say c"], server(Framing::Lines, &[]));
        assert_eq!(short(&outcomes), ["a", "worker!", "c"]);
    });
}

#[test]
fn a_value_with_a_newline_fails_with_a_hint_where_a_line_is_an_item() {
    limited(|| {
        let (outcomes, _) = obey(["say a\nb", "say c"], server(Framing::Lines, &[]));
        let failure = outcomes[0].as_ref().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Worker);
        assert!(failure.cause().to_string().contains("framing = \"json\""));
        assert_eq!(outcomes[1].as_ref().unwrap(), "c");
        let (outcomes, _) = obey(["say a\nb"], server(Framing::Json, &[]));
        assert_eq!(short(&outcomes), ["a\nb"]);
    });
}

#[test]
fn r64_5_a_hang_among_quick_items_is_blamed_on_the_item_that_hangs() {
    limited(|| {
        for framing in [Framing::Json, Framing::Frames] {
            let orders = (0..2000).map(|n| match n % 500 {
                499 => "hang".to_owned(),
                _ => format!("say {n}"),
            });
            let (outcomes, _) = stage(orders, server(framing, &[]))
                .workers(1)
                .timeout(Duration::from_millis(300))
                .ordered()
                .outcomes()
                .unwrap();
            for (n, outcome) in outcomes.iter().enumerate() {
                match outcome {
                    Ok(value) => assert_eq!(*value, n.to_string(), "{framing:?}"),
                    Err(failure) => {
                        assert_eq!((n % 500, failure.kind()), (499, FailureKind::Timeout));
                    }
                }
            }
            assert_eq!(outcomes.iter().filter(|outcome| outcome.is_err()).count(), 4);
            assert_nothing_left();
        }
    });
}

#[test]
fn an_answer_is_given_out_while_the_item_behind_it_takes_its_time() {
    limited(|| {
        // Many are sent at once when the worker reads, and the answer before that is on the slate
        // alone: it reads until that answer has come here.
        for (items, before) in [(3000, "say quick"), (60, "factors 100003")] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("fifo");
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
            let reading = format!("read {}", path.display());
            let orders = std::iter::repeat_n(before.to_owned(), items);
            let orders = orders.chain(["say before".to_owned(), reading, "say end".to_owned()]);
            let mut seen = Vec::new();
            stage(orders, server(Framing::Frames, &[]))
                .workers(1)
                .for_each(|answer| {
                    if answer == "before" {
                        std::fs::write(&path, "read").unwrap();
                    }
                    seen.push(answer);
                })
                .run()
                .unwrap();
            assert_eq!(seen.len(), items + 3);
            assert_eq!(seen[items..], ["before", "read", "end"]);
            assert_nothing_left();
        }
    });
}

#[test]
fn f19_answers_that_gather_outlive_the_worker_and_no_item_is_begun_twice() {
    limited(|| {
        let folder = tempfile::tempdir().unwrap();
        // Slow enough that their answers gather for milliseconds, and the worker dies of every
        // fortieth.
        let order = |n: usize| match n % 40 {
            39 => "kill".to_owned(),
            _ => format!("log {} 30011", folder.path().join(n.to_string()).display()),
        };
        let (outcomes, summary) = obey((0..400).map(order), server(Framing::Frames, &[]));
        for (n, outcome) in outcomes.iter().enumerate() {
            match outcome {
                Ok(begun) => assert_eq!((begun.as_str(), n % 40 < 39), ("1", true), "{n}"),
                Err(failure) => assert_eq!((failure.attempts(), n % 40), (1, 39)),
            }
        }
        assert_eq!(summary.account(), "in 400 = ok 390 + failed 10 + unfinished 0");
        let logs = std::fs::read_dir(folder.path()).unwrap();
        for log in logs.map(|log| std::fs::read(log.unwrap().path()).unwrap()) {
            assert_eq!(log, b"x");
        }
    });
}

/// Asks in vain for some: half of a request, and a panic.
struct Panics;

impl Exchange<String> for Panics {
    type Out = String;

    fn request(&self, item: &String, of: &Attempt, to: &mut Vec<u8>) -> Result<Form, BoxError> {
        Text.request(item, of, to)?;
        assert!(item != "say panic", "in vain");
        Ok(Form::Bytes)
    }

    fn answer(
        &self,
        item: String,
        of: &Attempt,
        form: Form,
        is: &[u8],
    ) -> Result<String, BoxError> {
        Text.answer(item, of, form, is)
    }
}

#[test]
fn a_request_that_panics_half_made_is_not_sent() {
    limited(|| {
        for framing in FRAMINGS {
            let orders = ["say a", "say panic", "say b"].map(str::to_owned);
            let (outcomes, _) = Pipeline::from_iter(orders)
                .serve("serve", server(framing, &[]), Panics)
                .workers(1)
                .ordered()
                .outcomes()
                .unwrap();
            assert_eq!(short(&outcomes), ["a", "panic!", "b"], "{framing:?}");
            assert_nothing_left();
        }
    });
}
