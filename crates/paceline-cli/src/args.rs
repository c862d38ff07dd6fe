//! The one definition of the command line, from which help, completions and
//! the man page come as well.

use std::{ffi::OsString, path::PathBuf, str::FromStr};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use paceline::Halt;

/// Concurrent pipelines that find their own pace.
///
/// You say what each step does; paceline decides how to run it at once, keeps
/// every step supplied and none flooded, loses nothing, leaves nothing
/// running, and tells you where the time went.
#[derive(Debug, Parser)]
#[command(name = "paceline", version, arg_required_else_help = true, after_help = EXIT_STATUS)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_STATUS: &str = "\
Exit status:
  0      every item is accounted for, and ok
  1      some items failed
  2      the command line or a file is wrong; nothing was run
  3      items or input are left unfinished, none lost
  4      paceline itself could not go on
  128+n  ended by signal n, after the clean-up";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Push items through the stages of a pipeline file
    Run(Run),
    /// Validate a pipeline file and show what it would do; run nothing
    Check(Check),
    /// Print a completion script for a shell
    Completions {
        /// The shell that is to complete
        shell: Shell,
    },
    /// Print the manual page
    Man,
}

#[derive(Debug, Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct Run {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub(crate) file: PathBuf,
    /// Items that take the place of the file's source
    #[arg(value_name = "INPUT")]
    pub(crate) inputs: Vec<OsString>,
    /// Print one JSON object an item on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Leave out the display, the summary and the line for each failed item
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// When to show the live display on standard error
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) progress: When,
    /// Stop when items fail: `soon` lets running jobs finish, `now` stops
    /// them; after N failures, or when N% of the items answered have failed
    #[arg(long, value_name = "soon|now[,fail=N|N%]")]
    pub(crate) halt: Option<HaltAt>,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml")]
    pub(crate) file: PathBuf,
    /// Items that take the place of the file's source
    #[arg(value_name = "INPUT")]
    pub(crate) inputs: Vec<OsString>,
}

/// When the display is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// On a terminal
    Auto,
    Always,
    Never,
}

/// The value of `--halt`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct HaltAt(pub(crate) Halt);

impl FromStr for HaltAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (how, when) = match text.split_once(',') {
            Some((how, when)) => (how, Some(when)),
            None => (text, None),
        };
        let halt = match how {
            "soon" => Halt::soon(),
            "now" => Halt::now(),
            _ => return Err(format!("`{how}` is neither `soon` nor `now`")),
        };
        let Some(when) = when else { return Ok(Self(halt)) };
        let number = when
            .strip_prefix("fail=")
            .ok_or_else(|| format!("`{when}` is not `fail=N` or `fail=N%`"))?;
        if let Some(percent) = number.strip_suffix('%') {
            return match percent.parse::<f64>() {
                Ok(percent) if percent > 0.0 && percent <= 100.0 => {
                    Ok(Self(halt.at_percent(percent)))
                }
                _ => Err(format!("`{number}` is no percentage over 0 and up to 100")),
            };
        }
        match number.parse::<u64>() {
            Ok(failures) if failures > 0 => Ok(Self(halt.after(failures))),
            _ => Err(format!("`{number}` is no whole number of at least 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn halts_are_read_in_every_form() {
        let halt = |text: &str| text.parse::<HaltAt>().map(|HaltAt(halt)| halt);
        assert_eq!(halt("soon"), Ok(Halt::soon()));
        assert_eq!(halt("now,fail=3"), Ok(Halt::now().after(3)));
        assert_eq!(halt("soon,fail=12.5%"), Ok(Halt::soon().at_percent(12.5)));
        for wrong in ["later", "now,3", "soon,fail=0", "soon,fail=0%", "now,fail=101%", "now,fail="]
        {
            assert!(halt(wrong).is_err(), "{wrong}");
        }
    }
}
