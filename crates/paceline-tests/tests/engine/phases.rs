//! Items 57 and 58: phases of work through the same few workers, with the
//! Game of Life as the example that the book uses.

use std::{
    collections::BTreeSet,
    error::Error,
    fmt,
    process::Command,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use paceline::{BoxError, ErrorKind, Pipeline, Rounds, Stop, Stopped};

use paceline_tests::{
    Given, assert_conserved, block_for, limited, millis, threads_called, until_no_thread_is_left,
    watched, watched_alone,
};

const HEIGHT: usize = 5;
const WIDTH: usize = 9;

/// Which cells live, on a torus.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grid([[bool; WIDTH]; HEIGHT]);

type Place = (usize, usize);

impl Grid {
    fn glider() -> Self {
        let mut grid = Self([[false; WIDTH]; HEIGHT]);
        for (y, x) in [(0, 3), (1, 4), (2, 2), (2, 3), (2, 4)] {
            grid.0[y][x] = true;
        }
        grid
    }

    fn places() -> impl ExactSizeIterator<Item = Place> + Send {
        (0..HEIGHT * WIDTH).map(|cell| (cell / WIDTH, cell % WIDTH))
    }

    fn neighbours(&self, (y, x): Place) -> usize {
        let around = [(0, 1), (0, WIDTH - 1), (1, 0), (HEIGHT - 1, 0)];
        let corners = [(1, 1), (1, WIDTH - 1), (HEIGHT - 1, 1), (HEIGHT - 1, WIDTH - 1)];
        let lives = |(dy, dx): (usize, usize)| self.0[(y + dy) % HEIGHT][(x + dx) % WIDTH];
        around.into_iter().chain(corners).filter(|&step| lives(step)).count()
    }

    fn next_cell(&self, place: Place) -> bool {
        matches!((self.0[place.0][place.1], self.neighbours(place)), (true, 2) | (_, 3))
    }

    fn next(&self) -> Self {
        let mut next = self.clone();
        Self::places().for_each(|(y, x)| next.0[y][x] = self.next_cell((y, x)));
        next
    }

    fn after(&self, generations: usize) -> Self {
        (0..generations).fold(self.clone(), |grid, _| grid.next())
    }
}

/// The stage functions as the serial version has them: (item) -> Result<item>.
fn count((grid, place): (Arc<Grid>, Place)) -> Result<(Arc<Grid>, Place, usize), CellError> {
    let neighbours = grid.neighbours(place);
    Ok((grid, place, neighbours))
}

fn step((grid, place, neighbours): (Arc<Grid>, Place, usize)) -> Result<(Place, bool), CellError> {
    Ok((place, matches!((grid.0[place.0][place.1], neighbours), (true, 2) | (_, 3))))
}

/// A cell could not be worked out.
#[derive(Debug)]
struct CellError {
    place: Place,
    cause: std::io::Error,
}

impl fmt::Display for CellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer for cell {:?}", self.place)
    }
}

impl Error for CellError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.cause)
    }
}

fn out_of_reach(place: Place) -> CellError {
    CellError { place, cause: std::io::Error::other("network unreachable") }
}

#[test]
fn r57_1_ten_thousand_items_on_ten_workers_need_no_more_threads_than_that() {
    watched_alone(|| {
        let most = AtomicUsize::new(0);
        let summary = Pipeline::from_iter(0..10_000)
            .blocking("many-cells", |n: u32| {
                if n.is_multiple_of(500) {
                    let engine = threads_called("paceline") + threads_called("many-cells");
                    most.fetch_max(engine, Ordering::SeqCst);
                }
                block_for(millis(1));
                Given::Ok(())
            })
            .workers(10)
            .run()
            .unwrap();
        assert_eq!(summary.ok, 10_000);
        let most = most.load(Ordering::SeqCst);
        // The source's and the conductor's.
        assert!(most <= 10 + 2, "{most} threads");
    });
}

#[test]
fn r57_2_the_caller_gets_the_cell_and_the_cause_of_a_failure() {
    watched(|| {
        let grid = Grid::glider();
        let (_, summary) = Pipeline::from_iter(Grid::places())
            .blocking("step", |place| {
                if place == (3, 7) { Err(out_of_reach(place)) } else { Ok(grid.next_cell(place)) }
            })
            .collect()
            .unwrap();
        let failure = &summary.failures[0];
        let cell = failure.cause().downcast_ref::<CellError>().unwrap();
        assert_eq!(cell.place, (3, 7));
        assert_eq!(failure.item().sequence_numbers(), [3 * 9 + 7 + 1]);
        let mut chain = Vec::new();
        let mut next: Option<&dyn Error> = Some(failure);
        while let Some(error) = next {
            chain.push(error.to_string());
            next = error.source();
        }
        assert_eq!(
            chain,
            ["item 35 failed in stage `step`", "no answer for cell (3, 7)", "network unreachable"]
        );
    });
}

#[test]
fn r57_3_workers_borrow_the_grid_and_write_each_its_own_cell() {
    watched(|| {
        let grid = Grid::glider();
        let mut next = grid.clone();
        let cells =
            next.0.iter_mut().enumerate().flat_map(|(y, row)| {
                row.iter_mut().enumerate().map(move |(x, cell)| ((y, x), cell))
            });
        Pipeline::from_iter(cells)
            .cpu("step", |(place, cell): (Place, &mut bool)| {
                *cell = grid.next_cell(place);
                Given::Ok(())
            })
            .workers(4)
            .run()
            .unwrap();
        assert_eq!(next, grid.next());
    });
}

#[test]
fn r57_4_threads_are_started_once_for_a_hundred_generations() {
    watched(|| {
        let threads = Mutex::new(BTreeSet::new());
        let (last, summary) = Pipeline::rounds(
            |cells| {
                cells
                    .blocking("count", |cell| {
                        let id = format!("{:?}", thread::current().id());
                        threads.lock().unwrap().insert(id);
                        count(cell)
                    })
                    .workers(5)
                    .blocking("step", step)
                    .workers(5)
            },
            |rounds| live(rounds, Grid::glider(), 100),
        )
        .unwrap();
        assert_eq!(last, Grid::glider().after(100));
        assert_eq!(summary.ok, 100 * 45);
        assert!(threads.lock().unwrap().len() <= 5);
    });
}

/// Runs so many generations, each a round.
fn live(
    rounds: &mut Rounds<'_, (Arc<Grid>, Place), (Place, bool)>,
    mut grid: Grid,
    generations: usize,
) -> Grid {
    for _ in 0..generations {
        let shared = Arc::new(grid.clone());
        let cells = Grid::places().map(|place| (shared.clone(), place));
        for answer in rounds.run(cells).unwrap() {
            let ((y, x), lives) = answer.unwrap();
            grid.0[y][x] = lives;
        }
    }
    grid
}

/// Much more than all the rest of the process asks for meanwhile.
const STACK: u64 = 256 << 20;

const AGAIN: &str = "PACELINE_TEST_WITHOUT_THREADS";

/// Without room for its stack a thread cannot be started. (Root may have as
/// many as it likes, so the limit on processes would prove nothing.)
#[test]
fn r57_5_a_thread_that_cannot_be_started_is_an_error_and_no_hang() {
    if std::env::var_os(AGAIN).is_some() {
        return limited(millis(20_000), run_without_threads);
    }
    watched(|| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("phases::r57_5_a_thread_that_cannot_be_started_is_an_error_and_no_hang")
            .env(AGAIN, "1")
            .env("RUST_MIN_STACK", STACK.to_string())
            // The allocator's reserves for each thread would take the room of the stacks.
            .env("MALLOC_ARENA_MAX", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    });
}

fn run_without_threads() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let before = getrlimit(Resource::As);
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let used = pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096;
    for threads in 0..12_u64 {
        let room = threads * STACK + STACK / 2;
        let limit = Rlimit { current: Some(used + room), maximum: before.maximum };
        for kind in ["blocking", "io", "command"] {
            setrlimit(Resource::As, limit).unwrap();
            let numbers = Pipeline::from_iter(0..10);
            let ran = match kind {
                "blocking" => numbers.blocking("many", |_| Given::Ok(())).workers(64).run(),
                "io" => numbers.io("many", |_| async { Given::Ok(()) }).workers(64).run(),
                _ => numbers
                    .command("many", |_, _| paceline::Command::new("true"))
                    .workers(64)
                    .discard()
                    .run(),
            };
            setrlimit(Resource::As, before).unwrap();
            match ran {
                Ok(summary) => assert_conserved(&summary),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Start, "{error}"),
            }
            until_no_thread_is_left("many");
        }
    }
}

#[test]
fn r57_6_ten_thousand_items_in_flight_cost_less_than_50_mb() {
    watched_alone(|| {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
        };
        let before = resident();
        let all_are_in = tokio::sync::Barrier::new(10_000);
        let most = AtomicUsize::new(0);
        let summary = Pipeline::from_iter(0..10_000)
            .io("wait", async |_: u32| {
                if all_are_in.wait().await.is_leader() {
                    most.store(resident().saturating_sub(before) as usize, Ordering::SeqCst);
                }
                Given::Ok(())
            })
            .workers(10_000)
            .run()
            .unwrap();
        assert_eq!(summary.ok, 10_000);
        let most = most.into_inner();
        assert!(most > 0 && most < 50 << 20, "{most} bytes");
    });
}

#[test]
fn r58_1_45_cells_of_100_ms_on_five_workers_take_nine_turns() {
    watched_alone(|| {
        let started = Instant::now();
        let (next, _) = Pipeline::rounds(
            |cells| {
                cells
                    .blocking("step", |cell| {
                        block_for(millis(100));
                        count(cell).and_then(step)
                    })
                    .workers(5)
            },
            |rounds| live(rounds, Grid::glider(), 1),
        )
        .unwrap();
        let took = started.elapsed();
        assert_eq!(next, Grid::glider().next());
        assert!(took >= millis(900) && took < millis(1400), "{took:?}");
    });
}

#[test]
fn r58_2_a_second_phase_is_one_more_line() {
    watched(|| {
        let (last, _) = Pipeline::rounds(
            |cells| cells.blocking("count", count).workers(5).blocking("step", step).workers(5),
            |rounds| live(rounds, Grid::glider(), 180),
        )
        .unwrap();
        assert_eq!(last, Grid::glider(), "after 180 generations the glider is where it was");
    });
}

#[test]
fn r58_3_a_failure_of_the_first_phase_passes_the_second_untouched_and_comes_once() {
    watched(|| {
        let seen = Mutex::new(Vec::new());
        let (outcomes, summary) = Pipeline::from_iter(Grid::places())
            .blocking(
                "count",
                |place| {
                    if place.0 == 2 { Err(out_of_reach(place)) } else { Ok(place) }
                },
            )
            .blocking("step", |place| {
                seen.lock().unwrap().push(place);
                Given::Ok(place)
            })
            .outcomes()
            .unwrap();
        assert_conserved(&summary);
        assert!(seen.lock().unwrap().iter().all(|place| place.0 != 2));
        let failures: Vec<_> =
            outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
        let mut numbers: Vec<_> =
            failures.iter().flat_map(|failure| failure.item().sequence_numbers()).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(19..=27), "each of row 2 once");
        assert!(failures.iter().all(|failure| failure.stage() == "count"));
        assert!(failures.iter().all(|&failure| failure.cause().is::<CellError>()));
        assert_eq!(summary.stages[1].fed, 36);
    });
}

#[test]
fn r58_4_after_a_failed_round_the_next_is_clean() {
    watched(|| {
        let ((), summary) = Pipeline::rounds(
            |numbers| {
                numbers
                    .cpu("check", |n: i64| if n < 0 { Err("negative") } else { Ok(n) })
                    .workers(2)
                    .cpu("double", |n| Given::Ok(2 * n))
            },
            |rounds| {
                for round in 0..20 {
                    let is_bad = |n: i64| round % 2 == 0 && n % 3 == 0;
                    let answers =
                        rounds.run((1..=50).map(|n| if is_bad(n) { -n } else { n })).unwrap();
                    assert_eq!(answers.len(), 50);
                    for (answer, n) in answers.into_iter().zip(1..) {
                        assert_eq!(answer.ok(), (!is_bad(n)).then_some(2 * n));
                    }
                }
            },
        )
        .unwrap();
        assert_eq!((summary.taken, summary.failed), (1_000, 160));
    });
}

#[test]
fn r58_5_one_thread_feeds_and_drains_far_more_than_the_queues_hold() {
    watched(|| {
        let ((), summary) = Pipeline::rounds(
            |texts| {
                texts
                    .cpu("one", |text: String| Given::Ok(text + "1"))
                    .workers(1)
                    .queue(1)
                    .cpu("two", |text| Given::Ok(text + "2"))
                    .workers(1)
                    .queue(1)
            },
            |rounds| {
                for _ in 0..3 {
                    let answers = rounds.run((0..5_000).map(|n| n.to_string())).unwrap();
                    for (answer, n) in answers.into_iter().zip(0..) {
                        assert_eq!(answer.unwrap(), format!("{n}12"));
                    }
                }
            },
        )
        .unwrap();
        assert_eq!(summary.ok, 15_000);
    });
}

#[test]
fn r58_6_a_round_begins_only_when_all_of_the_one_before_is_in() {
    watched(|| {
        let inside = AtomicUsize::new(0);
        Pipeline::rounds(
            |numbers| {
                numbers
                    .blocking("work", |round: usize| {
                        inside.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        Given::Ok(round)
                    })
                    .workers(8)
            },
            |rounds| {
                for round in 0..50 {
                    assert_eq!(inside.load(Ordering::SeqCst), round * 30);
                    let answers = rounds.run(std::iter::repeat_n(round, 30)).unwrap();
                    assert!(answers.into_iter().all(|answer| answer.unwrap() == round));
                }
            },
        )
        .unwrap();
    });
}

#[test]
fn a_round_ends_also_when_its_last_items_are_left_out() {
    watched(|| {
        Pipeline::rounds(
            |numbers| {
                numbers
                    .cpu("keep the even", |n: u32| Given::Ok(n.is_multiple_of(2).then_some(n)))
                    .workers(2)
                    .fan_out()
            },
            |rounds| {
                for _ in 0..200 {
                    let kept = rounds.run([1, 2, 3]).unwrap();
                    let kept: Vec<_> = kept.into_iter().map(Result::unwrap).collect();
                    assert_eq!(kept, [2]);
                    assert!(rounds.run([5]).unwrap().is_empty());
                    assert!(rounds.run([]).unwrap().is_empty());
                }
            },
        )
        .unwrap();
    });
}

#[test]
fn a_round_tells_of_a_value_whose_splitting_panicked() {
    watched(|| {
        Pipeline::rounds(
            |numbers| {
                numbers
                    .cpu("split", |n: u32| {
                        Given::Ok((0..3).map(move |part| {
                            assert!((n, part) != (2, 1), "on purpose: while splitting");
                            10 * n + part
                        }))
                    })
                    .fan_out()
            },
            |rounds| {
                let answers = rounds.run([1, 2]).unwrap();
                let told: Vec<_> =
                    answers.into_iter().map(|answer| answer.map_err(|f| f.to_string())).collect();
                let failure = "item 2 failed in stage `split`".to_owned();
                assert_eq!(told, [Ok(10), Ok(11), Ok(12), Ok(20), Err(failure)]);
            },
        )
        .unwrap();
    });
}

#[test]
fn a_batch_that_a_round_would_never_fill_is_refused() {
    watched(|| {
        let ran =
            Pipeline::rounds(|numbers| numbers.fan_in(3, None), |_: &mut Rounds<'_, u32, _>| ());
        assert_eq!(ran.unwrap_err().kind(), ErrorKind::Invalid);
        let batch = |numbers: Pipeline<'static, u32>| numbers.fan_in(3, Some(millis(1)));
        let (sizes, _) = Pipeline::rounds(batch, |rounds| {
            let batches = rounds.run(0..7).unwrap();
            batches.into_iter().map(|batch| batch.unwrap().len()).sum::<usize>()
        })
        .unwrap();
        assert_eq!(sizes, 7);
    });
}

#[test]
fn a_stopped_round_says_so_and_so_does_every_later_one() {
    watched(|| {
        let stop = Stop::new();
        let from_inside = stop.clone();
        let ((), summary) = Pipeline::rounds(
            |numbers| {
                numbers
                    .blocking("work", move |n: u32| {
                        if n == 300 {
                            from_inside.cancel();
                        }
                        Given::Ok(n)
                    })
                    .stop(&stop)
            },
            |rounds| {
                assert_eq!(rounds.run(0..100).unwrap().len(), 100);
                assert!(matches!(rounds.run(100..1_000), Err(Stopped)));
                assert!(matches!(rounds.run(0..1), Err(Stopped)));
            },
        )
        .unwrap();
        assert_conserved(&summary);
    });
}

#[test]
fn a_panic_between_rounds_ends_the_run_and_goes_on() {
    watched_alone(|| {
        let ran = std::panic::catch_unwind(|| {
            Pipeline::rounds(
                |numbers| numbers.blocking("betw-work", |n: u32| Given::Ok(n)),
                |rounds| {
                    rounds.run(0..10).unwrap();
                    panic!("on purpose: between rounds");
                },
            )
        });
        assert!(ran.is_err());
        until_no_thread_is_left("betw-");
    });
}

#[test]
fn r58_7_the_workers_of_a_phase_are_a_number_changed_while_it_runs() {
    watched(|| {
        let threads = Mutex::new(BTreeSet::new());
        let monitor = OnceLock::new();
        let ((), summary) = Pipeline::rounds(
            |cells| {
                let cells = cells
                    .blocking("step", |cell| {
                        let id = format!("{:?}", thread::current().id());
                        threads.lock().unwrap().insert(id);
                        block_for(millis(1));
                        count(cell).and_then(step)
                    })
                    .workers(1);
                monitor.set(cells.monitor()).unwrap();
                cells
            },
            |rounds| {
                assert_eq!(live(rounds, Grid::glider(), 2), Grid::glider().after(2));
                assert_eq!(threads.lock().unwrap().len(), 1);
                monitor.get().unwrap().set_workers("step", 6);
                assert_eq!(live(rounds, Grid::glider(), 4), Grid::glider().after(4));
                assert!(threads.lock().unwrap().len() > 1);
            },
        )
        .unwrap();
        assert_eq!(summary.stages[0].workers, 6);
    });
}

#[test]
fn r58_8_the_serial_functions_are_the_stages() {
    watched(|| {
        let grid = Arc::new(Grid::glider());
        let cells = || Grid::places().map(|place| (grid.clone(), place));
        let serial: Vec<_> = cells().map(|cell| count(cell).and_then(step).unwrap()).collect();
        let (staged, _) = Pipeline::from_iter(cells())
            .blocking("count", count)
            .cpu("step", step)
            .ordered()
            .collect()
            .unwrap();
        assert_eq!(staged, serial);
        let (asynchronous, _) = Pipeline::from_iter(cells())
            .io("count", |cell| async { count(cell) })
            .io("step", |cell| async { step(cell).map_err(BoxError::from) })
            .ordered()
            .collect()
            .unwrap();
        assert_eq!(asynchronous, serial);
    });
}
