//! All attacks.

mod floods;
mod requests;
mod slow;

use std::time::Duration;

use testing::fake_api::JWKS;

use self::floods::{floods, too_many_connections};
use self::requests::{bodies, odd_requests};
use self::slow::{long_heads, slow_reading, slow_requests};
use crate::attack::{Attack, Behaviour, attack};

/// How long after a slow or idle connection was closed another one is opened. Connecting again at
/// once is an attack of its own: "connect and close".
pub(crate) const RECONNECT_AFTER: Duration = Duration::from_secs(1);

pub(crate) fn attacks() -> Vec<Attack> {
    let mut all = vec![attack("no attack", 0, Behaviour::default())];
    all.extend(slow_requests());
    all.extend(slow_reading());
    all.extend(long_heads());
    all.extend(floods());
    all.extend(too_many_connections());
    all.extend(bodies());
    all.extend(odd_requests());
    all
}

/// A request for the key set with these header lines.
fn get(fields: &str) -> Vec<u8> {
    format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

/// The same, as the last request of its connection.
fn last_get() -> Vec<u8> {
    get("Connection: close\r\n")
}

/// One request for each connection, whose answer is read: 2,000 a second at most with 8
/// connections. It is about what is sent; more would only fill the kernel's table of tracked
/// connections, and then well-behaved clients could not connect either.
fn one_request_each(first: Vec<Vec<u8>>) -> Behaviour {
    Behaviour { first, reconnect_after: Duration::from_millis(4), ..Behaviour::default() }
}

/// Pseudorandom bytes (xorshift), the same in every run.
fn pseudorandom(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}
