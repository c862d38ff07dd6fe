//! Command words with placeholders, and the arguments they become.

use std::ffi::OsString;
use std::fmt;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt;

use crate::words::{self, SplitError};

use super::{Dialect, ExpandError, Hole, Template, TemplateError, Values};

/// A program and its arguments, with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandTemplate {
    words: Vec<Template>,
    append: bool,
}

/// A command that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandError {
    /// The string cannot be split into words.
    Split(SplitError),
    /// A word is no template; its place is that in the whole string.
    Template(TemplateError),
    /// A word of the command holds a NUL byte.
    Nul,
    /// The program is an empty word.
    NoProgram,
}

impl CommandError {
    /// Where in the command string the error is.
    pub(crate) fn at(&self) -> Option<Range<usize>> {
        match self {
            Self::Split(error) => Some(error.at..error.at + error.length()),
            Self::Template(error) => Some(error.at.clone()),
            Self::Nul | Self::NoProgram => None,
        }
    }

    /// What a user can do, in a pipeline file if `in_file`, else on the command line.
    pub(crate) fn hint(&self, in_file: bool) -> Option<String> {
        match self {
            Self::Split(error) => error.hint(in_file),
            Self::Template(error) => error.hint(),
            Self::Nul | Self::NoProgram => None,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Split(error) => error.fmt(formatter),
            Self::Template(error) => error.fmt(formatter),
            Self::Nul => formatter.write_str("a command cannot hold a NUL byte"),
            Self::NoProgram => formatter.write_str("the command names no program"),
        }
    }
}

impl std::error::Error for CommandError {}

impl CommandTemplate {
    /// Reads a command that is one string, to be split by the quoting rules of a shell.
    ///
    /// The places of the placeholders are those in the whole string.
    ///
    /// # Errors
    ///
    /// See [`CommandError`].
    pub(crate) fn parse_string(command: &[u8], dialect: Dialect<'_>) -> Result<Self, CommandError> {
        let mut templates = Vec::new();
        for word in words::split(command).map_err(CommandError::Split)? {
            let place = |at: &Range<usize>| {
                let first = word.offsets.get(at.start).copied().unwrap_or(word.start);
                let last = at.end.checked_sub(1).and_then(|last| word.offsets.get(last));
                first..last.map_or(first, |last| last + 1)
            };
            let mut template = Template::parse(&word.bytes, dialect).map_err(|mut error| {
                error.at = place(&error.at);
                CommandError::Template(error)
            })?;
            for piece in &mut template.pieces {
                if let super::Piece::Hole(hole) = piece {
                    hole.at = place(&hole.at);
                }
            }
            templates.push(template);
        }
        Self::checked(templates)
    }

    /// Reads a command that is a list of words.
    ///
    /// A lone word with blanks in it is taken as it stands; see
    /// [`parse_arguments`](Self::parse_arguments).
    ///
    /// # Errors
    ///
    /// See [`CommandError`]; places are those inside the word.
    pub(crate) fn parse_words<'w>(
        words: impl IntoIterator<Item = &'w [u8]>,
        dialect: Dialect<'_>,
    ) -> Result<Self, CommandError> {
        let templates = words
            .into_iter()
            .map(|word| Template::parse(word, dialect).map_err(CommandError::Template))
            .collect::<Result<_, _>>()?;
        Self::checked(templates)
    }

    /// Reads the arguments of a command line: a single one with blanks in it is split.
    ///
    /// # Errors
    ///
    /// See [`CommandError`].
    pub(crate) fn parse_arguments(
        arguments: &[&[u8]],
        dialect: Dialect<'_>,
    ) -> Result<Self, CommandError> {
        match arguments {
            [one] if one.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'\n')) => {
                Self::parse_string(one, dialect)
            }
            _ => Self::parse_words(arguments.iter().copied(), dialect),
        }
    }

    fn checked(words: Vec<Template>) -> Result<Self, CommandError> {
        let has_nul = |piece: &super::Piece| matches!(piece, super::Piece::Literal(text) if text.contains(&0));
        if words.iter().any(|word| word.pieces().iter().any(has_nul)) {
            return Err(CommandError::Nul);
        }
        if words.first().is_none_or(|program| program.pieces().is_empty()) {
            return Err(CommandError::NoProgram);
        }
        let append = words.iter().all(|word| word.holes().next().is_none());
        Ok(Self { words, append })
    }

    /// The words, the program first.
    pub(crate) fn words(&self) -> &[Template] {
        &self.words
    }

    /// The placeholders of all words, in order.
    pub(crate) fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.words.iter().flat_map(Template::holes)
    }

    /// Whether the value becomes the last argument: true where there is no placeholder.
    #[cfg(test)]
    pub(crate) fn appends(&self) -> bool {
        self.append
    }

    /// Says that the value never becomes the last argument, since it arrives another way.
    pub(crate) fn never_append(&mut self) {
        self.append = false;
    }

    /// Gives the program and its arguments for one job.
    ///
    /// # Errors
    ///
    /// When a placeholder has no value for this item or one too long, or when
    /// an argument would hold a NUL.
    pub(crate) fn expand(&self, values: &Values<'_>) -> Result<Vec<OsString>, ExpandError> {
        let mut arguments = expand_words(&self.words, values)?;
        if self.append {
            for value in values.of(&super::Placeholder::Value)? {
                arguments.push(argument(value.into_owned())?);
            }
        }
        Ok(arguments)
    }
}

/// Expands each word; one that is a placeholder alone becomes an argument for each value.
fn expand_words(words: &[Template], values: &Values<'_>) -> Result<Vec<OsString>, ExpandError> {
    let mut arguments = Vec::with_capacity(words.len() + values.values.len());
    for word in words {
        match word.pieces() {
            [super::Piece::Hole(hole)] => {
                for value in values.of(&hole.kind)? {
                    arguments.push(argument(value.into_owned())?);
                }
            }
            _ => arguments.push(argument(word.expand(values)?)?),
        }
    }
    Ok(arguments)
}

pub(super) fn argument(bytes: Vec<u8>) -> Result<OsString, ExpandError> {
    match memchr::memchr(0, &bytes) {
        Some(_) => Err(ExpandError::Nul),
        None => Ok(OsString::from_vec(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expand(command: &str, values: &[&[u8]]) -> Vec<String> {
        let template = CommandTemplate::parse_string(command.as_bytes(), Dialect::File).unwrap();
        let arguments = template.expand(&Values::new(values)).unwrap();
        arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect()
    }

    #[test]
    fn without_a_placeholder_the_value_is_the_last_argument() {
        assert_eq!(expand("a b", &[b"x y"]), ["a", "b", "x y"]);
        assert_eq!(expand("a {#}", &[b"x"]), ["a", "1"]);
        assert_eq!(expand("a {{}}", &[b"x"]), ["a", "{}", "x"]);
        assert_eq!(expand("a b", &[b"x", b"y"]), ["a", "b", "x", "y"]);
    }

    #[test]
    fn a_lone_placeholder_becomes_an_argument_for_each_value() {
        assert_eq!(
            expand("a {} 'p {}' {/}", &[b"d/x", b"y"]),
            ["a", "d/x", "y", "p d/x y", "x", "y"]
        );
    }

    #[test]
    fn a_value_is_one_argument_whatever_it_holds() {
        for value in ["", "-rf", "{}", "$(touch P)", "a b\nc", "'", "\""] {
            assert_eq!(expand("a {}", &[value.as_bytes()]), ["a", value]);
            assert_eq!(expand("a 'x{}'", &[value.as_bytes()]), ["a", &format!("x{value}")]);
        }
    }

    #[test]
    fn a_nul_fails_the_item_and_not_the_command() {
        let template = CommandTemplate::parse_string(b"a", Dialect::EACH).unwrap();
        assert_eq!(template.expand(&Values::new(&[b"x\0"])), Err(ExpandError::Nul));
    }

    #[test]
    fn places_are_those_of_the_string() {
        let error = CommandTemplate::parse_string(b"a 'b {'", Dialect::File).unwrap_err();
        assert_eq!(error.at(), Some(5..6));
        let template = CommandTemplate::parse_string(b"a 'b {c}'", Dialect::File).unwrap();
        assert_eq!(template.holes().next().unwrap().at, 5..8);
    }

    #[test]
    fn a_single_argument_with_blanks_is_split_and_several_are_not() {
        let one = CommandTemplate::parse_arguments(&[b"a 'b c'"], Dialect::EACH).unwrap();
        assert_eq!(one.words().len(), 2);
        let two = CommandTemplate::parse_arguments(&[b"a b", b"|"], Dialect::EACH).unwrap();
        assert_eq!(two.words().len(), 2);
        let none = CommandTemplate::parse_arguments(&[b""], Dialect::EACH);
        assert_eq!(none, Err(CommandError::NoProgram));
    }
}
