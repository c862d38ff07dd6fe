//! Item 54: state that workers share, as one writes it with stages.

use std::sync::{
    Barrier, Mutex,
    atomic::{AtomicU64, Ordering},
};

use paceline::{FailureKind, Pipeline};

use paceline_tests::{Given, assert_conserved, watched};

/// Lets `workers` workers, released together, each call `increment` so many times.
fn increment_together(workers: usize, times: u64, increment: impl Fn() + Sync + Send) {
    let barrier = Barrier::new(workers);
    let summary = Pipeline::from_iter(0..workers)
        .blocking("increment", |_| {
            barrier.wait();
            (0..times).for_each(|_| increment());
            Given::Ok(())
        })
        .workers(workers)
        .queue(1)
        .run()
        .unwrap();
    assert_eq!(summary.ok, workers as u64);
}

fn count_by_mutex(workers: usize, times: u64) -> u64 {
    let count = Mutex::new(0);
    increment_together(workers, times, || *count.lock().unwrap() += 1);
    count.into_inner().unwrap()
}

fn count_by_atomic(workers: usize, times: u64) -> u64 {
    let count = AtomicU64::new(0);
    increment_together(workers, times, || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    count.into_inner()
}

fn count_by_own_parts(workers: usize, times: u64) -> u64 {
    let barrier = Barrier::new(workers);
    let (parts, _) = Pipeline::from_iter(0..workers)
        .blocking("increment", |_| {
            barrier.wait();
            Given::Ok((0..times).fold(0, |count, _| count + 1))
        })
        .workers(workers)
        .queue(1)
        .collect()
        .unwrap();
    parts.into_iter().sum()
}

#[test]
fn r54_1_no_increment_is_lost() {
    watched(|| {
        for count in [count_by_mutex, count_by_atomic, count_by_own_parts] {
            assert_eq!(count(5, 100_000), 500_000);
        }
        assert_eq!(count_by_atomic(4, 1_000_000), 4_000_000);
        for _ in 0..100 {
            assert_eq!(count_by_mutex(5, 500), 2_500);
            assert_eq!(count_by_atomic(5, 500), 2_500);
        }
    });
}

#[test]
fn r54_3_a_read_modify_write_is_one_step() {
    watched(|| {
        let highest = AtomicU64::new(0);
        let seen = Mutex::new((0, 0));
        Pipeline::from_iter(1..=10_000_u64)
            .cpu("note", |number| {
                highest.fetch_max(number, Ordering::Relaxed);
                let mut seen = seen.lock().unwrap();
                let (count, sum) = *seen;
                *seen = (count + 1, sum + number);
                Given::Ok(())
            })
            .workers(4)
            .run()
            .unwrap();
        assert_eq!(highest.into_inner(), 10_000);
        assert_eq!(seen.into_inner().unwrap(), (10_000, 50_005_000));
    });
}

#[test]
fn r54_4_a_panic_under_the_lock_poisons_it_for_the_others_and_hangs_nobody() {
    watched(|| {
        let count = Mutex::new(0);
        let summary = Pipeline::from_iter(0..100)
            .blocking("count", |number| {
                let mut count = count.lock().map_err(|_| "another worker panicked")?;
                assert!(number != 10, "on purpose: under the lock");
                *count += 1;
                Given::Ok(())
            })
            .workers(4)
            .run()
            .unwrap();
        assert_conserved(&summary);
        let of_kind = |kind| summary.failures.iter().filter(|f| f.kind() == kind).count() as u64;
        assert_eq!(of_kind(FailureKind::Panic), 1);
        assert_eq!(of_kind(FailureKind::Failed), summary.failed - 1);
        assert_eq!(*count.lock().unwrap_or_else(|poisoned| poisoned.into_inner()), summary.ok);
    });
}

#[test]
fn r54_6_folding_the_results_gives_the_serial_answer_for_any_number_of_workers() {
    watched(|| {
        let serial = (1..=2_000_u64).map(|n| n * n % 97).fold(0, u64::max);
        let serial_sum: u64 = (1..=2_000_u64).map(|n| n * n % 97).sum();
        for workers in [1, 2, 3, 8, 32] {
            let (mut most, mut sum) = (0, 0);
            Pipeline::from_iter(1..=2_000_u64)
                .cpu("square", |n| Given::Ok(n * n % 97))
                .workers(workers)
                .for_each(|value| {
                    most = most.max(value);
                    sum += value;
                })
                .run()
                .unwrap();
            assert_eq!((most, sum), (serial, serial_sum));
        }
    });
}
