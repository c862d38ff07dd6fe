//! Files and items that mean harm, or are merely too much.

use std::time::{Duration, Instant};

use crate::support::World;

/// Asserts that the file is refused soon, in little memory, with a message.
fn refused(text: &str) -> String {
    let world = World::with(text);
    let before = Instant::now();
    // 400 MiB of address space, of which a debug build and its threads take a part.
    let script = "ulimit -v 400000; exec \"$PACELINE\" run p.toml x";
    let ended = world.sh(script).end().exits(2);
    assert!(before.elapsed() < Duration::from_secs(10));
    assert!(ended.stdout.is_empty() && ended.account().is_none());
    assert!(ended.stderr.len() < 4000, "{}", ended.stderr);
    ended.stderr
}

#[test]
fn a_file_nested_a_hundred_thousand_deep_is_refused() {
    let deep = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(refused(&deep).starts_with("error: "));
    let tables = format!("a = {}1{}", "{a=".repeat(100_000), "}".repeat(100_000));
    assert!(refused(&tables).starts_with("error: "));
    assert!(refused(&format!("[{}a]", "a.".repeat(100_000))).starts_with("error: "));
}

#[test]
fn a_file_with_too_many_keys_or_bytes_is_refused() {
    let keys: String = (0..400_000).map(|number| format!("k{number}=1\n")).collect();
    refused(&keys);
    refused(&"#".repeat(5 << 20));
}

#[test]
fn numbers_beyond_reason_are_refused() {
    let stage = "[[stage]]\nname = \"s\"\nrun = \"true\"\n";
    for setting in [
        "workers = 9223372036854775807",
        "workers = 0",
        "workers = -1",
        "queue = 0",
        "timeout = 0",
        "timeout = \"-1s\"",
        "timeout = \"1e400s\"",
        "retry = { times = -1 }",
        "retry = { times = 1, factor = nan }",
        "batch = { items = 0 }",
    ] {
        let said = refused(&format!("{stage}{setting}\n"));
        assert!(said.contains("p.toml:4"), "{setting}: {said}");
    }
}

#[test]
fn nothing_in_our_words_steers_a_terminal() {
    let world = World::with("[[stage]]\nname = \"s\\u001b[31m\"\nrun = \"false\"\n");
    let ended = world.run(["\x1b]0;title\x07\r\u{202e}x\n"]).end();
    let is_clean = |text: &str| !text.contains(['\x1b', '\x07', '\r', '\u{202e}']);
    assert!(is_clean(&ended.stderr), "{:?}", ended.stderr);

    let missing = world.paceline(["run", "\x1b[31m.toml"]).end().exits(2);
    assert!(is_clean(&missing.stderr), "{:?}", missing.stderr);
    let option = world.run(["--\x1b[31m"]).end().exits(2);
    assert!(is_clean(&option.stderr), "{:?}", option.stderr);
    let command = world.paceline(["\x1b[31m"]).end().exits(2);
    assert!(is_clean(&command.stderr), "{:?}", command.stderr);
    let halt = world.run(["--halt", "\x1b[31m"]).end().exits(2);
    assert!(is_clean(&halt.stderr), "{:?}", halt.stderr);

    world.write(
        "p.toml",
        "[source]\nvalues = [\"\\u001b[31m\"]\n[[stage]]\nname = \"s\"\nrun = \"echo\"",
    );
    let checked = world.paceline(["check", "p.toml"]).end().exits(0);
    assert!(is_clean(checked.text()), "{:?}", checked.text());
}

#[test]
fn items_cannot_smuggle_placeholders_or_options_of_ours() {
    let world =
        World::with("[[stage]]\nname = \"s\"\nrun = \"printf [%s] {} {in}\"\nordered = true");
    let ended = world.run(["--", "{out}", "{#}", "{{}}", "--json", "-q"]).end().exits(0);
    assert_eq!(
        ended.lines(),
        ["[{out}][{out}]", "[{#}][{#}]", "[{{}}][{{}}]", "[--json][--json]", "[-q][-q]"]
    );
}

#[test]
fn many_empty_items_are_all_items() {
    let world = World::with("[[stage]]\nname = \"s\"\nput = \"file:out/{}\"\n");
    world.run(["-q", "--json"]).input("\n".repeat(20_000)).end().exits(1);
    let ended = world.run([""; 0]).input("\n".repeat(20_000)).end().exits(1);
    ended.counts(20_000, 0, 20_000, 0);
}
