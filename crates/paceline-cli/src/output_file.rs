//! The file that `to` names: written beside its place, then renamed into it.
//!
//! The folder that the literal beginning of `to` names is the user's word and
//! is opened as it stands. From there on each component is opened relative to
//! the folder before it and without following symbolic links, so that nothing
//! a placeholder inserts can lead out. A name that comes apart into such
//! single steps needs no `openat2`, and holds on kernels without it.
//!
//! Not here: the replacement of placeholders ([`Target::new`] is told where
//! the literal part of the result ends).

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::fail_point;
use crate::steps::{Kind, Shown, StepError};

mod claims;
#[cfg(test)]
mod tests;

pub(crate) use claims::Claims;

/// How the name of every temporary file begins, for whoever sweeps up after a kill.
const TEMPORARY_PREFIX: &str = ".paceline-";

/// The most bytes a file name may have on Linux.
const LONGEST_NAME: usize = 255;

/// Where an item's output shall be: a folder that holds what placeholders
/// insert, and a name in it. Nothing is touched before [`create`](Target::create).
#[derive(Debug)]
pub(crate) struct Target {
    /// The folder that the literal beginning names.
    root: PathBuf,
    /// Single names, each opened below the one before.
    folders: Vec<Vec<u8>>,
    name: Vec<u8>,
    /// The result as `to` spells it.
    spelled: Vec<u8>,
}

impl Target {
    /// Checks the name that `to` has become for an item.
    ///
    /// `base` is the folder of the pipeline file. `literal` is the part of
    /// the template before its first placeholder, `expanded` the whole with
    /// all placeholders replaced; without a placeholder both are the same.
    /// `.` and `..` in what follows the literal folder are resolved by name.
    ///
    /// # Errors
    ///
    /// Fails for good if the name leads out of the literal folder, is empty,
    /// ends in `/`, `.` or `..`, holds a NUL or has over 255 bytes in a component.
    pub(crate) fn new(base: &Path, literal: &[u8], expanded: &[u8]) -> Result<Self, StepError> {
        let refuse = |why: &str| {
            Err(StepError::permanent(format!("the output name `{}` {why}", Shown(expanded))))
        };
        if expanded.is_empty() {
            return Err(StepError::permanent("the output name is empty"));
        }
        if expanded.contains(&0) {
            return refuse("has a NUL in it");
        }
        if expanded.ends_with(b"/") {
            return refuse("names a folder, not a file");
        }
        if !expanded.starts_with(literal) {
            return refuse("does not begin as `to` does");
        }
        let split = literal.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let (trusted, inserted) = expanded.split_at(split);
        if trusted.is_empty() && inserted.starts_with(b"/") {
            return refuse("is absolute: begin `to` with the folder that the outputs shall be in");
        }

        let mut components: Vec<Vec<u8>> = Vec::new();
        let mut last: &[u8] = b"";
        for component in inserted.split(|&byte| byte == b'/') {
            last = component;
            match component {
                b"" | b"." => {}
                b".." => {
                    if components.pop().is_none() {
                        let folder = if trusted.is_empty() { b"./" } else { trusted };
                        return refuse(&format!("leads out of `{}`", Shown(folder)));
                    }
                }
                name if name.len() > LONGEST_NAME => {
                    return Err(StepError::permanent(format!(
                        "the output name `{}...` is too long: {} bytes, of which a file \
                         system takes {LONGEST_NAME}",
                        Shown(&name[..40]),
                        name.len(),
                    ))
                    .with_kind(Kind::TooLong));
                }
                name => components.push(name.to_vec()),
            }
        }
        if last == b"." || last == b".." {
            return refuse("names a folder, not a file");
        }
        let Some(name) = components.pop() else {
            return refuse("names a folder, not a file");
        };
        Ok(Self {
            root: base.join(OsStr::from_bytes(trusted)),
            folders: components,
            name,
            spelled: expanded.to_vec(),
        })
    }

    /// Makes the folders, claims the name for the item `seq`, and opens a
    /// temporary file in the place.
    ///
    /// # Errors
    ///
    /// Fails for good if another item of the run has the name, if something
    /// other than an ordinary file is in its place, or if a symbolic link is
    /// among the inserted folders.
    pub(crate) fn create(&self, claims: &Claims, seq: u64) -> Result<OutputFile, StepError> {
        let mut temporary = self.prepare(claims, seq)?;
        // 0666 and the umask, as any program would; not the 0600 of a secret.
        let mode = Mode::from_raw_mode(0o666);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        loop {
            match fs::openat(&temporary.folder, temporary.name.as_slice(), flags, mode) {
                Ok(file) => {
                    temporary.armed = true;
                    return Ok(OutputFile { file: File::from(file), temporary });
                }
                // Left over by a killed run whose pid we have now.
                Err(Errno::EXIST) => temporary.rename(),
                Err(error) => return Err(self.failed("create", error)),
            }
        }
    }

    /// Like [`create`](Target::create), but only sets a name aside, for a
    /// command that makes the file itself and might refuse to replace one.
    pub(crate) fn reserve(&self, claims: &Claims, seq: u64) -> Result<ReservedFile, StepError> {
        let mut temporary = self.prepare(claims, seq)?;
        while fs::statat(&temporary.folder, temporary.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok()
        {
            temporary.rename();
        }
        temporary.armed = true;
        Ok(ReservedFile { temporary })
    }

    fn claim_in(&self, folder: &OwnedFd, claims: &Claims, seq: u64) -> Result<(), StepError> {
        let stat = fs::fstat(folder).map_err(|error| self.failed("create", error))?;
        claims.claim((stat.st_dev, stat.st_ino), &self.name, seq).map_err(|holder| {
            StepError::permanent(format!(
                "the output `{}` belongs to item {holder} of this run: two items have the same \
                 output name",
                Shown(&self.spelled)
            ))
        })
    }

    fn prepare(&self, claims: &Claims, seq: u64) -> Result<Temporary, StepError> {
        let folder = self.open_folder()?;
        self.refuse_a_special_file(&folder)?;
        self.claim_in(&folder, claims, seq)?;
        let mut directory = self.root.clone();
        directory.extend(self.folders.iter().map(|name| OsStr::from_bytes(name)));
        let name = temporary_name(&self.name);
        claims.enter(&directory);
        Ok(Temporary {
            durable: claims.is_durable(),
            path: directory.join(OsStr::from_bytes(&name)),
            directory,
            folder,
            name,
            final_name: self.name.clone(),
            spelled: self.spelled.clone(),
            armed: false,
        })
    }

    /// A rename would silently put an ordinary file in the place of `/dev/null`.
    fn refuse_a_special_file(&self, folder: &OwnedFd) -> Result<(), StepError> {
        let refuse = |what: &str| {
            Err(StepError::permanent(format!(
                "could not write `{}`: {what} has that name",
                Shown(&self.spelled)
            )))
        };
        match fs::statat(folder, self.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile | FileType::Symlink => Ok(()),
                FileType::Directory => refuse("a folder"),
                _ => refuse("a device, pipe or socket"),
            },
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("write", error)),
        }
    }

    fn open_folder(&self) -> Result<OwnedFd, StepError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = if self.root.as_os_str().is_empty() { Path::new(".") } else { &self.root };
        let mut folder = match fs::open(root, flags, Mode::empty()) {
            Err(Errno::NOENT) => std::fs::create_dir_all(root)
                .and_then(|()| Ok(fs::open(root, flags, Mode::empty())?)),
            other => other.map_err(io::Error::from),
        }
        .map_err(|error| {
            let folder = Shown(root.as_os_str().as_bytes()).to_string();
            StepError::from_io(format!("could not create the folder `{folder}`"), error)
        })?;
        for name in &self.folders {
            folder = self.open_below(&folder, name)?;
        }
        Ok(folder)
    }

    fn open_below(&self, folder: &OwnedFd, name: &[u8]) -> Result<OwnedFd, StepError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = match fs::openat(folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                match fs::mkdirat(folder, name, Mode::from_raw_mode(0o777)) {
                    // Another item of the run needs the same folder.
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(self.failed("create the folders of", error)),
                }
                fs::openat(folder, name, flags, Mode::empty())
            }
            other => other,
        };
        opened.map_err(|error| match error {
            Errno::NOTDIR | Errno::LOOP => StepError::permanent(format!(
                "could not create the folders of `{}`: `{}` is a symbolic link or no folder",
                Shown(&self.spelled),
                Shown(name)
            )),
            error => self.failed("create the folders of", error),
        })
    }

    fn failed(&self, what: &str, error: Errno) -> StepError {
        StepError::from_io(format!("could not {what} `{}`", Shown(&self.spelled)), error.into())
    }
}

/// A file under a temporary name, which [`commit`](OutputFile::commit) gives
/// its own. Dropped before that, it is gone.
#[derive(Debug)]
pub(crate) struct OutputFile {
    file: File,
    temporary: Temporary,
}

impl OutputFile {
    /// The temporary file's path.
    #[cfg(test)]
    pub(crate) fn path(&self) -> &Path {
        &self.temporary.path
    }

    /// The file, open for reading and writing.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The final name as `to` spells it: the result of the stage.
    pub(crate) fn spelled(&self) -> &[u8] {
        &self.temporary.spelled
    }

    /// Makes a failure to write into this file that names it.
    pub(crate) fn write_failed(&self, error: io::Error) -> StepError {
        let spelled = Shown(&self.temporary.spelled);
        StepError::from_io(format!("could not write `{spelled}`"), error)
    }

    /// Gives the file its name, in place of an earlier one.
    pub(crate) fn commit(self) -> Result<(), StepError> {
        self.temporary.commit()
    }
}

/// A temporary name for a file that a command makes. See [`Target::reserve`].
#[derive(Debug)]
pub(crate) struct ReservedFile {
    temporary: Temporary,
}

impl ReservedFile {
    /// What `{out}` stands for.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary.path
    }

    /// The final name as `to` spells it: the result of the stage.
    pub(crate) fn spelled(&self) -> &[u8] {
        &self.temporary.spelled
    }

    /// Gives the file its name, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// Fails for good if there is no file, or a folder, under the temporary name.
    pub(crate) fn commit(self) -> Result<(), StepError> {
        self.temporary.commit()
    }
}

#[derive(Debug)]
struct Temporary {
    folder: OwnedFd,
    /// The path of `folder`, for people and commands; the file operations use the descriptor.
    directory: PathBuf,
    path: PathBuf,
    name: Vec<u8>,
    final_name: Vec<u8>,
    spelled: Vec<u8>,
    /// Whether there may be a file to remove.
    armed: bool,
    /// Whether it must be on the disk before it gets its name.
    durable: bool,
}

impl Temporary {
    fn rename(&mut self) {
        self.name = temporary_name(&self.final_name);
        self.path = self.directory.join(OsStr::from_bytes(&self.name));
    }

    fn commit(mut self) -> Result<(), StepError> {
        let failed = |why: &str| {
            StepError::permanent(format!("could not write `{}`: {why}", Shown(&self.spelled)))
        };
        match fs::statat(&self.folder, self.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                return Err(failed("the command made a folder of `{out}`"));
            }
            Err(Errno::NOENT) => {
                return Err(failed("the command ended well and left no file at `{out}`"));
            }
            // The rename says what else is wrong.
            Ok(_) | Err(_) => {}
        }
        self.sync().map_err(|error| {
            let spelled = Shown(&self.spelled);
            StepError::from_io(format!("could not write `{spelled}` to the disk"), error)
        })?;
        fail_point::reach("output.before-rename");
        fs::renameat(&self.folder, self.name.as_slice(), &self.folder, self.final_name.as_slice())
            .map_err(|error| {
                StepError::from_io(
                    format!("could not give `{}` its name", Shown(&self.spelled)),
                    error.into(),
                )
            })?;
        self.armed = false;
        fail_point::reach("output.after-rename");
        Ok(())
    }

    /// Waits until the file is on the disk, if it must be.
    fn sync(&self) -> io::Result<()> {
        if !self.durable {
            return Ok(());
        }
        fail_point::reach("output.before-sync");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(&self.folder, self.name.as_slice(), flags, Mode::empty())?;
        fs::fsync(file)?;
        fail_point::reach("output.after-sync");
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.armed {
            // Nobody is left to tell; the name says to a later sweep what it is.
            _ = fs::unlinkat(&self.folder, self.name.as_slice(), AtFlags::empty());
        }
    }
}

/// How the names of the temporary files of process `pid` begin.
pub(crate) fn temporary_prefix(pid: u32) -> String {
    format!("{TEMPORARY_PREFIX}{pid}-")
}

/// Makes a hidden name, unique in this process, with the extension of `name`.
///
/// Programs choose a format by the extension, and a person who finds the file
/// after a crash should see what it was to become.
fn temporary_name(name: &[u8]) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut result = format!("{}{number}-", temporary_prefix(std::process::id())).into_bytes();
    let (stem, extension) = split_extension(name);
    // An extension too long to keep is not one that any program knows.
    let extension = if extension.len() > LONGEST_NAME / 2 { b"" } else { extension };
    let room = LONGEST_NAME - result.len() - extension.len();
    result.extend_from_slice(shortened(stem, room));
    result.extend_from_slice(extension);
    result
}

/// Splits before the last dot, unless it is the first byte.
fn split_extension(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'.') {
        Some(dot) if dot > 0 => name.split_at(dot),
        _ => (name, b""),
    }
}

/// Cuts at `room` bytes or up to three less, so that no character is torn:
/// some file systems refuse such names.
fn shortened(stem: &[u8], room: usize) -> &[u8] {
    let mut end = room.min(stem.len());
    while end > 0 && end < stem.len() && room - end < 3 && stem[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    &stem[..end]
}
