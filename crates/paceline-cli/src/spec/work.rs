//! The work of a stage: exactly one of eight kinds.

use crate::template::{Piece, Template};

use super::texts::{self, Out, Scope};
use super::tree::{Fault, Table, Value};
use super::{Framing, Put, Python, Serve, Work};

const KINDS: [&str; 8] = ["run", "shell", "pipe", "serve", "python", "fetch", "resize", "put"];
const FETCHED: [&str; 3] = ["https", "http", "file"];
const PUT: [&str; 6] = ["file", "s3", "gs", "az", "https", "http"];
const IMAGES: [&str; 4] = ["jpg", "jpeg", "png", "webp"];

/// Finds the one kind of work that a stage has.
pub(super) fn kind(table: &Table<'_>) -> Result<&'static str, Fault> {
    let mut found: Vec<_> =
        KINDS.iter().filter_map(|kind| Some((*kind, table.get(kind)?.key_span()))).collect();
    found.sort_by_key(|(_, span)| span.start);
    let choice = || format!("a stage has exactly one of `{}`", KINDS.join("`, `"));
    match &found[..] {
        [(kind, _)] => Ok(kind),
        [] => Err(Fault::at(table.span(), format!("{} has no work", table.what)).hint(choice())),
        [(first, _), (second, span), ..] => {
            let message = format!("{} has both `{first}` and `{second}`", table.what);
            Err(Fault::at(span.clone(), message).hint(choice()))
        }
    }
}

/// Reads the work of `kind`, which the table has.
pub(super) fn read(
    table: &Table<'_>,
    kind: &'static str,
    scope: &Scope<'_>,
    to: Option<&Template>,
) -> Result<Work, Fault> {
    let value = &table.require(kind, "")?;
    let out = if to.is_some() { Out::Given } else { Out::NeedsTo };
    let stdin = table.get("stdin").map_or(Ok(false), |value| value.boolean())?;
    Ok(match kind {
        "run" => {
            let mut command = texts::command(value, scope, out)?;
            if stdin {
                command.never_append();
            }
            Work::Run(command)
        }
        "shell" => {
            let mut script = texts::script(value, scope, out)?;
            if stdin {
                script.never_append();
            }
            Work::Shell(script)
        }
        "pipe" => Work::Pipe(pipe(value, scope, out, stdin)?),
        "serve" => Work::Serve(serve(value, scope)?),
        "python" => Work::Python(python(value)?),
        "fetch" => {
            let url = texts::url(value, scope, &FETCHED)?;
            if to.is_none() {
                return Err(Fault::at(value.key_span(), format!("{} needs `to`", value.what()))
                    .hint("say which file it fetches to: `to = \"work/{/}\"`".to_owned()));
            }
            Work::Fetch(url)
        }
        "resize" => resize(value, table, to)?,
        _ => Work::Put(put(value, scope)?),
    })
}

fn pipe(
    value: &Value<'_>,
    scope: &Scope<'_>,
    out: Out,
    stdin: bool,
) -> Result<Vec<crate::template::CommandTemplate>, Fault> {
    let hint = || "write `pipe = [\"first command\", \"second command\"]`".to_owned();
    let Some(list) = value.as_array() else {
        return Err(value
            .fault(format!("{} must be a list of commands", value.what()))
            .hint(hint()));
    };
    let mut commands = Vec::with_capacity(list.len());
    for command in list {
        let command = command.named(format!("a command of {}", value.what()));
        commands.push(texts::command(&command, scope, out)?);
    }
    // The value is appended once if at all: to the command at the beginning of the pipe.
    let is_named = commands.iter().any(|command| command.holes().next().is_some());
    for (index, command) in commands.iter_mut().enumerate() {
        if is_named || stdin || index > 0 {
            command.never_append();
        }
    }
    if commands.is_empty() {
        return Err(value.fault(format!("{} has no command", value.what())).hint(hint()));
    }
    Ok(commands)
}

fn serve(value: &Value<'_>, scope: &Scope<'_>) -> Result<Serve, Fault> {
    if !value.is_table() {
        let command = texts::fixed_command(value, scope)?;
        return Ok(Serve { command, framing: Framing::Lines, max_items: None });
    }
    let table = value.table()?;
    table.check_keys(&["command", "framing", "max_items"])?;
    let command = table.require("command", "write `serve = { command = \"...\" }`")?;
    let framing = match table.get("framing") {
        None => Framing::Lines,
        Some(framing) => match framing.string()? {
            "lines" => Framing::Lines,
            "json" => Framing::Json,
            other => {
                return Err(framing
                    .fault(format!("{} cannot be `{other}`", framing.what()))
                    .hint("write `\"lines\"` or `\"json\"`".to_owned()));
            }
        },
    };
    let command = texts::fixed_command(&command, scope)?;
    Ok(Serve { command, framing, max_items: max_items(&table)? })
}

fn python(value: &Value<'_>) -> Result<Python, Fault> {
    let (function, interpreter, max_items) = if value.is_table() {
        let table = value.table()?;
        table.check_keys(&["function", "interpreter", "max_items"])?;
        let function = table.require("function", "write `function = \"module:function\"`")?;
        let interpreter = match table.get("interpreter") {
            Some(interpreter) => interpreter.filled_string()?.to_owned(),
            None => Python::INTERPRETER.to_owned(),
        };
        (function, interpreter, max_items(&table)?)
    } else {
        (value.clone(), Python::INTERPRETER.to_owned(), None)
    };
    let is_path = |path: &str| {
        path.split('.').all(|name| {
            !name.is_empty()
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && name.chars().all(|c| c == '_' || c.is_alphanumeric())
        })
    };
    match function.filled_string()?.split_once(':') {
        Some((module, name)) if is_path(module) && is_path(name) => Ok(Python {
            module: module.to_owned(),
            function: name.to_owned(),
            interpreter,
            max_items,
        }),
        _ => Err(function
            .fault(format!("{} names no function", function.what()))
            .hint("write `\"module:function\"`".to_owned())),
    }
}

fn max_items(table: &Table<'_>) -> Result<Option<u64>, Fault> {
    table.get("max_items").map(|value| value.integer(1..=u64::from(u32::MAX))).transpose()
}

fn resize(value: &Value<'_>, table: &Table<'_>, to: Option<&Template>) -> Result<Work, Fault> {
    let sides = value.table()?;
    sides.check_keys(&["width", "height"])?;
    let side = |key| {
        let side = sides.get(key).map(|side| side.integer(1..=65_535)).transpose()?;
        Ok(side.and_then(|side| u32::try_from(side).ok()))
    };
    let (width, height) = (side("width")?, side("height")?);
    if width.is_none() && height.is_none() {
        return Err(value
            .fault(format!("{} has neither `width` nor `height`", value.what()))
            .hint("one of them is enough: `resize = { width = 640 }`".to_owned()));
    }
    let (Some(to), Some(to_value)) = (to, table.get("to")) else {
        return Err(Fault::at(value.key_span(), format!("{} needs `to`", value.what()))
            .hint("say which file it makes: `to = \"thumbs/{/.}.jpg\"`".to_owned()));
    };
    check_image(to).map_err(|ending| {
        to_value
            .fault(format!("{} has {ending}", to_value.what()))
            .hint(format!("the ending chooses the format: `.{}`", IMAGES.join("`, `.")))
    })?;
    Ok(Work::Resize { width, height })
}

/// Refuses a `to` whose ending is known and is no format of images.
fn check_image(to: &Template) -> Result<(), String> {
    let Some(Piece::Literal(tail)) = to.pieces().last() else {
        // The ending comes from the item, and is looked at with it.
        return Ok(());
    };
    let name = tail.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let Some(dot) = memchr::memrchr(b'.', name) else {
        return Err("no ending that is known".to_owned());
    };
    let ending = String::from_utf8_lossy(&name[dot + 1..]).to_ascii_lowercase();
    if IMAGES.contains(&&*ending) { Ok(()) } else { Err(format!("the unknown ending `.{ending}`")) }
}

fn put(value: &Value<'_>, scope: &Scope<'_>) -> Result<Put, Fault> {
    if !value.is_table() {
        return Ok(Put { from: None, url: texts::url(value, scope, &PUT)? });
    }
    let table = value.table()?;
    table.check_keys(&["from", "url"])?;
    let url = table.require("url", "write `put = { from = \"{stage}\", url = \"...\" }`")?;
    let url = texts::url(&url, scope, &PUT)?;
    let from = table.get("from");
    let from = from.map(|from| texts::template(&from, scope, Out::Nothing)).transpose()?;
    Ok(Put { from, url })
}
