//! Durations as users write them: `250ms`, `30s`, `5m`, `1h`, `1.5s`, `30`.

use std::time::Duration;

/// Reads a duration; a plain number is seconds.
///
/// # Errors
///
/// The reason in words.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "ms" => 0.001,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{text}` is no duration")),
    };
    // `.` and `1.2.3` are no numbers to the parser either.
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no duration"))?;
    from_seconds(number * seconds).ok_or_else(|| format!("`{text}` is too long a duration"))
}

/// Gives a duration of this many seconds, if it can be one: up to a thousand years.
pub(super) fn from_seconds(seconds: f64) -> Option<Duration> {
    const LONGEST: f64 = 1000.0 * 365.25 * 86400.0;
    if seconds <= LONGEST { Duration::try_from_secs_f64(seconds).ok() } else { None }
}

/// What to write instead.
pub(crate) const DURATION_HINT: &str =
    "write `250ms`, `30s`, `5m`, `1h` or `1.5s`; a plain number is seconds";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, milliseconds) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1.5s", 1500),
            ("2", 2000),
            ("0.25", 250),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1 s", "1d", "1e3", "inf", "1.2.3s", ".", "5M", "9999999999h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
