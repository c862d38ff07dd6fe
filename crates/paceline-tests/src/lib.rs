//! Helper programs, what tests of several crates share, and tests that cross crates.

mod counts;
mod events;
mod watchdog;

pub use counts::{Census, Counted, Given, Inside, Peak, assert_conserved, random};
pub use events::{
    Gate, block_for, millis, open_descriptors, thread_names, threads_called, until,
    until_no_thread_is_left,
};
pub use watchdog::{ON_PURPOSE, alone, limited, message, watched, watched_alone};
