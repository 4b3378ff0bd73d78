//! Pure: would a token be accepted? The token itself is never part of a sentence.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::finding::Finding;
use crate::documents::kid;
use crate::jwt::{Jwt, Signature};

const SUBJECT: &str = "token";
/// The end of the year 9999: RFC 3339 has no date after it.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

/// Findings about `token` for what is served: the issuer and the keys.
pub(super) fn findings(token: &str, issuer: &str, keys: &[Value], now: SystemTime) -> Vec<Finding> {
    let Some(jwt) = Jwt::parse(token.trim()) else {
        let what_to_do = "give one that `kubectl create token` prints";
        return vec![Finding::failure(SUBJECT, "it is not a JWT in its compact form", what_to_do)];
    };
    let mut findings = Vec::new();
    findings.push(match jwt.issuer() {
        Some(its) if its == issuer => Finding::ok(SUBJECT, format!("its issuer is {issuer}")),
        Some(its) => {
            let says = format!("its issuer is {its}, and the document's is {issuer}");
            let what_to_do = "it comes from another cluster, or from before the issuer was changed";
            Finding::failure(SUBJECT, says, what_to_do)
        }
        None => Finding::failure(SUBJECT, "it names no issuer", "give one of this cluster"),
    });
    findings.push(signature(&jwt, keys));
    findings.push(time(&jwt, now));
    let audience = match jwt.claim("aud") {
        Some(Value::String(one)) => one.clone(),
        Some(Value::Array(several)) => {
            several.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    };
    findings.push(if audience.is_empty() {
        let what_to_do = "ask for one with an audience: kubectl create token --audience";
        Finding::warning(SUBJECT, "it is for no audience", what_to_do)
    } else {
        Finding::ok(
            SUBJECT,
            format!("it is for {audience}: the relying party must expect one of these"),
        )
    });
    findings
}

/// Which of `keys` has signed a token, and by which algorithm; where none has, as far as is known here, it is the first
/// of its kid.
pub(super) fn signer(token: &str, keys: &[Value]) -> Option<(usize, String)> {
    let jwt = Jwt::parse(token.trim())?;
    let is_named = |key: &&Value| kid(key) == jwt.kid();
    let signed = |key: &Value| is_named(&key) && jwt.signature(key) == Signature::Valid;
    let at = keys.iter().position(signed).or_else(|| keys.iter().position(|key| is_named(&key)))?;
    Some((at, jwt.algorithm()?.to_owned()))
}

fn signature(jwt: &Jwt<'_>, keys: &[Value]) -> Finding {
    if jwt.algorithm().is_none_or(|alg| alg == "none" || alg.starts_with("HS")) {
        let says = format!("its alg is {}", jwt.algorithm().unwrap_or("missing"));
        let what_to_do =
            "no relying party should accept it: kube-apiserver signs with RS256 or ES256";
        return Finding::failure(SUBJECT, says, what_to_do);
    }
    let Some(its) = jwt.kid() else {
        let what_to_do = "kube-apiserver names its key by kid: find out who signed it";
        return Finding::failure(SUBJECT, "it names no kid", what_to_do);
    };
    let outcomes: Vec<_> =
        keys.iter().filter(|key| kid(key) == Some(its)).map(|key| jwt.signature(key)).collect();
    if outcomes.contains(&Signature::Valid) {
        Finding::ok(SUBJECT, format!("signed by {its}, which is in the key set"))
    } else if outcomes.is_empty() {
        let says = format!("its key {its} is not in the key set");
        let what_to_do = "publish the public key of --service-account-signing-key-file by \
                          --service-account-key-file on every API server, or wait until caches have it";
        Finding::failure(SUBJECT, says, what_to_do)
    } else if outcomes.contains(&Signature::Unknown) {
        let says = format!("its algorithm is not known here, and its key {its} is in the key set");
        Finding::warning(SUBJECT, says, "ask the relying party whether it knows the algorithm")
    } else {
        let says = format!("the key {its} of the key set has not signed it");
        Finding::failure(SUBJECT, says, "one kid names two keys, or the token was changed")
    }
}

/// RFC 7519 §4.1.4 and §4.1.5.
fn time(jwt: &Jwt<'_>, now: SystemTime) -> Finding {
    let at = |since: Duration| SystemTime::UNIX_EPOCH.checked_add(since);
    let (expires, begins) = (jwt.date("exp"), jwt.date("nbf"));
    for (name, date) in [("exp", expires), ("nbf", begins)] {
        if date == Some(None) {
            let says = format!("its {name} is not a number of seconds");
            return Finding::failure(SUBJECT, says, "use a token of `kubectl create token`");
        }
    }
    let Some(expires) = expires.flatten() else {
        let what_to_do = "AWS, Google and Entra ask for exp: use `kubectl create token`, not a token of a Secret";
        return Finding::warning(SUBJECT, "it never expires", what_to_do);
    };
    let Some(end) = at(expires.min(LAST_DATE)) else {
        return Finding::warning(SUBJECT, "it never expires", "use a token that does");
    };
    let written = humantime::format_rfc3339_seconds(end);
    if end <= now {
        return Finding::failure(SUBJECT, format!("it has expired, at {written}"), "use a new one");
    }
    if begins.flatten().and_then(at).is_some_and(|begins| begins > now) {
        let what_to_do = "set the clocks of the API server and of this machine";
        return Finding::failure(SUBJECT, "it is not valid yet", what_to_do);
    }
    Finding::ok(SUBJECT, format!("it is valid until {written}"))
}
