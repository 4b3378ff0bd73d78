//! Pure: which documents are published, and in what form.
//!
//! Bytes from upstream go in; checked values and the bytes to serve come out. Upstream's own bytes
//! are never served: the checked value is serialised again, so that no relying party can read
//! something that was not checked here. The issuer is never changed; in a discovery document only
//! `jwks_uri` is. Signatures, algorithms and the members of a public key are not checked, so that
//! new ones need no change here.

use std::fmt;

use serde_json::{Map, Value};

use crate::json::{self, JsonError};
use crate::url::{HttpsUrl, is_internal};

/// The longest document that is read from upstream, in bytes: some 100 times what a cluster serves.
pub(crate) const MAX_UPSTREAM_BYTES: u64 = 1 << 20;
/// The longest document that is served, in bytes. It is held in memory once. Each client that does
/// not read it occupies a send buffer besides.
pub(crate) const MAX_SERVED_BYTES: usize = 128 << 10;

/// Members that hold a private or symmetric key: RFC 7518 §6.2.2, §6.3.2 and §6.4, and `priv` of
/// newer key types (AKP, for ML-DSA).
const PRIVATE_MEMBERS: [&str; 9] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"];

/// The path of the key set below an issuer, and on the API server.
pub(crate) const JWKS_PATH: &str = "/openid/v1/jwks";
/// The path of the discovery document below an issuer: `OpenID` Connect Discovery 1.0 §4.
pub(crate) const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// One of the two documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Discovery,
    Jwks,
}

impl Kind {
    /// The name in the log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Jwks => "jwks",
        }
    }

    /// The path on the API server, and on a gateway whose issuer has no path.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Discovery => DISCOVERY_PATH,
            Self::Jwks => JWKS_PATH,
        }
    }

    /// The media type, to ask upstream for and to serve: RFC 7517 §8.5.2. kube-apiserver answers
    /// 406 if the `Accept` of a request for the key set does not contain its type.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Discovery => "application/json",
            Self::Jwks => "application/jwk-set+json",
        }
    }
}

/// Which `jwks_uri` is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JwksUri {
    /// Upstream's if it has the issuer's origin, else [`JWKS_PATH`] below the issuer.
    Auto,
    /// Upstream's, whatever it is.
    Upstream,
    /// This https URL.
    Fixed(String),
}

/// How documents are serialised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Indented by two spaces.
    Pretty,
    /// Without white space.
    Compact,
}

/// How upstream's documents become those that are published.
pub(crate) struct Publication {
    pub(crate) jwks_uri: JwksUri,
    /// Has neither `issuer` nor `jwks_uri`.
    pub(crate) discovery_defaults: Map<String, Value>,
    pub(crate) layout: Layout,
}

/// A valid discovery document of upstream.
#[derive(Debug)]
pub(crate) struct Discovery {
    members: Map<String, Value>,
    issuer: String,
    jwks_uri: String,
}

/// The discovery document to publish.
pub(crate) struct Published {
    pub(crate) value: Value,
    pub(crate) issuer: String,
    pub(crate) jwks_uri: String,
    /// Why it is this `jwks_uri`, for the log.
    pub(crate) because: &'static str,
    /// The path of the issuer, without a slash at its end; empty when it has none.
    pub(crate) issuer_path: String,
    /// The path of `jwks_uri` if it has the issuer's origin: then the gateway serves that path.
    pub(crate) jwks_path: Option<String>,
    /// The issuer's host looks unreachable from outside the cluster.
    pub(crate) internal_issuer: bool,
}

/// A valid key set.
#[derive(Debug)]
pub(crate) struct Jwks {
    pub(crate) value: Value,
    /// The `kid` of each key that has one, in the document's order.
    pub(crate) kids: Vec<String>,
}

/// Why a document is refused.
#[derive(Debug)]
pub(crate) enum Refused {
    Json(JsonError),
    /// A bug: a parsed value can always be written as JSON.
    Serialise(serde_json::Error),
    NotAnObject,
    /// Its value.
    Issuer(String),
    /// The name of a member that is missing, or is not a string.
    NoString(&'static str),
    /// Its value.
    JwksUri(String),
    NoKeys,
    /// The index of the key.
    KeyWithoutType(usize),
    /// The index of the key.
    SymmetricKey(usize),
    /// The index of the key, and the name of the member.
    PrivateMember(usize, &'static str),
    /// Its length in bytes.
    TooLarge(usize),
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(out, "{error}"),
            Self::Serialise(error) => write!(out, "it cannot be serialised: {error}"),
            Self::NotAnObject => out.write_str("it is not a JSON object"),
            Self::Issuer(issuer) => {
                write!(out, "issuer {issuer:?} is not an https URL without query and fragment")
            }
            Self::NoString(member) => write!(out, "it has no string member {member}"),
            Self::JwksUri(uri) => write!(out, "jwks_uri {uri:?} is not an https URL"),
            Self::NoKeys => out.write_str("its member keys is not an array with at least one key"),
            Self::KeyWithoutType(at) => {
                write!(out, "keys[{at}] is not an object with a string kty")
            }
            Self::SymmetricKey(at) => write!(out, "keys[{at}] is a symmetric key (kty oct)"),
            Self::PrivateMember(at, member) => {
                write!(out, "keys[{at}] has {member:?}, a member of a private key")
            }
            Self::TooLarge(bytes) => {
                write!(out, "its {bytes} bytes exceed the limit of {MAX_SERVED_BYTES}")
            }
        }
    }
}

/// Checks a discovery document: an object with an https `issuer` and an https `jwks_uri`.
///
/// `OpenID` Connect Discovery 1.0 §3, except for the members that kube-apiserver leaves out, such
/// as `authorization_endpoint`.
pub(crate) fn check_discovery(bytes: &[u8]) -> Result<Discovery, Refused> {
    let value = json::parse(bytes).map_err(Refused::Json)?;
    let Value::Object(members) = value else { return Err(Refused::NotAnObject) };
    let issuer = string(&members, "issuer")?;
    let jwks_uri = string(&members, "jwks_uri")?;
    if issuer.contains(['?', '#']) || HttpsUrl::parse(&issuer).is_none() {
        return Err(Refused::Issuer(issuer));
    }
    if HttpsUrl::parse(&jwks_uri).is_none() {
        return Err(Refused::JwksUri(jwks_uri));
    }
    Ok(Discovery { members, issuer, jwks_uri })
}

fn string(members: &Map<String, Value>, name: &'static str) -> Result<String, Refused> {
    let value = members.get(name).and_then(Value::as_str);
    value.map(ToOwned::to_owned).ok_or(Refused::NoString(name))
}

/// Builds the published discovery document; `defaults` are added where upstream has no such member.
pub(crate) fn publish(
    discovery: Discovery,
    jwks_uri: &JwksUri,
    defaults: &Map<String, Value>,
) -> Result<Published, Refused> {
    let Discovery { mut members, issuer, jwks_uri: upstream_jwks_uri } = discovery;
    let Some(issuer_url) = HttpsUrl::parse(&issuer) else { return Err(Refused::Issuer(issuer)) };
    let issuer_path = issuer_url.path.strip_suffix('/').unwrap_or(&issuer_url.path).to_owned();
    let at_issuer = |uri: &str| HttpsUrl::parse(uri).filter(|uri| uri.same_origin(&issuer_url));

    let (jwks_uri, because) = match jwks_uri {
        JwksUri::Auto if at_issuer(&upstream_jwks_uri).is_some() => {
            (upstream_jwks_uri, "upstream's is at the issuer's scheme, host and port")
        }
        JwksUri::Auto => {
            let base = issuer.strip_suffix('/').unwrap_or(&issuer);
            let ours = format!("{base}{JWKS_PATH}");
            (ours, "upstream's is not at the issuer's scheme, host and port")
        }
        JwksUri::Upstream => (upstream_jwks_uri, "JWKS_URI is upstream"),
        JwksUri::Fixed(uri) => (uri.clone(), "JWKS_URI is this URL"),
    };
    // Replaced in place: members keep their order.
    members.insert("jwks_uri".to_owned(), Value::String(jwks_uri.clone()));
    for (name, value) in defaults {
        if !members.contains_key(name) {
            members.insert(name.clone(), value.clone());
        }
    }
    let jwks_path = at_issuer(&jwks_uri).map(|uri| uri.path);
    let internal_issuer = is_internal(&issuer_url.host);
    let value = Value::Object(members);
    Ok(Published { value, issuer, jwks_uri, because, issuer_path, jwks_path, internal_issuer })
}

/// Checks a key set: at least one key, each an object with a string `kty`, and all of them public.
///
/// RFC 7517 §4 and §5. An empty set is valid there; here it is refused, because with it every
/// relying party would reject every token.
pub(crate) fn check_jwks(bytes: &[u8]) -> Result<Jwks, Refused> {
    let value = json::parse(bytes).map_err(Refused::Json)?;
    let members = value.as_object().ok_or(Refused::NotAnObject)?;
    let keys = members.get("keys").and_then(Value::as_array).filter(|keys| !keys.is_empty());
    let mut kids = Vec::new();
    for (at, key) in keys.ok_or(Refused::NoKeys)?.iter().enumerate() {
        let kty = key.get("kty").and_then(Value::as_str).ok_or(Refused::KeyWithoutType(at))?;
        if kty == "oct" {
            return Err(Refused::SymmetricKey(at));
        }
        if let Some(member) = PRIVATE_MEMBERS.iter().find(|member| key.get(member).is_some()) {
            return Err(Refused::PrivateMember(at, member));
        }
        kids.extend(key.get("kid").and_then(Value::as_str).map(ToOwned::to_owned));
    }
    Ok(Jwks { value, kids })
}

/// The bytes to serve.
pub(crate) fn serialise(value: &Value, layout: Layout) -> Result<Vec<u8>, Refused> {
    let bytes = match layout {
        Layout::Pretty => serde_json::to_vec_pretty(value),
        Layout::Compact => serde_json::to_vec(value),
    };
    let bytes = bytes.map_err(Refused::Serialise)?;
    if bytes.len() > MAX_SERVED_BYTES { Err(Refused::TooLarge(bytes.len())) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = r#"{"kty":"EC","kid":"a","x":"1","y":"2"}"#;

    fn discovery_of(issuer: &str, jwks_uri: &str) -> String {
        format!(r#"{{"issuer":"{issuer}","jwks_uri":"{jwks_uri}","z":1,"a":[2]}}"#)
    }

    fn published(issuer: &str, jwks_uri: &str, policy: &JwksUri) -> Published {
        let valid = check_discovery(discovery_of(issuer, jwks_uri).as_bytes()).unwrap();
        publish(valid, policy, &Map::new()).unwrap()
    }

    #[test]
    fn a_discovery_document_that_is_not_valid_is_refused_with_its_mistake() {
        let no_json = "it is not JSON: ";
        let twice = "the member \"issuer\" appears twice in one object";
        let not_https = "is not an https URL";
        let not_an_issuer = "is not an https URL without query and fragment";
        for (document, expected) in [
            ("", no_json),
            ("<html>", no_json),
            ("[]", "it is not a JSON object"),
            ("\"text\"", "it is not a JSON object"),
            ("{}", "it has no string member issuer"),
            (r#"{"issuer":"https://a"}"#, "it has no string member jwks_uri"),
            (r#"{"jwks_uri":"https://a"}"#, "it has no string member issuer"),
            (r#"{"issuer":1,"jwks_uri":"https://a"}"#, "it has no string member issuer"),
            (r#"{"issuer":"https://a","jwks_uri":null}"#, "it has no string member jwks_uri"),
            (r#"{"issuer":"https://a","jwks_uri":"https://a/k"} x"#, no_json),
            (r#"{"issuer":"https://a","jwks_uri":"https://a/k""#, no_json),
            (r#"{"issuer":"https://a","jwks_uri":"https://a/k","issuer":"https://b"}"#, twice),
            (r#"{"issuer":"https://a","jwks_uri":"https://a/k","\u0069ssuer":"https://b"}"#, twice),
            (r#"{"issuer":"https://a","jwks_uri":"https://a/k","x":"\ud800"}"#, no_json),
            (&discovery_of("http://a", "https://a/k"), not_an_issuer),
            (&discovery_of("https://a?b", "https://a/k"), not_an_issuer),
            (&discovery_of("https://a/#b", "https://a/k"), not_an_issuer),
            (&discovery_of("https://user@a", "https://a/k"), not_an_issuer),
            (&discovery_of("https://", "https://a/k"), not_an_issuer),
            (
                &discovery_of("https://a", "http://a/k"),
                "jwks_uri \"http://a/k\" is not an https URL",
            ),
            (&discovery_of("https://a", "/k"), not_https),
            (&discovery_of("https://a", "https://a:+443/k"), not_https),
            (&discovery_of("https://a", "https://a:65536/k"), not_https),
            (&discovery_of("https://[2001:db8::1]", "https://[2001:db8::1]x443/k"), not_https),
        ] {
            let refused = check_discovery(document.as_bytes()).unwrap_err().to_string();
            // The end of an https URL's sentence says which member it is about.
            assert!(refused.starts_with(expected) || refused.ends_with(expected), "{refused}");
        }
        let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
        let deep = format!(r#"{{"issuer":"https://a","jwks_uri":"https://a/k","x":{deep}}}"#);
        assert!(matches!(check_discovery(deep.as_bytes()), Err(Refused::Json(_))));
        assert!(matches!(check_discovery(b"{\"issuer\":\"\xff\"}"), Err(Refused::Json(_))));
    }

    #[test]
    fn a_key_set_that_is_not_valid_is_refused_with_its_mistake() {
        for (set, expected) in [
            ("[]", "it is not a JSON object"),
            ("{}", "its member keys is not an array with at least one key"),
            (r#"{"keys":[]}"#, "its member keys is not an array with at least one key"),
            (r#"{"keys":{}}"#, "its member keys is not an array with at least one key"),
            (r#"{"keys":[1]}"#, "keys[0] is not an object with a string kty"),
            (r#"{"keys":[{}]}"#, "keys[0] is not an object with a string kty"),
            (r#"{"keys":[{"kty":1}]}"#, "keys[0] is not an object with a string kty"),
            (r#"{"keys":[{"kty":"oct"}]}"#, "keys[0] is a symmetric key (kty oct)"),
            (
                r#"{"keys":[{"kty":"EC","kid":"a","kid":"b"}]}"#,
                "the member \"kid\" appears twice in one object",
            ),
        ] {
            assert_eq!(check_jwks(set.as_bytes()).unwrap_err().to_string(), expected, "{set}");
        }
        for member in PRIVATE_MEMBERS {
            let set = format!(r#"{{"keys":[{KEY},{{"kty":"RSA","{member}":"1"}}]}}"#);
            let expected = format!("keys[1] has \"{member}\", a member of a private key");
            assert_eq!(check_jwks(set.as_bytes()).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn keys_of_a_type_that_is_not_known_yet_are_published() {
        let set = format!(r#"{{"keys":[{KEY},{{"kty":"AKP","alg":"ML-DSA-65","pub":"x"}}]}}"#);
        let valid = check_jwks(set.as_bytes()).unwrap();
        assert_eq!(valid.kids, ["a"]);
        assert_eq!(serialise(&valid.value, Layout::Compact).unwrap(), set.as_bytes());
    }

    #[test]
    fn the_layout_is_the_one_asked_for() {
        let value = json::parse(br#"{"z":1.10,"a":[]}"#).unwrap();
        assert_eq!(serialise(&value, Layout::Compact).unwrap(), br#"{"z":1.10,"a":[]}"#);
        assert_eq!(
            serialise(&value, Layout::Pretty).unwrap(),
            b"{\n  \"z\": 1.10,\n  \"a\": []\n}"
        );
    }

    #[test]
    fn what_is_too_large_to_serve_is_refused() {
        let value = Value::String("x".repeat(MAX_SERVED_BYTES));
        assert!(matches!(serialise(&value, Layout::Compact), Err(Refused::TooLarge(_))));
    }

    #[test]
    fn an_internal_jwks_uri_is_replaced_by_one_at_the_issuer() {
        for (issuer, expected) in [
            ("https://issuer.example", "https://issuer.example/openid/v1/jwks"),
            ("https://issuer.example/", "https://issuer.example/openid/v1/jwks"),
            ("https://issuer.example/c/1", "https://issuer.example/c/1/openid/v1/jwks"),
            ("https://issuer.example/c/1/", "https://issuer.example/c/1/openid/v1/jwks"),
            ("https://issuer.example:8443", "https://issuer.example:8443/openid/v1/jwks"),
        ] {
            let published =
                published(issuer, "https://10.0.0.1:6443/openid/v1/jwks", &JwksUri::Auto);
            assert_eq!(published.jwks_uri, expected);
            assert_eq!(published.issuer, issuer);
            assert_eq!(published.value.get("issuer").unwrap(), issuer);
            assert_eq!(published.value.get("jwks_uri").unwrap(), expected);
            let names: Vec<_> = published.value.as_object().unwrap().keys().collect();
            assert_eq!(names, ["issuer", "jwks_uri", "z", "a"]);
        }
    }

    #[test]
    fn upstreams_jwks_uri_is_kept_when_it_is_at_the_issuers_origin() {
        for (issuer, jwks_uri, path) in [
            ("https://issuer.example", "https://issuer.example/keys", "/keys"),
            ("https://issuer.example", "https://ISSUER.example:443/keys?a", "/keys"),
            ("https://issuer.example:443/a", "https://issuer.example", "/"),
            ("https://[2001:db8::1]", "https://[2001:db8::1]:443/k", "/k"),
        ] {
            let published = published(issuer, jwks_uri, &JwksUri::Auto);
            assert_eq!(published.jwks_uri, jwks_uri);
            assert_eq!(published.jwks_path.as_deref(), Some(path));
        }
    }

    #[test]
    fn a_jwks_uri_that_the_user_chose_is_published_wherever_it_points() {
        let fixed = JwksUri::Fixed("https://cdn.example/keys".to_owned());
        for (policy, expected, path) in [
            (&fixed, "https://cdn.example/keys", None),
            (&JwksUri::Upstream, "https://10.0.0.1:6443/k", None),
            (
                &JwksUri::Fixed("https://issuer.example/k2".to_owned()),
                "https://issuer.example/k2",
                Some("/k2"),
            ),
        ] {
            let published = published("https://issuer.example", "https://10.0.0.1:6443/k", policy);
            assert_eq!(published.jwks_uri, expected);
            assert_eq!(published.jwks_path.as_deref(), path);
        }
    }

    #[test]
    fn defaults_are_added_only_where_upstream_has_none() {
        let valid =
            check_discovery(discovery_of("https://a.example", "https://a.example/k").as_bytes());
        let Value::Object(defaults) =
            json::parse(br#"{"z":9,"claims_supported":["sub"]}"#).unwrap()
        else {
            panic!("no object");
        };
        let published = publish(valid.unwrap(), &JwksUri::Auto, &defaults).unwrap();
        assert_eq!(published.value.get("z").unwrap().to_string(), "1");
        assert_eq!(published.value.get("claims_supported").unwrap().to_string(), r#"["sub"]"#);
    }
}
