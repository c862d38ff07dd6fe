//! Item 55: queues between stages, bounded, closed by themselves, joined.

use std::{convert::Infallible, sync::Mutex, thread, time::Duration};

use paceline::{BoxError, Error, Pipeline, Summary};
use paceline_queue::Queue;

use crate::{
    Item, Show,
    item53::{NUMBERS, factors},
    show::{expect, timed, wait_for},
};

pub(crate) const ITEM: Item =
    Item { number: 55, title: "Queues: stages that overlap, none flooded, none polling", show };

/// Pushes two items into a queue with room for one, and returns what happened
/// in which order: the second push ends after the first pop.
pub fn a_buffer_of_one() -> Vec<&'static str> {
    let queue = Queue::bounded(1);
    let told = Mutex::new(Vec::new());
    let tell = |what| told.lock().expect("nobody panics here").push(what);
    let first_is_in = Queue::bounded(1);
    thread::scope(|scope| {
        scope.spawn(|| {
            first_is_in.pop().expect("it is not closed");
            // Told before the pop: the producer may go on in the moment of it.
            tell("consumer takes the first");
            while queue.pop().is_ok() {}
            tell("consumer is done");
        });
        let producer = queue.producer();
        producer.push("first").expect("it is open");
        tell("producer has pushed the first");
        first_is_in.push(()).expect("it is open");
        producer.push("second").expect("it is open");
        tell("producer has pushed the second");
        // The last producer closes the queue: no sentinel, no count of consumers.
    });
    told.into_inner().expect("nobody panics here")
}

/// Downloads, resizes and uploads `count` items with 3, 4 and 5 workers. Each
/// step takes `step`. Returns the summary of the run.
///
/// # Errors
///
/// If the threads cannot be started.
pub fn download_resize_upload(count: usize, step: Duration) -> Result<Summary, Error> {
    let slow = move |item: usize| {
        wait_for(step);
        Ok::<_, Infallible>(item)
    };
    Pipeline::from_iter(0..count)
        .blocking("download", slow)
        .workers(3)
        .queue(16)
        .blocking("resize", slow)
        .workers(4)
        .queue(16)
        .blocking("upload", slow)
        .workers(5)
        .queue(16)
        .discard()
        .run()
}

/// The same, started and watched: returns the summary, and how many different
/// numbers of finished items were seen while it ran.
///
/// # Errors
///
/// If the threads cannot be started.
pub fn watched_meanwhile(count: usize, step: Duration) -> Result<(Summary, usize), Error> {
    let slow = move |item: usize| {
        wait_for(step);
        Ok::<_, Infallible>(item)
    };
    let running = Pipeline::from_iter(0..count)
        .blocking("download", slow)
        .workers(3)
        .blocking("upload", slow)
        .workers(5)
        .discard()
        .start()?;
    let mut seen = Vec::new();
    loop {
        let progress = running.progress();
        if seen.last() != Some(&progress.ok) {
            seen.push(progress.ok);
        }
        if progress.ok as usize == count {
            break;
        }
        // Other work, meanwhile.
        factors(NUMBERS[0]);
    }
    Ok((running.join()?, seen.len()))
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    show.say("a queue with a buffer of one:")?;
    for event in a_buffer_of_one() {
        show.say(&format!("  {event}"))?;
    }
    let step = Duration::from_millis(5);
    let (summary, time) = timed(|| download_resize_upload(300, step));
    let summary = summary?;
    expect(summary.ok == 300, "300 items")?;
    show.took("300 items, three steps of 5 ms, 3, 4 and 5 workers", time)?;
    show.took("  what the first stage alone needs", step * 100)?;
    show.found("  the account", summary.account())?;
    for stage in &summary.stages {
        let most = format!("{} of {}", stage.high_water, stage.capacity);
        show.found(&format!("  most that waited before `{}`", stage.name), most)?;
    }
    let (summary, seen) = watched_meanwhile(100, step)?;
    expect(summary.ok == 100, "100 items")?;
    show.found("  different counts seen while a run went on", seen)?;
    show.python(include_str!("../python/item55.py"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_push_ends_after_the_first_pop_began() {
        assert_eq!(
            a_buffer_of_one(),
            [
                "producer has pushed the first",
                "consumer takes the first",
                "producer has pushed the second",
                "consumer is done",
            ]
        );
    }

    #[test]
    fn all_items_pass_and_counters_rise_meanwhile() {
        let summary = download_resize_upload(40, Duration::from_millis(1)).unwrap();
        assert_eq!(summary.account(), "in 40 = ok 40 + failed 0 + unfinished 0");
        let (summary, _) = watched_meanwhile(40, Duration::from_millis(1)).unwrap();
        assert_eq!(summary.ok, 40);
    }
}
