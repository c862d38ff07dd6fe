//! Number guessing over TCP (item 61): `guess serve [threads|connections|sessions|tasks] [SEED]`
//! prints its address and serves until Ctrl-C; `guess play ADDRESS` plays two games with it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that talks")]

use std::{env, process::ExitCode, time::Duration};

use paceline::{BoxError, Runner};
use paceline_chapter::item61::{FORMS, Form, Server, client, game::GAMES};

const USAGE: &str = "usage: guess serve [threads|connections|sessions|tasks] [SEED]\n       \
                     guess play ADDRESS";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["serve"] => serve("tasks", "61"),
        ["serve", form] => serve(form, "61"),
        ["serve", form, seed] => serve(form, seed),
        ["play", address] => play(address),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(form: &str, seed: &str) -> Result<(), BoxError> {
    let named = |one: &Form| format!("{one:?}").to_lowercase() == form;
    let form = FORMS.into_iter().find(named).ok_or(USAGE)?;
    let server = Server::start(form, seed.parse().map_err(|_| USAGE)?)?;
    println!("{}", server.address());
    // Until Ctrl-C; then sessions have a second to end.
    Runner::new().interruptible().run(|_| std::future::pending::<()>())?;
    let cut_off = server.stop(Duration::from_secs(1))?;
    eprintln!("stopped; sessions cut off: {cut_off}");
    Ok(())
}

fn play(address: &str) -> Result<(), BoxError> {
    let address = address.parse().map_err(|_| format!("no address: `{address}`"))?;
    let transcript = client(address, &GAMES)?;
    print!("{}", transcript.0);
    println!("guessed right: {} of {}", transcript.found(), GAMES.len());
    Ok(())
}
