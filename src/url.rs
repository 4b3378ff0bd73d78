//! Pure: https URLs, and hosts that cannot be reached from outside a cluster.

use http::Uri;
use http::uri::Authority;

/// The parts of an absolute https URL that matter here.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HttpsUrl {
    /// In lower case; an IPv6 address is in brackets.
    pub(crate) host: String,
    port: u16,
    /// Starts with a slash; without the query.
    pub(crate) path: String,
}

impl HttpsUrl {
    /// `None` for anything but an absolute https URL, and for one with user information, which
    /// RFC 9110 §4.2.4 lets a recipient reject.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host().to_ascii_lowercase();
        if uri.scheme_str() != Some("https")
            || authority.as_str().contains('@')
            || host.is_empty()
            || text.contains('#')
        {
            return None;
        }
        Some(Self { host, port: port(authority, 443)?, path: uri.path().to_owned() })
    }

    /// Whether scheme, host and port are the same: RFC 6454 §4.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }
}

/// Whether a URL is https, its host in lower case, and its port; `None` for neither http nor https.
pub(crate) fn parts(url: &str) -> Option<(bool, String, u16)> {
    let uri: Uri = url.parse().ok()?;
    let is_https = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let authority = uri.authority()?;
    let host = authority.host();
    let port = port(authority, if is_https { 443 } else { 80 })?;
    (!host.is_empty()).then(|| (is_https, host.to_ascii_lowercase(), port))
}

/// The `http` crate accepts anything after an IPv6 address, and a sign before a port.
fn port(authority: &Authority, default: u16) -> Option<u16> {
    match authority.as_str().strip_prefix(authority.host())? {
        "" | ":" => Some(default),
        after => {
            let port = after.strip_prefix(':')?;
            port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
        }
    }
}

/// The host of a URL as sockets and certificates have it: an IPv6 address without its brackets.
pub(crate) fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Whether `host`, in lower case, means something only inside a cluster or a private network: a
/// private, loopback or link-local address, a name without a dot, or one under `.svc`, `.local`,
/// `.internal` or `.localhost` (RFC 6761, RFC 6762).
pub(crate) fn is_internal(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return address.is_private() || address.is_loopback() || address.is_link_local();
    }
    if let Ok(address) = without_brackets(host).parse::<std::net::Ipv6Addr>() {
        return address.is_loopback()
            || address.is_unique_local()
            || address.is_unicast_link_local();
    }
    !host.contains('.')
        || [".svc", ".local", ".internal", ".localhost"].iter().any(|end| host.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_its_host_port_and_path() {
        for (text, host, port, path) in [
            ("https://a.example", "a.example", 443, "/"),
            ("https://A.Example:/b/", "a.example", 443, "/b/"),
            ("https://a:0443/b?c=/d", "a", 443, "/b"),
            ("HTTPS://10.0.0.1:6443/b", "10.0.0.1", 6443, "/b"),
            ("https://[2001:DB8::1]:8443", "[2001:db8::1]", 8443, "/"),
        ] {
            let parsed = HttpsUrl::parse(text).unwrap_or_else(|| panic!("{text}"));
            let HttpsUrl { host: is_host, port: is_port, path: is_path } = parsed;
            assert_eq!((&*is_host, is_port, &*is_path), (host, port, path), "{text}");
        }
        for text in [
            "",
            "a.example",
            "/b",
            "http://a.example",
            "https:a.example",
            "https://",
            "https://:443/",
            "https://user@a.example",
            "https://a.example/#b",
            "https://a b/",
            "https://a:65536/",
            "https://a:+443/",
            "https://a:-1/",
            "https://[2001:db8::1]x443/",
        ] {
            assert_eq!(HttpsUrl::parse(text), None, "{text}");
        }
    }

    #[test]
    fn of_an_http_url_scheme_host_and_port_are_known() {
        for (url, expected) in [
            ("https://A.Example/b", Some((true, "a.example", 443))),
            ("https://a:8443", Some((true, "a", 8443))),
            ("http://a.example", Some((false, "a.example", 80))),
            ("HTTP://[::1]:8080/", Some((false, "[::1]", 8080))),
            ("ftp://a.example", None),
            ("a.example", None),
            ("/b", None),
            ("https://:443/", None),
            ("https://a:+443/", None),
            ("https://a:65536/", None),
            ("https://[::1]x443/", None),
        ] {
            let parts = parts(url);
            let parts = parts.as_ref().map(|(is_https, host, port)| (*is_https, &**host, *port));
            assert_eq!(parts, expected, "{url}");
        }
    }

    #[test]
    fn hosts_that_cannot_be_reached_from_outside_are_recognised() {
        for host in [
            "kubernetes",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "10.0.0.1",
            "127.0.0.1",
            "169.254.0.1",
            "[::1]",
            "[fd00::1]",
            "[fe80::1]",
            "api.corp.internal",
        ] {
            assert!(is_internal(host), "{host}");
        }
        for host in ["issuer.example", "8.8.8.8", "[2001:db8::1]", "svc.example.com"] {
            assert!(!is_internal(host), "{host}");
        }
    }
}
