//! Pure: JSON Web Tokens in their compact form, and whether a key of a key set has signed one.
//!
//! RFC 7515 §3.1 and §5.2, RFC 7518 §3 and §6. This does not make a token valid: neither audience nor
//! time is looked at. Invariant: nothing here shows a token, so there is no `Debug`.

use std::time::Duration;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::json;

/// The shortest modulus of RSA that the library accepts, in bytes.
const MIN_MODULUS: usize = 256;

/// A token, taken apart.
pub(crate) struct Jwt<'a> {
    header: Value,
    claims: Value,
    /// What is signed: header, point, claims, as they came.
    signed: &'a str,
    signature: Vec<u8>,
}

/// Whether a key has signed a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signature {
    Valid,
    Invalid,
    /// The library does not have this algorithm.
    Unknown,
}

impl<'a> Jwt<'a> {
    /// `None` for what is not three parts, of which the first two are JSON objects.
    pub(crate) fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let object = |part| json::parse(&decode(part)?).ok().filter(Value::is_object);
        let signature = decode(signature)?;
        Some(Self { header: object(header)?, claims: object(claims)?, signed, signature })
    }

    pub(crate) fn kid(&self) -> Option<&str> {
        self.header.get("kid")?.as_str()
    }

    pub(crate) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// `alg` of the header.
    pub(crate) fn algorithm(&self) -> Option<&str> {
        self.header.get("alg")?.as_str()
    }

    /// A claim that is a `NumericDate` (RFC 7519 §2), since the epoch, without its fraction; `Some(None)`: it is
    /// there and is none.
    pub(crate) fn date(&self, name: &str) -> Option<Option<Duration>> {
        let value = self.claims.get(name)?;
        let whole = value.as_u64().map(Duration::from_secs);
        Some(whole.or_else(|| Duration::try_from_secs_f64(value.as_f64()?.floor()).ok()))
    }

    pub(crate) fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    /// Since the epoch; a fraction is left out.
    pub(crate) fn issued_at(&self) -> Option<Duration> {
        self.date("iat")?
    }

    /// Whether `key`, a JWK, has signed it by the algorithm that it names.
    pub(crate) fn signature(&self, key: &Value) -> Signature {
        let Some(algorithm) = self.header.get("alg").and_then(Value::as_str) else {
            return Signature::Invalid;
        };
        let verified = match algorithm {
            "RS256" => self.is_rsa(key, &RSA_PKCS1_2048_8192_SHA256),
            "RS384" => self.is_rsa(key, &RSA_PKCS1_2048_8192_SHA384),
            "RS512" => self.is_rsa(key, &RSA_PKCS1_2048_8192_SHA512),
            "PS256" => self.is_rsa(key, &RSA_PSS_2048_8192_SHA256),
            "PS384" => self.is_rsa(key, &RSA_PSS_2048_8192_SHA384),
            "PS512" => self.is_rsa(key, &RSA_PSS_2048_8192_SHA512),
            "ES256" => self.is_ecdsa(key, "P-256", 32, &ECDSA_P256_SHA256_FIXED),
            "ES384" => self.is_ecdsa(key, "P-384", 48, &ECDSA_P384_SHA384_FIXED),
            "ES512" => self.is_ecdsa(key, "P-521", 66, &ECDSA_P521_SHA512_FIXED),
            "EdDSA" | "Ed25519" => self.is_ed25519(key),
            _ => return Signature::Unknown,
        };
        verified.unwrap_or(Signature::Invalid)
    }

    /// `None`: it is no such key.
    fn is_rsa(&self, key: &Value, parameters: &'static RsaParameters) -> Option<Signature> {
        of_type(key, "RSA")?;
        let [n, e] = [member(key, "n")?, member(key, "e")?];
        let [n, e] = [without_zeros(&n), without_zeros(&e)];
        if n.len() < MIN_MODULUS {
            return Some(Signature::Unknown);
        }
        let key = RsaPublicKeyComponents { n, e };
        Some(outcome(key.verify(parameters, self.signed.as_bytes(), &self.signature).is_ok()))
    }

    fn is_ecdsa(
        &self,
        key: &Value,
        curve: &str,
        length: usize,
        algorithm: &'static dyn VerificationAlgorithm,
    ) -> Option<Signature> {
        of_type(key, "EC")?;
        of_curve(key, curve)?;
        Some(self.is_by(algorithm, &point(key, length)?))
    }

    /// RFC 8037 §3.1, RFC 9864 §2.2.
    fn is_ed25519(&self, key: &Value) -> Option<Signature> {
        of_type(key, "OKP")?;
        if key.get("crv")?.as_str()? == "Ed448" {
            return Some(Signature::Unknown);
        }
        of_curve(key, "Ed25519")?;
        Some(self.is_by(&ED25519, &member(key, "x")?))
    }

    fn is_by(&self, algorithm: &'static dyn VerificationAlgorithm, key: &[u8]) -> Signature {
        let key = UnparsedPublicKey::new(algorithm, key);
        outcome(key.verify(self.signed.as_bytes(), &self.signature).is_ok())
    }
}

/// Why `key`, a JWK, cannot verify anything, as a sentence; `None`: it can, or its type is not known. Its own
/// rules: RFC 7518 §6.2.1 and §6.3.1, RFC 8037 §2.
pub(crate) fn key_fault(key: &Value) -> Option<String> {
    match key.get("kty").and_then(Value::as_str)? {
        "RSA" => rsa_fault(key),
        "EC" => {
            let curve = key.get("crv").and_then(Value::as_str).unwrap_or_default();
            let (length, algorithm) = match curve {
                "P-256" => (32, &ECDSA_P256_SHA256_FIXED),
                "P-384" => (48, &ECDSA_P384_SHA384_FIXED),
                "P-521" => (66, &ECDSA_P521_SHA512_FIXED),
                other => return Some(format!("its curve {other} is not known")),
            };
            let Some(point) = point(key, length) else {
                return Some(
                    "its x and y are not coordinates of its curve in base64url".to_owned(),
                );
            };
            let parsed = ParsedPublicKey::new(algorithm, point);
            parsed.is_err().then(|| "its point is not on its curve".to_owned())
        }
        "OKP" if key.get("crv").and_then(Value::as_str) == Some("Ed25519") => {
            let is_key = member(key, "x").is_some_and(|x| x.len() == 32);
            (!is_key).then(|| "its x is not 32 bytes in base64url".to_owned())
        }
        _ => None,
    }
}

fn rsa_fault(key: &Value) -> Option<String> {
    let (Some(n), Some(e)) = (member(key, "n"), member(key, "e")) else {
        return Some("its n and e are not numbers in base64url".to_owned());
    };
    let (n, e) = (without_zeros(&n), without_zeros(&e));
    let leading = n.first().map_or(0, |byte| byte.leading_zeros());
    let bits = 8 * n.len() - usize::try_from(leading).unwrap_or_default();
    if bits < 8 * MIN_MODULUS {
        return Some(format!("it has {bits} bits; RSA keys must have 2048 at least"));
    }
    let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
    (!is_odd(n) || !is_odd(e) || e == [1]).then(|| "its n and e are no RSA key".to_owned())
}

/// An uncompressed point: SEC 1 §2.3.3.
fn point(key: &Value, length: usize) -> Option<Vec<u8>> {
    let mut point = vec![4];
    for name in ["x", "y"] {
        let coordinate = member(key, name)?;
        let coordinate = without_zeros(&coordinate);
        point.resize(point.len() + length.checked_sub(coordinate.len())?, 0);
        point.extend_from_slice(coordinate);
    }
    Some(point)
}

const fn outcome(is_valid: bool) -> Signature {
    if is_valid { Signature::Valid } else { Signature::Invalid }
}

fn of_type(key: &Value, kty: &str) -> Option<()> {
    (key.get("kty")?.as_str()? == kty).then_some(())
}

fn of_curve(key: &Value, curve: &str) -> Option<()> {
    (key.get("crv")?.as_str()? == curve).then_some(())
}

/// The bytes of a member in base64url: RFC 7518 §2.
fn member(key: &Value, name: &str) -> Option<Vec<u8>> {
    decode(key.get(name)?.as_str()?)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn without_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests;
