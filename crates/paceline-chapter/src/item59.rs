//! Item 59: a pool of threads that answers, kept for all generations.

use std::{io, sync::Arc, time::Duration};

use paceline::{BoxError, ThreadPool};

use crate::{
    Item, Show,
    item56::measured,
    life::{Grid, SimulationError, step},
    show::{expect, timed},
};

pub(crate) const ITEM: Item = Item { number: 59, title: "A pool of threads, and answers", show };

/// The threads of the book's pool.
const WORKERS: usize = 10;

/// Works all generations out by one pool.
///
/// # Errors
///
/// The first failure, with its cell and its cause.
pub fn by_a_pool(mut grid: Grid, generations: usize, wait: Duration) -> Result<Grid, BoxError> {
    let pool = ThreadPool::builder("cells").workers(WORKERS).build()?;
    for _ in 0..generations {
        let shared = Arc::new(grid.clone());
        for answer in pool.map(grid.places(), move |place| step(&shared, place, wait)) {
            let (place, lives) = answer?;
            grid.set(place, lives);
        }
    }
    pool.shutdown()?;
    Ok(grid)
}

/// Submits the cells of one generation, of which one fails, and returns what
/// its answer says, and how many others have one of their own.
///
/// # Errors
///
/// If the pool cannot be started.
pub fn one_failure() -> Result<(String, usize), BoxError> {
    let pool = ThreadPool::builder("cells").workers(WORKERS).build()?;
    let grid = Arc::new(Grid::glider());
    let mut answers = Vec::new();
    for place in grid.places() {
        let grid = grid.clone();
        answers.push(pool.submit(move || match place {
            (2, 2) => Err(SimulationError { place, cause: io::Error::other("no answer") }),
            _ => step(&grid, place, Duration::ZERO),
        })?);
    }
    let (mut said, mut others) = (String::new(), 0);
    for answer in answers {
        match answer.wait() {
            Ok(_) => others += 1,
            Err(failure) => said = format!("{failure}: {}", failure.cause()),
        }
    }
    pool.shutdown()?;
    Ok((said, others))
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    measured(show, "a pool of ten", by_a_pool)?;
    let (said, others) = one_failure()?;
    expect(others == 44, "the answers beside the failure")?;
    show.found("a cell that fails says so where it is asked", said)?;
    let (done, time) = timed(|| -> Result<usize, BoxError> {
        let pool = ThreadPool::builder("trivial").workers(2).build()?;
        let done = pool.map(0..100_000_u32, |n| Ok::<_, BoxError>(n ^ 1)).flatten().count();
        pool.shutdown()?;
        Ok(done)
    });
    expect(done? == 100_000, "100000 answers")?;
    show.took("100000 trivial pieces of work, two threads", time)?;
    show.python(include_str!("../python/item59.py"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r56_3_a_pool_gives_the_generations_of_the_row() {
        assert_eq!(by_a_pool(Grid::glider(), 180, Duration::ZERO).unwrap(), Grid::glider());
    }

    #[test]
    fn a_failure_names_its_cell_and_its_cause() {
        let (said, others) = one_failure().unwrap();
        assert!(said.contains("row 2, column 2"), "{said}");
        assert_eq!(others, 44);
    }
}
