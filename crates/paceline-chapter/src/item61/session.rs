//! What is said on a connection, by both sides, each for threads and for
//! tasks: the same lines of code, once with `await`.

use paceline::BoxError;

use super::{
    connection::{AsyncConnection, Lines},
    game::{Game, Misspoken, Player, Session, Transcript},
};

/// Guesses for one connection until its other side ends it.
///
/// # Errors
///
/// If the connection is broken, or for [`Misspoken`], which the other side is
/// told before the connection ends.
pub fn serve(connection: &mut impl Lines, seed: u64) -> Result<(), BoxError> {
    let mut session = Session::new(seed);
    loop {
        let said = match connection.receive() {
            Ok(Some(line)) => session.take(&line).map_err(BoxError::from),
            Ok(None) => return Ok(()),
            Err(error) => Err(error),
        };
        match said {
            Ok(Some(answer)) => connection.send(&answer)?,
            Ok(None) => {}
            Err(error) => {
                if let Some(Misspoken(what)) = error.downcast_ref() {
                    connection.send(&format!("ERROR {what}"))?;
                }
                return Err(error);
            }
        }
    }
}

/// As [`serve`], for tasks.
///
/// # Errors
///
/// As there.
pub async fn serve_async(connection: &mut AsyncConnection, seed: u64) -> Result<(), BoxError> {
    let mut session = Session::new(seed);
    loop {
        let said = match connection.receive().await {
            Ok(Some(line)) => session.take(&line).map_err(BoxError::from),
            Ok(None) => return Ok(()),
            Err(error) => Err(error),
        };
        match said {
            Ok(Some(answer)) => connection.send(&answer).await?,
            Ok(None) => {}
            Err(error) => {
                if let Some(Misspoken(what)) = error.downcast_ref() {
                    connection.send(&format!("ERROR {what}")).await?;
                }
                return Err(error);
            }
        }
    }
}

fn ended_early() -> BoxError {
    Misspoken("the server ended the connection in the middle of a game".into()).into()
}

/// Plays these games one after the other, and returns what was said.
///
/// # Errors
///
/// If the connection is broken, or for [`Misspoken`].
pub fn play(connection: &mut impl Lines, games: &[Game]) -> Result<Transcript, BoxError> {
    let mut transcript = Transcript::default();
    for game in games {
        let (mut player, first) = Player::begin(*game);
        transcript.sent(&first);
        connection.send(&first)?;
        while let Some(question) = player.ask() {
            transcript.sent(question);
            connection.send(question)?;
            let guess = connection.receive()?.ok_or_else(ended_early)?;
            transcript.received(&guess);
            let report = player.take(&guess)?;
            transcript.sent(&report);
            connection.send(&report)?;
        }
        transcript.sent(Player::end());
        connection.send(Player::end())?;
    }
    Ok(transcript)
}

/// As [`play`], for tasks.
///
/// # Errors
///
/// As there.
pub async fn play_async(
    connection: &mut AsyncConnection,
    games: &[Game],
) -> Result<Transcript, BoxError> {
    let mut transcript = Transcript::default();
    for game in games {
        let (mut player, first) = Player::begin(*game);
        transcript.sent(&first);
        connection.send(&first).await?;
        while let Some(question) = player.ask() {
            transcript.sent(question);
            connection.send(question).await?;
            let guess = connection.receive().await?.ok_or_else(ended_early)?;
            transcript.received(&guess);
            let report = player.take(&guess)?;
            transcript.sent(&report);
            connection.send(&report).await?;
        }
        transcript.sent(Player::end());
        connection.send(Player::end()).await?;
    }
    Ok(transcript)
}
