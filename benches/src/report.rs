//! Shows what came of the contests, as the page that `--write` keeps.
#![expect(clippy::print_stdout, reason = "the report is what the program is for")]

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command, thread};

use crate::harness::{Bar, Limit, Options, Standing};

/// The sections that were measured in this run.
pub(crate) struct Report {
    conditions: String,
    sections: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let conditions = format!(
            "Measured on {} {} rounds{}.",
            machine(),
            options.rounds,
            if options.quick { ", with a tenth of the work" } else { "" },
        );
        Self { conditions, sections: Vec::new() }
    }

    /// Adds a group: a table for each set of contestants, and its bars.
    pub(crate) fn add(&mut self, name: &str, about: &str, standings: &[Standing]) {
        let mut part = format!("## {name}\n\n{}\n\n{about}\n", self.conditions);
        for alike in standings.chunk_by(|a, b| a.names == b.names) {
            part.push('\n');
            add_table(&mut part, alike);
        }
        let mut absent: Vec<_> = standings.iter().flat_map(|s| s.absent.clone()).collect();
        absent.sort_unstable();
        absent.dedup();
        if !absent.is_empty() {
            _ = writeln!(part, "\nNot on this machine: {}.", absent.join(", "));
        }
        let bars = standings.iter().flat_map(|s| s.bars.iter().map(move |b| (s, b)));
        // Without the one to compare with, a bar says nothing.
        let bars: Vec<_> =
            bars.filter_map(|(s, bar)| measured(s, bar).map(|is| (s, bar, is))).collect();
        if !bars.is_empty() {
            part.push_str("\n| bar | is | may be | |\n|---|---|---|---|\n");
        }
        for (standing, bar, (value, most)) in bars {
            let verdict = if value <= most { "met" } else { "**missed**" };
            _ = writeln!(
                part,
                "| {} | {} | {} | {verdict} |",
                describe(standing, bar),
                figure(value),
                figure(most)
            );
        }
        println!("{part}");
        self.sections.push((name.to_owned(), part));
    }

    /// Ends the report, and keeps its sections if asked to: those of groups
    /// that were not measured this time stay as they are.
    pub(crate) fn finish(self, write: bool, order: &[&str]) {
        if !write {
            return;
        }
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, renewed(&before, self.sections, order)).expect("the page can be written");
    }
}

/// Gives the page with these sections in the place of those of the same name.
fn renewed(page: &str, measured: Vec<(String, String)>, order: &[&str]) -> String {
    let mut sections: BTreeMap<String, String> = page
        .split("\n## ")
        .skip(1)
        .map(|section| {
            let name = section.lines().next().unwrap_or_default().to_owned();
            (name, format!("## {}\n", section.trim_end()))
        })
        .collect();
    sections.extend(measured);
    let sections: Vec<&String> = order.iter().filter_map(|name| sections.get(*name)).collect();
    let count = |verdict: &str| -> usize {
        sections.iter().map(|section| section.matches(verdict).count()).sum()
    };
    let (met, missed) = (count("| met |"), count("| **missed** |"));
    let mut page = format!("{HEAD}\n{met} of {} bars are met.\n", met + missed);
    for section in sections {
        page.push('\n');
        page.push_str(section);
    }
    page.push_str(AGAIN);
    page
}

const HEAD: &str = "\
# Performance

Written by `cargo run --release -p paceline-benches -- --write`; not edited by hand.

Each contestant ran in each round, in turn with the others. A cell is the median, and in brackets the median over the rounds of paceline's value to this one: below 1 paceline is ahead. Whether a bar is met is decided by the ratio as it was measured; within a few percent of the bar another run may say otherwise.
";

const AGAIN: &str = "
## Again

    cargo run --release -p paceline-benches               # everything, printed
    cargo run --release -p paceline-benches -- stages     # one group
    cargo run --release -p paceline-benches -- --quick    # does it all run?
    cargo run --release -p paceline-benches -- --write    # this page; with groups, their sections

The peers are built from their packages in the same build, with the same profile. Every run checks
its result (counts and sums) before its time counts.
";

/// A row for each contest and measure, a column for each contestant.
fn add_table(part: &mut String, standings: &[Standing]) {
    let names = &standings[0].names;
    _ = writeln!(part, "| | {} |", names.join(" | "));
    _ = writeln!(part, "|---|{}", "---:|".repeat(names.len()));
    for standing in standings {
        for (index, measure) in standing.measures.iter().enumerate() {
            _ = write!(part, "| {} |", row_name(standing, index));
            for (place, name) in names.iter().enumerate() {
                let median = standing.median(name, index).unwrap_or(f64::NAN);
                let ratio = standing.ratio(names[0], &[name], index);
                let ratio = ratio.filter(|ratio| place > 0 && ratio.is_finite());
                let ratio = ratio.map(|ratio| format!(" ({})", figure(ratio))).unwrap_or_default();
                _ = write!(part, " {} {}{ratio} |", figure(median), measure.unit);
            }
            part.push('\n');
        }
    }
}

fn row_name(standing: &Standing, measure: usize) -> String {
    match standing.measures[measure].name {
        "" => standing.title.clone(),
        name => format!("{}: {name}", standing.title),
    }
}

/// What a bar is about and what it may be, if those that it names took part.
fn measured(standing: &Standing, bar: &Bar) -> Option<(f64, f64)> {
    Some(match &bar.limit {
        Limit::Times(most, peers) => (standing.ratio(bar.of, peers, bar.measure)?, *most),
        Limit::Above(most, peer) => (standing.above(bar.of, peer, bar.measure)?, *most),
        Limit::AtMost(most) => (standing.median(bar.of, bar.measure)?, *most),
    })
}

fn describe(standing: &Standing, bar: &Bar) -> String {
    let row = row_name(standing, bar.measure);
    match &bar.limit {
        Limit::Times(_, peers) if peers.len() == 1 => {
            format!("{row}: {} to {}", bar.of, peers[0])
        }
        Limit::Times(..) => format!("{row}: {} to the best peer", bar.of),
        Limit::Above(_, peer) => {
            let unit = standing.measures[bar.measure].unit;
            format!("{row}: {} above {peer}, in {unit}", bar.of)
        }
        Limit::AtMost(_) => {
            format!("{row}: {}, in {}", bar.of, standing.measures[bar.measure].unit)
        }
    }
}

/// Three digits that mean something.
fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!(
        "{}, {cores} cores; Linux {}; {}; {}. Load when it began, of all programs: {}.",
        model.map_or("an unknown processor", |(_, model)| model),
        read("/proc/sys/kernel/osrelease").trim(),
        said("rustc", &["--version"]).unwrap_or_default(),
        said("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default(),
        read("/proc/loadavg").split_whitespace().next().unwrap_or("unknown"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_measured_again_replaces_its_section_and_no_other() {
        let section = |name: &str, text: &str| (name.to_owned(), format!("## {name}\n\n{text}\n"));
        let first = vec![section("queue", "| a | met |"), section("each", "| b | **missed** |")];
        let page = renewed("", first, &["queue", "stages", "each"]);
        assert!(page.contains("1 of 2 bars are met."), "{page}");
        let page =
            renewed(&page, vec![section("each", "| b | met |")], &["queue", "stages", "each"]);
        assert!(page.contains("2 of 2 bars are met."), "{page}");
        assert_eq!(page.matches("\n## ").count(), 3, "{page}");
        assert_eq!(renewed(&page, Vec::new(), &["queue", "stages", "each"]), page);
    }
}
