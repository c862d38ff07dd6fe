//! `fetch` and `put` against a server in the test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
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
