//! An item as the journal keeps it, and as it comes from there again.
//!
//! Its bytes are kept as they are. What else it has (fields, values of several
//! sources, what is wrong with it) is a JSON object beside them.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value as Json, json};

use super::fields::{Fields, csv_of, json_of};
use super::{Defect, Item};

impl Item {
    /// What the journal keeps beside the bytes, if there is anything.
    pub(crate) fn detail(&self, parts: &[Bytes]) -> Option<Vec<u8>> {
        let mut detail = Map::new();
        if !matches!(parts, [one] if *one == self.bytes) {
            let parts: Vec<_> = parts.iter().map(|part| BASE64_STANDARD.encode(part)).collect();
            detail.insert("parts".to_owned(), parts.into());
        }
        match self.fields.as_deref() {
            None => {}
            Some(Fields::Json(_)) => {
                detail.insert("fields".to_owned(), "json".into());
            }
            Some(Fields::Csv { names, .. }) => {
                detail.insert("fields".to_owned(), names.to_vec().into());
            }
        }
        match self.defect.as_deref() {
            None => {}
            Some(Defect::TooLong { length }) => {
                detail.insert("too_long".to_owned(), (*length).into());
            }
            Some(Defect::Broken { reason, .. }) => {
                detail.insert("broken".to_owned(), reason.as_str().into());
            }
        }
        if detail.is_empty() {
            return None;
        }
        detail.insert("line".to_owned(), self.line.into());
        Some(Json::Object(detail).to_string().into_bytes())
    }

    /// The item, and the value of each of its sources, of what the journal kept.
    pub(crate) fn restored(bytes: Bytes, detail: Option<&[u8]>) -> (Self, Vec<Bytes>) {
        let detail: Json = detail
            .and_then(|detail| serde_json::from_slice(detail).ok())
            .unwrap_or_else(|| json!({}));
        let line = detail["line"].as_u64().unwrap_or(1);
        let mut item = Self::plain(bytes, line);
        let fields = match &detail["fields"] {
            Json::String(_) => json_of(&item.bytes).ok(),
            Json::Array(names) => {
                let names = names.iter().map(|name| name.as_str().unwrap_or_default().to_owned());
                csv_of(&names.collect(), &item.bytes).ok()
            }
            _ => None,
        };
        item.fields = fields.map(Arc::new);
        if let Some(length) = detail["too_long"].as_u64() {
            item.defect = Some(Box::new(Defect::TooLong { length }));
        }
        if let Some(reason) = detail["broken"].as_str() {
            item.defect = Some(Box::new(Defect::Broken { line, reason: reason.to_owned() }));
        }
        let parts = match detail["parts"].as_array() {
            None => vec![item.bytes.clone()],
            Some(parts) => parts
                .iter()
                .map(|part| part.as_str().and_then(|part| BASE64_STANDARD.decode(part).ok()))
                .map(|part| part.unwrap_or_default().into())
                .collect(),
        };
        (item, parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(item: &Item, parts: &[Bytes]) -> (Item, Vec<Bytes>) {
        let detail = item.detail(parts);
        Item::restored(item.bytes.clone(), detail.as_deref())
    }

    #[test]
    fn every_item_comes_back_as_it_was() {
        let plain = Item::plain(Bytes::from_static(b"\xff\n"), 1);
        assert_eq!(plain.detail(std::slice::from_ref(&plain.bytes)), None);
        let json = br#"{"a": 1}"#;
        let names: Arc<[String]> = ["a".to_owned(), "b".to_owned()].into();
        let with = |bytes: &'static [u8], fields: Option<Fields>, defect: Option<Defect>| Item {
            fields: fields.map(Arc::new),
            defect: defect.map(Box::new),
            ..Item::plain(Bytes::from_static(bytes), 7)
        };
        let broken = Defect::Broken { line: 7, reason: "is no JSON".to_owned() };
        for item in [
            with(json, json_of(json).ok(), None),
            with(b"1,\"x,y\"", csv_of(&names, b"1,\"x,y\"").ok(), None),
            with(b"{", None, Some(broken)),
            with(b"beginning", None, Some(Defect::TooLong { length: 1 << 40 })),
        ] {
            let parts = vec![item.bytes.clone()];
            assert_eq!(again(&item, &parts), (item, parts));
        }
        let parts = vec![Bytes::from_static(b"a b"), Bytes::from_static(b"\xfe")];
        let item = Item::plain(Bytes::from_static(b"a b \xfe"), 1);
        assert_eq!(again(&item, &parts), (item, parts));
    }
}
