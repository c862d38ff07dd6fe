//! Every kind of source, and what it gives byte by byte.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use crate::support::World;

/// A pipeline that hands on what `source` gives.
fn handing_on(source: &str) -> World {
    World::with(&format!(
        "{source}\n[[stage]]\nname = \"same\"\nrun = \"cat\"\nstdin = true\nordered = true\n"
    ))
}

#[test]
fn a_pattern_gives_paths_relative_to_the_file_sorted() {
    let world = World::new();
    for name in ["sub/p/b.txt", "sub/p/a.txt", "sub/p/.hidden.txt", "sub/p/c.png"] {
        world.write(name, "");
    }
    world.write(
        "sub/p.toml",
        "[source]\nglob = \"p/*.txt\"\n[[stage]]\nname = \"s\"\nrun = \"ls\"\nordered = true",
    );
    let ended = world.paceline(["run", "sub/p.toml"]).end().exits(0).counts(2, 2, 0, 0);
    assert_eq!(ended.lines(), ["p/a.txt", "p/b.txt"]);
}

#[test]
fn a_pattern_that_matches_nothing_is_an_empty_run_with_a_note() {
    let world = handing_on("[source]\nglob = \"*.nothing\"");
    world.run([""; 0]).end().exits(0).counts(0, 0, 0, 0).says("note: nothing matches `*.nothing`");
}

#[test]
fn lines_are_handed_on_byte_by_byte() {
    let world = handing_on("[source]\nlines = \"items\"");
    world.write("items", "a\r\n\n  b  \na\r\nlast");
    let ended = world.run([""; 0]).end().exits(0).counts(5, 5, 0, 0);
    assert_eq!(ended.text(), "a\r\n\n  b  \na\r\nlast\n");
}

#[test]
fn every_byte_but_the_separator_goes_through_a_job_and_back() {
    let world = handing_on("[source]\nlines = \"items\"\nnull = true");
    let all: Vec<u8> = (1..=255).collect();
    world.write("items", [&all[..], b"\0", b"\xff\xfe\0", b"\0"].concat());
    let ended = world.run([""; 0]).end().exits(0).counts(3, 3, 0, 0);
    assert_eq!(ended.stdout, [&all[..], b"\n", b"\xff\xfe\n", b"\n"].concat());
}

#[test]
fn every_byte_is_kept_in_an_argument_too() {
    let world = World::with("[[stage]]\nname = \"s\"\nrun = \"printf %s\"");
    let all: Vec<u8> = (1..=255).collect();
    let ended = world.run([OsStr::from_bytes(&all)]).end().exits(0);
    assert_eq!(ended.stdout, [&all[..], b"\n"].concat());
}

#[test]
fn standard_input_is_a_source_with_and_without_being_named() {
    let same = "[[stage]]\nname = \"s\"\nrun = \"echo\"\nordered = true\n";
    for source in ["", "[source]\nlines = \"-\"\n"] {
        let world = World::with(&format!("{source}{same}"));
        let ended = world.run([""; 0]).input("a\nb").end().exits(0).counts(2, 2, 0, 0);
        assert_eq!(ended.lines(), ["a", "b"], "{source}");
    }
}

#[test]
fn inputs_take_the_place_of_the_source() {
    let world = handing_on("[source]\nlines = \"missing\"");
    let ended = world.run(["x y", "", "{}"]).end().exits(0).counts(3, 3, 0, 0);
    assert_eq!(ended.text(), "x y\n\n{}\n");
}

#[test]
fn json_items_have_fields_and_broken_lines_fail_alone() {
    let world = World::with(
        "[source]\njsonl = \"items\"\n[[stage]]\nname = \"s\"\n\
         run = [\"printf\", \"%s|%s|%s\", \"{name}\", \"{size}\", \"{}\"]\nordered = true",
    );
    world.write(
        "items",
        "{\"name\":\"a b\",\"size\":[1,2]}\n{broken\n{\"name\":\"c\"}\n\n{\"size\":null,\"name\":\"\"}",
    );
    let ended = world
        .run([""; 0])
        .end()
        .exits(1)
        .counts(5, 2, 3, 0)
        .says("failed: {broken: stage `s`: line 2 is no JSON")
        .says("line 3 has no field `size`")
        .says("line 4 is empty");
    assert_eq!(
        ended.text(),
        "a b|[1,2]|{\"name\":\"a b\",\"size\":[1,2]}\n|null|{\"size\":null,\"name\":\"\"}\n"
    );
}

#[test]
fn csv_items_have_the_headers_fields() {
    let world = World::with(
        "[source]\ncsv = \"items\"\n[[stage]]\nname = \"s\"\n\
         run = [\"printf\", \"%s|%s\", \"{b}\", \"{a}\"]\nordered = true",
    );
    world.write("items", "a,b\n1,\"two, and\nmore\"\n1,2,3\n5,6\n");
    let ended = world.run([""; 0]).end().exits(1).counts(3, 2, 1, 0).says("line 4");
    assert_eq!(ended.text(), "two, and\nmore|1\n6|5\n");
}

#[test]
fn inputs_in_place_of_items_with_fields_have_fields_too() {
    let world = World::with(
        "[source]\njsonl = \"gone\"\n[[stage]]\nname = \"s\"\nrun = \"echo {n}\"\nordered = true",
    );
    let ended = world.run([r#"{"n": 7}"#, "plain"]).end().exits(1).counts(2, 1, 1, 0);
    assert_eq!(ended.says("line 2 is no JSON").text(), "7\n");

    let world =
        World::with("[source]\ncsv = \"items\"\n[[stage]]\nname = \"s\"\nrun = \"echo {b} {a}\"");
    world.write("items", "a,b\n1,2\n");
    assert_eq!(world.run(["3,\"4, 5\""]).end().exits(0).counts(1, 1, 0, 0).text(), "4, 5 3\n");
}

#[test]
fn a_field_that_a_csv_header_does_not_name_is_an_error_before_anything_runs() {
    for (field, hint) in [
        ("nmae", "did you mean `{name}`?"),
        ("colour", "fields that the header names: `name`, `size`"),
    ] {
        let world = World::with(&format!(
            "[source]\ncsv = \"items\"\n[[stage]]\nname = \"s\"\nrun = \"touch ran {{{field}}}\""
        ));
        world.write("items", "name,size\na,1\n");
        world.run([""; 0]).end().exits(2).says(&format!("`{{{field}}}`")).says(hint);
        assert!(!world.path("ran").exists());
    }
}

#[test]
fn a_stages_name_wins_over_a_fields() {
    let world = World::with(
        "[source]\njsonl = \"-\"\n[[stage]]\nname = \"x\"\nrun = \"echo made {x}\"\n\
         [[stage]]\nname = \"y\"\nrun = \"echo {x}, {}, {y}, {in}\"",
    );
    // In `x` itself no stage has that name yet, and `y` is a field until it is done.
    let ended = world.run([""; 0]).input("{\"x\":\"X\",\"y\":\"Y\"}\n").end();
    if ended.code == Some(2) {
        panic!("{}", ended.stderr);
    }
    assert_eq!(ended.exits(0).text(), "made X, made X, Y, {\"x\":\"X\",\"y\":\"Y\"}\n");
}

#[test]
fn values_and_commands_are_sources() {
    let world = handing_on("[source]\nvalues = [\"a\", \"\", \"a\"]");
    assert_eq!(world.run([""; 0]).end().exits(0).counts(3, 3, 0, 0).text(), "a\n\na\n");

    let world = handing_on("[source]\ncommand = \"printf 'a\\\\000b\\\\nc'\"\nnull = true");
    assert_eq!(world.run([""; 0]).end().exits(0).counts(2, 2, 0, 0).text(), "a\nb\nc\n");
}

#[test]
fn a_source_command_that_fails_ends_the_run_after_what_it_gave() {
    for (command, why) in [
        ("sh -c 'echo a; echo b; exit 3'", "exit status 3"),
        ("sh -c 'echo a; echo b; kill -9 $$'", "signal 9"),
    ] {
        let world = handing_on(&format!("[source]\ncommand = \"{command}\""));
        let ended = world.run([""; 0]).end().exits(4).counts(2, 2, 0, 0).says(why);
        assert_eq!(ended.lines(), ["a", "b"]);
    }
}

#[test]
fn a_source_command_that_is_missing_is_told() {
    let world = handing_on("[source]\ncommand = \"no-such-program x\"");
    world.run([""; 0]).end().exits(4).counts(0, 0, 0, 0).says("`no-such-program x` failed");
}

#[test]
fn a_source_that_cannot_be_opened_is_told_before_anything_runs() {
    let world =
        World::with("[source]\nlines = \"missing\"\n[[stage]]\nname = \"s\"\nrun = \"touch ran\"");
    world.run([""; 0]).end().exits(2).says("`missing`: no such file or directory");
    std::fs::create_dir(world.path("missing")).unwrap();
    world.run([""; 0]).end().exits(2).says("it is a folder");
    assert!(!world.has("ran"));
}

#[test]
fn work_starts_with_the_first_item() {
    let world = World::with("[[stage]]\nname = \"s\"\nrun = \"touch\"");
    let mut run = world.run([""; 0]).open_input().start();
    let mut input = run.child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"first\n").unwrap();
    run.until("the first job", || world.has("first"));
    drop(input);
    run.end().exits(0).counts(1, 1, 0, 0);
}

#[test]
fn an_item_over_the_limit_fails_and_the_others_go_on() {
    let world =
        World::with("[[stage]]\nname = \"s\"\nrun = \"wc -c\"\nstdin = true\nordered = true");
    let longest = vec![b'x'; 16 << 20];
    let items = [b"a\n", &longest[..], b"y\n", &longest[..], b"\nb"].concat();
    let ended = world.run([""; 0]).input(items).end().exits(1).counts(4, 3, 1, 0);
    assert_eq!(ended.lines(), ["1", "16777216", "1"]);
    ended.says("16777217 bytes, over the limit of 16 MiB");
}

#[test]
fn an_argument_too_long_for_the_kernel_fails_with_a_hint() {
    let world = World::with("[[stage]]\nname = \"s\"\nrun = \"echo\"\nordered = true");
    let items = [b"a\n", &vec![b'x'; 200_000][..], b"\nb"].concat();
    let ended = world.run([""; 0]).input(items).arg("--json").end().exits(1).counts(3, 2, 1, 0);
    let error = &ended.json()[1]["error"];
    assert_eq!(error["kind"], "too-long");
    ended.says("`stdin = true` in a file").says_not("os error");
}
