//! What the refresher logs, and when.
//!
//! A change is a line. What lasts is a line when it begins, once a minute, and when it ends. What comes
//! and goes, because several API servers differ, is one WARN.
//!
//! Invariant: nothing here decides what is served.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use log::{Level, debug, error, info, log, warn};

use super::alternation::{Alternation, Step};
use super::own_token::{Checked, State};
use crate::documents::{self, Kind, Published};
use crate::key_sets::{self, KeySets};
use crate::logging::line::{cut, milliseconds};
use crate::notices::Notices;
use crate::reason::Reason;
use crate::upstream::Failure;

/// What was logged.
pub(super) struct Report {
    started: Instant,
    notices: Notices<Topic>,
    /// The `kid`s of the key set that is held.
    kids: BTreeSet<String>,
    /// The keys of each round: `kid` and text.
    sets: Alternation<BTreeSet<(String, String)>>,
    /// This round has brought a key set that another API server published lately.
    set_has_returned: bool,
    issuers: Alternation<String>,
    /// The same of the issuer.
    issuer_has_returned: bool,
    /// The issuer and the `jwks_uri` that were last logged.
    published: Option<(String, String)>,
    own_token: Option<State>,
    /// From when on a document could not be served, by kind.
    missing: [Option<Instant>; 2],
}

/// What lasts and is logged now and then.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topic {
    FetchFailed(Kind),
    IssuerMismatch,
    JwksUriElsewhere,
    InternalIssuer,
    KidOfTwo,
    KeyChanged,
    LargeKeySet,
    Panic,
}

impl Report {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            started: now,
            notices: Notices::new(),
            kids: BTreeSet::new(),
            sets: Alternation::new(),
            set_has_returned: false,
            issuers: Alternation::new(),
            issuer_has_returned: false,
            published: None,
            own_token: None,
            missing: [None; 2],
        }
    }

    pub(super) const fn begin_round(&mut self) {
        (self.set_has_returned, self.issuer_has_returned) = (false, false);
    }

    /// When an API server last published another issuer, or key set, than the one before, and one that had
    /// been there lately.
    pub(super) fn differed(&self, kind: Kind) -> Option<Instant> {
        match kind {
            Kind::Discovery => self.issuers.returned(),
            Kind::Jwks => self.sets.returned(),
        }
    }

    /// The level of changes of a document: what was there lately is no news.
    const fn level(&self, kind: Kind) -> Level {
        let has_returned = match kind {
            Kind::Discovery => self.issuer_has_returned,
            Kind::Jwks => self.set_has_returned,
        };
        if has_returned { Level::Debug } else { Level::Info }
    }

    // Rounds.

    pub(super) fn panicked(&mut self, retry_in: Duration) {
        if self.notices.is_due(Topic::Panic, "", Instant::now()) {
            let retry_in_ms = milliseconds(retry_in);
            error!(retry_in_ms; "a round panicked, which is a bug in this program");
        }
    }

    pub(super) fn recovered(&mut self, failed_rounds: u32) {
        // Where API servers that work and that do not are asked in turn, once a minute.
        let failures = [Kind::Discovery, Kind::Jwks].map(Topic::FetchFailed);
        let ended = failures.iter().filter(|topic| self.notices.end(topic)).count();
        let level = if ended > 0 { Level::Info } else { Level::Debug };
        log!(level, failed_rounds; "upstream recovered");
    }

    /// `age` is that of the copy that is served meanwhile.
    pub(super) fn fetch_failed(
        &mut self,
        kind: Kind,
        failure: &Failure,
        age: Option<Duration>,
        retry_in: Duration,
    ) {
        let (reason, hint) = (failure.reason(), failure.hint());
        // Two errors of one kind differ in times and the like.
        let is_due = self.notices.is_due(Topic::FetchFailed(kind), hint, Instant::now());
        let level = match is_due {
            true if failure.exposes_a_key() => Level::Error,
            true => Level::Warn,
            false => Level::Debug,
        };
        let serving = if age.is_some() { "copy" } else { "nothing" };
        let (age_ms, retry_in_ms) = (age.map(milliseconds), milliseconds(retry_in));
        log!(
            level, document = kind.name(), reason = reason.word(), error:% = failure,
            hint, serving, age_ms, retry_in_ms; "fetch failed"
        );
    }

    /// Whether `kind` can be served, and if not, why and for how long it has been too old.
    pub(super) fn serves(&mut self, kind: Kind, missing: Option<(Reason, Option<Duration>)>) {
        let now = Instant::now();
        let started = self.started;
        let [discovery, jwks] = &mut self.missing;
        let since = match kind {
            Kind::Discovery => discovery,
            Kind::Jwks => jwks,
        };
        match (missing, *since) {
            // The first round is under way.
            (Some((Reason::NotFetchedYet, _)), None) | (Some(_), Some(_)) | (None, None) => {}
            (Some((reason, too_old_for)), None) => {
                let begun = too_old_for.map_or(Some(started), |since| now.checked_sub(since));
                *since = Some(begun.unwrap_or(started));
                let hint = "clients get 502: see the last `fetch failed` for the cause";
                error!(document = kind.name(), reason = reason.word(), hint; "nothing to serve");
            }
            (None, Some(begun)) => {
                *since = None;
                let after_ms = milliseconds(now.saturating_duration_since(begun));
                info!(document = kind.name(), after_ms; "served again");
            }
        }
    }

    // The discovery document.

    /// The issuer of a discovery document. `expected` is `ISSUER`; without that a change is a warning.
    pub(super) fn issuer(&mut self, issuer: &str, expected: Option<&str>) {
        let now = Instant::now();
        match self.issuers.note(&issuer.to_owned(), now) {
            Step::Changed(Some(from)) if expected.is_none() => {
                let hint = "relying parties know an issuer byte for byte: tell them, or set ISSUER";
                warn!(from = cut(&from), to = cut(issuer), hint; "issuer changed");
            }
            Step::Returned { from, is_first } => {
                self.issuer_has_returned = true;
                if is_first {
                    let hint = "give all API servers the same first --service-account-issuer";
                    let (one, other) = (cut(&from), cut(issuer));
                    warn!(one, other, hint; "API servers publish different issuers");
                }
            }
            Step::Settled => {
                info!(issuer = cut(issuer); "API servers publish one issuer again");
            }
            Step::Changed(_) | Step::Same => {}
        }
        // While it comes and goes, that was said.
        let Some(expected) = expected.filter(|_| !self.issuers.is_under_way()) else { return };
        if expected == issuer {
            if self.notices.end(&Topic::IssuerMismatch) {
                info!(issuer = cut(issuer); "the issuer is ISSUER again");
            }
        } else if self.notices.is_due(Topic::IssuerMismatch, issuer, now) {
            let hint = match (expected.strip_suffix('/'), issuer.strip_suffix('/')) {
                (Some(expected), _) if expected == issuer => {
                    "they differ in the slash at the end: take it from ISSUER"
                }
                (_, Some(issuer)) if expected == issuer => {
                    "they differ in the slash at the end: add it to ISSUER"
                }
                _ => Reason::IssuerMismatch.hint(),
            };
            error!(
                expected = cut(expected), upstream = cut(issuer), hint;
                "the issuer is not ISSUER, and is served nevertheless"
            );
        }
    }

    /// Logs the issuer and the `jwks_uri` if they differ from those logged last.
    pub(super) fn published(&mut self, published: &Published) {
        let Published { issuer, jwks_uri, because, jwks_path, internal_issuer, .. } = published;
        let now = Some((issuer.clone(), jwks_uri.clone()));
        if self.published == now {
            return;
        }
        self.published = now;
        let (issuer, jwks_uri) = (cut(issuer), cut(jwks_uri));
        log!(self.level(Kind::Discovery), jwks_uri, issuer, reason = *because; "publishing");
        if self.issuer_has_returned {
            return;
        }
        let now = Instant::now();
        if jwks_path.is_none() && self.notices.is_due(Topic::JwksUriElsewhere, &jwks_uri, now) {
            warn!(
                jwks_uri, issuer,
                hint = "relying parties must be able to reach it: point it here, or unset JWKS_URI";
                "jwks_uri is not at the issuer's scheme, host and port"
            );
        }
        if *internal_issuer && self.notices.is_due(Topic::InternalIssuer, &issuer, now) {
            warn!(
                issuer,
                hint = "give kube-apiserver a --service-account-issuer that relying parties can reach";
                "the issuer cannot be reached from outside the cluster"
            );
        }
    }

    pub(super) fn changed(&self, kind: Kind, bytes: usize) {
        log!(self.level(kind), document = kind.name(), bytes; "document changed");
    }

    // The key set.

    /// Notes the keys that upstream lists in this round.
    pub(super) fn listed(&mut self, keys: &[serde_json::Value]) {
        let entry = |key: &serde_json::Value| {
            (documents::kid(key).unwrap_or_default().to_owned(), key_sets::text(key))
        };
        let set: BTreeSet<_> = keys.iter().map(entry).collect();
        match self.sets.note(&set, Instant::now()) {
            Step::Returned { from, is_first } => {
                self.set_has_returned = true;
                if is_first {
                    let differing: BTreeSet<_> =
                        set.symmetric_difference(&from).map(|(kid, _)| kid.as_str()).collect();
                    let hint = "they are being restarted; if this lasts, give all of them the same \
                                --service-account-key-file";
                    let kids = cut(&differing.into_iter().collect::<Vec<_>>().join(" "));
                    warn!(kids, hint; "API servers publish different key sets");
                }
            }
            Step::Settled => info!("API servers publish one key set again"),
            Step::Changed(_) | Step::Same => {}
        }
    }

    /// Logs what is new about the keys that are served. `large` is the length of a set that is large.
    pub(super) fn keys(&mut self, key_sets: &KeySets, before: &KeySets, large: Option<usize>) {
        let kids = key_sets.keys().filter_map(documents::kid).map(ToOwned::to_owned).collect();
        let level = self.level(Kind::Jwks);
        for kid in self.kids.difference(&kids) {
            log!(level, kid = cut(kid); "signing key removed");
        }
        for kid in kids.difference(&self.kids) {
            log!(level, kid = cut(kid); "signing key added");
        }
        self.kids = kids;
        let now = Instant::now();
        for kid in key_sets.changed_kids(before) {
            if !self.set_has_returned && self.notices.is_due(Topic::KeyChanged, kid, now) {
                let hint = "a kid should name one key for ever: relying parties keep keys by it";
                warn!(kid = cut(kid), hint; "signing key changed");
            }
        }
        match key_sets.kid_of_two() {
            Some(kid) if self.notices.is_due(Topic::KidOfTwo, kid, now) => {
                let hint = "both are served, and relying parties may try one of them only";
                warn!(kid = cut(kid), hint; "two signing keys have one kid");
            }
            Some(_) => {}
            None if self.notices.end(&Topic::KidOfTwo) => {
                info!("each signing key has a kid of its own again");
            }
            None => {}
        }
        match large {
            Some(bytes) if self.notices.is_due(Topic::LargeKeySet, "", now) => {
                let hint =
                    "relying parties with Nimbus refuse more than 51200 bytes: remove old keys";
                warn!(bytes, hint; "the key set is large, and served without indentation");
            }
            Some(_) => {}
            None if self.notices.end(&Topic::LargeKeySet) => {
                info!("the key set is no longer large");
            }
            None => {}
        }
    }

    // The gateway's own token.

    pub(super) fn own_token(&mut self, checked: &Checked, issuer: &str) {
        let Checked { state, token_issuer, token_kid, .. } = checked;
        let [token_issuer, kid] = [token_issuer, token_kid].map(|it| it.as_deref().map(cut));
        let before = self.own_token.replace(*state);
        if before == Some(*state)
            || matches!((before, state), (Some(State::Failed(_)), State::Failed(_)))
        {
            return;
        }
        match (before, state) {
            (_, State::NotChecked) => {
                let reason = "it is no JWT with an https issuer";
                info!(reason; "the gateway's own token is not checked");
            }
            (_, State::Failed(mismatch)) => {
                let hint = Reason::OwnToken.hint();
                let issuer = cut(issuer);
                error!(
                    mismatch = mismatch.word(), kid, token_issuer, issuer, hint;
                    "what is served does not verify the gateway's own token"
                );
            }
            (Some(State::Failed(_)), State::Verified) => {
                info!(kid; "what is served verifies the gateway's own token again");
            }
            (_, State::Pending(mismatch)) => {
                debug!(mismatch = mismatch.word(), kid, token_issuer; "own token not verified yet");
            }
            (_, State::Verified) => debug!(kid; "own token verified"),
        }
    }
}
