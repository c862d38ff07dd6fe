//! A stage takes what the one before gives.

use paceline::{BoxError, Pipeline};

fn main() {
    let ran = Pipeline::from_iter(0..10)
        .cpu("text", |n: u32| Ok::<_, BoxError>(n.to_string()))
        .cpu("double", |n: u32| Ok::<_, BoxError>(2 * n))
        .collect();
    println!("{ran:?}");
}
