//! Splitting a command string into words, and quoting words for display.
//!
//! The string follows the quoting rules of a POSIX shell and nothing else of
//! it: no variables, no patterns, no comments. An operator outside quotes is
//! refused, since whoever wrote it expected a shell.

use std::fmt;

use crate::message::is_hostile;

/// A word of a command string, and where in the string each of its bytes came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SplitWord {
    pub(crate) bytes: Vec<u8>,
    /// As long as `bytes`.
    pub(crate) offsets: Vec<usize>,
    /// Where the word begins in the string, its quotes included.
    pub(crate) start: usize,
}

/// A command string that cannot be split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SplitError {
    pub(crate) reason: SplitReason,
    /// Where in the string, in bytes.
    pub(crate) at: usize,
}

/// Why a command string cannot be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SplitReason {
    /// A shell operator stands outside quotes.
    Operator(&'static str),
    /// A quote is never closed.
    OpenQuote(char),
    /// Nothing is left after a backslash.
    LastBackslash,
    /// There is no word in the string.
    Empty,
}

impl SplitError {
    /// How many bytes of the string the error is about.
    pub(crate) fn length(&self) -> usize {
        match self.reason {
            SplitReason::Operator(operator) => operator.len(),
            SplitReason::OpenQuote(_) | SplitReason::LastBackslash => 1,
            SplitReason::Empty => 0,
        }
    }

    /// What a user can do, in a pipeline file if `in_file`, else on the command line.
    pub(crate) fn hint(&self, in_file: bool) -> Option<String> {
        let SplitReason::Operator(operator) = self.reason else { return None };
        Some(if in_file {
            format!(
                "commands run without a shell: have one with `shell = \"...\"`, join commands \
                 with `pipe = [...]`, add a stage (`--then` of `paceline each`), or quote it: \
                 '{operator}'"
            )
        } else {
            format!(
                "commands run without a shell: have one with `--shell`, add a stage with \
                 `--then`, join commands with `pipe = [...]` in a pipeline file, or quote it: \
                 '{operator}'"
            )
        })
    }
}

impl fmt::Display for SplitError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            SplitReason::Operator(operator) => {
                write!(formatter, "the command holds the shell operator `{operator}`")
            }
            SplitReason::OpenQuote(quote) => {
                write!(formatter, "the quote {quote} is never closed")
            }
            SplitReason::LastBackslash => formatter.write_str("the command ends in a backslash"),
            SplitReason::Empty => formatter.write_str("the command is empty"),
        }
    }
}

impl std::error::Error for SplitError {}

/// Splits a command string into its words.
///
/// # Errors
///
/// See [`SplitReason`]; the first one from the left is given.
pub(crate) fn split(command: &[u8]) -> Result<Vec<SplitWord>, SplitError> {
    let mut words = Vec::new();
    let mut word: Option<SplitWord> = None;
    let mut at = 0;
    while at < command.len() {
        let byte = command[at];
        let fresh = || SplitWord { start: at, ..SplitWord::default() };
        match byte {
            b' ' | b'\t' | b'\n' => words.extend(word.take()),
            b'\\' => match command.get(at + 1) {
                None => return Err(SplitError { reason: SplitReason::LastBackslash, at }),
                // A line that is continued: both bytes vanish.
                Some(b'\n') => at += 1,
                Some(&next) => {
                    word.get_or_insert_with(fresh).push(next, at + 1);
                    at += 1;
                }
            },
            b'\'' => at = single_quoted(command, at, word.get_or_insert_with(fresh))?,
            b'"' => at = double_quoted(command, at, word.get_or_insert_with(fresh))?,
            _ => match operator(&command[at..]) {
                Some(operator) => {
                    return Err(SplitError { reason: SplitReason::Operator(operator), at });
                }
                None => word.get_or_insert_with(fresh).push(byte, at),
            },
        }
        at += 1;
    }
    words.extend(word);
    if words.is_empty() {
        return Err(SplitError { reason: SplitReason::Empty, at: 0 });
    }
    Ok(words)
}

impl SplitWord {
    fn push(&mut self, byte: u8, at: usize) {
        self.bytes.push(byte);
        self.offsets.push(at);
    }
}

/// Takes what stands in the single quotes that open at `open`; gives where they close.
fn single_quoted(command: &[u8], open: usize, word: &mut SplitWord) -> Result<usize, SplitError> {
    let inside = &command[open + 1..];
    let length = memchr::memchr(b'\'', inside)
        .ok_or(SplitError { reason: SplitReason::OpenQuote('\''), at: open })?;
    for (index, byte) in inside[..length].iter().enumerate() {
        word.push(*byte, open + 1 + index);
    }
    Ok(open + 1 + length)
}

/// Takes what stands in the double quotes that open at `open`; gives where they close.
fn double_quoted(command: &[u8], open: usize, word: &mut SplitWord) -> Result<usize, SplitError> {
    let mut at = open + 1;
    while let Some(&byte) = command.get(at) {
        match (byte, command.get(at + 1)) {
            (b'"', _) => return Ok(at),
            (b'\\', Some(b'\n')) => at += 1,
            (b'\\', Some(&next @ (b'$' | b'`' | b'"' | b'\\'))) => {
                at += 1;
                word.push(next, at);
            }
            _ => word.push(byte, at),
        }
        at += 1;
    }
    Err(SplitError { reason: SplitReason::OpenQuote('"'), at: open })
}

/// The shell operator that `rest` begins with.
fn operator(rest: &[u8]) -> Option<&'static str> {
    Some(match rest {
        [b'|', b'|', ..] => "||",
        [b'|', ..] => "|",
        [b'&', b'&', ..] => "&&",
        [b'&', ..] => "&",
        [b'>', b'>', ..] => ">>",
        [b'>', ..] => ">",
        [b'<', b'<', ..] => "<<",
        [b'<', ..] => "<",
        [b';', ..] => ";",
        [b'$', b'(', ..] => "$(",
        [b'`', ..] => "`",
        _ => return None,
    })
}

/// Gives `words` as one line that a shell would take apart into the same words.
pub(crate) fn quote_all<'w>(words: impl IntoIterator<Item = &'w [u8]>) -> String {
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// Gives `word` quoted for a shell, harmless to a terminal.
///
/// Control characters and bytes that are not UTF-8 come as `$'\033'`, which
/// bash, zsh, ksh and POSIX of 2024 read back; everything else any shell does.
pub(crate) fn quote(word: &[u8]) -> String {
    match std::str::from_utf8(word) {
        Ok("") => "''".to_owned(),
        Ok(text) if is_plain(text) => text.to_owned(),
        Ok(text) if !text.chars().any(is_hostile) => {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
        _ => quote_with_escapes(word),
    }
}

fn is_plain(text: &str) -> bool {
    let safe = |c: char| {
        (!c.is_ascii() && !is_hostile(c) && !c.is_whitespace())
            || c.is_ascii_alphanumeric()
            || "%+-./:=@_^{},".contains(c)
    };
    // A comma or two dots between braces make a shell expand them; a brace alone is a word to it.
    let braces_are_literal = !text.contains('{') || !(text.contains(',') || text.contains(".."));
    text.chars().all(safe) && braces_are_literal && text != "{" && text != "}"
}

fn quote_with_escapes(word: &[u8]) -> String {
    let mut quoted = String::from("$'");
    for chunk in word.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\n' => quoted.push_str("\\n"),
                '\t' => quoted.push_str("\\t"),
                '\r' => quoted.push_str("\\r"),
                '\'' => quoted.push_str("\\'"),
                '\\' => quoted.push_str("\\\\"),
                _ if is_hostile(character) => {
                    let mut buffer = [0; 4];
                    push_octal(&mut quoted, character.encode_utf8(&mut buffer).as_bytes());
                }
                _ => quoted.push(character),
            }
        }
        push_octal(&mut quoted, chunk.invalid());
    }
    quoted.push('\'');
    quoted
}

// Three octal digits and not `\x`: shells differ in how many hexadecimal ones they take.
fn push_octal(quoted: &mut String, bytes: &[u8]) {
    for byte in bytes {
        quoted.push_str(&format!("\\{byte:03o}"));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    fn words(command: &str) -> Vec<String> {
        let words = split(command.as_bytes()).unwrap();
        words.into_iter().map(|word| String::from_utf8(word.bytes).unwrap()).collect()
    }

    #[test]
    fn quotes_join_and_blanks_part() {
        for (command, expected) in [
            ("a b\tc\nd", vec!["a", "b", "c", "d"]),
            ("  a  ", vec!["a"]),
            (r#"a'b c'd "e f"g"#, vec!["ab cd", "e fg"]),
            (r#"'' "" x"#, vec!["", "", "x"]),
            (r#""a\"b\\c\$d\`e\nf""#, vec![r#"a"b\c$d`e\nf"#]),
            (r"a\ b \| \'", vec!["a b", "|", "'"]),
            ("a\\\nb", vec!["ab"]),
            ("'|' \">\" \"$(x)\" '`'", vec!["|", ">", "$(x)", "`"]),
            ("$HOME *.c ~ # {#} a=b", vec!["$HOME", "*.c", "~", "#", "{#}", "a=b"]),
        ] {
            assert_eq!(words(command), expected, "{command}");
        }
    }

    #[test]
    fn an_operator_outside_quotes_is_refused_with_its_place() {
        for (command, operator, at) in [
            ("a | b", "|", 2),
            ("a > b", ">", 2),
            ("a 2>>b", ">>", 3),
            ("a < b", "<", 2),
            ("a & b", "&", 2),
            ("a && b", "&&", 2),
            ("a; b", ";", 1),
            ("a $(b)", "$(", 2),
            ("a `b`", "`", 2),
        ] {
            let error = split(command.as_bytes()).unwrap_err();
            assert_eq!(error, SplitError { reason: SplitReason::Operator(operator), at });
            assert!(error.hint(false).unwrap().contains("--shell"), "{command}");
            assert!(error.hint(true).unwrap().contains("shell = \"...\""), "{command}");
        }
    }

    #[test]
    fn what_is_left_open_is_refused() {
        for (command, reason, at) in [
            ("a 'b", SplitReason::OpenQuote('\''), 2),
            ("a \"b", SplitReason::OpenQuote('"'), 2),
            ("a \\", SplitReason::LastBackslash, 2),
            (" ", SplitReason::Empty, 0),
        ] {
            assert_eq!(split(command.as_bytes()), Err(SplitError { reason, at }), "{command}");
        }
    }

    #[test]
    fn each_byte_knows_where_it_came_from() {
        let words = split(br#"x "{a}"'{b}'"#).unwrap();
        assert_eq!(words[1].bytes, b"{a}{b}");
        assert_eq!(words[1].offsets, [3, 4, 5, 8, 9, 10]);
    }

    #[test]
    fn a_word_is_quoted_only_where_it_must_be() {
        for (word, expected) in [
            (&b"a.b/c-d"[..], "a.b/c-d"),
            (b"", "''"),
            (b"{}", "{}"),
            (b"{a,b}", "'{a,b}'"),
            (b"{", "'{'"),
            (b"it's", r"'it'\''s'"),
            (b"a b", "'a b'"),
            (b"~", "'~'"),
            (b"a\n\x1b'\\", r"$'a\n\033\'\\'"),
            (b"\xff1", r"$'\3771'"),
            ("gr\u{f6}\u{202e}".as_bytes(), "$'gr\u{f6}\\342\\200\\256'"),
        ] {
            assert_eq!(quote(word), expected);
        }
    }

    proptest! {
        #[test]
        fn words_come_back_from_quoting(words in proptest::collection::vec("\\PC*", 1..5)) {
            let line = quote_all(words.iter().map(String::as_bytes));
            prop_assume!(!line.contains("$'"));
            let again = split(line.as_bytes()).unwrap();
            let again: Vec<_> = again.into_iter().map(|word| word.bytes).collect();
            prop_assert_eq!(again, words.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn what_is_split_is_split_as_by_shell_words(command in "[ab '\"\\\\$\n]{0,12}") {
            prop_assume!(!command.ends_with('\\'));
            if let Ok(words) = split(command.as_bytes()) {
                let words: Vec<_> =
                    words.into_iter().map(|w| String::from_utf8(w.bytes).unwrap()).collect();
                prop_assert_eq!(words, shell_words::split(&command).unwrap());
            }
        }
    }

    #[test]
    fn bash_reads_back_every_byte() {
        let Ok(bash) = std::process::Command::new("bash").arg("-c").arg(":").status() else {
            return;
        };
        assert!(bash.success());
        let every: Vec<u8> = (1..=255).collect();
        let script = format!("printf %s {}", quote(&every));
        let said = std::process::Command::new("bash")
            .arg("-c")
            .arg(std::ffi::OsStr::from_bytes(script.as_bytes()))
            .output()
            .unwrap();
        assert_eq!(said.stdout, every);
    }
}
