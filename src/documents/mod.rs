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
/// The longest key set that is indented, in bytes. Nimbus refuses one of more than 51,200.
pub(crate) const LARGE_KEY_SET: usize = 40_000;

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

impl Discovery {
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }
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
    /// In the place of `keys` there is `null`.
    members: Map<String, Value>,
    /// At least one.
    pub(crate) keys: Vec<Value>,
}

impl Jwks {
    /// The document with these keys.
    pub(crate) fn with_keys(&self, keys: Vec<Value>) -> Value {
        let mut members = self.members.clone();
        // Replaced in place: members keep their order.
        members.insert("keys".to_owned(), Value::Array(keys));
        Value::Object(members)
    }
}

/// The `kid` of a key that has one.
pub(crate) fn kid(key: &Value) -> Option<&str> {
    key.get("kid").and_then(Value::as_str)
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

/// Checks a discovery document: an object with an https `issuer` and a `jwks_uri`, which may be
/// unusable: it is mostly replaced.
///
/// `OpenID` Connect Discovery 1.0 §3, except for the members that kube-apiserver leaves out, such
/// as `authorization_endpoint`.
pub(crate) fn check_discovery(bytes: &[u8]) -> Result<Discovery, Refused> {
    let value = json::parse(bytes).map_err(Refused::Json)?;
    let Value::Object(members) = value else { return Err(Refused::NotAnObject) };
    let issuer = string(&members, "issuer")?;
    let jwks_uri = string(&members, "jwks_uri")?;
    if !is_issuer(&issuer) {
        return Err(Refused::Issuer(issuer));
    }
    Ok(Discovery { members, issuer, jwks_uri })
}

/// Whether it is an https URL without query and fragment: `OpenID` Connect Discovery 1.0 §3.
pub(crate) fn is_issuer(text: &str) -> bool {
    !text.contains(['?', '#']) && HttpsUrl::parse(text).is_some()
}

fn string(members: &Map<String, Value>, name: &'static str) -> Result<String, Refused> {
    let value = members.get(name).and_then(Value::as_str);
    value.map(ToOwned::to_owned).ok_or(Refused::NoString(name))
}

/// Builds the published discovery document; `defaults` are added where upstream has no such member.
/// An error if upstream's `jwks_uri` would be published and is not an https URL.
pub(crate) fn publish(
    discovery: Discovery,
    jwks_uri: &JwksUri,
    defaults: &Map<String, Value>,
) -> Result<Published, Refused> {
    let Discovery { mut members, issuer, jwks_uri: upstream_jwks_uri } = discovery;
    let Some(issuer_url) = HttpsUrl::parse(&issuer) else { return Err(Refused::Issuer(issuer)) };

    let (jwks_uri, because) = match jwks_uri {
        JwksUri::Auto if path_at(&issuer_url, &upstream_jwks_uri).is_some() => {
            (upstream_jwks_uri, "upstream's is at the issuer's scheme, host and port")
        }
        JwksUri::Auto => {
            let base = issuer.strip_suffix('/').unwrap_or(&issuer);
            let ours = format!("{base}{JWKS_PATH}");
            (ours, "upstream's is not at the issuer's scheme, host and port")
        }
        JwksUri::Upstream if HttpsUrl::parse(&upstream_jwks_uri).is_none() => {
            return Err(Refused::JwksUri(upstream_jwks_uri));
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
    let issuer_path = below(&issuer_url).to_owned();
    let jwks_path = path_at(&issuer_url, &jwks_uri);
    let internal_issuer = is_internal(&issuer_url.host);
    let value = Value::Object(members);
    Ok(Published { value, issuer, jwks_uri, because, issuer_path, jwks_path, internal_issuer })
}

/// The path of an issuer's URL without a slash at its end.
fn below(issuer: &HttpsUrl) -> &str {
    issuer.path.strip_suffix('/').unwrap_or(&issuer.path)
}

/// The path of `uri` if it has the issuer's origin.
fn path_at(issuer: &HttpsUrl, uri: &str) -> Option<String> {
    HttpsUrl::parse(uri).filter(|uri| uri.same_origin(issuer)).map(|uri| uri.path)
}

/// The paths of `issuer` and of a published `jwks_uri` as far as they are known before a discovery
/// document is: `None` for the first if it is no issuer, for the second if it depends on upstream.
pub(crate) fn known_paths(issuer: &str, jwks_uri: &JwksUri) -> (Option<String>, Option<String>) {
    let Some(issuer) = HttpsUrl::parse(issuer) else { return (None, None) };
    let jwks_path = match jwks_uri {
        JwksUri::Fixed(uri) => path_at(&issuer, uri),
        JwksUri::Auto | JwksUri::Upstream => None,
    };
    (Some(below(&issuer).to_owned()), jwks_path)
}

/// Checks a key set: at least one key, each an object with a string `kty`, and all of them public.
///
/// RFC 7517 §4 and §5. An empty set is valid there; here it is refused, because with it every
/// relying party would reject every token.
pub(crate) fn check_jwks(bytes: &[u8]) -> Result<Jwks, Refused> {
    let value = json::parse(bytes).map_err(Refused::Json)?;
    let Value::Object(mut members) = value else { return Err(Refused::NotAnObject) };
    let Some(Value::Array(keys)) = members.get_mut("keys").map(Value::take) else {
        return Err(Refused::NoKeys);
    };
    if keys.is_empty() {
        return Err(Refused::NoKeys);
    }
    for (at, key) in keys.iter().enumerate() {
        let kty = key.get("kty").and_then(Value::as_str).ok_or(Refused::KeyWithoutType(at))?;
        if kty == "oct" {
            return Err(Refused::SymmetricKey(at));
        }
        if let Some(member) = PRIVATE_MEMBERS.iter().find(|member| key.get(member).is_some()) {
            return Err(Refused::PrivateMember(at, member));
        }
    }
    Ok(Jwks { members, keys })
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

/// The bytes of a key set to serve, and whether it is so large that it is not indented.
pub(crate) fn serialise_keys(value: &Value, layout: Layout) -> Result<(Vec<u8>, bool), Refused> {
    let bytes = serialise(value, layout);
    match bytes {
        Ok(bytes) if bytes.len() <= LARGE_KEY_SET => Ok((bytes, false)),
        Ok(_) | Err(Refused::TooLarge(_)) => Ok((serialise(value, Layout::Compact)?, true)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
