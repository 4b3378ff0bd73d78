//! The gateway's own token.

use std::fmt;
use std::io;
use std::path::Path;

use http::HeaderValue;

use super::expiry::Validity;
use super::failure::Failure;
use super::file::{is_out_of_descriptors, read_file};

/// The longest token file, in bytes; a service account token has some 1,200.
const MAX_TOKEN_BYTES: usize = 16 << 10;

/// The gateway's own token, as the value of `Authorization`. Its `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct Token(pub(super) HeaderValue);

impl Token {
    /// An error when the file cannot be read or contains no token.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |cause| match cause {
            cause if is_out_of_descriptors(&cause) => Failure::NoDescriptor(cause),
            cause => Failure::Token { path: path.to_owned(), cause },
        };
        let text = read_file(path, MAX_TOKEN_BYTES).map_err(failed)?;
        let text = String::from_utf8(text).map_err(|error| failed(io::Error::other(error)))?;
        let token = text.trim();
        if let Some(mistake) = mistake(token) {
            return Err(failed(io::Error::other(mistake)));
        }
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|error| failed(io::Error::other(error)))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// `None` for a token that does not say it.
    pub(super) fn validity(&self) -> Option<Validity> {
        Validity::of_token(self.text())
    }

    /// The token itself, which must not be logged.
    pub(crate) fn text(&self) -> &str {
        let value = self.0.to_str().unwrap_or_default();
        value.strip_prefix("Bearer ").unwrap_or_default()
    }
}

/// What is wrong with a token, without the token: RFC 6750 §2.1 has only printable ASCII in one.
fn mistake(token: &str) -> Option<&'static str> {
    let bad = token.chars().find(|character| !character.is_ascii_graphic());
    match bad {
        _ if token.is_empty() => Some("it contains no token"),
        None => None,
        Some('\u{feff}') => Some("it begins with a byte order mark, which is not part of a token"),
        Some('\0') => Some("it has a NUL within the token"),
        Some('\n' | '\r') => Some("it has a line break within the token"),
        Some(_) => Some("it has a space, or a character that is not ASCII, within the token"),
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token")
    }
}
