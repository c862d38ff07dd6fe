//! Where an item prints what it measured.

use std::{
    fmt::{self, Display},
    io::{self, Write},
    time::{Duration, Instant},
};

use paceline::{BoxError, Command, Stdin, Stdout};

/// How long the Python of an item may take.
const PYTHON_LIMIT: Duration = Duration::from_secs(60);

/// What was measured could not be written.
#[derive(Debug)]
pub struct Unwritten(pub io::Error);

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not write: {}", self.0)
    }
}

impl std::error::Error for Unwritten {}

/// The printed account of an item.
///
/// ```
/// use std::time::Duration;
/// use paceline_chapter::Show;
///
/// let mut out = Vec::new();
/// Show::without_python(&mut out).took("two waits at once", Duration::from_millis(100))?;
/// assert!(String::from_utf8_lossy(&out).contains("two waits at once"));
/// # Ok::<(), paceline_chapter::Unwritten>(())
/// ```
pub struct Show<'o> {
    out: &'o mut dyn Write,
    with_python: bool,
}

impl<'o> Show<'o> {
    /// Prints to `out`, with the Python of the same item where there is a `python3`.
    pub fn new(out: &'o mut dyn Write) -> Self {
        Self { out, with_python: true }
    }

    /// Prints to `out` and runs no Python.
    pub fn without_python(out: &'o mut dyn Write) -> Self {
        Self { out, with_python: false }
    }

    pub(crate) fn title(&mut self, text: &str) -> Result<(), Unwritten> {
        self.line(text)
    }

    /// Writes a line at once: what is measured next may take a while.
    fn line(&mut self, text: &str) -> Result<(), Unwritten> {
        writeln!(self.out, "{text}").and_then(|()| self.out.flush()).map_err(Unwritten)
    }

    /// Prints a sentence.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn say(&mut self, text: &str) -> Result<(), Unwritten> {
        self.line(&format!("  {text}"))
    }

    /// Prints what was found.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn found(&mut self, what: &str, value: impl Display) -> Result<(), Unwritten> {
        self.line(&format!("  {what:<60} {value}"))
    }

    /// Prints how long something took.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn took(&mut self, what: &str, time: Duration) -> Result<(), Unwritten> {
        self.found(what, seconds(time))
    }

    /// Runs the Python of the same item, which prints lines of what and how
    /// long (or what was found) with a tab between, and prints those.
    ///
    /// # Errors
    ///
    /// If the lines cannot be written. A Python that is missing or fails is told in a line.
    pub fn python(&mut self, program: &'static str) -> Result<(), Unwritten> {
        if !self.with_python {
            return Ok(());
        }
        let output = Command::new("python3")
            .arg("-")
            .stdin(Stdin::Bytes(program.as_bytes().into()))
            .stdout(Stdout::Capture)
            .run_timeout(PYTHON_LIMIT, Duration::from_secs(1));
        let checked = output.map_err(BoxError::from).and_then(|output| Ok(output.check()?));
        let text = match checked.and_then(|output| Ok(output.stdout().to_text()?)) {
            Ok(text) => text,
            Err(error) => return self.say(&format!("no comparison with Python: {error}")),
        };
        for line in text.lines() {
            let (what, value) = line.split_once('\t').unwrap_or((line, ""));
            match value.parse() {
                Ok(time) => {
                    self.took(&format!("Python: {what}"), Duration::from_secs_f64(time))?;
                }
                Err(_) => self.found(&format!("Python: {what}"), value)?,
            }
        }
        Ok(())
    }
}

/// Says a time as people do, with three digits that count.
fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds >= 1.0 {
        format!("{seconds:.2} s")
    } else if seconds >= 1e-3 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{:.1} us", seconds * 1e6)
    }
}

/// Runs `work` and returns what it gave and how long it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let output = work();
    (output, started.elapsed())
}

/// Fails unless what was run did what the item is about.
pub(crate) fn expect(is_so: bool, what: &str) -> Result<(), BoxError> {
    if is_so { Ok(()) } else { Err(format!("this did not come out as it must: {what}").into()) }
}

/// A blocking call that takes so long, as a server's answer would.
#[expect(clippy::disallowed_methods, reason = "it stands for work that waits")]
pub(crate) fn wait_for(time: Duration) {
    std::thread::sleep(time);
}
