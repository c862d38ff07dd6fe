//! The guides for those who come from other tools, and the guide to the
//! chapter: each command of paceline in them is run, and gives what stands
//! below it; each piece of Python in them runs too.

#![expect(clippy::print_stderr, reason = "a test that cannot run says so")]

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
    /// The files that the page has shown so far.
    files: Vec<(String, String)>,
}

/// The examples of a page, in order: blocks that call paceline, with the text block after them.
fn examples(page: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let (mut heading, mut files) = ("", Vec::new());
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("##") {
            heading = line.trim_start_matches(['#', ' ']);
        }
        let Some(language) = line.strip_prefix("```").filter(|language| !language.is_empty())
        else {
            continue;
        };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        let name = block.first().and_then(|line| line.strip_prefix("# file: "));
        let block = block.join("\n") + "\n";
        if let Some(name) = name {
            files.push((name.to_owned(), block));
            continue;
        }
        match language {
            "sh" if block.contains("paceline ") => {
                let (heading, files) = (heading.to_owned(), files.clone());
                examples.push(Example { heading, command: block, output: None, files });
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
    for (name, content) in &example.files {
        fs::write(folder.path().join(name), content).unwrap();
    }
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

fn page(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name)).unwrap()
}

/// The fenced blocks of a page, each with its language on its first line.
fn blocks(page: &str) -> Vec<&str> {
    page.split("\n```").skip(1).step_by(2).collect()
}

#[test]
fn every_command_of_the_guide_to_the_chapter_does_what_it_says() {
    let examples = guide("chapter.md");
    assert!(examples.len() >= 4, "{}", examples.len());
    examples.iter().for_each(run);
}

/// The Python that stands for what readers know must be what they can run.
#[test]
fn every_piece_of_python_in_the_guide_to_the_chapter_runs() {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("NOT CHECKED: the Python in docs/chapter.md, since there is no `python3`");
        return;
    }
    let page = page("chapter.md");
    let pieces: Vec<&str> = blocks(&page)
        .into_iter()
        .filter_map(|block| block.strip_prefix("python\n"))
        .filter(|piece| !piece.starts_with("# file: "))
        .collect();
    assert_eq!(pieces.len(), 13, "one for each item");
    for piece in pieces {
        // A file: processes that are started anew look for it.
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("piece.py"), piece).unwrap();
        let ran =
            Command::new("python3").arg("piece.py").current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success(), "{piece}\n\n{said}");
    }
}

#[test]
fn the_guide_to_the_chapter_shows_the_same_code_in_both_languages() {
    let (english, korean) = (page("chapter.md"), page("chapter.ko.md"));
    assert_eq!(blocks(&english), blocks(&korean));
}

#[test]
fn the_commands_of_the_readme_about_runs_that_survive_go_on_with_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("README.md")).unwrap();
    let section = page.split("\n## ").find(|part| part.starts_with("Runs that survive")).unwrap();
    let block = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let example = folder.path().join("examples/hash-tree");
    fs::create_dir_all(example.join("tree")).unwrap();
    let pipeline = "examples/hash-tree/pipeline.toml";
    fs::copy(root.join(pipeline), folder.path().join(pipeline)).unwrap();
    for name in ["one", "two"] {
        fs::write(example.join("tree").join(name), name).unwrap();
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_paceline")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut seen = Vec::new();
    for command in block.lines() {
        let verb = command.split("paceline ").nth(1).unwrap().split(' ').next().unwrap();
        if verb == "resume" {
            fs::write(example.join("tree/three"), "new in the source").unwrap();
        }
        let ran = Command::new("sh")
            .args(["-c", command])
            .current_dir(folder.path())
            .env("PATH", &path)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(ran.status.code(), Some(0), "{command}: {ran:?}");
        let lines = String::from_utf8(ran.stdout).unwrap().lines().count();
        seen.push((verb, lines));
    }
    let expected = [
        ("run", 2),    // digests
        ("resume", 1), // that of the new file
        ("status", 4), // a head, two stages, the account
        ("failed", 1), // none
        ("retry", 0),
        ("runs", 3), // a head, the run, where it is recorded
        ("each", 1000),
    ];
    assert_eq!(seen, expected);
}
