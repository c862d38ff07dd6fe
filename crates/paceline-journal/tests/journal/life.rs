//! What is recorded is there again.

use std::{sync::Arc, time::Duration};

use paceline::Pipeline;
use paceline_journal::{
    Answer, Content, Entry, Journal, Keep, LARGEST_INSIDE, Outcome, Reader, Session, Writer,
};

use crate::support::{World, failed, ok, taken};

fn pending(world: &World, run: u64) -> Vec<(u64, usize, bool)> {
    let progress = world.open().progress(run).unwrap();
    let pending = progress.pending(true, true).map(Result::unwrap);
    pending.map(|known| (known.item.seq, known.results.len(), known.has_failed)).collect()
}

#[test]
fn what_was_recorded_is_there_for_whoever_goes_on() {
    let world = World::new();
    let (run, writer) = world.begin(&["one", "two"]);
    for (seq, value) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        writer.record(taken(seq, value));
    }
    for entry in [ok(1, 0, "a1"), ok(1, 1, "a2"), ok(2, 0, "b1"), failed(3, 0, "no")] {
        writer.record(entry);
    }
    writer.finish("failed", 1).unwrap();

    let progress = world.open().progress(run).unwrap();
    assert_eq!((progress.done, progress.failed, progress.unfinished), (1, 1, 2));
    assert_eq!((progress.last_seq, progress.known.len()), (4, 4));
    assert_eq!(progress.unprinted, [1]);
    assert_eq!(pending(&world, run), [(2, 1, false), (3, 0, true), (4, 0, false)]);
    let only = |failed, unfinished| {
        progress
            .pending(failed, unfinished)
            .map(|known| known.unwrap().item.seq)
            .collect::<Vec<_>>()
    };
    assert_eq!(only(true, false), [3]);
    assert_eq!(only(false, true), [2, 4]);
    let known = &progress.of(&[1]).unwrap()[0];
    let values: Vec<_> = known.results.iter().map(|made| made.value.clone()).collect();
    assert_eq!(values, ["a1", "a2"]);
}

#[test]
fn a_run_without_an_end_was_killed() {
    let world = World::new();
    let (run, writer) = world.begin(&["one"]);
    let last = writer.record(taken(1, "a"));
    writer.wait(last).unwrap();
    drop(writer);
    let sessions = world.open().sessions(run).unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].ending, None);
    assert_eq!(sessions[0].pid, std::process::id());
    assert!(sessions[0].pid_start > 0 && sessions[0].boot.len() == 36, "{sessions:?}");
}

#[test]
fn a_success_after_a_failure_takes_it_off_the_list_and_its_attempts_add_up() {
    let world = World::new();
    let (run, writer) = world.begin(&["one"]);
    writer.record(taken(1, "a"));
    writer.record(failed(1, 0, "no"));
    writer.finish("failed", 1).unwrap();
    assert_eq!(Reader::open(&world.path()).unwrap().failed(run).unwrap().len(), 1);

    let mut journal = world.open();
    journal.go_on(run, &Session::of_this_process("t")).unwrap();
    let writer = journal.write(run).unwrap();
    writer.record(ok(1, 0, "a1"));
    writer.finish("complete", 0).unwrap();
    let reader = Reader::open(&world.path()).unwrap();
    assert_eq!(reader.failed(run).unwrap(), []);
    assert_eq!(world.sql::<i64>("SELECT attempts FROM results"), 2);
    let info = reader.run(run).unwrap();
    assert_eq!((info.ok, info.failed, info.sessions), (1, 0, 2));
}

#[test]
fn a_batch_is_recorded_as_its_items_and_its_result_is_found_by_each() {
    let world = World::new();
    let (run, writer) = world.begin(&["pack", "send"]);
    for seq in 1..=3 {
        writer.record(taken(seq, &seq.to_string()));
    }
    let content = Content::Bytes("packed".into());
    let answer =
        Answer { seqs: vec![1, 3], batch: Some(9), ..Answer::new(1, 0, Outcome::Ok(content)) };
    writer.record(Entry::Answer(answer));
    writer.finish("unfinished", 3).unwrap();
    let progress = world.open().progress(run).unwrap();
    let known = progress.of(&[1, 2, 3]).unwrap();
    let batch = |index: usize| known[index].results.first().and_then(|made| made.batch);
    assert_eq!([batch(0), batch(1), batch(2)], [Some((9, 2)), None, Some((9, 2))]);
    assert_eq!(known[2].results[0].value, "packed");
    assert_eq!(progress.last_batch[&0], 9);
}

#[test]
fn a_large_result_is_a_file_and_goes_with_the_last_run_that_names_it() {
    let world = World::new();
    let (run, writer) = world.begin(&["one"]);
    let large = vec![b'x'; LARGEST_INSIDE + 1];
    writer.record(taken(1, "a"));
    let kept = writer.keep(|file| file.write_all(&large)).unwrap();
    writer.record(Entry::Answer(Answer::new(1, 0, Outcome::Ok(kept))));
    writer.finish("complete", 0).unwrap();
    let progress = world.open().progress(run).unwrap();
    assert_eq!(progress.of(&[1]).unwrap()[0].results[0].value, large);
    let folder = world.path().with_file_name("journal.db.values");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    assert!(Reader::open(&world.path()).unwrap().size() > large.len() as u64);

    let kept = Keep { younger_than: Some(Duration::from_secs(3600)), ..Keep::default() };
    assert_eq!(world.open().prune(&kept).unwrap().runs, Vec::<u64>::new());
    let pruned = world.open().prune(&Keep::default()).unwrap();
    assert_eq!(pruned.runs, [run]);
    assert!(pruned.bytes >= large.len() as u64, "{pruned:?}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert_eq!(world.begin(&["one"]).0, run + 1, "a number is never given twice");
}

#[test]
fn a_changed_definition_takes_results_away_from_there_on() {
    let world = World::new();
    let (run, writer) = world.begin(&["one", "two"]);
    writer.record(taken(1, "a"));
    writer.record(ok(1, 0, "a1"));
    writer.record(ok(1, 1, "a2"));
    writer.record(Entry::Printed(vec![1]));
    writer.finish("complete", 0).unwrap();
    let mut journal = world.open();
    let mut stages = journal.stages(run).unwrap();
    stages[1].definition = [1; 32];
    journal.change_stages(run, &stages, Some(1)).unwrap();
    assert_eq!(journal.stages(run).unwrap(), stages);
    drop(journal);
    assert_eq!(pending(&world, run), [(1, 1, false)]);
}

#[test]
fn reading_goes_on_while_another_writes() {
    let world = World::new();
    let (run, writer) = world.begin(&["one"]);
    let reader = Reader::open(&world.path()).unwrap();
    for seq in 1..=50 {
        let last = writer.record(taken(seq, &seq.to_string()));
        writer.wait(last).unwrap();
        assert_eq!(reader.run(run).unwrap().items, seq);
    }
    writer.finish("unfinished", 3).unwrap();
    assert_eq!(reader.run(run).unwrap().unfinished(), 50);
}

/// A pipeline of two stages whose answers are recorded.
fn run_recorded(writer: &Writer, items: u64) -> paceline::Summary {
    let (source, one, two) = (writer.clone(), writer.clone(), writer.clone());
    Pipeline::from_iter(1..=items)
        .record(move |answered| source.record(taken(*answered.outcome.unwrap(), "x")))
        .cpu("one", |n: u64| Ok::<_, paceline::BoxError>(n))
        .record(move |answered| one.record(ok(*answered.outcome.unwrap(), 0, "y")))
        .cpu("two", |n: u64| if n.is_multiple_of(10) { Err("ten".to_owned()) } else { Ok(n) })
        .record(move |answered| match answered.outcome {
            Ok(n) => two.record(ok(*n, 1, "z")),
            Err(failure) => {
                two.record(failed(answered.item.sequence_numbers()[0], 1, failure.stage()))
            }
        })
        .journal(Arc::new(writer.clone()))
        .discard()
        .run()
        .unwrap()
}

#[test]
fn what_the_engine_calls_done_is_recorded_and_what_has_failed_too() {
    let world = World::new();
    let (run, writer) = world.begin(&["one", "two"]);
    let summary = run_recorded(&writer, 1000);
    assert_eq!((summary.ok, summary.failed), (900, 100));
    // Without an end, as after a kill: the account was given out after all was recorded.
    let info = Reader::open(&world.path()).unwrap().run(run).unwrap();
    assert_eq!((info.items, info.ok, info.failed), (1000, 900, 100));
    writer.finish("failed", 1).unwrap();
    let reader = Reader::open(&world.path()).unwrap();
    let stages = reader.stages(run).unwrap();
    assert_eq!(
        [(stages[0].ok, stages[0].failed), (stages[1].ok, stages[1].failed)],
        [(1000, 0), (900, 100)]
    );
    assert_eq!(reader.failed(run).unwrap()[0].value, b"x");
}

#[test]
fn a_journal_that_cannot_be_written_ends_the_run_and_calls_nothing_done_that_it_lacks() {
    let world = World::new();
    let (run, writer) = world.begin(&["one"]);
    let spoil = std::sync::Mutex::new(rusqlite::Connection::open(world.path()).unwrap());
    let (source, one) = (writer.clone(), writer.clone());
    let summary = Pipeline::from_iter(1..=100_000_u64)
        .record(move |answered| source.record(taken(*answered.outcome.unwrap(), "x")))
        .cpu("one", move |n: u64| {
            if n == 500 {
                // From now on the writer's statements fail.
                spoil.lock().unwrap().execute_batch("DROP TABLE results").unwrap();
            }
            Ok::<_, paceline::BoxError>(n)
        })
        .workers(1)
        .record(move |answered| one.record(ok(*answered.outcome.unwrap(), 0, "y")))
        .journal(Arc::new(writer.clone()))
        .collect();
    let error = summary.unwrap_err();
    assert_eq!(error.kind(), paceline::ErrorKind::Journal);
    assert!(error.to_string().contains("could not write the journal `"), "{error}");
    assert!(writer.trouble().is_some());
    assert!(writer.finish("error", 4).is_err());
    let _ = run;
}

#[test]
fn f4_another_program_that_holds_the_database_only_delays() {
    let world = World::new();
    let (_, writer) = world.begin(&["one"]);
    let (held, is_held) = std::sync::mpsc::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let path = world.path();
    let holder = std::thread::spawn(move || {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        held.send(()).unwrap();
        released.recv().unwrap();
        connection.execute_batch("ROLLBACK").unwrap();
    });
    is_held.recv().unwrap();
    let last = writer.record(taken(1, "a"));
    assert!(!writer.is_recorded(last));
    release.send(()).unwrap();
    writer.wait(last).unwrap();
    holder.join().unwrap();
    writer.finish("complete", 0).unwrap();
}

#[test]
fn a_new_journal_lies_in_a_folder_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".paceline/journal.db");
    drop(Journal::open(&path).unwrap());
    use std::os::unix::fs::PermissionsExt;
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
}

#[test]
fn a_mark_that_a_kill_kept_from_the_database_counts_all_the_same() {
    /// The run, the session, and the items marked; what of these counts.
    const CASES: [(&[u64], &[u64]); 5] = [
        (&[1, 1, 1, 2], &[1, 2]),
        // What is not done cannot have been printed, whatever a power cut has kept.
        (&[1, 1, 2, 3, 99], &[2]),
        // Marks of another session, or of a run that is not there.
        (&[1, 7, 1], &[]),
        (&[9, 1, 1], &[]),
        (&[1], &[]),
    ];
    for (marks, counted) in CASES {
        let world = World::new();
        let (run, writer) = world.begin(&["one"]);
        for (seq, name) in [(1, "a"), (2, "b"), (3, "c")] {
            writer.record(taken(seq, name));
        }
        for seq in [1, 2] {
            writer.record(ok(seq, 0, "x"));
        }
        drop(writer);
        let path = world.path().with_file_name("journal.db.printed");
        assert!(!path.exists(), "the database knows all");
        let mut bytes: Vec<u8> = marks.iter().flat_map(|number| number.to_le_bytes()).collect();
        bytes.push(7);
        std::fs::write(&path, bytes).unwrap();
        let progress = world.open().progress(run).unwrap();
        let left: Vec<u64> = [1, 2].into_iter().filter(|seq| !counted.contains(seq)).collect();
        assert_eq!(progress.unprinted, left, "{marks:?}");
        assert!(!path.exists());
    }
}
