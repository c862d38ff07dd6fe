//! One `[[stage]]` of the file.

use std::path::PathBuf;
use std::time::Duration;

use paceline_process::Isolation;

use crate::message::Place;
use crate::template::{Template, is_reserved};

use super::texts::{Out, Scope, template};
use super::tree::{Fault, Span, Table, Value};
use super::{Stage, Work, Workers, retry, work};

const KEYS: [&str; 21] = [
    "name", "run", "shell", "pipe", "serve", "python", "fetch", "resize", "put", "to", "workers",
    "queue", "timeout", "grace", "retry", "stdin", "ordered", "batch", "cwd", "env", "isolate",
];

/// What of a stage decides what it makes of an item.
const DEFINING: [&str; 13] = [
    "run", "shell", "pipe", "serve", "python", "fetch", "resize", "put", "to", "stdin", "batch",
    "cwd", "env",
];

/// The most workers of a stage: one is a task, a thread or a process.
const MOST_WORKERS: u64 = 1_000_000;

/// The greatest capacity of a queue.
const MOST_QUEUED: u64 = 1_000_000_000;

/// How long a job may take to end when it is asked to, unless the stage says.
pub(crate) const GRACE: Duration = Duration::from_secs(5);

/// The stage's name, if it has a proper one.
pub(super) fn name_of(table: &Table<'_>) -> Option<String> {
    table.get("name")?.string().ok().map(str::to_owned)
}

pub(super) fn read(
    table: &Table<'_>,
    scope: &Scope<'_>,
    place: impl Fn(Span) -> Place,
) -> Result<Stage, Fault> {
    let mut table = table.clone();
    if let Some(name) = name_of(&table).filter(|name| !name.is_empty()) {
        table.what = format!("stage `{name}`");
    }
    table.check_keys(&KEYS)?;
    let name_value = table.require("name", "give each stage a name: `name = \"...\"`")?;
    let name = name_value.filled_string()?.to_owned();
    check_name(&name, &name_value)?;
    let kind = work::kind(&table)?;
    let to = table.get("to").map(|to| read_to(&to, scope)).transpose()?;
    let work = work::read(&table, kind, scope, to.as_ref())?;
    check_fit(&table, &work)?;

    let get_boolean = |key| table.get(key).map_or(Ok(false), |value: Value<'_>| value.boolean());
    let definition = DEFINING
        .iter()
        .filter_map(|key| Some(format!("{key}={}\n", table.get(key)?.canonical())))
        .collect();
    Ok(Stage {
        to,
        workers: table.get("workers").map_or(Ok(Workers::Auto), |value| workers(&value))?,
        queue: table.get("queue").map(|queue| count(&queue, MOST_QUEUED)).transpose()?,
        timeout: table.get("timeout").map(|timeout| positive(&timeout)).transpose()?,
        grace: table.get("grace").map_or(Ok(GRACE), |grace| grace.duration())?,
        retry: table
            .get("retry")
            .map(|value| retry::retry(&value))
            .transpose()?
            .unwrap_or_default(),
        stdin: get_boolean("stdin")?,
        ordered: get_boolean("ordered")?,
        batch: table.get("batch").map(|value| retry::batch(&value)).transpose()?,
        cwd: table.get("cwd").map(|cwd| Ok(PathBuf::from(cwd.filled_string()?))).transpose()?,
        env: table.get("env").map_or(Ok(Vec::new()), |env| read_env(&env))?,
        isolation: table.get("isolate").map(|value| isolation(&value)).transpose()?,
        definition,
        place: place(name_value.span()),
        work,
        name,
    })
}

fn check_name(name: &str, value: &Value<'_>) -> Result<(), Fault> {
    if is_reserved(name) {
        return Err(value
            .fault(format!("a stage cannot be called `{name}`"))
            .hint(format!("`{{{name}}}` means something else already")));
    }
    if name.contains(['{', '}']) || name.chars().any(char::is_control) {
        return Err(value.fault("a stage's name cannot hold braces or control characters"));
    }
    Ok(())
}

fn read_to(value: &Value<'_>, scope: &Scope<'_>) -> Result<Template, Fault> {
    let to = template(value, scope, Out::Nothing)?;
    if to.literal_suffix().ends_with(b"/") {
        return Err(value.fault(format!("{} names a folder, and not a file", value.what())));
    }
    Ok(to)
}

fn workers(value: &Value<'_>) -> Result<Workers, Fault> {
    if value.is_table() {
        let table = value.table()?;
        table.check_keys(&["max"])?;
        let most = table.require("max", "write `workers = { max = 8 }`")?;
        return count(&most, MOST_WORKERS).map(Workers::UpTo);
    }
    if !value.is_string() {
        return count(value, MOST_WORKERS).map(Workers::Fixed);
    }
    match value.string()? {
        "auto" => Ok(Workers::Auto),
        other => Err(value
            .fault(format!("{} cannot be `{other}`", value.what()))
            .hint("write a number, or `\"auto\"`".to_owned())),
    }
}

fn count(value: &Value<'_>, most: u64) -> Result<usize, Fault> {
    Ok(usize::try_from(value.integer(1..=most)?).unwrap_or(usize::MAX))
}

fn positive(value: &Value<'_>) -> Result<Duration, Fault> {
    match value.duration()? {
        Duration::ZERO => Err(value
            .fault(format!("{} cannot be 0", value.what()))
            .hint("leave it out for no limit".to_owned())),
        duration => Ok(duration),
    }
}

fn isolation(value: &Value<'_>) -> Result<Isolation, Fault> {
    match value.string()? {
        "pid" => Ok(Isolation::Pid),
        other => Err(value
            .fault(format!("{} cannot be `{other}`", value.what()))
            .hint("write `\"pid\"`, or leave it out".to_owned())),
    }
}

fn read_env(value: &Value<'_>) -> Result<Vec<(String, String)>, Fault> {
    let mut env = Vec::new();
    for (name, value) in value.table()?.entries() {
        if name.is_empty() || name.contains(['=', '\0']) {
            let message = format!("no variable can be called `{name}`");
            return Err(Fault::at(value.key_span(), message));
        }
        let text = value.string()?;
        if text.contains('\0') {
            return Err(value.fault(format!("{} holds a NUL", value.what())));
        }
        env.push((name.to_owned(), text.to_owned()));
    }
    Ok(env)
}

/// Refuses the keys that mean nothing with this kind of work.
fn check_fit(table: &Table<'_>, work: &Work) -> Result<(), Fault> {
    let is_command = work.is_command();
    let is_process = is_command || matches!(work, Work::Serve(_) | Work::Python(_));
    let key = work.key();
    for (unfit, fits, with) in [
        ("stdin", is_command, "`run`, `shell` and `pipe`"),
        ("batch", is_command, "`run`, `shell` and `pipe`"),
        ("isolate", is_command, "`run`, `shell` and `pipe`"),
        ("cwd", is_process, "commands and worker processes"),
        ("env", is_process, "commands and worker processes"),
        ("to", !matches!(work, Work::Put(_)), "work that makes a file"),
    ] {
        if let Some(value) = table.get(unfit).filter(|_| !fits) {
            let message = format!("`{unfit}` means nothing with `{key}`");
            return Err(Fault::at(value.key_span(), message).hint(format!("it goes with {with}")));
        }
    }
    Ok(())
}
