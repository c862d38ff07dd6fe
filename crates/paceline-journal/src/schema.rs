//! The tables, and how those of an older format become them.
//!
//! `docs/journal-format.md` tells what each column means. A format is a
//! number in the file's `user_version`; a step of [`STEPS`] makes each of the
//! one before.

use std::path::Path;

use rusqlite::Connection;

use crate::error::{At, Error, ErrorKind};

/// The format that this version writes.
pub(crate) const FORMAT: i64 = STEPS.len() as i64;

/// In the file's header: `pclj`.
pub(crate) const APPLICATION: i64 = 0x7063_6c6a;

/// What makes each format of the one before; the first makes it of nothing.
const STEPS: [&str; 1] = [include_str!("schema/format-1.sql")];

/// Makes an empty file a journal, and an older one a present one.
pub(crate) fn bring_up(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let format = check(connection, path)?;
    let Some(steps) = usize::try_from(format).ok().and_then(|format| STEPS.get(format..)) else {
        unreachable!("a later format has been refused");
    };
    if steps.is_empty() {
        return Ok(());
    }
    let begin = rusqlite::TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(begin).at("open", path)?;
    for step in steps {
        transaction.execute_batch(step).at("open", path)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION).at("open", path)?;
    transaction.pragma_update(None, "user_version", FORMAT).at("open", path)?;
    transaction.commit().at("write", path)
}

/// Returns the format of what is there, which is 0 for an empty file.
pub(crate) fn check(connection: &Connection, path: &Path) -> Result<i64, Error> {
    let pragma = |name: &str| {
        connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).at("open", path)
    };
    let (format, application) = (pragma("user_version")?, pragma("application_id")?);
    let objects: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .at("open", path)?;
    if application != APPLICATION && (objects > 0 || format != 0 || application != 0) {
        let message = format!("`{}` is no journal", path.display());
        return Err(Error::new(ErrorKind::Foreign, message)
            .hint("it is a database of something else; name another file"));
    }
    if format > FORMAT {
        let message = format!(
            "the journal `{}` has format {format}, and this version knows up to {FORMAT}",
            path.display()
        );
        return Err(Error::new(ErrorKind::Newer, message).hint("use the newer paceline"));
    }
    // A trigger or a view would do what nobody here has asked for.
    let strange: Option<String> = connection
        .query_row(
            "SELECT max(name) FROM sqlite_schema WHERE type NOT IN ('table', 'index')",
            [],
            |row| row.get(0),
        )
        .at("open", path)?;
    match strange {
        None => Ok(format),
        Some(name) => Err(Error::new(
            ErrorKind::Untrusted,
            format!("the journal `{}` has a trigger or view `{name}`", path.display()),
        )
        .hint("paceline makes none: do not use this file")),
    }
}
