//! The processes of one child or chain, as one group that dies together.
//!
//! A process number may be given to a stranger once its owner is reaped, and
//! the group's number is its leader's. So the leader stays a zombie until all
//! is over, and signalling and reaping share one lock: a signal finds the
//! group either unreaped, or known to be gone. The end is always in this
//! order: see the exits (without reaping), kill what is left in the group,
//! reap.
//!
//! Not here: streams (`streams.rs`), and who waits for what (`child.rs`).

use std::io;
use std::mem;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::error::{Argv, Error};
use crate::exit::{Ended, Exit, Signal};
use crate::linux::{self, Member, Watch};
use crate::output::{BrokenPipe, decisive};
use crate::proc::{self, Stat};
use crate::{guard, program, registry, sweep};

/// One child that was started.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) pidfd: Arc<OwnedFd>,
    pub(crate) argv: Argv,
}

/// The processes of a [`Child`](crate::Child): to look at and to signal from
/// any thread, also while another waits for the child.
///
/// Clones are the same group. Holding one keeps nothing running.
///
/// ```
/// use paceline_process::Command;
///
/// let mut child = Command::new("sleep").arg("10").spawn()?;
/// let group = child.group();
/// let waiter = std::thread::spawn(move || child.communicate(None).map(|output| output.exit()));
/// group.kill()?;
/// assert_eq!(waiter.join().unwrap()?.as_i32(), -9);
/// # Ok::<(), paceline_process::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Group(Arc<Shared>);

/// A group that is not kept by this.
pub(crate) struct WeakGroup(Weak<Shared>);

impl WeakGroup {
    pub(crate) fn upgrade(&self) -> Option<Group> {
        self.0.upgrade().map(Group)
    }
}

#[derive(Debug)]
struct Shared {
    /// Its number among the jobs of this program.
    job: u64,
    /// In the order of the chain; the first leads the group.
    processes: Vec<Process>,
    started: Instant,
    broken_pipe: BrokenPipe,
    /// Whether nothing is read from the children, so that their exit is all.
    ends_with_exit: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What has been seen, reaped or not.
    exits: Vec<Option<Exit>>,
    /// When the last of them was seen.
    all_seen: Option<Instant>,
    /// While the group is being stopped its descendants have their grace, and
    /// the children's exit does not end it.
    stopping: bool,
    /// Descendants that had left the group when it was told to end.
    outside: Vec<(i32, Stat)>,
    /// Set when the group was killed and its children reaped: nobody may be
    /// signalled by number from then on.
    reaped: Option<Vec<Ended>>,
}

impl Group {
    pub(crate) fn new(
        job: u64,
        processes: Vec<Process>,
        started: Instant,
        broken_pipe: BrokenPipe,
        ends_with_exit: bool,
    ) -> Group {
        let exits = vec![None; processes.len()];
        let state = Mutex::new(State {
            exits,
            all_seen: None,
            stopping: false,
            outside: Vec::new(),
            reaped: None,
        });
        Group(Arc::new(Shared { job, processes, started, broken_pipe, ends_with_exit, state }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements that change it.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leader(&self) -> Pid {
        self.0.processes[0].pid
    }

    pub(crate) fn downgrade(&self) -> WeakGroup {
        WeakGroup(Arc::downgrade(&self.0))
    }

    /// Lets those know who wait for the end of everything.
    pub(crate) fn note_dropped(&self) {
        registry::drop_job(self.0.job);
    }

    pub(crate) fn leader_id(&self) -> i32 {
        self.leader().as_raw_nonzero().get()
    }

    pub(crate) fn pids(&self) -> impl Iterator<Item = i32> {
        self.0.processes.iter().map(|process| process.pid.as_raw_nonzero().get())
    }

    pub(crate) fn processes(&self) -> &[Process] {
        &self.0.processes
    }

    /// Returns the process id of the first child, which is the group's too.
    #[must_use]
    pub fn id(&self) -> u32 {
        id_of(self.leader())
    }

    /// Returns the process ids of all children, in the order of the chain.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = u32> {
        self.0.processes.iter().map(|process| id_of(process.pid))
    }

    /// Returns the exit if all children have ended, without waiting.
    ///
    /// Says the same on every later call. For a chain it is the exit that
    /// decides, as in [`Output::exit`](crate::Output::exit).
    #[must_use]
    pub fn poll(&self) -> Option<Exit> {
        self.look();
        let state = self.state();
        state.all_seen?;
        let exits = state.exits.iter().map(|exit| exit.unwrap_or(Exit::LOST));
        Some(decisive(exits, self.0.broken_pipe).1)
    }

    /// Says whether all children were seen to have ended, without looking.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().all_seen.is_some()
    }

    /// Returns when all children were seen to have ended, if they have.
    pub(crate) fn look(&self) -> Option<Instant> {
        let mut state = self.state();
        if state.all_seen.is_none() {
            for (process, exit) in self.0.processes.iter().zip(&mut state.exits) {
                if exit.is_none() {
                    *exit = linux::observe_exit(&process.pidfd);
                }
            }
            if state.exits.iter().all(Option::is_some) {
                state.all_seen = Some(Instant::now());
                if self.0.ends_with_exit && !state.stopping {
                    self.end(&mut state);
                }
            }
        }
        state.all_seen
    }

    /// Waits until all children have ended or `deadline` has passed.
    ///
    /// # Errors
    ///
    /// If the system cannot wait.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<Exit>, Error> {
        loop {
            if let Some(exit) = self.poll() {
                return Ok(Some(exit));
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(None);
            }
            let watched: Vec<_> = self.watched().collect();
            // Another thread may have seen the end since: nothing to wait for.
            if !watched.is_empty() {
                linux::wait_any(&watched, deadline).map_err(|error| self.blame(error))?;
            }
        }
    }

    /// Returns what to wait for: the children nobody has seen to end.
    ///
    /// Empty once all were seen, which may be another thread's doing since
    /// the last [`look`](Self::look): whoever waits for the end must look
    /// again then.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (BorrowedFd<'_>, Watch)> {
        let exits = self.state().exits.clone();
        let running = self.0.processes.iter().zip(exits).filter(|(_, exit)| exit.is_none());
        running.map(|(process, _)| (process.pidfd.as_fd(), Watch::Readable))
    }

    /// Returns the CPU time that the children have used so far, all their
    /// threads together, or `None` once they are reaped: then
    /// [`Output::cpu`](crate::Output::cpu) has it.
    ///
    /// What children of theirs use is not in it, unlike there.
    ///
    /// ```
    /// use paceline_process::{Command, Stdin};
    ///
    /// let mut child = Command::new("cat").stdin(Stdin::Pipe).spawn()?;
    /// let group = child.group();
    /// assert!(group.cpu().is_some());
    /// drop(child.take_stdin());
    /// child.communicate(None)?;
    /// assert_eq!(group.cpu(), None);
    /// # Ok::<(), paceline_process::Error>(())
    /// ```
    #[must_use]
    pub fn cpu(&self) -> Option<Duration> {
        let state = self.state();
        if state.reaped.is_some() {
            return None;
        }
        self.0.processes.iter().map(|process| linux::cpu_of(process.pid)).sum()
    }

    /// Sends `signal` to every process of the group.
    ///
    /// A group that has ended is left alone, and that is a success: its
    /// number is never signalled once somebody else may have it.
    ///
    /// # Errors
    ///
    /// If the signal does not exist, or none of the processes may be
    /// signalled, as after a change of user.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let state = self.state();
        if state.reaped.is_some() {
            return Ok(());
        }
        linux::signal_group(self.leader(), signal).map_err(|error| self.blame(error))?;
        // A child can leave the group, if not its session: it is still ours.
        for (process, exit) in self.0.processes.iter().zip(&state.exits) {
            if exit.is_none() && !linux::is_in_group(process.pid, self.leader()) {
                linux::signal_pidfd(&process.pidfd, signal).map_err(|error| self.blame(error))?;
            }
        }
        Ok(())
    }

    /// Asks every process of the group to end, with SIGTERM.
    ///
    /// # Errors
    ///
    /// As for [`signal`](Self::signal).
    pub fn terminate(&self) -> Result<(), Error> {
        self.signal(Signal::TERM)?;
        // A stopped process would not see the request before it goes on.
        self.signal(Signal::CONT)
    }

    /// Ends every process of the group, with SIGKILL.
    ///
    /// # Errors
    ///
    /// As for [`signal`](Self::signal).
    pub fn kill(&self) -> Result<(), Error> {
        self.note_outsiders();
        self.signal(Signal::KILL)
    }

    /// Asks the group to end; from here on only `finish` ends it.
    pub(crate) fn begin_stop(&self) -> Result<(), Error> {
        self.state().stopping = true;
        self.note_outsiders();
        self.terminate()
    }

    /// Notes which descendants have left the group, while it can be told by
    /// their living parents.
    fn note_outsiders(&self) {
        if program::get().is_none() {
            return;
        }
        let mut state = self.state();
        if state.reaped.is_some() {
            return;
        }
        for pid in self.pids() {
            let descendants = proc::descendants(pid).into_iter();
            state.outside.extend(descendants.filter(|(_, stat)| stat.group != self.leader_id()));
        }
    }

    /// Returns the ids of all processes of the group that have not ended.
    pub(crate) fn survivors(&self) -> Vec<u32> {
        let exits = self.state().exits.clone();
        let children = self.ids().zip(exits).filter(|(_, exit)| exit.is_none()).map(|(id, _)| id);
        let members = self.descendants();
        children.chain(members.iter().map(|member| id_of(member.pid))).collect()
    }

    /// Opens the living processes of the group that are not our children.
    pub(crate) fn descendants(&self) -> Vec<Member> {
        let state = self.state();
        if state.reaped.is_some() {
            return Vec::new();
        }
        let children: Vec<Pid> = self.0.processes.iter().map(|process| process.pid).collect();
        linux::open_members(self.leader(), &children)
    }

    /// Kills what is left of the group and reaps the children.
    ///
    /// All of them must have been seen to end, or this waits for them.
    pub(crate) fn finish(&self) -> Vec<Ended> {
        let mut state = self.state();
        self.end(&mut state);
        state.reaped.clone().unwrap_or_default()
    }

    fn end(&self, state: &mut State) {
        if state.reaped.is_some() {
            return;
        }
        // While the leader is a zombie the number is ours. Afterwards it may
        // be anybody's, so nothing may be killed by it after the reaping.
        let _ = linux::signal_group(self.leader(), Signal::KILL);
        let slot = registry::end(self.0.job);
        sweep::end_descendants(&mem::take(&mut state.outside));
        sweep::sweep();
        if let (Some(slot), Some(Ok(guard))) = (slot, guard::get()) {
            guard.leave(slot);
        }
        let processes = self.0.processes.iter().zip(&state.exits);
        let ended = processes.map(|(process, exit)| {
            let usage = linux::reap(process.pid);
            Ended { exit: exit.unwrap_or(Exit::LOST), usage: usage.unwrap_or_default() }
        });
        state.reaped = Some(ended.collect());
        registry::leave(self.0.job, self.pids());
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.state().reaped.is_some()
    }

    /// Returns the time from the start to the last exit, or until now.
    pub(crate) fn elapsed(&self) -> Duration {
        let until = self.state().all_seen.unwrap_or_else(Instant::now);
        until.saturating_duration_since(self.0.started)
    }

    pub(crate) fn broken_pipe(&self) -> BrokenPipe {
        self.0.broken_pipe
    }

    /// Returns the command to name when the whole of it is meant.
    pub(crate) fn argv(&self) -> &Argv {
        &self.0.processes[0].argv
    }

    pub(crate) fn blame(&self, error: io::Error) -> Error {
        Error::io(error).about(self.argv())
    }
}

fn id_of(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}
