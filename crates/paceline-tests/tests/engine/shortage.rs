//! Children that cannot be started, since the system has no room for more.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use paceline::{
    Attempt, BoxError, Chain, Clock, Command, ErrorKind, Job, Observer, Output, Pipeline, Stdin,
    Stdout,
};

use paceline_tests::{millis, until, watched_alone};

/// The first item has a child that says a line and reads to the end of a pipe;
/// for the others there is no room until it is made.
struct Short {
    first: Option<(Arc<File>, Arc<File>)>,
    has_room: Arc<AtomicBool>,
}

impl Job<u64> for Short {
    type Out = ();
    type State = ();

    fn start(&self, item: &u64, _: &Attempt) -> Result<(Chain, ()), BoxError> {
        match &self.first {
            Some((input, output)) if *item == 0 => {
                let command = Command::new("sh").args(["-c", "echo; exec cat"]);
                let (stdin, stdout) = (input.clone(), output.clone());
                Ok((
                    Chain::new([command.stdin(Stdin::File(stdin)).stdout(Stdout::File(stdout))]),
                    (),
                ))
            }
            _ if self.has_room.load(Ordering::SeqCst) => {
                Ok((Chain::new([Command::new("true")]), ()))
            }
            _ => Err(io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error()).into()),
        }
    }

    fn finish(&self, _: u64, (): (), output: Output) -> Result<(), BoxError> {
        output.check()?;
        Ok(())
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Observer for Told {
    fn waits_to_start(&self, stage: &str, why: &str) {
        self.0.lock().unwrap().push(format!("{stage}: {why}"));
    }
}

const STEP: Duration = millis(100);

#[test]
fn f14_where_nothing_can_be_started_and_nothing_runs_the_run_ends_after_ten_seconds() {
    watched_alone(|| {
        let (clock, told) = (Clock::manual(), Arc::new(Told::default()));
        let running = Pipeline::from_iter(0..300)
            .command_job("convert", Short { first: None, has_room: Arc::default() })
            .workers(4)
            .clock(&clock)
            .observer(told.clone())
            .discard()
            .start()
            .unwrap();
        let joined = thread::spawn(move || running.join());
        let mut time = Duration::ZERO;
        until("the end", || {
            clock.advance(STEP);
            time += STEP;
            joined.is_finished()
        });
        let error = joined.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Start);
        let message = error.to_string();
        let expected = "stage `convert`: no process could be started for 10s: ";
        assert!(message.starts_with(expected), "{message}");
        assert!(message.contains("open files"), "{message}");
        assert!(time >= Duration::from_secs(10), "{time:?}");
        let told = told.0.lock().unwrap();
        assert!((1..=4).contains(&told.len()), "once an item in hand: {told:?}");
        assert!(told[0].starts_with("convert: ") && told[0].contains("open files"), "{told:?}");
    });
}

#[test]
fn f13_a_start_waits_however_long_while_another_child_runs() {
    watched_alone(|| {
        let (clock, told) = (Clock::manual(), Arc::new(Told::default()));
        let (reader, writer) = io::pipe().unwrap();
        let (mut said, says) = io::pipe().unwrap();
        let has_room = Arc::new(AtomicBool::new(false));
        let file = |end: OwnedFd| Arc::new(File::from(end));
        let first = Some((file(reader.into()), file(says.into())));
        let running = Pipeline::from_iter(0..3)
            .command_job("convert", Short { first, has_room: has_room.clone() })
            .workers(2)
            .clock(&clock)
            .observer(told.clone())
            .discard()
            .start()
            .unwrap();
        // Time that passes before it runs counts against all that wait.
        said.read_exact(&mut [0]).unwrap();
        until("somebody is told that it waits", || {
            clock.advance(STEP);
            !told.0.lock().unwrap().is_empty()
        });
        for _ in 0..600 {
            // It has looked once more and waits again.
            until("the next wait", || clock.timers() > 0);
            clock.advance(STEP);
        }
        assert_eq!(running.progress().failed, 0);
        has_room.store(true, Ordering::SeqCst);
        drop(writer);
        let joined = thread::spawn(move || running.join());
        until("the end", || {
            clock.advance(STEP);
            joined.is_finished()
        });
        let summary = joined.join().unwrap().unwrap();
        assert_eq!((summary.ok, summary.failed, summary.unfinished), (3, 0, 0));
    });
}
