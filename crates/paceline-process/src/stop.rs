//! Ends a child and all of its group: TERM, the grace period, KILL.
//!
//! The group and not the child alone: a shell may be gone while what it
//! started still winds up. So the grace period ends early only when nobody in
//! the group is alive, and after KILL the same is waited for. Output is read
//! all the while, since a child may have something to say in the end.
//!
//! Not here: processes that left the group (`sweep.rs`).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::child::Child;
use crate::error::{Error, ErrorKind};
use crate::linux::{Watch, Watched};
use crate::output::Output;
use crate::task::after;

/// A killed process ends in moments, unless the kernel cannot let go of it.
const KILL_LIMIT: Duration = Duration::from_secs(5);

impl Child {
    /// Asks the group to end, and kills it if it has not after `grace`.
    ///
    /// Returns, with all the output there was, once nothing in the group is
    /// alive and the children are reaped. A child that is done already is
    /// left alone.
    ///
    /// ```
    /// use paceline_process::Command;
    /// use std::time::Duration;
    ///
    /// let mut child = Command::new("sleep").arg("10").spawn()?;
    /// assert_eq!(child.stop(Duration::from_secs(1))?.exit().as_i32(), -15);
    /// # Ok::<(), paceline_process::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unkillable`](ErrorKind::Unkillable) if processes of the group are
    /// there 5 s after the kill, as when a network file system holds them.
    /// After any other error the group has been killed.
    pub fn stop(&mut self, grace: Duration) -> Result<&Output, Error> {
        if self.output.is_none() {
            self.try_stop(grace).inspect_err(|_| self.give_up())?;
        }
        Ok(self.completed())
    }

    fn try_stop(&mut self, grace: Duration) -> Result<(), Error> {
        self.group.begin_stop()?;
        if !self.is_quiet_within(grace)? {
            self.group.kill()?;
            if !self.is_quiet_within(KILL_LIMIT)? {
                return Err(self.unkillable());
            }
        }
        self.complete()
    }

    /// Waits until nothing in the group is alive; `false` if it is too late.
    fn is_quiet_within(&mut self, limit: Duration) -> Result<bool, Error> {
        let deadline = Instant::now().checked_add(limit);
        loop {
            let more = self.advance()?;
            let mut others = Vec::new();
            let ended = self.group.look().is_some();
            if ended {
                others = self.group.descendants();
                if others.is_empty() {
                    return Ok(true);
                }
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(false);
            }
            if !more {
                self.wait_for_any(ended, &others, deadline)?;
            }
        }
    }

    /// Asks the group to end, and kills it once `grace` is ready: the form
    /// for tasks of [`stop`](Self::stop).
    ///
    /// The caller brings the timer, so that its own clock decides. Must be
    /// called inside the runtime as
    /// [`communicate_async`](Self::communicate_async).
    ///
    /// # Errors
    ///
    /// As [`stop`](Self::stop).
    ///
    /// # When stopped
    ///
    /// If the future is dropped the group has been asked to end, and the call
    /// can be made again, which asks again.
    pub async fn stop_async(&mut self, grace: impl Future<Output = ()>) -> Result<&Output, Error> {
        if self.output.is_none() {
            let stopped = self.try_stop_async(grace).await;
            stopped.inspect_err(|_| self.give_up())?;
        }
        Ok(self.completed())
    }

    async fn try_stop_async(&mut self, grace: impl Future<Output = ()>) -> Result<(), Error> {
        self.group.begin_stop()?;
        self.register()?;
        if !self.is_quiet_before(grace).await? {
            self.group.kill()?;
            // Without a timer to be had, the children alone decide.
            let limit = async {
                if after(KILL_LIMIT).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            if !self.is_quiet_before(limit).await? {
                return Err(self.unkillable());
            }
        }
        self.complete()
    }

    async fn is_quiet_before(&mut self, limit: impl Future<Output = ()>) -> Result<bool, Error> {
        let mut limit = pin!(limit);
        let mut others = Vec::new();
        poll_fn(|cx| match self.poll_quiet(cx, &mut others) {
            Poll::Ready(quiet) => Poll::Ready(quiet.map(|()| true)),
            Poll::Pending => limit.as_mut().poll(cx).map(|()| Ok(false)),
        })
        .await
    }

    fn poll_quiet(
        &mut self,
        cx: &mut Context<'_>,
        others: &mut Vec<Watched>,
    ) -> Poll<Result<(), Error>> {
        if let Poll::Ready(Err(error)) = self.poll_outputs(cx) {
            return Poll::Ready(Err(error));
        }
        ready!(self.poll_ended(cx))?;
        loop {
            while let Some(other) = others.last() {
                ready!(other.poll_once(cx)).map_err(|error| self.group.blame(error))?;
                others.pop();
            }
            for member in self.group.descendants() {
                let watched = Watched::new(&member.pidfd, Watch::Readable);
                others.push(watched.map_err(|error| self.group.blame(error))?);
            }
            if others.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn unkillable(&self) -> Error {
        let pids = self.group.survivors();
        Error::new(ErrorKind::Unkillable { pids }, self.group.argv(), None)
    }

    /// Leaves nothing running although the stop could not be seen through.
    fn give_up(&self) {
        let _ = self.group.kill();
    }
}
