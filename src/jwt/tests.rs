use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
    RSA_PSS_SHA384, RSA_PSS_SHA512,
};
use serde_json::json;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode as _, Reader as _, SliceReader};

use super::*;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Header and claims, ready to be signed.
fn unsigned(algorithm: &str, claims: &Value) -> String {
    let header = json!({"alg": algorithm, "kid": "a"});
    format!("{}.{}", encode(header.to_string()), encode(claims.to_string()))
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, alg: &str, crv: &str) -> (String, Value) {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let unsigned = unsigned(alg, &json!({"iss": "https://a.example"}));
    let signature = pair.sign(&SystemRandom::new(), unsigned.as_bytes()).unwrap();
    let point = pair.public_key().as_ref().get(1..).unwrap();
    let (x, y) = point.split_at(point.len() / 2);
    let key = json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y)});
    (format!("{unsigned}.{}", encode(signature)), key)
}

fn rsa(alg: &str, encoding: &'static dyn aws_lc_rs::signature::RsaEncoding) -> (String, Value) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let unsigned = unsigned(alg, &json!({"iss": "https://a.example"}));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), unsigned.as_bytes(), &mut signature).unwrap();
    // RFC 8017 §A.1.1.
    let mut reader = SliceReader::new(pair.public_key().as_ref()).unwrap();
    let key = reader.sequence(|inside| {
        let [n, e] = [UintRef::decode(inside)?, UintRef::decode(inside)?];
        Ok(json!({"kty": "RSA", "n": encode(n.as_bytes()), "e": encode(e.as_bytes())}))
    });
    let key = key.unwrap();
    (format!("{unsigned}.{}", encode(signature)), key)
}

fn ed25519() -> (String, Value) {
    let pair = Ed25519KeyPair::generate().unwrap();
    let unsigned = unsigned("EdDSA", &json!({"iss": "https://a.example"}));
    let signature = pair.sign(unsigned.as_bytes());
    let key = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(pair.public_key())});
    (format!("{unsigned}.{}", encode(signature)), key)
}

#[test]
fn a_signature_is_valid_by_its_own_key_and_by_no_other() {
    let signed = [
        ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256"),
        ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384"),
        ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING, "ES512", "P-521"),
        rsa("RS256", &RSA_PKCS1_SHA256),
        rsa("RS384", &RSA_PKCS1_SHA384),
        rsa("RS512", &RSA_PKCS1_SHA512),
        rsa("PS256", &RSA_PSS_SHA256),
        rsa("PS384", &RSA_PSS_SHA384),
        rsa("PS512", &RSA_PSS_SHA512),
        ed25519(),
        // Another key of the same kind.
        ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256"),
        rsa("RS256", &RSA_PKCS1_SHA256),
    ];
    for (number, (token, _)) in signed.iter().enumerate() {
        let jwt = Jwt::parse(token).unwrap();
        for (other, (_, key)) in signed.iter().enumerate() {
            let expected = if number == other { Signature::Valid } else { Signature::Invalid };
            assert_eq!(jwt.signature(key), expected, "{number} {other}");
        }
        let (unsigned, signature) = token.rsplit_once('.').unwrap();
        let (_, key) = signed.get(number).unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        let forged = format!("{unsigned}.{}", encode(bytes));
        assert_eq!(Jwt::parse(&forged).unwrap().signature(key), Signature::Invalid, "{number}");
    }
}

#[test]
fn algorithms_that_the_library_lacks_are_unknown() {
    let signed = |alg: &str| format!("{}.c2ln", unsigned(alg, &json!({})));
    let short = json!({"kty": "RSA", "n": encode([255; 128]), "e": "AQAB"});
    let ed448 = json!({"kty": "OKP", "crv": "Ed448", "x": ""});
    for (alg, key, expected) in [
        ("ML-DSA-65", json!({"kty": "AKP", "pub": ""}), Signature::Unknown),
        ("HS256", json!({"kty": "oct"}), Signature::Unknown),
        ("none", json!({"kty": "EC"}), Signature::Unknown),
        ("RS256", short, Signature::Unknown),
        ("EdDSA", ed448, Signature::Unknown),
        ("RS256", json!({"kty": "RSA"}), Signature::Invalid),
        ("RS256", json!({"kty": "RSA", "n": "?", "e": "AQAB"}), Signature::Invalid),
        ("ES256", json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": 1}), Signature::Invalid),
        ("ES256", json!({"kty": "EC", "crv": "P-256", "x": "", "y": ""}), Signature::Invalid),
        ("ES256", json!({"kty": "EC", "crv": "P-384"}), Signature::Invalid),
    ] {
        let token = signed(alg);
        assert_eq!(Jwt::parse(&token).unwrap().signature(&key), expected, "{alg} {key}");
    }
    let long = json!({"kty": "EC", "crv": "P-256", "x": encode([1; 33]), "y": encode([1; 32])});
    let token = signed("ES256");
    assert_eq!(Jwt::parse(&token).unwrap().signature(&long), Signature::Invalid);
    let without = format!("{}.e30.c2ln", encode("{}"));
    assert_eq!(Jwt::parse(&without).unwrap().signature(&long), Signature::Invalid);
}

#[test]
fn only_three_parts_with_objects_are_a_token() {
    for token in [
        "",
        ".",
        "..",
        "...",
        "opaque",
        "e30.e30",
        "e30.e30.c2ln.x",
        "e30.W10.c2ln",
        "W10.e30.c2ln",
        "e30.e30.c2ln=",
        "e30.e30.?",
        "e30=.e30.c2ln",
        "MQ.e30.c2ln",
    ] {
        assert!(Jwt::parse(token).is_none(), "{token}");
    }
    let twice = format!("e30.{}.c2ln", encode(r#"{"iss":"a","iss":"b"}"#));
    assert!(Jwt::parse(&twice).is_none());
    assert!(Jwt::parse("e30.e30.").is_some());
}

#[test]
fn claims_are_read_as_they_are() {
    for (claims, issuer, issued_at) in [
        (r#"{"iss":"https://a","iat":5}"#, Some("https://a"), Some(5)),
        (r#"{"iat":5.9}"#, None, Some(5)),
        (r#"{"iss":1,"iat":-5}"#, None, None),
        (r#"{"iat":"5"}"#, None, None),
        (r#"{"iat":1e400}"#, None, None),
        (r#"{"iat":18446744073709551615}"#, None, Some(u64::MAX)),
    ] {
        let token = format!("e30.{}.c2ln", encode(claims));
        let jwt = Jwt::parse(&token).unwrap();
        assert_eq!(jwt.issuer(), issuer, "{claims}");
        assert_eq!(jwt.issued_at().map(|at| at.as_secs()), issued_at, "{claims}");
        assert_eq!(jwt.kid(), None);
    }
}

#[test]
fn a_key_that_verifies_something_has_no_fault() {
    for (_, key) in [
        ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256"),
        ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384"),
        ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING, "ES512", "P-521"),
        rsa("RS256", &RSA_PKCS1_SHA256),
        ed25519(),
    ] {
        assert_eq!(key_fault(&key), None, "{key}");
    }
    let zero_in_front = |bytes: &[u8]| encode([&[0], bytes].concat());
    for key in [
        json!({"kty": "RSA", "n": zero_in_front(&[255; 256]), "e": zero_in_front(&[1, 0, 1])}),
        // 379 times the base point: x has 31 bytes, and some leave out its zero in front.
        json!({
            "kty": "EC", "crv": "P-256", "x": "VUOJSvPQDtfXQKvb11yWsGh3t4fbX3Dup4uQqNfACg",
            "y": "u0yFo9jqKe-q-iRAaRLdhNWxTcMr9lbvbGvVil2UP5I"
        }),
        // Of these nothing is known.
        json!({"kty": "OKP", "crv": "Ed448", "x": encode([1; 57])}),
        json!({"kty": "AKP", "pub": ""}),
        json!({}),
    ] {
        assert_eq!(key_fault(&key), None, "{key}");
    }
}

#[test]
fn a_key_that_cannot_verify_anything_is_told_why() {
    let rsa = |n: &[u8], e: &[u8]| json!({"kty": "RSA", "n": encode(n), "e": encode(e)});
    let ec = |curve: &str, x: &[u8], y: &[u8]| json!({"kty": "EC", "crv": curve, "x": encode(x), "y": encode(y)});
    let ed25519 = |x: &[u8]| json!({"kty": "OKP", "crv": "Ed25519", "x": encode(x)});
    let odd = [255; 256];
    let mut bits_2047 = odd;
    bits_2047[0] = 127;
    let mut even = odd;
    even[255] = 254;
    let not_coordinates = "its x and y are not coordinates of its curve in base64url";
    let not_32_bytes = "its x is not 32 bytes in base64url";
    for (key, expected) in [
        (json!({"kty": "RSA", "e": "AQAB"}), "its n and e are not numbers in base64url"),
        (
            json!({"kty": "RSA", "n": encode(odd), "e": "?"}),
            "its n and e are not numbers in base64url",
        ),
        (rsa(&bits_2047, &[3]), "it has 2047 bits; RSA keys must have 2048 at least"),
        (rsa(&[0; 256], &[3]), "it has 0 bits; RSA keys must have 2048 at least"),
        (rsa(&even, &[3]), "its n and e are no RSA key"),
        (rsa(&odd, &[2]), "its n and e are no RSA key"),
        (rsa(&odd, &[1]), "its n and e are no RSA key"),
        (rsa(&odd, &[]), "its n and e are no RSA key"),
        (ec("secp256k1", &[1; 32], &[1; 32]), "its curve secp256k1 is not known"),
        (ec("P-256", &[1; 33], &[1; 32]), not_coordinates),
        (json!({"kty": "EC", "crv": "P-256", "x": "?", "y": "?"}), not_coordinates),
        (ec("P-256", &[1; 32], &[1; 32]), "its point is not on its curve"),
        (ec("P-384", &[1; 48], &[1; 48]), "its point is not on its curve"),
        (ec("P-521", &[1; 66], &[1; 66]), "its point is not on its curve"),
        (ed25519(&[1; 31]), not_32_bytes),
        (ed25519(&[1; 33]), not_32_bytes),
        (json!({"kty": "OKP", "crv": "Ed25519"}), not_32_bytes),
    ] {
        assert_eq!(key_fault(&key).as_deref(), Some(expected), "{key}");
    }
}
