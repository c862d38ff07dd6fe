//! What is to be tried again must be copied first.

use paceline::{BoxError, Pipeline, Retry};

struct Photo;

fn main() {
    let ran = Pipeline::from_iter([Photo])
        .cpu("resize", |_: Photo| Ok::<_, BoxError>(()))
        .retry(Retry::times(3))
        .run();
    println!("{ran:?}");
}
