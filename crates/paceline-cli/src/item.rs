//! An item on its way through the stages of a pipeline file.
//!
//! An [`Origin`] is an item as it came from the source, and stays what it is.
//! A [`Value`] is what the stages have made of it so far; it knows what each
//! stage made, for `{NAME}`. A batch is one value with several origins.
//!
//! Not here: where items come from (`source.rs`) and what is told of them
//! (`report.rs`).

use std::{borrow::Cow, io, sync::Arc};

use bytes::Bytes;
use paceline::{FailureKind, Fault, Part};
use paceline_journal::{Id, Made};

use crate::{
    kept::Kept,
    source::{Defect, Fields, Item},
    template::{ExpandError, Values, expand::Lookup},
};

/// An item as it came from the source.
#[derive(Debug)]
pub(crate) struct Origin {
    /// Counts from 1, in the order in which items are taken: the engine's own number.
    pub(crate) seq: u64,
    /// `{#}`: its number in the run. Another one if the run goes on with an earlier session.
    pub(crate) number: u64,
    /// What it is in the journal, if there is one.
    pub(crate) identity: Option<Identity>,
    pub(crate) item: Item,
    /// The value of each input source, where there are several.
    pub(crate) parts: Vec<Bytes>,
}

/// What an item is in a journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub(crate) id: Id,
    /// Which of its equals it is, from 1.
    pub(crate) ordinal: u64,
    /// Whether it is recorded already.
    pub(crate) is_recorded: bool,
}

impl Origin {
    /// The item's id: a hash of its bytes, with its number where there is no
    /// journal to number equals by.
    pub(crate) fn id(&self) -> String {
        if let Some(identity) = &self.identity {
            return blake3::Hash::from_slice(&[identity.id, [0; 16]].concat())
                .map_or_else(|_| String::new(), |id| id.to_hex()[..32].to_owned());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seq.to_le_bytes());
        hasher.update(&self.item.bytes);
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// Why it fails before any work on it.
    fn defect(&self) -> Option<Fault> {
        let defect = self.item.defect.as_deref()?;
        let kind = match defect {
            Defect::TooLong { .. } => FailureKind::TooLong,
            Defect::Broken { .. } => FailureKind::Io,
        };
        Some(Fault::new(kind, defect.to_string()).permanent())
    }
}

/// What the stages have made of an item, or of the items of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    /// The items it answers for, in order; one unless a batch was made.
    pub(crate) origins: Vec<Arc<Origin>>,
    /// `{#}`: the item's number, or that of the batch.
    pub(crate) number: u64,
    /// `{}`: one, or one for each item where a batch has just been made.
    values: Vec<Bytes>,
    /// What each stage so far has made, in the order of the stages.
    results: Vec<Vec<Bytes>>,
    /// What the last job wrote, where that is printed as it is.
    output: Option<Arc<Kept>>,
    /// What stages have made of it in an earlier session, from the first stage on.
    recalled: Vec<Made>,
    /// Whether it was put together of several items, or could have been.
    pub(crate) is_batch: bool,
}

impl Value {
    /// The value of an item that no stage has seen.
    pub(crate) fn new(origin: Arc<Origin>) -> Self {
        let values = origin.parts.clone();
        Self {
            number: origin.number,
            origins: vec![origin],
            values,
            results: Vec::new(),
            output: None,
            recalled: Vec::new(),
            is_batch: false,
        }
    }

    /// The value of an item of which some stages have made this.
    pub(crate) fn recalling(origin: Arc<Origin>, recalled: Vec<Made>) -> Self {
        Self { recalled, ..Self::new(origin) }
    }

    /// Whether the next stage has made something of it in an earlier session.
    pub(crate) fn is_recalled(&self) -> bool {
        self.results.len() < self.recalled.len()
    }

    /// Becomes what the next stage has made of it in an earlier session.
    pub(crate) fn recall(self) -> Self {
        let made = self.recalled.get(self.results.len()).map(|made| made.value.clone());
        self.then(made.unwrap_or_default())
    }

    /// Which batch of the next stage it was a part of in an earlier session.
    pub(crate) fn part(&self) -> Option<Part> {
        let (batch, of) = self.recalled.get(self.results.len())?.batch?;
        Some(Part { batch, items: self.origins.len(), of })
    }

    /// Makes one value of those of a batch.
    pub(crate) fn merge(batch: Vec<Self>, number: u64) -> Self {
        let stages = batch.first().map_or(0, |value| value.results.len());
        let mut merged = Self {
            origins: Vec::new(),
            number,
            values: Vec::new(),
            results: vec![Vec::new(); stages],
            output: None,
            recalled: Vec::new(),
            is_batch: true,
        };
        for value in batch {
            if merged.recalled.is_empty() {
                merged.recalled = value.recalled;
            }
            merged.origins.extend(value.origins);
            merged.values.extend(value.values);
            for (all, result) in merged.results.iter_mut().zip(value.results) {
                all.extend(result);
            }
        }
        merged
    }

    /// Becomes what a stage has made of it.
    pub(crate) fn then(mut self, result: impl Into<Bytes>) -> Self {
        self.values = vec![result.into()];
        self.results.push(self.values.clone());
        self
    }

    /// Becomes what the last job wrote.
    pub(crate) fn printing(mut self, output: Arc<Kept>) -> Self {
        self.output = Some(output);
        self
    }

    /// What it came to: what the last job wrote without its last newline, or
    /// what the last stage made of it.
    ///
    /// # Errors
    ///
    /// If an output that went to a file cannot be read back.
    pub(crate) fn result(&self) -> io::Result<Cow<'_, [u8]>> {
        let Some(output) = &self.output else { return Ok(self.bytes()) };
        let mut bytes = output.to_bytes()?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
        }
        Ok(Cow::Owned(bytes))
    }

    /// What the last job wrote, if it is to be printed as it is.
    pub(crate) fn output(&self) -> Option<&Arc<Kept>> {
        self.output.as_ref()
    }

    /// The bytes of a value that is not a batch's; a batch's joined by blanks.
    pub(crate) fn bytes(&self) -> Cow<'_, [u8]> {
        match self.values.as_slice() {
            [one] => Cow::Borrowed(one),
            many => Cow::Owned(many.join(&b' ')),
        }
    }

    /// The fields of the item that it was made of, if it is one and has any.
    pub(crate) fn fields(&self) -> Option<&Fields> {
        match self.origins.as_slice() {
            [one] => one.item.fields.as_deref(),
            _ => None,
        }
    }

    /// The item and its fields, if it has any and no stage has made something
    /// else of it.
    pub(crate) fn untouched_fields(&self) -> Option<(&Bytes, &Fields)> {
        let item = &self.origins.first()?.item;
        let fields = self.fields().filter(|_| self.results.is_empty())?;
        Some((&item.bytes, fields))
    }

    /// The engine's number of its first item: whose turn it is.
    pub(crate) fn turn(&self) -> u64 {
        self.origins.first().map_or(self.number, |origin| origin.seq)
    }

    /// The number of its first item in the run: whose output files are its own.
    pub(crate) fn owner(&self) -> u64 {
        self.origins.first().map_or(self.number, |origin| origin.number)
    }

    /// What a job reads from its standard input: the value as it is, or each
    /// of a batch as a line.
    pub(crate) fn as_input(&self, is_batch: bool) -> Vec<u8> {
        if !is_batch {
            return self.bytes().into_owned();
        }
        let values: Vec<&[u8]> = self.values.iter().map(|value| &**value).collect();
        lines_of(&values, true)
    }

    /// Refuses an item that came broken from its source.
    ///
    /// # Errors
    ///
    /// The item's defect, as a fault that no retry mends.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        if !self.results.is_empty() {
            return Ok(());
        }
        match self.origins.iter().find_map(|origin| origin.defect()) {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Gives `expand` what the placeholders stand for. `stages` are the names
    /// of the stages, in order.
    ///
    /// # Errors
    ///
    /// If a template has no value for this item: a fault that no retry mends.
    pub(crate) fn expand<T>(
        &self,
        stages: &[String],
        slot: usize,
        out: Option<&[u8]>,
        expand: impl FnOnce(&Values<'_>) -> Result<T, ExpandError>,
    ) -> Result<T, Fault> {
        let values: Vec<&[u8]> = self.values.iter().map(|value| &**value).collect();
        let inputs: Vec<&[u8]> =
            self.origins.iter().flat_map(|origin| &origin.parts).map(|part| &**part).collect();
        let names = |name: &str| self.named(stages, name);
        let names: &Lookup<'_> = &names;
        let all = Values {
            values: &values,
            inputs: &inputs,
            sources: &inputs,
            seq: self.number,
            slot,
            out,
            names: Some(names),
        };
        expand(&all).map_err(|error| {
            let kind = match error {
                ExpandError::TooLong(_) => FailureKind::TooLong,
                _ => FailureKind::Io,
            };
            Fault::new(kind, error).permanent()
        })
    }

    /// What the stage, or else the field, called `name` holds.
    fn named(&self, stages: &[String], name: &str) -> Result<Vec<Cow<'_, [u8]>>, String> {
        if let Some(results) =
            stages.iter().position(|stage| stage == name).and_then(|at| self.results.get(at))
        {
            return Ok(results.iter().map(|result| Cow::Borrowed(&**result)).collect());
        }
        self.origins.iter().map(|origin| origin.item.field(name)).collect()
    }
}

/// What a job reads that gets these on standard input: one as it is, a batch a line each.
pub(crate) fn lines_of(values: &[&[u8]], is_batch: bool) -> Vec<u8> {
    if !is_batch {
        return values.join(&b' ');
    }
    values.iter().flat_map(|value| [*value, &b"\n"[..]].concat()).collect()
}
