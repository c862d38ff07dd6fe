//! Files of other versions.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use paceline_journal::{Entry, ErrorKind, Journal, NewRun, Reader};

use crate::support::{World, failed, ok, taken};

/// A journal of format 1, as the first version that had one wrote it.
const FORMAT_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/files/format-1.db");

/// Set, a test writes the file: once for each new format, under a name of its own.
const WRITE: &str = "PACELINE_WRITE_FORMAT";

/// Checks what [`write`] has written, and that a run can go on with it.
fn read_and_gone_on_with(world: &World) {
    let reader = Reader::open(&world.path()).unwrap();
    let info = reader.run(1).unwrap();
    assert_eq!((&*info.name, info.items, info.ok, info.failed), ("test", 4, 1, 1));
    assert_eq!(reader.failed(1).unwrap()[0].failure.message, "no");
    assert_eq!(reader.stages(1).unwrap()[1].name, "two");
    drop(reader);
    let journal = world.open();
    assert_eq!(journal.inputs(1).unwrap(), [b"given"]);
    assert_eq!(journal.folders(1).unwrap(), [b"/srv/thumbs"]);
    let progress = journal.progress(1).unwrap();
    assert_eq!((progress.done, progress.failed, progress.unfinished), (1, 1, 2));
    assert_eq!(progress.pending(true, true).count(), 3);
}

fn write(world: &World) {
    let mut journal = world.open();
    let run = NewRun {
        inputs: vec![b"given".to_vec()],
        pipeline: Some(b"/srv/photos.toml".to_vec()),
        ..NewRun::of_stages("run", "test", &["one", "two"])
    };
    let run = journal.begin(&run).unwrap();
    let writer = journal.write(run).unwrap();
    for (seq, value) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        writer.record(taken(seq, value));
    }
    writer.record(Entry::Folder(b"/srv/thumbs".to_vec()));
    for entry in [ok(1, 0, "a1"), ok(1, 1, "a2"), ok(2, 0, "b1"), failed(3, 0, "no")] {
        writer.record(entry);
    }
    writer.record(Entry::Printed(vec![1]));
    writer.finish("failed", 1).unwrap();
}

#[test]
fn a_file_of_format_1_is_read_and_gone_on_with() {
    let world = World::new();
    fs::copy(FORMAT_1, world.path()).unwrap();
    fs::set_permissions(world.path(), fs::Permissions::from_mode(0o600)).unwrap();
    read_and_gone_on_with(&world);
}

#[test]
fn a_file_of_the_present_format_is_read_and_gone_on_with() {
    let world = World::new();
    write(&world);
    if let Some(path) = std::env::var_os(WRITE) {
        fs::copy(world.path(), path).unwrap();
    }
    read_and_gone_on_with(&world);
}

#[test]
fn a_file_of_a_later_format_is_refused_and_left_as_it_is() {
    let world = World::new();
    drop(world.open());
    let connection = rusqlite::Connection::open(world.path()).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    drop(connection);
    for error in
        [Journal::open(&world.path()).unwrap_err(), Reader::open(&world.path()).unwrap_err()]
    {
        assert_eq!(error.kind(), ErrorKind::Newer);
        assert!(error.to_string().contains("has format 99"), "{error}");
    }
    assert_eq!(world.sql::<i64>("PRAGMA user_version"), 99);
}

#[test]
fn a_database_of_something_else_is_refused_and_left_as_it_is() {
    let world = World::new();
    let connection = rusqlite::Connection::open(world.path()).unwrap();
    connection.execute_batch("CREATE TABLE mine (x)").unwrap();
    drop(connection);
    assert_eq!(Journal::open(&world.path()).unwrap_err().kind(), ErrorKind::Foreign);
    assert_eq!(world.sql::<i64>("SELECT count(*) FROM sqlite_schema"), 1);
    fs::write(world.path(), "this is a text, and a text is no database of any kind at all\n")
        .unwrap();
    assert_eq!(Journal::open(&world.path()).unwrap_err().kind(), ErrorKind::Foreign);
    assert_eq!(Reader::open(Path::new("/dev/null")).unwrap_err().kind(), ErrorKind::Foreign);
}

#[test]
fn the_library_has_the_fix_of_the_log_that_lost_commits() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}

/// The statements in the page for those who query the journal.
fn questions() -> Vec<String> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/journal-format.md");
    let page = fs::read_to_string(page).unwrap();
    let blocks = page.split("```sql\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_questions_of_the_page_have_answers() {
    let world = World::new();
    fs::copy(FORMAT_1, world.path()).unwrap();
    let connection = rusqlite::Connection::open(world.path()).unwrap();
    let answers: Vec<Vec<String>> = questions()
        .iter()
        .map(|sql| {
            let mut statement = connection.prepare(sql).unwrap();
            let columns = statement.column_count();
            let row = |row: &rusqlite::Row<'_>| {
                let cell =
                    |index| format!("{:?}", row.get::<_, rusqlite::types::Value>(index).unwrap());
                Ok((0..columns).map(cell).collect::<Vec<_>>().join(" "))
            };
            statement.query_map([], row).unwrap().map(Result::unwrap).collect()
        })
        .collect();
    assert_eq!(answers[0], [r#"Text("c") Text("one") Text("exit") Text("no")"#]);
    let far = [r#"Text("one") Integer(2) Integer(1)"#, r#"Text("two") Integer(1) Integer(0)"#];
    assert_eq!(answers[1], far);
    assert_eq!(answers[2].len(), 4);
    assert_eq!(answers[3], [r#"Text("b")"#, r#"Text("c")"#, r#"Text("d")"#]);
    assert_eq!(answers[4].len(), 2);
    assert_eq!(answers.len(), 5);
}

#[test]
fn the_program_sqlite3_answers_the_questions_too() {
    let world = World::new();
    fs::copy(FORMAT_1, world.path()).unwrap();
    let program =
        |sql: &str| std::process::Command::new("sqlite3").arg(world.path()).arg(sql).output();
    for sql in questions() {
        match program(&sql) {
            // Without it, the test above has asked the same of the library.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => panic!("{error}"),
            Ok(output) => {
                assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}")
            }
        }
    }
}
