//! The writer that owns its file off the loop.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use paceline::{BoxError, EventLoop, Writer};

use paceline_tests::{Gate, block_for, millis, thread_names, until, watched};

/// Where a test writes; gone with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("paceline-{name}-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        Self(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Keeps what is written, and counts writes and flushes.
#[derive(Clone, Default)]
struct Kept {
    bytes: Arc<Mutex<Vec<u8>>>,
    writes: Arc<AtomicUsize>,
    flushes: Arc<AtomicUsize>,
    is_closed: Arc<AtomicBool>,
    /// How long each write takes.
    delay: Duration,
    /// What each write waits for.
    gate: Option<Gate>,
}

struct Out(Kept);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.0.delay.is_zero() {
            block_for(self.0.delay);
        }
        if let Some(gate) = &self.0.gate {
            gate.wait();
        }
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        self.0.bytes.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
    }
}

impl Kept {
    fn writer(&self) -> Writer {
        let out = Out(self.clone());
        Writer::start("a test's memory", move || Ok(out)).unwrap()
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
    }
}

/// A future that is ready when its loop has a moment, and how late that was at most.
async fn ticker(ticks: usize) -> Duration {
    let mut worst = Duration::ZERO;
    for _ in 0..ticks {
        let since = Instant::now();
        tokio::time::sleep(millis(1)).await;
        worst = worst.max(since.elapsed().saturating_sub(millis(1)));
    }
    worst
}

#[test]
fn r63_4_a_slow_file_does_not_hold_up_the_loop_and_lines_stay_whole_and_in_order() {
    watched(|| {
        let kept = Kept { delay: millis(50), ..Kept::default() };
        let writer = Arc::new(kept.writer());
        let event_loop = EventLoop::start("ticks").unwrap();
        let ticks = event_loop.submit(async { Ok::<_, BoxError>(ticker(300).await) });
        let tasks: Vec<_> = (0..5)
            .map(|file| {
                let writer = writer.clone();
                event_loop.submit(async move {
                    for line in 0..10 {
                        writer.write_async(format!("{file} line {line}\n")).await?;
                        tokio::time::sleep(millis(2)).await;
                    }
                    Ok::<_, BoxError>(())
                })
            })
            .collect();
        for task in tasks {
            task.wait().unwrap();
        }
        let closing = writer.clone();
        let closed = event_loop.submit(async move { closing.close_async().await });
        closed.wait().unwrap();
        let text = kept.text();
        for file in 0..5 {
            let prefix = format!("{file} ");
            let lines: Vec<_> = text.lines().filter(|line| line.starts_with(&prefix)).collect();
            let expected: Vec<_> = (0..10).map(|line| format!("{file} line {line}")).collect();
            assert_eq!(lines, expected);
        }
        assert_eq!(text.lines().count(), 50);
        let slipped = ticks.wait().unwrap();
        assert!(slipped <= millis(20), "a tick was late by {slipped:?}");
    });
}

#[test]
fn r63_5_a_file_that_cannot_be_opened_fails_every_write_at_once() {
    watched(|| {
        let gate = Gate::default();
        let held = gate.clone();
        let writer = Arc::new(
            Writer::start("`/no/such/file`", move || -> io::Result<fs::File> {
                held.wait();
                fs::File::create("/no/such/file")
            })
            .unwrap(),
        );
        // More than fit: some are accepted, one waits, when the opening fails.
        let pending = {
            let writer = writer.clone();
            thread::spawn(move || (0..10_000).find_map(|_| writer.write("line\n").err()))
        };
        let event_loop = EventLoop::start("writes").unwrap();
        let in_task = writer.clone();
        let task = event_loop.submit(async move {
            loop {
                if let Err(error) = in_task.write_async("line\n").await {
                    return Ok::<_, BoxError>(error);
                }
            }
        });
        until("so much waits that writers do", || format!("{writer:?}").contains("waiting: 256"));
        gate.open();
        for error in [pending.join().unwrap().unwrap(), task.wait().unwrap()] {
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            let told = error.to_string();
            assert!(told.starts_with("could not open `/no/such/file`: "), "{told}");
        }
        // Later ones too, and the close.
        assert_eq!(writer.write("late\n").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(writer.flush().unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(writer.close().unwrap_err().kind(), io::ErrorKind::NotFound);
    });
}

#[test]
fn r63_5_a_write_that_fails_or_panics_is_told_to_all_that_come_later() {
    struct Fails(bool);
    impl Write for Fails {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            assert!(!self.0, "on purpose");
            Err(io::Error::from(io::ErrorKind::StorageFull))
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    watched(|| {
        for (panics, kind) in [(false, io::ErrorKind::StorageFull), (true, io::ErrorKind::Other)] {
            let writer = Writer::start("a full disk", move || Ok(Fails(panics))).unwrap();
            writer.write("accepted\n").unwrap();
            assert_eq!(writer.flush().unwrap_err().kind(), kind);
            assert_eq!(writer.write("refused\n").unwrap_err().kind(), kind);
            assert_eq!(writer.close().unwrap_err().kind(), kind);
        }
    });
}

#[test]
fn r63_6_after_the_close_all_is_in_the_file_and_its_thread_has_gone() {
    watched(|| {
        let place = Place::new("writer-close");
        let path = place.0.join("out");
        fs::write(&path, "old\n").unwrap();
        let writer = Arc::new(Writer::append(&path).unwrap());
        let event_loop = EventLoop::start("close").unwrap();
        let closing = writer.clone();
        let closed = event_loop.submit(async move {
            for n in 0..1000 {
                closing.write_async(format!("{n}\n")).await?;
            }
            closing.close_async().await
        });
        closed.wait().unwrap();
        let expected: String = (0..1000).map(|n| format!("{n}\n")).collect();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("old\n{expected}"));
        assert!(!thread_names().iter().any(|name| name == "paceline-write"), "it was joined");
        let open: Vec<_> = fs::read_dir("/proc/self/fd").unwrap().flatten().collect();
        let is_open = open.iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == path));
        assert!(!is_open);
        writer.close().unwrap();
        let refused = writer.write("late").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
        assert!(refused.to_string().ends_with("is closed"), "{refused}");
    });
}

#[test]
fn r63_6_dropped_it_still_writes_what_was_accepted_and_ends() {
    watched(|| {
        let kept = Kept::default();
        let writer = kept.writer();
        writer.write("accepted").unwrap();
        drop(writer);
        until("it is closed", || kept.is_closed.load(Ordering::SeqCst));
        assert_eq!(kept.text(), "accepted");
        assert!(kept.flushes.load(Ordering::SeqCst) > 0);
    });
}

#[test]
fn r63_7_a_slow_disk_makes_writers_wait_and_lines_are_written_in_batches() {
    watched(|| {
        let kept = Kept { gate: Some(Gate::default()), ..Kept::default() };
        let writer = Arc::new(kept.writer());
        let accepted = Arc::new(AtomicUsize::new(0));
        let (in_thread, count) = (writer.clone(), accepted.clone());
        let pusher = thread::spawn(move || {
            for n in 0..10_000 {
                in_thread.write(format!("{n}\n")).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        // One batch in hand and one in the queue: not more, whatever the writer wants.
        until("the writer waits", || format!("{writer:?}").contains("waiting: 256"));
        assert!(accepted.load(Ordering::SeqCst) <= 513);
        kept.gate.as_ref().unwrap().open();
        pusher.join().unwrap();
        writer.close().unwrap();
        assert_eq!(kept.text().lines().count(), 10_000);
        let writes = kept.writes.load(Ordering::SeqCst);
        assert!(writes < 10_000, "{writes} writes for 10,000 lines");
    });
}

#[test]
fn r63_7_a_lone_line_is_flushed_without_another_one() {
    watched(|| {
        let kept = Kept::default();
        let writer = kept.writer();
        writer.write("lone\n").unwrap();
        until("it is written and flushed", || kept.flushes.load(Ordering::SeqCst) > 0);
        assert_eq!(kept.text(), "lone\n");
        writer.flush().unwrap();
    });
}

#[test]
fn r63_9_the_waiting_write_on_a_loop_is_an_error() {
    watched(|| {
        let kept = Kept::default();
        let writer = Arc::new(kept.writer());
        let in_task = writer.clone();
        let event_loop = EventLoop::start("writes").unwrap();
        let kinds = event_loop.submit(async move {
            let refused = [in_task.write("x"), in_task.flush(), in_task.close()];
            in_task.write_async("y").await?;
            in_task.flush_async().await?;
            Ok::<_, BoxError>(refused.map(|refused| refused.unwrap_err().kind()))
        });
        assert_eq!(kinds.wait().unwrap(), [io::ErrorKind::WouldBlock; 3]);
        writer.close().unwrap();
        assert_eq!(kept.text(), "y");
    });
}
