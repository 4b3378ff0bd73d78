//! `make run`: the gateway in front of a stand-in API server, with nothing but cargo.
//!
//! The stand-in is the one of the tests: real TLS with a CA of its own, a token that it checks, an
//! ES256 key. The gateway is the real binary, found beside this one, and takes further settings
//! from the environment. Ctrl-C reaches both: the gateway stops, and this program after it.

#![allow(
    clippy::disallowed_methods,
    clippy::exit,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::significant_drop_tightening,
    clippy::unwrap_used,
    reason = "a program to look at, started by hand: it may talk, and fail loudly"
)]

use std::env;
use std::io::{BufRead as _, BufReader};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use testing::fake_api::{DISCOVERY, FakeApi, ISSUER, JWKS, Request};
use testing::gateway::{self, Gateway};

/// What `make run` sets unless the user did: local, quick to refresh, quick to end.
const DEFAULTS: [(&str, &str); 5] = [
    ("LISTEN_ADDR", "127.0.0.1"),
    ("LISTEN_PORT", "8080"),
    ("ADMIN_PORT", "8081"),
    ("CACHE_TTL_SECONDS", "10"),
    ("SHUTDOWN_DELAY_SECONDS", "0"),
];

/// What it sets itself, and older names of these, which would contradict them.
const OURS: [&str; 5] =
    ["UPSTREAM_HOST", "SA_TOKEN_PATH", "SA_CA_CERT_PATH", "TOKEN_PATH", "CA_CERT_PATH"];

fn main() {
    let api = Arc::new(FakeApi::start());
    let token = token(&api);
    api.accept_tokens(&[&token]);
    api.volume.write(&token, &api.ca_pem());

    let mut gateway = start_gateway(&api);
    end_with(&gateway);
    let stderr = BufReader::new(gateway.stderr.take().expect("stderr is piped"));
    for line in stderr.lines().map_while(Result::ok) {
        eprintln!("{line}");
        if let Some((public, admin)) = addresses(&line) {
            print_what_to_try(&public, &admin, &token);
            let api = Arc::clone(&api);
            thread::spawn(move || report_refreshes(&api));
        }
    }
    let code = exit_code(gateway.wait().expect("wait for the gateway"));
    // By hand, since `exit` drops nothing.
    api.volume.remove();
    process::exit(code);
}

/// A token as the kubelet would mount it, and as a relying party would be shown it.
fn token(api: &FakeApi) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    api.sign(&json!({
        "iss": ISSUER,
        "sub": "system:serviceaccount:default:demo",
        "aud": [ISSUER],
        "iat": now,
        "nbf": now,
        "exp": now + 24 * 60 * 60,
        "kubernetes.io": { "namespace": "default", "serviceaccount": { "name": "demo" } },
    }))
}

/// With the user's settings, except for those that point to `api`.
fn start_gateway(api: &FakeApi) -> Child {
    let mut builder = Gateway::builder(api);
    for (name, value) in DEFAULTS {
        builder = builder.set(name, value);
    }
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    for (name, value) in env::vars_os() {
        let is_default = DEFAULTS.iter().any(|(default, _)| name == *default);
        let is_ours = OURS.iter().any(|ours| name == *ours);
        if !is_ours && (!is_default || !value.is_empty()) {
            builder = builder.set(name, value);
        }
    }
    if env::var_os("CACHE_TTL_MINUTES").is_some() && !is_set("CACHE_TTL_SECONDS") {
        builder = builder.unset("CACHE_TTL_SECONDS");
    }
    let builder = builder.set("RUST_LOG", filter(env::var("RUST_LOG").unwrap_or_default()));
    builder.command().stderr(Stdio::piped()).spawn().unwrap_or_else(|error| {
        let binary = gateway::binary();
        eprintln!("stand-in: cannot start {}: {error} (`cargo build` first)", binary.display());
        api.volume.remove();
        process::exit(1)
    })
}

/// The user's filter, and whatever that is, the line with the addresses.
fn filter(given: String) -> String {
    const NEEDED: &str = "kube_issuer_gateway::lifecycle=info";
    match given.split_once('/') {
        _ if given.trim().is_empty() => given,
        Some((directives, regex)) => format!("{directives},{NEEDED}/{regex}"),
        None => format!("{given},{NEEDED}"),
    }
}

/// Takes SIGINT and SIGTERM, so that this program outlives the gateway and can wait for it. The
/// terminal's Ctrl-C has reached the gateway already, any other SIGTERM is passed on to it.
fn end_with(gateway: &Child) {
    let pid = gateway.id().to_string();
    let mut signals = Signals::new([SIGINT, SIGTERM]).expect("take signals");
    thread::spawn(move || {
        for signal in signals.forever() {
            if signal == SIGTERM {
                // Fails only when the gateway has ended, which is what was wanted.
                let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
            }
        }
    });
}

/// The two addresses in the line `listening public=… admin=…`, whichever format the log has.
fn addresses(line: &str) -> Option<(String, String)> {
    if let Ok(line) = serde_json::from_str::<Value>(line) {
        let address = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
        return Some((address("public")?, address("admin")?));
    }
    let (_, rest) = line.split_once(" listening public=")?;
    let (public, admin) = rest.split_once(" admin=")?;
    Some((public.to_owned(), admin.to_owned()))
}

fn print_what_to_try(public: &str, admin: &str, token: &str) {
    // A wildcard address is for listening only.
    let [public, admin] =
        [public, admin].map(|a| a.replace("[::]", "localhost").replace("0.0.0.0", "127.0.0.1"));
    println!(
        "\nTry, in another terminal:\n\n  \
         curl http://{public}{DISCOVERY}\n  \
         curl http://{public}{JWKS}\n  \
         curl -I http://{public}{JWKS}\n  \
         etag=$(curl -sI http://{public}{JWKS} | sed -n 's/^[Ee][Tt]ag: //p' | tr -d '\\r')\n  \
         curl -i -H \"If-None-Match: $etag\" http://{public}{JWKS}\n  \
         curl -i http://{public}/readyz\n  \
         curl -i http://{public}/healthz"
    );
    if admin != "off" {
        println!("  curl -i http://{admin}/livez");
    }
    println!("\nA service account token that this key set verifies:\n\n  {token}\n");
}

/// Says when both documents have been fetched again.
fn report_refreshes(api: &FakeApi) {
    let day = Duration::from_secs(24 * 60 * 60);
    let mut n = 1;
    loop {
        while !api.wait_until(day, |requests| rounds(requests) >= n) {}
        match n {
            1 => println!("stand-in: the gateway fetched both documents"),
            _ => println!("stand-in: the gateway refreshed both documents ({} time)", ordinal(n)),
        }
        n += 1;
    }
}

fn rounds(requests: &[Request]) -> usize {
    let count = |path: &str| requests.iter().filter(|request| request.path == path).count();
    count(DISCOVERY).min(count(JWKS))
}

fn ordinal(n: usize) -> String {
    let suffix = match (n % 10, n % 100) {
        (1, tens) if tens != 11 => "st",
        (2, tens) if tens != 12 => "nd",
        (3, tens) if tens != 13 => "rd",
        _ => "th",
    };
    format!("{n}{suffix}")
}

/// A child that a signal ended has no code of its own: 1.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or(1)
}
