//! The HTTP client that `fetch` and `put` share, and what its failures mean.
//!
//! It is made at first use, since reading the system's certificates takes
//! milliseconds that a pipeline without a network should not pay. It never
//! tries again by itself: the engine counts the attempts.

use std::error::Error;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, StatusCode, Url};

use crate::message::words_of;

use super::{Kind, Shown, StepError, blocking, one_line};

/// How long to wait for a server that does nothing. The time of a whole
/// attempt is the stage's `timeout`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Until a connection stands.
    pub(crate) connect: Duration,
    /// Between one piece of an answer and the next, and before the first.
    pub(crate) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), idle: Duration::from_secs(300) }
    }
}

/// The shared client. A clone is the same one.
///
/// It needs a tokio runtime with its timer enabled.
#[derive(Clone, Debug, Default)]
pub(crate) struct Http(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    limits: Limits,
    /// By [`Direction`] and by whether TLS is needed.
    clients: [[OnceLock<Client>; 2]; 2],
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Direction {
    Down,
    Up,
}

impl Http {
    #[cfg(test)]
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared { limits, ..Shared::default() }))
    }

    /// Gives the client for `url`, making it at first use.
    pub(super) async fn client(&self, url: &Url, way: Direction) -> Result<Client, StepError> {
        let secure = url.scheme() == "https";
        if let Some(client) = self.0.clients[way as usize][usize::from(secure)].get() {
            return Ok(client.clone());
        }
        let shared = Arc::clone(&self.0);
        blocking(move || {
            let made = builder(shared.limits, way).build();
            // A bare container has no certificates, and `http:` needs none.
            let made = match made {
                Err(_) if !secure => builder(shared.limits, way).tls_certs_only([]).build(),
                made => made,
            };
            let client = made.map_err(no_client)?;
            Ok(shared.clients[way as usize][usize::from(secure)].get_or_init(|| client).clone())
        })
        .await
    }
}

fn builder(limits: Limits, way: Direction) -> ClientBuilder {
    install_crypto_provider();
    let builder = Client::builder()
        .user_agent(concat!("paceline/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(limits.connect)
        .retry(reqwest::retry::never());
    match way {
        Direction::Down => builder.read_timeout(limits.idle),
        // The answer to an upload comes after all of it, however long that
        // takes; what may not last is that nothing sent is acknowledged.
        #[cfg(target_os = "linux")]
        Direction::Up => builder.tcp_user_timeout(limits.idle),
        #[cfg(not(target_os = "linux"))]
        Direction::Up => builder,
    }
}

fn no_client(error: reqwest::Error) -> StepError {
    StepError::permanent("could not set up HTTP").caused_by(error)
}

/// Lets TLS use `ring`. Another provider that the process has already stays.
pub(super) fn install_crypto_provider() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Reads the bytes of a URL, which a template or an item made.
pub(super) fn parse(url: &[u8]) -> Result<Url, StepError> {
    let refuse = |why: &str| {
        StepError::permanent(format!("`{}` is no URL: {why}", Shown(&without_credentials(url))))
    };
    let text = std::str::from_utf8(url).map_err(|_| refuse("it is not UTF-8"))?;
    Url::parse(text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => {
            refuse("it has no scheme; a local file is `file:NAME`")
        }
        error => refuse(&error.to_string()),
    })
}

/// Cuts what may be secret out of a URL: a user's name and password, and the
/// query, in which signed URLs carry their signature.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // These fail only for URLs that can hold no credentials. Elsewhere than on
    // the web the name is no user's: in `az://` it is the container.
    _ = url.set_password(None);
    if matches!(url.scheme(), "http" | "https") {
        _ = url.set_username("");
    }
    url.set_fragment(None);
    if url.query().is_some() {
        url.set_query(Some("..."));
    }
    url.into()
}

/// The same for bytes that may be no URL at all.
pub(super) fn without_credentials(url: &[u8]) -> Vec<u8> {
    let mut shown = url.to_vec();
    if let Some(query) = shown.iter().position(|&byte| byte == b'?') {
        shown.truncate(query);
        shown.extend_from_slice(b"?...");
    }
    let start = shown.windows(3).position(|window| window == b"://").map_or(0, |at| at + 3);
    let end = shown[start..].iter().position(|&b| b == b'/').map_or(shown.len(), |at| start + at);
    if let Some(at) = shown[start..end].iter().rposition(|&byte| byte == b'@') {
        shown.drain(start..=start + at);
    }
    shown
}

/// Says whether an answer of this status may be another one next time.
pub(super) fn is_passing(status: StatusCode) -> bool {
    status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS
        || status.is_server_error()
}

/// Says whether a server that answers so is asked too much at once.
pub(super) fn is_pushback(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// Makes the failure for an answer that is no success.
pub(super) fn refused(what: &str, url: &Url, status: StatusCode) -> StepError {
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let message = format!(
        "could not {what} `{}`: the server answered {}{reason}",
        shown(url),
        status.as_u16()
    );
    let failure = if is_passing(status) {
        StepError::passing(message)
    } else {
        StepError::permanent(message)
    };
    failure.with_pushback(is_pushback(status))
}

/// Makes the failure for a request that came to no answer, or to half of one.
pub(super) fn broken(what: &str, url: &Url, error: reqwest::Error) -> StepError {
    let permanent = error.is_builder() || error.is_redirect();
    let kind = if error.is_timeout() { Kind::Timeout } else { Kind::Io };
    let why = if error.is_timeout() {
        "the server did not answer in time".to_owned()
    } else {
        // The innermost cause is the one a reader can act on; the layers
        // above it say "error sending request" and the like.
        let mut cause: &(dyn Error + 'static) = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        match cause.downcast_ref::<reqwest::Error>() {
            Some(_) => one_line(&error.without_url().to_string()),
            None => one_line(&words_of(cause)),
        }
    };
    let message = format!("could not {what} `{}`: {why}", shown(url));
    let failure =
        if permanent { StepError::permanent(message) } else { StepError::passing(message) };
    failure.with_kind(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_in_a_message_holds_no_credentials() {
        let url = parse(b"https://me:secret@example.org/a%20b?sig=secret#part").unwrap();
        assert_eq!(shown(&url), "https://example.org/a%20b?...");
        for broken in ["https://me:secret@/x", "http://me:secret@[::1/x?key=secret", "me:secret@x"]
        {
            if let Err(error) = parse(broken.as_bytes()) {
                assert!(!error.line().contains("secret"), "{}", error.line());
            }
        }
    }
}
