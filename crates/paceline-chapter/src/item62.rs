//! Item 62: threads and coroutines together. Several files are followed and
//! merged into one, in four forms on the way from threads to tasks.
//!
//! Following is blocking code ([`Tail`]). What differs is who waits and who
//! reads. No form keeps a thread of a pool while it waits, and the output has
//! a thread of its own; so 200 files need no more threads than five do.

mod changes;
mod tail;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use paceline::{BoxError, Runner, Writer, off_loop};

use self::changes::{Changes, Signal, is_same_file};
pub use self::tail::Tail;
use crate::{
    Item, Show,
    show::{expect, timed},
};

pub(crate) const ITEM: Item =
    Item { number: 62, title: "Threads and tasks together: files followed into one", show };

/// Who follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A thread a file.
    Threads,
    /// From the top down, the first step: an event loop on top, where tasks
    /// wait; reading and writing stay blocking functions, off the loop.
    TopDown,
    /// Tasks that wait and write; only reading is off the loop.
    Tasks,
    /// From the bottom up, the first step: functions that still block their
    /// thread, each with an event loop of its own inside.
    BottomUp,
}

/// All forms, in the order of the port.
pub const FORMS: [Form; 4] = [Form::Threads, Form::TopDown, Form::Tasks, Form::BottomUp];

/// Files that are being followed into one.
pub struct Merge {
    signals: Vec<Signal>,
    followers: Vec<JoinHandle<Result<(), BoxError>>>,
    changes: Changes,
    merged: Arc<Merged>,
}

struct Merged {
    writer: Writer,
    notes: Mutex<Vec<String>>,
}

impl Merge {
    /// Begins to follow `paths` into the file at `output`, which is made or
    /// emptied. With `prefix` each line begins with its file's name. At most
    /// `threads` threads read for an event loop, 1 or more.
    ///
    /// # Errors
    ///
    /// If a file cannot be opened, is the output, or a thread cannot be started.
    pub fn start(
        form: Form,
        paths: &[PathBuf],
        output: &Path,
        prefix: bool,
        threads: usize,
    ) -> Result<Self, BoxError> {
        if let Some(path) = paths.iter().find(|path| is_same_file(path, output)) {
            return Err(format!("`{}` would be followed into itself", path.display()).into());
        }
        let prefix_of = |path: &PathBuf| match prefix {
            true => format!("{}: ", path.file_name().unwrap_or_default().display()),
            false => String::new(),
        };
        let tails = paths.iter().map(|path| Tail::open(path, &prefix_of(path)));
        let tails = tails.collect::<io::Result<Vec<_>>>()?;
        let merged = Arc::new(Merged { writer: Writer::create(output)?, notes: Mutex::default() });
        let (changes, signals) = Changes::of(paths)?;
        let mut merge = Self { signals, followers: Vec::new(), changes, merged };
        let begun = merge.begin(form, tails, threads);
        if let Err(error) = begun {
            // What has begun already is ended before the error is told.
            let _ = merge.stop();
            return Err(error.into());
        }
        Ok(merge)
    }

    fn begin(&mut self, form: Form, tails: Vec<Tail>, threads: usize) -> io::Result<()> {
        let followed: Vec<_> = tails.into_iter().zip(self.signals.clone()).collect();
        let mut start = |work: Box<dyn FnOnce() -> Result<(), BoxError> + Send>| {
            let builder = thread::Builder::new().name("follower".into());
            builder.spawn(work).map(|thread| self.followers.push(thread))
        };
        match form {
            Form::Threads => {
                for (tail, signal) in followed {
                    let merged = self.merged.clone();
                    start(Box::new(move || merged.follow(tail, &signal)))?;
                }
            }
            Form::BottomUp => {
                for (tail, signal) in followed {
                    let merged = self.merged.clone();
                    start(Box::new(move || {
                        let runner = Runner::new().threads(1);
                        let ended = runner.run(|_| merged.follow_in_task(form, tail, signal))?;
                        ended.output.unwrap_or(Ok(()))
                    }))?;
                }
            }
            Form::TopDown | Form::Tasks => {
                let merged = self.merged.clone();
                start(Box::new(move || {
                    let ended = Runner::new().threads(threads).run(|tasks| async move {
                        let followers: Vec<_> = followed
                            .into_iter()
                            .map(|(tail, signal)| {
                                let merged = merged.clone();
                                tasks.submit(merged.follow_in_task(form, tail, signal))
                            })
                            .collect();
                        let mut all = Ok(());
                        for follower in followers {
                            all = all.and(follower.await.map_err(BoxError::from));
                        }
                        all
                    })?;
                    ended.output.unwrap_or(Ok(()))
                }))?;
            }
        }
        Ok(())
    }

    /// Stops following, when all that the files have by now is in the output.
    /// Returns what was noted: files that were truncated or replaced.
    ///
    /// # Errors
    ///
    /// The first that a follower or the output had.
    pub fn stop(self) -> Result<Vec<String>, BoxError> {
        // Followers look once more when their signal has ended.
        self.signals.iter().for_each(Signal::close);
        let mut all = Ok(());
        for follower in self.followers {
            all = all.and(follower.join().unwrap_or_else(|_| Err("a follower panicked".into())));
        }
        drop(self.changes);
        self.merged.writer.close()?;
        all?;
        let mut notes = self.merged.notes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *notes))
    }
}

impl Merged {
    /// Follows on this thread, which waits.
    fn follow(&self, mut tail: Tail, signal: &Signal) -> Result<(), BoxError> {
        while signal.pop().is_ok() {
            self.copy(&mut tail)?;
        }
        self.copy(&mut tail)?;
        match tail.finish() {
            Some(line) => Ok(self.writer.write(line)?),
            None => Ok(()),
        }
    }

    /// Copies what there is by now: blocking code.
    fn copy(&self, tail: &mut Tail) -> io::Result<()> {
        while let Some(lines) = tail.read_lines()? {
            self.writer.write(lines)?;
        }
        self.note(tail);
        Ok(())
    }

    fn note(&self, tail: &mut Tail) {
        let notes = tail.take_notes();
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).extend(notes);
    }

    /// Follows in a task, which waits without a thread.
    async fn follow_in_task(
        self: Arc<Self>,
        form: Form,
        mut tail: Tail,
        signal: Signal,
    ) -> Result<(), BoxError> {
        let mut goes_on = true;
        while goes_on {
            // After the last signal it looks once more.
            goes_on = signal.pop_async().await.is_ok();
            tail = match form {
                Form::Tasks => self.copy_in_task(tail).await?,
                _ => {
                    let merged = self.clone();
                    off_loop(move || merged.copy(&mut tail).map(|()| tail)).await?
                }
            };
        }
        match tail.finish() {
            Some(line) => Ok(self.writer.write_async(line).await?),
            None => Ok(()),
        }
    }

    /// Copies what there is by now; only the reading is off the loop.
    async fn copy_in_task(&self, mut tail: Tail) -> Result<Tail, BoxError> {
        loop {
            let read = move || tail.read_lines().map(|lines| (tail, lines));
            let lines;
            (tail, lines) = off_loop(read).await?;
            match lines {
                Some(lines) => self.writer.write_async(lines).await?,
                None => break,
            }
        }
        self.note(&mut tail);
        Ok(tail)
    }
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    use std::{fs, io::Write};
    let place = std::env::temp_dir().join(format!("paceline-item62-{}", std::process::id()));
    fs::create_dir_all(&place)?;
    let shown = (|| -> Result<(), BoxError> {
        for (files, threads) in [(5, 2), (200, 1)] {
            for form in FORMS {
                let paths: Vec<_> = (0..files).map(|n| place.join(format!("{n}.log"))).collect();
                let mut open = Vec::new();
                for path in &paths {
                    open.push(fs::File::create(path)?);
                }
                let output = place.join("merged");
                let (merged, time) = timed(|| -> Result<_, BoxError> {
                    let merge = Merge::start(form, &paths, &output, true, threads)?;
                    for line in 0..10 {
                        for file in &mut open {
                            writeln!(file, "line {line}")?;
                        }
                    }
                    merge.stop()?;
                    Ok(fs::read_to_string(&output)?)
                });
                let merged = merged?;
                expect(merged.lines().count() == files * 10, "every line exactly once")?;
                let pool = if form == Form::Threads {
                    String::new()
                } else {
                    format!(", {threads} to read")
                };
                show.took(&format!("{files} files of 10 lines: {form:?}{pool}"), time)?;
            }
        }
        Ok(())
    })();
    fs::remove_dir_all(&place)?;
    shown?;
    show.python(include_str!("../python/item62.py"))?;
    Ok(())
}
