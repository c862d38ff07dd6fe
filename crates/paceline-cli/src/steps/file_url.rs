//! `file:` URLs: `file:NAME`, relative to the pipeline file's folder, and `file:///NAME`.
//!
//! They name any bytes that a file name may hold, percent-encoded or not, and
//! have no query and no fragment: `?` and `#` are ordinary characters.

use percent_encoding::percent_decode;

use super::{Shown, StepError};

/// Gives the path that a `file:` URL names, or `None` if it is another URL.
pub(crate) fn path(url: &[u8]) -> Result<Option<Vec<u8>>, StepError> {
    let Some(rest) = strip_scheme(url) else {
        return Ok(None);
    };
    let path = match rest.strip_prefix(b"//") {
        None => rest,
        Some(after) => {
            let slash = after.iter().position(|&byte| byte == b'/').unwrap_or(after.len());
            let (host, path) = after.split_at(slash);
            if !host.is_empty() && !host.eq_ignore_ascii_case(b"localhost") {
                return Err(StepError::permanent(format!(
                    "`{}` names another host: a file here is `file:NAME` or `file:///NAME`",
                    Shown(url)
                )));
            }
            path
        }
    };
    Ok(Some(percent_decode(path).collect()))
}

/// Gives the path in the literal beginning of a URL, empty where that ends
/// before the path begins.
pub(super) fn literal_path(literal: &[u8]) -> Vec<u8> {
    let rest = strip_scheme(literal).unwrap_or_default();
    let path = match rest.strip_prefix(b"//") {
        None if rest == b"/" => &[],
        None => rest,
        Some(after) => match after.iter().position(|&byte| byte == b'/') {
            Some(slash) => &after[slash..],
            None => &[],
        },
    };
    percent_decode(path).collect()
}

fn strip_scheme(url: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = url.split_at_checked(5)?;
    scheme.eq_ignore_ascii_case(b"file:").then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_url_gives_its_path() {
        for (url, expected) in [
            ("file:a%20b/c?d#e", Some("a b/c?d#e")),
            ("FILE:///srv/a", Some("/srv/a")),
            ("file:/srv/a", Some("/srv/a")),
            ("file://localhost/srv/a", Some("/srv/a")),
            ("http://x/a", None),
            ("fil", None),
        ] {
            let path = path(url.as_bytes()).unwrap();
            assert_eq!(path.as_deref(), expected.map(str::as_bytes), "{url}");
        }
        assert!(path(b"file://elsewhere/a").unwrap_err().is_permanent());
    }

    #[test]
    fn the_literal_beginning_ends_where_data_could_decide_between_the_forms() {
        for (literal, expected) in [
            ("file:out/", "out/"),
            ("file:", ""),
            ("file:/", ""),
            ("file://", ""),
            ("file:///", "/"),
            ("file:///srv/a%20b/x", "/srv/a b/x"),
            ("fi", ""),
            ("", ""),
        ] {
            assert_eq!(literal_path(literal.as_bytes()), expected.as_bytes(), "{literal}");
        }
    }
}
