//! Item 57: no thread per item: a few threads, started once, that borrow.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use paceline::{BoxError, Pipeline, cores};

use crate::{
    Item, Show,
    item56::measured,
    life::{Grid, SimulationError, step},
    show::timed,
};

pub(crate) const ITEM: Item =
    Item { number: 57, title: "No thread per item: a few, that borrow the grid", show };

/// Works each generation out with a thread a cell: what not to do.
///
/// # Errors
///
/// If a cell cannot be worked out. (Here the caller gets to know: a Python
/// thread would print it and be gone.)
pub fn a_thread_per_cell(
    mut grid: Grid,
    generations: usize,
    wait: Duration,
) -> Result<Grid, SimulationError> {
    for _ in 0..generations {
        let mut next = grid.clone();
        let failed = Mutex::new(None);
        thread::scope(|scope| {
            for (place, cell) in next.cells_mut() {
                let (grid, failed) = (&grid, &failed);
                scope.spawn(move || match step(grid, place, wait) {
                    Ok((_, lives)) => *cell = lives,
                    Err(error) => {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                });
            }
        });
        match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => return Err(error),
            None => grid = next,
        }
    }
    Ok(grid)
}

/// Works each generation out on so many threads. They read the grid where it
/// is, and each writes the cells that it was given: no lock, no copy.
///
/// # Errors
///
/// The first failure, with its cell and its cause.
pub fn on_a_few_threads(
    mut grid: Grid,
    generations: usize,
    wait: Duration,
    workers: usize,
) -> Result<Grid, BoxError> {
    for _ in 0..generations {
        let mut next = grid.clone();
        let summary = Pipeline::from_iter(next.cells_mut())
            .blocking("step", |(place, cell): (_, &mut bool)| {
                *cell = step(&grid, place, wait)?.1;
                Ok::<_, SimulationError>(())
            })
            .workers(workers)
            .run()?;
        if let Some(failure) = summary.failures.into_iter().next() {
            return Err(failure.into());
        }
        grid = next;
    }
    Ok(grid)
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    measured(show, "a thread per cell", |grid, generations, wait| {
        Ok(a_thread_per_cell(grid, generations, wait)?)
    })?;
    measured(show, "five threads, started anew", |grid, generations, wait| {
        on_a_few_threads(grid, generations, wait, 5)
    })?;
    let large = Grid::empty(100, 100);
    let (done, time) = timed(|| a_thread_per_cell(large.clone(), 1, Duration::ZERO));
    done?;
    show.took("10000 cells, a thread each", time)?;
    let workers = cores();
    let (done, time) = timed(|| on_a_few_threads(large, 1, Duration::ZERO, workers));
    done?;
    show.took(&format!("10000 cells, {workers} threads"), time)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r56_3_threads_give_the_generations_of_the_row() {
        for grid in [
            a_thread_per_cell(Grid::glider(), 180, Duration::ZERO).unwrap(),
            on_a_few_threads(Grid::glider(), 180, Duration::ZERO, 3).unwrap(),
        ] {
            assert_eq!(grid, Grid::glider());
        }
    }
}
