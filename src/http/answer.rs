//! Pure: answers as bytes, head and body.
//!
//! For a document, only the lines that depend on the time are made for each answer: `Date`,
//! `Cache-Control` and `Expires`. Of upstream's answer, only the checked document is used: no
//! header, status or text.

use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::reason::Reason;

use super::representation::{Representation, constant_headers};
use super::routes::METHODS;
use super::{Connection, Request};

/// The initial capacity for the head of an answer, in bytes: every head fits.
const HEAD_LENGTH: usize = 512;

/// A complete answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) bytes: Bytes,
}

/// The bytes of an answer.
pub(crate) struct Bytes {
    /// Including the empty line.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Option<Arc<[u8]>>,
}

impl Bytes {
    pub(crate) fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    /// Of head and body, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.head.len() + self.body().len()
    }
}

/// What `Cache-Control` and `Expires` depend on.
pub(crate) struct Freshness {
    /// Since upstream last confirmed the copy.
    pub(crate) age: Duration,
    /// `CLIENT_CACHE_TTL_SECONDS`, or upstream's `max-age` if that is shorter.
    pub(crate) client_cache_ttl: Duration,
    /// `SHARED_CACHE_TTL_SECONDS`, for a document that has one.
    pub(crate) shared_cache_ttl: Option<Duration>,
    pub(crate) now: SystemTime,
}

/// A document, or 304 when the client has it: RFC 9110 §13.1.2.
///
/// `max-age` is `CLIENT_CACHE_TTL_SECONDS` less the copy's age, so that no client keeps a copy for
/// longer than that after upstream confirmed it: RFC 9111 §4.2. There is no `Age` field, because a
/// cache would subtract it again.
///
/// `s-maxage`, which caches shared by several clients use instead (RFC 9111 §5.2.2.10), is not less
/// for an old copy: with 0 no cache would keep it, and in a long outage of upstream every client
/// would come through. kube-apiserver as a relying party also goes by it.
pub(crate) fn document(
    document: &Representation,
    request: &Request<'_>,
    fresh: &Freshness,
) -> Answer {
    let max_age = fresh.client_cache_ttl.as_secs().saturating_sub(fresh.age.as_secs());
    let expires = fresh.now.checked_add(Duration::from_secs(max_age)).unwrap_or(fresh.now);
    let is_unchanged = matches(&request.if_none_match, &document.etag);
    let mut bytes = Vec::with_capacity(HEAD_LENGTH);
    if is_unchanged {
        write_head(&mut bytes, 304, fresh.now, request);
        bytes.extend_from_slice(constant_headers(&document.etag).as_bytes());
    } else {
        write_head(&mut bytes, 200, fresh.now, request);
        bytes.extend_from_slice(document.headers.as_bytes());
    }
    match fresh.shared_cache_ttl.map(|ttl| ttl.as_secs()) {
        None => write_line(&mut bytes, format_args!("Cache-Control: public, max-age={max_age}")),
        Some(shared) => write_line(
            &mut bytes,
            format_args!("Cache-Control: public, max-age={max_age}, s-maxage={shared}"),
        ),
    }
    // Behind Cache-Control: nginx 1.22 stores nothing if an Expires in the past comes first.
    write_line(&mut bytes, format_args!("Expires: {}\r\n", httpdate::HttpDate::from(expires)));
    let has_body = !is_unchanged && request.method != "HEAD";
    let body = has_body.then(|| Arc::clone(&document.body));
    Answer { status: if is_unchanged { 304 } else { 200 }, bytes: Bytes { head: bytes, body } }
}

/// Whether one of the entity tags in `if_none_match` is `etag`, by weak comparison: RFC 9110
/// §13.1.2 and §8.8.3.2. A list is read up to its first syntax error.
fn matches(if_none_match: &[&str], etag: &str) -> bool {
    if_none_match.iter().any(|value| {
        let mut rest = value.trim_matches([' ', '\t']);
        if rest == "*" {
            return true;
        }
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            let opaque = rest.strip_prefix("W/").unwrap_or(rest);
            let Some((inside, after)) = opaque.strip_prefix('"').and_then(|o| o.split_once('"'))
            else {
                return false;
            };
            if etag.strip_prefix('"').and_then(|e| e.strip_suffix('"')) == Some(inside) {
                return true;
            }
            rest = after;
        }
    })
}

/// A short text, for a failure.
pub(crate) fn text(request: &Request<'_>, now: SystemTime, status: u16, text: &str) -> Answer {
    with_text(request, now, status, text, None)
}

/// 200: a page of the admin listener, which no other site's scripts may read. OPTIONS gets `Allow`, and no body.
pub(crate) fn page(
    request: &Request<'_>,
    now: SystemTime,
    content_type: &str,
    text: &str,
) -> Answer {
    if request.method != "OPTIONS" {
        return with_body(request, now, 200, content_type, text, []);
    }
    with_body(request, now, 200, content_type, "", [&*format!("Allow: {METHODS}")])
}

/// 502: no copy of the document can be served. `retry_after` is rounded up to seconds, at least 1.
pub(crate) fn unavailable(
    request: &Request<'_>,
    now: SystemTime,
    why: Reason,
    retry_after: Duration,
) -> Answer {
    let seconds = retry_after.as_millis().div_ceil(1000).max(1);
    let header = format!("Retry-After: {seconds}");
    with_text(request, now, 502, &format!("unavailable: {}\n", why.word()), Some(&header))
}

/// 405, with the methods that are allowed: RFC 9110 §15.5.6.
pub(crate) fn method_not_allowed(request: &Request<'_>, now: SystemTime) -> Answer {
    with_text(request, now, 405, "method not allowed\n", Some(&format!("Allow: {METHODS}")))
}

/// The outcome of a probe. OPTIONS gets the status of GET with `Allow`, and no body: RFC 9110 §9.3.7.
pub(crate) fn probe(request: &Request<'_>, now: SystemTime, status: u16, text: &str) -> Answer {
    if request.method != "OPTIONS" {
        return with_text(request, now, status, text, None);
    }
    with_text(request, now, status, "", Some(&format!("Allow: {METHODS}")))
}

fn with_text(
    request: &Request<'_>,
    now: SystemTime,
    status: u16,
    text: &str,
    header: Option<&str>,
) -> Answer {
    let headers = ["Access-Control-Allow-Origin: *"].into_iter().chain(header);
    with_body(request, now, status, "text/plain; charset=utf-8", text, headers)
}

fn with_body<'a>(
    request: &Request<'_>,
    now: SystemTime,
    status: u16,
    content_type: &str,
    text: &str,
    headers: impl IntoIterator<Item = &'a str>,
) -> Answer {
    let mut bytes = Vec::with_capacity(HEAD_LENGTH);
    write_head(&mut bytes, status, now, request);
    write_line(&mut bytes, format_args!("Content-Type: {content_type}"));
    write_line(&mut bytes, format_args!("Content-Length: {}", text.len()));
    write_line(&mut bytes, format_args!("Cache-Control: no-store"));
    write_line(&mut bytes, format_args!("X-Content-Type-Options: nosniff"));
    for header in headers {
        write_line(&mut bytes, format_args!("{header}"));
    }
    bytes.extend_from_slice(b"\r\n");
    let body = (request.method != "HEAD").then(|| text.as_bytes().into());
    Answer { status, bytes: Bytes { head: bytes, body } }
}

/// The front's answer to a head that it refuses, which is the last one on its connection.
pub(crate) fn refusal(method: &str, status: u16, now: SystemTime) -> Bytes {
    let request = Request {
        method,
        path: "",
        if_none_match: Vec::new(),
        connection: Some(Connection::Close),
    };
    text(&request, now, status, &format!("{}\n", reason_phrase(status).to_ascii_lowercase())).bytes
}

/// 204, the answer to a CORS preflight (Fetch standard, "CORS-preflight request"), valid for a day.
pub(crate) fn preflight(request: &Request<'_>, now: SystemTime) -> Answer {
    let mut bytes = Vec::with_capacity(HEAD_LENGTH);
    write_head(&mut bytes, 204, now, request);
    write_line(&mut bytes, format_args!("Allow: {METHODS}"));
    write_line(&mut bytes, format_args!("Access-Control-Allow-Origin: *"));
    write_line(&mut bytes, format_args!("Access-Control-Allow-Methods: {METHODS}"));
    write_line(&mut bytes, format_args!("Access-Control-Allow-Headers: *"));
    write_line(&mut bytes, format_args!("Access-Control-Max-Age: 86400"));
    write_line(&mut bytes, format_args!("Cache-Control: no-store\r\n"));
    Answer { status: 204, bytes: Bytes { head: bytes, body: None } }
}

/// Status line, `Date` (RFC 9110 §6.6.1) and, where the request needs one, `Connection`.
fn write_head(bytes: &mut Vec<u8>, status: u16, now: SystemTime, request: &Request<'_>) {
    write_line(bytes, format_args!("HTTP/1.1 {status} {}", reason_phrase(status)));
    write_line(bytes, format_args!("Date: {}", httpdate::HttpDate::from(now)));
    if let Some(connection) = request.connection {
        write_line(bytes, format_args!("Connection: {}", connection.value()));
    }
}

fn write_line(bytes: &mut Vec<u8>, line: std::fmt::Arguments<'_>) {
    // Writing to a vector cannot fail.
    let _ = bytes.write_fmt(line);
    bytes.extend_from_slice(b"\r\n");
}

const fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
