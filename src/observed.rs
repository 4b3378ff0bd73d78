//! Pure: what the refresher has found besides the documents, for `/healthz`, `/metrics` and `/status`.
//!
//! It never changes: a new one replaces it after each round.

use std::time::{Instant, SystemTime};

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

/// Until when API servers count as publishing different versions of a document in turn, if no further
/// difference is seen. A time and not a flag, because no round may say that it is over: all may fail.
#[derive(Clone, Copy, Default)]
pub(crate) struct Disagreement {
    pub(crate) discovery: Option<Instant>,
    pub(crate) jwks: Option<Instant>,
}

impl Disagreement {
    pub(crate) fn about(self, kind: Kind, now: Instant) -> bool {
        let until = match kind {
            Kind::Discovery => self.discovery,
            Kind::Jwks => self.jwks,
        };
        until.is_some_and(|until| now < until)
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
    /// Since when this process has served it without a break. One of which a member changes is another one.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_disagreement_ends_without_a_round_that_says_so() {
        let now = Instant::now();
        let until = now + Duration::from_secs(300);
        let disagreement = Disagreement { discovery: None, jwks: Some(until) };
        assert!(disagreement.about(Kind::Jwks, now));
        assert!(!disagreement.about(Kind::Jwks, until));
        assert!(!disagreement.about(Kind::Discovery, now));
    }

    #[test]
    fn each_state_of_the_own_token_has_a_word_of_its_own() {
        let words = OwnTokenState::ALL.map(OwnTokenState::word);
        assert_eq!(words, ["off", "not_checked", "pending", "verified", "failed"]);
    }

    #[test]
    fn another_issuer_is_said_before_the_own_token() {
        let observed = |issuer_mismatch, own_token| {
            Observed { issuer_mismatch, own_token, ..Observed::default() }.complaint()
        };
        let (mismatch, failed) = (Some(Reason::IssuerMismatch), Some(Reason::OwnToken));
        assert_eq!(observed(true, OwnTokenState::Failed), mismatch);
        assert_eq!(observed(false, OwnTokenState::Failed), failed);
        assert_eq!(observed(false, OwnTokenState::Pending), None);
    }
}
