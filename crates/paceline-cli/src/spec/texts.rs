//! Templates and commands of the file, and whether their placeholders mean something.

use std::{collections::HashMap, path::Path, sync::Arc};

use crate::message::nearest;
use crate::source::{Origin, csv_header};
use crate::template::{
    CommandError, CommandTemplate, Dialect, Hole, Placeholder, ShellTemplate, Template,
    TemplateError, UrlTemplate,
};

use super::tree::{Fault, Span, Value};

/// What a placeholder of a stage can refer to.
pub(super) struct Scope<'s> {
    /// The names of all stages, with their places in the pipeline.
    pub(super) stages: &'s HashMap<String, usize>,
    /// The place of this stage.
    pub(super) position: usize,
    pub(super) fields: &'s Fields,
}

/// Which fields items have.
#[derive(Debug)]
pub(super) enum Fields {
    None,
    /// Each its own, which nobody knows beforehand.
    Any,
    /// Those that the header of a CSV file names.
    Named(Arc<[String]>),
}

impl Fields {
    /// The fields of the items of `source`, in a pipeline file that lies in `folder`.
    pub(super) fn of(source: Option<&Origin>, folder: &Path) -> Self {
        match source {
            Some(Origin::Jsonl(_)) => Self::Any,
            Some(Origin::Csv(from)) => csv_header(from, folder).map_or(Self::Any, Self::Named),
            _ => Self::None,
        }
    }

    fn names(&self) -> &[String] {
        match self {
            Self::None | Self::Any => &[],
            Self::Named(names) => names,
        }
    }
}

/// What `{out}` is in some text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Out {
    Given,
    /// It would be there if the stage had a `to`.
    NeedsTo,
    /// It is nothing here.
    Nothing,
}

pub(super) fn template(value: &Value<'_>, scope: &Scope<'_>, out: Out) -> Result<Template, Fault> {
    let text = value.text()?;
    let template = Template::parse(text.text.as_bytes(), Dialect::File)
        .map_err(|error| unreadable(&error, text.part(Some(error.at.clone()))))?;
    for hole in template.holes() {
        check(hole, text.part(Some(hole.at.clone())), scope, out)?;
    }
    Ok(template)
}

pub(super) fn url(
    value: &Value<'_>,
    scope: &Scope<'_>,
    schemes: &[&'static str],
) -> Result<UrlTemplate, Fault> {
    let url = UrlTemplate(template(value, scope, Out::Nothing)?);
    let hint = format!("the URLs that it knows begin with `{}:`", schemes.join(":`, `"));
    match url.scheme() {
        Some(scheme) if scheme.is_empty() => {
            Err(value.fault(format!("{} is no whole URL", value.what())).hint(hint))
        }
        Some(scheme) if !schemes.contains(&&*scheme.to_ascii_lowercase()) => Err(value
            .fault(format!("{} has the unknown scheme `{scheme}`", value.what()))
            .hint(hint)),
        _ => Ok(url),
    }
}

/// A command: a string to be split, or a list of words.
pub(super) fn command(
    value: &Value<'_>,
    scope: &Scope<'_>,
    out: Out,
) -> Result<CommandTemplate, Fault> {
    let Some(list) = value.as_array() else {
        if !value.is_string() {
            return Err(value.expected("a string or a list of words"));
        }
        let text = value.text()?;
        let command = CommandTemplate::parse_string(text.text.as_bytes(), Dialect::File)
            .map_err(|error| bad_command(&error, text.part(error.at())))?;
        for hole in command.holes() {
            check(hole, text.part(Some(hole.at.clone())), scope, out)?;
        }
        return Ok(command);
    };
    let mut words = Vec::with_capacity(list.len());
    for word in &list {
        let word = word.clone().named(format!("a word of {}", value.what()));
        let text = word.string()?;
        // An empty word is an argument as any other.
        if !text.is_empty() {
            template(&word, scope, out)?;
        }
        words.push(text.as_bytes());
    }
    CommandTemplate::parse_words(words, Dialect::File)
        .map_err(|error| bad_command(&error, value.span()))
}

pub(super) fn script(
    value: &Value<'_>,
    scope: &Scope<'_>,
    out: Out,
) -> Result<ShellTemplate, Fault> {
    let text = value.text()?;
    let script = ShellTemplate::parse(text.text.as_bytes(), Dialect::File)
        .map_err(|error| unreadable(&error, text.part(Some(error.at.clone()))))?;
    for hole in script.holes() {
        check(hole, text.part(Some(hole.at.clone())), scope, out)?;
    }
    Ok(script)
}

/// The words of a command that is started once, and so knows no item.
pub(super) fn fixed_command(value: &Value<'_>, scope: &Scope<'_>) -> Result<Vec<Vec<u8>>, Fault> {
    let command = command(value, scope, Out::Nothing)?;
    if command.holes().next().is_some() {
        return Err(value
            .fault(format!("{} cannot hold a placeholder", value.what()))
            .hint("its workers are started once and get the items later".to_owned()));
    }
    Ok(command.words().iter().map(|word| word.literal_prefix().to_vec()).collect())
}

fn unreadable(error: &TemplateError, span: Span) -> Fault {
    Fault::at(span, error.to_string()).hint(error.hint())
}

fn bad_command(error: &CommandError, span: Span) -> Fault {
    Fault::at(span, error.to_string()).hint(error.hint(true))
}

fn check(hole: &Hole, span: Span, scope: &Scope<'_>, out: Out) -> Result<(), Fault> {
    match &hole.kind {
        Placeholder::Out if out == Out::NeedsTo => {
            Err(Fault::at(span, "`{out}` is there only in a stage with `to`")
                .hint("add `to = \"...\"`: the file that `{out}` becomes".to_owned()))
        }
        Placeholder::Out if out == Out::Nothing => {
            Err(Fault::at(span, "`{out}` has no meaning here")
                .hint("it stands in the command of a stage with `to`".to_owned()))
        }
        Placeholder::Source(number) if *number > 1 => {
            Err(Fault::at(span, format!("there is no source {number}: a pipeline file has one"))
                .hint("`{1}` is the item".to_owned()))
        }
        Placeholder::Name(name) => check_name(name, span, scope),
        _ => Ok(()),
    }
}

fn check_name(name: &str, span: Span, scope: &Scope<'_>) -> Result<(), Fault> {
    let position = scope.stages.get(name).copied();
    let is_field = match scope.fields {
        Fields::None => false,
        Fields::Any => true,
        Fields::Named(names) => names.iter().any(|known| known == name),
    };
    if is_field || position.is_some_and(|position| position < scope.position) {
        return Ok(());
    }
    if let Some(position) = position {
        let relation =
            if position == scope.position { "this stage itself" } else { "a later stage" };
        return Err(Fault::at(span, format!("`{{{name}}}` is {relation}"))
            .hint("a placeholder names a stage before its own".to_owned()));
    }
    let earlier = scope.stages.iter().filter(|(_, position)| **position < scope.position);
    let fields = scope.fields.names().iter().map(String::as_str);
    let mut known: Vec<_> =
        earlier.map(|(name, _)| name.as_str()).chain(fields).chain(["in", "out"]).collect();
    known.sort_unstable();
    let hint = match (nearest(name, known), scope.fields.names()) {
        (Some(near), _) => format!("did you mean `{{{near}}}`?"),
        (None, [_, ..]) => format!(
            "it is neither an earlier stage nor one of the fields that the header names: `{}`",
            scope.fields.names().join("`, `")
        ),
        (None, []) => {
            "a name is that of an earlier stage, or of a field where the source is `jsonl` \
                 or `csv`; write `{{` and `}}` for braces that are text"
                .to_owned()
        }
    };
    Err(Fault::at(span, format!("unknown placeholder `{{{name}}}`")).hint(hint))
}
