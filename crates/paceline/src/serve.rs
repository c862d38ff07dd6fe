//! The worker's side of [`Framing::Frames`](crate::Framing::Frames), for programs in Rust.
//!
//! The channel is the standard input, a socket; the standard output is the
//! slate, a file in memory that the runner reads if the worker dies. Both are
//! moved out of the way at once: what the program prints goes to standard
//! error, and what it reads is nothing.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use memchr::{memchr, memchr_iter};
use paceline_process::SharedMemory;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    failure::BoxError,
    worker::{
        panic_message,
        serve::{
            Form,
            framing::{HEAD, TAKES_BATCHES, head, kind, kind_of, read_head},
            slate::{SLATE, SLATE_HEAD, place},
        },
    },
};

/// Answers wait no longer than this for others to be sent with.
const HELD_BACK: Duration = Duration::from_micros(200);

/// Nor than this while there are more items in hand than answers, which take
/// longer than [`SOON`].
const HELD_LONG: Duration = Duration::from_millis(8);

/// How long it takes until other items have come.
const SOON: Duration = Duration::from_micros(500);

/// Nor do more bytes of them.
const MOST_HELD_BACK: usize = 64 * 1024;

/// A value that goes to worker processes and comes from them: bytes, text,
/// or [`Json`].
pub trait Wire: Sized {
    /// The form it has on its way.
    const FORM: Form;

    /// Appends it to `out`.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), BoxError>;

    /// Makes it of what came.
    ///
    /// # Errors
    ///
    /// If that is something else.
    fn read(bytes: &[u8]) -> Result<Self, BoxError>;
}

impl Wire for Vec<u8> {
    const FORM: Form = Form::Bytes;

    fn write(&self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(self);
        Ok(())
    }

    fn read(bytes: &[u8]) -> Result<Self, BoxError> {
        Ok(bytes.to_vec())
    }
}

impl Wire for String {
    const FORM: Form = Form::Bytes;

    fn write(&self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(self.as_bytes());
        Ok(())
    }

    fn read(bytes: &[u8]) -> Result<Self, BoxError> {
        Ok(std::str::from_utf8(bytes)?.to_owned())
    }
}

/// Anything that serde can write as JSON and read again.
///
/// ```
/// use paceline::{Json, Wire};
///
/// let mut bytes = Vec::new();
/// Json((1963309, 2265973)).write(&mut bytes)?;
/// assert_eq!(bytes, b"[1963309,2265973]");
/// # Ok::<(), paceline::BoxError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Json<T>(pub T);

impl<T: Serialize + DeserializeOwned> Wire for Json<T> {
    const FORM: Form = Form::Json;

    fn write(&self, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(serde_json::to_writer(out, &self.0)?)
    }

    fn read(bytes: &[u8]) -> Result<Self, BoxError> {
        Ok(Self(serde_json::from_slice(bytes)?))
    }
}

/// Does the work of a worker process: answers each item with what `function`
/// makes of it, and returns when there are no more.
///
/// For the program that a stage starts by [`Serve::frames`](crate::Serve::frames),
/// or a [`ProcessPool`](crate::ProcessPool). An error or a panic fails the
/// item alone; so does whatever ends the process.
///
/// From the call on, standard output goes to standard error, and standard
/// input has nothing to read: the channel is private.
///
/// ```no_run
/// fn main() -> Result<(), paceline::BoxError> {
///     paceline::serve(|text: String| Ok::<_, paceline::BoxError>(text.to_uppercase()))?;
///     Ok(())
/// }
/// ```
///
/// # Errors
///
/// If this process was not started as a worker, or the channel breaks.
///
/// # When stopped
///
/// It waits for items, and its wait ends when whoever started it has no more
/// or is gone.
pub fn serve<In, Out, E, F>(function: F) -> io::Result<()>
where
    In: Wire,
    Out: Wire,
    E: Into<BoxError>,
    F: FnMut(In) -> Result<Out, E>,
{
    serve_after(|| Ok::<_, BoxError>(function))
}

/// As [`serve`], with what each worker does once before its first item:
/// `begin` makes the function.
///
/// If it fails, whoever started the worker is told once, and gives up: a
/// pipeline ends with an [`Error`](crate::Error), a pool is broken.
///
/// ```no_run
/// # use std::{collections::HashSet, fs};
/// use paceline::BoxError;
///
/// paceline::serve_after(|| {
///     let words: HashSet<String> =
///         fs::read_to_string("/usr/share/dict/words")?.lines().map(String::from).collect();
///     Ok::<_, BoxError>(move |word: String| {
///         if words.contains(&word) { Ok(word) } else { Err("no such word") }
///     })
/// })?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// If this process was not started as a worker, or the channel breaks.
///
/// # When stopped
///
/// As [`serve`].
pub fn serve_after<In, Out, E, F, B, BE>(begin: B) -> io::Result<()>
where
    In: Wire,
    Out: Wire,
    E: Into<BoxError>,
    F: FnMut(In) -> Result<Out, E>,
    B: FnOnce() -> Result<F, BE>,
    BE: Into<BoxError>,
{
    match answer_all(&mut Channel::take()?, begin) {
        // Nobody is there to answer, or wants to be answered: the work is over.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        ended => ended,
    }
}

fn answer_all<In, Out, E, F, B, BE>(channel: &mut Channel, begin: B) -> io::Result<()>
where
    In: Wire,
    Out: Wire,
    E: Into<BoxError>,
    F: FnMut(In) -> Result<Out, E>,
    B: FnOnce() -> Result<F, BE>,
    BE: Into<BoxError>,
{
    let begun = catch_unwind(AssertUnwindSafe(|| begin().map_err(|error| told(&error.into()))));
    let mut function = match begun.unwrap_or_else(|panic| Err(told_of_panic(&*panic))) {
        Ok(function) => function,
        Err(told) => {
            channel.append(0, kind::FATAL, &told);
            return channel.flush();
        }
    };
    channel.append(1, kind::READY, TAKES_BATCHES);
    channel.flush()?;
    let mut answer = Vec::new();
    while let Some((id, request)) = channel.next()? {
        answer.clear();
        let made = catch_unwind(AssertUnwindSafe(|| -> Result<(), BoxError> {
            let value = function(In::read(&channel.input[request])?).map_err(Into::into)?;
            value.write(&mut answer)
        }));
        let kind = match made {
            Ok(Ok(())) => kind_of(Out::FORM),
            Ok(Err(error)) => {
                answer = told(&error);
                kind::ERROR
            }
            Err(panic) => {
                answer = told_of_panic(&*panic);
                kind::ERROR
            }
        };
        channel.answer(id, kind, &answer)?;
    }
    channel.flush()
}

fn told(error: &BoxError) -> Vec<u8> {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        message = format!("{message}: {error}");
        cause = error.source();
    }
    serde_json::json!({ "message": message }).to_string().into_bytes()
}

fn told_of_panic(panic: &(dyn std::any::Any + Send)) -> Vec<u8> {
    serde_json::json!({ "message": panic_message(panic) }).to_string().into_bytes()
}

/// The worker's end of the channel.
struct Channel {
    socket: UnixStream,
    slate: SharedMemory,
    input: Vec<u8>,
    /// Up to here the input has been used.
    at: usize,
    /// The id of the next item of a batch that has begun, and how long the rest of it is.
    batch: Option<(u32, usize)>,
    output: Vec<u8>,
    /// How far the answers on the slate go.
    slate_end: usize,
    /// How often answers were sent.
    flushes: u64,
    /// Since when answers gather, and when they are seen to.
    since: Instant,
    look_at: Instant,
    /// How many answers the output has.
    held: u32,
    /// One more than the id of the last item that has come whole.
    last: u32,
    /// Up to here the input has been looked through for it.
    looked: usize,
}

impl Channel {
    fn take() -> io::Result<Self> {
        let no_worker =
            || io::Error::other("this program is a worker: it is started by a pipeline or a pool");
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.peer_addr().map_err(|_| no_worker())?;
        let slate = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        let slate = SharedMemory::open(&slate).map_err(|_| no_worker())?;
        if slate.size() != SLATE {
            return Err(no_worker());
        }
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        rustix::stdio::dup2_stdout(io::stderr())?;
        Ok(Self {
            socket,
            slate,
            input: Vec::new(),
            at: 0,
            batch: None,
            output: Vec::new(),
            slate_end: SLATE_HEAD,
            flushes: 0,
            since: Instant::now(),
            look_at: Instant::now(),
            held: 0,
            last: 0,
            looked: 0,
        })
    }

    /// Waits for the next request; `None` if there are no more.
    fn next(&mut self) -> io::Result<Option<(u32, std::ops::Range<usize>)>> {
        loop {
            if let Some((id, length)) = self.batch.take() {
                let begin = self.at;
                let body = match memchr(0, &self.input[begin..begin + length]) {
                    Some(zero) => {
                        self.batch = Some((id.wrapping_add(1), length - zero - 1));
                        self.at += zero + 1;
                        begin..begin + zero
                    }
                    None => {
                        self.at += length;
                        begin..self.at
                    }
                };
                self.tell(id);
                return Ok(Some((id, body)));
            }
            let rest = &self.input[self.at..];
            if let Some((length, id, kind)) = read_head(rest)
                && rest.len() >= HEAD + length
            {
                self.at += HEAD;
                if let kind::BYTES_BATCH | kind::JSON_BATCH = kind {
                    self.batch = Some((id, length));
                    continue;
                }
                let begin = self.at;
                self.at += length;
                self.tell(id);
                return Ok(Some((id, begin..self.at)));
            }
            self.flush()?;
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// Reads once, and waits until there is something; `false` at the end.
    fn read(&mut self) -> io::Result<bool> {
        self.input.drain(..self.at);
        self.looked = self.looked.saturating_sub(self.at);
        self.at = 0;
        let end = self.input.len();
        self.input.resize(end + 64 * 1024, 0);
        let read = loop {
            match self.socket.read(&mut self.input[end..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.input.truncate(end + read.as_ref().map_or(0, |read| *read));
        if self.held == 0 {
            self.gather_from(Instant::now());
        }
        while let Some((length, id, kind)) = read_head(&self.input[self.looked..])
            && let Some(body) = self.input[self.looked + HEAD..].get(..length)
        {
            let batched = matches!(kind, kind::BYTES_BATCH | kind::JSON_BATCH);
            let others = if batched { memchr_iter(0, body).count() } else { 0 };
            self.last = id.wrapping_add(1 + others as u32);
            self.looked += HEAD + length;
        }
        Ok(read? > 0)
    }

    /// Reads once if there is something to be read.
    fn read_what_is_there(&mut self) -> io::Result<()> {
        let mut socket = [PollFd::new(&self.socket, PollFlags::IN)];
        if poll(&mut socket, Some(&Timespec::default())).is_ok_and(|ready| ready > 0) {
            self.read()?;
        }
        Ok(())
    }

    fn gather_from(&mut self, now: Instant) {
        (self.since, self.look_at) = (now, now + HELD_BACK);
    }

    /// Writes down how far the answers go, and then what is begun: as one
    /// more than its id, so that nothing is 0.
    fn tell(&mut self, begun: u32) {
        self.slate.set_number(place::END, self.slate_end as u64);
        self.slate.set_number(place::BEGUN, u64::from(begun) + 1);
    }

    fn append(&mut self, id: u32, kind: u8, body: &[u8]) {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        self.output.extend_from_slice(&head(length, id, kind));
        self.output.extend_from_slice(body);
    }

    /// Writes the answer down, and sends it with others soon.
    fn answer(&mut self, id: u32, kind: u8, body: &[u8]) -> io::Result<()> {
        let start = self.output.len();
        self.append(id, kind, body);
        let frame = &self.output[start..];
        if self.slate_end + frame.len() <= SLATE {
            self.slate.write(self.slate_end, frame);
            self.slate_end += frame.len();
        }
        self.held += 1;
        if self.output.len() >= MOST_HELD_BACK {
            self.flush()?;
            self.gather_from(Instant::now());
            return Ok(());
        }
        let now = Instant::now();
        if now < self.look_at {
            return Ok(());
        }
        let next = id.wrapping_add(1);
        if self.last.wrapping_sub(next) <= self.held {
            self.read_what_is_there()?;
        }
        let left = self.last.wrapping_sub(next);
        let work_left = now.duration_since(self.since) / self.held * left;
        if left > self.held && work_left > SOON && now < self.since + HELD_LONG {
            self.look_at = now + HELD_BACK;
            return Ok(());
        }
        self.flush()?;
        self.gather_from(Instant::now());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            self.socket.write_all(&self.output)?;
            self.output.clear();
            self.flushes += 1;
            self.slate_end = SLATE_HEAD;
            // Before any of them is written over.
            self.slate.set_number(place::SENT, self.flushes);
            self.slate.set_number(place::END, SLATE_HEAD as u64);
        }
        self.held = 0;
        Ok(())
    }
}
