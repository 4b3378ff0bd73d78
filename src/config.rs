//! The environment, parsed once into values; nothing else in the program reads it.
//!
//! Every setting is a row of [`SETTINGS`], which holds its default in the words that a user would
//! write: the default goes through the same parser as the user's value, and `--help` prints the
//! same rows. All mistakes are found before any is told. A file that a setting names is opened
//! here, to learn at start that it can be read; its contents belong to `upstream.rs`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::Uri;
use serde_json::{Map, Value};

use crate::documents::JwksUri;
use crate::json;
use crate::url::HttpsUrl;

/// What a user can set.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// The older programs' name for the same thing.
    pub(crate) old_name: Option<&'static str>,
    /// What holds when the setting is absent or empty, as a user would write it.
    pub(crate) default: &'static str,
    /// What is right, to complete the sentence "it must be …".
    pub(crate) must_be: &'static str,
    /// One line for `--help`.
    pub(crate) meaning: &'static str,
}

/// The range of a duration, in seconds.
struct Range {
    least: f64,
    most: f64,
}

const fn setting(
    name: &'static str,
    default: &'static str,
    must_be: &'static str,
    meaning: &'static str,
) -> Setting {
    Setting { name, old_name: None, default, must_be, meaning }
}

impl Setting {
    const fn once_called(mut self, old_name: &'static str) -> Self {
        self.old_name = Some(old_name);
        self
    }
}

const LISTEN_ADDR: Setting = setting(
    "LISTEN_ADDR",
    "",
    "an IP address, such as 0.0.0.0, :: or 127.0.0.1",
    "public listener's address; unset: all, by IPv6 and IPv4",
);
const LISTEN_PORT: Setting = setting(
    "LISTEN_PORT",
    "8080",
    "a port from 0 to 65535 (0 takes a free one)",
    "public listener's port",
);
const ADMIN_ADDR: Setting = setting(
    "ADMIN_ADDR",
    "",
    "an IP address, such as 0.0.0.0, :: or 127.0.0.1",
    "admin listener's address; unset: LISTEN_ADDR's",
);
const ADMIN_PORT: Setting = setting(
    "ADMIN_PORT",
    "8081",
    "a port from 0 to 65535, or off",
    "admin listener's port, or off for none",
);
const UPSTREAM_HOST: Setting = setting(
    "UPSTREAM_HOST",
    "https://kubernetes.default.svc",
    "an https URL without query, such as https://kubernetes.default.svc (http only for loopback)",
    "base URL of the API server; a path is allowed",
);
const UPSTREAM_TIMEOUT_SECONDS: Setting = setting(
    "UPSTREAM_TIMEOUT_SECONDS",
    "5",
    "a number of seconds from 0.05 to 60",
    "bound of one upstream exchange, all in all",
);
const CACHE_TTL_SECONDS: Setting = setting(
    "CACHE_TTL_SECONDS",
    "60",
    "a number of seconds from 0.1 to 86400",
    "how old a copy may be before it counts as stale",
);
const CACHE_TTL_MINUTES: Setting = setting(
    "CACHE_TTL_MINUTES",
    "",
    "a number of minutes, such as 2, that gives from 0.1 to 86400 seconds",
    "k8s-jwks-proxy's name for CACHE_TTL_SECONDS",
);
const MAX_STALE_SECONDS: Setting = setting(
    "MAX_STALE_SECONDS",
    "86400",
    "a number of seconds from CACHE_TTL_SECONDS to 31536000",
    "how long after its last confirmation a copy is served while upstream fails",
);
const CLIENT_CACHE_TTL_SECONDS: Setting = setting(
    "CLIENT_CACHE_TTL_SECONDS",
    "3600",
    "a number of seconds from 0 to 86400",
    "max-age at most: how long a relying party may keep a copy",
);
const PRETTY_PRINT_JSON: Setting =
    setting("PRETTY_PRINT_JSON", "true", "true, false, 1 or 0", "indent the documents");
const SA_TOKEN_PATH: Setting = setting(
    "SA_TOKEN_PATH",
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "a file that can be read",
    "the gateway's own token",
)
.once_called("TOKEN_PATH");
const SA_CA_CERT_PATH: Setting = setting(
    "SA_CA_CERT_PATH",
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    "a file that can be read",
    "the CA of the API server's certificate",
)
.once_called("CA_CERT_PATH");
const JWKS_URI: Setting = setting(
    "JWKS_URI",
    "auto",
    "auto, upstream or an https URL",
    "which jwks_uri is published: a reachable one, upstream's, or this one",
);
const DISCOVERY_DEFAULTS: Setting = setting(
    "DISCOVERY_DEFAULTS",
    "{}",
    "a JSON object that holds neither issuer nor jwks_uri",
    "members added to the discovery document where upstream has none",
);
const WORKERS: Setting =
    setting("WORKERS", "4", "a whole number from 2 to 64", "threads that answer requests");
const MAX_CONNECTIONS: Setting = setting(
    "MAX_CONNECTIONS",
    "3000",
    "a whole number from 16 to 65536",
    "public connections at a time, a descriptor each; lowered to the hard limit less 64",
);
const SHUTDOWN_DELAY_SECONDS: Setting = setting(
    "SHUTDOWN_DELAY_SECONDS",
    "5",
    "a number of seconds from 0 to 300",
    "after SIGTERM: how long to go on serving while /readyz says 503",
);
const SHUTDOWN_TIMEOUT_SECONDS: Setting = setting(
    "SHUTDOWN_TIMEOUT_SECONDS",
    "20",
    "a number of seconds from 0 to 300",
    "then: how long what is under way may take",
);
const LOG_FORMAT: Setting =
    setting("LOG_FORMAT", "text", "text or json", "json for one JSON object a line");
const LOG_LINES_PER_SECOND: Setting = setting(
    "LOG_LINES_PER_SECOND",
    "100",
    "a whole number from 1 to 1000000",
    "lines of one kind that clients can cause in a second; how many were left out is logged",
);
const RUST_LOG: Setting = setting(
    "RUST_LOG",
    "info",
    "off, error, warn, info, debug or trace (or env_logger's directives)",
    "what is logged; debug shows probes and each refresh",
);

/// All settings in the order of `--help` and the README.
pub(crate) const SETTINGS: [Setting; 22] = [
    LISTEN_ADDR,
    LISTEN_PORT,
    ADMIN_ADDR,
    ADMIN_PORT,
    UPSTREAM_HOST,
    UPSTREAM_TIMEOUT_SECONDS,
    CACHE_TTL_SECONDS,
    CACHE_TTL_MINUTES,
    MAX_STALE_SECONDS,
    CLIENT_CACHE_TTL_SECONDS,
    PRETTY_PRINT_JSON,
    SA_TOKEN_PATH,
    SA_CA_CERT_PATH,
    JWKS_URI,
    DISCOVERY_DEFAULTS,
    WORKERS,
    MAX_CONNECTIONS,
    SHUTDOWN_DELAY_SECONDS,
    SHUTDOWN_TIMEOUT_SECONDS,
    LOG_FORMAT,
    LOG_LINES_PER_SECOND,
    RUST_LOG,
];

/// Where to listen.
#[derive(Clone, Copy)]
pub(crate) struct Listen {
    /// `None`: all addresses of this machine.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
}

/// What is to be known of the API server.
pub(crate) struct UpstreamConfig {
    /// Scheme, authority and path, without a slash at its end.
    pub(crate) base: String,
    /// For one exchange, its second try included.
    pub(crate) timeout: Duration,
    pub(crate) token_path: PathBuf,
    pub(crate) ca_path: PathBuf,
}

/// How long copies live.
#[derive(Clone, Copy)]
pub(crate) struct Lifetimes {
    pub(crate) cache_ttl: Duration,
    /// At least `cache_ttl`.
    pub(crate) max_stale: Duration,
    pub(crate) client_cache_ttl: Duration,
}

/// How a document is made from what upstream sent.
pub(crate) struct Publication {
    pub(crate) jwks_uri: JwksUri,
    /// Holds neither `issuer` nor `jwks_uri`.
    pub(crate) discovery_defaults: Map<String, Value>,
    pub(crate) pretty: bool,
}

#[derive(Debug)]
pub(crate) struct LogConfig {
    pub(crate) json: bool,
    pub(crate) lines_per_second: u64,
    /// Directives of `env_logger`, known to be good.
    pub(crate) filter: String,
}

/// The connection limit of the public listener.
pub(crate) struct MaxConnections {
    /// 16 to 65536. By default what a cgroup of 64 MiB carries, the kernel's memory included, when
    /// every client does its worst: `make attack`.
    pub(crate) most: usize,
    /// The operator asked for so many.
    pub(crate) is_given: bool,
}

pub(crate) struct Config {
    pub(crate) public: Listen,
    pub(crate) admin: Option<Listen>,
    pub(crate) upstream: UpstreamConfig,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) publication: Publication,
    /// 2 to 64: one may always be kept from waiting for upstream.
    pub(crate) workers: usize,
    pub(crate) max_connections: MaxConnections,
    pub(crate) shutdown_delay: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) log: LogConfig,
}

/// What is wrong with the environment.
#[derive(Debug)]
pub(crate) struct Mistakes {
    /// One for each setting that cannot be used.
    pub(crate) sentences: Vec<String>,
    /// How to log them: as was asked for, where that is not among the mistakes.
    pub(crate) log: LogConfig,
}

impl Config {
    /// Parses the process's environment.
    pub(crate) fn from_environment() -> Result<Self, Mistakes> {
        Self::parse(std::env::vars_os())
    }

    /// Parses `variables`; those that are no setting of this program are ignored.
    pub(crate) fn parse(
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Mistakes> {
        let mut source = Source::new(variables);
        let public = Listen {
            address: source.address(&LISTEN_ADDR),
            port: source.parsed(&LISTEN_PORT, |text| text.parse().ok()).unwrap_or_default(),
        };
        let admin = source.admin(public);
        let upstream = source.upstream();
        let lifetimes = source.lifetimes();
        let publication = Publication {
            jwks_uri: source.parsed(&JWKS_URI, jwks_uri).unwrap_or(JwksUri::Auto),
            discovery_defaults: source
                .parsed(&DISCOVERY_DEFAULTS, discovery_defaults)
                .unwrap_or_default(),
            pretty: source.parsed(&PRETTY_PRINT_JSON, boolean).unwrap_or_default(),
        };
        let workers = source.parsed(&WORKERS, |text| whole(text, 2, 64)).unwrap_or_default();
        let max_connections = MaxConnections {
            most: source
                .parsed(&MAX_CONNECTIONS, |text| whole(text, 16, 65_536))
                .unwrap_or_default(),
            is_given: source.variables.contains_key(MAX_CONNECTIONS.name),
        };
        let shutdown_range = || Range { least: 0.0, most: 300.0 };
        let shutdown_delay = source.seconds(&SHUTDOWN_DELAY_SECONDS, &shutdown_range());
        let shutdown_timeout = source.seconds(&SHUTDOWN_TIMEOUT_SECONDS, &shutdown_range());
        let log = LogConfig {
            json: source.parsed(&LOG_FORMAT, log_format).unwrap_or_default(),
            lines_per_second: source
                .parsed(&LOG_LINES_PER_SECOND, |text| whole(text, 1, 1_000_000))
                .unwrap_or_default(),
            filter: source
                .parsed(&RUST_LOG, log_filter)
                .unwrap_or_else(|| RUST_LOG.default.to_owned()),
        };
        if !source.mistakes.is_empty() {
            return Err(Mistakes { sentences: source.mistakes, log });
        }
        Ok(Self {
            public,
            admin,
            upstream,
            lifetimes,
            publication,
            workers,
            max_connections,
            shutdown_delay,
            shutdown_timeout,
            log,
        })
    }
}

/// The variables and the mistakes found in them so far.
struct Source {
    variables: BTreeMap<String, String>,
    mistakes: Vec<String>,
}

impl Source {
    fn new(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut source = Self { variables: BTreeMap::new(), mistakes: Vec::new() };
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            if !SETTINGS.iter().any(|known| known.name == name || known.old_name == Some(&name)) {
                continue;
            }
            match value.into_string() {
                // Kubernetes manifests set a variable to nothing to mean "not set".
                Ok(value) if value.trim().is_empty() => {}
                Ok(value) => drop(source.variables.insert(name, value.trim().to_owned())),
                Err(value) => {
                    source.mistakes.push(format!("{name} is {value:?}, which is no UTF-8 text"));
                }
            }
        }
        source
    }

    fn mistake(&mut self, name: &str, value: &str, must_be: &str) {
        self.mistakes.push(format!("{name} is {value:?}: it must be {must_be}"));
    }

    /// The name under which `setting` was given, or its own, and the value or the default.
    fn text(&mut self, setting: &Setting) -> (&'static str, String) {
        let own = self.variables.get(setting.name);
        let old = setting.old_name.and_then(|name| Some((name, self.variables.get(name)?)));
        match (own, old) {
            (Some(own), Some((old_name, old))) if own != old => {
                let mistake = format!(
                    "{} is {own:?} and {old_name}, its older name, is {old:?}: give one of them",
                    setting.name
                );
                let own = own.clone();
                self.mistakes.push(mistake);
                (setting.name, own)
            }
            (Some(own), _) => (setting.name, own.clone()),
            (None, Some((old_name, old))) => (old_name, old.clone()),
            (None, None) => (setting.name, setting.default.to_owned()),
        }
    }

    /// `None`, with the mistake noted, when `parse` does not take the value.
    fn parsed<T>(&mut self, setting: &Setting, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let (name, text) = self.text(setting);
        let value = parse(&text);
        if value.is_none() {
            self.mistake(name, &text, setting.must_be);
        }
        value
    }

    fn seconds(&mut self, setting: &Setting, range: &Range) -> Duration {
        self.parsed(setting, |text| seconds(text, range)).unwrap_or_default()
    }

    /// `None` when it is not given, or wrong.
    fn address(&mut self, setting: &Setting) -> Option<IpAddr> {
        self.variables.get(setting.name)?;
        self.parsed(setting, |text| {
            text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text).parse().ok()
        })
    }

    fn admin(&mut self, public: Listen) -> Option<Listen> {
        let address = self.address(&ADMIN_ADDR).or(public.address);
        let (_, text) = self.text(&ADMIN_PORT);
        if text == "off" {
            return None;
        }
        let Ok(port) = text.parse() else {
            let cause = if text.starts_with("tcp://") {
                " (Kubernetes sets it so for a Service named admin: \
                 set enableServiceLinks: false in the pod)"
            } else {
                ""
            };
            self.mistake(ADMIN_PORT.name, &text, &format!("{}{cause}", ADMIN_PORT.must_be));
            return None;
        };
        if port != 0 && port == public.port && address == public.address {
            self.mistakes.push(format!(
                "LISTEN_PORT and ADMIN_PORT are both {port}: they must differ, or ADMIN_PORT be off"
            ));
        }
        Some(Listen { address, port })
    }

    fn upstream(&mut self) -> UpstreamConfig {
        UpstreamConfig {
            base: self.parsed(&UPSTREAM_HOST, upstream_base).unwrap_or_default(),
            timeout: self.seconds(&UPSTREAM_TIMEOUT_SECONDS, &Range { least: 0.05, most: 60.0 }),
            token_path: self.file(&SA_TOKEN_PATH),
            ca_path: self.file(&SA_CA_CERT_PATH),
        }
    }

    fn file(&mut self, setting: &Setting) -> PathBuf {
        let (name, path) = self.text(setting);
        let readable =
            File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()));
        if let Err(error) = readable {
            self.mistakes
                .push(format!("{name} is {path:?}: it must be {}: {error}", setting.must_be));
        }
        PathBuf::from(path)
    }

    fn lifetimes(&mut self) -> Lifetimes {
        let cache_ttl = self.cache_ttl();
        let max_stale = self.parsed(&MAX_STALE_SECONDS, |text| {
            seconds(text, &Range { least: 0.0, most: 31_536_000.0 })
                .filter(|max_stale| *max_stale >= cache_ttl)
        });
        Lifetimes {
            cache_ttl,
            max_stale: max_stale.unwrap_or_default(),
            client_cache_ttl: self
                .seconds(&CLIENT_CACHE_TTL_SECONDS, &Range { least: 0.0, most: 86_400.0 }),
        }
    }

    fn cache_ttl(&mut self) -> Duration {
        let range = Range { least: 0.1, most: 86_400.0 };
        let given_in_seconds = self.variables.contains_key(CACHE_TTL_SECONDS.name);
        let in_minutes = self.variables.contains_key(CACHE_TTL_MINUTES.name).then(|| {
            self.parsed(&CACHE_TTL_MINUTES, |text| {
                let minutes: f64 = text.parse().ok()?;
                seconds(&(minutes * 60.0).to_string(), &range)
            })
        });
        let in_seconds = self.seconds(&CACHE_TTL_SECONDS, &range);
        match in_minutes.flatten() {
            Some(in_minutes) if given_in_seconds && in_minutes != in_seconds => {
                self.mistakes.push(format!(
                    "CACHE_TTL_SECONDS is {in_seconds:?} and CACHE_TTL_MINUTES, its older name, is \
                     {in_minutes:?}: give one of them"
                ));
                in_seconds
            }
            Some(in_minutes) => in_minutes,
            None => in_seconds,
        }
    }
}

fn seconds(text: &str, range: &Range) -> Option<Duration> {
    // `f64` would also take `inf`, `nan` and `1e3`.
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds: f64 = text.parse().ok().filter(|_| decimal)?;
    (range.least..=range.most).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn whole<T: FromStr + PartialOrd>(text: &str, least: T, most: T) -> Option<T> {
    text.parse().ok().filter(|number| (least..=most).contains(number))
}

fn log_format(text: &str) -> Option<bool> {
    match text {
        "json" => Some(true),
        "text" => Some(false),
        _ => None,
    }
}

fn log_filter(text: &str) -> Option<String> {
    env_filter::Builder::new().try_parse(text).ok().map(|_| text.to_owned())
}

fn jwks_uri(text: &str) -> Option<JwksUri> {
    match text {
        "auto" => Some(JwksUri::Auto),
        "upstream" => Some(JwksUri::Upstream),
        url => HttpsUrl::parse(url).map(|_| JwksUri::Fixed(url.to_owned())),
    }
}

fn discovery_defaults(text: &str) -> Option<Map<String, Value>> {
    match json::parse(text.as_bytes()) {
        Ok(Value::Object(members))
            if !members.contains_key("issuer") && !members.contains_key("jwks_uri") =>
        {
            Some(members)
        }
        _ => None,
    }
}

fn upstream_base(text: &str) -> Option<String> {
    let uri: Uri = text.parse().ok().filter(|_| !text.contains(['?', '#']))?;
    match uri.scheme_str()? {
        "https" => HttpsUrl::parse(text)?,
        "http" if is_loopback(uri.host()?) => HttpsUrl::parse(&text.replacen("http", "https", 1))?,
        _ => return None,
    };
    Some(text.trim_end_matches('/').to_owned())
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        let files = [("SA_TOKEN_PATH", "Cargo.toml"), ("SA_CA_CERT_PATH", "Cargo.toml")];
        let all = files.iter().chain(variables).map(|(name, value)| (name.into(), value.into()));
        Config::parse(all).map_err(|mistakes| mistakes.sentences)
    }

    #[test]
    fn nothing_set_or_set_to_nothing_gives_the_defaults() {
        for variables in [&[][..], &[("LISTEN_PORT", ""), ("JWKS_URI", " "), ("WORKERS", "")]] {
            let config = parse(variables).unwrap();
            assert_eq!(config.public.port, 8080);
            assert_eq!(config.public.address, None);
            assert_eq!(config.admin.unwrap().port, 8081);
            assert_eq!(config.upstream.base, "https://kubernetes.default.svc");
            assert_eq!(config.upstream.timeout, Duration::from_secs(5));
            assert_eq!(config.lifetimes.cache_ttl, Duration::from_secs(60));
            assert_eq!(config.lifetimes.max_stale, Duration::from_secs(86_400));
            assert_eq!(config.workers, 4);
            assert!(config.publication.pretty);
        }
    }

    #[test]
    fn each_bad_value_is_named_with_what_would_be_right() {
        for (name, value) in [
            ("LISTEN_ADDR", "localhost"),
            ("LISTEN_PORT", "65536"),
            ("LISTEN_PORT", "http"),
            ("ADMIN_ADDR", "1.2.3"),
            ("ADMIN_PORT", "-1"),
            ("ADMIN_PORT", "8080"),
            ("UPSTREAM_HOST", "kubernetes.default.svc"),
            ("UPSTREAM_HOST", "http://kubernetes.default.svc"),
            ("UPSTREAM_HOST", "https://user:pw@kubernetes.default.svc"),
            ("UPSTREAM_HOST", "https://a/?b"),
            ("UPSTREAM_HOST", "ftp://127.0.0.1"),
            ("UPSTREAM_HOST", "https://a:99999"),
            ("UPSTREAM_HOST", "https://:6443"),
            ("UPSTREAM_HOST", "http://127.0.0.1:99999"),
            ("UPSTREAM_TIMEOUT_SECONDS", "0.04"),
            ("UPSTREAM_TIMEOUT_SECONDS", "61"),
            ("CACHE_TTL_SECONDS", "0"),
            ("CACHE_TTL_SECONDS", "nan"),
            ("CACHE_TTL_SECONDS", "1e3"),
            ("CACHE_TTL_SECONDS", "60s"),
            ("CACHE_TTL_MINUTES", "0"),
            ("CACHE_TTL_MINUTES", "x"),
            ("MAX_STALE_SECONDS", "59"),
            ("MAX_STALE_SECONDS", "inf"),
            ("CLIENT_CACHE_TTL_SECONDS", "-1"),
            ("CLIENT_CACHE_TTL_SECONDS", "86401"),
            ("PRETTY_PRINT_JSON", "yes"),
            ("TOKEN_PATH", "/nowhere"),
            ("CA_CERT_PATH", "/nowhere"),
            ("JWKS_URI", "http://issuer.example/keys"),
            ("JWKS_URI", "Auto"),
            ("DISCOVERY_DEFAULTS", "[]"),
            ("DISCOVERY_DEFAULTS", "{"),
            ("DISCOVERY_DEFAULTS", r#"{"issuer":"https://a"}"#),
            ("DISCOVERY_DEFAULTS", r#"{"a":1,"a":2}"#),
            ("WORKERS", "1"),
            ("WORKERS", "65"),
            ("MAX_CONNECTIONS", "15"),
            ("MAX_CONNECTIONS", "many"),
            ("LOG_LINES_PER_SECOND", "0"),
            ("SHUTDOWN_DELAY_SECONDS", "301"),
            ("SHUTDOWN_TIMEOUT_SECONDS", "-0"),
            ("LOG_FORMAT", "JSON"),
            ("RUST_LOG", "loud=very"),
        ] {
            let mistakes = parse(&[(name, value)]).err().unwrap_or_default();
            assert_eq!(mistakes.len(), 1, "{name}={value}: {mistakes:?}");
            assert!(mistakes.iter().all(|mistake| mistake.contains(name)), "{mistakes:?}");
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let mistakes = parse(&[("WORKERS", "0"), ("LISTEN_PORT", "x"), ("LOG_FORMAT", "y")]);
        assert_eq!(mistakes.err().unwrap().len(), 3);
    }

    #[test]
    fn good_values_are_taken() {
        for (name, value) in [
            ("LISTEN_ADDR", "::1"),
            ("LISTEN_ADDR", "[::]"),
            ("ADMIN_PORT", "off"),
            ("UPSTREAM_HOST", "http://127.0.0.1:8001/proxy/"),
            ("UPSTREAM_HOST", "http://[::1]:8001"),
            ("UPSTREAM_HOST", "https://api.example:6443/k8s/clusters/c-1"),
            ("CACHE_TTL_SECONDS", "0.2"),
            ("CACHE_TTL_MINUTES", "2"),
            ("PRETTY_PRINT_JSON", "0"),
            ("JWKS_URI", "https://issuer.example/keys"),
            ("DISCOVERY_DEFAULTS", r#"{"claims_supported":["sub"]}"#),
            ("RUST_LOG", "debug,ureq=trace"),
        ] {
            assert!(parse(&[(name, value)]).is_ok(), "{name}={value}");
        }
    }

    #[test]
    fn the_older_programs_names_mean_the_same() {
        let config = parse(&[("CACHE_TTL_MINUTES", "0.5")]).unwrap();
        assert_eq!(config.lifetimes.cache_ttl, Duration::from_secs(30));
        let same = parse(&[("CACHE_TTL_MINUTES", "1"), ("CACHE_TTL_SECONDS", "60")]);
        assert!(same.is_ok());
        let differing = parse(&[("CACHE_TTL_MINUTES", "1"), ("CACHE_TTL_SECONDS", "61")]);
        assert!(differing.err().unwrap().concat().contains("CACHE_TTL_MINUTES"));
        let differing = parse(&[("TOKEN_PATH", "Cargo.lock")]);
        assert!(differing.err().unwrap().concat().contains("give one of them"));
    }

    #[test]
    fn a_service_named_admin_is_recognised() {
        let mistakes = parse(&[("ADMIN_PORT", "tcp://10.0.0.1:80")]).err().unwrap();
        assert!(mistakes.concat().contains("enableServiceLinks"), "{mistakes:?}");
    }
}
