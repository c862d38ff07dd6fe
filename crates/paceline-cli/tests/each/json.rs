//! `--json`: one object an item.

use serde_json::{Value, json};

use crate::{World, numbers};

/// An object without what differs from run to run.
fn told(mut object: Value) -> Value {
    for stage in object["stages"].as_array_mut().unwrap() {
        assert!(stage["ms"].as_f64().unwrap() >= 0.0);
        stage.as_object_mut().unwrap().remove("ms");
    }
    object.as_object_mut().unwrap().remove("id").unwrap();
    object
}

#[test]
fn an_object_tells_all_of_an_item() {
    let world = World::new();
    let words = ["--json", "sh", "-c", "echo out; echo err >&2; exit $1", "sh", ":::", "0", "7"];
    let ended = world.each(words).end().exits(1);
    let objects: Vec<_> = ended.json().into_iter().map(told).collect();
    let stages = |status| json!([{ "name": "sh", "status": status, "attempts": 1 }]);
    assert_eq!(
        objects[0],
        json!({ "seq": 1, "in": "0", "value": "out", "status": "ok", "error": null,
                "leaky": false, "attempts": 1, "stages": stages("ok") })
    );
    let message = &objects[1]["error"]["message"];
    assert!(message.as_str().unwrap().contains("exit status 7"), "{message}");
    assert_eq!(
        objects[1],
        json!({ "seq": 2, "in": "7", "value": null, "status": "failed",
                "error": { "kind": "exit", "stage": "sh", "code": 7, "signal": null,
                           "message": message },
                "leaky": false, "attempts": 1, "stages": stages("failed") })
    );
    assert_eq!(ended.stderr.matches("err\n").count(), 2);
}

#[test]
fn bytes_that_are_no_text_come_in_base64() {
    let world = World::new();
    let ended = world.each(["--json", "printf", "%s"]).input(b"\xff\n".to_vec()).end().exits(0);
    let object = &ended.json()[0];
    assert_eq!((&object["in_b64"], &object["value_b64"]), (&"/w==".into(), &"/w==".into()));
    let ended = world.each(["--json", "-n2", "printf", "%s"]).input(b"\xff\na\n".to_vec()).end();
    assert_eq!(ended.exits(0).json()[0]["in_b64"], json!(["/w==", "YQ=="]));
}

#[test]
fn every_exit_status_is_told_as_it_is() {
    let world = World::new();
    let input: String = (0..=255).map(|code| format!("{code}\n")).collect();
    let ended = world.each(["-j4", "-q", "--json", "sh", "-c", "exit $1", "sh"]).input(input).end();
    let objects = ended.exits(1).json();
    assert_eq!(objects.len(), 256);
    for (code, object) in objects.iter().enumerate() {
        if code == 0 {
            assert_eq!((&object["status"], &object["error"]), (&"ok".into(), &Value::Null));
        } else {
            let error = &object["error"];
            assert_eq!((&error["kind"], &error["code"]), (&"exit".into(), &code.into()));
            assert_eq!(error["signal"], Value::Null);
        }
    }
}

#[test]
fn every_signal_is_told_as_it_is() {
    let world = World::new();
    // Those that end a process, core dumps aside.
    let signals = [
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 24, 25, 26, 27, 29, 30, 31, 34, 35,
        36, 37, 38, 50, 64,
    ];
    let input: String = signals.iter().map(|signal| format!("{signal}\n")).collect();
    let script = "ulimit -c 0; kill -$1 $$; exit 99";
    let ended = world.each(["-q", "--json", "sh", "-c", script, "sh"]).input(input).end();
    for (signal, object) in signals.iter().zip(ended.exits(1).json()) {
        let error = &object["error"];
        assert_eq!((&error["kind"], &error["signal"]), (&"signal".into(), &(*signal).into()));
        assert_eq!(error["code"], Value::Null);
    }
}

#[test]
fn every_kind_of_failure_has_its_name() {
    let world = World::new();
    world.write("plain", "echo no first line\n");
    let kind = |words: &[&str], input: Vec<u8>| {
        let ended = world.each(["--json"].iter().chain(words)).input(input).end().exits(1);
        ended.json()[0]["error"]["kind"].as_str().unwrap().to_owned()
    };
    assert_eq!(kind(&["no-such-program"], b"x\n".to_vec()), "not-found");
    assert_eq!(kind(&["./no-such-program"], b"x\n".to_vec()), "not-found");
    assert_eq!(kind(&["./plain"], b"x\n".to_vec()), "not-executable");
    world.sh("chmod +x plain").end().exits(0);
    let ended = world.each(["--json", "./plain", ":::", "x"]).end().exits(1);
    assert_eq!(ended.json()[0]["error"]["kind"], "not-executable");
    ended.says("#!/bin/sh");
    assert_eq!(kind(&["--timeout", "100ms", "sleep"], b"9\n".to_vec()), "timeout");
    assert_eq!(kind(&["echo"], vec![b'x'; 200_000]), "too-long");
    assert_eq!(kind(&["--stdin", "cat"], vec![b'x'; 17 << 20]), "too-long");
    assert_eq!(kind(&["sh", "-c", "kill -9 $$"], b"x\n".to_vec()), "signal");
}

#[test]
fn a_batch_is_one_object_with_a_list() {
    let world = World::new();
    let ended = world.each(["--json", "-n2", "echo", "{#}", "{}", ":::", "a", "b", "c"]).end();
    let objects = ended.exits(0).json();
    assert_eq!((&objects[0]["in"], &objects[0]["value"]), (&json!(["a", "b"]), &"1 a b".into()));
    assert_eq!((&objects[1]["in"], &objects[1]["seq"]), (&json!(["c"]), &2.into()));
    let words = ["--json", "-n2", "false", ":::", "a", "b", "c"];
    world.each(words).end().exits(1).counts(3, 0, 3, 0);
}

#[test]
fn items_left_unfinished_come_at_the_end() {
    let world = World::new();
    let words =
        ["-j1", "--json", "--halt", "soon", "--then", "echo", "sh", "-c", "test $1 != 3", "sh"];
    let ended = world.each(words).input(numbers(5)).end().exits(3);
    let [taken, ok, failed, unfinished] = ended.account().unwrap();
    let objects: Vec<Value> =
        ended.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(objects.len() as u64, taken);
    let statuses: Vec<_> =
        objects.iter().map(|object| object["status"].as_str().unwrap()).collect();
    let first_unfinished = statuses.iter().position(|status| *status == "unfinished").unwrap();
    assert_eq!(first_unfinished as u64, ok + failed);
    assert!(unfinished > 0 && statuses[first_unfinished..].iter().all(|s| *s == "unfinished"));
    assert_eq!(objects[first_unfinished]["error"]["kind"], "cancelled");
}

#[test]
fn a_failure_on_its_way_when_the_run_is_halted_is_told_all_the_same() {
    let world = World::new();
    for _ in 0..5 {
        let words = ["-j1", "--halt", "soon", "--then", "true", "--json", "false"];
        let ended = world.each(words).input(numbers(5)).end().exits(3).counts(5, 0, 1, 4);
        assert_eq!(ended.json()[0]["error"]["code"], 1, "{}", ended.text());
        assert_eq!(ended.lines().len(), 5);
    }
}
