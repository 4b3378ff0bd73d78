//! Which attacks there are.

mod floods;
mod requests;
mod slow;

use std::time::Duration;

use testing::fake_api::JWKS;

use self::floods::{crowds, floods};
use self::requests::{bodies, odd_requests};
use self::slow::{long_heads, slow};
use crate::attack::{Attack, Tactic, attack};

/// How long a slow or idle client waits before it comes again, when it was shut out. Who comes
/// again at once is another attack: "connect and close".
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

pub(crate) fn attacks() -> Vec<Attack> {
    let mut all = vec![attack("no attack", 0, Tactic::default())];
    all.extend(slow());
    all.extend(long_heads());
    all.extend(floods());
    all.extend(crowds());
    all.extend(bodies());
    all.extend(odd_requests());
    all
}

/// A request for the key set with these header lines.
fn get(fields: &str) -> Vec<u8> {
    format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

fn last_get() -> Vec<u8> {
    get("Connection: close\r\n")
}

/// Asks, reads the answer to the end of the connection, and asks the next: 2,000 times a second at
/// most with 8 connections. It is about what is asked; more would only fill the kernel's table of
/// connections, which then drops those of the polite as well.
fn asking(openings: Vec<Vec<u8>>) -> Tactic {
    Tactic { openings, again: Duration::from_millis(4), ..Tactic::default() }
}

/// Bytes of no meaning, the same in every run (xorshift).
fn noise(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..length).map(|_| next()).collect()
}
