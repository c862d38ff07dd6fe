//! The `[source]` of the file.

use crate::source::{Location, Origin, check_pattern};
use crate::words;

use super::tree::{Fault, Span, Value};

const KINDS: [&str; 6] = ["glob", "lines", "jsonl", "csv", "values", "command"];
const KEYS: [&str; 7] = ["glob", "lines", "jsonl", "csv", "values", "command", "null"];

pub(super) fn read(value: &Value<'_>) -> Result<Origin, Fault> {
    let table = value.clone().named("the source".to_owned()).table()?;
    table.check_keys(&KEYS)?;
    let mut found: Vec<_> =
        KINDS.iter().filter_map(|kind| Some((*kind, table.get(kind)?))).collect();
    found.sort_by_key(|(_, value)| value.key_span().start);
    let choice = || format!("a source has exactly one of `{}`", KINDS.join("`, `"));
    let (kind, value) = match &found[..] {
        [one] => one,
        [] => return Err(Fault::at(table.span(), "the source says nothing to read").hint(choice())),
        [(first, _), (second, value), ..] => {
            let message = format!("the source has both `{first}` and `{second}`");
            return Err(Fault::at(value.key_span(), message).hint(choice()));
        }
    };
    let null = table.get("null");
    if let Some(null) = null.as_ref().filter(|_| !matches!(*kind, "lines" | "command")) {
        return Err(Fault::at(null.key_span(), format!("`null` means nothing with `{kind}`"))
            .hint("it goes with `lines` and `command`".to_owned()));
    }
    let null = null.map_or(Ok(false), |null| null.boolean())?;
    Ok(match *kind {
        "glob" => Origin::Glob(pattern(value)?),
        "lines" => Origin::Lines { from: location(value)?, null },
        "jsonl" => Origin::Jsonl(location(value)?),
        "csv" => Origin::Csv(location(value)?),
        "values" => Origin::Values(values(value)?),
        _ => Origin::Command { words: command(value)?, null },
    })
}

/// Where the file says what is read, for what goes wrong with it later.
pub(super) fn span(value: &Value<'_>) -> Span {
    let table = value.clone().table().ok();
    let said = table.and_then(|table| KINDS.iter().find_map(|kind| Some(table.get(kind)?.span())));
    said.unwrap_or_else(|| value.span())
}

fn pattern(value: &Value<'_>) -> Result<String, Fault> {
    let pattern = value.filled_string()?;
    check_pattern(pattern)
        .map_err(|reason| value.fault(format!("{} is no pattern: {reason}", value.what())))?;
    Ok(pattern.to_owned())
}

fn location(value: &Value<'_>) -> Result<Location, Fault> {
    Ok(match value.filled_string()? {
        "-" => Location::Stdin,
        path => Location::File(path.into()),
    })
}

fn values(value: &Value<'_>) -> Result<Vec<Vec<u8>>, Fault> {
    let Some(list) = value.as_array() else {
        return Err(value.fault("`values` must be a list of strings"));
    };
    let text = |value: Value<'_>| {
        let value = value.named("each of `values`".to_owned());
        Ok(value.string()?.as_bytes().to_vec())
    };
    list.into_iter().map(text).collect()
}

/// The source's command: no item is there yet, so braces are text.
fn command(value: &Value<'_>) -> Result<Vec<Vec<u8>>, Fault> {
    let words: Vec<Vec<u8>> = match value.as_array() {
        Some(list) => {
            let word = |word: Value<'_>| {
                let word = word.named("a word of the source's command".to_owned());
                Ok(word.string()?.as_bytes().to_vec())
            };
            list.into_iter().map(word).collect::<Result<_, _>>()?
        }
        None => {
            let text = value.text()?;
            let words = words::split(text.text.as_bytes()).map_err(|error| {
                let place = error.at..error.at + error.length();
                Fault::at(text.part(Some(place)), error.to_string()).hint(error.hint(true))
            })?;
            words.into_iter().map(|word| word.bytes).collect()
        }
    };
    if words.first().is_none_or(Vec::is_empty) {
        return Err(value.fault("the source's command names no program"));
    }
    if words.iter().any(|word| word.contains(&0)) {
        return Err(value.fault("the source's command holds a NUL"));
    }
    Ok(words)
}
