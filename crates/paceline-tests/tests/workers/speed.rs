//! R64.3: on two cores, two threads and two processes are faster than one.

use std::{
    hint::black_box,
    io::{self, Write as _},
    thread,
    time::{Duration, Instant},
};

use paceline::{BoxError, Framing, Pipeline};

use crate::support::{assert_nothing_left, limited, server, stage};

const NUMBER: u64 = 1_852_285;
const DIVISORS: &str = "8";

fn divisors(number: u64) -> String {
    (1..=number).filter(|candidate| number.is_multiple_of(*candidate)).count().to_string()
}

fn timed(work: impl FnOnce() -> Vec<String>) -> Duration {
    let started = Instant::now();
    let found = work();
    let took = started.elapsed();
    assert!(found.iter().all(|count| count == DIVISORS), "{found:?}");
    took
}

#[test]
fn r64_3_two_threads_and_two_processes_each_take_less_than_three_quarters_of_serial() {
    limited(|| {
        if thread::available_parallelism().map_or(1, usize::from) < 2 {
            return;
        }
        let serially = |items| timed(|| (0..items).map(|_| divisors(black_box(NUMBER))).collect());
        let each = serially(4) / 4;
        let items = Duration::from_millis(600).div_duration_f64(each).ceil() as usize;
        let once = || {
            let serial = serially(items);
            let most = serial.mul_f64(0.75);
            let bare = timed(|| {
                let half = move || -> Vec<_> {
                    (0..items / 2).map(|_| divisors(black_box(NUMBER))).collect()
                };
                let halves = [thread::spawn(half), thread::spawn(half)];
                halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
            });
            if serial < Duration::from_millis(500) || bare > serial.mul_f64(0.6) {
                return None;
            }
            let threads = timed(|| {
                Pipeline::from_iter(0..items)
                    .cpu("divide", |_| Ok::<_, BoxError>(divisors(black_box(NUMBER))))
                    .workers(2)
                    .collect()
                    .unwrap()
                    .0
            });
            let orders = (0..items).map(|_| format!("factors {NUMBER}"));
            let serve = server(Framing::Frames, &[]);
            let processes = timed(|| stage(orders, serve).workers(2).collect().unwrap().0);
            assert_nothing_left();
            Some(threads < most && processes < most)
        };
        // Others use the machine too: one undisturbed round of five is enough, and
        // where bare threads gain nothing there is none.
        let rounds: Vec<bool> = (0..5).filter_map(|_| once()).collect();
        if rounds.is_empty() {
            let _ = writeln!(io::stderr(), "SKIPPED: the machine has no two cores to spare");
        }
        assert!(rounds.is_empty() || rounds.contains(&true), "{rounds:?}");
    });
}
