//! Item 63: never block the event loop, and hear of it when you do.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use paceline::{BoxError, EventLoop, ItemId, Observer, Pipeline, Summary, Writer};

use crate::{
    Item, Show,
    show::{expect, wait_for},
};

pub(crate) const ITEM: Item =
    Item { number: 63, title: "The event loop: never blocked unnoticed", show };

/// A poll that was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Whether it still went on.
    pub is_stuck: bool,
    /// The stage whose future it was.
    pub stage: String,
    /// How long it had taken by then.
    pub time: Duration,
}

#[derive(Default)]
struct Reports(Mutex<Vec<Report>>);

impl Reports {
    fn add(&self, is_stuck: bool, stage: &str, time: Duration) {
        let report = Report { is_stuck, stage: stage.to_owned(), time };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }
}

impl Observer for Reports {
    fn stuck_poll(&self, _item: &ItemId, stage: &str, so_far: Duration) {
        self.add(true, stage, so_far);
    }

    fn slow_poll(&self, _item: &ItemId, stage: &str, took: Duration) {
        self.add(false, stage, took);
    }
}

/// Runs one future that blocks its loop `steps` times for `step`, and gives
/// way between; returns what was told of it.
///
/// # Errors
///
/// If it cannot be run.
pub fn blocking_steps(steps: u32, step: Duration) -> Result<(Vec<Report>, Summary), BoxError> {
    let reports = Arc::new(Reports::default());
    let summary = Pipeline::from_iter([steps])
        .io("slow", |steps: u32| async move {
            for _ in 0..steps {
                wait_for(step);
                tokio::task::yield_now().await;
            }
            Ok::<_, BoxError>(())
        })
        .observer(reports.clone())
        .run()?;
    let reports = std::mem::take(&mut *reports.0.lock().unwrap_or_else(PoisonError::into_inner));
    Ok((reports, summary))
}

/// A file on a slow disk: each write takes so long.
struct SlowDisk {
    delay: Duration,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for SlowDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        wait_for(self.delay);
        self.written.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets 5 tasks write 10 lines each to a disk that takes `delay` a write,
/// while a task of the same loop ticks every millisecond. Returns what was
/// written, and by how much the latest tick was late.
///
/// # Errors
///
/// If the loop or the writer cannot be started, or a write fails.
pub fn ticks_beside_a_slow_disk(delay: Duration) -> Result<(String, Duration), BoxError> {
    const TICK: Duration = Duration::from_millis(1);
    let written = Arc::default();
    let disk = SlowDisk { delay, written: Arc::clone(&written) };
    let writer = Arc::new(Writer::start("a slow disk", move || Ok(disk))?);
    let event_loop = EventLoop::start("item63")?;
    let ticks = event_loop.submit(async {
        let mut latest = Duration::ZERO;
        for _ in 0..100 {
            let since = Instant::now();
            tokio::time::sleep(TICK).await;
            latest = latest.max(since.elapsed().saturating_sub(TICK));
        }
        Ok::<_, BoxError>(latest)
    });
    let tasks: Vec<_> = (0..5)
        .map(|task| {
            let writer = writer.clone();
            event_loop.submit(async move {
                for line in 0..10 {
                    writer.write_async(format!("{task} line {line}\n")).await?;
                }
                Ok::<_, BoxError>(())
            })
        })
        .collect();
    for task in tasks {
        task.wait()?;
    }
    let latest = ticks.wait()?;
    writer.close()?;
    event_loop.close()?;
    let written = written.lock().unwrap_or_else(PoisonError::into_inner);
    Ok((String::from_utf8(written.clone())?, latest))
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    let (reports, summary) = blocking_steps(1, Duration::from_millis(500))?;
    for Report { is_stuck, stage, time } in &reports {
        let when = if *is_stuck { "told while it was stuck" } else { "told when it had ended" };
        show.took(&format!("a step of 500 ms in `{stage}`, {when}"), *time)?;
    }
    expect(reports.len() == 2, "one report while it was stuck and one after")?;
    let longest = summary.longest_poll.ok_or("the summary names the longest poll")?;
    show.took(&format!("  the summary's longest poll, in `{}`", longest.stage), longest.took)?;
    let (reports, _) = blocking_steps(10, Duration::from_millis(20))?;
    show.found("ten steps of 20 ms: reports", reports.len())?;
    let (written, latest) = ticks_beside_a_slow_disk(Duration::from_millis(50))?;
    expect(written.lines().count() == 50, "50 lines")?;
    show.took("50 lines to a disk of 50 ms a write: latest tick of 1 ms", latest)?;
    show.python(include_str!("../python/item63.py"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r63_1_half_a_second_is_told_of_and_ten_short_steps_are_not() {
        let (reports, summary) = blocking_steps(1, Duration::from_millis(500)).unwrap();
        let ended: Vec<_> = reports.iter().filter(|report| !report.is_stuck).collect();
        assert_eq!((ended.len(), ended[0].stage.as_str()), (1, "slow"));
        assert!(ended[0].time >= Duration::from_millis(400));
        assert!(summary.longest_poll.is_some());
        assert_eq!(blocking_steps(10, Duration::from_millis(20)).unwrap().0, []);
    }

    #[test]
    fn r63_4_lines_are_whole_and_in_order_beside_a_ticking_loop() {
        let (written, _) = ticks_beside_a_slow_disk(Duration::from_millis(50)).unwrap();
        for task in 0..5 {
            let prefix = format!("{task} ");
            let lines: Vec<_> = written.lines().filter(|line| line.starts_with(&prefix)).collect();
            let expected: Vec<_> = (0..10).map(|line| format!("{task} line {line}")).collect();
            assert_eq!(lines, expected);
        }
    }
}
