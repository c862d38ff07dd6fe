//! The game without any I/O: lines in, lines out. Both forms of everything
//! use it, so they cannot differ in what they say.

use std::{collections::BTreeSet, error, fmt};

/// The longest line that a connection takes, without its end.
pub const LONGEST_LINE: usize = 64 * 1024;

/// Whoever is at the other end does not keep to the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspoken(pub String);

impl fmt::Display for Misspoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl error::Error for Misspoken {}

/// Makes lines of bytes that come in any pieces.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// How many bytes are known to hold no end of a line.
    searched: usize,
}

impl LineBuffer {
    /// Adds what was received.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes a whole line, without its end; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// If the line is longer than [`LONGEST_LINE`] or is no UTF-8.
    pub fn next_line(&mut self) -> Result<Option<String>, Misspoken> {
        let end = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let end = end.map(|end| self.searched + end);
        if end.unwrap_or(self.bytes.len()) > LONGEST_LINE {
            return Err(Misspoken(format!("a line is longer than {LONGEST_LINE} bytes")));
        }
        let Some(end) = end else {
            self.searched = self.bytes.len();
            return Ok(None);
        };
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        self.searched = 0;
        match String::from_utf8(line) {
            Ok(mut line) => {
                line.truncate(end);
                Ok(Some(line))
            }
            Err(_) => Err(Misspoken("a line is no UTF-8".into())),
        }
    }

    /// Says what the end of the connection means here.
    ///
    /// # Errors
    ///
    /// If it came in the middle of a line.
    pub fn end(&self) -> Result<(), Misspoken> {
        match self.bytes.is_empty() {
            true => Ok(()),
            false => Err(Misspoken("the connection ended in the middle of a line".into())),
        }
    }
}

/// Random numbers that are the same for the same seed.
///
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number
/// Generators" (SplitMix64), OOPSLA 2014.
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % limit
    }
}

/// The server's side of a connection: guesses numbers, none of them twice.
#[derive(Debug)]
pub struct Session {
    random: Random,
    range: Option<(i64, i64)>,
    guessed: BTreeSet<i64>,
    last: Option<i64>,
    secret: Option<i64>,
}

impl Session {
    /// A session whose guesses follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            range: None,
            guessed: BTreeSet::new(),
            last: None,
            secret: None,
        }
    }

    /// Takes a line, and gives the line to answer with, if there is one.
    ///
    /// # Errors
    ///
    /// If the line is none of the protocol, or cannot be answered now.
    pub fn take(&mut self, line: &str) -> Result<Option<String>, Misspoken> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["PARAMS", low, high] => {
                let number = |word: &str| {
                    word.parse::<i64>().map_err(|_| Misspoken(format!("no number: `{word}`")))
                };
                let (low, high) = (number(low)?, number(high)?);
                // An empty range is how a client ends a game.
                self.range = (low <= high).then_some((low, high));
                self.guessed.clear();
                (self.last, self.secret) = (None, None);
                Ok(None)
            }
            ["NUMBER"] => self.guess().map(|guess| Some(guess.to_string())),
            ["REPORT", decision] => {
                let guess = self.last.ok_or_else(|| Misspoken("a report on no guess".into()))?;
                match decision {
                    "Unsure" | "Warmer" | "Colder" => {}
                    "Correct" => self.secret = Some(guess),
                    _ => return Err(Misspoken(format!("no decision: `{decision}`"))),
                }
                Ok(None)
            }
            _ => Err(Misspoken(format!("no command: `{}`", line.escape_debug()))),
        }
    }

    fn guess(&mut self) -> Result<i64, Misspoken> {
        let Some((low, high)) = self.range else {
            return Err(Misspoken("a number was asked for before its range".into()));
        };
        if let Some(secret) = self.secret {
            return Ok(secret);
        }
        // In place of trying until one is new, which never ends when all were guessed.
        let all = i128::from(high) - i128::from(low) + 1;
        let left = u64::try_from(all - self.guessed.len() as i128).unwrap_or(u64::MAX);
        if left == 0 {
            return Err(Misspoken(format!("every number from {low} to {high} was guessed")));
        }
        let mut guess = i128::from(low) + i128::from(self.random.below(left));
        for taken in &self.guessed {
            if i128::from(*taken) <= guess {
                guess += 1;
            }
        }
        let guess = i64::try_from(guess).expect("it lies between two numbers of this type");
        self.guessed.insert(guess);
        self.last = Some(guess);
        Ok(guess)
    }
}

/// A game as the client plays it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Game {
    /// The least number it may be.
    pub low: i64,
    /// The greatest.
    pub high: i64,
    /// The number to guess.
    pub secret: i64,
    /// How often the client asks at most.
    pub guesses: usize,
}

/// The two games of the chapter, on one connection.
pub const GAMES: [Game; 2] = [
    Game { low: 1, high: 5, secret: 3, guesses: 5 },
    Game { low: 10, high: 15, secret: 12, guesses: 5 },
];

/// The client's side of a game.
#[derive(Debug)]
pub struct Player {
    game: Game,
    asked: usize,
    distance: Option<u64>,
    is_found: bool,
}

impl Player {
    /// A player about to begin, and the line to begin with.
    pub fn begin(game: Game) -> (Self, String) {
        let player = Self { game, asked: 0, distance: None, is_found: false };
        (player, format!("PARAMS {} {}", game.low, game.high))
    }

    /// The next line to send, to which a number is the answer; `None` when it is over.
    pub fn ask(&mut self) -> Option<&'static str> {
        if self.is_found || self.asked == self.game.guesses {
            return None;
        }
        self.asked += 1;
        Some("NUMBER")
    }

    /// Takes the answer, and gives the line to report it with.
    ///
    /// # Errors
    ///
    /// If the answer is no number.
    pub fn take(&mut self, line: &str) -> Result<String, Misspoken> {
        let number: i64 =
            line.parse().map_err(|_| Misspoken(format!("no guess: `{}`", line.escape_debug())))?;
        let distance = number.abs_diff(self.game.secret);
        let before = self.distance.replace(distance);
        self.is_found |= distance == 0;
        let decision = match before {
            _ if distance == 0 => "Correct",
            Some(before) if distance < before => "Warmer",
            Some(before) if distance > before => "Colder",
            _ => "Unsure",
        };
        Ok(format!("REPORT {decision}"))
    }

    /// The line that ends a game.
    pub fn end() -> &'static str {
        "PARAMS 0 -1"
    }
}

/// What was said on a connection, as the client saw it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transcript(pub String);

impl Transcript {
    pub(crate) fn sent(&mut self, line: &str) {
        self.0.push_str(&format!("> {line}\n"));
    }

    pub(crate) fn received(&mut self, line: &str) {
        self.0.push_str(&format!("< {line}\n"));
    }

    /// How many numbers were guessed right.
    pub fn found(&self) -> usize {
        self.0.matches("> REPORT Correct").count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_guesses(seed: u64, game: Game) -> (Vec<i64>, bool) {
        let mut session = Session::new(seed);
        let (mut player, first) = Player::begin(game);
        session.take(&first).unwrap();
        let mut guesses = Vec::new();
        while let Some(question) = player.ask() {
            let guess = session.take(question).unwrap().unwrap();
            guesses.push(guess.parse().unwrap());
            session.take(&player.take(&guess).unwrap()).unwrap();
        }
        (guesses, player.is_found)
    }

    #[test]
    fn r61_2_five_guesses_find_one_of_five_and_may_miss_one_of_six() {
        let mut missed = 0;
        for seed in 0..200 {
            let (guesses, is_found) = all_guesses(seed, GAMES[0]);
            assert!(is_found, "seed {seed}: {guesses:?}");
            let (guesses, is_found) = all_guesses(seed, GAMES[1]);
            let different: BTreeSet<_> = guesses.iter().collect();
            assert_eq!(different.len(), guesses.len(), "none twice");
            assert!(guesses.iter().all(|guess| (10..=15).contains(guess)));
            missed += usize::from(!is_found);
        }
        assert!((1..100).contains(&missed), "a sixth of 200 games is missed, not {missed}");
    }

    #[test]
    fn r61_3_a_new_range_clears_what_was_before() {
        let mut session = Session::new(1);
        session.take("PARAMS 1 1").unwrap();
        assert_eq!(session.take("NUMBER").unwrap().as_deref(), Some("1"));
        session.take("REPORT Correct").unwrap();
        assert_eq!(session.take("NUMBER").unwrap().as_deref(), Some("1"), "found is found");
        session.take("PARAMS 7 7").unwrap();
        assert!(session.take("REPORT Unsure").is_err(), "no guess to report on");
        assert_eq!(session.take("NUMBER").unwrap().as_deref(), Some("7"));
    }

    #[test]
    fn what_hangs_or_crashes_the_book_s_server_is_answered() {
        let mut session = Session::new(1);
        // D61.4, D61.3, D61.2, D61.5.
        session.take("PARAMS 0 -1").unwrap();
        assert!(session.take("NUMBER").is_err());
        session.take("PARAMS 1 1").unwrap();
        session.take("NUMBER").unwrap();
        session.take("REPORT Colder").unwrap();
        let told = session.take("NUMBER").unwrap_err().to_string();
        assert_eq!(told, "every number from 1 to 1 was guessed");
        let all = format!("PARAMS {} {}", i64::MIN, i64::MAX);
        session.take(&all).unwrap();
        session.take("NUMBER").unwrap();
        for line in
            ["", "PARAMS", "PARAMS 1", "PARAMS a b", "REPORT", "REPORT Hot", "NUMBER 1", "\u{1}"]
        {
            assert!(session.take(line).is_err(), "{line:?}");
        }
    }

    #[test]
    fn reports_compare_with_the_guess_before() {
        let game = Game { low: 1, high: 9, secret: 5, guesses: 9 };
        let (mut player, _) = Player::begin(game);
        let reports = ["1", "3", "7", "9", "5"].map(|guess| player.take(guess).unwrap());
        let expected = ["Unsure", "Warmer", "Unsure", "Colder", "Correct"];
        assert_eq!(reports, expected.map(|word| format!("REPORT {word}")));
        assert_eq!(player.ask(), None, "it stops asking");
    }

    #[test]
    fn r61_7_lines_are_whole_however_they_come_and_too_long_ones_are_refused() {
        let mut lines = LineBuffer::default();
        for byte in "one\ntwo\n\nthr".bytes() {
            lines.extend(&[byte]);
        }
        let mut next = || lines.next_line().unwrap();
        assert_eq!(
            [next(), next(), next(), next()].map(Option::unwrap_or_default),
            ["one", "two", "", ""]
        );
        assert!(lines.end().is_err());
        lines.extend(b"ee\n");
        assert_eq!(lines.next_line().unwrap().as_deref(), Some("three"));
        assert!(lines.end().is_ok());
        lines.extend(&vec![b'x'; LONGEST_LINE]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.extend(b"\n");
        assert_eq!(lines.next_line().unwrap().map(|line| line.len()), Some(LONGEST_LINE));
        lines.extend(&vec![b'x'; LONGEST_LINE + 1]);
        assert!(lines.next_line().is_err());
    }
}
