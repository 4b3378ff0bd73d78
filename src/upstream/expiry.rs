//! Pure: what will expire soon, and when to say so.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::jwt::Jwt;

/// A certificate is reported when less than this and less than a third of its lifetime is left: enough
/// to renew it by hand, and not yet where a tool renews it, mostly at two thirds.
const CERTIFICATE_NOTICE: Duration = Duration::from_secs(30 * 86_400);
/// The end of the year 9999, in seconds since the epoch: RFC 3339 has no date after it.
const LAST_DATE: u64 = 253_402_300_799;
/// A line once a day.
const EVERY: Duration = Duration::from_secs(86_400);

/// Where a block is: both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) block: usize,
    /// The line of its BEGIN.
    pub(crate) line: usize,
}

/// What can expire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The certificate that the API server showed last.
    Server,
    /// A CA of the bundle.
    Anchor(Place),
    Token,
}

impl Subject {
    /// The word for metrics and `/status`.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Server => "api_server",
            Self::Anchor(_) => "ca",
            Self::Token => "token",
        }
    }

    /// The number of a CA's block; `None` for the others.
    pub(crate) const fn block(self) -> Option<usize> {
        match self {
            Self::Anchor(place) => Some(place.block),
            Self::Server | Self::Token => None,
        }
    }
}

/// Until when something is valid, and from when on it should have been renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) not_after: SystemTime,
    pub(crate) renewal_due: SystemTime,
}

impl Validity {
    /// That of a certificate; both since the epoch.
    pub(crate) fn of_certificate(not_before: Duration, not_after: Duration) -> Self {
        let third = not_after.saturating_sub(not_before) / 3;
        let renewal_due = not_after.saturating_sub(third.min(CERTIFICATE_NOTICE));
        let [not_after, renewal_due] =
            [not_after, renewal_due].map(|at| SystemTime::UNIX_EPOCH + at);
        Self { not_after, renewal_due }
    }

    /// That of a service account token, if it is a JWT that says so: RFC 7519 §4.1. `warnafter` is
    /// when Kubernetes expects it to have been renewed; without that a tenth of its lifetime is, since
    /// the kubelet renews it at four fifths.
    pub(super) fn of_token(token: &str) -> Option<Self> {
        let jwt = Jwt::parse(token)?;
        let seconds = |claim: &Value| {
            claim.as_u64().filter(|seconds| *seconds <= LAST_DATE).map(Duration::from_secs)
        };
        let (begin, end) = (seconds(jwt.claim("iat")?)?, seconds(jwt.claim("exp")?)?);
        let warn_after = jwt.claim("kubernetes.io").and_then(|it| seconds(it.get("warnafter")?));
        let tenth = end.saturating_sub(begin) / 10;
        let renewal_due = warn_after.unwrap_or_else(|| end.saturating_sub(tenth));
        let not_after = SystemTime::UNIX_EPOCH.checked_add(end)?;
        Some(Self { not_after, renewal_due: SystemTime::UNIX_EPOCH.checked_add(renewal_due)? })
    }
}

/// How something is at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    EndsSoon,
    Over,
}

/// Remembers what was reported, so that each subject is at most once a day. Several API servers behind one
/// address have certificates with different ends, and are seen in turn.
#[derive(Default)]
pub(super) struct Reports {
    /// When, by subject and end.
    last: BTreeMap<(Subject, SystemTime), SystemTime>,
}

impl Reports {
    /// Whether `subject` is to be reported now, and as what; another end is another report.
    pub(super) fn due(
        &mut self,
        subject: Subject,
        validity: Validity,
        now: SystemTime,
    ) -> Option<State> {
        let Validity { not_after, renewal_due } = validity;
        if now < renewal_due {
            return None;
        }
        self.last.retain(|_, at| now.duration_since(*at).is_ok_and(|since| since < EVERY));
        if self.last.contains_key(&(subject, not_after)) {
            return None;
        }
        self.last.insert((subject, not_after), now);
        Some(if now < not_after { State::EndsSoon } else { State::Over })
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(days: u32) -> SystemTime {
        SystemTime::UNIX_EPOCH + DAY * days
    }

    #[test]
    fn a_certificate_is_reported_when_its_end_is_near_and_once_a_day() {
        for (lifetime, first) in [(365, 335), (90, 60), (30, 20), (3, 2)] {
            let validity = Validity::of_certificate(Duration::ZERO, DAY * lifetime);
            let mut reports = Reports::default();
            let before = at(first) - Duration::from_secs(1);
            assert_eq!(reports.due(Subject::Server, validity, before), None, "{lifetime}");
            let soon = Some(State::EndsSoon);
            assert_eq!(reports.due(Subject::Server, validity, at(first)), soon, "{lifetime}");
            let later = at(first) + DAY - Duration::from_secs(1);
            assert_eq!(reports.due(Subject::Server, validity, later), None);
            let next_day = reports.due(Subject::Server, validity, at(first) + DAY);
            let expected = if first + 1 < lifetime { State::EndsSoon } else { State::Over };
            assert_eq!(next_day, Some(expected), "{lifetime}");
        }
    }

    #[test]
    fn a_renewed_one_is_another_and_subjects_do_not_share_a_day() {
        let validity = Validity::of_certificate(Duration::ZERO, DAY * 365);
        let renewed = Validity::of_certificate(Duration::ZERO, DAY * 366);
        let mut reports = Reports::default();
        let anchor = Subject::Anchor(Place { block: 1, line: 1 });
        for (subject, validity, expected) in [
            (Subject::Server, validity, Some(State::EndsSoon)),
            (anchor, validity, Some(State::EndsSoon)),
            (Subject::Server, validity, None),
            (Subject::Server, renewed, Some(State::EndsSoon)),
        ] {
            assert_eq!(reports.due(subject, validity, at(350)), expected);
        }
    }

    #[test]
    fn two_servers_in_turn_are_each_reported_once_a_day() {
        let [one, two, good] =
            [365, 366, 999].map(|days| Validity::of_certificate(Duration::ZERO, DAY * days));
        let mut reports = Reports::default();
        let mut lines = 0;
        for second in 0..100_u32 {
            for validity in [one, good, two] {
                let now = at(350) + Duration::from_secs(second.into());
                lines += usize::from(reports.due(Subject::Server, validity, now).is_some());
            }
        }
        assert_eq!(lines, 2);
    }

    #[test]
    fn metrics_and_status_name_what_expires_and_the_block_of_a_ca() {
        for (subject, expected) in [
            (Subject::Server, ("api_server", None)),
            (Subject::Anchor(Place { block: 2, line: 30 }), ("ca", Some(2))),
            (Subject::Token, ("token", None)),
        ] {
            assert_eq!((subject.word(), subject.block()), expected);
        }
    }

    #[test]
    fn a_token_ends_when_its_claims_say_so() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        for (claims, expected) in [
            (r#"{"iat":1000,"exp":2000}"#, Some((2000, 1900))),
            (r#"{"iat":1000,"exp":9000,"kubernetes.io":{"warnafter":4607}}"#, Some((9000, 4607))),
            (r#"{"iat":799,"exp":253402300799}"#, Some((253_402_300_799, 228_062_070_799))),
            (r#"{"exp":2000}"#, None),
            (r#"{"iat":1000,"exp":-1}"#, None),
            (r#"{"iat":1000,"exp":18446744073709551615}"#, None),
            (r#"{"iat":1000,"exp":253402300800}"#, None),
            ("{", None),
        ] {
            let validity = Validity::of_token(&token(claims)).map(|it| {
                [it.not_after, it.renewal_due]
                    .map(|at| at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
            });
            assert_eq!(validity, expected.map(|(end, notice)| [end, notice]), "{claims}");
        }
        for token in ["", "opaque", "a.b.c", "..", "a.e30.c"] {
            assert_eq!(Validity::of_token(token), None, "{token}");
        }
    }
}
