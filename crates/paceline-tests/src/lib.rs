//! Helper programs and tests that cross crates.
