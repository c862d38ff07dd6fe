//! URLs made from templates.
//!
//! A placeholder that is the whole URL is taken as it is. As a part of one,
//! its value is percent-encoded, all but letters, digits, `-`, `.`, `_`, `~`
//! and `/`: so a value can add path components, but neither a query nor a host.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};

use super::{ExpandError, Template, Values};

const ENCODED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A URL with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UrlTemplate(pub(crate) Template);

impl UrlTemplate {
    /// Gives the URL, as bytes that are not checked any further.
    ///
    /// # Errors
    ///
    /// When a placeholder has no value for this item, or one too long.
    pub(crate) fn expand(&self, values: &Values<'_>) -> Result<Vec<u8>, ExpandError> {
        if self.0.is_one_hole() {
            return self.0.expand(values);
        }
        self.0.expand_with(values, |text, value| {
            let encoded: Cow<'_, str> = percent_encode(value, ENCODED).into();
            text.extend_from_slice(encoded.as_bytes());
        })
    }

    /// The scheme, if the text before the first placeholder says it: `Some("")` if it says
    /// that there is none.
    pub(crate) fn scheme(&self) -> Option<Cow<'_, str>> {
        let prefix = self.0.literal_prefix();
        let end = prefix.iter().position(|byte| matches!(byte, b':' | b'/' | b'?' | b'#'));
        match end {
            Some(end) if prefix[end] == b':' => Some(String::from_utf8_lossy(&prefix[..end])),
            Some(_) => Some("".into()),
            None if self.0.holes().next().is_none() => Some("".into()),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Dialect;
    use super::*;

    fn url(text: &str) -> UrlTemplate {
        UrlTemplate(Template::parse(text.as_bytes(), Dialect::File).unwrap())
    }

    #[test]
    fn a_value_that_is_a_part_is_encoded_and_a_whole_one_is_not() {
        for (text, value, expected) in [
            ("{}", &b"http://a/b?c=d e"[..], "http://a/b?c=d e"),
            ("http://h/{}", b"a b/c?d#e&f%20", "http://h/a%20b/c%3Fd%23e%26f%2520"),
            ("http://h/{/}?q={}", b"x/\xff~1", "http://h/%FF~1?q=x/%FF~1"),
            ("http://h/{}", b"@evil:80\n", "http://h/%40evil%3A80%0A"),
        ] {
            let expanded = url(text).expand(&Values::new(&[value])).unwrap();
            assert_eq!(String::from_utf8(expanded).unwrap(), expected);
        }
    }

    #[test]
    fn the_scheme_is_known_where_the_text_says_it() {
        for (text, scheme) in [
            ("https://h/{}", Some("https")),
            ("file:x", Some("file")),
            ("h/{}:", Some("")),
            ("h", Some("")),
            ("{}", None),
            ("ht{}", None),
        ] {
            assert_eq!(url(text).scheme().as_deref(), scheme, "{text}");
        }
    }
}
