//! What it costs to record a run, and to go on with one.
//!
//! Not here: how `each` is run and measured (`each/program.rs`).

use std::{
    ffi::OsString,
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use paceline::{BoxError, Pipeline};
use paceline_journal::{
    Answer, Content, Entry, Item, Journal, NewRun, Ordinals, Outcome, identity,
};

use crate::{
    children,
    each::{
        paceline,
        program::{Run, lines},
    },
    harness::{Bar, Contest, Limit, Options, timed},
};

pub(crate) const ABOUT: &str = "\
The journal, on and off. `each /bin/true`: the program with `--journal FILE` and without, in four
times as many rounds. In process: one stage on the CPU that does nothing, while an item's bytes,
its identity and its result are recorded before the sink sees it; into a new file, and into one
that holds a million items. A run of so many items, in at most three rounds: recorded in process,
the size of its file, and what is done before it is gone on with: the file is opened and all that
is known of the run is read.";

const OFF: &str = "not recorded";
const ON: &str = "recorded";
const LATER: &str = "recorded after a million";

pub(crate) fn contests(options: &Options) -> Vec<Contest> {
    vec![each(options), in_process(options), growth(options)]
}

fn each(options: &Options) -> Contest {
    let jobs = options.amount(2000);
    let mut contest = Contest::new("each /bin/true", "us").measure("CPU time", "us");
    // A difference of a few percent needs many pairs.
    contest.rounds = Some(4 * options.rounds + 1);
    contest.bars.push(Bar::times(ON, 1.03, &[OFF]));
    let folder = tempfile::tempdir().expect("a folder can be made");
    let journal = folder.path().join("journal.db");
    let run = |more: &[OsString]| {
        let run = Run::new().args(["each", "-q", "-j2"]).args(more.iter().cloned());
        run.args([children::TRUE]).input(lines(1..=jobs)).each_of(jobs)
    };
    let (off, on) = (run(&[]), run(&["--journal".into(), journal.into()]));
    let program = paceline();
    contest.add(OFF, {
        let program = program.clone();
        move || off.measure(&program)
    });
    contest.add(ON, move || {
        let _kept = &folder;
        on.measure(&program)
    });
    contest
}

fn in_process(options: &Options) -> Contest {
    let items = options.amount(500_000) as u64;
    let mut contest = Contest::new("one stage in process", "us");
    // 300,000 items a second, however many there are already.
    contest.bars.push(Bar::at_most(0, ON, 1e6 / 300_000.0));
    contest.bars.push(Bar::at_most(0, LATER, 1e6 / 300_000.0));
    let each = move |time: Duration| vec![micros(time, items)];
    contest.add(OFF, move || each(unrecorded(items)));
    contest.add(ON, move || {
        let folder = tempfile::tempdir().expect("a folder can be made");
        each(recorded(&folder.path().join("journal.db"), items))
    });
    let folder = tempfile::tempdir().expect("a folder can be made");
    let full = folder.path().join("journal.db");
    recorded(&full, options.amount(1_000_000) as u64);
    contest.add(LATER, move || {
        let _kept = &folder;
        each(recorded(&full, items))
    });
    contest
}

/// The same for few items and for many.
fn growth(options: &Options) -> Contest {
    const FEW: &str = "100 k";
    const MORE: &str = "1 M";
    const MOST: &str = "10 M";
    let mut contest = Contest::new("a run of so many items", "us")
        .measure("size of an item", "bytes")
        .measure("read again, an item", "us")
        .measure("read again, all", "s");
    contest.rounds = Some(options.rounds.min(3));
    for name in [MORE, MOST] {
        contest.bars.push(Bar::times(name, 1.1, &[FEW]));
        let limit = Limit::Times(1.02, vec![FEW]);
        contest.bars.push(Bar { measure: 1, of: name, limit });
    }
    for (name, items) in [(FEW, 100_000), (MORE, 1_000_000), (MOST, 10_000_000)] {
        let items = options.amount(items) as u64;
        contest.add(name, move || {
            let folder = tempfile::tempdir().expect("a folder can be made");
            let path = folder.path().join("journal.db");
            let time = recorded(&path, items);
            let size = fs::metadata(&path).expect("it is there").len();
            let read = timed(|| {
                let journal = Journal::open(&path).expect("it opens");
                let progress = journal.progress(1).expect("it can be read");
                assert_eq!((progress.done, progress.known.len() as u64), (items, items));
            });
            let each = size as f64 / items as f64;
            vec![micros(time, items), each, micros(read, items), read.as_secs_f64()]
        });
    }
    contest
}

/// Microseconds an item.
fn micros(time: Duration, items: u64) -> f64 {
    time.as_secs_f64() * 1e6 / items as f64
}

fn unrecorded(items: u64) -> Duration {
    timed(|| {
        let summary = Pipeline::from_iter(1..=items)
            .cpu("work", |seq: u64| Ok::<_, BoxError>(seq))
            .discard()
            .run()
            .expect("it runs");
        assert_eq!(summary.ok, items);
    })
}

/// Runs the same, and records it in the journal at `path`.
fn recorded(path: &Path, items: u64) -> Duration {
    let mut journal = Journal::open(path).expect("it opens");
    let run = journal.begin(&NewRun::of_stages("run", "bench", &["work"])).expect("it begins");
    let writer = journal.write(run).expect("a thread can be started");
    let (source, work, waited_for) = (writer.clone(), writer.clone(), writer.clone());
    let ordinals = Mutex::new(Ordinals::default());
    timed(|| {
        let summary = Pipeline::from_iter(1..=items)
            .record(move |answered| {
                let Ok(seq) = answered.outcome else { return 0 };
                let value = format!("photos/{seq:09}.jpg");
                let ordinal = ordinals.lock().expect("nobody panics").count(value.as_bytes());
                let item = Item::new(*seq, identity(value.as_bytes(), ordinal), value.as_bytes());
                source.record(Entry::Taken(Item { ordinal, ..item }))
            })
            .cpu("work", |seq: u64| Ok::<_, BoxError>(seq))
            .record(move |answered| {
                let Ok(seq) = answered.outcome else { return 0 };
                let made = Content::Bytes(Bytes::from(format!("thumbs/{seq:09}.jpg")));
                work.record(Entry::Answer(Answer::new(*seq, 0, Outcome::Ok(made))))
            })
            .journal(Arc::new(waited_for))
            .discard()
            .run()
            .expect("it runs");
        assert_eq!(summary.ok, items);
        writer.finish("complete", 0).expect("all is recorded");
    })
}
