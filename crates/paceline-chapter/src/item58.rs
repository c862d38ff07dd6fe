//! Item 58: from one phase to two, by queues: one more line.

use std::{sync::Arc, time::Duration};

use paceline::{BoxError, Pipeline, Rounds};

use crate::{
    Item, Show,
    item56::measured,
    life::{Grid, Place, SimulationError, rule, step},
    show::wait_for,
};

pub(crate) const ITEM: Item =
    Item { number: 58, title: "Queues: one phase, and then two, by one more line", show };

/// The workers of each phase, as in the book.
const WORKERS: usize = 5;

/// A cell of a generation, on its way to the answer.
type Cell = (Arc<Grid>, Place);

/// The first phase: the neighbours, which take a while to come.
fn count(
    (grid, place): Cell,
    wait: Duration,
) -> Result<(Arc<Grid>, Place, usize), SimulationError> {
    if !wait.is_zero() {
        wait_for(wait);
    }
    let neighbours = grid.neighbours(place);
    Ok((grid, place, neighbours))
}

/// Runs one generation after the other through the same workers.
fn live(
    rounds: &mut Rounds<'_, Cell, (Place, bool)>,
    mut grid: Grid,
    generations: usize,
) -> Result<Grid, BoxError> {
    for _ in 0..generations {
        let shared = Arc::new(grid.clone());
        // The round is over when all of it is in: the next begins then.
        for answer in rounds.run(grid.places().map(|place| (shared.clone(), place)))? {
            let (place, lives) = answer?;
            grid.set(place, lives);
        }
    }
    Ok(grid)
}

/// One phase: five workers, each with a cell from beginning to end.
///
/// # Errors
///
/// The first failure, with its cell and its cause, here and below.
pub fn one_phase(grid: Grid, generations: usize, wait: Duration) -> Result<Grid, BoxError> {
    Pipeline::rounds(
        |cells| {
            cells.blocking("step", |(grid, place): Cell| step(&grid, place, wait)).workers(WORKERS)
        },
        |rounds| live(rounds, grid, generations),
    )?
    .0
}

/// Two phases: the neighbours by five workers, the rule by five others.
///
/// # Errors
///
/// The first failure, with its cell and its cause.
pub fn two_phases(grid: Grid, generations: usize, wait: Duration) -> Result<Grid, BoxError> {
    Pipeline::rounds(
        |cells| {
            cells
                .blocking("count", |cell| count(cell, wait))
                .workers(WORKERS)
                .blocking("step", |(grid, place, neighbours): (Arc<Grid>, Place, usize)| {
                    Ok::<_, SimulationError>((place, rule(grid.lives(place), neighbours)))
                })
                .workers(WORKERS)
        },
        |rounds| live(rounds, grid, generations),
    )?
    .0
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    measured(show, "one phase, five workers", one_phase)?;
    measured(show, "two phases, five workers each", two_phases)?;
    show.python(include_str!("../python/item58.py"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r56_3_queues_give_the_generations_of_the_row() {
        assert_eq!(one_phase(Grid::glider(), 180, Duration::ZERO).unwrap(), Grid::glider());
        assert_eq!(two_phases(Grid::glider(), 180, Duration::ZERO).unwrap(), Grid::glider());
    }
}
