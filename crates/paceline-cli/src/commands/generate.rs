//! `paceline completions` and `paceline man`, from the one definition.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;

/// Prints the completion script for `shell`.
///
/// # Errors
///
/// If standard output cannot be written.
pub(crate) fn completions(shell: Shell) -> io::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "paceline", &mut script);
    print(&script)
}

/// Prints the manual page: the program, then each command.
///
/// # Errors
///
/// If standard output cannot be written.
pub(crate) fn man() -> io::Result<()> {
    let mut page = Vec::new();
    let program = Cli::command();
    clap_mangen::Man::new(program.clone()).render(&mut page)?;
    for command in program.get_subcommands() {
        let name = format!("paceline {}", command.get_name());
        let man = clap_mangen::Man::new(command.clone().bin_name(name));
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    print(&page)
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout();
    stdout.write_all(text).and_then(|()| stdout.flush())
}
