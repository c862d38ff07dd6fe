//! What a run has done, as far as whoever goes on with it must know.
//!
//! Which items are known is kept in memory, some 40 bytes for each; those
//! that are not done are read a page at a time, so that no reader stands in
//! the way of the log's checkpoints.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use rusqlite::{Connection, params};

use crate::{
    content,
    entry::{Id, Item},
    error::{At, Error, try_to},
    journal::Journal,
    reader,
};

/// How many items are read at a time.
const PAGE: usize = 256;

/// What a run has done so far.
#[derive(Debug)]
pub struct Progress {
    /// The number of the last item taken.
    pub last_seq: u64,
    /// The number of the last batch of each stage that makes batches.
    pub last_batch: HashMap<usize, u64>,
    /// Items that all stages have answered for with a value.
    pub done: u64,
    /// Items that some stage gave up.
    pub failed: u64,
    /// Items taken and not answered.
    pub unfinished: u64,
    /// Done with a result, and that perhaps not printed.
    pub unprinted: Vec<u64>,
    /// Done with an empty result, and that perhaps not printed.
    pub unprinted_empty: Vec<u64>,
    /// Whether the source was read to its end.
    pub source_ended: bool,
    /// The items by identity.
    pub known: HashSet<Id>,
    path: PathBuf,
    run: u64,
    stages: usize,
}

/// An item that is known, with what the stages have made of it.
///
/// ```
/// use paceline_journal::{Entry, Item, Journal, NewRun, identity};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("journal.db");
/// let mut journal = Journal::open(&path)?;
/// let run = journal.begin(&NewRun::of_stages("run", "photos", &["resize"]))?;
/// let writer = journal.write(run)?;
/// writer.record(Entry::Taken(Item::new(1, identity(b"a.jpg", 1), b"a.jpg")));
/// writer.finish("unfinished", 3)?;
///
/// let progress = Journal::open(&path)?.progress(run)?;
/// let pending: Vec<_> = progress.pending(false, true).collect::<Result<_, _>>()?;
/// assert_eq!(&*pending[0].item.value, b"a.jpg");
/// assert!(pending[0].results.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Known {
    /// The item as it was taken.
    pub item: Item,
    /// What each stage has made of it, as far as it has come.
    pub results: Vec<Made>,
    /// Whether a stage has given it up.
    pub has_failed: bool,
}

/// What a stage has made of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The result.
    pub value: Bytes,
    /// The number of the batch and how many items it had, if it was one.
    pub batch: Option<(u64, usize)>,
    /// How many attempts were made.
    pub attempts: u32,
    /// How long the last attempt took, in microseconds.
    pub service_us: u64,
}

impl Journal {
    /// Returns what a run has done so far.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn progress(&self, run: u64) -> Result<Progress, Error> {
        let stages = self.stages(run)?.len();
        read(&self.connection, &self.path, run, stages).at("read", &self.path)
    }
}

fn read(
    connection: &Connection,
    path: &Path,
    run: u64,
    stages: usize,
) -> rusqlite::Result<Progress> {
    let mut progress = Progress {
        last_seq: 0,
        last_batch: HashMap::new(),
        done: 0,
        failed: 0,
        unfinished: 0,
        unprinted: Vec::new(),
        unprinted_empty: Vec::new(),
        source_ended: connection.query_row(
            "SELECT source_ended FROM runs WHERE run = ?",
            [run as i64],
            |row| row.get(0),
        )?,
        known: HashSet::new(),
        path: path.to_owned(),
        run,
        stages,
    };
    // Both are in this order already: one pass over each.
    let mut items =
        connection.prepare("SELECT seq, id, printed FROM items WHERE run = ? ORDER BY seq")?;
    let mut items = items.query([run as i64])?;
    let mut answers = connection.prepare(
        "SELECT seq, stage, outcome = 'ok', coalesce(length(value), 0) > 0 OR file IS NOT NULL \
         FROM results WHERE run = ? ORDER BY seq, stage",
    )?;
    let mut answers = answers.query([run as i64])?;
    let mut answer = next_answer(&mut answers)?;
    while let Some(row) = items.next()? {
        let seq: i64 = row.get(0)?;
        progress.known.insert(row.get(1)?);
        progress.last_seq = seq as u64;
        let (mut made, mut has_failed, mut has_content) = (0, false, false);
        while let Some((of, stage, is_ok, content)) = answer.filter(|(of, ..)| *of <= seq) {
            if of == seq {
                made += usize::from(is_ok && stage == made as i64);
                has_failed |= !is_ok;
                has_content = content;
            }
            answer = next_answer(&mut answers)?;
        }
        if made == stages {
            progress.done += 1;
            match (row.get::<_, bool>(2)?, has_content) {
                (true, _) => {}
                (false, true) => progress.unprinted.push(seq as u64),
                (false, false) => progress.unprinted_empty.push(seq as u64),
            }
        } else if has_failed {
            progress.failed += 1;
        } else {
            progress.unfinished += 1;
        }
    }
    let mut batches = connection.prepare(
        "SELECT stage, max(batch) FROM results WHERE run = ? AND batch IS NOT NULL GROUP BY stage",
    )?;
    let mut batches = batches.query([run as i64])?;
    while let Some(row) = batches.next()? {
        progress.last_batch.insert(row.get::<_, i64>(0)? as usize, row.get::<_, i64>(1)? as u64);
    }
    Ok(progress)
}

fn next_answer(rows: &mut rusqlite::Rows<'_>) -> rusqlite::Result<Option<(i64, i64, bool, bool)>> {
    rows.next()?.map(|row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).transpose()
}

impl Progress {
    /// Returns the items that are not done, in order: those that failed, those
    /// left unfinished, or both.
    pub fn pending(&self, failed: bool, unfinished: bool) -> Pending {
        Pending {
            path: self.path.clone(),
            run: self.run,
            stages: self.stages,
            failed,
            unfinished,
            connection: None,
            last: 0,
            end: self.last_seq,
            page: VecDeque::new(),
            is_at_end: !(failed && self.failed > 0 || unfinished && self.unfinished > 0),
            batches: HashMap::new(),
        }
    }

    /// Returns these items with all that was made of them.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn of(&self, seqs: &[u64]) -> Result<Vec<Known>, Error> {
        let mut pending = self.pending(true, true);
        seqs.iter().map(|seq| pending.one(*seq)).collect()
    }

    /// Returns what the stages in `stages` have made of the items, each with
    /// the item's number: for the names of files that are taken.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub fn made(&self, stage: usize) -> Result<Vec<(u64, Vec<u8>)>, Error> {
        let connection = reader::connect(&self.path)?;
        try_to("read", &self.path, || {
            let sql = "SELECT seq, value FROM results \
                       WHERE run = ? AND stage = ? AND outcome = 'ok' AND value IS NOT NULL";
            let mut statement = connection.prepare(sql)?;
            let rows = statement.query_map(params![self.run as i64, stage as i64], |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
            })?;
            rows.collect()
        })
    }
}

/// The items that are not done, read as they are asked for.
#[derive(Debug)]
pub struct Pending {
    path: PathBuf,
    run: u64,
    stages: usize,
    failed: bool,
    unfinished: bool,
    connection: Option<Connection>,
    last: i64,
    /// Items past this one have been taken since.
    end: u64,
    page: VecDeque<Known>,
    is_at_end: bool,
    /// The results of batches, which one of their items has for all.
    batches: HashMap<(usize, u64), BatchMade>,
}

/// What a batch came to, and how many items it had.
type BatchMade = (Arc<[u8]>, usize);

impl Iterator for Pending {
    type Item = Result<Known, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.page.is_empty() && !self.is_at_end {
            if let Err(error) = self.read_page() {
                self.is_at_end = true;
                return Some(Err(error));
            }
        }
        self.page.pop_front().map(Ok)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let most = (self.is_at_end && self.page.is_empty()).then_some(0);
        (self.page.len(), most)
    }
}

impl Pending {
    fn connection(&mut self) -> Result<Connection, Error> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => reader::connect(&self.path),
        }
    }

    fn read_page(&mut self) -> Result<(), Error> {
        let connection = self.connection()?;
        // An item is done when as many results are ok as there are stages.
        let sql = "SELECT seq, id, ordinal, value, detail, taken_unix_ms FROM items \
                   WHERE run = ?1 AND seq > ?2 AND seq <= ?5 AND \
                     (SELECT count(*) FROM results r WHERE r.run = ?1 AND r.seq = items.seq \
                      AND r.outcome = 'ok') < ?3 ORDER BY seq LIMIT ?4";
        let items: Vec<Item> = try_to("read", &self.path, || {
            let mut statement = connection.prepare_cached(sql)?;
            let (run, end) = (self.run as i64, self.end as i64);
            let key = params![run, self.last, self.stages as i64, PAGE as i64, end];
            statement.query_map(key, item)?.collect()
        })?;
        self.is_at_end = items.len() < PAGE;
        for item in items {
            self.last = item.seq as i64;
            let known = self.complete(&connection, item)?;
            if if known.has_failed { self.failed } else { self.unfinished } {
                self.page.push_back(known);
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    fn one(&mut self, seq: u64) -> Result<Known, Error> {
        let connection = self.connection()?;
        let sql = "SELECT seq, id, ordinal, value, detail, taken_unix_ms FROM items \
                   WHERE run = ? AND seq = ?";
        let item = connection
            .prepare_cached(sql)
            .and_then(|mut found| found.query_row(params![self.run as i64, seq as i64], item))
            .at("read", &self.path)?;
        let known = self.complete(&connection, item);
        self.connection = Some(connection);
        known
    }

    /// Adds what the stages have made of an item.
    fn complete(&mut self, connection: &Connection, item: Item) -> Result<Known, Error> {
        let mut known = Known { item, results: Vec::new(), has_failed: false };
        let path = self.path.clone();
        let rows: Vec<Row> = try_to("read", &path, || {
            let sql = "SELECT stage, outcome = 'ok', batch, value, file, attempts, service_us \
                       FROM results WHERE run = ? AND seq = ? ORDER BY stage";
            let mut statement = connection.prepare_cached(sql)?;
            let key = params![self.run as i64, known.item.seq as i64];
            statement.query_map(key, Row::of)?.collect()
        })?;
        for row in rows {
            known.has_failed |= !row.is_ok;
            if !row.is_ok || row.stage != known.results.len() {
                break;
            }
            let (value, batch) = match row.batch {
                None => (row.content(&path)?.into(), None),
                Some(batch) => {
                    let (value, items) = self.batch(connection, &row, batch)?;
                    (Bytes::copy_from_slice(&value), Some((batch, items)))
                }
            };
            let (attempts, service_us) = (row.attempts, row.service_us);
            known.results.push(Made { value, batch, attempts, service_us });
        }
        Ok(known)
    }

    /// What a batch came to, and how many items it had.
    fn batch(
        &mut self,
        connection: &Connection,
        row: &Row,
        batch: u64,
    ) -> Result<BatchMade, Error> {
        if let Some(known) = self.batches.get(&(row.stage, batch)) {
            return Ok(known.clone());
        }
        let path = self.path.clone();
        let rows: Vec<Row> = try_to("read", &path, || {
            let sql = "SELECT stage, outcome = 'ok', batch, value, file, attempts, service_us \
                       FROM results WHERE run = ? AND stage = ? AND batch = ?";
            let mut statement = connection.prepare_cached(sql)?;
            let key = params![self.run as i64, row.stage as i64, batch as i64];
            statement.query_map(key, Row::of)?.collect()
        })?;
        let first = rows.iter().find(|row| row.value.is_some() || row.file.is_some());
        let value: Arc<[u8]> = match first {
            Some(row) => row.content(&path)?.into(),
            None => Arc::default(),
        };
        // The items of a batch are mostly near each other; a few large results are kept at most.
        if self.batches.len() >= PAGE {
            self.batches.clear();
        }
        self.batches.insert((row.stage, batch), (value.clone(), rows.len()));
        Ok((value, rows.len()))
    }
}

fn item(row: &rusqlite::Row<'_>) -> rusqlite::Result<Item> {
    Ok(Item {
        seq: row.get::<_, i64>(0)? as u64,
        id: row.get(1)?,
        ordinal: row.get::<_, i64>(2)? as u64,
        value: row.get::<_, Vec<u8>>(3)?.into(),
        detail: row.get(4)?,
        taken_unix_ms: row.get(5)?,
    })
}

/// A result as it is in the database.
struct Row {
    stage: usize,
    is_ok: bool,
    batch: Option<u64>,
    value: Option<Vec<u8>>,
    file: Option<String>,
    attempts: u32,
    service_us: u64,
}

impl Row {
    fn of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            stage: row.get::<_, i64>(0)? as usize,
            is_ok: row.get(1)?,
            batch: row.get::<_, Option<i64>>(2)?.map(|batch| batch as u64),
            value: row.get(3)?,
            file: row.get(4)?,
            attempts: row.get(5)?,
            service_us: row.get::<_, i64>(6)? as u64,
        })
    }

    fn content(&self, journal: &Path) -> Result<Vec<u8>, Error> {
        match (&self.value, &self.file) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some(file)) => content::read(journal, file),
            (None, None) => Ok(Vec::new()),
        }
    }
}
