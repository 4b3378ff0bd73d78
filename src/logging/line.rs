//! A log line as bytes.
//!
//! Bytes from outside are escaped here, for all callers, so that no client can forge a line or send
//! an escape sequence to a terminal.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use serde::Serialize;

/// The most characters of a value from outside, in those lines that cut it.
const LONGEST: usize = 200;

/// The first 200 characters of a value from outside: some may be long.
pub(crate) fn cut(value: &str) -> String {
    value.chars().take(LONGEST).collect()
}

/// A value from outside as printable ASCII, everything else escaped as in a Rust string; the first 200
/// characters of that.
pub(crate) fn printable(value: &str) -> String {
    cut(&printable_line(&cut(value)))
}

/// A line for a terminal, as printable ASCII: everything else is escaped as in a Rust string.
pub(crate) fn printable_line(line: &str) -> String {
    let mut printable = String::with_capacity(line.len());
    push_escaped(&mut printable, line, false);
    printable
}

/// A duration for a key that ends in `_ms`: milliseconds, with three decimals at most. JSON has the
/// number; text has `duration=0.062ms` for `duration_ms`, and else two or three digits.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

pub(crate) fn text_line(record: &Record<'_>, now: SystemTime) -> io::Result<Vec<u8>> {
    let mut line = String::with_capacity(512);
    let time = humantime::format_rfc3339_millis(now);
    // Writing to a string cannot fail.
    let _ = write!(line, "{time} {:<5} ", record.level());
    push_escaped(&mut line, &text(record.args()), false);
    let mut pairs = TextPairs { line: &mut line, value: String::with_capacity(64) };
    record.key_values().visit(&mut pairs).map_err(io::Error::other)?;
    line.push('\n');
    Ok(line.into_bytes())
}

struct TextPairs<'a> {
    line: &'a mut String,
    /// The text of the current value, which decides how it is written.
    value: String,
}

impl<'kvs> VisitSource<'kvs> for TextPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if is_none(&value)? {
            return Ok(());
        }
        let Self { line, value: text } = self;
        line.push(' ');
        let name = key.as_str().strip_suffix("_ms");
        if let Some((name, milliseconds)) = name.and_then(|name| Some((name, value.to_f64()?))) {
            push_duration(line, name, milliseconds);
            return Ok(());
        }
        line.push_str(key.as_str());
        line.push('=');
        text.clear();
        // Writing to a string cannot fail.
        let _ = write!(text, "{value}");
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte));
        if plain && !text.is_empty() {
            line.push_str(text);
        } else {
            line.push('"');
            push_escaped(line, text, true);
            line.push('"');
        }
        Ok(())
    }
}

/// As `duration=1.234ms`, which kube-oidc-gateway has too; others as `446ms`, `4.5s` or `93s`.
fn push_duration(line: &mut String, key: &str, milliseconds: f64) {
    let seconds = milliseconds / 1000.0;
    // Writing to a string cannot fail.
    let _ = match key {
        "duration" => write!(line, "{key}={milliseconds:.3}ms"),
        _ if milliseconds < 999.5 => write!(line, "{key}={milliseconds:.0}ms"),
        _ if seconds < 9.95 => write!(line, "{key}={seconds:.1}s"),
        _ => write!(line, "{key}={seconds:.0}s"),
    };
}

/// Appends text as printable ASCII, with everything else escaped as in a Rust string; in quotes, a
/// quote is escaped too.
fn push_escaped(line: &mut String, text: &str, in_quotes: bool) {
    let is_plain =
        |byte| matches!(byte, b' '..=b'~') && byte != b'\\' && (byte != b'"' || !in_quotes);
    // Without an early end, so that the compiler looks at many bytes at a time.
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        return line.push_str(text);
    }
    for character in text.chars() {
        match character {
            '\'' => line.push('\''),
            '"' if !in_quotes => line.push('"'),
            other => line.extend(other.escape_default()),
        }
    }
}

pub(crate) fn json_line(record: &Record<'_>, now: SystemTime) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(512);
    let time = humantime::format_rfc3339_millis(now);
    let level = record.level().as_str().to_ascii_lowercase();
    write!(line, r#"{{"time":"{time}","level":"{level}","message":"#)?;
    push_json(&mut line, &text(record.args()))?;
    record.key_values().visit(&mut JsonPairs(&mut line)).map_err(io::Error::other)?;
    line.extend_from_slice(b"}\n");
    let line = String::from_utf8(line).map_err(io::Error::other)?;
    Ok(ascii_json(line).into_bytes())
}

/// The same JSON with everything escaped that is not ASCII: there are characters that control a terminal, or
/// turn the text around. `serde_json` escapes only those before the space.
pub(crate) fn ascii_json(json: String) -> String {
    let is_plain = |character: char| character.is_ascii() && character != '\u{7f}';
    if json.chars().all(is_plain) {
        return json;
    }
    let mut ascii = String::with_capacity(json.len());
    for character in json.chars() {
        if is_plain(character) {
            ascii.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
}

/// As `to_string`, which panics where the `Display` of a value gives up.
pub(super) fn text(value: impl fmt::Display) -> String {
    let mut text = String::new();
    // What was written before is kept.
    let _ = write!(text, "{value}");
    text
}

fn push_json(line: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    Ok(serde_json::to_writer(line, value)?)
}

struct JsonPairs<'a>(&'a mut Vec<u8>);

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if is_none(&value)? {
            return Ok(());
        }
        let Self(line) = self;
        line.push(b',');
        push_json(line, key.as_str())?;
        line.push(b':');
        if let Some(number) = value.to_u64() {
            push_json(line, &number)?;
        } else if let Some(number) = value.to_i64() {
            push_json(line, &number)?;
        } else if let Some(truth) = value.to_bool() {
            push_json(line, &truth)?;
        } else if let Some(number) = value.to_f64() {
            push_json(line, &number)?;
        } else {
            push_json(line, &text(value))?;
        }
        Ok(())
    }
}

/// Whether it is an `Option` without a value, whose key is left out.
fn is_none(value: &Value<'_>) -> Result<bool, Error> {
    struct Visitor(bool);
    impl VisitValue<'_> for Visitor {
        fn visit_any(&mut self, _: Value<'_>) -> Result<(), Error> {
            Ok(())
        }

        fn visit_null(&mut self) -> Result<(), Error> {
            self.0 = true;
            Ok(())
        }
    }
    let mut visitor = Visitor(false);
    value.visit(&mut visitor)?;
    Ok(visitor.0)
}

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    fn record<'a>(pairs: &'a [(&'a str, &'a str)], check: impl FnOnce(&Record<'_>)) {
        let mut builder = Record::builder();
        check(&builder.level(Level::Info).args(format_args!("request")).key_values(&pairs).build());
    }

    #[test]
    fn nobody_can_forge_a_line() {
        let path = "/a\n2026 INFO listening\x1b[31m\u{9b}\u{202e}\u{7f}\u{1f511}";
        let pairs = [("path", path), ("kid", "a=\"b\"")];
        record(&pairs, |record| {
            let line = String::from_utf8(text_line(record, SystemTime::UNIX_EPOCH).unwrap());
            assert_eq!(
                line.unwrap(),
                "1970-01-01T00:00:00.000Z INFO  request \
                 path=\"/a\\n2026 INFO listening\\u{1b}[31m\\u{9b}\\u{202e}\\u{7f}\\u{1f511}\" \
                 kid=\"a=\\\"b\\\"\"\n"
            );
            let line = json_line(record, SystemTime::UNIX_EPOCH).unwrap();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let object: serde_json::Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(object.get("kid").unwrap(), "a=\"b\"");
            assert_eq!(object.get("path").unwrap(), path);
            assert!(
                line.strip_suffix(b"\n").unwrap().iter().all(|byte| (b' '..=b'~').contains(byte))
            );
        });
    }

    #[test]
    fn plain_values_are_not_quoted_and_empty_ones_do_not_vanish() {
        record(&[("path", "/openid/v1/jwks"), ("reason", "")], |record| {
            let line = text_line(record, SystemTime::UNIX_EPOCH).unwrap();
            assert!(line.ends_with(b"INFO  request path=/openid/v1/jwks reason=\"\"\n"));
        });
    }

    #[test]
    fn an_integer_has_all_its_digits_in_text_and_json() {
        for (value, expected) in [
            (Value::from(u64::MAX), "18446744073709551615"),
            (Value::from(0), "0"),
            (Value::from(-1), "-1"),
            (Value::from(i64::MIN), "-9223372036854775808"),
        ] {
            let pairs = [("left", value)];
            let mut record = Record::builder();
            let record = record.args(format_args!("x")).key_values(&pairs).build();
            let line = text_line(&record, SystemTime::UNIX_EPOCH).unwrap();
            assert!(line.ends_with(format!(" x left={expected}\n").as_bytes()), "{line:?}");
            let line = json_line(&record, SystemTime::UNIX_EPOCH).unwrap();
            let end = format!("\"x\",\"left\":{expected}}}\n");
            assert!(line.ends_with(end.as_bytes()), "{expected}: {line:?}");
        }
    }

    #[test]
    fn a_duration_is_short_in_text_and_a_number_in_json() {
        for (key, micros, text, number) in [
            ("duration_ms", 62, "duration=0.062ms", "0.062"),
            ("duration_ms", 4_445_878, "duration=4445.878ms", "4445.878"),
            ("age_ms", 0, "age=0ms", "0.0"),
            ("age_ms", 445_878, "age=446ms", "445.878"),
            ("age_ms", 999_600, "age=1.0s", "999.6"),
            ("age_ms", 4_449_000, "age=4.4s", "4449.0"),
            ("age_ms", 9_950_000, "age=10s", "9950.0"),
            ("age_ms", 3_600_000_000, "age=3600s", "3600000.0"),
        ] {
            let pairs = [(key, Some(milliseconds(Duration::from_micros(micros)))), ("none", None)];
            let mut record = Record::builder();
            let record = record.args(format_args!("x")).key_values(&pairs).build();
            let line = text_line(&record, SystemTime::UNIX_EPOCH).unwrap();
            assert!(line.ends_with(format!(" x {text}\n").as_bytes()), "{text}: {line:?}");
            let line = json_line(&record, SystemTime::UNIX_EPOCH).unwrap();
            let end = format!("\"x\",\"{key}\":{number}}}\n");
            assert!(line.ends_with(end.as_bytes()), "{number}: {line:?}");
        }
    }
}
