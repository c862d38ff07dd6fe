//! The facts that are recorded, as a run tells them.

use std::{
    collections::{HashMap, HashSet},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;

use crate::content::Content;

/// An item's identity: a hash of its bytes and of its ordinal among equals.
pub type Id = [u8; 16];

/// Gives the identity of the item with these bytes that is the `ordinal`-th of its equals, from 1.
pub fn identity(value: &[u8], ordinal: u64) -> Id {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&ordinal.to_le_bytes());
    hasher.update(value);
    let mut id = Id::default();
    hasher.finalize_xof().fill(&mut id);
    id
}

/// Counts equal items, so that each has an identity of its own.
///
/// It keeps some 20 bytes for each different item.
///
/// ```
/// let mut ordinals = paceline_journal::Ordinals::default();
/// assert_eq!([b"a", b"b", b"a"].map(|item| ordinals.count(item)), [1, 1, 2]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Ordinals {
    once: HashSet<u64>,
    more: HashMap<u64, u64>,
}

impl Ordinals {
    /// Returns which of its equals this item is, counted from 1.
    pub fn count(&mut self, value: &[u8]) -> u64 {
        // Two items that share these 8 bytes would count as equals: their identities differ all
        // the same, and stay what they are as long as their order does.
        let hash = blake3::hash(value);
        let mut key = [0; 8];
        key.copy_from_slice(&hash.as_bytes()[..8]);
        let key = u64::from_le_bytes(key);
        if self.once.insert(key) {
            return 1;
        }
        let ordinal = self.more.entry(key).or_insert(1);
        *ordinal += 1;
        *ordinal
    }
}

/// A run as it begins.
///
/// ```
/// let run = paceline_journal::NewRun::of_stages("run", "photos", &["fetch", "resize"]);
/// assert_eq!(run.stages.len(), 2);
/// ```
#[derive(Clone, Debug, Default)]
pub struct NewRun {
    /// What was asked for: `run` or `each`.
    pub command: String,
    /// The pipeline's name.
    pub name: String,
    /// The pipeline file, absolute, if there is one.
    pub pipeline: Option<Vec<u8>>,
    /// Where its items come from: `stdin`, `inputs`, `file`.
    pub source: String,
    /// Items that were given and not read.
    pub inputs: Vec<Vec<u8>>,
    /// The stages, in order.
    pub stages: Vec<StageSpec>,
}

impl NewRun {
    /// A run with stages of these names, and nothing else said.
    pub fn of_stages(command: &str, name: &str, stages: &[&str]) -> Self {
        let stage = |name: &&str| StageSpec { name: (*name).to_owned(), ..StageSpec::default() };
        Self {
            command: command.to_owned(),
            name: name.to_owned(),
            source: "file".to_owned(),
            stages: stages.iter().map(stage).collect(),
            ..Self::default()
        }
    }
}

/// A stage as a run is told of it.
///
/// ```
/// let stage = paceline_journal::StageSpec { name: "resize".into(), ..Default::default() };
/// assert_eq!(stage.definition, [0; 32]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StageSpec {
    /// Its name.
    pub name: String,
    /// Its kind of work.
    pub kind: String,
    /// A hash of all that decides what it makes of an item.
    pub definition: [u8; 32],
}

/// A fact to record.
///
/// ```
/// use paceline_journal::{Entry, Item, identity};
///
/// let entry = Entry::Taken(Item::new(1, identity(b"a", 1), b"a"));
/// # let _ = entry;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Entry {
    /// An item has been taken from the source.
    Taken(Item),
    /// A stage has answered for an item, or for all items of a batch.
    Answer(Answer),
    /// What became of these items has been told to whoever reads the results.
    Printed(Vec<u64>),
    /// Files are made in this folder: to clean up there after a kill.
    Folder(Vec<u8>),
    /// The source has been read to its end.
    SourceEnded,
}

/// An item as it came from the source.
///
/// ```
/// use paceline_journal::{Item, identity};
///
/// let item = Item::new(7, identity(b"a.jpg", 1), b"a.jpg");
/// assert_eq!((item.seq, item.ordinal), (7, 1));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number in the run, from 1.
    pub seq: u64,
    /// Its identity.
    pub id: Id,
    /// Which of its equals it is, from 1.
    pub ordinal: u64,
    /// Its bytes.
    pub value: Bytes,
    /// What else is needed to make it again, in the program's own words.
    pub detail: Option<Vec<u8>>,
    /// When it was taken.
    pub taken_unix_ms: i64,
}

impl Item {
    /// An item taken now, the first of its equals.
    pub fn new(seq: u64, id: Id, value: &[u8]) -> Self {
        Self {
            seq,
            id,
            ordinal: 1,
            value: Bytes::copy_from_slice(value),
            detail: None,
            taken_unix_ms: now(),
        }
    }
}

/// A stage's answer for an item, or for all items of a batch.
///
/// ```
/// use paceline_journal::{Answer, Content, Outcome};
///
/// let answer = Answer::new(1, 0, Outcome::Ok(Content::Nothing));
/// assert_eq!((answer.seqs, answer.attempts), (vec![1], 1));
/// ```
#[derive(Clone, Debug)]
pub struct Answer {
    /// The items' numbers; the first of a batch has its result.
    pub seqs: Vec<u64>,
    /// The stage, counted from 0.
    pub stage: usize,
    /// How many attempts were made.
    pub attempts: u32,
    /// The slot of the worker.
    pub worker: usize,
    /// The number of the batch, if it was one.
    pub batch: Option<u64>,
    /// When it answered.
    pub ended_unix_ms: i64,
    /// How long the last attempt took.
    pub service_us: u64,
    /// CPU time of the last attempt, if it is known.
    pub cpu_us: Option<u64>,
    /// The most memory that one of its processes had, if it is known.
    pub peak_memory_kb: Option<u64>,
    /// What the stage said.
    pub outcome: Outcome,
}

impl Answer {
    /// An answer given now, at the first attempt of the first worker.
    pub fn new(seq: u64, stage: usize, outcome: Outcome) -> Self {
        Self {
            seqs: vec![seq],
            stage,
            attempts: 1,
            worker: 1,
            batch: None,
            ended_unix_ms: now(),
            service_us: 0,
            cpu_us: None,
            peak_memory_kb: None,
            outcome,
        }
    }
}

/// What a stage made of an item.
///
/// ```
/// use paceline_journal::{Content, Outcome};
///
/// let made = Outcome::Ok(Content::Bytes("thumbs/a.jpg".into()));
/// # let _ = made;
/// ```
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Its result.
    Ok(Content),
    /// All attempts failed.
    Failed(Box<Failure>),
}

/// Why an item failed for good.
///
/// ```
/// let failure = paceline_journal::Failure { kind: "exit".into(), ..Default::default() };
/// assert_eq!(failure.code, None);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The kind, in the words of the program's `--json`.
    pub kind: String,
    /// The exit status, if there was one.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// The reason, in words.
    pub message: String,
    /// The command as it was run, if there was one.
    pub command: Option<String>,
    /// The end of what it wrote to its standard error.
    pub stderr: Vec<u8>,
}

/// The time of day, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a timestamp for people; nothing is timed by it")]
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_items_have_identities_of_their_own_whatever_is_between_them() {
        let ids = |items: &[&str]| {
            let mut ordinals = Ordinals::default();
            items
                .iter()
                .map(|item| identity(item.as_bytes(), ordinals.count(item.as_bytes())))
                .collect::<Vec<_>>()
        };
        let first = ids(&["a", "b", "a", "a"]);
        let unique: HashSet<_> = first.iter().collect();
        assert_eq!(unique.len(), 4);
        let moved = ids(&["new", "a", "a", "b", "a"]);
        assert_eq!(
            [moved[1], moved[2], moved[4], moved[3]],
            [first[0], first[2], first[3], first[1]]
        );
    }
}
