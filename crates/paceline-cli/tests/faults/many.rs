//! Many jobs through one run, and what the system refuses meanwhile.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{PermissionsExt, chown},
    time::{Duration, Instant},
};

use crate::{
    repeated, say,
    support::{Run, World},
    watched,
};

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    kibibytes: u64,
    children: usize,
}

impl Held {
    fn by(pid: u32) -> Self {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kibibytes = resident.trim().trim_end_matches(" kB").parse().unwrap();
        // Zombies are children too.
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let children = |task: fs::DirEntry| fs::read_to_string(task.path().join("children"));
        let children = tasks.map(|task| children(task.unwrap()).unwrap_or_default());
        let children = children.map(|pids| pids.split_whitespace().count()).sum();
        Self { descriptors, kibibytes, children }
    }
}

/// Jobs for a while: 10,000 in the checks, by `PACELINE_F11_JOBS` more.
fn jobs() -> u64 {
    let jobs = std::env::var("PACELINE_F11_JOBS").ok();
    jobs.map_or(10_000, |jobs| jobs.parse().expect("PACELINE_F11_JOBS is a number"))
}

/// F11. What is held is looked at while the run goes on: its end would hide it.
#[test]
fn f11_ten_thousand_jobs_of_one_run_leave_no_zombie_no_descriptor_and_no_memory() {
    watched(|| {
        const WARM: u64 = 1000;
        let all = jobs();
        let world = World::new();
        let each = ["each", "-j4", "--json", "/bin/true"];
        let out = fs::File::create(world.path("out")).unwrap();
        let mut run = world.paceline(each).stdout(out).open_input().start();
        let mut input = run.child.stdin.take().unwrap();
        let mut results = fs::File::open(world.path("out")).unwrap();
        let (mut done, mut buffer) = (0, vec![0; 1 << 20]);
        let pid = run.child.id();
        let mut held = Vec::new();
        for (first, last) in [(0, WARM), (WARM, all)] {
            // At most so many lines at once, since nobody reads meanwhile but the program.
            let mut fed = first;
            while done < last {
                let until = (fed + 500).min(last);
                let lines: String = (fed..until).map(|number| format!("{number}\n")).collect();
                fed = until;
                input.write_all(lines.as_bytes()).unwrap();
                run.until("the jobs' end", || {
                    let read = results.read(&mut buffer).unwrap();
                    done += buffer[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
                    done >= fed
                });
            }
            run.until("the last jobs' clean-up", || Held::by(pid).children <= 1);
            held.push(Held::by(pid));
        }
        drop(input);
        run.end().exits(0);
        assert_eq!(world.read("out").lines().count() as u64, all);
        let [before, after] = held[..] else { unreachable!("two looks") };
        // The guard is there all the time.
        assert_eq!(after.children, before.children, "zombies, {before:?}, {after:?}");
        assert_eq!(after.descriptors, before.descriptors, "{before:?}, {after:?}");
        assert!(after.kibibytes <= before.kibibytes + 10 * 1024, "{before:?}, {after:?}");
        say(&format!("{all} jobs: before {before:?}, after {after:?}"));
    });
}

/// A way to refuse the calls that make a process, if there is one here: `strace`, to be told whom
/// and which. Threads are made by them too.
fn refusing(world: &World) -> Option<&'static str> {
    let strace = "strace -o trace -e trace=clone,clone3 -e signal=none \
                  -e inject=clone,clone3:error=EAGAIN";
    let may_trace = world.sh(&format!("{strace}:when=1000 true")).end().code == Some(0);
    if !may_trace {
        say("SKIPPED, since `strace` is not there or may not trace");
    }
    may_trace.then_some(strace)
}

/// F14. The call that makes a process is refused now and then: nobody's attempt.
#[test]
fn f14_a_refused_process_is_waited_for_and_is_no_attempt() {
    watched(|| {
        let world = World::new();
        let Some(strace) = refusing(&world) else { return };
        // Of each thread: the main one makes fewer, all of them threads, and the workers have 50.
        let strace = format!("{strace}:when=15+10 -f");
        let each = "each -j4 --json sh -c 'echo x >> ran' sh";
        let ended = world.sh(&format!("seq 200 | {strace} \"$PACELINE\" {each}")).end().exits(0);
        let objects = ended.json();
        assert_eq!(objects.len(), 200);
        assert!(objects.iter().all(|object| object["attempts"] == 1), "{}", ended.text());
        assert_eq!(world.read("ran").lines().count(), 200);
        let refused = world.read("trace").matches("(INJECTED)").count();
        assert!(refused > 0, "not one was refused");
    });
}

/// F14. It is the system's refusal and not the items' failure: one error, and nothing more is run.
#[test]
fn f14_where_no_process_can_be_started_the_run_says_so_and_ends() {
    watched(|| {
        let world = World::new();
        let Some(strace) = refusing(&world) else { return };
        let mut run = world.paceline(["each", "-j4", "touch"]).open_input().start();
        let mut input = run.child.stdin.take().unwrap();
        // With the first job comes the guard.
        writeln!(input, "0").unwrap();
        run.until("the first job's end", || world.has("0"));
        let tasks = format!("/proc/{}/task", run.child.id());
        let workers: Vec<_> = fs::read_dir(&tasks)
            .unwrap()
            .map(|task| task.unwrap().path())
            .filter(|task| fs::read_to_string(task.join("comm")).unwrap() == "touch\n")
            .collect();
        assert_eq!(workers.len(), 4);
        let attached = workers.iter().map(|task| task.file_name().unwrap().to_str().unwrap());
        let attached: String = attached.map(|task| format!(" -p {task}")).collect();
        let tracer = world.sh(&format!("exec {strace}{attached}")).start();
        run.until("the tracer", || {
            workers.iter().all(|task| {
                let status = fs::read_to_string(task.join("status")).unwrap();
                status.contains("TracerPid:") && !status.contains("TracerPid:\t0\n")
            })
        });
        (1..300).try_for_each(|item| writeln!(input, "{item}")).unwrap();
        drop(input);
        let ended = run.end().exits(4);
        tracer.end();
        assert!(!world.has("1"));
        assert_eq!(ended.stderr.matches("note: ").count(), 1, "{}", ended.stderr);
        let ended = ended.says("note: stage `touch` waits to start jobs");
        let ended = ended.says("error: stage `touch`: no process could be started for 10s: ");
        let [taken, ok, failed, unfinished] = ended.account().unwrap();
        assert_eq!((ok, failed, unfinished), (1, 0, taken - 1), "{}", ended.stderr);
    });
}

/// A user who is not root, whom limits do not bind, has a copy of the program
/// and may write into the folder. `None` if the user at hand cannot be changed.
fn as_user<'w>(world: &'w World, user: u32, limit: &str, script: &str) -> Option<Run<'w>> {
    if !rustix::process::geteuid().is_root() {
        say("SKIPPED, since only root can become another user");
        return None;
    }
    let program = world.path("paceline");
    fs::copy(env!("CARGO_BIN_EXE_paceline"), &program).unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    chown(world.path(""), Some(user), None).unwrap();
    let script = format!(
        "exec setpriv --reuid={user} --clear-groups {limit} sh -c 'PACELINE=./paceline; {script}'"
    );
    Some(world.sh(&script))
}

/// F14.
#[test]
fn f14_few_processes_mean_fewer_jobs_and_no_failed_ones() {
    watched(|| {
        let world = World::new();
        let each = "seq 300 | $PACELINE each -j100 --json true";
        let Some(run) = as_user(&world, 65534, "prlimit --nproc=20", each) else { return };
        let ended = run.end().exits(0);
        let objects = ended.json();
        assert_eq!(objects.len(), 300);
        assert!(objects.iter().all(|object| object["attempts"] == 1), "{}", ended.text());
    });
}

/// F16. A user with more than 1,024 pipes gets small ones, of a page or two.
#[test]
fn f16_outputs_come_whole_through_pipes_that_are_small() {
    watched(|| {
        let world = World::new();
        // Two pipes a job, all of which are open before the first one writes.
        let job = "touch up/$1; read x < gate; head -c 50000 /dev/zero | tr \"\\\\0\" x; echo";
        world.write("job", job);
        world.fifo("gate");
        fs::create_dir(world.path("up")).unwrap();
        fs::set_permissions(world.path("up"), PermissionsExt::from_mode(0o777)).unwrap();
        fs::set_permissions(world.path("gate"), PermissionsExt::from_mode(0o666)).unwrap();
        const JOBS: usize = 600;
        let each = format!("seq {JOBS} | $PACELINE each -j{JOBS} --line-buffered sh job");
        let Some(run) = as_user(&world, 65531, "prlimit --nofile=4000", &each) else { return };
        let mut run = run.start();
        run.until("the jobs' start", || world.list("up").len() == JOBS);
        // Held open, so that every job comes through.
        let gate = fs::File::options().read(true).write(true).open(world.path("gate")).unwrap();
        (&gate).write_all("\n".repeat(JOBS).as_bytes()).unwrap();
        let ended = run.end().exits(0);
        drop(gate);
        let whole = "x".repeat(50_000);
        let lines = ended.lines();
        assert_eq!(lines.len(), JOBS);
        assert!(lines.iter().all(|line| **line == whole));
    });
}

/// F22, 20 times: whatever the jobs do, nobody who reads is an end of the run.
#[test]
fn f22_a_reader_that_has_enough_ends_every_kind_of_run_again_and_again() {
    watched(|| {
        let others = [
            "echo $1",
            "exec sleep 1000",
            "trap \"\" TERM PIPE; sleep 1000; sleep 1000",
            "setsid sleep 1000 & sleep 1000",
        ];
        repeated(|| {
            for other in others {
                for options in ["", "-k", "--line-buffered", "--json", "-u"] {
                    let world = World::new();
                    let job = format!("case $1 in 1) echo 1 ;; *) {other} ;; esac");
                    let each = format!("each {options} --progress never -j3 sh -c '{job}' sh");
                    let all = format!("(\"$PACELINE\" {each}; echo $? > code)");
                    let since = Instant::now();
                    let ended = world.sh(&format!("seq 100000 | {all} | head -1")).end().exits(0);
                    assert_eq!(ended.lines().len(), 1, "{each}");
                    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
                    assert_eq!(world.read("code"), "141\n", "{each}: {}", ended.stderr);
                    // KILL comes after a second; a busy machine is given the rest.
                    assert!(since.elapsed() < Duration::from_secs(10), "{each}");
                }
            }
        });
    });
}
