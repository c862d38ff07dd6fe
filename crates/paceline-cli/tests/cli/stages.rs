//! What a stage's work is given, and what it gives.

use crate::support::World;

fn stage(rest: &str) -> World {
    World::with(&format!("[[stage]]\nname = \"s\"\n{rest}\nordered = true\n"))
}

#[test]
fn every_placeholder_says_what_it_should() {
    let world = World::with(
        "[[stage]]\nname = \"one\"\nrun = \"printf %s made/{/}\"\n\
         [[stage]]\nname = \"two\"\nworkers = 1\nordered = true\n\
         run = [\"printf\", \"%s\\n\", \"{}\", \"{in}\", \"{.}\", \"{/}\", \"{//}\", \"{/.}\", \
         \"{#}\", \"{%}\", \"{1}\", \"{one}\", \"{{x}}\"]",
    );
    let ended = world.run(["a.d/b.tar.gz", ".rc"]).end().exits(0);
    assert_eq!(
        ended.lines(),
        [
            "made/b.tar.gz",
            "a.d/b.tar.gz",
            "made/b.tar",
            "b.tar.gz",
            "made",
            "b.tar",
            "1",
            "1",
            "a.d/b.tar.gz",
            "made/b.tar.gz",
            "{x}",
            "made/.rc",
            ".rc",
            "made/.rc",
            ".rc",
            "made",
            ".rc",
            "2",
            "1",
            ".rc",
            "made/.rc",
            "{x}",
        ]
    );
}

#[test]
fn a_value_is_one_argument_whatever_it_holds() {
    let world = stage("run = \"printf '[%s]'\"");
    let hostile = ["; touch P", "$(touch P)", "`touch P`", "a\nb", "-rf", "{}", "'\"", "*", "$'"];
    let ended = world.run(std::iter::once("--").chain(hostile)).end().exits(0);
    let expected: String = hostile.iter().map(|item| format!("[{item}]\n")).collect();
    assert_eq!(ended.text(), expected);
    assert!(!world.has("P"));
}

#[test]
fn a_value_in_a_script_is_data_inside_every_kind_of_quotes() {
    let world = stage("shell = \"\"\"printf '%s|' {} \"{}\" '{}' \"$1\"\"\"\"");
    let hostile =
        ["; touch P", "$(touch P)", "`touch P`", "a\nb", "{}", "'\"", "*", "' ; touch P '"];
    let ended = world.run(hostile).end().exits(0);
    let expected: String = hostile.iter().map(|i| format!("{i}|{i}|{i}|{i}|\n")).collect();
    assert_eq!(ended.text(), expected);
    assert!(!world.has("P"));
}

#[test]
fn standard_input_is_empty_unless_the_value_is_asked_for() {
    let world = stage("shell = \"cat; echo end\"");
    assert_eq!(world.run(["x"]).input("not for jobs").end().exits(0).lines(), ["end"]);

    let world = stage("run = [\"sh\", \"-c\", \"cat; echo $#\"]\nstdin = true");
    assert_eq!(world.run(["x\n"]).end().exits(0).text(), "x\n0\n");

    let world = stage("run = \"printf %s-%s {#}\"\nstdin = true");
    assert_eq!(world.run(["x"]).end().exits(0).text(), "1-\n");
}

#[test]
fn the_result_is_the_output_without_its_last_newline() {
    let world = World::with(
        "[[stage]]\nname = \"one\"\nshell = \"printf 'a\\\\n\\\\n'\"\n\
         [[stage]]\nname = \"two\"\nrun = \"printf '[%s]'\"",
    );
    assert_eq!(world.run(["x"]).end().exits(0).text(), "[a\n]\n");
}

#[test]
fn a_job_is_told_of_itself() {
    let world = stage(
        "shell = 'echo $PACELINE_STAGE $PACELINE_SEQ $PACELINE_SLOT $PACELINE_ATTEMPT \
         ${#PACELINE_RUN} ${#PACELINE_ITEM} $OWN $INHERITED; echo $PACELINE_JOB >> jobs'\n\
         workers = 1\nenv = { OWN = \"own $x\" }",
    );
    let ended = world.run(["a", "a"]).env("INHERITED", "yes").end().exits(0);
    assert_eq!(ended.lines(), ["s 1 1 1 36 32 own $x yes", "s 2 1 1 36 32 own $x yes"]);
    assert_eq!(world.read("jobs"), "1\n2\n");
}

#[test]
fn the_id_in_the_environment_is_that_of_the_report() {
    let world = stage("shell = 'echo $PACELINE_ITEM'");
    let ended = world.run(["a", "a", "--json"]).end().exits(0);
    let objects = ended.json();
    assert_ne!(objects[0]["id"], objects[1]["id"]);
    for object in objects {
        assert_eq!(object["id"], object["value"]);
    }
}

#[test]
fn a_job_inherits_three_descriptors_and_no_signal_settings() {
    // `ls` reads the folder with the fourth descriptor. Of the ignored signals
    // the two of libc itself do not count: its `posix_spawn` leaves them so.
    let world = stage(
        "run = ['bash', '-c', 'ls /proc/self/fd | wc -l; \
         grep SigBlk /proc/self/status; trap -p; \
         echo $((0x$(grep SigIgn /proc/self/status | cut -f2) & 0x7fffffff))']",
    );
    let script = "exec 7</dev/null 9>&1; exec env --block-signal=TERM,INT \
        --ignore-signal=QUIT,HUP,TERM,CHLD,PIPE,USR1 \"$PACELINE\" run p.toml x";
    let ended = world.sh(script).end().exits(0);
    assert_eq!(ended.lines(), ["4", "SigBlk:\t0000000000000000", "0"]);
}

#[test]
fn jobs_run_in_the_files_folder_unless_told_otherwise() {
    let world = World::new();
    world.write("sub/deep/x", "");
    world.write(
        "sub/p.toml",
        "[[stage]]\nname = \"one\"\nshell = \"pwd > {out}\"\nto = \"where/{}\"\n\
         [[stage]]\nname = \"two\"\nrun = [\"sh\", \"-c\", \"pwd; echo $0; cat $0\", \"{}\"]\n\
         cwd = \"deep\"",
    );
    let ended = world.paceline(["run", "sub/p.toml", "a"]).end().exits(0);
    let sub = world.path("sub").canonicalize().unwrap().display().to_string();
    let expected = [format!("{sub}/deep"), format!("{sub}/where/a"), sub.clone()];
    assert_eq!(ended.lines(), expected);
}

#[test]
fn a_missing_cwd_is_named() {
    let world = stage("run = \"true\"\ncwd = \"nowhere\"");
    world.run(["a"]).end().exits(1).counts(1, 0, 1, 0).says("nowhere");
}

#[test]
fn pipes_join_programs_and_name_the_one_that_failed() {
    let world = stage("pipe = [\"seq {}\", \"grep 1\", [\"wc\", \"-l\"]]");
    assert_eq!(world.run(["10", "3"]).end().exits(0).lines(), ["2", "1"]);

    let world = stage("pipe = [\"echo {}\", \"sh -c 'cat; exit 5'\", \"cat\"]");
    world
        .run(["x"])
        .end()
        .exits(1)
        .says("command 2 of 3, `sh -c 'cat; exit 5'` failed: exit status 5");

    let world = stage("pipe = [\"yes {}\", \"head -1\"]");
    assert_eq!(world.run(["x"]).end().exits(0).lines(), ["x"]);

    let world = stage("pipe = [\"cat\", \"tr a b\"]\nstdin = true");
    assert_eq!(world.run(["banana"]).end().exits(0).lines(), ["bbnbnb"]);
}

#[test]
fn every_way_to_fail_has_its_name() {
    let cases = [
        ("run = \"sh -c 'exit 7'\"", "exit", 7, 0),
        ("run = [\"sh\", \"-c\", \"kill -SEGV $$\"]", "signal", 0, 11),
        ("run = \"no-such-program\"", "not-found", 0, 0),
        ("run = \"./plain\"", "not-executable", 0, 0),
        ("run = \"./script\"", "not-executable", 0, 0),
        ("shell = 'test -p gate && read x < gate'\ntimeout = \"50ms\"", "timeout", 0, 0),
    ];
    for (work, kind, code, signal) in cases {
        let world = stage(work);
        world.fifo("gate");
        world.write("plain", "x");
        world.write("script", "echo no interpreter\n");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(world.path("script"), executable).unwrap();
        let ended = world.run(["x", "--json"]).end().exits(1).counts(1, 0, 1, 0);
        let error = &ended.json()[0]["error"];
        assert_eq!(error["kind"], kind, "{error}");
        assert_eq!(error["code"].as_i64().unwrap_or(0), code, "{error}");
        assert_eq!(error["signal"].as_i64().unwrap_or(0), signal, "{error}");
        if work.contains("script") {
            ended.says("#!");
        }
    }
}

#[test]
fn r55_17_three_stages_of_commands_end_with_a_table_and_with_0_only_if_all_is_ok() {
    let file = "[[stage]]\nname = \"download\"\nrun = \"echo got\"\nworkers = 3\n\
                [[stage]]\nname = \"resize\"\nrun = \"echo fit\"\nworkers = 4\n\
                [[stage]]\nname = \"upload\"\nshell = \"test {#} != 7 && echo up {}\"\nworkers = 5\n";
    let world = World::with(file);
    let items: Vec<String> = (1..=6).map(|number| number.to_string()).collect();
    let ended = world.run(&items).end().exits(0).counts(6, 6, 0, 0);
    assert_eq!(ended.sorted()[0], "up fit got 1");
    for stage in ["download", "resize", "upload"] {
        assert!(ended.stderr.contains(stage), "{}", ended.stderr);
    }
    let items: Vec<String> = (1..=8).map(|number| number.to_string()).collect();
    world.run(&items).end().exits(1).counts(8, 7, 1, 0);
}
