//! What people read: errors with a place and a next step, the summary,
//! `check`, the help.

use insta::assert_snapshot;

use crate::support::World;

const STAGE: &str = "[[stage]]\nname = \"s\"\n";

/// What is said of a file that is refused, before anything runs.
fn refusal(text: &str) -> String {
    let world = World::with(&format!("{text}\n"));
    let ended = world.run([""; 0]).end().exits(2);
    assert!(ended.stdout.is_empty());
    // `check` refuses it in the same words.
    let checked = world.paceline(["check", "p.toml"]).end().exits(2);
    assert_eq!(checked.stderr, ended.stderr);
    ended.stderr
}

/// Lets snapshots pass over what differs from run to run: times, shares,
/// widths, and how deep a queue was.
fn steady() -> insta::internals::SettingsBindDropGuard {
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"\b\d+(\.\d+)? (us|ms|s)\b", "[time]");
    settings.add_filter(r"\b\d+ %", "[share]");
    settings.add_filter(r"(?m) +\d+$", " [n]");
    settings.add_filter(r"\(\d+\)", "([n])");
    settings.add_filter(r"(\S)  +", "$1 ");
    settings.bind_to_scope()
}

#[test]
fn a_key_that_is_no_key_has_its_place_and_the_one_meant() {
    assert_snapshot!(refusal(&format!("{STAGE}run = \"true\"\ntimout = 3")), @r"
    error: unknown key `timout` in stage `s`
     --> p.toml:4:1
      |
    4 | timout = 3
      | ^^^^^^
    hint: did you mean `timeout`?
    ");
}

#[test]
fn an_unknown_placeholder_is_pointed_at() {
    assert_snapshot!(refusal(&format!("{STAGE}run = \"echo {{nam}}\"")), @r#"
    error: unknown placeholder `{nam}`
     --> p.toml:3:13
      |
    3 | run = "echo {nam}"
      |             ^^^^^
    hint: a name is that of an earlier stage, or of a field where the source is `jsonl` or `csv`; write `{{` and `}}` for braces that are text
    "#);
}

#[test]
fn a_shell_operator_is_refused_with_the_ways_out() {
    assert_snapshot!(refusal(&format!("{STAGE}run = \"ls | wc\"")), @r#"
    error: the command holds the shell operator `|`
     --> p.toml:3:11
      |
    3 | run = "ls | wc"
      |           ^
    hint: commands run without a shell: have one with `shell = "..."`, join commands with `pipe = [...]`, add a stage (`--then` of `paceline each`), or quote it: '|'
    "#);
}

#[test]
fn a_missing_source_is_pointed_at() {
    assert_snapshot!(refusal(&format!("[source]\nlines = \"missing\"\n{STAGE}run = \"true\"")), @r#"
    error: cannot open the source `missing`: no such file or directory
     --> p.toml:2:9
      |
    2 | lines = "missing"
      |         ^^^^^^^^^
    hint: paths in the file are relative to its folder; `-` is standard input
    "#);
}

#[test]
fn broken_toml_is_pointed_at() {
    assert_snapshot!(refusal(&format!("{STAGE}run = [")), @r"
    error: the file is no TOML: unclosed array, expected `]`
     --> p.toml:3:8
      |
    3 | run = [
      |        ^
    ");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let world = World::new();
    std::fs::create_dir(world.path("folder")).unwrap();
    assert_snapshot!(world.paceline(["run", "p.toml"]).end().exits(2).stderr, @"error: cannot read the pipeline file `p.toml`: no such file or directory");
    assert_snapshot!(world.paceline(["run", "folder"]).end().exits(2).stderr, @"error: cannot read the pipeline file `folder`: is a directory");
}

#[test]
fn a_wrong_value_of_an_option_is_named() {
    let world = World::with(&format!("{STAGE}run = \"true\""));
    assert_snapshot!(world.run(["--halt", "now,3"]).end().exits(2).stderr, @"
    error: invalid value 'now,3' for '--halt <soon|now[,fail=N|N%]>': `3` is not `fail=N` or `fail=N%`

    For more information, try '--help'.
    ");
}

#[test]
fn a_terminal_is_not_waited_for() {
    let world = World::with(&format!("{STAGE}run = \"echo\""));
    let script = "script -qec \"$PACELINE run p.toml 2> said\" /dev/null";
    world.program("sh", ["-c", script]).env("NO_COLOR", "1").end().exits(2);
    assert_snapshot!(world.read("said"), @"
    error: there is nothing to work on: the pipeline has no source, and standard input is a terminal
    hint: name the items after the file, pipe them in, or add a `[source]`
    ");
}

#[test]
fn a_failed_item_is_a_line_with_the_reason_and_what_helps() {
    let cases = [
        "run = \"no-such-program\"",
        "run = \"./plain\"",
        "run = \"sh -c 'kill -9 $$'\"",
        "run = \"true\"\ncwd = \"nowhere\"",
        "resize = { width = 3 }\nto = \"x.png\"",
        "put = \"file:out/{}\"",
        "fetch = \"{}\"\nto = \"x\"",
        "run = \"false\"\nretry = { times = 1 }",
        "shell = \"exit 3\"",
    ];
    let mut said = String::new();
    for work in cases {
        let world = World::with(&format!("{STAGE}{work}\n"));
        world.write("plain", "");
        let ended = world.run(["it em"]).end().exits(1).counts(1, 0, 1, 0);
        let line = ended.stderr.lines().next().unwrap().to_owned() + "\n";
        let folder = world.path("").canonicalize().unwrap().display().to_string();
        said += &line.replace(&folder, "/FOLDER");
        said = said.replace(&world.path("").display().to_string(), "/FOLDER/");
    }
    assert_snapshot!(said, @"
    failed: it em: stage `s`: could not find program `no-such-program`
    failed: it em: stage `s`: could not execute `./plain`: permission denied; make it executable with `chmod +x FILE`
    failed: it em: stage `s`: `sh -c 'kill -9 $$' 'it em'` failed: signal 9 (SIGKILL)
    failed: it em: stage `s`: could not start `true` in directory `/FOLDER/nowhere`: no such file or directory
    failed: it em: stage `s`: could not read `/FOLDER/it em`: no such file or directory
    failed: it em: stage `s`: could not read `/FOLDER/it em`: no such file or directory
    failed: it em: stage `s`: `it em` is no URL: it has no scheme; a local file is `file:NAME`
    failed: it em: stage `s`: `false 'it em'` failed: exit status 1 (after 2 attempts)
    failed: it em: stage `s`: exit status 3
    ");
}

#[test]
fn the_summary_is_a_table_the_bottleneck_and_the_account() {
    let world = World::with(
        "[[stage]]\nname = \"fast\"\nrun = \"echo\"\nworkers = 1\nqueue = 3\n\
         [[stage]]\nname = \"slow\"\nworkers = 1\nretry = { times = 1 }\n\
         shell = \"sleep 0.05; test {} != b\"\n",
    );
    let ended = world.run(["a", "b", "c"]).end().exits(1);
    let _steady = steady();
    assert_snapshot!(&ended.stderr, @"
    failed: b: stage `slow`: exit status 1 (after 2 attempts)
    stage done failed retried workers busy waiting p50 p99 queue
    fast 3 0 0 1 [share] [share] [time] [time] [n]
    slow 2 1 1 1 [share] [share] [time] [time] [n]
    bottleneck: `slow`, whose 1 worker was [share] busy
    in 3 = ok 2 + failed 1 + unfinished 0, [time]
    ");
}

#[test]
fn the_summary_of_no_items_claims_nothing() {
    let world = World::with(
        "[[stage]]\nname = \"one\"\nrun = \"echo\"\nworkers = 2\n[[stage]]\nname = \"two\"\nrun = \"echo\"\nworkers = 3\n",
    );
    let ended = world.run([""; 0]).end().exits(0);
    let _steady = steady();
    assert_snapshot!(ended.stderr, @"
    stage done failed retried workers busy waiting p50 p99 queue
    one 0 0 0 2 [share] [share] - - [n]
    two 0 0 0 3 [share] [share] - - [n]
    in 0 = ok 0 + failed 0 + unfinished 0, [time]
    ");
}

#[test]
fn a_very_long_name_of_a_stage_leaves_room_for_the_numbers() {
    let name = "n".repeat(5000);
    let world = World::with(&format!("[[stage]]\nname = \"{name}\"\nrun = \"true\"\n"));
    let ended = world.run(["x"]).end().exits(0);
    assert!(ended.stderr.lines().all(|line| line.len() < 200), "{}", ended.stderr);
}

#[test]
fn check_shows_the_stages_and_the_first_items_commands_and_runs_nothing() {
    let world = World::with(
        "name = \"all\"\n[source]\nvalues = [\"a b/c.png\"]\n\
         [[stage]]\nname = \"get\"\nfetch = \"https://example.org/{}\"\nto = \"work/{/}\"\n\
         retry = { times = 2 }\n\
         [[stage]]\nname = \"small\"\nresize = { width = 64 }\nto = \"small/{/.}.jpg\"\nworkers = 2\n\
         [[stage]]\nname = \"send\"\nput = \"s3://bucket/{/}\"\n\
         [[stage]]\nname = \"sum\"\npipe = [\"gzip -nc {small}\", \"sha256sum\"]\ntimeout = \"30s\"\n\
         [[stage]]\nname = \"say\"\nshell = \"echo {} >> said\"\nbatch = { items = 9 }\nworkers = 1\n\
         ordered = true\n",
    );
    let ended = world.paceline(["check", "p.toml"]).end().exits(0);
    assert!(ended.stderr.is_empty());
    assert_eq!(world.list(""), ["p.toml"]);
    let _steady = steady();
    assert_snapshot!(ended.text(), @r#"
        pipeline `all`
        first item: 'a b/c.png'

        stage `get`: fetch, workers auto, up to 3 attempts
            fetch https://example.org/a%20b/c.png
            to work/c.png

        stage `small`: resize, workers [n]
            resize to fit 64 x any
            to small/c.jpg

        stage `send`: put, workers auto
            put s3://bucket/c.jpg

        stage `sum`: pipe, workers auto, timeout 30s
            gzip -nc small/c.jpg | sha256sum

        stage `say`: shell, workers 1, batches of 9, ordered
            sh -c 'echo "${1}" >> said' sh {}
        "#);
}

#[test]
fn check_tells_that_the_first_item_would_fail() {
    let world = World::with(&format!(
        "[source]\njsonl = \"items\"\n{STAGE}run = \"echo {{x}}\"\nto = \"out/{{x}}\"\nworkers = 1\n"
    ));
    let check = || world.paceline(["check", "p.toml"]).end().exits(0);
    world.write("items", "{broken\n");
    assert_snapshot!(check().text(), @"
    pipeline `p`
    first item fails: line 1 is no JSON: key must be a string (column 2)

    stage `s`: run, workers 1
    ");
    world.write("items", "{\"x\": \"../y\"}\n");
    assert_snapshot!(check().text(), @r#"
    pipeline `p`
    first item: '{"x": "../y"}'

    stage `s`: run, workers 1
        echo ../y
        fails for this item: the output name `out/../y` leads out of `out/`
    "#);
}

#[test]
fn the_help_is_short_and_names_the_exit_statuses() {
    let world = World::new();
    let help = world.paceline(["run", "-h"]).end().exits(0);
    assert_snapshot!(help.text(), @"
    Push items through the stages of a pipeline file

    Usage: paceline run [OPTIONS] <PIPELINE.toml> [INPUT]...

    Arguments:
      <PIPELINE.toml>  The pipeline file
      [INPUT]...       Items that take the place of the file's source

    Options:
          --json                         Print one JSON object an item on standard output
      -q, --quiet                        Leave out the display, the summary and the line for each failed
                                         item
          --progress <WHEN>              When to show the live display on standard error [default: auto]
                                         [possible values: auto, always, never]
          --halt <soon|now[,fail=N|N%]>  Stop when items fail: `soon` lets running jobs finish, `now`
                                         stops them; after N failures, or when N% of the items answered
                                         have failed
          --isolate                      Run each job in a PID namespace of its own, which nothing
                                         outlives
          --pace-log <FILE>              Write what is measured and decided about workers, as lines of
                                         JSON
          --freeze <FILE>                Write the numbers of workers that the run comes to, for
                                         `--workers-from`
          --workers-from <FILE>          Use the numbers of workers that `--freeze` has written
          --cpu-budget <N|N%>            How many cores `auto` may keep busy: a number such as 1.5, or
                                         N%
          --journal <FILE>               Record in FILE and not in `.paceline/journal.db` beside the
                                         pipeline file
          --durable                      Wait for the disk at each commit: what is done survives a power
                                         cut
          --no-journal                   Record nothing: the run cannot be resumed
      -h, --help                         Print help (see more with '--help')

    Exit status:
      0      every item is accounted for, and ok
      1      some items failed
      2      the command line or a file is wrong; nothing was run
      3      items or input are left unfinished, none lost
      4      paceline itself could not go on
      128+n  ended by signal n, after the clean-up
    ");
}
