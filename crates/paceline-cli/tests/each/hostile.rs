//! Items that want to be commands: they stay data.

use crate::World;

/// Each would make the file `canary` if some shell took it for a command.
const ITEMS: [&str; 62] = [
    "; touch canary",
    "& touch canary",
    "&& touch canary",
    "| touch canary",
    "|| touch canary",
    "$(touch canary)",
    "`touch canary`",
    "\"; touch canary; \"",
    "'; touch canary; '",
    "\"$(touch canary)\"",
    "'$(touch canary)'",
    "\"`touch canary`\"",
    "\n touch canary\n",
    "\ntouch canary",
    "\r\ntouch canary",
    "> canary",
    ">canary",
    ">> canary",
    "2>canary",
    "<(touch canary)",
    ">(touch canary)",
    "$'\\n'touch canary",
    "$'; touch canary'",
    "\\'; touch canary",
    "\\\"; touch canary",
    "\\; touch canary",
    "\\\n touch canary",
    "'\"; touch canary #",
    "\"'; touch canary #",
    ") ; touch canary",
    "); touch canary",
    "}; touch canary",
    "{ touch canary; }",
    "( touch canary )",
    "${IFS}touch${IFS}canary",
    ";touch${IFS}canary",
    "${x:-$(touch canary)}",
    "$((`touch canary`))",
    "$(( $(touch canary) ))",
    "a; touch canary",
    "a\0; touch canary",
    "a'$(touch canary)'b",
    "a\"$(touch canary)\"b",
    "'",
    "\"",
    "`",
    "$",
    "\\",
    "\\\\",
    "$'",
    "'\\''",
    "'\"'\"'",
    "-rf",
    "--help",
    "-e",
    "{}",
    "{}; touch canary",
    "{.}",
    "{1}; touch canary",
    "!!",
    "*",
    "\u{1b}]0;x\u{7}",
];

/// What a job that prints its value between brackets makes of all items, in order.
fn printed(items: &[&str], times: usize) -> Vec<u8> {
    let one = |item: &&str| format!("<{item}>").repeat(times).into_bytes();
    items.iter().flat_map(one).collect()
}

/// Items as values of `:::`, where there is no separator to be kept out.
fn values() -> Vec<&'static str> {
    ITEMS.iter().copied().filter(|item| !item.contains('\0')).collect()
}

fn harmless(options: &[&str], times: usize) {
    let world = World::new();
    let values = values();
    let words = options.iter().copied().chain([":::"]).chain(values.iter().copied());
    let ended = world.each(words).end().exits(0);
    assert_eq!(
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&printed(&values, times)),
        "{options:?}"
    );
    assert!(world.list("").is_empty(), "{options:?} made {:?}", world.list(""));
}

#[test]
fn an_item_is_one_argument_whatever_is_in_it() {
    harmless(&["-k", "printf", "<%s>"], 1);
    harmless(&["-k", "printf", "<%s>", "{}"], 1);
    harmless(&["-k", "printf '<%s>' {}"], 1);
    harmless(&["-k", "-I", "X", "printf", "<%s>", "X"], 1);
    harmless(&["-k", "sh", "-c", "printf '<%s>' \"$1\"", "sh"], 1);
    harmless(&["-k", "--then", "printf '<%s>' {in}", "true"], 1);
}

#[test]
fn an_item_is_data_to_a_script_inside_quotes_of_either_kind_and_none() {
    for (script, times) in [
        ("printf '<%s>' {}", 1),
        ("printf '<%s>' \"{}\"", 1),
        ("printf '<%s>' '{}'", 1),
        ("printf '<%s>' \"$1\"", 1),
        ("printf \"%s\" \"<{}>\" '<{}>'", 2),
        ("x={}; printf '<%s>' \"$x\"", 1),
        ("printf '<%s>' \"$(printf '%s.' {})\" | sed -z 's/\\.>$/>/'", 1),
        ("printf '<%s>' {} # {} ' \" $( `\n", 1),
        ("if true; then printf '<%s>' ''{}\"\"; fi", 1),
    ] {
        harmless(&["-k", "--shell", script], times);
    }
    harmless(&["-k", "--shell", "--then", "printf '<%s>' \"{in}\"", "true {}"], 1);
}

#[test]
fn where_no_quoting_is_safe_a_placeholder_is_refused() {
    let world = World::new();
    for script in ["echo `echo {}`", "echo $(({} + 1))", "cat <<E\n{}\nE", "cat <<'E'\n{}\nE\n"] {
        let ended = world.each(["--shell", script, ":::", "$(touch canary)"]).end().exits(2);
        ended.says("error: ").says("hint: ");
    }
    assert!(!world.has("canary"));
    world.each(["--shell", "echo", "{}", ":::", "x"]).end().exits(2).says("one word");
}

#[test]
fn a_shell_operator_outside_quotes_is_refused_before_anything_runs() {
    let world = World::new();
    for command in [
        "touch ran | wc",
        "touch ran > x",
        "touch ran < x",
        "touch ran & ",
        "touch ran; true",
        "touch $(echo ran)",
        "touch `echo ran`",
        "touch ran && true",
        "touch ran || true",
    ] {
        let ended = world.each([command, ":::", "x"]).end().exits(2);
        ended.says("shell operator").says("--shell").says("--then").says("pipe = [...]");
        let ended = world.each(["--then", command, "touch ran", ":::", "x"]).end().exits(2);
        ended.says("--shell");
        assert!(!world.has("ran"), "{command}");
    }
    let ended = world.each(["echo '|' \">\" \\; {}", ":::", "x"]).end().exits(0);
    assert_eq!(ended.text(), "| > ; x\n");
    let ended = world.each(["echo", "a | b", "$(x)", ":::", "x"]).end().exits(0);
    assert_eq!(ended.text(), "a | b $(x) x\n");
    world.each(["echo 'a", ":::", "x"]).end().exits(2).says("never closed");
}

#[test]
fn what_paceline_says_cannot_steer_a_terminal() {
    let world = World::new();
    let item = "\u{1b}]0;x\u{7}\u{1b}[2J\r\nfailed: y\u{202e}\u{9b}1m";
    for options in [&[][..], &["--shell"]] {
        let command = if options.is_empty() { "false" } else { "exit 1 # {}" };
        let words = options.iter().copied().chain([command, ":::", item]);
        let ended = world.each(words).end().exits(1);
        let told: Vec<_> =
            ended.stderr.lines().filter(|line| line.starts_with("failed: ")).collect();
        assert_eq!(told.len(), 1, "{}", ended.stderr);
        let hostile = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!ended.stderr.contains(hostile), "{:?}", ended.stderr);
    }
    let words = ["--tag", "sh", "-c", "echo e >&2; echo o", "sh", ":::", item];
    let ended = world.each(words).end().exits(0);
    assert!(!ended.text().contains('\u{1b}') && !ended.stderr.contains('\u{1b}'));
}
