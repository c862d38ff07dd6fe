//! The file as a tree in which everything knows its place and what it is called.
//!
//! The getters say what is wrong in the user's words: which key, of which
//! stage, what was expected and what was there.

use std::borrow::Cow;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::message::{Place, Problem, nearest};

use super::duration::{DURATION_HINT, from_seconds, parse_duration};
use super::size;

/// Bytes of the file.
pub(super) type Span = Range<usize>;

/// Something wrong at a place of the file.
#[derive(Debug)]
pub(super) struct Fault {
    span: Option<Span>,
    message: String,
    label: Option<String>,
    hint: Option<String>,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { span: None, message: message.into(), label: None, hint: None }
    }

    pub(super) fn at(span: Span, message: impl Into<String>) -> Self {
        Self { span: Some(span), ..Self::new(message) }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(super) fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(super) fn into_problem(self, file: &str, text: &str) -> Problem {
        let problem = match &self.span {
            Some(span) => Problem::new(self.message).at(Place::find(file, text, span.clone())),
            // The whole file: at least its name is said.
            None => Problem::new(format!("{} (in `{file}`)", self.message)),
        };
        problem.label(self.label).hint(self.hint)
    }
}

/// The whole file.
pub(super) struct Tree<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

impl<'t> Tree<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, Fault> {
        if let Some(at) = size::excess(text) {
            return Err(Fault::at(at..at + 1, "the file has too many keys and values")
                .hint("items belong in a file that `lines`, `jsonl` or `csv` names".to_owned()));
        }
        match DeTable::parse(text) {
            Ok(root) => Ok(Self { text, root }),
            Err(error) => {
                let span = error.span().unwrap_or(0..0);
                let message = match error.message() {
                    "cannot recurse further; max recursion depth met" | "recursion limit" => {
                        "the file nests too deep".to_owned()
                    }
                    message => format!("the file is no TOML: {message}"),
                };
                Err(Fault::at(span, message))
            }
        }
    }

    pub(super) fn root(&'t self) -> Table<'t> {
        let entries = self.root.get_ref();
        Table { text: self.text, entries, span: 0..0, what: "the pipeline file".to_owned() }
    }
}

/// A table of the file.
#[derive(Clone, Debug)]
pub(super) struct Table<'t> {
    text: &'t str,
    entries: &'t DeTable<'t>,
    span: Span,
    /// What the table is called in messages.
    pub(super) what: String,
}

impl<'t> Table<'t> {
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    /// The value of `key`, called by it in messages.
    pub(super) fn get(&self, key: &str) -> Option<Value<'t>> {
        let (name, value) = self.entries.get_key_value(key)?;
        let what = format!("`{key}` of {}", self.what);
        Some(Value { text: self.text, value, key: name.span(), what })
    }

    /// The keys and values, in the order of the keys.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t str, Value<'t>)> {
        self.entries.iter().map(|(key, value)| {
            let what = format!("`{}` of {}", key.get_ref(), self.what);
            (&**key.get_ref(), Value { text: self.text, value, key: key.span(), what })
        })
    }

    /// Refuses the first key that is none of `known`.
    pub(super) fn check_keys(&self, known: &[&'static str]) -> Result<(), Fault> {
        let unknown = self
            .entries
            .keys()
            .filter(|key| !known.contains(&&**key.get_ref()))
            .min_by_key(|key| key.span().start);
        let Some(key) = unknown else { return Ok(()) };
        let hint = match nearest(key.get_ref(), known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys of {} are `{}`", self.what, known.join("`, `")),
        };
        Err(Fault::at(key.span(), format!("unknown key `{}` in {}", key.get_ref(), self.what))
            .hint(hint))
    }

    /// The value of `key`, or a fault that says it is missing.
    pub(super) fn require(&self, key: &str, hint: &str) -> Result<Value<'t>, Fault> {
        self.get(key).ok_or_else(|| {
            Fault::at(self.span(), format!("{} has no `{key}`", self.what)).hint(hint.to_owned())
        })
    }
}

/// A value of the file.
#[derive(Clone, Debug)]
pub(super) struct Value<'t> {
    text: &'t str,
    value: &'t Spanned<DeValue<'t>>,
    key: Span,
    what: String,
}

/// A string of the file, whose parts have places.
#[derive(Clone, Debug)]
pub(super) struct Text<'t> {
    pub(super) text: &'t str,
    pub(super) span: Span,
    /// Where the string's first byte is, if it is spelled without escapes.
    first: Option<usize>,
}

impl Text<'_> {
    /// The place of some bytes of the string, or of all of it.
    pub(super) fn part(&self, part: Option<Span>) -> Span {
        match (self.first, part) {
            (Some(first), Some(part)) => first + part.start..first + part.end,
            _ => self.span.clone(),
        }
    }
}

impl<'t> Value<'t> {
    pub(super) fn span(&self) -> Span {
        self.value.span()
    }

    /// The place of the key before the value.
    pub(super) fn key_span(&self) -> Span {
        self.key.clone()
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// The same value under another name in messages.
    pub(super) fn named(self, what: String) -> Self {
        Self { what, ..self }
    }

    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::at(self.span(), message)
    }

    /// A fault that says what the value must be, and what it is.
    pub(super) fn expected(&self, expected: &str) -> Fault {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fault(format!("{} must be {expected}", self.what)).label(format!("this is {found}"))
    }

    pub(super) fn is_string(&self) -> bool {
        self.value.get_ref().is_str()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }

    pub(super) fn as_array(&self) -> Option<Vec<Self>> {
        let value = |value| Self { value, ..self.clone() };
        Some(self.value.get_ref().as_array()?.iter().map(value).collect())
    }

    pub(super) fn table(&self) -> Result<Table<'t>, Fault> {
        let entries = self.value.get_ref().as_table().ok_or_else(|| self.expected("a table"))?;
        Ok(Table { text: self.text, entries, span: self.span(), what: self.what.clone() })
    }

    pub(super) fn string(&self) -> Result<&'t str, Fault> {
        self.value.get_ref().as_str().ok_or_else(|| self.expected("a string"))
    }

    /// A string that is not empty and has no NUL.
    pub(super) fn filled_string(&self) -> Result<&'t str, Fault> {
        match self.string()? {
            "" => Err(self.fault(format!("{} is empty", self.what))),
            text if text.contains('\0') => Err(self.fault(format!("{} holds a NUL", self.what))),
            text => Ok(text),
        }
    }

    pub(super) fn text(&self) -> Result<Text<'t>, Fault> {
        let text = self.filled_string()?;
        let raw = self.text.get(self.span()).unwrap_or_default();
        // Three quotes or one, and the newline that may follow three, are no part of it.
        let quotes = if raw.starts_with("\"\"\"") || raw.starts_with("'''") { 3 } else { 1 };
        let after = raw.get(quotes..).unwrap_or_default();
        let newline = match quotes {
            3 if after.starts_with("\r\n") => 2,
            3 if after.starts_with('\n') => 1,
            _ => 0,
        };
        let is_plain = after.get(newline..).is_some_and(|rest| rest.starts_with(text));
        let first = is_plain.then(|| self.span().start + quotes + newline);
        Ok(Text { text, span: self.span(), first })
    }

    pub(super) fn boolean(&self) -> Result<bool, Fault> {
        self.value.get_ref().as_bool().ok_or_else(|| self.expected("true or false"))
    }

    /// A whole number in a range.
    pub(super) fn integer(&self, range: std::ops::RangeInclusive<u64>) -> Result<u64, Fault> {
        let Some(integer) = self.value.get_ref().as_integer() else {
            return Err(self.expected("a whole number"));
        };
        let (least, most) = range.into_inner();
        let digits = integer.as_str().replace('_', "");
        // What does not even fit an i128 is out of the range, too.
        match i128::from_str_radix(&digits, integer.radix()).map(u64::try_from) {
            Ok(Ok(number)) if (least..=most).contains(&number) => Ok(number),
            Ok(Ok(number)) if number > most => Err(self
                .fault(format!("{} is too great", self.what))
                .label(format!("at most {most}"))),
            Ok(_) => Err(self.fault(format!("{} must be {least} or more", self.what))),
            Err(_) => Err(self.fault(format!("{} is out of range", self.what))),
        }
    }

    /// A number, whole or not.
    pub(super) fn number(&self) -> Result<f64, Fault> {
        let (digits, radix) = match self.value.get_ref() {
            DeValue::Integer(integer) => (integer.as_str(), integer.radix()),
            DeValue::Float(float) => (float.as_str(), 10),
            _ => return Err(self.expected("a number")),
        };
        let digits: Cow<'_, str> = digits.replace('_', "").into();
        let number = match radix {
            10 => digits.parse().ok(),
            _ => u32::from_str_radix(&digits, radix).ok().map(f64::from),
        };
        number
            .filter(|number: &f64| number.is_finite())
            .ok_or_else(|| self.fault(format!("{} is no number to work with", self.what)))
    }

    /// A string such as `30s`, or a number of seconds.
    pub(super) fn duration(&self) -> Result<Duration, Fault> {
        let hint = || Some(DURATION_HINT.to_owned());
        if self.is_string() {
            return parse_duration(self.string()?)
                .map_err(|reason| self.fault(format!("{}: {reason}", self.what)).hint(hint()));
        }
        if !matches!(self.value.get_ref(), DeValue::Integer(_) | DeValue::Float(_)) {
            return Err(self.expected("a duration").hint(hint()));
        }
        let seconds = self.number()?;
        if seconds < 0.0 {
            return Err(self.fault(format!("{} cannot be negative", self.what)));
        }
        from_seconds(seconds)
            .ok_or_else(|| self.fault(format!("{} is too long a duration", self.what)))
    }

    /// One spelling of the value, whatever the user's blanks, quotes and order of keys.
    pub(super) fn canonical(&self) -> String {
        canonical(self.value.get_ref())
    }
}

// The parser's limit of nesting bounds the recursion.
fn canonical(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => format!("{integer}"),
        DeValue::Float(float) => format!("{float}"),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(datetime) => datetime.to_string(),
        DeValue::Array(array) => {
            let parts: Vec<_> = array.iter().map(|value| canonical(value.get_ref())).collect();
            format!("[{}]", parts.join(","))
        }
        DeValue::Table(table) => {
            let part = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                format!("{:?}={}", key.get_ref(), canonical(value.get_ref()))
            };
            format!("{{{}}}", table.iter().map(part).collect::<Vec<_>>().join(","))
        }
    }
}
