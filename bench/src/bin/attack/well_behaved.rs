//! The well-behaved clients, which measure.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use testing::client::{CLOSE, Connection, Response};
use testing::fake_api::JWKS;

use crate::is_interrupted;
use crate::target::RELEASED_WITHIN;

/// A request that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The gateway has recovered when a request takes less.
const RECOVERED: Duration = Duration::from_millis(50);

/// What one client measured, or both.
#[derive(Default)]
pub(crate) struct Measurement {
    pub(crate) latencies: Vec<Duration>,
    /// When an answer came.
    pub(crate) served: Vec<Instant>,
    pub(crate) longest_gap: Duration,
    pub(crate) failures: Vec<String>,
    pub(crate) reconnects: usize,
}

impl Measurement {
    pub(crate) fn both(new_each_time: Self, keep_alive: Self, end: Instant) -> Self {
        let gap = |client: &Self| {
            let gaps = client.served.windows(2).map(|two| two[1] - two[0]);
            let last = client.served.last().map(|last| end.saturating_duration_since(*last));
            gaps.chain(last).max().unwrap_or(Duration::MAX)
        };
        let longest_gap = gap(&new_each_time).max(gap(&keep_alive));
        let mut latencies = [new_each_time.latencies, keep_alive.latencies].concat();
        latencies.sort_unstable();
        let tell = |name, failures: Vec<String>| {
            failures.into_iter().map(move |why| format!("{name}: {why}")).collect::<Vec<_>>()
        };
        let failures = [
            tell("one request a connection", new_each_time.failures),
            tell("keep-alive", keep_alive.failures),
        ];
        Self {
            latencies,
            served: [new_each_time.served, keep_alive.served].concat(),
            longest_gap,
            failures: failures.concat(),
            reconnects: keep_alive.reconnects,
        }
    }

    /// The least latency that `percent` of the requests did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.latencies.len() * percent).div_ceil(100).saturating_sub(1);
        self.latencies.get(rank).copied().unwrap_or(Duration::MAX)
    }
}

/// Ten requests a second until `end`.
pub(crate) fn measure(
    target: SocketAddr,
    end: Instant,
    keep_alive: bool,
    expected: &[u8],
) -> Measurement {
    let mut seen = Measurement::default();
    let mut kept: Option<Connection> = None;
    let mut due = Instant::now();
    while due < end && !is_interrupted() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let begin = Instant::now();
        let deadline = begin + TIMEOUT;
        let mut outcome = None;
        if let Some(connection) = kept.take() {
            match ask(connection, deadline, true, expected) {
                // Closed between two requests, or by the time this one came: RFC 9112 §9.3.1.
                Err(Failure { unanswered: true, .. }) => seen.reconnects += 1,
                other => outcome = Some(other),
            }
        }
        let outcome = outcome.unwrap_or_else(|| {
            let connection = Connection::open(target, deadline).map_err(|error| Failure {
                what: format!("no connection: {error}"),
                unanswered: false,
            })?;
            ask(connection, deadline, keep_alive, expected)
        });
        seen.latencies.push(begin.elapsed());
        match outcome {
            Ok(connection) => {
                seen.served.push(Instant::now());
                kept = keep_alive.then_some(connection);
            }
            Err(failure) => seen.failures.push(failure.what),
        }
        // Requests that were due during a long wait are left out.
        due = (due + Duration::from_millis(100)).max(Instant::now());
    }
    seen
}

struct Failure {
    what: String,
    /// The connection ended before the first byte of an answer.
    unanswered: bool,
}

/// One request; the whole answer must be 200 and `expected`.
fn ask(
    mut connection: Connection,
    deadline: Instant,
    keep_alive: bool,
    expected: &[u8],
) -> Result<Connection, Failure> {
    let headers = if keep_alive { &[][..] } else { &[CLOSE] };
    let failed = |what: String| Err(Failure { what, unanswered: false });
    match connection.request("GET", JWKS, headers, deadline) {
        Ok(Response { status: 200, body, .. }) if body == expected => Ok(connection),
        Ok(Response { status: 200, .. }) => failed("a wrong document".to_owned()),
        Ok(response) => failed(format!("status {}", response.status)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            failed("no answer in time".to_owned())
        }
        Err(error) => {
            Err(Failure { what: error.to_string(), unanswered: connection.received() == 0 })
        }
    }
}

/// How long it takes from now until a request takes less than [`RECOVERED`].
pub(crate) fn recovery(target: SocketAddr, expected: &[u8]) -> Option<Duration> {
    let start = Instant::now();
    while start.elapsed() < RELEASED_WITHIN && !is_interrupted() {
        let begin = Instant::now();
        let deadline = begin + TIMEOUT;
        let connection = Connection::open(target, deadline);
        let served = connection.is_ok_and(|it| ask(it, deadline, false, expected).is_ok());
        if served && begin.elapsed() < RECOVERED {
            return Some(start.elapsed());
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}
