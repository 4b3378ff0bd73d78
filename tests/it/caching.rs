//! When the API server is asked, and what is served meanwhile.

use testing::client::{self, Client};
use testing::fake_api::{
    Answer, DISCOVERY, FIRST_TOKEN, FakeApi, INTERNAL_JWKS_URI, JWKS, discovery,
};
use testing::gateway::{Builder, Gateway};
use testing::wait::{SOON, eventually};

/// Fetches at the start and then, as far as a test is concerned, never again.
fn once(api: &FakeApi) -> Builder {
    Gateway::builder(api)
        .set("CACHE_TTL_SECONDS", "86400")
        .set("REVALIDATE_SECONDS", "86400")
        .set("UPSTREAM_TIMEOUT_SECONDS", "60")
}

#[test]
fn fifty_cold_clients_cause_one_fetch() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = once(&api).set("WORKERS", "64").start();
    let mut clients: Vec<_> = (0..50).map(|_| Client::connect(gateway.public)).collect();
    for client in &mut clients {
        client.ask(JWKS);
    }
    // Asked for by the gateway itself at the start, or by the first client.
    assert!(api.wait_until(SOON, |requests| !requests.is_empty()));

    api.set_good();

    for client in &mut clients {
        assert_eq!(client.read("GET").status, 200);
    }
    api.wait_for_count(DISCOVERY, 1);
    assert_eq!((api.count(DISCOVERY), api.count(JWKS)), (1, 1));
}

#[test]
fn a_client_that_goes_away_cancels_nothing() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = once(&api).start();
    let mut client = Client::connect(gateway.public);
    client.ask(JWKS);
    drop(client);

    api.set_good();

    gateway.wait_for_log("document changed document=jwks");
    assert_eq!(gateway.get(JWKS).status, 200);
    assert_eq!(api.count(JWKS), 1);
}

#[test]
fn cached_requests_never_reach_the_api_server() {
    let api = FakeApi::start();
    let gateway = once(&api).start();
    gateway.wait_for_log("document changed document=discovery");
    gateway.wait_for_log("document changed document=jwks");

    let mut client = Client::connect(gateway.public);
    for _ in 0..500 {
        assert_eq!(client.get(DISCOVERY).status, 200);
        assert_eq!(client.get(JWKS).status, 200);
    }

    assert_eq!((api.count(DISCOVERY), api.count(JWKS)), (1, 1));
}

#[test]
fn both_documents_are_refreshed_without_being_asked_for() {
    let api = FakeApi::start();
    let _gateway = Gateway::quick(&api).start();

    api.wait_for_count(JWKS, 5);

    assert!(api.count(DISCOVERY).abs_diff(api.count(JWKS)) <= 1, "{:?}", api.requests());
}

#[test]
fn each_round_has_one_connection_of_its_own() {
    let api = FakeApi::start();
    let _gateway = Gateway::quick(&api).start();

    api.wait_for_count(JWKS, 5);

    // Behind one address there may be several API servers, and each connection sees one of them.
    let paths = |number| {
        let of = api.requests().into_iter().filter(move |request| request.connection == number);
        of.map(|request| request.path).collect::<Vec<_>>()
    };
    for number in 1..=4 {
        assert_eq!(paths(number), [DISCOVERY, JWKS]);
    }
}

#[test]
fn refreshing_leaves_neither_threads_nor_descriptors_behind() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    api.wait_for_count(JWKS, 3);
    let (threads, descriptors) = (gateway.threads(), gateway.descriptors());

    for _ in 0..5 {
        api.wait_for_more(JWKS, 1);
        api.close_idle_connections();
        api.rotate_ca();
        api.volume.write(FIRST_TOKEN, &api.ca_pem());
        gateway.wait_for_log("CA file changed");
    }
    // Asked for over the newest connection: so the older ones are gone.
    api.rotate_key();
    gateway.wait_for_log(&format!("signing key added kid={}", api.kid()));

    assert!(gateway.threads() <= threads, "{threads} threads, then {}", gateway.threads());
    eventually("as many descriptors as before", || gateway.descriptors() <= descriptors + 1);
}

#[test]
fn a_new_key_is_served_and_told_of() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("KEY_GRACE_SECONDS", "0.5").start();
    let old = gateway.get(JWKS);
    let old_kid = api.kid();
    gateway.wait_for_log(&format!("signing key added kid={old_kid}"));
    gateway.wait_for_log("document changed document=jwks");

    api.rotate_key();

    gateway.wait_for_log("document changed document=jwks");
    gateway.wait_for_log(&format!("signing key added kid={}", api.kid()));
    gateway.wait_for_log(&format!("signing key removed kid={old_kid}"));
    let new = gateway.get(JWKS);
    assert!(new.text().contains(&api.kid()), "{new:?}");
    assert_ne!(new.header("ETag"), old.header("ETag"));
}

#[test]
fn a_new_discovery_document_is_served_with_its_paths() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    gateway.wait_for_log("document changed document=discovery");
    assert_eq!(gateway.get(&format!("/new{JWKS}")).status, 404);

    let issuer = "https://issuer.example/new";
    api.set(DISCOVERY, Answer::discovery(discovery(issuer, INTERNAL_JWKS_URI)));

    gateway.wait_for_log("document changed document=discovery");
    assert_eq!(gateway.get(DISCOVERY).json()["issuer"], issuer);
    assert_eq!(gateway.get(&format!("/new{JWKS}")).status, 200);
}

#[test]
fn documents_that_stay_the_same_are_told_of_once() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();

    api.wait_for_count(JWKS, 5);

    for line in ["document changed document=jwks", "signing key added", "publishing"] {
        assert_eq!(gateway.log().matches(line).count(), 1, "{line} in\n{}", gateway.log());
    }
}

#[test]
fn an_outage_is_not_seen_by_clients_and_its_end_is() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    let before = gateway.get(JWKS);

    api.go_down();
    gateway.wait_for_log("fetch failed");
    let mut client = Client::connect(gateway.public);
    for _ in 0..50 {
        let during = client.get(JWKS);
        assert_eq!((during.status, &during.body), (200, &before.body));
        assert_eq!(during.header("ETag"), before.header("ETag"));
    }
    assert_eq!(client.get("/readyz").status, 200);
    assert_eq!(client.get("/healthz").status, 503);

    api.rotate_key();
    api.come_back();
    gateway.wait_for_log("upstream recovered");
    assert!(gateway.get(JWKS).text().contains(&api.kid()));
    assert_eq!(gateway.get("/healthz").status, 200);
}

#[test]
fn a_copy_is_not_served_for_longer_than_max_stale() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("MAX_STALE_SECONDS", "1").start();
    assert_eq!(gateway.get(JWKS).status, 200);

    api.go_down();
    eventually("502", || {
        let response = gateway.get(JWKS);
        assert!([200, 502].contains(&response.status), "{response:?}");
        response.status == 502
    });
    let response = gateway.get(JWKS);
    assert!(response.text().starts_with("unavailable: "), "{response:?}");
    assert!(response.header("Retry-After").is_some(), "{response:?}");
    assert_eq!(gateway.get("/readyz").status, 503);
    assert_eq!(gateway.get("/livez").status, 200);

    api.come_back();
    gateway.wait_for_log("upstream recovered");
    assert_eq!(gateway.get(JWKS).status, 200);
    assert_eq!(gateway.get("/readyz").status, 200);
}

#[test]
fn a_stale_copy_is_not_to_be_kept_by_clients() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("CLIENT_CACHE_TTL_SECONDS", "1").start();
    assert_eq!(gateway.get(JWKS).status, 200);
    api.go_down();

    eventually("max-age=0", || client::get(gateway.public, JWKS).max_age() == 0);
}

#[test]
fn the_log_tells_a_hit_from_a_wait() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    // One of two workers may wait: when one client is rejected, the other is known to wait.
    let gateway = once(&api).set("WORKERS", "2").start();
    let mut clients = [Client::connect(gateway.public), Client::connect(gateway.public)];
    for client in &mut clients {
        client.ask(JWKS);
    }
    gateway.wait_for_log("request path=/openid/v1/jwks status=502 cache_hit=false");

    api.set_good();

    let mut statuses = clients.map(|mut client| client.read("GET").status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502]);
    gateway.wait_for_log("request path=/openid/v1/jwks status=200 cache_hit=false");
    assert_eq!(gateway.get(JWKS).status, 200);
    gateway.wait_for_log("request path=/openid/v1/jwks status=200 cache_hit=true");
}
