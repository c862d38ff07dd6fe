//! What placeholders stand for, and putting it in their places.
//!
//! A placeholder can stand for several values: those of a batch, of `-n`, or
//! of several sources. They are joined by blanks, but where a placeholder is
//! a whole word each becomes a word.

use std::borrow::Cow;
use std::fmt;

use super::{Piece, Placeholder, Template, path};

/// The longest value, in bytes, that a placeholder takes.
pub(crate) const LONGEST_VALUE: usize = 16 << 20;

/// Gives what a stage or a field of this name holds, once for each item of a batch.
///
/// The error is the reason in words, as in "line 3 has no field `url`".
pub(crate) type Lookup<'a> = dyn Fn(&str) -> Result<Vec<Cow<'a, [u8]>>, String> + 'a;

/// What the placeholders of one job stand for.
#[derive(Clone, Copy)]
pub(crate) struct Values<'a> {
    /// `{}` and its parts: more than one with a batch, `-n` or several sources.
    pub(crate) values: &'a [&'a [u8]],
    /// `{in}`
    pub(crate) inputs: &'a [&'a [u8]],
    /// `{1}`, `{2}`
    pub(crate) sources: &'a [&'a [u8]],
    /// `{#}`
    pub(crate) seq: u64,
    /// `{%}`
    pub(crate) slot: usize,
    /// `{out}`
    pub(crate) out: Option<&'a [u8]>,
    /// `{NAME}`
    pub(crate) names: Option<&'a Lookup<'a>>,
}

impl<'a> Values<'a> {
    /// Values of a first stage, for item number 1 in slot 1.
    pub(crate) fn new(values: &'a [&'a [u8]]) -> Self {
        Self { values, inputs: values, sources: values, seq: 1, slot: 1, out: None, names: None }
    }

    /// What `placeholder` stands for: one value or more, or none of an empty batch.
    pub(super) fn of(&self, kind: &Placeholder) -> Result<Vec<Cow<'a, [u8]>>, ExpandError> {
        let parts = |part: fn(&[u8]) -> &[u8]| {
            self.values.iter().map(|value| Cow::Borrowed(part(value))).collect()
        };
        let values = match kind {
            Placeholder::Value => parts(|value| value),
            Placeholder::WithoutExtension => parts(path::without_extension),
            Placeholder::LastComponent => parts(path::last_component),
            Placeholder::Folder => parts(path::folder),
            Placeholder::Stem => parts(path::stem),
            Placeholder::In => self.inputs.iter().map(|input| Cow::Borrowed(*input)).collect(),
            Placeholder::Seq => vec![Cow::Owned(self.seq.to_string().into_bytes())],
            Placeholder::Slot => vec![Cow::Owned(self.slot.to_string().into_bytes())],
            Placeholder::Source(number) => {
                // A number that no item can have is refused beforehand; the last batch has fewer.
                let source = number.checked_sub(1).and_then(|index| self.sources.get(index));
                source.map(|source| Cow::Borrowed(*source)).into_iter().collect()
            }
            Placeholder::Out => vec![Cow::Borrowed(self.out.ok_or(ExpandError::NoOut)?)],
            Placeholder::Name(name) => match self.names {
                Some(names) => names(name).map_err(ExpandError::NoName)?,
                None => return Err(ExpandError::NoName(format!("there is no `{name}`"))),
            },
        };
        match values.iter().map(|value| value.len()).max() {
            Some(length) if length > LONGEST_VALUE => Err(ExpandError::TooLong(length)),
            _ => Ok(values),
        }
    }
}

/// A template that cannot be expanded for an item: the item's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ExpandError {
    /// An argument would hold a NUL, which no program can be given.
    Nul,
    /// A value is longer than [`LONGEST_VALUE`].
    TooLong(usize),
    /// A stage or a field has no value for this item; the reason in words.
    NoName(String),
    /// `{out}` where no file is made.
    NoOut,
}

impl fmt::Display for ExpandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nul => formatter.write_str("an argument cannot hold a NUL byte"),
            Self::TooLong(length) => {
                write!(formatter, "a value of {length} bytes is over the limit of 16 MiB")
            }
            Self::NoName(reason) => formatter.write_str(reason),
            Self::NoOut => formatter.write_str("`{out}` has no file here"),
        }
    }
}

impl std::error::Error for ExpandError {}

impl Template {
    /// Gives the text with every placeholder replaced, several values joined by blanks.
    ///
    /// # Errors
    ///
    /// When a placeholder has no value for this item, or one too long.
    pub(crate) fn expand(&self, values: &Values<'_>) -> Result<Vec<u8>, ExpandError> {
        self.expand_with(values, |text, value| text.extend_from_slice(value))
    }

    /// As [`expand`](Self::expand), each value put in by `put`.
    pub(super) fn expand_with(
        &self,
        values: &Values<'_>,
        put: impl Fn(&mut Vec<u8>, &[u8]),
    ) -> Result<Vec<u8>, ExpandError> {
        let mut text = Vec::new();
        for piece in self.pieces() {
            match piece {
                Piece::Literal(literal) => text.extend_from_slice(literal),
                Piece::Hole(hole) => put(&mut text, &joined(&values.of(&hole.kind)?)),
            }
        }
        Ok(text)
    }
}

/// The values with blanks between them.
pub(super) fn joined<'v>(values: &'v [Cow<'_, [u8]>]) -> Cow<'v, [u8]> {
    match values {
        [value] => Cow::Borrowed(value),
        _ => Cow::Owned(values.join(&b' ')),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Dialect;
    use super::*;

    fn expand(text: &str, values: &Values<'_>) -> String {
        let template = Template::parse(text.as_bytes(), Dialect::File).unwrap();
        String::from_utf8(template.expand(values).unwrap()).unwrap()
    }

    #[test]
    fn every_placeholder_is_replaced_once() {
        let names = |name: &str| match name {
            "resize" => Ok(vec![Cow::Borrowed(&b"{}{in}"[..])]),
            _ => Err(format!("no `{name}`")),
        };
        let values = Values {
            inputs: &[b"{}"],
            seq: 7,
            slot: 2,
            out: Some(b"o"),
            names: Some(&names),
            ..Values::new(&[b"d/a.b"])
        };
        assert_eq!(
            expand("{}|{in}|{.}|{/}|{//}|{/.}|{#}|{%}|{1}|{out}|{resize}", &values),
            "d/a.b|{}|d/a|a.b|d|a|7|2|d/a.b|o|{}{in}"
        );
    }

    #[test]
    fn several_values_in_a_text_are_joined_by_blanks() {
        let values = Values::new(&[b"a.x", b"b.y"]);
        assert_eq!(expand("<{}><{.}><{2}>", &values), "<a.x b.y><a b><b.y>");
        assert_eq!(expand("<{3}>", &values), "<>");
    }

    #[test]
    fn what_is_not_there_fails_the_item() {
        let template = |text: &str| Template::parse(text.as_bytes(), Dialect::File).unwrap();
        let long = vec![b'x'; LONGEST_VALUE + 1];
        let values = [&long[..]];
        for (text, error) in [
            ("{}", ExpandError::TooLong(LONGEST_VALUE + 1)),
            ("{out}", ExpandError::NoOut),
            ("{x}", ExpandError::NoName("there is no `x`".to_owned())),
        ] {
            let failed = template(text).expand(&Values::new(&values)).unwrap_err();
            assert_eq!(failed, error);
        }
    }

    proptest! {
        #[test]
        fn a_value_goes_through_byte_by_byte(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            let template = Template::parse(b"<{}>", Dialect::File).unwrap();
            let expanded = template.expand(&Values::new(&[&value])).unwrap();
            prop_assert_eq!(&expanded[1..expanded.len() - 1], &value[..]);
        }
    }
}
