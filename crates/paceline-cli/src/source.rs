//! Where items enter a pipeline: files, standard input, patterns, values, a command.
//!
//! Items are read one by one, as they come, and none is held back. Whatever
//! waits for input also waits for an [`Interrupt`], so that a run can stop
//! while its source is silent. What is wrong with one item is a [`Defect`]
//! of that item; what is wrong with the source ends it.
//!
//! Not here: several sources side by side, and the identity of items.

mod child;
mod fields;
mod input;
mod pattern;
mod records;
mod stored;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::OFlags;

use crate::message::{Problem, reason};

use child::ChildSource;
pub(crate) use fields::Fields;
use fields::Format;
use input::Input;
pub(crate) use input::Interrupt;
pub(crate) use pattern::check as check_pattern;
use records::{Next, Record, Records};

/// The longest item, in bytes.
pub(crate) const LONGEST_ITEM: usize = 16 << 20;

/// Where the items of a pipeline file come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Paths that match a pattern.
    Glob(String),
    Lines {
        from: Location,
        null: bool,
    },
    Jsonl(Location),
    Csv(Location),
    Values(Vec<Vec<u8>>),
    /// The lines that a command writes; the program is the first word.
    Command {
        words: Vec<Vec<u8>>,
        null: bool,
    },
}

/// A file to read, or standard input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    Stdin,
    /// Relative to the pipeline file's folder, or absolute.
    File(PathBuf),
}

/// One item as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Item {
    /// All of it; of one that is too long, its beginning.
    pub(crate) bytes: Bytes,
    /// The fields of a JSON or CSV item.
    pub(crate) fields: Option<Arc<Fields>>,
    /// Why this item fails before any work on it.
    pub(crate) defect: Option<Box<Defect>>,
    /// Where it began: counts from 1, in lines, or in items where there are no lines.
    pub(crate) line: u64,
}

/// Why an item fails before any work on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Defect {
    /// It is longer than [`LONGEST_ITEM`].
    TooLong { length: u64 },
    /// Its line is not what the source promises.
    Broken { line: u64, reason: String },
}

impl fmt::Display for Defect {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { length } => {
                write!(formatter, "the item has {length} bytes, over the limit of 16 MiB")
            }
            Self::Broken { line, reason } => write!(formatter, "line {line} {reason}"),
        }
    }
}

impl Item {
    fn plain(bytes: Bytes, line: u64) -> Self {
        Self { bytes, fields: None, defect: None, line }
    }

    /// Gives what a field of the item holds.
    ///
    /// # Errors
    ///
    /// The reason in words, with the line, if there is no such field.
    pub(crate) fn field(&self, name: &str) -> Result<Cow<'_, [u8]>, String> {
        let value = self.fields.as_ref().and_then(|fields| fields.get(name));
        value.ok_or_else(|| match self.fields {
            Some(_) => format!("line {} has no field `{name}`", self.line),
            None => format!("the item has no fields, so no `{name}`"),
        })
    }
}

/// A source that could not go on: the end of the run, after the items already given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceError {
    message: String,
}

impl SourceError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&crate::message::harmless(self.message.as_bytes()))
    }
}

impl std::error::Error for SourceError {}

/// What [`Items::step`] came upon.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    Item(Item),
    /// There is nothing more.
    End,
    /// The [`Interrupt`] was raised; what is left of the source is unread.
    Stopped,
}

/// The items of a source, read as they are asked for.
#[derive(Debug)]
pub(crate) struct Items {
    kind: Kind,
    note: Option<String>,
    interrupt: Interrupt,
}

#[derive(Debug)]
enum Kind {
    Given { items: std::vec::IntoIter<Bytes>, format: Format, line: u64 },
    Records { records: Box<Records>, format: Format, name: String },
    Child(Box<ChildSource>),
}

impl Items {
    /// Opens a source of a pipeline file that lies in `folder`.
    ///
    /// A file is opened here, a pattern is looked up here; a command is
    /// started with the first [`step`](Self::step).
    ///
    /// # Errors
    ///
    /// When a file or a folder cannot be read.
    pub(crate) fn open(
        origin: &Origin,
        folder: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self, Problem> {
        let records = |from: &Location, separator, format| {
            let (fd, name) = open(from, folder)?;
            Ok(Self::records(Input::new(fd, interrupt), separator, format, name))
        };
        match origin {
            Origin::Values(values) => Ok(Self::given(values.iter().cloned(), interrupt)),
            Origin::Lines { from, null } => records(from, separator(*null), Format::Plain),
            Origin::Jsonl(from) => records(from, records::Separator::Newline, Format::Json),
            Origin::Csv(from) => {
                records(from, records::Separator::csv(), Format::Csv { header: None })
            }
            Origin::Command { words, null } => {
                let child = ChildSource::new(words, separator(*null), folder, interrupt);
                let kind = Kind::Child(Box::new(child));
                Ok(Self { kind, note: None, interrupt: interrupt.clone() })
            }
            Origin::Glob(pattern) => {
                let paths = pattern::look_up(pattern, folder)?;
                let note = paths.is_empty().then(|| format!("nothing matches `{pattern}`"));
                Ok(Self { note, ..Self::given(paths, interrupt) })
            }
        }
    }

    /// Gives these items, as the INPUT of a command line.
    pub(crate) fn given(items: impl IntoIterator<Item = Vec<u8>>, interrupt: &Interrupt) -> Self {
        Self::formatted(items, Format::Plain, interrupt)
    }

    /// Gives these items in place of those of `origin`, with the fields that it would find in
    /// them: those of a JSON object, or those that the header of a CSV file names.
    pub(crate) fn in_place_of(
        origin: Option<&Origin>,
        folder: &Path,
        items: Vec<Vec<u8>>,
        interrupt: &Interrupt,
    ) -> Self {
        let format = match origin {
            Some(Origin::Jsonl(_)) => Format::Json,
            Some(Origin::Csv(from)) => match csv_header(from, folder) {
                Some(names) => Format::Csv { header: Some(names) },
                None => Format::Plain,
            },
            _ => Format::Plain,
        };
        Self::formatted(items, format, interrupt)
    }

    fn formatted(
        items: impl IntoIterator<Item = Vec<u8>>,
        format: Format,
        interrupt: &Interrupt,
    ) -> Self {
        let items: Vec<_> = items.into_iter().map(Bytes::from).collect();
        let kind = Kind::Given { items: items.into_iter(), format, line: 0 };
        Self { kind, note: None, interrupt: interrupt.clone() }
    }

    /// Reads lines, or what NUL separates, from something that is already open.
    ///
    /// `name` is for messages.
    pub(crate) fn lines(
        fd: OwnedFd,
        null: bool,
        name: impl Into<String>,
        interrupt: &Interrupt,
    ) -> Self {
        Self::records(Input::new(fd, interrupt), separator(null), Format::Plain, name.into())
    }

    fn records(input: Input, separator: records::Separator, format: Format, name: String) -> Self {
        let interrupt = input.interrupt().clone();
        let records = Box::new(Records::new(input, separator));
        Self { kind: Kind::Records { records, format, name }, note: None, interrupt }
    }

    /// Something to tell the user that is no error, as that a pattern matches nothing.
    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Gives the next item, waiting until there is one.
    ///
    /// # Errors
    ///
    /// When the source cannot be read any more, or its command fails. The
    /// items given before stand.
    ///
    /// # When stopped
    ///
    /// Returns [`Step::Stopped`] at once, also out of a wait, and from then
    /// on; the source's command is ended.
    pub(crate) fn step(&mut self) -> Result<Step, SourceError> {
        if self.interrupt.is_stopped() {
            if let Kind::Child(child) = &mut self.kind {
                child.end();
            }
            return Ok(Step::Stopped);
        }
        match &mut self.kind {
            Kind::Given { items, format, line } => {
                let item = items.next().and_then(|bytes| {
                    *line += 1;
                    let length = bytes.len() as u64;
                    let too_long = (bytes.len() > LONGEST_ITEM).then_some(length);
                    format.item(Record { bytes, too_long, line: *line })
                });
                Ok(item.map_or(Step::End, Step::Item))
            }
            Kind::Child(child) => child.step(),
            Kind::Records { records, format, name } => loop {
                let next = records.next().map_err(|error| {
                    SourceError::new(format!("cannot read {name}: {}", reason(&error)))
                })?;
                return Ok(match next {
                    Next::End => Step::End,
                    Next::Stopped => Step::Stopped,
                    Next::Record(record) => match format.item(record) {
                        Some(item) => Step::Item(item),
                        None => continue,
                    },
                });
            },
        }
    }
}

impl Iterator for Items {
    type Item = Result<Item, SourceError>;

    /// As [`step`](Items::step), where a stop is an end.
    fn next(&mut self) -> Option<Self::Item> {
        match self.step() {
            Ok(Step::Item(item)) => Some(Ok(item)),
            Ok(Step::End | Step::Stopped) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// At least as many as are already here, so that a feeder can gather what
    /// there is and hand it on before it waits.
    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.kind {
            Kind::Given { items, .. } => items.size_hint(),
            Kind::Records { records, .. } => (records.ready(), records.most()),
            Kind::Child(child) => (child.ready(), None),
        }
    }
}

fn separator(null: bool) -> records::Separator {
    if null { records::Separator::Nul } else { records::Separator::Newline }
}

/// Gives the names of the fields of a CSV file that can be read more than once, if it has any.
pub(crate) fn csv_header(from: &Location, folder: &Path) -> Option<Arc<[String]>> {
    let Location::File(path) = from else { return None };
    let file = open_file(&folder.join(path)).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let interrupt = Interrupt::new().ok()?;
    let input = Input::new(file.into(), &interrupt);
    let Next::Record(first) = Records::new(input, records::Separator::csv()).next().ok()? else {
        return None;
    };
    let mut format = Format::Csv { header: None };
    format.item(first);
    match format {
        Format::Csv { header } => header,
        Format::Plain | Format::Json => None,
    }
}

/// What helps where a file of the pipeline file cannot be opened.
const RELATIVE: &str = "paths in the file are relative to its folder; `-` is standard input";

impl Origin {
    /// Whether items come from standard input, which cannot be read again.
    pub(crate) fn is_stdin(&self) -> bool {
        match self {
            Self::Lines { from, .. } | Self::Jsonl(from) | Self::Csv(from) => {
                *from == Location::Stdin
            }
            Self::Glob(_) | Self::Values(_) | Self::Command { .. } => false,
        }
    }
}

/// Opens `from`, and gives the name for messages with it.
fn open(from: &Location, folder: &Path) -> Result<(OwnedFd, String), Problem> {
    match from {
        Location::Stdin => {
            let fd = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| {
                Problem::new(format!("cannot read standard input: {}", reason(&error)))
            })?;
            Ok((fd, "standard input".to_owned()))
        }
        Location::File(path) => {
            let path = if folder == Path::new(".") { path.clone() } else { folder.join(path) };
            let file = open_file(&path).map_err(|problem| match path.is_relative() {
                true => problem.hint(RELATIVE.to_owned()),
                false => problem,
            })?;
            Ok((file.into(), format!("`{}`", path.display())))
        }
    }
}

/// Opens an input file for reading, by something that waits with `poll`.
///
/// # Errors
///
/// When it is missing, may not be read, or is a folder.
pub(crate) fn open_file(path: &Path) -> Result<File, Problem> {
    let refused = |reason: String| {
        Problem::new(format!("cannot open the source `{}`: {reason}", path.display()))
    };
    // A named pipe that nobody writes to would block here; as it is, the first read waits.
    let no_wait = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(no_wait).open(path);
    let file = file.map_err(|error| refused(reason(&error)))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Err(refused("it is a folder".to_owned())),
        Ok(_) => Ok(file),
        Err(error) => Err(refused(reason(&error))),
    }
}
