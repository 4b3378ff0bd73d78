//! What clients and operators see when the API server fails, each way that it can.

use std::net::TcpListener;
use std::time::Duration;

use testing::client::{self, Client};
use testing::fake_api::{
    Answer, DISCOVERY, FakeApi, INTERNAL_JWKS_URI, ISSUER, JWKS, UPSTREAM_TEXT, discovery, key_set,
};
use testing::gateway::{Builder, Gateway, field};

/// Refreshes several times a second.
fn quick(api: &FakeApi) -> Builder {
    // Each failure, and not one a minute.
    Gateway::quick(api).set("RUST_LOG", "debug")
}

/// Key sets that must never be let out, and what is wrong with each.
fn bad_key_sets() -> Vec<(&'static str, Answer)> {
    let good = r#"{"kty":"EC","kid":"a","crv":"P-256","x":"1","y":"2"}"#.to_owned();
    let with = |key: &str| Answer::jwks(key_set(&[good.clone(), key.to_owned()]));
    let mut bad = vec![
        ("nothing", Answer::jwks("")),
        ("HTML", Answer::Ok { content_type: "text/html", body: "<html>log in</html>".to_owned() }),
        ("truncated JSON", Answer::jwks(r#"{"keys":[{"kty":"EC""#)),
        ("two documents", Answer::jwks(format!("{0}{0}", key_set(std::slice::from_ref(&good))))),
        ("no UTF-8", Answer::jwks("{\"keys\":[{\"kty\":\"\\ud800\"}]}")),
        ("an array", Answer::jwks(format!("[{good}]"))),
        ("no keys", Answer::jwks("{}")),
        ("an empty key set", Answer::jwks(r#"{"keys":[]}"#)),
        ("keys that are no array", Answer::jwks(format!(r#"{{"keys":{good}}}"#))),
        ("a key that is no object", with("1")),
        ("a key without kty", with(r#"{"kid":"b"}"#)),
        ("kty that is no string", with(r#"{"kty":1}"#)),
        ("a symmetric key", with(r#"{"kty":"oct","kid":"b"}"#)),
        ("a duplicate in a key", with(r#"{"kty":"EC","kid":"b","kid":"c"}"#)),
        ("a duplicate by an escape", with(r#"{"kty":"EC","kid":"b","\u006bid":"c"}"#)),
        ("duplicate keys", Answer::jwks(format!(r#"{{"keys":[{good}],"keys":[{good}]}}"#))),
        ("a duplicate deep down", with(r#"{"kty":"EC","x5c":[{"a":[{"b":1,"b":1}]}]}"#)),
        (
            "deep nesting",
            with(&format!(r#"{{"kty":"EC","z":{}1{}}}"#, "[".repeat(50_000), "]".repeat(50_000))),
        ),
        ("2 MiB", with(&format!(r#"{{"kty":"EC","x":"{}"}}"#, "x".repeat(2 << 20)))),
        (
            "2 MiB of blanks",
            Answer::jwks(format!(
                "{}{}",
                key_set(std::slice::from_ref(&good)),
                " ".repeat(2 << 20)
            )),
        ),
    ];
    for member in ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"] {
        bad.push(("a private member", with(&format!(r#"{{"kty":"RSA","n":"1","{member}":"1"}}"#))));
    }
    bad
}

/// Discovery documents that must never be let out, and what is wrong with each.
fn bad_discovery_documents() -> Vec<(&'static str, Answer)> {
    let with = |issuer, jwks_uri| Answer::discovery(discovery(issuer, jwks_uri));
    let good = discovery(ISSUER, INTERNAL_JWKS_URI);
    vec![
        ("HTML", Answer::discovery("<html>log in</html>")),
        ("a string", Answer::discovery("\"https://issuer.example\"")),
        ("truncated JSON", Answer::discovery(good.trim_end_matches('}'))),
        ("no issuer", Answer::discovery(good.replace("\"issuer\"", "\"issue\""))),
        ("no jwks_uri", Answer::discovery(good.replace("\"jwks_uri\"", "\"jwks\""))),
        (
            "an issuer that is no string",
            Answer::discovery(good.replace(&format!("\"{ISSUER}\""), "1")),
        ),
        ("an issuer without https", with("http://issuer.example", INTERNAL_JWKS_URI)),
        ("an issuer that is no URL", with("kubernetes/serviceaccount", INTERNAL_JWKS_URI)),
        ("an issuer with a query", with("https://issuer.example?a", INTERNAL_JWKS_URI)),
        ("an issuer with a fragment", with("https://issuer.example#a", INTERNAL_JWKS_URI)),
        (
            "two issuers",
            Answer::discovery(good.replacen('{', r#"{"issuer":"https://other.example","#, 1)),
        ),
        (
            "2 MiB",
            Answer::discovery(good.replacen(
                '{',
                &format!(r#"{{"a":"{}","#, "x".repeat(2 << 20)),
                1,
            )),
        ),
    ]
}

// Nothing is held yet.

#[test]
fn each_failure_has_its_word_for_clients_and_its_line_for_operators() {
    let status = Answer::Status;
    for (answer, why, in_the_line) in [
        (status(403), "forbidden", "system:service-account-issuer-discovery"),
        (status(404), "not-found", "https"),
        (status(500), "upstream-error", "500"),
        (status(503), "upstream-error", "503"),
        (status(429), "upstream-error", "429"),
        (status(400), "bad-document", "400"),
        (Answer::Close, "unreachable", "UPSTREAM_HOST"),
        (Answer::Hang, "timeout", "UPSTREAM_TIMEOUT_SECONDS"),
        (Answer::Truncated { body: "{".to_owned() }, "unreachable", "UPSTREAM_HOST"),
        (Answer::jwks(""), "bad-document", "error="),
    ] {
        let api = FakeApi::start();
        api.set_both(&answer);
        let gateway = Gateway::builder(&api).set("UPSTREAM_TIMEOUT_SECONDS", "0.5").start();

        let line = gateway.wait_for_log("fetch failed document=discovery");
        assert_eq!(field(&line, "reason"), Some(why), "{answer:?}: {line}");
        assert!(line.contains(in_the_line), "{answer:?}: {line}");
        assert!(field(&line, "hint").is_some() && field(&line, "retry_in").is_some(), "{line}");
        assert!(!line.contains(UPSTREAM_TEXT), "{line}");
        let response = gateway.get(DISCOVERY);
        assert_eq!(response.status, 502, "{answer:?}");
        assert_eq!(response.text(), format!("unavailable: {why}\n"), "{answer:?}");
    }
}

#[test]
fn a_redirect_is_not_followed() {
    let api = FakeApi::start();
    api.set("/elsewhere", Answer::jwks(api.jwks()));
    for location in ["/elsewhere".to_owned(), format!("{}/elsewhere", api.url())] {
        api.set(JWKS, Answer::Redirect(location));
        let gateway = Gateway::start(&api);

        let line = gateway.wait_for_log("fetch failed document=jwks");

        assert_eq!(field(&line, "reason"), Some("bad-document"), "{line}");
        assert_eq!(gateway.get(JWKS).header("Location"), None);
    }
    assert_eq!(api.count("/elsewhere"), 0);
}

#[test]
fn an_api_server_that_is_not_there_is_unreachable() {
    let api = FakeApi::start();
    api.go_down();
    let gateway = Gateway::start(&api);

    gateway.wait_for_log("reason=unreachable");

    assert_eq!(gateway.get(JWKS).text(), "unavailable: unreachable\n");
}

#[test]
fn a_name_that_is_not_known_is_told_of() {
    let api = FakeApi::start();
    // Reserved never to exist: RFC 6761 §6.4.
    let gateway = Gateway::builder(&api)
        .set("UPSTREAM_HOST", "https://api.invalid")
        .set("UPSTREAM_TIMEOUT_SECONDS", "60")
        .start();

    let line = gateway.wait_for_log("fetch failed");

    assert_eq!(field(&line, "reason"), Some("unreachable"), "{line}");
    assert!(line.contains("api.invalid") && line.contains("DNS"), "{line}");
}

#[test]
fn an_api_server_that_accepts_and_says_nothing_is_a_timeout() {
    let api = FakeApi::start();
    // Never accepted: connected by the kernel, and silent from then on.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let gateway = Gateway::builder(&api)
        .set("UPSTREAM_HOST", url)
        .set("UPSTREAM_TIMEOUT_SECONDS", "0.3")
        .start();

    gateway.wait_for_log("reason=timeout");

    assert_eq!(gateway.get(JWKS).text(), "unavailable: timeout\n");
}

#[test]
fn a_slow_drip_is_bounded_as_a_whole() {
    let api = FakeApi::start();
    // Every byte in good time, all of them in two minutes.
    let drip = Answer::Drip { body: " ".repeat(1_200), pause: Duration::from_millis(100) };
    api.set_both(&drip);
    let gateway = Gateway::builder(&api).set("UPSTREAM_TIMEOUT_SECONDS", "0.5").start();

    gateway.wait_for_log("reason=timeout");

    assert_eq!(gateway.get(JWKS).text(), "unavailable: timeout\n");
}

#[test]
fn a_huge_answer_costs_no_memory() {
    let api = FakeApi::start();
    api.set(JWKS, Answer::jwks(" ".repeat(64 << 20)));
    let gateway = Gateway::start(&api);

    let line = gateway.wait_for_log("fetch failed document=jwks");

    assert_eq!(field(&line, "reason"), Some("bad-document"), "{line}");
    assert!(gateway.peak_kib() < 32 << 10, "{} KiB at most", gateway.peak_kib());
}

#[test]
fn fifty_clients_of_a_hanging_api_server_leave_the_probes_alone() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = Gateway::builder(&api).set("UPSTREAM_TIMEOUT_SECONDS", "60").start();
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(gateway.public)).collect();
    for client in &mut clients {
        client.ask(JWKS);
    }
    // Of 16 workers 15 may wait, so that 35 of 50 clients are rejected at once.
    for _ in 0..35 {
        gateway.wait_for_log("request path=/openid/v1/jwks status=502");
    }

    for listener in [gateway.public, gateway.admin.unwrap()] {
        assert_eq!(client::get(listener, "/livez").status, 200);
        assert_eq!(client::get(listener, "/readyz").status, 503);
        assert_eq!(client::get(listener, "/healthz").status, 503);
    }
    api.set_good();

    let responses: Vec<_> = clients.iter_mut().map(|client| client.read("GET")).collect();
    let (served, turned_away): (Vec<_>, Vec<_>) =
        responses.iter().partition(|response| response.status == 200);
    assert_eq!((served.len(), turned_away.len()), (15, 35));
    for response in turned_away {
        assert!(response.header("Retry-After").is_some(), "{response:?}");
    }
}

#[test]
fn while_retries_back_off_nobody_waits() {
    let api = FakeApi::start();
    api.set_both(&Answer::Status(403));
    // Each failure is logged, and not one a minute.
    let gateway =
        Gateway::builder(&api).set("REVALIDATE_SECONDS", "86400").set("RUST_LOG", "debug").start();
    for _ in 0..3 {
        gateway.wait_for_log("fetch failed document=jwks");
    }
    let before = api.count(JWKS);

    let mut client = Client::connect(gateway.public);
    for _ in 0..100 {
        assert_eq!(client.get(JWKS).status, 502);
    }

    // At most one more round came due meanwhile: requests cause none.
    assert!(api.count(JWKS) <= before + 1, "{} after {before}", api.count(JWKS));
}

// A good copy is held.

#[test]
fn a_bad_key_set_never_replaces_a_good_one() {
    let api = FakeApi::start();
    let gateway = quick(&api).set("CACHE_TTL_SECONDS", "0.1").start();
    let good = gateway.get(JWKS);
    assert_eq!(good.status, 200);

    for (what, answer) in bad_key_sets() {
        api.set(JWKS, answer);
        let line = gateway.wait_for_log("fetch failed document=jwks");
        assert_eq!(field(&line, "reason"), Some("bad-document"), "{what}: {line}");
        assert_eq!(gateway.get(JWKS).body, good.body, "{what}");
        api.set_good();
        gateway.wait_for_log("upstream recovered");
        // The bad answer may have been fetched more than once, and been told of each time.
        gateway.forget_log();
    }
    assert_eq!(gateway.log().matches("document changed document=jwks").count(), 1);
}

#[test]
fn a_bad_discovery_document_never_replaces_a_good_one() {
    let api = FakeApi::start();
    let gateway = quick(&api).set("CACHE_TTL_SECONDS", "0.1").start();
    let good = gateway.get(DISCOVERY);
    assert_eq!(good.status, 200);

    for (what, answer) in bad_discovery_documents() {
        api.set(DISCOVERY, answer);
        let line = gateway.wait_for_log("fetch failed document=discovery");
        assert_eq!(field(&line, "reason"), Some("bad-document"), "{what}: {line}");
        assert_eq!(gateway.get(DISCOVERY).body, good.body, "{what}");
        api.set_good();
        gateway.wait_for_log("upstream recovered");
        // The bad answer may have been fetched more than once, and been told of each time.
        gateway.forget_log();
    }
    assert_eq!(gateway.log().matches("document changed document=discovery").count(), 1);
}

#[test]
fn a_bad_document_is_not_served_when_it_is_the_first_either() {
    let api = FakeApi::start();
    for (what, answer) in bad_key_sets().into_iter().step_by(4) {
        api.set(JWKS, answer);
        let gateway = Gateway::start(&api);
        gateway.wait_for_log("fetch failed document=jwks reason=bad-document");
        let response = gateway.get(JWKS);
        assert_eq!(
            (response.status, response.text()),
            (502, "unavailable: bad-document\n"),
            "{what}"
        );
        assert_eq!(gateway.get(DISCOVERY).status, 200, "{what}");
    }
}

#[test]
fn one_bad_document_does_not_keep_the_other_from_being_refreshed() {
    let api = FakeApi::start();
    let gateway = quick(&api).start();
    gateway.wait_for_log(&format!("signing key added kid={}", api.kid()));

    api.set(DISCOVERY, Answer::Status(404));
    api.rotate_key();

    gateway.wait_for_log(&format!("signing key added kid={}", api.kid()));
    assert!(gateway.get(JWKS).text().contains(&api.kid()));
}

#[test]
fn each_failure_leaves_the_copy_in_service_and_ends() {
    let api = FakeApi::start();
    let gateway = quick(&api).set("UPSTREAM_TIMEOUT_SECONDS", "0.3").start();
    let good = gateway.get(JWKS);
    let drip = Answer::Drip { body: " ".repeat(1_200), pause: Duration::from_millis(100) };

    for (answer, why) in [
        (Answer::Status(401), "unauthorized"),
        (Answer::Status(403), "forbidden"),
        (Answer::Status(404), "not-found"),
        (Answer::Status(500), "upstream-error"),
        (Answer::Redirect("/elsewhere".to_owned()), "bad-document"),
        (Answer::Close, "unreachable"),
        (Answer::Truncated { body: good.text().to_owned() }, "unreachable"),
        (Answer::Hang, "timeout"),
        (drip, "timeout"),
    ] {
        api.set_both(&answer);
        let line = gateway.wait_for_log("fetch failed document=discovery");
        assert_eq!(field(&line, "reason"), Some(why), "{answer:?}: {line}");
        let mut client = Client::connect(gateway.public);
        for _ in 0..20 {
            let response = client.get(JWKS);
            assert_eq!((response.status, &response.body), (200, &good.body), "{answer:?}");
        }
        api.set_good();
        gateway.wait_for_log("upstream recovered");
        // The bad answer may have been fetched more than once, and been told of each time.
        gateway.forget_log();
    }
}

// Connections that died.

#[test]
fn connections_closed_while_idle_cost_nothing() {
    let api = FakeApi::start();
    let gateway = quick(&api).start();

    for _ in 0..3 {
        api.wait_for_more(JWKS, 1);
        api.close_idle_connections();
    }

    api.wait_for_more(JWKS, 2);
    assert!(!gateway.log().contains("fetch failed"), "{}", gateway.log());
}

#[test]
fn a_connection_that_dies_as_it_is_used_again_is_replaced_within_the_fetch() {
    let api = FakeApi::start();
    let gateway = quick(&api).start();
    api.wait_for_count(JWKS, 1);

    api.hang_up_on_reuse();

    gateway.wait_for_log("document changed document=jwks");
    api.wait_for_more(JWKS, 6);
    assert!(!gateway.log().contains("fetch failed"), "{}", gateway.log());
}
