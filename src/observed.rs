//! Pure: what the refresher has found besides the documents, for `/healthz`, `/metrics` and `/status`.
//!
//! It never changes: a new one replaces it after each round.

use std::time::SystemTime;

use crate::documents::Kind;
use crate::reason::Reason;
use crate::upstream::{Subject, Validity};

/// What is known after a round.
#[derive(Clone, Default)]
pub(crate) struct Observed {
    /// The issuer that is served.
    pub(crate) issuer: Option<String>,
    /// That is not `ISSUER`.
    pub(crate) issuer_mismatch: bool,
    pub(crate) own_token: OwnTokenState,
    /// API servers publish different issuers, or key sets, in turn.
    pub(crate) disagreement: Disagreement,
    pub(crate) keys: ServedKeys,
    /// The gateway's token, the API server's certificate that was shown last, and each CA of the CA file.
    pub(crate) validities: Vec<(Subject, Validity)>,
}

/// Of which document API servers publish different versions in turn.
#[derive(Clone, Copy, Default)]
pub(crate) struct Disagreement {
    pub(crate) discovery: bool,
    pub(crate) jwks: bool,
}

impl Disagreement {
    pub(crate) const fn about(self, kind: Kind) -> bool {
        match kind {
            Kind::Discovery => self.discovery,
            Kind::Jwks => self.jwks,
        }
    }
}

/// The keys that are served, and when they changed.
#[derive(Clone, Default)]
pub(crate) struct ServedKeys {
    /// In the order in which they are served.
    pub(crate) keys: Vec<ServedKey>,
    /// How often other keys were served than before. The first key set is no change.
    pub(crate) changes: u64,
    /// Since when these keys are served; `None`: none have been.
    pub(crate) since: Option<SystemTime>,
}

/// A key that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServedKey {
    pub(crate) kid: Option<String>,
    /// `alg` (RFC 7517 §4.4), or `kty` for a key without one.
    pub(crate) algorithm: String,
    /// When this process first saw it. One that comes back after `KEY_GRACE_SECONDS` is a new one.
    pub(crate) first_seen: SystemTime,
    /// Upstream listed it in the last round; otherwise it is served for `KEY_GRACE_SECONDS` after that.
    pub(crate) is_listed: bool,
}

/// Whether what is served verifies the gateway's own token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OwnTokenState {
    /// `OWN_TOKEN_CHECK` is off.
    Off,
    /// No round has brought what is needed yet, or the token is not one of an https issuer.
    #[default]
    NotChecked,
    /// It does not match, and that does not count, or has not lasted long enough.
    Pending,
    Verified,
    Failed,
}

impl OwnTokenState {
    pub(crate) const ALL: [Self; 5] =
        [Self::Off, Self::NotChecked, Self::Pending, Self::Verified, Self::Failed];

    /// The word for metrics and `/status`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NotChecked => "not_checked",
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Failed => "failed",
        }
    }
}

impl Observed {
    /// What `/healthz` complains about besides fetches that fail.
    pub(crate) fn complaint(&self) -> Option<Reason> {
        if self.issuer_mismatch {
            Some(Reason::IssuerMismatch)
        } else {
            (self.own_token == OwnTokenState::Failed).then_some(Reason::OwnToken)
        }
    }
}
