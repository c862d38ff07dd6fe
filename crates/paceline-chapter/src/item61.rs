//! Item 61: from threads to async, one part at a time.
//!
//! A number-guessing game over TCP: the server guesses, the client knows.
//! The game itself is without I/O ([`game`]); connection, session, client and
//! server exist for threads and for tasks, and each step of the port is a
//! program that works ([`FORMS`]). With the same seed all of them say the
//! same, byte by byte.

mod connection;
pub mod game;
mod server;
mod session;
#[cfg(test)]
mod tests;

use std::{
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use paceline::{BoxError, EventLoop};
use tokio::sync::Barrier;

pub use connection::{AsyncConnection, Bridged, Connection, Lines};
pub use server::{FORMS, Form, Server};
pub use session::{play, play_async, serve, serve_async};

use self::game::{GAMES, Game, Transcript};
use crate::{
    Item, Show,
    show::{expect, timed},
};

pub(crate) const ITEM: Item =
    Item { number: 61, title: "From threads to async, one part at a time", show };

/// Plays `games` with the server at `address`, by a thread: this one.
///
/// # Errors
///
/// If the connection cannot be made or breaks.
pub fn client(address: SocketAddr, games: &[Game]) -> Result<Transcript, BoxError> {
    play(&mut Connection::new(TcpStream::connect(address)?)?, games)
}

/// As [`client`], by a task.
///
/// # Errors
///
/// As there.
pub async fn client_async(address: SocketAddr, games: &[Game]) -> Result<Transcript, BoxError> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    play_async(&mut AsyncConnection::new(stream)?, games).await
}

/// Lets `count` clients play at once, all on one event loop: none begins
/// before all are connected.
///
/// # Errors
///
/// If one of them does not come to its end.
pub fn crowd(address: SocketAddr, count: usize) -> Result<Vec<Transcript>, BoxError> {
    let event_loop = EventLoop::start("guess-clients")?;
    let all_there = Arc::new(Barrier::new(count));
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let all_there = all_there.clone();
            event_loop.submit(async move {
                let stream = tokio::net::TcpStream::connect(address).await?;
                let mut connection = AsyncConnection::new(stream)?;
                all_there.wait().await;
                play_async(&mut connection, &GAMES).await
            })
        })
        .collect();
    let transcripts = clients.into_iter().map(|client| client.wait().map_err(BoxError::from));
    let transcripts = transcripts.collect();
    event_loop.close()?;
    transcripts
}

fn show(show: &mut Show<'_>) -> Result<(), BoxError> {
    const SEED: u64 = 61;
    const GRACE: Duration = Duration::from_secs(1);
    let mut first = None;
    for form in FORMS {
        let server = Server::start(form, SEED)?;
        let (transcripts, time) = timed(|| -> Result<_, BoxError> {
            let by_thread = client(server.address(), &GAMES)?;
            let event_loop = EventLoop::start("guess-client")?;
            let address = server.address();
            let task = event_loop.submit(async move { client_async(address, &GAMES).await });
            Ok([by_thread, task.wait()?])
        });
        server.stop(GRACE)?;
        let [by_thread, by_task] = transcripts?;
        let same = first.get_or_insert_with(|| by_thread.clone());
        expect(by_thread == *same && by_task == *same, "the same bytes in every form")?;
        show.took(&format!("server: {form:?}, two clients, two games each"), time)?;
    }
    let transcript = first.unwrap_or_default();
    show.found("  bytes said, the same in all of them", transcript.0.len())?;
    for line in transcript.0.lines().take(6) {
        show.say(&format!("    {line}"))?;
    }
    let server = Server::start(Form::Tasks, SEED)?;
    let (all, time) = timed(|| crowd(server.address(), 1000));
    server.stop(GRACE)?;
    expect(all?.iter().all(|one| *one == transcript), "1,000 clients with the same games")?;
    show.took("1,000 clients at once, on two event loops", time)?;
    show.python(include_str!("../python/item61.py"))?;
    Ok(())
}
