//! `/status` on the admin listener: what is wrong now, and what to do.

use serde_json::{Value, json};

use testing::client;
use testing::fake_api::{Answer, DISCOVERY, FakeApi, ISSUER, JWKS};
use testing::gateway::Gateway;
use testing::wait::eventually;

fn status(gateway: &Gateway) -> Value {
    let response = client::get(gateway.admin.unwrap(), "/status");
    assert_eq!((response.status, response.header("Content-Type")), (200, Some("application/json")));
    let ascii = response.body.iter().all(|byte| *byte == b'\n' || (b' '..=b'~').contains(byte));
    assert!(ascii, "{}", response.text());
    response.json()
}

/// What a round finds is there when it ends, a moment after its documents.
#[track_caller]
fn first_round(gateway: &Gateway) {
    eventually("keys", || status(gateway)["keys"].as_array().is_some_and(|keys| !keys.is_empty()));
}

/// The words of what is wrong, and the documents that they are about.
fn problems(status: &Value) -> Vec<String> {
    let problems = status["problems"].as_array().unwrap().iter();
    let word = |problem: &Value| {
        let hint = problem["hint"].as_str().unwrap();
        assert!(hint.len() > 10, "{problem}");
        let word = problem["problem"].as_str().unwrap();
        let document = problem["document"].as_str().map(|it| format!(" {it}"));
        format!("{word}{}", document.unwrap_or_default())
    };
    problems.map(word).collect()
}

#[test]
fn it_says_what_is_served_and_with_which_settings() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("LOG_FORMAT", "text").set("WORKERS", "3").start();
    first_round(&gateway);
    let status = status(&gateway);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["ready"], &status["healthy"]), (&json!(true), &json!(true)));
    assert_eq!(status["issuer"], ISSUER);
    assert_eq!(status["own_token"], "not_checked");
    assert_eq!(problems(&status), [""; 0]);
    // Those that differ from their defaults, and of upstream's address only that it is given.
    let settings = status["settings"].as_object().unwrap();
    assert_eq!(settings["WORKERS"], "3");
    assert_eq!(settings["CACHE_TTL_SECONDS"], "0.2");
    assert_eq!(settings["UPSTREAM_HOST"], "(not shown)");
    assert!(!settings.contains_key("LOG_FORMAT"));
    for document in ["discovery", "jwks"] {
        let document = &status["documents"][document];
        assert_eq!(document["available"], true);
        assert_eq!(document["last_fetch"], "success");
        assert!(document["age_seconds"].as_f64().unwrap() < 20.0);
    }
    let key = &status["keys"][0];
    assert_eq!((&key["kid"], &key["algorithm"]), (&json!(api.kid()), &json!("ES256")));
    assert_eq!((&key["listed"], &key["first_seen"]), (&json!(true), &status["keys_changed"]));
    let subjects: Vec<_> =
        status["validity"].as_array().unwrap().iter().map(|it| it["subject"].clone()).collect();
    assert_eq!(subjects, ["ca", "api_server"]);
}

#[test]
fn what_is_wrong_is_said_in_the_words_of_the_502_and_nothing_of_upstream_is() {
    type Case = (&'static str, fn(&FakeApi), &'static [&'static str]);
    let cases: [Case; 7] = [
        ("403", |api| api.set(JWKS, Answer::Status(403)), &["forbidden jwks"]),
        ("404", |api| api.set(DISCOVERY, Answer::Status(404)), &["not-found discovery"]),
        ("not JSON", |api| api.set(JWKS, Answer::jwks("{")), &["bad-document jwks"]),
        (
            "500",
            |api| api.set_both(&Answer::Status(500)),
            &["upstream-error discovery", "upstream-error jwks"],
        ),
        ("401", |api| api.accept_tokens(&[]), &["unauthorized discovery", "unauthorized jwks"]),
        (
            "another CA",
            FakeApi::rotate_ca,
            &["untrusted-certificate discovery", "untrusted-certificate jwks"],
        ),
        ("down", FakeApi::go_down, &["unreachable discovery", "unreachable jwks"]),
    ];
    for (name, fails, expected) in cases {
        let api = FakeApi::start();
        let token = std::fs::read_to_string(api.volume.token()).unwrap();
        let gateway = Gateway::quick(&api).start();
        first_round(&gateway);
        fails(&api);
        eventually(name, || problems(&status(&gateway)) == expected);
        let found = status(&gateway);
        assert_eq!((&found["ready"], &found["healthy"]), (&json!(true), &json!(false)), "{name}");
        for page in ["/status", "/metrics"] {
            let page = client::get(gateway.admin.unwrap(), page);
            for secret in [&api.address.to_string(), &api.address.port().to_string(), &token] {
                assert!(!page.text().contains(secret.as_str()), "{name}: {}", page.text());
            }
        }
    }
}

#[test]
fn several_things_can_be_wrong_at_once() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api)
        .set("MAX_STALE_SECONDS", "1")
        .set("ISSUER", "https://other.example")
        .set("SHUTDOWN_DELAY_SECONDS", "60")
        .start();
    eventually("mismatch", || problems(&status(&gateway)) == ["issuer-mismatch"]);
    api.set(JWKS, Answer::Status(403));
    let all = ["too-old jwks", "forbidden jwks", "issuer-mismatch"];
    eventually("all", || problems(&status(&gateway)) == all);
    assert_eq!(status(&gateway)["ready"], false);
    api.set_good();
    gateway.signal("TERM");
    eventually("stopping", || problems(&status(&gateway)) == ["stopping", "issuer-mismatch"]);
}

#[test]
fn before_the_first_fetch_it_says_so() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = Gateway::start(&api);
    let found = status(&gateway);
    assert_eq!(problems(&found), ["not-fetched-yet discovery", "not-fetched-yet jwks"]);
    assert_eq!((&found["issuer"], &found["keys_changed"]), (&Value::Null, &Value::Null));
    assert_eq!(found["documents"]["jwks"]["age_seconds"], Value::Null);
}

#[test]
fn what_is_known_is_said_while_the_round_goes_on() {
    let api = FakeApi::start();
    api.set(JWKS, Answer::Hang);
    let gateway = Gateway::builder(&api).set("UPSTREAM_TIMEOUT_SECONDS", "60").start();
    eventually("the issuer", || status(&gateway)["issuer"] == ISSUER);
    assert_eq!(problems(&status(&gateway)), ["not-fetched-yet jwks"]);
    api.set_good();
}

#[test]
fn a_key_that_is_served_only_for_the_grace_is_told_from_the_others() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    first_round(&gateway);
    let old = api.kid();
    api.rotate_key();
    let expected = [json!([api.kid(), true]), json!([old, false])];
    eventually("two keys", || {
        let found = status(&gateway);
        let keys = found["keys"].as_array().unwrap().iter();
        keys.map(|key| json!([key["kid"], key["listed"]])).eq(expected.iter().cloned())
    });
}

#[test]
fn what_is_overdue_for_renewal_is_a_problem() {
    let api = FakeApi::start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": ISSUER, "iat": now - 4000, "exp": now + 9000,
        "kubernetes.io": {"warnafter": now - 10},
    });
    let token = api.sign(&claims);
    api.accept_tokens(&[&token]);
    api.volume.write(&token, &api.ca_pem());
    let gateway = Gateway::quick(&api).start();
    eventually("overdue", || problems(&status(&gateway)) == ["token-not-renewed"]);
    // It still works.
    assert_eq!(status(&gateway)["healthy"], true);
}

#[test]
fn the_documentation_shows_the_members_that_are_there() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(page).expect("docs/metrics.md");
    let example = page.split("```json").nth(1).and_then(|rest| rest.split("```").next());
    let example: Value = serde_json::from_str(example.expect("an example")).expect("JSON");

    let api = FakeApi::start();
    api.set(JWKS, Answer::Status(403));
    let gateway = Gateway::quick(&api).start();
    eventually("forbidden", || problems(&status(&gateway)) == ["forbidden jwks"]);
    let forbidden = status(&gateway);
    api.set_good();
    eventually("healthy", || status(&gateway)["healthy"] == true);
    first_round(&gateway);
    let healthy = status(&gateway);
    let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(members(&example), members(&healthy));
    for (shown, there) in [
        (&example["documents"]["jwks"], &healthy["documents"]["jwks"]),
        (&example["keys"][0], &healthy["keys"][0]),
        (&example["validity"][0], &healthy["validity"][1]),
        (&example["problems"][0], &forbidden["problems"][0]),
    ] {
        assert_eq!(members(shown), members(there));
    }
    assert_eq!(example["problems"], forbidden["problems"]);
}
