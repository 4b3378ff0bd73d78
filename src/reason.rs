//! Pure: the closed list of words with which the gateway tells clients what is wrong.
//!
//! They are an interface: answers to probes, 502s and the log contain them. All other details of a
//! failure are for the log alone.

/// Why a document cannot be served, or the gateway is not ready or not healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Unreachable,
    Timeout,
    Unauthorized,
    Forbidden,
    NotFound,
    UntrustedCertificate,
    /// It was reached, and TLS came to no agreement.
    Tls,
    /// It was reached, and what it sent is not TLS, or not HTTP.
    Protocol,
    /// Status 5xx, or 429.
    UpstreamError,
    BadDocument,
    /// Upstream's issuer is not `ISSUER`.
    IssuerMismatch,
    /// What is served does not verify the gateway's own token.
    OwnToken,
    NotFetchedYet,
    TooOld,
    Stopping,
}

impl Reason {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::UntrustedCertificate => "untrusted-certificate",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::UpstreamError => "upstream-error",
            Self::BadDocument => "bad-document",
            Self::IssuerMismatch => "issuer-mismatch",
            Self::OwnToken => "own-token",
            Self::NotFetchedYet => "not-fetched-yet",
            Self::TooOld => "too-old",
            Self::Stopping => "stopping",
        }
    }
}
