//! How soon a new signing key is served, and how long an old one.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use testing::client::Client;
use testing::fake_api::{Answer, DISCOVERY, FakeApi, INTERNAL_JWKS_URI, JWKS, discovery};
use testing::gateway::{Builder, Gateway, field};
use testing::wait::{SOON, eventually};

/// A fifth of a second is how long a request waits; the rest is for a loaded machine.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Confirms the key set a tenth of a second after it was confirmed last, and refreshes hardly ever.
fn asked(api: &FakeApi) -> Builder {
    Gateway::builder(api).set("CACHE_TTL_SECONDS", "3600").set("REVALIDATE_SECONDS", "0.1")
}

/// Lets the copy become older than a tenth of a second, which is what these tests are about.
fn until_the_copy_is_old() {
    thread::sleep(Duration::from_millis(150));
}

fn jwk(kid: &str, x: &str) -> Value {
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": "y", "use": "sig", "alg": "ES256"})
}

fn set(keys: &[Value]) -> Answer {
    Answer::jwks(json!({ "keys": keys }).to_string())
}

fn kids(gateway: &Gateway) -> Vec<String> {
    let keys = gateway.get(JWKS).json()["keys"].as_array().unwrap().clone();
    keys.iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

// Fresh when asked.

#[test]
fn the_first_request_after_a_rotation_gets_the_new_key() {
    let api = FakeApi::start();
    let gateway = asked(&api).start();
    assert_eq!(kids(&gateway), [api.kid()]);
    // On a loaded machine a round may take longer than a request waits for it.
    let first_gets_it = (0..20).any(|_| {
        until_the_copy_is_old();
        let old = api.kid();
        api.rotate_key();
        // The new one first, and the old one within its grace.
        kids(&gateway).starts_with(&[api.kid(), old])
    });
    assert!(first_gets_it);
    gateway.wait_for_log("request path=/openid/v1/jwks status=200 cache_hit=false");
}

/// As many as the default number of workers, less one.
#[test]
fn fifteen_that_ask_in_the_same_moment_get_the_new_key() {
    let api = FakeApi::start();
    let gateway = asked(&api).start();
    assert_eq!(kids(&gateway), [api.kid()]);
    let mut clients: Vec<_> = (0..15).map(|_| Client::connect(gateway.public)).collect();
    // On a loaded machine a round may take longer than requests wait for it.
    let all_get_it = (0..20).any(|_| {
        until_the_copy_is_old();
        api.rotate_key();
        for client in &mut clients {
            client.ask(JWKS);
        }
        let kid = api.kid();
        let answers: Vec<_> = clients.iter_mut().map(|client| client.read("GET")).collect();
        answers.iter().all(|answer| answer.text().contains(&kid))
    });
    assert!(all_get_it);
}

#[test]
fn requests_cause_one_fetch_of_the_key_set_in_revalidate_seconds() {
    let api = FakeApi::start();
    let gateway = asked(&api).set("REVALIDATE_SECONDS", "0.5").start();
    assert_eq!(gateway.get(JWKS).status, 200);
    let (begin, before) = (Instant::now(), api.count(JWKS));

    let mut client = Client::connect(gateway.public);
    while begin.elapsed() < Duration::from_secs(2) {
        let no_cache = [("Cache-Control", "no-cache"), ("Pragma", "no-cache")];
        assert_eq!(client.request("GET", JWKS, &no_cache).status, 200);
    }

    let most = usize::try_from(begin.elapsed().as_millis() / 500).unwrap() + 1;
    let fetches = api.count(JWKS) - before;
    assert!((1..=most).contains(&fetches), "{fetches} fetches, at most {most}");
    assert_eq!(api.count(DISCOVERY), 1);
}

#[test]
fn a_hanging_api_server_delays_no_request_and_the_first_one_after_it_gets_the_new_key() {
    let api = FakeApi::start();
    let gateway = asked(&api).set("UPSTREAM_TIMEOUT_SECONDS", "0.5").start();
    assert_eq!(kids(&gateway), [api.kid()]);
    until_the_copy_is_old();
    api.set_both(&Answer::Hang);
    let mut client = Client::connect(gateway.public);

    // The first waits a fifth of a second for nothing.
    assert_eq!(client.get(JWKS).status, 200);
    let line = gateway.wait_for_log("fetch failed document=jwks");
    assert_eq!(field(&line, "reason"), Some("timeout"), "{line}");
    let begin = Instant::now();
    for _ in 0..20 {
        assert_eq!(client.get(JWKS).status, 200);
    }
    // Four seconds if each of them waited.
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    // They go on asking for rounds.
    let before = api.count(JWKS);
    eventually("another round", || client.get(JWKS).status == 200 && api.count(JWKS) > before);
    api.rotate_key();
    api.set_good();

    eventually("the new key", || kids(&gateway).contains(&api.kid()));
    gateway.wait_for_log("upstream recovered");
}

#[test]
fn an_api_server_that_refuses_is_asked_again_by_the_next_request_whatever_the_back_off() {
    let api = FakeApi::start();
    let gateway = asked(&api).start();
    assert_eq!(kids(&gateway), [api.kid()]);
    until_the_copy_is_old();
    for answer in [Answer::Status(500), Answer::Status(401), Answer::Status(403)] {
        api.set_both(&answer);
        let before = api.count(JWKS);
        eventually("a request causes a fetch", || {
            let begin = Instant::now();
            assert_eq!(gateway.get(JWKS).status, 200);
            assert!(begin.elapsed() < AT_ONCE);
            api.count(JWKS) > before
        });
    }
    until_the_copy_is_old();

    api.rotate_key();
    api.set_good();

    eventually("the new key", || kids(&gateway)[0] == api.kid());
}

#[test]
fn without_a_copy_a_request_for_the_key_set_ends_the_back_off() {
    let api = FakeApi::start();
    api.set_both(&Answer::Status(403));
    let gateway = asked(&api).start();
    for _ in 0..6 {
        assert_eq!(gateway.get(JWKS).status, 502);
    }
    api.set_good();

    eventually("a request is answered", || gateway.get(JWKS).status == 200);
    // And the other document with it.
    gateway.wait_for_log("document changed document=discovery");
    assert_eq!(gateway.get("/healthz").status, 200);
}

#[test]
fn what_is_wrong_with_the_discovery_document_stays_wrong_when_keys_are_fetched_alone() {
    let api = FakeApi::start();
    let gateway = asked(&api).set("CACHE_TTL_SECONDS", "0.3").start();
    assert_eq!(gateway.get(JWKS).status, 200);
    api.set(DISCOVERY, Answer::discovery("{}"));
    gateway.wait_for_log("fetch failed document=discovery");

    for _ in 0..5 {
        until_the_copy_is_old();
        assert_eq!(gateway.get(JWKS).status, 200);
        let health = gateway.get("/healthz");
        assert_eq!(health.text(), "unhealthy: bad-document\n");
    }
    assert_eq!(gateway.log().matches("fetch failed").count(), 1);
}

#[test]
fn it_can_be_turned_off() {
    let api = FakeApi::start();
    let gateway = asked(&api).set("REVALIDATE_SECONDS", "3600").start();
    assert_eq!(gateway.get(JWKS).status, 200);
    until_the_copy_is_old();
    assert_eq!(gateway.get(JWKS).status, 200);
    assert_eq!(api.count(JWKS), 1);
}

// What caches are told.

#[test]
fn shared_caches_have_a_lifetime_of_their_own_for_the_key_set_alone() {
    for (shared, client, expected) in [
        ("", "", "public, max-age=3600, s-maxage=30"),
        ("86400", "", "public, max-age=3600, s-maxage=3600"),
        ("0", "10", "public, max-age=10, s-maxage=0"),
        ("", "0", "public, max-age=0, s-maxage=0"),
    ] {
        let api = FakeApi::start();
        let gateway = Gateway::builder(&api)
            .set("SHARED_CACHE_TTL_SECONDS", shared)
            .set("CLIENT_CACHE_TTL_SECONDS", client)
            .start();
        assert_eq!(gateway.get(JWKS).header("Cache-Control"), Some(expected));
        let discovery = gateway.get(DISCOVERY).header("Cache-Control").unwrap().to_owned();
        assert!(!discovery.contains("s-maxage"), "{discovery}");
    }
}

#[test]
fn an_old_copy_has_the_same_lifetime_in_shared_caches() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api)
        .set("CACHE_TTL_SECONDS", "0.2")
        .set("CLIENT_CACHE_TTL_SECONDS", "1")
        .start();
    assert_eq!(gateway.get(JWKS).status, 200);
    api.go_down();
    eventually("max-age=0", || {
        let response = gateway.get(JWKS);
        let control = response.header("Cache-Control").unwrap();
        control == "public, max-age=0, s-maxage=1"
    });
}

/// As with an external token signer, which says when it is asked again.
#[test]
fn a_max_age_of_upstream_that_is_shorter_counts() {
    let api = FakeApi::start();
    api.set_max_age(2);
    let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "3600").start();
    for path in [JWKS, DISCOVERY] {
        let response = gateway.get(path);
        assert!(response.max_age() <= 2, "{response:?}");
    }
    // The next round comes by then.
    let begin = Instant::now();
    api.wait_for_count(DISCOVERY, 2);
    assert!(begin.elapsed() < SOON / 2);
}

// API servers that disagree.

#[test]
fn a_key_that_one_api_server_does_not_list_is_served_for_its_grace() {
    let api = FakeApi::start();
    api.set(JWKS, set(&[jwk("a", "1")]));
    let gateway = asked(&api)
        .set("CACHE_TTL_SECONDS", "0.2")
        .set("REVALIDATE_SECONDS", "0.1")
        .set("KEY_GRACE_SECONDS", "4")
        .start();
    assert_eq!(kids(&gateway), ["a"]);

    api.set(JWKS, set(&[jwk("b", "1"), jwk("a", "1")]));
    eventually("both", || kids(&gateway) == ["b", "a"]);
    api.set(JWKS, set(&[jwk("b", "1")]));
    for _ in 0..3 {
        api.wait_for_more(JWKS, 1);
        assert_eq!(kids(&gateway), ["b", "a"], "within the grace");
    }
    gateway.wait_for_log("signing key removed kid=a");
    assert_eq!(kids(&gateway), ["b"]);
}

#[test]
fn in_an_outage_keys_of_the_grace_stay() {
    let api = FakeApi::start();
    api.set(JWKS, set(&[jwk("a", "1")]));
    let gateway = asked(&api).set("CACHE_TTL_SECONDS", "0.2").set("KEY_GRACE_SECONDS", "3").start();
    assert_eq!(kids(&gateway), ["a"]);
    api.set(JWKS, set(&[jwk("b", "1")]));
    eventually("both", || kids(&gateway) == ["b", "a"]);

    api.set_both(&Answer::Status(500));
    gateway.wait_for_log("fetch failed");
    // Longer than the grace.
    thread::sleep(Duration::from_millis(3_200));
    assert_eq!(kids(&gateway), ["b", "a"]);
}

#[test]
fn keys_of_another_issuer_are_never_mixed_in() {
    let api = FakeApi::start();
    api.set(JWKS, set(&[jwk("a", "1")]));
    let gateway = asked(&api).start();
    assert_eq!(kids(&gateway), ["a"]);
    until_the_copy_is_old();

    let other = "https://other.example";
    api.set(DISCOVERY, Answer::discovery(discovery(other, INTERNAL_JWKS_URI)));
    api.set(JWKS, set(&[jwk("b", "1")]));

    eventually("the other key", || {
        let kids = kids(&gateway);
        assert_eq!(kids.len(), 1, "{kids:?}");
        kids == ["b"]
    });
    assert_eq!(gateway.get(DISCOVERY).json()["issuer"], other);
}

#[test]
fn while_sets_differ_rounds_come_every_five_seconds() {
    let api = FakeApi::start();
    api.set(JWKS, set(&[jwk("a", "1")]));
    let gateway = asked(&api).start();
    assert_eq!(kids(&gateway), ["a"]);
    until_the_copy_is_old();
    api.set(JWKS, set(&[jwk("b", "1")]));
    eventually("both", || kids(&gateway) == ["b", "a"]);
    let before = api.count(DISCOVERY);

    // An hour otherwise.
    assert!(api.wait_until(SOON, |requests| {
        requests.iter().filter(|request| request.path == DISCOVERY).count() > before
    }));
}

// One entry a key.

#[test]
fn a_key_that_upstream_lists_twice_is_served_once() {
    let api = FakeApi::start();
    let a = jwk("a", "1");
    api.set(JWKS, set(&[a.clone(), jwk("b", "1"), a.clone(), a]));
    let gateway = Gateway::start(&api);
    assert_eq!(kids(&gateway), ["a", "b"]);
}

#[test]
fn two_keys_of_one_kid_are_both_served_with_one_warning() {
    let api = FakeApi::start();
    api.set(JWKS, set(&[jwk("a", "1"), jwk("a", "2")]));
    let gateway = asked(&api).set("CACHE_TTL_SECONDS", "0.2").start();
    assert_eq!(kids(&gateway), ["a", "a"]);
    gateway.wait_for_log("two signing keys have one kid kid=a");
    api.wait_for_more(JWKS, 3);
    assert_eq!(gateway.log().matches("two signing keys").count(), 1);
    api.set(JWKS, set(&[jwk("a", "1")]));
    gateway.wait_for_log("each signing key has a kid of its own again");
    assert_eq!(kids(&gateway), ["a"]);
}

/// As behind one address, where one API server works and another does not.
#[test]
fn failures_that_come_and_go_are_one_line_a_minute_and_one_for_their_end() {
    let api = FakeApi::start();
    let gateway = asked(&api).set("CACHE_TTL_SECONDS", "0.2").start();
    assert_eq!(gateway.get(JWKS).status, 200);
    for _ in 0..5 {
        api.set_both(&Answer::Status(500));
        eventually("unhealthy", || gateway.get("/healthz").status == 503);
        api.set_good();
        eventually("healthy", || gateway.get("/healthz").status == 200);
    }
    gateway.wait_for_log("upstream recovered");
    for line in ["fetch failed", "upstream recovered"] {
        assert_eq!(gateway.log().matches(line).count(), 1, "{line}");
    }
}

#[test]
fn keys_of_an_issuer_that_cannot_be_published_are_not_mixed_with_others() {
    let api = FakeApi::start();
    api.set(JWKS, set(&[jwk("a", "1")]));
    let gateway = asked(&api).set("JWKS_URI", "upstream").start();
    assert_eq!(kids(&gateway), ["a"]);
    until_the_copy_is_old();
    api.set(DISCOVERY, Answer::discovery(discovery("https://b.example", "http://b.example/k")));
    api.set(JWKS, set(&[jwk("b", "1")]));
    eventually("the other key", || {
        let kids = kids(&gateway);
        assert_eq!(kids.len(), 1, "{kids:?}");
        kids == ["b"]
    });
}

#[test]
fn a_key_that_changes_under_its_kid_is_a_warning() {
    let api = FakeApi::start();
    api.set(JWKS, set(&[jwk("a", "1")]));
    let gateway = asked(&api).start();
    assert_eq!(kids(&gateway), ["a"]);
    until_the_copy_is_old();
    api.set(JWKS, set(&[jwk("a", "2")]));
    let x = || gateway.get(JWKS).json()["keys"][0]["x"].clone();
    // The new one alone: relying parties refuse two candidates.
    eventually("the new one", || x() == "2" && kids(&gateway) == ["a"]);
    gateway.wait_for_log("signing key changed kid=a");
}

#[test]
fn a_large_key_set_is_served_compact_with_a_warning() {
    let api = FakeApi::start();
    let keys: Vec<_> = (0..250).map(|n| jwk(&format!("{n:0>40}"), &"x".repeat(43))).collect();
    api.set(JWKS, set(&keys));
    let gateway = Gateway::builder(&api).set("PRETTY_PRINT_JSON", "true").start();
    assert!(!gateway.get(JWKS).text().contains('\n'));
    let line = gateway.wait_for_log("the key set is large");
    let bytes: usize = field(&line, "bytes").unwrap().parse().unwrap();
    assert_eq!(bytes, gateway.get(JWKS).body.len());
}

#[test]
fn an_unusable_jwks_uri_upstream_matters_only_where_it_would_be_published() {
    for unusable in ["https://:6443/openid/v1/jwks", "http://10.0.0.1/k", "https://2001:db8::1/k"] {
        let api = FakeApi::start();
        api.set(DISCOVERY, Answer::discovery(discovery("https://issuer.example", unusable)));
        let gateway = Gateway::start(&api);
        let ours = "https://issuer.example/openid/v1/jwks";
        assert_eq!(gateway.get(DISCOVERY).json()["jwks_uri"], ours);

        let gateway = Gateway::builder(&api).set("JWKS_URI", "upstream").start();
        let line = gateway.wait_for_log("fetch failed document=discovery");
        assert_eq!(field(&line, "reason"), Some("bad-document"), "{line}");
    }
}

#[test]
fn keys_of_the_grace_give_way_before_a_set_is_too_large() {
    let api = FakeApi::start();
    // Each set fits into 128 KiB, and both together do not.
    let keys = |name: &str| -> Vec<_> {
        (0..250).map(|n| jwk(&format!("{name}-{n}"), &"x".repeat(200))).collect()
    };
    api.set(JWKS, set(&keys("old")));
    let gateway = asked(&api).start();
    assert_eq!(kids(&gateway).len(), 250);
    until_the_copy_is_old();
    api.set(JWKS, set(&keys("new")));

    let of = |name: &str| kids(&gateway).iter().filter(|kid| kid.starts_with(name)).count();
    eventually("the new keys", || of("new") == 250);
    assert!((100..250).contains(&of("old")), "{}", of("old"));
    assert!(gateway.get(JWKS).body.len() <= 128 << 10);
}
