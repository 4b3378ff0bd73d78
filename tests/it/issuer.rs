//! Whose issuer is served: `ISSUER`, issuers and key sets that change, and the gateway's own token.

use serde_json::{Value, json};

use testing::fake_api::{Answer, DISCOVERY, FakeApi, INTERNAL_JWKS_URI, ISSUER, JWKS, discovery};
use testing::gateway::{Gateway, field};
use testing::wait::eventually;

const OTHER: &str = "https://other.example";

fn set_issuer(api: &FakeApi, issuer: &str) {
    api.set(DISCOVERY, Answer::discovery(discovery(issuer, INTERNAL_JWKS_URI)));
}

/// Gives upstream one issuer after the other, each as soon as the one before is served.
fn serve_in_turn(api: &FakeApi, gateway: &Gateway, issuers: &[&str]) {
    for issuer in issuers {
        set_issuer(api, issuer);
        eventually(issuer, || gateway.get(DISCOVERY).json()["issuer"] == *issuer);
    }
}

fn lines(gateway: &Gateway, level: &str) -> Vec<String> {
    let log = gateway.log();
    log.lines().filter(|line| line.contains(level)).map(ToOwned::to_owned).collect()
}

// ISSUER.

#[test]
fn an_issuer_must_be_an_https_url_without_query_and_fragment() {
    let api = FakeApi::start();
    for value in [
        "http://issuer.example",
        "issuer.example",
        "kubernetes/serviceaccount",
        "https://issuer.example?a",
        "https://issuer.example/#a",
        "https://",
        "https://u@issuer.example",
    ] {
        let ended = Gateway::builder(&api).set("ISSUER", value).run();
        assert_eq!(ended.code, Some(2), "{value}");
        assert!(ended.log.contains("ISSUER is ") && ended.log.contains("https"), "{}", ended.log);
    }
}

#[test]
fn the_issuer_that_is_expected_is_no_news() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("ISSUER", ISSUER).start();
    eventually("healthy", || gateway.get("/healthz").status == 200);
    api.wait_for_more(JWKS, 3);
    assert_eq!(lines(&gateway, " ERROR "), [""; 0]);
    assert_eq!(lines(&gateway, " WARN "), [""; 0]);
}

#[test]
fn another_issuer_is_an_error_that_is_served_and_unhealthy() {
    for (expected, hint) in [
        (OTHER, "--service-account-issuer"),
        ("https://issuer.example/", "the slash at the end: take it from ISSUER"),
        ("https://Issuer.example", "--service-account-issuer"),
    ] {
        let api = FakeApi::start();
        let gateway = Gateway::quick(&api).set("ISSUER", expected).start();
        let line = gateway.wait_for_log("the issuer is not ISSUER");
        assert!(line.contains(" ERROR ") && line.contains(hint), "{line}");
        assert_eq!(field(&line, "expected"), Some(expected));
        assert_eq!(field(&line, "upstream"), Some(ISSUER));

        eventually("unhealthy", || {
            gateway.get("/healthz").text() == "unhealthy: issuer-mismatch\n"
        });
        assert_eq!(gateway.get("/healthz").status, 503);
        assert_eq!(gateway.get("/readyz").status, 200);
        assert_eq!(gateway.get(DISCOVERY).json()["issuer"], ISSUER);
        assert_eq!(gateway.get(JWKS).status, 200);
        // Rounds later it is one line still.
        api.wait_for_more(JWKS, 4);
        assert_eq!(lines(&gateway, " ERROR ").len(), 1, "{}", gateway.log());

        set_issuer(&api, expected);
        gateway.wait_for_log("the issuer is ISSUER again");
        eventually("healthy", || gateway.get("/healthz").status == 200);
    }
}

#[test]
fn a_slash_that_issuer_lacks_is_pointed_at_too() {
    let api = FakeApi::start();
    set_issuer(&api, "https://issuer.example/");
    let gateway = Gateway::quick(&api).set("ISSUER", ISSUER).start();
    let line = gateway.wait_for_log("the issuer is not ISSUER");
    assert!(line.contains("the slash at the end: add it to ISSUER"), "{line}");
}

#[test]
fn with_issuer_its_path_is_known_before_the_first_fetch() {
    let api = FakeApi::start();
    api.set_both(&Answer::Status(403));
    let gateway = Gateway::builder(&api)
        .set("ISSUER", "https://issuer.example/c/1")
        .set("JWKS_URI", "https://issuer.example/keys")
        .start();
    gateway.wait_for_log("fetch failed");
    for (path, status) in [
        ("/c/1/.well-known/openid-configuration", 502),
        ("/c/1/openid/v1/jwks", 502),
        ("/keys", 502),
        (DISCOVERY, 502),
        (JWKS, 502),
        ("/c/2/.well-known/openid-configuration", 404),
        ("/openid/v1/jwks/c/1/openid/v1/jwks", 404),
        ("/other", 404),
    ] {
        assert_eq!(gateway.get(path).status, status, "{path}");
    }
}

// Changes.

#[test]
fn an_issuer_that_changes_is_a_warning_with_both() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    assert_eq!(gateway.get(DISCOVERY).status, 200);
    set_issuer(&api, OTHER);
    let line = gateway.wait_for_log("issuer changed");
    assert!(line.contains(" WARN "), "{line}");
    assert_eq!((field(&line, "from"), field(&line, "to")), (Some(ISSUER), Some(OTHER)));
    assert_eq!(gateway.get("/healthz").status, 200);
    api.wait_for_more(JWKS, 3);
    assert_eq!(lines(&gateway, " WARN ").len(), 1, "{}", gateway.log());
}

#[test]
fn an_issuer_that_comes_and_goes_is_one_warning_and_not_one_each_round() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    assert_eq!(gateway.get(DISCOVERY).status, 200);
    serve_in_turn(&api, &gateway, &[OTHER, ISSUER, OTHER, ISSUER, OTHER, ISSUER]);
    let warnings = lines(&gateway, " WARN ");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("issuer changed"), "{warnings:?}");
    assert!(warnings[1].contains("API servers publish different issuers"), "{warnings:?}");
    let published = lines(&gateway, " publishing ").len();
    assert_eq!(published, 2, "{}", gateway.log());
}

#[test]
fn an_issuer_that_comes_and_goes_is_one_error_where_another_is_expected() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("ISSUER", ISSUER).start();
    assert_eq!(gateway.get(DISCOVERY).status, 200);
    serve_in_turn(&api, &gateway, &[OTHER, ISSUER, OTHER, ISSUER, OTHER]);
    eventually("unhealthy", || gateway.get("/healthz").text() == "unhealthy: issuer-mismatch\n");
    assert_eq!(lines(&gateway, " ERROR ").len(), 1, "{}", gateway.log());
    assert_eq!(lines(&gateway, " WARN ").len(), 1, "{}", gateway.log());
    assert_eq!(lines(&gateway, "again").len(), 0, "{}", gateway.log());
}

#[test]
fn a_key_that_is_new_is_a_line_while_issuers_come_and_go() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    assert_eq!(gateway.get(DISCOVERY).status, 200);
    serve_in_turn(&api, &gateway, &[OTHER, ISSUER, OTHER]);
    // In one round: the issuer that was there before, and a new key.
    api.rotate_key();
    set_issuer(&api, ISSUER);
    gateway.wait_for_log(&format!("signing key added kid={}", api.kid()));
}

#[test]
fn an_issuer_that_cannot_be_published_is_not_said_to_be_served() {
    let api = FakeApi::start();
    let url = "https://issuer.example/openid/v1/jwks";
    api.set(DISCOVERY, Answer::discovery(discovery(ISSUER, url)));
    let gateway = Gateway::quick(&api).set("ISSUER", ISSUER).set("JWKS_URI", "upstream").start();
    assert_eq!(gateway.get(DISCOVERY).status, 200);
    api.set(DISCOVERY, Answer::discovery(discovery(OTHER, "http://other.example/keys")));
    gateway.wait_for_log("reason=bad-document");
    assert!(!gateway.log().contains("is not ISSUER"), "{}", gateway.log());
    assert_eq!(gateway.get("/healthz").text(), "unhealthy: bad-document\n");
}

#[test]
fn a_key_that_comes_and_goes_is_one_warning_and_not_one_each_round() {
    let api = FakeApi::start();
    let key = |kid: &str| json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": "1", "y": "2"});
    let set = |keys: &[Value]| Answer::jwks(json!({ "keys": keys }).to_string());
    api.set(JWKS, set(&[key("a")]));
    for grace in ["0", "300"] {
        let gateway = Gateway::quick(&api).set("KEY_GRACE_SECONDS", grace).start();
        gateway.wait_for_log("signing key added kid=a");
        for _ in 0..4 {
            for keys in [&[key("a"), key("b")][..], &[key("a")]] {
                api.set(JWKS, set(keys));
                api.wait_for_more(JWKS, 2);
            }
        }
        let warnings = lines(&gateway, " WARN ");
        assert_eq!(warnings.len(), 1, "{grace}: {warnings:?}");
        assert!(warnings[0].contains("API servers publish different key sets"), "{warnings:?}");
        assert_eq!(field(&warnings[0], "kids"), Some("b"));
        // A key that is new is a line nevertheless.
        api.set(JWKS, set(&[key("a"), key("c")]));
        gateway.wait_for_log("signing key added kid=c");
        api.set(JWKS, set(&[key("a")]));
        assert_eq!(lines(&gateway, "signing key added").len(), 3, "{}", gateway.log());
    }
}

// The gateway's own token.

/// A token of the fake API server's issuer and key, which the gateway has from now on.
fn give_token(api: &FakeApi, claims: &Value) {
    let token = api.sign(claims);
    api.accept_tokens(&[&token]);
    api.volume.write(&token, &api.ca_pem());
}

#[test]
fn an_own_token_that_is_verified_causes_nothing() {
    let api = FakeApi::start();
    give_token(&api, &json!({"iss": ISSUER, "iat": 1}));
    let gateway = Gateway::builder(&api).set("RUST_LOG", "debug").start();
    gateway.wait_for_log("own token verified");
    eventually("healthy", || gateway.get("/healthz").status == 200);
    assert_eq!(api.count(DISCOVERY), 1);
    assert_eq!(lines(&gateway, " WARN "), [""; 0]);
}

#[test]
fn a_new_token_that_does_not_match_causes_one_round_more() {
    let api = FakeApi::start();
    give_token(&api, &json!({"iss": ISSUER, "iat": 1}));
    // Another key: what is served does not verify it.
    api.rotate_key();
    let gateway = Gateway::builder(&api).set("RUST_LOG", "debug").start();
    let line = gateway.wait_for_log("own token not verified yet");
    assert_eq!(field(&line, "mismatch"), Some("kid"), "{line}");
    api.wait_for_count(DISCOVERY, 2);
    (0..2).for_each(|_| drop(gateway.wait_for_log("refreshed")));
    // An hour's worth of rounds would show a third.
    assert_eq!(api.count(DISCOVERY), 2);
    assert_eq!(gateway.get("/healthz").status, 200);
    assert!(lines(&gateway, " ERROR ").is_empty() && lines(&gateway, " WARN ").is_empty());
}

#[test]
fn a_round_more_brings_the_key_of_a_new_token() {
    let api = FakeApi::start();
    give_token(&api, &json!({"iss": ISSUER, "iat": 1}));
    let gateway = Gateway::quick(&api).set("RUST_LOG", "debug").start();
    gateway.wait_for_log("own token verified");
    let old_set = api.jwks();
    api.rotate_key();
    let new_set = api.jwks();
    api.set(JWKS, Answer::jwks(old_set));
    give_token(&api, &json!({"iss": ISSUER, "iat": 2}));
    gateway.wait_for_log("own token not verified yet");
    api.set(JWKS, Answer::jwks(new_set));
    gateway.wait_for_log("own token verified");
}

#[test]
fn a_token_that_is_no_issuers_is_not_checked_and_said_once() {
    for claims in [None, Some(json!({"iss": "kubernetes/serviceaccount", "iat": 1}))] {
        let api = FakeApi::start();
        if let Some(claims) = claims {
            give_token(&api, &claims);
        }
        let gateway = Gateway::quick(&api).start();
        let line = gateway.wait_for_log("own token is not checked");
        assert!(line.contains(" INFO "), "{line}");
        api.wait_for_more(JWKS, 4);
        assert_eq!(lines(&gateway, "own token is not checked").len(), 1);
        assert_eq!(gateway.get("/healthz").status, 200);
    }
}

#[test]
fn the_check_can_be_turned_off() {
    let api = FakeApi::start();
    give_token(&api, &json!({"iss": OTHER, "iat": 1}));
    let gateway =
        Gateway::builder(&api).set("OWN_TOKEN_CHECK", "off").set("RUST_LOG", "debug").start();
    gateway.wait_for_log("refreshed");
    eventually("healthy", || gateway.get("/healthz").status == 200);
    assert_eq!(api.count(DISCOVERY), 1);
    assert!(!gateway.log().contains("own token"), "{}", gateway.log());
}

#[test]
fn what_is_logged_of_a_token_is_short_and_escaped_and_never_the_token() {
    let api = FakeApi::start();
    let issuer = format!("https://evil.example/{}", "x".repeat(3000));
    give_token(&api, &json!({"iss": issuer, "iat": 1, "sub": "a\u{1b}[31m"}));
    let token = std::fs::read_to_string(api.volume.token()).unwrap();
    let gateway = Gateway::builder(&api).set("RUST_LOG", "trace").start();
    let line = gateway.wait_for_log("own token not verified yet");
    assert_eq!(field(&line, "mismatch"), Some("issuer"), "{line}");
    assert!(line.len() < 600, "{line}");
    let parts: Vec<_> = token.split('.').collect();
    let log = gateway.log();
    assert!(parts.iter().all(|part| !log.contains(part)), "{log}");
}
