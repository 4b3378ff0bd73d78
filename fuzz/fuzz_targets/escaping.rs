//! Escaping: whatever stands in a line, it is one line, it is harmless, and it can be read back.
//!
//! The first byte says at what level and as which types the rest is logged: texts, divided by the
//! byte 0x1e.

#![no_main]

#[path = "../../src/logging/line.rs"]
#[allow(dead_code)]
mod line;
#[allow(dead_code)]
mod second_reader;

use std::fmt;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::{Corpus, fuzz_target};
use log::kv::{Key, Value};
use log::{Level, Record};

use crate::second_reader::Json;

const TIME: &str = "2033-05-18T03:33:20.000Z";
const LEVELS: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
const KEYS: [&str; 6] = ["path", "reason", "status", "left", "kid", "x"];

/// What a value is logged as.
#[derive(Debug)]
enum Logged<'a> {
    Text(&'a str),
    /// As `key:% = value`, which is how an error is logged.
    Shown(Shown<'a>),
    /// As `key:? = value`.
    Debugged(&'a str),
    Number(u64),
    Signed(i64),
    Truth(bool),
}

/// Shows itself in pieces, as a type of ours may.
#[derive(Debug)]
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| write!(out, "{c}"))
    }
}

impl<'a> Logged<'a> {
    fn new(kind: u8, text: &'a str) -> Self {
        match kind % 6 {
            0 | 1 => Logged::Text(text),
            2 => Logged::Shown(Shown(text)),
            3 => Logged::Debugged(text),
            4 => text.parse().map(Logged::Number).unwrap_or(Logged::Text(text)),
            _ => match text.parse() {
                Ok(number) => Logged::Signed(number),
                Err(_) => text.parse().map(Logged::Truth).unwrap_or(Logged::Text(text)),
            },
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Logged::Text(text) => Value::from(*text),
            Logged::Shown(shown) => Value::from_display(shown),
            Logged::Debugged(text) => Value::from_debug(text),
            Logged::Number(number) => Value::from(*number),
            Logged::Signed(number) => Value::from(*number),
            Logged::Truth(truth) => Value::from(*truth),
        }
    }

    /// What a reader of the line is to get.
    fn text(&self) -> String {
        match self {
            Logged::Text(text) | Logged::Shown(Shown(text)) => (*text).to_owned(),
            Logged::Debugged(text) => format!("{text:?}"),
            Logged::Number(number) => number.to_string(),
            Logged::Signed(number) => number.to_string(),
            Logged::Truth(truth) => truth.to_string(),
        }
    }

    fn json(&self) -> Json {
        match self {
            Logged::Number(number) => Json::Number(number.to_string()),
            Logged::Signed(number) => Json::Number(number.to_string()),
            Logged::Truth(truth) => Json::Bool(*truth),
            other => Json::String(other.text()),
        }
    }
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&how, texts)) = data.split_first() else { return Corpus::Reject };
    // Text from outside was made UTF-8 before it can be logged.
    let texts = String::from_utf8_lossy(texts);
    let values: Vec<_> = texts.split('\x1e').zip(how..=u8::MAX).take(KEYS.len()).collect();
    let values = values.into_iter().map(|(text, kind)| Logged::new(kind, text));
    let pairs: Vec<_> = KEYS.into_iter().zip(values).collect();
    let level = LEVELS[usize::from(how) % LEVELS.len()];

    let logged: Vec<_> =
        pairs.iter().map(|(key, logged)| (Key::from(*key), logged.value())).collect();
    let slice = logged.as_slice();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let lines = |message: fmt::Arguments<'_>| {
        let mut record = Record::builder();
        let record = record.level(level).key_values(&slice).args(message).build();
        let text = line::text_line(&record, now).expect("a line");
        let json = line::json_line(&record, now).expect("a line");
        (one_line(&text).to_owned(), one_line(&json).to_owned())
    };

    let (text, json) = lines(format_args!("log lines suppressed"));
    ascii(&text);
    let rest =
        text.strip_prefix(&format!("{TIME} {level:<5} log lines suppressed")).expect("a start");
    let expected: Vec<_> = pairs.iter().map(|(key, value)| (*key, value.text())).collect();
    assert_eq!(read_pairs(rest), expected, "{text}");
    in_json(&json, level, "log lines suppressed", &pairs);

    // A library's message may hold text from outside.
    let (text, json) = lines(format_args!("{texts}"));
    ascii(&text);
    in_json(&json, level, &texts, &pairs);
    Corpus::Keep
});

/// Without the newline at its end, which is the only one.
fn one_line(line: &[u8]) -> &str {
    let line = str::from_utf8(line).expect("UTF-8");
    let line = line.strip_suffix('\n').expect("a newline");
    assert!(!line.contains(['\n', '\r']), "{line:?}");
    line
}

fn ascii(line: &str) {
    assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
}

fn in_json(line: &str, level: Level, message: &str, pairs: &[(&'static str, Logged<'_>)]) {
    let text = |text: &str| Json::String(text.to_owned());
    let own = [
        ("time", text(TIME)),
        ("level", text(&level.as_str().to_ascii_lowercase())),
        ("message", text(message)),
    ];
    let pairs = pairs.iter().map(|(key, logged)| (*key, logged.json()));
    let expected = own.into_iter().chain(pairs).map(|(key, value)| (key.to_owned(), value));
    assert_eq!(
        second_reader::read(line.as_bytes()),
        Some(Json::Object(expected.collect())),
        "{line}"
    );
    assert!(serde_json::from_str::<serde_json::Value>(line).is_ok());
}

/// Reads ` key=value key="value"` to its end.
fn read_pairs(mut rest: &str) -> Vec<(&str, String)> {
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix(' ').and_then(|r| r.split_once('=')).expect("a key");
        let value;
        (value, rest) = match after.strip_prefix('"') {
            Some(quoted) => unescape(quoted),
            None => {
                let end = after.find(' ').unwrap_or(after.len());
                assert!(end > 0 && !after[..end].contains(['"', '\\', '=']), "{after:?}");
                (after[..end].to_owned(), &after[end..])
            }
        };
        pairs.push((key, value));
    }
    pairs
}

/// What is escaped before the next quote, and what stands behind that.
fn unescape(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.chars();
    loop {
        match chars.next().expect("a quote") {
            '"' => return (value, chars.as_str()),
            '\\' => value.push(match chars.next().expect("an escape") {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                same @ ('"' | '\\') => same,
                'u' => {
                    let inside = chars.as_str().strip_prefix('{').expect("a brace");
                    let (digits, after) = inside.split_once('}').expect("a brace");
                    chars = after.chars();
                    let number = u32::from_str_radix(digits, 16).expect("a number");
                    char::from_u32(number).expect("a character")
                }
                other => panic!("{other:?}"),
            }),
            plain => value.push(plain),
        }
    }
}
