//! Holds what the documents say of the tree to the tree: paths, links,
//! arrows between crates, and the length of files.
//!
//! Not here: the examples in the documents (`docs.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The parts of the tree that a path in a document may begin with.
const PLACES: [&str; 7] =
    ["crates/", "docs/", "scripts/", "examples/", "benches/", ".ci/", ".config/"];

/// The most lines of code in a file, without comments and blank lines.
const MOST_LINES: usize = 600;

/// The same for tables of cases, which read well at any length.
const MOST_LINES_OF_CASES: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// Returns all files below `place` with this ending, but for what builds and runs leave.
fn files(place: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if name != "target" && name != "work" && name != "out" && name != ".git" {
                found.extend(files(&path, ending));
            }
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found
}

/// Returns the documents, each with its path as people say it.
fn documents() -> Vec<(String, String)> {
    let documents = files(&root(), "md");
    assert!(documents.len() >= 8, "the documents have moved: {documents:?}");
    documents.iter().map(|path| (shown(path), fs::read_to_string(path).unwrap())).collect()
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// Returns what stands in backticks on a line.
fn in_backticks(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

#[test]
fn every_path_named_in_a_document_exists() {
    let mut missing = Vec::new();
    for (document, text) in documents() {
        // In backticks or in a command of a block: whatever looks like one of our paths.
        for word in text.split(|c: char| c.is_whitespace() || "`\"'(),;:|".contains(c)) {
            let path = word.trim_end_matches('.');
            let is_ours = PLACES.iter().any(|place| path.starts_with(place));
            if is_ours && !path.contains(['*', '{']) && !root().join(path).exists() {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "these paths are gone");
}

#[test]
fn every_file_named_under_a_crate_is_in_that_crate() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (mut home, mut missing, mut seen) = (None, Vec::new(), 0);
    for line in text.lines() {
        if line.starts_with("## ") {
            home = in_backticks(line).next().map(|name| root().join("crates").join(name));
            continue;
        }
        let Some(home) = &home else { continue };
        for name in in_backticks(line).filter(|name| name.ends_with(".rs")) {
            seen += 1;
            let places = [home.join("src").join(name), home.join(name), root().join(name)];
            if !places.iter().any(|place| place.exists()) {
                missing.push(format!("{name} in {}", shown(home)));
            }
        }
    }
    assert!(seen > 20, "the page names files by their places in the crate");
    assert_eq!(missing, Vec::<String>::new(), "these files are gone");
}

#[test]
fn every_relative_link_in_a_document_leads_somewhere() {
    let mut broken = Vec::new();
    for (document, text) in documents() {
        let folder = root().join(&document).parent().unwrap().to_path_buf();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(&document) } else { folder.join(file) };
            let leads = match fs::read_to_string(&path) {
                Ok(text) => heading.is_empty() || headings(&text).contains(heading),
                Err(_) => heading.is_empty() && path.is_dir(),
            };
            if !leads {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new(), "these links lead nowhere");
}

/// Returns the names under which the headings of a document can be linked to.
fn headings(text: &str) -> BTreeSet<String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    titles
        .map(|line| {
            let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
            title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
        })
        .collect()
}

#[test]
fn the_arrows_drawn_are_those_of_the_manifests() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let drawn: BTreeMap<String, BTreeSet<String>> = text
        .lines()
        .filter_map(|line| line.split_once(" ->"))
        .map(|(from, to)| {
            let to = to.split(',').map(|name| name.trim().to_owned());
            (from.trim().to_owned(), to.filter(|name| !name.is_empty()).collect())
        })
        .collect();
    assert_eq!(drawn, arrows(), "left: ARCHITECTURE.md, right: the manifests");
}

/// Returns which crates of the workspace each of them uses, its tests too.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let manifests: Vec<String> = files(&root(), "toml")
        .into_iter()
        .filter(|path| path.ends_with("Cargo.toml") && path.parent() != Some(&root()))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let name_of = |text: &str| text.split('"').nth(1).unwrap().to_owned();
    let names: BTreeSet<String> = manifests
        .iter()
        .map(|text| name_of(text.lines().find(|line| line.starts_with("name = ")).unwrap()))
        .collect();
    assert!(names.contains("paceline"), "the manifests have moved: {names:?}");
    manifests
        .iter()
        .map(|text| {
            let (mut in_dependencies, mut name, mut uses) = (false, String::new(), BTreeSet::new());
            for line in text.lines() {
                if line.starts_with('[') {
                    in_dependencies = line.ends_with("dependencies]");
                } else if line.starts_with("name = ") && name.is_empty() {
                    name = name_of(line);
                } else if in_dependencies {
                    let used = line.split(['.', ' ', '=']).next().unwrap_or_default();
                    uses.extend(names.get(used).cloned());
                }
            }
            (name, uses)
        })
        .collect()
}

#[test]
fn no_file_is_so_long_that_nobody_reads_it() {
    let mut long = Vec::new();
    for path in ["crates", "benches"].iter().flat_map(|place| files(&root().join(place), "rs")) {
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().map(str::trim);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//")).count();
        let name = shown(&path);
        let are_cases = name.ends_with("/tests.rs") || name.contains("/tests/");
        if lines >= if are_cases { MOST_LINES_OF_CASES } else { MOST_LINES } {
            long.push(format!("{name}: {lines}"));
        }
    }
    assert_eq!(long, Vec::<String>::new(), "look for a seam in these files");
}
