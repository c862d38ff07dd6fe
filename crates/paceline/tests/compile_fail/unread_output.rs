//! Values that nobody takes are a mistake.

use paceline::{BoxError, Pipeline};

fn main() {
    let ran = Pipeline::from_iter(0..10)
        .cpu("double", |n: u32| Ok::<_, BoxError>(2 * n))
        .run();
    println!("{ran:?}");
}
