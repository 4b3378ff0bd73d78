//! Clients that are slow, and those whose heads are long.

use std::time::Duration;

use testing::fake_api::JWKS;

use super::{AGAIN, get, last_get};
use crate::attack::{Attack, Reading, Tactic, attack};

/// Clients that take long.
pub(crate) fn slow() -> Vec<Attack> {
    let drip = |opening: Vec<u8>, more: &str, pace| Tactic {
        openings: vec![opening],
        more: more.into(),
        pace: Duration::from_millis(pace),
        again: AGAIN,
        ..Tactic::default()
    };
    let begun = |length| format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(length));
    let reading = |reading, pace| Tactic {
        openings: vec![get("")],
        more: get(""),
        pace: Duration::from_millis(pace),
        reading,
        again: AGAIN,
        ..Tactic::default()
    };
    let body = format!("POST {JWKS} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    vec![
        Attack { held: true, ..attack("slow headers", 1000, drip(begun(0).into(), "x", 500)) },
        Attack {
            held: true,
            ..attack("slow headers, 14 KiB each", 1000, drip(begun(14 << 10).into(), "x", 500))
        },
        Attack {
            large: true,
            held: true,
            ..attack("never reading", 400, reading(Reading::Never, 100))
        },
        // More than there are places, who hold all that a connection can be made to hold: it is
        // about memory.
        Attack {
            crowd: true,
            large: true,
            held: true,
            ..attack(
                "never reading, junk behind",
                5000,
                Tactic {
                    openings: vec![[get(""), last_get()].concat()],
                    more: vec![b'x'; 65536],
                    ..reading(Reading::Never, 100)
                },
            )
        },
        Attack {
            crowd: true,
            held: true,
            ..attack("slow headers, 4 KiB, 5,000", 5000, drip(begun(4000).into(), "x", 500))
        },
        Attack {
            crowd: true,
            large: true,
            held: true,
            most: Some(5000),
            ..attack("4,000 never read (of 5,000)", 4000, reading(Reading::Never, 100))
        },
        Attack {
            crowd: true,
            held: true,
            most: Some(12_000),
            ..attack("10,000 drip (of 12,000)", 10_000, drip(begun(0).into(), "x", 500))
        },
        Attack {
            large: true,
            ..attack("reading a byte at a time", 100, reading(Reading::AByteAtATime, 10))
        },
        attack(
            "slow body",
            300,
            Tactic { again: Duration::from_millis(100), ..drip(body.into(), "x", 10) },
        ),
    ]
}

/// Clients whose heads are long, and more of them than there is room for.
pub(crate) fn long_heads() -> Vec<Attack> {
    let unprintable = "\u{e9}".repeat(128);
    let escaped = format!("Accept: {unprintable}\r\nUser-Agent: {unprintable}\r\n");
    let tags = format!("If-None-Match: \"{}\"\r\n", "x".repeat(1900));
    vec![
        // What is left behind a long head is short; all 3,000 at once may not have long ones.
        Attack {
            crowd: true,
            ..attack(
                "long heads, a byte behind each",
                3000,
                Tactic {
                    openings: vec![
                        [get(&format!("X: {}\r\n", "x".repeat(16_000))), b"G".to_vec()].concat(),
                    ],
                    again: AGAIN,
                    ..Tactic::default()
                },
            )
        },
        // Long heads, all at once, again and again: it is about memory.
        Attack {
            crowd: true,
            ..attack(
                "long heads in a pipeline",
                3000,
                Tactic {
                    openings: vec![get(&escaped).repeat(3)],
                    more: get(&tags),
                    pace: Duration::from_millis(800),
                    again: AGAIN,
                    ..Tactic::default()
                },
            )
        },
    ]
}
