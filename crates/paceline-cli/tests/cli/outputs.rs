//! Files that stages make: whole, under their final name, inside their folder.

use crate::support::World;

fn making(to: &str, work: &str) -> World {
    World::with(&format!("[[stage]]\nname = \"s\"\n{work}\nto = \"{to}\"\n"))
}

#[test]
fn the_output_becomes_the_file_byte_by_byte() {
    let world = making("made/{/}.txt", "shell = \"printf 'a\\\\n\\\\n'\"");
    let ended = world.run(["x/y"]).end().exits(0);
    assert_eq!(ended.lines(), ["made/y.txt"]);
    assert_eq!(world.read("made/y.txt"), "a\n\n");
    assert_eq!(world.list("made"), ["y.txt"]);
}

#[test]
fn a_command_that_names_out_makes_the_file_itself() {
    let world = making("made/{}.png", "shell = \"echo {out} > {out}; echo noise\"");
    let ended = world.run(["x"]).end().exits(0);
    assert_eq!(ended.lines(), ["made/x.png"]);
    let temporary = world.read("made/x.png");
    let name = temporary.trim_end().rsplit('/').next().unwrap();
    assert!(name.starts_with('.') && name.ends_with(".png"), "{temporary}");
}

#[test]
fn a_file_of_an_earlier_run_is_replaced_and_kept_by_a_failure() {
    let world = making("{}.out", "shell = \"echo {}; test ! -e fail\"");
    world.write("x.out", "earlier");
    world.run(["x"]).end().exits(0);
    assert_eq!(world.read("x.out"), "x\n");
    world.write("x.out", "earlier");
    world.write("fail", "");
    world.run(["x"]).end().exits(1);
    assert_eq!(world.read("x.out"), "earlier");
}

#[test]
fn a_failure_a_timeout_and_a_missing_file_leave_nothing() {
    for work in [
        "shell = \"echo half; exit 1\"",
        "shell = \"echo half > {out}; exit 1\"",
        "run = \"no-such-program {}\"",
        "shell = \"echo half; read x < gate\"\ntimeout = \"100ms\"",
        "run = \"true {out}\"",
        "run = \"mkdir {out}\"",
    ] {
        let world = making("made/{}", work);
        world.fifo("gate");
        world.run(["x"]).end().exits(1).counts(1, 0, 1, 0);
        let left = world.list("made");
        // What `mkdir` made is no file of ours to remove.
        if work.contains("mkdir") {
            world.may_leave_temporary_files();
        } else {
            assert!(left.is_empty(), "{work}: {left:?}");
        }
    }
}

#[test]
fn two_items_with_the_same_name_do_not_overwrite_each_other() {
    let world = making("made/{/}", "shell = \"echo {}\"\nworkers = 1");
    let ended = world.run(["a/x", "b/x", "c/y"]).end().exits(1).counts(3, 2, 1, 0);
    assert_eq!(world.read("made/x"), "a/x\n");
    ended.says("failed: b/x: stage `s`: the output `made/x` belongs to item 1");
}

#[test]
fn an_item_may_replace_its_own_file_in_a_later_stage() {
    let world = World::with(
        "[[stage]]\nname = \"one\"\nrun = \"echo\"\nto = \"made/{}\"\n\
         [[stage]]\nname = \"two\"\nshell = \"sed s/a/b/ {}\"\nto = \"made/{in}\"",
    );
    world.run(["a"]).end().exits(0);
    assert_eq!(world.read("made/a"), "b\n");
}

#[test]
fn a_batch_and_an_item_of_the_same_number_do_not_share_files() {
    // Batch 2 holds item 3, and would replace what item 2 has made.
    let world = World::with(
        "[[stage]]\nname = \"one\"\nrun = \"echo\"\nto = \"made/{}\"\nordered = true\n\
         [[stage]]\nname = \"two\"\nrun = \"cat\"\nbatch = { items = 2 }\nto = \"made/{#}\"",
    );
    let ended = world.run(["x", "2", "z"]).end().exits(1).counts(3, 2, 1, 0);
    assert_eq!(world.read("made/2"), "2\n", "{}", ended.stderr);
    assert_eq!(world.read("made/1"), "x\n2\n");
}

#[test]
fn names_cannot_lead_out_of_the_folder() {
    let outside = World::new();
    let world = making("made/{}", "run = \"echo\"");
    std::fs::create_dir(world.path("made")).unwrap();
    std::os::unix::fs::symlink(outside.path(""), world.path("made/link")).unwrap();
    let long = "x".repeat(300);
    for name in ["../x", "a/../../x", "link/x", "..", ".", "", "x/", &long] {
        let ended = world.run([name]).end();
        assert_eq!(ended.code, Some(1), "`{name}`: {}", ended.stderr);
    }
    assert!(outside.list("").is_empty());
    assert_eq!(world.list(""), [".paceline", "made", "p.toml"]);
    assert_eq!(world.run(["/x"]).end().exits(0).lines(), ["made//x"]);
    assert_eq!(world.list("made"), ["link", "x"]);

    let absolute = making("{}", "run = \"echo\"");
    absolute.run(["/tmp/cli-x"]).end().exits(1).says("is absolute");
    absolute.run(["../x"]).end().exits(1).says("leads out");
}

#[test]
fn hostile_names_are_made_as_they_are() {
    let world = making("made/{}", "run = \"true\"");
    let ended = world.run(["--", "a\nb", "\x1b[31m", "-rf", "a b"]).end().exits(0);
    assert_eq!(ended.stdout.iter().filter(|byte| **byte == b'\n').count(), 5);
    assert_eq!(world.list("made"), ["\x1b[31m", "-rf", "a\nb", "a b"]);
}

#[test]
fn a_full_disk_fails_the_item_and_leaves_nothing() {
    let world = making("made/{}", "run = \"head -c 100000 /dev/zero\"");
    let ended = world.sh("ulimit -f 8; exec \"$PACELINE\" run --no-journal p.toml x").end();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(world.list("made").is_empty());
}

#[test]
fn put_refuses_the_same_place_twice_and_what_leads_out() {
    let world = World::with("[[stage]]\nname = \"s\"\nput = \"file:out/{/}\"\nworkers = 1");
    for name in ["a/x", "b/x", "y"] {
        world.write(name, name);
    }
    let ended = world.run(["a/x", "b/x", "y", "missing"]).end().exits(1).counts(4, 2, 2, 0);
    assert_eq!(world.list("out"), ["x", "y"]);
    assert_eq!(world.read("out/x"), "a/x");
    assert_eq!(ended.sorted(), ["file:out/x", "file:out/y"]);

    let world = World::with("[[stage]]\nname = \"s\"\nput = \"file:out/{}\"");
    world.write("x", "x");
    world.run(["../x"]).end().exits(1).says("leads out");
    world.write(
        "p.toml",
        "[[stage]]\nname = \"s\"\nput = { from = \"x\", url = \"file:out/{}.y\" }",
    );
    assert_eq!(world.run(["n"]).end().exits(0).lines(), ["file:out/n.y"]);
    assert_eq!(world.read("out/n.y"), "x");
}

#[test]
fn items_that_had_a_worker_each_are_not_said_to_need_more() {
    let world = World::with(
        "[source]\nvalues = [\"1.2\", \"2.2\"]\n[[stage]]\nname = \"nap\"\nrun = \"sleep\"",
    );
    let ended = world.run([""; 0]).end().exits(0);
    ended.says("bound by how long the items of `nap` take").says("more workers will not help");
}

#[test]
fn no_stage_is_called_the_bottleneck_where_all_wait_for_the_source() {
    let world = World::with(
        "[source]\ncommand = [\"sh\", \"-c\", \"for n in 1 2 3 4; do echo $n; sleep 0.3; done\"]\n\
         [[stage]]\nname = \"one\"\nrun = \"true\"\n[[stage]]\nname = \"two\"\nrun = \"true\"",
    );
    let ended = world.run([""; 0]).end().exits(0);
    ended.says("; the busiest stage is `").says("bottleneck: ").says_not("bottleneck: `");
}
