//! Bytes in and out.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use paceline_process::{Stderr, Stdin, Stdout};

use super::support::{assert_echoed, run, zombies};

const MIB: usize = 1024 * 1024;

fn bytes(count: usize) -> Vec<u8> {
    // 251 is prime: a chunk that is lost or doubled shifts the pattern.
    (0..count).map(|at| (at % 251) as u8).collect()
}

/// Row 38 too.
#[test]
fn r52_10_eight_mebibytes_each_way_do_not_deadlock() {
    run(|world| {
        let input = bytes(8 * MIB);
        let output = world.echo(&["echo-both"], &input).run().unwrap().check().unwrap();
        assert_echoed(&output, &input);
    });
}

#[test]
fn p38_a_child_may_write_everything_before_it_reads_anything() {
    run(|world| {
        let input = bytes(2 * MIB);
        let output = world
            .echo(&["flood", &input.len().to_string()], &input)
            .run()
            .unwrap()
            .check()
            .unwrap();
        assert_echoed(&output, &input);
    });
}

/// Row 39 too.
#[test]
fn r52_11_input_that_nobody_reads_is_no_error() {
    run(|world| {
        for script in ["exit 0", "exec <&-; echo early; sleep 0.1"] {
            let output = world
                .sh(script)
                .stdin(Stdin::from(bytes(MIB)))
                .stdout(Stdout::Capture)
                .run()
                .unwrap();
            assert_eq!(output.exit().code(), Some(0));
        }
        let failed = world.sh("exit 9").stdin(Stdin::from(bytes(MIB))).run().unwrap();
        assert_eq!(failed.exit().code(), Some(9));
    });
}

#[test]
fn p39_who_writes_to_a_pipe_by_hand_is_told_that_it_broke() {
    run(|world| {
        let mut child = world.command("true").stdin(Stdin::Pipe).spawn().unwrap();
        let mut stdin = child.take_stdin().unwrap();
        assert!(child.take_stdin().is_none());
        child.wait().unwrap();
        let error = stdin.write_all(b"too late").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn p36_streams_go_where_they_are_sent() {
    run(|world| {
        let both = world.sh("echo out; echo err >&2");
        // Inherited: by a shell, whose own output is captured.
        let inherited = both.clone().stdout(Stdout::Inherit).stderr(Stderr::Inherit);
        assert!(inherited.stdout(Stdout::Null).stderr(Stderr::Null).run().unwrap().success());

        let out = both.clone().stdout(Stdout::Capture).stderr(Stderr::Null).run().unwrap();
        assert_eq!(out.stdout().to_text().unwrap(), "out\n");
        assert!(out.stderr().is_empty());

        let err = both.clone().stdout(Stdout::Null).stderr(Stderr::Capture).run().unwrap();
        assert_eq!(err.stderr().to_text().unwrap(), "err\n");

        let merged = both.clone().stdout(Stdout::Capture).stderr(Stderr::ToStdout).run().unwrap();
        assert_eq!(merged.stdout().to_text().unwrap(), "out\nerr\n");
        assert!(merged.stderr().is_empty());

        let file = File::create(world.path("both")).unwrap();
        both.clone().stdout(file).stderr(Stderr::ToStdout).run().unwrap();
        assert_eq!(std::fs::read_to_string(world.path("both")).unwrap(), "out\nerr\n");

        both.stdout(Stdout::Null).stderr(Stderr::ToStdout).run().unwrap().check().unwrap();
    });
}

#[test]
fn p36_stdin_is_nothing_a_file_or_bytes() {
    run(|world| {
        let cat = world.command("cat").stdout(Stdout::Capture);
        assert!(cat.run().unwrap().check().unwrap().stdout().is_empty());

        std::fs::write(world.path("input"), "from a file").unwrap();
        let file = File::open(world.path("input")).unwrap();
        let output = cat.clone().stdin(file).run().unwrap();
        assert_eq!(output.stdout().to_text().unwrap(), "from a file");

        let from_bytes = cat.stdin(Stdin::from("bytes"));
        for _ in 0..2 {
            assert_eq!(from_bytes.run().unwrap().stdout().to_text().unwrap(), "bytes");
        }
    });
}

#[test]
fn p36_pipes_can_be_used_by_hand() {
    run(|world| {
        let mut child =
            world.command("cat").stdin(Stdin::Pipe).stdout(Stdout::Pipe).spawn().unwrap();
        let mut stdin = child.take_stdin().unwrap();
        let mut stdout = child.take_stdout().unwrap();
        for round in 0..100_u8 {
            stdin.write_all(&[round]).unwrap();
            let mut answer = [0];
            stdout.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [round]);
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
        assert_eq!(stdout.read(&mut [0]).unwrap(), 0);
    });
}

#[test]
fn p36_a_pipe_that_nobody_took_ends_with_communicate() {
    run(|world| {
        let mut child =
            world.command("cat").stdin(Stdin::Pipe).stdout(Stdout::Capture).spawn().unwrap();
        assert!(child.communicate(Some(Duration::from_secs(10))).unwrap().success());
    });
}

#[test]
fn p48_what_was_written_just_before_the_exit_can_be_read_after_it() {
    run(|world| {
        let mut child = world
            .sh("echo one; echo two >&2")
            .stdout(Stdout::Capture)
            .stderr(Stderr::Capture)
            .spawn()
            .unwrap();
        child.wait().unwrap();
        assert_eq!(zombies().len(), 1, "not reaped before its output is read");
        let output = child.communicate(None).unwrap();
        assert_eq!(output.stdout().to_text().unwrap(), "one\n");
        assert_eq!(output.stderr().to_text().unwrap(), "two\n");
        assert!(!output.is_leaky());
    });
}

/// F21, in small.
#[test]
fn much_output_goes_to_a_file_and_comes_back_whole() {
    run(|world| {
        let input = bytes(64 * MIB);
        let output = world
            .command("cat")
            .stdin(Stdin::from(input.as_slice()))
            .stdout(Stdout::Capture)
            .run()
            .unwrap()
            .check()
            .unwrap();
        let stdout = output.stdout();
        assert!(stdout.is_spilled());
        assert_eq!(stdout.as_bytes(), None);
        assert_eq!(stdout.len(), input.len() as u64);
        let mut written = Vec::new();
        stdout.write_to(&mut written).unwrap();
        assert!(written == input);
        let mut head = [0; 100];
        stdout.reader().read_exact(&mut head).unwrap();
        assert_eq!(head, input[..100]);
        assert!(output.into_streams().0.into_bytes().unwrap() == input);
    });
}

#[test]
fn a_stream_is_spilled_past_the_limit_and_not_at_it() {
    run(|world| {
        for (count, spilled) in [(0, false), (999, false), (1000, false), (1001, true)] {
            let input = bytes(count);
            let output = world
                .command("cat")
                .stdin(Stdin::from(input.as_slice()))
                .stdout(Stdout::Capture)
                .spill_after(1000)
                .run()
                .unwrap();
            assert_eq!(output.stdout().is_spilled(), spilled, "{count} bytes");
            assert_eq!(output.stdout().to_bytes().unwrap(), input);
        }
    });
}

#[test]
fn a_full_disk_is_an_error() {
    run(|world| world.runner_in(r#"trap "" XFSZ; ulimit -f 64; exec"#, "spill"));
}
