//! Holds the tables of requirements and behaviours to the tests that show them.
//!
//! A test is named after what it shows: `r52_6_...` is about requirement
//! R52.6, `q12_...` about behaviour Q 12. `docs/requirements.md` lists them;
//! with `PACELINE_UPDATE_DOCS=1` this test writes the table anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The numbered requirements, by how much they matter: P0 is the item itself,
/// P1 what makes it real software, P2 what goes beyond.
const REQUIREMENTS: [(&str, &str); 3] = [
    (
        "P0",
        "52.1-10 53.1-5 54.1-3 55.1-12 56.1-6 57.1-3 58.1-6 59.1-6 60.1-5 61.1-5 62.1-7 63.1-6 64.1-8 X.1-4",
    ),
    (
        "P1",
        "52.11-16 53.6-7 54.4-6 55.13-17 56.7-8 57.4-5 58.7-8 59.7-9 60.6-7 61.6-8 62.8-10 63.7-9 64.9-13 X.5-5",
    ),
    ("P2", "52.17-17 53.8-8 54.7-7 55.18-18 57.6-6"),
];

const PAGE: &str = "docs/requirements.md";
const BEGINNING: &str =
    "<!-- The table is written by crates/paceline-tests/tests/requirements.rs -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_path_buf()
}

/// Returns the names of all tests, with the file that each is in.
fn tests() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let shown = path.strip_prefix(root()).unwrap().display().to_string();
                found.extend(names_in(&text).map(|name| (name, shown.clone())));
            }
        }
    }
    found
}

/// Returns the functions that carry an attribute with `test` in it.
fn names_in(text: &str) -> impl Iterator<Item = String> {
    let mut is_test = false;
    text.lines().filter_map(move |line| {
        let line = line.trim();
        if line.starts_with("#[") && line.contains("test") {
            is_test = true;
        }
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
        let name = name.split(['(', '<']).next().unwrap().to_owned();
        std::mem::take(&mut is_test).then_some(name)
    })
}

/// Returns each requirement with its priority, in order.
fn requirements() -> BTreeMap<(String, u32), &'static str> {
    let mut all = BTreeMap::new();
    for (priority, lists) in REQUIREMENTS {
        for list in lists.split(' ') {
            let (item, range) = list.split_once('.').unwrap();
            let (first, last) = range.split_once('-').unwrap();
            for number in first.parse::<u32>().unwrap()..=last.parse().unwrap() {
                all.insert((item.to_owned(), number), priority);
            }
        }
    }
    all
}

#[test]
fn the_table_of_requirements_names_the_tests_that_there_are() {
    let tests = tests();
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let (head, _) = page.split_once(BEGINNING).expect("the page has the mark");
    let mut table = String::from("\n\n| requirement | | tests | where |\n|---|---|---|---|\n");
    let (mut without, mut claimed) = (Vec::new(), BTreeSet::new());
    for ((item, number), priority) in requirements() {
        let prefix = format!("r{}_{number}_", item.to_lowercase());
        let shown: BTreeMap<&str, &str> = tests
            .iter()
            .filter(|(name, _)| is_about(name, &prefix))
            .map(|(name, file)| (name.as_str(), file.as_str()))
            .collect();
        claimed.extend(shown.keys().map(|name| (*name).to_owned()));
        let id = format!("R{item}.{number}");
        if shown.is_empty() && !head.contains(&format!("\n- {id}: ")) {
            without.push(id.clone());
        }
        let names: Vec<String> = shown.keys().map(|name| format!("`{name}`")).collect();
        let files: BTreeSet<String> = shown.values().map(|file| format!("`{file}`")).collect();
        let files: Vec<String> = files.into_iter().collect();
        table.push_str(&format!(
            "| {id} | {priority} | {} | {} |\n",
            if names.is_empty() { "see above".to_owned() } else { names.join("<br>") },
            files.join("<br>")
        ));
    }
    assert_eq!(
        without,
        Vec::<String>::new(),
        "no test is named after these, nor is a reason given"
    );
    let strays: Vec<&String> = tests
        .iter()
        .map(|(name, _)| name)
        .filter(|name| is_about_a_requirement(name) && !claimed.contains(*name))
        .collect();
    assert_eq!(strays, Vec::<&String>::new(), "these tests name a requirement that is none");
    let expected = format!("{head}{BEGINNING}{table}");
    if std::env::var_os("PACELINE_UPDATE_DOCS").is_some() {
        fs::write(root().join(PAGE), expected).unwrap();
        return;
    }
    assert!(
        page == expected,
        "{PAGE} is out of date: run this test with PACELINE_UPDATE_DOCS=1 to write it"
    );
}

/// Says whether a test's name has this at its beginning, alone or after others of the kind.
fn is_about(name: &str, prefix: &str) -> bool {
    name.starts_with(prefix) || name.contains(&format!("_{prefix}"))
}

fn is_about_a_requirement(name: &str) -> bool {
    let Some(rest) = name.strip_prefix('r') else { return false };
    let mut parts = rest.split('_');
    let item = parts.next().unwrap_or_default();
    let number = parts.next().unwrap_or_default();
    let is_item = item == "x" || item.parse::<u32>().is_ok_and(|item| item >= 52);
    is_item && number.parse::<u32>().is_ok()
}

#[test]
fn every_behaviour_has_a_test_that_begins_with_its_number() {
    let tests = tests();
    let page = fs::read_to_string(root().join("docs/behaviours.md")).unwrap();
    let mut missing = Vec::new();
    let mut numbers = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && line.contains(" | `")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (row, prefixes) = (cells[1], cells[3]);
        numbers.extend(row.split(' ').nth(1).and_then(|number| number.parse::<u32>().ok()));
        for prefix in prefixes.split('`').skip(1).step_by(2) {
            if !tests.iter().any(|(name, _)| is_about(name, prefix)) {
                missing.push(format!("{row}: {prefix}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new(), "no test begins with these");
    assert_eq!(numbers, (1..=80).collect::<Vec<_>>(), "a line for each, in order");
}
