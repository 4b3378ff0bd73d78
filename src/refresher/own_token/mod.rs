//! Pure: whether what is served verifies the gateway's own token.
//!
//! The API server has signed that token with the key that it signs all tokens with. If relying parties
//! cannot verify it with the documents that are served, they cannot verify others either: the API server
//! signs with a key that it does not publish, or the documents are those of another cluster.
//!
//! It is deliberately slow to complain. A token that is older than what is served was signed before a
//! rotation or a migration, and says nothing. While API servers are restarted one after the other, one may
//! sign with a key that another does not list yet. And it withholds nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::documents::{is_issuer, kid};
use crate::jwt::{Jwt, Signature};

/// How long a mismatch must last: longer than a control plane takes to be restarted.
const LASTING: Duration = Duration::from_secs(300);

/// What was found about the token so far.
pub(super) struct OwnToken {
    /// The one that was checked last. There is no `Debug`: it is a secret.
    token: Option<String>,
    issuer: String,
    /// The keys that are served, as text.
    keys: BTreeSet<String>,
    /// When this issuer and these keys were first served.
    since: SystemTime,
    /// When the mismatch began that counts.
    mismatched: Option<Instant>,
}

/// The state of the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is no token of an https issuer, but one of a proxy, or of a Secret.
    NotChecked,
    Verified,
    /// It does not match, and that does not count, or has not lasted long enough.
    Pending(Mismatch),
    Failed(Mismatch),
}

/// What does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    Issuer,
    Kid,
    Signature,
}

impl Mismatch {
    /// The word for the log.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Kid => "kid",
            Self::Signature => "signature",
        }
    }
}

/// The outcome of a check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) state: State,
    /// The token is a new one and does not match: a round may bring what it needs.
    pub(super) wants_round: bool,
    pub(super) token_issuer: Option<String>,
    pub(super) token_kid: Option<String>,
}

impl OwnToken {
    /// `now`: documents of any issuer count as served from then on.
    pub(super) const fn new(now: SystemTime) -> Self {
        Self {
            token: None,
            issuer: String::new(),
            keys: BTreeSet::new(),
            since: now,
            mismatched: None,
        }
    }

    /// Checks `token` after a round that brought what is served: the issuer and the keys.
    pub(super) fn check(
        &mut self,
        token: &str,
        issuer: &str,
        keys: &[&Value],
        (now, date): (Instant, SystemTime),
    ) -> Checked {
        let texts = keys.iter().map(ToString::to_string).collect();
        if self.issuer != issuer || self.keys != texts {
            (self.issuer, self.keys, self.since) = (issuer.to_owned(), texts, date);
        }
        let is_new = self.token.as_deref() != Some(token);
        if is_new {
            self.token = Some(token.to_owned());
        }
        let jwt = Jwt::parse(token).filter(|jwt| jwt.issuer().is_some_and(is_issuer));
        let Some(jwt) = jwt else {
            self.mismatched = None;
            let state = State::NotChecked;
            return Checked { state, wants_round: false, token_issuer: None, token_kid: None };
        };
        let mismatch = mismatch(&jwt, issuer, keys);
        Checked {
            state: self.state(&jwt, mismatch, now),
            wants_round: is_new && mismatch.is_some(),
            token_issuer: jwt.issuer().map(ToOwned::to_owned),
            token_kid: jwt.kid().map(ToOwned::to_owned),
        }
    }

    fn state(&mut self, jwt: &Jwt<'_>, mismatch: Option<Mismatch>, now: Instant) -> State {
        let Some(mismatch) = mismatch else {
            self.mismatched = None;
            return State::Verified;
        };
        if !self.is_later(jwt) {
            self.mismatched = None;
            return State::Pending(mismatch);
        }
        let since = *self.mismatched.get_or_insert(now);
        if now.saturating_duration_since(since) < LASTING {
            State::Pending(mismatch)
        } else {
            State::Failed(mismatch)
        }
    }

    /// Whether it was issued after what is served was first served.
    fn is_later(&self, jwt: &Jwt<'_>) -> bool {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        jwt.issued_at().is_some_and(|issued_at| issued_at > since)
    }

    /// A round brought nothing to check against: a mismatch has to last anew.
    pub(super) const fn interrupt(&mut self) {
        self.mismatched = None;
    }
}

fn mismatch(jwt: &Jwt<'_>, issuer: &str, keys: &[&Value]) -> Option<Mismatch> {
    if jwt.issuer() != Some(issuer) {
        return Some(Mismatch::Issuer);
    }
    let signatures: Vec<_> = keys
        .iter()
        .filter(|key| jwt.kid().is_some() && kid(key) == jwt.kid())
        .map(|key| jwt.signature(key))
        .collect();
    if signatures.is_empty() {
        Some(Mismatch::Kid)
    } else if signatures.iter().all(|signature| *signature == Signature::Invalid) {
        Some(Mismatch::Signature)
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
