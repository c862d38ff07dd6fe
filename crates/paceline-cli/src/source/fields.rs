//! Items with fields: JSON objects and CSV records.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::records::Record;
use super::{Defect, Item};

/// The fields of an item.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fields {
    Json(Map<String, Value>),
    /// The names are shared by all items of the source.
    Csv {
        names: Arc<[String]>,
        values: csv::ByteRecord,
    },
}

impl Fields {
    /// What the field holds: the text of a string, JSON text of anything else.
    pub(crate) fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Json(map) => Some(match map.get(name)? {
                Value::String(text) => Cow::Borrowed(text.as_bytes()),
                other => Cow::Owned(other.to_string().into_bytes()),
            }),
            Self::Csv { names, values } => {
                let index = names.iter().position(|known| known == name)?;
                values.get(index).map(Cow::Borrowed)
            }
        }
    }

    /// The name of each field, and what it holds as JSON text; `text_of` makes
    /// that of the bytes of a CSV field.
    pub(crate) fn as_json<'f>(
        &'f self,
        text_of: impl Fn(&[u8]) -> String + 'f,
    ) -> Box<dyn Iterator<Item = (&'f str, String)> + 'f> {
        match self {
            Self::Json(map) => {
                Box::new(map.iter().map(|(name, value)| (name.as_str(), value.to_string())))
            }
            Self::Csv { names, values } => {
                let values = values.iter().map(text_of);
                Box::new(names.iter().map(String::as_str).zip(values))
            }
        }
    }
}

/// How a record becomes an item.
#[derive(Debug)]
pub(super) enum Format {
    Plain,
    Json,
    /// The first record is the header.
    Csv {
        header: Option<Arc<[String]>>,
    },
}

impl Format {
    /// Makes an item of `record`, or takes it as the header.
    pub(super) fn item(&mut self, record: Record) -> Option<Item> {
        let Record { bytes, too_long, line } = record;
        let mut item = Item::plain(bytes, line);
        let fields = match self {
            _ if too_long.is_some() && !matches!(self, Self::Csv { header: None }) => {
                item.defect = too_long.map(|length| Box::new(Defect::TooLong { length }));
                return Some(item);
            }
            Self::Plain => return Some(item),
            Self::Json => json_of(&item.bytes),
            Self::Csv { header: Some(names) } => csv_of(names, &item.bytes),
            Self::Csv { header } => {
                let bytes = item.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&item.bytes);
                let names = csv_record(bytes);
                let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
                *header = Some(names.iter().map(name).collect());
                return None;
            }
        };
        match fields {
            Ok(fields) => item.fields = Some(Arc::new(fields)),
            Err(reason) => item.defect = Some(Box::new(Defect::Broken { line, reason })),
        }
        Some(item)
    }
}

pub(super) fn json_of(bytes: &[u8]) -> Result<Fields, String> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(Fields::Json(map)),
        Ok(_) => Err("is no JSON object".to_owned()),
        Err(_) if bytes.trim_ascii().is_empty() => {
            Err("is empty, where a JSON object is due".to_owned())
        }
        Err(error) => {
            let reason = error.to_string();
            // The line that it names is always 1: each item is parsed by itself.
            let reason = reason.split(" at line ").next().unwrap_or_default();
            Err(format!("is no JSON: {reason} (column {})", error.column()))
        }
    }
}

pub(super) fn csv_of(names: &Arc<[String]>, bytes: &[u8]) -> Result<Fields, String> {
    let values = csv_record(bytes);
    if values.len() > names.len() {
        let (found, named) = (values.len(), names.len());
        return Err(format!("has {found} fields, where the header names {named}"));
    }
    Ok(Fields::Csv { names: names.clone(), values })
}

fn csv_record(bytes: &[u8]) -> csv::ByteRecord {
    let mut builder = csv::ReaderBuilder::new();
    let mut reader = builder
        .has_headers(false)
        .flexible(true)
        .buffer_capacity(bytes.len().max(1))
        .from_reader(bytes);
    let mut record = csv::ByteRecord::new();
    // Reading a slice cannot fail, and every number of fields is allowed.
    let _ = reader.read_byte_record(&mut record);
    record
}
