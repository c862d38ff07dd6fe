//! The handle of a running child or chain, for tasks of a tokio runtime.
//!
//! Each descriptor is registered once, at the first call, and kept. A future
//! holds no state of its own that matters: dropping it loses nothing, and the
//! call can be made again.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use crate::child::Child;
use crate::error::Error;
use crate::exit::Exit;
use crate::group::Group;
use crate::linux::{self, Watch, Watched};
use crate::output::Output;

/// The children's pidfds, known to tokio; empty before the first use.
#[derive(Debug, Default)]
pub(crate) struct Watchers(Vec<Watched>);

impl Watchers {
    fn register(&mut self, group: &Group) -> io::Result<()> {
        for process in &group.processes()[self.0.len()..] {
            self.0.push(Watched::new(&process.pidfd, Watch::Readable)?);
        }
        Ok(())
    }

    /// Ready once all children have ended. Asks the system nothing before they have.
    fn poll_ended(&self, group: &Group, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for watcher in &self.0 {
            ready!(watcher.poll_once(cx))?;
        }
        if group.look().is_some() {
            return Poll::Ready(Ok(()));
        }
        // Ended, but kept from us for a moment by a debugger that looks first.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// A time limit that needs no timer of the runtime's.
pub(crate) async fn after(time: Duration) -> io::Result<()> {
    let timer = Watched::new(&linux::timer(time)?.into(), Watch::Readable)?;
    poll_fn(|cx| timer.poll_once(cx)).await
}

impl Child {
    /// Sends the input, collects the output, and waits for the end: the form
    /// for tasks of [`communicate`](Self::communicate).
    ///
    /// Must be called inside a tokio runtime with I/O enabled, and always the
    /// same one. It uses none of its timers.
    ///
    /// # Errors
    ///
    /// As [`communicate`](Self::communicate), without the timeout.
    ///
    /// # When stopped
    ///
    /// Dropping the future loses nothing: the child goes on, output read so
    /// far is kept, and the call can be made again.
    ///
    /// ```
    /// use paceline_process::{Command, Stdin, Stdout};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
    /// let mut child =
    ///     Command::new("cat").stdin(Stdin::from("hello")).stdout(Stdout::Capture).spawn()?;
    /// let output = child.communicate_async().await?;
    /// assert_eq!(output.stdout().to_text()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn communicate_async(&mut self) -> Result<&Output, Error> {
        let limit = self.drain_limit;
        self.communicate_async_with(|| async move {
            // If there is no timer to be had, there is no time to wait either.
            let _ = after(limit).await;
        })
        .await
    }

    /// Does the same with the caller's own clock for the drain limit.
    ///
    /// `drain` is called when all children have exited and a descendant still
    /// holds an output open; once its future is ready the descendant is
    /// killed and the output is [leaky](Output::is_leaky).
    ///
    /// # Errors
    ///
    /// As [`communicate_async`](Self::communicate_async).
    pub async fn communicate_async_with<D>(
        &mut self,
        drain: impl FnOnce() -> D,
    ) -> Result<&Output, Error>
    where
        D: Future<Output = ()>,
    {
        self.stdin = None;
        if self.output.is_none() {
            if !self.group.has_ended() {
                self.register()?;
                poll_fn(|cx| {
                    if let Poll::Ready(Err(error)) = self.poll_outputs(cx) {
                        return Poll::Ready(Err(error));
                    }
                    self.poll_ended(cx)
                })
                .await?;
            }
            // The runtime may have yet to hear that the pipes are closed.
            self.advance()?;
            if !self.streams.outputs_ended() {
                self.register()?;
                let mut drain = pin!(drain());
                poll_fn(|cx| {
                    if let Poll::Ready(result) = self.poll_outputs(cx) {
                        return Poll::Ready(result);
                    }
                    drain.as_mut().poll(cx).map(Ok)
                })
                .await?;
            }
            self.complete()?;
        }
        Ok(self.completed())
    }

    /// Waits until all children have ended, moving no bytes: the form for
    /// tasks of [`wait`](Self::wait).
    ///
    /// # Errors
    ///
    /// If the system cannot wait; the child goes on.
    ///
    /// # When stopped
    ///
    /// Dropping the future changes nothing.
    pub async fn wait_async(&mut self) -> Result<Exit, Error> {
        self.watchers.register(&self.group).map_err(|error| self.group.blame(error))?;
        poll_fn(|cx| self.watchers.poll_ended(&self.group, cx))
            .await
            .map_err(|error| self.group.blame(error))?;
        Ok(self.group.poll().unwrap_or(Exit::LOST))
    }

    pub(crate) fn register(&mut self) -> Result<(), Error> {
        let registered = self.streams.register().and_then(|()| self.watchers.register(&self.group));
        registered.map_err(|error| self.group.blame(error))
    }

    pub(crate) fn poll_outputs(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.streams.poll_advance(cx).map_err(|error| error.about(self.group.argv()))
    }

    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.watchers.poll_ended(&self.group, cx).map_err(|error| self.group.blame(error))
    }
}

/// The end of all children of a group, to wait for beside other things.
///
/// ```
/// use std::future::poll_fn;
/// use paceline_process::Command;
///
/// # tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
/// let child = Command::new("true").spawn()?;
/// let mut watch = child.group().watch()?;
/// assert!(poll_fn(|cx| watch.poll_exit(cx)).await?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct ExitWatch {
    group: Group,
    watchers: Watchers,
}

impl Group {
    /// Returns what a task can poll for the end of all children. Must be
    /// called inside a tokio runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// If the runtime cannot watch them.
    pub fn watch(&self) -> Result<ExitWatch, Error> {
        let mut watchers = Watchers::default();
        watchers.register(self).map_err(|error| self.blame(error))?;
        Ok(ExitWatch { group: self.clone(), watchers })
    }
}

impl ExitWatch {
    /// Ready with the exit once all children have ended. Asks the system
    /// nothing before they have.
    ///
    /// # Errors
    ///
    /// If the system cannot wait.
    pub fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<Result<Exit, Error>> {
        for watcher in &self.watchers.0 {
            if let Err(error) = ready!(watcher.poll_once(cx)) {
                return Poll::Ready(Err(self.group.blame(error)));
            }
        }
        match self.group.poll() {
            Some(exit) => Poll::Ready(Ok(exit)),
            None => {
                // Kept from us for a moment by a debugger that looks first.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}
