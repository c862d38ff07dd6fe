//! `paceline runs`, `status` and `failed`: what the journal knows.

use std::{
    fmt::Write as _,
    io::{self, BufWriter, Write},
    os::unix::ffi::OsStrExt,
    path::Path,
    process::ExitCode,
    time::Duration,
};

use paceline_journal::{ErrorKind, FailedItem, Journal, Keep, Reader, RunInfo, StageInfo};
use serde_json::{Map, Value as Json, json};

use super::resume::{Target, no_journal, no_run, recorded_path};
use crate::{
    args, exit_code,
    journal::{self, problem},
    message::{Problem, harmless},
    report::{
        json::{put_bytes, text_or_base64},
        summary::short,
    },
};

/// Lists the runs, or forgets old ones.
///
/// # Errors
///
/// If there is no journal, or it cannot be read.
pub(crate) fn runs(args: args::Runs) -> Result<ExitCode, Problem> {
    let place = journal::place(args.journal.as_deref(), args.pipeline.as_deref());
    if args.prune {
        if !place.exists() {
            return Err(no_journal(&place));
        }
        let mut journal = Journal::open(&place).map_err(|error| problem(&error))?;
        let younger_than = args.younger_than.map(|age| age.0);
        let pruned = journal
            .prune(&Keep { newest: args.keep, younger_than })
            .map_err(|error| problem(&error))?;
        drop(journal);
        let line = match args.json {
            true => json!({ "pruned": pruned.runs, "bytes": pruned.bytes }).to_string(),
            false => format!(
                "{} forgotten, {} given back",
                counted(pruned.runs.len() as u64, "run"),
                size(pruned.bytes)
            ),
        };
        return Ok(print(|out| writeln!(out, "{line}")));
    }
    let reader = open(&place)?;
    let runs = reader.runs().map_err(|error| problem(&error))?;
    if args.json {
        return Ok(print(|out| runs.iter().try_for_each(|run| writeln!(out, "{}", run_json(run)))));
    }
    let mut rows = vec![
        [
            "run",
            "command",
            "name",
            "started",
            "took",
            "items",
            "ok",
            "failed",
            "unfinished",
            "ending",
        ]
        .map(str::to_owned),
    ];
    rows.extend(runs.iter().map(run_row));
    let mut text = table(&rows, 4);
    let path = harmless(place.as_os_str().as_bytes());
    let _ = writeln!(
        text,
        "{} in `{path}`, {}",
        counted(runs.len() as u64, "run"),
        size(reader.size())
    );
    Ok(print(|out| out.write_all(text.as_bytes())))
}

/// Shows a run stage by stage.
///
/// # Errors
///
/// If there is no journal or no such run, or it cannot be read.
pub(crate) fn status(args: args::Query) -> Result<ExitCode, Problem> {
    let (reader, run) = find(&args)?;
    let info = reader.run(run).map_err(|error| problem(&error))?;
    let stages = reader.stages(run).map_err(|error| problem(&error))?;
    if args.json {
        return Ok(print(|out| {
            stages.iter().try_for_each(|stage| writeln!(out, "{}", stage_json(&info, stage)))
        }));
    }
    let mut rows = vec![
        ["stage", "kind", "done", "failed", "retried", "mean", "cpu", "peak memory"]
            .map(str::to_owned),
    ];
    rows.extend(stages.iter().map(stage_row));
    let mut text = table(&rows, 2);
    let _ = writeln!(
        text,
        "run {run}, `{}`: in {} = ok {} + failed {} + unfinished {}; {}",
        harmless(info.name.as_bytes()),
        info.items,
        info.ok,
        info.failed,
        info.unfinished(),
        ending(&info)
    );
    if info.ok < info.items && !info.is_running() {
        text.push_str(match info.command.as_str() {
            "each" => "run the command again with `--resume` to go on\n",
            _ => "`paceline resume` goes on with it\n",
        });
    }
    Ok(print(|out| out.write_all(text.as_bytes())))
}

/// Shows the failed items of a run.
///
/// # Errors
///
/// If there is no journal or no such run, or it cannot be read.
pub(crate) fn failed(args: args::Failed) -> Result<ExitCode, Problem> {
    let (reader, run) = find(&args.query)?;
    let info = reader.run(run).map_err(|error| problem(&error))?;
    let failed = reader.failed(run).map_err(|error| problem(&error))?;
    if args.export {
        let end: &[u8] = if args.null { b"\0" } else { b"\n" };
        if !args.null && failed.iter().any(|item| item.value.contains(&b'\n')) {
            return Err(Problem::new("an item has a newline in it")
                .hint("`--export --null` ends items with NUL".to_owned()));
        }
        return Ok(print(|out| {
            failed.iter().try_for_each(|item| out.write_all(&[&item.value, end].concat()))
        }));
    }
    if args.query.json {
        return Ok(print(|out| {
            failed.iter().try_for_each(|item| writeln!(out, "{}", failed_json(run, item)))
        }));
    }
    let mut text = String::new();
    for item in &failed {
        failed_text(&mut text, item);
    }
    let _ = writeln!(
        text,
        "{} of run {run}, `{}`",
        match failed.len() {
            0 => "no failed item".to_owned(),
            many => counted(many as u64, "failed item"),
        },
        harmless(info.name.as_bytes())
    );
    if !failed.is_empty() && info.command == "run" {
        text.push_str("`paceline retry` makes new attempts at them\n");
    }
    Ok(print(|out| out.write_all(text.as_bytes())))
}

fn open(place: &Path) -> Result<Reader, Problem> {
    Reader::open(place).map_err(|error| match error.kind() {
        ErrorKind::Missing => no_journal(place),
        _ => problem(&error),
    })
}

/// The journal and the run that are asked for.
fn find(args: &args::Query) -> Result<(Reader, u64), Problem> {
    let target = Target::of(args.target.as_deref());
    let place = journal::place(args.journal.as_deref(), target.pipeline());
    let reader = open(&place)?;
    let newest = |pipeline: Option<&[u8]>| reader.newest(pipeline).map_err(|error| problem(&error));
    let run = match &target {
        Target::Number(number) => Some(*number),
        Target::Newest => newest(None)?,
        Target::Pipeline(path) => newest(Some(&recorded_path(path)?))?,
    };
    match run {
        Some(run) => Ok((reader, run)),
        None => Err(no_run(&place, target.pipeline())),
    }
}

fn print(write: impl FnOnce(&mut BufWriter<io::StdoutLock<'_>>) -> io::Result<()>) -> ExitCode {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()).and_then(|()| crate::check_open()) {
        Ok(()) => ExitCode::from(exit_code::OK),
        Err(error) => crate::unprinted(&error),
    }
}

fn run_row(run: &RunInfo) -> [String; 10] {
    let took = run.ended_unix_ms.map_or_else(String::new, |ended| {
        let ms = u64::try_from(ended.saturating_sub(run.started_unix_ms)).unwrap_or_default();
        short(Duration::from_millis(ms))
    });
    [
        run.run.to_string(),
        run.command.clone(),
        harmless(run.name.as_bytes()),
        time_of_day(run.started_unix_ms),
        took,
        run.items.to_string(),
        run.ok.to_string(),
        run.failed.to_string(),
        run.unfinished().to_string(),
        ending(run),
    ]
}

fn stage_row(stage: &StageInfo) -> [String; 8] {
    let answers = stage.ok + stage.failed;
    let mean = match stage.service_us.checked_div(answers) {
        Some(mean) => short(Duration::from_micros(mean)),
        None => "-".to_owned(),
    };
    [
        harmless(stage.name.as_bytes()),
        stage.kind.clone(),
        stage.ok.to_string(),
        stage.failed.to_string(),
        stage.retried.to_string(),
        mean,
        if stage.cpu_us > 0 { short(Duration::from_micros(stage.cpu_us)) } else { "-".to_owned() },
        stage.peak_memory_kb.map_or_else(|| "-".to_owned(), |kb| size(kb * 1024)),
    ]
}

fn failed_text(text: &mut String, item: &FailedItem) {
    let attempts = match item.attempts {
        0 | 1 => String::new(),
        many => format!(" (after {many} attempts)"),
    };
    let _ = writeln!(
        text,
        "{}: stage `{}`: {}{attempts}",
        harmless(&item.value),
        harmless(item.stage.as_bytes()),
        harmless(item.failure.message.as_bytes())
    );
    if let Some(command) = &item.failure.command {
        let _ = writeln!(text, "    command: {}", harmless(command.as_bytes()));
    }
    /// The last lines say what went wrong.
    const LINES: usize = 10;
    let stderr = item.failure.stderr.strip_suffix(b"\n").unwrap_or(&item.failure.stderr);
    let lines: Vec<&[u8]> = stderr.split(|byte| *byte == b'\n').collect();
    for line in lines.iter().skip(lines.len().saturating_sub(LINES)).filter(|_| !stderr.is_empty())
    {
        let _ = writeln!(text, "    | {}", harmless(line));
    }
}

fn run_json(run: &RunInfo) -> Json {
    let mut object = json!({
        "run": run.run,
        "command": run.command,
        "name": run.name,
        "pipeline": null,
        "started_unix_ms": run.started_unix_ms,
        "ended_unix_ms": run.ended_unix_ms,
        "ending": ending(run),
        "sessions": run.sessions,
        "in": run.items,
        "ok": run.ok,
        "failed": run.failed,
        "unfinished": run.unfinished(),
        "source_ended": run.source_ended,
    });
    if let (Some(path), Some(object)) = (&run.pipeline, object.as_object_mut()) {
        object.remove("pipeline");
        put_bytes(object, "pipeline", path);
    }
    object
}

fn stage_json(run: &RunInfo, stage: &StageInfo) -> Json {
    json!({
        "run": run.run,
        "stage": stage.name,
        "kind": stage.kind,
        "ok": stage.ok,
        "failed": stage.failed,
        "retried": stage.retried,
        "service_ms": stage.service_us as f64 / 1e3,
        "cpu_ms": stage.cpu_us as f64 / 1e3,
        "peak_memory_kb": stage.peak_memory_kb,
    })
}

fn failed_json(run: u64, item: &FailedItem) -> Json {
    let mut object = Map::new();
    object.insert("run".into(), run.into());
    object.insert("seq".into(), item.seq.into());
    let id: String = item.id.iter().map(|byte| format!("{byte:02x}")).collect();
    object.insert("id".into(), id.into());
    put_bytes(&mut object, "in", &item.value);
    object.insert("stage".into(), item.stage.as_str().into());
    object.insert("kind".into(), item.failure.kind.as_str().into());
    object.insert("code".into(), item.failure.code.into());
    object.insert("signal".into(), item.failure.signal.into());
    object.insert("message".into(), item.failure.message.as_str().into());
    object.insert("attempts".into(), item.attempts.into());
    object.insert("command".into(), item.failure.command.as_deref().into());
    object.insert("stderr".into(), text_or_base64(&item.failure.stderr));
    object.insert("ended_unix_ms".into(), item.ended_unix_ms.into());
    Json::Object(object)
}

/// How a run ended, as far as its journal and its process can say.
fn ending(run: &RunInfo) -> String {
    match &run.ending {
        Some(ending) => ending.clone(),
        None if run.is_running() => "running".to_owned(),
        None => "killed".to_owned(),
    }
}

fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// `2026-10-03 14:05:09`, UTC.
fn time_of_day(unix_ms: i64) -> String {
    let seconds = unix_ms.div_euclid(1000);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// Rows in columns: the first `left` to the left, numbers to the right, the last one to the left.
fn table<const N: usize>(rows: &[[String; N]], left: usize) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < left || column + 1 == N && left > 2 {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_are_right_at_the_ends_of_years_and_in_leap_years() {
        let shown = [0, 951_782_400_000, 1_735_689_599_999, 1_790_000_000_000].map(time_of_day);
        assert_eq!(
            shown,
            [
                "1970-01-01 00:00:00",
                "2000-02-29 00:00:00",
                "2024-12-31 23:59:59",
                "2026-09-21 14:13:20"
            ]
        );
    }
}
