//! Which item of a run owns which output name.
//!
//! A name is kept as a hash of its folder's identity and itself, so that
//! paths that lead to one file by different ways meet, and a million names
//! cost some 50 MB, whatever their length.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::journal::Record;

/// Device and inode of a folder.
pub(crate) type FolderId = (u64, u64);

/// The output names of a run, each with the item that asked for it first. A
/// clone is the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    holders: Arc<Mutex<HashMap<[u8; 16], u64>>>,
    record: Option<Record>,
}

impl Claims {
    /// Lets `record` know of the folders that files are made in.
    pub(crate) fn recorded_by(record: Option<Record>) -> Self {
        Self { record, ..Self::default() }
    }

    /// Notes that a file is about to be made in `folder`.
    pub(crate) fn enter(&self, folder: &Path) {
        if let Some(record) = &self.record {
            record.folder(folder);
        }
    }

    /// Whether files must be on the disk before they get their names.
    pub(crate) fn is_durable(&self) -> bool {
        self.record.as_ref().is_some_and(Record::is_durable)
    }

    /// Gives the name to the item `seq`, or the number of the item that has
    /// it. An item may claim its own name again, as a retry does.
    pub(crate) fn claim(&self, folder: FolderId, name: &[u8], seq: u64) -> Result<(), u64> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&folder.0.to_le_bytes());
        hasher.update(&folder.1.to_le_bytes());
        hasher.update(name);
        let mut key = [0; 16];
        hasher.finalize_xof().fill(&mut key);
        // A panic elsewhere leaves the map whole: each change is one insertion.
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        match holders.entry(key) {
            Entry::Occupied(holder) if *holder.get() != seq => Err(*holder.get()),
            Entry::Occupied(_) => Ok(()),
            Entry::Vacant(free) => {
                free.insert(seq);
                Ok(())
            }
        }
    }
}
