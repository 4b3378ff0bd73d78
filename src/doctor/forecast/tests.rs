//! What each relying party will refuse; `tests/doctor/forecasts` asks the real ones.

use std::collections::BTreeMap;

use serde_json::json;
use testing::certificates::{named, self_signed};

use super::*;
use crate::doctor::relying_parties::{RELYING_PARTIES as ALL, named as party};

/// What a case changes of an answer that everybody accepts.
struct Case {
    issuer: &'static str,
    discovery: Value,
    keys: Vec<Value>,
    content_type: &'static str,
    took: Duration,
    bytes: usize,
    signing_kid: Option<&'static str>,
    /// Its place, where that is not the first of its kid.
    signer: Option<usize>,
    /// Of the token; else what its key says.
    alg: Option<&'static str>,
}

impl Case {
    fn good() -> Self {
        Self {
            issuer: "https://issuer.example",
            discovery: json!({
                "issuer": "https://issuer.example",
                "jwks_uri": "https://issuer.example/openid/v1/jwks",
                "authorization_endpoint": "https://issuer.example/authorize",
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported":
                    ["RS256", "ES256", "ES384", "ES512", "EdDSA", "ML-DSA-44"],
            }),
            keys: vec![rsa("good")],
            content_type: "application/json",
            took: Duration::from_millis(50),
            bytes: 500,
            signing_kid: None,
            signer: None,
            alg: None,
        }
    }

    fn keys(keys: Vec<Value>) -> Self {
        Self { keys, signing_kid: Some("good"), ..Self::good() }
    }

    fn without(member: &str) -> Self {
        let mut case = Self::good();
        case.discovery.as_object_mut().unwrap().remove(member);
        case
    }

    fn forecast(&self, parties: &[&'static RelyingParty]) -> Vec<Forecast> {
        let answer = |content_type, took, bytes| Answer {
            content_type: Some(content_type),
            content_encoding: None,
            redirect: None,
            has_tls_1_2: true,
            took,
            bytes,
        };
        let is_signer = |key| self.signing_kid.is_some() && kid(key) == self.signing_kid;
        let at = self.signer.or_else(|| self.keys.iter().position(is_signer));
        let seen = Seen {
            issuer: self.issuer,
            discovery: &self.discovery,
            discovery_answer: answer(self.content_type, Duration::from_millis(50), 400),
            keys: &self.keys,
            keys_answer: answer("application/jwk-set+json", self.took, self.bytes),
            signer: at.map(|at| Signer {
                at,
                alg: self.alg.or_else(|| member(&self.keys[at], "alg")).unwrap_or("RS256"),
            }),
        };
        forecast(&seen, parties)
    }

    /// Who does not accept it, in alphabetical order; `?` after a name is a warning.
    fn spoiled(&self) -> String {
        let mut worst = BTreeMap::new();
        for line in self.forecast(&ALL.iter().collect::<Vec<_>>()) {
            let verdict = worst.entry(line.party).or_insert(line.verdict);
            *verdict = line.verdict.max(*verdict);
            assert!(line.why.ends_with('.'), "{}", line.why);
            assert_eq!(line.what_to_do.is_empty(), line.verdict == Verdict::Accepts);
        }
        assert_eq!(worst.len(), ALL.len());
        let in_words = |(party, verdict): (&str, _)| match verdict {
            Verdict::Accepts => None,
            Verdict::Warns => Some(format!("{party}?")),
            Verdict::Refuses => Some(party.to_owned()),
        };
        worst.into_iter().filter_map(in_words).collect::<Vec<_>>().join(" ")
    }
}

fn rsa(kid: &str) -> Value {
    json!({"kty": "RSA", "use": "sig", "kid": kid, "alg": "RS256", "n": "AQAB", "e": "AQAB"})
}

fn ec(kid: &str, crv: &str, alg: &str) -> Value {
    json!({"kty": "EC", "use": "sig", "kid": kid, "alg": alg, "crv": crv, "x": "AA", "y": "AA"})
}

/// `key` with another value of a member, or without it.
fn with(mut key: Value, member: &str, value: Option<Value>) -> Value {
    let members = key.as_object_mut().unwrap();
    match value {
        Some(value) => members.insert(member.to_owned(), value),
        None => members.remove(member),
    };
    key
}

#[test]
fn what_spoils_the_keys_for_whom() {
    let beside = |other| Case::keys(vec![other, rsa("good")]);
    let akp = json!({"kty": "AKP", "kid": "other", "alg": "ML-DSA-44", "pub": "AA"});
    for (what, case, expected) in [
        ("nothing", Case::good(), ""),
        ("ES256", Case::keys(vec![ec("good", "P-256", "ES256")]), "azure"),
        ("AKP", beside(akp), "aws? azure? gcp? jsonwebtoken? jwx kubernetes"),
        (
            "unknown curve",
            beside(ec("other", "brainpoolP256r1", "ES256")),
            "authlib azure? go-oidc jsonwebtoken? jwx kubernetes nimbus spring vault",
        ),
        ("P-521", beside(ec("other", "P-521", "ES512")), "azure? jsonwebtoken?"),
        ("no alg", beside(with(rsa("other"), "alg", None)), "jwx?"),
        ("EC, no alg", beside(with(ec("other", "P-256", ""), "alg", None)), "azure? jwx?"),
        (
            "alg null",
            beside(with(rsa("other"), "alg", Some(Value::Null))),
            "authlib aws-jwt-verify jose? jwx openid-client?",
        ),
        (
            "x5c",
            beside(with(rsa("other"), "x5c", Some(json!(["AAAA"])))),
            "go-oidc jose4j? jwx kafka? keyfunc kubernetes nimbus spring vault",
        ),
        (
            "twice",
            Case::keys(vec![rsa("good"), rsa("good")]),
            "jose openid-client openidconnect-rs",
        ),
        (
            "another twice",
            Case::keys(vec![rsa("a"), rsa("good"), rsa("a")]),
            "jose? openid-client? openidconnect-rs?",
        ),
    ] {
        assert_eq!(case.spoiled(), expected, "{what}");
    }
}

#[test]
fn a_key_that_is_not_the_one_of_the_token_is_refused_by_some() {
    let good = || rsa("good");
    let only = |key| Case::keys(vec![key]);
    let beside = |other| Case::keys(vec![other, good()]);
    let other = |member, value| with(rsa("other"), member, Some(value));
    let no_use = with(good(), "use", None);
    let ops = |ops| with(no_use.clone(), "key_ops", Some(ops));
    // As tests/doctor/forecasts measured it.
    let enc = "authlib aws-jwt-verify jose jose4j jwks-rsa jwx nimbus openid-client \
               openidconnect-rs pyjwt spring";
    let alg = "authlib aws-jwt-verify azure jose jwx keyfunc nimbus openid-client \
               openidconnect-rs pyjwt spring";
    let encrypt = "authlib jose jose4j jwks-rsa openid-client";
    let as_warnings = |names: &str| format!("{}?", names.replace(' ', "? "));
    let namesake = with(good(), "n", Some(json!("AQAD")));
    let ec_namesake = ec("good", "P-256", "ES256");
    for (what, case, expected) in [
        ("use enc", only(with(good(), "use", Some(json!("enc")))), enc.to_owned()),
        ("use enc beside", beside(other("use", json!("enc"))), as_warnings(enc)),
        ("no use", only(no_use.clone()), String::new()),
        ("verify", only(ops(json!(["verify"]))), String::new()),
        ("encrypt", only(ops(json!(["encrypt"]))), encrypt.to_owned()),
        (
            "alg RS512",
            Case { alg: Some("RS256"), ..only(with(good(), "alg", Some(json!("RS512")))) },
            alg.to_owned(),
        ),
        (
            "another of the kid before",
            Case { signer: Some(1), ..beside(namesake.clone()) },
            "auth0-java authlib aws-jwt-verify jose jose4j jsonwebtoken jwks-rsa jwx keyfunc \
             openid-client openidconnect-rs pyjwt"
                .to_owned(),
        ),
        (
            "another of the kid behind",
            Case { signer: Some(0), ..Case::keys(vec![good(), namesake]) },
            "auth0-java? authlib? aws-jwt-verify? jose jose4j? jsonwebtoken? jwks-rsa? jwx? \
             keyfunc? openid-client openidconnect-rs pyjwt?"
                .to_owned(),
        ),
        (
            "an EC key of the kid before",
            Case { signer: Some(1), ..beside(ec_namesake) },
            "auth0-java aws-jwt-verify azure? jsonwebtoken jwks-rsa jwx keyfunc pyjwt".to_owned(),
        ),
    ] {
        assert_eq!(case.spoiled(), expected, "{what}");
    }
}

#[test]
fn an_algorithm_that_discovery_does_not_list_is_refused_by_some() {
    let key = |alg| if alg == "ES256" { ec("good", "P-256", alg) } else { rsa("good") };
    for (listed, alg, expected) in [
        (Some(json!(["ES256"])), "RS256", "authlib go-oidc openid-client openidconnect-rs"),
        (Some(json!([])), "RS256", "openid-client openidconnect-rs"),
        (None, "RS256", "openidconnect-rs"),
        (None, "ES256", "azure go-oidc openid-client openidconnect-rs"),
    ] {
        let mut case = Case::keys(vec![key(alg)]);
        case.discovery =
            with(case.discovery, "id_token_signing_alg_values_supported", listed.clone());
        assert_eq!(case.spoiled(), expected, "{listed:?} {alg}");
    }
}

#[test]
fn what_spoils_the_documents_for_whom() {
    let good = Case::good;
    for (what, case, expected) in [
        ("text/plain", Case { content_type: "text/plain", ..good() }, "openidconnect-rs spring"),
        ("a parameter", Case { content_type: "Application/JSON; charset=utf-8", ..good() }, ""),
        ("51,200 bytes", Case { bytes: 51_200, ..good() }, ""),
        ("51,201 bytes", Case { bytes: 51_201, ..good() }, "nimbus"),
        ("524,289 bytes", Case { bytes: 524_289, ..good() }, "jose4j kafka nimbus"),
        ("0.26 s", Case { took: Duration::from_millis(260), ..good() }, "nimbus? spring?"),
        ("no authorization_endpoint", Case::without("authorization_endpoint"), "openidconnect-rs"),
    ] {
        assert_eq!(case.spoiled(), expected, "{what}");
    }
}

#[test]
fn who_reads_no_redirect_and_no_compressed_answer() {
    let (discovery, keys) = (Kind::Discovery, Kind::Jwks);
    for (kind, redirect, content_encoding, expected) in [
        (discovery, None, None, ""),
        (keys, None, Some("identity"), ""),
        (discovery, None, Some("gzip"), "spring openidconnect-rs"),
        (
            keys,
            None,
            Some("gzip"),
            "spring nimbus pyjwt aws-jwt-verify jose4j auth0-java jwks-rsa openidconnect-rs",
        ),
        (discovery, Some(302), None, "openid-client"),
        (keys, Some(302), None, "envoy jose openid-client pyjwt aws-jwt-verify jwks-rsa"),
        (discovery, Some(308), None, "spring openid-client"),
        (
            keys,
            Some(308),
            None,
            "envoy spring nimbus kafka jose openid-client pyjwt aws-jwt-verify jose4j auth0-java \
             jwks-rsa",
        ),
    ] {
        let took = Duration::from_millis(50);
        let answer = Answer {
            content_type: None,
            content_encoding,
            redirect,
            has_tls_1_2: true,
            took,
            bytes: 0,
        };
        let lines = forecast_answer(kind, &answer, &ALL.iter().collect::<Vec<_>>());
        assert!(lines.iter().all(|line| line.verdict == Verdict::Refuses), "{lines:?}");
        let parties: Vec<_> = lines.iter().map(|line| line.party).collect();
        assert_eq!(parties.join(" "), expected, "{kind:?} {redirect:?} {content_encoding:?}");
    }
}

#[test]
fn a_key_that_does_not_sign_is_a_warning() {
    let keys = vec![ec("new", "P-384", "ES384"), rsa("old")];
    for (signing_kid, expected) in
        [(Some("new"), "azure"), (Some("old"), "azure?"), (None, "azure?")]
    {
        assert_eq!(Case { signing_kid, ..Case::keys(keys.clone()) }.spoiled(), expected);
    }
    let only = keys.into_iter().take(1).collect();
    assert_eq!(Case { signing_kid: None, ..Case::keys(only) }.spoiled(), "azure");
}

#[test]
fn clouds_have_limits() {
    let many = |count, key: fn(String) -> Value| (0..count).map(|it| key(it.to_string())).collect();
    let rsa_keys = |count| Case { signing_kid: None, ..Case::keys(many(count, |kid| rsa(&kid))) };
    assert_eq!(rsa_keys(100).spoiled(), "");
    assert_eq!(rsa_keys(101).spoiled(), "aws azure?");
    let last = Case { signing_kid: Some("100"), ..rsa_keys(101) };
    assert_eq!(last.spoiled(), "aws azure");
    assert_eq!(rsa_keys(1001).spoiled(), "aws azure? jwx");
    let ed25519 = json!({"kty": "OKP", "crv": "Ed25519", "kid": "good", "alg": "EdDSA", "x": "AA"});
    assert_eq!(Case::keys(vec![ed25519]).spoiled(), "aws azure gcp");

    for (issuer, expected) in [
        ("https://issuer.example:8443", "aws"),
        ("https://issuer.example/?a", "aws"),
        ("https://issuer.example/a:1", ""),
    ] {
        let mut case = Case { issuer, ..Case::good() };
        case.discovery = with(case.discovery, "issuer", Some(json!(issuer)));
        assert_eq!(case.spoiled(), expected, "{issuer}");
    }
}

#[test]
fn everybody_refuses_another_issuer_than_its_own() {
    let case = Case { issuer: "https://issuer.example/", ..Case::good() };
    let found = case.forecast(&ALL.iter().collect::<Vec<_>>());
    assert_eq!(found.len(), ALL.len());
    for line in found {
        assert_eq!(line.verdict, Verdict::Refuses);
        assert!(line.why.contains("https://issuer.example/, and"), "{}", line.why);
    }
}

#[test]
fn a_sentence_names_the_key_and_is_short() {
    let mut key = rsa(&"k".repeat(1000));
    key = with(key, "x5c", Some(json!(["AAAA"])));
    let found = Case::keys(vec![key, rsa("good")]).forecast(&[party("go-oidc").unwrap()]);
    let [line] = found.as_slice() else { panic!("{found:?}") };
    let kid = format!("{}…", "k".repeat(199));
    let expected = format!(
        "It refuses the whole key set for the key \"{kid}\" (kty RSA, alg RS256): the x5c is not a \
         chain of certificates."
    );
    assert_eq!((line.verdict, line.why.as_str()), (Verdict::Refuses, expected.as_str()));
    assert_eq!(line.what_to_do, "Publish the key without x5c.");
}

#[test]
fn a_chain_of_certificates_is_no_broken_x5c() {
    let good = STANDARD.encode(self_signed(named("issuer", "issuer.example")).der);
    for (chain, expected) in [
        (json!([good]), true),
        (json!([good, good]), true),
        (json!([]), false),
        (json!([good, "AAAA"]), false),
        (json!(["!"]), false),
        (json!([1]), false),
        (json!(good), false),
        (Value::Null, false),
    ] {
        assert_eq!(is_chain(&chain), expected, "{chain}");
    }
}

#[test]
fn each_relying_party_has_a_name_of_its_own() {
    for (name, product) in ALL.iter().map(|it| (it.name, it.product)) {
        assert_eq!(party(name).unwrap().product, product);
    }
    for it in ALL {
        assert!(!it.product.is_empty() && !it.version.is_empty(), "{}", it.name);
        assert!(
            ["2026-11-27", "2026-11-28", "documentation"].contains(&it.measured),
            "{}",
            it.name
        );
    }
    assert!(party("nobody").is_none());
}
