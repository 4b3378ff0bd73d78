//! Pure: https URLs, and which hosts only mean something inside a cluster.

use http::Uri;

/// The parts of an https URL that say where it leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HttpsUrl {
    /// In lower case; an IPv6 address stands in brackets.
    pub(crate) host: String,
    port: u16,
    /// Begins with a slash; without query.
    pub(crate) path: String,
}

impl HttpsUrl {
    /// `None` for what is no absolute https URL, and for one that names a user.
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
        // `http` lets anything stand after an IPv6 address, and a sign before a port.
        let port = match authority.as_str().strip_prefix(authority.host())? {
            "" | ":" => 443,
            after => {
                let port = after.strip_prefix(':')?;
                port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))?
            }
        };
        Some(Self { host, port, path: uri.path().to_owned() })
    }

    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.host == other.host && self.port == other.port
    }
}

/// Whether `host` is a name or an address that only means something inside a cluster or a site.
pub(crate) fn is_internal(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return address.is_private() || address.is_loopback() || address.is_link_local();
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok_and(|address| {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        });
    }
    !host.contains('.')
        || [".svc", ".local", ".internal", ".localhost"].iter().any(|end| host.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_that_nobody_outside_can_reach_is_recognised() {
        for host in [
            "kubernetes",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
            "10.0.0.1",
            "127.0.0.1",
            "[::1]",
            "[fd00::1]",
            "api.corp.internal",
        ] {
            assert!(is_internal(host), "{host}");
        }
        for host in ["issuer.example", "8.8.8.8", "[2001:db8::1]", "svc.example.com"] {
            assert!(!is_internal(host), "{host}");
        }
    }
}
