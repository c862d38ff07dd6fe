//! Sources read as a run would read them.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::thread;

use super::*;

fn interrupt() -> Interrupt {
    Interrupt::new().unwrap()
}

/// Items of a file with this content.
fn from_file(content: &[u8], origin: impl FnOnce(Location) -> Origin) -> Vec<Item> {
    let folder = tempfile::tempdir().unwrap();
    fs_write(folder.path(), "items", content);
    let origin = origin(Location::File("items".into()));
    Items::open(&origin, folder.path(), &interrupt()).unwrap().map(Result::unwrap).collect()
}

fn fs_write(folder: &Path, name: &str, content: &[u8]) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn texts(items: &[Item]) -> Vec<&str> {
    items.iter().map(|item| std::str::from_utf8(&item.bytes).unwrap()).collect()
}

fn lines(from: Location) -> Origin {
    Origin::Lines { from, null: false }
}

#[test]
fn every_line_is_an_item_as_it_stands() {
    for (content, expected) in [
        ("", vec![]),
        ("\n", vec![""]),
        ("a", vec!["a"]),
        ("a\n", vec!["a"]),
        ("a\n\nb", vec!["a", "", "b"]),
        ("a\r\n b \r\n", vec!["a\r", " b \r"]),
        ("a\0b\n", vec!["a\0b"]),
    ] {
        assert_eq!(texts(&from_file(content.as_bytes(), lines)), expected, "{content:?}");
    }
}

#[test]
fn nul_separates_where_it_is_asked_to() {
    let items = from_file(b"a\nb\0\0c", |from| Origin::Lines { from, null: true });
    assert_eq!(texts(&items), ["a\nb", "", "c"]);
}

#[test]
fn every_byte_but_the_separator_goes_through() {
    let content: Vec<u8> = (0..=255).filter(|byte| *byte != b'\n').collect();
    let items = from_file(&content, lines);
    assert_eq!(items[0].bytes, content);
}

#[test]
fn an_item_over_the_limit_fails_alone() {
    let fits = vec![b'x'; LONGEST_ITEM];
    let long = vec![b'y'; LONGEST_ITEM * 2 + 5];
    let content = [&b"a\n"[..], &fits, b"\n", &long, b"\nb\n", &long[..LONGEST_ITEM + 1]].concat();
    let items = from_file(&content, lines);
    let defects: Vec<_> = items.iter().map(|item| item.defect.as_deref().cloned()).collect();
    let too_long = |length: usize| Some(Defect::TooLong { length: length as u64 });
    assert_eq!(defects, [None, None, too_long(long.len()), None, too_long(LONGEST_ITEM + 1)]);
    assert_eq!(items[1].bytes.len(), LONGEST_ITEM);
    assert!(items[2].bytes.len() < 10_000);
    assert_eq!(items[3].bytes, "b");
    assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
}

#[test]
fn a_json_line_has_fields() {
    let content = b"{\"a\": \"x\", \"n\": 1.5, \"l\": [1, \"b\"], \"z\": null}\n";
    let items = from_file(content, Origin::Jsonl);
    let item = &items[0];
    assert_eq!(item.bytes, content[..content.len() - 1]);
    for (name, expected) in [("a", "x"), ("n", "1.5"), ("l", "[1,\"b\"]"), ("z", "null")] {
        assert_eq!(item.field(name).unwrap(), expected.as_bytes());
    }
    assert_eq!(item.field("q"), Err("line 1 has no field `q`".to_owned()));
}

#[test]
fn a_broken_json_line_fails_alone_and_names_its_line() {
    let deep = format!("{{\"a\": {}", "[".repeat(100_000));
    let content = format!("{{\"a\":1}}\n{{\"a\":\n\n[1]\n{deep}\n{{\"a\":2}}\n");
    let items = from_file(content.as_bytes(), Origin::Jsonl);
    let told: Vec<_> =
        items.iter().map(|item| item.defect.as_ref().map(ToString::to_string)).collect();
    assert_eq!(told[0], None);
    assert_eq!(told[5], None);
    let told: Vec<_> = told.into_iter().flatten().collect();
    insta::assert_snapshot!(told.join("\n"), @r"
    line 2 is no JSON: EOF while parsing a value (column 5)
    line 3 is empty, where a JSON object is due
    line 4 is no JSON object
    line 5 is no JSON: recursion limit exceeded (column 133)
    ");
}

#[test]
fn a_csv_record_has_the_fields_of_the_header() {
    let content = b"\xef\xbb\xbfid,\"full name\"\r\n1,\"a \"\"b\"\", c\nd\"\r\n2,x\"y\n3\n4,a,b\n";
    let items = from_file(content, Origin::Csv);
    assert_eq!(texts(&items), ["1,\"a \"\"b\"\", c\nd\"\r", "2,x\"y", "3", "4,a,b"]);
    assert_eq!(items[0].field("full name").unwrap(), &b"a \"b\", c\nd"[..]);
    assert_eq!(items[1].field("full name").unwrap(), &b"x\"y"[..]);
    assert_eq!(items[2].field("id").unwrap(), &b"3"[..]);
    assert_eq!(items[2].field("full name"), Err("line 5 has no field `full name`".to_owned()));
    let defect = items[3].defect.as_ref().unwrap();
    assert_eq!(defect.to_string(), "line 6 has 3 fields, where the header names 2");
}

#[test]
fn a_csv_quote_that_never_ends_stays_bounded() {
    let content = [&b"a\n\""[..], &vec![b'\n'; LONGEST_ITEM + 10]].concat();
    let items = from_file(&content, Origin::Csv);
    assert_eq!(items.len(), 1);
    assert!(matches!(items[0].defect.as_deref(), Some(Defect::TooLong { .. })));
}

#[test]
fn values_and_inputs_are_handed_on_as_they_are() {
    let items = Items::given([b"a".to_vec(), b"".to_vec(), b"a\n".to_vec()], &interrupt());
    let items: Vec<_> = items.map(Result::unwrap).collect();
    assert_eq!(texts(&items), ["a", "", "a\n"]);
}

#[test]
fn a_file_that_cannot_be_read_is_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    for (name, reason) in [("none", "no such file or directory"), (".", "it is a folder")] {
        let origin = lines(Location::File(name.into()));
        let problem = Items::open(&origin, folder.path(), &interrupt()).unwrap_err();
        assert!(problem.message().ends_with(reason), "{problem}");
        assert!(problem.message().starts_with("cannot open the source `"), "{problem}");
    }
}

#[test]
fn a_pattern_matches_as_in_a_shell_and_is_sorted() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "p/b.jpg",
        "p/a.jpg",
        "p/.h.jpg",
        "p/q/c.jpg",
        "p/q/.d/e.jpg",
        "p/x.png",
        "p/d.jpg/f",
        "[x]",
    ] {
        fs_write(folder.path(), name, b"");
    }
    let absolute = format!("{}/p/*.png", folder.path().display());
    let found = |pattern: &str| {
        let items =
            Items::open(&Origin::Glob(pattern.into()), folder.path(), &interrupt()).unwrap();
        assert_eq!(items.note().is_some(), pattern.starts_with("none"), "{pattern}");
        items.map(|item| String::from_utf8(item.unwrap().bytes.to_vec()).unwrap()).collect()
    };
    for (pattern, expected) in [
        ("p/*.jpg", vec!["p/a.jpg", "p/b.jpg", "p/d.jpg"]),
        ("./p/a*", vec!["./p/a.jpg"]),
        ("p/../p/a*", vec!["p/../p/a.jpg"]),
        ("p/.*.jpg", vec!["p/.h.jpg"]),
        ("p/**/*.jpg", vec!["p/a.jpg", "p/b.jpg", "p/d.jpg", "p/q/c.jpg"]),
        ("**/c.jpg", vec!["p/q/c.jpg"]),
        ("p/q/**", vec!["p/q/c.jpg"]),
        ("p/*/", vec!["p/d.jpg/", "p/q/"]),
        ("p/{x.png,q/c,a}*", vec!["p/a.jpg", "p/q/c.jpg", "p/x.png"]),
        ("p/[!ab]*g", vec!["p/d.jpg", "p/x.png"]),
        ("p/x.png", vec!["p/x.png"]),
        ("\\[x\\]", vec!["[x]"]),
        ("none/*", vec![]),
        ("none", vec![]),
    ] {
        let found: Vec<String> = found(pattern);
        assert_eq!(found, expected, "{pattern}");
    }
    assert_eq!(found(&absolute), [format!("{}/p/x.png", folder.path().display())]);
}

fn command(script: &str) -> Origin {
    let words = ["sh", "-c", script].map(|word| word.as_bytes().to_vec());
    Origin::Command { words: words.to_vec(), null: false }
}

#[test]
fn a_command_gives_its_lines_and_its_failure_ends_the_source() {
    let folder = tempfile::tempdir().unwrap();
    fs_write(folder.path(), "here", b"");
    let origin = command("ls; echo b; exit 3");
    let mut items = Items::open(&origin, folder.path(), &interrupt()).unwrap();
    let two: Vec<_> = items.by_ref().take(2).map(Result::unwrap).collect();
    assert_eq!(texts(&two), ["here", "b"]);
    assert_eq!(
        items.step().unwrap_err().to_string(),
        "the source's command `sh -c 'ls; echo b; exit 3'` failed: exit status 3"
    );
    assert_eq!(items.step(), Ok(Step::End));
}

#[test]
fn a_command_that_is_not_there_is_a_failure_of_the_source() {
    let origin = Origin::Command { words: vec![b"no-such-program".to_vec()], null: false };
    let mut items = Items::open(&origin, Path::new("."), &interrupt()).unwrap();
    let error = items.step().unwrap_err().to_string();
    assert!(error.contains("could not find program `no-such-program`"), "{error}");
}

#[test]
fn a_stop_ends_a_wait_for_a_silent_input() {
    let (reader, writer) = std::io::pipe().unwrap();
    let interrupt = interrupt();
    let mut items = Items::lines(OwnedFd::from(reader), false, "a pipe", &interrupt);
    (&writer).write_all(b"a\nb").unwrap();
    assert!(matches!(items.step(), Ok(Step::Item(_))));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| items.step());
        interrupt.stop();
        assert_eq!(waiting.join().unwrap(), Ok(Step::Stopped));
    });
    assert_eq!(items.step(), Ok(Step::Stopped));
}

#[test]
fn a_named_pipe_without_a_writer_holds_up_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let interrupt = interrupt();
    let origin = lines(Location::File("pipe".into()));
    let mut items = Items::open(&origin, folder.path(), &interrupt).unwrap();
    let mut writer = std::fs::File::options().write(true).open(&path).unwrap();
    writer.write_all(b"a\n").unwrap();
    assert!(matches!(items.step(), Ok(Step::Item(_))));
    drop(writer);
    assert_eq!(items.step(), Ok(Step::End));
    let mut items = Items::open(&origin, folder.path(), &interrupt).unwrap();
    interrupt.stop();
    assert_eq!(items.step(), Ok(Step::Stopped));
}

#[test]
fn a_stop_ends_the_command_of_a_source() {
    let interrupt = interrupt();
    let origin = command("echo $$; trap '' TERM; exec sleep 1000");
    let mut items = Items::open(&origin, Path::new("."), &interrupt).unwrap();
    let Ok(Step::Item(item)) = items.step() else { panic!("no item") };
    interrupt.stop();
    assert_eq!(items.step(), Ok(Step::Stopped));
    let pid = std::str::from_utf8(&item.bytes).unwrap();
    assert!(!Path::new("/proc").join(pid).exists());
}

#[test]
fn what_is_there_can_be_taken_without_a_wait() {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut items = Items::lines(OwnedFd::from(reader), false, "a pipe", &interrupt());
    assert_eq!(items.size_hint().0, 0);
    (&writer).write_all(b"a\nb\nb\nc").unwrap();
    assert!(matches!(items.step(), Ok(Step::Item(_))));
    assert_eq!(items.size_hint().0, 2);
    assert!(matches!(items.step(), Ok(Step::Item(_))));
    assert_eq!(items.size_hint().0, 1);
    assert!(matches!(items.step(), Ok(Step::Item(_))));
    assert_eq!(items.size_hint().0, 0);
    drop(writer);
    assert!(matches!(items.step(), Ok(Step::Item(_))));
    assert_eq!(items.step(), Ok(Step::End));
}

#[test]
fn ten_million_lines_pass_in_flat_memory() {
    // A hundredth of it here; the whole with PACELINE_SOAK_SECONDS.
    let count =
        if std::env::var_os("PACELINE_SOAK_SECONDS").is_some() { 10_000_000 } else { 100_000 };
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut items = Items::lines(OwnedFd::from(reader), false, "a pipe", &interrupt());
    thread::scope(|scope| {
        scope.spawn(move || {
            let chunk = b"1234567\n".repeat(10_000);
            for _ in 0..count / 10_000 {
                writer.write_all(&chunk).unwrap();
            }
        });
        assert_eq!(items.by_ref().count(), count);
    });
    let Kind::Records { records, .. } = &items.kind else { panic!("no records") };
    assert!(records.capacity() <= 1 << 20);
}
