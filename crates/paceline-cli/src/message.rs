//! What paceline says to people: problems with a place and a hint, and text made harmless.
//!
//! A [`Problem`] is found before anything runs. It keeps the one line of the
//! file that it is about, so that it can be rendered long after the file's
//! text is gone.
//!
//! Not here: failures of items, which are data, and the exit codes.

use std::fmt;
use std::io::IsTerminal;
use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

/// The longest line of a file, in bytes, that a problem shows.
const LONGEST_SHOWN: usize = 2000;

/// Gives `bytes` as text in which nothing can steer a terminal.
///
/// Control characters become `\n`, `\t`, `\r` or `\x1b`, characters that
/// reorder text become `\u{202e}`, bytes that are not UTF-8 become `\xff`.
pub(crate) fn harmless(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                _ if !is_hostile(character) => text.push(character),
                _ if character.is_ascii() => {
                    text.push_str(&format!("\\x{:02x}", character as u32));
                }
                _ => text.push_str(&format!("\\u{{{:x}}}", character as u32)),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Says whether a terminal could take `character` as an order: controls, and
/// the characters that turn the direction of text or hide in it.
pub(crate) fn is_hostile(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}')
}

/// Whether standard error takes colours: a terminal that is not dumb, and no `NO_COLOR`.
pub(crate) fn wants_colour() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    std::io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_dumb
}

/// Gives what the system says about `error`, without its number.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_lowercase(),
        None => text,
    }
}

/// Gives what a cause says; the system's words as in [`reason`].
pub(crate) fn words_of(cause: &(dyn std::error::Error + 'static)) -> String {
    cause.downcast_ref::<std::io::Error>().map_or_else(|| cause.to_string(), reason)
}

/// A place in a file, with the line it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    file: String,
    /// Counts from 1.
    pub(crate) line: usize,
    /// In characters, counts from 1.
    pub(crate) column: usize,
    /// The line without its end, controls replaced; `None` if it is too long to be shown.
    shown: Option<String>,
    span: Range<usize>,
}

impl Place {
    /// Finds the place of the bytes `span` in `text`, which is the content of `file`.
    ///
    /// A span over several lines is cut at the end of the first.
    pub(crate) fn find(file: &str, text: &str, span: Range<usize>) -> Self {
        let start = floor_boundary(text, span.start.min(text.len()));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = floor_boundary(text, span.end.clamp(start, line_end));
        let line = 1 + memchr::memchr_iter(b'\n', &text.as_bytes()[..line_start]).count();
        let column = 1 + text[line_start..start].chars().count();
        let whole = &text[line_start..line_end];
        let before = replaced(&text[line_start..start]);
        let marked = replaced(&text[start..end]);
        let span = before.len()..before.len() + marked.len();
        let shown = (whole.len() <= LONGEST_SHOWN)
            .then(|| before + &marked + replaced(&text[end..line_end]).trim_end());
        Self { file: harmless(file.as_bytes()), line, column, shown, span }
    }
}

fn floor_boundary(text: &str, mut index: usize) -> usize {
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// Replaces what could steer a terminal, one character for one, so that columns stay true.
fn replaced(text: &str) -> String {
    text.chars().map(|c| if c != '\t' && is_hostile(c) { '\u{fffd}' } else { c }).collect()
}

/// Something wrong with the command line or a file, found before anything runs.
///
/// The message is made harmless when it is rendered, so that whoever builds a
/// problem may put names and values in as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    message: String,
    place: Option<Box<Place>>,
    label: Option<String>,
    hint: Option<String>,
}

impl Problem {
    /// A problem without a place in a file.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), place: None, label: None, hint: None }
    }

    /// Says where in a file the problem is.
    #[must_use]
    pub(crate) fn at(mut self, place: Place) -> Self {
        self.place = Some(Box::new(place));
        self
    }

    /// Adds a few words beside the caret.
    #[must_use]
    pub(crate) fn label(mut self, label: Option<String>) -> Self {
        self.label = label;
        self
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// The first line, without `error: `.
    pub(crate) fn message(&self) -> String {
        harmless(self.message.as_bytes())
    }

    /// Gives the text for standard error, with its last newline.
    ///
    /// `colour` is for a terminal, and only where `NO_COLOR` is not set.
    pub(crate) fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let title = Level::ERROR.primary_title(self.message());
        let label = self.label.as_ref().map(|label| harmless(label.as_bytes()));
        let mut text = match self.place.as_deref() {
            None => renderer.render(&[Group::with_title(title)]),
            Some(Place { file, line, column, shown: None, .. }) => {
                let origin = Origin::path(file.as_str()).line(*line).char_column(*column);
                renderer.render(&[title.element(origin)])
            }
            Some(Place { file, line, shown: Some(shown), span, .. }) => {
                let mark = AnnotationKind::Primary.span(span.clone()).label(label);
                let snippet = Snippet::source(shown.as_str())
                    .line_start(*line)
                    .path(file.as_str())
                    .annotation(mark);
                renderer.render(&[title.element(snippet)])
            }
        };
        if !text.ends_with('\n') {
            text.push('\n');
        }
        if let Some(hint) = &self.hint {
            text.push_str("hint: ");
            text.push_str(&harmless(hint.as_bytes()));
            text.push('\n');
        }
        text
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Problem {}

/// Finds the one of `known` that `word` was probably meant to be.
pub(crate) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // A name of half the length of the other is no typing error, and comparing long ones takes time.
    if word.len() > 64 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(word, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_for_people_cannot_steer_a_terminal() {
        let hostile = b"a\x1b]0;x\x07\r\n\xff\xc2\x9b\xe2\x80\xaeb";
        assert_eq!(harmless(hostile), "a\\x1b]0;x\\x07\\r\\n\\xff\\u{9b}\\u{202e}b");
        assert_eq!(harmless("größe 日本".as_bytes()), "größe 日本");
    }

    #[test]
    fn a_problem_shows_the_line_and_points_at_it() {
        let text = "a = 1\nbad \u{1b}= 2\nc = 3\n";
        let place = Place::find("p\n.toml", text, 6..9);
        let problem = Problem::new("unknown key `bad`").at(place).hint("drop it".to_owned());
        insta::assert_snapshot!(problem.render(false), @r#"
        error: unknown key `bad`
         --> p\n.toml:2:1
          |
        2 | bad �= 2
          | ^^^
        hint: drop it
        "#);
    }

    #[test]
    fn a_problem_on_a_very_long_line_gives_the_place_alone() {
        let text = format!("a = \"{}\"", "x".repeat(1 << 20));
        let problem = Problem::new("no").at(Place::find("p.toml", &text, 4..text.len()));
        insta::assert_snapshot!(problem.render(false), @r"
        error: no
        --> p.toml:1:5
        ");
    }

    #[test]
    fn the_nearest_name_is_offered_only_if_it_is_near() {
        assert_eq!(nearest("timout", ["retry", "timeout"]), Some("timeout"));
        assert_eq!(nearest("zzz", ["retry", "timeout"]), None);
    }
}
