//! One JSON object an item, for programs.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use paceline::Failure;
use serde_json::{Map, Value as Json, json};

use super::{StageRecord, Tracked, faults};

/// The object for an item, or for the items of a batch, that came through
/// with `value`.
pub(crate) fn ok(tracked: &[Tracked], value: &[u8]) -> Json {
    let mut object = head(tracked);
    put_bytes(&mut object, "value", value);
    finish(object, tracked, "ok", Json::Null)
}

/// The object for what failed.
pub(crate) fn failed(tracked: &[Tracked], failure: &Failure) -> Json {
    let mut object = head(tracked);
    object.insert("value".into(), Json::Null);
    let error = json!({
        "kind": kind(failure),
        "stage": failure.stage(),
        "code": failure.code(),
        "signal": failure.signal(),
        "message": message(failure),
    });
    finish(object, tracked, "failed", error)
}

/// What went wrong, and on further lines the worker's stack if there is one.
fn message(failure: &Failure) -> String {
    let reason = faults::reason(failure);
    match faults::traceback(failure) {
        Some(traceback) => format!("{reason}\n{traceback}"),
        None => reason,
    }
}

/// The object for an item, or for the items of a batch, that was left unfinished.
pub(crate) fn unfinished(tracked: &[Tracked]) -> Json {
    let mut object = head(tracked);
    object.insert("value".into(), Json::Null);
    let error = json!({
        "kind": "cancelled",
        "stage": tracked.first().and_then(|first| first.stages.last()).map(|stage| &stage.name),
        "code": null,
        "signal": null,
        "message": "the run was stopped before the item was done",
    });
    finish(object, tracked, "unfinished", error)
}

/// A worker's own errors have no kind of their own on the command line.
pub(crate) fn kind(failure: &Failure) -> &'static str {
    match failure.kind() {
        paceline::FailureKind::Failed => "io",
        kind => kind.as_str(),
    }
}

fn head(tracked: &[Tracked]) -> Map<String, Json> {
    let mut object = Map::new();
    let batch = tracked.first().and_then(|first| first.batch).map(|batch| batch.number);
    match (tracked, batch) {
        ([one], None) => {
            object.insert("seq".into(), one.origin.number.into());
            object.insert("id".into(), one.origin.id().into());
            put_bytes(&mut object, "in", &one.origin.item.bytes);
        }
        (many, batch) => {
            let first = many.first().map(|tracked| tracked.origin.number);
            object.insert("seq".into(), batch.or(first).into());
            let ids: Vec<_> = many.iter().map(|tracked| tracked.origin.id()).collect();
            object.insert("id".into(), ids.into());
            put_all(&mut object, many);
        }
    }
    object
}

fn finish(mut object: Map<String, Json>, tracked: &[Tracked], status: &str, error: Json) -> Json {
    // What happened before a batch was made happened to each item on its own; the first stands
    // for all.
    let stages = tracked.first().map_or(&[][..], |first| &first.stages);
    object.insert("status".into(), status.into());
    object.insert("error".into(), error);
    object.insert("leaky".into(), tracked.iter().any(|tracked| tracked.leaky).into());
    let attempts = stages.last().map_or(0, |stage| stage.attempts);
    object.insert("attempts".into(), attempts.into());
    object.insert("stages".into(), stages.iter().map(stage).collect());
    Json::Object(object)
}

fn stage(record: &StageRecord) -> Json {
    json!({
        "name": record.name,
        "status": record.status,
        "attempts": record.attempts,
        "ms": millis(record.service),
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Puts bytes in as text, or in base64 under another name if they are none.
pub(crate) fn put_bytes(object: &mut Map<String, Json>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            object.insert(name.into(), text.into());
        }
        Err(_) => {
            object.insert(name.into(), Json::Null);
            object.insert(format!("{name}_b64"), BASE64_STANDARD.encode(bytes).into());
        }
    }
}

/// Bytes as text, or as an object with their base64 if they are none.
pub(crate) fn text_or_base64(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "b64": BASE64_STANDARD.encode(bytes) }),
    }
}

/// Puts the items of a batch in as a list.
fn put_all(object: &mut Map<String, Json>, tracked: &[Tracked]) {
    let bytes = || tracked.iter().map(|tracked| &*tracked.origin.item.bytes);
    match bytes().map(std::str::from_utf8).collect::<Result<Vec<_>, _>>() {
        Ok(texts) => {
            object.insert("in".into(), texts.into());
        }
        Err(_) => {
            object.insert("in".into(), Json::Null);
            let encoded: Vec<_> = bytes().map(|bytes| BASE64_STANDARD.encode(bytes)).collect();
            object.insert("in_b64".into(), encoded.into());
        }
    }
}
