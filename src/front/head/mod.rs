//! Pure: which request heads are accepted, and what of them is handed on.
//!
//! Stricter than RFC 9112 asks where two readers could see two requests in one head (§11.2,
//! request smuggling): a bare CR or LF, a folded line, a space before a colon, two lengths. No
//! request may have a body. Handed on is a head of our own making: method, target, version and
//! the few fields that the gateway reads, so that `tiny_http` parses little and refuses nothing.

use std::borrow::Cow;

/// The longest head, in bytes; nginx takes 8 KiB a line, Go 1 MiB in all.
pub(crate) const MAX_HEAD: usize = 16 << 10;
/// The most header lines.
pub(crate) const MAX_LINES: usize = 64;
/// The longest method; the longest registered one has 17 letters.
const MAX_METHOD: usize = 32;
/// The longest path, in bytes: an issuer's and some. A query is dropped, whatever its length.
const MAX_PATH: usize = 2 << 10;
/// How many bytes of `If-None-Match` are handed on: 30 of our tags. Without the rest the answer is
/// a 200, which is always right.
const MAX_TAGS: usize = 2 << 10;
/// How many bytes are handed on of each field that is only for the log: 255 are the longest
/// `User-Agent` of a browser, and more.
const MAX_LOGGED: usize = 256;
/// The field that names the connection to the worker: its number, a space, the peer's address. It
/// is ours alone, as all that are handed on: a client's field of this name is dropped.
pub(crate) const CLIENT: &str = "Client";
/// The field that says what the answer's `Connection` is to be; not there for none.
pub(crate) const ANSWER_CONNECTION: &str = "Answer-Connection";

/// A head that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// For the log.
    pub(crate) because: &'static str,
}

const fn refuse(status: u16, because: &'static str) -> Refusal {
    Refusal { status, because }
}

/// The client took too long: RFC 9110 §15.5.9.
pub(crate) const TOO_SLOW: Refusal = refuse(408, "the head was not whole in time");
/// RFC 6585 §5.
pub(crate) const TOO_LONG: Refusal = refuse(431, "the head is longer than 16 KiB");
/// Its length would be fine at another time.
pub(crate) const TOO_MUCH: Refusal = refuse(431, "a long head while too many others are partial");
/// RFC 9112 §2.2 speaks of one.
pub(crate) const EMPTY_LINES: Refusal = refuse(400, "many empty lines before a request");
const TOO_MANY_LINES: Refusal = refuse(431, "the head has more than 64 header lines");
const BAD_BYTE: Refusal = refuse(400, "a control byte, or a bare CR or LF");
const BAD_REQUEST_LINE: Refusal = refuse(400, "the request line is not method, target, version");
/// RFC 9110 §15.5.15.
const LONG_PATH: Refusal = refuse(414, "the path is longer than 2 KiB");
const BAD_VERSION: Refusal = refuse(505, "neither HTTP/1.1 nor HTTP/1.0");
const BAD_FIELD: Refusal = refuse(400, "a header line is not name, colon, value");
const BAD_HOST: Refusal = refuse(400, "not exactly one good Host");
const BAD_LENGTH: Refusal = refuse(400, "the length of the body is given badly or twice");
const BODY: Refusal = refuse(413, "the request has a body");
const EXPECTATION: Refusal = refuse(417, "the request has an Expect");

/// What of a good head the gateway wants to know.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head<'a> {
    method: &'a str,
    /// The path alone: the query is ignored, and an absolute target counts by its path.
    path: &'a str,
    /// HTTP/1.1 or later; else HTTP/1.0.
    modern: bool,
    close: bool,
    keep_alive: bool,
    if_none_match: Vec<&'a str>,
    /// The first of its name.
    user_agent: Option<&'a [u8]>,
    /// The first of its name.
    accept: Option<&'a [u8]>,
    /// The last entry of the last one: the only one that the client of this connection, a proxy,
    /// has seen for itself.
    forwarded_for: Option<&'a [u8]>,
}

/// How many bytes of empty lines stand before the request: RFC 9112 §2.2.
pub(crate) fn empty_lines(received: &[u8]) -> usize {
    received.chunks_exact(2).take_while(|pair| pair == b"\r\n").count().saturating_mul(2)
}

/// The length of the first head in `received`, its empty line included, once it is whole.
///
/// `searched` bytes hold none, as an earlier call found. An error as soon as the bytes so far
/// cannot become a good head.
pub(crate) fn length(received: &[u8], searched: usize) -> Result<Option<usize>, Refusal> {
    let from = searched.saturating_sub(3);
    let fresh = received.get(from..).unwrap_or_default();
    let end = fresh.windows(4).position(|four| four == b"\r\n\r\n").map(|at| from + at + 4);
    let head = received.get(..end.unwrap_or(received.len())).unwrap_or_default();
    let mut before = from.checked_sub(1).and_then(|at| head.get(at)).copied();
    for byte in head.get(from..).unwrap_or_default().iter().copied() {
        let good = match byte {
            b'\n' => before == Some(b'\r'),
            b'\r' | b'\t' => before != Some(b'\r'),
            0x20..=0x7e | 0x80.. => before != Some(b'\r'),
            _ => false,
        };
        if !good {
            return Err(BAD_BYTE);
        }
        before = Some(byte);
    }
    match end {
        Some(end) if end > MAX_HEAD => Err(TOO_LONG),
        None if received.len() >= MAX_HEAD => Err(TOO_LONG),
        end => Ok(end),
    }
}

/// Checks a whole head, as [`length`] found it.
pub(crate) fn check(head: &[u8]) -> Result<Head<'_>, Refusal> {
    let text = head.strip_suffix(b"\r\n\r\n").ok_or(BAD_REQUEST_LINE)?;
    let mut lines =
        text.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let (method, path, modern) = request_line(lines.next().unwrap_or_default())?;
    let mut head = Head {
        method,
        path,
        modern,
        close: false,
        keep_alive: false,
        if_none_match: Vec::new(),
        user_agent: None,
        accept: None,
        forwarded_for: None,
    };
    let (mut hosts, mut lengths, mut coded, mut expects) = (0_u32, Vec::new(), false, false);
    for (number, line) in lines.enumerate() {
        if number >= MAX_LINES {
            return Err(TOO_MANY_LINES);
        }
        let (name, value) = field(line)?;
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("host") {
            if !is_host(value) {
                return Err(BAD_HOST);
            }
            hosts += 1;
        } else if is("connection") {
            connection(value, &mut head);
        } else if is("if-none-match") {
            // A tag that is not ASCII is none of ours.
            let handed_on: usize = head.if_none_match.iter().map(|tags| tags.len()).sum();
            let fits = |tags: &&str| handed_on.saturating_add(tags.len()) <= MAX_TAGS;
            head.if_none_match.extend(ascii(value).filter(fits));
        } else if is("user-agent") {
            head.user_agent.get_or_insert(value);
        } else if is("accept") {
            head.accept.get_or_insert(value);
        } else if is("x-forwarded-for") {
            let last = value.rsplit(|byte| *byte == b',').next();
            head.forwarded_for = last.map(<[u8]>::trim_ascii);
        } else if is("content-length") {
            lengths.push(value);
        } else if is("transfer-encoding") {
            coded = true;
        } else if is("expect") {
            expects = true;
        }
    }
    if hosts > 1 || (modern && hosts == 0) {
        return Err(BAD_HOST);
    }
    body(&lengths, coded)?;
    // RFC 9110 §10.1.1: to be ignored in HTTP/1.0.
    if expects && modern { Err(EXPECTATION) } else { Ok(head) }
}

/// RFC 9112 §3: one space each between method, target and version.
fn request_line(line: &[u8]) -> Result<(&str, &str, bool), Refusal> {
    let line = ascii(line).ok_or(BAD_REQUEST_LINE)?;
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD_REQUEST_LINE);
    };
    // RFC 9110 §2.5: a higher minor version is understood as the highest that we know.
    let modern = match version.strip_prefix("HTTP/").map(str::as_bytes) {
        Some([b'1', b'.', b'0']) => false,
        Some([b'1', b'.', b'1'..=b'9']) => true,
        Some([b'0'..=b'9', b'.', b'0'..=b'9'] | [b'0'..=b'9']) => return Err(BAD_VERSION),
        _ => return Err(BAD_REQUEST_LINE),
    };
    if method.len() > MAX_METHOD || !is_token(method.as_bytes()) {
        return Err(BAD_REQUEST_LINE);
    }
    let path = path(method, target).ok_or(BAD_REQUEST_LINE)?;
    if path.len() > MAX_PATH { Err(LONG_PATH) } else { Ok((method, path, modern)) }
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
        let good = is_http && has_host && is_host(authority.as_bytes());
        return good.then_some(if path.is_empty() { "/" } else { path });
    }
    let good = match method {
        "OPTIONS" => target == "*",
        "CONNECT" => !target.is_empty() && is_host(target.as_bytes()),
        _ => false,
    };
    good.then_some(target)
}

/// RFC 9112 §5: no space before the colon (§5.1), no folded line (§5.2).
fn field(line: &[u8]) -> Result<(&str, &[u8]), Refusal> {
    let colon = line.iter().position(|byte| *byte == b':').ok_or(BAD_FIELD)?;
    let (name, value) = line.split_at_checked(colon).ok_or(BAD_FIELD)?;
    let name = ascii(name).filter(|name| is_token(name.as_bytes())).ok_or(BAD_FIELD)?;
    Ok((name, value.get(1..).unwrap_or_default().trim_ascii()))
}

/// RFC 9112 §3.2: a bad value is as bad as none. The characters of RFC 3986 §3.2.2, and a port.
fn is_host(value: &[u8]) -> bool {
    let is_port = |rest: &[u8]| match rest {
        [] => true,
        [b':', port @ ..] => port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(byte);
    if let Some(literal) = value.strip_prefix(b"[") {
        let end = literal.iter().position(|byte| *byte == b']').unwrap_or(0);
        let (address, rest) = literal.split_at(end);
        return !address.is_empty()
            && address.iter().all(|byte| is_name(byte) || *byte == b':')
            && rest.strip_prefix(b"]").is_some_and(is_port);
    }
    let end = value.iter().position(|byte| *byte == b':').unwrap_or(value.len());
    let (name, rest) = value.split_at(end);
    name.iter().all(is_name) && is_port(rest)
}

/// RFC 9112 §9.1 and §9.6. What else it names (`Upgrade`, `HTTP2-Settings`) is for fields that
/// are dropped: RFC 9110 §7.8 lets a server ignore an offer to upgrade.
fn connection(value: &[u8], head: &mut Head<'_>) {
    for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        head.close |= option.eq_ignore_ascii_case(b"close");
        head.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
    }
}

/// RFC 9112 §6: only a request without a body, or with one of no length, is let in.
fn body(lengths: &[&[u8]], coded: bool) -> Result<(), Refusal> {
    match (lengths, coded) {
        ([], false) => Ok(()),
        ([], true) => Err(BODY),
        ([length], false) if !length.is_empty() && length.iter().all(u8::is_ascii_digit) => {
            if length.iter().all(|digit| *digit == b'0') {
                Ok(())
            } else {
                Err(BODY)
            }
        }
        _ => Err(BAD_LENGTH),
    }
}

/// RFC 9110 §5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.is_ascii())
}

impl Head<'_> {
    /// What the answer is to say of the connection: RFC 9112 §9.3 and §C.2.2, an HTTP/1.0 client
    /// must be told that it may go on.
    fn connection(&self) -> Option<&'static str> {
        match (self.modern, self.close, self.keep_alive) {
            (_, true, _) | (false, false, false) => Some("close"),
            (false, false, true) => Some("keep-alive"),
            (true, false, _) => None,
        }
    }

    /// Writes the head that `tiny_http` is to see; `client` is the value of [`CLIENT`].
    ///
    /// It is one of HTTP/1.1 and says nothing of closing: when a connection ends is the front's
    /// business. No byte of it but printable ASCII and line ends.
    pub(crate) fn hand_on(&self, client: &str, out: &mut Vec<u8>) {
        let mut line = |parts: &[&str]| {
            parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
            out.extend_from_slice(b"\r\n");
        };
        line(&[self.method, " ", self.path, " HTTP/1.1"]);
        line(&[CLIENT, ": ", client]);
        if let Some(connection) = self.connection() {
            line(&[ANSWER_CONNECTION, ": ", connection]);
        }
        for tags in &self.if_none_match {
            line(&["If-None-Match: ", tags]);
        }
        for (name, value) in [
            ("User-Agent", self.user_agent),
            ("Accept", self.accept),
            ("X-Forwarded-For", self.forwarded_for),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                line(&[name, ": ", &printable(value)]);
            }
        }
        line(&[]);
    }
}

/// At most [`MAX_LOGGED`] bytes of `value`; those that are no printable ASCII as `\xNN`.
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
