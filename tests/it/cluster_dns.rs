//! Cluster DNS as it occurs, in a network namespace of the test's own: with the resolver of the
//! binary under test, which for the static one is musl's, and an /etc like that of the image.

use std::any::type_name;
use std::collections::HashSet;
use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::names::{NAME, api_called, in_a_pod};
use crate::skip;
use testing::fake_api::{FakeApi, JWKS};
use testing::gateway::{self, Builder, Gateway, field};
use testing::wait::eventually;

const FULL_NAME: &str = "kubernetes.default.svc.cluster.local";
const SEARCH: &str = "search default.svc.cluster.local svc.cluster.local cluster.local\n";
const LOOPBACK_UP: [&str; 4] = ["link", "set", "lo", "up"];
/// Set for the test that runs in the namespace.
const INSIDE: &str = "INSIDE_A_NETWORK_NAMESPACE";

/// Runs the test that calls it once more by itself, as root of a network and a file system of its
/// own, and `body` in there.
fn in_a_namespace<F: FnOnce()>(body: F) {
    if env::var_os(INSIDE).is_some() {
        let up = Command::new("ip").args(LOOPBACK_UP).status().expect("run ip");
        assert!(up.success());
        return body();
    }
    let unshare = ["--user", "--map-root-user", "--net", "--mount"];
    let inside = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(unshare).arg(program);
        command
    };
    let up = inside(Path::new("ip")).args(LOOPBACK_UP).output().expect("run unshare");
    if !up.status.success() {
        return skip(&format!("no network namespace: {}", String::from_utf8_lossy(&up.stderr)));
    }
    // The path of the closure `body`: program, module, test, closure.
    let path = type_name::<F>();
    let name = path.split_once("::").and_then(|(_, path)| path.rsplit_once("::")).unwrap().0;
    let output = inside(&env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap()).concat();
    assert!(output.status.success() && said.contains(" 1 passed"), "{said}");
}

/// Whether questions for IPv6 addresses are answered as they should be; else with this code.
#[derive(Clone, Copy)]
enum Aaaa {
    Right,
    Refused(u8),
    Never,
}

const NXDOMAIN: u8 = 3;

/// A name server on port 53.
struct Dns {
    asked: Arc<Mutex<HashSet<String>>>,
}

impl Dns {
    /// Knows `names`, all of which are 127.0.0.1, and answers `late`.
    fn start(at: [u8; 4], names: &'static [&'static str], aaaa: Aaaa, late: Duration) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::from(at), 53)).unwrap();
        let asked = Arc::<Mutex<HashSet<String>>>::default();
        let noted = Arc::clone(&asked);
        // Ends with the process, which runs one test.
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let question = buffer[..length].to_vec();
                noted.lock().unwrap().insert(name_of(&question));
                let socket = socket.try_clone().unwrap();
                thread::spawn(move || {
                    thread::sleep(late);
                    if let Some(answer) = answer(&question, names, aaaa) {
                        let _ = socket.send_to(&answer, client);
                    }
                });
            }
        });
        Self { asked }
    }

    /// One that gets questions and never answers.
    fn dead() -> Self {
        Self::start([127, 0, 0, 1], &[], Aaaa::Never, Duration::from_secs(3600))
    }

    /// The names that were asked for.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().cloned().collect()
    }
}

/// The name in a question: RFC 1035 §4.1.2.
fn name_of(question: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = &question[12..];
    while let [length, tail @ ..] = rest
        && *length > 0
    {
        let (label, after) = tail.split_at(usize::from(*length));
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        rest = after;
    }
    labels.join(".")
}

/// RFC 1035 §4.1: the header, the question as it came, and one A record or none.
fn answer(question: &[u8], names: &[&str], aaaa: Aaaa) -> Option<Vec<u8>> {
    let name = name_of(question);
    let end = 12 + name.len() + 2 + 4;
    let is_aaaa = question[end - 3] == 28;
    let known = names.contains(&&*name);
    let code = match aaaa {
        Aaaa::Never if is_aaaa => return None,
        Aaaa::Refused(code) if is_aaaa => code,
        Aaaa::Right | Aaaa::Refused(_) | Aaaa::Never if known => 0,
        Aaaa::Right | Aaaa::Refused(_) | Aaaa::Never => NXDOMAIN,
    };
    let has_address = known && !is_aaaa;
    let mut answer = question[..end].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
    if has_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}

/// What a pod finds in /etc.
fn resolv_conf(api: &FakeApi, content: &str) {
    for (name, content) in [("resolv.conf", content), ("hosts", "127.0.0.1 localhost\n")] {
        let file = api.volume.dir().join(name);
        fs::write(&file, content).unwrap();
        let target = format!("/etc/{name}");
        let mounted = Command::new("mount").arg("--bind").arg(&file).arg(target).status().unwrap();
        assert!(mounted.success());
    }
}

fn by_name(api: &FakeApi, name: &str) -> Builder {
    Gateway::builder(api).set("UPSTREAM_HOST", format!("https://{name}:{}", api.address.port()))
}

/// In a pod, whatever DNS is like: it is not asked.
fn comes_up_without_dns(dns: &Dns, options: &str) {
    let api = api_called(NAME);
    resolv_conf(&api, options);
    let gateway = in_a_pod(&api, api.address.port()).start();
    assert_eq!(gateway.get(JWKS).status, 200, "{}", gateway.log());
    assert_eq!(dns.asked(), [""; 0]);
}

#[test]
fn in_a_pod_with_few_ndots_it_comes_up() {
    in_a_namespace(|| {
        let dns = Dns::start([127, 0, 0, 1], &[FULL_NAME], Aaaa::Right, Duration::ZERO);
        comes_up_without_dns(&dns, &format!("nameserver 127.0.0.1\n{SEARCH}options ndots:1\n"));
    });
}

#[test]
fn in_a_pod_with_a_name_server_that_does_not_know_the_cluster_it_comes_up() {
    in_a_namespace(|| {
        let late = Duration::from_millis(100);
        let dns = Dns::start([127, 0, 0, 1], &[FULL_NAME], Aaaa::Right, late);
        Dns::start([127, 0, 0, 2], &[], Aaaa::Right, Duration::ZERO);
        let servers = "nameserver 127.0.0.1\nnameserver 127.0.0.2\n";
        comes_up_without_dns(&dns, &format!("{servers}{SEARCH}options ndots:5\n"));
    });
}

#[test]
fn in_a_pod_with_ipv6_questions_refused_it_comes_up() {
    in_a_namespace(|| {
        let refused = Aaaa::Refused(NXDOMAIN);
        let dns = Dns::start([127, 0, 0, 1], &[FULL_NAME], refused, Duration::ZERO);
        comes_up_without_dns(&dns, &format!("nameserver 127.0.0.1\n{SEARCH}options ndots:5\n"));
    });
}

#[test]
fn in_a_pod_with_a_dead_dns_it_comes_up() {
    in_a_namespace(|| {
        let dns = Dns::dead();
        comes_up_without_dns(&dns, &format!("nameserver 127.0.0.1\n{SEARCH}options ndots:5\n"));
    });
}

#[test]
fn where_the_address_of_the_pod_is_not_reached_dns_is_asked() {
    in_a_namespace(|| {
        Dns::start([127, 0, 0, 1], &[FULL_NAME], Aaaa::Right, Duration::ZERO);
        // The port of the URL, which has none in it.
        let api = api_called(NAME).moved_to_port(443);
        resolv_conf(&api, &format!("nameserver 127.0.0.1\n{SEARCH}options ndots:5\n"));
        let gateway = in_a_pod(&api, 1).start();
        assert_eq!(gateway.get(JWKS).status, 200, "{}", gateway.log());
        gateway.wait_for_log("using the name in the URL");
    });
}

/// The address answers again after a while, and DNS leads to a server that nobody should trust.
#[test]
fn dns_that_leads_elsewhere_does_not_keep_the_gateway_from_the_address_of_the_pod() {
    in_a_namespace(|| {
        Dns::start([127, 0, 0, 1], &[FULL_NAME], Aaaa::Right, Duration::ZERO);
        let elsewhere = api_called(NAME).moved_to_port(443);
        let api = api_called(NAME);
        resolv_conf(&api, &format!("nameserver 127.0.0.1\n{SEARCH}options ndots:5\n"));
        api.go_down();
        let gateway = in_a_pod(&api, api.address.port()).start();
        let line = gateway.wait_for_log("fetch failed");
        // What is wrong is that the address is not reached.
        assert!(line.contains(&format!("at {}", api.address)), "{line}");
        api.come_back();
        gateway.wait_for_log("upstream recovered");
        assert_eq!(gateway.get(JWKS).status, 200);
        assert_eq!(elsewhere.requests().len(), 0);
    });
}

#[test]
fn where_the_address_of_the_pod_does_not_answer_dns_is_asked_in_the_same_round() {
    in_a_namespace(|| {
        Dns::start([127, 0, 0, 1], &[FULL_NAME], Aaaa::Right, Duration::ZERO);
        let api = api_called(NAME).moved_to_port(443);
        resolv_conf(&api, &format!("nameserver 127.0.0.1\n{SEARCH}options ndots:5\n"));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let gateway = in_a_pod(&api, port).set("UPSTREAM_TIMEOUT_SECONDS", "2").start();
        assert_eq!(gateway.get(JWKS).status, 200, "{}", gateway.log());
        gateway.wait_for_log("using the name in the URL");
        assert!(!gateway.log().contains("fetch failed"), "{}", gateway.log());
    });
}

#[test]
fn a_name_of_ones_own_with_the_dot_is_found_whatever_the_search_list_is() {
    in_a_namespace(|| {
        Dns::start([127, 0, 0, 1], &[FULL_NAME], Aaaa::Right, Duration::ZERO);
        let api = api_called(FULL_NAME);
        resolv_conf(&api, &format!("nameserver 127.0.0.1\n{SEARCH}options ndots:1\n"));
        let gateway = by_name(&api, &format!("{FULL_NAME}.")).start();
        assert_eq!(gateway.get(JWKS).status, 200, "{}", gateway.log());
    });
}

#[test]
fn a_name_that_the_static_binary_cannot_resolve_is_answered_with_the_one_that_it_can() {
    if gateway::is_dynamic() {
        return;
    }
    in_a_namespace(|| {
        Dns::start([127, 0, 0, 1], &[FULL_NAME], Aaaa::Right, Duration::ZERO);
        let api = api_called(NAME);
        resolv_conf(&api, &format!("nameserver 127.0.0.1\n{SEARCH}options ndots:1\n"));
        let line = by_name(&api, NAME).start().wait_for_log("fetch failed");
        assert_eq!(field(&line, "reason"), Some("unreachable"), "{line}");
        assert!(line.contains(&format!("{FULL_NAME}. with the dot")), "{line}");
    });
}

#[test]
fn a_dead_dns_is_called_so_and_its_answer_is_not_needed_to_serve_probes() {
    in_a_namespace(|| {
        let dns = Dns::dead();
        let api = api_called(FULL_NAME);
        resolv_conf(&api, "nameserver 127.0.0.1\n");
        let gateway = by_name(&api, FULL_NAME).set("UPSTREAM_TIMEOUT_SECONDS", "0.3").start();
        let line = gateway.wait_for_log("fetch failed");
        assert_eq!(field(&line, "reason"), Some("timeout"), "{line}");
        assert!(line.contains("no answer from DNS within 0.3s"), "{line}");
        assert_eq!(gateway.get("/livez").status, 200);
        eventually("DNS was asked", || dns.asked() == [FULL_NAME]);
    });
}

#[test]
fn a_dns_that_answers_later_than_a_round_lasts_is_good_enough() {
    in_a_namespace(|| {
        let late = Duration::from_millis(700);
        Dns::start([127, 0, 0, 1], &[FULL_NAME], Aaaa::Right, late);
        let api = api_called(FULL_NAME);
        resolv_conf(&api, "nameserver 127.0.0.1\n");
        let gateway = by_name(&api, FULL_NAME).set("UPSTREAM_TIMEOUT_SECONDS", "0.4").start();
        gateway.wait_for_log("no answer from DNS within 0.4s");
        gateway.wait_for_log("upstream recovered");
        assert_eq!(gateway.get(JWKS).status, 200);
    });
}
