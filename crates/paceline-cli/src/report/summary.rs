//! The summary at the end of a run: a table, the bottleneck, the account.

use std::{fmt::Write, time::Duration};

use paceline::{Bounded, Kind, Progress, StageSummary, Summary, Workers};

use crate::message::harmless;

const COLUMNS: [&str; 10] =
    ["stage", "done", "failed", "retried", "workers", "busy", "waiting", "p50", "p99", "queue"];

/// Gives the summary as text, with its last newline.
///
/// `busy` is the part of the workers' time that items were in service,
/// `waiting` the rest: for input, or for room downstream. `queue` is the most
/// items that waited before the stage.
pub(crate) fn text(summary: &Summary) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    let stages: Vec<&StageSummary> =
        summary.stages.iter().filter(|stage| stage.kind != Kind::Batch).collect();
    rows.extend(stages.iter().map(|stage| row(stage, summary.elapsed)));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if stages.len() > 1 {
        name_bottleneck(summary, &mut text);
    }
    if let Some(longest) = &summary.longest_poll {
        let _ = writeln!(
            text,
            "longest poll: {} in `{}` ({}), which held up all others of its event loop",
            short(longest.took),
            harmless(longest.stage.as_bytes()),
            longest.item,
        );
    }
    if summary.elapsed >= LONG_ENOUGH {
        explain(summary, &mut text);
    }
    let _ = writeln!(text, "{}, {}", summary.account(), short(summary.elapsed));
    text
}

/// A stage whose workers were busy for less than this bounds nothing, and for
/// less than the other only if nothing else is known to have.
const HARDLY_BUSY: f64 = 0.1;
const HALF_BUSY: f64 = 0.5;

/// Says which stage held up the others, or that none did.
fn name_bottleneck(summary: &Summary, text: &mut String) {
    let Some((stage, part)) = summary.bottleneck() else { return };
    let name = harmless(stage.name.as_bytes());
    let workers = match stage.workers {
        1 => "1 worker was".to_owned(),
        workers => format!("{workers} workers were"),
    };
    let other = match summary.bounded_by {
        Some(Bounded::Source) if part < HALF_BUSY => "the source, which gave items no faster",
        Some(Bounded::Sink) if part < HALF_BUSY => "whoever takes the results",
        _ if part < HARDLY_BUSY => "none of the stages",
        _ => {
            let _ =
                writeln!(text, "bottleneck: `{name}`, whose {workers} {:.0} % busy", part * 100.0);
            return;
        }
    };
    let _ = writeln!(
        text,
        "bottleneck: {other}; the busiest stage is `{name}`, whose {workers} {:.0} % busy",
        part * 100.0
    );
}

/// From here on a run has shown what bounded it.
const LONG_ENOUGH: Duration = Duration::from_secs(1);

/// Says how the workers went, what bounded the run, and what would help.
fn explain(summary: &Summary, text: &mut String) {
    let name = |stage: &StageSummary| harmless(stage.name.as_bytes());
    let changed = |stage: &&StageSummary| stage.workers_range.0 < stage.workers_range.1;
    for stage in summary.stages.iter().filter(changed) {
        let (fewest, most) = stage.workers_range;
        let workers = stage.workers;
        let _ = writeln!(
            text,
            "workers of `{}`: {fewest} to {most}, {workers} in the end",
            name(stage)
        );
    }
    let Some(bounded) = summary.bounded_by else { return };
    let used = summary.cores_used.unwrap_or_default();
    let _ = match bounded {
        Bounded::Cores => writeln!(
            text,
            "bound by the cores, {used:.1} of {} in use: more workers will not help, less work an item \
             or more cores would",
            summary.cores
        ),
        Bounded::Stage(place) => {
            let stage = &summary.stages[place];
            let (name, workers) = (name(stage), stage.workers);
            let cores = summary.cores;
            if stage.fed <= workers as u64 {
                writeln!(
                    text,
                    "bound by how long the items of `{name}` take, which had a worker each: more \
                     workers will not help"
                )
            } else if stage.wanted == Workers::Fixed(1) {
                writeln!(
                    text,
                    "bound by `{name}` with its 1 worker: more of them would help, if it may have them"
                )
            } else {
                writeln!(
                    text,
                    "bound by `{name}` with its {workers} workers, {used:.1} of {cores} cores in use: more \
                     of them might help"
                )
            }
        }
        Bounded::Outside(place) => writeln!(
            text,
            "bound by what `{}` waits for: it gave no more with further workers; a faster server or \
             disk would help",
            name(&summary.stages[place])
        ),
        Bounded::Source => {
            writeln!(text, "bound by the source: items came no faster, and workers will not help")
        }
        Bounded::Sink => {
            writeln!(text, "bound by whoever takes the results: workers will not help")
        }
        _ => Ok(()),
    };
}

/// The account of a run that has no summary, since paceline could not go on.
pub(crate) fn account(progress: &Progress) -> String {
    let Progress { taken, ok, failed, unfinished, .. } = progress;
    format!("in {taken} = ok {ok} + failed {failed} + unfinished {unfinished}")
}

fn row(stage: &StageSummary, elapsed: Duration) -> [String; 10] {
    let busy = stage.utilisation(elapsed) * 100.0;
    let times = if stage.fed > 0 {
        [short(stage.service_p50), short(stage.service_p99)]
    } else {
        ["-".to_owned(), "-".to_owned()]
    };
    let [p50, p99] = times;
    [
        cut(&harmless(stage.name.as_bytes())),
        stage.ok.to_string(),
        stage.failed.to_string(),
        stage.retried.to_string(),
        stage.workers.to_string(),
        format!("{busy:.0} %"),
        format!("{:.0} %", 100.0 - busy),
        p50,
        p99,
        stage.high_water.to_string(),
    ]
}

/// A stage's name, as much of it as leaves room for the numbers.
fn cut(name: &str) -> String {
    const LONGEST: usize = 40;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

/// A time in a few characters: `12 us`, `3.4 ms`, `1.2 s`, `3 m 20 s`.
pub(crate) fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 0.1 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{} m {} s", time.as_secs() / 60, time.as_secs() % 60),
        _ => format!("{} h {} m", time.as_secs() / 3600, time.as_secs() / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use paceline::{BoxError, Pipeline};

    use super::*;

    #[test]
    fn r63_8_the_longest_poll_is_named_with_its_stage() {
        let summary = Pipeline::from_iter([1, 2])
            .io("fetch", |n: u32| async move {
                let since = std::time::Instant::now();
                while n == 2 && since.elapsed() < Duration::from_millis(15) {}
                Ok::<_, BoxError>(())
            })
            .watch(Duration::from_millis(10))
            .run()
            .unwrap();
        let told = text(&summary);
        let line = told.lines().find(|line| line.starts_with("longest poll: ")).unwrap();
        assert!(line.contains(" ms in `fetch` (item 2), which held up"), "{line}");
    }

    #[test]
    fn times_are_short_at_every_scale() {
        let shown = [12e-6, 3.44e-3, 0.25, 1.25, 200.0, 7300.0]
            .map(|seconds| short(Duration::from_secs_f64(seconds)));
        assert_eq!(shown, ["12 us", "3.4 ms", "250 ms", "1.2 s", "3 m 20 s", "2 h 1 m"]);
    }
}
