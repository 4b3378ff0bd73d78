//! Slow clients, and long request heads.

use std::time::Duration;

use testing::fake_api::JWKS;

use super::{RECONNECT_AFTER, get, last_get};
use crate::attack::{Attack, Behaviour, Reading, attack};

/// Clients that send slowly.
pub(crate) fn slow_requests() -> Vec<Attack> {
    let slowly = |first: Vec<u8>, interval| Behaviour {
        first: vec![first],
        repeated: b"x".to_vec(),
        interval: Duration::from_millis(interval),
        reconnect_after: RECONNECT_AFTER,
        ..Behaviour::default()
    };
    let partial = |length| {
        let head = format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(length));
        slowly(head.into(), 500)
    };
    let body = format!("POST {JWKS} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    vec![
        Attack { left_open: true, ..attack("slow headers", 1000, partial(0)) },
        Attack { left_open: true, ..attack("slow headers, 14 KiB each", 1000, partial(14 << 10)) },
        Attack {
            exceeds_limits: true,
            left_open: true,
            ..attack("slow headers, 4 KiB, 5,000", 5000, partial(4000))
        },
        Attack {
            exceeds_limits: true,
            left_open: true,
            max_connections: Some(12_000),
            ..attack("10,000 slow (of 12,000)", 10_000, partial(0))
        },
        attack(
            "slow body",
            300,
            Behaviour { reconnect_after: Duration::from_millis(100), ..slowly(body.into(), 10) },
        ),
    ]
}

/// Clients that read their answers slowly, or not at all.
pub(crate) fn slow_reading() -> Vec<Attack> {
    let reading = |reading, interval| Behaviour {
        first: vec![get("")],
        repeated: get(""),
        interval: Duration::from_millis(interval),
        reading,
        reconnect_after: RECONNECT_AFTER,
        ..Behaviour::default()
    };
    let never = || reading(Reading::Never, 100);
    vec![
        Attack { large_key_set: true, left_open: true, ..attack("never reading", 400, never()) },
        // More than `MAX_CONNECTIONS`, each with as many unread bytes as a connection may have: it is
        // about memory.
        Attack {
            exceeds_limits: true,
            large_key_set: true,
            left_open: true,
            ..attack(
                "never reading, then garbage",
                5000,
                Behaviour {
                    first: vec![[get(""), last_get()].concat()],
                    repeated: vec![b'x'; 65536],
                    ..never()
                },
            )
        },
        Attack {
            exceeds_limits: true,
            large_key_set: true,
            left_open: true,
            max_connections: Some(5000),
            ..attack("4,000 never read (of 5,000)", 4000, never())
        },
        Attack {
            large_key_set: true,
            ..attack("reading a byte at a time", 100, reading(Reading::OneByteAtATime, 10))
        },
    ]
}

/// More connections than `MAX_CONNECTIONS`, with long heads.
pub(crate) fn long_heads() -> Vec<Attack> {
    let unprintable = "\u{e9}".repeat(128);
    let escaped = format!("Accept: {unprintable}\r\nUser-Agent: {unprintable}\r\n");
    let tags = format!("If-None-Match: \"{}\"\r\n", "x".repeat(1900));
    vec![
        // A partial head follows a long one: the memory of the long one must be freed.
        Attack {
            exceeds_limits: true,
            ..attack(
                "long heads, then one byte",
                3000,
                Behaviour {
                    first: vec![
                        [get(&format!("X: {}\r\n", "x".repeat(16_000))), b"G".to_vec()].concat(),
                    ],
                    reconnect_after: RECONNECT_AFTER,
                    ..Behaviour::default()
                },
            )
        },
        // Long heads on all connections at once, repeatedly: it is about memory.
        Attack {
            exceeds_limits: true,
            ..attack(
                "long heads in a pipeline",
                3000,
                Behaviour {
                    first: vec![get(&escaped).repeat(3)],
                    repeated: get(&tags),
                    interval: Duration::from_millis(800),
                    reconnect_after: RECONNECT_AFTER,
                    ..Behaviour::default()
                },
            )
        },
    ]
}
