//! Lines: one event a line on stderr, a constant message, then `key=value`.
//!
//! Bytes that came from outside are escaped here, once for all callers, so that nobody can forge
//! a line or send an escape sequence to a terminal. The lines of the libraries below us are let
//! through from `warn` up: at `trace` they would show requests, and with them the token.

use std::io::{self, Write as _};
use std::time::SystemTime;

use env_logger::{Builder, Target};
use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Record};
use serde_json::{Map, json};

use crate::config::LogConfig;

/// The crates whose lines are let through from `warn` up, whatever `RUST_LOG` says.
const LIBRARIES: [&str; 4] = ["ureq", "ureq_proto", "rustls", "tiny_http"];

/// Starts logging; called once, before any thread is started.
pub(crate) fn start(config: &LogConfig) {
    let mut builder = Builder::new();
    builder.parse_filters(&config.filter).target(Target::Stderr);
    for library in LIBRARIES {
        builder.filter_module(library, LevelFilter::Warn);
    }
    let write = if config.json { json_line } else { text_line };
    builder.format(move |out, record| {
        // Made whole first: one write a line, so that lines of two threads do not mix.
        out.write_all(&write(record, SystemTime::now())?)
    });
    builder.init();
}

fn text_line(record: &Record<'_>, now: SystemTime) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(160);
    let time = humantime::format_rfc3339_millis(now);
    write!(line, "{time} {:<5} {}", record.level(), Text(&record.args().to_string()))?;
    record.key_values().visit(&mut TextPairs(&mut line)).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

struct TextPairs<'a>(&'a mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for TextPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_string();
        let plain = value.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte));
        if plain && !value.is_empty() {
            write!(self.0, " {key}={value}")?;
        } else {
            write!(self.0, " {key}=\"{}\"", Text(&value))?;
        }
        Ok(())
    }
}

/// Text in printable ASCII, the rest escaped as in a Rust string.
struct Text<'a>(&'a str);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.0.chars() {
            match character {
                '\'' => out.write_str("'")?,
                other => write!(out, "{}", other.escape_default())?,
            }
        }
        Ok(())
    }
}

fn json_line(record: &Record<'_>, now: SystemTime) -> io::Result<Vec<u8>> {
    let mut object = Map::new();
    object.insert("time".into(), json!(humantime::format_rfc3339_millis(now).to_string()));
    object.insert("level".into(), json!(record.level().as_str().to_ascii_lowercase()));
    object.insert("message".into(), json!(record.args().to_string()));
    record.key_values().visit(&mut JsonPairs(&mut object)).map_err(io::Error::other)?;
    let mut line = serde_json::to_vec(&object)?;
    line.push(b'\n');
    Ok(line)
}

struct JsonPairs<'a>(&'a mut Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = match (value.to_u64(), value.to_bool()) {
            (Some(number), _) => json!(number),
            (None, Some(truth)) => json!(truth),
            (None, None) => json!(value.to_string()),
        };
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use log::Level;

    fn record<'a>(pairs: &'a [(&'a str, &'a str)], check: impl FnOnce(&Record<'_>)) {
        let mut builder = Record::builder();
        check(&builder.level(Level::Info).args(format_args!("request")).key_values(&pairs).build());
    }

    #[test]
    fn nobody_can_forge_a_line() {
        let pairs = [("path", "/a\n2026 INFO listening\x1b[31m\u{202e}\u{7f}"), ("kid", "a=\"b\"")];
        record(&pairs, |record| {
            let line = String::from_utf8(text_line(record, SystemTime::UNIX_EPOCH).unwrap());
            assert_eq!(
                line.unwrap(),
                "1970-01-01T00:00:00.000Z INFO  request \
                 path=\"/a\\n2026 INFO listening\\u{1b}[31m\\u{202e}\\u{7f}\" \
                 kid=\"a=\\\"b\\\"\"\n"
            );
            let line = json_line(record, SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(object.get("kid").unwrap(), "a=\"b\"");
        });
    }

    #[test]
    fn plain_values_stand_unquoted_and_empty_ones_do_not_vanish() {
        record(&[("path", "/openid/v1/jwks"), ("why", "")], |record| {
            let line = text_line(record, SystemTime::UNIX_EPOCH).unwrap();
            assert!(line.ends_with(b"INFO  request path=/openid/v1/jwks why=\"\"\n"));
        });
    }
}
