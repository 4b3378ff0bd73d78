//! The environment, parsed once into values. No other module reads it.
//!
//! Every setting is a row of [`SETTINGS`], which holds its default as a user would write it: the
//! default goes through the same parser as the user's value, and `--help` prints the same rows. All
//! mistakes are found before any is logged. A file that a setting names is read here once, so that
//! an unreadable one is found at start. Its contents are for `upstream`, which reads it again.

mod names;
mod settings;
mod source;
mod values;

use std::ffi::OsString;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

pub(crate) use settings::SETTINGS;
use settings::{
    ADMIN_ADDR, ADMIN_PORT, CACHE_TTL_MINUTES, CACHE_TTL_SECONDS, CLIENT_CACHE_TTL_SECONDS,
    DISCOVERY_DEFAULTS, ISSUER, JWKS_URI, KEY_GRACE_SECONDS, LISTEN_ADDR, LISTEN_PORT, LOG_CLIENTS,
    LOG_FORMAT, LOG_LINES_PER_SECOND, MAX_CONNECTIONS, MAX_STALE_SECONDS, OWN_TOKEN_CHECK,
    PRETTY_PRINT_JSON, REVALIDATE_SECONDS, RUST_LOG, SA_CA_CERT_PATH, SA_TOKEN_PATH,
    SHARED_CACHE_TTL_SECONDS, SHUTDOWN_DELAY_SECONDS, SHUTDOWN_TIMEOUT_SECONDS, UPSTREAM_HOST,
    UPSTREAM_TIMEOUT_SECONDS, WORKERS,
};
pub(crate) use source::Lookalike;
use source::Source;
use values::Range;

use crate::documents::{JwksUri, Layout};
use crate::logging;

const CACHE_TTL_RANGE: Range = Range { min: 0.1, max: 86_400.0 };
const UP_TO_A_DAY: Range = Range { min: 0.0, max: 86_400.0 };

/// The values of all settings.
pub(crate) struct Config {
    /// `None`: all addresses of this machine.
    pub(crate) listen_addr: Option<IpAddr>,
    pub(crate) listen_port: u16,
    /// `None`: all addresses of this machine.
    pub(crate) admin_addr: Option<IpAddr>,
    /// `None`: no admin listener.
    pub(crate) admin_port: Option<u16>,
    /// Scheme, authority and path, without a slash at its end.
    pub(crate) upstream_host: String,
    /// Where the API server is in a cluster, when `UPSTREAM_HOST` is not given.
    pub(crate) upstream_address: Option<SocketAddr>,
    /// 0.05 s to 60 s.
    pub(crate) upstream_timeout: Duration,
    /// 0.1 s to a day.
    pub(crate) cache_ttl: Duration,
    /// From 0.1 s to less than `cache_ttl`. `None`: no request causes a round.
    pub(crate) revalidate: Option<Duration>,
    /// A day at most.
    pub(crate) key_grace: Duration,
    /// From `cache_ttl` to a year.
    pub(crate) max_stale: Duration,
    /// A day at most.
    pub(crate) client_cache_ttl: Duration,
    /// A day at most.
    pub(crate) shared_cache_ttl: Duration,
    pub(crate) layout: Layout,
    pub(crate) token_path: PathBuf,
    pub(crate) ca_path: PathBuf,
    /// Valid as an issuer; `None`: any is served without a complaint.
    pub(crate) issuer: Option<String>,
    pub(crate) own_token_check: bool,
    pub(crate) jwks_uri: JwksUri,
    /// Has neither `issuer` nor `jwks_uri`.
    pub(crate) discovery_defaults: Map<String, Value>,
    /// 2 to 64: at least 2, because all but one may wait for upstream at the same time. 16 by default, so
    /// that as many relying parties that look for a new key in the same moment get it.
    pub(crate) workers: usize,
    pub(crate) max_connections: MaxConnections,
    /// At most 300 s.
    pub(crate) shutdown_delay: Duration,
    /// At most 300 s.
    pub(crate) shutdown_timeout: Duration,
    pub(crate) log: logging::Settings,
    /// Names and values of the settings that are given and differ from their defaults; values may be cut.
    pub(crate) changed: Vec<(&'static str, String)>,
    /// Variables that are ignored, and were perhaps meant to be settings.
    pub(crate) lookalikes: Vec<Lookalike>,
}

/// The connection limit of the public listener.
pub(crate) struct MaxConnections {
    /// 16 to 65536. With the default, the program stays within a cgroup of 64 MiB, the kernel's
    /// memory included, even if every client is hostile: `make attack`.
    pub(crate) limit: usize,
    /// The operator asked for this number.
    pub(crate) is_given: bool,
}

/// What is wrong with the environment.
#[derive(Debug)]
pub(crate) struct Mistakes {
    /// One for each setting that cannot be used.
    pub(crate) sentences: Vec<String>,
    /// How to log them: as the environment says, where that is not one of the mistakes.
    pub(crate) log: logging::Settings,
    /// As in [`Config`].
    pub(crate) lookalikes: Vec<Lookalike>,
}

impl Config {
    /// Parses the process's environment.
    pub(crate) fn from_environment() -> Result<Self, Mistakes> {
        Self::parse(std::env::vars_os())
    }

    /// Parses `variables`, and ignores those that are not settings of this program.
    pub(crate) fn parse(
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Mistakes> {
        let mut source = Source::new(variables);
        let listen_addr = source.optional(&LISTEN_ADDR, values::address);
        let listen_port = source.parsed(&LISTEN_PORT, |text| text.parse().ok()).unwrap_or_default();
        let admin_addr = source.optional(&ADMIN_ADDR, values::address).or(listen_addr);
        let admin_port =
            admin_port(&mut source, (admin_addr == listen_addr).then_some(listen_port));
        let upstream_host =
            source.parsed(&UPSTREAM_HOST, values::upstream_base).unwrap_or_default();
        let upstream_timeout =
            source.seconds(&UPSTREAM_TIMEOUT_SECONDS, &Range { min: 0.05, max: 60.0 });
        let cache_ttl = cache_ttl(&mut source);
        let shutdown_range = Range { min: 0.0, max: 300.0 };
        let config = Self {
            listen_addr,
            listen_port,
            admin_addr,
            admin_port,
            upstream_host,
            upstream_address: upstream_address(&source),
            upstream_timeout,
            cache_ttl,
            revalidate: Some(source.seconds(&REVALIDATE_SECONDS, &CACHE_TTL_RANGE))
                .filter(|revalidate| *revalidate < cache_ttl),
            key_grace: source.seconds(&KEY_GRACE_SECONDS, &UP_TO_A_DAY),
            max_stale: max_stale(&mut source, cache_ttl),
            client_cache_ttl: source.seconds(&CLIENT_CACHE_TTL_SECONDS, &UP_TO_A_DAY),
            shared_cache_ttl: source.seconds(&SHARED_CACHE_TTL_SECONDS, &UP_TO_A_DAY),
            layout: source.parsed(&PRETTY_PRINT_JSON, values::layout).unwrap_or(Layout::Pretty),
            token_path: source.file(&SA_TOKEN_PATH),
            ca_path: source.file(&SA_CA_CERT_PATH),
            issuer: source.optional(&ISSUER, values::issuer),
            own_token_check: source.parsed(&OWN_TOKEN_CHECK, values::switch).unwrap_or_default(),
            jwks_uri: source.parsed(&JWKS_URI, values::jwks_uri).unwrap_or(JwksUri::Auto),
            discovery_defaults: source
                .parsed(&DISCOVERY_DEFAULTS, values::discovery_defaults)
                .unwrap_or_default(),
            workers: source.parsed(&WORKERS, |text| values::whole(text, 2, 64)).unwrap_or_default(),
            max_connections: max_connections(&mut source),
            shutdown_delay: source.seconds(&SHUTDOWN_DELAY_SECONDS, &shutdown_range),
            shutdown_timeout: source.seconds(&SHUTDOWN_TIMEOUT_SECONDS, &shutdown_range),
            log: log(&mut source),
            changed: source.changed(),
            lookalikes: mem::take(&mut source.lookalikes),
        };
        if source.mistakes.is_empty() {
            Ok(config)
        } else {
            let Self { log, lookalikes, .. } = config;
            Err(Mistakes { sentences: source.mistakes, log, lookalikes })
        }
    }
}

/// `ADMIN_PORT`. `public_port` is the public listener's, if both listeners have the same address.
fn admin_port(source: &mut Source, public_port: Option<u16>) -> Option<u16> {
    let (_, text) = source.text(&ADMIN_PORT);
    if text == "off" {
        return None;
    }
    let Ok(port) = text.parse() else {
        let cause = if text.starts_with("tcp://") {
            " (Kubernetes sets it to this for a Service named admin: \
             set enableServiceLinks: false in the pod)"
        } else {
            ""
        };
        source.add_mistake(ADMIN_PORT.name, &text, &format!("{}{cause}", ADMIN_PORT.must_be));
        return None;
    };
    if port != 0 && Some(port) == public_port {
        source.mistakes.push(format!(
            "LISTEN_PORT and ADMIN_PORT are both {port}: they must differ, or set ADMIN_PORT to off"
        ));
    }
    Some(port)
}

/// The address that Kubernetes gives to each pod. One that is not an IP address and a port is as
/// good as none, since these are not settings of ours.
fn upstream_address(source: &Source) -> Option<SocketAddr> {
    if source.is_given(&UPSTREAM_HOST) {
        return None;
    }
    let [host, port] = source.service()?;
    Some(SocketAddr::new(values::address(host)?, port.parse().ok()?))
}

/// `CACHE_TTL_SECONDS`, or `CACHE_TTL_MINUTES`, its older name.
fn cache_ttl(source: &mut Source) -> Duration {
    let minutes = |text: &str| values::minutes(text, &CACHE_TTL_RANGE);
    let in_minutes = source.optional(&CACHE_TTL_MINUTES, minutes);
    let in_seconds = source.seconds(&CACHE_TTL_SECONDS, &CACHE_TTL_RANGE);
    match in_minutes {
        Some(in_minutes) if source.is_given(&CACHE_TTL_SECONDS) && in_minutes != in_seconds => {
            source.mistakes.push(format!(
                "CACHE_TTL_SECONDS is {in_seconds:?} and CACHE_TTL_MINUTES, its older name, is \
                 {in_minutes:?}: set only one of them"
            ));
            in_seconds
        }
        Some(in_minutes) => in_minutes,
        None => in_seconds,
    }
}

/// `MAX_STALE_SECONDS`, which is at least `cache_ttl`.
fn max_stale(source: &mut Source, cache_ttl: Duration) -> Duration {
    let range = Range { min: 0.0, max: 31_536_000.0 };
    let parse = |text: &str| values::seconds(text, &range).filter(|stale| *stale >= cache_ttl);
    source.parsed(&MAX_STALE_SECONDS, parse).unwrap_or_default()
}

fn max_connections(source: &mut Source) -> MaxConnections {
    let limit = source.parsed(&MAX_CONNECTIONS, |text| values::whole(text, 16, 65_536));
    MaxConnections { limit: limit.unwrap_or_default(), is_given: source.is_given(&MAX_CONNECTIONS) }
}

fn log(source: &mut Source) -> logging::Settings {
    logging::Settings {
        format: source.parsed(&LOG_FORMAT, values::log_format).unwrap_or_default(),
        lines_per_second: source
            .parsed(&LOG_LINES_PER_SECOND, |text| values::whole(text, 1, 1_000_000))
            .unwrap_or_default(),
        clients: source.parsed(&LOG_CLIENTS, values::switch).unwrap_or_default(),
        filter: source
            .parsed(&RUST_LOG, values::log_filter)
            .unwrap_or_else(|| RUST_LOG.default.to_owned()),
    }
}

#[cfg(test)]
mod tests;
