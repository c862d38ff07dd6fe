//! The statuses with which the program ends: a contract with scripts.

use paceline::Summary;

/// Every item is accounted for, and ok.
pub(crate) const OK: u8 = 0;

/// Some items failed.
pub(crate) const FAILED: u8 = 1;

/// The command line or the pipeline file is wrong, or an input is missing;
/// nothing was run.
pub(crate) const USAGE: u8 = 2;

/// Items or input are left unfinished, none lost.
pub(crate) const UNFINISHED: u8 = 3;

/// Paceline itself could not go on.
pub(crate) const TROUBLE: u8 = 4;

/// Returns the status of a run that ended by itself.
pub(crate) fn of(summary: &Summary) -> u8 {
    if summary.unfinished > 0 || !summary.source_ended {
        UNFINISHED
    } else if summary.failed > 0 {
        FAILED
    } else {
        OK
    }
}
