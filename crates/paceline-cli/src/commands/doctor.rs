//! `paceline doctor`: what this system allows against leftovers.

use std::io::{self, Write};

/// Prints which means there are, and what they do not cover.
///
/// # Errors
///
/// If standard output cannot be written.
pub(crate) fn doctor() -> io::Result<()> {
    let coverage = paceline_process::coverage();
    let mut text = format!("{coverage}\n");
    for gap in coverage.gaps() {
        text.push_str("not covered: ");
        text.push_str(gap);
        text.push('\n');
    }
    io::stdout().write_all(text.as_bytes())
}
