//! A worker process that misbehaves on request: `server FRAMING [BEGIN]`.
//!
//! Each item is an order, a word and its argument: `say TEXT` answers with
//! TEXT, the others are the arms of `obey`. `BEGIN` is an order that is obeyed
//! before the first item.

use std::{
    env, fs,
    io::{self, BufRead, Write},
    os::fd::BorrowedFd,
    process::{abort, exit},
    sync::mpsc,
    time::Duration,
};

use rustix::{
    process::{Signal, getpid, kill_process},
    time::{ClockId, clock_gettime},
};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let begin = arguments.get(1).map(String::as_str);
    match arguments.first().map(String::as_str) {
        Some("lines") => by_line(begin, |line, answer| {
            answer.extend_from_slice(format!("{line}\n").as_bytes());
        }),
        Some("json") => by_line(begin, |line, answer| {
            answer.extend_from_slice(format!("{line}\n").as_bytes());
        }),
        _ => frames(begin),
    }
}

/// What an order comes to.
enum Answer {
    Say(String),
    Fail(String),
    /// These bytes, whatever they are.
    Raw(Vec<u8>),
    /// Both say the same.
    Twice(String),
    /// An id that nobody used.
    WrongId(String),
}

fn obey(order: &str) -> Answer {
    let (word, argument) = order.split_once(' ').unwrap_or((order, ""));
    let argument = argument.to_owned();
    match word {
        "say" => Answer::Say(argument),
        "pid" => Answer::Say(std::process::id().to_string()),
        "fail" => Answer::Fail(argument),
        "panic" => panic!("{argument}"),
        "exit" => {
            let _ = io::stderr().write_all(b"going\n");
            exit(argument.parse().unwrap_or(1))
        }
        // Only the first time: the argument is a file that is then there.
        "once" => match fs::File::create_new(&argument) {
            Ok(_) => exit(7),
            Err(_) => Answer::Say("again".to_owned()),
        },
        "abort" => abort(),
        "kill" => {
            let _ = kill_process(getpid(), Signal::KILL);
            hold()
        }
        "hang" => hold(),
        // Deaf to requests to end.
        "hang-deaf" => {
            let _ = signal_hook::flag::register(
                signal_hook::consts::SIGTERM,
                std::sync::Arc::default(),
            );
            hold()
        }
        "garbage" => Answer::Raw(b"\xff\xfe garbage {{{ \xff\xff\xff\xff\xff\n".to_vec()),
        "half" => Answer::Raw(b"{\"id\":".to_vec()),
        // Of a FIFO: until somebody writes into it.
        "read" => match fs::read_to_string(&argument) {
            Ok(text) => Answer::Say(text),
            Err(error) => Answer::Fail(error.to_string()),
        },
        "huge" => Answer::Say("x".repeat(argument.parse().unwrap_or(0))),
        "print" => {
            let _ = io::stdout().write_all(format!("stray {argument}\n").as_bytes());
            let _ = io::stderr().write_all(format!("told {argument}\n").as_bytes());
            Answer::Say(argument)
        }
        "twice" => Answer::Twice(argument),
        "wrong-id" => Answer::WrongId(argument),
        // Keeps so many megabytes.
        "grow" => {
            let size: usize = argument.parse().unwrap_or(0);
            std::mem::forget(vec![1_u8; size << 20]);
            Answer::Say(std::process::id().to_string())
        }
        "factors" => {
            let number: u64 = argument.parse().unwrap_or(0);
            let divides = |candidate: &u64| number.is_multiple_of(*candidate);
            Answer::Say((1..=number).filter(divides).count().to_string())
        }
        // Waits, or computes, for so many milliseconds.
        "nap" => {
            // Nobody sends anything: it is a wait.
            let (_keep, never) = mpsc::channel::<()>();
            let _ = never.recv_timeout(Duration::from_millis(argument.parse().unwrap_or(0)));
            Answer::Say(argument)
        }
        "burn" => {
            let used = || {
                let time = clock_gettime(ClockId::ThreadCPUTime);
                Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
            };
            let until = used() + Duration::from_millis(argument.parse().unwrap_or(0));
            while used() < until {}
            Answer::Say(argument)
        }
        // Writes into a file, takes its time, and says how often that file was written into.
        "log" => {
            let (path, number) = argument.split_once(' ').unwrap_or((&argument, ""));
            let log = fs::File::options().create(true).append(true).open(path);
            match log.and_then(|mut log| log.write_all(b"x")) {
                Ok(()) => {
                    obey(&format!("factors {number}"));
                    Answer::Say(fs::metadata(path).map_or(0, |log| log.len()).to_string())
                }
                Err(error) => Answer::Fail(error.to_string()),
            }
        }
        "length" => Answer::Say(order.len().to_string()),
        _ => Answer::Fail(format!("no such order: {word}")),
    }
}

fn hold() -> ! {
    loop {
        std::thread::park();
    }
}

/// `lines` and `json`, which differ in what a line is.
fn by_line(begin: Option<&str>, append: impl Fn(&str, &mut Vec<u8>)) -> io::Result<()> {
    if let Some(order) = begin {
        obey(order);
    }
    let is_json = env::args().nth(1).as_deref() == Some("json");
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (id, order) = if is_json {
            let request: serde_json::Value = serde_json::from_str(&line)?;
            (
                request["id"].as_u64().unwrap_or(0),
                request["value"].as_str().unwrap_or("").to_owned(),
            )
        } else {
            (0, line)
        };
        let said = |id: u64, text: &str| match is_json {
            true => serde_json::json!({"id": id, "value": text}).to_string(),
            false => text.to_owned(),
        };
        let mut answer = Vec::new();
        match obey(&order) {
            Answer::Say(text) => append(&said(id, &text), &mut answer),
            Answer::Fail(why) if is_json => {
                append(&serde_json::json!({"id": id, "error": why}).to_string(), &mut answer);
            }
            Answer::Fail(why) => append(&format!("error {why}"), &mut answer),
            Answer::Raw(bytes) => {
                io::stdout().write_all(&bytes)?;
                io::stdout().flush()?;
                if !bytes.ends_with(b"\n") {
                    exit(9);
                }
            }
            Answer::Twice(text) => {
                append(&said(id, &text), &mut answer);
                append(&said(id, &text), &mut answer);
            }
            Answer::WrongId(text) => append(&said(id + 1000, &text), &mut answer),
        }
        io::stdout().write_all(&answer)?;
        io::stdout().flush()?;
    }
    Ok(())
}

/// A program for [`paceline::serve`].
fn frames(begin: Option<&str>) -> io::Result<()> {
    paceline::serve_after(|| {
        if let Some(Answer::Fail(why)) = begin.map(obey) {
            return Err(why);
        }
        Ok(|order: String| match obey(&order) {
            Answer::Say(text) => Ok(text),
            Answer::Fail(why) => Err(why),
            Answer::Raw(bytes) => {
                send_raw(&bytes);
                exit(9)
            }
            // An answer to the first request, which has been answered by then.
            Answer::Twice(text) => {
                send_raw(&[1, 0, 0, 0, 0, 0, 0, 0, 0, b'x']);
                Ok(text)
            }
            Answer::WrongId(text) => {
                send_raw(&[1, 0, 0, 0, 99, 99, 99, 0, 0, b'x']);
                Ok(text)
            }
        })
    })
}

/// Writes into the private channel, as a program could that writes to any descriptor.
fn send_raw(bytes: &[u8]) {
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    for entry in entries {
        let is_socket = fs::read_link(entry.path())
            .is_ok_and(|target| target.to_string_lossy().starts_with("socket:"));
        let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(number) = number.filter(|_| is_socket) {
            // SAFETY: the descriptor has just been seen open, and nothing closes it meanwhile.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            let _ = rustix::io::write(fd, bytes);
        }
    }
}
