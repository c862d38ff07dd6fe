//! What each command of the program does.

pub(crate) mod advise;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod drive;
pub(crate) mod each;
pub(crate) mod generate;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod runs;

use std::io::{self, IsTerminal};

use crate::{
    message::Problem,
    source::{Interrupt, Items, Location, Origin},
    spec::Pipeline,
};

/// Opens where the items come from: INPUT, or the file's source, or else
/// standard input.
fn open_items(
    pipeline: &Pipeline,
    inputs: Vec<Vec<u8>>,
    interrupt: &Interrupt,
) -> Result<Items, Problem> {
    if !inputs.is_empty() {
        let source = pipeline.source.as_ref();
        return Ok(Items::in_place_of(source, &pipeline.folder, inputs, interrupt));
    }
    match pipeline.open_source(interrupt)? {
        Some(items) => Ok(items),
        None if io::stdin().is_terminal() => Err(Problem::new(
            "there is nothing to work on: the pipeline has no source, and standard input is a \
             terminal",
        )
        .hint("name the items after the file, pipe them in, or add a `[source]`".to_owned())),
        None => {
            let lines = Origin::Lines { from: Location::Stdin, null: false };
            Items::open(&lines, &pipeline.folder, interrupt)
        }
    }
}
