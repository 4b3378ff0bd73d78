//! Clients that send without end, and more clients than there is room for.

use std::time::Duration;

use testing::fake_api::JWKS;

use super::{AGAIN, get};
use crate::attack::{Attack, Ending, Reading, Tactic, attack};

/// Clients that send or knock without end.
pub(crate) fn floods() -> Vec<Attack> {
    let endless = |opening: Vec<u8>, more: Vec<u8>| Tactic {
        openings: vec![opening],
        more,
        ..Tactic::default()
    };
    let once =
        |opening: Vec<u8>, ending| Tactic { openings: vec![opening], ending, ..Tactic::default() };
    let begun = format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\nX: ");
    let pipeline = get("").repeat(100);
    let unread = Tactic { reading: Reading::Never, ..endless(get(""), pipeline.clone()) };
    vec![
        attack("endless header line", 4, endless(begun.clone().into(), vec![b'x'; 65536])),
        // All that the kernel takes for those who wait to be accepted is the gateway's memory. They
        // come again as fast as both cores go.
        Attack {
            crowd: true,
            ..attack(
                "the same, 1,000 of them",
                1000,
                endless(begun.clone().into(), vec![b'x'; 65536]),
            )
        },
        attack("endless header lines", 4, endless(begun.into(), b"x\r\nX: ".repeat(10_000))),
        attack("pipelining, reading", 4, endless(get(""), pipeline)),
        Attack { large: true, ..attack("pipelining, not reading", 16, unread) },
        attack("reset without a request", 16, once(Vec::new(), Ending::Reset)),
        attack("reset after a request", 16, once(get(""), Ending::Reset)),
        Attack { crowd: true, ..attack("connect and close", 32, once(Vec::new(), Ending::Close)) },
    ]
}

/// More clients than there is room for.
pub(crate) fn crowds() -> Vec<Attack> {
    let silent =
        |opening: Vec<u8>| Tactic { openings: vec![opening], again: AGAIN, ..Tactic::default() };
    let crowd = |name, connections, opening: Vec<u8>| Attack {
        crowd: true,
        ..attack(name, connections, silent(opening))
    };
    // As `reading` in `slow`, but nobody is ever silent.
    let busy = Tactic {
        openings: vec![get("")],
        more: get(""),
        pace: Duration::from_millis(100),
        again: AGAIN,
        ..Tactic::default()
    };
    vec![
        Attack { crowd: true, ..attack("nobody is silent", 5000, busy) },
        // Each comes again as soon as it was evicted; those without a place are as many as the kernel
        // queues.
        Attack {
            crowd: true,
            ..attack(
                "new ones, all places taken",
                4000,
                Tactic { openings: vec![get("")], ..Tactic::default() },
            )
        },
        Attack {
            crowd: true,
            held: true,
            most: Some(12_000),
            ..attack("10,000 idle (of 12,000)", 10_000, silent(get("")))
        },
        Attack { held: true, ..crowd("idle after a request", 6000, get("")) },
        Attack { held: true, ..crowd("silent from the start", 6000, Vec::new()) },
        Attack { descriptors: 256, ..crowd("descriptors exhausted", 1000, get("")) },
        Attack { pids: Some(100), ..crowd("100 pids", 1000, get("")) },
    ]
}
