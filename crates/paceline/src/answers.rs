//! Waiting for several answers at once: all, the first, the first failure,
//! or each as it comes.
//!
//! Each answer wakes a slot of its own, which notes its number; so what has
//! come is found without looking at the others.

use std::{
    collections::VecDeque,
    error::Error,
    fmt,
    future::{Future, poll_fn},
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use paceline_queue::OnEventLoop;

use crate::{
    answer::{Answer, Outcome},
    sync::{block_on, block_on_for, lock},
};

/// What a wait for several answers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Until {
    /// All are done.
    AllDone,
    /// One is done, whatever its outcome.
    FirstDone,
    /// One has failed, or all are done. Cancelled work is done and has not failed.
    FirstFailure,
}

/// What [`wait`] found, each in the order given.
#[derive(Debug)]
pub struct Waited<T> {
    /// Those that are done; their outcomes are still inside.
    pub done: Vec<Answer<T>>,
    /// Those that are not, with which the caller can go on.
    pub unfinished: Vec<Answer<T>>,
}

/// Waits for several answers: until what is asked for holds, or `limit` has passed.
///
/// Gives both sets back, so that no outcome is lost; an answer cannot be
/// among them twice. Those that were done before are found at once, and no
/// answers at all are no wait. Without a limit the wait ends when the work does.
///
/// # Panics
///
/// On a thread that runs an event loop, unless the limit is zero.
///
/// ```
/// use std::time::Duration;
/// use paceline::{Answer, Until};
///
/// let (promise, first) = Answer::<u32>::pending("example", 1);
/// let (_busy, second) = Answer::<u32>::pending("example", 2);
/// promise.set(Ok::<_, paceline::BoxError>(7)).ok();
/// let waited = paceline::wait([first, second], Until::FirstDone, None);
/// assert_eq!((waited.done.len(), waited.unfinished.len()), (1, 1));
///
/// let waited = paceline::wait(waited.unfinished, Until::AllDone, Some(Duration::ZERO));
/// assert_eq!(waited.unfinished.len(), 1);
/// ```
pub fn wait<T>(
    answers: impl IntoIterator<Item = Answer<T>>,
    until: Until,
    limit: Option<Duration>,
) -> Waited<T> {
    let answers: Vec<Answer<T>> = answers.into_iter().collect();
    let watch = Arc::new(Watch::default());
    // Counted here and not by asking each again at every wake-up.
    let mut unfinished = answers.len();
    let mut has_met = false;
    for (number, answer) in answers.iter().enumerate() {
        watch.add(number, answer);
    }
    if limit.is_none() {
        // Work of this thread's own pool is done here; it might wait for this thread.
        for answer in &answers {
            if until == Until::FirstDone && !watch.is_empty() {
                break;
            }
            answer.help_if_inside();
            if until == Until::FirstFailure && answer.has_failed() {
                break;
            }
        }
    }
    let wanted = poll_fn(|context| {
        while !has_met && unfinished > 0 {
            let Poll::Ready(number) = watch.poll_next(context) else { return Poll::Pending };
            unfinished -= 1;
            has_met = match until {
                Until::AllDone => false,
                Until::FirstDone => true,
                Until::FirstFailure => answers[number].has_failed(),
            };
        }
        Poll::Ready(())
    });
    if limit != Some(Duration::ZERO) {
        refuse_on_event_loop("`as_completed(...).next_async()`");
    }
    match limit {
        None => block_on(wanted),
        // A limit of zero is a look.
        Some(limit) => block_on_for(wanted, limit).unwrap_or(()),
    }
    let (done, unfinished) = answers.into_iter().partition(Answer::is_done);
    Waited { done, unfinished }
}

/// Waiting here would hold up the very tasks that are waited for.
fn refuse_on_event_loop(instead: &str) {
    assert!(
        !OnEventLoop::is_here(),
        "a wait for answers was called on an event loop, which it would hold up: await {instead}"
    );
}

/// Gives outcomes as they come, those first that are there already, each with
/// its number in the order given, from 0.
///
/// Use it as an iterator, which waits; with a limit, by
/// [`next_within`](AsCompleted::next_within); or from a task, by
/// [`next_async`](AsCompleted::next_async).
///
/// ```
/// use paceline::{Answer, BoxError};
///
/// let (slow, first) = Answer::<&str>::pending("example", 1);
/// let (quick, second) = Answer::<&str>::pending("example", 2);
/// quick.keep(|| Ok::<_, BoxError>("quick"));
///
/// let mut outcomes = paceline::as_completed([first, second]);
/// assert!(matches!(outcomes.next(), Some((1, Ok("quick")))));
/// let late = outcomes.next_within(std::time::Duration::ZERO).unwrap_err();
/// assert_eq!(late.to_string(), "1 of 2 unfinished");
/// # drop(slow);
/// ```
pub fn as_completed<T>(answers: impl IntoIterator<Item = Answer<T>>) -> AsCompleted<T> {
    let answers: Vec<Option<Answer<T>>> = answers.into_iter().map(Some).collect();
    let watch = Arc::new(Watch::default());
    for (number, answer) in answers.iter().flatten().enumerate() {
        watch.add(number, answer);
    }
    AsCompleted { unfinished: answers.len(), answers, helped: 0, watch }
}

/// Outcomes as they come; made by [`as_completed`].
///
/// It keeps nothing of an outcome that it has given. Dropping it cancels
/// nothing.
#[must_use = "it gives nothing until it is asked"]
pub struct AsCompleted<T> {
    answers: Vec<Option<Answer<T>>>,
    unfinished: usize,
    /// How many of them this thread was ready to do itself.
    helped: usize,
    watch: Arc<Watch>,
}

impl<T> AsCompleted<T> {
    /// Waits at most `limit` for the next outcome; `None` after the last. A
    /// limit of zero does not wait.
    ///
    /// # Errors
    ///
    /// [`Unfinished`] if none came in time. It can be asked again.
    pub fn next_within(
        &mut self,
        limit: Duration,
    ) -> Result<Option<(usize, Outcome<T>)>, Unfinished> {
        if limit > Duration::ZERO && self.unfinished > 0 && self.watch.is_empty() {
            refuse_on_event_loop("`next_async`");
        }
        let next = block_on_for(poll_fn(|context| self.poll_next(context)), limit);
        next.ok_or(Unfinished { unfinished: self.unfinished, of: self.answers.len() })
    }

    /// As the iterator, for a task. Cancel-safe: dropped before it is ready,
    /// no outcome is lost.
    pub fn next_async(&mut self) -> impl Future<Output = Option<(usize, Outcome<T>)>> {
        poll_fn(|context| self.poll_next(context))
    }

    /// Cancels what has not begun and asks what is running to end; returns
    /// how many were cancelled. Never waits.
    pub fn cancel(&self) -> usize {
        self.answers.iter().flatten().filter(|answer| answer.cancel()).count()
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<(usize, Outcome<T>)>> {
        while self.unfinished > 0 {
            let Poll::Ready(number) = self.watch.poll_next(context) else { return Poll::Pending };
            if let Some(mut answer) = self.answers[number].take() {
                self.unfinished -= 1;
                let outcome = answer.try_get().expect("what woke its slot is done");
                return Poll::Ready(Some((number, outcome)));
            }
        }
        Poll::Ready(None)
    }
}

/// Waits for each; ends after the last.
///
/// # Panics
///
/// If it would have to wait on a thread that runs an event loop: there use
/// [`next_async`](AsCompleted::next_async).
impl<T> Iterator for AsCompleted<T> {
    type Item = (usize, Outcome<T>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.helped < self.answers.len() && self.watch.is_empty() {
            if let Some(answer) = &self.answers[self.helped] {
                answer.help_if_inside();
            }
            self.helped += 1;
        }
        if self.unfinished > 0 && self.watch.is_empty() {
            refuse_on_event_loop("`next_async`");
        }
        block_on(self.next_async())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.unfinished, Some(self.unfinished))
    }
}

impl<T> fmt::Debug for AsCompleted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("unfinished", &self.unfinished)
            .field("of", &self.answers.len())
            .finish()
    }
}

/// The time was over before all were done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// How many were not done.
    pub unfinished: usize,
    /// How many there were.
    pub of: usize,
}

impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} unfinished", self.unfinished, self.of)
    }
}

impl Error for Unfinished {}

/// The numbers of the answers that have come and were not looked at.
#[derive(Default)]
pub(crate) struct Watch {
    state: Mutex<Came>,
}

#[derive(Default)]
struct Came {
    numbers: VecDeque<usize>,
    reader: Option<Waker>,
}

impl Watch {
    pub(crate) fn add<T>(self: &Arc<Self>, number: usize, answer: &Answer<T>) {
        let slot = Arc::new(Slot { number, watch: self.clone() });
        if answer.watch(&Waker::from(slot)) {
            self.came(number);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        lock(&self.state).numbers.is_empty()
    }

    fn came(&self, number: usize) {
        let reader = {
            let mut state = lock(&self.state);
            state.numbers.push_back(number);
            state.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn poll_next(&self, context: &mut Context<'_>) -> Poll<usize> {
        let waker = context.waker().clone();
        let (number, before) = {
            let mut state = lock(&self.state);
            match state.numbers.pop_front() {
                Some(number) => (Some(number), state.reader.take()),
                None => (None, state.reader.replace(waker)),
            }
        };
        drop(before);
        number.map_or(Poll::Pending, Poll::Ready)
    }
}

/// Where one answer knocks when it has come: once, since it wakes its reader once.
struct Slot {
    number: usize,
    watch: Arc<Watch>,
}

impl Wake for Slot {
    fn wake(self: Arc<Self>) {
        self.watch.came(self.number);
    }
}
