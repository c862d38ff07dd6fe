//! F5: files that are not whole.

use std::{fs, path::PathBuf};

use paceline_journal::{Journal, Progress, Reader};

use crate::support::{World, ok, taken};

const ITEMS: u64 = 400;

/// A journal as a killed program leaves it: with a log that was never brought into the file.
fn killed() -> (World, PathBuf) {
    let world = World::new();
    let (_, writer) = world.begin(&["one"]);
    for seq in 1..=ITEMS {
        writer.record(taken(seq, &seq.to_string()));
        let last = writer.record(ok(seq, 0, &format!("{seq}!")));
        if seq.is_multiple_of(20) {
            writer.wait(last).unwrap();
        }
    }
    let copy = world.path().with_file_name("killed");
    fs::create_dir(&copy).unwrap();
    for name in ["journal.db", "journal.db-wal"] {
        fs::copy(world.path().with_file_name(name), copy.join(name)).unwrap();
    }
    (world, copy)
}

/// Opens what is left. Either that is refused, or what it says is true.
fn look(folder: &std::path::Path) -> Option<u64> {
    let path = folder.join("journal.db");
    // What people look at must not panic either.
    if let Ok(reader) = Reader::open(&path) {
        let _ = (reader.runs(), reader.stages(1), reader.failed(1));
    }
    let journal = Journal::open(&path).ok()?;
    let progress: Progress = journal.progress(1).ok()?;
    assert!(progress.done <= ITEMS && progress.last_seq <= ITEMS, "{progress:?}");
    let _ = progress.pending(true, true).count();
    Some(progress.done)
}

/// The same numbers each time: a multiplicative congruence, of which the high bits are used.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

#[test]
fn f5_a_log_that_was_cut_anywhere_gives_a_consistent_beginning() {
    let (_world, folder) = killed();
    let log = fs::read(folder.join("journal.db-wal")).unwrap();
    let whole = fs::read(folder.join("journal.db")).unwrap();
    let mut random = Random(7);
    let mut seen = Vec::new();
    for _ in 0..100 {
        let cut = random.below(log.len());
        let trial = tempfile::tempdir().unwrap();
        fs::write(trial.path().join("journal.db"), &whole).unwrap();
        fs::write(trial.path().join("journal.db-wal"), &log[..cut]).unwrap();
        set_private(trial.path());
        // A beginning without the run itself has nothing to go on with.
        if let Some(done) = look(trial.path()) {
            assert_eq!(done % 20, 0, "a commit is there as a whole or not at all");
            let made = made(trial.path());
            assert_eq!(made, (1..=done).collect::<Vec<_>>(), "the first ones, none left out");
            seen.push(done);
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert!(seen.len() > 3, "{seen:?}");
}

fn made(folder: &std::path::Path) -> Vec<u64> {
    let progress = Journal::open(&folder.join("journal.db")).unwrap().progress(1).unwrap();
    let mut made = progress.made(0).unwrap();
    made.sort();
    for (seq, value) in &made {
        assert_eq!(*value, format!("{seq}!").into_bytes(), "nobody made this");
    }
    made.into_iter().map(|(seq, _)| seq).collect()
}

fn set_private(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("journal.db");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn f5_flipped_bits_are_found_or_harmless_and_never_a_panic() {
    let (_world, folder) = killed();
    // The log brought in, so that there is a file to flip bits of.
    drop(Journal::open(&folder.join("journal.db")).unwrap());
    let whole = fs::read(folder.join("journal.db")).unwrap();
    let mut random = Random(7);
    for _ in 0..200 {
        let (byte, bit) = (random.below(whole.len()), random.below(8));
        let mut spoilt = whole.clone();
        spoilt[byte] ^= 1 << bit;
        let trial = tempfile::tempdir().unwrap();
        fs::write(trial.path().join("journal.db"), &spoilt).unwrap();
        set_private(trial.path());
        look(trial.path());
    }
}

#[test]
fn f5_without_its_shared_memory_nothing_is_lost_and_without_its_log_the_beginning_stands() {
    let (_world, folder) = killed();
    fs::write(folder.join("journal.db-shm"), b"rubbish").unwrap();
    assert_eq!(look(&folder), Some(ITEMS));
    let (_world, folder) = killed();
    fs::remove_file(folder.join("journal.db-wal")).unwrap();
    let done = look(&folder);
    assert!(done.is_none_or(|done| done < ITEMS), "{done:?}");
}

#[test]
fn f5_a_journal_in_a_folder_that_is_not_ours_to_write_can_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let (_world, folder) = killed();
    drop(Journal::open(&folder.join("journal.db")).unwrap());
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o500)).unwrap();
    let info = Reader::open(&folder.join("journal.db")).unwrap().run(1).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(info.ok, ITEMS);
}
