//! A gibibyte in or out of a child, in little memory and byte by byte the same.

use std::error::Error;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::thread;

use blake3::{Hash, Hasher};
use paceline_process::{Child, Command, Output, Stderr, Stdin, Stdout};

use super::{Checked, ensure};

const GIBIBYTE: u64 = 1 << 30;
const BLOCK: usize = 1 << 20;

/// What this program may have held in memory at most, in KiB.
const MEMORY: u64 = 64 << 10;

pub(super) fn run(mode: &str) -> Checked {
    match mode {
        "gibibyte-through" => through(),
        "gibibyte-unread" => unread(),
        "gibibyte-read-late" => read_late(),
        "gibibyte-of-errors" => of_errors(),
        "gibibyte-closed-early" => closed_early(),
        other => Err(format!("no mode `{other}`").into()),
    }?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    ensure(peak <= MEMORY, &format!("{peak} KiB of memory"))
}

/// Bytes without a pattern, no block of which is like another.
struct Blocks {
    block: Vec<u8>,
    number: u64,
}

impl Blocks {
    fn new() -> Self {
        let mut state = 88_172_645_463_325_252_u64;
        let words = std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        });
        let block = words.take(BLOCK / 8).flat_map(u64::to_ne_bytes).collect();
        Self { block, number: 0 }
    }

    fn next(&mut self) -> &[u8] {
        self.block[..8].copy_from_slice(&self.number.to_ne_bytes());
        self.number += 1;
        &self.block
    }
}

/// Writes until all is written or nobody reads, and tells how much and what.
fn write(child: &mut Child) -> Result<thread::JoinHandle<io::Result<(u64, Hash)>>, &'static str> {
    let mut to = child.take_stdin().ok_or("no pipe to the child")?;
    Ok(thread::spawn(move || {
        let (mut blocks, mut hasher) = (Blocks::new(), Hasher::new());
        while blocks.number * (BLOCK as u64) < GIBIBYTE {
            let before = blocks.number * BLOCK as u64;
            let block = blocks.next();
            match to.write_all(block) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Ok((before, hasher.finalize()));
                }
                result => result?,
            }
            hasher.update(block);
        }
        Ok((GIBIBYTE, hasher.finalize()))
    }))
}

fn written(writer: thread::JoinHandle<io::Result<(u64, Hash)>>) -> Result<(u64, Hash), io::Error> {
    writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")))
}

fn hash(mut from: impl Read) -> io::Result<(u64, Hash)> {
    let (mut hasher, mut buffer, mut count) = (Hasher::new(), vec![0; BLOCK], 0);
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok((count, hasher.finalize())),
            read => {
                hasher.update(&buffer[..read]);
                count += read as u64;
            }
        }
    }
}

/// Into `cat`, out of it, and kept.
fn through() -> Checked {
    let mut child = Command::new("cat").stdin(Stdin::Pipe).stdout(Stdout::Capture).spawn()?;
    let writer = write(&mut child)?;
    let output = finish(child)?;
    ensure(output.success(), "`cat` failed")?;
    same(written(writer)?, hash(output.stdout().reader())?)
}

/// A child that reads nothing: neither a wait for ever nor an error.
fn unread() -> Checked {
    let mut child = Command::new("sleep").arg("0.2").stdin(Stdin::Pipe).spawn()?;
    let writer = write(&mut child)?;
    ensure(finish(child)?.success(), "a child that does not read has failed")?;
    let (count, _) = written(writer)?;
    ensure(count < GIBIBYTE, "somebody has read it")
}

/// A child that writes a gibibyte before it reads one.
fn read_late() -> Checked {
    let late = "head -c 1073741824 /dev/zero; cat";
    let mut child = Command::new("sh")
        .args(["-c", late])
        .stdin(Stdin::Pipe)
        .stdout(Stdout::Capture)
        .stderr(Stderr::Capture)
        .spawn()?;
    let writer = write(&mut child)?;
    let output = finish(child)?;
    ensure(output.success(), "the shell failed")?;
    let mut kept = output.stdout().reader();
    let zeros = Zeros { left: GIBIBYTE };
    same(hash(zeros)?, hash((&mut kept).take(GIBIBYTE))?)?;
    same(written(writer)?, hash(kept)?)
}

/// A child that complains at length.
fn of_errors() -> Checked {
    let mut child = Command::new("sh")
        .args(["-c", "cat >&2"])
        .stdin(Stdin::Pipe)
        .stdout(Stdout::Capture)
        .stderr(Stderr::Capture)
        .spawn()?;
    let writer = write(&mut child)?;
    let output = finish(child)?;
    ensure(output.success() && output.stdout().is_empty(), "standard output differs")?;
    same(written(writer)?, hash(output.stderr().reader())?)
}

/// A child that has had enough: fine, unless it says that it is not.
fn closed_early() -> Checked {
    for status in [0, 3] {
        let script = format!("head -c 1000000; exec <&-; exit {status}");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdin(Stdin::Pipe)
            .stdout(Stdout::Capture)
            .spawn()?;
        let writer = write(&mut child)?;
        let output = finish(child)?;
        ensure(output.exit().code() == Some(status), &format!("{status}: {}", output.exit()))?;
        ensure(written(writer)?.0 < GIBIBYTE, "somebody has read it")?;
        let begun = Blocks::new().next()[..1_000_000].to_vec();
        ensure(output.stdout().to_bytes()? == begun, "what it had read differs")?;
    }
    Ok(())
}

fn finish(mut child: Child) -> Result<Output, Box<dyn Error>> {
    child.communicate(None)?;
    child.into_output().ok_or_else(|| "a child that has ended has no output".into())
}

fn same(sent: (u64, Hash), came: (u64, Hash)) -> Checked {
    ensure(sent.0 == GIBIBYTE, &format!("{} bytes were sent", sent.0))?;
    ensure(
        sent == came,
        &format!("{} bytes sent as {}, came {} as {}", sent.0, sent.1, came.0, came.1),
    )
}

struct Zeros {
    left: u64,
}

impl Read for Zeros {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        buffer[..count].fill(0);
        self.left -= count as u64;
        Ok(count)
    }
}
