//! What a run tells of its pace: a log of what was measured and decided, and
//! the numbers it came to, to be used again.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::Path,
    sync::{Mutex, PoisonError},
};

use paceline::{
    Summary,
    pace::{Bound, Survey},
};
use serde_json::{Value, json};

use crate::{
    message::{Problem, reason},
    spec::{Stage, Workers},
};

/// A file with a line of JSON for each survey.
#[derive(Debug)]
pub(crate) struct PaceLog {
    file: Mutex<File>,
    stages: Vec<String>,
}

impl PaceLog {
    /// Begins the log of a run with these stages.
    ///
    /// # Errors
    ///
    /// If the file cannot be made.
    pub(crate) fn create(path: &Path, stages: &[Stage]) -> Result<Self, Problem> {
        let file = File::create(path).map_err(|error| {
            Problem::new(format!("cannot write `{}`: {}", path.display(), reason(&error)))
        })?;
        let mut names = vec!["(source)".to_owned()];
        for stage in stages {
            // A batch is gathered by a stage of the engine's own.
            names.extend(stage.batch.map(|_| format!("{} (batch)", stage.name)));
            names.push(stage.name.clone());
        }
        names.push("(sink)".to_owned());
        Ok(Self { file: Mutex::new(file), stages: names })
    }

    /// Adds a line. The log is no part of the run: what cannot be written is left out.
    pub(crate) fn write(&self, survey: &Survey) {
        let line = format!("{}\n", self.json(survey));
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = file.write_all(line.as_bytes());
    }

    fn json(&self, survey: &Survey) -> Value {
        let name = |place: usize| self.stages.get(place).map_or("?", String::as_str);
        let round = |number: f64| (number * 1000.0).round() / 1000.0;
        let stages = survey.estimates.iter().enumerate().map(|(place, seen)| {
            let mut stage = json!({ "stage": name(place), "workers": survey.workers[place] });
            if let Some(seen) = seen {
                let more = json!({
                    "done": seen.done.round(),
                    "per_second": round(seen.rate),
                    "service_ms": round(seen.service * 1e3),
                    "cpu_ms": round(seen.cpu * 1e3),
                    "no_core_ms": round(seen.queued * 1e3),
                    "in_service": round(seen.in_service),
                    "spread": round(seen.spread),
                    "starved": round(seen.starved),
                    "blocked": round(seen.blocked),
                    "pushback": round(seen.pushback),
                    "accounted": round(seen.accounted),
                    "nature": seen.nature(),
                    "full": survey.full[place],
                });
                for (key, value) in more.as_object().into_iter().flatten() {
                    stage[key] = value.clone();
                }
            }
            stage
        });
        let decisions = survey.decisions.iter().map(|decision| {
            json!({
                "stage": name(decision.stage),
                "from": decision.from,
                "to": decision.to,
                "why": decision.why.to_string(),
            })
        });
        json!({
            "at_ms": survey.at.as_millis() as u64,
            "span_ms": survey.span.as_millis() as u64,
            "per_second": round(survey.rate),
            "possible_per_second": if survey.possible.is_finite() { json!(round(survey.possible)) } else { Value::Null },
            "bound": match survey.bound {
                None => Value::Null,
                Some(Bound::Cores) => json!("cores"),
                Some(Bound::Stage(place)) => json!(name(place)),
            },
            "cores_used": round(survey.cores_used),
            "cores": round(survey.cores),
            "slack": round(survey.slack),
            "held": survey.held,
            "pace_cpu_ms": round(survey.cost.as_secs_f64() * 1e3),
            "stages": stages.collect::<Vec<_>>(),
            "decisions": decisions.collect::<Vec<_>>(),
        })
    }
}

/// Writes the numbers that a run has come to, for [`thaw`].
///
/// # Errors
///
/// If the file cannot be written.
pub(crate) fn freeze(path: &Path, summary: &Summary) -> io::Result<()> {
    let mut text = String::from(
        "# The numbers of workers that a run came to; use them by `--workers-from`.\n[workers]\n",
    );
    for stage in summary.stages.iter().filter(|stage| stage.kind != paceline::Kind::Batch) {
        let name = toml::Value::String(stage.name.clone());
        text.push_str(&format!("{name} = {}\n", stage.workers));
    }
    fs::write(path, text)
}

/// Gives the stages the numbers of a file that [`freeze`] has written. Those
/// that it does not name stay as they are.
///
/// # Errors
///
/// If the file cannot be read, or is not of that kind.
pub(crate) fn thaw(path: &Path, stages: &mut [Stage]) -> Result<(), Problem> {
    let wrong = |what: String| {
        Problem::new(format!("cannot take workers from `{}`: {what}", path.display())).hint(
            "it is a file that `--freeze` has written: `[workers]`, and `stage = number`"
                .to_owned(),
        )
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(reason(&error)))?;
    let tables: BTreeMap<String, BTreeMap<String, usize>> =
        toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
    let workers = tables.get("workers").ok_or_else(|| wrong("it has no `[workers]`".to_owned()))?;
    for (name, number) in workers {
        if *number == 0 {
            return Err(wrong(format!("stage `{name}` has 0 workers")));
        }
        let Some(stage) = stages.iter_mut().find(|stage| stage.name == *name) else {
            return Err(wrong(format!("there is no stage `{name}`")));
        };
        stage.workers = Workers::Fixed(*number);
    }
    Ok(())
}
