//! What the journal could not do.

use std::{error, fmt, io, path::Path};

/// A journal could not be opened, read or written.
///
/// The message names the file; [`kind`](Error::kind) says what a caller can act on.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    hint: Option<&'static str>,
    source: Option<Source>,
}

type Source = Box<dyn error::Error + Send + Sync>;

/// What a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no such file.
    Missing,
    /// Another runner writes to it: its process number, if it is known.
    Locked(Option<u32>),
    /// It belongs to somebody else, or somebody else may write to it.
    Untrusted,
    /// A later version of paceline has made it.
    Newer,
    /// It is no journal.
    Foreign,
    /// It is damaged.
    Damaged,
    /// It has no such run.
    NoRun,
    /// Reading or writing it went wrong.
    Io,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None, source: None }
    }

    pub(crate) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    pub(crate) fn io(what: &str, path: &Path, error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::Missing,
            _ => ErrorKind::Io,
        };
        let message = format!("could not {what} `{}`", path.display());
        Self { source: Some(Box::new(error)), ..Self::new(kind, message) }
    }

    pub(crate) fn sql(what: &str, path: &Path, error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode as Code;
        let kind = match error.sqlite_error_code() {
            Some(Code::DatabaseCorrupt) => ErrorKind::Damaged,
            Some(Code::NotADatabase) => ErrorKind::Foreign,
            _ => ErrorKind::Io,
        };
        let path = path.display();
        match kind {
            ErrorKind::Damaged => Self {
                source: Some(Box::new(error)),
                ..Self::new(kind, format!("the journal `{path}` is damaged"))
                    .hint("`sqlite3 JOURNAL .recover` saves what is left; then begin another one")
            },
            ErrorKind::Foreign => Self::new(kind, format!("`{path}` is no journal"))
                .hint("it is a file of something else; name another one"),
            _ => Self {
                source: Some(in_words(error)),
                ..Self::new(kind, format!("could not {what} the journal `{path}`"))
            },
        }
    }

    /// Returns the kind.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns what would help, if something would.
    pub fn help(&self) -> Option<&'static str> {
        self.hint
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_ref().map(|source| &**source as _)
    }
}

/// An error of SQLite as the system's own words, where it stands for one of the system's.
fn in_words(error: rusqlite::Error) -> Source {
    use rusqlite::ffi;
    let Some(found) = error.sqlite_error() else { return Box::new(error) };
    match found.extended_code {
        ffi::SQLITE_FULL => "no space left on device".into(),
        ffi::SQLITE_READONLY_DBMOVED => "the file has been moved or removed".into(),
        ffi::SQLITE_BUSY => "another program has held it locked for too long".into(),
        code if code & 0xff == ffi::SQLITE_IOERR => {
            let doing = match code {
                ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => "syncing",
                ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ => "reading",
                ffi::SQLITE_IOERR_TRUNCATE => "truncating",
                ffi::SQLITE_IOERR_LOCK | ffi::SQLITE_IOERR_UNLOCK => "locking",
                // SQLite does not tell these from other errors.
                ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP => {
                    return "its shared memory cannot grow: is the disk full?".into();
                }
                _ => "writing",
            };
            format!("input/output error in {doing} it").into()
        }
        _ => Box::new(error),
    }
}

/// Adds what was being done and where to an error of SQLite.
pub(crate) trait At<T> {
    fn at(self, what: &str, path: &Path) -> Result<T, Error>;
}

impl<T> At<T> for rusqlite::Result<T> {
    fn at(self, what: &str, path: &Path) -> Result<T, Error> {
        self.map_err(|error| Error::sql(what, path, error))
    }
}

impl<T> At<T> for io::Result<T> {
    fn at(self, what: &str, path: &Path) -> Result<T, Error> {
        self.map_err(|error| Error::io(what, path, error))
    }
}

/// Does something with the database at `path`, and names it if that goes wrong.
pub(crate) fn try_to<T>(
    what: &str,
    path: &Path,
    act: impl FnOnce() -> rusqlite::Result<T>,
) -> Result<T, Error> {
    act().at(what, path)
}
