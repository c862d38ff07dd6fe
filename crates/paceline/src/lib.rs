//! Concurrent pipelines that find their own pace.
