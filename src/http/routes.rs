//! Pure: from a method and a path to a route. `front/head` finds the path in the request target.
//!
//! Paths match byte for byte, without decoding or redirects, so that an ingress or a cache in front
//! of the gateway cannot see another path than this module.

use crate::documents::{DISCOVERY_PATH, JWKS_PATH, Kind};

/// The paths that depend on the issuer, known once a discovery document is held.
#[derive(Default)]
pub(crate) struct Paths {
    /// The issuer's path without a slash at its end; `None` while no discovery document is held.
    pub(crate) issuer: Option<String>,
    /// The path of the published `jwks_uri`, when that is at the issuer's origin.
    pub(crate) jwks: Option<String>,
}

/// A probe, on the public and on the admin listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    Livez,
    Readyz,
    Healthz,
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Document(Kind),
    /// Perhaps a document: the issuer is not known yet, and this may be below its path.
    UnknownIssuer(Kind),
    Probe(Probe),
    /// Prometheus's page, on the admin listener alone.
    Metrics,
    /// What is wrong and what to do, on the admin listener alone.
    Status,
}

impl Resource {
    /// All values of [`name`](Self::name) but [`OTHER`].
    pub(crate) const NAMES: [&str; 7] =
        ["discovery", "jwks", "livez", "readyz", "healthz", "metrics", "status"];

    /// The name for metrics.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Document(kind) | Self::UnknownIssuer(kind) => kind.name(),
            Self::Probe(Probe::Livez) => "livez",
            Self::Probe(Probe::Readyz) => "readyz",
            Self::Probe(Probe::Healthz) => "healthz",
            Self::Metrics => "metrics",
            Self::Status => "status",
        }
    }
}

/// The name for metrics of a path that names nothing.
pub(crate) const OTHER: &str = "other";

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Get(Resource),
    Preflight(Resource),
    /// Another method than [`METHODS`].
    MethodNotAllowed(Resource),
    NotFound,
}

impl Route {
    /// The name for metrics: one of [`Resource::NAMES`], or [`OTHER`].
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Get(resource) | Self::Preflight(resource) | Self::MethodNotAllowed(resource) => {
                resource.name()
            }
            Self::NotFound => OTHER,
        }
    }
}

/// The methods of documents and of probes, as a value of `Allow`: RFC 9110 §10.2.1.
pub(crate) const METHODS: &str = "GET, HEAD, OPTIONS";

/// The route of a request on the public listener.
pub(crate) fn public(method: &str, path: &str, paths: &Paths) -> Route {
    by_method(method, document(path, paths).or_else(|| probe(path).map(Resource::Probe)))
}

/// The route of a request on the admin listener.
pub(crate) fn admin(method: &str, path: &str) -> Route {
    let page = match path {
        "/metrics" => Some(Resource::Metrics),
        "/status" => Some(Resource::Status),
        _ => None,
    };
    by_method(method, page.or_else(|| probe(path).map(Resource::Probe)))
}

fn by_method(method: &str, resource: Option<Resource>) -> Route {
    match (method, resource) {
        (_, None) => Route::NotFound,
        ("GET" | "HEAD", Some(resource)) => Route::Get(resource),
        // HAProxy's `option httpchk` asks so by default. Pages are for no other site's scripts.
        (
            "OPTIONS",
            Some(resource @ (Resource::Probe(_) | Resource::Metrics | Resource::Status)),
        ) => Route::Get(resource),
        ("OPTIONS", Some(resource)) => Route::Preflight(resource),
        (_, Some(resource)) => Route::MethodNotAllowed(resource),
    }
}

fn document(path: &str, paths: &Paths) -> Option<Resource> {
    match path {
        DISCOVERY_PATH => return Some(Resource::Document(Kind::Discovery)),
        JWKS_PATH => return Some(Resource::Document(Kind::Jwks)),
        // Fixed paths have precedence over that of a published `jwks_uri`.
        _ if probe(path).is_some() => return None,
        _ => {}
    }
    let Some(issuer) = &paths.issuer else {
        let kinds = [(DISCOVERY_PATH, Kind::Discovery), (JWKS_PATH, Kind::Jwks)];
        let maybe = kinds.into_iter().find(|(end, _)| path.ends_with(end));
        return maybe.map(|(_, kind)| Resource::UnknownIssuer(kind));
    };
    match path.strip_prefix(issuer.as_str()) {
        Some(DISCOVERY_PATH) => Some(Resource::Document(Kind::Discovery)),
        Some(JWKS_PATH) => Some(Resource::Document(Kind::Jwks)),
        _ if paths.jwks.as_deref() == Some(path) => Some(Resource::Document(Kind::Jwks)),
        _ => None,
    }
}

fn probe(path: &str) -> Option<Probe> {
    match path {
        "/livez" => Some(Probe::Livez),
        "/readyz" => Some(Probe::Readyz),
        "/healthz" => Some(Probe::Healthz),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISCOVERY: Route = Route::Get(Resource::Document(Kind::Discovery));
    const JWKS: Route = Route::Get(Resource::Document(Kind::Jwks));

    fn paths(issuer: &str, jwks: Option<&str>) -> Paths {
        Paths { issuer: Some(issuer.to_owned()), jwks: jwks.map(ToOwned::to_owned) }
    }

    #[test]
    fn only_exact_paths_are_those_of_a_document() {
        let plain = paths("", Some("/openid/v1/jwks"));
        for (target, expected) in [
            ("/.well-known/openid-configuration", DISCOVERY),
            ("/.well-known/openid-configuration?a", Route::NotFound),
            ("/openid/v1/jwks", JWKS),
            ("/openid/v1/jwks/", Route::NotFound),
            ("//openid/v1/jwks", Route::NotFound),
            ("/OPENID/v1/jwks", Route::NotFound),
            ("/openid/v1/%6awks", Route::NotFound),
            ("/openid/v1/../v1/jwks", Route::NotFound),
            ("/a/openid/v1/jwks", Route::NotFound),
            ("openid/v1/jwks", Route::NotFound),
            ("*", Route::NotFound),
            ("", Route::NotFound),
            ("/", Route::NotFound),
        ] {
            assert_eq!(public("GET", target, &plain), expected, "{target}");
        }
    }

    #[test]
    fn an_issuer_with_a_path_has_its_documents_below_it() {
        let below = paths("/c/1", Some("/keys"));
        for (target, expected) in [
            ("/c/1/.well-known/openid-configuration", DISCOVERY),
            ("/c/1/openid/v1/jwks", JWKS),
            ("/.well-known/openid-configuration", DISCOVERY),
            ("/openid/v1/jwks", JWKS),
            ("/keys", JWKS),
            ("/c/2/openid/v1/jwks", Route::NotFound),
            ("/c/1/", Route::NotFound),
        ] {
            assert_eq!(public("GET", target, &below), expected, "{target}");
        }
    }

    #[test]
    fn a_published_jwks_uri_cannot_replace_a_probe_or_the_discovery_document() {
        for taken in ["/livez", "/.well-known/openid-configuration"] {
            let route = public("GET", taken, &paths("", Some(taken)));
            assert_ne!(route, JWKS, "{taken}");
        }
    }

    #[test]
    fn while_the_issuer_is_unknown_any_path_may_be_its() {
        let unknown = Paths::default();
        let maybe = |kind| Route::Get(Resource::UnknownIssuer(kind));
        let path = "/c/.well-known/openid-configuration";
        assert_eq!(public("GET", path, &unknown), maybe(Kind::Discovery));
        assert_eq!(public("HEAD", "/c/openid/v1/jwks", &unknown), maybe(Kind::Jwks));
        assert_eq!(public("GET", "/openid/v1/jwks", &unknown), JWKS);
        assert_eq!(public("GET", "/c", &unknown), Route::NotFound);
    }

    #[test]
    fn a_method_that_is_not_allowed_gets_the_list_of_those_that_are() {
        let plain = paths("", None);
        let probe = Route::Get(Resource::Probe(Probe::Livez));
        for (method, target, expected) in [
            ("HEAD", "/openid/v1/jwks", JWKS),
            ("OPTIONS", "/openid/v1/jwks", Route::Preflight(Resource::Document(Kind::Jwks))),
            ("POST", "/openid/v1/jwks", Route::MethodNotAllowed(Resource::Document(Kind::Jwks))),
            ("get", "/openid/v1/jwks", Route::MethodNotAllowed(Resource::Document(Kind::Jwks))),
            ("HEAD", "/livez", probe),
            ("OPTIONS", "/livez", probe),
            ("DELETE", "/livez", Route::MethodNotAllowed(Resource::Probe(Probe::Livez))),
            ("POST", "/nothing", Route::NotFound),
        ] {
            assert_eq!(public(method, target, &plain), expected, "{method} {target}");
        }
    }

    #[test]
    fn the_admin_listener_has_probes_and_pages_and_no_document() {
        assert_eq!(admin("GET", "/readyz"), Route::Get(Resource::Probe(Probe::Readyz)));
        assert_eq!(admin("GET", "/openid/v1/jwks"), Route::NotFound);
        for (path, page) in [("/metrics", Resource::Metrics), ("/status", Resource::Status)] {
            assert_eq!(admin("GET", path), Route::Get(page));
            assert_eq!(admin("OPTIONS", path), Route::Get(page));
            assert_eq!(public("GET", path, &paths("", None)), Route::NotFound);
        }
    }

    #[test]
    fn both_listeners_have_every_probe() {
        for (path, probe) in
            [("/livez", Probe::Livez), ("/readyz", Probe::Readyz), ("/healthz", Probe::Healthz)]
        {
            let expected = Route::Get(Resource::Probe(probe));
            assert_eq!(admin("GET", path), expected);
            assert_eq!(public("GET", path, &paths("", None)), expected);
            assert_eq!(public("GET", path, &Paths::default()), expected);
        }
    }

    #[test]
    fn a_request_is_counted_as_what_it_asks_for_whatever_its_method() {
        for (method, path, expected) in [
            ("GET", "/healthz", "healthz"),
            ("OPTIONS", "/openid/v1/jwks", "jwks"),
            ("POST", "/.well-known/openid-configuration", "discovery"),
            ("GET", "/nothing", "other"),
        ] {
            let route = public(method, path, &Paths::default());
            assert_eq!(route.name(), expected, "{method} {path}");
        }
    }

    #[test]
    fn each_route_has_a_name_of_the_closed_list() {
        let unknown = Resource::UnknownIssuer(Kind::Jwks);
        let documents = [Kind::Discovery, Kind::Jwks].map(Resource::Document);
        let probes = [Probe::Livez, Probe::Readyz, Probe::Healthz].map(Resource::Probe);
        let resources = [&documents[..], &probes, &[Resource::Metrics, Resource::Status]].concat();
        let names: Vec<_> = resources.into_iter().map(Resource::name).collect();
        assert_eq!(names, Resource::NAMES);
        assert!(Resource::NAMES.contains(&unknown.name()) && !names.contains(&OTHER));
    }
}
