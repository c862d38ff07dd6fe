//! The behaviours demanded of the queue, one test a row, on every pairing of
//! waiting and async ends where the row allows it.
//!
//! Only one row is bent: there are no last-in or priority kinds, so row 1 is
//! about first in, first out.
#![cfg(not(loom))]

mod async_rows;
mod ends;
mod holds;
mod model;
mod requirements;
mod rows;
mod stats;
mod watchdog;
