//! Pure: why a fetch failed: the sentence and the hint for the log, and the word for clients.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::StatusCode;
use ureq::Timeout;

use super::resolver::LookupError;
use crate::documents::{MAX_UPSTREAM_BYTES, Refused};
use crate::reason::Reason;

/// Why a fetch failed, with what was tried.
#[derive(Debug)]
pub(crate) enum Failure {
    Token {
        path: PathBuf,
        cause: io::Error,
    },
    /// No file or socket can be opened.
    NoDescriptor(io::Error),
    Unreachable {
        base: String,
        cause: String,
    },
    NameNotResolved {
        base: String,
        cause: LookupError,
    },
    Timeout {
        base: String,
        bound: Duration,
        during: Timeout,
    },
    UntrustedCertificate {
        base: String,
        ca_path: PathBuf,
        cause: String,
    },
    /// The certificate has expired, or is not valid yet.
    CertificateDate {
        base: String,
        cause: String,
    },
    Tls {
        base: String,
        cause: String,
    },
    Protocol {
        base: String,
        cause: String,
    },
    Unauthorized,
    Forbidden,
    NotFound,
    Status(StatusCode),
    TooLarge,
    Document(Refused),
}

impl Failure {
    /// The word for clients.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::Token { .. } | Self::Unauthorized => Reason::Unauthorized,
            Self::Timeout { .. }
            | Self::NameNotResolved { cause: LookupError::NoAnswer(_), .. } => Reason::Timeout,
            Self::NoDescriptor(_) | Self::Unreachable { .. } | Self::NameNotResolved { .. } => {
                Reason::Unreachable
            }
            Self::UntrustedCertificate { .. } | Self::CertificateDate { .. } => {
                Reason::UntrustedCertificate
            }
            Self::Tls { .. } => Reason::Tls,
            Self::Protocol { .. } => Reason::Protocol,
            Self::Forbidden => Reason::Forbidden,
            Self::NotFound => Reason::NotFound,
            // It is starting, stopping, overloaded or broken.
            Self::Status(status) if status.is_server_error() || status.as_u16() == 429 => {
                Reason::UpstreamError
            }
            Self::Status(_) | Self::TooLarge | Self::Document(_) => Reason::BadDocument,
        }
    }

    /// Whether upstream may be reached by another way: no connection was made, or it was cut.
    pub(super) const fn is_unreached(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NameNotResolved { .. }
                | Self::Timeout { during: Timeout::Connect, .. }
        )
    }

    /// Whether a trusted server answered.
    pub(super) const fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::Unauthorized
                | Self::Forbidden
                | Self::NotFound
                | Self::Status(_)
                | Self::TooLarge
                | Self::Document(_)
        )
    }

    /// Whether the other document would fail in the same way, so that it need not be fetched.
    pub(crate) fn concerns_both(&self) -> bool {
        matches!(
            self.reason(),
            Reason::Unauthorized
                | Reason::Unreachable
                | Reason::Timeout
                | Reason::UntrustedCertificate
                | Reason::Tls
                | Reason::Protocol
                | Reason::UpstreamError
        )
    }

    /// Whether upstream publishes a key that must be secret.
    pub(crate) const fn exposes_a_key(&self) -> bool {
        matches!(self, Self::Document(Refused::SymmetricKey(_) | Refused::PrivateMember(..)))
    }

    /// What an operator can do about it.
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Token { .. } => {
                "point SA_TOKEN_PATH to a token of the gateway's ServiceAccount \
                 (automountServiceAccountToken)"
            }
            Self::NoDescriptor(_) => {
                "raise the limit of descriptors (ulimit -n), or lower MAX_CONNECTIONS"
            }
            Self::Unreachable { .. } => {
                "check whether the API server is running, whether UPSTREAM_HOST is right and whether \
                 a NetworkPolicy blocks the way"
            }
            Self::NameNotResolved { .. } => {
                "check whether the cluster's DNS answers and whether the name in UPSTREAM_HOST is \
                 right; the static binary's resolver needs a full name, such as \
                 kubernetes.default.svc.cluster.local. with the dot, where ndots is less than 3"
            }
            Self::Timeout { .. } => {
                "check whether the API server is overloaded or a NetworkPolicy drops packets, or \
                 raise UPSTREAM_TIMEOUT_SECONDS"
            }
            Self::UntrustedCertificate { .. } => {
                "point SA_CA_CERT_PATH to the CA of the API server's certificate, and use one of \
                 the certificate's names in UPSTREAM_HOST"
            }
            Self::CertificateDate { .. } => {
                "renew the API server's certificate, or set the clock of this node"
            }
            Self::Tls { .. } => {
                "the API server must offer TLS 1.2 or 1.3 with AES-GCM or ChaCha20 and a key exchange by \
                 X25519, P-256 or P-384: see --tls-cipher-suites and --tls-curve-preferences"
            }
            Self::Protocol { .. } => {
                "check whether UPSTREAM_HOST points to the API server's https port: it was reached"
            }
            Self::Unauthorized => {
                "the token is expired, revoked or from another cluster: check whether SA_TOKEN_PATH \
                 is renewed"
            }
            Self::Forbidden => {
                "bind the ClusterRole system:service-account-issuer-discovery to the gateway's \
                 ServiceAccount"
            }
            Self::NotFound => {
                "give kube-apiserver a --service-account-issuer that is an https URL: without one \
                 it does not serve these paths"
            }
            Self::Status(_) => {
                "see the API server's log; UPSTREAM_HOST may point to something else"
            }
            Self::Document(Refused::SymmetricKey(_) | Refused::PrivateMember(..)) => {
                "a private key is being published: whoever reads it can sign tokens; find out where \
                 upstream's key set comes from, and sign with a new key"
            }
            Self::TooLarge | Self::Document(_) => {
                "check what UPSTREAM_HOST points to; kubectl get --raw shows the document"
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { path, cause } => {
                write!(out, "cannot read the token {}: {cause}", path.display())
            }
            Self::NoDescriptor(cause) => write!(out, "cannot open a file or socket: {cause}"),
            Self::Unreachable { base, cause } => write!(out, "cannot reach {base}: {cause}"),
            Self::NameNotResolved { base, cause } => {
                write!(out, "cannot resolve the name in {base}: {cause}")
            }
            Self::Timeout { base, bound, during } => write!(
                out,
                "no complete answer from {base} within UPSTREAM_TIMEOUT_SECONDS, {bound:?} ({during})"
            ),
            Self::UntrustedCertificate { base, ca_path, cause } => write!(
                out,
                "the certificate of {base} is not trusted by {}: {cause}",
                ca_path.display()
            ),
            Self::CertificateDate { base, cause } => {
                write!(out, "the certificate of {base} is not valid now: {cause}")
            }
            Self::Tls { base, cause } => {
                write!(out, "no TLS connection to {base} could be made: {cause}")
            }
            Self::Protocol { base, cause } => {
                write!(out, "what {base} sent cannot be used: {cause}")
            }
            Self::Unauthorized => out.write_str("upstream refused the token (401)"),
            Self::Forbidden => {
                out.write_str("upstream accepted the token but does not allow the path (403)")
            }
            Self::NotFound => out.write_str("upstream does not have the path (404)"),
            Self::Status(status) => write!(out, "upstream answered {}", status.as_u16()),
            Self::TooLarge => {
                write!(out, "upstream's answer is larger than {MAX_UPSTREAM_BYTES} bytes")
            }
            Self::Document(refused) => write!(out, "the document is refused: {refused}"),
        }
    }
}
