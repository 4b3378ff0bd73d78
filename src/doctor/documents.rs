//! Pure: what the two answers say, whoever the relying party is.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::finding::{Finding, Level};
use super::visit::Answer;
use crate::documents::{self, Kind, Refused};
use crate::jwt;
use crate::url::{HttpsUrl, is_internal};

/// An answer that takes longer is late for the least patient relying party measured (Nimbus, 0.5 s).
const SLOW: Duration = Duration::from_millis(400);

/// The most keys that are named in one line, and the most lines about keys.
const MOST_NAMED: usize = 8;
const MOST_KEY_FINDINGS: usize = 20;

/// Findings about an answer, and whether it may hold the document.
pub(super) fn answer(kind: Kind, answer: &Answer, is_public: bool) -> (Vec<Finding>, bool) {
    let name = kind.name();
    if let 300..=399 = answer.status
        && answer.status != 304
    {
        let to = answer.header("Location").unwrap_or("nowhere");
        let says = format!("{} redirects to {to}", answer.status);
        let what_to_do = "serve the document at this very URL: jose, openid-client, jwks-rsa, \
                          aws-jwt-verify, PyJWT and Envoy follow no redirect, and nor does doctor";
        return (vec![Finding::failure(name, says, what_to_do)], false);
    }
    if answer.status != 200 {
        let says = format!("the answer is {}", answer.status);
        let what_to_do = match answer.status {
            401 | 403 => "let everybody read it without signing in",
            404 => {
                "lead this path to the gateway; an issuer with a path has its documents below it"
            }
            502..=504 => {
                "see the gateway's /status: what stands in front of it, or it, has nothing to serve"
            }
            _ => "the answer must be 200",
        };
        return (vec![Finding::failure(name, says, what_to_do)], false);
    }
    let mut findings = Vec::new();
    let content_type = answer.header("Content-Type").unwrap_or("no Content-Type");
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = media_type == "application/json"
        || kind == Kind::Jwks && media_type == "application/jwk-set+json";
    if media_type == "text/html" || answer.body.trim_ascii_start().starts_with(b"<") {
        let says = format!("it is HTML ({content_type}) and not the document, with status 200");
        let what_to_do = "a sign-in page, or a page of a proxy, answers in the gateway's place: let this \
                          path through to it";
        return (vec![Finding::failure(name, says, what_to_do)], false);
    }
    if !is_json {
        let says = format!("its Content-Type: {content_type:?}");
        let what_to_do = format!("send {}: some relying parties refuse others", kind.media_type());
        findings.push(Finding::warning(name, says, what_to_do));
    }
    if let Some(encoding) = answer.header("Content-Encoding").filter(|it| *it != "identity") {
        let says = format!("it is compressed ({encoding}) for a client that did not ask for it");
        let what_to_do =
            "compress only for clients that send Accept-Encoding: most libraries cannot read it";
        findings.push(Finding::failure(name, says, what_to_do));
        return (findings, false);
    }
    let took = format!("{} ms", answer.took.as_millis());
    if is_public && answer.took > SLOW {
        let says = format!("the answer took {took}");
        findings.push(Finding::warning(name, says, "Nimbus gives up after 500 ms"));
    }
    let maximum = answer.header("Cache-Control").unwrap_or("without Cache-Control");
    let bytes = answer.bytes;
    findings
        .push(Finding::ok(name, format!("200, {content_type}, {bytes} bytes, {took}, {maximum}")));
    (findings, true)
}

/// Findings about the discovery document for the issuer `asked`, if it is known, and the document with its
/// `jwks_uri`.
pub(super) fn discovery(
    body: &[u8],
    asked: Option<&str>,
) -> (Vec<Finding>, Option<(Value, String)>) {
    let value = match crate::json::parse(body) {
        Ok(value) if value.is_object() => value,
        Ok(_) => {
            let failure = Finding::failure("discovery", "it is not a JSON object", CHECK_SERVER);
            return (vec![failure], None);
        }
        Err(error) => {
            let failure = Finding::failure("discovery", error.to_string(), CHECK_SERVER);
            return (vec![failure], None);
        }
    };
    let mut findings = vec![match (value.get("issuer").and_then(Value::as_str), asked) {
        (Some(issuer), Some(asked)) if issuer == asked => {
            Finding::ok("issuer", format!("{issuer}, byte for byte"))
        }
        (Some(issuer), Some(asked)) => differs(asked, issuer),
        (Some(issuer), None) => {
            Finding::ok("issuer", format!("{issuer}, and none to compare with"))
        }
        (None, _) => Finding::failure("issuer", "the document has no issuer", CHECK_SERVER),
    }];
    let jwks_uri = value.get("jwks_uri").and_then(Value::as_str).map(ToOwned::to_owned);
    let Some(jwks_uri) = jwks_uri else {
        findings.push(Finding::failure("jwks_uri", "the document has none", CHECK_SERVER));
        return (findings, None);
    };
    let Some(parsed) = HttpsUrl::parse(&jwks_uri) else {
        let says = format!("{jwks_uri} is not an https URL");
        findings.push(Finding::failure("jwks_uri", says, "set JWKS_URI=auto"));
        return (findings, None);
    };
    findings.push(if is_internal(&parsed.host) {
        let says = format!("{jwks_uri} cannot be reached from outside the cluster");
        let what_to_do = "set JWKS_URI=auto (the gateway then publishes one at the issuer's host), or \
                          kube-apiserver's --service-account-jwks-uri to a URL that can be reached";
        Finding::failure("jwks_uri", says, what_to_do)
    } else {
        Finding::ok("jwks_uri", jwks_uri.clone())
    });
    (findings, Some((value, jwks_uri)))
}

const CHECK_SERVER: &str = "see what answers there: it is not a discovery document";

/// Shows where two issuers differ, and names the slash.
fn differs(asked: &str, issuer: &str) -> Finding {
    let says = if asked.strip_suffix('/') == Some(issuer) {
        format!("the document has {issuer}, without the slash at the end of {asked}")
    } else if issuer.strip_suffix('/') == Some(asked) {
        format!("the document has {issuer}, with a slash at the end, which {asked} lacks")
    } else {
        let mut at =
            asked.bytes().zip(issuer.bytes()).take_while(|(one, other)| one == other).count();
        while !asked.is_char_boundary(at) || !issuer.is_char_boundary(at) {
            at -= 1;
        }
        let rest = |text: &str| {
            let rest: String = text.get(at..).unwrap_or_default().chars().take(24).collect();
            if rest.is_empty() { "nothing".to_owned() } else { format!("{rest:?}") }
        };
        format!(
            "the document has {issuer}, and not {asked}: from byte {} on {} and not {}",
            at + 1,
            rest(issuer),
            rest(asked)
        )
    };
    let what_to_do = "relying parties compare byte for byte: give them the document's, or change \
                      kube-apiserver's first --service-account-issuer";
    Finding::failure("issuer", says, what_to_do)
}

/// Findings about the key set, and its keys.
pub(super) fn keys(body: &[u8]) -> (Vec<Finding>, Option<Vec<Value>>) {
    let jwks = match documents::check_jwks(body) {
        Ok(jwks) => jwks,
        Err(refused) => {
            let is_private =
                matches!(refused, Refused::SymmetricKey(_) | Refused::PrivateMember(..));
            let what_to_do = if is_private {
                "a private key is public: whoever has read it can sign tokens. Sign with a new key"
            } else {
                "see what answers there: it is not a key set"
            };
            return (vec![Finding::failure("keys", refused.to_string(), what_to_do)], None);
        }
    };
    let mut findings = Vec::new();
    let mut kids = BTreeMap::<&str, usize>::new();
    let mut without_kid = 0_usize;
    for (at, key) in jwks.keys.iter().enumerate() {
        let kid = documents::kid(key);
        let name = kid.map_or_else(|| format!("keys[{at}]"), ToOwned::to_owned);
        match kid {
            Some(kid) => *kids.entry(kid).or_default() += 1,
            None => without_kid += 1,
        }
        findings.extend(key_findings(key, &name));
    }
    if without_kid > 0 {
        let what_to_do =
            "tokens name their key by kid: one without is found by few relying parties";
        findings.push(Finding::warning("keys", format!("{without_kid} without a kid"), what_to_do));
    }
    for (kid, count) in kids.iter().filter(|(_, count)| **count > 1) {
        let says = format!("{kid} is listed {count} times");
        let what_to_do = "jose, openid-client and openidconnect-rs refuse that key: name each key in one \
                          --service-account-key-file only, or let the gateway serve the set, which lists it once";
        findings.push(Finding::failure("keys", says, what_to_do));
    }
    if super::finding::is_good(&findings) {
        let named = |key: &Value| {
            let text = |name| key.get(name).and_then(Value::as_str).unwrap_or_default();
            let alg = if text("alg").is_empty() { text("kty") } else { text("alg") };
            format!("{} ({alg})", text("kid"))
        };
        let names: Vec<_> = jwks.keys.iter().take(MOST_NAMED).map(named).collect();
        let others = jwks.keys.len().saturating_sub(MOST_NAMED);
        let others = if others > 0 { format!(" and {others} more") } else { String::new() };
        findings.push(Finding::ok("keys", format!("{}{others}", names.join(", "))));
    }
    // The worst first, so that none of them is left out for lesser ones.
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
    if findings.len() > MOST_KEY_FINDINGS {
        let others = findings.split_off(MOST_KEY_FINDINGS);
        let worst = others.iter().map(|it| it.level).max().unwrap_or(Level::Warning);
        let says = format!("{} more about other keys", others.len());
        findings
            .push(Finding { level: worst, ..Finding::warning("keys", says, "mend these first") });
    }
    (findings, Some(jwks.keys))
}

/// Findings about one key, which is called `name`.
fn key_findings(key: &Value, name: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let member = |name| key.get(name).and_then(Value::as_str);
    if member("use").is_some_and(|it| it != "sig") {
        let what_to_do =
            "publish it with \"use\": \"sig\", or not at all: some relying parties skip it";
        findings.push(Finding::warning(
            "keys",
            format!("{name} is not for signatures"),
            what_to_do,
        ));
    }
    if let Some(alg) = member("alg").filter(|alg| !fits(alg, member("kty"), member("crv"))) {
        let says = format!("{name}: its alg {alg} does not fit its kty and crv");
        findings.push(Finding::failure(
            "keys",
            says,
            "publish the key with the alg that it signs with",
        ));
    }
    if let Some(fault) = jwt::key_fault(key) {
        let what_to_do =
            "take the key out of --service-account-key-file, and sign with another one";
        findings.push(Finding::failure("keys", format!("{name}: {fault}"), what_to_do));
    }
    findings
}

/// Whether a key of this type can have that algorithm: RFC 7518 §3.1, RFC 8037 §3.1. What is not known fits.
fn fits(alg: &str, kty: Option<&str>, crv: Option<&str>) -> bool {
    match alg {
        "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" => kty == Some("RSA"),
        "ES256" => (kty, crv) == (Some("EC"), Some("P-256")),
        "ES384" => (kty, crv) == (Some("EC"), Some("P-384")),
        "ES512" => (kty, crv) == (Some("EC"), Some("P-521")),
        "EdDSA" | "Ed25519" => kty == Some("OKP"),
        _ => !alg.starts_with("HS") && alg != "none",
    }
}

/// A warning when a key's algorithm is not among those that the discovery document has.
pub(super) fn algorithms(discovery: &Value, keys: &[Value]) -> Option<Finding> {
    let listed = discovery.get("id_token_signing_alg_values_supported")?.as_array()?;
    let algs = keys.iter().filter_map(|key| key.get("alg"));
    let missing = algs.filter(|alg| !listed.contains(alg)).find_map(Value::as_str)?;
    let says =
        format!("{missing} is the alg of a key, and the discovery document does not list it");
    let what_to_do = "go-oidc and what is built on it accept the listed algorithms only: see where the document \
                      comes from, and DISCOVERY_DEFAULTS";
    Some(Finding::warning("keys", says, what_to_do))
}

/// Findings about HEAD, and about a request with the entity tag of `got`.
pub(super) fn conditional(
    got: &Answer,
    head: Result<&Answer, &String>,
    not_modified: Option<Result<&Answer, &String>>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match head {
        Ok(head) if head.status == 200 && head.body.is_empty() => Finding::ok("HEAD", "200"),
        Ok(head) => {
            let says = format!("HEAD gets {}, where GET gets {}", head.status, got.status);
            Finding::warning("HEAD", says, "monitors and caches ask by HEAD: let it through")
        }
        Err(error) => Finding::warning("HEAD", error.as_str(), "let HEAD through"),
    });
    let what_to_do = "pass ETag and If-None-Match through, so that caches need not fetch again";
    findings.push(match not_modified {
        None => Finding::warning("304", "the answer has no ETag", what_to_do),
        Some(Ok(answer)) if answer.status == 304 => Finding::ok("304", "for If-None-Match"),
        Some(Ok(answer)) => {
            let says = format!("a request with the ETag gets {}", answer.status);
            Finding::warning("304", says, what_to_do)
        }
        Some(Err(error)) => Finding::warning("304", error.as_str(), what_to_do),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::super::finding::is_good;
    use super::*;

    fn answered(status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let took = Duration::from_millis(3);
        Answer {
            status,
            headers: headers.collect(),
            body: body.into(),
            bytes: body.len(),
            took,
            has_tls_1_2: true,
        }
    }

    #[test]
    fn an_answer_that_no_relying_party_takes_is_named() {
        let json = [("Content-Type", "application/json")];
        let html = [("Content-Type", "text/html; charset=utf-8")];
        for (given, expected, is_usable) in [
            (answered(200, &json, "{}"), "200, application/json, 2 bytes, 3 ms", true),
            (answered(301, &[("Location", "https://b")], ""), "301 redirects to https://b", false),
            (answered(200, &html, "<html>"), "it is HTML", false),
            (answered(200, &json, " <!doctype html>"), "it is HTML", false),
            (answered(403, &json, "{}"), "the answer is 403", false),
            (
                answered(200, &[json[0], ("content-encoding", "gzip")], "x"),
                "compressed (gzip)",
                false,
            ),
            (answered(200, &[("Content-Type", "text/plain")], "{}"), "\"text/plain\"", true),
        ] {
            let (findings, usable) = answer(Kind::Discovery, &given, true);
            assert_eq!(usable, is_usable, "{expected}");
            assert!(
                findings.iter().any(|it| it.says.contains(expected)),
                "{expected}: {findings:?}"
            );
        }
    }

    #[test]
    fn where_two_issuers_differ_is_shown() {
        for (asked, issuer, expected) in [
            ("https://a/", "https://a", "without the slash at the end"),
            ("https://a", "https://a/", "with a slash at the end, which https://a lacks"),
            ("https://a.example/b", "https://a.example/c", "from byte 19 on \"c\" and not \"b\""),
            ("https://a", "https://a.b", "from byte 10 on \".b\" and not nothing"),
            ("https://ä", "https://ö", "from byte 9 on \"ö\" and not \"ä\""),
        ] {
            let body = format!(r#"{{"issuer":"{issuer}","jwks_uri":"https://a.example/k"}}"#);
            let (findings, _) = discovery(body.as_bytes(), Some(asked));
            assert!(findings[0].says.contains(expected), "{asked} {issuer}: {findings:?}");
            assert_eq!(findings[0].level, Level::Failure);
        }
    }

    #[test]
    fn an_internal_jwks_uri_is_a_failure() {
        for (uri, is_good_one) in [
            ("https://a.example/k", true),
            ("https://10.0.0.1:6443/k", false),
            ("https://kubernetes.default.svc/k", false),
            ("http://a.example/k", false),
        ] {
            let body = format!(r#"{{"issuer":"https://a.example","jwks_uri":"{uri}"}}"#);
            let (findings, _) = discovery(body.as_bytes(), Some("https://a.example"));
            assert_eq!(is_good(&findings), is_good_one, "{uri}: {findings:?}");
        }
    }

    #[test]
    fn keys_are_public_decodable_and_listed_once() {
        let ec = r#"{"kty":"EC","crv":"P-256","kid":"a","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}"#;
        let off_curve = ec.replace("FyM", "FyQ");
        let set = |keys: &[&str]| format!(r#"{{"keys":[{}]}}"#, keys.join(","));
        for (body, expected) in [
            (set(&[ec]), "a (EC)"),
            (set(&[ec, ec]), "a is listed 2 times"),
            (set(&[&off_curve]), "a: its point is not on its curve"),
            (set(&[&ec.replace("P-256", "P-999")]), "a: its curve P-999 is not known"),
            (set(&[&ec.replace("\"kid\":\"a\",", "")]), "1 without a kid"),
            (
                set(&[&ec.replace("\"kty\"", "\"alg\":\"RS256\",\"kty\"")]),
                "a: its alg RS256 does not fit",
            ),
            (set(&[&ec.replace("\"kty\"", "\"use\":\"enc\",\"kty\"")]), "a is not for signatures"),
            (set(&[r#"{"kty":"RSA","kid":"r","n":"AQAB","e":"AQAB"}"#]), "r: it has 17 bits"),
            (set(&[r#"{"kty":"oct","k":"AA"}"#]), "keys[0] is a symmetric key"),
            ("{}".to_owned(), "its member keys is not an array"),
        ] {
            let (findings, _) = keys(body.as_bytes());
            assert!(
                findings.iter().any(|it| it.says.contains(expected)),
                "{expected}: {findings:?}"
            );
        }
    }
}
