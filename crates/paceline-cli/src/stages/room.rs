//! How many jobs at once the limit of open files has room for.
//!
//! Past it a start would fail, be tried again, and gain nothing. The limit
//! says too little to be exact (who knows what else is open), so that the
//! engine waits where a descriptor is lacking all the same.

use rustix::process::{Resource, getrlimit};

use crate::report::Console;

/// What we hold of each job: the process, and an end of each output.
const OF_EACH_JOB: u64 = 3;

/// What is left for everything else: a quarter, within these bounds.
const LEFT: [u64; 2] = [40, 256];

/// Cuts the workers of the stages that start processes, so that all of them
/// together find room, and says so. Each keeps at least one.
pub(super) fn fit(widths: &mut [&mut usize], console: &Console) {
    let wanted: usize = widths.iter().map(|width| **width).sum();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if wanted <= room(limit) {
        return;
    }
    let needed = LEFT[1].saturating_add((wanted as u64).saturating_mul(OF_EACH_JOB));
    let limit = paceline_process::raise_descriptor_limit(needed);
    let room = room(limit);
    if wanted <= room {
        return;
    }
    for width in widths.iter_mut() {
        **width = share(**width, wanted, room);
    }
    let jobs: usize = widths.iter().map(|width| **width).sum();
    let noun = if jobs == 1 { "job" } else { "jobs" };
    console.line(&format!(
        "note: {jobs} {noun} at once and not {wanted}, since only {limit} files may be open; see \
         `ulimit -n`"
    ));
}

fn room(limit: u64) -> usize {
    let left = (limit / 4).clamp(LEFT[0], LEFT[1]);
    let room = (limit.saturating_sub(left) / OF_EACH_JOB).max(1);
    usize::try_from(room).unwrap_or(usize::MAX)
}

fn share(width: usize, wanted: usize, room: usize) -> usize {
    let share = width as u128 * room as u128 / wanted as u128;
    usize::try_from(share).unwrap_or(usize::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_takes_three_files_and_the_rest_a_quarter() {
        let rooms = [20, 64, 256, 1024, 20_000].map(room);
        assert_eq!(rooms, [1, 8, 64, 256, 6581]);
    }

    #[test]
    fn stages_share_the_room_as_they_would_have_shared_the_jobs() {
        assert_eq!([300, 100, 1].map(|width| share(width, 401, 40)), [29, 9, 1]);
    }
}
