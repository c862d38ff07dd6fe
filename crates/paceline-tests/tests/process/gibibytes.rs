//! F21: a gibibyte each, in at most 64 MiB, hashed on the way in and out.

use std::time::Duration;

use super::support::run;

fn in_little_memory(mode: &'static str) {
    run(move |world| world.runner_within(Duration::from_secs(55), "exec", mode));
}

#[test]
fn f21_a_gibibyte_goes_through_a_child() {
    in_little_memory("gibibyte-through");
}

#[test]
fn f21_a_child_that_never_reads_holds_up_nobody() {
    in_little_memory("gibibyte-unread");
}

#[test]
fn f21_a_child_may_write_a_gibibyte_before_it_reads_one() {
    in_little_memory("gibibyte-read-late");
}

#[test]
fn f21_a_gibibyte_of_standard_error_is_kept() {
    in_little_memory("gibibyte-of-errors");
}

#[test]
fn f21_a_child_that_closes_its_input_early_is_no_error_unless_it_says_so() {
    in_little_memory("gibibyte-closed-early");
}
