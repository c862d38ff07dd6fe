//! How long the jobs of a sample had no core though they were ready to run.
//!
//! The kernel tells it of every process as long as that is there, and no
//! longer. So all our descendants are looked at often, and what was seen last
//! counts: it may miss the last few milliseconds of each.

use std::{
    collections::BTreeMap,
    fs,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

/// How often they are looked at.
const EVERY: Duration = Duration::from_millis(2);

/// How deep descendants are looked for.
const DEEPEST: u32 = 8;

/// Does `work`, and gives the time, in seconds, that processes which it
/// started had no core. Nothing where the kernel does not tell.
pub(super) fn during<R>(work: impl FnOnce() -> R) -> (R, f64) {
    thread::scope(|scope| {
        let (end, ended) = mpsc::channel();
        let watcher = scope.spawn(move || watch(&ended));
        let result = work();
        drop(end);
        (result, watcher.join().unwrap_or_default())
    })
}

fn watch(ended: &Receiver<()>) -> f64 {
    let mut seen = BTreeMap::new();
    while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        for thread in threads {
            look(&thread.path().join("children").to_string_lossy(), DEEPEST, &mut seen);
        }
    }
    seen.into_values().sum::<u64>() as f64 / 1e9
}

/// Notes how long the processes in this list, and those below them, have waited for a core.
fn look(list: &str, deeper: u32, seen: &mut BTreeMap<u32, u64>) {
    let Ok(list) = fs::read_to_string(list) else { return };
    for id in list.split_ascii_whitespace().filter_map(|id| id.parse::<u32>().ok()) {
        let told = fs::read_to_string(format!("/proc/{id}/schedstat")).ok();
        let queued =
            told.and_then(|text| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
        if let Some(queued) = queued {
            seen.insert(id, queued);
        }
        if deeper > 0 {
            look(&format!("/proc/{id}/task/{id}/children"), deeper - 1, seen);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn more_that_compute_than_there_are_cores_wait_for_one() {
        let compute = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
        let many = 4 * paceline::cores();
        let (all_went_well, queued) = during(|| {
            let children: Vec<_> =
                (0..many).map(|_| Command::new("sh").args(["-c", compute]).spawn()).collect();
            children.into_iter().all(|child| child.is_ok_and(|mut it| it.wait().is_ok()))
        });
        assert!(all_went_well);
        // A kernel without these counts says nothing.
        if fs::read_to_string("/proc/self/schedstat").is_ok_and(|text| !text.starts_with("0 0")) {
            assert!(queued > 0.005, "{queued} s");
        }
    }
}
