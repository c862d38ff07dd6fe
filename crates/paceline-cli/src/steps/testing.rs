//! What the tests of the steps share: a bound on their time, a runtime, and a
//! web server of a few lines that answers as a test says.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use crate::output_file::{Claims, OutputFile, Target};

/// Runs a test's body, and fails if it has not ended after a minute.
pub(crate) fn bounded<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    let (ended, end) = mpsc::channel();
    let body = thread::spawn(move || {
        let result = body();
        _ = ended.send(());
        result
    });
    // A panic in the body drops the sender and is passed on below.
    let waited = end.recv_timeout(Duration::from_secs(60));
    assert_ne!(waited, Err(mpsc::RecvTimeoutError::Timeout), "the test hangs");
    body.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Makes the output that `to` names in `base`, with no placeholder in it.
pub(crate) fn output(base: &Path, to: &str) -> OutputFile {
    let target = Target::new(base, to.as_bytes(), to.as_bytes()).unwrap();
    target.create(&Claims::default(), 1).unwrap()
}

/// Gives the names of all files below `folder`, sorted.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(Result::unwrap)
        .filter(|entry| !entry.file_type().is_dir())
        .map(|entry| entry.path().strip_prefix(folder).unwrap().to_owned())
        .collect();
    files.sort();
    files
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// `GET /path`.
    pub(crate) line: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) enum Answer {
    /// These bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// These bytes, then nothing until the client has gone.
    Stall(Vec<u8>),
}

impl Answer {
    pub(crate) fn status(status: &str) -> Self {
        Self::Raw(
            format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").into(),
        )
    }

    pub(crate) fn ok(body: &[u8]) -> Self {
        Self::with_headers("", body)
    }

    /// `headers` are whole lines, each with its `\r\n`.
    pub(crate) fn with_headers(headers: &str, body: &[u8]) -> Self {
        let length = body.len();
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n"
        )
        .into_bytes();
        answer.extend_from_slice(body);
        Self::Raw(answer)
    }
}

/// A web server on this machine, gone when dropped.
pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    acceptor: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stopped = Arc::new(AtomicBool::new(false));
        let acceptor = {
            let (requests, stopped) = (Arc::clone(&requests), Arc::clone(&stopped));
            thread::spawn(move || {
                let answer = &answer;
                let (requests, stopped) = (&*requests, &*stopped);
                thread::scope(|scope| {
                    for connection in listener.incoming() {
                        if stopped.load(Ordering::SeqCst) {
                            return;
                        }
                        let connection = connection.unwrap();
                        scope.spawn(move || serve(connection, requests, answer));
                    }
                });
            })
        };
        Self { address, requests, stopped, acceptor: Some(acceptor) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the acceptor, which looks at the flag.
        _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            _ = acceptor.join();
        }
    }
}

fn serve(
    mut connection: TcpStream,
    requests: &Mutex<Vec<Request>>,
    answer: &impl Fn(&Request) -> Answer,
) {
    let Some(request) = read_request(&connection) else {
        return;
    };
    let answer = answer(&request);
    requests.lock().unwrap().push(request);
    // A client that has gone is what some tests are about.
    match answer {
        Answer::Raw(bytes) => _ = connection.write_all(&bytes),
        Answer::Stall(bytes) => {
            _ = connection.write_all(&bytes);
            _ = connection.read(&mut [0]);
        }
    }
}

fn read_request(connection: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let line = line.strip_suffix(" HTTP/1.1\r\n")?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line, headers, body })
}
