//! Settings: an environment is taken as a whole, or each mistake in it is told by its name.
//!
//! The input is an environment as the kernel shows one: `NAME=VALUE`, each ended by a NUL. Of a
//! file's path only `@` leads to a file, so that a run reads nothing else of the machine.

#![no_main]

#[path = "../../src/config/mod.rs"]
#[allow(dead_code)]
mod config;
#[path = "../../src/documents/mod.rs"]
#[allow(dead_code)]
mod documents;
#[path = "../../src/json.rs"]
#[allow(dead_code)]
mod json;
#[path = "../../src/logging/mod.rs"]
#[allow(dead_code)]
mod logging;
#[path = "../../src/url.rs"]
#[allow(dead_code)]
mod url;

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;

use crate::config::{Config, Lookalike, Mistakes, SETTINGS};
use crate::documents::{DISCOVERY_PATH, JwksUri};
use crate::url::HttpsUrl;

const READABLE: &str = "/dev/null";
const FILES: [&str; 4] = ["SA_TOKEN_PATH", "TOKEN_PATH", "SA_CA_CERT_PATH", "CA_CERT_PATH"];

fuzz_target!(|data: &[u8]| {
    let mut given: Vec<_> = data.split(|byte| *byte == 0).filter_map(variable).collect();
    // A name stands once, as a shell or a kubelet sees to.
    given.sort();
    given.dedup_by(|one, other| one.0 == other.0);
    let outcome = Config::parse(given.iter().cloned());
    match &outcome {
        Ok(config) => valid(config),
        Err(mistakes) => told(mistakes, &given),
    }
    // Other variables change no value, whether they look like a setting or not.
    let others = [("PATH", "/"), ("WORKERS_", "0"), ("workers", "0")];
    let others = others.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let with_others = Config::parse(given.into_iter().chain(others));
    assert_eq!(summary(&with_others), summary(&outcome));
});

fn variable(text: &[u8]) -> Option<(OsString, OsString)> {
    let at = text.iter().position(|byte| *byte == b'=')?;
    let (name, value) = (&text[..at], &text[at + 1..]);
    let is_file = FILES.iter().any(|file| file.as_bytes() == name);
    let value = match value {
        b"@" if is_file => READABLE.into(),
        value if is_file && !value.trim_ascii().is_empty() => [b"no-such-folder/", value].concat(),
        value => value.to_vec(),
    };
    Some((OsString::from_vec(name.to_vec()), OsString::from_vec(value)))
}

/// Each mistake is one printable line that begins with the name of a setting that is to blame.
fn told(mistakes: &Mistakes, given: &[(OsString, OsString)]) {
    let Mistakes { sentences, log, lookalikes } = mistakes;
    assert!(!sentences.is_empty());
    look_alike(lookalikes);
    for (at, sentence) in sentences.iter().enumerate() {
        assert!(!sentence.chars().any(char::is_control), "{sentence:?}");
        assert!(!sentences[..at].contains(sentence), "{sentence:?}");
        let name = sentence.split(' ').next().unwrap_or_default();
        let setting =
            SETTINGS.iter().find(|known| [Some(known.name), known.old_name].contains(&Some(name)));
        let setting = setting.unwrap_or_else(|| panic!("{sentence:?}"));
        // The defaults are right, but for files that are not there.
        let is_given = |name: &str| given.iter().any(|given| given.0 == OsStr::new(name));
        let relative = match name {
            "LISTEN_PORT" => is_given("ADMIN_PORT"),
            "ADMIN_PORT" => is_given("LISTEN_PORT"),
            "MAX_STALE_SECONDS" => is_given("CACHE_TTL_SECONDS") || is_given("CACHE_TTL_MINUTES"),
            name => FILES.contains(&name),
        };
        let own = is_given(setting.name) || setting.old_name.is_some_and(is_given);
        assert!(own || relative, "{sentence:?}");
    }
    if sentences.iter().all(|sentence| !sentence.starts_with("LOG_")) {
        logs(log);
    }
}

fn logs(log: &logging::Settings) {
    within(log.lines_per_second, 1..=1_000_000);
    // `logging` gives it to a builder that would panic.
    env_filter::Builder::new().try_parse(&log.filter).expect("a filter").build();
}

fn valid(config: &Config) {
    if let Some(admin_port) = config.admin_port {
        let same = (config.admin_addr, admin_port) == (config.listen_addr, config.listen_port);
        assert!(!same || admin_port == 0);
    }

    let base = config.upstream_host.as_str();
    assert!(!base.ends_with('/') && !base.contains(['?', '#']), "{base:?}");
    assert!(!base.chars().any(|c| c.is_whitespace() || c.is_control()), "{base:?}");
    let (scheme, rest) = base.split_once("://").expect("a scheme");
    let authority = rest.split('/').next().unwrap_or_default();
    let (host, port) = match authority.rfind(':').filter(|at| !authority[*at..].contains(']')) {
        Some(colon) => (&authority[..colon], &authority[colon + 1..]),
        None => (authority, ""),
    };
    assert!(!host.is_empty() && !authority.contains('@'), "{base:?}");
    assert!(port.is_empty() || port.parse::<u16>().is_ok(), "{base:?}");
    if !scheme.eq_ignore_ascii_case("https") {
        assert!(scheme.eq_ignore_ascii_case("http"), "{base:?}");
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_loopback = bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        assert!(host == "localhost" || is_loopback, "{base:?}");
    }
    assert!(format!("{base}{DISCOVERY_PATH}").parse::<http::Uri>().is_ok(), "{base:?}");
    within(config.upstream_timeout, seconds(0.05)..=seconds(60.0));
    assert_eq!((config.token_path.as_os_str(), config.ca_path.as_os_str()), {
        (OsStr::new(READABLE), OsStr::new(READABLE))
    });

    within(config.cache_ttl, seconds(0.1)..=seconds(86_400.0));
    within(config.max_stale, config.cache_ttl..=seconds(31_536_000.0));
    within(config.client_cache_ttl, Duration::ZERO..=seconds(86_400.0));

    if let JwksUri::Fixed(uri) = &config.jwks_uri {
        assert!(HttpsUrl::parse(uri).is_some());
    }
    if let Some(issuer) = &config.issuer {
        assert!(HttpsUrl::parse(issuer).is_some() && !issuer.contains(['?', '#']));
    }
    look_alike(&config.lookalikes);
    for (name, value) in &config.discovery_defaults {
        assert!(!["issuer", "jwks_uri"].contains(&name.as_str()));
        let text = documents::serialise(value, config.layout);
        let text = text.unwrap_or_else(|refused| panic!("{refused}"));
        assert!(json::parse(&text).is_ok_and(|again| again == *value));
    }

    within(config.workers, 2..=64);
    within(config.max_connections.limit, 16..=65_536);
    within(config.shutdown_delay, Duration::ZERO..=seconds(300.0));
    within(config.shutdown_timeout, Duration::ZERO..=seconds(300.0));
    logs(&config.log);
}

/// Each is no setting, and has the name of one beside it.
fn look_alike(lookalikes: &[Lookalike]) {
    let names = SETTINGS.iter().flat_map(|it| [Some(it.name), it.old_name]).flatten();
    let names: Vec<_> = names.collect();
    for lookalike in lookalikes {
        assert!(names.contains(&lookalike.setting) && !names.contains(&&*lookalike.name));
    }
}

fn within<T: PartialOrd + std::fmt::Debug>(value: T, range: RangeInclusive<T>) {
    assert!(range.contains(&value), "{value:?} is not in {range:?}");
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// What can be compared of an outcome.
fn summary(outcome: &Result<Config, Mistakes>) -> String {
    match outcome {
        Ok(config) => format!(
            "{:?} {:?} {} {:?} {:?} {:?} {} {} {:?}",
            (config.listen_addr, config.listen_port),
            (config.admin_addr, config.admin_port),
            config.upstream_host,
            (config.cache_ttl, config.max_stale),
            (config.client_cache_ttl, config.shutdown_delay, config.shutdown_timeout),
            (&config.jwks_uri, &config.discovery_defaults),
            config.workers,
            config.max_connections.limit,
            config.log,
        ),
        Err(mistakes) => format!("{:?} {:?}", mistakes.sentences, mistakes.log),
    }
}
