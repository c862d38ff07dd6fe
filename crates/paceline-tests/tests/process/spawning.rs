//! Starting children, and failing to.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use paceline_process::{Command, ErrorKind, Exit, Signal, Stderr, Stdin, Stdout};

use super::support::{descriptors, run};

#[test]
fn r52_13_environment_and_directory_are_the_childs_alone() {
    run(|world| {
        let directory = fs::canonicalize(world.path("")).unwrap();
        let before = (std::env::current_dir().unwrap(), std::env::var_os("ONLY_FOR_THE_CHILD"));
        let output = world
            .sh("pwd; echo $ONLY_FOR_THE_CHILD; echo ${HOME-none}")
            .env("ONLY_FOR_THE_CHILD", "seen")
            .env_remove("HOME")
            .cwd(&directory)
            .stdout(Stdout::Capture)
            .run()
            .unwrap();
        let expected = format!("{}\nseen\nnone\n", directory.display());
        assert_eq!(output.stdout().to_text().unwrap(), expected);
        let after = (std::env::current_dir().unwrap(), std::env::var_os("ONLY_FOR_THE_CHILD"));
        assert_eq!(before, after);
        assert_eq!(after.1, None);

        let bare = Command::new("env").env("DROPPED", "1").env_clear().env("ONLY", "this");
        let output = bare.stdout(Stdout::Capture).run().unwrap();
        assert_eq!(output.stdout().to_text().unwrap(), "ONLY=this\n");
    });
}

#[test]
fn r52_13_a_relative_program_starts_from_our_directory() {
    run(|world| {
        // Tests run in their package's directory, where `src` is.
        let here = std::env::current_dir().unwrap();
        let script = PathBuf::from("target-of-a-test.sh");
        let full = here.join(&script);
        let _removed = Removed(full.clone());
        write_script(&full, "#!/bin/sh\npwd\n");
        let relative = PathBuf::from(".").join(&script);
        let elsewhere = fs::canonicalize(world.path("")).unwrap();
        let command = world.command(relative.to_str().unwrap()).stdout(Stdout::Capture);
        let output = retried(&command.clone().cwd(&elsewhere));
        assert_eq!(output.trim(), elsewhere.to_str().unwrap());
        assert_eq!(retried(&command).trim(), here.to_str().unwrap());
    });
}

struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn write_script(path: &std::path::Path, text: &str) {
    let mut file = File::create(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_permissions(Permissions::from_mode(0o755)).unwrap();
}

fn retried(command: &Command) -> String {
    command.run().unwrap().check().unwrap().stdout().to_text().unwrap()
}

/// Row 47 too: F12.
#[test]
fn r52_14_failed_starts_name_the_culprit_and_leak_nothing() {
    run(|world| {
        let plain = world.path("plain");
        fs::write(&plain, "not a program").unwrap();
        let open = descriptors();
        for _ in 0..1024 {
            let missing = world
                .command("/no/such/program")
                .stdin(Stdin::from("input"))
                .stdout(Stdout::Capture)
                .stderr(Stderr::Capture);
            let error = missing.spawn().unwrap_err();
            let program = PathBuf::from("/no/such/program");
            assert_eq!(*error.kind(), ErrorKind::NotFound { program });
            assert_eq!(error.to_string(), "could not find program `/no/such/program`");

            let error = world.command("true").cwd("/no/such/place").spawn().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::BadCwd { cwd: "/no/such/place".into() });
            let text = "could not start `true` in directory `/no/such/place`";
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(descriptors(), open);
    });
}

#[test]
fn p47_each_kind_of_failed_start_is_told_apart() {
    run(|world| {
        let kind = |command: Command| command.run().unwrap_err();
        let not_found = |program: &str| ErrorKind::NotFound { program: program.into() };

        assert_eq!(*kind(world.command("no-such-program")).kind(), not_found("no-such-program"));
        assert_eq!(*kind(world.command("")).kind(), not_found(""));
        assert_eq!(*kind(world.command("/bin/true/x")).kind(), not_found("/bin/true/x"));

        // A file that is there, in four states that keep it from running.
        let refused = |name: &str, text: &str, mode: u32| {
            let path = world.path(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = kind(world.command(path.to_str().unwrap()));
            assert_eq!(*error.kind(), ErrorKind::NotExecutable { program: path });
            error.hint().unwrap().to_owned()
        };
        assert!(refused("plain", "echo hi", 0o644).contains("chmod"));
        assert!(refused("no-line", "echo hi", 0o755).contains("#!/bin/sh"));
        assert!(refused("no-interpreter", "#!/no/such\n", 0o755).contains("interpreter"));
        let error = kind(world.command("/tmp"));
        assert_eq!(*error.kind(), ErrorKind::NotExecutable { program: "/tmp".into() });

        let file = world.path("plain");
        let error = kind(world.command("true").cwd(&file));
        assert_eq!(*error.kind(), ErrorKind::BadCwd { cwd: file });

        let error = kind(world.command("true").arg("x".repeat(200_000)));
        assert_eq!(*error.kind(), ErrorKind::TooLong);
        assert!(error.hint().unwrap().contains("standard input"));

        assert_eq!(*kind(world.command("true").arg("a\0b")).kind(), ErrorKind::NulInArgument);
        assert_eq!(
            *kind(world.command("tr\0ue")).kind(),
            ErrorKind::NotFound { program: "tr\0ue".into() }
        );
        assert_eq!(*kind(world.command("true").env("A", "a\0b")).kind(), ErrorKind::NulInArgument);
    });
}

#[test]
fn p45_failed_starts_close_no_descriptor_of_others() {
    run(|world| {
        let path = world.path("file");
        fs::write(&path, "whole").unwrap();
        let done = AtomicBool::new(false);
        let open = descriptors();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        let mut rounds = 0;
                        while !done.load(Ordering::Relaxed) {
                            // A descriptor closed by others would be an error.
                            let file = File::open(&path).unwrap();
                            assert_eq!(std::io::read_to_string(&file).unwrap(), "whole");
                            assert_eq!(file.metadata().unwrap().len(), 5);
                            rounds += 1;
                        }
                        rounds
                    })
                })
                .collect();
            let missing = world
                .command("/no/such/program")
                .stdin(Stdin::from("input"))
                .stdout(Stdout::Capture)
                .stderr(Stderr::Capture);
            for _ in 0..1024 {
                missing.spawn().unwrap_err();
            }
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join().unwrap() > 0);
            }
        });
        assert_eq!(descriptors(), open);
    });
}

#[test]
fn p46_a_child_has_three_descriptors_whatever_others_open() {
    run(|world| {
        // Those that this program was itself started with are passed on.
        let expected: Vec<u32> = [0, 1, 2].into_iter().chain(inherited()).collect();
        let expected = format!("{expected:?}\n");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        let _open: Vec<_> =
                            (0..20).map(|_| File::open("/proc/self/stat").unwrap()).collect();
                    }
                });
            }
            let spawners: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..25 {
                            let output = world
                                .child(&["descriptors"])
                                .stdin(Stdin::from("input"))
                                .stdout(Stdout::Capture)
                                .stderr(Stderr::Capture)
                                .run()
                                .unwrap();
                            assert_eq!(output.stdout().to_text().unwrap(), expected);
                        }
                    })
                })
                .collect();
            let ended: Vec<_> = spawners.into_iter().map(|spawner| spawner.join()).collect();
            done.store(true, Ordering::Relaxed);
            assert!(ended.iter().all(Result::is_ok));
        });
    });
}

/// Returns the open descriptors above 2 that are not closed on exec.
fn inherited() -> Vec<u32> {
    let mut numbers: Vec<u32> = descriptors()
        .into_iter()
        .filter(|(number, _)| *number > 2)
        .filter(|(number, _)| {
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            u32::from_str_radix(flags.trim(), 8).unwrap() & 0o2_000_000 == 0
        })
        .map(|(number, _)| number.unsigned_abs())
        .collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn p46_the_end_of_one_childs_output_does_not_wait_for_another() {
    run(|world| {
        let holders: Vec<_> = (0..4)
            .map(|_| world.child(&["hold"]).stdout(Stdout::Capture).spawn().unwrap())
            .collect();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let started = Instant::now();
                        let output = world
                            .command("cat")
                            .stdin(Stdin::from("short"))
                            .stdout(Stdout::Capture)
                            .run_timeout(Duration::from_secs(10), Duration::ZERO)
                            .unwrap();
                        assert!(!output.is_leaky());
                        assert_eq!(output.stdout().as_bytes(), Some(&b"short"[..]));
                        assert!(started.elapsed() < Duration::from_secs(5));
                    }
                });
            }
        });
        drop(holders);
    });
}

#[test]
fn p48_sigpipe_is_at_its_default_in_a_child() {
    run(|world| {
        let look = world.command("grep").args(["SigIgn", "/proc/self/status"]);
        let output = look.stdout(Stdout::Capture).run().unwrap().check().unwrap();
        let text = output.stdout().to_text().unwrap();
        let mask = u64::from_str_radix(text.trim().rsplit('\t').next().unwrap(), 16).unwrap();
        // In this program itself it is ignored, as in every Rust program.
        assert_eq!(mask & (1 << (Signal::PIPE.as_raw() - 1)), 0, "{mask:x}");
    });
}

#[test]
fn r52_16_two_hundred_children_eight_at_a_time() {
    run(|world| {
        let room = world.path("room");
        fs::create_dir(&room).unwrap();
        let room = room.to_str().unwrap().to_owned();
        let next = AtomicUsize::new(0);
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..8 {
                let sender = sender.clone();
                scope.spawn(|| {
                    let sender = sender;
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        if index >= 200 {
                            return;
                        }
                        let output = world
                            .child(&["count-peers", &room, &(index % 256).to_string()])
                            .stdout(Stdout::Capture)
                            .run()
                            .unwrap();
                        let peers: usize =
                            output.stdout().to_text().unwrap().trim().parse().unwrap();
                        sender.send((index, peers, output.exit())).unwrap();
                    }
                });
            }
        });
        drop(sender);
        let mut answers: Vec<(usize, usize, Exit)> = receiver.iter().collect();
        answers.sort_unstable_by_key(|answer| answer.0);
        assert_eq!(answers.len(), 200);
        for (index, (answered, peers, exit)) in answers.into_iter().enumerate() {
            assert_eq!(answered, index);
            assert!((1..=8).contains(&peers), "{peers} at once");
            assert_eq!(usize::try_from(exit.code().unwrap()).unwrap(), index);
        }
    });
}

/// F20, 200 times.
#[test]
fn f20_a_script_just_written_can_be_run_while_others_fork() {
    run(|world| {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let command = world.command("true");
                while !done.load(Ordering::Relaxed) {
                    command.run().unwrap();
                }
            });
            for round in 0..200 {
                let path = world.path(&format!("script-{round}"));
                write_script(&path, "#!/bin/sh\nexit 0\n");
                assert!(world.command(path.to_str().unwrap()).run().unwrap().success());
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_busy_script_is_tried_again() {
    run(|world| {
        let path = world.path("script");
        write_script(&path, "#!/bin/sh\nexit 0\n");
        let command = world.command(path.to_str().unwrap());
        // Closed in time for the last try, unless the machine is very busy.
        let succeeded = (0..20).any(|_| {
            let writer = File::options().append(true).open(&path).unwrap();
            let (never, wait) = std::sync::mpsc::channel::<()>();
            let closer = thread::spawn(move || {
                let _ = wait.recv_timeout(Duration::from_millis(12));
                drop(writer);
            });
            let result = command.run();
            closer.join().unwrap();
            drop(never);
            result.is_ok_and(|output| output.success())
        });
        assert!(succeeded);
        // Longer than that it is an error.
        let _writer = File::options().append(true).open(&path).unwrap();
        let error = command.run().unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NotExecutable { program: path });
    });
}

#[test]
fn the_programs_name_is_what_it_was_called() {
    run(|world| {
        let output =
            world.command("sh").args(["-c", "cat /proc/$$/cmdline"]).stdout(Stdout::Capture);
        let text = output.run().unwrap().stdout().to_text().unwrap();
        assert!(text.starts_with("sh\0-c\0"), "{text:?}");
    });
}
