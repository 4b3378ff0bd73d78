//! Pure: a document in the form in which it is served.

use std::sync::Arc;

use crate::documents::Kind;

/// A document ready to be served.
pub(crate) struct Representation {
    /// Shared by all answers that are on their way.
    pub(super) body: Arc<[u8]>,
    /// Quoted, strong: RFC 9110 §8.8.3. A hash of the body, so that all replicas agree.
    pub(super) etag: String,
    /// Header lines of a 200.
    pub(super) headers: String,
}

impl Representation {
    pub(crate) fn new(kind: Kind, body: Vec<u8>) -> Self {
        let mut etag = String::with_capacity(66);
        etag.push('"');
        for byte in ring::digest::digest(&ring::digest::SHA256, &body).as_ref() {
            etag.push_str(&format!("{byte:02x}"));
        }
        etag.push('"');
        let headers = format!(
            "Content-Type: {}\r\nContent-Length: {}\r\n{}",
            kind.media_type(),
            body.len(),
            constant_headers(&etag),
        );
        Self { body: body.into(), etag, headers }
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }
}

/// The header lines that a 304 has in common with the 200: RFC 9110 §15.4.5.
pub(super) fn constant_headers(etag: &str) -> String {
    format!("ETag: {etag}\r\nAccess-Control-Allow-Origin: *\r\nX-Content-Type-Options: nosniff\r\n")
}
