//! The log on stderr: one line per event, with a message and then `key=value`.
//!
//! Libraries log only warnings and errors: at `trace` they would show requests, and with them the
//! token.
//!
//! Invariant: no filter hides why the program ends ([`fatal`]).

pub(crate) mod line;

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write as _};
use std::panic;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use env_logger::{Builder, Target};
use log::{Level, Record, info};

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

/// The most bytes of several lines in one write. Up to `PIPE_BUF` the lines of two threads do not mix
/// in a pipe: pipe(7).
const LONGEST_WRITE: usize = 4096;
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

thread_local! {
    /// The lines of this thread that are not written yet, while [`together`] runs.
    static HELD: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Whether a filter may name this crate: it is this program, or a library whose lines are shown.
pub(crate) fn is_shown(name: &str) -> bool {
    name == env!("CARGO_CRATE_NAME") || LIBRARIES.contains(&name)
}

/// A value that tells who a client is, if lines may have it: personal data.
pub(crate) fn client<T>(value: T) -> Option<T> {
    CLIENTS.load(Ordering::Relaxed).then_some(value)
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
        let line = line(format, record)?;
        HELD.with_borrow_mut(|held| match held {
            Some(lines) => hold(lines, line),
            // One write a line, so that those of two threads do not mix.
            None => out.write_all(&line),
        })
    });
    builder.init();
    // A panic is logged as a line too, because its text may come from outside.
    panic::set_hook(Box::new(|info| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        if admits(LineKind::Panic) {
            let panic = line::text(info);
            past_the_filter(format_args!("panic"), &[("panic", &*panic)]);
        }
    }));
}

/// Calls `log`, and writes the lines that it logs on this thread when it returns, in few writes.
pub(crate) fn together(log: impl FnOnce()) {
    /// Writes also what was logged before a panic, and the panic's own line.
    struct Written;
    impl Drop for Written {
        fn drop(&mut self) {
            // If stderr cannot be written, nobody can be told.
            let _ = io::stderr().write_all(&HELD.take().unwrap_or_default());
        }
    }
    HELD.set(Some(Vec::new()));
    let _written = Written;
    log();
}

fn hold(lines: &mut Vec<u8>, line: Vec<u8>) -> io::Result<()> {
    if lines.is_empty() {
        *lines = line;
    } else if lines.len() + line.len() <= LONGEST_WRITE {
        lines.extend_from_slice(&line);
    } else {
        return io::stderr().write_all(&std::mem::replace(lines, line));
    }
    Ok(())
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
        Format::Json => line::json_line(record, SystemTime::now()),
        Format::Text => line::text_line(record, SystemTime::now()),
    }
}

fn is_of(record: &Record<'_>, library: &str) -> bool {
    let rest = record.target().strip_prefix(library);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
