//! `fetch` and `put` against a server in the test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::support::World;

/// What the server has been asked: method, path and body.
type Log = Arc<Mutex<Vec<(String, String, Vec<u8>)>>>;

/// Answers every request with what `answer` makes of its path and of how
/// often that was asked for.
fn serve(answer: fn(&str, usize) -> Vec<u8>) -> (String, Log) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let log = Log::default();
    let shared = log.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let log = shared.clone();
            thread::spawn(move || one(stream, &log, answer));
        }
    });
    (address, log)
}

fn one(stream: TcpStream, log: &Log, answer: fn(&str, usize) -> Vec<u8>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let times = {
        let mut log = log.lock().unwrap();
        log.push((method, path.clone(), body));
        log.iter().filter(|(_, logged, _)| *logged == path).count()
    };
    reader.into_inner().write_all(&answer(&path, times)).ok()
}

fn answer(path: &str, times: usize) -> Vec<u8> {
    let (status, body) = match (path, times) {
        ("/gone", _) => ("404 Not Found", "no"),
        ("/busy", 1 | 2) => ("503 Service Unavailable", "wait"),
        ("/short", _) => {
            return b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nhalf"
                .to_vec();
        }
        _ => ("200 OK", "body"),
    };
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
        .into()
}

#[test]
fn fetch_gets_files_tries_again_and_keeps_no_half_ones() {
    let (address, log) = serve(answer);
    let world = World::with(&format!(
        "[[stage]]\nname = \"get\"\nfetch = \"http://{address}/{{}}\"\nto = \"made/{{}}\"\n\
         retry = {{ times = 2, backoff = \"1ms\" }}"
    ));
    let ended = world
        .run(["good", "gone", "busy", "short", "a b?c"])
        .arg("--json")
        .end()
        .exits(1)
        .counts(5, 3, 2, 0)
        .says("404 Not Found");
    assert_eq!(world.list("made"), ["a b?c", "busy", "good"]);
    assert_eq!(world.read("made/busy"), "body");
    let attempts: Vec<_> =
        ended.json().iter().map(|object| object["attempts"].as_u64().unwrap()).collect();
    assert_eq!(attempts, [1, 1, 3, 3, 1]);
    assert!(log.lock().unwrap().iter().any(|(_, path, _)| path == "/a%20b%3Fc"));
}

#[test]
fn a_whole_url_is_taken_as_it_is() {
    let (address, log) = serve(answer);
    let world = World::with("[[stage]]\nname = \"get\"\nfetch = \"{}\"\nto = \"made/{#}\"");
    world.run([format!("http://{address}/a%2Fb?c=d")]).end().exits(0);
    assert_eq!(log.lock().unwrap()[0].1, "/a%2Fb?c=d");
}

#[test]
fn put_sends_the_file_and_gives_the_url() {
    let (address, log) = serve(answer);
    let world = World::with(&format!(
        "[[stage]]\nname = \"send\"\nput = \"http://{address}/{{/}}\"\n\
         retry = {{ times = 2, backoff = \"1ms\" }}"
    ));
    for name in ["x/good", "x/gone", "x/busy"] {
        world.write(name, "content");
    }
    let ended = world.run(["x/good", "x/gone", "x/busy"]).end().exits(1).counts(3, 2, 1, 0);
    assert_eq!(
        ended.sorted(),
        [format!("http://{address}/busy"), format!("http://{address}/good")]
    );
    let log = log.lock().unwrap();
    assert_eq!(log.iter().filter(|(_, path, _)| path == "/busy").count(), 3);
    assert!(log.iter().all(|(method, _, body)| method == "PUT" && body == b"content"));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let world = World::with("[[stage]]\nname = \"get\"\nfetch = \"{}\"\nto = \"made/{#}\"");
    let ended = world.run([format!("http://user:secret@{address}/x?key=secret")]).arg("--json");
    let ended = ended.end().exits(1).says("could not fetch").says("onnection refused");
    assert_eq!(ended.json()[0]["error"]["kind"], "io");
    let error = ended.json()[0]["error"]["message"].to_string();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_server_that_does_not_answer_meets_the_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let world = World::with(
        "[[stage]]\nname = \"get\"\nfetch = \"{}\"\nto = \"made/{#}\"\ntimeout = \"200ms\"",
    );
    let ended = world.run([format!("http://{address}/x")]).arg("--json").end().exits(1);
    assert_eq!(ended.json()[0]["error"]["kind"], "timeout");
    assert!(world.list("made").is_empty());
}

/// Answers 20 ms after it was asked, but refuses what is asked beside two others.
#[expect(clippy::disallowed_methods, reason = "a server that takes its time")]
fn two_at_once(_: &str, _: usize) -> Vec<u8> {
    static INSIDE: AtomicUsize = AtomicUsize::new(0);
    let is_full = INSIDE.fetch_add(1, Ordering::SeqCst) >= 2;
    thread::sleep(Duration::from_millis(if is_full { 2 } else { 20 }));
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    let status = if is_full { "429 Too Many Requests" } else { "200 OK" };
    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into()
}

#[test]
fn the_pace_of_a_fetch_heeds_a_server_that_refuses() {
    let (address, _) = serve(two_at_once);
    let world = World::with(&format!(
        "[[stage]]\nname = \"get\"\nfetch = \"http://{address}/{{}}\"\nto = \"made/{{}}\"\n\
         retry = {{ times = 1000, backoff = \"1ms\", max = \"20ms\" }}"
    ));
    let items = (0..200).map(|item| item.to_string());
    world.run(items).arg("--pace-log").arg("pace.jsonl").end().exits(0).counts(200, 200, 0, 0);
    let log: Vec<serde_json::Value> =
        world.read("pace.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let get = |survey: &serde_json::Value| survey["stages"][1]["pushback"].as_f64();
    assert!(log.iter().filter_map(get).any(|share| share > 0.02), "refusals are seen");
    let is_cut = |decision: &serde_json::Value| {
        decision["to"].as_u64() < decision["from"].as_u64()
            && decision["why"].as_str().unwrap().contains("refused")
    };
    let mut decisions = log.iter().flat_map(|survey| survey["decisions"].as_array().unwrap());
    assert!(decisions.any(is_cut), "{}", world.read("pace.jsonl"));
    // It is a client of two slots: by the end no more than a few ask.
    let last =
        log.iter().rev().filter_map(|survey| survey["stages"][1]["workers"].as_u64()).take(5);
    assert!(last.min().unwrap() <= 3, "{}", world.read("pace.jsonl"));
}
