//! Whole files, right and wrong.

use std::time::Instant;

use crate::source::Location;
use crate::template::Values;

use super::*;

fn read(text: &str) -> Result<Pipeline, Problem> {
    parse(text, Path::new("dir/pipeline.toml"))
}

/// A file with one stage that has these lines.
fn stage(lines: &str) -> Result<Stage, Problem> {
    read(&format!("[[stage]]\nname = \"a\"\n{lines}\n"))
        .map(|mut pipeline| pipeline.stages.remove(0))
}

/// What users read about each of these stages.
fn told(stages: &[&str]) -> String {
    let told = |lines: &&str| {
        stage(lines).map_or_else(|problem| problem.render(false), |_| format!("{lines}: right\n"))
    };
    stages.iter().map(told).collect::<Vec<_>>().join("\n")
}

const WHOLE: &str = r#"
name = "photos"
[source]
glob = "photos/*.jpg"
[[stage]]
name = "download"
fetch = "https://example.org/{}"
to = "work/{/}"
[[stage]]
name = "resize"
resize = { width = 640, height = 640 }
to = "thumbs/{/.}.jpg"
[[stage]]
name = "upload"
put = "file:///srv/thumbs/{/}"
[[stage]]
name = "digest"
pipe = ["openssl enc -aes-256-cbc -pbkdf2 -pass env:KEY -in {resize}", "sha256sum"]
workers = 2
timeout = "30s"
retry = { times = 3, backoff = "200ms" }
"#;

#[test]
fn the_file_of_the_manual_is_right() {
    let pipeline = read(WHOLE).unwrap();
    assert_eq!(pipeline.name, "photos");
    assert_eq!(pipeline.folder, Path::new("dir"));
    assert_eq!(pipeline.source, Some(Origin::Glob("photos/*.jpg".to_owned())));
    let keys: Vec<_> = pipeline.stages.iter().map(|stage| stage.work.key()).collect();
    assert_eq!(keys, ["fetch", "resize", "put", "pipe"]);
    let digest = &pipeline.stages[3];
    assert_eq!(digest.workers, Workers::Fixed(2));
    assert_eq!(digest.timeout, Some(Duration::from_secs(30)));
    assert_eq!(digest.retry.times, 3);
    assert_eq!(digest.retry.backoff, Duration::from_millis(200));
    assert_eq!((digest.place.line, digest.place.column), (17, 8));
    let Work::Pipe(commands) = &digest.work else { panic!("no pipe") };
    assert_eq!(commands.iter().map(CommandTemplate::appends).collect::<Vec<_>>(), [false, false]);
}

#[test]
fn what_is_left_out_has_its_default() {
    let stage = stage("run = \"cat\"").unwrap();
    assert_eq!(stage.workers, Workers::Auto);
    assert_eq!((stage.queue, stage.timeout, stage.batch), (None, None, None));
    assert_eq!(stage.grace, Duration::from_secs(5));
    assert_eq!(stage.retry, Retry::default());
    assert!(!stage.stdin && !stage.ordered && stage.env.is_empty() && stage.cwd.is_none());
    assert_eq!(stage.isolation, None);
    assert_eq!(read("[[stage]]\nname='a'\nrun='b'").unwrap().name, "pipeline");
}

#[test]
fn every_kind_of_work_is_read() {
    for lines in [
        "run = [\"a\", \"b c\", \"\"]",
        "shell = 'for x in {}; do echo ${x}; done'",
        "pipe = [\"a\", [\"b\", \"c d\"]]",
        "serve = \"worker --fast\"",
        "serve = { command = [\"w\"], framing = \"json\", max_items = 10 }",
        "python = \"pkg.module:function\"",
        "python = { function = \"m:f\", interpreter = \"python3.13\" }",
        "fetch = \"{}\"\nto = \"x/{/}\"",
        "resize = { width = 1 }\nto = \"{/.}.WebP\"",
        "put = { from = \"{in}\", url = \"s3://bucket/{/}\" }",
        "run = \"cp {} {out}\"\nto = \"{}.bak\"",
        "run = \"a\"\nbatch = { items = 3, wait = \"1s\" }",
        "run = \"a\"\nenv = { A = \"b\" }\ncwd = \"x\"\nstdin = true\nordered = true\nqueue = 1",
        "pipe = [\"a\", \"b\"]\nisolate = \"pid\"",
        "run = \"a\"\ntimeout = 1.5\ngrace = 0\nworkers = \"auto\"",
    ] {
        stage(lines).unwrap_or_else(|problem| panic!("{lines}: {problem}"));
    }
}

#[test]
fn jobs_are_isolated_in_one_way_and_only_where_there_are_some() {
    use paceline_process::Isolation;
    let isolated = stage("run = \"a\"\nisolate = \"pid\"").unwrap();
    assert_eq!(isolated.isolation, Some(Isolation::Pid));
    for (lines, message) in [
        ("run = \"a\"\nisolate = \"net\"", "`isolate` of stage `a` cannot be `net`"),
        ("run = \"a\"\nisolate = true", "`isolate` of stage `a`"),
        ("fetch = \"{}\"\nto = \"x\"\nisolate = \"pid\"", "`isolate` means nothing with `fetch`"),
        ("serve = \"a\"\nisolate = \"pid\"", "`isolate` means nothing with `serve`"),
    ] {
        let told = stage(lines).unwrap_err().render(false);
        assert!(told.contains(message), "{told}");
    }
}

#[test]
fn the_value_goes_to_the_beginning_of_a_pipe() {
    let stage = stage("pipe = [\"cat\", \"sort\"]").unwrap();
    let Work::Pipe(commands) = &stage.work else { panic!("no pipe") };
    let words: Vec<_> =
        commands.iter().map(|command| command.expand(&Values::new(&[b"v"])).unwrap()).collect();
    assert_eq!(words, [vec!["cat", "v"], vec!["sort"]]);
}

#[test]
fn sources_are_read() {
    let source = |lines: &str| read(&format!("[source]\n{lines}\n[[stage]]\nname='a'\nrun='b'"));
    for (lines, origin) in [
        ("lines = '-'", Origin::Lines { from: Location::Stdin, null: false }),
        (
            "lines = 'x'\nnull = true",
            Origin::Lines { from: Location::File("x".into()), null: true },
        ),
        ("jsonl = 'x'", Origin::Jsonl(Location::File("x".into()))),
        ("csv = 'x'", Origin::Csv(Location::File("x".into()))),
        ("values = ['a', '']", Origin::Values(vec![b"a".to_vec(), vec![]])),
        (
            "command = \"find . -name '*.jpg'\"",
            Origin::Command {
                words: ["find", ".", "-name", "*.jpg"].map(|w| w.as_bytes().to_vec()).to_vec(),
                null: false,
            },
        ),
    ] {
        assert_eq!(source(lines).unwrap().source, Some(origin), "{lines}");
    }
    let told: Vec<_> = [
        "",
        "glob = 'a'\nlines = 'b'",
        "glob = 'a'\nnull = true",
        "glob = 'a['",
        "lins = 'a'",
        "command = 'a | b'",
        "values = 'a'",
        "lines = 3",
    ]
    .iter()
    .map(|lines| source(lines).unwrap_err().render(false))
    .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    error: the source says nothing to read
     --> dir/pipeline.toml:1:1
      |
    1 | [source]
      | ^^^^^^^^
    hint: a source has exactly one of `glob`, `lines`, `jsonl`, `csv`, `values`, `command`

    error: the source has both `glob` and `lines`
     --> dir/pipeline.toml:3:1
      |
    3 | lines = 'b'
      | ^^^^^
    hint: a source has exactly one of `glob`, `lines`, `jsonl`, `csv`, `values`, `command`

    error: `null` means nothing with `glob`
     --> dir/pipeline.toml:3:1
      |
    3 | null = true
      | ^^^^
    hint: it goes with `lines` and `command`

    error: `glob` of the source is no pattern: unclosed character class; missing ']'
     --> dir/pipeline.toml:2:8
      |
    2 | glob = 'a['
      |        ^^^^

    error: unknown key `lins` in the source
     --> dir/pipeline.toml:2:1
      |
    2 | lins = 'a'
      | ^^^^
    hint: did you mean `lines`?

    error: the command holds the shell operator `|`
     --> dir/pipeline.toml:2:14
      |
    2 | command = 'a | b'
      |              ^
    hint: commands run without a shell: have one with `shell = "..."`, join commands with `pipe = [...]`, add a stage (`--then` of `paceline each`), or quote it: '|'

    error: `values` must be a list of strings
     --> dir/pipeline.toml:2:10
      |
    2 | values = 'a'
      |          ^^^

    error: `lines` of the source must be a string
     --> dir/pipeline.toml:2:9
      |
    2 | lines = 3
      |         ^ this is a whole number
    "#);
}

#[test]
fn a_name_is_an_earlier_stage_or_a_field() {
    let two = "[[stage]]\nname='one'\nrun='a'\n[[stage]]\nname='two'\nrun='a {NAME}'\n";
    let named = |name: &str| two.replace("NAME", name);
    read(&named("one")).unwrap();
    read(&format!("[source]\njsonl='x'\n{}", named("anything"))).unwrap();
    let told: Vec<_> = ["on", "two", "qqqqqq", "out", "2", "{"]
        .iter()
        .map(|name| read(&named(name)).unwrap_err().render(false))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    error: unknown placeholder `{on}`
     --> dir/pipeline.toml:6:8
      |
    6 | run='a {on}'
      |        ^^^^
    hint: did you mean `{one}`?

    error: `{two}` is this stage itself
     --> dir/pipeline.toml:6:8
      |
    6 | run='a {two}'
      |        ^^^^^
    hint: a placeholder names a stage before its own

    error: unknown placeholder `{qqqqqq}`
     --> dir/pipeline.toml:6:8
      |
    6 | run='a {qqqqqq}'
      |        ^^^^^^^^
    hint: a name is that of an earlier stage, or of a field where the source is `jsonl` or `csv`; write `{{` and `}}` for braces that are text

    error: `{out}` is there only in a stage with `to`
     --> dir/pipeline.toml:6:8
      |
    6 | run='a {out}'
      |        ^^^^^
    hint: add `to = "..."`: the file that `{out}` becomes

    error: there is no source 2: a pipeline file has one
     --> dir/pipeline.toml:6:8
      |
    6 | run='a {2}'
      |        ^^^
    hint: `{1}` is the item

    error: a `}` has no `{` before it
     --> dir/pipeline.toml:6:10
      |
    6 | run='a {{}'
      |          ^
    hint: write `}}` for a brace that is text
    "#);
}

#[test]
fn mistakes_of_a_stage_are_told_with_their_place() {
    insta::assert_snapshot!(told(&[
        "run = 'a'\ntimout = '30s'",
        "",
        "run = 'a'\nshell = 'b'",
        "run = 'a | b'",
        "run = \"\"\"\na 'b\"\"\"",
        "run = ''",
        "run = []",
        "run = 3",
        "run = 'a {b'",
        "shell = 'echo `{}`'",
        "pipe = 'a'",
        "pipe = []",
        "serve = 'a {}'",
        "python = 'module'",
        "fetch = 'https://h/{}'",
        "fetch = 'ftp://h/{}'\nto = '{/}'",
        "fetch = 'h/{}'\nto = '{/}'",
        "resize = { width = 1 }",
        "resize = {}\nto = 'a.jpg'",
        "resize = { width = 1 }\nto = '{/.}.gif'",
        "resize = { width = 0 }\nto = '{/.}.png'",
        "put = 'file:///x/{}'\nto = 'y'",
    ]), @r#"
    error: unknown key `timout` in stage `a`
     --> dir/pipeline.toml:4:1
      |
    4 | timout = '30s'
      | ^^^^^^
    hint: did you mean `timeout`?

    error: stage `a` has no work
     --> dir/pipeline.toml:1:1
      |
    1 | [[stage]]
      | ^^^^^^^^^
    hint: a stage has exactly one of `run`, `shell`, `pipe`, `serve`, `python`, `fetch`, `resize`, `put`

    error: stage `a` has both `run` and `shell`
     --> dir/pipeline.toml:4:1
      |
    4 | shell = 'b'
      | ^^^^^
    hint: a stage has exactly one of `run`, `shell`, `pipe`, `serve`, `python`, `fetch`, `resize`, `put`

    error: the command holds the shell operator `|`
     --> dir/pipeline.toml:3:10
      |
    3 | run = 'a | b'
      |          ^
    hint: commands run without a shell: have one with `shell = "..."`, join commands with `pipe = [...]`, add a stage (`--then` of `paceline each`), or quote it: '|'

    error: the quote ' is never closed
     --> dir/pipeline.toml:4:3
      |
    4 | a 'b"""
      |   ^

    error: `run` of stage `a` is empty
     --> dir/pipeline.toml:3:7
      |
    3 | run = ''
      |       ^^

    error: the command names no program
     --> dir/pipeline.toml:3:7
      |
    3 | run = []
      |       ^^

    error: `run` of stage `a` must be a string or a list of words
     --> dir/pipeline.toml:3:7
      |
    3 | run = 3
      |       ^ this is a whole number

    error: a `{` is never closed
     --> dir/pipeline.toml:3:10
      |
    3 | run = 'a {b'
      |          ^
    hint: write `{{` for a brace that is text

    error: a placeholder inside backquotes cannot be quoted safely
     --> dir/pipeline.toml:3:16
      |
    3 | shell = 'echo `{}`'
      |                ^^
    hint: use $(...) in place of `...`

    error: `pipe` of stage `a` must be a list of commands
     --> dir/pipeline.toml:3:8
      |
    3 | pipe = 'a'
      |        ^^^
    hint: write `pipe = ["first command", "second command"]`

    error: `pipe` of stage `a` has no command
     --> dir/pipeline.toml:3:8
      |
    3 | pipe = []
      |        ^^
    hint: write `pipe = ["first command", "second command"]`

    error: `serve` of stage `a` cannot hold a placeholder
     --> dir/pipeline.toml:3:9
      |
    3 | serve = 'a {}'
      |         ^^^^^^
    hint: its workers are started once and get the items later

    error: `python` of stage `a` names no function
     --> dir/pipeline.toml:3:10
      |
    3 | python = 'module'
      |          ^^^^^^^^
    hint: write `"module:function"`

    error: `fetch` of stage `a` needs `to`
     --> dir/pipeline.toml:3:1
      |
    3 | fetch = 'https://h/{}'
      | ^^^^^
    hint: say which file it fetches to: `to = "work/{/}"`

    error: `fetch` of stage `a` has the unknown scheme `ftp`
     --> dir/pipeline.toml:3:9
      |
    3 | fetch = 'ftp://h/{}'
      |         ^^^^^^^^^^^^
    hint: the URLs that it knows begin with `https:`, `http:`, `file:`

    error: `fetch` of stage `a` is no whole URL
     --> dir/pipeline.toml:3:9
      |
    3 | fetch = 'h/{}'
      |         ^^^^^^
    hint: the URLs that it knows begin with `https:`, `http:`, `file:`

    error: `resize` of stage `a` needs `to`
     --> dir/pipeline.toml:3:1
      |
    3 | resize = { width = 1 }
      | ^^^^^^
    hint: say which file it makes: `to = "thumbs/{/.}.jpg"`

    error: `resize` of stage `a` has neither `width` nor `height`
     --> dir/pipeline.toml:3:10
      |
    3 | resize = {}
      |          ^^
    hint: one of them is enough: `resize = { width = 640 }`

    error: `to` of stage `a` has the unknown ending `.gif`
     --> dir/pipeline.toml:4:6
      |
    4 | to = '{/.}.gif'
      |      ^^^^^^^^^^
    hint: the ending chooses the format: `.jpg`, `.jpeg`, `.png`, `.webp`

    error: `width` of `resize` of stage `a` must be 1 or more
     --> dir/pipeline.toml:3:20
      |
    3 | resize = { width = 0 }
      |                    ^

    error: `to` means nothing with `put`
     --> dir/pipeline.toml:4:1
      |
    4 | to = 'y'
      | ^^
    hint: it goes with work that makes a file
    "#);
}

#[test]
fn mistakes_of_numbers_are_told_with_their_place() {
    insta::assert_snapshot!(told(&[
        "run = 'a'\nworkers = 0",
        "run = 'a'\nworkers = -1",
        "run = 'a'\nworkers = 9223372036854775808",
        "run = 'a'\nworkers = 9223372036854775807",
        "run = 'a'\nworkers = 99999999999999999999999999999999999999999999",
        "run = 'a'\nworkers = 'many'",
        "run = 'a'\nworkers = 1.5",
        "run = 'a'\nqueue = 0",
        "run = 'a'\ntimeout = 0",
        "run = 'a'\ntimeout = '0s'",
        "run = 'a'\ntimeout = '5 minutes'",
        "run = 'a'\ntimeout = -1",
        "run = 'a'\ntimeout = nan",
        "run = 'a'\nretry = { times = -1 }",
        "run = 'a'\nretry = { times = 1, factor = 0.5 }",
        "run = 'a'\nretry = 3",
        "run = 'a'\nbatch = { items = 0 }",
        "fetch = 'http://h/{}'\nto = '{/}'\nbatch = { items = 2 }",
        "run = 'a'\nenv = { A = 1 }",
    ]), @r#"
    error: `workers` of stage `a` must be 1 or more
     --> dir/pipeline.toml:4:11
      |
    4 | workers = 0
      |           ^

    error: `workers` of stage `a` must be 1 or more
     --> dir/pipeline.toml:4:11
      |
    4 | workers = -1
      |           ^^

    error: `workers` of stage `a` is too great
     --> dir/pipeline.toml:4:11
      |
    4 | workers = 9223372036854775808
      |           ^^^^^^^^^^^^^^^^^^^ at most 1000000

    error: `workers` of stage `a` is too great
     --> dir/pipeline.toml:4:11
      |
    4 | workers = 9223372036854775807
      |           ^^^^^^^^^^^^^^^^^^^ at most 1000000

    error: `workers` of stage `a` is out of range
     --> dir/pipeline.toml:4:11
      |
    4 | workers = 99999999999999999999999999999999999999999999
      |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

    error: `workers` of stage `a` cannot be `many`
     --> dir/pipeline.toml:4:11
      |
    4 | workers = 'many'
      |           ^^^^^^
    hint: write a number, or `"auto"`

    error: `workers` of stage `a` must be a whole number
     --> dir/pipeline.toml:4:11
      |
    4 | workers = 1.5
      |           ^^^ this is a number

    error: `queue` of stage `a` must be 1 or more
     --> dir/pipeline.toml:4:9
      |
    4 | queue = 0
      |         ^

    error: `timeout` of stage `a` cannot be 0
     --> dir/pipeline.toml:4:11
      |
    4 | timeout = 0
      |           ^
    hint: leave it out for no limit

    error: `timeout` of stage `a` cannot be 0
     --> dir/pipeline.toml:4:11
      |
    4 | timeout = '0s'
      |           ^^^^
    hint: leave it out for no limit

    error: `timeout` of stage `a`: `5 minutes` is no duration
     --> dir/pipeline.toml:4:11
      |
    4 | timeout = '5 minutes'
      |           ^^^^^^^^^^^
    hint: write `250ms`, `30s`, `5m`, `1h` or `1.5s`; a plain number is seconds

    error: `timeout` of stage `a` cannot be negative
     --> dir/pipeline.toml:4:11
      |
    4 | timeout = -1
      |           ^^

    error: `timeout` of stage `a` is no number to work with
     --> dir/pipeline.toml:4:11
      |
    4 | timeout = nan
      |           ^^^

    error: `times` of `retry` of stage `a` must be 0 or more
     --> dir/pipeline.toml:4:19
      |
    4 | retry = { times = -1 }
      |                   ^^

    error: `factor` of `retry` of stage `a` must be 1 or more
     --> dir/pipeline.toml:4:31
      |
    4 | retry = { times = 1, factor = 0.5 }
      |                               ^^^
    hint: each wait is `factor` times the one before it

    error: `retry` of stage `a` must be a table
     --> dir/pipeline.toml:4:9
      |
    4 | retry = 3
      |         ^ this is a whole number

    error: `items` of `batch` of stage `a` must be 1 or more
     --> dir/pipeline.toml:4:19
      |
    4 | batch = { items = 0 }
      |                   ^

    error: `batch` means nothing with `fetch`
     --> dir/pipeline.toml:5:1
      |
    5 | batch = { items = 2 }
      | ^^^^^
    hint: it goes with `run`, `shell` and `pipe`

    error: `A` of `env` of stage `a` must be a string
     --> dir/pipeline.toml:4:13
      |
    4 | env = { A = 1 }
      |             ^ this is a whole number
    "#);
}

#[test]
fn mistakes_of_the_whole_file_are_told_with_their_place() {
    let told: Vec<_> = [
        "",
        "stage = []",
        "[stage]\nname = 'a'",
        "[[stage]]\nrun = 'a'",
        "[[stage]]\nname = 'in'\nrun = 'a'",
        "[[stage]]\nname = 'a'\nrun = 'a'\n[[stage]]\nname = 'a'\nrun = 'a'",
        "[[stages]]\nname = 'a'",
        "name = 'a'\nname = 'b'",
        "[[stage]\nname = 'a'",
        "[[stage]]\nname = 'a\u{1b}[31m'\nrun = 'a'",
        "[[stage]]\nname = \"\\u001b[31m\"\nrun = 'a'",
    ]
    .iter()
    .map(|text| read(text).unwrap_err().render(false))
    .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    error: the pipeline has no stage (in `dir/pipeline.toml`)
    hint: a stage begins with `[[stage]]`, then `name = "..."` and its work

    error: the pipeline has no stage
     --> dir/pipeline.toml:1:9
      |
    1 | stage = []
      |         ^^
    hint: a stage begins with `[[stage]]`, then `name = "..."` and its work

    error: `stage` is one table, and not a list of them
     --> dir/pipeline.toml:1:1
      |
    1 | [stage]
      | ^^^^^^^
    hint: write `[[stage]]` with double brackets

    error: stage 1 has no `name`
     --> dir/pipeline.toml:1:1
      |
    1 | [[stage]]
      | ^^^^^^^^^
    hint: give each stage a name: `name = "..."`

    error: a stage cannot be called `in`
     --> dir/pipeline.toml:2:8
      |
    2 | name = 'in'
      |        ^^^^
    hint: `{in}` means something else already

    error: a second stage is called `a`
     --> dir/pipeline.toml:5:8
      |
    5 | name = 'a'
      |        ^^^
    hint: the first one is on line 2; give this one another name

    error: unknown key `stages` in the pipeline file
     --> dir/pipeline.toml:1:3
      |
    1 | [[stages]]
      |   ^^^^^^
    hint: did you mean `stage`?

    error: the file is no TOML: duplicate key
     --> dir/pipeline.toml:2:1
      |
    2 | name = 'b'
      | ^^^^

    error: the file is no TOML: unclosed array table, expected `]`
     --> dir/pipeline.toml:1:9
      |
    1 | [[stage]
      |         ^

    error: the file is no TOML: invalid literal string, expected non-single-quote visible characters
     --> dir/pipeline.toml:2:10
      |
    2 | name = 'a�[31m'
      |          ^

    error: a stage's name cannot hold braces or control characters
     --> dir/pipeline.toml:2:8
      |
    2 | name = "\u001b[31m"
      |        ^^^^^^^^^^^^
    "#);
}

#[test]
fn the_definition_is_what_decides_the_result() {
    let one = stage("run = 'a {}'\nworkers = 2\nenv = { B = 'b', A = 'a' }").unwrap();
    let other =
        stage("env = { A = \"a\", B = \"b\" }\nretry = { times = 1 }\nrun = \"a {}\"").unwrap();
    assert_eq!(one.definition, other.definition);
    assert_ne!(one.definition, stage("run = 'b {}'").unwrap().definition);
}

#[test]
fn hostile_files_are_refused_in_little_time() {
    let many_keys: String = (0..300_000).map(|n| format!("k{n}=1\n")).collect();
    let many_stages = "[[stage]]\nname='a'\nrun='b'\n".repeat(100_000);
    for (what, text) in [
        ("nested arrays", format!("a = {}", "[".repeat(100_000))),
        ("closed nested arrays", format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000))),
        ("nested tables", format!("a = {}", "{a=".repeat(100_000))),
        ("dotted keys", format!("{}a = 1", "a.".repeat(100_000))),
        ("a dotted header", format!("[{}a]", "a.".repeat(100_000))),
        ("many keys", many_keys),
        ("many stages", many_stages),
        ("one long key", "k".repeat(4 << 20)),
    ] {
        let start = Instant::now();
        let problem = read(&text).unwrap_err();
        assert!(problem.render(false).len() < 10_000, "{what}");
        // Unoptimised, on a busy machine; a second where it counts.
        assert!(start.elapsed() < Duration::from_secs(10), "{what}: {:?}", start.elapsed());
    }
}

#[test]
fn a_file_over_the_limit_is_refused_unparsed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    std::fs::write(&path, vec![b'#'; (4 << 20) + 1]).unwrap();
    assert!(load(&path).unwrap_err().message().ends_with("is over the limit of 4 MiB"));
    std::fs::write(&path, b"\n\xff").unwrap();
    assert!(load(&path).unwrap_err().message().ends_with("is not UTF-8"));
    std::fs::remove_file(&path).unwrap();
    assert!(load(&path).unwrap_err().message().ends_with("no such file or directory"));
}

#[test]
fn a_missing_source_is_told_with_its_place() {
    let pipeline = read("[source]\nlines = 'none'\n[[stage]]\nname = 'a'\nrun = 'b'").unwrap();
    let problem = pipeline.open_source(&Interrupt::new().unwrap()).unwrap_err();
    insta::assert_snapshot!(problem.render(false), @r"
    error: cannot open the source `dir/none`: no such file or directory
     --> dir/pipeline.toml:2:9
      |
    2 | lines = 'none'
      |         ^^^^^^
    hint: paths in the file are relative to its folder; `-` is standard input
    ");
}
