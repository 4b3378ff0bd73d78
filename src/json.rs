//! Pure: JSON that every reader reads alike.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Nesting of arrays and objects; a JWKS has 3.
const MAX_DEPTH: usize = 16;

/// Why bytes are not taken as JSON.
#[derive(Debug)]
pub(crate) enum JsonError {
    Syntax(serde_json::Error),
    Duplicate(String),
    TooDeep,
}

impl fmt::Display for JsonError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax(error) => write!(out, "it is not JSON: {error}"),
            Self::Duplicate(name) => write!(out, "the member {name:?} stands twice in one object"),
            Self::TooDeep => write!(out, "it is nested more than {MAX_DEPTH} deep"),
        }
    }
}

/// Parses JSON in which no object has two members of one name.
///
/// RFC 8259 §4 leaves open which of two such members counts, so two readers could see two
/// documents. Numbers keep the digits that they came with.
pub(crate) fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    strict(serde_json::from_slice(bytes).map_err(JsonError::Syntax)?, MAX_DEPTH)
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

/// All members of an object, duplicates included, which no map of `serde_json` would show.
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
