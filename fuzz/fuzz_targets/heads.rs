//! Request heads: what the front accepts and what it hands on.
//!
//! The first byte says into how large pieces the rest is cut, the rest is what a client sends.

#![no_main]

#[path = "../../src/documents/mod.rs"]
#[allow(dead_code)]
mod documents;
#[path = "../../src/front/head/mod.rs"]
#[allow(dead_code)]
mod head;
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

use std::str::FromStr as _;

use libfuzzer_sys::{Corpus, fuzz_target};

use crate::head::{MAX_HEAD, MAX_LINES, Refusal};

/// As the front names a connection: its number and the peer's address.
const CLIENT: &str = "12345678 192.0.2.7:49152";
/// The most bytes of a path, and of all entity tags, that are handed on.
const MOST: usize = 2048;
/// The most bytes of a field for the log that are handed on, before they are escaped.
const LOGGED: usize = 256;

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((&size, sent)) = data.split_first() else { return Corpus::Reject };
    let begin = head::empty_lines(sent);
    assert!(begin <= sent.len() && begin % 2 == 0);
    let (empty, sent) = sent.split_at(begin);
    assert!(empty.chunks(2).all(|line| line == b"\r\n") && !sent.starts_with(b"\r\n"));

    let whole = head::length(sent, 0);
    pieces(sent, usize::from(size).max(1), whole);
    let Ok(Some(length)) = whole else { return Corpus::Keep };
    let (sent, follows) = sent.split_at(length);
    framed(sent);
    if let Ok(good) = head::check(sent) {
        body(sent, head::body_length(&good, follows), follows);
        let mut out = Vec::new();
        good.rewrite(CLIENT, &mut out);
        handed_on(sent, &out);
    }
    Corpus::Keep
});

/// A head that comes in pieces is found as one that comes in one piece.
fn pieces(sent: &[u8], size: usize, whole: Result<Option<usize>, Refusal>) {
    let mut outcome = Ok(None);
    let mut searched = 0;
    while searched < sent.len() {
        let received = &sent[..sent.len().min(searched + size)];
        outcome = head::length(received, searched);
        if outcome != Ok(None) {
            break;
        }
        searched = received.len();
    }
    match (outcome, whole) {
        // Bad and too long at once: which is found first is by the pieces.
        (Err(_), Err(_)) if sent.len() >= MAX_HEAD => {}
        _ => assert_eq!(outcome, whole),
    }
}

/// A head is followed by nothing of its own, or by an empty body in chunks.
fn body(head: &[u8], length: Result<Option<usize>, Refusal>, follows: &[u8]) {
    const EMPTY: &[u8] = b"0\r\n\r\n";
    let is_chunked = fields(&lines(head)).any(|field| field.0 == "transfer-encoding");
    match length {
        Ok(Some(0)) => assert!(!is_chunked),
        Ok(Some(length)) => assert!(is_chunked && follows[..length] == *EMPTY),
        Ok(None) => assert!(is_chunked && EMPTY.starts_with(follows) && follows != EMPTY),
        Err(_) => assert!(is_chunked && !EMPTY.starts_with(follows) && !follows.starts_with(EMPTY)),
    }
}

/// What [`head::length`] let through: within the limits, and lines end in one way only.
fn framed(head: &[u8]) {
    assert!(head.len() <= MAX_HEAD && head.ends_with(b"\r\n\r\n"));
    assert_eq!(head.windows(4).filter(|four| four == b"\r\n\r\n").count(), 1);
    for (at, byte) in head.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(head[at + 1], b'\n'),
            b'\n' => assert_eq!(head[at - 1], b'\r'),
            b'\t' | 0x20..=0x7e | 0x80.. => {}
            _ => panic!("byte {byte:#x} at {at}"),
        }
    }
}

/// What `tiny_http` is to see says what the client said, and can be read in one way only.
fn handed_on(sent: &[u8], out: &[u8]) {
    small(sent, out);
    let (sent, lines) = (lines(sent), lines(out));
    let words: Vec<_> = lines[0].split(' ').collect();
    let [method, path, version] = words[..] else { panic!("{:?}", lines[0]) };
    let said: Vec<_> = sent[0].split(' ').collect();
    assert_eq!([method, path, version], [said[0], path_of(said[1]), "HTTP/1.1"]);
    assert!(path.len() <= MOST);

    // RFC 9112 §3.2 and §6: one Host, and no body or one whose end is known.
    let count = |name: &str| fields(&sent).filter(|field| field.0 == name).count();
    assert!(count("host") == 1 || (said[2] == "HTTP/1.0" && count("host") == 0));
    let is_chunked = |(name, value): (String, &str)| {
        name != "transfer-encoding"
            || value.eq_ignore_ascii_case("chunked") && ["GET", "HEAD"].contains(&method)
    };
    assert!(fields(&sent).all(is_chunked));
    assert!(count("transfer-encoding") + count("content-length") <= 1);
    let length = fields(&sent).find(|field| field.0 == "content-length");
    assert!(
        length.is_none_or(|(_, digits)| digits.trim_matches('0').is_empty() && !digits.is_empty())
    );
    assert!(count("expect") == 0 || said[2] == "HTTP/1.0");

    // The connection's name stands once and first, whatever a client sends by its name.
    let mut expected = vec![(head::CLIENT.to_ascii_lowercase(), CLIENT.to_owned())];
    let (close, keep_alive) = (has_option(&sent, "close"), has_option(&sent, "keep-alive"));
    let old = said[2] == "HTTP/1.0";
    let name = head::ANSWER_CONNECTION.to_ascii_lowercase();
    if close || (old && !keep_alive) {
        expected.push((name, "close".to_owned()));
    } else if old {
        expected.push((name, "keep-alive".to_owned()));
    }
    let mut left = MOST;
    expected.extend(fields(&sent).filter_map(|(name, tags)| {
        let taken = name == "if-none-match" && tags.is_ascii() && tags.len() <= left;
        left -= if taken { tags.len() } else { 0 };
        taken.then(|| (name, tags.to_owned()))
    }));
    let named = |name: &'static str| fields(&sent).filter(move |field| field.0 == name);
    let last_hop = named("x-forwarded-for").last();
    let last_hop = last_hop.map(|(name, hops)| (name, hops.rsplit(',').next().unwrap()));
    let logged = [named("user-agent").next(), last_hop];
    expected.extend(logged.into_iter().flatten().filter_map(|(name, value)| {
        let value = value.trim_matches(|c: char| c.is_ascii_whitespace());
        (!value.is_empty()).then(|| (name, escaped(value)))
    }));
    let out = fields(&lines).map(|(name, value)| (name, value.to_owned()));
    assert_eq!(out.collect::<Vec<_>>(), expected.iter().map(trimmed).collect::<Vec<_>>());

    // `tiny_http` has nothing to refuse.
    assert!(tiny_http::Method::from_str(method).is_ok());
    for line in &lines[1..] {
        assert!(tiny_http::Header::from_str(line).is_ok(), "{line:?}");
    }
    again(&lines.join("\r\n"));
    in_each_form(method, path);
    routed(method, path);
}

/// As `fields` reads it back: a cut may leave blanks at the end of a value.
fn trimmed((name, value): &(String, String)) -> (String, String) {
    (name.clone(), value.trim_matches([' ', '\t']).to_owned())
}

/// Cut, and in printable ASCII; a character is a byte here.
fn escaped(value: &str) -> String {
    let escaped = |c: char| match c {
        ' '..='~' => c.to_string(),
        _ => format!("\\x{:02x}", u32::from(c)),
    };
    value.chars().take(LOGGED).map(escaped).collect()
}

/// Printable lines without an empty one, and no longer than what came but for the front's own and
/// what is escaped.
fn small(sent: &[u8], out: &[u8]) {
    let text = out.strip_suffix(b"\r\n\r\n").expect("an end");
    let mut lines: Vec<_> = text.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().expect("a line");
    let ended = lines.iter().map(|line| line.strip_suffix(b"\r").expect("a line's end"));
    for line in ended.chain([last]) {
        assert!(!line.is_empty());
        assert!(line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')), "{line:?}");
    }
    // A field may get the one space after its colon, and an absolute target without path a slash.
    let own = "C: \r\nAnswer-Connection: keep-alive\r\n".len() + CLIENT.len();
    let escapes = 2 * 3 * LOGGED;
    assert!(out.len() <= sent.len() + own + MAX_LINES + escapes);
    let logged = escapes + 2 * LOGGED + "User-Agent: \r\nX-Forwarded-For: \r\n".len();
    assert!(out.len() <= 2 * MOST + 192 + logged + MAX_LINES * "If-None-Match: \r\n".len());
}

/// Accepted once more, what was handed on stays as it is, but for what the second cut takes away.
fn again(out: &str) {
    let (first, rest) = out.split_once("\r\n").expect("two lines");
    // The gateway reads no Host: it is not handed on.
    let with_host = format!("{first}\r\nHost: a\r\n{rest}\r\n\r\n");
    let with_host = with_host.as_bytes();
    assert_eq!(head::length(with_host, 0), Ok(Some(with_host.len())));
    let mut twice = Vec::new();
    match head::check(with_host) {
        Ok(good) => good.rewrite(CLIENT, &mut twice),
        // With the lines that the front adds, one at the limit is over it.
        Err(refusal) => return assert_eq!(refusal.status, 431),
    }
    let own = |lines: Vec<String>| -> Vec<String> {
        let cut = |line: &String| -> String {
            let is_logged = ["User-Agent: ", "X-Forwarded-For: "];
            let name = is_logged.into_iter().find(|name| line.starts_with(name));
            let length = name.map_or(line.len(), |name| line.len().min(name.len() + LOGGED));
            line[..length].trim_end().to_owned()
        };
        lines.iter().filter(|line| !line.starts_with("Answer-Connection: ")).map(cut).collect()
    };
    assert_eq!(own(lines(&twice)), own(lines(format!("{out}\r\n\r\n").as_bytes())));
}

/// Without query; of an absolute target, what stands behind its authority.
fn path_of(target: &str) -> &str {
    let target = target.split('?').next().unwrap_or_default();
    match target.split("://").nth(1) {
        Some(_) if !target.starts_with('/') => {
            let slashes: Vec<_> = target.match_indices('/').map(|slash| slash.0).collect();
            slashes.get(2).map_or("/", |third| &target[*third..])
        }
        _ => target,
    }
}

/// RFC 9112 §3.2.2: a path is the same whether it comes alone or in an absolute target.
fn in_each_form(method: &str, path: &str) {
    if !path.starts_with('/') {
        return;
    }
    for target in [format!("{path}?a=/b"), format!("HTTP://a.example:80{path}?://c/d")] {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut out = Vec::new();
        head::check(head.as_bytes()).expect("a good head").rewrite(CLIENT, &mut out);
        assert_eq!(lines(&out)[0], format!("{method} {path} HTTP/1.1"));
    }
}

/// Only exact paths lead to a document.
fn routed(method: &str, path: &str) {
    let paths =
        http::routes::Paths { issuer: Some("/c".to_owned()), jwks: Some("/keys".to_owned()) };
    let _ = http::routes::admin(method, path);
    let route = http::routes::public(method, path, &paths);
    let known = ["/.well-known/openid-configuration", "/openid/v1/jwks"];
    let is_known = path == "/keys" || known.contains(&path.strip_prefix("/c").unwrap_or(path));
    let is_got = matches!(route, http::routes::Route::Get(http::routes::Resource::Document(_)));
    assert_eq!(is_got, is_known && ["GET", "HEAD"].contains(&method), "{method} {path}");
}

fn lines(head: &[u8]) -> Vec<String> {
    let text = head.strip_suffix(b"\r\n\r\n").expect("an end");
    let lines = text.split(|byte| *byte == b'\n');
    // One character a byte: what is not ASCII stays visible as such.
    lines
        .map(|line| line.iter().filter(|b| **b != b'\r').copied().map(char::from).collect())
        .collect()
}

/// Names in lower case, and values.
fn fields(lines: &[String]) -> impl Iterator<Item = (String, &str)> {
    lines[1..].iter().map(|line| {
        let (name, value) = line.split_once(':').expect("a colon");
        (name.to_ascii_lowercase(), value.trim_matches([' ', '\t']))
    })
}

fn has_option(lines: &[String], option: &str) -> bool {
    let mut options = fields(lines).filter(|field| field.0 == "connection");
    options.any(|(_, value)| {
        let mut named = value.split(',').map(|named| named.trim_matches([' ', '\t']));
        named.any(|named| named.eq_ignore_ascii_case(option))
    })
}
