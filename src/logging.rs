//! The log on stderr: one line per event, with a message and then `key=value`.
//!
//! Bytes from outside are escaped here, for all callers, so that no client can forge a line or send
//! an escape sequence to a terminal. Libraries log only warnings and errors: at `trace` they would
//! show requests, and with them the token.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use env_logger::{Builder, Target};
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, Record, error, warn};
use serde_json::{Map, json};

/// How lines are written, and how many.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) format: Format,
    /// The most lines per second of each kind that clients can cause.
    pub(crate) lines_per_second: u64,
    /// Directives of `env_logger`, known to be valid.
    pub(crate) filter: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Crates that log only warnings and errors, whatever `RUST_LOG` says.
const LIBRARIES: [&str; 3] = ["ureq", "ureq_proto", "rustls"];
/// The crate whose lines are all dropped: its only line above `debug` is an error of its accept
/// loop, which the front causes at each start.
const MUTED_CRATE: &str = "tiny_http";

/// The kinds of lines that a client can cause. Each has a limit of its own, so that a flood of one
/// neither fills a disk nor hides the lines of another.
#[derive(Clone, Copy)]
pub(crate) enum LineKind {
    /// A request whose answer is a success.
    Request,
    /// A request whose answer is an error.
    Failure,
    /// A request that the front refused.
    Refused,
    Evicted,
    /// A connection that the front closed without an answer, or in the middle of one.
    Closed,
    /// No descriptor or no memory for a connection.
    Shortage,
    /// A bug in this program or a library, which a client may have found.
    Panic,
}

/// How many lines of one kind were asked for in the current second, and how many were suppressed.
struct RateLimit {
    kind: &'static str,
    second: AtomicU64,
    count: AtomicU64,
    suppressed: AtomicU64,
}

impl RateLimit {
    const fn new(kind: &'static str) -> Self {
        Self {
            kind,
            second: AtomicU64::new(0),
            count: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }
}

static REQUEST: RateLimit = RateLimit::new("request");
static FAILURE: RateLimit = RateLimit::new("failed request");
static REFUSED: RateLimit = RateLimit::new("refused");
static EVICTED: RateLimit = RateLimit::new("evicted");
static CLOSED: RateLimit = RateLimit::new("closed");
static SHORTAGE: RateLimit = RateLimit::new("shortage");
static PANIC: RateLimit = RateLimit::new("panic");
static LIMITS: [&RateLimit; 7] =
    [&REQUEST, &FAILURE, &REFUSED, &EVICTED, &CLOSED, &SHORTAGE, &PANIC];
/// `LOG_LINES_PER_SECOND`.
static MOST: AtomicU64 = AtomicU64::new(u64::MAX);

/// Whether one more line of this kind may be written in this second. If not, it is counted.
pub(crate) fn admits(kind: LineKind) -> bool {
    let limit = match kind {
        LineKind::Request => &REQUEST,
        LineKind::Failure => &FAILURE,
        LineKind::Refused => &REFUSED,
        LineKind::Evicted => &EVICTED,
        LineKind::Closed => &CLOSED,
        LineKind::Shortage => &SHORTAGE,
        LineKind::Panic => &PANIC,
    };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // At the turn of a second, two threads may admit a few lines more or less.
    if limit.second.swap(now.as_secs(), Ordering::Relaxed) != now.as_secs() {
        limit.count.store(0, Ordering::Relaxed);
    }
    let admitted = limit.count.fetch_add(1, Ordering::Relaxed) < MOST.load(Ordering::Relaxed);
    if !admitted {
        limit.suppressed.fetch_add(1, Ordering::Relaxed);
    }
    admitted
}

/// Logs how many lines of each kind were suppressed since the last call.
pub(crate) fn log_suppressed() {
    for limit in LIMITS {
        let count = limit.suppressed.swap(0, Ordering::Relaxed);
        if count > 0 {
            warn!(kind = limit.kind, count; "log lines suppressed");
        }
    }
}

/// Starts logging; called once, before any other thread is started.
pub(crate) fn start(settings: &Settings) {
    MOST.store(settings.lines_per_second, Ordering::Relaxed);
    let mut builder = Builder::new();
    builder.parse_filters(&settings.filter).target(Target::Stderr);
    let write = match settings.format {
        Format::Json => json_line,
        Format::Text => text_line,
    };
    builder.format(move |out, record| {
        let is_detail = record.level() > Level::Warn;
        if is_of(record, MUTED_CRATE)
            || is_detail && LIBRARIES.iter().any(|name| is_of(record, name))
        {
            return Ok(());
        }
        // One write a line, so that those of two threads do not mix.
        out.write_all(&write(record, SystemTime::now())?)
    });
    builder.init();
    // A panic is logged as a line too, because its text may come from outside.
    panic::set_hook(Box::new(|info| {
        if admits(LineKind::Panic) {
            error!(panic:% = info; "panic");
        }
    }));
}

fn is_of(record: &Record<'_>, library: &str) -> bool {
    record.target().split("::").next() == Some(library)
}

pub(crate) fn text_line(record: &Record<'_>, now: SystemTime) -> io::Result<Vec<u8>> {
    let mut line = Vec::with_capacity(256);
    let time = humantime::format_rfc3339_millis(now);
    let mut text = String::with_capacity(64);
    // Writing to a string cannot fail.
    let _ = write!(text, "{}", record.args());
    write!(line, "{time} {:<5} {}", record.level(), Text { text: &text, in_quotes: false })?;
    let mut pairs = TextPairs { line: &mut line, value: text };
    record.key_values().visit(&mut pairs).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

struct TextPairs<'a> {
    line: &'a mut Vec<u8>,
    /// The text of the current value, which decides how it is written.
    value: String,
}

impl<'kvs> VisitSource<'kvs> for TextPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.value.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.value, "{value}");
        let text = self.value.as_str();
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\=".contains(&byte));
        if plain && !text.is_empty() {
            write!(self.line, " {key}={text}")?;
        } else {
            write!(self.line, " {key}=\"{}\"", Text { text, in_quotes: true })?;
        }
        Ok(())
    }
}

/// Text as printable ASCII, with everything else escaped as in a Rust string; in quotes, a quote is
/// escaped too.
struct Text<'a> {
    text: &'a str,
    in_quotes: bool,
}

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for character in self.text.chars() {
            match character {
                '\'' => out.write_str("'")?,
                '"' if !self.in_quotes => out.write_str("\"")?,
                other => write!(out, "{}", other.escape_default())?,
            }
        }
        Ok(())
    }
}

pub(crate) fn json_line(record: &Record<'_>, now: SystemTime) -> io::Result<Vec<u8>> {
    let mut object = Map::new();
    object.insert("time".into(), json!(humantime::format_rfc3339_millis(now).to_string()));
    object.insert("level".into(), json!(record.level().as_str().to_ascii_lowercase()));
    object.insert("message".into(), json!(text(record.args())));
    record.key_values().visit(&mut JsonPairs(&mut object)).map_err(io::Error::other)?;
    let mut line = String::with_capacity(256);
    for character in serde_json::to_string(&object)?.chars() {
        // Outside ASCII there are characters that control a terminal, or turn the text around.
        // serde_json escapes only those before the space.
        if character.is_ascii() && character != '\u{7f}' {
            line.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(line, "\\u{unit:04x}");
            }
        }
    }
    line.push('\n');
    Ok(line.into_bytes())
}

/// As `to_string`, which panics where the `Display` of a value gives up.
fn text(value: impl std::fmt::Display) -> String {
    let mut text = String::new();
    // What was written before is kept.
    let _ = write!(text, "{value}");
    text
}

struct JsonPairs<'a>(&'a mut Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = match (value.to_u64(), value.to_bool()) {
            (Some(number), _) => json!(number),
            (None, Some(truth)) => json!(truth),
            (None, None) => json!(text(value)),
        };
        self.0.insert(key.to_string(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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
}
