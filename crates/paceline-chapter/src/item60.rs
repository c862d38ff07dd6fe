//! Item 60: futures for waits in large numbers, in groups that end together.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use paceline::{BoxError, Group, Pipeline, Runner};

use crate::{
    Item, Show,
    item56::measured,
    life::{Grid, Place, SimulationError, step},
    show::{expect, timed},
};

pub(crate) const ITEM: Item =
    Item { number: 60, title: "Futures for waits in large numbers", show };

/// A unit of work as a future: the wait holds up no thread.
///
/// # Errors
///
/// If the cell cannot be worked out.
pub async fn step_async(
    grid: &Grid,
    place: Place,
    wait: Duration,
) -> Result<(Place, bool), SimulationError> {
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    step(grid, place, Duration::ZERO)
}

/// Works all generations out by futures that borrow the grid, on one thread.
///
/// # Errors
///
/// All failures of the first generation that has any.
pub fn by_futures(mut grid: Grid, generations: usize, wait: Duration) -> Result<Grid, BoxError> {
    let ended = Runner::new().run(|_| async move {
        for _ in 0..generations {
            let cells = grid.places().map(|place| step_async(&grid, place, wait));
            // The first failure ends the others, and none of them outlives the group.
            let next = Group::new("cells").gather(cells).await?;
            for (place, lives) in next {
                grid.set(place, lives);
            }
        }
        Ok(grid)
    })?;
    ended.output.expect("it is not interruptible")
}

/// Lets so many waits go on at once, and returns how many ended and how many
/// threads this program had while they waited.
///
/// # Errors
///
/// If the run cannot be started.
pub fn waits_at_once(count: usize, wait: Duration) -> Result<(u64, usize), BoxError> {
    let threads = AtomicUsize::new(0);
    let summary = Pipeline::from_iter(0..count)
        .io("wait", async |number| {
            if number == count / 2 {
                let tasks = fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
                threads.store(tasks, Ordering::Relaxed);
            }
            tokio::time::sleep(wait).await;
            Ok::<_, BoxError>(())
        })
        .workers(count)
        .run()?;
    Ok((summary.ok, threads.into_inner()))
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    measured(show, "futures on one thread", by_futures)?;
    for count in [10_000, 100_000] {
        let (ended, time) = timed(|| waits_at_once(count, Duration::from_millis(100)));
        let (ended, threads) = ended?;
        expect(ended as usize == count, "all waits end")?;
        show.took(&format!("{count} waits of 100 ms at once"), time)?;
        show.found("  threads of this program meanwhile", threads)?;
    }
    show.python(include_str!("../python/item60.py"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r56_3_futures_give_the_generations_of_the_row() {
        assert_eq!(by_futures(Grid::glider(), 180, Duration::ZERO).unwrap(), Grid::glider());
    }

    #[test]
    fn many_waits_need_few_threads() {
        let (ended, threads) = waits_at_once(2_000, Duration::from_millis(20)).unwrap();
        assert_eq!(ended, 2_000);
        assert!(threads < 40, "{threads}");
    }
}
