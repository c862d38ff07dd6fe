//! Whose a journal is, and who has it.

use std::{fs, os::unix::fs::PermissionsExt};

use paceline_journal::{ErrorKind, Journal, Reader};

use crate::support::{World, taken};

#[test]
fn f4_a_second_writer_is_refused_with_the_number_of_the_first() {
    let world = World::new();
    let (_, writer) = world.begin(&["one"]);
    let error = Journal::open(&world.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked(Some(std::process::id())));
    let text = error.to_string();
    assert!(text.ends_with(&format!("is in use by process {}", std::process::id())), "{text}");
    drop(writer);
    drop(world.open());
}

#[test]
fn f45_the_journal_is_readable_by_its_owner_only() {
    let world = World::new();
    let (_, writer) = world.begin(&["one"]);
    let last = writer.record(taken(1, "a"));
    writer.wait(last).unwrap();
    for entry in fs::read_dir(world.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
    drop(writer);
    fs::set_permissions(world.path(), fs::Permissions::from_mode(0o644)).unwrap();
    drop(world.open());
    assert_eq!(fs::metadata(world.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn f45_a_file_of_something_else_is_refused_and_left_as_it_is() {
    let world = World::new();
    let path = world.path();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    for content in ["#!/bin/sh\necho a program that somebody needs\n", "x"] {
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign);
        assert!(error.help().is_some());
        assert_eq!(Reader::open(&path).unwrap_err().kind(), ErrorKind::Foreign);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing beside it");
    }
    // A database, but none of ours.
    fs::remove_file(&path).unwrap();
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("CREATE TABLE contacts (name TEXT)").unwrap();
    drop(connection);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(Journal::open(&path).unwrap_err().kind(), ErrorKind::Foreign);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn f45_a_journal_that_others_may_write_to_is_refused() {
    let world = World::new();
    drop(world.open());
    fs::set_permissions(world.path(), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(Journal::open(&world.path()).unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(Reader::open(&world.path()).unwrap_err().kind(), ErrorKind::Untrusted);
}

#[test]
fn f45_a_journal_of_another_user_is_refused() {
    // Only root can make one; elsewhere a file of root's does.
    let world = World::new();
    drop(world.open());
    let path = if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(world.path(), Some(12345), None).unwrap();
        world.path()
    } else {
        "/etc/hostname".into()
    };
    assert_eq!(Reader::open(&path).unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(Journal::open(&path).unwrap_err().kind(), ErrorKind::Untrusted);
}

#[test]
fn f45_a_journal_with_a_trigger_in_it_is_refused() {
    let world = World::new();
    drop(world.open());
    let connection = rusqlite::Connection::open(world.path()).unwrap();
    connection
        .execute_batch("CREATE TRIGGER t AFTER INSERT ON items BEGIN DELETE FROM items; END")
        .unwrap();
    drop(connection);
    assert_eq!(Journal::open(&world.path()).unwrap_err().kind(), ErrorKind::Untrusted);
    assert_eq!(Reader::open(&world.path()).unwrap_err().kind(), ErrorKind::Untrusted);
}

#[test]
fn f45_what_an_item_holds_is_data_in_every_statement() {
    let world = World::new();
    let (run, writer) = world.begin(&["one'); DROP TABLE items; --"]);
    writer.record(taken(1, "x'); DROP TABLE items; --"));
    writer.finish("complete", 0).unwrap();
    let progress = world.open().progress(run).unwrap();
    let known = progress.pending(true, true).next().unwrap().unwrap();
    assert_eq!(known.item.value, "x'); DROP TABLE items; --");
}

#[test]
fn a_missing_journal_is_not_made_by_looking_for_it() {
    let world = World::new();
    assert_eq!(Reader::open(&world.path()).unwrap_err().kind(), ErrorKind::Missing);
    assert!(!world.path().exists());
}
