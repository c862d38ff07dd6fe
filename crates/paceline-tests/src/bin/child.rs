//! A child that misbehaves on request: `child MODE [ARGUMENT ...]`.
//!
//! The modes are the arms of `main`. What a test must not race with is said
//! on standard output first, such as `ready` or the id of a grandchild.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio, exit};

use rustix::process::{Pid, Signal};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let mode = arguments.first().map_or("", String::as_str);
    let number = || arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(0_usize);
    match mode {
        // Says its argument on both streams, then exits with the code.
        "exit" => {
            say("out")?;
            io::stderr().write_all(b"err\n")?;
            exit(i32::try_from(number()).unwrap_or(-1));
        }
        "abort" => std::process::abort(),
        // Ends by a signal it sends itself, if that is one that ends.
        "raise" => {
            let signal = Signal::from_named_raw(i32::try_from(number()).unwrap_or(0));
            rustix::process::kill_process(
                rustix::process::getpid(),
                signal.unwrap_or(Signal::KILL),
            )?;
            hold()
        }
        // Lives until it is killed.
        "hold" => {
            say("ready")?;
            hold()
        }
        "ignore-term" => {
            let script = r#"trap "" TERM INT HUP; exec "$0" hold"#;
            Err(Command::new("sh").args(["-c", script]).arg(env::current_exe()?).exec())
        }
        // Takes its time to end when asked, and then says so in a file.
        "slow-term" => {
            let script =
                r#"trap 'echo done > "$0"; exit 0' TERM; echo ready; while :; do sleep 0.05; done"#;
            Err(Command::new("sh").args(["-c", script]).args(&arguments[1..]).exec())
        }
        // Exits, leaving its output open in the hands of a grandchild.
        "leak" => {
            let grandchild = grandchild(&["hold-quietly"])?.spawn()?;
            say(&grandchild.id().to_string())
        }
        // The same with a grandchild that has left the group.
        "leak-outside" => {
            let grandchild = grandchild(&["outside"])?.spawn()?;
            say(&grandchild.id().to_string())
        }
        "outside" => {
            rustix::process::setsid()?;
            wait_for_end_of(arguments.get(1))
        }
        "hold-quietly" => hold(),
        // Starts so many grandchildren and waits with them.
        "family" => {
            for _ in 0..number() {
                grandchild(&["hold-quietly"])?.stdout(Stdio::null()).spawn()?;
            }
            say("ready")?;
            hold()
        }
        // Moves itself into another group of the same session.
        "change-group" => {
            let mut other =
                grandchild(&["hold-quietly"])?.stdout(Stdio::null()).process_group(0).spawn()?;
            let group = i32::try_from(other.id()).ok().and_then(Pid::from_raw);
            rustix::process::setpgid(None, group)?;
            other.kill()?;
            say("ready")?;
            hold()
        }
        // Writes so many bytes to each stream, then reads all its input.
        "flood" => {
            write_pattern(&mut io::stderr().lock(), number())?;
            write_pattern(&mut io::stdout().lock(), number())?;
            let read = io::copy(&mut io::stdin().lock(), &mut io::sink())?;
            exit(i32::from(read != number() as u64))
        }
        // Copies its input to both streams.
        "echo-both" => {
            let mut buffer = vec![0; 50_000];
            loop {
                let count = io::stdin().read(&mut buffer)?;
                if count == 0 {
                    return Ok(());
                }
                io::stdout().write_all(&buffer[..count])?;
                io::stderr().write_all(&buffer[..count])?;
                io::stdout().flush()?;
            }
        }
        // Waits for its input to end, then exits.
        "await-input" => io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop),
        // Says where it closed its output, and lives until a signal.
        "close-stdout" => {
            say("last words")?;
            rustix::stdio::dup2_stdout(OpenOptions::new().write(true).open("/dev/null")?)?;
            io::stderr().write_all(b"closed\n")?;
            hold()
        }
        // Says which descriptors it has, in order.
        "descriptors" => {
            let mut open: Vec<u32> = fs::read_dir("/proc/self/fd")?
                .filter_map(|entry| {
                    let path = entry.ok()?.path();
                    // The directory being read is open only for that.
                    let is_itself = fs::read_link(&path).ok()?.ends_with("fd");
                    let number = path.file_name()?.to_str()?.parse().ok()?;
                    (!is_itself).then_some(number)
                })
                .collect();
            open.sort_unstable();
            say(&format!("{open:?}"))
        }
        // Keeps a file while it runs, and says how many others do.
        "count-peers" => {
            let directory = arguments.get(1).map_or("", String::as_str);
            let mine = format!("{directory}/{}", std::process::id());
            File::create(&mine)?;
            let peers = fs::read_dir(directory)?.count();
            fs::remove_file(&mine)?;
            say(&peers.to_string())?;
            exit(arguments.get(2).and_then(|text| text.parse().ok()).unwrap_or(0))
        }
        // Starts what does not want to end: `hostile KIND DIRECTORY`. Ends
        // with its input, unless it cannot.
        "hostile" => hostile(&arguments[1], &arguments[2]),
        // One of those: leaves a file with its number, then holds.
        "survivor" => survive(&arguments[1], arguments.get(2).map_or("", String::as_str)),
        // Is never the same process for long.
        "hop" => {
            rustix::process::setsid()?;
            if let Some(directory) = arguments.get(1) {
                leave_number_in(directory)?;
            }
            // One that outlives its test takes a core from all that follow: for a minute or so.
            let left = env::var("HOPS_LEFT").ok().and_then(|text| text.parse().ok());
            let left: u32 = left.unwrap_or(50_000);
            if left == 0 {
                return Ok(());
            }
            let mut next = grandchild(&["hop"])?;
            next.env("HOPS_LEFT", (left - 1).to_string()).stdout(Stdio::null()).spawn().map(drop)
        }
        // Uses so many bytes of memory and some processor time.
        "use-memory" => {
            let memory = vec![1_u8; number()];
            let sum: u64 = memory.iter().map(|byte| u64::from(*byte)).sum();
            say(&sum.to_string())
        }
        _ => {
            io::stderr().write_all(format!("no mode `{mode}`\n").as_bytes())?;
            exit(100)
        }
    }
}

fn say(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{text}\n").as_bytes())?;
    stdout.flush()
}

fn hold() -> ! {
    loop {
        std::thread::park();
    }
}

/// Ends when the reader of the named pipe goes, or never without one.
fn wait_for_end_of(path: Option<&String>) -> io::Result<()> {
    match path {
        Some(path) => io::copy(&mut File::open(path)?, &mut io::sink()).map(drop),
        None => hold(),
    }
}

fn grandchild(arguments: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments).stdin(Stdio::null());
    Ok(command)
}

fn write_pattern(to: &mut impl Write, count: usize) -> io::Result<()> {
    let line: Vec<u8> = (0..=250).collect();
    let mut left = count;
    while left > 0 {
        let part = left.min(line.len());
        to.write_all(&line[..part])?;
        left -= part;
    }
    to.flush()
}

fn hostile(kind: &str, directory: &str) -> io::Result<()> {
    let survivor = |how: &str| -> io::Result<Command> {
        let mut survivor = grandchild(&["survivor", directory, how])?;
        survivor.stderr(Stdio::null());
        Ok(survivor)
    };
    let mut expected = 1;
    match kind {
        "ignores-term" => {
            survivor("ignore-term")?.stdout(Stdio::null()).spawn()?;
            // What this process ignores, a shell must have told it to.
            if env::var_os("IGNORES").is_none() {
                let script = r#"trap "" TERM INT HUP; IGNORES=1 exec "$0" "$@""#;
                let mut again = Command::new("sh");
                again.args(["-c", script]).arg(env::current_exe()?);
                return Err(again.args(["hostile", kind, directory]).exec());
            }
            expected = 2;
        }
        "setsid" => drop(survivor("setsid")?.stdout(Stdio::null()).spawn()?),
        "double-fork" => {
            // The shell ends at once, and its child is an orphan.
            let script = r#""$0" survivor "$1" setsid >/dev/null 2>&1 & exit 0"#;
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).arg(env::current_exe()?).arg(directory).status()?;
        }
        "setpgid" => drop(survivor("")?.stdout(Stdio::null()).process_group(0).spawn()?),
        "holds-stdout" => drop(survivor("setsid")?.spawn()?),
        "stopped" => drop(survivor("stop")?.stdout(Stdio::null()).spawn()?),
        "spawns-200" => {
            expected = 200;
            for number in 0..expected {
                let how = if number % 2 == 0 { "setsid" } else { "" };
                survivor(how)?.stdout(Stdio::null()).spawn()?;
            }
        }
        "wiped" => {
            let script = r#"env -i "$0" survivor "$1" setsid >/dev/null 2>&1 & exit 0"#;
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).arg(env::current_exe()?).arg(directory).status()?;
        }
        "closes-all" => {
            let script = r#"exec <&- >&- 2>&-; "$0" survivor "$1" setsid & exit 0"#;
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).arg(env::current_exe()?).arg(directory).status()?;
        }
        "exec-chain" => {
            let script = r#"exec sh -c 'exec env X=1 nice "$0" survivor "$1" setsid' "$0" "$1""#;
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).arg(env::current_exe()?).arg(directory);
            shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        }
        "hops" => drop(grandchild(&["hop", directory])?.stdout(Stdio::null()).spawn()?),
        other => return Err(io::Error::other(format!("no kind `{other}`"))),
    }
    while fs::read_dir(directory)?.count() < expected {
        pause();
    }
    say("ready")?;
    io::copy(&mut io::stdin().lock(), &mut io::sink()).map(drop)
}

fn survive(directory: &str, how: &str) -> io::Result<()> {
    match how {
        "setsid" => drop(rustix::process::setsid()?),
        "ignore-term" => {
            let script = r#"trap "" TERM INT HUP; exec "$0" survivor "$1""#;
            let mut shell = Command::new("sh");
            return Err(shell.args(["-c", script]).arg(env::current_exe()?).arg(directory).exec());
        }
        _ => {}
    }
    leave_number_in(directory)?;
    if how == "stop" {
        rustix::process::kill_process(rustix::process::getpid(), Signal::STOP)?;
    }
    hold()
}

fn leave_number_in(directory: &str) -> io::Result<()> {
    // Not `process::id`: in a namespace that is another number than here.
    let number = fs::read_link("/proc/self")?;
    let stat = fs::read_to_string("/proc/self/stat")?;
    let hidden = format!("{directory}/../{}.new", number.display());
    fs::write(&hidden, stat)?;
    // Renamed into place, so that whoever sees the file can read it.
    fs::rename(hidden, format!("{directory}/{}", number.display()))
}

/// Waits for something that has no event: a file of another process.
fn pause() {
    let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    let _ = rustix::event::poll(&mut [], Some(&moment));
}
