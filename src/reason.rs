//! Pure: the closed list of words with which the gateway tells clients what is wrong, and what an operator
//! can do about each.
//!
//! They are an interface: answers to probes, 502s, `/metrics`, `/status` and the log contain them. All other
//! details of a failure are for the log alone.

/// Why a document cannot be served, the gateway is not ready or not healthy, or an operator should act.
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
    /// A round panicked.
    InternalError,
    /// Upstream's issuer is not `ISSUER`.
    IssuerMismatch,
    /// What is served does not verify the gateway's own token.
    OwnToken,
    NotFetchedYet,
    TooOld,
    Stopping,
    /// They publish different issuers, or key sets, in turn.
    ApiServersDisagree,
    TokenNotRenewed,
    /// That of the API server expires soon, or has expired.
    CertificateExpires,
    /// One of the CA file does.
    CaExpires,
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
            Self::InternalError => "internal-error",
            Self::IssuerMismatch => "issuer-mismatch",
            Self::OwnToken => "own-token",
            Self::NotFetchedYet => "not-fetched-yet",
            Self::TooOld => "too-old",
            Self::Stopping => "stopping",
            Self::ApiServersDisagree => "api-servers-disagree",
            Self::TokenNotRenewed => "token-not-renewed",
            Self::CertificateExpires => "certificate-expires",
            Self::CaExpires => "ca-expires",
        }
    }

    /// What an operator can do. It names settings and flags, and nothing of this gateway or its upstream.
    pub(crate) const fn hint(self) -> &'static str {
        match self {
            Self::Unreachable => {
                "check whether the API server is running, whether UPSTREAM_HOST is right and whether a \
                 NetworkPolicy blocks the way; the log has the error"
            }
            Self::Timeout => {
                "check whether the API server is overloaded, whether DNS answers and whether a \
                 NetworkPolicy drops packets, or raise UPSTREAM_TIMEOUT_SECONDS"
            }
            Self::Unauthorized => {
                "check whether SA_TOKEN_PATH has a token of this cluster, and whether it is renewed"
            }
            Self::Forbidden => {
                "bind the ClusterRole system:service-account-issuer-discovery to the gateway's \
                 ServiceAccount"
            }
            Self::NotFound => {
                "give kube-apiserver a --service-account-issuer that is an https URL: without one it does \
                 not serve these paths"
            }
            Self::UntrustedCertificate => {
                "point SA_CA_CERT_PATH to the CA of the API server's certificate, use one of its names in \
                 UPSTREAM_HOST, and check its dates"
            }
            Self::Tls => {
                "the API server must offer TLS 1.2 or 1.3 with AES-GCM or ChaCha20 and a key exchange by \
                 X25519, P-256 or P-384"
            }
            Self::Protocol => "check whether UPSTREAM_HOST points to the API server's https port",
            Self::UpstreamError => "see the API server's log: it is starting, overloaded or broken",
            Self::BadDocument => {
                "check what UPSTREAM_HOST points to; kubectl get --raw shows the document, and the log \
                 says what is wrong with it"
            }
            Self::InternalError => {
                "report the `panic` line of the log: it is a bug in this program; an older version may help"
            }
            Self::IssuerMismatch => {
                "set ISSUER to what relying parties have, and the first --service-account-issuer of \
                 kube-apiserver to the same; or UPSTREAM_HOST points to another cluster"
            }
            Self::OwnToken => {
                "relying parties may refuse all new tokens: compare --service-account-signing-key-file \
                 with --service-account-key-file, and UPSTREAM_HOST with the cluster of this pod; set \
                 OWN_TOKEN_CHECK=off if the token is meant to be another issuer's"
            }
            Self::NotFetchedYet => "the first fetch is in progress: wait",
            Self::TooOld => {
                "clients get 502, because the API server has not confirmed the copy for MAX_STALE_SECONDS: \
                 see why fetches fail"
            }
            Self::Stopping => "nothing: the program was asked to stop",
            Self::ApiServersDisagree => {
                "they are being restarted; if this lasts, give all of them the same \
                 --service-account-key-file and the same first --service-account-issuer"
            }
            Self::TokenNotRenewed => "check whether SA_TOKEN_PATH is renewed",
            Self::CertificateExpires => "renew the API server's certificate",
            Self::CaExpires => "renew the CA, or take its certificate out of the CA file",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_reasons_have_the_same_word_or_hint() {
        let all = [
            Reason::Unreachable,
            Reason::Timeout,
            Reason::Unauthorized,
            Reason::Forbidden,
            Reason::NotFound,
            Reason::UntrustedCertificate,
            Reason::Tls,
            Reason::Protocol,
            Reason::UpstreamError,
            Reason::BadDocument,
            Reason::InternalError,
            Reason::IssuerMismatch,
            Reason::OwnToken,
            Reason::NotFetchedYet,
            Reason::TooOld,
            Reason::Stopping,
            Reason::ApiServersDisagree,
            Reason::TokenNotRenewed,
            Reason::CertificateExpires,
            Reason::CaExpires,
        ];
        let words: BTreeSet<_> = all.iter().map(|reason| reason.word()).collect();
        let hints: BTreeSet<_> = all.iter().map(|reason| reason.hint()).collect();
        assert_eq!((words.len(), hints.len()), (all.len(), all.len()));
        let is_word = |text: &&str| text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'-'));
        assert!(words.iter().all(is_word), "{words:?}");
    }
}
