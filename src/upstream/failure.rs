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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const BASE: &str = "https://10.96.0.1";

    fn unreachable() -> Failure {
        Failure::Unreachable { base: BASE.to_owned(), cause: "refused".to_owned() }
    }

    fn timeout(during: Timeout) -> Failure {
        Failure::Timeout { base: BASE.to_owned(), bound: Duration::from_secs(5), during }
    }

    fn not_resolved(cause: LookupError) -> Failure {
        Failure::NameNotResolved { base: BASE.to_owned(), cause }
    }

    /// One of each kind, with the word for clients and a part of its sentence.
    fn all() -> Vec<(Failure, Reason, &'static str)> {
        let (base, cause) = (BASE.to_owned(), "cause".to_owned());
        let file = PathBuf::from("/a/file");
        let not_found = || io::Error::from(io::ErrorKind::NotFound);
        vec![
            (
                Failure::Token { path: file.clone(), cause: not_found() },
                Reason::Unauthorized,
                "cannot read the token /a/file: ",
            ),
            (
                Failure::NoDescriptor(not_found()),
                Reason::Unreachable,
                "cannot open a file or socket",
            ),
            (unreachable(), Reason::Unreachable, "cannot reach https://10.96.0.1: refused"),
            (not_resolved(LookupError::NoAddress), Reason::Unreachable, "DNS has no address"),
            (timeout(Timeout::Global), Reason::Timeout, "within UPSTREAM_TIMEOUT_SECONDS, 5s"),
            (
                Failure::UntrustedCertificate {
                    base: base.clone(),
                    ca_path: file,
                    cause: cause.clone(),
                },
                Reason::UntrustedCertificate,
                "is not trusted by /a/file: cause",
            ),
            (
                Failure::CertificateDate { base: base.clone(), cause: cause.clone() },
                Reason::UntrustedCertificate,
                "is not valid now: cause",
            ),
            (
                Failure::Tls { base: base.clone(), cause: cause.clone() },
                Reason::Tls,
                "no TLS connection to https://10.96.0.1",
            ),
            (Failure::Protocol { base, cause }, Reason::Protocol, "cannot be used: cause"),
            (Failure::Unauthorized, Reason::Unauthorized, "(401)"),
            (Failure::Forbidden, Reason::Forbidden, "(403)"),
            (Failure::NotFound, Reason::NotFound, "(404)"),
            (Failure::Status(StatusCode::BAD_GATEWAY), Reason::UpstreamError, "answered 502"),
            (Failure::TooLarge, Reason::BadDocument, "larger than"),
            (Failure::Document(Refused::NoKeys), Reason::BadDocument, "the document is refused: "),
        ]
    }

    #[test]
    fn each_failure_has_a_word_for_clients_and_a_sentence_and_a_hint_for_the_log() {
        let mut hints = BTreeSet::new();
        for (failure, reason, expected) in all() {
            let sentence = failure.to_string();
            assert_eq!(failure.reason(), reason, "{sentence}");
            assert!(sentence.contains(expected), "{expected}: {sentence}");
            hints.insert(failure.hint());
        }
        // A document that is too large, or refused, comes from the wrong place in the same way.
        assert_eq!(hints.len(), all().len() - 1);
    }

    #[test]
    fn a_status_is_upstreams_own_trouble_or_that_of_something_else() {
        for (status, expected) in [
            (500, Reason::UpstreamError),
            (503, Reason::UpstreamError),
            (429, Reason::UpstreamError),
            (302, Reason::BadDocument),
            (400, Reason::BadDocument),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Failure::Status(status).reason(), expected, "{status}");
        }
        let no_answer = LookupError::NoAnswer(Duration::from_secs(5));
        assert_eq!(not_resolved(no_answer).reason(), Reason::Timeout);
    }

    #[test]
    fn another_way_is_tried_only_where_no_connection_was_made() {
        let mut unreached =
            vec![unreachable(), not_resolved(LookupError::NoAddress), timeout(Timeout::Connect)];
        assert!(unreached.iter().all(Failure::is_unreached));
        unreached.extend([timeout(Timeout::Global), Failure::NoDescriptor(io::Error::other("a"))]);
        assert!(!unreached.iter().any(Failure::is_answer));
        assert!(!timeout(Timeout::Global).is_unreached() && !Failure::Forbidden.is_unreached());
        let answers = all().into_iter().filter(|(failure, ..)| failure.is_answer()).count();
        assert_eq!(answers, 6);
    }

    #[test]
    fn the_other_document_is_not_fetched_where_it_would_fail_in_the_same_way() {
        let separate = all().into_iter().filter(|(failure, ..)| !failure.concerns_both());
        let separate: Vec<_> = separate.map(|(_, reason, _)| reason.word()).collect();
        assert_eq!(separate, ["forbidden", "not-found", "bad-document", "bad-document"]);
    }

    #[test]
    fn a_key_that_must_be_secret_has_a_hint_of_its_own() {
        for refused in [Refused::SymmetricKey(0), Refused::PrivateMember(0, "d")] {
            let failure = Failure::Document(refused);
            assert!(failure.exposes_a_key() && failure.hint().contains("can sign tokens"));
        }
        assert!(!Failure::Document(Refused::NoKeys).exposes_a_key());
        assert!(!Failure::Forbidden.exposes_a_key());
    }
}
