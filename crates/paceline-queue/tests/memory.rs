//! Row 21: a million waiters that gave up, and memory stays where it was.
//!
//! Alone in its process, so that no other test's memory is measured.
#![cfg(all(target_os = "linux", not(loom)))]

#[path = "behaviours/watchdog.rs"]
mod watchdog;

use std::fs;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use paceline_queue::PopTimeoutError;
use watchdog::watched;

/// Pages of this process that are in memory.
fn resident_pages() -> u64 {
    let fields = fs::read_to_string("/proc/self/statm").unwrap();
    fields.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn q21_a_million_timed_out_and_cancelled_pops_leave_memory_flat() {
    watched(|watch| {
        let queue = watch.queue::<u8>(1);
        let give_up = |times: usize| {
            for _ in 0..times {
                let timed_out = queue.pop_timeout(Duration::from_nanos(1));
                assert_eq!(timed_out, Err(PopTimeoutError::Timeout));
                let mut cancelled = queue.pop_async();
                let mut context = Context::from_waker(Waker::noop());
                assert!(Pin::new(&mut cancelled).poll(&mut context).is_pending());
            }
        };
        give_up(1_000);
        let before = resident_pages();
        give_up(500_000);
        let grown = resident_pages().saturating_sub(before);
        // A trace of only two bytes each would be 488 pages.
        assert!(grown < 200, "{grown} pages more");
    });
}
