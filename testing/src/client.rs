//! An HTTP/1.1 client that accepts no answer but one that RFC 9112 allows.
//!
//! [`Connection`] returns what is wrong, for programs that count failures; with [`Client`] it fails the test. Nothing
//! is sent again and no redirect followed.

use std::fmt::{Display, Write as _};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::wait::SOON;

/// The header of a request after which the server should close the connection.
pub const CLOSE: (&str, &str) = ("Connection", "close");

/// A connection that is kept open.
///
/// A call that is not over at its deadline fails with [`ErrorKind::TimedOut`], one whose answer is not HTTP with
/// [`ErrorKind::InvalidData`], and one whose connection ends with the kernel's error or [`ErrorKind::UnexpectedEof`].
/// After any of these the connection is of no use.
pub struct Connection {
    stream: BufReader<Timed>,
}

/// A stream whose reads are over at a deadline.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
    /// Bytes since the last request.
    received: usize,
}

impl Connection {
    /// Connects to `address`.
    pub fn open(address: SocketAddr, deadline: Instant) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&address, until(deadline)?)?)
    }

    /// Over a stream that is connected.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let timed = Timed { stream, deadline: Instant::now(), received: 0 };
        Ok(Self { stream: BufReader::new(timed) })
    }

    /// One request without a body, and its answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        deadline: Instant,
    ) -> io::Result<Response> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").expect("room in a string");
        }
        self.send((head + "\r\n").as_bytes(), deadline)?;
        self.read(method, deadline)
    }

    /// Sends these bytes as they are.
    pub fn send(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        let timed = self.stream.get_mut();
        timed.received = 0;
        timed.stream.set_write_timeout(Some(until(deadline)?))?;
        timed.stream.write_all(bytes).map_err(timed_out)
    }

    /// Reads the answer to a request of this method; an error when more than that has come.
    pub fn read(&mut self, method: &str, deadline: Instant) -> io::Result<Response> {
        self.stream.get_mut().deadline = deadline;
        let response = Response::read(&mut self.stream, method).map_err(|error| {
            if error.kind() != ErrorKind::UnexpectedEof {
                return error;
            }
            io::Error::new(error.kind(), format!("the end after {} bytes", self.received()))
        })?;
        let more = self.stream.buffer();
        let text = String::from_utf8_lossy(more);
        valid(more.is_empty(), || format!("{text:?} after {response:?}"))?;
        Ok(response)
    }

    /// Waits for the end of the connection; an error when a byte comes before it.
    pub fn end(&mut self, deadline: Instant) -> io::Result<()> {
        self.stream.get_mut().deadline = deadline;
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest)?;
        let text = String::from_utf8_lossy(&rest);
        valid(rest.is_empty(), || format!("{text:?} after the last answer"))
    }

    /// How many bytes have come since the last request.
    #[must_use]
    pub fn received(&self) -> usize {
        self.stream.get_ref().received
    }

    /// Whether the server has closed it, or sent what nothing asked for. Does not wait.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let stream = &self.stream.get_ref().stream;
        let is_silent =
            || stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        let switch = |nonblocking| stream.set_nonblocking(nonblocking).is_ok();
        !(switch(true) && is_silent() && switch(false))
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(until(self.deadline)?))?;
        let count = self.stream.read(buffer).map_err(timed_out)?;
        self.received += count;
        Ok(count)
    }
}

/// The time that is left.
fn until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A timeout of a socket by its name.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

/// A whole answer.
#[derive(Debug)]
pub struct Response {
    /// Such as 200.
    pub status: u16,
    /// Names and values, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// Empty where the method or the status has none.
    pub body: Vec<u8>,
}

impl Response {
    /// Reads the answer to a request of this method, and nothing behind it: RFC 9112 §4 to §6. A body needs its
    /// `Content-Length`: the gateway has no other.
    pub fn read(stream: &mut impl BufRead, method: &str) -> io::Result<Self> {
        let line = line(stream)?;
        let mut words = line.splitn(3, ' ');
        let (version, status) = (words.next(), words.next().unwrap_or_default());
        valid(matches!(version, Some("HTTP/1.1" | "HTTP/1.0")), || &line)?;
        valid(words.next().is_some(), || format!("no space after the status in {line:?}"))?;
        valid(status.len() == 3 && is_digits(status), || &line)?;
        let status = status.parse().map_err(invalid)?;
        valid(status >= 200, || format!("an interim answer: {line}"))?;
        let mut response = Self { status, headers: headers(stream)?, body: Vec::new() };
        let coded = response.values("Transfer-Encoding").next().is_some();
        valid(!coded, || format!("Transfer-Encoding in {response:?}"))?;
        if method != "HEAD" && ![204, 304].contains(&status) {
            let lengths: Vec<_> = response.values("Content-Length").collect();
            let [length] = lengths[..] else {
                return Err(invalid(format!("not one Content-Length in {response:?}")));
            };
            valid(is_digits(length), || length)?;
            let length = length.parse().map_err(invalid)?;
            let mut body = Vec::new();
            stream.take(length).read_to_end(&mut body)?;
            if u64::try_from(body.len()).is_ok_and(|count| count < length) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            response.body = body;
        }
        Ok(response)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = move |header: &&(String, String)| header.0.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|(_, value)| &**value)
    }

    /// The value of a header, which must not be there twice.
    #[must_use]
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        let value = values.next();
        assert_eq!(values.next(), None, "{name} twice in {self:?}");
        value
    }

    /// The body, which must be UTF-8.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// The body, which must be JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// N of `Cache-Control: public, max-age=N`, in seconds.
    #[must_use]
    #[track_caller]
    pub fn max_age(&self) -> u64 {
        let control = self.header("Cache-Control").expect("Cache-Control");
        let age = control.strip_prefix("public, max-age=").expect("public, max-age=");
        age.split(',').next().unwrap().parse().unwrap()
    }
}

fn headers(stream: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut headers = Vec::new();
    loop {
        let line = line(stream)?;
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| invalid(format!("no colon in {line:?}")))?;
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        valid(!name.is_empty() && name.bytes().all(token), || format!("the name in {line:?}"))?;
        valid(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)), || {
            format!("the value in {line:?}")
        })?;
        headers.push((name.to_owned(), value.trim_matches(' ').to_owned()));
    }
}

/// A line without its CRLF, which must be one.
fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    if !line.ends_with(b"\n") {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let line = String::from_utf8(line).map_err(invalid)?;
    let whole = line.strip_suffix("\r\n");
    whole.map(str::to_owned).ok_or_else(|| invalid(format!("no CRLF at the end of {line:?}")))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn valid<T: Display>(holds: bool, what: impl FnOnce() -> T) -> io::Result<()> {
    if holds { Ok(()) } else { Err(invalid(what().to_string())) }
}

fn invalid(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// A [`Connection`] to the gateway for tests: what goes wrong, or takes longer than [`SOON`], fails the test.
pub struct Client(Connection);

/// One GET on a connection of its own, which must end after the answer.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Response {
    request(address, "GET", path, &[])
}

/// One request on a connection of its own, which must end after the answer.
#[track_caller]
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Response {
    let mut client = Client::connect(address);
    let response = client.request(method, path, &[headers, &[CLOSE]].concat());
    client.assert_end();
    response
}

impl Client {
    /// Connects to `address`.
    #[must_use]
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self(Connection::open(address, soon()).expect("connect to the gateway"))
    }

    /// One GET.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[])
    }

    /// One request without a body.
    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        self.0.request(method, path, headers, soon()).expect("an answer")
    }

    /// Sends a GET, whose answer [`Self::read`] waits for.
    #[track_caller]
    pub fn ask(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: gateway\r\n\r\n"));
    }

    /// Sends these bytes as they are.
    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes.as_ref(), soon()).expect("send to the gateway");
    }

    /// Reads the answer to a request of this method; no more than that may have come.
    #[track_caller]
    pub fn read(&mut self, method: &str) -> Response {
        self.0.read(method, soon()).expect("an answer")
    }

    /// Waits until the gateway closes the connection, without a further byte.
    #[track_caller]
    pub fn assert_end(&mut self) {
        self.0.end(soon()).expect("the end of the connection");
    }
}

fn soon() -> Instant {
    Instant::now() + SOON
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn what_is_no_answer_is_refused() {
        for (text, why) in [
            ("HTTP/2 200 OK\r\n\r\n", "HTTP/2"),
            ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "no space after the status"),
            ("HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", "2000"),
            ("HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n", "+20"),
            ("HTTP/1.1 100 Continue\r\n\r\n", "interim"),
            ("HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n", "no CRLF"),
            ("HTTP/1.1 200 OK\r\nContent-Length 0\r\n\r\n", "no colon"),
            ("HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", "the name"),
            ("HTTP/1.1 200 OK\r\n: a\r\n\r\n", "the name"),
            ("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "no colon"),
            ("HTTP/1.1 200 OK\r\nA: b\x1bc\r\n\r\n", "the value"),
            ("HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "the value"),
            ("HTTP/1.1 200 OK\r\n\r\n", "not one Content-Length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", "not one"),
            ("HTTP/1.1 200 OK\r\nContent-Length: +0\r\n\r\n", "+0"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding"),
        ] {
            let refused = Response::read(&mut text.as_bytes(), "GET").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidData, "{text:?}: {refused}");
            assert!(refused.to_string().contains(why), "{text:?}: {refused}");
        }
    }

    #[test]
    fn an_answer_that_is_cut_off_is_no_answer() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        for length in 0..whole.len() {
            let cut_off = Response::read(&mut &whole.as_bytes()[..length], "GET").unwrap_err();
            assert_eq!(cut_off.kind(), ErrorKind::UnexpectedEof, "{length}: {cut_off}");
        }
    }

    #[test]
    fn an_answer_is_read_and_nothing_behind_it() {
        for (text, method, status, body) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", "GET", 200, "ab"),
            ("HTTP/1.0 404 \r\nContent-Length:0\r\n\r\n", "GET", 404, ""),
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HEAD", 200, ""),
            ("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", "GET", 304, ""),
            ("HTTP/1.1 204 No Content\r\n\r\n", "OPTIONS", 204, ""),
        ] {
            let two = format!("{text}HTTP");
            let mut rest = two.as_bytes();
            let response = Response::read(&mut rest, method).unwrap();
            assert_eq!((response.status, response.text()), (status, body), "{text:?}");
            assert_eq!(rest, b"HTTP", "{text:?}");
        }
    }

    /// A connection to a server that sends this and closes; or, without it, neither.
    fn answered(text: &'static str) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            if text.is_empty() {
                // Until the client closes it.
                let _ = io::copy(&mut stream, &mut io::sink());
            }
            stream.write_all(text.as_bytes()).unwrap();
        });
        Connection::open(address, soon()).unwrap()
    }

    #[test]
    fn a_connection_says_how_its_answer_failed() {
        let mut cut_off = answered("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab");
        let error = cut_off.read("GET", soon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("after 40 bytes"), "{error}");
        assert_eq!(cut_off.received(), 40);

        let mut silent = answered("");
        let soon_over = Instant::now() + Duration::from_millis(50);
        assert_eq!(silent.read("GET", soon_over).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(silent.received() == 0 && !silent.has_ended());

        let mut more = answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP");
        let error = more.read("GET", soon()).and_then(|_| more.end(soon())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");

        let mut good = answered("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(good.read("GET", soon()).unwrap().status, 200);
        good.end(soon()).unwrap();
        assert!(good.has_ended());
    }
}
