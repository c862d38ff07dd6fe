//! The `paceline` program.
#![expect(dead_code, reason = "the commands that use these modules are not here yet")]

mod output_file;
mod steps;

fn main() {}
