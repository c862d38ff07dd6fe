//! A run that goes on by itself borrows nothing; `start_in` takes a scope.

use paceline::{BoxError, Pipeline};

fn main() {
    let words = vec![String::from("a")];
    let running = Pipeline::from_iter(&words)
        .cpu("look", |word: &String| Ok::<_, BoxError>(drop(word.len())))
        .discard()
        .start();
    println!("{:?}", running.unwrap().join());
}
