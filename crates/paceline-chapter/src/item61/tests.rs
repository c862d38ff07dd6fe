//! The port, step by step, and what the book's server cannot take.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use paceline::EventLoop;

use super::{
    FORMS, Form, Server, client, client_async, crowd,
    game::{GAMES, LONGEST_LINE},
};
use crate::watchdog::watched;

const GRACE: Duration = Duration::from_secs(5);

/// What a server answers to `bytes`, sent in pieces of this size, until it or we end it.
fn answered(server: &Server, bytes: &[u8], piece: usize) -> String {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(piece) {
        // The server may have had enough already.
        if stream.write_all(piece).is_err() {
            break;
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn r61_1_every_client_and_server_says_the_same_bytes_for_the_same_seed() {
    watched(|| {
        for seed in [1, 2, 61] {
            let mut all = Vec::new();
            for form in [Form::Threads, Form::Tasks] {
                let server = Server::start(form, seed).unwrap();
                all.push(client(server.address(), &GAMES).unwrap());
                let (event_loop, address) = (EventLoop::start("client").unwrap(), server.address());
                let task = event_loop.submit(async move { client_async(address, &GAMES).await });
                all.push(task.wait().unwrap());
                assert_eq!(server.stop(GRACE).unwrap(), 0);
            }
            assert_eq!(all.len(), 4);
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: {all:?}");
            let said = &all[0].0;
            assert!(said.starts_with("> PARAMS 1 5\n> NUMBER\n< "), "{said}");
            assert!(said.ends_with("> PARAMS 0 -1\n"), "{said}");
        }
    });
}

#[test]
fn r61_2_the_first_game_is_always_won_and_the_second_may_be_missed() {
    watched(|| {
        let mut found = [0; 3];
        for seed in 0..40 {
            let server = Server::start(Form::Threads, seed).unwrap();
            let transcript = client(server.address(), &GAMES).unwrap();
            let first = transcript.0.split("PARAMS 0 -1").next().unwrap();
            assert!(first.contains("REPORT Correct"), "seed {seed}: {first}");
            found[transcript.found()] += 1;
            server.stop(GRACE).unwrap();
        }
        assert!(found[0] == 0 && found[2] > found[1], "{found:?}");
    });
}

#[test]
fn r61_3_a_second_session_on_a_connection_knows_nothing_of_the_first() {
    watched(|| {
        for form in FORMS {
            let server = Server::start(form, 7).unwrap();
            let script = "PARAMS 5 5\nNUMBER\nREPORT Correct\nNUMBER\nPARAMS 0 -1\nPARAMS 8 8\n\
                          NUMBER\nNUMBER\n";
            let answer = answered(&server, script.as_bytes(), script.len());
            let expected = "5\n5\n8\nERROR every number from 8 to 8 was guessed\n";
            assert_eq!(answer, expected, "{form:?}");
            server.stop(GRACE).unwrap();
        }
    });
}

#[test]
fn r61_4_a_thousand_clients_at_once_play_to_the_end_on_two_threads() {
    watched(|| {
        let server = Server::start(Form::Tasks, 4).unwrap();
        let alone = client(server.address(), &GAMES).unwrap();
        let address = server.address();
        let (most, told) = mpsc::channel();
        let playing = thread::spawn(move || crowd(address, 1000));
        while !playing.is_finished() {
            most.send(fs::read_dir("/proc/self/task").unwrap().count()).unwrap();
            thread::yield_now();
        }
        drop(most);
        let all = playing.join().unwrap().unwrap();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|one| *one == alone));
        // Two event loops, the crowd's thread, the test's two and the harness.
        let most = told.iter().max().unwrap_or(0);
        let cores = thread::available_parallelism().unwrap().get();
        assert!(most <= cores + 20, "{most} threads");
        assert_eq!(server.stop(GRACE).unwrap(), 0);
    });
}

#[test]
fn r61_4_a_slow_client_delays_no_other() {
    watched(|| {
        for form in FORMS {
            let server = Server::start(form, 4).unwrap();
            let mut slow = TcpStream::connect(server.address()).unwrap();
            slow.write_all(b"PARAMS 1 5\nNUM").unwrap();
            let since = Instant::now();
            client(server.address(), &GAMES).unwrap();
            let took = since.elapsed();
            assert!(took < Duration::from_millis(50), "{form:?}: {took:?}");
            slow.write_all(b"BER\nPARAMS 0 -1\n").unwrap();
            slow.shutdown(Shutdown::Write).unwrap();
            let mut guess = String::new();
            slow.read_to_string(&mut guess).unwrap();
            assert!((1..=5).contains(&guess.trim().parse().unwrap()), "{guess}");
            assert_eq!(server.stop(GRACE).unwrap(), 0);
        }
    });
}

#[test]
fn r61_5_servers_listen_on_ports_of_their_own_when_they_have_started() {
    watched(|| {
        let servers: Vec<_> = FORMS.map(|form| Server::start(form, 5).unwrap()).into();
        for server in &servers {
            client(server.address(), &GAMES).unwrap();
        }
        let mut ports: Vec<_> = servers.iter().map(|server| server.address().port()).collect();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), FORMS.len());
        for server in servers {
            assert_eq!(server.stop(GRACE).unwrap(), 0);
        }
    });
}

#[test]
fn r61_6_a_stop_lets_sessions_end_in_time_and_cuts_off_the_others() {
    watched(|| {
        for form in FORMS {
            let server = Server::start(form, 6).unwrap();
            let address = server.address();
            let mut stays = TcpStream::connect(address).unwrap();
            // It answers, so its session has begun.
            stays.write_all(b"PARAMS 1 1\nNUMBER\n").unwrap();
            let mut byte = [0; 2];
            stays.read_exact(&mut byte).unwrap();
            let left = server.stop(Duration::from_millis(20)).unwrap();
            assert_eq!(left, 1, "{form:?}");
            let ended = stays.read(&mut byte);
            assert!(matches!(ended, Ok(0) | Err(_)), "{form:?}: {ended:?}");
            assert!(TcpStream::connect(address).is_err(), "{form:?}: it still listens");
        }
    });
}

#[test]
fn r61_6_a_session_that_ends_within_the_grace_period_is_not_cut_off() {
    watched(|| {
        for form in FORMS {
            let server = Server::start(form, 6).unwrap();
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.write_all(b"PARAMS 3 3\nNUMBER\n").unwrap();
            let mut answer = [0; 2];
            stream.read_exact(&mut answer).unwrap();
            let stopping = thread::spawn(move || server.stop(GRACE).unwrap());
            stream.write_all(b"NUMBER\n").unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).unwrap();
            assert_eq!(rest, "ERROR every number from 3 to 3 was guessed\n", "{form:?}");
            assert_eq!(stopping.join().unwrap(), 0, "{form:?}");
        }
    });
}

#[test]
fn r61_7_bytes_split_anywhere_say_the_same() {
    watched(|| {
        let script = "PARAMS 1 50\nNUMBER\nREPORT Unsure\nNUMBER\nREPORT Warmer\nNUMBER\n";
        let mut all = Vec::new();
        for form in FORMS {
            let server = Server::start(form, 7).unwrap();
            for piece in [1, 2, 3, 5, 7, 11, script.len()] {
                all.push(answered(&server, script.as_bytes(), piece));
            }
            server.stop(GRACE).unwrap();
        }
        assert_eq!(all[0].lines().count(), 3);
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    });
}

#[test]
fn r61_7_a_line_that_is_too_long_or_not_of_the_protocol_is_answered_by_an_error() {
    watched(|| {
        for form in FORMS {
            let server = Server::start(form, 7).unwrap();
            let long = vec![b'x'; LONGEST_LINE + 1];
            let expected = format!("ERROR a line is longer than {LONGEST_LINE} bytes\n");
            assert_eq!(answered(&server, &long, long.len()), expected, "{form:?}");
            for (said, expected) in [
                ("\n", "ERROR no command: ``\n"),
                ("HELLO\n", "ERROR no command: `HELLO`\n"),
                ("PARAMS 0 -1\nNUMBER\n", "ERROR a number was asked for before its range\n"),
                ("PARAMS 1 5\nREPORT Correct\n", "ERROR a report on no guess\n"),
                ("NUMBER", "ERROR the connection ended in the middle of a line\n"),
                ("", ""),
            ] {
                assert_eq!(answered(&server, said.as_bytes(), 64), expected, "{form:?}: {said:?}");
            }
            // None of it harmed the server.
            client(server.address(), &GAMES).unwrap();
            assert_eq!(server.stop(GRACE).unwrap(), 0);
        }
    });
}

#[test]
fn r61_8_every_step_of_the_port_says_the_same() {
    watched(|| {
        let all = FORMS.map(|form| {
            let server = Server::start(form, 8).unwrap();
            let transcript = client(server.address(), &GAMES).unwrap();
            assert_eq!(server.stop(GRACE).unwrap(), 0);
            transcript
        });
        assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    });
}
