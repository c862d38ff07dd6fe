use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::{Arc, Barrier};
use std::thread;

use super::*;
use crate::steps::testing::{bounded, files_below};

impl OutputFile {
    /// Sends what is written elsewhere, such as to a full disk.
    pub(crate) fn writing_to(self, file: File) -> Self {
        Self { file, ..self }
    }
}

fn target(base: &Path, literal: &str, inserted: &[u8]) -> Result<Target, StepError> {
    Target::new(base, literal.as_bytes(), &[literal.as_bytes(), inserted].concat())
}

fn write(base: &Path, literal: &str, inserted: &[u8], seq: u64) -> Result<(), StepError> {
    let output = target(base, literal, inserted)?.create(&Claims::default(), seq)?;
    output.file().write_all(b"new").unwrap();
    output.commit()
}

#[test]
fn a_file_has_its_name_only_when_it_is_committed() {
    bounded(|| {
        let base = tempfile::tempdir().unwrap();
        let output = target(base.path(), "deep/er/", b"a.jpg")
            .unwrap()
            .create(&Claims::default(), 1)
            .unwrap();
        output.file().write_all(b"half").unwrap();
        let temporary = output.path().file_name().unwrap().to_str().unwrap().to_owned();
        assert!(temporary.starts_with(TEMPORARY_PREFIX) && temporary.ends_with("-a.jpg"));
        assert_eq!(output.path().parent().unwrap(), base.path().join("deep/er"));
        assert_eq!(std::fs::read(output.path()).unwrap(), b"half");
        assert_eq!(files_below(base.path()).len(), 1);

        output.commit().unwrap();
        assert_eq!(files_below(base.path()), [Path::new("deep/er/a.jpg")]);
    });
}

#[test]
fn a_file_dropped_without_a_commit_leaves_nothing_and_the_earlier_one_whole() {
    bounded(|| {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("a"), "old").unwrap();
        let output = target(base.path(), "", b"a").unwrap().create(&Claims::default(), 1).unwrap();
        output.file().write_all(b"new").unwrap();
        drop(output);
        assert_eq!(files_below(base.path()), [Path::new("a")]);
        assert_eq!(std::fs::read(base.path().join("a")).unwrap(), b"old");

        write(base.path(), "", b"a", 1).unwrap();
        assert_eq!(std::fs::read(base.path().join("a")).unwrap(), b"new");
    });
}

#[test]
fn a_file_has_the_mode_that_any_program_gives() {
    bounded(|| {
        let base = tempfile::tempdir().unwrap();
        write(base.path(), "", b"ours", 1).unwrap();
        std::fs::write(base.path().join("theirs"), "").unwrap();
        let mode = |name| base.path().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode("ours"), mode("theirs"));
    });
}

/// Hostile names: refused, or inside the folder `out`, and never elsewhere.
#[test]
fn no_inserted_name_leads_out_of_the_literal_folder() {
    bounded(|| {
        let long = "x".repeat(300);
        let longest = "y".repeat(255);
        let deep_long = format!("sub/{long}.jpg");
        let multibyte = "\u{e9}".repeat(127);
        let refused: Vec<&[u8]> = vec![
            b"",
            b".",
            b"..",
            b"/",
            b"//",
            b"./",
            b"../",
            b"../x",
            b"../../x",
            b"../../../../../../tmp/x",
            b"a/../../x",
            b"a/./.././../x",
            b"sub/..",
            b"sub/.",
            b"sub/",
            b"/..",
            b"/../x",
            b"a\0b",
            b"\0",
            b"folder",
            b"link/x",
            b"uplink/x",
            b"folder/link/x",
            b"link/../../x",
            b"file/x",
            b"fifo",
            long.as_bytes(),
            deep_long.as_bytes(),
        ];
        let confined: Vec<(&[u8], &[u8])> = vec![
            (b"/etc/passwd", b"etc/passwd"),
            (b"//etc//passwd", b"etc/passwd"),
            (b"...", b"..."),
            (b"..x", b"..x"),
            (b"a\nb", b"a\nb"),
            (b"\x1b[2J", b"\x1b[2J"),
            (b"\xff\xfe", b"\xff\xfe"),
            (b" ", b" "),
            (b"-rf", b"-rf"),
            (b"*", b"*"),
            (b"a/../b", b"b"),
            (b"..\\x", b"..\\x"),
            (b"~/x", b"~/x"),
            (b"name_link", b"name_link"),
            (b"{out}", b"{out}"),
            (longest.as_bytes(), longest.as_bytes()),
            (multibyte.as_bytes(), multibyte.as_bytes()),
        ];
        assert!(refused.len() + confined.len() >= 30);

        let outer = tempfile::tempdir().unwrap();
        let base = outer.path().join("base");
        let out = base.join("out");
        let elsewhere = outer.path().join("elsewhere");
        std::fs::create_dir_all(out.join("folder")).unwrap();
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("precious"), "precious").unwrap();
        std::fs::write(out.join("file"), "").unwrap();
        symlink(&elsewhere, out.join("link")).unwrap();
        symlink("..", out.join("uplink")).unwrap();
        symlink(&elsewhere, out.join("folder/link")).unwrap();
        symlink(elsewhere.join("precious"), out.join("name_link")).unwrap();
        let mkfifo = std::process::Command::new("mkfifo").arg(out.join("fifo")).status().unwrap();
        assert!(mkfifo.success());
        let before = files_below(outer.path());

        for name in refused {
            let error = write(&base, "out/", name, 1).unwrap_err();
            assert!(error.is_permanent(), "{}", error.line());
            assert!(!error.line().contains(char::is_control), "{}", error.line());
            assert_eq!(files_below(outer.path()), before, "{}", Shown(name));
        }
        for (name, inside) in confined {
            write(&base, "out/", name, 1).unwrap();
            let path = out.join(OsStr::from_bytes(inside));
            assert_eq!(std::fs::read(&path).unwrap(), b"new", "{}", Shown(name));
            assert!(path.symlink_metadata().unwrap().is_file());
            std::fs::remove_file(path).unwrap();
        }
        assert_eq!(std::fs::read(elsewhere.join("precious")).unwrap(), b"precious");
        assert_eq!(files_below(&elsewhere), [Path::new("precious")]);
    });
}

#[test]
fn without_a_literal_folder_an_absolute_name_is_refused() {
    bounded(|| {
        let base = tempfile::tempdir().unwrap();
        for (literal, inserted) in [("", "/tmp/x"), ("", "../x"), ("x", "/../../y")] {
            let error = target(base.path(), literal, inserted.as_bytes()).unwrap_err();
            assert!(error.is_permanent(), "{}", error.line());
        }
        // Half a component of literal text makes no folder of `..`.
        write(base.path(), "small-", b"../x", 1).unwrap();
        assert_eq!(files_below(base.path()), [Path::new("small-../x")]);
    });
}

#[test]
fn the_literal_beginning_is_the_users_own_word() {
    bounded(|| {
        let outer = tempfile::tempdir().unwrap();
        let base = outer.path().join("base");
        std::fs::create_dir_all(outer.path().join("real")).unwrap();
        std::fs::create_dir(&base).unwrap();
        symlink(outer.path().join("real"), base.join("link")).unwrap();
        write(&base, "link/", b"a", 1).unwrap();
        write(&base, "../beside/", b"b", 1).unwrap();
        let absolute = format!("{}/absolute/", outer.path().to_str().unwrap());
        write(&base, &absolute, b"c", 1).unwrap();
        let files = files_below(outer.path());
        assert_eq!(files, ["absolute/c", "base/link", "beside/b", "real/a"].map(PathBuf::from));
    });
}

#[test]
fn two_items_of_a_run_do_not_share_a_name() {
    bounded(|| {
        let base = tempfile::tempdir().unwrap();
        let claims = Claims::default();
        let first = target(base.path(), "out/", b"a").unwrap();
        let output = first.create(&claims, 3).unwrap();
        output.file().write_all(b"of item 3").unwrap();
        output.commit().unwrap();

        symlink("out", base.path().join("other-way")).unwrap();
        for (literal, name) in [("out/", "a"), ("out/", "b/../a"), ("other-way/", "a")] {
            let second = target(base.path(), literal, name.as_bytes()).unwrap();
            let error = second.create(&claims, 4).unwrap_err();
            assert!(error.line().contains("item 3"), "{}", error.line());
            assert!(error.is_permanent());
        }
        assert_eq!(std::fs::read(base.path().join("out/a")).unwrap(), b"of item 3");

        // A retry of the item.
        drop(first.create(&claims, 3).unwrap());
    });
}

#[test]
fn items_that_need_the_same_new_folders_all_get_them() {
    bounded(|| {
        let base = tempfile::tempdir().unwrap();
        let claims = Claims::default();
        let start = Arc::new(Barrier::new(8));
        thread::scope(|scope| {
            for seq in 0..8 {
                let (base, claims, start) = (base.path(), &claims, Arc::clone(&start));
                scope.spawn(move || {
                    let target = target(base, "a/b/", format!("c/d/{seq}").as_bytes()).unwrap();
                    start.wait();
                    target.create(claims, seq).unwrap().commit().unwrap();
                });
            }
        });
        assert_eq!(files_below(base.path()).len(), 8);
    });
}

#[test]
fn a_reserved_name_waits_for_a_command_to_make_the_file() {
    bounded(|| {
        let base = tempfile::tempdir().unwrap();
        let claims = Claims::default();
        let target = target(base.path(), "out/", b"a.webp").unwrap();

        let reserved = target.reserve(&claims, 1).unwrap();
        assert!(!reserved.path().exists());
        assert_eq!(reserved.path().extension().unwrap(), "webp");
        std::fs::write(reserved.path(), "made").unwrap();
        reserved.commit().unwrap();
        assert_eq!(std::fs::read(base.path().join("out/a.webp")).unwrap(), b"made");

        let untouched = target.reserve(&claims, 1).unwrap();
        let error = untouched.commit().unwrap_err();
        assert!(error.line().contains("left no file"), "{}", error.line());

        let half_made = target.reserve(&claims, 1).unwrap();
        std::fs::write(half_made.path(), "half").unwrap();
        drop(half_made);
        assert_eq!(files_below(base.path()), [Path::new("out/a.webp")]);
        assert_eq!(std::fs::read(base.path().join("out/a.webp")).unwrap(), b"made");
    });
}

#[test]
fn a_temporary_name_fits_and_tears_no_character() {
    bounded(|| {
        for name in ["\u{e9}".repeat(127), "x".repeat(255), format!("a.{}", "e".repeat(250))] {
            let name = temporary_name(name.as_bytes());
            assert!(name.len() <= LONGEST_NAME);
            std::ffi::OsString::from_vec(name).into_string().unwrap();
        }
        assert!(temporary_name(b".hidden").ends_with(b"-.hidden"));
    });
}

#[test]
fn a_commit_replaces_the_file_and_does_not_write_into_it() {
    bounded(|| {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("a");
        std::fs::write(&path, "old").unwrap();
        let old = File::open(&path).unwrap();
        write(base.path(), "", b"a", 1).unwrap();
        assert_ne!(old.metadata().unwrap().ino(), path.metadata().unwrap().ino());
        assert_eq!(io::read_to_string(old).unwrap(), "old");
    });
}
