//! The journal's file: whose it is, who else has it, and where it lies.

use std::{
    ffi::OsString,
    fs::{DirBuilder, File},
    io::{self, Read, Seek, Write},
    os::{
        fd::AsFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::error::{At, Error, ErrorKind};

/// Kept open, and locked, by whoever writes to a journal.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Locks the journal at `path` for this process.
    ///
    /// # Errors
    ///
    /// If another process has it: with its number.
    pub(crate) fn take(path: &Path) -> Result<Self, Error> {
        let path = beside(path, ".lock");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .at("open", &path)?;
        // The lock goes with the descriptor, which no job inherits: it ends with this process.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(held(&path, &mut file)),
            Err(error) => return Err(Error::io("lock", &path, error.into())),
        }
        // Not being able to say who we are is no reason not to go on.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn held(path: &Path, file: &mut File) -> Error {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    let pid = text.trim().parse::<u32>().ok();
    let journal = path.with_extension("");
    let by = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    let message = format!("the journal `{}` is in use by {by}", journal.display());
    Error::new(ErrorKind::Locked(pid), message)
        .hint("wait for it, or use another journal: `--journal FILE`")
}

/// The path of what lies beside the journal.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// The folder that is made for a journal; any other has to be there.
const FOLDER: &str = ".paceline";

/// Makes the file if it is not there, for us alone, and [`FOLDER`] if it lies in that.
pub(crate) fn create(path: &Path) -> Result<(), Error> {
    if let Some(folder) = path.parent()
        && folder.ends_with(FOLDER)
        && !folder.exists()
    {
        DirBuilder::new().mode(0o700).create(folder).at("create", folder)?;
    }
    match File::options().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::io("create the journal", path, error)),
    }
}

/// Refuses a file that another user could have written.
pub(crate) fn check_owner(path: &Path) -> Result<(), Error> {
    let found = std::fs::metadata(path).at("open the journal", path)?;
    let shown = path.display();
    if !found.is_file() {
        return Err(Error::new(ErrorKind::Foreign, format!("the journal `{shown}` is no file")));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        let message = format!("the journal `{shown}` belongs to another user");
        return Err(Error::new(ErrorKind::Untrusted, message)
            .hint("what it says could be made up; use a journal of your own: `--journal FILE`"));
    }
    let mode = found.permissions().mode();
    if mode & 0o022 != 0 {
        let message = format!("others may write to the journal `{shown}`");
        return Err(Error::new(ErrorKind::Untrusted, message)
            .hint("if you trust what is in it: chmod 600 JOURNAL"));
    }
    Ok(())
}

/// Refuses a file that is no database: before anything about it is changed.
pub(crate) fn check_kind(path: &Path) -> Result<(), Error> {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    let mut start = Vec::new();
    let file = File::open(path).at("open the journal", path)?;
    file.take(MAGIC.len() as u64).read_to_end(&mut start).at("read", path)?;
    if start.is_empty() || start == MAGIC {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Foreign, format!("`{}` is no journal", path.display()))
        .hint("it is a file of something else; name another one"))
}

/// Takes from others the right to read the file, and what lies beside it.
pub(crate) fn make_private(path: &Path) -> Result<(), Error> {
    for ending in ["", "-wal", "-shm", ".printed"] {
        let path = beside(path, ending);
        let mode = match std::fs::metadata(&path) {
            Ok(found) => found.permissions().mode(),
            Err(_) if !ending.is_empty() => continue,
            Err(error) => return Err(Error::io("open the journal", &path, error)),
        };
        if mode & 0o077 != 0 {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))
                .at("protect", &path)?;
        }
    }
    Ok(())
}

/// The name of the file system that `path` lies on, if a write-ahead log is not safe there.
///
/// Its readers share memory with the writer, which they cannot across a network.
pub(crate) fn shared_file_system(path: &Path) -> Option<&'static str> {
    const KNOWN: [(i64, &str); 9] = [
        (0x6969, "NFS"),
        (0xff53_4d42, "SMB"),
        (0xfe53_4d42, "SMB"),
        (0x517b, "SMB"),
        (0x6573_5546, "FUSE"),
        (0x0102_1997, "9P"),
        (0x00c3_6400, "Ceph"),
        (0x5346_414f, "AFS"),
        (0x0bd0_0bd0, "Lustre"),
    ];
    let file = File::open(path).ok()?;
    let found = rustix::fs::fstatfs(file.as_fd()).ok()?;
    let kind = found.f_type as i64 & 0xffff_ffff;
    KNOWN.iter().find(|(magic, _)| *magic == kind).map(|(_, name)| *name)
}
