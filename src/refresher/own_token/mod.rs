//! Pure: whether what is served verifies the gateway's own token.
//!
//! The API server has signed that token with the key that it signs all tokens with. If relying parties
//! cannot verify it with the documents that are served, they cannot verify others either: the API server
//! signs with a key that it does not publish, or the documents are those of another cluster.
//!
//! It is deliberately slow to complain. A token that is not clearly newer than what is served may have been
//! signed before a rotation or a migration, and says nothing. While API servers are restarted one after the
//! other, one may sign with a key that another does not list yet. And it withholds nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::documents::{is_issuer, kid};
use crate::jwt::{Jwt, Signature};
use crate::key_sets;

/// How long a mismatch must last, and how much later than what is served the token must have been issued: longer
/// than a control plane takes to be restarted. While that goes on, an API server may still issue what another one
/// no longer serves; and clocks differ.
const LASTING: Duration = Duration::from_secs(300);
/// The most issuers and key sets that are remembered: a control plane has three or five API servers.
const MOST_SERVED: usize = 8;

/// What was found about the token so far.
pub(super) struct OwnToken {
    /// The one that was checked last. There is no `Debug`: it is a secret.
    token: Option<String>,
    /// What was served: the last one at the end.
    served: Vec<Served>,
    /// How long the mismatch that counts has lasted, without the rounds that failed.
    lasted: Duration,
    /// When that was last seen; `None`: the last round failed, or did not see it.
    seen: Option<Instant>,
    /// That of the last check; a failure lasts until the token is verified.
    state: State,
}

/// An issuer and keys, and when they were first served together.
struct Served {
    issuer: String,
    /// As [`key_sets::text`] has them.
    keys: BTreeSet<String>,
    since: SystemTime,
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
    pub(super) const fn new() -> Self {
        Self {
            token: None,
            served: Vec::new(),
            lasted: Duration::ZERO,
            seen: None,
            state: State::NotChecked,
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
        let since = self.first_served(issuer, keys, date);
        let is_new = self.token.as_deref() != Some(token);
        if is_new {
            self.token = Some(token.to_owned());
        }
        let jwt = Jwt::parse(token).filter(|jwt| jwt.issuer().is_some_and(is_issuer));
        let Some(jwt) = jwt else {
            self.state = self.end(State::NotChecked);
            let state = self.state;
            return Checked { state, wants_round: false, token_issuer: None, token_kid: None };
        };
        let mismatch = mismatch(&jwt, issuer, keys);
        self.state = self.next_state(&jwt, mismatch, since, now);
        Checked {
            state: self.state,
            wants_round: is_new && mismatch.is_some(),
            token_issuer: jwt.issuer().map(ToOwned::to_owned),
            token_kid: jwt.kid().map(ToOwned::to_owned),
        }
    }

    /// When this issuer and these keys were first served.
    fn first_served(&mut self, issuer: &str, keys: &[&Value], date: SystemTime) -> SystemTime {
        let keys: BTreeSet<_> = keys.iter().map(|key| key_sets::text(key)).collect();
        let known = self.served.iter().position(|it| it.issuer == issuer && it.keys == keys);
        let served = match known {
            Some(at) => self.served.remove(at),
            None => Served { issuer: issuer.to_owned(), keys, since: date },
        };
        let since = served.since;
        if self.served.len() == MOST_SERVED {
            self.served.remove(0);
        }
        self.served.push(served);
        since
    }

    fn next_state(
        &mut self,
        jwt: &Jwt<'_>,
        mismatch: Option<Mismatch>,
        since: SystemTime,
        now: Instant,
    ) -> State {
        let Some(mismatch) = mismatch else {
            return self.end(State::Verified);
        };
        if !is_later(jwt, since) {
            self.lasted = Duration::ZERO;
            self.seen = None;
        } else if let Some(seen) = self.seen.replace(now) {
            self.lasted += now.saturating_duration_since(seen);
        }
        if self.lasted >= LASTING || matches!(self.state, State::Failed(_)) {
            State::Failed(mismatch)
        } else {
            State::Pending(mismatch)
        }
    }

    /// The state after the last check.
    pub(super) const fn state(&self) -> State {
        self.state
    }

    /// A round brought nothing to check against: its time does not count.
    pub(super) const fn interrupt(&mut self) {
        self.seen = None;
    }

    const fn end(&mut self, state: State) -> State {
        (self.lasted, self.seen) = (Duration::ZERO, None);
        state
    }
}

/// Whether it was issued after what has been served since then.
fn is_later(jwt: &Jwt<'_>, since: SystemTime) -> bool {
    let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    jwt.issued_at().is_some_and(|issued_at| issued_at > since + LASTING)
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
