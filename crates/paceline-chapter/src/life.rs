//! Conway's Game of Life, the example of items 56 to 60 and 64.
//!
//! A cell looks at its eight neighbours on a grid whose edges meet, and lives
//! or dies. That is a unit of work; a generation is all of them, and the next
//! begins when the last one is done: fan-out, then fan-in.

use std::{fmt, io, time::Duration};

use crate::show::wait_for;

/// A place on the grid: row and column.
pub type Place = (usize, usize);

/// Which cells live. The edges meet: right of the last column is the first.
///
/// ```
/// use paceline_chapter::life::Grid;
///
/// // The glider comes back to where it was, one step lower and further, after four generations.
/// let later = (0..4).fold(Grid::glider(), |grid, _| grid.next());
/// assert_eq!(later.living(), [(1, 4), (2, 5), (3, 3), (3, 4), (3, 5)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    width: usize,
    cells: Vec<bool>,
}

impl Grid {
    /// Returns a grid on which nothing lives.
    ///
    /// # Panics
    ///
    /// If it has no cell at all.
    pub fn empty(height: usize, width: usize) -> Self {
        assert!(height > 0 && width > 0, "a grid has at least one cell");
        Self { width, cells: vec![false; height * width] }
    }

    /// Returns the book's 5 x 9 grid with its glider.
    pub fn glider() -> Self {
        let mut grid = Self::empty(5, 9);
        for place in [(0, 3), (1, 4), (2, 2), (2, 3), (2, 4)] {
            grid.set(place, true);
        }
        grid
    }

    /// Returns how many rows there are.
    pub fn height(&self) -> usize {
        self.cells.len() / self.width
    }

    /// Returns all places, row by row.
    pub fn places(&self) -> impl ExactSizeIterator<Item = Place> + Send + use<> {
        let width = self.width;
        (0..self.cells.len()).map(move |cell| (cell / width, cell % width))
    }

    /// Says whether a cell lives; the edges meet.
    pub fn lives(&self, (y, x): Place) -> bool {
        self.cells[y % self.height() * self.width + x % self.width]
    }

    /// Lets a cell live or not.
    pub fn set(&mut self, (y, x): Place, lives: bool) {
        let cell = y % self.height() * self.width + x % self.width;
        self.cells[cell] = lives;
    }

    /// Returns the cells, to be written each by its own worker.
    pub fn cells_mut(&mut self) -> impl Iterator<Item = (Place, &mut bool)> {
        let places = self.places();
        places.zip(&mut self.cells)
    }

    /// Returns the eight places around one.
    pub fn around(&self, (y, x): Place) -> [Place; 8] {
        let (up, down) = (y + self.height() - 1, y + 1);
        let (left, right) = (x + self.width - 1, x + 1);
        [
            (up, left),
            (up, x),
            (up, right),
            (y, left),
            (y, right),
            (down, left),
            (down, x),
            (down, right),
        ]
        .map(|(y, x)| (y % self.height(), x % self.width))
    }

    /// Returns how many of the eight around a place live.
    pub fn neighbours(&self, place: Place) -> usize {
        self.around(place).into_iter().filter(|place| self.lives(*place)).count()
    }

    /// Returns the next generation, worked out cell after cell.
    pub fn next(&self) -> Self {
        let mut next = self.clone();
        for (place, cell) in next.cells_mut() {
            *cell = rule(self.lives(place), self.neighbours(place));
        }
        next
    }

    /// Returns where something lives, row by row.
    pub fn living(&self) -> Vec<Place> {
        self.places().filter(|place| self.lives(*place)).collect()
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in self.cells.chunks(self.width) {
            let line: String = row.iter().map(|lives| if *lives { '*' } else { '-' }).collect();
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

/// The rule of the game: whether a cell lives in the next generation.
pub fn rule(lives: bool, neighbours: usize) -> bool {
    matches!((lives, neighbours), (true, 2) | (_, 3))
}

/// A cell could not be worked out.
#[derive(Debug)]
pub struct SimulationError {
    /// Which cell.
    pub place: Place,
    /// Why not.
    pub cause: io::Error,
}

impl fmt::Display for SimulationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer for the cell in row {}, column {}", self.place.0, self.place.1)
    }
}

impl std::error::Error for SimulationError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// A unit of work: one cell of one generation. `wait` is how long its
/// neighbours' state takes to come, as if it were asked of a server.
///
/// # Errors
///
/// If the cell cannot be reached: none does so by itself.
pub fn step(grid: &Grid, place: Place, wait: Duration) -> Result<(Place, bool), SimulationError> {
    if !wait.is_zero() {
        wait_for(wait);
    }
    Ok((place, rule(grid.lives(place), grid.neighbours(place))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r56_1_a_cell_lives_by_two_or_three_neighbours_and_is_born_by_three() {
        for neighbours in 0..=8 {
            assert_eq!(rule(true, neighbours), neighbours == 2 || neighbours == 3);
            assert_eq!(rule(false, neighbours), neighbours == 3);
        }
    }

    #[test]
    fn r56_1_the_eight_around_a_corner_are_across_the_edges() {
        let mut around = Grid::glider().around((0, 0));
        around.sort_unstable();
        assert_eq!(around, [(0, 1), (0, 8), (1, 0), (1, 1), (1, 8), (4, 0), (4, 1), (4, 8)]);
    }

    #[test]
    fn r56_2_the_glider_moves_and_is_where_it_was_after_180_generations() {
        let expected: [&[Place]; 5] = [
            &[(0, 3), (1, 4), (2, 2), (2, 3), (2, 4)],
            &[(1, 2), (1, 4), (2, 3), (2, 4), (3, 3)],
            &[(1, 4), (2, 2), (2, 4), (3, 3), (3, 4)],
            &[(1, 3), (2, 4), (2, 5), (3, 3), (3, 4)],
            &[(1, 4), (2, 5), (3, 3), (3, 4), (3, 5)],
        ];
        let mut grid = Grid::glider();
        for living in expected {
            assert_eq!(grid.living(), living);
            grid = grid.next();
        }
        let last = (5..180).fold(grid, |grid, _| grid.next());
        assert_eq!(last, Grid::glider());
    }
}
