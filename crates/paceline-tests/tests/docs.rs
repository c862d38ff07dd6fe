//! Holds the examples in the documents to files that are built and run.
//!
//! Not here: what the documents say of the tree (`architecture.rs`).

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    fs::read_to_string(root.join(path)).unwrap()
}

/// Returns the fenced blocks of this language in a document.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(found) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if found == language {
                blocks.push(block.join("\n"));
            }
        }
    }
    blocks
}

/// Returns the lines without their indentation, blank ones left out.
fn lines(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_rust_in_the_readme_is_part_of_an_example_that_runs() {
    let example = read("crates/paceline/examples/wordcount.rs");
    let blocks = blocks(&read("README.md"), "rust");
    assert_eq!(blocks.len(), 1, "one example is enough for a first look");
    let (example, shown) = (lines(&example), lines(&blocks[0]));
    assert!(
        example.windows(shown.len()).any(|part| part == shown),
        "the README shows other code than the example has:\n{}",
        blocks[0]
    );
}

#[test]
fn the_pipeline_files_in_the_readme_are_examples_without_their_comments() {
    let blocks = blocks(&read("README.md"), "toml");
    let example = read("examples/hash-tree/pipeline.toml");
    let example: Vec<&str> = example
        .lines()
        .map(|line| line.split_once('#').map_or(line, |(line, _)| line).trim_end())
        .filter(|line| !line.is_empty())
        .collect();
    assert_eq!(blocks.len(), 2);
    assert_eq!(lines(&blocks[0]), example);
    let (example, shown) = (read("examples/python/pipeline.toml"), lines(&blocks[1]));
    assert!(lines(&example).windows(shown.len()).any(|part| part == shown), "{}", blocks[1]);
}

#[test]
fn every_script_is_a_program() {
    use std::os::unix::fs::PermissionsExt;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    for folder in ["scripts", ".ci"] {
        for entry in fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap) {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert!(mode & 0o111 != 0, "{} is no program", entry.path().display());
            let text = fs::read_to_string(entry.path()).unwrap();
            assert!(text.starts_with("#!/usr/bin/env bash\n"), "{}", entry.path().display());
        }
    }
}
