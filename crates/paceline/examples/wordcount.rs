//! Words of this crate's own source files, through one stage of each kind.
//!
//! ```sh
//! cargo run -p paceline --example wordcount
//! ```
//!
//! Each file is counted by a child process, read on a thread that may wait,
//! searched on a thread that computes, and sent off by a future. All four
//! stages run at the same time, each on files of its own.
#![expect(clippy::print_stdout, reason = "an example shows what it has found")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paceline::{Attempt, Command, Output, Pipeline, Retry};

/// What becomes of a file on its way.
struct Page {
    path: PathBuf,
    words: u64,
    text: String,
    longest: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.is_file());
    paths.sort();

    // Each stage takes what the one before gives: the compiler checks it.
    let (lines, summary) = Pipeline::from_iter(paths)
        .command("count", |path: &PathBuf, _: &Attempt| Command::new("wc").arg("-w").arg(path))
        .timeout(Duration::from_secs(10)) // is about `count`, the stage just added
        .retry(Retry::times(2).backoff(Duration::from_millis(100)))
        .blocking("read", read)
        .cpu("search", search)
        .io("send", send)
        .workers(100) // that many may wait at once; futures cost little
        .ordered() // results in the order of the source
        .collect()?;

    for line in lines {
        println!("{line}");
    }
    // A failed item stops nothing: it is told here, and counted.
    for failure in &summary.failures {
        println!("{failure}: {}", failure.cause());
    }
    println!("{summary}");
    Ok(())
}

/// Any error will do: it becomes the failure of this one item.
fn read(counted: Output) -> Result<Page, Box<dyn Error + Send + Sync>> {
    let line = counted.stdout().to_text()?;
    let (words, path) = line.trim().split_once(' ').ok_or("wc gave no name")?;
    let text = fs::read_to_string(path)?;
    Ok(Page { path: path.into(), words: words.parse()?, text, longest: String::new() })
}

fn search(mut page: Page) -> Result<Page, Box<dyn Error + Send + Sync>> {
    let words = page.text.split(|letter: char| !letter.is_alphabetic());
    page.longest = words.max_by_key(|word| word.len()).unwrap_or_default().to_owned();
    Ok(page)
}

/// Stands for a request to a server that takes a moment to answer.
async fn send(page: Page) -> Result<String, Box<dyn Error + Send + Sync>> {
    tokio::time::sleep(Duration::from_millis(20)).await;
    let name = page.path.file_name().unwrap_or_default().to_string_lossy();
    Ok(format!("{:>5} words, the longest `{}`: {name}", page.words, page.longest))
}
