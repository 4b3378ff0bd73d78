//! How the API server is found: by the address that Kubernetes gives each pod, or by DNS.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use testing::certificates::{named, self_signed};
use testing::fake_api::{FakeApi, JWKS};
use testing::gateway::{self, Builder, Gateway, field};

use crate::tls::api;

pub(crate) const NAME: &str = "kubernetes.default.svc";

/// An API server whose certificate has these names and no others.
pub(crate) fn api_called(name: &str) -> FakeApi {
    let server = self_signed(named("API server", name));
    api(&[&server], &server.key, &server.pem)
}

/// As in a pod: without `UPSTREAM_HOST`, and with what Kubernetes sets.
pub(crate) fn in_a_pod(api: &FakeApi, port: u16) -> Builder {
    Gateway::builder(api)
        .unset("UPSTREAM_HOST")
        .set("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        .set("KUBERNETES_SERVICE_PORT", port.to_string())
        .set("CACHE_TTL_SECONDS", "0.2")
}

#[test]
fn in_a_pod_the_api_server_is_found_without_dns() {
    let api = api_called(NAME);
    let gateway = in_a_pod(&api, api.address.port()).start();
    assert_eq!(gateway.get(JWKS).status, 200, "{}", gateway.log());

    // By its address, under its name.
    let line = gateway.wait_for_log("using the address of KUBERNETES_SERVICE_HOST");
    assert_eq!(field(&line, "address"), Some(&*api.address.to_string()), "{line}");
    for request in api.requests() {
        assert_eq!(request.header("Host"), Some(NAME));
    }
}

#[test]
fn the_name_that_is_checked_is_that_of_the_url_and_not_the_address() {
    let api = api_called("127.0.0.1");
    let gateway = in_a_pod(&api, api.address.port()).start();
    let line = gateway.wait_for_log("fetch failed");
    assert_eq!(field(&line, "reason"), Some("untrusted-certificate"), "{line}");
    assert_eq!(api.requests().len(), 0);
}

#[test]
fn an_upstream_host_that_is_given_is_used_whatever_kubernetes_sets() {
    let api = FakeApi::start();
    let gateway = in_a_pod(&api, 1).set("UPSTREAM_HOST", api.url()).start();
    assert_eq!(gateway.get(JWKS).status, 200, "{}", gateway.log());
}

#[test]
fn an_address_that_is_not_reached_is_named_and_tried_again_after_dns() {
    let api = api_called(NAME);
    // A port that was free a moment ago.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gateway = in_a_pod(&api, closed.port()).start();
    let line = gateway.wait_for_log("fetch failed");
    // DNS does not know the name here, which is not what is wrong.
    let named = format!("cannot reach https://{NAME} at {closed}");
    assert!(line.contains(&named) && line.contains("reason=unreachable"), "{line}");
    let api = api.moved_to_port(closed.port());
    gateway.wait_for_log("upstream recovered");
    assert!(!api.requests().is_empty());
}

/// Compiles `source` into a library that is loaded before the C library.
fn library(api: &FakeApi, source: &str) -> PathBuf {
    let (file, library) = (api.volume.dir().join("dns.rs"), api.volume.dir().join("libdns.so"));
    std::fs::write(&file, source).unwrap();
    let compiled = Command::new("rustc")
        .args(["--edition=2024", "--crate-type=cdylib", "-o"])
        .args([&library, &file])
        .status()
        .expect("run rustc");
    assert!(compiled.success());
    library
}

/// Look-ups that never come back.
const HANGING: &str = r#"
    #[unsafe(no_mangle)]
    pub extern "C" fn getaddrinfo() -> i32 {
        loop {
            std::thread::park();
        }
    }
"#;

/// Look-ups of one name, which take longer than the gateway waits and are right then.
const SLOW: &str = r#"
    use std::ffi::{c_char, c_int, c_void};
    type LookUp = unsafe extern "C" fn(*const c_char, *const c_char, *const c_void, *mut c_void) -> c_int;
    unsafe extern "C" {
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    }
    #[unsafe(no_mangle)]
    pub unsafe extern "C" fn getaddrinfo(
        _node: *const c_char,
        service: *const c_char,
        hints: *const c_void,
        found: *mut c_void,
    ) -> c_int {
        std::thread::sleep(std::time::Duration::from_millis(700));
        let next = -1_isize as *mut c_void;
        let real: LookUp = unsafe { std::mem::transmute(dlsym(next, c"getaddrinfo".as_ptr())) };
        unsafe { real(c"127.0.0.1".as_ptr(), service, hints, found) }
    }
"#;

#[test]
#[cfg(target_env = "gnu")]
fn a_hanging_dns_is_called_so_and_does_not_pile_up_threads() {
    // Nothing can be preloaded into the static binary, which has the same resolver of ours.
    if !gateway::is_dynamic() {
        return;
    }
    let api = FakeApi::start();
    let gateway = Gateway::builder(&api)
        .set("CACHE_TTL_SECONDS", "0.2")
        .set("LD_PRELOAD", library(&api, HANGING))
        .set("UPSTREAM_HOST", "https://kubernetes.default.svc")
        .set("UPSTREAM_TIMEOUT_SECONDS", "0.1")
        // Each failure, and not one a minute.
        .set("RUST_LOG", "debug")
        .start();

    let line = gateway.wait_for_log("reason=timeout");
    assert!(line.contains("no answer from DNS within 0.1s"), "{line}");
    assert!(field(&line, "hint").is_some() && line.contains("DNS answers"), "{line}");
    let response = gateway.get(JWKS);
    assert_eq!(response.status, 502);
    for _ in 0..7 {
        gateway.wait_for_log("fetch failed");
    }
    let threads = gateway.threads();
    for _ in 0..7 {
        gateway.wait_for_log("fetch failed");
    }
    // Connections have no threads, so none comes or goes.
    assert!(gateway.threads() <= threads, "{} threads, then {}", threads, gateway.threads());
    assert_eq!(gateway.get("/livez").status, 200);
}

#[test]
#[cfg(target_env = "gnu")]
fn an_answer_of_dns_that_comes_late_serves_the_next_round() {
    // As above.
    if !gateway::is_dynamic() {
        return;
    }
    let api = api_called("slow.example");
    let gateway = Gateway::builder(&api)
        .set("LD_PRELOAD", library(&api, SLOW))
        .set("UPSTREAM_HOST", format!("https://slow.example:{}", api.address.port()))
        .set("UPSTREAM_TIMEOUT_SECONDS", "0.4")
        .start();

    // Each look-up alone would be too late for its round.
    gateway.wait_for_log("no answer from DNS within 0.4s");
    gateway.wait_for_log("upstream recovered");
    assert_eq!(gateway.get(JWKS).status, 200);
}
