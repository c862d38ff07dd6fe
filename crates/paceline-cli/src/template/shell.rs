//! Shell scripts with placeholders, whose values never become code.
//!
//! No value is put into the script. Values are positional parameters of the
//! shell, and each placeholder becomes a reference to one, quoted as its
//! surroundings ask: `"${1}"`, inside double quotes `${1}`, inside single
//! quotes `'"${1}"'`. [`scan`] finds out which; if it were wrong, a value could
//! be split or come out as `${1}`, but could not run.
//!
//! Not here: what a command does with its arguments, as `eval` does.

mod scan;
#[cfg(test)]
mod tests;

use std::ffi::OsString;

use super::expand::{ExpandError, Values};
use super::words::argument;
use super::{Dialect, Hole, Placeholder, TemplateError};

/// A script for `sh -c` with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShellTemplate {
    parts: Vec<Part>,
    passes_value: bool,
}

/// A part of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Hole(Hole, Quoting),
}

/// What surrounds a placeholder in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quoting {
    /// A word of its own, so that several values become several words.
    Alone,
    /// A part of a word outside quotes.
    Bare,
    Double,
    Single,
}

impl ShellTemplate {
    /// Reads a script.
    ///
    /// # Errors
    ///
    /// As for other templates, and where a placeholder stands in backquotes,
    /// `$((...))`, a here-document or another place that has no safe quoting,
    /// and where the script ends inside a quote.
    pub(crate) fn parse(script: &[u8], dialect: Dialect<'_>) -> Result<Self, TemplateError> {
        Ok(Self { parts: scan::scan(script, dialect)?, passes_value: true })
    }

    /// The placeholders, in order.
    pub(crate) fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.parts.iter().filter_map(|part| match part {
            Part::Hole(hole, _) => Some(hole),
            Part::Text(_) => None,
        })
    }

    /// Says that `$1` holds the value only if a `{}` asks for it, since the
    /// value arrives on standard input and may be too long for an argument.
    pub(crate) fn never_append(&mut self) {
        self.passes_value = false;
    }

    /// Gives the whole command for one job: `sh -c SCRIPT sh VALUE...`.
    ///
    /// # Errors
    ///
    /// When a placeholder has no value for this item or one too long, or when
    /// an argument would hold a NUL.
    pub(crate) fn expand(&self, values: &Values<'_>) -> Result<Vec<OsString>, ExpandError> {
        let mut script = Vec::new();
        let mut parameters = Parameters::default();
        if self.passes_value || self.holes().any(|hole| hole.kind == Placeholder::Value) {
            // First of all, so that `$1` is the value.
            parameters.numbers(&Placeholder::Value, values)?;
        }
        for part in &self.parts {
            match part {
                Part::Text(text) => script.extend_from_slice(text),
                Part::Hole(hole, quoting) => {
                    let numbers = parameters.numbers(&hole.kind, values)?;
                    refer(&mut script, numbers, *quoting);
                }
            }
        }
        let mut command = vec!["sh".into(), "-c".into(), argument(script)?, "sh".into()];
        command.append(&mut parameters.arguments);
        Ok(command)
    }
}

/// The positional parameters of one job, each placeholder's values once.
#[derive(Default)]
struct Parameters<'t> {
    arguments: Vec<OsString>,
    known: Vec<(&'t Placeholder, std::ops::Range<usize>)>,
}

impl<'t> Parameters<'t> {
    /// Gives the numbers of the parameters that hold what `kind` stands for.
    fn numbers(
        &mut self,
        kind: &'t Placeholder,
        values: &Values<'_>,
    ) -> Result<std::ops::Range<usize>, ExpandError> {
        if let Some((_, numbers)) = self.known.iter().find(|(known, _)| *known == kind) {
            return Ok(numbers.clone());
        }
        let first = self.arguments.len() + 1;
        for value in values.of(kind)? {
            self.arguments.push(argument(value.into_owned())?);
        }
        let numbers = first..self.arguments.len() + 1;
        self.known.push((kind, numbers.clone()));
        Ok(numbers)
    }
}

/// Writes references to the parameters, for where they stand.
fn refer(script: &mut Vec<u8>, numbers: std::ops::Range<usize>, quoting: Quoting) {
    let references: Vec<_> = numbers.map(|number| format!("${{{number}}}")).collect();
    let text = match quoting {
        Quoting::Alone if references.is_empty() => String::new(),
        Quoting::Alone => format!("\"{}\"", references.join("\" \"")),
        Quoting::Bare => format!("\"{}\"", references.join(" ")),
        Quoting::Double => references.join(" "),
        Quoting::Single => format!("'\"{}\"'", references.join(" ")),
    };
    script.extend_from_slice(text.as_bytes());
}
