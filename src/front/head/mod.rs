//! Pure: which request heads are accepted, and what `tiny_http` sees of them.
//!
//! Stricter than RFC 9112 requires wherever two parsers could see different requests in one head
//! (§11.2, request smuggling): a bare CR or LF, a folded line, a space before a colon, two lengths.
//! No request may have a body, except for an empty one in chunks, which some proxies send with each
//! GET. `tiny_http` sees a rewritten head: method, path, version and a few fields, so that it parses
//! little and refuses nothing.

mod syntax;

use std::borrow::Cow;

use memchr::memchr;
use syntax::{ascii, is_host, is_text, is_token, lines};

/// The longest head, in bytes; nginx accepts 8 KiB a line, Go 1 MiB in total.
pub(crate) const MAX_HEAD: usize = 16 << 10;
/// The most header lines.
pub(crate) const MAX_LINES: usize = 64;
/// The longest method, in bytes; the longest registered one has 17 letters.
const MAX_METHOD: usize = 32;
/// The longest path, in bytes: room for a long issuer path. A query does not count.
const MAX_PATH: usize = 2 << 10;
/// The most bytes of `If-None-Match` that are forwarded: 30 of our tags. Without the rest the
/// answer may be a 200 instead of a 304, which is always correct.
const MAX_TAGS: usize = 2 << 10;
/// The most bytes that are forwarded of each other field: more than a browser's `User-Agent` has.
const MAX_LOGGED: usize = 256;
/// The field that names the connection for the worker: its number, a space, the peer's address. A
/// client's field of this name is dropped, like all that are not forwarded. It is short because
/// `tiny_http` reads byte by byte, at some 100 instructions each.
pub(crate) const CLIENT: &str = "C";
/// The field with the value of the answer's `Connection`; absent when the answer has none.
pub(crate) const ANSWER_CONNECTION: &str = "Answer-Connection";

/// Why a head is refused, and with which status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// For the log.
    pub(crate) because: &'static str,
}

const fn refusal(status: u16, because: &'static str) -> Refusal {
    Refusal { status, because }
}

/// The client took too long: RFC 9110 §15.5.9.
pub(crate) const TOO_SLOW: Refusal = refusal(408, "the head was not complete in time");
/// RFC 6585 §5.
pub(crate) const TOO_LONG: Refusal = refusal(431, "the head is longer than 16 KiB");
/// Its length would be accepted if other connections held fewer bytes.
pub(crate) const TOO_MUCH: Refusal = refusal(431, "a long head while other clients hold too much");
/// RFC 9112 §2.2 allows one.
pub(crate) const EMPTY_LINES: Refusal = refusal(400, "too many empty lines before a request");
const TOO_MANY_LINES: Refusal = refusal(431, "the head has more than 64 header lines");
const TLS: Refusal = refusal(
    400,
    "it is TLS, which this port does not have: let the proxy in front use http towards it",
);
const PROXY_PROTOCOL: Refusal = refusal(
    400,
    "it is the PROXY protocol, which this port does not have: turn it off in the load balancer",
);
const BAD_BYTE: Refusal = refusal(400, "a control byte, or a bare CR or LF");
const BAD_REQUEST_LINE: Refusal = refusal(400, "the request line is not method, target, version");
/// RFC 9110 §15.5.15.
const LONG_PATH: Refusal = refusal(414, "the path is longer than 2 KiB");
const BAD_VERSION: Refusal = refusal(505, "the version is neither HTTP/1.1 nor HTTP/1.0");
const BAD_FIELD: Refusal = refusal(400, "a header line is not name, colon, value");
const BAD_HOST: Refusal = refusal(400, "not exactly one valid Host");
const BAD_LENGTH: Refusal = refusal(400, "the length of the body is invalid, or given twice");
const BODY: Refusal = refusal(413, "the request has a body");
const EXPECTATION: Refusal = refusal(417, "the request has an Expect field");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    /// HTTP/1.0.
    Old,
    /// HTTP/1.1, or a later minor version, which is understood as that: RFC 9110 §2.5.
    Current,
}

/// The parts of a valid head that are forwarded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    method: &'a str,
    /// The path alone: a query is ignored, and so are scheme and host of an absolute target.
    path: &'a str,
    version: Version,
    /// The options of `Connection`: RFC 9112 §9.3.
    close: bool,
    keep_alive: bool,
    if_none_match: Vec<&'a str>,
    /// The first of its name.
    user_agent: Option<&'a [u8]>,
    /// The last entry of the last field: the only one that the peer of this connection, a proxy,
    /// has added itself. It may have copied the others from its client.
    forwarded_for: Option<&'a [u8]>,
    body: Body,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    /// [`EMPTY_CHUNKS`].
    EmptyChunks,
}

/// A body of no bytes, without extension and trailer: RFC 9112 §7.1.
const EMPTY_CHUNKS: &[u8] = b"0\r\n\r\n";

/// The fields of a head that decide whether it is accepted.
#[derive(Default)]
struct Framing<'a> {
    hosts: u32,
    /// The values of `Content-Length`.
    lengths: Vec<&'a [u8]>,
    /// The values of `Transfer-Encoding`.
    transfer_encodings: Vec<&'a [u8]>,
    expects: u32,
}

/// The number of bytes of empty lines before the request: RFC 9112 §2.2.
pub(crate) fn empty_lines(received: &[u8]) -> usize {
    received.as_chunks::<2>().0.iter().take_while(|pair| *pair == b"\r\n").count().saturating_mul(2)
}

/// The length of the first head in `received`, including the empty line; `None` while it is not
/// complete.
///
/// The first `searched` bytes are known from an earlier call to contain none. An error as soon as a
/// byte is not allowed or the head is too long; [`check`] finds all other mistakes.
pub(crate) fn length(received: &[u8], searched: usize) -> Result<Option<usize>, Refusal> {
    // The last byte that was searched may be the CR of a line end.
    let mut at = searched.saturating_sub(1);
    for line in lines(received.get(at..).unwrap_or_default()) {
        at += line.len() + 1;
        let through = received.get(..at);
        let has_line_end = through.is_none_or(|through| through.ends_with(b"\r\n"));
        if !has_line_end || !is_text(line.strip_suffix(b"\r").unwrap_or(line)) {
            return Err(BAD_BYTE);
        }
        if through.is_some_and(|through| through.ends_with(b"\r\n\r\n")) {
            return if at > MAX_HEAD { Err(TOO_LONG) } else { Ok(Some(at)) };
        }
    }
    if received.len() >= MAX_HEAD { Err(TOO_LONG) } else { Ok(None) }
}

/// Checks a complete head, of the length that [`length`] found.
pub(crate) fn check(head: &[u8]) -> Result<Head<'_>, Refusal> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or(BAD_REQUEST_LINE)?;
    let mut lines = lines(text).map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut head = request_line(lines.next().unwrap_or_default())?;
    let mut framing = Framing::default();
    for (number, line) in lines.enumerate() {
        if number >= MAX_LINES {
            return Err(TOO_MANY_LINES);
        }
        let (name, value) = field(line)?;
        framing.note(name, value)?;
        head.note(name, value);
    }
    head.body = framing.check(&head)?;
    Ok(head)
}

/// Whether what follows a head is the body that it announces: its length, or `None` while it may still
/// become that. An error as soon as it is another one.
pub(crate) fn body_length(head: &Head<'_>, follows: &[u8]) -> Result<Option<usize>, Refusal> {
    match head.body {
        Body::None => Ok(Some(0)),
        Body::EmptyChunks if follows.starts_with(EMPTY_CHUNKS) => Ok(Some(EMPTY_CHUNKS.len())),
        Body::EmptyChunks if EMPTY_CHUNKS.starts_with(follows) => Ok(None),
        Body::EmptyChunks => Err(BODY),
    }
}

/// Why bytes are refused that are another protocol than HTTP; the first ones tell which.
pub(crate) fn other_protocol(received: &[u8]) -> Option<Refusal> {
    match received {
        // RFC 8446 §5.1: a handshake record.
        [0x16, 0x03, ..] => Some(TLS),
        // The PROXY protocol, versions 1 and 2; of the second one the empty lines may be gone.
        text if [&b"PROXY TCP4 "[..], b"PROXY TCP6 ", b"PROXY UNKNOWN"]
            .iter()
            .any(|it| text.starts_with(it)) =>
        {
            Some(PROXY_PROTOCOL)
        }
        [b'\r', b'\n', b'\r', b'\n', b'\0', b'\r', b'\n', ..] | [b'\0', b'\r', b'\n', b'Q', ..] => {
            Some(PROXY_PROTOCOL)
        }
        _ => None,
    }
}

/// RFC 9112 §3: method, target and version, with one space between.
fn request_line(line: &[u8]) -> Result<Head<'_>, Refusal> {
    let line = ascii(line).ok_or(BAD_REQUEST_LINE)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD_REQUEST_LINE);
    };
    let version = match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some([b'1', b'.', b'0']) => Version::Old,
        Some([b'1', b'.', b'1'..=b'9']) => Version::Current,
        Some([b'0'..=b'9', b'.', b'0'..=b'9'] | [b'0'..=b'9']) => return Err(BAD_VERSION),
        _ => return Err(BAD_REQUEST_LINE),
    };
    if method.len() > MAX_METHOD || !is_token(method.as_bytes()) {
        return Err(BAD_REQUEST_LINE);
    }
    let path = path(method, target).ok_or(BAD_REQUEST_LINE)?;
    if path.len() > MAX_PATH {
        return Err(LONG_PATH);
    }
    Ok(Head {
        method,
        path,
        version,
        close: false,
        keep_alive: false,
        if_none_match: Vec::new(),
        user_agent: None,
        forwarded_for: None,
        body: Body::None,
    })
}

/// The path of a target, or the target itself where it has none: RFC 9112 §3.2 on origin,
/// absolute, authority (CONNECT only) and asterisk (OPTIONS only) form.
fn path<'a>(method: &str, target: &'a str) -> Option<&'a str> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return None;
    }
    let before_query = target.split('?').next().unwrap_or_default();
    if target.starts_with('/') {
        return Some(before_query);
    }
    if let Some((scheme, rest)) = before_query.split_once("://") {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_http = ["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http));
        // RFC 9110 §4.2.1: not without a host.
        let has_host = !authority.is_empty() && !authority.starts_with(':');
        let is_valid = is_http && has_host && is_host(authority.as_bytes());
        return is_valid.then_some(if path.is_empty() { "/" } else { path });
    }
    let is_valid = match method {
        "OPTIONS" => target == "*",
        "CONNECT" => !target.is_empty() && is_host(target.as_bytes()),
        _ => false,
    };
    is_valid.then_some(target)
}

/// RFC 9112 §5: name and value, with no space before the colon (§5.1) and no folded line (§5.2).
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let colon = memchr(b':', line).ok_or(BAD_FIELD)?;
    let (name, value) = line.split_at_checked(colon).ok_or(BAD_FIELD)?;
    if !is_token(name) {
        return Err(BAD_FIELD);
    }
    Ok((name, value.get(1..).unwrap_or_default().trim_ascii()))
}

impl<'a> Framing<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Refusal> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("host") {
            if !is_host(value) {
                return Err(BAD_HOST);
            }
            self.hosts += 1;
        } else if is("content-length") {
            self.lengths.push(value);
        } else if is("transfer-encoding") {
            self.transfer_encodings.push(value);
        } else if is("expect") {
            self.expects += 1;
        }
        Ok(())
    }

    fn check(&self, head: &Head<'_>) -> Result<Body, Refusal> {
        let is_current = head.version == Version::Current;
        // RFC 9112 §3.2.
        if self.hosts > 1 || is_current && self.hosts == 0 {
            return Err(BAD_HOST);
        }
        let body = self.check_body(head)?;
        // RFC 9110 §10.1.1: a server ignores it in HTTP/1.0.
        if self.expects > 0 && is_current { Err(EXPECTATION) } else { Ok(body) }
    }

    /// RFC 9112 §6: a request has no body, or one of length 0. Envoy, Caddy and others send a GET that
    /// they received by HTTP/2 with `Transfer-Encoding: chunked`, and an empty body.
    fn check_body(&self, head: &Head<'_>) -> Result<Body, Refusal> {
        match (&*self.lengths, &*self.transfer_encodings) {
            ([], []) => Ok(Body::None),
            ([], [encoding])
                if encoding.eq_ignore_ascii_case(b"chunked")
                    && matches!(head.method, "GET" | "HEAD")
                    && head.version == Version::Current =>
            {
                Ok(Body::EmptyChunks)
            }
            ([], _) => Err(BODY),
            ([length], []) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
                if length.iter().all(|digit| *digit == b'0') {
                    Ok(Body::None)
                } else {
                    Err(BODY)
                }
            }
            _ => Err(BAD_LENGTH),
        }
    }
}

impl<'a> Head<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("connection") {
            self.note_connection(value);
        } else if is("if-none-match") {
            // A tag that is not ASCII is not one of ours.
            let so_far: usize = self.if_none_match.iter().map(|tags| tags.len()).sum();
            let fits = |tags: &&str| so_far.saturating_add(tags.len()) <= MAX_TAGS;
            self.if_none_match.extend(ascii(value).filter(fits));
        } else if is("user-agent") {
            self.user_agent.get_or_insert(value);
        } else if is("x-forwarded-for") {
            let last = value.rsplit(|byte| *byte == b',').next();
            self.forwarded_for = last.map(<[u8]>::trim_ascii);
        }
    }

    /// RFC 9112 §9.1 and §9.6. Other options (`Upgrade`, `HTTP2-Settings`) name fields that are
    /// dropped: RFC 9110 §7.8 allows a server to ignore an offer to upgrade.
    fn note_connection(&mut self, value: &[u8]) {
        for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// The value of the answer's `Connection` field: RFC 9112 §9.3 and appendix C.2.2. For HTTP/1.0
    /// it must say so if the connection stays open.
    const fn answer_connection(&self) -> Option<&'static str> {
        match (self.version, self.close, self.keep_alive) {
            (_, true, _) | (Version::Old, false, false) => Some("close"),
            (Version::Old, false, true) => Some("keep-alive"),
            (Version::Current, false, _) => None,
        }
    }

    /// Appends the head that `tiny_http` sees; `client` is the value of [`CLIENT`].
    ///
    /// It is always HTTP/1.1 and never has a `Connection` field, because the front decides when to
    /// close. It consists of printable ASCII and line ends.
    pub(crate) fn rewrite(&self, client: &str, out: &mut Vec<u8>) {
        let mut line = |parts: &[&str]| {
            parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
            out.extend_from_slice(b"\r\n");
        };
        line(&[self.method, " ", self.path, " HTTP/1.1"]);
        line(&[CLIENT, ": ", client]);
        if let Some(connection) = self.answer_connection() {
            line(&[ANSWER_CONNECTION, ": ", connection]);
        }
        for tags in &self.if_none_match {
            line(&["If-None-Match: ", tags]);
        }
        for (name, value) in
            [("User-Agent", self.user_agent), ("X-Forwarded-For", self.forwarded_for)]
        {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                line(&[name, ": ", &printable(value)]);
            }
        }
        line(&[]);
    }
}

/// At most [`MAX_LOGGED`] bytes of `value`, with those that are not printable ASCII as `\xNN`.
fn printable(value: &[u8]) -> Cow<'_, str> {
    let value = value.get(..MAX_LOGGED).unwrap_or(value);
    match std::str::from_utf8(value) {
        Ok(text) if value.iter().all(|byte| matches!(byte, b' '..=b'~')) => Cow::Borrowed(text),
        Ok(_) | Err(_) => {
            let escaped = value.iter().map(|byte| match byte {
                b' '..=b'~' => char::from(*byte).to_string(),
                _ => format!("\\x{byte:02x}"),
            });
            Cow::Owned(escaped.collect())
        }
    }
}

#[cfg(test)]
mod tests;
