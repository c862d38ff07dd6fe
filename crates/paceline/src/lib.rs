//! Concurrent pipelines that find their own pace.
//!
//! You say what each step does; paceline decides how to run it at once, keeps
//! every step supplied and none flooded, loses nothing, leaves nothing
//! running, and tells where the time went.
//!
//! ```
//! use std::time::Duration;
//! use paceline::{Pipeline, Retry};
//!
//! # async fn fetch(url: String) -> Result<Vec<u8>, std::io::Error> { Ok(url.into_bytes()) }
//! # fn fit(photo: Vec<u8>) -> Result<Vec<u8>, std::io::Error> { Ok(photo) }
//! # fn put(thumb: Vec<u8>) -> Result<(), std::io::Error> { drop(thumb); Ok(()) }
//! # let urls = ["a", "b"].map(String::from);
//! let summary = Pipeline::from_iter(urls)
//!     .io("download", fetch)
//!     .cpu("resize", fit)
//!     .blocking("upload", put)
//!     .workers(8)
//!     .timeout(Duration::from_secs(30))
//!     .retry(Retry::times(3).backoff(Duration::from_millis(200)))
//!     .run()?;
//! assert_eq!(summary.account(), "in 2 = ok 2 + failed 0 + unfinished 0");
//! # Ok::<(), paceline::Error>(())
//! ```
//!
//! # The parts
//!
//! A [`Pipeline`] is a chain of stages. Each has a kind that says what hosts
//! its work ([`io`](Pipeline::io), [`cpu`](Pipeline::cpu),
//! [`blocking`](Pipeline::blocking), [`command`](Pipeline::command),
//! [`serve`](Pipeline::serve)), a
//! number of workers, and a bounded queue before it, so that a slow stage
//! slows down those before it and memory stays bounded. The compiler checks
//! that each stage takes what the one before gives.
//!
//! A failure is data: an item whose work did not succeed is a [`Failure`] in
//! the [`Summary`] and goes past the later stages untouched. An [`Error`] is
//! paceline's own trouble.
//!
//! # When stopped
//!
//! [`Stop`] drains or cancels a run from anywhere. A panic in a stage's work
//! is a failure of its item; one elsewhere (in the sink, an observer, a
//! value's drop) cancels the run and goes on to the caller at its end. In every ending the
//! account adds up: `taken = ok + failed + unfinished`, for each stage and in
//! total; the engine checks it. A run ends before its call returns, so its
//! functions may borrow, and no thread outlives it.

mod account;
mod answer;
mod answers;
mod chunk;
mod clock;
mod crew;
mod deadline;
mod error;
mod event;
mod event_loop;
mod executor;
mod failure;
mod group;
mod host;
mod item;
mod journal;
mod meter;
mod monitor;
mod node;
mod outlet;
pub mod pace;
mod pipeline;
mod process_pool;
mod retry;
mod rounds;
mod run;
mod runnable;
mod serve;
mod stage;
mod stop;
mod summary;
mod sync;
mod watch;
mod worker;
mod writer;

pub use account::Halt;
pub use answer::{Answer, Canceller, Outcome, Promise};
pub use answers::{AsCompleted, Unfinished, Until, Waited, as_completed, wait};
pub use clock::Clock;
pub use deadline::{Deadline, Expired};
pub use error::{Error, ErrorKind};
pub use event::{Observer, StageEnded, StageState};
pub use event_loop::{
    EventLoop, Leftover, LoopHandle, off_loop,
    runner::{Ended, Runner},
};
pub use executor::{
    PoolScope, ThreadPool, ThreadPoolBuilder,
    map::{Map, MapUnordered},
    submit::{Reason, Refused, Submitter},
};
pub use failure::{BoxError, Failure, FailureKind, Fault};
pub use group::{Group, GroupError, GroupErrorKind, members::Members};
pub use item::{Ending, ItemId};
pub use journal::{Answered, Journal};
pub use monitor::{Monitor, Progress, StageProgress};
/// What a stage of kind `command` runs, and what it gives.
pub use paceline_process::{Chain, Command, Output, Stderr, Stdin, Stdout};
pub use pipeline::Pipeline;
pub use process_pool::{Mapped, ProcessPool, ProcessPoolBuilder};
pub use retry::Retry;
pub use rounds::{Rounds, Stopped};
pub use run::fan_in::Part;
pub use run::pacer::Bounded;
pub use runnable::{Runnable, Running};
pub use serve::{Json, Wire, serve, serve_after};
pub use stage::{Kind, Workers, cores};
pub use stop::{Stop, StopLevel};
pub use summary::{StageSummary, Summary};
pub use watch::SlowPoll;
pub use worker::{
    Attempt,
    command::Job,
    function::is_cancelled,
    serve::{Exchange, Form, Framing, RemoteError, Serve},
};
pub use writer::Writer;

/// Prepares this program to leave nothing of its jobs behind: the first line of `main`.
///
/// Without it, ending a child's process group is all that is done. With it,
/// orphans of jobs come to this program and are ended with their job, and a
/// guard (this executable, started a second time) ends all jobs if this
/// program is killed. See [`paceline_process::init`] for what it changes.
///
/// ```no_run
/// fn main() -> Result<(), paceline::Error> {
///     paceline::init();
///     // pipelines with `command` stages
///     Ok(())
/// }
/// ```
pub fn init() {
    paceline_process::init(paceline_process::Options::default());
}
