//! How the gateway starts, or says why it cannot.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use serde_json::Value;

use testing::client;
use testing::fake_api::{Answer, FakeApi, JWKS};
use testing::gateway::{Gateway, field};

#[test]
fn each_bad_value_is_named_and_ends_it_with_2() {
    let api = FakeApi::start();
    let no_certificate = api.volume.dir().join("no-certificate.pem");
    fs::write(&no_certificate, "-----BEGIN NOTHING-----\n").unwrap();

    for (name, value) in [
        ("LISTEN_ADDR", "localhost"),
        ("LISTEN_PORT", "65536"),
        ("ADMIN_ADDR", "1.2.3"),
        ("ADMIN_PORT", "on"),
        ("UPSTREAM_HOST", "kubernetes.default.svc"),
        ("UPSTREAM_HOST", "http://kubernetes.default.svc"),
        ("UPSTREAM_TIMEOUT_SECONDS", "0.04"),
        ("UPSTREAM_TIMEOUT_SECONDS", "60.1"),
        ("CACHE_TTL_SECONDS", "0"),
        ("CACHE_TTL_SECONDS", "60s"),
        ("CACHE_TTL_MINUTES", "1441"),
        ("MAX_STALE_SECONDS", "59.9"),
        ("CLIENT_CACHE_TTL_SECONDS", "-1"),
        ("PRETTY_PRINT_JSON", "yes"),
        ("SA_TOKEN_PATH", "/nowhere/token"),
        ("SA_CA_CERT_PATH", "/nowhere/ca.crt"),
        ("SA_CA_CERT_PATH", no_certificate.to_str().unwrap()),
        ("JWKS_URI", "http://issuer.example/keys"),
        ("JWKS_URI", "Auto"),
        ("DISCOVERY_DEFAULTS", "[]"),
        ("DISCOVERY_DEFAULTS", r#"{"issuer":"https://other.example"}"#),
        ("DISCOVERY_DEFAULTS", r#"{"jwks_uri":"https://other.example"}"#),
        ("WORKERS", "1"),
        ("WORKERS", "65"),
        ("MAX_CONNECTIONS", "15"),
        ("MAX_CONNECTIONS", "65537"),
        ("SHUTDOWN_DELAY_SECONDS", "301"),
        ("SHUTDOWN_TIMEOUT_SECONDS", "forever"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LINES_PER_SECOND", "0"),
        ("RUST_LOG", "loud=very"),
        ("RUST_LOG", "verbose"),
        ("ISSUER", "http://issuer.example"),
        ("OWN_TOKEN_CHECK", "yes"),
        ("LOG_CLIENTS", "true"),
    ] {
        let ended = Gateway::builder(&api).set(name, value).run();

        assert_eq!(ended.code, Some(2), "{name}={value}\n{}", ended.log);
        assert!(ended.log.contains(name), "{name}={value}\n{}", ended.log);
        assert!(!ended.log.contains("listening"), "{name}={value}\n{}", ended.log);
        assert_eq!(ended.stdout, "", "{name}={value}");
    }
    assert_eq!(api.connections(), 0);
}

#[test]
fn all_mistakes_are_named_at_once_one_line_each() {
    let api = FakeApi::start();
    let mistakes = [("LISTEN_PORT", "x"), ("WORKERS", "0"), ("JWKS_URI", "ftp://x")];

    let ended = mistakes
        .iter()
        .fold(Gateway::builder(&api), |builder, (name, value)| builder.set(name, value))
        .run();

    assert_eq!(ended.code, Some(2));
    for (name, _) in mistakes {
        let lines = ended.log.lines().filter(|line| line.contains(name)).count();
        assert_eq!(lines, 1, "{name} in\n{}", ended.log);
    }
}

#[test]
fn an_empty_setting_counts_as_unset() {
    let api = FakeApi::start();

    let gateway = Gateway::builder(&api).set("WORKERS", "").set("JWKS_URI", "").start();

    assert_eq!(gateway.get(JWKS).status, 200);
}

#[test]
fn the_names_of_k8s_jwks_proxy_are_understood() {
    let api = FakeApi::start();

    let gateway = Gateway::builder(&api)
        .unset("SA_TOKEN_PATH")
        .unset("SA_CA_CERT_PATH")
        .set("TOKEN_PATH", api.volume.token())
        .set("CA_CERT_PATH", api.volume.ca())
        // A fifth of a second: without it, the second fetch would come after a minute.
        .set("CACHE_TTL_MINUTES", "0.0033334")
        .start();

    assert_eq!(gateway.get(JWKS).status, 200);
    api.wait_for_more(JWKS, 2);
}

#[test]
fn a_name_given_twice_is_a_mistake_unless_both_say_the_same() {
    let api = FakeApi::start();
    let other = api.volume.dir().join("other");
    fs::write(&other, fs::read(api.volume.ca()).unwrap()).unwrap();

    for (old_name, value) in [
        ("CACHE_TTL_MINUTES", "2"),
        ("TOKEN_PATH", other.to_str().unwrap()),
        ("CA_CERT_PATH", other.to_str().unwrap()),
    ] {
        let ended =
            Gateway::builder(&api).set("CACHE_TTL_SECONDS", "60").set(old_name, value).run();
        assert_eq!(ended.code, Some(2), "{old_name}");
        assert!(ended.log.contains(old_name), "{old_name} in\n{}", ended.log);
    }
    Gateway::builder(&api)
        .set("CACHE_TTL_SECONDS", "60")
        .set("CACHE_TTL_MINUTES", "1")
        .set("TOKEN_PATH", api.volume.token())
        .start();
}

#[test]
fn an_admin_port_made_by_service_links_is_explained() {
    let api = FakeApi::start();

    let ended = Gateway::builder(&api).set("ADMIN_PORT", "tcp://10.0.0.1:8081").run();

    assert_eq!(ended.code, Some(2));
    assert!(ended.log.contains("ADMIN_PORT"), "{}", ended.log);
    assert!(ended.log.contains("enableServiceLinks"), "{}", ended.log);
}

#[test]
fn help_and_version_go_to_stdout_whatever_the_settings() {
    let api = FakeApi::start();
    let run = |argument| Gateway::builder(&api).set("WORKERS", "bad").arg(argument).run();

    for argument in ["--help", "-h"] {
        let help = run(argument);
        assert_eq!((help.code, &*help.log), (Some(0), ""));
        for name in ["LISTEN_PORT", "SA_CA_CERT_PATH", "JWKS_URI", "RUST_LOG"] {
            assert!(help.stdout.contains(name), "{name} in\n{}", help.stdout);
        }
    }
    for argument in ["--version", "-V"] {
        let version = run(argument);
        assert_eq!((version.code, &*version.log), (Some(0), ""));
        assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{}", version.stdout);
    }
}

#[test]
fn an_unknown_argument_ends_it_with_2() {
    let api = FakeApi::start();

    for argument in ["--port=80", "nothing"] {
        let ended = Gateway::builder(&api).arg(argument).run();
        assert_eq!(ended.code, Some(2), "{argument}");
        assert!(!ended.log.is_empty(), "{argument}");
        assert_eq!(ended.stdout, "", "{argument}");
    }
}

#[test]
fn a_port_in_use_ends_it_with_1() {
    let api = FakeApi::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();

    for name in ["LISTEN_PORT", "ADMIN_PORT"] {
        let ended = Gateway::builder(&api).set(name, &port).run();
        assert_eq!(ended.code, Some(1), "{name}\n{}", ended.log);
        assert!(ended.log.contains(&port), "{name}\n{}", ended.log);
        assert!(!ended.log.contains("listening public="), "{name}\n{}", ended.log);
    }
}

#[test]
fn without_an_address_it_listens_for_ipv4_and_ipv6() {
    let api = FakeApi::start();

    let gateway = Gateway::builder(&api).unset("LISTEN_ADDR").start();

    assert!(gateway.public.ip().is_unspecified(), "{}", gateway.public);
    for listener in [gateway.public, gateway.admin.unwrap()] {
        let by_ipv4 = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), listener.port());
        assert_eq!(client::get(by_ipv4, "/livez").status, 200);
        // Where the kernel has no IPv6, 0.0.0.0 it is, and there is no more to ask.
        if listener.is_ipv6() {
            let by_ipv6 = SocketAddr::new("::1".parse().unwrap(), listener.port());
            assert_eq!(client::get(by_ipv6, "/livez").status, 200);
        }
    }
}

#[test]
fn the_admin_listener_has_an_address_of_its_own() {
    let api = FakeApi::start();

    let gateway = Gateway::builder(&api).set("ADMIN_ADDR", "127.0.0.2").start();

    let admin = gateway.admin.unwrap();
    assert_eq!(admin.ip(), "127.0.0.2".parse::<IpAddr>().unwrap());
    assert_eq!(client::get(admin, "/livez").status, 200);
}

#[test]
fn it_listens_whether_the_api_server_is_there_or_not() {
    let api = FakeApi::start();
    api.go_down();

    let gateway = Gateway::start(&api);

    assert_eq!(gateway.get("/livez").status, 200);
    assert_eq!(gateway.get("/readyz").status, 503);
}

#[test]
fn it_fetches_both_documents_before_anybody_asks() {
    let api = FakeApi::start();

    let gateway = Gateway::start(&api);

    gateway.wait_for_log("document changed document=discovery");
    gateway.wait_for_log("document changed document=jwks");
    gateway.wait_for_log(&format!("signing key added kid={}", api.kid()));
    assert_eq!(gateway.get("/readyz").status, 200);
    assert_eq!(gateway.get(JWKS).status, 200);
    assert_eq!(api.count(JWKS), 1);
}

#[test]
fn proxy_variables_are_ignored() {
    let api = FakeApi::start();
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());

    let gateway = ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"]
        .iter()
        .fold(Gateway::builder(&api), |builder, name| builder.set(name, &url))
        .start();

    assert_eq!(gateway.get(JWKS).status, 200);
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "the proxy was asked");
}

#[test]
fn the_api_server_may_live_under_a_path() {
    let api = FakeApi::start();
    let path = format!("/k8s/clusters/c-1{JWKS}");
    api.set(&path, Answer::jwks(api.jwks()));

    // With a slash at the end, which must not be doubled.
    let base = format!("{}/k8s/clusters/c-1/", api.url());
    let _gateway = Gateway::builder(&api).set("UPSTREAM_HOST", base).start();

    api.wait_for_count(&path, 1);
}

#[test]
fn a_json_log_is_one_object_a_line() {
    let api = FakeApi::start();
    let process = Gateway::builder(&api)
        .set("LOG_FORMAT", "json")
        .set("RUST_LOG", "trace")
        .set("SHUTDOWN_DELAY_SECONDS", "0")
        .spawn();
    let line: Value = serde_json::from_str(&process.wait_for_log("listening")).unwrap();
    let public: SocketAddr = line["public"].as_str().unwrap().parse().unwrap();

    assert_eq!(client::get(public, "/quote\"and\\backslash").status, 404);
    assert_eq!(client::get(public, JWKS).status, 200);
    api.set_both(&Answer::Status(403));
    process.wait_for_log("/openid/v1/jwks");
    process.signal("TERM");
    process.wait_for_log("stopped");

    for line in process.log().lines() {
        let Ok(Value::Object(_)) = serde_json::from_str(line) else { panic!("no object: {line}") };
    }
}

#[test]
fn bytes_from_outside_cannot_forge_a_log_line() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let paths: [&[u8]; 4] = [b"/a\x1b[31mred", b"/a\nlistening", b"/a\xff\xfe", b"/a\" status=200"];

    for path in paths {
        // The answer may be 400, or no more than the end of the connection.
        let mut client = std::net::TcpStream::connect(gateway.public).unwrap();
        client.write_all(&[b"GET ", path, b" HTTP/1.1\r\nHost: g\r\n\r\n"].concat()).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        std::io::copy(&mut client, &mut std::io::sink()).unwrap();
    }
    // The marker: everything before it has been logged.
    assert_eq!(gateway.get("/marker").status, 404);
    gateway.wait_for_log("path=/marker");

    let log = gateway.log();
    assert!(log.bytes().all(|byte| byte == b'\n' || (b' '..0x7f).contains(&byte)), "{log:?}");
    for line in log.lines().filter(|line| line.contains("path=/a")) {
        assert_ne!(field(line, "status"), Some("200"), "{line}");
    }
}
