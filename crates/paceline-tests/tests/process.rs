//! Child processes: real ones, each test within a time limit and followed by
//! a look at what it left behind.
//!
//! `r52_…` and `p31_…` to `p48_…` carry the numbers of the requirements and
//! of the rows of behaviours that they hold, `f14_…` those of the faults.

mod process {
    mod chains;
    mod ends;
    mod gibibytes;
    mod limits;
    mod spawning;
    mod streams;
    mod support;
    mod surroundings;
    mod tasks;
}
