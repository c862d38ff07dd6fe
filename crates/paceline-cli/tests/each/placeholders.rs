//! What of a command is replaced, and what an item becomes.

use crate::{World, numbers};

#[test]
fn each_placeholder_stands_for_what_the_contract_says() {
    let world = World::new();
    let template = "{}|{.}|{/}|{//}|{/.}|{#}|{1}|{in}";
    let ended = world
        .each([
            "-k",
            "echo",
            template,
            ":::",
            "a/b.c/d.tar.gz",
            "x",
            "d.e/f",
            ".hid",
            "/",
            "a/.h.x",
        ])
        .end()
        .exits(0);
    assert_eq!(
        ended.lines(),
        [
            "a/b.c/d.tar.gz|a/b.c/d.tar|d.tar.gz|a/b.c|d.tar|1|a/b.c/d.tar.gz|a/b.c/d.tar.gz",
            "x|x|x|.|x|2|x|x",
            "d.e/f|d.e/f|f|d.e|f|3|d.e/f|d.e/f",
            ".hid|.hid|.hid|.|.hid|4|.hid|.hid",
            "/|/|/|/|/|5|/|/",
            "a/.h.x|a/.h|.h.x|a|.h|6|a/.h.x|a/.h.x",
        ]
    );
}

#[test]
fn an_item_is_not_expanded_again_and_other_braces_are_text() {
    let world = World::new();
    let ended = world.each(["-k", "echo", "<{}>", ":::", "{}", "{.}x", "{#}"]).end().exits(0);
    assert_eq!(ended.lines(), ["<{}>", "<{.}x>", "<{#}>"]);
    let ended = world.each(["awk {print$2} {}", ":::", "list"]);
    world.write("list", "a b\n");
    assert_eq!(ended.end().exits(0).text(), "b\n");
    let ended = world.each(["awk", "{print $2}", ":::", "list"]).end().exits(0);
    assert_eq!(ended.text(), "b\n");
    assert_eq!(world.each(["echo", "{a}{{}}", ":::", "x"]).end().exits(0).text(), "{a}{x}\n");
}

#[test]
fn without_a_placeholder_the_item_comes_last_and_with_one_it_does_not() {
    let world = World::new();
    assert_eq!(world.each(["echo", "a", ":::", "x y"]).end().exits(0).text(), "a x y\n");
    assert_eq!(world.each(["echo {#} a", ":::", "x"]).end().exits(0).text(), "1 a\n");
    let ended = world.each(["printf '<%s>' 'a  b' {}", ":::", "x  y"]).end().exits(0);
    assert_eq!(ended.text(), "<a  b><x  y>");
}

#[test]
fn the_program_itself_may_be_the_item() {
    let world = World::new();
    let ended = world.each(["-k", "{}", "ok", ":::", "echo", "printf", "echo"]).end().exits(0);
    assert_eq!(ended.text(), "ok\nokok\n");
}

#[test]
fn another_string_can_stand_in_place_of_the_braces() {
    let world = World::new();
    let ended = world.each(["-I", "X", "echo", "aXb", "{}", "{.}", ":::", "f.c"]).end().exits(0);
    assert_eq!(ended.text(), "af.cb {} f\n");
    assert_eq!(world.each(["-I%", "echo", "%", ":::", "y"]).end().exits(0).text(), "y\n");
}

#[test]
fn several_values_are_words_alone_and_joined_inside_a_word() {
    let world = World::new();
    let words = ["-k", "printf", "<%s>", "{}", "x{}y", "{2}{1}", ":::", "a b", ":::", "c"];
    assert_eq!(world.each(words).end().exits(0).text(), "<a b><c><xa b cy><ca b>");
    let words = ["-k", "-n2", "printf", "<%s>", "{}", "x{}y", "{#};"];
    let ended = world.each(words).input("a\nb c\nd\n").end().exits(0);
    assert_eq!(ended.text(), "<a><b c><xa b cy><1;><d><xdy><2;>");
    // The last batch may have fewer: what it lacks is no word, and nothing inside one.
    let words = ["-k", "-n2", "printf", "<%s>", "{2}", "x{2}", "{1}", ":::", "a", "b", "c"];
    assert_eq!(world.each(words).end().exits(0).text(), "<b><xb><a><x><c>");
    let words = ["-k", "-n2", "--shell", "printf '<%s>' {2} \"x{2}\" x{1}", ":::", "a", "b", "c"];
    assert_eq!(world.each(words).end().exits(0).text(), "<b><xb><xa><x><xc>");
    let ended = world.each(["-k", "-n", "3", "echo"]).input(numbers(7)).end().exits(0);
    assert_eq!(ended.text(), "1 2 3\n4 5 6\n7\n");
}

#[test]
fn the_number_of_a_source_that_there_is_not_is_refused_before_anything_runs() {
    let world = World::new();
    for (words, values) in [
        (&["touch", "{2}", ":::", "a"][..], "one value"),
        (&["touch", "{3}", ":::", "a", ":::", "b"], "2 values"),
        (&["-n2", "touch", "x{3}", ":::", "a"], "2 values"),
        (&["--shell", "touch {2}", ":::", "a"], "one value"),
        (&["--then", "touch {2}", "touch", ":::", "a"], "one value"),
    ] {
        let ended = world.each(words).end().exits(2);
        ended.says("stands for nothing").says(values).says("hint: more come of further `:::`");
    }
    assert!(!world.has("a") && !world.has("b"));
}

#[test]
fn no_two_jobs_at_once_have_the_same_slot() {
    let world = World::new();
    let script = "mkdir slot-$1 && rmdir slot-$1 && test $1 -ge 1 -a $1 -le 4 && echo $1";
    let words = ["-j4", "sh", "-c", script, "sh", "{%}"];
    let ended = world.each(words).input(numbers(60)).end().exits(0);
    assert_eq!(ended.lines().len(), 60);
}

#[test]
fn jobs_know_who_they_are() {
    let world = World::new();
    let script = "echo $PACELINE_SEQ $PACELINE_SLOT $PACELINE_STAGE $PACELINE_ATTEMPT \
                  ${#PACELINE_ITEM} ${#PACELINE_RUN} $HOME_TEST; pwd";
    let ended = world
        .each(["-k", "-j1", "sh", "-c", script, ":::", "a", "b"])
        .env("HOME_TEST", "kept")
        .end()
        .exits(0);
    let here = world.path("").canonicalize().unwrap();
    let lines = ended.lines();
    assert_eq!(lines[0], "1 1 sh 1 32 36 kept");
    assert_eq!(lines[2], "2 1 sh 1 32 36 kept");
    assert_eq!(std::path::Path::new(lines[1]), here);
}

#[test]
fn standard_input_is_empty_or_the_value() {
    let world = World::new();
    assert_eq!(world.each(["sh", "-c", "cat; echo $1", "sh"]).input("a\n").end().text(), "a\n");
    let words = ["-k", "--stdin", "sh", "-c", "cat; echo \" $# $1\"", "sh", ":::", "a", "b"];
    assert_eq!(world.each(words).end().exits(0).text(), "a 0 \nb 0 \n");
    let words = ["--stdin", "sh", "-c", "cat; echo \" $1\"", "sh", "{#}", ":::", "a"];
    assert_eq!(world.each(words).end().exits(0).text(), "a 1\n");
    let words = ["--stdin", "--shell", "cat; echo \" $1\"", ":::", "a"];
    assert_eq!(world.each(words).end().exits(0).text(), "a \n");
    let big = vec![b'z'; 1 << 20];
    let ended = world.each(["--stdin", "cat"]).input(big.clone()).end().exits(0);
    assert_eq!(ended.stdout, big);
    world.each(["--stdin", "true"]).input(big).end().exits(0);
}

#[test]
fn options_after_the_command_are_the_commands() {
    let world = World::new();
    assert_eq!(world.each(["echo", "-j", "0", ":::", "x"]).end().exits(0).text(), "-j 0 x\n");
    assert_eq!(world.each(["echo", "--", "-k", ":::", "-q"]).end().exits(0).text(), "-- -k -q\n");
    assert_eq!(world.each(["-k", "--", "echo", "--", ":::", "x"]).end().exits(0).text(), "-- x\n");
    assert_eq!(
        world.each(["echo", ":::", "--json", "--"]).end().exits(0).sorted(),
        ["--", "--json"]
    );
}

#[test]
fn results_go_from_stage_to_stage() {
    let world = World::new();
    let words = ["-k", "--then", "echo {in}-{}-{#}", "--then", "printf '%s\n\n'", "basename"];
    let ended = world.each(words).input("a/b\nc/d\n").end().exits(0);
    assert_eq!(ended.text(), "a/b-b-1\n\nc/d-d-2\n\n");
    let words = ["-k", "-n2", "--then", "echo <{}>{in}", "echo", ":::", "a", "b", "c"];
    assert_eq!(world.each(words).end().exits(2).text(), "");
    let words = ["-k", "-n2", "--then", "echo '<{}>' {in}", "echo", ":::", "a", "b", "c"];
    assert_eq!(world.each(words).end().exits(0).text(), "<a b> a b\n<c> c\n");
    let words = ["-j1", "--then", "test {%} -le 2", "--then-workers", "2", "echo"];
    world.each(words).input(numbers(20)).end().exits(0);
}
