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
        assert_eq!(config.listen_port, 8080);
        assert_eq!(config.listen_addr, None);
        assert_eq!(config.admin_port, Some(8081));
        assert_eq!(config.upstream_host, "https://kubernetes.default.svc");
        assert_eq!(config.upstream_timeout, Duration::from_secs(5));
        assert_eq!(config.cache_ttl, Duration::from_secs(60));
        assert_eq!(config.max_stale, Duration::from_secs(86_400));
        assert_eq!(config.workers, 16);
        assert_eq!(config.layout, Layout::Pretty);
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
        ("UPSTREAM_HOST", "http://192.0.2.1:8001"),
        ("UPSTREAM_TIMEOUT_SECONDS", "0.04"),
        ("UPSTREAM_TIMEOUT_SECONDS", "61"),
        ("CACHE_TTL_SECONDS", "0"),
        ("CACHE_TTL_SECONDS", "nan"),
        ("CACHE_TTL_SECONDS", "1e3"),
        ("CACHE_TTL_SECONDS", "60s"),
        ("CACHE_TTL_MINUTES", "0"),
        ("CACHE_TTL_MINUTES", "x"),
        ("CACHE_TTL_MINUTES", "1e0"),
        ("REVALIDATE_SECONDS", "0"),
        ("REVALIDATE_SECONDS", "86401"),
        ("KEY_GRACE_SECONDS", "-1"),
        ("KEY_GRACE_SECONDS", "86401"),
        ("SHARED_CACHE_TTL_SECONDS", "1m"),
        ("SHARED_CACHE_TTL_SECONDS", "86401"),
        ("MAX_STALE_SECONDS", "59"),
        ("MAX_STALE_SECONDS", "inf"),
        ("CLIENT_CACHE_TTL_SECONDS", "-1"),
        ("CLIENT_CACHE_TTL_SECONDS", "86401"),
        ("PRETTY_PRINT_JSON", "yes"),
        ("SA_TOKEN_PATH", "/nowhere"),
        ("SA_CA_CERT_PATH", "/nowhere"),
        ("JWKS_URI", "http://issuer.example/keys"),
        ("JWKS_URI", "Auto"),
        ("DISCOVERY_DEFAULTS", "[]"),
        ("DISCOVERY_DEFAULTS", "{"),
        ("DISCOVERY_DEFAULTS", r#"{"issuer":"https://a"}"#),
        ("DISCOVERY_DEFAULTS", r#"{"jwks_uri":"https://a/k"}"#),
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
        ("RUST_LOG", "verbose"),
        ("RUST_LOG", "info,inof"),
        ("RUST_LOG", "info=debug"),
        ("RUST_LOG", "kube-issuer-gateway=debug"),
        ("ISSUER", "http://issuer.example"),
        ("ISSUER", "https://issuer.example/?a"),
        ("OWN_TOKEN_CHECK", "yes"),
        ("LOG_CLIENTS", "true"),
    ] {
        let mistakes = parse(&[(name, value)]).err().unwrap_or_default();
        assert_eq!(mistakes.len(), 1, "{name}={value}: {mistakes:?}");
        let names_it = |mistake: &String| mistake.contains(name) && mistake.contains("must ");
        assert!(mistakes.iter().all(names_it), "{mistakes:?}");
    }
}

#[test]
fn all_mistakes_are_named_at_once() {
    let mistakes = parse(&[("WORKERS", "0"), ("LISTEN_PORT", "x"), ("LOG_FORMAT", "y")]);
    assert_eq!(mistakes.err().unwrap().len(), 3);
}

#[test]
fn each_valid_value_is_used() {
    type Shows = fn(&Config) -> String;
    let cases: [(&str, &str, Shows, &str); 28] = [
        ("LISTEN_ADDR", "::1", |it| format!("{:?}", it.listen_addr), "Some(::1)"),
        ("LISTEN_ADDR", "[::]", |it| format!("{:?}", it.listen_addr), "Some(::)"),
        ("LISTEN_ADDR", "::1", |it| format!("{:?}", it.admin_addr), "Some(::1)"),
        ("ADMIN_ADDR", "10.0.0.1", |it| format!("{:?}", it.admin_addr), "Some(10.0.0.1)"),
        ("ADMIN_PORT", "off", |it| format!("{:?}", it.admin_port), "None"),
        (
            "UPSTREAM_HOST",
            "http://127.0.0.1:8001/proxy/",
            |it| it.upstream_host.clone(),
            "http://127.0.0.1:8001/proxy",
        ),
        ("UPSTREAM_HOST", "http://[::1]:8001", |it| it.upstream_host.clone(), "http://[::1]:8001"),
        (
            "UPSTREAM_HOST",
            "https://api.example:6443/k8s/clusters/c-1",
            |it| it.upstream_host.clone(),
            "https://api.example:6443/k8s/clusters/c-1",
        ),
        ("CACHE_TTL_SECONDS", "0.2", |it| format!("{:?}", it.cache_ttl), "200ms"),
        ("CACHE_TTL_MINUTES", "2", |it| format!("{:?}", it.cache_ttl), "120s"),
        ("REVALIDATE_SECONDS", "0.1", |it| format!("{:?}", it.revalidate), "Some(100ms)"),
        ("REVALIDATE_SECONDS", "60", |it| format!("{:?}", it.revalidate), "None"),
        ("KEY_GRACE_SECONDS", "0", |it| format!("{:?}", it.key_grace), "0ns"),
        ("SHARED_CACHE_TTL_SECONDS", "86400", |it| format!("{:?}", it.shared_cache_ttl), "86400s"),
        ("MAX_STALE_SECONDS", "60", |it| format!("{:?}", it.max_stale), "60s"),
        ("CLIENT_CACHE_TTL_SECONDS", "0", |it| format!("{:?}", it.client_cache_ttl), "0ns"),
        ("PRETTY_PRINT_JSON", "0", |it| format!("{:?}", it.layout), "Compact"),
        ("PRETTY_PRINT_JSON", "True", |it| format!("{:?}", it.layout), "Pretty"),
        (
            "JWKS_URI",
            "https://issuer.example/keys",
            |it| format!("{:?}", it.jwks_uri),
            "Fixed(\"https://issuer.example/keys\")",
        ),
        (
            "DISCOVERY_DEFAULTS",
            r#"{"claims_supported":["sub"]}"#,
            |it| format!("{:?}", it.discovery_defaults.keys().collect::<Vec<_>>()),
            "[\"claims_supported\"]",
        ),
        ("WORKERS", "64", |it| it.workers.to_string(), "64"),
        (
            "MAX_CONNECTIONS",
            "16",
            |it| format!("{} {}", it.max_connections.limit, it.max_connections.is_given),
            "16 true",
        ),
        ("LOG_FORMAT", "json", |it| format!("{:?}", it.log.format), "Json"),
        (
            "ISSUER",
            "https://a.example/",
            |it| format!("{:?}", it.issuer),
            "Some(\"https://a.example/\")",
        ),
        ("OWN_TOKEN_CHECK", "off", |it| it.own_token_check.to_string(), "false"),
        ("LOG_CLIENTS", "off", |it| it.log.clients.to_string(), "false"),
        (
            "WORKERS",
            "2",
            |it| format!("{:?}", it.changed),
            r#"[("SA_TOKEN_PATH", "Cargo.toml"), ("SA_CA_CERT_PATH", "Cargo.toml"), ("WORKERS", "2")]"#,
        ),
        ("RUST_LOG", "debug,ureq=trace", |it| it.log.filter.clone(), "debug,ureq=trace"),
    ];
    for (name, value, shows, expected) in cases {
        let config = parse(&[(name, value)]).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert_eq!(shows(&config), expected, "{name}={value}");
    }
}

#[test]
fn plain_http_is_accepted_to_loopback_by_name_and_by_address() {
    for base in ["http://localhost:8001", "http://127.0.0.2:8001", "http://[::1]:8001"] {
        assert_eq!(parse(&[("UPSTREAM_HOST", base)]).unwrap().upstream_host, base);
    }
}

#[test]
fn a_filter_names_levels_and_what_can_be_logged() {
    for filter in ["WARN,", "kube_issuer_gateway", "warn,kube_issuer_gateway=debug"] {
        assert_eq!(parse(&[("RUST_LOG", filter)]).unwrap().log.filter, filter);
    }
}

#[test]
fn the_address_that_kubernetes_gives_is_used_only_without_upstream_host() {
    for (host, port, own, expected) in [
        ("10.96.0.1", "443", "", Some("10.96.0.1:443")),
        ("fd00::1", "6443", "", Some("[fd00::1]:6443")),
        ("10.96.0.1", "443", "https://kubernetes.default.svc", None),
        ("10.96.0.1", "", "", None),
        ("10.96.0.1", "https", "", None),
        ("api.internal", "443", "", None),
    ] {
        let variables = [
            ("KUBERNETES_SERVICE_HOST", host),
            ("KUBERNETES_SERVICE_PORT", port),
            ("UPSTREAM_HOST", own),
        ];
        let address = parse(&variables).unwrap().upstream_address;
        assert_eq!(address.map(|it| it.to_string()).as_deref(), expected, "{host} {port} {own}");
    }
}

#[test]
fn the_older_programs_names_mean_the_same() {
    let config = parse(&[("CACHE_TTL_MINUTES", "0.5")]).unwrap();
    assert_eq!(config.cache_ttl, Duration::from_secs(30));
    let same = parse(&[("CACHE_TTL_MINUTES", "1"), ("CACHE_TTL_SECONDS", "60")]);
    assert!(same.is_ok());
    assert!(parse(&[("TOKEN_PATH", "Cargo.toml")]).is_ok(), "the value of SA_TOKEN_PATH");
    let differing = parse(&[("CACHE_TTL_MINUTES", "1"), ("CACHE_TTL_SECONDS", "61")]);
    assert!(differing.err().unwrap().concat().contains("CACHE_TTL_MINUTES"));
    let differing = parse(&[("TOKEN_PATH", "Cargo.lock")]);
    assert!(differing.err().unwrap().concat().contains("set only one of them"));
}

#[test]
fn a_service_named_admin_is_recognised() {
    let mistakes = parse(&[("ADMIN_PORT", "tcp://10.0.0.1:80")]).err().unwrap();
    assert!(mistakes.concat().contains("enableServiceLinks"), "{mistakes:?}");
}
