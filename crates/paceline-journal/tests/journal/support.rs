//! A folder with a journal in it.

use std::path::PathBuf;

use paceline_journal::{
    Answer, Content, Entry, Failure, Item, Journal, NewRun, Outcome, Writer, identity,
};

pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("journal.db")
    }

    pub(crate) fn open(&self) -> Journal {
        Journal::open(&self.path()).unwrap()
    }

    /// A run of these stages, and its writer.
    pub(crate) fn begin(&self, stages: &[&str]) -> (u64, Writer) {
        let mut journal = self.open();
        let run = journal.begin(&NewRun::of_stages("run", "test", stages)).unwrap();
        (run, journal.write(run).unwrap())
    }

    /// The database itself, for a look that the crate does not offer.
    pub(crate) fn sql<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        let connection = rusqlite::Connection::open(self.path()).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

pub(crate) fn taken(seq: u64, value: &str) -> Entry {
    Entry::Taken(Item::new(seq, identity(value.as_bytes(), 1), value.as_bytes()))
}

pub(crate) fn ok(seq: u64, stage: usize, value: &str) -> Entry {
    let content = Content::Bytes(value.to_owned().into());
    Entry::Answer(Answer::new(seq, stage, Outcome::Ok(content)))
}

pub(crate) fn failed(seq: u64, stage: usize, message: &str) -> Entry {
    let failure = Failure {
        kind: "exit".into(),
        code: Some(7),
        message: message.into(),
        ..Failure::default()
    };
    Entry::Answer(Answer::new(seq, stage, Outcome::Failed(Box::new(failure))))
}
