//! The `retry` and `batch` of a stage.

use std::time::Duration;

use super::tree::{Fault, Value};
use super::{Batch, Retry};

impl Default for Retry {
    /// No extra attempt.
    fn default() -> Self {
        Self { times: 0, backoff: Duration::ZERO, factor: 2.0, max: None, jitter: true }
    }
}

pub(super) fn retry(value: &Value<'_>) -> Result<Retry, Fault> {
    let table = value.table()?;
    table.check_keys(&["times", "backoff", "factor", "max", "jitter"])?;
    let mut retry = Retry::default();
    let times = table.require("times", "write `retry = { times = 3 }`")?;
    retry.times = u32::try_from(times.integer(0..=1_000_000)?).unwrap_or(u32::MAX);
    if let Some(backoff) = table.get("backoff") {
        retry.backoff = backoff.duration()?;
    }
    if let Some(factor) = table.get("factor") {
        retry.factor = factor.number()?;
        if retry.factor < 1.0 {
            return Err(factor
                .fault(format!("{} must be 1 or more", factor.what()))
                .hint("each wait is `factor` times the one before it".to_owned()));
        }
    }
    retry.max = table.get("max").map(|max| max.duration()).transpose()?;
    if let Some(jitter) = table.get("jitter") {
        retry.jitter = jitter.boolean()?;
    }
    Ok(retry)
}

pub(super) fn batch(value: &Value<'_>) -> Result<Batch, Fault> {
    let table = value.table()?;
    table.check_keys(&["items", "wait"])?;
    let items = table.require("items", "write `batch = { items = 10 }`")?.integer(1..=1_000_000)?;
    let wait = table.get("wait").map(|wait| wait.duration()).transpose()?;
    Ok(Batch { items: usize::try_from(items).unwrap_or(usize::MAX), wait })
}
