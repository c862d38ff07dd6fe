//! An item on its way: its identity and what it carries.
//!
//! Whatever enters a stage leaves it again, as a value or as a mark (failed), so that order can be kept by counting and the account adds up
//! by construction. An item keeps one identity from the source to the end.
//! Where one item became many (fan-out) or many became one (fan-in), a
//! [`Family`] remembers for whom the new ones answer.
//!
//! Not here: who counts the endings (`account.rs`).

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{failure::Failure, sync::lock};

/// Which item of the source something is about.
///
/// Items count from 1 in the order in which they came from the source. After
/// a fan-in one id stands for all items of the batch.
#[derive(Clone)]
pub struct ItemId {
    /// The position in the current numbering: the source's, or that of the
    /// last fan-out or fan-in. Contiguous, so that order can be restored.
    pub(crate) position: u64,
    pub(crate) family: Option<Arc<Family>>,
}

impl ItemId {
    pub(crate) fn of_source(position: u64) -> Self {
        Self { position, family: None }
    }

    /// Returns the numbers of the source's items that this id stands for, counting from 1.
    pub fn sequence_numbers(&self) -> Vec<u64> {
        match &self.family {
            None => vec![self.position],
            Some(family) => {
                let mut numbers: Vec<u64> =
                    family.parents.iter().flat_map(Self::sequence_numbers).collect();
                numbers.sort_unstable();
                numbers.dedup();
                numbers
            }
        }
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sequence_numbers().as_slice() {
            [one] => write!(f, "item {one}"),
            many => {
                let many: Vec<String> = many.iter().map(u64::to_string).collect();
                write!(f, "items {}", many.join(", "))
            }
        }
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What became of an item in the end.
#[derive(Clone, Debug)]
pub enum Ending {
    /// Every stage answered for it.
    Ok,
    /// The run was stopped before every stage had answered for it.
    Unfinished,
    /// A stage gave it up.
    Failed(Failure),
}

impl Ending {
    fn severity(&self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Unfinished => 1,
            Self::Failed(_) => 2,
        }
    }
}

/// The items that a fan-out or fan-in made, and those they answer for.
///
/// `pending` starts at 1 for whoever is still making the family's members,
/// so that a fast member cannot end its parents before the last is made.
pub(crate) struct Family {
    parents: Vec<ItemId>,
    pending: AtomicUsize,
    worst: Mutex<Ending>,
}

impl Family {
    pub(crate) fn new(parents: Vec<ItemId>) -> Arc<Self> {
        Arc::new(Self { parents, pending: AtomicUsize::new(1), worst: Mutex::new(Ending::Ok) })
    }

    /// Counts one more member.
    pub(crate) fn grow(&self) {
        self.pending.fetch_add(1, Ordering::Relaxed);
    }

    /// The id of the only thing that answers for `parents` from here on.
    pub(crate) fn sole_member(parents: Vec<ItemId>, position: u64) -> ItemId {
        ItemId { position, family: Some(Self::new(parents)) }
    }

    /// Takes the ending of one member, and gives the parents with theirs if it was the last.
    pub(crate) fn member_ended(&self, ending: Ending) -> Option<(&[ItemId], Ending)> {
        if ending.severity() > 0 {
            let mut worst = lock(&self.worst);
            if ending.severity() > worst.severity() {
                *worst = ending;
            }
        }
        (self.pending.fetch_sub(1, Ordering::AcqRel) == 1)
            .then(|| (self.parents.as_slice(), lock(&self.worst).clone()))
    }
}

/// An item between two stages.
pub(crate) struct Envelope<T> {
    pub(crate) id: ItemId,
    /// The number of its entry in the journal: it may be seen when that is recorded.
    pub(crate) entry: u64,
    pub(crate) load: Load<T>,
}

/// What an envelope carries.
pub(crate) enum Load<T> {
    /// The payload, for the next stage to work on.
    Item(T),
    /// The payload, come back for another attempt in this stage. Rare, and
    /// boxed so that it does not make every envelope larger.
    Again(Box<Again<T>>),
    /// Nothing: a stage gave the item up. It is carried past the later stages untouched.
    Failed(Failure),
    /// Nothing: the run was stopped before a stage had answered. Carried on likewise.
    Unfinished,
}

/// An item that waited for another attempt.
pub(crate) struct Again<T> {
    pub(crate) item: T,
    /// The attempts made so far.
    pub(crate) tries: u32,
}

impl<T> Envelope<T> {
    pub(crate) fn new(id: ItemId, load: Load<T>) -> Self {
        Self { id, entry: 0, load }
    }

    /// The same, to be seen when this entry of the journal is recorded.
    pub(crate) fn recorded_as(mut self, entry: u64) -> Self {
        self.entry = entry;
        self
    }
}
