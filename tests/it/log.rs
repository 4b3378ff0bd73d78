//! What the log says, and that it is never mute about the end.

use std::net::TcpListener;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;

use testing::client::{self, Client};
use testing::fake_api::{self, Answer, FIRST_TOKEN, FakeApi, JWKS, key_set};
use testing::gateway::{Gateway, field};
use testing::wait::eventually;

// Its filter.

#[test]
fn a_word_that_is_neither_a_level_nor_a_crate_is_a_mistake_of_rust_log() {
    let api = FakeApi::start();
    for value in [
        "verbose",
        "inof",
        "info,loud",
        "5",
        "true",
        "kube-issuer-gateway",
        "info/a/b",
        "kube-issuer-gateway=debug",
        "warn=trace",
        "info=",
        "tiny_http",
    ] {
        let ended = Gateway::builder(&api).set("RUST_LOG", value).run();
        assert_eq!(ended.code, Some(2), "{value}\n{}", ended.log);
        let expected = format!("RUST_LOG is {value:?}: it must be off, error, warn,");
        assert!(ended.log.contains(&expected), "{value}\n{}", ended.log);
    }
    for value in [
        "info",
        "INFO",
        " warn , ureq=debug ",
        "kube_issuer_gateway",
        "kube_issuer_gateway::refresher",
        "off,kube_issuer_gateway=info",
        "info,anything=off",
        "info/l",
        ",info,",
    ] {
        let gateway = Gateway::builder(&api).set("RUST_LOG", value).spawn();
        if !value.contains("warn") && !value.contains("refresher") {
            gateway.wait_for_log("listening");
        }
        assert!(!gateway.has_ended(), "{value}");
    }
}

#[test]
fn no_filter_hides_why_the_program_ends() {
    let api = FakeApi::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let no_ca = api.volume.dir().join("empty.pem");
    std::fs::write(&no_ca, "").unwrap();
    let no_ca = no_ca.to_str().unwrap();
    for filter in ["off", "OFF", "error/nothing", "off,ureq=trace", "kube_issuer_gateway=off"] {
        for (name, value, code) in [
            ("WORKERS", "0", 2),
            ("SA_CA_CERT_PATH", no_ca, 2),
            ("LISTEN_PORT", &*port, 1),
            ("ADMIN_PORT", &*port, 1),
        ] {
            let ended = Gateway::builder(&api).set("RUST_LOG", filter).set(name, value).run();
            assert_eq!(ended.code, Some(code), "{filter} {name}");
            assert_eq!(ended.log.lines().count(), 1, "{filter} {name}\n{}", ended.log);
            assert!(ended.log.contains(" ERROR ") && ended.log.contains(name), "{}", ended.log);
        }
        let ended = Gateway::builder(&api).set("RUST_LOG", filter).arg("--nothing").run();
        assert!(ended.code == Some(2) && ended.log.contains("--nothing"), "{}", ended.log);
    }
    let json = Gateway::builder(&api)
        .set("RUST_LOG", "off")
        .set("LOG_FORMAT", "json")
        .set("WORKERS", "0")
        .run();
    let line: Value = serde_json::from_str(&json.log).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["message"].as_str().unwrap().starts_with("WORKERS is "), "{line}");
}

// The start.

#[test]
fn the_first_line_has_the_version_and_the_settings_that_differ() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api)
        .set("CACHE_TTL_SECONDS", "60")
        .set("CACHE_TTL_MINUTES", "1")
        .set("JWKS_URI", "")
        .set("PRETTY_PRINT_JSON", "false")
        .set("DISCOVERY_DEFAULTS", format!(r#"{{"a":"{}"}}"#, "x".repeat(5000)))
        .start();
    let log = gateway.log();
    let first = log.lines().next().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(first.contains(&format!(" INFO  starting version={version} settings=")), "{first}");
    for expected in ["LISTEN_PORT=0", "PRETTY_PRINT_JSON=false", "CACHE_TTL_MINUTES=1", "xxx"] {
        assert!(first.contains(expected), "{expected}: {first}");
    }
    // The first is its default, and the second is not set.
    for unexpected in ["CACHE_TTL_SECONDS", "JWKS_URI", "WORKERS"] {
        assert!(!first.contains(unexpected), "{unexpected}: {first}");
    }
    assert!(first.len() < 1500, "{first}");
}

#[test]
fn a_variable_that_looks_like_a_setting_is_a_warning() {
    let api = FakeApi::start();
    let lookalikes = [
        ("MAX_STALE", "MAX_STALE_SECONDS"),
        ("LISTENPORT", "LISTEN_PORT"),
        ("JWKS_URL", "JWKS_URI"),
    ];
    let builder = Gateway::builder(&api)
        // Ordinary ones, and what Kubernetes sets for a Service named admin.
        .set("PATH", "/bin")
        .set("LOG_LEVEL", "debug")
        .set("ADMIN_SERVICE_PORT", "80")
        .set("KUBE_ISSUER_GATEWAY_PORT_80_TCP", "tcp://10.0.0.1:80");
    let gateway = lookalikes.iter().fold(builder, |it, (name, _)| it.set(name, "1")).start();
    for (name, setting) in lookalikes {
        let line = gateway.wait_for_log(&format!("ignored name={name} "));
        assert!(line.contains(" WARN ") && line.contains(&format!("set {setting} ")), "{line}");
    }
    assert_eq!(gateway.log().matches(" WARN ").count(), lookalikes.len(), "{}", gateway.log());
    // Also beside a mistake, and not for what Kubernetes sets for a Service named upstream.
    let ended = Gateway::builder(&api)
        .set("WORKERS", "0")
        .set("LISTENPORT", "80")
        .set("UPSTREAM_HOSTS", "tcp://10.0.0.1:80")
        .run();
    assert!(ended.code == Some(2) && ended.log.contains("name=LISTENPORT"), "{}", ended.log);
    assert_eq!(ended.log.lines().count(), 2, "{}", ended.log);
}

// Requests.

#[test]
fn a_request_line_says_who_asked() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let agent = format!("aws/1 \"x\" \u{1b}[31m\u{e9} {}", "a".repeat(400));
    let mut client = Client::connect(gateway.public);
    let agent = [("User-Agent", &*agent), ("X-Forwarded-For", "203.0.113.9, 198.51.100.7")];
    // A byte that HTTP does not allow is refused before it is logged.
    assert_eq!(client.request("GET", "/marker", &agent).status, 400);
    let mut client = Client::connect(gateway.public);
    let agent = agent.map(|(name, value)| (name, value.replace('\u{1b}', "\t")));
    let agent = [(agent[0].0, &*agent[0].1), (agent[1].0, &*agent[1].1)];
    assert_eq!(client.request("GET", "/marker", &agent).status, 404);

    let line = gateway.wait_for_log("path=/marker");
    assert!(field(&line, "peer").unwrap().starts_with("127.0.0.1:"), "{line}");
    assert_eq!(field(&line, "forwarded_for"), Some("198.51.100.7"), "{line}");
    let logged = field(&line, "user_agent").unwrap();
    assert!(logged.starts_with(r#"aws/1 \"x\" \\x09[31m\\xc3\\xa9 aaa"#), "{line}");
    assert!(logged.len() < 300, "{line}");
    assert!(line.is_ascii(), "{line}");

    assert_eq!(gateway.get("/second").status, 404);
    let line = gateway.wait_for_log("path=/second");
    assert!(field(&line, "user_agent").is_none() && field(&line, "forwarded_for").is_none());
}

#[test]
fn clients_can_be_left_out_of_the_log() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("LOG_CLIENTS", "off").start();
    let who = [("User-Agent", "somebody"), ("X-Forwarded-For", "203.0.113.9")];
    let mut client = Client::connect(gateway.public);
    assert_eq!(client.request("GET", "/marker", &who).status, 404);
    client.send("nonsense\r\n\r\n");
    assert_eq!(client.read("GET").status, 400);

    gateway.wait_for_log("path=/marker");
    gateway.wait_for_log("refused status=400");
    let log = gateway.log();
    let about_clients = ["request path=", "refused status="];
    for line in log.lines().filter(|line| about_clients.iter().any(|it| line.contains(it))) {
        for word in ["peer", "somebody", "203.0.113.9", "127.0.0.1"] {
            assert!(!line.contains(word), "{line}");
        }
    }
}

#[test]
fn durations_are_numbers_of_milliseconds_in_json() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api)
        .set("LOG_FORMAT", "json")
        .set("SHUTDOWN_DELAY_SECONDS", "0.25")
        .set("CACHE_TTL_SECONDS", "0.2")
        .set("RUST_LOG", "debug")
        .spawn();
    let parse = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    let listening = parse(gateway.wait_for_log("listening"));
    let public = listening["public"].as_str().unwrap().parse().unwrap();
    assert_eq!(client::get(public, JWKS).status, 200);
    api.set_both(&Answer::Status(403));
    let failed = parse(gateway.wait_for_log("fetch failed"));
    let request = parse(gateway.wait_for_log("\"request\""));
    let refreshed = parse(gateway.wait_for_log("refreshed"));
    gateway.signal("TERM");
    let stopping = parse(gateway.wait_for_log("stopping"));
    for (line, key) in [
        (&failed, "retry_in_ms"),
        (&failed, "age_ms"),
        (&request, "duration_ms"),
        (&request, "age_ms"),
        (&refreshed, "next_in_ms"),
    ] {
        assert!(line[key].as_f64().is_some_and(|ms| ms > 0.0 && ms < 60_000.0), "{key}: {line}");
    }
    assert_eq!(stopping["delay_ms"], 250.0);
    assert_eq!(failed["serving"], "copy");
    assert!(request.get("duration").is_none() && failed.get("retry_in").is_none());
}

// What goes wrong.

#[test]
fn nothing_to_serve_is_one_error_and_one_line_when_it_is_over() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api)
        .set("CACHE_TTL_SECONDS", "0.2")
        .set("MAX_STALE_SECONDS", "0.6")
        .set("RUST_LOG", "debug")
        .start();
    assert_eq!(gateway.get(JWKS).status, 200);

    api.go_down();
    gateway.wait_for_log("serving=copy");
    assert!(!gateway.log().contains(" ERROR "), "a stale copy is no error\n{}", gateway.log());
    for document in ["discovery", "jwks"] {
        let line = gateway.wait_for_log(&format!("nothing to serve document={document} "));
        assert!(line.contains(" ERROR ") && field(&line, "reason") == Some("too-old"), "{line}");
    }
    assert_eq!(gateway.get(JWKS).status, 502);
    // Several failures more.
    (0..3).for_each(|_| drop(gateway.wait_for_log("fetch failed")));
    api.come_back();
    for document in ["discovery", "jwks"] {
        let line = gateway.wait_for_log(&format!("served again document={document} "));
        assert!(line.contains(" INFO ") && field(&line, "after").is_some(), "{line}");
    }
    assert_eq!(gateway.log().matches(" ERROR ").count(), 2, "{}", gateway.log());
}

#[test]
fn a_copy_that_becomes_too_old_between_two_rounds_is_said_too() {
    let api = FakeApi::start();
    // A round 0.75 to 0.9 s after the first one, and 0.4 to 0.5 s after one that fails.
    let gateway =
        Gateway::builder(&api).set("CACHE_TTL_SECONDS", "1").set("MAX_STALE_SECONDS", "1").start();
    eventually("ready", || gateway.get("/readyz").status == 200);
    api.set_both(&Answer::Status(503));
    gateway.wait_for_log("fetch failed");
    api.set_good();
    for document in ["discovery", "jwks"] {
        gateway.wait_for_log(&format!("nothing to serve document={document} reason=too-old"));
        gateway.wait_for_log(&format!("served again document={document}"));
    }
}

#[test]
fn a_start_without_an_api_server_is_an_error_until_it_is_there() {
    let api = FakeApi::start();
    api.set_both(&Answer::Status(503));
    let gateway = Gateway::start(&api);
    let line = gateway.wait_for_log("nothing to serve document=jwks");
    assert_eq!(field(&line, "reason"), Some("upstream-error"), "{line}");
    api.set_good();
    gateway.wait_for_log("served again document=jwks");
}

#[test]
fn a_private_key_upstream_is_an_error_that_says_so() {
    for key in [r#"{"kty":"EC","d":"secret"}"#, r#"{"kty":"oct","k":"secret"}"#] {
        let api = FakeApi::start();
        let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "0.2").start();
        assert_eq!(gateway.get(JWKS).status, 200);
        api.set(JWKS, Answer::jwks(key_set(&[key.to_owned()])));
        let line = gateway.wait_for_log("reason=bad-document");
        assert!(line.contains(" ERROR ") && line.contains("a private key is being published"));
        assert!(!line.contains("secret"), "{line}");
        assert_eq!(gateway.get(JWKS).json(), api.jwks().parse::<Value>().unwrap());
    }
}

#[test]
fn without_descriptors_the_limit_is_named_and_not_the_token() {
    let api = FakeApi::start();
    let gateway =
        Gateway::builder(&api).set("CACHE_TTL_SECONDS", "0.2").set("RUST_LOG", "debug").start();
    eventually("ready", || gateway.get("/readyz").status == 200);
    let pid = Pid::from_raw(gateway.pid().try_into().unwrap());
    let limit = getrlimit(Resource::Nofile);
    let set = |current| {
        let limit = Rlimit { current: Some(current), maximum: limit.maximum };
        prlimit(pid, Resource::Nofile, limit).unwrap();
    };
    // Those that are open stay, and there is none more.
    set(3);
    let line = gateway.wait_for_log("fetch failed document=discovery reason=unreachable");
    assert!(line.contains("(os error 24)") && line.contains("(ulimit -n)"), "{line}");
    let client = std::net::TcpStream::connect(gateway.public).unwrap();
    let line = gateway.wait_for_log("cannot accept a connection");
    assert!(line.contains("(ulimit -n)"), "{line}");
    assert!(!gateway.log().contains("reason=unauthorized"), "{}", gateway.log());

    set(limit.maximum.unwrap_or(1024));
    drop(client);
    eventually("healthy", || gateway.get("/healthz").status == 200);
}

#[test]
fn an_address_that_this_machine_lacks_is_named_with_its_setting() {
    let api = FakeApi::start();
    for (name, value) in [("LISTEN_ADDR", "192.0.2.1"), ("ADMIN_ADDR", "192.0.2.1")] {
        let ended = Gateway::builder(&api).set(name, value).run();
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        let expected = format!("; set {name} to an address of this machine");
        assert!(ended.log.contains(&expected), "{}", ended.log);
    }
}

// Ten failures, as an operator meets them.

/// Each with the line that says it, and words of that line which say what to do.
///
/// `cargo test --test it -- --nocapture ten_failures` prints the lines.
#[test]
fn ten_failures_each_have_a_line_that_says_what_to_do() {
    let mut met: Vec<(&str, String, &[&str])> = Vec::new();
    let mut meet = |name, line: String, words| met.push((name, line, words));

    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("CACHE_TTL_SECONDS", "0.2").start();
    eventually("ready", || gateway.get("/readyz").status == 200);
    let failure = |change: &dyn Fn()| {
        change();
        let line = gateway.wait_for_log("fetch failed");
        api.set_good();
        api.accept_tokens(&[FIRST_TOKEN]);
        api.volume.write(FIRST_TOKEN, &api.ca_pem());
        gateway.wait_for_log("upstream recovered");
        gateway.forget_log();
        line
    };
    let (other_ca, _) = fake_api::tls();
    let wrong_ca = failure(&|| api.volume.write(FIRST_TOKEN, &other_ca));
    meet("wrong CA", wrong_ca, &["not trusted by", "point SA_CA_CERT_PATH to the CA"]);
    let wrong_token = failure(&|| api.accept_tokens(&["another"]));
    meet("wrong token", wrong_token, &["(401)", "check whether SA_TOKEN_PATH is renewed"]);
    let forbidden = failure(&|| api.set_both(&Answer::Status(403)));
    meet("403", forbidden, &["(403)", "system:service-account-issuer-discovery"]);
    let bad = failure(&|| api.set(JWKS, Answer::jwks("<html>")));
    meet("bad document", bad, &["document=jwks", "is not JSON", "kubectl get --raw"]);
    api.go_down();
    let gone = gateway.wait_for_log("fetch failed");
    meet(
        "API server gone",
        gone,
        &["Connection refused", "check whether the API server is running"],
    );
    drop(gateway);
    api.come_back();

    let gateway = Gateway::builder(&api).set("ISSUER", "https://issuer.example/").start();
    let line = gateway.wait_for_log("the issuer is not ISSUER");
    meet("wrong issuer", line, &["the slash at the end: take it from ISSUER"]);

    let port = gateway.public.port().to_string();
    let ended = Gateway::builder(&api).set("LISTEN_PORT", port).run();
    meet("port in use", last(&ended.log), &["in use", "set LISTEN_PORT to another port"]);

    let few = Gateway::builder(&api).under(&["sh", "-c", "ulimit -n 20 && exec \"$0\""]).run();
    meet("no descriptors", last(&few.log), &["is 20: it must be at least 32 (ulimit -Hn)"]);

    let mut client = Client::connect(gateway.public);
    client.send(b"\x16\x03\x01\x02\0\x01");
    assert_eq!(client.read("GET").status, 400);
    let line = gateway.wait_for_log("refused");
    meet("hostile client", line, &["reason=\"it is TLS", "use http towards it", "peer=127.0.0.1:"]);

    let mut stuck = Client::connect(gateway.public);
    stuck.send(format!("GET {JWKS} HTTP/1.1\r\n"));
    gateway.signal("TERM");
    gateway.wait_for_log("stopping signal=SIGTERM delay=5.0s");
    gateway.signal("TERM");
    let line = gateway.wait_for_log("stopped");
    meet("SIGTERM, and again", line, &["at once by a second signal"]);

    for (name, line, words) in met {
        eprintln!("{name}:\n  {line}");
        for word in words {
            assert!(line.contains(word), "{name}: {word:?} is not in {line}");
        }
    }
}

fn last(log: &str) -> String {
    log.lines().last().expect("a line").to_owned()
}
