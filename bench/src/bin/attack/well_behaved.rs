//! The polite clients.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use testing::client::{CLOSE, Connection, Response};
use testing::fake_api::JWKS;

use crate::is_over;
use crate::target::BACK_WITHIN;

/// A polite request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(3);
/// A polite request of this time says that the attack is over for the polite.
const RECOVERED: Duration = Duration::from_millis(50);

/// What one polite client saw, or both together.
#[derive(Default)]
pub(crate) struct Polite {
    pub(crate) took: Vec<Duration>,
    /// When an answer came.
    pub(crate) served: Vec<Instant>,
    pub(crate) longest_gap: Duration,
    pub(crate) failures: Vec<String>,
    pub(crate) reconnects: usize,
}

impl Polite {
    pub(crate) fn both(alone: Self, kept: Self, end: Instant) -> Self {
        let gap = |client: &Self| {
            let gaps = client.served.windows(2).map(|two| two[1] - two[0]);
            let last = client.served.last().map(|last| end.saturating_duration_since(*last));
            gaps.chain(last).max().unwrap_or(Duration::MAX)
        };
        let longest_gap = gap(&alone).max(gap(&kept));
        let mut took = [alone.took, kept.took].concat();
        took.sort_unstable();
        let tell = |name, failures: Vec<String>| {
            failures.into_iter().map(move |why| format!("{name}: {why}")).collect::<Vec<_>>()
        };
        let failures =
            [tell("one request a connection", alone.failures), tell("kept alive", kept.failures)];
        Self {
            took,
            served: [alone.served, kept.served].concat(),
            longest_gap,
            failures: failures.concat(),
            reconnects: kept.reconnects,
        }
    }

    /// The least time that `percent` of the requests did not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.took.len() * percent).div_ceil(100).saturating_sub(1);
        self.took.get(rank).copied().unwrap_or(Duration::MAX)
    }
}

/// Ten requests a second until `end`.
pub(crate) fn polite(target: SocketAddr, end: Instant, keeps: bool, expected: &[u8]) -> Polite {
    let mut seen = Polite::default();
    let mut kept: Option<Connection> = None;
    let mut due = Instant::now();
    while due < end && !is_over() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let begin = Instant::now();
        let deadline = begin + PATIENCE;
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
            ask(connection, deadline, keeps, expected)
        });
        seen.took.push(begin.elapsed());
        match outcome {
            Ok(connection) => {
                seen.served.push(Instant::now());
                kept = keeps.then_some(connection);
            }
            Err(failure) => seen.failures.push(failure.what),
        }
        // After a long wait it does not catch up: it is one polite client.
        due = (due + Duration::from_millis(100)).max(Instant::now());
    }
    seen
}

struct Failure {
    what: String,
    /// The connection ended, and not a byte had come.
    unanswered: bool,
}

/// One request; the whole answer must be 200 and `expected`.
fn ask(
    mut connection: Connection,
    deadline: Instant,
    keep: bool,
    expected: &[u8],
) -> Result<Connection, Failure> {
    let headers = if keep { &[][..] } else { &[CLOSE] };
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

/// The time from now until a polite request was quick.
pub(crate) fn recovery(target: SocketAddr, expected: &[u8]) -> Option<Duration> {
    let attacked = Instant::now();
    while attacked.elapsed() < BACK_WITHIN && !is_over() {
        let begin = Instant::now();
        let deadline = begin + PATIENCE;
        let connection = Connection::open(target, deadline);
        let served = connection.is_ok_and(|it| ask(it, deadline, false, expected).is_ok());
        if served && begin.elapsed() < RECOVERED {
            return Some(attacked.elapsed());
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}
