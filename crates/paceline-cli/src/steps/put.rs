//! `put`: one attempt to send a file to where a URL names.
//!
//! A file of some size is sent in pieces, so that memory does not grow with
//! it. To a file URL it is copied as `to` would be: under a temporary name,
//! in the folder that the literal beginning of the URL names.
//!
//! Credentials for s3, gs and az come from the environment, by the names that
//! the vendors' own tools use.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path as Key;
use object_store::retry::{RetryContext, RetryFailure, RetryPolicy};
use object_store::{
    ClientConfigKey, ObjectStore, ObjectStoreExt, PutMultipartOptions, RetryConfig, WriteMultipart,
};
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Body, StatusCode, Url};

use super::http::{self, Direction};
use super::{Http, Kind, Shown, StepError, blocking, fetch, file_url, one_line};
use crate::output_file::{Claims, Target};

/// How much of a file is read at once.
const PIECE: u64 = 256 * 1024;

/// The largest file that goes to a web server from memory, which lets the
/// request follow a redirect.
const SMALL: u64 = 1 << 20;

/// The largest file that goes to a store in one request.
const SINGLE: u64 = 16 << 20;

/// The least size of a part, and how many are on their way at once.
const PART: u64 = 8 << 20;
const PARTS_AT_ONCE: usize = 2;

/// The most parts that S3 takes, with some to spare.
const MOST_PARTS: u64 = 9_000;

/// How long one request to a store may take: a part at 220 kbit/s.
const STORE_TIMEOUT: &str = "300s";

/// Where a file is to be sent.
#[derive(Debug)]
pub(crate) enum Destination {
    File(Target),
    Http(Url),
    Store(Url),
}

impl Destination {
    /// Checks the URL that the template of `put` has become for an item.
    ///
    /// `base` is the folder of the pipeline file, `literal` the part of the
    /// template before its first placeholder, `url` the whole.
    ///
    /// # Errors
    ///
    /// Fails for good if it is no URL, of a scheme that is not known, or leads
    /// out of what the literal beginning names: the folder of a file URL. A
    /// key in a store may not have `.` or `..` in it.
    pub(crate) fn new(base: &Path, literal: &[u8], url: &[u8]) -> Result<Self, StepError> {
        if let Some(path) = file_url::path(url)? {
            return Ok(Self::File(Target::new(base, &file_url::literal_path(literal), &path)?));
        }
        let parsed = http::parse(url)?;
        match parsed.scheme() {
            "http" | "https" => Ok(Self::Http(parsed)),
            "s3" | "s3a" | "gs" | "az" | "abfs" | "abfss" => {
                // Of the bytes, since parsing has resolved the dots already.
                let dots = url.split(|&byte| byte == b'/').any(|segment| {
                    let segment: Vec<u8> = percent_encoding::percent_decode(segment).collect();
                    segment == b"." || segment == b".."
                });
                if dots || parsed.path().ends_with('/') || parsed.path().is_empty() {
                    return Err(StepError::permanent(format!(
                        "could not put `{}`: it names no object",
                        Shown(&http::without_credentials(url))
                    )));
                }
                Ok(Self::Store(parsed))
            }
            scheme => Err(StepError::permanent(format!(
                "could not put `{}`: `{scheme}` is none of file, s3, gs, az, http and https",
                http::shown(&parsed)
            ))),
        }
    }
}

/// The services that files are sent to, each with its connections and
/// credentials. A clone is the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stores {
    http: Http,
    by_base: Arc<Mutex<HashMap<String, Arc<dyn ObjectStore>>>>,
}

impl Stores {
    pub(crate) fn new(http: Http) -> Self {
        Self { http, by_base: Arc::default() }
    }

    async fn store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>, StepError> {
        let base = url[..url::Position::BeforePath].to_owned();
        if let Some(store) = self.by_base().get(&base) {
            return Ok(Arc::clone(store));
        }
        let stores = self.clone();
        let url = url.clone();
        blocking(move || {
            http::install_crypto_provider();
            let store = open_store(&base).map_err(|error| store_failed(&url, error))?;
            Ok(Arc::clone(stores.by_base().entry(base).or_insert(store)))
        })
        .await
    }

    fn by_base(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<dyn ObjectStore>>> {
        self.by_base.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_store(base: &str) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
    // The engine counts the attempts and waits between them.
    let once = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let timeout = ClientConfigKey::Timeout;
    let unset = |prefix: &str| env::var_os(format!("{prefix}_TIMEOUT")).is_none();
    Ok(match base.split(':').next() {
        Some("s3" | "s3a") => {
            let mut builder = AmazonS3Builder::from_env().with_url(base).with_retry(once);
            if unset("AWS") {
                builder = builder.with_config(AmazonS3ConfigKey::Client(timeout), STORE_TIMEOUT);
            }
            Arc::new(builder.build()?)
        }
        Some("gs") => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_url(base).with_retry(once);
            if unset("GOOGLE") {
                builder = builder.with_config(GoogleConfigKey::Client(timeout), STORE_TIMEOUT);
            }
            Arc::new(builder.build()?)
        }
        _ => {
            let mut builder = MicrosoftAzureBuilder::from_env().with_url(base).with_retry(once);
            if unset("AZURE") {
                builder = builder.with_config(AzureConfigKey::Client(timeout), STORE_TIMEOUT);
            }
            Arc::new(builder.build()?)
        }
    })
}

/// Sends the file `from` to `to`. A name in a file system is claimed for the
/// item `seq`, as an output's is.
///
/// # Errors
///
/// Worth another attempt: the answers 408, 429 and 5xx, timeouts, broken
/// connections, a full disk. For good: other answers that are no success, and
/// what cannot be read or named.
///
/// # When stopped
///
/// Dropping the future breaks the connection off. Of a file URL nothing is
/// left; in a store the parts already sent may stay until its own rules for
/// unfinished uploads remove them.
pub(crate) async fn put(
    stores: &Stores,
    claims: &Claims,
    seq: u64,
    from: &Path,
    to: Destination,
) -> Result<(), StepError> {
    let from = from.to_owned();
    match to {
        Destination::File(target) => {
            let claims = claims.clone();
            blocking(move || fetch::copy(&from, || target.create(&claims, seq)).map(drop)).await
        }
        Destination::Http(url) => {
            let (file, length) = open(from.clone()).await?;
            put_http(&stores.http, &from, file, length, url).await
        }
        Destination::Store(url) => {
            let store = stores.store(&url).await?;
            let (file, length) = open(from.clone()).await?;
            let key = Key::from_url_path(url.path()).map_err(|error| {
                StepError::permanent(format!("could not put `{}`", http::shown(&url)))
                    .caused_by(error)
            })?;
            put_store(&*store, &from, file, length, &url, &key).await
        }
    }
}

async fn open(from: std::path::PathBuf) -> Result<(File, u64), StepError> {
    blocking(move || {
        let file = fetch::open(&from)?;
        let length = file.metadata().map_err(|error| read_failed(&from, error))?.len();
        Ok((file, length))
    })
    .await
}

fn read_failed(from: &Path, error: io::Error) -> StepError {
    StepError::from_io(
        format!("could not read `{}`", Shown(OsStr::as_bytes(from.as_os_str()))),
        error,
    )
}

async fn put_http(
    client: &Http,
    from: &Path,
    file: File,
    length: u64,
    url: Url,
) -> Result<(), StepError> {
    // Said outright, since an empty body would go without, and a stream in chunks.
    let request = client.client(&url, Direction::Up).await?.put(url.clone());
    let request = request.header(CONTENT_LENGTH, length);
    let request = if length <= SMALL {
        let (_, body) = read(file, length).await.map_err(|error| read_failed(from, error))?;
        request.body(body)
    } else {
        request.body(Body::wrap_stream(pieces(file, length, PIECE)))
    };
    let response = request.send().await.map_err(|error| http::broken("put", &url, error))?;
    let status = response.status();
    if !status.is_success() {
        return Err(http::refused("put", &url, status));
    }
    Ok(())
}

async fn put_store(
    store: &dyn ObjectStore,
    from: &Path,
    file: File,
    length: u64,
    url: &Url,
    key: &Key,
) -> Result<(), StepError> {
    let failed = |error| store_failed(url, error);
    if length <= SINGLE {
        let (_, body) = read(file, length).await.map_err(|error| read_failed(from, error))?;
        return store.put(key, body.into()).await.map(drop).map_err(failed);
    }
    let part = PART.max(length.div_ceil(MOST_PARTS));
    let options = PutMultipartOptions::default().with_retry_policy(Arc::new(PartPolicy));
    let upload = store.put_multipart_opts(key, options).await.map_err(failed)?;
    let mut upload = WriteMultipart::new_with_chunk_size(upload, part as usize);
    let mut pieces = std::pin::pin!(pieces(file, length, PIECE));
    let outcome = loop {
        match pieces.next().await {
            None => break Ok(()),
            Some(Err(error)) => break Err(read_failed(from, error)),
            Some(Ok(piece)) => {
                if let Err(error) = upload.wait_for_capacity(PARTS_AT_ONCE).await {
                    break Err(failed(error));
                }
                upload.put(piece);
            }
        }
    };
    match outcome {
        Ok(()) => upload.finish().await.map(drop).map_err(failed),
        Err(failure) => {
            // The failure that began it is the one to tell.
            _ = upload.abort().await;
            Err(failure)
        }
    }
}

/// Gives a file in pieces of `size`, each read by a blocking thread, and fails
/// if it turns out shorter than `length`.
fn pieces(
    file: File,
    length: u64,
    size: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((file, length), move |(file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let size = size.min(left);
        let (file, piece) = read(file, size).await?;
        Ok(Some((piece, (file, left - size))))
    })
}

async fn read(mut file: File, length: u64) -> io::Result<(File, Bytes)> {
    tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact(&mut piece)?;
        Ok((file, Bytes::from(piece)))
    })
    .await
    .map_err(io::Error::other)?
}

/// Sends a part again that broke, twice at most, so that one of a thousand
/// parts does not cost the whole upload.
#[derive(Debug)]
struct PartPolicy;

impl RetryPolicy for PartPolicy {
    fn retry<'a, 'b>(
        &'a self,
        context: RetryContext,
    ) -> Pin<Box<dyn Future<Output = bool> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let passing = match context.failure {
            RetryFailure::Status(status) => http::is_passing(status) || status.is_success(),
            _ => true,
        };
        Box::pin(std::future::ready(passing && context.attempt <= 2))
    }
}

fn store_failed(url: &Url, error: object_store::Error) -> StepError {
    use object_store::Error as E;
    let text = error.to_string();
    let status = status_in(&text);
    let mut transport = None;
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(error) = inner.downcast_ref::<HttpError>() {
            transport = Some(error.kind());
        }
        cause = inner.source();
    }
    let permanent = match (status, transport) {
        // A success with an error in its body: S3 does this when it is busy.
        (Some(status), _) => !http::is_passing(status) && !status.is_success(),
        (None, Some(_)) => false,
        // Neither an answer nor a connection: the settings or the name.
        (None, None) => !matches!(error, E::JoinError { .. }),
    };
    let kind = match transport {
        Some(HttpErrorKind::Timeout) => Kind::Timeout,
        _ => Kind::Io,
    };
    let what = match status {
        Some(status) => {
            let reason = status.canonical_reason().unwrap_or_default();
            let detail = between(&text, "<Message>", "</Message>")
                .map(|detail| format!(" ({})", one_line(detail)))
                .unwrap_or_default();
            format!("answered {} {reason}{detail}", status.as_u16())
        }
        None => {
            let mut innermost: &dyn Error = &error;
            while let Some(inner) = innermost.source() {
                innermost = inner;
            }
            one_line(&innermost.to_string())
        }
    };
    // Without credentials, those of the cloud that the machine is in are asked
    // for. Elsewhere that fails in ways that seem to have nothing to do with it.
    let asked_the_cloud =
        text.contains("169.254.169.254") || text.contains("metadata.google.internal");
    let why = match (asked_the_cloud, status) {
        (true, _) => {
            let it = if status.is_some() { "it " } else { "" };
            format!(
                "no credentials in the environment, and the machine's cloud gives none ({it}{what})"
            )
        }
        (false, Some(_)) => format!("the store {what}"),
        (false, None) => what,
    };
    let message = format!("could not put `{}`: {why}", http::shown(url));
    let failure =
        if permanent { StepError::permanent(message) } else { StepError::passing(message) };
    failure.with_kind(kind).with_pushback(status.is_some_and(http::is_pushback))
}

/// Finds the status of the answer: `object_store` gives it in its text alone.
fn status_in(text: &str) -> Option<StatusCode> {
    let (_, rest) = text.split_once("non-2xx status code: ")?;
    rest.get(..3)?.parse().ok()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

#[cfg(test)]
mod tests;
