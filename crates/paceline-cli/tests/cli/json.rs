//! `--json`: an object for each item, with the fields that are promised.

use serde_json::{Value, json};

use crate::support::World;

const FIELDS: [&str; 9] =
    ["seq", "id", "in", "value", "status", "error", "leaky", "attempts", "stages"];

/// Without what differs from run to run.
fn steady(mut object: Value) -> Value {
    let id = object["id"].take();
    assert_eq!(id.as_str().map(str::len), Some(32), "{id}");
    for stage in object["stages"].as_array_mut().unwrap() {
        assert!(stage["ms"].as_f64().unwrap() >= 0.0);
        stage["ms"] = json!(0);
    }
    object
}

#[test]
fn rx_5_an_object_has_the_promised_fields_in_their_order() {
    let world = World::with("[[stage]]\nname = \"s\"\nrun = \"echo\"");
    let ended = world.run(["x", "--json"]).end().exits(0);
    let object = ended.json().remove(0);
    let names: Vec<&String> = object.as_object().unwrap().keys().collect();
    assert_eq!(names, FIELDS);
}

#[test]
fn what_came_through_and_what_failed_is_told_in_full() {
    let world = World::with(
        "[[stage]]\nname = \"one\"\nrun = \"echo\"\n[[stage]]\nname = \"two\"\n\
         shell = \"[ {} != b ] && echo made {} || exit 7\"\nretry = { times = 1 }",
    );
    let ended = world.run(["a", "b", "--json"]).end().exits(1).counts(2, 1, 1, 0);
    let objects: Vec<Value> = ended.json().into_iter().map(steady).collect();
    let stage = |name: &str, status: &str, attempts: u32| json!({"name": name, "status": status, "attempts": attempts, "ms": 0});
    assert_eq!(
        objects[0],
        json!({
            "seq": 1, "id": null, "in": "a", "value": "made a", "status": "ok", "error": null,
            "leaky": false, "attempts": 1,
            "stages": [stage("one", "ok", 1), stage("two", "ok", 1)],
        })
    );
    assert_eq!(
        objects[1],
        json!({
            "seq": 2, "id": null, "in": "b", "value": null, "status": "failed",
            "error": {
                "kind": "exit", "stage": "two", "code": 7, "signal": null,
                "message": "exit status 7",
            },
            "leaky": false, "attempts": 2,
            "stages": [stage("one", "ok", 1), stage("two", "failed", 2)],
        })
    );
}

#[test]
fn bytes_that_are_no_text_are_in_base64() {
    let world = World::with("[[stage]]\nname = \"s\"\nrun = \"cat\"\nstdin = true");
    let ended = world.run(["--json"]).input(b"\xff\xfe\n".to_vec()).end().exits(0);
    let object = &ended.json()[0];
    assert_eq!((&object["in"], &object["in_b64"]), (&Value::Null, &json!("//4=")));
    assert_eq!((&object["value"], &object["value_b64"]), (&Value::Null, &json!("//4=")));
}

#[test]
fn no_byte_breaks_the_json() {
    let world = World::with(
        "[source]\nlines = \"-\"\nnull = true\n[[stage]]\nname = \"s\"\nrun = \"sh -c 'cat; exit 1'\"\nstdin = true",
    );
    let all: Vec<u8> = (1..=255).collect();
    let ended = world.run(["--json"]).input(all.clone()).end().exits(1);
    assert_eq!(ended.json().len(), 1);
    let text: Vec<u8> = (1..=127).collect();
    let ended = world.run(["--json"]).input(text.clone()).end().exits(1);
    assert_eq!(ended.json()[0]["in"], String::from_utf8(text).unwrap());
}

#[test]
fn items_left_unfinished_come_at_the_end() {
    let world = World::with("[[stage]]\nname = \"s\"\nworkers = 1\nshell = \"test {} != b\"");
    let ended = world.run(["b", "x", "y", "--json", "--halt=now"]).end().exits(3);
    let statuses: Vec<Value> = ended
        .lines()
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["status"].clone())
        .collect();
    let [taken, ..] = ended.account().unwrap();
    assert_eq!(statuses.len() as u64, taken);
    assert_eq!(statuses[0], "failed");
    assert!(statuses[1..].iter().all(|status| status == "unfinished"), "{statuses:?}");
}

#[test]
fn whatever_stops_a_run_each_item_is_told_once() {
    let world = World::with(
        "[[stage]]\nname = \"one\"\nworkers = 4\nshell = \"test $((PACELINE_SEQ % 5)) != 0 && echo {}\"\n\
         [[stage]]\nname = \"two\"\nworkers = 2\nqueue = 1\nrun = \"echo\"\nbatch = { items = 3 }\n\
         [[stage]]\nname = \"three\"\nworkers = 1\nordered = true\nrun = \"echo\"\n",
    );
    let items: Vec<String> = (1..=60).map(|number| number.to_string()).collect();
    for halt in ["soon", "now", "soon,fail=4", "now,fail=20%"] {
        let ended = world.run(&items).arg("--json").arg("--halt").arg(halt).end().exits(3);
        let mut told = [0; 3];
        let mut seen = std::collections::BTreeSet::new();
        for object in ended.json() {
            let inputs = match object["in"].clone() {
                Value::Array(inputs) => inputs,
                input => vec![input],
            };
            let status = object["status"].as_str().unwrap();
            let statuses = ["ok", "failed", "unfinished"];
            told[statuses.iter().position(|known| *known == status).unwrap()] += inputs.len();
            for input in inputs {
                assert!(seen.insert(input.to_string()), "{input} twice with {halt}");
            }
        }
        let [_, ok, failed, unfinished] = ended.account().unwrap();
        assert_eq!(told.map(|count| count as u64), [ok, failed, unfinished], "{halt}");
    }
}

#[test]
fn a_batch_left_unfinished_has_each_of_its_items_told() {
    let world = World::with(
        "[[stage]]\nname = \"s\"\nworkers = 1\nrun = \"sh -c 'test $0 != b'\"\n\
         batch = { items = 2 }",
    );
    let ended = world.run(["b", "x", "y", "z", "u", "--json", "--halt=now"]).end().exits(3);
    let inputs: usize = ended
        .lines()
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|object| object["in"].as_array().map_or(1, Vec::len))
        .sum();
    assert_eq!(inputs as u64, ended.account().unwrap()[0]);
}
