//! Clients that send without end, and more connections than the limits allow.

use std::time::Duration;

use testing::fake_api::JWKS;

use super::{RECONNECT_AFTER, get};
use crate::attack::{Attack, Behaviour, Ending, Reading, attack};

/// Clients that send or connect without end.
pub(crate) fn floods() -> Vec<Attack> {
    let endless = |first: Vec<u8>, repeated: Vec<u8>| Behaviour {
        first: vec![first],
        repeated,
        ..Behaviour::default()
    };
    let once =
        |first: Vec<u8>, ending| Behaviour { first: vec![first], ending, ..Behaviour::default() };
    let partial = format!("GET {JWKS} HTTP/1.1\r\nHost: a\r\nX: ");
    let pipeline = get("").repeat(100);
    let unread = Behaviour { reading: Reading::Never, ..endless(get(""), pipeline.clone()) };
    vec![
        attack("endless header line", 4, endless(partial.clone().into(), vec![b'x'; 65536])),
        // What the kernel buffers for connections that wait to be accepted counts as the gateway's
        // memory. Closed ones are replaced as fast as the CPU allows.
        Attack {
            exceeds_limits: true,
            ..attack(
                "endless header line, 1,000",
                1000,
                endless(partial.clone().into(), vec![b'x'; 65536]),
            )
        },
        attack("endless header lines", 4, endless(partial.into(), b"x\r\nX: ".repeat(10_000))),
        attack("pipelining, reading", 4, endless(get(""), pipeline)),
        Attack { large_key_set: true, ..attack("pipelining, not reading", 16, unread) },
        attack("reset without a request", 16, once(Vec::new(), Ending::Reset)),
        attack("reset after a request", 16, once(get(""), Ending::Reset)),
        Attack {
            exceeds_limits: true,
            ..attack("connect and close", 32, once(Vec::new(), Ending::Close))
        },
    ]
}

/// More connections than `MAX_CONNECTIONS`, descriptors or threads allow.
pub(crate) fn too_many_connections() -> Vec<Attack> {
    let idle = |first: Vec<u8>| Behaviour {
        first: vec![first],
        reconnect_after: RECONNECT_AFTER,
        ..Behaviour::default()
    };
    let too_many = |name, connections, first: Vec<u8>| Attack {
        exceeds_limits: true,
        ..attack(name, connections, idle(first))
    };
    // A request every 100 ms, whose answer is read: no connection is idle for long.
    let busy = Behaviour {
        first: vec![get("")],
        repeated: get(""),
        interval: Duration::from_millis(100),
        reconnect_after: RECONNECT_AFTER,
        ..Behaviour::default()
    };
    vec![
        Attack { exceeds_limits: true, ..attack("no connection is idle", 5000, busy) },
        // An evicted connection is replaced at once; those above the limit are as many as the backlog
        // holds.
        Attack {
            exceeds_limits: true,
            ..attack(
                "reconnect when evicted",
                4000,
                Behaviour { first: vec![get("")], ..Behaviour::default() },
            )
        },
        Attack {
            exceeds_limits: true,
            left_open: true,
            max_connections: Some(12_000),
            ..attack("10,000 idle (of 12,000)", 10_000, idle(get("")))
        },
        Attack { left_open: true, ..too_many("idle after a request", 6000, get("")) },
        Attack { left_open: true, ..too_many("idle without a request", 6000, Vec::new()) },
        Attack { descriptors: 256, ..too_many("descriptors exhausted", 1000, get("")) },
        Attack { max_pids: Some(100), ..too_many("100 pids", 1000, get("")) },
    ]
}
