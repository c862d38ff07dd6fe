//! The guides for those who come from other tools: each command of paceline
//! in them is run, and gives what stands below it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// A command of a guide, the heading above it, and what it gives.
#[derive(Debug)]
struct Example {
    heading: String,
    command: String,
    output: Option<String>,
}

/// The examples of a page, in order: blocks that call paceline, with the text block after them.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut heading = "";
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("### ") {
            heading = title;
        }
        let Some(language) = line.strip_prefix("```").filter(|language| !language.is_empty())
        else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let block = block.join("\n") + "\n";
        match language {
            "sh" if block.contains("paceline ") => {
                let heading = heading.to_owned();
                examples.push(Example { heading, command: block, output: None });
            }
            "text" => examples.last_mut().unwrap().output = Some(block),
            _ => {}
        }
    }
    examples
}

/// The files that the guides speak of.
fn lay_out(folder: &Path) {
    let files = [
        ("names", "alpha\nbeta\ngamma\n"),
        ("a.txt", "hello\n"),
        ("b.txt", "one\ntwo\n\n"),
        ("c d.txt", "hello world\n"),
        ("list", "a.txt\nb.txt\n"),
        ("times", "0.1\n"),
        ("logs/x.log", "x\n"),
    ];
    fs::create_dir(folder.join("logs")).unwrap();
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
}

fn run(example: &Example) {
    let folder = tempfile::tempdir().unwrap();
    lay_out(folder.path());
    let binary = Path::new(env!("CARGO_BIN_EXE_paceline")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let ran = Command::new("sh")
        .args(["-c", &example.command])
        .current_dir(folder.path())
        .env("PATH", format!("{}:{path}", binary.display()))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let what = format!("{}: {}", example.heading, example.command);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{what}: {:?}\n{said}", ran.status);
    assert_eq!(said, "", "{what}");
    if let Some(expected) = &example.output {
        let text = String::from_utf8(ran.stdout).unwrap();
        assert_eq!(sorted(&text), sorted(expected), "{what}");
    }
}

/// Jobs end in any order; a newline at the very end is the page's.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

fn guide(name: &str) -> Vec<Example> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    examples(&fs::read_to_string(page).unwrap())
}

#[test]
fn every_command_of_the_guide_from_gnu_parallel_does_what_it_says() {
    let examples = guide("from-gnu-parallel.md");
    assert!(examples.len() >= 20, "{}", examples.len());
    examples.iter().for_each(run);
}

#[test]
fn every_command_of_the_guide_from_xargs_does_what_it_says() {
    let examples = guide("from-xargs.md");
    assert!(examples.len() >= 20, "{}", examples.len());
    examples.iter().for_each(run);
}
