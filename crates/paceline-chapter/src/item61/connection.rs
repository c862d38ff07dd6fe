//! A connection that sends and receives lines: for threads, for tasks, and
//! the one for tasks in the hands of a thread.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::Arc,
};

use paceline::{BoxError, LoopHandle};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Mutex,
};

use super::game::{LineBuffer, Misspoken};

/// How much is received at once.
const AT_ONCE: usize = 4096;

/// A connection as threads use it.
pub trait Lines {
    /// Sends a line, all of it.
    ///
    /// # Errors
    ///
    /// If the connection is broken.
    fn send(&mut self, line: &str) -> Result<(), BoxError>;

    /// Waits for a line; `None` when the other side has ended the connection.
    ///
    /// # Errors
    ///
    /// If the connection is broken, or for [`Misspoken`].
    fn receive(&mut self) -> Result<Option<String>, BoxError>;
}

/// The form for threads.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    lines: LineBuffer,
}

impl Connection {
    /// Takes a stream over.
    ///
    /// # Errors
    ///
    /// If it is broken.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, lines: LineBuffer::default() })
    }
}

impl Lines for Connection {
    fn send(&mut self, line: &str) -> Result<(), BoxError> {
        // Line and end in one, and `write_all`: a `write` may send a part only.
        Ok(self.stream.write_all(format!("{line}\n").as_bytes())?)
    }

    fn receive(&mut self) -> Result<Option<String>, BoxError> {
        let mut bytes = [0; AT_ONCE];
        loop {
            if let Some(line) = self.lines.next_line()? {
                return Ok(Some(line));
            }
            match self.stream.read(&mut bytes)? {
                0 => return Ok(self.lines.end().map(|()| None)?),
                count => self.lines.extend(&bytes[..count]),
            }
        }
    }
}

/// The form for tasks: the same with `await`.
#[derive(Debug)]
pub struct AsyncConnection {
    stream: tokio::net::TcpStream,
    lines: LineBuffer,
}

impl AsyncConnection {
    /// Takes a stream over.
    ///
    /// # Errors
    ///
    /// If it is broken.
    pub fn new(stream: tokio::net::TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, lines: LineBuffer::default() })
    }

    /// Takes over a stream of a thread; only inside an event loop.
    ///
    /// # Errors
    ///
    /// If it is broken.
    pub fn from_std(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Self::new(tokio::net::TcpStream::from_std(stream)?)
    }

    /// As [`Lines::send`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn send(&mut self, line: &str) -> Result<(), BoxError> {
        Ok(self.stream.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// As [`Lines::receive`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn receive(&mut self) -> Result<Option<String>, BoxError> {
        let mut bytes = [0; AT_ONCE];
        loop {
            if let Some(line) = self.lines.next_line()? {
                return Ok(Some(line));
            }
            match self.stream.read(&mut bytes).await? {
                0 => return Ok(self.lines.end().map(|()| None)?),
                count => self.lines.extend(&bytes[..count]),
            }
        }
    }
}

/// The form for tasks in the hands of a thread: what makes it possible to port
/// the connection first and its users later.
#[derive(Clone, Debug)]
pub struct Bridged {
    connection: Arc<Mutex<AsyncConnection>>,
    event_loop: LoopHandle,
}

impl Bridged {
    /// Gives a stream to an event loop.
    ///
    /// # Errors
    ///
    /// If it is broken, or the loop has gone.
    pub fn new(stream: TcpStream, event_loop: &LoopHandle) -> Result<Self, BoxError> {
        let made = event_loop.submit(async { AsyncConnection::from_std(stream) });
        let connection = Arc::new(Mutex::new(made.wait()?));
        Ok(Self { connection, event_loop: event_loop.clone() })
    }
}

impl Lines for Bridged {
    fn send(&mut self, line: &str) -> Result<(), BoxError> {
        let (connection, line) = (self.connection.clone(), line.to_owned());
        let sent = self.event_loop.submit(async move { connection.lock().await.send(&line).await });
        Ok(sent.wait()?)
    }

    fn receive(&mut self) -> Result<Option<String>, BoxError> {
        let connection = self.connection.clone();
        let received =
            self.event_loop.submit(async move { connection.lock().await.receive().await });
        received.wait().map_err(|failure| {
            // What was said wrongly is not the bridge's failure.
            let cause = std::error::Error::source(&failure);
            let misspoken = cause.and_then(|cause| cause.downcast_ref::<Misspoken>());
            misspoken.map_or_else(|| failure.clone().into(), |misspoken| misspoken.clone().into())
        })
    }
}
