//! The journal's promises, with the files themselves.
//!
//! A new test belongs to the part it is about: `life.rs` for what is recorded
//! and read back, `formats.rs` for files of other versions, `trust.rs` for
//! whose a file is and who has it, `damage.rs` for files that are not whole.

mod damage;
mod formats;
mod life;
mod support;
mod trust;
