//! Pure: a key set as Google Cloud takes it for a workload identity provider.
//!
//! Its documentation of `oidc.jwksJson`, which `--jwk-json-path` of gcloud sends: RSA and EC keys are
//! supported, and a key must have only `kty`, `alg`, `use`, `kid`, `n`, `e`, `x`, `y` and `crv`. Its page on
//! workload identity federation with other providers: 8 keys at most. Whether a key that lacks `alg`, `use`
//! or `kid` is taken, and which curves are, neither says: such keys are kept.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::documents::kid;

/// The file in the folder.
pub(super) const FILE: &str = "jwks.json";
const MOST_KEYS: usize = 8;

/// A key set for Google Cloud.
#[derive(Debug)]
pub(super) struct KeySet {
    pub(super) value: Value,
    /// The `kid`s, or the types, of keys that are neither RSA nor EC.
    pub(super) left_out: Vec<String>,
}

/// Why there is no such key set.
#[derive(Debug)]
pub(crate) enum Refused {
    NoKeys,
    /// How many RSA and EC keys there are.
    TooMany(usize),
    /// What names the key, and the member that is missing or no string.
    Lacks(String, &'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoKeys => out.write_str("no key is RSA or EC, and Google Cloud takes no others"),
            Self::TooMany(keys) => write!(
                out,
                "{keys} keys are RSA or EC, and Google Cloud takes {MOST_KEYS}: remove old ones from \
                 kube-apiserver's --service-account-key-file"
            ),
            Self::Lacks(key, member) => {
                write!(out, "the key {key:?} has no string member {member}")
            }
        }
    }
}

/// The RSA and EC keys with the members that Google Cloud takes, in the order of its documentation.
pub(super) fn key_set(keys: &[Value]) -> Result<KeySet, Refused> {
    let (mut taken, mut left_out) = (Vec::new(), Vec::new());
    for key in keys {
        let kty = key.get("kty").and_then(Value::as_str).unwrap_or_default();
        let name = kid(key).unwrap_or(kty);
        let numbers: &[&'static str] = match kty {
            "RSA" => &["n", "e"],
            "EC" => &["crv", "x", "y"],
            _ => {
                left_out.push(name.to_owned());
                continue;
            }
        };
        let mut members = Map::new();
        for member in ["kty", "alg", "use", "kid"] {
            if let Some(value) = key.get(member).filter(|value| value.is_string()) {
                members.insert(member.to_owned(), value.clone());
            }
        }
        for &member in numbers {
            let value = key.get(member).filter(|value| value.is_string());
            let value = value.ok_or_else(|| Refused::Lacks(name.to_owned(), member))?;
            members.insert(member.to_owned(), value.clone());
        }
        taken.push(Value::Object(members));
    }
    if taken.is_empty() {
        return Err(Refused::NoKeys);
    }
    if taken.len() > MOST_KEYS {
        return Err(Refused::TooMany(taken.len()));
    }
    Ok(KeySet { value: json!({ "keys": taken }), left_out })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_members_that_google_takes_are_left() {
        let keys = [
            json!({ "use": "sig", "kty": "RSA", "kid": "a", "alg": "RS256", "n": "AQ", "e": "AQAB",
                    "x5t": "b", "key_ops": ["verify"], "x": "of no RSA key" }),
            json!({ "x": "c", "y": "d", "crv": "P-256", "kty": "EC", "kid": 5, "n": "of no EC key" }),
            json!({ "kty": "AKP", "kid": "e", "alg": "ML-DSA-65", "pub": "f" }),
            json!({ "kty": "OKP" }),
        ];

        let KeySet { value, left_out } = key_set(&keys).unwrap();

        let expected = concat!(
            r#"{"keys":[{"kty":"RSA","alg":"RS256","use":"sig","kid":"a","n":"AQ","e":"AQAB"},"#,
            r#"{"kty":"EC","crv":"P-256","x":"c","y":"d"}]}"#,
        );
        assert_eq!(value.to_string(), expected);
        assert_eq!(left_out, ["e", "OKP"]);
    }

    #[test]
    fn a_set_without_a_key_that_google_can_use_is_refused() {
        for (key, expected) in [
            (json!({ "kty": "AKP" }), "no key is RSA or EC, and Google Cloud takes no others"),
            (json!({ "kty": "RSA", "n": "a" }), "the key \"RSA\" has no string member e"),
            (
                json!({ "kty": "EC", "kid": "b", "crv": 5 }),
                "the key \"b\" has no string member crv",
            ),
        ] {
            assert_eq!(key_set(&[key]).unwrap_err().to_string(), expected);
        }
        let key = json!({ "kty": "RSA", "n": "a", "e": "b" });
        assert!(key_set(&vec![key.clone(); 8]).is_ok());
        let refused = key_set(&vec![key; 9]).unwrap_err().to_string();
        assert!(
            refused.starts_with("9 keys are RSA or EC, and Google Cloud takes 8: "),
            "{refused}"
        );
    }
}
