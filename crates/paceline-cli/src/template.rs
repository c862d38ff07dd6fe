//! Templates: text with placeholders, over bytes, expanded in a single pass.
//!
//! One syntax has two dialects. In a pipeline file every brace counts and a
//! wrong one is an error; in `paceline each` only the known placeholders do,
//! and other braces are text. What a placeholder stands for is asked of
//! [`Values`] when the template is expanded, and never looked into again.
//!
//! Not here: whether a name in braces exists, which the spec knows.

pub(crate) mod expand;
mod path;
mod shell;
mod url;
mod words;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub(crate) use expand::{ExpandError, Values};
pub(crate) use shell::ShellTemplate;
pub(crate) use url::UrlTemplate;
pub(crate) use words::{CommandError, CommandTemplate};

/// How braces are read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialect<'r> {
    /// Of a pipeline file: unknown names are names, `{{` and `}}` are braces.
    File,
    /// Of `paceline each`: other braces are text. `replace` is what stands
    /// for the value: `{}`, or the STR of `-I STR`, which is not empty.
    Each { replace: &'r [u8] },
}

impl Dialect<'_> {
    /// The dialect of `paceline each` without `-I`.
    #[cfg(test)]
    pub(crate) const EACH: Self = Self::Each { replace: b"{}" };
}

/// What a placeholder stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Placeholder {
    /// `{}`
    Value,
    /// `{in}`
    In,
    /// `{.}`
    WithoutExtension,
    /// `{/}`
    LastComponent,
    /// `{//}`
    Folder,
    /// `{/.}`
    Stem,
    /// `{#}`
    Seq,
    /// `{%}`
    Slot,
    /// `{1}`, `{2}`: counts from 1.
    Source(usize),
    /// `{out}`
    Out,
    /// `{NAME}`: an earlier stage or a field of the item.
    Name(Arc<str>),
}

/// A placeholder in a template, and where in its text it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) kind: Placeholder,
    pub(crate) at: Range<usize>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Literal(Vec<u8>),
    Hole(Hole),
}

/// A text with placeholders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template {
    pieces: Vec<Piece>,
}

/// A text that is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TemplateError {
    pub(crate) reason: TemplateReason,
    /// Where in the text, in bytes.
    pub(crate) at: Range<usize>,
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TemplateReason {
    /// A `{` without its `}`.
    NeverClosed,
    /// A `}` without its `{`.
    NeverOpened,
    /// A name that no stage and no field can have.
    BadName,
    /// A placeholder stands where a shell offers no safe quoting.
    Unsafe(&'static str),
    /// The script ends inside this.
    OpenShell(&'static str),
}

impl TemplateError {
    /// What a user can do.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self.reason {
            TemplateReason::NeverClosed => "write `{{` for a brace that is text".to_owned(),
            TemplateReason::NeverOpened => "write `}}` for a brace that is text".to_owned(),
            TemplateReason::BadName => "write `{{` and `}}` for braces that are text".to_owned(),
            TemplateReason::Unsafe("backquotes") => "use $(...) in place of `...`".to_owned(),
            TemplateReason::Unsafe(_) => {
                "put it in a variable first: v={}; then use \"$v\"".to_owned()
            }
            TemplateReason::OpenShell(_) => return None,
        })
    }
}

impl fmt::Display for TemplateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            TemplateReason::NeverClosed => formatter.write_str("a `{` is never closed"),
            TemplateReason::NeverOpened => formatter.write_str("a `}` has no `{` before it"),
            TemplateReason::BadName => formatter.write_str("this is no placeholder"),
            TemplateReason::Unsafe(place) => {
                write!(formatter, "a placeholder inside {place} cannot be quoted safely")
            }
            TemplateReason::OpenShell(what) => write!(formatter, "the script ends inside {what}"),
        }
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// Reads `text` as a template.
    ///
    /// # Errors
    ///
    /// In the dialect of a pipeline file: a brace without its partner, or a
    /// name that cannot be one. The dialect of `each` takes every text.
    pub(crate) fn parse(text: &[u8], dialect: Dialect<'_>) -> Result<Self, TemplateError> {
        let mut builder = Builder::default();
        let mut at = 0;
        while at < text.len() {
            match token(text, at, dialect)? {
                Token::Hole(hole) => {
                    at = hole.at.end;
                    builder.pieces.push(Piece::Hole(hole));
                }
                Token::Byte { byte, length } => {
                    at += length;
                    builder.byte(byte);
                }
            }
        }
        Ok(Self { pieces: builder.pieces })
    }

    /// The parts, in order; no two literals are neighbours.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The placeholders, in order.
    pub(crate) fn holes(&self) -> impl Iterator<Item = &Hole> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Hole(hole) => Some(hole),
            Piece::Literal(_) => None,
        })
    }

    /// The text before the first placeholder.
    pub(crate) fn literal_prefix(&self) -> &[u8] {
        match self.pieces.first() {
            Some(Piece::Literal(text)) => text,
            _ => b"",
        }
    }

    /// The text after the last placeholder.
    pub(crate) fn literal_suffix(&self) -> &[u8] {
        match self.pieces.last() {
            Some(Piece::Literal(text)) => text,
            _ => b"",
        }
    }

    /// Whether this is one placeholder and nothing else.
    pub(crate) fn is_one_hole(&self) -> bool {
        matches!(self.pieces[..], [Piece::Hole(_)])
    }
}

/// Joins literal bytes between placeholders.
#[derive(Default)]
struct Builder {
    pieces: Vec<Piece>,
}

impl Builder {
    fn byte(&mut self, byte: u8) {
        if let Some(Piece::Literal(text)) = self.pieces.last_mut() {
            text.push(byte);
        } else {
            self.pieces.push(Piece::Literal(vec![byte]));
        }
    }
}

/// What stands at one position of a text.
enum Token {
    Hole(Hole),
    /// `length` bytes of the text that mean `byte`.
    Byte {
        byte: u8,
        length: usize,
    },
}

/// Reads what stands at `at`, which is inside `text`.
fn token(text: &[u8], at: usize, dialect: Dialect<'_>) -> Result<Token, TemplateError> {
    let rest = &text[at..];
    let literal = Token::Byte { byte: rest[0], length: 1 };
    if let Dialect::Each { replace } = dialect {
        if !replace.is_empty() && rest.starts_with(replace) {
            let at = at..at + replace.len();
            return Ok(Token::Hole(Hole { kind: Placeholder::Value, at }));
        }
        let Some(inside) = braced(rest) else { return Ok(literal) };
        return Ok(match builtin(inside) {
            None | Some(Placeholder::Out) => literal,
            Some(Placeholder::Value) if replace != b"{}" => literal,
            Some(kind) => Token::Hole(Hole { kind, at: at..at + inside.len() + 2 }),
        });
    }
    let fault = |reason, length| Err(TemplateError { reason, at: at..at + length });
    match rest {
        [b'{', b'{', ..] => Ok(Token::Byte { byte: b'{', length: 2 }),
        [b'}', b'}', ..] => Ok(Token::Byte { byte: b'}', length: 2 }),
        [b'}', ..] => fault(TemplateReason::NeverOpened, 1),
        [b'{', ..] => {
            let Some(inside) = braced(rest) else { return fault(TemplateReason::NeverClosed, 1) };
            let length = inside.len() + 2;
            let kind = match builtin(inside) {
                Some(kind) => kind,
                None => match std::str::from_utf8(inside) {
                    Ok(name) if !name.contains('{') => Placeholder::Name(name.into()),
                    _ => return fault(TemplateReason::BadName, length),
                },
            };
            Ok(Token::Hole(Hole { kind, at: at..at + length }))
        }
        _ => Ok(literal),
    }
}

/// What stands between the brace that `text` begins with and the next closing one.
fn braced(text: &[u8]) -> Option<&[u8]> {
    let inside = text.strip_prefix(b"{")?;
    Some(&inside[..memchr::memchr(b'}', inside)?])
}

/// The placeholder that every pipeline has under this name.
fn builtin(inside: &[u8]) -> Option<Placeholder> {
    Some(match inside {
        b"" => Placeholder::Value,
        b"in" => Placeholder::In,
        b"." => Placeholder::WithoutExtension,
        b"/" => Placeholder::LastComponent,
        b"//" => Placeholder::Folder,
        b"/." => Placeholder::Stem,
        b"#" => Placeholder::Seq,
        b"%" => Placeholder::Slot,
        b"out" => Placeholder::Out,
        [b'1'..=b'9', rest @ ..] if rest.len() < 6 && rest.iter().all(u8::is_ascii_digit) => {
            Placeholder::Source(std::str::from_utf8(inside).ok()?.parse().ok()?)
        }
        _ => return None,
    })
}

/// Whether `name` already means something between braces, so that no stage can have it.
pub(crate) fn is_reserved(name: &str) -> bool {
    builtin(name.as_bytes()).is_some() || name.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(text: &str) -> Result<Template, TemplateError> {
        Template::parse(text.as_bytes(), Dialect::File)
    }

    fn shape(template: &Template) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Literal(text) => String::from_utf8_lossy(text).into_owned(),
            Piece::Hole(hole) => format!("<{:?}>", hole.kind),
        };
        template.pieces().iter().map(piece).collect()
    }

    #[test]
    fn a_pipeline_file_knows_these_placeholders() {
        let all = "{}{in}{.}{/}{//}{/.}{#}{%}{1}{12}{out}{resize}";
        assert_eq!(
            shape(&file(all).unwrap()),
            "<Value><In><WithoutExtension><LastComponent><Folder><Stem><Seq><Slot>\
             <Source(1)><Source(12)><Out><Name(\"resize\")>"
        );
    }

    #[test]
    fn doubled_braces_are_text_in_a_pipeline_file() {
        assert_eq!(shape(&file("{{}}{{{}}}").unwrap()), "{}{<Value>}");
        assert_eq!(file("a{{b").unwrap().literal_prefix(), b"a{b");
    }

    #[test]
    fn a_lone_brace_is_an_error_in_a_pipeline_file() {
        for (text, reason, at) in [
            ("ab{", TemplateReason::NeverClosed, 2..3),
            ("a}b", TemplateReason::NeverOpened, 1..2),
            ("{a{b}", TemplateReason::BadName, 0..5),
        ] {
            assert_eq!(file(text), Err(TemplateError { reason, at }), "{text}");
        }
    }

    #[test]
    fn each_takes_other_braces_as_text() {
        for (text, expected) in [
            ("{print $1}", "{print $1}"),
            ("{{}}", "{<Value>}"),
            ("{out}{name}{0}{01}{-1}{", "{out}{name}{0}{01}{-1}{"),
            ("{in}{1}", "<In><Source(1)>"),
            ("${}", "$<Value>"),
        ] {
            let template = Template::parse(text.as_bytes(), Dialect::EACH).unwrap();
            assert_eq!(shape(&template), expected, "{text}");
        }
    }

    #[test]
    fn another_string_can_stand_for_the_value() {
        let dialect = Dialect::Each { replace: b"XX" };
        let template = Template::parse(b"aXX{}{/}X", dialect).unwrap();
        assert_eq!(shape(&template), "a<Value>{}<LastComponent>X");
    }

    #[test]
    fn the_literal_ends_of_a_template_are_known() {
        let template = file("work/{/}.jpg").unwrap();
        assert_eq!(template.literal_prefix(), b"work/");
        assert_eq!(template.literal_suffix(), b".jpg");
        assert_eq!(file("{}").unwrap().literal_prefix(), b"");
    }

    proptest! {
        #[test]
        fn escaped_text_is_its_own_template(text in "[a-c{}$ ]{0,20}") {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            let template = file(&escaped).unwrap();
            prop_assert_eq!(template.holes().count(), 0);
            prop_assert_eq!(template.literal_prefix(), text.as_bytes());
        }

        #[test]
        fn the_pieces_of_each_cover_the_text(text in "[a{}/.#%1n-]{0,20}") {
            let template = Template::parse(text.as_bytes(), Dialect::EACH).unwrap();
            let mut again = Vec::new();
            for piece in template.pieces() {
                match piece {
                    Piece::Literal(literal) => again.extend_from_slice(literal),
                    Piece::Hole(hole) => again.extend_from_slice(&text.as_bytes()[hole.at.clone()]),
                }
            }
            prop_assert_eq!(again, text.into_bytes());
        }
    }
}
