//! Requests and answers, byte by byte.

use super::*;

fn reader(framing: Framing, bytes: &[u8]) -> Reader {
    let mut reader = Reader::new(framing);
    reader.room().extend_from_slice(bytes);
    reader
}

fn answer_of(said: Result<Option<Said<'_>>, Garbage>) -> (Option<u32>, Form, Vec<u8>) {
    match said {
        Ok(Some(Said::Answer { id, result: Ok((form, bytes)), .. })) => {
            (id, form, bytes.into_owned())
        }
        Ok(Some(Said::Answer { result: Err(error), .. })) => panic!("{error}"),
        Ok(_) => panic!("no answer"),
        Err(garbage) => panic!("{}", garbage.0),
    }
}

#[test]
fn answers_come_whole_however_their_bytes_are_cut() {
    let json = b"{\"id\":1,\"value\":\"a\"}\n{\"value\":[1, 2],\"id\":7}\n".to_vec();
    let mut frames = Vec::new();
    frames.extend_from_slice(&head(1, 1, kind::BYTES));
    frames.push(b'a');
    frames.extend_from_slice(&head(6, 7, kind::JSON));
    frames.extend_from_slice(b"[1, 2]");
    for (framing, bytes) in [(Framing::Json, json), (Framing::Frames, frames)] {
        for size in 1..=bytes.len() {
            let mut reader = Reader::new(framing);
            let mut answers = Vec::new();
            for piece in bytes.chunks(size) {
                reader.room().extend_from_slice(piece);
                while let said @ Ok(Some(_)) = reader.next() {
                    answers.push(answer_of(said));
                }
            }
            let expected =
                [(Some(1), Form::Bytes, b"a".to_vec()), (Some(7), Form::Json, b"[1, 2]".to_vec())];
            assert_eq!(answers, expected, "{framing:?} in pieces of {size}");
        }
    }
}

#[test]
fn answers_of_a_batch_come_whole_however_their_bytes_are_cut() {
    let mut bytes = Vec::new();
    for (first, kind, body) in [
        (7, kind::BYTES_BATCH, &b"a\0\0bc"[..]),
        (10, kind::JSON_BATCH, b"[1]\0null"),
        (12, kind::BYTES_BATCH, b"\0"),
        (14, kind::BYTES_BATCH, b""),
        (15, kind::BYTES, b"\0"),
    ] {
        bytes.extend_from_slice(&head(body.len() as u32, first, kind));
        bytes.extend_from_slice(body);
    }
    let expected: [(u32, Form, &[u8]); 9] = [
        (7, Form::Bytes, b"a"),
        (8, Form::Bytes, b""),
        (9, Form::Bytes, b"bc"),
        (10, Form::Json, b"[1]"),
        (11, Form::Json, b"null"),
        (12, Form::Bytes, b""),
        (13, Form::Bytes, b""),
        (14, Form::Bytes, b""),
        (15, Form::Bytes, b"\0"),
    ];
    for size in 1..=bytes.len() {
        let mut reader = Reader::new(Framing::Frames);
        let mut answers = Vec::new();
        for piece in bytes.chunks(size) {
            reader.room().extend_from_slice(piece);
            while let said @ Ok(Some(_)) = reader.next() {
                answers.push(answer_of(said));
            }
        }
        let expected = expected.map(|(id, form, body)| (Some(id), form, body.to_vec()));
        assert_eq!(answers, expected, "in pieces of {size}");
    }
}

/// The item's form, and its body.
struct As;

impl Exchange<(Form, Vec<u8>)> for As {
    type Out = ();

    fn request(
        &self,
        (form, body): &(Form, Vec<u8>),
        _: &Attempt,
        to: &mut Vec<u8>,
    ) -> Result<Form, BoxError> {
        to.extend_from_slice(body);
        if body == b"no" { Err("no".into()) } else { Ok(*form) }
    }

    fn answer(&self, _: (Form, Vec<u8>), _: &Attempt, _: Form, _: &[u8]) -> Result<(), BoxError> {
        Ok(())
    }
}

/// The frames of requests for these, with ids from 0 on: kind, id, body.
fn asked(takes_batches: bool, items: &[(Form, &[u8])]) -> Vec<(u8, u32, Vec<u8>)> {
    let mut requests = Requests { takes_batches, ..Requests::default() };
    let mut id = 0;
    for (form, body) in items {
        let end = requests.bytes.len();
        let item = (*form, body.to_vec());
        let attempt = Attempt { number: 1, slot: 1 };
        match requests.ask(&As, Framing::Frames, &item, (id, &attempt)) {
            Ok(()) => id += 1,
            Err(_) => requests.bytes.truncate(end),
        }
    }
    let mut rest = &requests.bytes[..];
    let mut frames = Vec::new();
    while let Some((length, id, kind)) = read_head(rest) {
        frames.push((kind, id, rest[HEAD..HEAD + length].to_vec()));
        rest = &rest[HEAD + length..];
    }
    assert!(rest.is_empty());
    frames
}

#[test]
fn requests_of_one_form_gather_in_a_batch_where_the_worker_takes_them() {
    let (bytes, json) = (Form::Bytes, Form::Json);
    let items: [(Form, &[u8]); 9] = [
        (bytes, b"a"),
        (bytes, b"no"),
        (bytes, b""),
        (bytes, b"b"),
        (bytes, b"\0"),
        (bytes, b"c"),
        (json, b"1"),
        (json, b"2"),
        (bytes, b"d"),
    ];
    let expected: [(u8, u32, &[u8]); 5] = [
        (kind::BYTES_BATCH, 0, b"a\0\0b"),
        (kind::BYTES, 3, b"\0"),
        (kind::BYTES, 4, b"c"),
        (kind::JSON_BATCH, 5, b"1\x002"),
        (kind::BYTES, 7, b"d"),
    ];
    let expected = expected.map(|(kind, id, body)| (kind, id, body.to_vec()));
    assert_eq!(asked(true, &items), expected);
    assert!(asked(false, &items).iter().all(|(kind, ..)| *kind < kind::BYTES_BATCH));
    assert_eq!(asked(false, &items).len(), 8);
}

#[test]
fn a_batch_that_is_long_enough_is_followed_by_another() {
    let body = vec![b'x'; BATCH / 2];
    let frames = asked(true, &[(Form::Bytes, &body[..]); 5]);
    let sizes: Vec<_> = frames.iter().map(|(_, id, body)| (*id, body.len())).collect();
    assert_eq!(sizes, [(0, BATCH + 1), (2, BATCH + 1), (4, BATCH / 2)]);
}

#[test]
fn what_is_no_answer_is_garbage() {
    for line in [
        "",
        "no json",
        "{}",
        "[]",
        "{\"id\":1}",
        "{\"id\":-1,\"value\":1}",
        "{\"id\":\"1\",\"value\":1}",
        "{\"id\":1,\"value_b64\":\"*\"}",
    ] {
        let mut reader = reader(Framing::Json, format!("{line}\n").as_bytes());
        assert!(reader.next().is_err(), "{line}");
    }
    let too_long = head(u32::MAX, 1, kind::BYTES);
    assert!(reader(Framing::Frames, &too_long).next().is_err());
    assert!(reader(Framing::Frames, &head(0, 1, 77)).next().is_err());
}

#[test]
fn json_answers_are_text_json_null_bytes_or_an_error() {
    let cases: [(&str, Form, &[u8]); 4] = [
        (r#"{"id":1,"value":"\u00e4\n"}"#, Form::Bytes, "ä\n".as_bytes()),
        (r#"{"id":1,"value":null}"#, Form::Json, b"null"),
        (r#"{"id":1,"value":{"a":1},"error":null}"#, Form::Json, br#"{"a":1}"#),
        (r#"{"id":1,"value":null,"value_b64":"/w=="}"#, Form::Bytes, b"\xff"),
    ];
    for (line, form, expected) in cases {
        let mut reader = reader(Framing::Json, format!("{line}\n").as_bytes());
        assert_eq!(answer_of(reader.next()), (Some(1), form, expected.to_vec()), "{line}");
    }
    let mut reader = reader(Framing::Json, b"{\"id\":1,\"error\":\"why\"}\n");
    let Ok(Some(Said::Answer { result: Err(error), .. })) = reader.next() else {
        panic!("no error");
    };
    assert_eq!(error.to_string(), "why");
}

#[test]
fn bytes_that_are_no_text_are_asked_for_in_base64() {
    let mut out = Vec::new();
    append_value(b"a\"b", &mut out).unwrap();
    append_value(b"\xff", &mut out).unwrap();
    let expected = br#""value":"a\"b""value":null,"value_b64":"/w==""#;
    assert_eq!(out, expected);
}
