//! What a stage made: in the database, or in a file beside it if it is large.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::error::{At, Error, ErrorKind};

/// Results over this many bytes are kept in files.
pub const LARGEST_INSIDE: usize = 64 << 10;

/// A result as it is recorded.
///
/// ```
/// use paceline_journal::Content;
///
/// assert_eq!(Content::Bytes("thumbs/a.jpg".into()), Content::Bytes("thumbs/a.jpg".into()));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// There is none.
    Nothing,
    /// These bytes, in the database.
    Bytes(Bytes),
    /// In a file of the folder beside the database, which has this name.
    File(String),
}

/// The folder of the large results of a journal.
pub(crate) fn folder(journal: &Path) -> PathBuf {
    let mut name = journal.as_os_str().to_owned();
    name.push(".values");
    PathBuf::from(name)
}

/// Keeps in a file what `write` writes, under a name that is its hash.
///
/// # Errors
///
/// If the file cannot be written.
pub(crate) fn keep(
    journal: &Path,
    durable: bool,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<String, Error> {
    let folder = folder(journal);
    let made = DirBuilder::new().mode(0o700).create(&folder);
    if let Err(error) = made
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(Error::io("create the folder", &folder, error));
    }
    // 0600, as temporary files are.
    let mut hashing = Hashing {
        file: tempfile::NamedTempFile::new_in(&folder).at("write into", &folder)?,
        hasher: blake3::Hasher::new(),
    };
    write(&mut hashing).at("write into", &folder)?;
    let name = hashing.hasher.finalize().to_hex().to_string();
    if durable {
        hashing.file.as_file().sync_data().at("write into", &folder)?;
    }
    let path = folder.join(&name);
    // In place of one with the same content, if there is one.
    hashing.file.persist(&path).map_err(|error| Error::io("write", &path, error.error))?;
    if durable {
        File::open(&folder).and_then(|folder| folder.sync_all()).at("write into", &folder)?;
    }
    Ok(name)
}

struct Hashing {
    file: tempfile::NamedTempFile,
    hasher: blake3::Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Reads a result that is in a file.
///
/// # Errors
///
/// If it cannot be read, or is not what was written.
pub(crate) fn read(journal: &Path, name: &str) -> Result<Vec<u8>, Error> {
    let is_hash = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash {
        let message = format!("the journal `{}` names a result that is none", journal.display());
        return Err(Error::new(ErrorKind::Damaged, message));
    }
    let path = folder(journal).join(name);
    let no_link = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut bytes = Vec::new();
    File::options()
        .read(true)
        .custom_flags(no_link)
        .open(&path)
        .and_then(|mut file| file.read_to_end(&mut bytes))
        .at("read", &path)?;
    if blake3::hash(&bytes).to_hex().as_str() != name {
        let message = format!("the recorded result `{}` is damaged", path.display());
        return Err(Error::new(ErrorKind::Damaged, message));
    }
    Ok(bytes)
}

/// The bytes that the files of large results take.
pub(crate) fn size(journal: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder(journal)) else { return 0 };
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}
