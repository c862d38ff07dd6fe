//! Follows files into one, until Ctrl-C (item 62):
//! `tail_merge a.log b.log ... -o merged.log [--prefix] [--form FORM] [--threads N]`.
#![expect(clippy::print_stderr, reason = "a program that talks")]

use std::{env, path::PathBuf, process::ExitCode};

use paceline::{BoxError, Runner};
use paceline_chapter::item62::{FORMS, Form, Merge};

const USAGE: &str = "usage: tail_merge FILE... -o OUTPUT [--prefix] [--threads N]\n                  \
                     [--form threads|topdown|tasks|bottomup]";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tail_merge: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), BoxError> {
    let (mut paths, mut output, mut prefix) = (Vec::<PathBuf>::new(), None, false);
    let (mut form, mut threads) = (Form::Tasks, 2);
    let mut words = env::args_os().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(USAGE);
        match word.to_str() {
            Some("-o") => output = Some(PathBuf::from(value()?)),
            Some("--prefix") => prefix = true,
            Some("--threads") => {
                threads = value()?.to_str().and_then(|word| word.parse().ok()).ok_or(USAGE)?;
            }
            Some("--form") => {
                let name = value()?;
                let named = |one: &Form| *format!("{one:?}").to_lowercase() == *name;
                form = FORMS.into_iter().find(named).ok_or(USAGE)?;
            }
            Some(option) if option.starts_with('-') => return Err(USAGE.into()),
            _ => paths.push(word.into()),
        }
    }
    let output = output.filter(|_| !paths.is_empty()).ok_or(USAGE)?;
    let merge = Merge::start(form, &paths, &output, prefix, threads)?;
    Runner::new().interruptible().run(|_| std::future::pending::<()>())?;
    for note in merge.stop()? {
        eprintln!("tail_merge: {note}");
    }
    Ok(())
}
