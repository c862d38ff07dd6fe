//! Every form, every line: appended in pieces, by many files, over truncation
//! and rotation, and up to the very stop.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::{FORMS, Form, Merge};
use crate::watchdog::watched;

/// A folder for a test; gone with it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("paceline-62-{name}-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        Self(place)
    }

    /// Makes empty files `0.log`, `1.log`, ...
    fn files(&self, count: usize) -> (Vec<PathBuf>, Vec<File>) {
        let paths: Vec<_> = (0..count).map(|n| self.0.join(format!("{n}.log"))).collect();
        let files = paths.iter().map(|path| File::create(path).unwrap()).collect();
        (paths, files)
    }

    fn output(&self) -> PathBuf {
        self.0.join("merged")
    }

    fn merged(&self) -> String {
        fs::read_to_string(self.output()).unwrap_or_default()
    }

    /// Waits until the output holds `text`.
    #[track_caller]
    fn until(&self, text: &str) {
        let since = Instant::now();
        while !self.merged().contains(text) {
            assert!(since.elapsed() < Duration::from_secs(20), "no `{text}` in {}", self.merged());
            thread::yield_now();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The lines of file `n` in a merged text with prefixes.
fn lines_of(merged: &str, n: usize) -> Vec<&str> {
    let prefix = format!("{n}.log: ");
    merged.lines().filter_map(|line| line.strip_prefix(&prefix)).collect()
}

#[test]
fn r62_1_each_form_has_every_line_once_whole_and_in_its_file_s_order() {
    watched(|| {
        for form in FORMS {
            let place = Place::new("lines");
            let (paths, files) = place.files(5);
            let merge = Merge::start(form, &paths, &place.output(), true, 2).unwrap();
            thread::scope(|scope| {
                for (n, mut file) in files.into_iter().enumerate() {
                    let place = &place;
                    scope.spawn(move || {
                        for line in 0..10 {
                            writeln!(file, "line {line}").unwrap();
                            // Each is followed while the file grows, and not at the end.
                            place.until(&format!("{n}.log: line {line}\n"));
                        }
                    });
                }
            });
            assert_eq!(merge.stop().unwrap(), Vec::<String>::new());
            let merged = place.merged();
            assert_eq!(merged.lines().count(), 50, "{form:?}");
            let expected: Vec<_> = (0..10).map(|line| format!("line {line}")).collect();
            for n in 0..5 {
                assert_eq!(lines_of(&merged, n), expected, "{form:?}, file {n}");
            }
        }
    });
}

#[test]
fn r62_5_two_hundred_files_are_followed_by_one_thread_that_reads() {
    watched(|| {
        for form in FORMS {
            let place = Place::new("many");
            let (paths, mut files) = place.files(200);
            let merge = Merge::start(form, &paths, &place.output(), true, 1).unwrap();
            for round in 0..3 {
                for file in &mut files {
                    writeln!(file, "round {round}").unwrap();
                }
                for n in 0..200 {
                    place.until(&format!("{n}.log: round {round}\n"));
                }
            }
            merge.stop().unwrap();
            let merged = place.merged();
            assert_eq!(merged.lines().count(), 600, "{form:?}");
            for n in 0..200 {
                assert_eq!(lines_of(&merged, n), ["round 0", "round 1", "round 2"], "{form:?}");
            }
        }
    });
}

#[test]
fn r62_7_what_was_written_before_the_stop_is_in_the_output() {
    watched(|| {
        for form in FORMS {
            for round in 0..10 {
                let place = Place::new("drain");
                let (paths, mut files) = place.files(3);
                let merge = Merge::start(form, &paths, &place.output(), false, 1).unwrap();
                for line in 0..100 * round {
                    for file in &mut files {
                        writeln!(file, "{line}").unwrap();
                    }
                }
                merge.stop().unwrap();
                assert_eq!(place.merged().lines().count(), 300 * round, "{form:?}");
            }
        }
    });
}

#[test]
fn r62_8_pieces_are_joined_and_a_last_line_without_end_comes_at_the_stop() {
    watched(|| {
        for form in FORMS {
            let place = Place::new("pieces");
            let (paths, mut files) = place.files(2);
            let merge = Merge::start(form, &paths, &place.output(), true, 1).unwrap();
            files[0].write_all(b"one ").unwrap();
            // The other file shows that this one was looked at meanwhile.
            writeln!(files[1], "between").unwrap();
            place.until("1.log: between\n");
            assert!(!place.merged().contains("one"));
            files[0].write_all(b"line\nand ").unwrap();
            place.until("0.log: one line\n");
            files[0].write_all(b"a last").unwrap();
            merge.stop().unwrap();
            assert_eq!(lines_of(&place.merged(), 0), ["one line", "and a last"], "{form:?}");
            assert!(place.merged().ends_with('\n'));
        }
    });
}

#[test]
fn r62_8_a_truncated_file_is_read_from_its_beginning_and_that_is_noted() {
    watched(|| {
        for form in FORMS {
            let place = Place::new("truncated");
            let (paths, mut files) = place.files(1);
            let merge = Merge::start(form, &paths, &place.output(), false, 1).unwrap();
            files[0].write_all(b"a long line before\n").unwrap();
            place.until("a long line before\n");
            let mut file = OpenOptions::new().write(true).truncate(true).open(&paths[0]).unwrap();
            file.write_all(b"short\n").unwrap();
            place.until("short\n");
            let notes = merge.stop().unwrap();
            assert_eq!(notes, [format!("`{}` was truncated", paths[0].display())], "{form:?}");
            assert_eq!(place.merged(), "a long line before\nshort\n");
        }
    });
}

#[test]
fn r62_8_a_rotated_file_is_read_to_its_end_and_then_the_new_one() {
    watched(|| {
        for form in FORMS {
            let place = Place::new("rotated");
            let (paths, mut files) = place.files(1);
            let merge = Merge::start(form, &paths, &place.output(), false, 1).unwrap();
            files[0].write_all(b"first\n").unwrap();
            place.until("first\n");
            fs::rename(&paths[0], place.0.join("0.log.1")).unwrap();
            // Whoever has it open still writes to the old one.
            files[0].write_all(b"late\nunended").unwrap();
            let mut new = File::create(&paths[0]).unwrap();
            new.write_all(b"second\n").unwrap();
            place.until("second\n");
            new.write_all(b"third\n").unwrap();
            place.until("third\n");
            let notes = merge.stop().unwrap();
            assert_eq!(notes, [format!("`{}` was replaced", paths[0].display())], "{form:?}");
            assert_eq!(place.merged(), "first\nlate\nunended\nsecond\nthird\n", "{form:?}");
        }
    });
}

#[test]
fn r62_10_what_cannot_be_followed_is_refused_by_name() {
    watched(|| {
        let place = Place::new("refused");
        let (paths, _files) = place.files(2);
        let start = |paths: &[PathBuf], output: PathBuf, threads| {
            let merge = Merge::start(Form::Tasks, paths, &output, false, threads);
            merge.and_then(Merge::stop).map(drop).unwrap_err().to_string()
        };
        let missing = place.0.join("missing");
        let told = start(&[paths[0].clone(), missing.clone()], place.output(), 1);
        assert!(told.starts_with(&format!("could not open `{}`: ", missing.display())), "{told}");
        let told = start(std::slice::from_ref(&place.0), place.output(), 1);
        assert!(told.starts_with("could not follow"), "{told}");
        let told = start(&paths, paths[1].clone(), 1);
        assert!(told.ends_with("would be followed into itself"), "{told}");
        let told = start(&paths, place.0.join("no/such/folder"), 1);
        assert!(told.contains("no/such/folder"), "{told}");
        let told = start(&paths, place.output(), 0);
        assert!(told.contains("0 threads"), "{told}");
    });
}
