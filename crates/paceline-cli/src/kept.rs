//! Outputs that wait for those of the items before them.
//!
//! With the order kept, one late job has the outputs of thousands wait. A
//! few MiB of them wait in memory; the others in files without a name, many
//! outputs to a file, so that neither memory nor descriptors run out.
//!
//! Not here: when it is whose turn (`commands/drive.rs`, `lines.rs`).

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use paceline_process::Captured;

/// How many bytes wait in memory.
const IN_MEMORY: usize = 8 << 20;

/// How many outputs keep the file of their own that they came in.
const OWN_FILES: usize = 32;

/// A file that has grown to this takes no more: it goes when its last output does.
const FULL: u64 = 256 << 20;

/// What is copied at once.
const CHUNK: usize = 64 << 10;

/// Has outputs wait. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keeper(Arc<Mutex<Room>>);

#[derive(Debug, Default)]
struct Room {
    bytes: usize,
    own_files: usize,
    /// Where outputs are added, and how much of it is taken.
    file: Option<(Arc<File>, u64)>,
}

/// An output, or a piece of one.
#[derive(Debug)]
pub(crate) struct Kept {
    place: Place,
    /// Who has the room back in the end, if any was taken.
    keeper: Option<Keeper>,
}

#[derive(Debug)]
enum Place {
    Own(Captured),
    Memory(Vec<u8>),
    File { file: Arc<File>, at: u64, len: u64 },
}

impl Keeper {
    /// Has `output` wait.
    ///
    /// # Errors
    ///
    /// If it has to go to a file and cannot be written there; with the output.
    pub(crate) fn keep(&self, output: Captured) -> Result<Kept, (Captured, io::Error)> {
        if output.is_spilled() {
            {
                let mut room = self.room();
                if room.own_files < OWN_FILES {
                    room.own_files += 1;
                    return Ok(Kept { place: Place::Own(output), keeper: Some(self.clone()) });
                }
            }
            let copied = self.file(output.len(), |file, at| copy(&output, file, at));
            return copied.map_err(|error| (output, error));
        }
        let mut kept = Kept { place: Place::Memory(Vec::new()), keeper: Some(self.clone()) };
        let bytes = output.as_bytes().unwrap_or_default();
        if kept.grow(bytes) {
            return Ok(kept);
        }
        self.spool(bytes).map_err(|error| (output, error))
    }

    /// Has `bytes` wait in a file.
    ///
    /// # Errors
    ///
    /// If they cannot be written there.
    pub(crate) fn spool(&self, bytes: &[u8]) -> io::Result<Kept> {
        self.file(bytes.len() as u64, |file, at| file.write_all_at(bytes, at))
    }

    /// Has `bytes` wait in memory, whether there is room or not.
    pub(crate) fn hold(&self, bytes: &[u8]) -> Kept {
        self.room().bytes += bytes.len();
        Kept { place: Place::Memory(bytes.to_vec()), keeper: Some(self.clone()) }
    }

    fn file(&self, len: u64, write: impl FnOnce(&File, u64) -> io::Result<()>) -> io::Result<Kept> {
        let (file, at) = {
            let mut room = self.room();
            let (file, at) = match room.file.take() {
                // Nobody's output may be in it any more: then from the beginning.
                Some((file, at)) if at < FULL => {
                    let at = if Arc::strong_count(&file) == 1 { 0 } else { at };
                    (file, at)
                }
                _ => (Arc::new(tempfile::tempfile()?), 0),
            };
            room.file = Some((file.clone(), at + len));
            (file, at)
        };
        // The place is taken: others write beside it meanwhile.
        write(&file, at)?;
        Ok(Kept { place: Place::File { file, at, len }, keeper: None })
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn copy(output: &Captured, file: &File, mut at: u64) -> io::Result<()> {
    let mut reader = output.reader();
    let mut buffer = vec![0; CHUNK];
    loop {
        match io::Read::read(&mut reader, &mut buffer)? {
            0 => return Ok(()),
            read => {
                file.write_all_at(&buffer[..read], at)?;
                at += read as u64;
            }
        }
    }
}

impl Kept {
    /// Adds `bytes` if this is in memory, where there is room for them.
    pub(crate) fn grow(&mut self, bytes: &[u8]) -> bool {
        let (Place::Memory(all), Some(keeper)) = (&mut self.place, &self.keeper) else {
            return false;
        };
        let mut room = keeper.room();
        if room.bytes + bytes.len() > IN_MEMORY {
            return false;
        }
        room.bytes += bytes.len();
        all.extend_from_slice(bytes);
        true
    }

    /// Makes one piece of this and `next` if they lie side by side in a file;
    /// gives `next` back if they do not.
    pub(crate) fn join(&mut self, next: Self) -> Option<Self> {
        match (&mut self.place, &next.place) {
            (Place::File { file, at, len }, Place::File { file: other, at: from, len: more })
                if Arc::ptr_eq(file, other) && *at + *len == *from =>
            {
                *len += more;
                None
            }
            _ => Some(next),
        }
    }

    /// Says whether there are no bytes.
    pub(crate) fn is_empty(&self) -> bool {
        match &self.place {
            Place::Own(output) => output.is_empty(),
            Place::Memory(bytes) => bytes.is_empty(),
            Place::File { len, .. } => *len == 0,
        }
    }

    /// Writes all bytes to `writer`.
    ///
    /// # Errors
    ///
    /// Those of `writer`, or of reading the file.
    pub(crate) fn write_to(&self, writer: &mut impl Write) -> io::Result<()> {
        match &self.place {
            Place::Own(output) => output.write_to(writer),
            Place::Memory(bytes) => writer.write_all(bytes),
            Place::File { file, at, len } => {
                let (mut at, end) = (*at, at + len);
                let mut buffer = vec![0; CHUNK.min(usize::try_from(*len).unwrap_or(CHUNK))];
                while at < end {
                    let left = usize::try_from(end - at).unwrap_or(CHUNK).min(buffer.len());
                    file.read_exact_at(&mut buffer[..left], at)?;
                    writer.write_all(&buffer[..left])?;
                    at += left as u64;
                }
                Ok(())
            }
        }
    }

    /// All bytes.
    ///
    /// # Errors
    ///
    /// Those of reading the file.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_to(&mut bytes)?;
        Ok(bytes)
    }
}

/// One that does not wait for others.
impl From<Captured> for Kept {
    fn from(output: Captured) -> Self {
        Self { place: Place::Own(output), keeper: None }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        let mut room = keeper.room();
        match &self.place {
            Place::Own(_) => room.own_files -= 1,
            Place::Memory(bytes) => room.bytes -= bytes.len(),
            Place::File { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_comes_back_as_it_was_from_memory_and_from_files() {
        let keeper = Keeper::default();
        let piece = |number: usize| vec![u8::try_from(number % 251).unwrap(); 100_000 + number];
        let many: Vec<Kept> = (0..200)
            .map(|number| {
                let mut kept = keeper.hold(b"");
                if kept.grow(&piece(number)) { kept } else { keeper.spool(&piece(number)).unwrap() }
            })
            .collect();
        assert!(keeper.room().bytes <= IN_MEMORY);
        assert!(matches!(many[199].place, Place::File { .. }));
        for (number, kept) in many.iter().enumerate() {
            assert_eq!(kept.to_bytes().unwrap(), piece(number));
        }
        drop(many);
        assert_eq!(keeper.room().bytes, 0);
        // The file is used from its beginning once nobody's output is in it.
        drop(keeper.spool(b"again").unwrap());
        assert_eq!(keeper.room().file.as_ref().unwrap().1, 5);
    }
}
