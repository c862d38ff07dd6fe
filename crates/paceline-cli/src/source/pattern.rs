//! Looking up a path pattern, as a shell does.
//!
//! The pattern is walked component by component, so that a path comes out as
//! the user spelled its beginning. `*` does not match a dot at the beginning
//! of a name, `**` goes down any number of folders but follows no symbolic
//! link, `{a,b}` is both. All is sorted by bytes.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobMatcher};
use walkdir::WalkDir;

use crate::message::{Problem, reason};

/// The most patterns that braces may become.
const MOST_ALTERNATIVES: usize = 1000;

/// Says what is wrong with a pattern, if anything is.
pub(crate) fn check(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("the pattern is empty".to_owned());
    }
    if pattern.contains('\0') {
        return Err("the pattern holds a NUL".to_owned());
    }
    for alternative in alternatives(pattern)? {
        for component in alternative.split('/').filter(|component| is_pattern(component)) {
            matcher(component)?;
        }
    }
    Ok(())
}

/// Gives the paths that match `pattern`, relative to `folder` unless it is absolute.
///
/// # Errors
///
/// When the pattern is wrong, or a folder on the way may not be read. One
/// that is not there matches nothing.
pub(super) fn look_up(pattern: &str, folder: &Path) -> Result<Vec<Vec<u8>>, Problem> {
    let mut found = Vec::new();
    for alternative in alternatives(pattern).map_err(Problem::new)? {
        let (start, rest) = match alternative.strip_prefix('/') {
            Some(rest) => ("/", rest.trim_start_matches('/')),
            None => ("", &alternative[..]),
        };
        let components: Vec<_> = rest.split('/').collect();
        let mut walk = Walk { folder, found: &mut found };
        walk.descend(start.into(), &components).map_err(|(path, error)| {
            Problem::new(format!("cannot read the folder `{}`: {}", path.display(), reason(&error)))
        })?;
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

struct Walk<'w> {
    folder: &'w Path,
    found: &'w mut Vec<Vec<u8>>,
}

impl Walk<'_> {
    /// Goes on from `base`, which is spelled as in the pattern and ends in a slash if in anything.
    fn descend(&mut self, base: Vec<u8>, components: &[&str]) -> Result<(), (PathBuf, io::Error)> {
        let Some((component, rest)) = components.split_first() else {
            return Ok(());
        };
        match *component {
            "**" => {
                for sub in self.folders_below(&base)? {
                    match rest {
                        [] => self.children(&sub, "*", rest)?,
                        _ => self.descend(sub, rest)?,
                    }
                }
                Ok(())
            }
            _ if is_pattern(component) => self.children(&base, component, rest),
            _ => {
                let path = [&base[..], &unescaped(component)].concat();
                self.go_on(path, rest)
            }
        }
    }

    fn go_on(&mut self, path: Vec<u8>, rest: &[&str]) -> Result<(), (PathBuf, io::Error)> {
        let full = self.full(&path);
        match rest {
            [] if fs::symlink_metadata(&full).is_ok() => self.found.push(path),
            // A slash at the end asks for folders.
            [""] if full.is_dir() => self.found.push([&path[..], b"/"].concat()),
            [] | [""] => {}
            _ => self.descend([&path[..], b"/"].concat(), rest)?,
        }
        Ok(())
    }

    fn children(
        &mut self,
        base: &[u8],
        component: &str,
        rest: &[&str],
    ) -> Result<(), (PathBuf, io::Error)> {
        let Ok(matcher) = matcher(component) else { return Ok(()) };
        let hidden = component.starts_with('.') || component.starts_with("\\.");
        let full = self.full(base);
        let entries = match fs::read_dir(&full) {
            Ok(entries) => entries,
            Err(error) if is_absence(&error) => return Ok(()),
            Err(error) => return Err((full, error)),
        };
        for entry in entries {
            let name = entry.map_err(|error| (full.clone(), error))?.file_name().into_vec();
            if (hidden || !name.starts_with(b".")) && matcher.is_match(OsStr::from_bytes(&name)) {
                self.go_on([base, &name].concat(), rest)?;
            }
        }
        Ok(())
    }

    /// The folder `base` and all below it that are not hidden, each with its slash.
    fn folders_below(&self, base: &[u8]) -> Result<Vec<Vec<u8>>, (PathBuf, io::Error)> {
        let full = self.full(base);
        let mut folders = Vec::new();
        let is_shown = |entry: &walkdir::DirEntry| {
            entry.depth() == 0 || !entry.file_name().as_bytes().starts_with(b".")
        };
        for entry in WalkDir::new(&full).into_iter().filter_entry(is_shown) {
            match entry {
                Ok(entry) if entry.depth() == 0 => folders.push(base.to_vec()),
                Ok(entry) if entry.file_type().is_dir() => {
                    let below = entry.path().strip_prefix(&full).unwrap_or(entry.path());
                    folders.push([base, below.as_os_str().as_bytes(), b"/"].concat());
                }
                Ok(_) => {}
                Err(error) => {
                    let path = error.path().unwrap_or(&full).to_owned();
                    let error = io::Error::from(error);
                    if !is_absence(&error) {
                        return Err((path, error));
                    }
                }
            }
        }
        Ok(folders)
    }

    fn full(&self, path: &[u8]) -> PathBuf {
        match path {
            b"" if self.folder.as_os_str().is_empty() => ".".into(),
            b"" => self.folder.to_owned(),
            _ => self.folder.join(OsStr::from_bytes(path)),
        }
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn is_pattern(component: &str) -> bool {
    component.contains(['*', '?', '['])
}

fn matcher(component: &str) -> Result<GlobMatcher, String> {
    let glob = GlobBuilder::new(component).literal_separator(true).backslash_escape(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

fn unescaped(component: &str) -> Vec<u8> {
    let mut text = Vec::new();
    let mut bytes = component.bytes();
    while let Some(byte) = bytes.next() {
        text.push(if byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte });
    }
    text
}

/// Writes out the braces of a pattern: `a{b,c}` is `ab` and `ac`.
fn alternatives(pattern: &str) -> Result<Vec<String>, String> {
    let mut done = Vec::new();
    let mut open = vec![pattern.to_owned()];
    while let Some(pattern) = open.pop() {
        if done.len() + open.len() > MOST_ALTERNATIVES {
            return Err(format!("the braces stand for more than {MOST_ALTERNATIVES} patterns"));
        }
        match first_braces(&pattern)? {
            None => done.push(pattern),
            Some((start, parts, end)) => open.extend(
                parts.into_iter().map(|part| [&pattern[..start], part, &pattern[end..]].concat()),
            ),
        }
    }
    Ok(done)
}

/// Where braces open, what stands between their commas, and where they have closed.
type Braces<'p> = (usize, Vec<&'p str>, usize);

fn first_braces(pattern: &str) -> Result<Option<Braces<'_>>, String> {
    let mut escaped = false;
    let mut depth = 0;
    let (mut start, mut part) = (0, 0);
    let mut parts = Vec::new();
    for (index, byte) in pattern.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => {
                if depth == 0 {
                    (start, part) = (index, index + 1);
                }
                depth += 1;
            }
            b',' if depth == 1 => {
                parts.push(&pattern[part..index]);
                part = index + 1;
            }
            b'}' if depth == 1 => {
                parts.push(&pattern[part..index]);
                return Ok(Some((start, parts, index + 1)));
            }
            b'}' if depth > 1 => depth -= 1,
            _ => {}
        }
    }
    if depth > 0 { Err("a `{` of the pattern is never closed".to_owned()) } else { Ok(None) }
}
