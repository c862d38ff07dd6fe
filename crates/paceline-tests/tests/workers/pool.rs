//! A pool of processes: rows W 66 to 73, and the item of the chapter.

use std::{collections::BTreeSet, sync::mpsc};

use paceline::{BoxError, Command, ErrorKind, FailureKind, ProcessPool, RemoteError, Serve, Wire};

use crate::support::{assert_nothing_left, limited};

type Pool = ProcessPool<String, String>;

fn serve(begin: &[&str]) -> Serve {
    let command = Command::new(env!("CARGO_BIN_EXE_server")).arg("frames").args(begin);
    Serve::frames(command).on_stderr(|_| {})
}

fn pool(workers: usize) -> Pool {
    ProcessPool::of(serve(&[])).workers(workers).start().unwrap()
}

fn say(n: u32) -> String {
    format!("say {n}")
}

#[test]
fn w66_r64_10_map_keeps_the_order_for_any_chunk_and_refuses_a_chunk_of_0() {
    limited(|| {
        let pool = pool(2);
        let expected: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        for chunk in [1, 6, 40, 50] {
            let answers = pool.map((0..40).map(say), chunk).unwrap();
            assert_eq!(answers.map(Result::unwrap).collect::<Vec<_>>(), expected);
        }
        assert_eq!(pool.map([say(1)], 0).unwrap_err().kind(), ErrorKind::Invalid);
        pool.shutdown().unwrap();
        assert_nothing_left();
    });
}

#[test]
fn w66_an_idle_worker_is_used_again_before_another_is_started() {
    limited(|| {
        let pool = pool(4);
        let pids: BTreeSet<String> =
            (0..20).map(|_| pool.submit("pid".to_owned()).unwrap().wait().unwrap()).collect();
        assert_eq!(pids.len(), 1);
        assert!(!pids.contains(&std::process::id().to_string()));
        pool.shutdown().unwrap();
    });
}

#[test]
fn w67_a_remote_error_has_its_message() {
    limited(|| {
        let pool = pool(1);
        let failure = pool.submit("fail no such thing".to_owned()).unwrap().wait().unwrap_err();
        assert_eq!(failure.kind(), FailureKind::Worker);
        let remote = failure.cause().downcast_ref::<RemoteError>().unwrap();
        assert_eq!(remote.message(), "no such thing");
        assert_eq!(pool.submit(say(1)).unwrap().wait().unwrap(), "1");
    });
}

#[test]
fn w68_r64_4_a_crash_fails_its_job_and_the_pool_goes_on() {
    limited(|| {
        let pool = pool(2);
        for order in
            ["exit 3", "exit 0", "abort", "kill", "garbage", "half", "wrong-id x", "panic x"]
        {
            let first = pool.submit(say(1)).unwrap();
            if ["garbage", "half", "wrong-id x"].contains(&order) {
                // What comes past the answers is the fault of the first that has none.
                let (tell, told) = mpsc::channel();
                first.on_done(move |_| tell.send(()).unwrap());
                told.recv().unwrap();
            }
            let rest = [order.to_owned(), say(2)].map(|job| pool.submit(job).unwrap());
            let answers: Vec<_> = [first].into_iter().chain(rest).collect();
            let kinds: Vec<_> =
                answers.into_iter().map(|answer| answer.wait().map_err(|f| f.kind())).collect();
            assert_eq!(kinds[1], Err(FailureKind::Worker), "{order}");
            assert_eq!(kinds[0], Ok("1".to_owned()), "{order}");
            assert_eq!(kinds[2], Ok("2".to_owned()), "{order}");
        }
        pool.shutdown().unwrap();
        assert_nothing_left();
    });
}

/// What cannot be written, and what cannot be read.
struct Stubborn(bool);

impl Wire for Stubborn {
    const FORM: paceline::Form = paceline::Form::Bytes;

    fn write(&self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        if self.0 {
            out.extend_from_slice(b"half of it");
            return Err("cannot be written".into());
        }
        out.extend_from_slice(b"say text");
        Ok(())
    }

    fn read(_: &[u8]) -> Result<Self, BoxError> {
        Err("cannot be read".into())
    }
}

#[test]
fn w69_what_cannot_be_written_or_read_fails_that_answer_alone() {
    limited(|| {
        let pool: ProcessPool<Stubborn, String> =
            ProcessPool::of(serve(&[])).workers(1).start().unwrap();
        let failure = pool.submit(Stubborn(true)).unwrap().wait().unwrap_err();
        assert_eq!(failure.cause().to_string(), "cannot be written");
        assert_eq!(pool.submit(Stubborn(false)).unwrap().wait().unwrap(), "text");
        pool.shutdown().unwrap();

        let pool: ProcessPool<String, Stubborn> =
            ProcessPool::of(serve(&[])).workers(1).start().unwrap();
        let outcome = pool.submit(say(1)).unwrap().wait();
        assert_eq!(outcome.err().unwrap().cause().to_string(), "cannot be read");
        pool.shutdown().unwrap();
    });
}

#[test]
fn w71_a_crash_after_shutdown_was_called_does_not_keep_it() {
    limited(|| {
        let pool = pool(1);
        let answers: Vec<_> =
            ["exit 1", "abort", "say x"].map(|job| pool.submit(job.to_owned()).unwrap()).into();
        pool.shutdown().unwrap();
        let is_ok: Vec<_> = answers.into_iter().map(|answer| answer.wait().is_ok()).collect();
        assert_eq!(is_ok, [false, false, true]);
        assert_nothing_left();
    });
}

#[test]
fn w72_a_hundred_jobs_are_submitted_before_any_worker_has_answered() {
    limited(|| {
        let pool = ProcessPool::of(serve(&["hang"])).workers(1).start::<String, String>().unwrap();
        let answers: Vec<_> = (0..100).map(|n| pool.submit(say(n)).unwrap()).collect();
        pool.kill().unwrap();
        assert!(answers.into_iter().all(|answer| answer.wait().is_err()));
        assert_nothing_left();
    });
}

#[test]
fn w73_r64_6_workers_are_replaced_with_a_backlog_also_when_the_pool_was_dropped() {
    limited(|| {
        let pool = ProcessPool::of(serve(&[])).workers(1).max_items(3).start::<String, String>();
        let pool = pool.unwrap();
        let answers: Vec<_> = (0..30).map(|_| pool.submit("pid".to_owned()).unwrap()).collect();
        drop(pool);
        let pids: Vec<String> = answers.into_iter().map(|answer| answer.wait().unwrap()).collect();
        let sizes: Vec<_> = pids.chunk_by(|a, b| a == b).map(<[_]>::len).collect();
        assert_eq!(sizes, [3; 10]);
    });
}

#[test]
fn r64_7_a_failing_initialiser_breaks_the_pool_quickly_and_says_why() {
    limited(|| {
        let pool = ProcessPool::of(serve(&["fail no licence"])).start::<String, String>().unwrap();
        // Submitting may be refused already; whoever got in hears the reason.
        let failure = match pool.submit(say(1)) {
            Ok(answer) => {
                let failure = answer.wait().unwrap_err();
                assert_eq!(failure.kind(), FailureKind::Closed);
                failure.cause().to_string()
            }
            Err(error) => error.to_string(),
        };
        assert!(failure.ends_with("cannot begin: no licence"), "{failure}");
        let refused = loop {
            if let Err(error) = pool.submit(say(1)) {
                break error;
            }
        };
        assert_eq!(refused.kind(), ErrorKind::Worker);
        assert_eq!(pool.shutdown().unwrap_err().kind(), ErrorKind::Worker);
        assert_nothing_left();
    });
}

#[test]
fn an_answer_that_was_cancelled_before_it_began_is_not_worked_on() {
    limited(|| {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let pool = ProcessPool::of(serve(&[])).workers(1).start::<String, String>().unwrap();
        let _hangs = pool.submit("hang".to_owned()).unwrap();
        let mut cancelled = Vec::new();
        // The first few may have been sent already, behind the one that hangs; the last has not.
        for _ in 0..5000 {
            if cancelled.len() == 200 {
                break;
            }
            cancelled.push(pool.submit(format!("once {}", mark.display())).unwrap());
        }
        let last = cancelled.pop().unwrap();
        assert!(last.cancel());
        assert_eq!(last.wait().unwrap_err().kind(), FailureKind::Cancelled);
        pool.kill().unwrap();
        assert!(!mark.exists());
    });
}
