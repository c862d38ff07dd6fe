//! The examples do what their files say, also when they are interrupted.

use std::{collections::BTreeMap, fs, path::Path};

use rustix::process::Signal;

use crate::support::{Ended, World};

const PHOTOS: usize = 6;

/// A world with a copy of an example in it.
fn example(name: &str) -> World {
    let world = World::new();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    for entry in walkdir::WalkDir::new(&from).into_iter().map(Result::unwrap) {
        let path = entry.path().strip_prefix(&from).unwrap();
        let is_made = ["work", "thumbs", "out"].iter().any(|folder| path.starts_with(folder));
        if entry.file_type().is_file() && !is_made {
            world.write(path.to_str().unwrap(), fs::read(entry.path()).unwrap());
        }
    }
    world
}

/// The digests that `script` prints, by the names it prints after them.
fn digests(ended: &Ended) -> BTreeMap<String, String> {
    let lines = ended.lines().into_iter();
    lines
        .map(|line| line.split_once("  ").unwrap())
        .map(|(digest, name)| (name.to_owned(), digest.to_owned()))
        .collect()
}

#[test]
fn the_photos_are_resized_sent_and_digested() {
    let world = example("photos");
    let ended = world.paceline(["run", "pipeline.toml", "--json"]).end().exits(0);
    for object in ended.json() {
        let original = object["in"].as_str().unwrap();
        let stem = Path::new(original).file_stem().unwrap().to_str().unwrap();
        let thumb = image::open(world.path(format!("thumbs/{stem}.jpg"))).unwrap();
        let (width, height) = image::image_dimensions(world.path(original)).unwrap();
        let scale = f64::from(width.max(height)) / 320.0;
        let side = |side: u32| (f64::from(side) / scale).round() as u32;
        assert_eq!((thumb.width(), thumb.height()), (side(width), side(height)), "{original}");
        let same = |folder| world.path(folder).join(format!("{stem}.jpg"));
        assert_eq!(fs::read(same("out")).unwrap(), fs::read(same("thumbs")).unwrap());
        let digest = world.sh(&format!("gzip -nc thumbs/{stem}.jpg | sha256sum")).end();
        assert_eq!(object["value"].as_str().unwrap(), digest.text().trim_end());
    }
    for folder in ["work", "thumbs", "out"] {
        assert_eq!(world.list(folder).len(), PHOTOS, "{folder}");
    }
    let count = PHOTOS as u64;
    ended.counts(count, count, 0, 0);
}

#[test]
fn a_second_run_gives_the_same() {
    let world = example("photos");
    let run = || world.paceline(["run", "pipeline.toml"]).end().exits(0).sorted().join("\n");
    assert_eq!(run(), run());
}

#[test]
fn a_corrupt_photo_fails_alone() {
    let world = example("photos");
    let whole = fs::read(world.path("originals/rocket.jpg")).unwrap();
    world.write("originals/cut.jpg", &whole[..whole.len() / 3]);
    world.write("originals/text.png", "no photo");
    world.write("originals/empty.jpg", "");
    let ended = world.paceline(["run", "pipeline.toml"]).end().exits(1);
    let count = PHOTOS as u64;
    assert_eq!(world.list("thumbs").len(), PHOTOS);
    ended
        .counts(count + 3, count, 3, 0)
        .says("failed: originals/cut.jpg: stage `resize`:")
        .says("failed: originals/text.png: stage `resize`:")
        .says("failed: originals/empty.jpg: stage `resize`:");
}

#[test]
fn the_tree_is_compressed_whatever_its_files_are_called() {
    let world = example("hash-tree");
    world.write("tree/a\nnewline", "x");
    world.write("tree/-rf", "y");
    let ended = world.paceline(["run", "pipeline.toml"]).end().exits(0);
    let expected = world.sh("cd out && find . -type f -print0 | tr -dc \\\\0 | wc -c").end();
    assert_eq!(expected.text().trim(), "7");
    ended.counts(7, 7, 0, 0);
    let script = "find tree -type f -exec sh -c 'gzip -dc \"out/$1.gz\" | cmp - \"$1\"' _ {} \\;";
    let checked = world.sh(script).end();
    assert_eq!(checked.exits(0).text(), "");
}

#[test]
fn the_digests_of_the_tree_are_right() {
    let world = example("hash-tree");
    let ours = digests(&world.paceline(["run", "pipeline.toml"]).end().exits(0));
    let theirs = digests(&world.sh("find out -type f -exec sha256sum -- {} +").end().exits(0));
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), 5);
}

/// The example with a stage in the middle whose jobs write half a file and
/// wait, once two photos have come through.
fn interrupted() -> World {
    let world = example("photos");
    let text = world.read("pipeline.toml");
    let stage = "[[stage]]\nname = \"gate\"\nto = \"half/{/}\"\nworkers = 2\n\
        shell = 'head -c 100 {}; if [ {#} -gt 2 ]; then touch waiting{#}; read x < gate; fi; \
        tail -c +101 {}'\n\n[[stage]]\nname = \"digest\"";
    let text = text.replacen(
        "put = \"file:out/{/}\"",
        "put = { from = \"{resize}\", url = \"file:out/{/}\" }",
        1,
    );
    let text = text.replacen("[[stage]]\nname = \"digest\"", stage, 1);
    let text = text.replace(
        "name = \"upload\"\nput = { from = \"{resize}\", url = \"file:out/{/}\" }",
        "name = \"copy\"\nrun = \"cat {}\"\nto = \"out/{/}\"",
    );
    world.write("pipeline.toml", text);
    world.fifo("gate");
    world
}

fn assert_whole(world: &World) {
    for name in world.list("half").into_iter().filter(|name| !name.starts_with('.')) {
        let half = fs::read(world.path(format!("half/{name}"))).unwrap();
        assert_eq!(half, fs::read(world.path(format!("thumbs/{name}"))).unwrap(), "{name}");
    }
    for name in world.list("thumbs").into_iter().filter(|name| !name.starts_with('.')) {
        image::open(world.path(format!("thumbs/{name}"))).unwrap();
    }
}

fn waiting(world: &World) -> usize {
    world.list("").iter().filter(|name| name.starts_with("waiting")).count()
}

#[test]
fn kill_9_in_the_middle_leaves_no_half_file_under_a_final_name() {
    let world = interrupted();
    world.may_leave_temporary_files();
    let mut run = world.paceline(["run", "pipeline.toml"]).start();
    run.until("two jobs at the gate", || waiting(&world) == 2);
    run.signal(Signal::KILL);
    run.end().ends_by(Signal::KILL);
    assert_whole(&world);
    assert!(world.list("half").len() <= 4);
    // A guard that outlives the program is not yet there.
    world.kill_family();
}

#[test]
fn ctrl_c_in_the_middle_stops_the_jobs_and_gives_the_account() {
    let world = interrupted();
    let mut run = world.paceline(["run", "pipeline.toml"]).start();
    run.until("two jobs at the gate", || waiting(&world) == 2);
    run.signal(Signal::INT);
    let ended = run.end().ends_by(Signal::INT);
    assert_whole(&world);
    let [taken, ok, failed, unfinished] = ended.account().unwrap();
    assert_eq!((taken, failed, ok + unfinished), (PHOTOS as u64, 0, PHOTOS as u64));
    assert!(unfinished >= 2 && ended.lines().len() as u64 == ok, "{ended:?}");
}
