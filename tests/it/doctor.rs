//! `doctor`: what it says, and its exit code, of issuers that are well and that are not.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use testing::certificates::rcgen::date_time_ymd;
use testing::certificates::{Pair, named, named_ca, self_signed, server, signed_by};
use testing::fake_api::{DISCOVERY, FakeApi, JWKS, discovery, key_set};
use testing::gateway::{Ended, Gateway, binary};
use testing::wait::eventually;

const HOST: &str = "oidc.example.com";

/// A site that anybody may read, over TLS, with a certificate for [`HOST`].
struct Site {
    address: SocketAddr,
    api: FakeApi,
    ca: PathBuf,
    answers: Arc<Mutex<BTreeMap<String, String>>>,
}

/// What a path is answered with: the head without its length, and the body.
fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn json_answer(body: &str) -> String {
    answer("200 OK", "Content-Type: application/json\r\nETag: \"e\"\r\n", body)
}

impl Site {
    fn start() -> Self {
        let ca = self_signed(named_ca("site CA"));
        let own = signed_by(named("site", HOST), &ca);
        Self::showing(&[&own], &own, &ca.pem)
    }

    /// Shows these certificates; `ca` is for doctor.
    fn showing(chain: &[&Pair], own: &Pair, ca: &str) -> Self {
        Self::with(server(chain, &own.key, &[]), ca)
    }

    fn with(config: ServerConfig, ca: &str) -> Self {
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answers = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let shared = Arc::clone(&answers);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, answers) = (Arc::clone(&config), Arc::clone(&shared));
                thread::spawn(move || serve(stream, config, &answers));
            }
        });
        // For its folder, and its keys.
        let api = FakeApi::start();
        let path = api.volume.dir().join("site-ca.pem");
        std::fs::write(&path, ca).unwrap();
        let site = Self { address, api, ca: path, answers };
        site.set(DISCOVERY, json_answer(&discovery(&site.issuer(), &site.url(JWKS))));
        site.set(JWKS, json_answer(&site.api.jwks()));
        site
    }

    fn issuer(&self) -> String {
        format!("https://{HOST}:{}", self.address.port())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer())
    }

    fn set(&self, path: &str, answer: String) {
        self.answers.lock().unwrap().insert(path.to_owned(), answer);
    }

    fn set_keys(&self, keys: &[&str]) {
        let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        self.set(JWKS, json_answer(&key_set(&keys)));
    }

    fn doctor(&self, arguments: &[&str]) -> Ended {
        self.doctor_of(&self.issuer(), arguments)
    }

    fn doctor_of(&self, issuer: &str, arguments: &[&str]) -> Ended {
        let resolve = format!("{HOST}:{}:127.0.0.1", self.address.port());
        let ca = self.ca.to_str().unwrap();
        let mut builder = Gateway::builder(&self.api).arg("doctor").arg(issuer);
        for argument in ["--resolve", &resolve, "--ca", ca].iter().chain(arguments) {
            builder = builder.arg(argument);
        }
        builder.run()
    }

    /// Says `expected`, and ends with 1.
    #[track_caller]
    fn assert_fails(&self, expected: &str) {
        assert_failure(&self.doctor(&[]), expected);
    }
}

#[track_caller]
fn assert_failure(ended: &Ended, expected: &str) {
    let said = format!("{}{}", ended.stdout, ended.log);
    let lines = said.lines().filter(|line| line.starts_with("failure"));
    assert!(lines.clone().any(|line| line.contains(expected)), "{expected}: {said}");
    assert_eq!(ended.code, Some(1), "{said}");
}

#[track_caller]
fn assert_good(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.log);
    assert!(!ended.stdout.contains("failure  "), "{}", ended.stdout);
}

fn serve(
    stream: TcpStream,
    config: Arc<ServerConfig>,
    answers: &Mutex<BTreeMap<String, String>>,
) -> Option<()> {
    let connection = ServerConnection::new(config).ok()?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        (stream.read_until(b'\n', &mut head).ok()? > 0).then_some(())?;
    }
    let head = String::from_utf8(head).ok()?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    assert!(!head.to_ascii_lowercase().contains("authorization:"), "a token was sent: {head}");
    let answers = answers.lock().unwrap();
    let found = answers.get(path).cloned().unwrap_or_else(|| answer("404 Not Found", "", ""));
    drop(answers);
    let found = match method {
        "HEAD" => format!("{}\r\n\r\n", found.split_once("\r\n\r\n")?.0),
        _ if head.to_ascii_lowercase().contains("if-none-match:") => {
            answer("304 Not Modified", "ETag: \"e\"\r\n", "")
        }
        _ => found,
    };
    stream.get_mut().write_all(found.as_bytes()).ok()?;
    stream.get_mut().conn.send_close_notify();
    stream.get_mut().flush().ok()
}

#[test]
fn a_good_issuer_is_said_to_be_good() {
    let site = Site::start();
    let ended = site.doctor(&[]);
    assert_good(&ended);
    for expected in [
        "tls              1.3 and 1.2",
        "byte for byte",
        "ok       HEAD",
        "ok       304",
        &site.api.kid(),
    ] {
        assert!(ended.stdout.contains(expected), "{expected}: {}", ended.stdout);
    }
    let ended = site.doctor(&["--json"]);
    assert_eq!(ended.code, Some(0));
    let object: Value = serde_json::from_str(&ended.stdout).expect("JSON");
    assert_eq!(object["ok"], true);
    assert!(object["findings"].as_array().unwrap().len() > 8);
}

#[test]
fn who_does_not_follow_a_redirect_is_said_by_name() {
    let site = Site::start();
    site.set(JWKS, answer("302 Found", "Location: /moved\r\n", ""));
    let ended = site.doctor(&["--for", "jose,go-oidc"]);
    assert_failure(&ended, "jose             The key set is behind a redirect (302)");
    // It follows.
    assert!(!ended.stdout.contains("go-oidc  "), "{}", ended.stdout);
}

#[test]
fn what_is_wrong_with_a_document_is_a_sentence_and_exit_code_1() {
    let site = Site::start();
    let other = |issuer: &str| json_answer(&discovery(issuer, &site.url(JWKS)));
    let issuer = site.issuer();
    let length = issuer.len();
    for (found, expected) in [
        (other(&format!("{issuer}/")), "with a slash at the end, which"),
        (other(&issuer.replace(":", ".:")), "from byte 6 on"),
        (
            other(&format!("{issuer}/b")),
            &*format!("from byte {} on \"/b\" and not nothing", length + 1),
        ),
        (
            json_answer(&discovery(&issuer, "https://10.96.0.1:6443/openid/v1/jwks")),
            "cannot be reached from outside",
        ),
        (json_answer("{"), "it is not JSON"),
        (answer("200 OK", "Content-Type: text/html\r\n", "<html>Sign in</html>"), "it is HTML"),
        (
            answer("302 Found", "Location: https://login.example/\r\n", ""),
            "302 redirects to https://login.example/",
        ),
        (answer("403 Forbidden", "", ""), "the answer is 403"),
    ] {
        site.set(DISCOVERY, found);
        site.assert_fails(expected);
    }
    // What else is there is not looked at; nothing that a terminal takes for more than text is printed.
    site.set(DISCOVERY, other("https://a\\u001b[31m"));
    let ended = site.doctor(&[]);
    let is_plain = |byte: u8| byte == b'\n' || (b' '..=b'~').contains(&byte);
    assert!(ended.stdout.bytes().all(is_plain), "{:?}", ended.stdout);
}

#[test]
fn what_is_wrong_with_a_key_is_a_sentence_and_exit_code_1() {
    let site = Site::start();
    let jwks: Value = serde_json::from_str(&site.api.jwks()).unwrap();
    let good = jwks["keys"][0].to_string();
    let (x, kid) = (jwks["keys"][0]["x"].as_str().unwrap(), site.api.kid());
    let off_curve = good.replace(x, &"A".repeat(x.len()));
    for (keys, expected) in [
        (vec![&*good, &*good], format!("{kid} is listed 2 times")),
        (vec![&*off_curve], "its point is not on its curve".to_owned()),
        (vec![&*good, r#"{"kty":"oct","k":"AA"}"#], "keys[1] is a symmetric key".to_owned()),
        (vec![], "not an array with at least one key".to_owned()),
    ] {
        site.set_keys(&keys);
        site.assert_fails(&expected);
    }
    site.set_keys(&[&good]);
    assert_good(&site.doctor(&[]));
}

#[test]
fn what_a_relying_party_will_refuse_is_a_failure_for_those_that_name_it() {
    let site = Site::start();
    let jwks: Value = serde_json::from_str(&site.api.jwks()).unwrap();
    let good = jwks["keys"][0].to_string();
    let unknown = r#"{"kty":"AKP","alg":"ML-DSA-44","kid":"new","pub":"AA"}"#.to_owned();
    let many = (0..370).map(|number| good.replace(&site.api.kid(), &format!("key-{number}")));
    for (keys, party, expected) in [
        (vec![good.clone()], "azure", "It accepts RS256 only"),
        (vec![good.clone(), unknown], "kubernetes", "refuses the whole key set"),
        (many.collect(), "nimbus", "it takes 51200 at most"),
    ] {
        site.set(JWKS, json_answer(&key_set(&keys)));
        assert_failure(&site.doctor(&["--for", party]), expected);
        assert_good(&site.doctor(&["--for", "pyjwt"]));
        // A cluster uses few of all relying parties.
        let all = site.doctor(&[]);
        assert_good(&all);
        assert!(all.stdout.contains("would refuse: "), "{}", all.stdout);
    }
}

#[test]
fn what_is_wrong_with_the_certificate_is_a_sentence_and_exit_code_1() {
    let root = self_signed(named_ca("root"));
    let intermediate = signed_by(named_ca("intermediate"), &root);
    let own = signed_by(named("site", HOST), &intermediate);
    assert_good(&Site::showing(&[&own, &intermediate], &own, &root.pem).doctor(&[]));
    Site::showing(&[&own], &own, &root.pem).assert_fails("the chain is incomplete: 1 shown");

    let mut expired = named("expired", HOST);
    expired.not_before = date_time_ymd(2019, 1, 1);
    expired.not_after = date_time_ymd(2020, 1, 1);
    let expired = signed_by(expired, &root);
    Site::showing(&[&expired], &expired, &root.pem)
        .assert_fails("has expired, at 2020-01-01T00:00:00Z");

    let other_name = signed_by(named("other", "other.example.com"), &root);
    Site::showing(&[&other_name], &other_name, &root.pem).assert_fails("not valid for name");

    // Without --ca, public roots are trusted, and this one is none of them.
    let site = Site::showing(&[&own, &intermediate, &root], &own, &root.pem);
    let resolve = format!("{HOST}:{}:127.0.0.1", site.address.port());
    let builder = Gateway::builder(&site.api).arg("doctor").arg(&site.issuer());
    let ended = builder.arg("--resolve").arg(&resolve).run();
    assert_failure(&ended, "which is not trusted");
}

/// Shows one certificate to clients that have suites of TLS 1.3, and another one to the rest.
#[derive(Debug)]
struct ByVersion {
    new: Arc<CertifiedKey>,
    old: Arc<CertifiedKey>,
}

impl ResolvesServerCert for ByVersion {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let has_new = hello.cipher_suites().contains(&CipherSuite::TLS13_AES_128_GCM_SHA256);
        Some(Arc::clone(if has_new { &self.new } else { &self.old }))
    }
}

fn certified(pair: &Pair) -> Arc<CertifiedKey> {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.key.serialize_der()));
    let key = aws_lc_rs::default_provider().key_provider.load_private_key(key).unwrap();
    Arc::new(CertifiedKey::new(vec![pair.der.clone()], key))
}

#[test]
fn a_certificate_that_only_tls_1_2_shows_is_looked_at_too() {
    let ca = self_signed(named_ca("site CA"));
    let own = signed_by(named("site", HOST), &ca);
    let mut expired = named("expired", HOST);
    expired.not_before = date_time_ymd(2019, 1, 1);
    expired.not_after = date_time_ymd(2020, 1, 1);
    let expired = signed_by(expired, &ca);
    for (new, old, expected) in [
        (&own, &expired, "by TLS 1.2: the certificate of CN=expired has expired"),
        (&expired, &own, "the certificate of CN=expired has expired"),
    ] {
        let mut config = server(&[&own], &own.key, &[]);
        let [new, old] = [new, old].map(certified);
        config.cert_resolver = Arc::new(ByVersion { new, old });
        Site::with(config, &ca.pem).assert_fails(expected);
    }
}

#[test]
fn a_server_without_tls_1_2_is_one_that_envoy_cannot_ask() {
    let ca = self_signed(named_ca("site CA"));
    let own = certified(&signed_by(named("site", HOST), &ca));
    for (version, expected) in [(&TLS13, "failure  envoy"), (&TLS12, "ok       envoy")] {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        let (new, old) = (Arc::clone(&own), Arc::clone(&own));
        let config = builder.with_cert_resolver(Arc::new(ByVersion { new, old }));
        let ended = Site::with(config, &ca.pem).doctor(&["--for", "envoy"]);
        assert!(ended.stdout.contains(expected), "{expected}: {}", ended.stdout);
        assert!(ended.stdout.contains(" alone\n"), "{}", ended.stdout);
    }
}

#[test]
fn a_name_may_be_given_several_addresses() {
    let site = Site::start();
    let port = site.address.port();
    // Nobody listens on the first one.
    let resolve = format!("{HOST}:{port}:127.0.0.2,127.0.0.1");
    let ca = site.ca.to_str().unwrap();
    let mut builder = Gateway::builder(&site.api).arg("doctor").arg(&site.issuer());
    for argument in ["--resolve", &resolve, "--ca", ca] {
        builder = builder.arg(argument);
    }
    let ended = builder.run();
    assert_good(&ended);
    assert!(ended.stdout.contains(&format!("warning  tcp              127.0.0.2:{port}: ")));
}

#[test]
fn from_outside_it_says_who_sees_a_new_key_late() {
    let site = Site::start();
    let caching =
        "Content-Type: application/json\r\nETag: \"e\"\r\nCache-Control: max-age=1800\r\n";
    site.set(JWKS, answer("200 OK", caching, &site.api.jwks()));
    let ended = site.doctor(&["--for", "jwx,go-oidc"]);
    assert_good(&ended);
    for expected in [
        "one that is added is seen late by jwx (1800 s)\n",
        "ok       key              go-oidc has a key that is added at once: ",
    ] {
        assert!(ended.stdout.contains(expected), "{expected}: {}", ended.stdout);
    }
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let api = FakeApi::start();
    let to_full_disk = ["sh", "-c", "exec \"$0\" \"$@\" >/dev/full"];
    for argument in ["doctor", "--version"] {
        let ended = Gateway::builder(&api).under(&to_full_disk).arg(argument).run();
        assert_eq!(ended.code, Some(1), "{}", ended.log);
        assert!(ended.log.contains("cannot write to stdout: "), "{}", ended.log);
    }
    // A reader who has seen enough is no reason to say that an issuer is bad.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = Command::new(binary()).arg("--help").stdout(writer).output().unwrap();
    assert_eq!((ended.status.code(), &*ended.stderr), (Some(0), &b""[..]));
}

#[test]
fn however_much_is_wrong_a_failure_is_not_left_out() {
    let site = Site::start();
    let jwks: Value = serde_json::from_str(&site.api.jwks()).unwrap();
    let good = jwks["keys"][0].to_string();
    let x = jwks["keys"][0]["x"].as_str().unwrap();
    let kid = site.api.kid();
    let mut keys: Vec<_> = (0..40)
        .map(|n| good.replace(&kid, &format!("key-{n}")).replace("\"sig\"", "\"enc\""))
        .collect();
    keys.push(good.replace(x, &"A".repeat(x.len())));
    site.set(JWKS, json_answer(&key_set(&keys)));
    site.assert_fails("its point is not on its curve");
    // Nor is the output endless, whatever a document has.
    site.set_keys(&[&good.replace(&kid, &"k".repeat(50_000))]);
    let ended = site.doctor(&[]);
    assert!(ended.stdout.lines().all(|line| line.len() < 1000), "{}", ended.stdout);
}

#[test]
fn a_key_set_at_another_host_is_asked_there() {
    let (site, keys) = (Site::start(), Site::start());
    site.set(JWKS, answer("404 Not Found", "", ""));
    site.set(DISCOVERY, json_answer(&discovery(&site.issuer(), &keys.url(JWKS))));
    let resolve = format!("{HOST}:{}:127.0.0.1", keys.address.port());
    // Its certificate is of another CA than that of --ca.
    assert_failure(&site.doctor(&["--resolve", &resolve]), "not trusted");
    let url = format!("https://{HOST}:{}", site.address.port());
    assert_failure(&site.doctor(&["--resolve", &resolve, "--url", &url]), "not trusted");
}

#[test]
fn a_server_that_drips_is_given_up() {
    let site = Site::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // A record that never ends, a byte a second.
                let mut bytes = b"\x16\x03\x03\x3f\xff".iter().copied().chain(std::iter::repeat(0));
                while stream.write_all(&[bytes.next().unwrap()]).is_ok() {
                    thread::sleep(std::time::Duration::from_secs(1));
                }
            });
        }
    });
    let resolve = format!("{HOST}:{port}:127.0.0.1");
    let started = std::time::Instant::now();
    let ended = site.doctor_of(&format!("https://{HOST}:{port}"), &["--resolve", &resolve]);
    assert_failure(&ended, "no answer within 7 s");
    assert!(started.elapsed() < std::time::Duration::from_secs(60));
}

#[test]
fn a_server_that_is_not_there_is_a_sentence_and_exit_code_1() {
    let site = Site::start();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let issuer = format!("https://{HOST}:{nobody}");
    let resolve = format!("{HOST}:{nobody}:127.0.0.1");
    assert_failure(&site.doctor_of(&issuer, &["--resolve", &resolve]), "refused");
    assert_failure(&site.doctor_of("https://nowhere.invalid", &[]), "nowhere.invalid: ");
    // It does not speak TLS.
    let gateway = Gateway::start(&site.api);
    let port = gateway.public.port();
    let resolve = format!("{HOST}:{port}:127.0.0.1");
    let ended = site.doctor_of(&format!("https://{HOST}:{port}"), &["--resolve", &resolve]);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("the port must speak TLS"), "{}", ended.stdout);
}

#[test]
fn a_token_is_checked_and_never_printed() {
    let site = Site::start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims =
        |issuer: &str, exp: u64| json!({"iss": issuer, "aud": ["a"], "iat": now, "exp": exp});
    let write = |token: &str| {
        let path = site.api.volume.dir().join("shown-token");
        std::fs::write(&path, token).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = site.api.sign(&claims(&site.issuer(), now + 600));
    let ended = site.doctor(&["--token", &write(&good)]);
    assert_good(&ended);
    assert!(ended.stdout.contains("which is in the key set"), "{}", ended.stdout);

    let stranger = FakeApi::start();
    for (token, expected) in [
        (site.api.sign(&claims("https://b.example", now + 600)), "its issuer is https://b.example"),
        (site.api.sign(&claims(&site.issuer(), now - 10)), "it has expired"),
        (
            site.api.sign(&json!({"iss": site.issuer(), "exp": f64::from(1_700_000_000) + 0.5})),
            "it has expired",
        ),
        (site.api.sign(&json!({"iss": site.issuer(), "exp": "1"})), "its exp is not a number"),
        (stranger.sign(&claims(&site.issuer(), now + 600)), "is not in the key set"),
        ("no token".to_owned(), "it is not a JWT"),
    ] {
        let ended = site.doctor(&["--token", &write(&token)]);
        assert_failure(&ended, expected);
        let printed = format!("{}{}", ended.stdout, ended.log);
        assert!(!printed.contains(&token), "{printed}");
    }
}

#[test]
fn by_url_it_asks_the_service_and_no_other_host() {
    let api = FakeApi::start();
    let gateway = Gateway::start(&api);
    eventually("ready", || gateway.get("/readyz").status == 200);
    let url = format!("http://{}", gateway.public);
    let doctor = |issuer: &str| {
        Gateway::builder(&api).arg("doctor").arg(issuer).arg("--url").arg(&url).run()
    };
    assert_good(&doctor("https://issuer.example"));
    assert_failure(&doctor("https://issuer.example/"), "without the slash at the end");
    let alone = Gateway::builder(&api).arg("doctor").arg("--url").arg(&url).run();
    assert_good(&alone);
    assert!(alone.stdout.contains("https://issuer.example, and none to compare with"));
}

#[test]
fn in_a_pod_it_checks_token_ca_and_api_server_first() {
    let api = FakeApi::start();
    let inside =
        |builder: testing::gateway::Builder| builder.arg("doctor").set("ADMIN_PORT", "1").run();
    let ended = inside(Gateway::builder(&api));
    for expected in [
        "ok       settings",
        "gives the discovery document",
        "gives the jwks document",
        "ISSUER is not set",
    ] {
        assert!(ended.stdout.contains(expected), "{expected}: {}{}", ended.stdout, ended.log);
    }
    let token = std::fs::read_to_string(api.volume.token()).unwrap();
    assert!(!format!("{}{}", ended.stdout, ended.log).contains(&token));

    api.accept_tokens(&[]);
    assert_failure(&inside(Gateway::builder(&api)), "upstream refused the token (401)");
    assert_failure(
        &inside(Gateway::builder(&api).set("SA_TOKEN_PATH", "/nothing")),
        "SA_TOKEN_PATH is \"/nothing\"",
    );
    api.rotate_ca();
    assert_failure(&inside(Gateway::builder(&api)), "is not trusted");
}

#[test]
fn beside_a_gateway_it_says_what_that_says_of_itself() {
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api).set("ISSUER", "https://other.example").start();
    eventually("ready", || gateway.get("/readyz").status == 200);
    let port = gateway.admin.unwrap().port().to_string();
    eventually("its problem", || {
        let ended = Gateway::builder(&api).set("ADMIN_PORT", &port).arg("doctor").run();
        ended.stdout.contains("warning  status           issuer-mismatch")
            && ended.stdout.contains(&format!("{} is served by this pod since", api.kid()))
    });
}

#[test]
fn an_issuer_inside_the_cluster_is_a_failure() {
    let site = Site::start();
    let resolve = format!("kubernetes.default.svc:{}:127.0.0.1", site.address.port());
    let issuer = format!("https://kubernetes.default.svc:{}", site.address.port());
    let ended = site.doctor_of(&issuer, &["--resolve", &resolve]);
    assert_failure(&ended, "cannot be reached from outside the cluster");
}

#[test]
fn usage_is_exit_code_2() {
    let api = FakeApi::start();
    let large = api.volume.dir().join("large");
    std::fs::write(&large, vec![b'a'; (1 << 20) + 1]).unwrap();
    let large = large.to_str().unwrap();
    for arguments in [
        &["doctor", "http://a"][..],
        &["doctor", "--nothing"],
        &["doctor", "--ca", "/nothing", "https://a"],
        &["doctor", "--ca", large, "https://a"],
        &["doctor", "--token", large, "https://a"],
        &["doctor", "--resolve", "a:443:nobody", "https://a"],
        &["else"],
    ] {
        let mut builder = Gateway::builder(&api);
        for argument in arguments {
            builder = builder.arg(argument);
        }
        let ended = builder.run();
        assert_eq!((ended.code, &*ended.stdout), (Some(2), ""), "{arguments:?}");
        assert_eq!(ended.log.lines().count(), 1, "{}", ended.log);
    }
    let help = Gateway::builder(&api).arg("doctor").arg("--help").run();
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("--resolve HOST:PORT:ADDR"), "{}", help.stdout);
}
