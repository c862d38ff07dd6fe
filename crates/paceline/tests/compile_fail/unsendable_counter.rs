//! Nor in a cell that is for one thread.

use std::{cell::Cell, rc::Rc};

use paceline::{BoxError, Pipeline};

fn main() {
    let count = Rc::new(Cell::new(0));
    let counted = Pipeline::from_iter(0..10)
        .cpu("count", |_: u32| {
            count.set(count.get() + 1);
            Ok::<_, BoxError>(())
        })
        .run();
    println!("{counted:?} {}", count.get());
}
