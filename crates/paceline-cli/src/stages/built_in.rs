//! The stages `fetch`, `put` and `resize`.

use std::{num::NonZeroU32, path::PathBuf};

use paceline::{Attempt, Fault, Pipeline};

use super::Step;
use crate::{
    item::Value,
    output_file::OutputFile,
    report::faults,
    spec::Work,
    steps::{
        fetch::fetch,
        put::{self, Destination},
        resize::{Size, resize},
    },
};

type Stages = Pipeline<'static, Value, Value>;

/// Gets what a URL names into a file.
pub(super) fn add_fetch<P>(pipeline: Pipeline<'static, Value, P>, step: Step) -> Stages {
    let name = step.stage.name.clone();
    pipeline.io_with(&name, move |value: Value, attempt| {
        let step = step.clone();
        async move {
            let Work::Fetch(url) = &step.stage.work else {
                unreachable!("the stage was added as what it is");
            };
            let output = output_file(&step, &value, attempt)?;
            let result = step.path_result(output.spelled());
            let stages = &step.shop.stages;
            let url = value.expand(stages, attempt.slot(), None, |values| url.expand(values))?;
            fetch(&step.shop.http, &step.shop.folder, &url, output)
                .await
                .map_err(faults::of_step)?;
            Ok::<_, Fault>(value.then(result))
        }
    })
}

/// Sends a file to a URL.
pub(super) fn add_put<P>(pipeline: Pipeline<'static, Value, P>, step: Step) -> Stages {
    let name = step.stage.name.clone();
    pipeline.io_with(&name, move |value: Value, attempt| {
        let step = step.clone();
        async move {
            let (from, url, to) = put_of(&step, &value, attempt)?;
            let shop = &step.shop;
            put::put(&shop.stores, &shop.claims, value.owner(), &from, to)
                .await
                .map_err(faults::of_step)?;
            Ok::<_, Fault>(value.then(url))
        }
    })
}

/// What is sent, and where to: as text and checked.
fn put_of(
    step: &Step,
    value: &Value,
    attempt: Attempt,
) -> Result<(PathBuf, Vec<u8>, Destination), Fault> {
    let Work::Put(put) = &step.stage.work else {
        unreachable!("the stage was added as what it is");
    };
    value.check()?;
    let (stages, slot) = (&step.shop.stages, attempt.slot());
    let from = match &put.from {
        Some(from) => value.expand(stages, slot, None, |values| from.expand(values))?,
        None => value.bytes().into_owned(),
    };
    let url = value.expand(stages, slot, None, |values| put.url.expand(values))?;
    let literal = put.url.0.literal_prefix();
    let to = Destination::new(&step.shop.folder, literal, &url).map_err(faults::of_step)?;
    Ok((step.shop.path(&from), url, to))
}

/// Makes a photo fit into a box.
pub(super) fn add_resize<P>(
    pipeline: Pipeline<'static, Value, P>,
    step: Step,
    width: Option<u32>,
    height: Option<u32>,
) -> Stages {
    let size =
        Size { width: width.and_then(NonZeroU32::new), height: height.and_then(NonZeroU32::new) };
    let name = step.stage.name.clone();
    pipeline.cpu_with(&name, move |value: Value, attempt| {
        let output = output_file(&step, &value, attempt)?;
        let result = step.path_result(output.spelled());
        let from = step.shop.path(&value.bytes());
        resize(&from, output, size).map_err(faults::of_step)?;
        Ok::<_, Fault>(value.then(result))
    })
}

fn output_file(step: &Step, value: &Value, attempt: Attempt) -> Result<OutputFile, Fault> {
    value.check()?;
    let Some(target) = step.target(value, attempt.slot())? else {
        unreachable!("the file is refused where a built-in stage has no `to`");
    };
    target.create(&step.shop.claims, value.owner()).map_err(faults::of_step)
}
