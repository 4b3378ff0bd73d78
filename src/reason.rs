//! The closed list of words that a client may be told.

/// Why something cannot be served: the closed list of words that a client may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    Unreachable,
    Timeout,
    Unauthorized,
    Forbidden,
    NotFound,
    UntrustedCertificate,
    BadDocument,
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
            Self::BadDocument => "bad-document",
            Self::NotFetchedYet => "not-fetched-yet",
            Self::TooOld => "too-old",
            Self::Stopping => "stopping",
        }
    }
}
