//! Whom the gateway believes to be the API server, and what it shows to whom.

use std::fs;

use testing::fake_api::{self, Answer, DISCOVERY, FIRST_TOKEN, FakeApi, JWKS};
use testing::gateway::{Gateway, field};
use testing::wait::SOON;

/// The tokens that came, without repetitions in a row.
fn tokens(api: &FakeApi) -> Vec<String> {
    let mut tokens: Vec<_> = api
        .requests()
        .iter()
        .map(|request| request.header("Authorization").unwrap_or_default().to_owned())
        .collect();
    tokens.dedup();
    tokens
}

// The token.

#[test]
fn a_rotated_token_is_used_for_the_next_fetch() {
    let api = FakeApi::start();
    api.accept_tokens(&[FIRST_TOKEN, "token-2"]);
    let gateway = Gateway::quick(&api).start();
    api.wait_for_count(JWKS, 1);

    api.volume.write("token-2\n", &api.ca_pem());

    api.wait_until(SOON, |requests| {
        requests.last().and_then(|request| request.header("Authorization"))
            == Some("Bearer token-2")
    });
    api.wait_for_more(JWKS, 3);
    assert_eq!(tokens(&api), ["Bearer token-1", "Bearer token-2"]);
    assert!(!gateway.log().contains("fetch failed"));
}

#[test]
fn a_token_that_expires_while_it_is_used_costs_one_more_request() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = Gateway::builder(&api).set("UPSTREAM_TIMEOUT_SECONDS", "60").start();
    assert!(api.wait_until(SOON, |requests| !requests.is_empty()));

    // Between the request and its answer, the old one turns bad and the new one appears.
    api.accept_tokens(&["token-2"]);
    api.volume.write("token-2", &api.ca_pem());
    api.set_good();

    gateway.wait_for_log("document changed document=discovery");
    gateway.wait_for_log("document changed document=jwks");
    assert_eq!(tokens(&api), ["Bearer token-1", "Bearer token-2"]);
    assert!(!gateway.log().contains("fetch failed"), "{}", gateway.log());
}

#[test]
fn a_401_is_tried_again_once_and_no_more() {
    let api = FakeApi::start();
    api.accept_tokens(&["another"]);
    let gateway = Gateway::builder(&api).start();

    let line = gateway.wait_for_log("fetch failed document=discovery");

    assert_eq!(field(&line, "reason"), Some("unauthorized"), "{line}");
    let response = gateway.get(DISCOVERY);
    assert_eq!((response.status, response.text()), (502, "unavailable: unauthorized\n"));
    // In pairs: each attempt is one request and one retry, and back-off starts at a second or so.
    let count = api.count(DISCOVERY);
    assert!((2..=4).contains(&count), "{count}");
}

#[test]
fn a_token_that_becomes_good_ends_the_401s() {
    let api = FakeApi::start();
    api.accept_tokens(&["token-2"]);
    let gateway = Gateway::quick(&api).start();
    gateway.wait_for_log("reason=unauthorized");

    api.volume.write("token-2", &api.ca_pem());

    gateway.wait_for_log("upstream recovered");
    assert_eq!(gateway.get(JWKS).status, 200);
}

#[test]
fn a_token_file_that_vanishes_for_a_while_costs_no_answer() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    assert_eq!(gateway.get(JWKS).status, 200);

    let away = api.volume.dir().join("away");
    fs::rename(api.volume.token(), &away).unwrap();
    let line = gateway.wait_for_log("fetch failed");
    assert!(line.contains(api.volume.token().to_str().unwrap()), "{line}");
    assert_eq!(gateway.get(JWKS).status, 200);

    fs::rename(away, api.volume.token()).unwrap();
    gateway.wait_for_log("upstream recovered");
}

#[test]
fn the_token_is_never_logged() {
    let api = FakeApi::start();
    let secret = "secret-of-this-gateway";
    api.accept_tokens(&[secret]);
    api.volume.write(secret, &api.ca_pem());
    let gateway = Gateway::quick(&api)
        .set("RUST_LOG", "trace,ureq=trace,ureq_proto=trace,rustls=trace")
        .start();
    assert_eq!(gateway.get(JWKS).status, 200);
    api.wait_for_more(JWKS, 2);
    api.accept_tokens(&[]);
    gateway.wait_for_log("reason=unauthorized");

    assert!(!gateway.log().contains(secret), "the token stands in the log");
}

// The CA.

#[test]
fn a_stranger_gets_no_request_and_no_token() {
    let api = FakeApi::start();
    let (other_ca, _config) = fake_api::tls();
    api.volume.write(FIRST_TOKEN, &other_ca);
    let gateway = Gateway::start(&api);

    let line = gateway.wait_for_log("fetch failed");

    assert_eq!(field(&line, "reason"), Some("untrusted-certificate"), "{line}");
    assert!(line.contains(api.volume.ca().to_str().unwrap()), "names the CA file: {line}");
    let response = gateway.get(JWKS);
    assert_eq!((response.status, response.text()), (502, "unavailable: untrusted-certificate\n"));
    assert!(api.connections() > 0);
    assert_eq!(api.requests().len(), 0, "the token went to a stranger");
}

#[test]
fn a_certificate_for_another_name_is_not_trusted() {
    let api = FakeApi::start();
    // An address of the same machine that the certificate does not name.
    let url = format!("https://[::ffff:127.0.0.1]:{}", api.address.port());
    let gateway = Gateway::builder(&api).set("UPSTREAM_HOST", url).start();

    gateway.wait_for_log("reason=untrusted-certificate");

    assert_eq!(api.requests().len(), 0);
}

#[test]
fn a_name_of_the_certificate_is_as_good_as_its_address() {
    let api = FakeApi::start();
    let url = format!("https://localhost:{}", api.address.port());
    let gateway = Gateway::builder(&api).set("UPSTREAM_HOST", url).start();

    assert_eq!(gateway.get(JWKS).status, 200);
}

#[test]
fn any_ca_of_a_bundle_is_trusted() {
    let api = FakeApi::start();
    let (other_ca, _config) = fake_api::tls();
    let bundle = format!("# two of them\n{other_ca}\n{}", api.ca_pem());
    api.volume.write(FIRST_TOKEN, &bundle);
    let gateway = Gateway::start(&api);

    assert_eq!(gateway.get(JWKS).status, 200);
}

#[test]
fn a_rotated_ca_is_trusted_without_a_restart() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    assert_eq!(gateway.get(JWKS).status, 200);

    api.rotate_ca();
    api.rotate_key();
    api.volume.write(FIRST_TOKEN, &api.ca_pem());
    api.close_idle_connections();

    gateway.wait_for_log(&format!("signing key added kid={}", api.kid()));
}

#[test]
fn connections_made_under_an_old_ca_are_not_used_under_a_new_one() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    let body = gateway.get(JWKS).body;
    let (other_ca, _config) = fake_api::tls();

    // The pooled connection would still do; but whom it leads to is not trusted any more.
    api.volume.write(FIRST_TOKEN, &other_ca);

    gateway.wait_for_log("reason=untrusted-certificate");
    assert_eq!(gateway.get(JWKS).body, body);
}

#[test]
fn a_ca_file_that_breaks_at_run_time_is_told_of_and_costs_no_answer() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    let body = gateway.get(JWKS).body;

    api.volume.write(FIRST_TOKEN, "nothing of the kind\n");
    let line = gateway.wait_for_log("CA file cannot be used");
    assert!(line.contains("WARN"), "{line}");
    assert!(line.contains(api.volume.ca().to_str().unwrap()), "{line}");
    assert_eq!(gateway.get(JWKS).body, body);
    // Read before each fetch, and told of once a minute.
    api.wait_for_more(JWKS, 3);
    assert_eq!(gateway.log().matches("CA file cannot be used").count(), 1);

    api.rotate_key();
    api.volume.write(FIRST_TOKEN, &api.ca_pem());
    gateway.wait_for_log("CA file can be used again");
    gateway.wait_for_log(&format!("signing key added kid={}", api.kid()));
}
