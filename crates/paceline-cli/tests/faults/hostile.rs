//! Jobs that do not want to end, and the search for what they leave.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs,
    io::Write,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    MOMENT, pause,
    support::{Run, World},
};

pub(crate) const KINDS: [&str; 10] = [
    "ignores-term",
    "setsid",
    "double-fork",
    "setpgid",
    "holds-stdout",
    "stopped",
    "spawns-200",
    "wiped",
    "closes-all",
    "exec-chain",
];

/// `hostile TOKEN KIND`: starts what is to be ended, and then waits at the
/// gate. What it starts has the token among its arguments and a file in `up`.
const HOSTILE: &str = r#"
token=$1 kind=$2
# What survives. A sum of two numbers, one of which nobody else has.
hold='touch "up/$$"; exec sleep 1000000 "$1"'
case $kind in
bad) read x < fails; exit 1 ;;
ignores-term)
    trap '' TERM INT HUP
    sh -c "$hold" sh "$token" > /dev/null 2>&1 & ;;
setsid) setsid sh -c "$hold" sh "$token" > /dev/null 2>&1 & ;;
double-fork) ( ( setsid sh -c "$hold" sh "$token" > /dev/null 2>&1 & ) & ) ;;
setpgid)
    # With job control each command of a shell leads a group.
    sh -mc 'sh -c "$1" sh "$2" & wait' sh "$hold" "$token" > /dev/null 2>&1 & ;;
holds-stdout) setsid sh -c "$hold" sh "$token" & ;;
stopped) sh -c 'touch "up/$$"; kill -STOP $$; exec sleep 1000000 "$1"' sh "$token" > /dev/null 2>&1 & ;;
spawns-200)
    n=0
    while [ $n -lt 100 ]; do
        sh -c "$hold" sh "$token" > /dev/null 2>&1 &
        setsid sh -c "$hold" sh "$token" > /dev/null 2>&1 &
        n=$((n + 1))
    done ;;
wiped) ( ( env -i "PATH=$PATH" setsid sh -c "$hold" sh "$token" > /dev/null 2>&1 & ) & ) ;;
closes-all) ( ( exec 0<&- 1>&- 2>&-; setsid sh -c "$hold" sh "$token" & ) & ) ;;
exec-chain)
    exec sh -c 'exec nohup nice sh -c "exec env X=1 setsid -w sh -c \"\$1\" sh \"\$2\"" sh "$1" "$2"' \
        sh "$hold" "$token" > /dev/null 2>&1 ;;
*) exit 100 ;;
esac
if [ "$kind" = closes-all ]; then exec 0<&- 1>&- 2>&-; fi
read x < gate
"#;

/// A world with a job in it that is hard to get rid of.
pub(crate) struct Hostile {
    pub(crate) world: World,
    pub(crate) kind: &'static str,
    /// By which its processes are told from all others, whatever they wiped.
    token: String,
}

impl Hostile {
    pub(crate) fn new(kind: &'static str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let world = World::new();
        world.write("hostile", HOSTILE);
        world.fifo("gate");
        world.fifo("fails");
        fs::create_dir(world.path("up")).unwrap();
        let token = format!("9{:07}.{count:05}1", std::process::id());
        Self { world, kind, token }
    }

    /// `paceline each OPTIONS sh hostile ...`, for the hostile job and `others`.
    pub(crate) fn each<'h>(&'h self, options: &[&str], others: &[&str]) -> Run<'h> {
        let mut arguments = vec!["each"];
        arguments.extend(options);
        arguments.extend(["sh", "hostile", &self.token, "{}", ":::", self.kind]);
        arguments.extend(others);
        self.world.paceline(arguments)
    }

    /// Whether the job has started all that it starts.
    pub(crate) fn is_up(&self) -> bool {
        let expected = if self.kind == "spawns-200" { 200 } else { 1 };
        let all = self.world.list("up").len() >= expected;
        all && (self.kind != "stopped" || self.alive().keys().any(|pid| is_stopped(*pid)))
    }

    /// Lets the hostile job end by itself.
    pub(crate) fn open_gate(&self) {
        open(&self.world, "gate");
    }

    /// Lets the other job fail.
    pub(crate) fn fail(&self) {
        open(&self.world, "fails");
    }

    /// What lives, by its environment or its arguments.
    pub(crate) fn alive(&self) -> BTreeMap<i32, String> {
        let mut alive = self.world.family();
        let pids = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        for pid in pids {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split(|byte| *byte == 0).any(|word| word == self.token.as_bytes()) {
                alive.insert(pid, String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        alive
    }

    /// What lives of the jobs: all but the guard, which ends after its runner.
    pub(crate) fn survivors(&self) -> BTreeMap<i32, String> {
        let mut alive = self.alive();
        alive.retain(|_, line| !line.contains("__guard"));
        alive
    }

    /// Waits until nothing lives, not even the guard, and returns how long
    /// that took with the jobs.
    #[track_caller]
    pub(crate) fn await_nothing(&self, since: Instant, limit: Duration) -> Duration {
        let mut jobs_took = None;
        loop {
            let alive = self.alive();
            let elapsed = since.elapsed();
            if alive.values().all(|line| line.contains("__guard")) {
                jobs_took.get_or_insert(elapsed);
            }
            if let (true, Some(took)) = (alive.is_empty(), jobs_took) {
                return took;
            }
            assert!(elapsed < limit, "{}: left after {elapsed:?}: {alive:?}", self.kind);
            pause(MOMENT);
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // Before the world looks. In the hope that a failure is told already.
        for pid in self.alive().into_keys().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn is_stopped(pid: i32) -> bool {
    crate::state(pid) == Some('T')
}

/// Lets one reader of the named pipe go on, once more for each call.
pub(crate) fn open(world: &World, name: &str) {
    // Opened for both, it waits for nobody.
    let pipe = fs::File::options().read(true).write(true).open(world.path(name)).unwrap();
    (&pipe).write_all(b"go\n").unwrap();
    KEPT.with_borrow_mut(|kept| kept.push(pipe));
}

thread_local! {
    /// A line that nobody has read yet is lost when the last end of a pipe is closed.
    static KEPT: RefCell<Vec<fs::File>> = const { RefCell::new(Vec::new()) };
}
