//! Item 64: divisors by threads and by worker processes, which are this
//! program, started again.
//!
//! ```sh
//! cargo run --release -p paceline-chapter --example gcd
//! ```

use std::io;

use paceline::BoxError;
use paceline_chapter::{Show, item, item64};

fn main() -> Result<(), BoxError> {
    paceline::init();
    if item64::serve_if_asked()? {
        return Ok(());
    }
    item(64).expect("it is one of them").show(&mut Show::without_python(&mut io::stdout()))
}
