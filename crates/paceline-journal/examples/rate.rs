//! Measures what a journal costs in process: items a second, bytes an item, the time to go on.
//!
//! usage: cargo run --release -p paceline-journal --example rate -- [ITEMS] [STAGES]

use std::{error::Error, sync::Arc, time::Instant};

use bytes::Bytes;
use paceline::Pipeline;
use paceline_journal::{
    Answer, Content, Entry, Item, Journal, NewRun, Ordinals, Outcome, identity,
};

#[expect(clippy::print_stdout, reason = "a measurement tells its figures")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let items: u64 = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let folder = tempfile::tempdir_in(".")?;
    let path = folder.path().join("journal.db");
    let mut journal = Journal::open(&path)?;
    let run = journal.begin(&NewRun::of_stages("run", "rate", &["work"]))?;
    let writer = journal.write(run)?;

    let (source, work) = (writer.clone(), writer.clone());
    let ordinals = std::sync::Mutex::new(Ordinals::default());
    let started = Instant::now();
    let summary = Pipeline::from_iter(1..=items)
        .record(move |answered| {
            let Ok(seq) = answered.outcome else { return 0 };
            let value = format!("photos/{seq:09}.jpg");
            let ordinal = ordinals.lock().map_or(1, |mut all| all.count(value.as_bytes()));
            let id = identity(value.as_bytes(), ordinal);
            source.record(Entry::Taken(Item { ordinal, ..Item::new(*seq, id, value.as_bytes()) }))
        })
        .cpu("work", |n: u64| Ok::<_, paceline::BoxError>(n))
        .record(move |answered| {
            let Ok(seq) = answered.outcome else { return 0 };
            let made = Content::Bytes(Bytes::from(format!("thumbs/{seq:09}.jpg")));
            work.record(Entry::Answer(Answer::new(*seq, 0, Outcome::Ok(made))))
        })
        .journal(Arc::new(writer.clone()))
        .discard()
        .run()?;
    writer.finish("complete", 0)?;
    let took = started.elapsed();
    println!("{summary}");
    println!("recorded: {:.0} items/s", items as f64 / took.as_secs_f64());
    let size = std::fs::metadata(&path)?.len();
    println!("size: {:.0} bytes an item ({} MB)", size as f64 / items as f64, size >> 20);
    let started = Instant::now();
    let progress = Journal::open(&path)?.progress(run)?;
    println!("to go on, {} items known: {:?}", progress.known.len(), started.elapsed());
    Ok(())
}
