//! What Prometheus scrapes: `/metrics` on the admin listener. docs/metrics.md is the contract.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::skip;
use testing::client::{self, Client};
use testing::fake_api::{
    Answer, DISCOVERY, FakeApi, INTERNAL_JWKS_URI, ISSUER, JWKS, discovery, key_set, large_key_set,
};
use testing::gateway::Gateway;
use testing::wait::eventually;

const PREFIX: &str = "kube_issuer_gateway_";

/// A page as Prometheus reads it: series, as they are written, and their values.
struct Scrape {
    text: String,
    samples: BTreeMap<String, f64>,
}

impl Scrape {
    fn of(gateway: &Gateway) -> Self {
        let response = client::get(gateway.admin.unwrap(), "/metrics");
        assert_eq!(response.status, 200);
        let content_type = response.header("Content-Type");
        assert_eq!(content_type, Some("text/plain; version=0.0.4; charset=utf-8"));
        let mut samples = BTreeMap::new();
        for line in response.text().lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let before = samples.insert(series.to_owned(), value.parse().expect("a number"));
            assert_eq!(before, None, "{series} twice");
        }
        Self { text: response.text().to_owned(), samples }
    }

    /// The value of a series of the gateway's own; its labels as they are written, in alphabetic order.
    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let value = self.find(series);
        value.unwrap_or_else(|| panic!("{series} is not there:\n{}", self.text))
    }

    fn find(&self, series: &str) -> Option<f64> {
        self.samples.get(&format!("{PREFIX}{series}")).copied()
    }
}

#[track_caller]
fn becomes(gateway: &Gateway, series: &str, expected: f64) {
    let is_there = || Scrape::of(gateway).find(series) == Some(expected);
    eventually(&format!("{series} {expected}"), is_there);
}

/// What a round finds is there when it ends, a moment after its documents.
#[track_caller]
fn first_round(gateway: &Gateway) {
    becomes(gateway, "keys", 1.0);
}

#[test]
fn the_documentation_has_each_metric_and_each_label_and_no_others() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("MAX_CONNECTIONS", "16").start();
    gateway.get(JWKS);
    first_round(&gateway);
    // What is there only once it has happened.
    let mut refused = Client::connect(gateway.public);
    refused.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(refused.read("GET").status, 400);
    let scrape = Scrape::of(&gateway);

    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = fs::read_to_string(page).expect("docs/metrics.md");
    let table = page.split("\n## Status").next().unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| `"));
    let words = |cell: &str| {
        cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<BTreeSet<_>>()
    };
    let documented: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            (
                format!("{PREFIX}{}", cells[1].trim_matches('`')),
                (cells[2].to_owned(), words(cells[3])),
            )
        })
        .collect();
    let types = scrape.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let types: BTreeMap<_, _> = types.filter_map(|line| line.split_once(' ')).collect();
    let mut shown = BTreeMap::new();
    for (name, kind) in &types {
        let is_of_it = |series: &&String| {
            let rest = series.strip_prefix(name).unwrap_or("no");
            ["", "_bucket", "_sum", "_count"].contains(&rest.split('{').next().unwrap())
        };
        let series = scrape.samples.keys().filter(is_of_it);
        let inside = series.filter_map(|series| series.split_once('{')?.1.strip_suffix('}'));
        let labels =
            inside.flat_map(|inside| inside.split(',')).filter_map(|it| it.split_once('='));
        let labels: BTreeSet<_> =
            labels.map(|(label, _)| label.to_owned()).filter(|label| label != "le").collect();
        shown.insert((*name).to_owned(), ((*kind).to_owned(), labels));
    }
    let of_the_process = |name: &String| name.starts_with("process_");
    let process: BTreeSet<_> = shown.keys().filter(|name| of_the_process(name)).cloned().collect();
    for name in &process {
        assert!(page.contains(&format!("`{name}`")), "docs/metrics.md lacks {name}");
    }
    assert_eq!(process.len(), 7);
    shown.retain(|name, _| !of_the_process(name));
    assert_eq!(documented, shown);
    // Each metric says what it is.
    for name in types.keys() {
        assert!(scrape.text.contains(&format!("# HELP {name} ")), "{name}");
    }
}

#[test]
fn prometheus_has_nothing_to_say_against_the_page() {
    if Command::new("promtool").arg("--version").output().is_err() {
        return skip("promtool is not installed");
    }
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("KEY_GRACE_SECONDS", "0").start();
    // A kid may be any text.
    let odd = r#"{"kty":"RSA","kid":"a\"b\\c\nd\u001b[31m\u202e{},=é","n":"AQAB","e":"AQAB"}"#;
    let odd = [odd.to_owned(), odd.replace("a\\\"b", "x")];
    for (count, keys) in [(250.0, large_key_set(250)), (2.0, key_set(&odd))] {
        api.set(JWKS, Answer::jwks(keys));
        becomes(&gateway, "keys", count);
        let text = Scrape::of(&gateway).text;
        assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{text}");
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let said = promtool.wait_with_output().unwrap();
        let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        assert!(said.status.success() && words.is_empty(), "{words}");
    }
}

#[test]
fn nothing_of_it_is_on_the_public_listener() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    for path in ["/metrics", "/status", "/metrics/", "//metrics"] {
        for method in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(client::request(gateway.public, method, path, &[]).status, 404, "{path}");
        }
    }
}

#[test]
fn pages_are_read_and_nothing_else_and_no_other_site_may_read_them() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let admin = gateway.admin.unwrap();
    for page in ["/metrics", "/status"] {
        let get = client::get(admin, page);
        assert_eq!((get.status, get.header("Access-Control-Allow-Origin")), (200, None), "{page}");
        assert_eq!(get.header("Cache-Control"), Some("no-store"), "{page}");
        let head = client::request(admin, "HEAD", page, &[]);
        assert_eq!((head.status, head.text()), (200, ""), "{page}");
        let options = client::request(admin, "OPTIONS", page, &[("Origin", "https://a.example")]);
        assert_eq!((options.status, options.text()), (200, ""), "{page}");
        assert_eq!(options.header("Allow"), Some("GET, HEAD, OPTIONS"), "{page}");
        assert_eq!(options.header("Access-Control-Allow-Origin"), None, "{page}");
        assert_eq!(client::request(admin, "POST", page, &[]).status, 405, "{page}");
        assert_eq!(client::get(admin, &format!("{page}/")).status, 404, "{page}");
        assert_eq!(client::get(admin, &format!("{page}?a=b")).status, 200, "{page}");
    }
    // A scraper comes every few seconds, and is no news.
    assert!(!gateway.log().contains("path=/metrics status=200"), "{}", gateway.log());
}

#[test]
fn requests_are_counted_by_route_method_and_status() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    first_round(&gateway);
    let etag = gateway.get(JWKS).header("ETag").unwrap().to_owned();
    for (method, path, times) in [
        ("GET", JWKS, 2),
        ("HEAD", DISCOVERY, 3),
        ("OPTIONS", JWKS, 1),
        ("POST", JWKS, 2),
        ("BREW", "/livez", 1),
        ("GET", "/nothing", 4),
        ("GET", "/else", 1),
        ("GET", "/livez", 2),
    ] {
        for _ in 0..times {
            client::request(gateway.public, method, path, &[]);
        }
    }
    client::request(gateway.public, "GET", JWKS, &[("If-None-Match", &etag)]);
    client::get(gateway.admin.unwrap(), "/livez");

    let scrape = Scrape::of(&gateway);
    for (method, route, status, count) in [
        ("GET", "jwks", 200, 3),
        ("GET", "jwks", 304, 1),
        ("HEAD", "discovery", 200, 3),
        ("OPTIONS", "jwks", 204, 1),
        ("other", "jwks", 405, 2),
        ("other", "livez", 405, 1),
        ("GET", "other", 404, 5),
        ("GET", "livez", 200, 3),
    ] {
        let labels = format!(r#"{{method="{method}",route="{route}",status="{status}"}}"#);
        assert_eq!(scrape.value(&format!("http_requests_total{labels}")), f64::from(count));
    }
    let histogram = |part: &str| {
        let mut sum = 0.0;
        for (series, value) in &scrape.samples {
            let is_it =
                series.starts_with(&format!("{PREFIX}http_request_duration_seconds_{part}"));
            sum += if is_it && series.contains("\"jwks\"") { *value } else { 0.0 };
        }
        sum
    };
    assert_eq!(histogram("count"), 7.0);
    assert!(histogram("sum") > 0.0 && histogram("sum") < 7.0);
    // Names of a client's making have none of their own.
    let text = Scrape::of(&gateway).text;
    assert!(!text.contains("BREW") && !text.contains("nothing"), "{text}");
}

#[test]
fn fetches_are_counted_by_outcome_and_a_copy_has_an_age() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("MAX_STALE_SECONDS", "3").start();
    first_round(&gateway);
    let scrape = Scrape::of(&gateway);
    assert_eq!(scrape.value("ready"), 1.0);
    for document in ["discovery", "jwks"] {
        let of = |name: &str| scrape.value(&format!("{name}{{document=\"{document}\"}}"));
        assert!(of("document_age_seconds") < 3.0, "{document}");
        assert_eq!(of("document_available"), 1.0, "{document}");
        let fetches = format!(r#"fetches_total{{document="{document}",outcome="success"}}"#);
        assert!(scrape.value(&fetches) >= 1.0);
        assert!(of("fetch_duration_seconds_count") >= scrape.value(&fetches));
    }

    // Now and then it is stale on a busy machine, and then fresh again.
    becomes(&gateway, r#"document_stale{document="discovery"}"#, 0.0);
    becomes(&gateway, r#"document_stale{document="jwks"}"#, 0.0);

    api.set_both(&Answer::Status(403));
    becomes(&gateway, r#"document_stale{document="jwks"}"#, 1.0);
    gateway.get(JWKS);
    let scrape = Scrape::of(&gateway);
    assert!(scrape.value(r#"fetches_total{document="jwks",outcome="forbidden"}"#) >= 1.0);
    assert!(scrape.value(r#"fetches_total{document="discovery",outcome="forbidden"}"#) >= 1.0);
    assert_eq!(scrape.value(r#"stale_responses_total{document="jwks"}"#), 1.0);
    assert_eq!(scrape.value(r#"stale_responses_total{document="discovery"}"#), 0.0);

    becomes(&gateway, r#"document_available{document="jwks"}"#, 0.0);
    becomes(&gateway, "ready", 0.0);
    assert!(Scrape::of(&gateway).value(r#"document_age_seconds{document="jwks"}"#) > 3.0);
    api.set_good();
    becomes(&gateway, "ready", 1.0);
    becomes(&gateway, r#"document_available{document="jwks"}"#, 1.0);
}

#[test]
fn in_an_outage_both_documents_fail_though_one_is_asked_for() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    first_round(&gateway);
    api.go_down();
    for document in ["discovery", "jwks"] {
        let fetches = format!(r#"fetches_total{{document="{document}",outcome="unreachable"}}"#);
        eventually(&fetches, || Scrape::of(&gateway).find(&fetches).is_some());
    }
}

#[test]
fn before_the_first_fetch_there_is_no_age_and_nothing_is_available() {
    let api = FakeApi::start();
    api.set_both(&Answer::Hang);
    let gateway = Gateway::start(&api);
    let scrape = Scrape::of(&gateway);
    assert_eq!(scrape.value("ready"), 0.0);
    assert_eq!(scrape.value("keys"), 0.0);
    assert_eq!(scrape.value("key_set_changes_total"), 0.0);
    assert_eq!(scrape.find("key_set_changed_timestamp_seconds"), None);
    for document in ["discovery", "jwks"] {
        let of = |name: &str| scrape.find(&format!("{name}{{document=\"{document}\"}}"));
        assert_eq!(of("document_age_seconds"), None);
        assert_eq!((of("document_available"), of("document_stale")), (Some(0.0), Some(0.0)));
    }
    // The CA file is known from the start.
    assert!(scrape.value(r#"expiry_timestamp_seconds{block="1",subject="ca"}"#) > 0.0);
}

#[test]
fn each_key_has_the_time_since_which_it_was_seen_and_a_rotation_is_a_change() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("KEY_GRACE_SECONDS", "300").start();
    first_round(&gateway);
    let seen =
        |kid: &str| format!(r#"key_first_seen_timestamp_seconds{{algorithm="ES256",kid="{kid}"}}"#);
    let first = api.kid();
    let scrape = Scrape::of(&gateway);
    assert_eq!(scrape.value("key_set_changes_total"), 0.0);
    let since = scrape.value(&seen(&first));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((now - 60.0..=now).contains(&since), "{since} {now}");
    assert_eq!(scrape.value("key_set_changed_timestamp_seconds"), since);

    api.rotate_key();
    becomes(&gateway, "keys", 2.0);
    let scrape = Scrape::of(&gateway);
    assert_eq!(scrape.value("key_set_changes_total"), 1.0);
    assert_eq!(scrape.value(&seen(&first)), since);
    let second = scrape.value(&seen(&api.kid()));
    assert!(second > since);
    assert_eq!(scrape.value("key_set_changed_timestamp_seconds"), second);
}

#[test]
fn a_key_set_of_any_size_makes_a_page_that_ends() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let key = |number| format!(r#"{{"kty":"EC","kid":"{number}","x":1}}"#);
    api.set(JWKS, Answer::jwks(key_set(&(0..2000).map(key).collect::<Vec<_>>())));
    eventually("keys", || {
        gateway.get(JWKS);
        Scrape::of(&gateway).value("keys") > 1999.0
    });
    let scrape = Scrape::of(&gateway);
    let series = scrape.samples.keys().filter(|it| it.contains("key_first_seen"));
    assert_eq!(series.count(), 64);
    let status = client::get(gateway.admin.unwrap(), "/status").json();
    assert_eq!(status["keys"].as_array().unwrap().len(), 64);

    // As long as an answer of the public listener may be, whatever a kid is.
    let kid = |number| format!("{number}{}", "\u{202e}".repeat(500));
    let key = |number| format!(r#"{{"kty":"EC","kid":"{}","x":1}}"#, kid(number));
    api.set(JWKS, Answer::jwks(key_set(&(0..70).map(key).collect::<Vec<_>>())));
    eventually("long keys", || {
        gateway.get(JWKS);
        Scrape::of(&gateway).text.contains("202e")
    });
    for page in ["/metrics", "/status"] {
        let length = client::get(gateway.admin.unwrap(), page).body.len();
        assert!((20_000..128 << 10).contains(&length), "{page}: {length}");
    }
}

#[test]
fn each_pair_of_kid_and_algorithm_has_a_series() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).set("KEY_GRACE_SECONDS", "0").start();
    first_round(&gateway);
    let key =
        |kid: &str, alg: &str, x| format!(r#"{{"kty":"EC","kid":"{kid}","alg":"{alg}","x":{x}}}"#);
    // Joined, the labels of the first two are equal; the last two are two keys of one kid.
    let keys =
        [key("a", "RS256", 1), key("aR", "S256", 1), key("b", "ES256", 1), key("b", "ES256", 2)];
    api.set(JWKS, Answer::jwks(key_set(&keys)));
    becomes(&gateway, "keys", 4.0);
    let scrape = Scrape::of(&gateway);
    for (kid, algorithm) in [("a", "RS256"), ("aR", "S256"), ("b", "ES256")] {
        let labels = format!(r#"{{algorithm="{algorithm}",kid="{kid}"}}"#);
        assert!(scrape.value(&format!("key_first_seen_timestamp_seconds{labels}")) > 0.0);
    }
}

#[test]
fn api_servers_that_disagree_are_told_from_a_change() {
    let api = FakeApi::start();
    let gateway = Gateway::quick(&api).start();
    first_round(&gateway);
    let first = api.jwks();
    api.rotate_key();
    becomes(&gateway, "key_set_changes_total", 1.0);
    let second = api.jwks();
    assert_eq!(Scrape::of(&gateway).value(r#"api_servers_disagree{document="jwks"}"#), 0.0);

    api.set(JWKS, Answer::jwks(first));
    becomes(&gateway, r#"api_servers_disagree{document="jwks"}"#, 1.0);
    api.set(JWKS, Answer::jwks(second));
    let scrape = Scrape::of(&gateway);
    assert_eq!(scrape.value(r#"api_servers_disagree{document="discovery"}"#), 0.0);
    // Both sets are served as one all the time: no change.
    assert_eq!(scrape.value("key_set_changes_total"), 1.0);

    let other = discovery("https://other.example", INTERNAL_JWKS_URI);
    api.set(DISCOVERY, Answer::discovery(other));
    gateway.wait_for_log("issuer changed");
    api.set(DISCOVERY, Answer::discovery(discovery(ISSUER, INTERNAL_JWKS_URI)));
    becomes(&gateway, r#"api_servers_disagree{document="discovery"}"#, 1.0);
}

#[test]
fn another_issuer_and_the_own_token_are_seen() {
    let api = FakeApi::start();
    let own = |state: &str| format!(r#"own_token{{state="{state}"}}"#);
    let states = ["off", "not_checked", "pending", "verified", "failed"];
    let is = |gateway: &Gateway, expected: &str| {
        let scrape = Scrape::of(gateway);
        states.iter().all(|it| scrape.value(&own(it)) == f64::from(u8::from(*it == expected)))
    };

    let gateway = Gateway::builder(&api).set("ISSUER", "https://other.example").start();
    becomes(&gateway, "issuer_mismatch", 1.0);
    // Its token is no JWT.
    assert!(is(&gateway, "not_checked"));

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = |issuer: &str| {
        let token = api.sign(&json!({"iss": issuer, "iat": now, "exp": now + 3600}));
        api.accept_tokens(&[&token]);
        api.volume.write(&token, &api.ca_pem());
    };
    token(ISSUER);
    let gateway = Gateway::quick(&api).set("ISSUER", ISSUER).start();
    eventually("verified", || is(&gateway, "verified"));
    assert_eq!(Scrape::of(&gateway).value("issuer_mismatch"), 0.0);
    token("https://other.example");
    eventually("pending", || is(&gateway, "pending"));

    let gateway = Gateway::builder(&api).set("OWN_TOKEN_CHECK", "off").start();
    assert!(is(&gateway, "off"));
}

#[test]
fn what_expires_says_when_and_from_when_on_it_should_have_been_renewed() {
    let api = FakeApi::start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims = json!({
        "iss": ISSUER, "iat": now, "exp": now + 9000, "kubernetes.io": {"warnafter": now + 3607},
    });
    let token = api.sign(&claims);
    api.accept_tokens(&[&token]);
    // Two CAs: the second block has no use, and is of a CA all the same.
    let other = FakeApi::start();
    api.volume.write(&token, &format!("{}{}", api.ca_pem(), other.ca_pem()));
    let gateway = Gateway::start(&api);
    first_round(&gateway);
    let scrape = Scrape::of(&gateway);
    let of = |name: &str, subject: &str, block: &str| {
        scrape.value(&format!(r#"{name}_timestamp_seconds{{block="{block}",subject="{subject}"}}"#))
    };
    let seconds = |offset: u64| f64::from(u32::try_from(now + offset).unwrap());
    assert_eq!(of("expiry", "token", ""), seconds(9000));
    assert_eq!(of("renewal_due", "token", ""), seconds(3607));
    // What rcgen makes ends in the year 4096.
    for (subject, block) in [("api_server", ""), ("ca", "1"), ("ca", "2")] {
        assert_eq!(of("expiry", subject, block), 67_090_118_400.0, "{subject} {block}");
        assert_eq!(of("renewal_due", subject, block), 67_090_118_400.0 - 30.0 * 86_400.0);
    }
}

#[test]
fn connections_are_counted_and_so_is_who_is_shut_out() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("MAX_CONNECTIONS", "16").start();
    first_round(&gateway);
    let public = |name: &str| format!(r#"{name}{{listener="public"}}"#);
    let before = Scrape::of(&gateway).value(&public("connections_accepted_total"));
    assert_eq!(Scrape::of(&gateway).value(&public("connections_limit")), 16.0);

    let open: Vec<_> = (0..40).map(|_| TcpStream::connect(gateway.public).unwrap()).collect();
    becomes(&gateway, &public("connections_accepted_total"), before + 40.0);
    let scrape = Scrape::of(&gateway);
    assert_eq!(scrape.value(&public("connections")), 16.0);
    let evicted = r#"connections_closed_total{listener="public",reason="evicted"}"#;
    assert!(scrape.value(evicted) >= 24.0);
    for reason in ["unread", "unanswered", "rejected"] {
        let closed = format!(r#"connections_closed_total{{listener="public",reason="{reason}"}}"#);
        assert_eq!(scrape.value(&closed), 0.0);
    }
    drop(open);
    becomes(&gateway, &public("connections"), 0.0);

    let mut client = Client::connect(gateway.public);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    assert_eq!(client.read("GET").status, 400);
    becomes(&gateway, r#"requests_refused_total{listener="public",status="400"}"#, 1.0);
    // Those of the admin listener are its own.
    let scrape = Scrape::of(&gateway);
    assert_eq!(scrape.value(r#"connections_limit{listener="admin"}"#), 16.0);
    assert_eq!(scrape.value(r#"connections{listener="admin"}"#), 1.0);
}

#[test]
fn the_process_says_what_it_uses() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let scrape = Scrape::of(&gateway);
    let process = |name: &str| scrape.samples[&format!("process_{name}")];
    let resident = process("resident_memory_bytes");
    assert!((1e6..100e6).contains(&resident), "{resident}");
    assert!(process("virtual_memory_bytes") > resident);
    assert!(process("threads") > 18.0 && process("open_fds") > 10.0);
    assert!(process("max_fds") >= process("open_fds"));
    assert!(process("cpu_seconds_total") < 60.0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let started = process("start_time_seconds");
    assert!((now - 120.0..now + 5.0).contains(&started), "{started} {now}");
}

#[test]
fn scrapes_from_all_sides_do_not_keep_probes_waiting() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    let admin = gateway.admin.unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(admin);
                for _ in 0..50 {
                    assert_eq!(client.get("/metrics").status, 200);
                }
            });
        }
        let mut probe = Client::connect(admin);
        for _ in 0..50 {
            assert_eq!(probe.get("/livez").status, 200);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let scrape = Scrape::of(&gateway);
    let series = r#"http_requests_total{method="GET",route="metrics",status="200"}"#;
    assert_eq!(scrape.value(series), 400.0);
}
