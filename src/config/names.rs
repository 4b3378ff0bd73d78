//! Pure: names that look like those of settings, such as `LISTENPORT` and `MAX_STALE`.

use super::settings::SETTINGS;

/// Endings that stand for a unit of time, `SECONDS` among them.
const UNITS: [&str; 13] = [
    "",
    "MS",
    "MILLIS",
    "MILLISECONDS",
    "S",
    "SEC",
    "SECS",
    "SECONDS",
    "MIN",
    "MINS",
    "MINUTES",
    "HOURS",
    "DAYS",
];

/// What other programs call them, without underscores.
const SYNONYMS: [(&str, &str); 7] = [
    ("LISTENADDRESS", "LISTEN_ADDR"),
    ("LISTENHOST", "LISTEN_ADDR"),
    ("ADMINADDRESS", "ADMIN_ADDR"),
    ("UPSTREAMURL", "UPSTREAM_HOST"),
    ("ISSUERURL", "ISSUER"),
    ("SATOKENFILE", "SA_TOKEN_PATH"),
    ("SACACERTFILE", "SA_CA_CERT_PATH"),
];

/// The setting that `name`, which is none, was perhaps meant to be.
pub(super) fn similar(name: &str) -> Option<&'static str> {
    let given = plain(name);
    if let Some((_, setting)) = SYNONYMS.iter().find(|(other, _)| *other == given) {
        return Some(setting);
    }
    let names = SETTINGS.iter().flat_map(|it| [Some(it.name), it.old_name]).flatten();
    let distances = names.filter_map(|setting| {
        let known = plain(setting);
        let is_without_unit = ["SECONDS", "MINUTES"].iter().any(|unit| {
            let rest = known.strip_suffix(unit).and_then(|base| given.strip_prefix(base));
            rest.is_some_and(|rest| UNITS.contains(&rest))
        });
        let distance = if is_without_unit { 0 } else { strsim::osa_distance(&given, &known) };
        // Of a short name, two letters are much.
        let most = if known.len() < 12 { 1 } else { 2 };
        (distance <= most).then_some((distance, setting))
    });
    distances.min_by_key(|(distance, _)| *distance).map(|(_, setting)| setting)
}

/// Letters in capitals, and digits.
fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).map(|it| it.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_the_name_of_a_setting_is_known() {
        for (name, expected) in [
            ("LISTENPORT", "LISTEN_PORT"),
            ("LISTEN_ADDRESS", "LISTEN_ADDR"),
            ("LISTEN_HOST", "LISTEN_ADDR"),
            ("UPSTREAM_URL", "UPSTREAM_HOST"),
            ("ISSUER_URL", "ISSUER"),
            ("listen_port", "LISTEN_PORT"),
            ("LISTEN_PROT", "LISTEN_PORT"),
            ("UPSTREAM_HOSTS", "UPSTREAM_HOST"),
            ("UPSTREAMS_HOSTS", "UPSTREAM_HOST"),
            ("MAX_STALE", "MAX_STALE_SECONDS"),
            ("MAX_STALE_MINUTES", "MAX_STALE_SECONDS"),
            ("CACHE_TTL", "CACHE_TTL_SECONDS"),
            ("CACHE_TTL_MS", "CACHE_TTL_SECONDS"),
            ("CLIENT_CACHE_TTL", "CLIENT_CACHE_TTL_SECONDS"),
            ("JWKS_URL", "JWKS_URI"),
            ("ISSUERS", "ISSUER"),
            ("WORKER", "WORKERS"),
            ("SA_TOKENPATH", "SA_TOKEN_PATH"),
            ("TOKENPATH", "TOKEN_PATH"),
            ("RUSTLOG", "RUST_LOG"),
        ] {
            assert_eq!(similar(name), Some(expected), "{name}");
        }
    }

    /// Of a login shell on Debian with a desktop, and of pods that were looked at.
    const ORDINARY: &str = "
        _ BASH_ENV CARGO_HOME CARGO_MANIFEST_DIR CARGO_PKG_NAME COLORTERM COLUMNS
        DBUS_SESSION_BUS_ADDRESS DISPLAY EDITOR ENV FTP_PROXY GPG_AGENT_INFO HISTFILE HISTSIZE HOME HOST
        HOSTNAME HOSTTYPE HTTPS_PROXY HTTP_PROXY INVOCATION_ID JOURNAL_STREAM KUBECONFIG LANG LANGUAGE
        LC_ALL LC_CTYPE LD_LIBRARY_PATH LESSCLOSE LESSOPEN LINES LOGNAME LS_COLORS MACHTYPE MAIL MANPATH
        NO_PROXY OLDPWD OSTYPE PAGER PATH PPID PS1 PWD PYTHONPATH RUSTUP_HOME RUSTUP_TOOLCHAIN
        RUST_BACKTRACE RUST_LIB_BACKTRACE RUST_LOG_STYLE SESSION_MANAGER SHELL SHLVL SSH_AGENT_PID
        SSH_AUTH_SOCK SSH_CLIENT SSH_CONNECTION SSH_TTY SUDO_COMMAND SUDO_USER SYSTEMD_EXEC_PID TERM
        TMPDIR TMUX TZ UID USER USERNAME VISUAL VTE_VERSION WAYLAND_DISPLAY WINDOWID XAUTHORITY
        XDG_CONFIG_DIRS XDG_CURRENT_DESKTOP XDG_DATA_DIRS XDG_RUNTIME_DIR XDG_SESSION_ID http_proxy
        https_proxy no_proxy
        ADMIN_PORT_80_TCP ADMIN_PORT_80_TCP_ADDR ADMIN_PORT_80_TCP_PORT ADMIN_PORT_80_TCP_PROTO
        ADMIN_SERVICE_HOST ADMIN_SERVICE_PORT ADMIN_SERVICE_PORT_HTTP AWS_DEFAULT_REGION AWS_REGION
        AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE AZURE_AUTHORITY_HOST AZURE_CLIENT_ID
        AZURE_FEDERATED_TOKEN_FILE AZURE_TENANT_ID CLUSTER_NAME CONTAINER_NAME CPU_LIMIT DD_AGENT_HOST
        GOGC GOMAXPROCS GOMEMLIMIT HOST_IP INSTANCE_IP ISSUER_GATEWAY_SERVICE_HOST ISTIO_META_MESH_ID
        JAVA_OPTS KUBERNETES_PORT KUBERNETES_PORT_443_TCP KUBERNETES_PORT_443_TCP_ADDR
        KUBERNETES_PORT_443_TCP_PORT KUBERNETES_PORT_443_TCP_PROTO KUBERNETES_SERVICE_HOST
        KUBERNETES_SERVICE_PORT KUBERNETES_SERVICE_PORT_HTTPS KUBE_ISSUER_GATEWAY_PORT
        KUBE_ISSUER_GATEWAY_PORT_80_TCP KUBE_ISSUER_GATEWAY_SERVICE_HOST
        KUBE_ISSUER_GATEWAY_SERVICE_PORT KUBE_ISSUER_GATEWAY_SERVICE_PORT_HTTP LOG_LEVEL MEMORY_LIMIT
        MEM_LIMIT NAMESPACE NODE_IP NODE_NAME OTEL_EXPORTER_OTLP_ENDPOINT OTEL_RESOURCE_ATTRIBUTES
        OTEL_SERVICE_NAME POD_IP POD_IPS POD_NAME POD_NAMESPACE POD_UID PORT SERVICE_ACCOUNT
        SERVICE_NAME SSL_CERT_DIR SSL_CERT_FILE TOKEN TZDIR
        ADMINER_PORT ADMIN_CERT ADMIN_HOST ADMIN_PASSWORD ADMIN_UI_PORT ADMIN_USER CA_CERT_DATA CERT_PATH DB_ADMIN_PORT
        DD_LOG_FORMAT ID_TOKEN_PATH LISTENER_PORT PGADMIN_PORT TOKEN_AUTH TOKEN_HASH";

    #[test]
    fn of_an_ordinary_environment_nothing_is_taken_for_a_setting() {
        let names = ORDINARY.split_whitespace();
        let taken: Vec<_> = names.filter_map(|name| Some((name, similar(name)?))).collect();
        assert_eq!(taken, []);
    }
}
