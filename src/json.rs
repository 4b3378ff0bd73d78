//! Pure: JSON that all parsers read in the same way.
//!
//! What two parsers could read differently is refused, so that every relying party sees the
//! document that was checked.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// The deepest nesting of arrays and objects; a key set has 3 levels.
const MAX_DEPTH: usize = 16;

/// Why bytes are refused as JSON.
#[derive(Debug)]
pub(crate) enum JsonError {
    Syntax(serde_json::Error),
    /// What it is instead.
    Encoding(&'static str),
    Duplicate(String),
    TooDeep,
}

impl fmt::Display for JsonError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => write!(out, "it is not JSON: {error}"),
            Self::Encoding(encoding) => write!(out, "it is not JSON but {encoding}"),
            Self::Duplicate(name) => write!(out, "the member {name:?} appears twice in one object"),
            Self::TooDeep => write!(out, "it is nested more than {MAX_DEPTH} levels deep"),
        }
    }
}

/// Parses JSON in which no object has two members of the same name: RFC 8259 §4 leaves open which
/// of them counts. Members keep their order, and numbers their digits.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let raw = serde_json::from_slice(bytes);
    strict(raw.map_err(|error| encoding(bytes).unwrap_or(JsonError::Syntax(error)))?, MAX_DEPTH)
}

/// RFC 8259 §8.1: JSON is UTF-8 without a byte order mark.
const fn encoding(bytes: &[u8]) -> Option<JsonError> {
    match bytes {
        [0x1f, 0x8b, ..] => Some(JsonError::Encoding("compressed by gzip")),
        [0xef, 0xbb, 0xbf, ..] => Some(JsonError::Encoding("text with a byte order mark")),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some(JsonError::Encoding("UTF-16")),
        _ => None,
    }
}

fn strict(raw: &RawValue, depth: usize) -> Result<Value, JsonError> {
    let text = raw.get();
    let inside = depth.checked_sub(1).ok_or(JsonError::TooDeep);
    match text.as_bytes().first() {
        Some(b'{') => {
            let inside = inside?;
            let Members(members) = serde_json::from_str(text).map_err(JsonError::Syntax)?;
            let mut object = Map::with_capacity(members.len());
            for (name, value) in members {
                if object.contains_key(&name) {
                    return Err(JsonError::Duplicate(name));
                }
                object.insert(name, strict(value, inside)?);
            }
            Ok(Value::Object(object))
        }
        Some(b'[') => {
            let inside = inside?;
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(JsonError::Syntax)?;
            items.into_iter().map(|item| strict(item, inside)).collect()
        }
        _ => serde_json::from_str(text).map_err(JsonError::Syntax),
    }
}

/// All members of an object, duplicates included, which the maps of `serde_json` drop.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> serde::Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_digits_and_unknown_members_are_kept() {
        for text in [
            r#"{"z":1.10,"a":12345678901234567890123,"m":{"y":-0,"b":1e+400}}"#,
            // Names that serde_json has for itself.
            r#"{"$serde_json::private::Number":"5"}"#,
            r#"{"a":[{"$serde_json::private::Number":"x"}]}"#,
            r#"{"$serde_json::private::Number":5,"b":1}"#,
            r#"{"$serde_json::private::RawValue":"[1"}"#,
            r#"{"a":[{"$serde_json::private::RawValue":"{}"}]}"#,
            r#"{"$serde_json::private::RawValue":{},"b":1}"#,
            "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for (text, expected) in [
            (r#"{"a":1,"a":1}"#, "the member \"a\" appears twice in one object"),
            (r#"{"a":1,"\u0061":2}"#, "the member \"a\" appears twice in one object"),
            (r#"[{"x":{"b":1,"b":2}}]"#, "the member \"b\" appears twice in one object"),
            ("[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]", "it is nested more than 16 levels deep"),
            ("", "it is not JSON: EOF while parsing a value at line 1 column 0"),
            ("{} x", "it is not JSON: trailing characters at line 1 column 4"),
            (r#""\ud800""#, "it is not JSON: unexpected end of hex escape at line 1 column 8"),
            ("01", "it is not JSON: invalid number at line 1 column 2"),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().to_string(), expected, "{text}");
        }
        assert!(matches!(parse(b"\"\xff\""), Err(JsonError::Syntax(_))));
        for (bytes, expected) in [
            (&b"\x1f\x8b\x08\0"[..], "it is not JSON but compressed by gzip"),
            (b"\xef\xbb\xbf{}", "it is not JSON but text with a byte order mark"),
            (b"\xff\xfe{\0}\0", "it is not JSON but UTF-16"),
        ] {
            assert_eq!(parse(bytes).unwrap_err().to_string(), expected);
        }
    }
}
