//! The gateway's own token.

use std::fmt;
use std::io;
use std::path::Path;

use http::HeaderValue;

use super::failure::Failure;

/// The gateway's own token, as the value of `Authorization`. Its `Debug` does not show it.
pub(super) struct Token(pub(super) HeaderValue);

impl Token {
    /// An error when the file cannot be read or contains no token.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let failed = |cause| Failure::Token { path: path.to_owned(), cause };
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let token = text.trim();
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .ok()
            .filter(|_| !token.is_empty())
            .ok_or_else(|| failed(io::Error::other("it contains no token")))?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token")
    }
}
