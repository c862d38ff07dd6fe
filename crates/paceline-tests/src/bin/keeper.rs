//! A program that leaves nothing of its jobs behind: `keeper MODE [ARGUMENT ...]`.
//!
//! It says on standard output what it has come to, and waits for the end of
//! its input where the test wants to look at it meanwhile.

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::exit;
use std::time::{Duration, Instant};

use paceline_process::{Child, Command, Isolation, Options, Stderr, Stdin, Stdout};

type Checked = Result<(), Box<dyn Error>>;

const GRACE: Duration = Duration::from_millis(300);

fn main() {
    if env::args().nth(1).as_deref() == Some("measure-plain") {
        // The same without any preparation of this program.
        let result = measure(env::args().nth(2).and_then(|text| text.parse().ok()).unwrap_or(0));
        exit(i32::from(result.is_err()));
    }
    let shares = env::var_os("KEEPER_SHARES").is_some();
    let program = paceline_process::init(
        Options::default().only_parent(!shares).guard(env::var_os("KEEPER_ALONE").is_none()),
    );
    let arguments: Vec<String> = env::args().skip(1).collect();
    let argument = |index: usize| arguments.get(index).map_or("", String::as_str);
    let number = |index: usize| argument(index).parse().unwrap_or(0_usize);
    let result = match argument(0) {
        "end" => end(argument(1), argument(2), argument(3)),
        "soak" => soak(number(1)),
        "measure" => measure(number(1)),
        "leaks" => leaks(argument(1), number(2)),
        "shortage" => shortage(number(1), number(2)),
        "state" => state(program),
        "stop-all" => stop_all(),
        "foreign" => foreign(argument(1)),
        "spares" => spares(argument(1)),
        "nested" => nested(&arguments[1..]),
        "descriptors" => descriptors(number(1)),
        "isolated" => isolated(&arguments[1..]),
        "coverage" => say(&format!("{:?}", paceline_process::coverage())),
        other => Err(format!("no mode `{other}`").into()),
    };
    if let Err(error) = result {
        let _ = io::stderr().write_all(format!("keeper: {error}\n{error:?}\n").as_bytes());
        exit(1);
    }
}

fn say(text: &str) -> Checked {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{text}\n").as_bytes())?;
    Ok(stdout.flush()?)
}

fn await_input() -> Checked {
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    Ok(())
}

fn helper() -> Result<Command, Box<dyn Error>> {
    Ok(Command::new(env::current_exe()?.with_file_name("child")))
}

fn ensure(fact: bool, text: &str) -> Checked {
    if fact { Ok(()) } else { Err(text.into()) }
}

/// Starts a hostile job and brings about its end.
fn end(ending: &str, kind: &str, directory: &str) -> Checked {
    let mut command = helper()?.args(["hostile", kind, directory]).stdin(Stdin::Pipe);
    if env::var_os("KEEPER_ISOLATES").is_some() {
        command = command.isolate(Isolation::Pid);
    }
    let mut child = command.stdout(Stdout::Pipe).spawn()?;
    let mut input = child.take_stdin();
    let mut output = BufReader::new(child.take_stdout().ok_or("no output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure(line == "ready\n", &format!("the job said `{line}`"))?;
    if kind == "stopped" && ending != "normal" {
        child.signal(paceline_process::Signal::STOP)?;
    }
    let guard = paceline_process::coverage().guard.unwrap_or(0);
    say(&format!("ready {guard}"))?;
    let result = finish(ending, &mut input, child)?;
    let left = paceline_process::settle(Duration::from_secs(5));
    ensure(left.is_empty(), &format!("could not end {left:?}"))?;
    say(&format!("{result} {:?}", zombies()?))?;
    drop(output);
    await_input()
}

fn finish(
    ending: &str,
    input: &mut Option<io::PipeWriter>,
    mut child: Child,
) -> Result<String, Box<dyn Error>> {
    Ok(match ending {
        "normal" => {
            *input = None;
            let output = child.communicate(None)?;
            format!("{} leaky={}", output.exit(), output.is_leaky())
        }
        "stop" => child.stop(GRACE)?.exit().to_string(),
        "drop" => {
            drop(child);
            "dropped".to_owned()
        }
        // The test does it.
        "killed" => {
            await_input()?;
            "not killed".to_owned()
        }
        "exit" => exit(0),
        other => return Err(format!("no ending `{other}`").into()),
    })
}

/// Returns the children of this process that have ended.
fn zombies() -> io::Result<Vec<String>> {
    let me = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let mut fields = rest.split_whitespace();
        if fields.next() == Some("Z") && fields.next() == Some(&me) {
            found.push(entry.file_name().display().to_string());
        }
    }
    Ok(found)
}

fn open_descriptors() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}

/// Runs so many jobs on four threads, every fourth with a leftover.
fn soak(count: usize) -> Checked {
    Command::new("true").run()?;
    let before = open_descriptors()?;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                scope.spawn(move || -> Result<(), paceline_process::Error> {
                    for number in 0..count / 4 {
                        let command = match (number % 4, worker) {
                            (0, _) => Command::new("sh").args(["-c", "sleep 300 & exit 0"]),
                            (1, 0) => Command::new("sh").args(["-c", "setsid sleep 300 & exit 0"]),
                            _ => Command::new("true").stdout(Stdout::Capture),
                        };
                        command.run()?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result.map_err(Box::from),
            Err(_) => Err("a worker panicked".into()),
        }) as Checked
    })?;
    let left = paceline_process::settle(Duration::from_secs(5));
    ensure(left.is_empty(), &format!("could not end {left:?}"))?;
    // The thread that reaps is on its way out, and its descriptor with it.
    let deadline = Instant::now() + Duration::from_secs(1);
    while open_descriptors()? != before && Instant::now() < deadline {
        std::thread::yield_now();
    }
    say(&format!("{} {:?}", open_descriptors()?.cast_signed() - before.cast_signed(), zombies()?))?;
    await_input()
}

/// Says how long a job takes, how much of that is our own processor time,
/// and how long a look for strays takes.
fn measure(count: usize) -> Checked {
    // As a program that sets variables does, which costs the most of it.
    let command = Command::new("/bin/true").env("KEEPER", "1");
    let jobs = u32::try_from(count)?;
    command.run()?;
    let started = (Instant::now(), own_time());
    for _ in 0..count {
        command.run()?;
    }
    let job = (started.0.elapsed() / jobs, (own_time() - started.1) / jobs);
    let started = Instant::now();
    for _ in 0..count {
        paceline_process::sweep();
    }
    say(&format!("job {:?}, our part {:?}, sweep {:?}", job.0, job.1, started.elapsed() / jobs))
}

fn own_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// A job that has ended while a descendant holds its output: how long is it
/// waited for?
fn leaks(directory: &str, count: usize) -> Checked {
    for _ in 0..count {
        let script = r#""$0" survivor "$1" setsid & while [ -z "$(ls "$1")" ]; do :; done"#;
        let child = env::current_exe()?.with_file_name("child");
        let started = Instant::now();
        let output = Command::new("sh")
            .args(["-c", script])
            .arg(child)
            .arg(directory)
            .stdout(Stdout::Capture)
            .run()?;
        let over = started.elapsed() - output.elapsed();
        ensure(output.is_leaky() && output.success(), "not leaky")?;
        ensure(over >= Duration::from_millis(200), &format!("given up after {over:?}"))?;
        ensure(over < Duration::from_millis(700), &format!("held up for {over:?}"))?;
        ensure(paceline_process::settle(Duration::from_secs(1)).is_empty(), "not ended")?;
        for entry in fs::read_dir(directory)? {
            fs::remove_file(entry?.path())?;
        }
    }
    say("ok")
}

/// Runs `items` jobs, `workers` at once or as many as there is room for.
fn shortage(items: usize, workers: usize) -> Checked {
    let mut running: Vec<Child> = Vec::new();
    let (mut started, mut refused, mut done) = (0, 0, 0);
    let mut allowed = workers;
    while done < items {
        while started < items && running.len() < allowed {
            let command = Command::new("true").stdout(Stdout::Capture).stderr(Stderr::Capture);
            match command.spawn() {
                Ok(child) => {
                    running.push(child);
                    started += 1;
                }
                Err(error) if error.is_shortage() && !running.is_empty() => {
                    refused += 1;
                    allowed = running.len();
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut child = running.remove(0);
        ensure(child.communicate(None)?.success(), "a job failed")?;
        done += 1;
    }
    say(&format!("{done} {}", refused > 0))
}

fn state(program: &paceline_process::Program) -> Checked {
    // Not a Rust program, which would ignore SIGPIPE of its own.
    let script = "grep ^Sig /proc/self/status; ulimit -n";
    let output = Command::new("sh").args(["-c", script]).stdout(Stdout::Capture).run()?.check()?;
    let descriptors = helper()?.arg("descriptors").stdout(Stdout::Capture).run()?.check()?;
    let closed: Vec<bool> = (0..3).map(|number| program.is_closed(number)).collect();
    let child = Command::new("sh").args(["-c", "sleep 300 & wait"]).spawn()?.stop(GRACE)?.exit();
    let exit = Command::new("sh").args(["-c", "exit 3"]).run()?.exit();
    let text = format!(
        "{}{}{closed:?}\n{child}\n{exit}\n",
        output.stdout().to_text()?,
        descriptors.stdout().to_text()?
    );
    // Standard output may be what was closed.
    Ok(fs::write(env::var("KEEPER_REPORT")?, text)?)
}

/// Stops and continues all jobs, also one that is started meanwhile.
fn stop_all() -> Checked {
    let first = Command::new("sleep").arg("300").spawn()?;
    paceline_process::stop_all_jobs();
    let second = Command::new("sleep").arg("300").spawn()?;
    say(&format!("{} {}", first.id(), second.id()))?;
    let mut go_on = [0];
    io::stdin().read_exact(&mut go_on)?;
    paceline_process::continue_all_jobs();
    say("continued")?;
    await_input()
}

/// Has children that are none of our jobs': one of this program's own, and
/// one from before, whose number is the argument.
fn foreign(inherited: &str) -> Checked {
    let mut own = std::process::Command::new("sleep").arg("300").spawn()?;
    let mut brief = std::process::Command::new("true").spawn()?;
    for _ in 0..20 {
        Command::new("sh").args(["-c", "setsid sleep 300 & exit 0"]).run()?;
    }
    let left = paceline_process::settle(Duration::from_secs(5));
    ensure(left.is_empty(), &format!("could not end {left:?}"))?;
    ensure(own.try_wait()?.is_none(), "ended a child that is no job's")?;
    ensure(brief.wait()?.success(), "took the status of a child that is no job's")?;
    if !inherited.is_empty() {
        ensure(fs::exists(format!("/proc/{inherited}"))?, "ended a child from before")?;
    }
    own.kill()?;
    own.wait()?;
    say("ok")
}

/// Has a job whose orphans belong to it, in each of the ways to tell, and
/// others that end meanwhile; then stops it while a third goes on.
fn spares(directory: &str) -> Checked {
    let script = r#"
        for how in "" env\ -i; do
            for who in "" setsid; do
                ($how "$0" survivor "$1" $who >/dev/null 2>&1 &)
                $how "$0" survivor "$1" $who >/dev/null 2>&1 &
            done
        done
        while [ $(ls "$1" | wc -l) -lt 8 ]; do :; done
        echo ready
        exec 1>&-
        read wait"#;
    let child = env::current_exe()?.with_file_name("child");
    let mut job = Command::new("sh")
        .args(["-c", script])
        .arg(child)
        .arg(directory)
        .stdin(Stdin::Pipe)
        .stdout(Stdout::Pipe)
        .spawn()?;
    let _input = job.take_stdin();
    let mut line = String::new();
    BufReader::new(job.take_stdout().ok_or("no output")?).read_line(&mut line)?;
    // Start times are ticks of 10 ms: an orphan of the tick in which `later` starts could be its.
    let tick = || -> io::Result<String> {
        let uptime = fs::read_to_string("/proc/uptime")?;
        Ok(uptime.split(' ').next().unwrap_or_default().to_owned())
    };
    let ready = tick()?;
    while tick()? == ready {}
    let mut later = Command::new("sleep").arg("300").spawn()?;
    for _ in 0..20 {
        Command::new("sh").args(["-c", "setsid sleep 300 & exit 0"]).run()?;
    }
    ensure(paceline_process::settle(Duration::from_secs(5)).is_empty(), "not settled")?;
    say(line.trim_end())?;
    let mut go_on = [0];
    io::stdin().read_exact(&mut go_on)?;
    job.stop(GRACE)?;
    ensure(paceline_process::settle(Duration::from_secs(5)).is_empty(), "not settled")?;
    say("stopped")?;
    await_input()?;
    later.stop(GRACE)?;
    Ok(())
}

/// Runs another keeper as a job.
fn nested(arguments: &[String]) -> Checked {
    // Its input is ours, so that our end is not what ends it.
    let job = Command::new(env::current_exe()?).args(arguments).stdin(Stdin::Inherit).spawn()?;
    job.wait()?;
    await_input()
}

/// Raises its own limit and says which one a job has.
fn descriptors(needed: usize) -> Checked {
    let raised = paceline_process::raise_descriptor_limit(needed as u64);
    let job = Command::new("sh").args(["-c", "ulimit -n"]).stdout(Stdout::Capture);
    let text = job.run()?.stdout().to_text()?;
    say(&format!("{raised} {}", text.trim()))
}

/// Runs a command isolated and says how it ended and what it wrote.
fn isolated(arguments: &[String]) -> Checked {
    let argv = arguments.iter().map(Into::into).collect();
    let command = Command::from_argv(argv).isolate(Isolation::Pid);
    match command
        .stdout(Stdout::Capture)
        .stderr(Stderr::Capture)
        .run_timeout(Duration::from_secs(2), GRACE)
    {
        Ok(output) => say(&format!(
            "{}|{}|{}",
            output.exit(),
            output.stdout().to_text()?,
            output.stderr().to_text()?
        )),
        Err(error) => say(&format!("{:?}", error.kind())),
    }
}
