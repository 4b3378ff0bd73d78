//! The log on stderr: one line per event, with a message and then `key=value`.
//!
//! Bytes from outside are escaped here, for all callers, so that no client can forge a line or send
//! an escape sequence to a terminal. Libraries log only warnings and errors: at `trace` they would
//! show requests, and with them the token.
//!
//! Invariant: no filter hides why the program ends ([`fatal`]).

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use env_logger::{Builder, Target};
use log::kv::{Error, Key, Value, VisitSource, VisitValue};
use log::{Level, Record, info};
use serde_json::{Map, json};

/// How lines are written, and how many.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) format: Format,
    /// The most lines per second of each kind that clients can cause.
    pub(crate) lines_per_second: u64,
    /// Whether lines say which client they are about.
    pub(crate) clients: bool,
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

/// The most characters of a value from outside, in those lines that cut it.
const LONGEST: usize = 200;
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
/// Since the start.
static PANICS: AtomicU64 = AtomicU64::new(0);
/// `LOG_LINES_PER_SECOND`.
static MOST: AtomicU64 = AtomicU64::new(u64::MAX);
/// `LOG_CLIENTS`.
static CLIENTS: AtomicBool = AtomicBool::new(true);
/// `LOG_FORMAT`.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Whether a filter may name this crate: it is this program, or a library whose lines are shown.
pub(crate) fn is_shown(name: &str) -> bool {
    name == env!("CARGO_CRATE_NAME") || LIBRARIES.contains(&name)
}

/// The first 200 characters of a value from outside: some may be long.
pub(crate) fn cut(value: &str) -> String {
    value.chars().take(LONGEST).collect()
}

/// A value from outside as printable ASCII, everything else escaped as in a Rust string; the first 200
/// characters of that.
pub(crate) fn printable(value: &str) -> String {
    cut(&Text { text: &cut(value), in_quotes: false }.to_string())
}

/// A line for a terminal, as printable ASCII: everything else is escaped as in a Rust string.
pub(crate) fn printable_line(line: &str) -> String {
    Text { text: line, in_quotes: false }.to_string()
}

/// A value that tells who a client is, if lines may have it: personal data.
pub(crate) fn client<T>(value: T) -> Option<T> {
    CLIENTS.load(Ordering::Relaxed).then_some(value)
}

/// A duration for a key that ends in `_ms`: milliseconds, with three decimals at most. JSON has the
/// number; text has `duration=0.062ms` for `duration_ms`, and else two or three digits.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

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
            info!(kind = limit.kind, count; "log lines suppressed");
        }
    }
}

/// Starts logging; called once, before any other thread is started.
pub(crate) fn start(settings: &Settings) {
    MOST.store(settings.lines_per_second, Ordering::Relaxed);
    CLIENTS.store(settings.clients, Ordering::Relaxed);
    let format = *FORMAT.get_or_init(|| settings.format);
    let mut builder = Builder::new();
    builder.parse_filters(&settings.filter).target(Target::Stderr);
    builder.format(move |out, record| {
        let is_detail = record.level() > Level::Warn;
        if is_of(record, MUTED_CRATE)
            || is_detail && LIBRARIES.iter().any(|name| is_of(record, name))
        {
            return Ok(());
        }
        // One write a line, so that those of two threads do not mix.
        out.write_all(&line(format, record)?)
    });
    builder.init();
    // A panic is logged as a line too, because its text may come from outside.
    panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        if admits(LineKind::Panic) {
            let panic = text(info);
            past_the_filter(format_args!("panic"), &[("panic", &*panic)]);
        }
    }));
}

/// How many panics there have been, logged or not.
pub(crate) fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Logs an error that ends the program, whatever `RUST_LOG` says.
pub(crate) fn fatal(message: fmt::Arguments<'_>) {
    past_the_filter(message, &[]);
}

fn past_the_filter(message: fmt::Arguments<'_>, pairs: &[(&str, &str)]) {
    let format = FORMAT.get().copied().unwrap_or_default();
    let mut record = Record::builder();
    let record = record.level(Level::Error).args(message).key_values(&pairs).build();
    // If stderr cannot be written, nobody can be told.
    let _ = line(format, &record).and_then(|line| io::stderr().write_all(&line));
}

fn line(format: Format, record: &Record<'_>) -> io::Result<Vec<u8>> {
    match format {
        Format::Json => json_line(record, SystemTime::now()),
        Format::Text => text_line(record, SystemTime::now()),
    }
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
        if is_none(&value)? {
            return Ok(());
        }
        let name = key.as_str().strip_suffix("_ms");
        let duration = name.and_then(|name| Some((name, value.to_f64()?)));
        if let Some((key, milliseconds)) = duration {
            return Ok(write_duration(self.line, key, milliseconds)?);
        }
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

/// As `duration=1.234ms`, which kube-oidc-gateway has too; others as `446ms`, `4.5s` or `93s`.
fn write_duration(line: &mut Vec<u8>, key: &str, milliseconds: f64) -> io::Result<()> {
    let seconds = milliseconds / 1000.0;
    match key {
        "duration" => write!(line, " {key}={milliseconds:.3}ms"),
        _ if milliseconds < 999.5 => write!(line, " {key}={milliseconds:.0}ms"),
        _ if seconds < 9.95 => write!(line, " {key}={seconds:.1}s"),
        _ => write!(line, " {key}={seconds:.0}s"),
    }
}

/// Text as printable ASCII, with everything else escaped as in a Rust string; in quotes, a quote is
/// escaped too.
struct Text<'a> {
    text: &'a str,
    in_quotes: bool,
}

impl fmt::Display for Text<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
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
    Ok((ascii_json(&serde_json::to_string(&object)?) + "\n").into_bytes())
}

/// The same JSON with everything escaped that is not ASCII: there are characters that control a terminal, or
/// turn the text around. `serde_json` escapes only those before the space.
pub(crate) fn ascii_json(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len().max(256));
    for character in json.chars() {
        if character.is_ascii() && character != '\u{7f}' {
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
fn text(value: impl fmt::Display) -> String {
    let mut text = String::new();
    // What was written before is kept.
    let _ = write!(text, "{value}");
    text
}

struct JsonPairs<'a>(&'a mut Map<String, serde_json::Value>);

impl<'kvs> VisitSource<'kvs> for JsonPairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        if is_none(&value)? {
            return Ok(());
        }
        let value = match (value.to_u64(), value.to_bool(), value.to_f64()) {
            (Some(number), _, _) => json!(number),
            (None, Some(truth), _) => json!(truth),
            (None, None, Some(number)) => json!(number),
            (None, None, None) => json!(text(value)),
        };
        self.0.insert(key.to_string(), value);
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
