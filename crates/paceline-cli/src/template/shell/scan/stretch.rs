//! What a scan takes in one go: single quotes and here-documents.

use super::super::super::{TemplateError, TemplateReason, Token, token};
use super::super::Quoting;
use super::{HereDocument, Scanner};

impl Scanner<'_> {
    /// Takes what stands in single quotes.
    pub(super) fn single_quotes(&mut self) -> Result<(), TemplateError> {
        self.note_word(b'\'');
        self.raw(1);
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\'' => {
                    self.raw(1);
                    self.word_start = false;
                    return Ok(());
                }
                b'$' if self.peek(1) == Some(b'{') => self.raw_parameter(),
                _ => self.template(Some(Quoting::Single))?,
            }
        }
        Err(self.open("single quotes"))
    }

    /// Takes `${...}` where it is text.
    pub(super) fn raw_parameter(&mut self) {
        let rest = &self.script[self.at..];
        let end = rest.iter().position(|byte| matches!(byte, b'}' | b'\'' | b'`' | b'\n'));
        self.raw(match end {
            Some(end) if rest[end] == b'}' => end + 1,
            _ => 2,
        });
    }

    /// `$'...'`: a new quote in some shells, a dollar and an old one in others.
    pub(super) fn dollar_quotes(&mut self) -> Result<(), TemplateError> {
        let start = self.at;
        self.raw(2);
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\'' => {
                    self.raw(1);
                    return Ok(());
                }
                b'\\' if self.peek(1) == Some(b'\'') => {
                    self.disputed = Some(start);
                    self.raw(2);
                }
                b'\\' => self.raw(2),
                b'$' if self.peek(1) == Some(b'{') => self.raw_parameter(),
                _ => {
                    if let Token::Hole(hole) = token(self.script, self.at, self.dialect)? {
                        let reason = TemplateReason::Unsafe("$'...'");
                        return Err(TemplateError { reason, at: hole.at });
                    }
                    self.template(None)?;
                }
            }
        }
        Err(self.open("$'...'"))
    }

    /// Takes `<<` or `<<-` and the word that will end the document.
    pub(super) fn here_operator(&mut self) -> Result<(), TemplateError> {
        self.raw(2);
        let strips_tabs = self.peek(0) == Some(b'-');
        if strips_tabs {
            self.raw(1);
        }
        while matches!(self.peek(0), Some(b' ' | b'\t')) {
            self.raw(1);
        }
        let mut end = Vec::new();
        let mut quote = None;
        while let Some(byte) = self.peek(0) {
            match (quote, byte) {
                (Some(open), _) if open == byte => quote = None,
                (None, b'\'' | b'"') => quote = Some(byte),
                (None, b' ' | b'\t' | b'\n' | b';' | b'&' | b'|' | b'<' | b'>' | b'(' | b')') => {
                    break;
                }
                (None, b'\\') => {
                    end.extend(self.peek(1));
                    self.raw(2);
                    continue;
                }
                _ => end.push(byte),
            }
            if let Token::Hole(hole) = token(self.script, self.at, self.dialect)? {
                let reason = TemplateReason::Unsafe("a here-document");
                return Err(TemplateError { reason, at: hole.at });
            }
            self.raw(1);
        }
        self.word_start = false;
        self.bodies.push(HereDocument { end, strips_tabs });
        Ok(())
    }

    /// Takes the lines of a here-document, the last one included.
    pub(super) fn here_document(&mut self, document: &HereDocument) -> Result<(), TemplateError> {
        while self.at < self.script.len() {
            let rest = &self.script[self.at..];
            let length = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let tabs = if document.strips_tabs {
                rest.iter().take_while(|byte| **byte == b'\t').count()
            } else {
                0
            };
            let is_last = rest[..length].get(tabs..) == Some(&document.end[..]);
            let end = self.at + length;
            while self.at < end {
                match self.peek(0) {
                    Some(b'$') if self.peek(1) == Some(b'{') => self.raw_parameter(),
                    _ if is_last => self.raw(1),
                    _ => self.template(None)?,
                }
            }
            if self.peek(0) == Some(b'\n') {
                self.raw(1);
            }
            self.word_start = true;
            if is_last {
                break;
            }
        }
        Ok(())
    }
}
