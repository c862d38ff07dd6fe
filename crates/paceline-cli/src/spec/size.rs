//! A look at a file before it is parsed: how much memory would its tree take?
//!
//! The parser makes a kilobyte of two bytes of a dotted key, so a small file
//! can become a great tree. Nothing that a person or a program writes as a
//! pipeline comes near the limit.

/// The greatest weight of a file: about 110 MB when parsed.
const HEAVIEST: usize = 500_000;

/// The weight of what makes a table, against that of a value.
// Measured with toml 1.2: a dot, bracket or brace 1.4 KB at most, a value 0.2 KB.
const TABLE: usize = 5;

/// Gives the place where `text` has more parts than will be parsed, if it has.
pub(super) fn excess(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut weight = 0;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'.' | b'[' | b'{' => weight += TABLE,
            b'=' | b',' | b'\n' => weight += 1,
            b'#' => {
                at = line_end(bytes, at);
                continue;
            }
            b'"' | b'\'' => {
                at = string_end(bytes, at);
                continue;
            }
            _ => {}
        }
        if weight > HEAVIEST {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &bytes[at..]).map_or(bytes.len(), |length| at + length)
}

/// Gives the place after the string that begins at `at`; one that is not closed ends as it can.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let is_long = bytes[at..].starts_with(&[quote; 3]);
    let mut at = at + if is_long { 3 } else { 1 };
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quote == b'"' => at += 1,
            b'\n' if !is_long => return at,
            byte if byte == quote && !is_long => return at + 1,
            byte if byte == quote && bytes[at..].starts_with(&[quote; 3]) => return at + 3,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_weigh_nothing() {
        let dots = ".".repeat(HEAVIEST);
        for text in [
            format!("a = \"{dots}\""),
            format!("a = '{dots}'"),
            format!("a = \"\"\"\\\"\n{dots}\"\"\""),
            format!("a = '''\n{dots}'''"),
            format!("# {dots}"),
        ] {
            assert_eq!(excess(&text), None);
        }
        for text in [
            format!("a{dots}"),
            format!("'a'{dots}"),
            format!("# a\n{dots}"),
            format!("\"\n{dots}"),
        ] {
            assert!(excess(&text).is_some());
        }
    }
}
