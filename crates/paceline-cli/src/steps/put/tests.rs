use std::path::PathBuf;

use object_store::memory::InMemory;
use tempfile::TempDir;

use super::*;
use crate::steps::testing::{Answer, Request, Server, block_on, bounded, files_below};

fn send(stores: &Stores, base: &Path, literal: &str, url: &str) -> Result<(), StepError> {
    let destination = Destination::new(base, literal.as_bytes(), url.as_bytes())?;
    block_on(put(stores, &Claims::default(), 1, &base.join("a"), destination))
}

fn with_file(content: &[u8]) -> TempDir {
    let base = TempDir::new().unwrap();
    std::fs::write(base.path().join("a"), content).unwrap();
    base
}

/// The file, under the prefix of a bucket whose requests come to `server`.
fn bucket_at(server: &Server) -> Stores {
    http::install_crypto_provider();
    let store = AmazonS3Builder::new()
        .with_endpoint(server.url(""))
        .with_allow_http(true)
        .with_bucket_name("bucket")
        .with_access_key_id("id")
        .with_secret_access_key("secret")
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
        .build()
        .unwrap();
    let stores = Stores::default();
    stores.by_base().insert("s3://bucket".into(), Arc::new(store));
    stores
}

fn patterned(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n / 977) as u8).collect()
}

#[test]
fn a_file_goes_to_a_web_server_with_its_length() {
    bounded(|| {
        for length in [0, 5, SMALL as usize + 1, 3_000_000] {
            let content = patterned(length);
            let base = with_file(&content);
            let server = Server::start(|_| Answer::status("201 Created"));
            send(&Stores::default(), base.path(), "http://", &server.url("/up/a")).unwrap();
            let requests = server.requests();
            assert_eq!(requests.len(), 1);
            assert_eq!(requests[0].line, "PUT /up/a");
            assert_eq!(requests[0].headers["content-length"], length.to_string());
            assert!(requests[0].body == content);
        }
    });
}

#[test]
fn an_answer_to_a_put_says_whether_another_attempt_is_worth_it() {
    bounded(|| {
        let base = with_file(b"x");
        for (status, permanent) in [
            ("403 Forbidden", true),
            ("404 Not Found", true),
            ("429 Too Many Requests", false),
            ("503 Service Unavailable", false),
        ] {
            let server = Server::start(move |_| Answer::status(status));
            let web = send(&Stores::default(), base.path(), "", &server.url("/a?sig=secret"));
            let store = send(&bucket_at(&server), base.path(), "", "s3://bucket/a");
            for error in [web.unwrap_err(), store.unwrap_err()] {
                assert_eq!(error.is_permanent(), permanent, "{}", error.line());
                assert_eq!(error.is_pushback(), !permanent, "{}", error.line());
                assert!(error.line().contains(status), "{}", error.line());
                assert!(!error.line().contains("secret"), "{}", error.line());
            }
            assert_eq!(server.requests().len(), 2, "one request an attempt");
        }
        let server = Server::start(|_| Answer::Raw(Vec::new()));
        for result in [
            send(&Stores::default(), base.path(), "", &server.url("/a")),
            send(&bucket_at(&server), base.path(), "", "s3://bucket/a"),
        ] {
            let error = result.unwrap_err();
            assert!(!error.is_permanent(), "{}", error.line());
        }
    });
}

#[test]
fn a_file_url_is_confined_and_whole() {
    bounded(|| {
        let base = with_file(b"content");
        let stores = Stores::default();
        send(&stores, base.path(), "file:out/", "file:out/b%20c").unwrap();
        let absolute = format!("file://{}/abs/", base.path().to_str().unwrap());
        send(&stores, base.path(), &absolute, &format!("{absolute}d")).unwrap();
        assert_eq!(files_below(base.path()), ["a", "abs/d", "out/b c"].map(PathBuf::from));
        assert_eq!(std::fs::read(base.path().join("out/b c")).unwrap(), b"content");

        for (literal, url) in [
            ("file:out/", "file:out/../x"),
            ("file:out/", "file:out/..%2Fx"),
            ("file:out/", "file:out/%2e%2e/x"),
            ("file:", "file:///tmp/x"),
            ("file:", "file:/tmp/x"),
            ("", "file:///tmp/x"),
            ("", "file:../x"),
            ("file://", "file:///tmp/x"),
            ("file:out/", "file:out/"),
            ("file:out/", "file:out/a%00"),
        ] {
            let error = send(&stores, base.path(), literal, url).unwrap_err();
            assert!(error.is_permanent(), "{url}: {}", error.line());
        }
        assert_eq!(files_below(base.path()).len(), 3);
    });
}

#[test]
fn two_items_do_not_put_to_one_file() {
    bounded(|| {
        let base = with_file(b"content");
        let claims = Claims::default();
        let to = || Destination::new(base.path(), b"file:out/", b"file:out/x").unwrap();
        let put =
            |seq| block_on(put(&Stores::default(), &claims, seq, &base.path().join("a"), to()));
        put(1).unwrap();
        put(1).unwrap();
        assert!(put(2).unwrap_err().line().contains("item 1"));
    });
}

#[test]
fn what_is_not_there_or_not_known_is_refused_for_good() {
    bounded(|| {
        let base = with_file(b"content");
        std::fs::remove_file(base.path().join("a")).unwrap();
        for url in [
            "file:out/x",
            "http://127.0.0.1:1/x",
            "ftp://x/y",
            "x",
            "s3://bucket",
            "s3://bucket/",
            "s3://bucket/a/../b",
            "s3://bucket/%2E%2E/b",
        ] {
            let stores = Stores::default();
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            stores.by_base().insert("s3://bucket".into(), store);
            let error = send(&stores, base.path(), "", url).unwrap_err();
            assert!(error.is_permanent(), "{url}: {}", error.line());
        }
        assert_eq!(files_below(base.path()).len(), 0);
    });
}

#[test]
fn a_small_file_goes_to_a_bucket_in_one_request() {
    bounded(|| {
        let base = with_file(b"content");
        let server = Server::start(|_| Answer::with_headers("ETag: \"e\"\r\n", b""));
        send(&bucket_at(&server), base.path(), "", "s3://bucket/up/a%20b.jpg").unwrap();
        let requests = server.requests();
        assert_eq!(requests.len(), 1);
        assert_eq!(requests[0].line, "PUT /bucket/up/a%20b.jpg");
        assert_eq!(requests[0].body, b"content");
    });
}

/// Answers as S3 does to an upload in parts, but fails the first try of part 2.
fn parts(request: &Request, tries: &Mutex<u32>) -> Answer {
    let line = &request.line;
    if line.starts_with("POST") && line.contains("uploads") {
        return Answer::ok(
            b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
        );
    }
    if line.starts_with("POST") {
        return Answer::ok(
            b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>",
        );
    }
    if line.contains("partNumber=2") {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        if *tries == 1 {
            return Answer::status("503 Service Unavailable");
        }
    }
    Answer::with_headers("ETag: \"e\"\r\n", b"")
}

#[test]
fn a_large_file_goes_in_parts_and_a_broken_part_again() {
    bounded(|| {
        let content = patterned(SINGLE as usize + 12_345);
        let base = with_file(&content);
        let tries = Mutex::new(0);
        let server = Server::start(move |request| parts(request, &tries));
        send(&bucket_at(&server), base.path(), "", "s3://bucket/big").unwrap();

        let mut sent: Vec<Request> = server.requests();
        sent.retain(|request| request.line.starts_with("PUT"));
        assert_eq!(sent.len(), 4, "three parts, one of them twice");
        sent.sort_by(|a, b| a.line.cmp(&b.line));
        sent.dedup_by(|a, b| a.line == b.line);
        let joined: Vec<u8> = sent.into_iter().flat_map(|request| request.body).collect();
        assert!(joined == content);
    });
}

#[test]
fn a_large_upload_that_is_refused_is_given_up_for_good() {
    bounded(|| {
        let base = with_file(&patterned(SINGLE as usize + 1));
        let server = Server::start(|request| match request.line.as_str() {
            line if line.starts_with("PUT") => Answer::status("403 Forbidden"),
            line if line.starts_with("DELETE") => Answer::status("204 No Content"),
            _ => parts(request, &Mutex::new(1)),
        });
        let error = send(&bucket_at(&server), base.path(), "", "s3://bucket/big").unwrap_err();
        assert!(error.is_permanent() && error.line().contains("403"), "{}", error.line());
        let given_up = |request: &Request| request.line.starts_with("DELETE");
        assert!(server.requests().iter().any(given_up), "the parts are removed");
    });
}

#[test]
fn a_cloud_that_gives_no_credentials_is_told_from_a_store_that_refuses() {
    let url = Url::parse("s3://bucket/a").unwrap();
    let error = object_store::Error::Generic {
        store: "S3",
        source:
            "PUT http://169.254.169.254/ - Server returned non-2xx status code: 403 Forbidden: "
                .into(),
    };
    let line = store_failed(&url, error).line();
    assert_eq!(
        line,
        "could not put `s3://bucket/a`: no credentials in the environment, and the machine's \
         cloud gives none (it answered 403 Forbidden)"
    );
}
