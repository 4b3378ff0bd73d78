//! Pure: the settings: name, default, requirement and meaning, in the order of `--help`.

/// One setting, as `--help` and docs/configuration.md describe it.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    /// The name that k8s-jwks-proxy has for it.
    pub(crate) old_name: Option<&'static str>,
    /// The value when the setting is absent or empty, as a user would write it.
    pub(crate) default: &'static str,
    /// The requirement, which completes the sentence "it must be …".
    pub(crate) must_be: &'static str,
    /// One line for `--help`.
    pub(crate) meaning: &'static str,
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
    const fn with_old_name(mut self, old_name: &'static str) -> Self {
        self.old_name = Some(old_name);
        self
    }
}

pub(super) const LISTEN_ADDR: Setting = setting(
    "LISTEN_ADDR",
    "",
    "an IP address, such as 0.0.0.0, :: or 127.0.0.1",
    "address of the public listener; unset: all addresses, IPv6 and IPv4",
);
pub(super) const LISTEN_PORT: Setting = setting(
    "LISTEN_PORT",
    "8080",
    "a port from 0 to 65535 (0: any free port)",
    "port of the public listener",
);
pub(super) const ADMIN_ADDR: Setting = setting(
    "ADMIN_ADDR",
    "",
    "an IP address, such as 0.0.0.0, :: or 127.0.0.1",
    "address of the admin listener; unset: that of LISTEN_ADDR",
);
pub(super) const ADMIN_PORT: Setting = setting(
    "ADMIN_PORT",
    "8081",
    "a port from 0 to 65535, or off",
    "port of the admin listener, or off for none",
);
pub(super) const UPSTREAM_HOST: Setting = setting(
    "UPSTREAM_HOST",
    "https://kubernetes.default.svc",
    "an https URL without query, such as https://kubernetes.default.svc (http only for loopback)",
    "base URL of the API server; a path is allowed; unset: at KUBERNETES_SERVICE_HOST, if there",
);
pub(super) const UPSTREAM_TIMEOUT_SECONDS: Setting = setting(
    "UPSTREAM_TIMEOUT_SECONDS",
    "5",
    "a number of seconds from 0.05 to 60",
    "total time limit for one upstream request, including the retry",
);
pub(super) const CACHE_TTL_SECONDS: Setting = setting(
    "CACHE_TTL_SECONDS",
    "60",
    "a number of seconds from 0.1 to 86400",
    "age above which a copy counts as stale",
);
pub(super) const CACHE_TTL_MINUTES: Setting = setting(
    "CACHE_TTL_MINUTES",
    "",
    "a number of minutes, such as 2, equal to 0.1 to 86400 seconds",
    "k8s-jwks-proxy's name for CACHE_TTL_SECONDS",
);
pub(super) const REVALIDATE_SECONDS: Setting = setting(
    "REVALIDATE_SECONDS",
    "1",
    "a number of seconds from 0.1 to 86400 (CACHE_TTL_SECONDS or more: off)",
    "age above which a request for the key set has it fetched again, and waits 0.2 s at most",
);
pub(super) const KEY_GRACE_SECONDS: Setting = setting(
    "KEY_GRACE_SECONDS",
    "300",
    "a number of seconds from 0 (off) to 86400",
    "how long a key is served after upstream was last seen to list it",
);
pub(super) const MAX_STALE_SECONDS: Setting = setting(
    "MAX_STALE_SECONDS",
    "86400",
    "a number of seconds from CACHE_TTL_SECONDS to 31536000",
    "age up to which a copy is served while upstream fails",
);
pub(super) const CLIENT_CACHE_TTL_SECONDS: Setting = setting(
    "CLIENT_CACHE_TTL_SECONDS",
    "3600",
    "a number of seconds from 0 to 86400",
    "longest max-age: how long a relying party may keep a copy",
);
pub(super) const SHARED_CACHE_TTL_SECONDS: Setting = setting(
    "SHARED_CACHE_TTL_SECONDS",
    "30",
    "a number of seconds from 0 to 86400",
    "s-maxage of the key set, for shared caches; at most CLIENT_CACHE_TTL_SECONDS",
);
pub(super) const PRETTY_PRINT_JSON: Setting =
    setting("PRETTY_PRINT_JSON", "true", "true, false, 1 or 0", "indent the documents");
pub(super) const SA_TOKEN_PATH: Setting = setting(
    "SA_TOKEN_PATH",
    "/var/run/secrets/kubernetes.io/serviceaccount/token",
    "a file that can be read",
    "the gateway's own token",
)
.with_old_name("TOKEN_PATH");
pub(super) const SA_CA_CERT_PATH: Setting = setting(
    "SA_CA_CERT_PATH",
    "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    "a file that can be read",
    "the CA of the API server's certificate",
)
.with_old_name("CA_CERT_PATH");
pub(super) const ISSUER: Setting = setting(
    "ISSUER",
    "",
    "an https URL without query and fragment",
    "the issuer that upstream must have, byte for byte, or /healthz says 503; unset: any",
);
pub(super) const OWN_TOKEN_CHECK: Setting = setting(
    "OWN_TOKEN_CHECK",
    "on",
    "on or off",
    "whether /healthz says 503 when what is served does not verify the gateway's own token",
);
pub(super) const JWKS_URI: Setting = setting(
    "JWKS_URI",
    "auto",
    "auto, upstream or an https URL",
    "which jwks_uri is published: a reachable one, that of upstream, or this URL",
);
pub(super) const DISCOVERY_DEFAULTS: Setting = setting(
    "DISCOVERY_DEFAULTS",
    "{}",
    "a JSON object that holds neither issuer nor jwks_uri",
    "members to add to the discovery document where upstream lacks them",
);
pub(super) const WORKERS: Setting =
    setting("WORKERS", "16", "a whole number from 2 to 64", "threads that answer requests");
pub(super) const MAX_CONNECTIONS: Setting = setting(
    "MAX_CONNECTIONS",
    "3000",
    "a whole number from 16 to 65536",
    "limit on concurrent public connections; at most the hard limit of descriptors less 64",
);
pub(super) const SHUTDOWN_DELAY_SECONDS: Setting = setting(
    "SHUTDOWN_DELAY_SECONDS",
    "5",
    "a number of seconds from 0 to 300",
    "how long to keep serving after SIGTERM, while /readyz says 503",
);
pub(super) const SHUTDOWN_TIMEOUT_SECONDS: Setting = setting(
    "SHUTDOWN_TIMEOUT_SECONDS",
    "20",
    "a number of seconds from 0 to 300",
    "how long to wait after that for requests in progress",
);
pub(super) const LOG_FORMAT: Setting = setting(
    "LOG_FORMAT",
    "text",
    "text or json",
    "format of log lines; json: one JSON object per line",
);
pub(super) const LOG_LINES_PER_SECOND: Setting = setting(
    "LOG_LINES_PER_SECOND",
    "100",
    "a whole number from 1 to 1000000",
    "limit per second on each kind of log line that clients can cause; the rest is counted",
);
pub(super) const LOG_CLIENTS: Setting = setting(
    "LOG_CLIENTS",
    "on",
    "on or off",
    "whether log lines have clients' addresses and User-Agent, which are personal data",
);
pub(super) const RUST_LOG: Setting = setting(
    "RUST_LOG",
    "info",
    "off, error, warn, info, debug or trace (or env_logger's directives)",
    "which lines are logged; debug adds probes and each round",
);

/// All settings in the order of `--help` and docs/configuration.md.
pub(crate) const SETTINGS: [Setting; 28] = [
    LISTEN_ADDR,
    LISTEN_PORT,
    ADMIN_ADDR,
    ADMIN_PORT,
    UPSTREAM_HOST,
    UPSTREAM_TIMEOUT_SECONDS,
    CACHE_TTL_SECONDS,
    CACHE_TTL_MINUTES,
    REVALIDATE_SECONDS,
    KEY_GRACE_SECONDS,
    MAX_STALE_SECONDS,
    CLIENT_CACHE_TTL_SECONDS,
    SHARED_CACHE_TTL_SECONDS,
    PRETTY_PRINT_JSON,
    SA_TOKEN_PATH,
    SA_CA_CERT_PATH,
    ISSUER,
    OWN_TOKEN_CHECK,
    JWKS_URI,
    DISCOVERY_DEFAULTS,
    WORKERS,
    MAX_CONNECTIONS,
    SHUTDOWN_DELAY_SECONDS,
    SHUTDOWN_TIMEOUT_SECONDS,
    LOG_FORMAT,
    LOG_LINES_PER_SECOND,
    LOG_CLIENTS,
    RUST_LOG,
];
