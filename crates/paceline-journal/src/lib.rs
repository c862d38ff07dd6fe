//! The durable record of what happened to each item of a paceline run.
//!
//! A [`Journal`] is an SQLite file that holds many runs. Whoever opens it to
//! write has it alone; a [`Reader`] looks at it meanwhile. A [`Writer`] takes
//! the entries of one run: it commits what has gathered whenever it is free,
//! and tells the engine, as its [`paceline::Journal`], up to where all is
//! recorded.
//!
//! ```
//! use paceline_journal::{Answer, Content, Entry, Item, Journal, NewRun, Outcome, identity};
//!
//! let folder = tempfile::tempdir()?;
//! let mut journal = Journal::open(&folder.path().join("journal.db"))?;
//! let run = journal.begin(&NewRun::of_stages("run", "photos", &["resize"]))?;
//! let writer = journal.write(run)?;
//! writer.record(Entry::Taken(Item::new(1, identity(b"a.jpg", 1), b"a.jpg")));
//! let outcome = Outcome::Ok(Content::Bytes("thumbs/a.jpg".into()));
//! let last = writer.record(Entry::Answer(Answer::new(1, 0, outcome)));
//! writer.wait(last)?;
//! writer.finish("complete", 0)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Invariant:** entries are committed in the order in which they were
//! recorded, so what a stage made is never there without what came before it.
//!
//! Not here: which entries there are to record, and what is done about a
//! pipeline that has changed: that is the program's.

mod content;
mod entry;
mod error;
mod file;
mod journal;
mod marks;
mod prune;
mod reader;
mod resume;
mod schema;
mod writer;

pub use content::{Content, LARGEST_INSIDE};
pub use entry::{Answer, Entry, Failure, Id, Item, NewRun, Ordinals, Outcome, StageSpec, identity};
pub use error::{Error, ErrorKind};
pub use journal::{Journal, Session};
pub use prune::{Keep, Pruned};
pub use reader::{FailedItem, Reader, RunInfo, StageInfo};
pub use resume::{Known, Made, Pending, Progress};
pub use writer::{Durability, Writer};
