//! A program that runs children while its own surroundings are unfriendly.
//!
//! `runner MODE REPORT`: does what the mode says and writes `ok`, or what went
//! wrong, to the file. The test makes the surroundings, with `sh`.

#[path = "runner/gibibyte.rs"]
mod gibibyte;

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use paceline_process::{Chain, Command, ErrorKind, Exit, Stderr, Stdin, Stdout};

type Checked = Result<(), Box<dyn Error>>;

fn main() {
    let mut arguments = env::args().skip(1);
    let mode = arguments.next().unwrap_or_default();
    let report = arguments.next().unwrap_or_default();
    let result = match mode.as_str() {
        "everything" => everything(),
        "interrupted" => interrupted(&report),
        "exhaust" => exhaust(ErrorKind::NoDescriptors),
        "exhaust-processes" => exhaust(ErrorKind::NoProcesses),
        "begun" => begun(&report),
        "robbed" => robbed(),
        "spill" => spill(),
        "small-pipes" => small_pipes(),
        gibibyte if gibibyte.starts_with("gibibyte-") => gibibyte::run(gibibyte),
        "lost" => lost(),
        closed if closed.starts_with("closed") => {
            close(closed);
            everything()
        }
        other => Err(format!("no mode `{other}`").into()),
    };
    let text = result.map_or_else(|error| format!("{error}\n{error:?}"), |()| "ok".to_owned());
    if fs::write(&report, text).is_err() {
        std::process::exit(1);
    }
}

fn ensure(fact: bool, text: &str) -> Checked {
    if fact { Ok(()) } else { Err(text.into()) }
}

/// Closes the standard streams that are named, for good: the shell cannot, as
/// Rust opens `/dev/null` in their place before `main`.
fn close(named: &str) {
    // SAFETY: nothing here uses its standard streams, and there is one thread.
    unsafe {
        if named.contains('0') {
            drop(rustix::stdio::take_stdin());
        }
        if named.contains('1') {
            drop(rustix::stdio::take_stdout());
        }
        if named.contains('2') {
            drop(rustix::stdio::take_stderr());
        }
    }
}

/// Output, input, exits, both streams into one, a chain and a stop.
fn everything() -> Checked {
    let output = Command::new("cat")
        .stdin(Stdin::from("hello"))
        .stdout(Stdout::Capture)
        .stderr(Stderr::ToStdout)
        .run()?
        .check()?;
    ensure(output.stdout().to_bytes()? == b"hello", "output differs")?;

    let exit = Command::new("sh").args(["-c", "exit 3"]).spawn()?.wait()?;
    ensure(exit.code() == Some(3), &format!("exit 3 came out as {exit}"))?;

    let both = Command::new("sh")
        .args(["-c", "echo out; echo err >&2"])
        .stdout(Stdout::Capture)
        .stderr(Stderr::Capture)
        .run()?
        .check()?;
    ensure(both.stdout().to_bytes()? == b"out\n", "standard output differs")?;
    // A shell without a current directory complains of that first.
    ensure(both.stderr().to_bytes()?.ends_with(b"err\n"), "standard error differs")?;

    // What this program prints must not end up in a child's input.
    let input = vec![b'i'; 300_000];
    let mut child =
        Command::new("cat").stdin(Stdin::from(input.as_slice())).stdout(Stdout::Capture).spawn()?;
    let _ = io::stdout().write_all(b"printed\n");
    let _ = io::stderr().write_all(b"printed\n");
    let output = child.communicate(None)?;
    ensure(output.stdout().to_bytes()? == input, "input differs")?;
    drop(child);

    // A shell that writes to what should be nowhere, if it is open at all.
    let nowhere = Command::new("sh")
        .args(["-c", "cat; echo lost >&2"])
        .stdin(Stdin::from("input"))
        .stdout(Stdout::Capture)
        .stderr(Stderr::Null)
        .run()?
        .check()?;
    ensure(nowhere.stdout().to_bytes()? == b"input", "output with null differs")?;

    let chain = Chain::new([
        Command::new("echo").arg("hello"),
        Command::new("cat"),
        Command::new("cat").stdout(Stdout::Capture),
    ]);
    ensure(chain.run()?.check()?.stdout().to_bytes()? == b"hello\n", "chain differs")?;

    let mut child = Command::new("sh").args(["-c", "sleep 30; :"]).spawn()?;
    let exit = child.stop(Duration::from_secs(5))?.exit();
    ensure(exit.as_i32() == -15, &format!("stopped child came out as {exit}"))
}

/// Waits in every way while signals with a handler keep coming.
fn interrupted(report: &str) -> Checked {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    // Counting is all the handler does, which a handler may.
    let quit = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR2, Arc::clone(&quit))?;
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGUSR1])?;
    let handle = signals.handle();
    let counter = std::thread::spawn(move || {
        for _ in &mut signals {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    fs::write(format!("{report}.ready"), "")?;
    while !quit.load(Ordering::Relaxed) {
        let mut child = Command::new("sleep").arg("0.05").stdout(Stdout::Capture).spawn()?;
        let exit = child.communicate(Some(Duration::from_secs(20)))?.exit();
        ensure(exit.success(), &format!("communicate gave {exit}"))?;
        let exit = Command::new("sleep").arg("0.05").spawn()?.wait()?;
        ensure(exit.success(), &format!("wait gave {exit}"))?;
    }
    handle.close();
    counter.join().map_err(|_| "the counting thread panicked")?;
    ensure(count.load(Ordering::Relaxed) > 0, "no signal came")
}

/// Starts children until there is nothing left for more; then lets go of them.
fn exhaust(expected: ErrorKind) -> Checked {
    for round in 0..3 {
        let mut children = Vec::new();
        let error = loop {
            let command = Command::new("sleep").arg("30").stdout(Stdout::Capture);
            match command.stderr(Stderr::Capture).spawn() {
                Ok(child) => children.push(child),
                Err(error) => break error,
            }
            ensure(children.len() < 1000, "there is no limit")?;
        };
        ensure(*error.kind() == expected, &format!("round {round}: {error:?}"))?;
        ensure(!children.is_empty(), "not a single child could be started")?;
        for child in &mut children {
            child.stop(Duration::from_secs(5))?;
        }
    }
    everything()
}

/// With every number of descriptors left over, from none on: a start that fails
/// for want of one has run nothing, neither one command nor the first of two.
fn begun(report: &str) -> Checked {
    let ran = format!("{report}.ran");
    let first = || Command::new("/bin/sh").arg("-c").arg(format!("echo x >>{ran}; echo y"));
    let last = || Command::new("cat").stdout(Stdout::Capture).stderr(Stderr::Capture);
    let (mut lacked, mut started) = (0, 0);
    for left in 0..16 {
        for length in [1, 2] {
            let chain = match length {
                1 => Chain::new([first().stdout(Stdout::Capture).stderr(Stderr::Capture)]),
                _ => Chain::new([first().stderr(Stderr::Capture), last()]),
            };
            fs::write(&ran, "")?;
            let mut taken: Vec<File> = Vec::new();
            while let Ok(file) = File::open("/dev/null") {
                taken.push(file);
            }
            taken.truncate(taken.len() - left);
            let spawned = chain.spawn();
            drop(taken);
            match spawned {
                Ok(mut child) => {
                    child.communicate(None)?;
                    started += 1;
                    ensure(
                        fs::read_to_string(&ran)? == "x\n",
                        "a command ran otherwise than once",
                    )?;
                }
                Err(error) => {
                    lacked += 1;
                    ensure(error.is_shortage(), &format!("{left} left, {length}: {error:?}"))?;
                    ensure(
                        fs::read_to_string(&ran)?.is_empty(),
                        "it ran, and was called not started",
                    )?;
                }
            }
        }
    }
    ensure(lacked > 8 && started > 8, "there was always room, or never")
}

/// Another thread takes whatever descriptor is free and gives it back soon: a
/// chain is started as a whole or not at all.
fn robbed() -> Checked {
    let is_over = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_over);
    let robber = std::thread::spawn(move || {
        while !seen.load(Ordering::Relaxed) {
            if let Ok(file) = File::open("/dev/null") {
                std::thread::park_timeout(Duration::from_millis(1));
                drop(file);
                // Others have it for as long.
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    });
    let (mut lacked, mut started) = (0, 0);
    let result = (0..300).try_for_each(|round| {
        let mut taken: Vec<File> = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
        // From just too few to just enough, with the one that the other thread has.
        taken.truncate(taken.len() - (3 + round % 4));
        let last = Command::new("cat").stdout(Stdout::Capture);
        let spawned = Chain::new([Command::new("echo").arg("y"), last]).spawn();
        drop(taken);
        match spawned {
            Ok(mut child) => {
                started += 1;
                let output = child.communicate(None)?.stdout().to_bytes()?;
                ensure(output == b"y\n", "output differs")
            }
            Err(error) => {
                lacked += 1;
                ensure(error.is_shortage(), &format!("begun and not started: {error:?}"))
            }
        }
    });
    is_over.store(true, Ordering::Relaxed);
    robber.join().map_err(|_| "the other thread panicked")?;
    result?;
    ensure(lacked > 0 && started > 0, &format!("{lacked} lacked, {started} started"))
}

/// Files may not grow here: what does not fit into memory is an error.
fn spill() -> Checked {
    let command = Command::new("head")
        .args(["-c", "300000", "/dev/zero"])
        .stdout(Stdout::Capture)
        .spill_after(100_000);
    let error = match command.run() {
        Ok(_) => return Err("the output was kept nowhere".into()),
        Err(error) => error,
    };
    ensure(*error.kind() == ErrorKind::Spill, &format!("{error:?}"))?;
    ensure(error.to_string() == "could not keep the output of `head`", &error.to_string())
}

/// A user with so many pipes gets small ones: all that needs a buffer works all the same.
fn small_pipes() -> Checked {
    let held: Vec<_> = (0..1100).map(|_| io::pipe()).collect::<Result<_, _>>()?;
    let (reader, _writer) = io::pipe()?;
    let size = rustix::pipe::fcntl_getpipe_size(&reader)?;
    ensure(size < 64 << 10, &format!("a further pipe has {size} bytes: is there no limit?"))?;
    everything()?;
    let input: Vec<u8> = (0..4_000_000_u32).map(|at| (at % 251) as u8).collect();
    // To the child and back on two streams, while it reads nothing before it has written.
    let script = "cat /dev/zero | head -c 300000 >&2; cat | cat";
    let output = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdin::from(input.as_slice()))
        .stdout(Stdout::Capture)
        .stderr(Stderr::Capture)
        .run()?
        .check()?;
    ensure(output.stdout().to_bytes()? == input, "what came back differs")?;
    ensure(output.stderr().to_bytes()?.len() == 300_000, "standard error is cut")?;
    let chain = [
        Command::new("cat").stdin(Stdin::from(input.as_slice())),
        Command::new("cat"),
        Command::new("cat").stdout(Stdout::Capture),
    ];
    ensure(Chain::new(chain).run()?.check()?.stdout().to_bytes()? == input, "the chain's differs")?;
    drop(held);
    Ok(())
}

/// Somebody else reaps our child: the status is unknown, and no success.
fn lost() -> Checked {
    let child = Command::new("true").spawn()?;
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let exit = child.wait()?;
    ensure(exit == Exit::LOST && !exit.success(), &format!("{exit}"))?;
    child.kill()?;
    Ok(())
}
