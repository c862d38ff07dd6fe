//! Item 64: true parallelism, by threads and by worker processes.
//!
//! The worker processes are this program, started again: a program that shows
//! this item calls [`serve_if_asked`] first.

use std::{convert::Infallible, env, time::Duration};

use paceline::{BoxError, Json, Pipeline, ProcessPool, ProcessPoolBuilder, cores, serve};

use crate::{
    Item, Show,
    item56::measured,
    life::{Grid, Place, rule},
    show::{expect, timed, wait_for},
};

pub(crate) const ITEM: Item =
    Item { number: 64, title: "True parallelism: threads and worker processes", show };

/// The pairs of the book.
pub const PAIRS: [(u64, u64); 10] = [
    (1_963_309, 2_265_973),
    (2_030_677, 3_814_172),
    (1_551_645, 2_229_620),
    (2_039_045, 2_020_802),
    (1_823_712, 1_924_928),
    (2_293_129, 1_020_491),
    (1_281_238, 2_273_782),
    (3_823_812, 4_237_281),
    (3_812_741, 4_729_139),
    (1_292_391, 2_123_811),
];

/// Their greatest common divisors.
pub const DIVISORS: [u64; 10] = [1, 1, 5, 1, 32, 1, 14, 9, 1, 9];

/// The first argument of this program when it is to be a worker.
const WORKER: &str = "__chapter-worker";

/// Serves as a worker process if the arguments of this program say so, and
/// returns whether it did; the program should end then.
///
/// Waits until the program that started it wants no more.
///
/// # Errors
///
/// If it was not started as a worker, or asked for work that there is not.
pub fn serve_if_asked() -> Result<bool, BoxError> {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() != Some(WORKER) {
        return Ok(false);
    }
    match arguments.next().as_deref() {
        Some("gcd") => serve(|Json(pair)| Ok::<_, Infallible>(Json(gcd(pair))))?,
        Some("cell") => serve(|Json(cell)| Ok::<_, Infallible>(Json(step_far_away(cell))))?,
        other => return Err(format!("there is no work called {other:?}").into()),
    }
    Ok(true)
}

fn pool(work: &str) -> Result<ProcessPoolBuilder, BoxError> {
    Ok(ProcessPool::this_program([WORKER, work])?)
}

/// Returns the greatest common divisor, by trying every smaller number.
pub fn gcd((a, b): (u64, u64)) -> u64 {
    (1..=a.min(b)).rev().find(|n| a.is_multiple_of(*n) && b.is_multiple_of(*n)).unwrap_or(0)
}

/// Finds the divisors on so many threads, in the order of the pairs.
///
/// # Errors
///
/// If the threads cannot be started.
pub fn by_threads(pairs: &[(u64, u64)], workers: usize) -> Result<Vec<u64>, BoxError> {
    let (found, _) = Pipeline::from_iter(pairs.iter().copied())
        .cpu("gcd", |pair| Ok::<_, Infallible>(gcd(pair)))
        .workers(workers)
        .ordered()
        .collect()?;
    Ok(found)
}

/// Finds the divisors in so many processes, in the order of the pairs.
///
/// # Errors
///
/// If the processes cannot be started, or one fails.
pub fn by_processes(pairs: &[(u64, u64)], workers: usize) -> Result<Vec<u64>, BoxError> {
    let pool = pool("gcd")?.workers(workers).start()?;
    let found = pool
        .map(pairs.iter().copied().map(Json), 1)?
        .map(|answer| answer.map(|Json(divisor): Json<u64>| divisor))
        .collect::<Result<_, _>>()?;
    pool.shutdown()?;
    Ok(found)
}

/// A cell of the Game of Life, for a process that has no grid: what lives,
/// which cell, and how many milliseconds to wait.
type FarCell = (Vec<Place>, Place, u64);

fn step_far_away((living, place, wait): FarCell) -> (Place, bool) {
    if wait > 0 {
        wait_for(Duration::from_millis(wait));
    }
    let mut grid = Grid::empty(5, 9);
    living.into_iter().for_each(|place| grid.set(place, true));
    (place, rule(grid.lives(place), grid.neighbours(place)))
}

/// Works generations of the book's grid out in so many processes.
///
/// # Errors
///
/// If the processes cannot be started, or one fails.
pub fn live_by_processes(
    mut grid: Grid,
    generations: usize,
    wait: Duration,
    workers: usize,
) -> Result<Grid, BoxError> {
    let pool = pool("cell")?.workers(workers).start()?;
    for _ in 0..generations {
        let living = grid.living();
        let wait = wait.as_millis() as u64;
        let cells = grid.places().map(|place| Json((living.clone(), place, wait)));
        for answer in pool.map(cells, 1)? {
            let Json((place, lives)) = answer?;
            grid.set(place, lives);
        }
    }
    pool.shutdown()?;
    Ok(grid)
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    // Once is a matter of a tenth of a second.
    let pairs: Vec<_> = PAIRS.into_iter().cycle().take(40).collect();
    let expected: Vec<_> = DIVISORS.into_iter().cycle().take(40).collect();
    let (found, serial) = timed(|| pairs.iter().copied().map(gcd).collect::<Vec<_>>());
    expect(found == expected, "the divisors")?;
    show.took("the divisors of 40 pairs, one after the other", serial)?;
    let workers = cores();
    let (found, time) = timed(|| by_threads(&pairs, workers));
    expect(found? == expected, "the divisors found by threads")?;
    show.took(&format!("  on {workers} threads"), time)?;
    let (found, time) = timed(|| by_processes(&pairs, workers));
    expect(found? == expected, "the divisors found by processes")?;
    show.took(&format!("  in {workers} processes, their start included"), time)?;
    measured(show, "processes", |grid, generations, wait| {
        live_by_processes(grid, generations, wait, 2)
    })?;
    show.python(include_str!("../python/item64.py"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r64_1_the_pairs_have_these_divisors_in_a_row_and_by_threads() {
        assert_eq!(PAIRS.map(gcd), DIVISORS);
        assert_eq!(by_threads(&PAIRS, 2).unwrap(), DIVISORS);
    }
}
