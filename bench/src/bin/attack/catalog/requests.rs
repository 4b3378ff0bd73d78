//! Unusual and invalid requests.

use testing::fake_api::JWKS;

use super::{get, one_request_each, pseudorandom};
use crate::attack::{Attack, Behaviour, attack};

/// Requests with a body, or that announce one.
pub(crate) fn bodies() -> Vec<Attack> {
    let huge = |length| get(&format!("Content-Length: {length}\r\n"));
    let post = |fields| format!("POST {JWKS} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes();
    let chunk = b"400\r\n".iter().copied().chain([b'x'; 0x400]).chain(*b"\r\n").collect();
    let chunked = Behaviour {
        first: vec![post("Transfer-Encoding: chunked")],
        repeated: chunk,
        ..Behaviour::default()
    };
    vec![
        attack("Content-Length 1e14", 8, one_request_each(vec![huge("100000000000000")])),
        attack("Content-Length 9e18", 8, one_request_each(vec![huge("9000000000000000000")])),
        attack("Content-Length 2^64", 8, one_request_each(vec![huge("18446744073709551616")])),
        attack("chunked without end", 8, chunked),
        attack(
            "Expect",
            8,
            one_request_each(vec![
                post("Content-Length: 4\r\nExpect: 100-continue"),
                get("Expect: 100-continue\r\n"),
                get("Expect: something\r\n"),
            ]),
        ),
    ]
}

/// Unusual targets and versions, other protocols, and bytes that are no request.
pub(crate) fn odd_requests() -> Vec<Attack> {
    let last = "Host: a\r\nConnection: close\r\n\r\n";
    let line = |line: &str| format!("{line}\r\n{last}").into_bytes();
    let target = |target: &str| line(&format!("GET {target} HTTP/1.1"));
    let path = |length| target(&format!("/{}", "a".repeat(length)));
    let upgrade = "Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\
                   HTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // A record that begins as a ClientHello does.
    let hello =
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &pseudorandom(500, 1)].concat();
    vec![
        attack("Upgrade", 8, one_request_each(vec![get(upgrade)])),
        attack(
            "garbage",
            8,
            one_request_each((1..=64).map(|seed| pseudorandom(400, seed)).collect()),
        ),
        attack("request smuggling", 8, one_request_each(smuggling())),
        attack(
            "absolute and asterisk targets",
            8,
            one_request_each(vec![
                target(&format!("http://a{JWKS}")),
                target("http://a"),
                target("*"),
                line("OPTIONS * HTTP/1.1"),
                line("CONNECT a:443 HTTP/1.1"),
            ]),
        ),
        attack(
            "very long paths",
            8,
            one_request_each(vec![path(8 << 10), path(16_000), path(100_000)]),
        ),
        attack(
            "HTTP/0.9",
            64,
            one_request_each(vec![b"GET /\r\n".to_vec(), b"GET /\r\n\r\n".to_vec()]),
        ),
        attack("HTTP/1.0", 8, one_request_each(vec![line(&format!("GET {JWKS} HTTP/1.0"))])),
        attack("HTTP/2 preface", 8, one_request_each(vec![preface])),
        attack("TLS hello", 8, one_request_each(vec![hello])),
    ]
}

/// Requests that two parsers could divide differently: RFC 9112 §11.2.
fn smuggling() -> Vec<Vec<u8>> {
    let inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let post =
        |rest: &str| format!("POST {JWKS} HTTP/1.1\r\nHost: a\r\n{rest}{inner}").into_bytes();
    vec![
        post("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        post("Content-Length: 0\r\nContent-Length: 35\r\n\r\n"),
        post("X: a\nContent-Length: 35\r\n\r\n"),
        post("X: a\rContent-Length: 35\r\n\r\n"),
        post("X: a\r\n Content-Length: 35\r\n\r\n"),
        post("Content-Length : 35\r\n\r\n"),
        post("X: \0\r\nContent-Length: 35\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\n-1\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"),
        post("Transfer-Encoding: chunked\r\n\r\n0;a=\n\r\n"),
        post("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        post("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ]
}
