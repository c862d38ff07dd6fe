//! What a controller is told, what it sees, and what it decides.

use std::{fmt, time::Duration};

use super::{measure::Estimate, solve::Bound};

/// What may be decided about a stage.
///
/// ```
/// use paceline::pace::Bounds;
///
/// assert!(Bounds::fixed(3).is_fixed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The workers it begins with.
    pub seed: usize,
    /// The most it may have.
    pub most: usize,
    /// Whether nothing is decided about it.
    pub is_fixed: bool,
}

impl Bounds {
    /// A stage whose workers someone else has decided on; the source and the
    /// sink are such, with one.
    #[must_use]
    pub const fn fixed(workers: usize) -> Self {
        Self { seed: workers, most: workers, is_fixed: true }
    }

    /// Futures on an event loop: one more costs little.
    #[must_use]
    pub const fn io() -> Self {
        Self { seed: 4, most: 512, is_fixed: false }
    }

    /// Threads that may wait.
    #[must_use]
    pub const fn blocking() -> Self {
        Self { seed: 4, most: 128, is_fixed: false }
    }

    /// Threads that compute, where `sharing` stages share the cores.
    #[must_use]
    pub fn cpu(cores: usize, sharing: usize) -> Self {
        Self { seed: (cores / sharing.max(1)).max(1), most: 2 * cores.max(1), is_fixed: false }
    }

    /// Child processes, where `sharing` stages share the cores.
    #[must_use]
    pub fn command(cores: usize, sharing: usize) -> Self {
        // 32: children that wait for a network are worth it on a small machine too.
        let most = (4 * cores).max(32);
        Self { seed: (cores / sharing.max(1)).max(1), most, is_fixed: false }
    }

    /// Long-lived worker processes: they are there from the beginning, for their start takes time.
    #[must_use]
    pub fn serve(cores: usize) -> Self {
        Self { seed: cores.max(1), ..Self::command(cores, 1) }
    }

    /// With no more than `most`.
    #[must_use]
    pub fn at_most(self, most: usize) -> Self {
        let most = most.max(1);
        Self { seed: self.seed.min(most), most, ..self }
    }
}

/// What a controller is told once.
///
/// ```
/// use paceline::pace::{Bounds, Settings};
///
/// let settings = Settings::new(2.0, vec![Bounds::fixed(1)]);
/// assert_eq!(settings.cores, 2.0);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// How many cores may be used.
    pub cores: f64,
    /// The stages from the source to the sink, both among them.
    pub stages: Vec<Bounds>,
    /// Where the random lengths of the intervals begin: two programs on one
    /// machine must not move in step.
    pub random: u64,
}

impl Settings {
    /// Settings for so many cores and these stages.
    #[must_use]
    pub const fn new(cores: f64, stages: Vec<Bounds>) -> Self {
        Self { cores, stages, random: 1 }
    }

    /// Begins the random numbers elsewhere.
    #[must_use]
    pub const fn random(mut self, random: u64) -> Self {
        self.random = random;
        self
    }
}

/// A change of a stage's number of workers.
///
/// ```
/// use paceline::pace::{Bound, Decision, Why};
///
/// let decision = Decision { stage: 1, from: 4, to: 8, why: Why::Needed(Bound::Cores) };
/// assert_eq!(decision.why.to_string(), "as many as keep the cores busy");
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decision {
    /// The stage's place, the source being 0.
    pub stage: usize,
    /// How many workers it had.
    pub from: usize,
    /// How many it gets.
    pub to: usize,
    /// What for.
    pub why: Why,
}

/// Why a stage gets another number of workers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Why {
    /// The rate that this bound allows takes so many.
    Needed(Bound),
    /// Chance leaves what bounds the rate idle at times: more against it.
    Slack,
    /// More are there than the rate takes.
    Idle,
    /// What it waits for does no more with further ones.
    Full,
    /// What it waits for told it to come back later.
    Refused,
    /// A look whether fewer do as well.
    Probe,
    /// Fewer did not do as well.
    NoProbe,
    /// Less slack is enough.
    Trim,
    /// Less slack was not enough.
    NoTrim,
    /// The last change made it slower.
    Slower,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Needed(Bound::Cores) => "as many as keep the cores busy",
            Self::Needed(Bound::Stage(_)) => "as many as the rate takes",
            Self::Slack => "more against chance",
            Self::Idle => "fewer do as much",
            Self::Full => "what it waits for gives no more",
            Self::Refused => "what it waits for refused some",
            Self::Probe => "to see whether fewer do as well",
            Self::NoProbe => "fewer did not do as well",
            Self::Trim => "to see whether less slack is enough",
            Self::NoTrim => "less slack was not enough",
            Self::Slower => "the last change made it slower",
        })
    }
}

/// What was seen over a few looks, and what was made of it.
///
/// ```
/// use std::time::Duration;
/// use paceline::pace::{Bounds, Controller, Settings, Snapshot};
///
/// let mut controller = Controller::new(Settings::new(2.0, vec![]));
/// let look = controller.look(&Snapshot::default());
/// assert!(look.survey.is_none(), "one look says nothing yet");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// When it ended.
    pub at: Duration,
    /// How long it was.
    pub span: Duration,
    /// What the stages were like; `None` for one that had nothing to do.
    pub estimates: Vec<Option<Estimate>>,
    /// The workers they had.
    pub workers: Vec<usize>,
    /// Items of the source that went through in a second.
    pub rate: f64,
    /// Items of the source in a second that should be possible.
    pub possible: f64,
    /// What bounds that.
    pub bound: Option<Bound>,
    /// Cores in use.
    pub cores_used: f64,
    /// Cores that there are for us.
    pub cores: f64,
    /// How much the stages get beyond the mean number in service.
    pub slack: f64,
    /// Which stages' outsides give no more.
    pub full: Vec<bool>,
    /// Why nothing is decided, if that is so.
    pub held: Option<&'static str>,
    /// What was decided.
    pub decisions: Vec<Decision>,
    /// CPU time that looking and deciding have taken in this run so far, by
    /// the clock of the thread that does it; none if nobody has measured it.
    pub cost: Duration,
}

/// What came of a look.
///
/// See [`Survey`] for an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Look {
    /// What is to be changed.
    pub decisions: Vec<Decision>,
    /// How long to wait before the next look.
    pub next: Duration,
    /// What was seen, when a survey has ended.
    pub survey: Option<Survey>,
}
