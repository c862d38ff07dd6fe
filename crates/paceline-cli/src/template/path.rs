//! The parts of a path, over bytes: what `{.}`, `{/}`, `{//}` and `{/.}` stand for.
//!
//! A slash at the end says that the last component is a folder. As in
//! `basename` and `dirname` it does not count as a component, and as a folder
//! it has no extension.

/// The path without its last extension.
pub(super) fn without_extension(path: &[u8]) -> &[u8] {
    &path[..path.len() - extension_length(path)]
}

/// The last component.
pub(super) fn last_component(path: &[u8]) -> &[u8] {
    let path = without_final_slashes(path);
    match memchr::memrchr(b'/', path) {
        Some(slash) if path.len() > 1 => &path[slash + 1..],
        _ => path,
    }
}

/// The folder: `.` if the path names none.
pub(super) fn folder(path: &[u8]) -> &[u8] {
    let path = without_final_slashes(path);
    match memchr::memrchr(b'/', path) {
        Some(slash) => without_final_slashes(&path[..=slash]),
        None => b".",
    }
}

/// The last component without its last extension.
pub(super) fn stem(path: &[u8]) -> &[u8] {
    last_component(without_extension(path))
}

/// The path up to its last slashes; of nothing but slashes, one.
fn without_final_slashes(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|byte| *byte != b'/') {
        Some(last) => &path[..=last],
        None => &path[..path.len().min(1)],
    }
}

/// The length of the last extension with its dot.
fn extension_length(path: &[u8]) -> usize {
    let name = &path[memchr::memrchr(b'/', path).map_or(0, |slash| slash + 1)..];
    match memchr::memrchr(b'.', name) {
        // Dots at the beginning make a hidden file, or `..`.
        Some(dot) if name[..dot].iter().any(|byte| *byte != b'.') => name.len() - dot,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        // path, {.}, {/}, {//}, {/.}
        for [path, bare, last, dir, name] in [
            ["a.jpg", "a", "a.jpg", ".", "a"],
            ["d/a.jpg", "d/a", "a.jpg", "d", "a"],
            ["d.x/a", "d.x/a", "a", "d.x", "a"],
            ["d.x/a.tar.gz", "d.x/a.tar", "a.tar.gz", "d.x", "a.tar"],
            [".bashrc", ".bashrc", ".bashrc", ".", ".bashrc"],
            ["d/.bashrc", "d/.bashrc", ".bashrc", "d", ".bashrc"],
            [".a.b", ".a", ".a.b", ".", ".a"],
            ["a.", "a", "a.", ".", "a"],
            ["/a.b", "/a", "a.b", "/", "a"],
            ["/", "/", "/", "/", "/"],
            ["//a", "//a", "a", "/", "a"],
            ["a//b", "a//b", "b", "a", "b"],
            ["d.x/", "d.x/", "d.x", ".", "d.x"],
            ["a/d.x/", "a/d.x/", "d.x", "a", "d.x"],
            ["..", "..", "..", ".", ".."],
            ["../a.b", "../a", "a.b", "..", "a"],
            ["a/..", "a/..", "..", "a", ".."],
            ["", "", "", ".", ""],
            ["a b\n.c", "a b\n", "a b\n.c", ".", "a b\n"],
        ] {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let path = path.as_bytes();
            let parts =
                [without_extension(path), last_component(path), folder(path), stem(path)].map(text);
            assert_eq!(parts, [bare, last, dir, name], "{}", text(path));
        }
    }
}
