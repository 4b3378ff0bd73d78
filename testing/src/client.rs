//! A client of raw sockets with a strict parser: whatever RFC 9112 does not allow fails the test.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::fake_api::SOON;

/// A connection, kept open.
pub struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// In the order in which they came.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// One GET on a connection of its own, which must end after the answer.
pub fn get(address: SocketAddr, path: &str) -> Response {
    request(address, "GET", path, &[])
}

/// One request on a connection of its own, which must end after the answer.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Response {
    let mut client = Client::connect(address);
    let response = client.request(method, path, &[headers, &[("Connection", "close")]].concat());
    client.assert_end();
    response
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connect to the gateway");
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub fn get(&mut self, path: &str) -> Response {
        self.request("GET", path, &[])
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        self.send(head + "\r\n");
        self.read(method)
    }

    /// Sends these bytes as they stand.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("send to the gateway");
    }

    /// Reads the answer to a request of this method, and nothing behind it.
    pub fn read(&mut self, method: &str) -> Response {
        let line = self.line();
        let (version, rest) = line.split_once(' ').expect("a status line");
        assert!(["HTTP/1.1", "HTTP/1.0"].contains(&version), "{line}");
        let (status, _reason) = rest.split_once(' ').expect("a space after the status");
        assert!(status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit()), "{line}");
        let mut response =
            Response { status: status.parse().unwrap(), headers: self.headers(), body: Vec::new() };
        assert!(response.status >= 200, "no interim answer was asked for: {response:?}");
        assert_eq!(response.header("Transfer-Encoding"), None, "{response:?}");
        if method != "HEAD" && ![204, 304].contains(&response.status) {
            let length = response.header("Content-Length").expect("a Content-Length");
            assert!(length.bytes().all(|byte| byte.is_ascii_digit()), "{response:?}");
            response.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut response.body).expect("the whole body");
        }
        let extra = String::from_utf8_lossy(self.stream.buffer());
        assert!(extra.is_empty(), "{extra:?} after {response:?}");
        response
    }

    /// Asserts that the gateway closed the connection, without a further byte.
    pub fn assert_end(&mut self) {
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).expect("the end of the connection");
        assert_eq!(rest, "", "after the last answer");
    }

    fn headers(&mut self) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return headers;
            }
            let (name, value) = line.split_once(':').expect("a colon in the header line");
            let token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert!(!name.is_empty() && name.bytes().all(token), "{line:?}");
            assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line:?}");
            headers.push((name.to_owned(), value.trim_matches(' ').to_owned()));
        }
    }

    /// A line without its CRLF, which must be one.
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).expect("an answer");
        let line = String::from_utf8(line).expect("ASCII");
        assert!(line.ends_with("\r\n"), "{line:?}");
        line.trim_end_matches("\r\n").to_owned()
    }
}

impl Response {
    /// The value of a header, which must not be there twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| &**v);
        let value = values.next();
        assert_eq!(values.next(), None, "{name} twice in {self:?}");
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// N of `max-age=N`.
    pub fn max_age(&self) -> u64 {
        let control = self.header("Cache-Control").expect("Cache-Control");
        let age = control.strip_prefix("public, max-age=").expect("public, max-age=");
        age.split(',').next().unwrap().parse().unwrap()
    }
}
