//! Item 56: knowing when concurrency is needed, at the Game of Life.

use std::time::Duration;

use paceline::BoxError;

use crate::{
    Item, Show,
    life::{Grid, SimulationError, step},
    show::{expect, timed},
};

pub(crate) const ITEM: Item =
    Item { number: 56, title: "When it is needed: the Game of Life, in a row", show };

/// How long a cell waits for its neighbours in the items from 56 to 60.
pub const WAIT: Duration = Duration::from_millis(2);

/// Works so many generations out, cell after cell.
///
/// # Errors
///
/// If a cell cannot be worked out.
pub fn in_a_row(
    mut grid: Grid,
    generations: usize,
    wait: Duration,
) -> Result<Grid, SimulationError> {
    for _ in 0..generations {
        let mut next = grid.clone();
        for place in grid.places() {
            let (place, lives) = step(&grid, place, wait)?;
            next.set(place, lives);
        }
        grid = next;
    }
    Ok(grid)
}

/// Runs 180 generations without waits and 10 with them, checks where the
/// glider is, and prints both times.
pub(crate) fn measured(
    show: &mut Show<'_>,
    what: &str,
    run: impl Fn(Grid, usize, Duration) -> Result<Grid, BoxError>,
) -> Result<(), BoxError> {
    let (last, time) = timed(|| run(Grid::glider(), 180, Duration::ZERO));
    expect(last? == Grid::glider(), "the glider's way round the grid")?;
    show.took(&format!("{what}: 180 generations"), time)?;
    let expected = in_a_row(Grid::glider(), 10, Duration::ZERO)?;
    let (last, time) = timed(|| run(Grid::glider(), 10, WAIT));
    expect(last? == expected, "ten generations")?;
    show.took(&format!("{what}: 10, where each cell waits 2 ms"), time)?;
    Ok(())
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    let mut columns = vec![String::new(); 5];
    let mut grid = Grid::glider();
    for _ in 0..5 {
        for (column, line) in columns.iter_mut().zip(grid.to_string().lines()) {
            column.push_str(&format!("{line} | "));
        }
        grid = grid.next();
    }
    for line in columns {
        show.say(line.trim_end_matches(" | "))?;
    }
    measured(show, "in a row", |grid, generations, wait| Ok(in_a_row(grid, generations, wait)?))?;
    show.took("  45 cells wait one after another: so much a generation", 45 * WAIT)?;
    show.say("`paceline advise` measures a command and says what concurrency would give it.")?;
    show.python(include_str!("../python/item56.py"))?;
    Ok(())
}
