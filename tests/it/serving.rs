//! What a relying party gets: documents, headers, methods and paths.

use std::thread;
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use testing::client::{self, Client, Response};
use testing::fake_api::{
    Answer, DISCOVERY, FakeApi, INTERNAL_JWKS_URI, ISSUER, JWKS, UPSTREAM_TEXT, discovery, key_set,
};
use testing::gateway::{Gateway, field};

/// The value of `Access-Control-…`, `Allow` and the like as a sorted list.
fn list(response: &Response, name: &str) -> Vec<String> {
    let value = response.header(name).unwrap_or_default();
    let mut items: Vec<_> = value.split(',').map(|item| item.trim().to_owned()).collect();
    items.sort();
    items
}

/// The names of all headers, in lower case, sorted.
fn names(response: &Response) -> Vec<String> {
    let mut names: Vec<_> =
        response.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.sort();
    names
}

fn date(response: &Response, name: &str) -> SystemTime {
    let value = response.header(name).expect(name);
    assert!(value.len() == 29 && value.ends_with(" GMT"), "no IMF-fixdate: {value}");
    httpdate::parse_http_date(value).expect("a date")
}

fn published_jwks_uri(gateway: &Gateway) -> String {
    let document = gateway.get(DISCOVERY).json();
    document["jwks_uri"].as_str().expect("jwks_uri").to_owned()
}

// The documents.

#[test]
fn a_token_is_verified_the_way_a_relying_party_does_it() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let token = api.sign(&json!({ "iss": ISSUER, "sub": "system:serviceaccount:a:b" }));
    let parts: Vec<_> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("no JWT: {token}") };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let parse = |part: &str| serde_json::from_slice::<Value>(&decode(part)).unwrap();

    // OpenID Connect Discovery §4: the issuer must be equal, its jwks_uri leads to the key.
    let issuer = parse(claims)["iss"].as_str().unwrap().to_owned();
    let document = gateway.get(DISCOVERY).json();
    assert_eq!(document["issuer"], *issuer);
    let path = document["jwks_uri"].as_str().unwrap().strip_prefix(&issuer).unwrap();
    let keys = gateway.get(path).json();
    let kid = &parse(header)["kid"];
    let key = keys["keys"].as_array().unwrap().iter().find(|key| key["kid"] == *kid).unwrap();
    let [x, y] = ["x", "y"].map(|member| decode(key[member].as_str().unwrap()));
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [vec![4], x, y].concat());

    let signed = format!("{header}.{claims}");
    key.verify(signed.as_bytes(), &decode(signature)).expect("a good signature");
    let forged = signed.replacen(claims, header, 1);
    key.verify(forged.as_bytes(), &decode(signature)).expect_err("of something else");
}

#[test]
fn the_key_set_says_what_the_api_server_said() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);

    let response = gateway.get(JWKS);

    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-Type"), Some("application/jwk-set+json"));
    assert_eq!(response.json(), serde_json::from_str::<Value>(&api.jwks()).unwrap());
}

#[test]
fn of_the_discovery_document_only_jwks_uri_is_changed() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("PRETTY_PRINT_JSON", "false").start();

    let response = gateway.get(DISCOVERY);

    assert_eq!(response.status, 200);
    assert_eq!(response.header("Content-Type"), Some("application/json"));
    assert_eq!(response.text(), discovery(ISSUER, &format!("{ISSUER}{JWKS}")));
}

#[test]
fn documents_are_indented_unless_told_otherwise() {
    let api = FakeApi::start();
    let compact = api.jwks();
    let value: Value = serde_json::from_str(&compact).unwrap();

    for (setting, expected) in [
        (None, serde_json::to_string_pretty(&value).unwrap()),
        (Some("1"), serde_json::to_string_pretty(&value).unwrap()),
        (Some("false"), compact.clone()),
        (Some("0"), compact),
    ] {
        let gateway =
            Gateway::builder(&api).set("PRETTY_PRINT_JSON", setting.unwrap_or("")).start();
        assert_eq!(gateway.get(JWKS).text(), expected, "{setting:?}");
    }
}

#[test]
fn member_order_unknown_members_and_digits_are_kept() {
    let api = FakeApi::start();
    let keys = r#"{"z":1.10,"keys":[{"y":"b","kty":"AKP","alg":"ML-DSA-65","pub":"x","a":12345678901234567890123,"exp":1e+400}],"é":-0}"#;
    api.set(JWKS, Answer::jwks(keys));
    let gateway = Gateway::builder(&api).set("PRETTY_PRINT_JSON", "false").start();

    assert_eq!(gateway.get(JWKS).text(), keys);
}

#[test]
fn defaults_fill_in_what_upstream_lacks_and_never_override() {
    let api = FakeApi::start();
    let defaults = r#"{"claims_supported":["sub"],"response_types_supported":["code"]}"#;
    let gateway = Gateway::builder(&api).set("DISCOVERY_DEFAULTS", defaults).start();

    let document = gateway.get(DISCOVERY).json();

    assert_eq!(document["claims_supported"], json!(["sub"]));
    assert_eq!(document["response_types_supported"], json!(["id_token"]));
    assert_eq!(document["issuer"], ISSUER);
}

#[test]
fn the_clients_accept_and_credentials_stay_here() {
    let api = FakeApi::start();
    // Cold, so that the client's own request is the one that makes the gateway fetch.
    api.set_both(&Answer::Hang);
    let gateway = Gateway::start(&api);
    let mut client = Client::connect(gateway.public);
    client.send(format!(
        "GET {JWKS} HTTP/1.1\r\nHost: g\r\nAccept: text/html\r\nAuthorization: Bearer mine\r\n\
         Cookie: a=b\r\nUser-Agent: client\r\nX-Mine: 1\r\n\r\n"
    ));
    api.set_good();
    assert_eq!(client.read("GET").status, 200);
    api.wait_for_count(DISCOVERY, 1);

    for request in api.requests() {
        assert_eq!(request.method, "GET");
        assert_eq!(request.header("Authorization"), Some("Bearer token-1"));
        let agent = request.header("User-Agent").expect("User-Agent");
        assert!(agent.starts_with("kube-issuer-gateway/"), "{agent}");
        let accept = request.header("Accept").expect("Accept");
        let own =
            if request.path == JWKS { "application/jwk-set+json" } else { "application/json" };
        assert!(accept.contains(own), "{accept}");
        for name in ["Cookie", "X-Mine", "Accept-Encoding"] {
            assert_eq!(request.header(name), None, "{name}");
        }
    }
}

// Headers.

#[test]
fn answers_hold_these_headers_and_no_others() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let mut client = Client::connect(gateway.public);
    let of_any = ["access-control-allow-origin", "cache-control", "date", "x-content-type-options"];
    let of_a_body = ["content-length", "content-type"];
    let expected = |more: &[&[&str]]| {
        let mut names: Vec<_> = more.concat().iter().map(|name| (*name).to_owned()).collect();
        names.sort();
        names
    };

    for path in [DISCOVERY, JWKS] {
        let response = client.get(path);
        assert_eq!(names(&response), expected(&[&of_any, &of_a_body, &["etag", "expires"]]));
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
        let unchanged = client.request("GET", path, &[("If-None-Match", "*")]);
        assert_eq!(names(&unchanged), expected(&[&of_any, &["etag", "expires"]]));
    }
    for (method, path, more) in
        [("GET", "/", &[][..]), ("GET", "/livez", &[]), ("DELETE", JWKS, &["allow"])]
    {
        let response = client.request(method, path, &[]);
        assert_eq!(names(&response), expected(&[&of_any, &of_a_body, more]), "{method} {path}");
        assert_eq!(response.header("Cache-Control"), Some("no-store"), "{method} {path}");
        assert!(response.header("Content-Type").unwrap().starts_with("text/plain"));
    }
}

#[test]
fn a_502_says_no_more_than_one_word_and_when_to_retry() {
    let api = FakeApi::start();
    api.set_both(&Answer::Status(403));
    let gateway = Gateway::start(&api);
    gateway.wait_for_log("fetch failed");

    let response = gateway.get(JWKS);

    assert_eq!((response.status, response.text()), (502, "unavailable: forbidden\n"));
    assert_eq!(response.header("Cache-Control"), Some("no-store"));
    let seconds: u64 = response.header("Retry-After").expect("Retry-After").parse().unwrap();
    assert!((1..=60).contains(&seconds), "{seconds}");
    let everything = format!("{response:?}");
    for secret in [UPSTREAM_TEXT, "Audit", &api.address.to_string()] {
        assert!(!everything.contains(secret), "{everything}");
    }
}

#[test]
fn the_etag_is_strong_and_the_same_in_every_replica() {
    let api = FakeApi::start();
    let (one, other) = (Gateway::start(&api), Gateway::start(&api));

    for path in [DISCOVERY, JWKS] {
        let response = one.get(path);
        let etag = response.header("ETag").expect("ETag");
        assert!(etag.len() > 2 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        assert_eq!(other.get(path).header("ETag"), Some(etag));
    }
    assert_ne!(one.get(DISCOVERY).header("ETag"), one.get(JWKS).header("ETag"));
}

#[test]
fn a_copy_that_the_client_holds_is_not_sent_again() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let mut client = Client::connect(gateway.public);
    let etag = client.get(JWKS).header("ETag").unwrap().to_owned();
    let other = client.get(DISCOVERY).header("ETag").unwrap().to_owned();

    for (value, status) in [
        (etag.clone(), 304),
        (format!("W/{etag}"), 304),
        (format!("\"x\", {etag}"), 304),
        (format!("\"a,b\",W/\"y\" ,W/{etag}, \"z\""), 304),
        ("*".to_owned(), 304),
        (other, 200),
        (etag.trim_matches('"').to_owned(), 200),
        ("\"".to_owned(), 200),
        (String::new(), 200),
    ] {
        for method in ["GET", "HEAD"] {
            let response = client.request(method, JWKS, &[("If-None-Match", &value)]);
            assert_eq!(response.status, status, "{method} {value}");
            assert_eq!(response.header("ETag"), Some(&*etag), "{method} {value}");
        }
    }
    let split = [("If-None-Match", "\"x\""), ("If-None-Match", &*etag)];
    assert_eq!(client.request("GET", JWKS, &split).status, 304);
}

#[test]
fn max_age_shrinks_as_the_copy_grows_older() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("CLIENT_CACHE_TTL_SECONDS", "600").start();

    let fresh = gateway.get(DISCOVERY);
    // Age is what this is about: so long, and not a moment that something may need.
    thread::sleep(Duration::from_millis(1_100));
    let older = gateway.get(DISCOVERY);

    assert!(fresh.max_age() <= 600 && fresh.max_age() > 570, "{fresh:?}");
    assert!(older.max_age() < fresh.max_age(), "{} of {fresh:?}", older.max_age());
    for response in [fresh, older] {
        let lifetime = date(&response, "Expires").duration_since(date(&response, "Date")).unwrap();
        assert_eq!(lifetime.as_secs(), response.max_age(), "{response:?}");
        assert_eq!(response.header("Age"), None);
    }
}

#[test]
fn clients_may_be_told_to_keep_nothing() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("CLIENT_CACHE_TTL_SECONDS", "0").start();

    let response = gateway.get(JWKS);

    assert_eq!(response.max_age(), 0);
    assert_eq!(response.header("Expires"), response.header("Date"));
}

// Methods.

#[test]
fn head_is_get_without_the_body() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let mut client = Client::connect(gateway.public);

    for path in [DISCOVERY, JWKS, "/livez", "/readyz", "/nothing"] {
        let (get, head) = (client.get(path), client.request("HEAD", path, &[]));
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(names(&head), names(&get), "{path}");
        for name in ["Content-Length", "Content-Type", "ETag"] {
            assert_eq!(head.header(name), get.header(name), "{path} {name}");
        }
    }
}

#[test]
fn a_browser_may_ask_from_any_origin() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);

    for path in [DISCOVERY, JWKS] {
        let asked = [("Origin", "https://a.example"), ("Access-Control-Request-Method", "GET")];
        let response = client::request(gateway.public, "OPTIONS", path, &asked);
        assert_eq!(response.status, 204);
        assert_eq!(response.header("Access-Control-Allow-Origin"), Some("*"));
        let methods = list(&response, "Access-Control-Allow-Methods");
        assert!(methods.contains(&"GET".to_owned()), "{methods:?}");
    }
}

#[test]
fn other_methods_are_told_which_would_do() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);

    for (path, allowed) in [
        (DISCOVERY, &["GET", "HEAD", "OPTIONS"][..]),
        (JWKS, &["GET", "HEAD", "OPTIONS"]),
        ("/livez", &["GET", "HEAD", "OPTIONS"]),
        ("/readyz", &["GET", "HEAD", "OPTIONS"]),
    ] {
        for method in ["POST", "PUT", "DELETE", "PATCH", "get"] {
            let response = client::request(gateway.public, method, path, &[]);
            assert_eq!(response.status, 405, "{method} {path}");
            assert_eq!(list(&response, "Allow"), allowed, "{method} {path}");
            assert_eq!(response.text(), "method not allowed\n");
        }
    }
}

#[test]
fn a_request_with_a_body_is_refused_whatever_its_method() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);

    for method in ["GET", "HEAD", "POST", "PUT"] {
        for body in [
            "Content-Length: 2\r\n\r\n{}",
            "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        ] {
            let mut client = Client::connect(gateway.public);
            client.send(format!("{method} {JWKS} HTTP/1.1\r\nHost: g\r\n{body}"));
            assert_eq!(client.read(method).status, 413, "{method} {body:?}");
        }
    }
}

// Connections.

#[test]
fn one_connection_serves_many_requests() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let mut client = Client::connect(gateway.public);

    for _ in 0..100 {
        assert_eq!(client.get(JWKS).status, 200);
        assert_eq!(client.get("/nothing").status, 404);
    }
}

#[test]
fn clients_that_keep_their_connections_keep_nobody_waiting() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    // All at once, so that there is no thread for any of them yet.
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(gateway.public)).collect();

    for _ in 0..2 {
        for client in &mut clients {
            assert_eq!(client.get(JWKS).status, 200);
        }
    }
    assert_eq!(gateway.get(JWKS).status, 200);
}

#[test]
fn http_1_0_is_answered_and_the_connection_closed() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let mut client = Client::connect(gateway.public);

    client.send(format!("GET {JWKS} HTTP/1.0\r\n\r\n"));

    let response = client.read("GET");
    assert_eq!(response.status, 200);
    assert_eq!(response.json(), serde_json::from_str::<Value>(&api.jwks()).unwrap());
    client.assert_end();
}

// Paths.

#[test]
fn paths_match_exactly() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    gateway.wait_for_log("publishing");

    for (target, status) in [
        ("/openid/v1/jwks?a=/b", 200),
        ("http://issuer.example/openid/v1/jwks", 200),
        ("https://issuer.example:1/.well-known/openid-configuration?x", 200),
        ("/", 404),
        ("/openid/v1/jwks/", 404),
        ("//openid/v1/jwks", 404),
        ("/OpenID/v1/jwks", 404),
        ("/openid/v1/%6awks", 404),
        ("/a/../openid/v1/jwks", 404),
        ("/tenant/openid/v1/jwks", 404),
        ("/openid/v1/jwks%3f", 404),
        ("/metrics", 404),
    ] {
        let response = gateway.get(target);
        assert_eq!(response.status, status, "{target}");
        assert_eq!(response.header("Location"), None, "{target}");
        if status == 404 {
            assert_eq!(response.text(), "not found\n", "{target}");
        }
    }
}

#[test]
fn an_issuer_with_a_path_has_its_documents_below_it() {
    for (issuer, jwks_uri) in [
        ("https://issuer.example/c/1", "https://issuer.example/c/1/openid/v1/jwks"),
        // The slash belongs to the issuer and not to what is asked for: Discovery §4.1.
        ("https://issuer.example/c/1/", "https://issuer.example/c/1/openid/v1/jwks"),
    ] {
        let api = FakeApi::start();
        api.set(DISCOVERY, Answer::discovery(discovery(issuer, INTERNAL_JWKS_URI)));
        let gateway = Gateway::start(&api);

        let document = gateway.get(DISCOVERY).json();
        assert_eq!(document["issuer"], issuer);
        assert_eq!(document["jwks_uri"], jwks_uri);
        for path in [DISCOVERY, JWKS] {
            let (fixed, below) = (gateway.get(path), gateway.get(&format!("/c/1{path}")));
            assert_eq!((below.status, &below.body), (200, &fixed.body), "{issuer} {path}");
            assert_eq!(gateway.get(&format!("/c/2{path}")).status, 404, "{issuer} {path}");
        }
    }
}

#[test]
fn while_the_issuer_is_unknown_its_documents_are_unavailable_and_not_missing() {
    let api = FakeApi::start();
    api.set_both(&Answer::Status(403));
    let gateway = Gateway::start(&api);
    gateway.wait_for_log("fetch failed document=discovery");

    for path in [DISCOVERY, JWKS] {
        assert_eq!(gateway.get(&format!("/c/1{path}")).status, 502, "{path}");
    }
    assert_eq!(gateway.get("/c/1").status, 404);
}

#[test]
fn the_published_jwks_uri_is_served_where_it_is_the_issuers() {
    let api = FakeApi::start();
    for (jwks_uri, path, status) in [
        ("https://issuer.example/keys", "/keys", 200),
        ("https://issuer.example:443/keys?v=1", "/keys", 200),
        ("https://issuer.example:8443/keys", "/keys", 404),
        ("https://keys.example/keys", "/keys", 404),
    ] {
        let gateway = Gateway::builder(&api).set("JWKS_URI", jwks_uri).start();
        assert_eq!(published_jwks_uri(&gateway), jwks_uri);
        assert_eq!(gateway.get(path).status, status, "{jwks_uri}");
        assert_eq!(gateway.get(JWKS).status, 200, "{jwks_uri}");
    }
}

#[test]
fn the_fixed_paths_win_over_the_published_jwks_uri() {
    let api = FakeApi::start();
    for path in ["/livez", "/readyz", DISCOVERY] {
        let uri = format!("{ISSUER}{path}");
        let gateway = Gateway::builder(&api).set("JWKS_URI", &uri).start();
        assert_eq!(published_jwks_uri(&gateway), uri);
        assert_ne!(gateway.get(path).body, gateway.get(JWKS).body, "{path}");
    }
}

#[test]
fn the_log_says_which_jwks_uri_is_published_and_why() {
    let at_issuer = "https://issuer.example/other/keys";
    let replaced = "https://issuer.example/openid/v1/jwks";
    let chosen = "https://keys.example/keys";
    for (setting, upstreams, published) in [
        ("", INTERNAL_JWKS_URI, replaced),
        ("auto", INTERNAL_JWKS_URI, replaced),
        ("auto", at_issuer, at_issuer),
        ("upstream", INTERNAL_JWKS_URI, INTERNAL_JWKS_URI),
        (chosen, INTERNAL_JWKS_URI, chosen),
    ] {
        let api = FakeApi::start();
        api.set(DISCOVERY, Answer::discovery(discovery(ISSUER, upstreams)));
        let gateway = Gateway::builder(&api).set("JWKS_URI", setting).start();

        let line = gateway.wait_for_log("publishing");
        assert_eq!(field(&line, "jwks_uri"), Some(published), "{line}");
        assert_eq!(field(&line, "issuer"), Some(ISSUER), "{line}");
        assert!(field(&line, "reason").is_some_and(|why| !why.is_empty()), "{line}");
        assert_eq!(published_jwks_uri(&gateway), published, "{setting:?}");
    }
}

#[test]
fn an_issuer_that_can_only_be_internal_is_warned_of() {
    let api = FakeApi::start();
    let internal = "https://kubernetes.default.svc.cluster.local";
    api.set(DISCOVERY, Answer::discovery(discovery(internal, INTERNAL_JWKS_URI)));
    let gateway = Gateway::start(&api);

    let line = gateway.wait_for_log("WARN");

    assert!(line.contains(internal), "{line}");
    assert_eq!(gateway.get(DISCOVERY).json()["issuer"], internal);
}

#[test]
fn a_jwks_uri_away_from_the_issuer_is_warned_of() {
    let api = FakeApi::start();
    for setting in ["upstream", "https://keys.example/keys"] {
        let gateway = Gateway::builder(&api).set("JWKS_URI", setting).start();
        let line = gateway.wait_for_log("WARN  jwks_uri");
        assert_eq!(field(&line, "issuer"), Some(ISSUER), "{line}");
    }
    let gateway = Gateway::start(&api);
    gateway.wait_for_log("document changed document=jwks");
    assert!(!gateway.log().contains("WARN"), "{}", gateway.log());
}

#[test]
fn an_access_line_tells_path_status_cache_hit_and_duration_first() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    gateway.wait_for_log("document changed document=jwks");
    assert_eq!(gateway.get(JWKS).status, 200);
    assert_eq!(gateway.get("/livez").status, 200);
    assert_eq!(gateway.get("/nothing").status, 404);

    let line =
        gateway.wait_for_log("request path=/openid/v1/jwks status=200 cache_hit=true duration=");
    assert_eq!(field(&line, "method"), Some("GET"));
    assert!(field(&line, "duration").unwrap().ends_with("ms"), "{line}");
    gateway.wait_for_log("request path=/nothing status=404");
    assert!(!gateway.log().contains("/livez"), "probes are logged at debug");
}

#[test]
fn a_key_set_that_is_too_large_to_serve_is_a_bad_document() {
    let api = FakeApi::start();
    let key = |size| key_set(&[format!(r#"{{"kty":"EC","x":"{}"}}"#, "x".repeat(size))]);
    api.set(JWKS, Answer::jwks(key(129 << 10)));
    let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "0.2").start();
    gateway.wait_for_log("fetch failed document=jwks reason=bad-document");

    // Just below, it passes, in one answer.
    api.set(JWKS, Answer::jwks(key(127 << 10)));
    gateway.wait_for_log("document changed document=jwks");
    assert!(gateway.get(JWKS).body.len() > 127 << 10);
}
