//! The probes, on both listeners.

use std::thread;
use std::time::Duration;

use testing::client;
use testing::fake_api::{Answer, DISCOVERY, FakeApi, JWKS};
use testing::gateway::Gateway;
use testing::wait::eventually;

#[test]
fn probes_say_ok_on_both_listeners() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    gateway.wait_for_log("document changed document=discovery");
    gateway.wait_for_log("document changed document=jwks");

    for listener in [gateway.public, gateway.admin.unwrap()] {
        for probe in ["/livez", "/readyz", "/healthz", "/readyz?verbose"] {
            // The last step of a round is a moment behind its lines.
            eventually(probe, || client::get(listener, probe).status == 200);
            assert_eq!(client::get(listener, probe).text(), "ok\n", "{probe}");
        }
    }
}

#[test]
fn options_of_a_probe_has_the_status_of_get_and_no_body() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = Gateway::start(&api);

    for listener in [gateway.public, gateway.admin.unwrap()] {
        for (probe, status) in [("/livez", 200), ("/readyz", 503), ("/healthz", 503)] {
            let answer = client::request(listener, "OPTIONS", probe, &[]);
            assert_eq!((answer.status, answer.text()), (status, ""), "{probe}");
            assert_eq!(answer.header("Allow"), Some("GET, HEAD, OPTIONS"), "{probe}");
        }
    }
    api.set_good();
    eventually("ready", || {
        client::request(gateway.public, "OPTIONS", "/readyz", &[]).status == 200
    });
}

#[test]
fn the_admin_listener_has_no_documents() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let admin = gateway.admin.unwrap();

    for path in [DISCOVERY, JWKS, "/"] {
        assert_eq!(client::get(admin, path).status, 404, "{path}");
    }
    let response = client::request(admin, "POST", "/livez", &[]);
    assert_eq!((response.status, response.header("Allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[test]
fn the_admin_listener_can_be_left_out() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("ADMIN_PORT", "off").start();

    assert_eq!(gateway.admin, None);
    assert_eq!(gateway.get("/livez").status, 200);
}

#[test]
fn before_the_first_fetch_it_lives_but_is_not_ready() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = Gateway::builder(&api).set("UPSTREAM_TIMEOUT_SECONDS", "60").start();

    for listener in [gateway.public, gateway.admin.unwrap()] {
        assert_eq!(client::get(listener, "/livez").text(), "ok\n");
        let ready = client::get(listener, "/readyz");
        assert_eq!((ready.status, ready.text()), (503, "not ready: not-fetched-yet\n"));
        let healthy = client::get(listener, "/healthz");
        assert_eq!((healthy.status, healthy.text()), (503, "unhealthy: not-fetched-yet\n"));
    }

    api.set_good();
    eventually("ready", || gateway.get("/readyz").status == 200);
    eventually("healthy", || gateway.get("/healthz").status == 200);
}

#[test]
fn one_document_alone_makes_it_neither_ready_nor_healthy() {
    for (path, probe_body) in
        [(DISCOVERY, "not ready: forbidden\n"), (JWKS, "not ready: forbidden\n")]
    {
        let api = FakeApi::start();
        api.set(path, Answer::Status(403));
        let gateway = Gateway::start(&api);
        gateway.wait_for_log("reason=forbidden");

        eventually("why", || gateway.get("/readyz").text() == probe_body);
        assert_eq!(gateway.get("/readyz").status, 503);
        let healthy = gateway.get("/healthz");
        assert_eq!((healthy.status, healthy.text()), (503, "unhealthy: forbidden\n"));
    }
}

#[test]
fn with_a_stale_copy_it_is_ready_but_not_healthy() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "0.2").start();
    assert_eq!(gateway.get(JWKS).status, 200);

    api.set(JWKS, Answer::Status(403));
    gateway.wait_for_log("reason=forbidden");

    eventually("unhealthy", || gateway.get("/healthz").text() == "unhealthy: forbidden\n");
    assert_eq!(gateway.get("/readyz").status, 200);
    assert_eq!(gateway.get(JWKS).status, 200);
}

#[test]
fn a_copy_that_is_too_old_makes_it_not_ready() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api)
        .set("CACHE_TTL_SECONDS", "0.2")
        .set("MAX_STALE_SECONDS", "0.5")
        .start();
    assert_eq!(gateway.get(JWKS).status, 200);

    api.go_down();

    eventually("not ready", || gateway.get("/readyz").status == 503);
    let why = gateway.get("/readyz");
    assert!(["not ready: too-old\n", "not ready: unreachable\n"].contains(&why.text()), "{why:?}");
}

#[test]
fn healthz_asks_for_a_round_when_its_news_are_old_and_for_one_only() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "86400").start();
    eventually("healthy", || gateway.get("/healthz").status == 200);
    for _ in 0..20 {
        assert_eq!(gateway.get("/healthz").status, 200);
    }
    assert_eq!(api.count(JWKS), 1, "the news were fresh");

    // Time itself is what this is about: news count as old after 5 s.
    thread::sleep(Duration::from_millis(5_100));
    api.set_both(&Answer::Hang);
    for _ in 0..20 {
        // Never waits: the last result, while a round is under way.
        assert_eq!(gateway.get("/healthz").status, 200);
    }
    api.wait_for_count(DISCOVERY, 2);
    api.set_good();
    api.wait_for_count(JWKS, 2);
    for _ in 0..20 {
        assert_eq!(gateway.get("/healthz").status, 200);
    }
    assert_eq!((api.count(DISCOVERY), api.count(JWKS)), (2, 2));
}
