//! If-None-Match: 200 or 304, and nothing in the answer that does not belong there.
//!
//! Four bytes say when and how is asked; the rest is the values of the fields, one a line, in
//! which `@` stands for what is in the quotes of the document's own tag.

#![no_main]

#[path = "../../src/documents/mod.rs"]
#[allow(dead_code)]
mod documents;
#[path = "../../src/http/mod.rs"]
#[allow(dead_code)]
mod http;
#[path = "../../src/json.rs"]
#[allow(dead_code)]
mod json;
#[path = "../../src/reason.rs"]
#[allow(dead_code)]
mod reason;
#[path = "../../src/url.rs"]
#[allow(dead_code)]
mod url;

use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::{Corpus, fuzz_target};

use crate::documents::Kind;
use crate::http::answer::{self, Answer, Freshness};
use crate::http::representation::Representation;
use crate::http::{Connection, Request};

const BODY: &[u8] = br#"{"keys":[{"kty":"EC"}]}"#;
/// The SHA-256 of it, in hexadecimal digits, by `sha256sum`.
const TAG: &str = "c97fa62a172c374bbc804157e9187fd26206d828e3b38d820251ecfcd7395df4";
/// One hour.
const TTL: Duration = Duration::from_secs(3600);

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&[how, hours, minutes, day], fields)) = data.split_first_chunk() else {
        return Corpus::Reject;
    };
    let Ok(fields) = str::from_utf8(fields) else { return Corpus::Reject };
    let fields = fields.replace('@', TAG);
    let asked = Request {
        method: if how & 1 == 0 { "HEAD" } else { "GET" },
        path: "/openid/v1/jwks",
        if_none_match: fields.lines().collect(),
        connection: [None, Some(Connection::Close), Some(Connection::KeepAlive)]
            [usize::from(how >> 1) % 3],
    };
    let age = Duration::from_secs(u64::from(hours) * 1800 + u64::from(minutes));
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::from(day) * 86_400 * 365);
    let fresh = Freshness { age, client_cache_ttl: TTL, shared_cache_ttl: None, now };

    static DOCUMENT: OnceLock<Representation> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| Representation::new(Kind::Jwks, BODY.to_vec()));
    let answer = answer::document(document, &asked, &fresh);
    let held = asked.if_none_match.iter().any(|value| holds(value));
    assert_eq!(answer.status, if held { 304 } else { 200 }, "{:?}", asked.if_none_match);
    whole(&answer, &asked, &fresh);
    Corpus::Keep
});

/// Whether the client has the document, by the quotes alone: what stands in every second piece
/// between them is a tag, as long as only commas, blanks and one `W/` have stood before it.
fn holds(value: &str) -> bool {
    if value.trim_matches([' ', '\t']) == "*" {
        return true;
    }
    let pieces: Vec<_> = value.split('"').collect();
    // A tag that no quote ends is none.
    let tags = (pieces.len() - 1) / 2;
    for pair in pieces.chunks_exact(2).take(tags) {
        let before = pair[0].strip_suffix("W/").unwrap_or(pair[0]);
        if !before.chars().all(|c| [' ', '\t', ','].contains(&c)) {
            return false;
        }
        if pair[1] == TAG {
            return true;
        }
    }
    false
}

/// RFC 9110 §15.4.5: a 304 says what the 200 would, without the document.
fn whole(answer: &Answer, asked: &Request<'_>, fresh: &Freshness) {
    let (head, body) = (&answer.bytes.head, answer.bytes.body());
    let end = head.windows(4).position(|four| four == b"\r\n\r\n").expect("an end") + 4;
    assert_eq!(end, head.len());
    let with_body = answer.status == 200 && asked.method == "GET";
    assert_eq!(body, if with_body { BODY } else { b"" });
    assert_eq!(answer.bytes.length(), head.len() + body.len());

    let head = str::from_utf8(&head[..end - 4]).expect("text");
    let lines: Vec<_> = head.split("\r\n").collect();
    let printable = |line: &&str| line.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    assert!(lines.iter().all(printable));
    let named = |name: &str| {
        let mut named = lines[1..].iter().filter_map(|line| line.split_once(": "));
        let value = named.find(|field| field.0 == name).map(|field| field.1);
        assert!(named.all(|field| field.0 != name), "{name} twice");
        value
    };
    let is_200 = answer.status == 200;
    assert_eq!(lines[0], if is_200 { "HTTP/1.1 200 OK" } else { "HTTP/1.1 304 Not Modified" });
    assert_eq!(named("ETag"), Some(format!("\"{TAG}\"").as_str()));
    assert_eq!(named("Connection"), asked.connection.map(Connection::value));
    assert_eq!(named("Content-Length"), is_200.then(|| BODY.len().to_string()).as_deref());
    assert_eq!(named("Content-Type").is_some(), is_200);
    let max_age = TTL.checked_sub(fresh.age).unwrap_or_default().as_secs();
    let cache_control = format!("public, max-age={max_age}");
    assert_eq!(named("Cache-Control"), Some(cache_control.as_str()));
    let time = |name: &str| httpdate::parse_http_date(named(name).expect(name)).expect("a date");
    assert_eq!(time("Date"), fresh.now);
    assert_eq!(time("Expires"), fresh.now + Duration::from_secs(max_age));
    let of_200 = if is_200 { 2 } else { 0 };
    assert_eq!(lines.len(), 7 + of_200 + usize::from(asked.connection.is_some()));
}
