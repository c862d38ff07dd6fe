//! Finding the placeholders of a shell script, and how each is quoted.
//!
//! A small lexer of the POSIX shell with a stack of what is open: quotes,
//! `$(...)`, `${...}`. It changes nothing of the script but placeholders and
//! doubled braces.

mod stretch;

use super::super::{Dialect, Hole, TemplateError, TemplateReason, Token, token};
use super::{Part, Quoting};

/// What is open around a position of the script.
#[derive(Debug)]
enum Frame {
    /// Commands: the script itself, or what stands in parentheses.
    Commands {
        in_parentheses: bool,
        cases: u32,
        command_start: bool,
        word: Vec<u8>,
    },
    /// Double quotes; `Some` if no placeholder may stand in them.
    Double(Option<&'static str>),
    /// `${...}`; `Some` if no placeholder may stand in it.
    Parameter {
        in_double: bool,
        refused: Option<&'static str>,
    },
    /// Arithmetic, with the parentheses still to be closed.
    Arithmetic {
        name: &'static str,
        open: u32,
    },
    /// `$[...]`, arithmetic of old shells.
    Brackets,
    Backquotes,
}

impl Frame {
    fn commands(in_parentheses: bool) -> Self {
        Self::Commands { in_parentheses, cases: 0, command_start: true, word: Vec::new() }
    }

    /// Why no placeholder may stand in here.
    fn refuses(&self) -> Option<&'static str> {
        match self {
            Self::Commands { .. } => None,
            Self::Double(refused) | Self::Parameter { refused, .. } => *refused,
            Self::Arithmetic { name, .. } => Some(name),
            Self::Brackets => Some("$[...]"),
            Self::Backquotes => Some("backquotes"),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Commands { .. } => "$(...)",
            Self::Double(_) => "double quotes",
            Self::Parameter { .. } => "${...}",
            Self::Arithmetic { name, .. } => name,
            Self::Brackets => "$[...]",
            Self::Backquotes => "backquotes",
        }
    }
}

/// A here-document whose body begins after the line.
struct HereDocument {
    end: Vec<u8>,
    strips_tabs: bool,
}

struct Scanner<'s> {
    script: &'s [u8],
    dialect: Dialect<'s>,
    at: usize,
    frames: Vec<Frame>,
    parts: Vec<Part>,
    bodies: Vec<HereDocument>,
    /// Whether a word could begin here.
    word_start: bool,
    /// Where shells disagree on the end of a quote.
    disputed: Option<usize>,
}

pub(super) fn scan(script: &[u8], dialect: Dialect<'_>) -> Result<Vec<Part>, TemplateError> {
    let mut scanner = Scanner {
        script,
        dialect,
        at: 0,
        frames: vec![Frame::commands(false)],
        parts: Vec::new(),
        bodies: Vec::new(),
        word_start: true,
        disputed: None,
    };
    while scanner.at < script.len() {
        scanner.step()?;
    }
    let has_holes = scanner.parts.iter().any(|part| matches!(part, Part::Hole(..)));
    if let (Some(at), true) = (scanner.disputed, has_holes) {
        let reason = TemplateReason::Unsafe("a script with $'...\\'...', which shells read apart");
        return Err(TemplateError { reason, at: at..at + 2 });
    }
    match scanner.frames.pop() {
        Some(frame) if !scanner.frames.is_empty() => Err(scanner.open(frame.name())),
        _ => Ok(scanner.parts),
    }
}

impl Scanner<'_> {
    fn open(&self, what: &'static str) -> TemplateError {
        let end = self.script.len();
        TemplateError { reason: TemplateReason::OpenShell(what), at: end..end }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.script.get(self.at + ahead).copied()
    }

    fn text(&mut self, bytes: &[u8]) {
        if let Some(Part::Text(text)) = self.parts.last_mut() {
            text.extend_from_slice(bytes);
        } else {
            self.parts.push(Part::Text(bytes.to_vec()));
        }
    }

    /// Takes `length` bytes as they are, or fewer at the end of the script.
    fn raw(&mut self, length: usize) {
        let end = self.script.len().min(self.at + length);
        let script = self.script;
        self.text(&script[self.at..end]);
        self.at = end;
    }

    fn push(&mut self, frame: Frame, length: usize) {
        self.raw(length);
        self.word_start = matches!(frame, Frame::Commands { .. });
        self.frames.push(frame);
    }

    fn pop(&mut self) {
        self.raw(1);
        self.frames.pop();
        self.word_start = false;
    }

    /// Takes a placeholder or one byte of text.
    fn template(&mut self, quoting: Option<Quoting>) -> Result<(), TemplateError> {
        match token(self.script, self.at, self.dialect)? {
            Token::Byte { byte, length } => {
                self.at += length;
                self.text(&[byte]);
            }
            Token::Hole(hole) => {
                self.at = hole.at.end;
                self.hole(hole, quoting)?;
            }
        }
        self.word_start = false;
        Ok(())
    }

    fn hole(&mut self, hole: Hole, quoting: Option<Quoting>) -> Result<(), TemplateError> {
        let refused = self.frames.iter().find_map(Frame::refuses);
        if let Some(place) = refused.or(quoting.is_none().then_some("a here-document")) {
            return Err(TemplateError { reason: TemplateReason::Unsafe(place), at: hole.at });
        }
        let ends_word = self.peek(0).is_none_or(|byte| b" \t\n;&|)".contains(&byte));
        let quoting = match quoting {
            Some(Quoting::Bare) if self.word_start && ends_word => Quoting::Alone,
            Some(quoting) => quoting,
            None => Quoting::Bare,
        };
        self.parts.push(Part::Hole(hole, quoting));
        Ok(())
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        let byte = self.script[self.at];
        let Some(frame) = self.frames.last_mut() else { return self.template(None) };
        match frame {
            Frame::Commands { .. } => return self.in_commands(byte),
            Frame::Double(_) => match byte {
                b'"' => self.pop(),
                _ => return self.in_quotes(byte, true),
            },
            Frame::Parameter { in_double, .. } => match (byte, *in_double) {
                (b'}', _) => self.pop(),
                (b'\'', false) => return self.single_quotes(),
                (b'"', false) => self.push(Frame::Double(None), 1),
                // Shells disagree on what double quotes inside double quotes mean here.
                (b'"', true) => self.push(Frame::Double(Some("quotes inside \"${...}\"")), 1),
                (_, in_double) => return self.in_quotes(byte, in_double),
            },
            Frame::Arithmetic { open, .. } => match byte {
                b'(' => {
                    *open += 1;
                    self.raw(1)
                }
                b')' if *open > 1 => {
                    *open -= 1;
                    self.raw(1)
                }
                b')' => self.pop(),
                b'\'' => return self.single_quotes(),
                b'"' => self.push(Frame::Double(None), 1),
                _ => return self.in_quotes(byte, true),
            },
            Frame::Brackets => match byte {
                b']' => self.pop(),
                _ => return self.in_quotes(byte, true),
            },
            Frame::Backquotes => match byte {
                b'`' => self.pop(),
                b'\\' => self.raw(2),
                b'$' if self.peek(1) == Some(b'{') => self.raw_parameter(),
                _ => return self.template(None),
            },
        }
        Ok(())
    }

    /// What double quotes and their like have in common.
    fn in_quotes(&mut self, byte: u8, in_double: bool) -> Result<(), TemplateError> {
        match byte {
            b'\\' => self.raw(2),
            b'`' => self.push(Frame::Backquotes, 1),
            b'$' => return self.dollar(in_double),
            _ => {
                return self.template(Some(if in_double {
                    Quoting::Double
                } else {
                    Quoting::Bare
                }));
            }
        }
        Ok(())
    }

    /// Takes a dollar and what it opens.
    fn dollar(&mut self, in_double: bool) -> Result<(), TemplateError> {
        self.word_start = false;
        match (self.peek(1), self.peek(2)) {
            (Some(b'('), Some(b'(')) => {
                self.push(Frame::Arithmetic { name: "$((...))", open: 2 }, 3);
            }
            (Some(b'('), _) => self.push(Frame::commands(true), 2),
            (Some(b'['), _) => self.push(Frame::Brackets, 2),
            (Some(b'{'), _) => {
                let (length, refused) = parameter(&self.script[self.at + 2..], in_double);
                self.push(Frame::Parameter { in_double, refused }, 2 + length);
            }
            (Some(b'\''), _) if !in_double => return self.dollar_quotes(),
            (Some(_), _)
                if matches!(token(self.script, self.at + 1, self.dialect), Ok(Token::Hole(_))) =>
            {
                // Before a reference, `$` would read as `$$` or begin a quote of its own.
                self.text(b"\\$");
                self.at += 1;
            }
            _ => self.raw(1),
        }
        Ok(())
    }

    fn in_commands(&mut self, byte: u8) -> Result<(), TemplateError> {
        if b" \t\n;&|()<>".contains(&byte) {
            self.end_word(byte);
        }
        match byte {
            b'\\' => {
                self.raw(2);
                self.word_start = false;
                self.note_word(b'\\');
            }
            b'\'' => return self.single_quotes(),
            b'"' => self.push(Frame::Double(None), 1),
            b'`' => self.push(Frame::Backquotes, 1),
            b'$' => {
                self.note_word(byte);
                return self.dollar(false);
            }
            b'#' if self.word_start => {
                let rest = &self.script[self.at..];
                self.raw(memchr::memchr(b'\n', rest).unwrap_or(rest.len()));
            }
            b'\n' => {
                self.raw(1);
                self.word_start = true;
                for body in std::mem::take(&mut self.bodies) {
                    self.here_document(&body)?;
                }
            }
            b'(' if self.word_start && self.peek(1) == Some(b'(') => {
                self.push(Frame::Arithmetic { name: "((...))", open: 2 }, 2);
            }
            b'(' => self.push(Frame::commands(true), 1),
            b')' => match self.frames.last() {
                Some(Frame::Commands { in_parentheses: true, cases: 0, .. }) => self.pop(),
                _ => {
                    self.raw(1);
                    self.word_start = true;
                }
            },
            b'<' if self.peek(1) == Some(b'<') => match self.peek(2) {
                // `<<<` of some shells gives a word, not a document.
                Some(b'<') => self.raw(3),
                _ => return self.here_operator(),
            },
            b' ' | b'\t' | b';' | b'&' | b'|' => {
                self.raw(1);
                self.word_start = true;
            }
            b'<' | b'>' => self.raw(1),
            _ => {
                self.note_word(byte);
                return self.template(Some(Quoting::Bare));
            }
        }
        Ok(())
    }

    fn note_word(&mut self, byte: u8) {
        if let Some(Frame::Commands { word, .. }) = self.frames.last_mut() {
            // No reserved word is longer.
            if word.len() < 8 {
                word.push(byte);
            }
        }
    }

    /// Follows `case ... esac`, whose patterns end in a parenthesis that closes nothing.
    fn end_word(&mut self, delimiter: u8) {
        let Some(Frame::Commands { cases, command_start, word, .. }) = self.frames.last_mut()
        else {
            return;
        };
        match &word[..] {
            b"" => {}
            b"case" if *command_start => {
                *cases += 1;
                *command_start = false;
            }
            b"esac" if *command_start => *cases = cases.saturating_sub(1),
            b"in" if *cases > 0 => *command_start = true,
            b"then" | b"do" | b"else" | b"elif" | b"if" | b"while" | b"until" | b"!" | b"{" => {}
            _ => *command_start = false,
        }
        word.clear();
        if b"\n;&|()".contains(&delimiter) {
            *command_start = true;
        }
    }
}

/// Reads what follows `${`, up to where a word may begin: its length, and why
/// no placeholder may stand in that word.
fn parameter(rest: &[u8], in_double: bool) -> (usize, Option<&'static str>) {
    const REFUSED: Option<&str> = Some("this kind of ${...}");
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let name = match rest.iter().take_while(|byte| is_name(byte)).count() {
        0 if rest.first().is_some_and(|byte| b"@*#?$!-".contains(byte)) => 1,
        length => length,
    };
    match rest.get(name..).unwrap_or_default() {
        [b':', b'-' | b'=' | b'+' | b'?', ..] => (name + 2, None),
        [b'-' | b'=' | b'+' | b'?', ..] => (name + 1, None),
        // A pattern: quotes make it text, but inside double quotes shells disagree on quotes.
        [b'#' | b'%', ..] if !in_double => (name + 1, None),
        _ => (name, REFUSED),
    }
}
