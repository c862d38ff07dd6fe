//! How a run finds its numbers of workers: measure, solve, apply, verify, trim.
//!
//! The [`Controller`] is a function of [`Snapshot`]s and nothing else: it reads
//! no clock, starts no thread and prints nothing. So the same code runs in a
//! pipeline whose workers are `auto`, in property tests, and in the simulator
//! of `crates/paceline-simulator`, where it is held against the best numbers
//! that a search can find.
//!
//! A run needs none of this: it is for those who host workers elsewhere, and
//! for observers that want to see what was [measured](Survey) and
//! [decided](Decision).
//!
//! ```
//! use std::time::Duration;
//! use paceline::pace::{Bounds, Controller, Counts, Settings, Snapshot};
//!
//! // One stage whose items wait 10 ms each, behind a source that is never empty.
//! let stage = Bounds { most: 64, ..Bounds::io() };
//! let mut controller = Controller::new(Settings::new(2.0, vec![Bounds::fixed(1), stage]));
//! let (mut workers, mut done) = (4_u32, 0.0);
//! for tick in 0..40 {
//!     let at = Duration::from_millis(50) * tick;
//!     let served = Counts { workers: workers as usize, done: done as u64, entered: done as u64,
//!         busy: Duration::from_millis(10).mul_f64(done), cpu: Some(Duration::ZERO),
//!         waiting_for_core: Some(Duration::ZERO), ..Counts::default() };
//!     let source = Counts { workers: 1, entered: done as u64, done: done as u64,
//!         cpu: Some(Duration::ZERO), ..Counts::default() };
//!     let stages = vec![source, served];
//!     for decision in controller.look(&Snapshot { at, stages, ..Snapshot::default() }).decisions {
//!         workers = decision.to as u32;
//!     }
//!     done += 5.0 * f64::from(workers);
//! }
//! assert_eq!(workers, 64);
//! ```

mod control;
mod decision;
mod measure;
mod outside;
mod refusals;
mod solve;
mod verify;

pub use control::Controller;
pub use decision::{Bounds, Decision, Look, Settings, Survey, Why};
pub use measure::{Counts, Estimate, Memory, Snapshot};
pub use solve::{Bound, Demand, Solution, solve};
