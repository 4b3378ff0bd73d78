//! Pure: a document in the form in which it is served.
//!
//! Everything that does not depend on the time of the request is made here, once per fetch.

use std::sync::Arc;

use crate::documents::Kind;

/// A representation (RFC 9110 §3.2): the same bytes for every client.
pub(crate) struct Representation {
    /// Shared by all answers that are being written.
    pub(super) body: Arc<[u8]>,
    /// Quoted and strong: RFC 9110 §8.8.3. A SHA-256 of the body, so that all replicas agree.
    pub(super) etag: String,
    /// The header lines of a 200 that never change.
    pub(super) headers: String,
}

impl Representation {
    pub(crate) fn new(kind: Kind, body: Vec<u8>) -> Self {
        let mut etag = String::with_capacity(66);
        etag.push('"');
        for byte in aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &body).as_ref() {
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
