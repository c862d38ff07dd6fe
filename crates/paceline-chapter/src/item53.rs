//! Item 53: threads for blocking calls; and for computing too, here.

use std::{convert::Infallible, time::Duration};

use paceline::{BoxError, Error, Pipeline, cores};

use crate::{
    Item, Show,
    show::{expect, timed, wait_for},
};

pub(crate) const ITEM: Item =
    Item { number: 53, title: "Threads: for what waits, and for what computes", show };

/// The four numbers of the chapter.
pub const NUMBERS: [u64; 4] = [2_139_079, 1_214_759, 1_516_637, 1_852_285];

/// Returns all factors of a number, by trying every smaller one.
pub fn factors(number: u64) -> Vec<u64> {
    (1..=number).filter(|factor| number.is_multiple_of(*factor)).collect()
}

/// A blocking call that takes a tenth of a second.
pub fn slow_call() {
    wait_for(Duration::from_millis(100));
}

/// Finds the factors of `numbers` on so many threads, in the order of the numbers.
///
/// # Errors
///
/// If the threads cannot be started.
pub fn factors_of(numbers: &[u64], workers: usize) -> Result<Vec<Vec<u64>>, Error> {
    let (found, _) = Pipeline::from_iter(numbers.iter().copied())
        .cpu("factor", |number| Ok::<_, Infallible>(factors(number)))
        .workers(workers)
        .ordered()
        .collect()?;
    Ok(found)
}

/// Makes so many slow calls on so many threads.
///
/// # Errors
///
/// If the threads cannot be started.
pub fn slow_calls(count: usize, workers: usize) -> Result<u64, Error> {
    let summary = Pipeline::from_iter(0..count)
        .blocking("call", |_| {
            slow_call();
            Ok::<_, Infallible>(())
        })
        .workers(workers)
        .run()?;
    Ok(summary.ok)
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    // Once is a matter of milliseconds; the threads should have something to do.
    let numbers: Vec<u64> = NUMBERS.into_iter().cycle().take(24).collect();
    let (serial, time) =
        timed(|| numbers.iter().map(|number| factors(*number)).collect::<Vec<_>>());
    show.took("the factors of 24 numbers, one after the other", time)?;
    let workers = cores();
    let (found, at_once) = timed(|| factors_of(&numbers, workers));
    expect(found? == serial, "the factors")?;
    show.took(&format!("  on {workers} threads"), at_once)?;
    show.found("  times as fast", format!("{:.2}", time.as_secs_f64() / at_once.as_secs_f64()))?;
    for workers in [1, 5] {
        let (answered, time) = timed(|| slow_calls(5, workers));
        expect(answered? == 5, "five calls")?;
        show.took(&format!("five blocking calls of 100 ms, {workers} at once"), time)?;
    }
    show.python(include_str!("../python/item53.py"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_found_on_threads_are_those_found_in_a_row() {
        let serial: Vec<_> = NUMBERS.into_iter().map(factors).collect();
        assert_eq!(serial[0], [1, 101, 21179, 2_139_079]);
        assert_eq!(factors_of(&NUMBERS, 3).unwrap(), serial);
    }

    #[test]
    fn every_call_is_answered() {
        assert_eq!(slow_calls(5, 5).unwrap(), 5);
    }
}
