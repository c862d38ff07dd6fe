//! Two workers cannot count in one plain variable.

use paceline::{BoxError, Pipeline};

fn main() {
    let mut count = 0;
    let counted = Pipeline::from_iter(0..10)
        .cpu("count", |_: u32| {
            count += 1;
            Ok::<_, BoxError>(())
        })
        .workers(2)
        .run();
    println!("{counted:?} {count}");
}
