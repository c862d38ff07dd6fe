//! `fetch`: one attempt to get what a URL names into a file.
//!
//! A body is never held in memory: it goes to the file in pieces, each
//! written by a blocking thread while the next one is on its way.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytes::Bytes;

use super::http::{self, Direction};
use super::{Http, Shown, StepError, blocking, file_url};
use crate::output_file::OutputFile;

/// How much of a body is gathered for one write.
const PIECE: usize = 64 * 1024;

/// Gets `url` into `output`, gives the file its name, and returns its length.
///
/// `base` is the folder of the pipeline file, which `file:NAME` starts from.
/// One request: redirects are followed, nothing is tried again.
///
/// # Errors
///
/// Worth another attempt: the answers 408, 429 and 5xx, timeouts, broken
/// connections, a body shorter than announced, a full disk. For good: other
/// answers that are no success, and what is no URL or no file.
///
/// # When stopped
///
/// Dropping the future breaks the connection off; the temporary file goes
/// when the write in hand has ended.
pub(crate) async fn fetch(
    client: &Http,
    base: &Path,
    url: &[u8],
    output: OutputFile,
) -> Result<u64, StepError> {
    if let Some(path) = file_url::path(url)? {
        let path = base.join(OsStr::from_bytes(&path));
        return blocking(move || copy(&path, || Ok(output))).await;
    }
    let url = http::parse(url)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(StepError::permanent(format!(
            "could not fetch `{}`: only http, https and file URLs can be fetched",
            http::shown(&url)
        )));
    }
    let failed = |error| http::broken("fetch", &url, error);
    let request = client.client(&url, Direction::Down).await?.get(url.clone());
    let mut response = request.send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(http::refused("fetch", response.url(), response.status()));
    }

    let mut output = output;
    let mut gathered = Vec::new();
    let mut size = 0;
    let mut length = 0;
    while let Some(piece) = response.chunk().await.map_err(failed)? {
        length += piece.len() as u64;
        size += piece.len();
        gathered.push(piece);
        if size >= PIECE {
            size = 0;
            output = append(output, std::mem::take(&mut gathered)).await?;
        }
    }
    // A body shorter than announced has failed above: the client counts.
    blocking(move || {
        write(&output, &gathered)?;
        output.commit()?;
        Ok(length)
    })
    .await
}

async fn append(output: OutputFile, pieces: Vec<Bytes>) -> Result<OutputFile, StepError> {
    blocking(move || {
        write(&output, &pieces)?;
        Ok(output)
    })
    .await
}

fn write(output: &OutputFile, pieces: &[Bytes]) -> Result<(), StepError> {
    let mut file = output.file();
    pieces
        .iter()
        .try_for_each(|piece| file.write_all(piece))
        .map_err(|error| output.write_failed(error))
}

/// Copies a file, by the kernel where it can, to an output that is made once
/// the file is known to be there.
pub(super) fn copy(
    from: &Path,
    output: impl FnOnce() -> Result<OutputFile, StepError>,
) -> Result<u64, StepError> {
    let source = open(from)?;
    let output = output()?;
    let length = io::copy(&mut &source, &mut output.file()).map_err(|error| {
        let from = Shown(from.as_os_str().as_bytes()).to_string();
        let to = Shown(output.spelled()).to_string();
        StepError::from_io(format!("could not copy `{from}` to `{to}`"), error)
    })?;
    output.commit()?;
    Ok(length)
}

/// Opens an ordinary file to read. Others are refused, since opening a pipe waits.
pub(super) fn open(path: &Path) -> Result<File, StepError> {
    let shown = || Shown(path.as_os_str().as_bytes()).to_string();
    let failed = |error| StepError::from_io(format!("could not read `{}`", shown()), error);
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(StepError::permanent(format!(
            "could not read `{}`: it is no ordinary file",
            shown()
        )));
    }
    File::open(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::super::http::Limits;
    use super::super::testing::{Answer, Request, Server, block_on, bounded, files_below, output};
    use super::super::{Kind, StepError};
    use super::*;

    fn get(base: &Path, url: &str) -> Result<u64, StepError> {
        let client = Http::new(Limits { idle: Duration::from_millis(200), ..Limits::default() });
        block_on(fetch(&client, base, url.as_bytes(), output(base, "work/a")))
    }

    /// Fetches `/` from a server that answers so, and says what was left of it.
    fn get_from(
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> (Result<u64, StepError>, Vec<Request>, Option<Vec<u8>>) {
        bounded(move || {
            let base = TempDir::new().unwrap();
            let server = Server::start(answer);
            let result = get(base.path(), &server.url("/"));
            let file = std::fs::read(base.path().join("work/a")).ok();
            assert_eq!(files_below(base.path()).len(), usize::from(file.is_some()));
            (result, server.requests(), file)
        })
    }

    #[test]
    fn a_body_becomes_the_file() {
        let body: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
        let expected = body.clone();
        let (result, requests, file) = get_from(move |_| Answer::ok(&body));
        assert_eq!(result.unwrap(), 3_000_000);
        assert_eq!(file.unwrap(), expected);
        assert_eq!(requests.len(), 1);
        let (result, _, file) = get_from(|_| Answer::ok(b""));
        assert_eq!((result.unwrap(), file.unwrap().len()), (0, 0));
    }

    #[test]
    fn redirects_are_followed_but_not_for_ever() {
        let (result, requests, file) = get_from(|request| {
            match request.line.as_str() {
            "GET /" => Answer::Raw(
                b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            ),
            _ => Answer::ok(b"there"),
        }
        });
        assert_eq!(result.unwrap(), 5);
        assert_eq!((requests.len(), file.unwrap().as_slice()), (2, &b"there"[..]));

        let (result, _, _) = get_from(|_| {
            Answer::Raw(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec())
        });
        assert!(result.unwrap_err().is_permanent());
    }

    #[test]
    fn an_answer_says_whether_another_attempt_is_worth_it() {
        for (status, permanent) in [
            ("404 Not Found", true),
            ("401 Unauthorized", true),
            ("304 Not Modified", true),
            ("408 Request Timeout", false),
            ("429 Too Many Requests", false),
            ("500 Internal Server Error", false),
            ("503 Service Unavailable", false),
        ] {
            let (result, requests, file) = get_from(move |_| Answer::status(status));
            let error = result.unwrap_err();
            assert_eq!(error.is_permanent(), permanent, "{status}");
            let is_pushback = status.starts_with("429") || status.starts_with("503");
            assert_eq!(error.is_pushback(), is_pushback, "{status}");
            assert!(error.line().contains(status), "{}", error.line());
            assert_eq!((requests.len(), file), (1, None), "one request an attempt");
        }
    }

    #[test]
    fn a_body_that_ends_early_is_a_failure() {
        let (result, requests, file) = get_from(|_| {
            Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec())
        });
        let error = result.unwrap_err();
        assert!(!error.is_permanent() && error.kind() == Kind::Io, "{}", error.line());
        assert_eq!((requests.len(), file), (1, None));

        let (result, _, file) = get_from(|_| {
            Answer::Raw(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n".to_vec(),
            )
        });
        assert!(!result.unwrap_err().is_permanent());
        assert_eq!(file, None);
    }

    #[test]
    fn a_broken_connection_may_pass() {
        let (result, requests, _) = get_from(|_| Answer::Raw(Vec::new()));
        assert!(!result.unwrap_err().is_permanent());
        assert_eq!(requests.len(), 1);

        let base = TempDir::new().unwrap();
        // Port 1 is free on any machine that tests run on.
        let error = get(base.path(), "http://127.0.0.1:1/a").unwrap_err();
        assert!(!error.is_permanent());
        assert!(error.line().contains("efused"), "{}", error.line());
    }

    #[test]
    fn a_server_that_falls_silent_is_a_timeout() {
        for sent in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"] {
            let (result, _, file) = get_from(move |_| Answer::Stall(sent.into()));
            let error = result.unwrap_err();
            assert_eq!(error.kind(), Kind::Timeout, "{}", error.line());
            assert!(!error.is_permanent());
            assert_eq!(file, None);
        }
    }

    #[test]
    fn a_message_holds_no_password() {
        bounded(|| {
            let base = TempDir::new().unwrap();
            let server = Server::start(|_| Answer::status("403 Forbidden"));
            let url = server.url("/a?key=secret").replace("http://", "http://me:secret@");
            let error = get(base.path(), &url).unwrap_err();
            assert!(!error.line().contains("secret"), "{}", error.line());
            assert!(server.requests()[0].headers.contains_key("authorization"));
        });
    }

    #[test]
    fn a_file_url_is_copied() {
        bounded(|| {
            let base = TempDir::new().unwrap();
            std::fs::write(base.path().join("a b%"), "here").unwrap();
            let absolute = format!("file://{}/a%20b%25", base.path().to_str().unwrap());
            for url in ["file:a%20b%25", "file:a b%", &absolute] {
                assert_eq!(get(base.path(), url).unwrap(), 4, "{url}");
                assert_eq!(std::fs::read(base.path().join("work/a")).unwrap(), b"here");
            }
            for url in
                ["file:missing", "file:", "file:.", "originals/a", "ftp://x/a", "", "http://"]
            {
                let error = get(base.path(), url).unwrap_err();
                assert!(error.is_permanent(), "{url}: {}", error.line());
            }
        });
    }

    #[test]
    fn a_full_disk_is_named_and_may_pass() {
        bounded(|| {
            let base = TempDir::new().unwrap();
            let server = Server::start(|_| Answer::ok(&[7; 3 * PIECE]));
            std::fs::write(base.path().join("source"), "content").unwrap();
            for url in [server.url("/"), "file:source".to_owned()] {
                let full = File::options().write(true).open("/dev/full").unwrap();
                let output = output(base.path(), "a").writing_to(full);
                let client = Http::default();
                let result = block_on(fetch(&client, base.path(), url.as_bytes(), output));
                let error = result.unwrap_err();
                assert!(error.line().contains("`a`"), "{}", error.line());
                assert!(error.line().contains("no space left on device"), "{}", error.line());
                assert!(!error.is_permanent());
                assert_eq!(files_below(base.path()), [Path::new("source")]);
            }
        });
    }

    #[test]
    fn a_fetch_that_is_dropped_leaves_nothing() {
        bounded(|| {
            let base = TempDir::new().unwrap();
            let server = Server::start(|_| {
                Answer::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec())
            });
            let url = server.url("/");
            let client = Http::default();
            block_on(async {
                let fetch = fetch(&client, base.path(), url.as_bytes(), output(base.path(), "a"));
                let mut fetch = std::pin::pin!(fetch);
                // Polled until the request has arrived, then dropped.
                std::future::poll_fn(|context| {
                    assert!(fetch.as_mut().poll(context).is_pending());
                    context.waker().wake_by_ref();
                    if server.requests().is_empty() {
                        std::task::Poll::Pending
                    } else {
                        std::task::Poll::Ready(())
                    }
                })
                .await;
            });
            assert_eq!(files_below(base.path()).len(), 0);
        });
    }
}
