//! Commands joined by pipes.

use std::fs;
use std::time::{Duration, Instant};

use paceline_process::{BrokenPipe, Chain, Child, Command, ErrorKind, Stderr, Stdin, Stdout};

use super::support::{World, run, zombies};

fn random(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom").unwrap(), &mut bytes).unwrap();
    bytes
}

/// Runs three chains at once and compares each digest with one made apart.
fn digests_agree(world: &World, encrypt: impl Fn() -> Command, digest: impl Fn() -> Command) {
    let mut chains: Vec<Child> = (0..3)
        .map(|index| {
            let kept = world.path_text(&format!("kept-{index}"));
            Chain::new([
                encrypt().stdin(Stdin::from(random(100))),
                world.command("tee").arg(kept),
                digest().stdout(Stdout::Capture),
            ])
            .spawn()
            .unwrap()
        })
        .collect();
    for (index, chain) in chains.iter_mut().enumerate() {
        let output = chain.communicate(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(output.exits().len(), 3);
        assert!(output.exits().iter().all(|ended| ended.exit().success()));
        let ciphertext = fs::read(world.path(&format!("kept-{index}"))).unwrap();
        let apart = digest().stdin(Stdin::from(ciphertext)).stdout(Stdout::Capture).run().unwrap();
        let (digest, apart) =
            (output.stdout().to_text().unwrap(), apart.stdout().to_text().unwrap());
        assert_eq!(digest, apart);
        let hex = digest.split_whitespace().find(|word| word.len() == 64);
        assert!(hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}

#[test]
fn r52_5_three_chains_encrypt_and_digest_at_once() {
    run(|world| {
        if world.command("openssl").arg("version").stdout(Stdout::Null).run().is_err() {
            return;
        }
        digests_agree(
            world,
            || {
                world
                    .command("openssl")
                    .args(["enc", "-aes-256-cbc", "-pbkdf2", "-pass", "env:PASSWORD"])
                    .env("PASSWORD", "only for this test")
            },
            || world.command("openssl").args(["dgst", "-sha256"]),
        );
    });
}

#[test]
fn r52_5_three_chains_compress_and_digest_at_once() {
    run(|world| {
        digests_agree(world, || world.command("gzip"), || world.command("sha256sum"));
    });
}

fn yes_head(world: &World) -> Chain {
    Chain::new([world.command("yes"), world.command("head").arg("-n1").stdout(Stdout::Capture)])
}

#[test]
fn r52_9_a_reader_that_has_enough_ends_the_chain() {
    run(|world| {
        let started = Instant::now();
        let output = yes_head(world).run().unwrap();
        assert!(started.elapsed() < Duration::from_secs(1));
        assert_eq!(output.stdout().to_text().unwrap(), "y\n");
        assert_eq!(output.exits()[0].exit().as_i32(), -13);
        assert!(output.success());
        assert!(output.exit().success());

        let strict = yes_head(world).broken_pipe(BrokenPipe::IsFailure).run().unwrap();
        assert_eq!(strict.failed(), Some(0));
        assert_eq!(strict.exit().as_i32(), -13);
        let text = strict.check().unwrap_err().to_string();
        assert_eq!(text, "command 1 of 2, `yes` failed: signal 13 (SIGPIPE)");
    });
}

#[test]
fn any_failure_fails_the_chain_and_says_which() {
    run(|world| {
        let cases: [(&[&str], Option<usize>); 6] = [
            (&["true", "cat", "cat"], None),
            (&["exit 3", "cat", "cat"], Some(0)),
            (&["true", "cat; exit 4", "cat"], Some(1)),
            (&["true", "cat", "cat; exit 5"], Some(2)),
            (&["exit 3", "cat; exit 4", "cat"], Some(0)),
            // The last one's failure broke the pipe of the first.
            (&["exec yes", "exec cat", "exit 6"], Some(2)),
        ];
        for (scripts, failed) in cases {
            let output = Chain::new(scripts.iter().map(|script| world.sh(script))).run().unwrap();
            assert_eq!(output.failed(), failed, "{scripts:?}");
            assert_eq!(output.success(), failed.is_none());
        }
        // SIGPIPE is an excuse only for those that have a reader.
        let output = Chain::new([world.command("true"), world.sh("kill -PIPE $$")]).run().unwrap();
        assert_eq!(output.failed(), Some(1));
    });
}

#[test]
fn a_chain_of_one_is_a_command() {
    run(|world| {
        let output = Chain::new([world.sh("exit 2")]).run().unwrap();
        assert_eq!(output.check().unwrap_err().to_string(), "`sh -c exit 2` failed: exit status 2");
    });
}

#[test]
fn what_several_commands_capture_comes_as_one_stream() {
    run(|world| {
        let say = |text: &str| world.sh(&format!("cat; echo {text} >&2")).stderr(Stderr::Capture);
        let output = Chain::new([say("one"), say("two"), say("three")]).run().unwrap();
        let text = output.stderr().to_text().unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["one", "three", "two"]);

        let merged = Chain::new([
            world.sh("echo out; echo err >&2").stderr(Stderr::ToStdout),
            world.command("cat").stdout(Stdout::Capture),
        ]);
        assert_eq!(merged.run().unwrap().stdout().to_text().unwrap(), "out\nerr\n");
    });
}

/// Row 37: within one command the types rule it out.
#[test]
fn p37_a_redirection_against_the_chain_is_refused() {
    run(|world| {
        let with_input = world.command("cat").stdin(Stdin::from("input"));
        let error = Chain::new([world.command("true"), with_input]).run().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Contradiction);
        let with_output = world.command("true").stdout(Stdout::Capture);
        let error = Chain::new([with_output, world.command("cat")]).run().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Contradiction);
        assert_eq!(error.argv(), ["true"]);
    });
}

#[test]
fn a_chain_that_cannot_be_started_leaves_nothing() {
    run(|world| {
        let chain = Chain::new([
            world.command("yes"),
            world.command("cat"),
            world.command("no-such-program"),
        ]);
        for _ in 0..20 {
            let error = chain.spawn().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::NotFound { .. }));
            assert_eq!(error.argv(), ["no-such-program"]);
        }
    });
}

#[test]
fn a_chain_is_one_group_and_ends_as_one() {
    run(|world| {
        let sleep = || world.child(&["ignore-term"]);
        let mut chain =
            Chain::new([sleep(), sleep(), sleep().stdout(Stdout::Capture)]).spawn().unwrap();
        while chain.stdout().is_empty() {
            chain.communicate(Some(Duration::from_millis(10))).unwrap_err();
        }
        let groups: Vec<String> = chain
            .ids()
            .map(|id| {
                let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
                let rest = &stat[stat.rfind(')').unwrap() + 1..];
                rest.split_whitespace().nth(2).unwrap().to_owned()
            })
            .collect();
        assert!(groups.iter().all(|group| *group == chain.id().to_string()), "{groups:?}");
        let output = chain.stop(Duration::from_millis(100)).unwrap();
        assert_eq!(output.exits().len(), 3);
        assert!(output.exits().iter().all(|ended| !ended.exit().success()));
        assert_eq!(output.exits()[2].exit().as_i32(), -9);
        assert_eq!(zombies(), []);
    });
}

#[test]
fn a_leader_that_ends_first_keeps_the_group_for_the_others() {
    run(|world| {
        // The first is long gone when the second is started or signalled.
        let mut chain = Chain::new([
            world.command("true"),
            world.sh("exec sleep 30"),
            world.sh("exec sleep 30"),
        ])
        .spawn()
        .unwrap();
        let leader = i32::try_from(chain.id()).unwrap();
        super::support::await_exit(leader, Instant::now() + Duration::from_secs(10));
        assert_eq!(chain.poll(), None);
        let output = chain.stop(Duration::from_secs(5)).unwrap();
        let ends: Vec<i32> = output.exits().iter().map(|ended| ended.exit().as_i32()).collect();
        assert_eq!(ends, [0, -15, -15]);
    });
}

#[test]
fn bytes_between_commands_do_not_pass_through_this_program() {
    run(|world| {
        let before = io_of_this_thread();
        let output = Chain::new([
            world.command("head").args(["-c", "256M", "/dev/zero"]),
            world.command("cat"),
            world.command("wc").arg("-c").stdout(Stdout::Capture),
        ])
        .run()
        .unwrap()
        .check()
        .unwrap();
        assert_eq!(output.stdout().to_text().unwrap().trim(), "268435456");
        let moved = io_of_this_thread() - before;
        assert!(moved < 100_000, "{moved} bytes were read here");
    });
}

/// Returns how many bytes the calling thread has read.
fn io_of_this_thread() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/io").unwrap();
    text.lines().next().unwrap().strip_prefix("rchar: ").unwrap().parse().unwrap()
}
