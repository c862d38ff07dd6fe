//! How many jobs at once the limit of open files has room for.
//!
//! Past it a start would fail, be tried again, and gain nothing. The limit
//! says too little to be exact (who knows what else is open), so that the
//! engine waits where a descriptor is lacking all the same.

use paceline::{Workers, pace::Bounds};
use rustix::process::{Resource, getrlimit};

use crate::{
    report::Console,
    spec::{Stage, Work},
};

/// What is left for everything else, the journal's files too: a quarter,
/// within these bounds.
const LEFT: [u64; 2] = [60, 256];

/// What we hold for each worker process: the process twice, to wait for it and
/// to end it, the channel (of Python with the slate), and its standard error.
/// The file of `to` is open for one answer at a time.
const OF_EACH_WORKER: u64 = 5;

/// The most files that we hold for each job of a stage: the process, and an
/// end of each output; of a file that is made, it, its folder, and a copy.
pub(super) fn of_each_job(stage: &Stage) -> u64 {
    let further = match &stage.work {
        Work::Pipe(commands) => commands.len() as u64 - 1,
        Work::Serve(_) | Work::Python(_) => return OF_EACH_WORKER,
        _ => 0,
    };
    3 + further + u64::from(stage.stdin) + if stage.to.is_some() { 3 } else { 0 }
}

/// Cuts the workers of the stages that start processes, so that all of them
/// together find room, and says so. Each keeps at least one. Each width comes
/// with the files of a job.
///
/// A stage that finds its own width has room for as many as it may come to;
/// where there is less, that is no news to anybody.
pub(super) fn fit(widths: &mut [(&mut Workers, u64)], console: &Console) {
    let files: u128 = widths.iter().map(|(width, each)| files(most(width), *each)).sum();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if files <= room(limit) {
        return;
    }
    let needed = u64::try_from(files).unwrap_or(u64::MAX).saturating_add(LEFT[1]);
    let limit = paceline_process::raise_descriptor_limit(needed);
    let room = room(limit);
    if files <= room {
        return;
    }
    let sum = |widths: &[(&mut Workers, u64)]| -> usize {
        widths.iter().map(|(width, _)| if is_said(width) { most(width) } else { 0 }).sum()
    };
    let wanted = sum(widths);
    for (width, _) in widths.iter_mut() {
        **width = width.max(share(most(width), files, room));
    }
    let jobs = sum(widths);
    if jobs == wanted {
        return;
    }
    let noun = if jobs == 1 { "job" } else { "jobs" };
    console.line(&format!(
        "note: {jobs} {noun} at once and not {wanted}, since only {limit} files may be open; see \
         `ulimit -n`"
    ));
}

/// The most jobs at once of a stage.
fn most(width: &Workers) -> usize {
    match *width {
        Workers::Fixed(workers) | Workers::UpTo(workers) => workers,
        _ => Bounds::command(paceline::cores(), 1).most,
    }
}

/// Whether the user has asked for this width.
fn is_said(width: &Workers) -> bool {
    matches!(width, Workers::Fixed(_))
}

fn files(width: usize, each: u64) -> u128 {
    width as u128 * u128::from(each)
}

/// How many files jobs may hold.
fn room(limit: u64) -> u128 {
    let left = (limit / 4).clamp(LEFT[0], LEFT[1]);
    u128::from(limit.saturating_sub(left))
}

fn share(width: usize, files: u128, room: u128) -> usize {
    usize::try_from(width as u128 * room / files).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_have_the_files_that_are_not_left_for_the_rest() {
        let rooms = [20, 64, 256, 1024, 20_000].map(room);
        assert_eq!(rooms, [0, 4, 192, 768, 19_744]);
    }

    #[test]
    fn stages_share_the_room_as_they_would_have_shared_the_jobs() {
        let all = files(401, 3);
        assert_eq!([300, 100, 1].map(|width| share(width, all, 120)), [29, 9, 1]);
        assert_eq!(share(usize::MAX, files(usize::MAX, 6), 768), 128);
    }
}
