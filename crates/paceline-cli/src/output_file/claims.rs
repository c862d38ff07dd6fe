//! Which item of a run owns which output name.
//!
//! A name is kept as a hash of its folder's identity and itself, so that
//! paths that lead to one file by different ways meet, and a million names
//! cost some 50 MB, whatever their length.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

/// Device and inode of a folder.
pub(crate) type FolderId = (u64, u64);

/// The output names of a run, each with the item that asked for it first. A
/// clone is the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(Arc<Mutex<HashMap<[u8; 16], u64>>>);

impl Claims {
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
        let mut holders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
