//! Requests into bytes, and bytes into answers.
//!
//! A frame is a head of nine bytes (length of the body, id, kind; integers
//! little-endian) and a body. A batch is a frame for several items with ids in
//! a row, whose bodies stand one after the other with a zero byte between
//! them. [`Reader`] takes bytes as they come and gives what is complete;
//! whatever is no answer is [`Garbage`], after which nothing that comes from
//! the worker can be believed.

use std::{borrow::Cow, ops::Range};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use memchr::memchr;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Exchange, Form, Framing, RemoteError};
use crate::{
    failure::{BoxError, FailureKind, Fault},
    worker::Attempt,
};

#[cfg(test)]
mod tests;

/// The head of a frame: length, id, kind.
pub(crate) const HEAD: usize = 9;

/// An answer larger than this is refused: the worker has lost its way.
pub(crate) const LONGEST: usize = 256 << 20;

/// The kinds of frames.
pub(crate) mod kind {
    pub(crate) const BYTES: u8 = 0;
    pub(crate) const JSON: u8 = 1;
    /// A failed item: `{"name": ..., "message": ..., "traceback": ...}`.
    pub(crate) const ERROR: u8 = 2;
    /// The worker is ready; the id says how many items it works on at once.
    pub(crate) const READY: u8 = 3;
    /// The worker cannot begin. The body is as for `ERROR`.
    pub(crate) const FATAL: u8 = 4;
    /// A batch of what would be `BYTES`.
    pub(crate) const BYTES_BATCH: u8 = 5;
    /// A batch of what would be `JSON`.
    pub(crate) const JSON_BATCH: u8 = 6;
}

/// The body of [`kind::READY`] from a worker that takes batches.
pub(crate) const TAKES_BATCHES: &[u8] = b"batches";

/// A batch gets no more items when its bodies have reached this: the worker
/// begins with the first when it has read the last.
const BATCH: usize = 32 * 1024;

/// Requests that are yet to be written.
#[derive(Default)]
pub(crate) struct Requests {
    pub(crate) bytes: Vec<u8>,
    /// Whether the worker takes batches.
    pub(crate) takes_batches: bool,
    /// Where the last frame begins, if it can become a batch, or a larger one.
    pub(crate) last: Option<usize>,
}

impl Requests {
    /// Appends the request for an item.
    ///
    /// # Errors
    ///
    /// If the item cannot be asked for. There may then be the beginning of a
    /// request behind what was there, as after a panic in `exchange`: whoever
    /// calls cuts it off.
    pub(crate) fn ask<In, X: Exchange<In>>(
        &mut self,
        exchange: &X,
        framing: Framing,
        item: &In,
        (id, attempt): (u32, &Attempt),
    ) -> Result<(), BoxError> {
        match framing {
            Framing::Lines => ask_line(exchange, item, attempt, &mut self.bytes),
            Framing::Json => ask_json(exchange, item, (id, attempt), &mut self.bytes),
            Framing::Frames => self.ask_frame(exchange, item, (id, attempt)),
        }
    }

    fn ask_frame<In, X: Exchange<In>>(
        &mut self,
        exchange: &X,
        item: &In,
        (id, attempt): (u32, &Attempt),
    ) -> Result<(), BoxError> {
        let out = &mut self.bytes;
        let start = out.len();
        // Ids in a batch do not go round.
        let batch = self.last.filter(|begin| start - begin < BATCH && id > 0);
        // A body that may join others follows a zero, one by itself a head.
        out.extend_from_slice(if batch.is_some() { &[0] } else { &[0; HEAD] });
        let begin = out.len();
        let form = exchange.request(item, attempt, out)?;
        let may_join = self.takes_batches && memchr(0, &out[begin..]).is_none();
        if let Some(batch) = batch {
            let (_, first, kind) = read_head(&out[batch..]).expect("a batch has a head");
            if may_join && batch_of(kind) == batch_of(kind_of(form)) {
                let length = length_of(out.len() - batch - HEAD)?;
                out[batch..batch + HEAD].copy_from_slice(&head(length, first, batch_of(kind)));
                return Ok(());
            }
            out.splice(start..begin, [0; HEAD]);
        }
        let length = length_of(out.len() - start - HEAD)?;
        out[start..start + HEAD].copy_from_slice(&head(length, id, kind_of(form)));
        self.last = may_join.then_some(start);
        Ok(())
    }
}

fn length_of(body: usize) -> Result<u32, BoxError> {
    u32::try_from(body).map_err(|_| {
        let why = "the request is longer than 4 GiB";
        Fault::new(FailureKind::TooLong, why).permanent().into()
    })
}

fn batch_of(kind: u8) -> u8 {
    match kind {
        kind::BYTES => kind::BYTES_BATCH,
        kind::JSON => kind::JSON_BATCH,
        batch => batch,
    }
}

fn ask_line<In, X: Exchange<In>>(
    exchange: &X,
    item: &In,
    attempt: &Attempt,
    out: &mut Vec<u8>,
) -> Result<(), BoxError> {
    let start = out.len();
    exchange.request(item, attempt, out)?;
    if out[start..].contains(&b'\n') {
        let why =
            "the value has a newline in it, which ends an item here: use `framing = \"json\"`";
        return Err(Fault::new(FailureKind::Worker, why).permanent().into());
    }
    out.push(b'\n');
    Ok(())
}

fn ask_json<In, X: Exchange<In>>(
    exchange: &X,
    item: &In,
    (id, attempt): (u32, &Attempt),
    out: &mut Vec<u8>,
) -> Result<(), BoxError> {
    out.extend_from_slice(format!("{{\"id\":{id},").as_bytes());
    let start = out.len();
    if exchange.request(item, attempt, out)? == Form::Bytes {
        let bytes = out.split_off(start);
        append_value(&bytes, out)?;
    }
    out.extend_from_slice(b"}\n");
    Ok(())
}

/// Appends the member of a request that holds bytes: as text, or in base64
/// under another name if they are none.
pub(crate) fn append_value(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), BoxError> {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            out.extend_from_slice(b"\"value\":");
            serde_json::to_writer(out, text)?;
        }
        Err(_) => {
            out.extend_from_slice(b"\"value\":null,\"value_b64\":\"");
            out.extend_from_slice(BASE64_STANDARD.encode(bytes).as_bytes());
            out.push(b'"');
        }
    }
    Ok(())
}

pub(crate) fn kind_of(form: Form) -> u8 {
    match form {
        Form::Bytes => kind::BYTES,
        Form::Json => kind::JSON,
    }
}

pub(crate) fn head(length: u32, id: u32, kind: u8) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4..8].copy_from_slice(&id.to_le_bytes());
    head[8] = kind;
    head
}

/// Reads a head: length of the body, id, kind.
pub(crate) fn read_head(bytes: &[u8]) -> Option<(usize, u32, u8)> {
    let [l0, l1, l2, l3, i0, i1, i2, i3, kind] = *bytes.first_chunk::<HEAD>()?;
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    Some((length as usize, u32::from_le_bytes([i0, i1, i2, i3]), kind))
}

/// Something whole that a worker has said.
pub(crate) enum Said<'a> {
    Answer {
        /// `None` where the framing says it not.
        id: Option<u32>,
        result: Result<(Form, Cow<'a, [u8]>), RemoteError>,
        /// Whether something came with it.
        is_followed: bool,
    },
    /// It is ready, and works on so many items at once.
    Ready { at_once: u32, takes_batches: bool },
    /// It cannot begin.
    Fatal(RemoteError),
}

/// What a worker said was no answer.
#[derive(Debug)]
pub(crate) struct Garbage(pub(crate) String);

/// The bytes from one worker.
pub(crate) struct Reader {
    framing: Framing,
    bytes: Vec<u8>,
    /// Up to here they have been used.
    at: usize,
    /// Up to here there is no end of a line.
    searched: usize,
    /// What is left of a batch that has begun, at `at`.
    batch: Option<Batch>,
}

/// The rest of a batch of answers.
struct Batch {
    form: Form,
    /// That of the next answer.
    id: u32,
    length: usize,
}

impl Reader {
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, bytes: Vec::new(), at: 0, searched: 0, batch: None }
    }

    /// Where to append what was read.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        if self.at == self.bytes.len() {
            self.bytes.clear();
            (self.at, self.searched) = (0, 0);
        } else if self.at > self.bytes.len() / 2 {
            self.bytes.drain(..self.at);
            self.searched = self.searched.saturating_sub(self.at);
            self.at = 0;
        }
        &mut self.bytes
    }

    fn has_rest(&self) -> bool {
        self.at < self.bytes.len()
    }

    /// The next whole thing, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Said<'_>>, Garbage> {
        match self.framing {
            Framing::Lines => Ok(self.line()?.map(|line| Said::Answer {
                id: None,
                is_followed: self.has_rest(),
                result: Ok((Form::Bytes, Cow::Borrowed(&self.bytes[line]))),
            })),
            Framing::Json => match self.line()? {
                Some(line) => json(&self.bytes[line]).map(Some),
                None => Ok(None),
            },
            Framing::Frames => self.frame(),
        }
    }

    /// Where the next line is.
    fn line(&mut self) -> Result<Option<Range<usize>>, Garbage> {
        let from = self.searched.max(self.at);
        let Some(length) = memchr(b'\n', &self.bytes[from..]) else {
            self.searched = self.bytes.len();
            return too_long(self.bytes.len() - self.at).map(|()| None);
        };
        let line = self.at..from + length;
        self.at = line.end + 1;
        Ok(Some(line))
    }

    fn frame(&mut self) -> Result<Option<Said<'_>>, Garbage> {
        if let Some(batch) = self.batch.take() {
            return Ok(Some(self.of_batch(batch)));
        }
        let rest = &self.bytes[self.at..];
        let Some((length, id, kind)) = read_head(rest) else { return Ok(None) };
        if kind > kind::JSON_BATCH {
            return Err(Garbage(format!("a frame of the unknown kind {kind}")));
        }
        too_long(length)?;
        if rest.len() < HEAD + length {
            return Ok(None);
        }
        self.at += HEAD;
        if let kind::BYTES_BATCH | kind::JSON_BATCH = kind {
            let form = if kind == kind::JSON_BATCH { Form::Json } else { Form::Bytes };
            return Ok(Some(self.of_batch(Batch { form, id, length })));
        }
        let body = &self.bytes[self.at..self.at + length];
        self.at += length;
        Ok(Some(match kind {
            kind::READY => Said::Ready { at_once: id, takes_batches: body == TAKES_BATCHES },
            kind::FATAL => Said::Fatal(remote(body)?),
            kind::ERROR => {
                Said::Answer { id: Some(id), result: Err(remote(body)?), is_followed: false }
            }
            kind::JSON => answer(id, Form::Json, body),
            _ => answer(id, Form::Bytes, body),
        }))
    }
}

impl Reader {
    /// The next answer of a batch.
    fn of_batch(&mut self, batch: Batch) -> Said<'_> {
        let Batch { form, id, length } = batch;
        let begin = self.at;
        let end = match memchr(0, &self.bytes[begin..begin + length]) {
            Some(zero) => {
                self.at += zero + 1;
                let length = length - zero - 1;
                self.batch = Some(Batch { form, id: id.wrapping_add(1), length });
                begin + zero
            }
            None => {
                self.at += length;
                self.at
            }
        };
        answer(id, form, &self.bytes[begin..end])
    }
}

fn answer(id: u32, form: Form, body: &[u8]) -> Said<'_> {
    Said::Answer { id: Some(id), result: Ok((form, Cow::Borrowed(body))), is_followed: false }
}

fn too_long(length: usize) -> Result<(), Garbage> {
    if length > LONGEST {
        return Err(Garbage(format!("an answer of more than {} MiB", LONGEST >> 20)));
    }
    Ok(())
}

fn remote(body: &[u8]) -> Result<RemoteError, Garbage> {
    #[derive(Deserialize)]
    struct Told {
        name: Option<String>,
        message: String,
        traceback: Option<String>,
    }
    let told: Told = serde_json::from_slice(body)
        .map_err(|error| Garbage(format!("an error that cannot be read: {error}")))?;
    Ok(RemoteError { name: told.name, message: told.message, traceback: told.traceback })
}

fn json(line: &[u8]) -> Result<Said<'_>, Garbage> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        id: u32,
        #[serde(borrow)]
        value: Option<&'a RawValue>,
        value_b64: Option<String>,
        #[serde(borrow)]
        error: Option<&'a RawValue>,
    }
    let no_answer = |why: &dyn std::fmt::Display| Garbage(format!("`{}`: {why}", shown(line)));
    let answer: Answer<'_> = serde_json::from_slice(line).map_err(|error| no_answer(&error))?;
    let is_null = |value: &&RawValue| value.get() == "null";
    let result = if let Some(error) = answer.error.filter(|error| !is_null(error)) {
        let text = text_of(error);
        let message = String::from_utf8_lossy(
            text.as_ref().map_or_else(|| error.get().as_bytes(), |text| text.as_bytes()),
        )
        .into_owned();
        Err(RemoteError { name: None, message, traceback: None })
    } else if let Some(encoded) = answer.value_b64 {
        let bytes = BASE64_STANDARD.decode(encoded).map_err(|error| no_answer(&error))?;
        Ok((Form::Bytes, Cow::Owned(bytes)))
    } else if let Some(value) = answer.value {
        Ok(match text_of(value) {
            Some(text) => (Form::Bytes, Cow::Owned(text.into_bytes())),
            None => (Form::Json, Cow::Borrowed(value.get().as_bytes())),
        })
    } else if has_value(line) {
        Ok((Form::Json, Cow::Borrowed(&b"null"[..])))
    } else {
        return Err(no_answer(&"has neither `value` nor `error`"));
    };
    Ok(Said::Answer { id: Some(answer.id), result, is_followed: false })
}

/// Whether the object has a `value` at all: `null` is one.
fn has_value(line: &[u8]) -> bool {
    let object: Result<serde_json::Map<String, serde_json::Value>, _> =
        serde_json::from_slice(line);
    object.is_ok_and(|object| object.contains_key("value"))
}

/// The text, if the value is a string.
fn text_of(value: &RawValue) -> Option<String> {
    value.get().starts_with('"').then(|| serde_json::from_str(value.get()).ok()).flatten()
}

/// The beginning of a line, for a message.
pub(crate) fn shown(line: &[u8]) -> String {
    const LONGEST: usize = 80;
    let text = String::from_utf8_lossy(line);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}
