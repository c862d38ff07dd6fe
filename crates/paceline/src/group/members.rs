//! A group to which members are added while it runs.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Poll, Waker},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};

use super::{Course, Group, GroupError, MOST_A_TURN, Turn, member::within};
use crate::{
    answer::{Answer, Outcome, Promise},
    clock::Clock,
    executor::submit::{Reason, Refused},
    failure::{BoxError, Failure, FailureKind, Fault},
    item::ItemId,
    stop::StopLevel,
    sync::{Either, Notice, first, lock},
};

/// A member that was added: it ends with its failure, if it has one.
type Added<'e> = Pin<Box<dyn Future<Output = Option<Failure>> + Send + 'e>>;

/// The way to add members to a group that runs. Clones are handles on the
/// same group; members may have one, and add members themselves.
pub struct Members<'e> {
    shared: Arc<Shared<'e>>,
}

struct Shared<'e> {
    name: Arc<str>,
    clock: Clock,
    timeout: Option<Duration>,
    limit: usize,
    numbers: AtomicU64,
    /// Members that were added and have not ended.
    unfinished: AtomicUsize,
    changed: Notice,
    inbox: Mutex<Inbox<'e>>,
}

#[derive(Default)]
struct Inbox<'e> {
    added: VecDeque<Added<'e>>,
    is_closed: bool,
    /// Whoever polls the group.
    group: Option<Waker>,
}

impl Group {
    /// Runs `body`, which adds members, until it and all members have ended.
    ///
    /// Members begin when the group is polled, as the limit allows. They are
    /// polled while the body waits for anything, so a body that handles one
    /// outcome holds up no member. The first failure, of a member or the body,
    /// stops them all; the body counts as item 0.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use paceline::{BoxError, Group, as_completed};
    ///
    /// let words = vec!["a".to_owned(), "bb".to_owned()];
    /// let total = Group::new("lengths").limit(10).scope(|members| async {
    ///     let members = members;
    ///     let length = |word: &'static str| async move { Ok::<_, BoxError>(word.len()) };
    ///     let answers = ["ccc", "dddd"].map(|word| members.add(length(word)));
    ///     let mut answers = as_completed(answers.into_iter().flatten());
    ///     let mut total = words.iter().map(String::len).sum::<usize>();
    ///     while let Some((_, length)) = answers.next_async().await {
    ///         total += length?;
    ///     }
    ///     Ok::<_, BoxError>(total)
    /// });
    /// assert_eq!(total.await?, 10);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`GroupError`] with all failures.
    pub async fn scope<'e, R, E, Body, Fut>(self, body: Body) -> Result<R, GroupError>
    where
        Body: FnOnce(Members<'e>) -> Fut,
        Fut: Future<Output = Result<R, E>>,
        E: Into<BoxError>,
    {
        let shared = Arc::new(Shared {
            name: self.name.clone(),
            clock: self.clock.clone(),
            timeout: self.timeout,
            limit: self.limit,
            numbers: AtomicU64::new(0),
            unfinished: AtomicUsize::new(0),
            changed: Notice::default(),
            inbox: Mutex::default(),
        });
        let stop = self.stop.clone().unwrap_or_default();
        let mut stopped = stop.reached(StopLevel::Cancel);
        let mut course = Course::new(self, false);
        let closing = Closing(&shared);
        let mut running = FuturesUnordered::new();
        let body = within(body(Members { shared: shared.clone() }), None);
        let mut body = pin!(Some(body));
        let mut result = None;
        poll_fn(|context| {
            shared.polled_by(context.waker());
            for _ in 0..MOST_A_TURN {
                match course.turn(&mut stopped, context) {
                    Turn::Run => shared.start(&mut running),
                    Turn::WindDown => closing.close(),
                    Turn::Drop => {
                        closing.close();
                        course.dropped = running.len();
                        body.set(None);
                        running.clear();
                        return Poll::Ready(());
                    }
                }
                // The body between any two ends: it may want to add.
                if let Some(polled) = body.as_mut().as_pin_mut()
                    && let Poll::Ready(ended) = polled.poll(context)
                {
                    body.set(None);
                    match ended {
                        Ok(value) => result = Some(value),
                        Err(fault) => {
                            let failure = course.failure(0, fault);
                            course.failed(&failure);
                        }
                    }
                    continue;
                }
                match running.poll_next_unpin(context) {
                    Poll::Ready(Some(failure)) => {
                        shared.ended();
                        failure.iter().for_each(|failure| course.failed(failure));
                    }
                    Poll::Ready(None) if body.is_none() && shared.close_if_empty() => {
                        return Poll::Ready(());
                    }
                    // Something was added since the start of this turn.
                    Poll::Ready(None) if !shared.is_empty() => {}
                    _ => return Poll::Pending,
                }
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        drop(closing);
        let value = result;
        course.end(|| value).and_then(|value| value.ok_or_else(|| cancelled(&shared.name)))
    }
}

/// The end of a body that said itself that it was cancelled: no value and no failure.
fn cancelled(name: &Arc<str>) -> GroupError {
    GroupError {
        kind: super::GroupErrorKind::Cancelled,
        name: name.clone(),
        failures: Vec::new(),
        was_stopped: false,
        was_late: false,
        dropped: 0,
    }
}

impl<'e> Members<'e> {
    /// Adds a member and returns its answer at once; it begins when the limit
    /// allows. A failure stops the group, whether or not the answer is read;
    /// cancelling the answer drops the member and is no failure.
    ///
    /// # Errors
    ///
    /// [`Refused`], with the future inside and not begun, if the group has
    /// ended or is being stopped.
    pub fn add<T, E, F>(&self, future: F) -> Result<Answer<T>, Refused<Pin<Box<F>>>>
    where
        F: Future<Output = Result<T, E>> + Send + 'e,
        T: Send + 'e,
        E: Into<BoxError> + 'e,
    {
        let shared = &self.shared;
        let mut inbox = lock(&shared.inbox);
        if inbox.is_closed {
            drop(inbox);
            return Err(Refused { work: Box::pin(future), reason: Reason::Closed });
        }
        let number = shared.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let (promise, answer) = Answer::pending(shared.name.clone(), number);
        let time = shared.timeout.map(|timeout| (shared.clock.clone(), timeout));
        let owed = Owed { promise: Some(promise), name: shared.name.clone(), number };
        inbox.added.push_back(Box::pin(run(future, time, owed)));
        shared.unfinished.fetch_add(1, Ordering::SeqCst);
        let group = inbox.group.take();
        drop(inbox);
        group.into_iter().for_each(Waker::wake);
        Ok(answer)
    }

    /// Waits until fewer members than the limit have not ended, to add no
    /// more than the group can run.
    pub async fn room(&self) {
        let shared = &self.shared;
        let has_room = || shared.unfinished.load(Ordering::SeqCst) < shared.limit;
        shared.changed.until(has_room).await;
    }

    /// Returns how many members have not ended. Never waits.
    pub fn unfinished(&self) -> usize {
        self.shared.unfinished.load(Ordering::SeqCst)
    }
}

impl Clone for Members<'_> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl fmt::Debug for Members<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Members")
            .field("name", &self.shared.name)
            .field("unfinished", &self.unfinished())
            .finish_non_exhaustive()
    }
}

/// The life of a member that was added.
async fn run<T, E, F>(future: F, time: Option<(Clock, Duration)>, owed: Owed<T>) -> Option<Failure>
where
    F: Future<Output = Result<T, E>>,
    T: Send,
    E: Into<BoxError>,
{
    let promise = owed.promise.as_ref().expect("it is taken at the end");
    if !promise.start() {
        return None;
    }
    let ended = {
        let work = pin!(within(future, time));
        match first(work, promise.cancelled()).await {
            Either::First(result) => result,
            Either::Second(()) => Err(Fault::new(FailureKind::Cancelled, "it was cancelled")),
        }
    };
    owed.end(ended)
}

/// The answer that a member owes, also if it is dropped.
struct Owed<T> {
    promise: Option<Promise<T>>,
    name: Arc<str>,
    number: u64,
}

impl<T> Owed<T> {
    fn failure(&self, fault: Fault) -> Failure {
        Failure::new(ItemId::of_source(self.number), self.name.clone(), 1, fault)
    }

    fn end(mut self, result: Result<T, Fault>) -> Option<Failure> {
        let outcome: Outcome<T> = result.map_err(|fault| self.failure(fault));
        let failure = outcome.as_ref().err().cloned();
        if let Some(promise) = self.promise.take() {
            promise.end_as(outcome);
        }
        failure
    }
}

impl<T> Drop for Owed<T> {
    fn drop(&mut self) {
        if let Some(promise) = self.promise.take()
            && promise.start()
        {
            let fault = Fault::new(FailureKind::Cancelled, "its group was stopped");
            promise.end_as(Err(self.failure(fault)));
        }
    }
}

impl<'e> Shared<'e> {
    fn polled_by(&self, waker: &Waker) {
        let before = lock(&self.inbox).group.replace(waker.clone());
        drop(before);
    }

    /// Starts what was added, as far as the limit allows.
    fn start(&self, running: &mut FuturesUnordered<Added<'e>>) {
        let room = self.limit.saturating_sub(running.len());
        let mut inbox = lock(&self.inbox);
        let few = room.min(inbox.added.len());
        running.extend(inbox.added.drain(..few));
    }

    fn ended(&self) {
        self.unfinished.fetch_sub(1, Ordering::SeqCst);
        self.changed.tell();
    }

    fn is_empty(&self) -> bool {
        lock(&self.inbox).added.is_empty()
    }

    fn close_if_empty(&self) -> bool {
        let mut inbox = lock(&self.inbox);
        let is_empty = inbox.added.is_empty();
        inbox.is_closed |= is_empty;
        is_empty
    }
}

/// Refuses members and drops those that have not begun, at the end at the
/// latest: members that were never started may hold handles on the group.
struct Closing<'g, 'e>(&'g Shared<'e>);

impl Closing<'_, '_> {
    fn close(&self) {
        let (added, group) = {
            let mut inbox = lock(&self.0.inbox);
            inbox.is_closed = true;
            (std::mem::take(&mut inbox.added), inbox.group.take())
        };
        self.0.unfinished.fetch_sub(added.len(), Ordering::SeqCst);
        drop((added, group));
        self.0.changed.tell();
    }
}

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        self.close();
    }
}
