//! Pure: what relying parties are known to want of an issuer, and how soon they see a new key.
//!
//! Each was run with its default settings and the version beside it; `tests/doctor/forecasts`
//! compares most of this with the real thing. `documentation` stands where the vendor's word was
//! taken for it. What is not known is left out: no want means that nothing was refused, or that
//! nobody has looked.

use std::time::Duration;

use crate::doctor::wants::{KeyTrait, Looks, RelyingParty, Spoils, Want};

const fn spoils_set(quality: KeyTrait) -> Want {
    Want::KeyWithout { quality, spoils: Spoils::Set, of: None }
}

const fn spoils_key(quality: KeyTrait) -> Want {
    Want::KeyWithout { quality, spoils: Spoils::Key, of: None }
}

const fn in_old(quality: KeyTrait, of: &'static str) -> Want {
    Want::KeyWithout { quality, spoils: Spoils::Set, of: Some(of) }
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const AT_ONCE: Looks = Looks::AtOnce { cool_down: secs(0) };
/// The day of the measurements.
const MEASURED: &str = "2026-11-28";
const DOCUMENTATION: &str = "documentation";
/// Java's `HttpURLConnection` does not follow it.
const NO_308: Want = Want::NoRedirect(&[308]);

/// Nimbus's default, which Spring takes over for both documents.
const NIMBUS: Duration = Duration::from_millis(500);

/// A relying party of which nothing is known but its name; for the tables below.
const NOBODY: RelyingParty = RelyingParty {
    name: "",
    product: "",
    version: "",
    measured: MEASURED,
    reads_discovery: false,
    looks: Looks::Unknown,
    stale_look: None,
    wants: &[],
};

/// All of them, in the order of the output: services, then servers, then libraries.
pub(crate) const RELYING_PARTIES: &[RelyingParty] = &[
    RelyingParty {
        name: "aws",
        product: "AWS IAM",
        version: "(its documentation)",
        measured: DOCUMENTATION,
        reads_discovery: true,
        wants: &[
            Want::NoPortNoQuery,
            Want::Algorithms(&["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]),
            Want::AtMost(100, "RSA"),
            Want::AtMost(100, "EC"),
            Want::DiscoveryWithin(secs(5)),
            Want::KeySetWithin(secs(5)),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "gcp",
        product: "Google Cloud",
        version: "(its documentation)",
        measured: DOCUMENTATION,
        reads_discovery: true,
        wants: &[Want::KeyTypes(&["RSA", "EC"])],
        ..NOBODY
    },
    RelyingParty {
        name: "azure",
        product: "Microsoft Entra",
        version: "(its documentation)",
        measured: DOCUMENTATION,
        reads_discovery: true,
        wants: &[Want::Algorithms(&["RS256"]), Want::FirstKeys(100)],
        ..NOBODY
    },
    RelyingParty {
        name: "vault",
        product: "Vault (hashicorp/cap)",
        version: "0.15",
        reads_discovery: true,
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[spoils_set(KeyTrait::UnknownCurve), spoils_set(KeyTrait::BrokenX5c)],
        ..NOBODY
    },
    RelyingParty {
        name: "kubernetes",
        product: "kube-apiserver",
        version: "1.37.2",
        reads_discovery: true,
        looks: Looks::AfterMaxAge { less: secs(30) },
        stale_look: Some(secs(1)),
        wants: &[
            spoils_set(KeyTrait::UnknownType),
            spoils_set(KeyTrait::UnknownCurve),
            spoils_set(KeyTrait::BrokenX5c),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "istio",
        product: "istiod",
        version: "(its documentation)",
        measured: DOCUMENTATION,
        looks: Looks::Every(secs(1200)),
        ..NOBODY
    },
    RelyingParty {
        name: "envoy",
        product: "Envoy jwt_authn",
        version: "1.40",
        measured: "2026-11-27",
        looks: Looks::Every(secs(600)),
        // TLS: by its documentation, tls_maximum_protocol_version of clients.
        wants: &[Want::NoRedirect(&[]), Want::Tls12],
        ..NOBODY
    },
    RelyingParty {
        name: "spring",
        product: "Spring Security NimbusJwtDecoder",
        version: "7.1.0",
        reads_discovery: true,
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[
            Want::JsonDiscovery,
            Want::DiscoveryWithin(NIMBUS),
            Want::KeySetWithin(NIMBUS),
            NO_308,
            Want::NoEncoding,
            spoils_set(KeyTrait::UnknownCurve),
            spoils_set(KeyTrait::BrokenX5c),
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherAlg),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "nimbus",
        product: "Nimbus JWKSourceBuilder",
        version: "10.9",
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[
            Want::KeySetBytes(51_200),
            Want::KeySetWithin(NIMBUS),
            NO_308,
            Want::NoEncoding,
            spoils_set(KeyTrait::UnknownCurve),
            spoils_set(KeyTrait::BrokenX5c),
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherAlg),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "kafka",
        product: "Kafka broker",
        version: "4.4",
        measured: "2026-11-27",
        looks: Looks::AfterFirstRefusal { by_itself: secs(3600) },
        stale_look: Some(secs(61)),
        wants: &[Want::KeySetBytes(524_288), NO_308, spoils_key(KeyTrait::BrokenX5c)],
        ..NOBODY
    },
    RelyingParty {
        name: "jose",
        product: "npm jose",
        version: "6.2",
        looks: Looks::AtOnce { cool_down: secs(30) },
        stale_look: Some(secs(30)),
        wants: &[
            Want::NoRedirect(&[]),
            Want::KeySetWithin(secs(5)),
            spoils_key(KeyTrait::NullAlg),
            spoils_key(KeyTrait::Twice),
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherOps),
            spoils_key(KeyTrait::OtherAlg),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "openid-client",
        product: "npm openid-client",
        version: "6.9",
        reads_discovery: true,
        looks: Looks::AtOnce { cool_down: secs(60) },
        stale_look: Some(secs(60)),
        wants: &[
            Want::NoRedirect(&[]),
            spoils_key(KeyTrait::NullAlg),
            spoils_key(KeyTrait::Twice),
            Want::ListedAlgorithm { if_absent: Some(&["RS256"]), if_empty: Some(&[]) },
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherOps),
            spoils_key(KeyTrait::OtherAlg),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "pyjwt",
        product: "PyJWT PyJWKClient",
        version: "2.15.1",
        looks: Looks::AtOnce { cool_down: secs(30) },
        stale_look: Some(secs(30)),
        wants: &[
            Want::NoRedirect(&[]),
            Want::NoEncoding,
            Want::KeySetWithin(secs(30)),
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherAlg),
            spoils_key(KeyTrait::Behind),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "authlib",
        product: "Authlib Flask client",
        version: "1.9.10",
        reads_discovery: true,
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[
            spoils_set(KeyTrait::UnknownCurve),
            spoils_set(KeyTrait::NullAlg),
            Want::ListedAlgorithm { if_absent: None, if_empty: None },
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherOps),
            spoils_key(KeyTrait::OtherAlg),
            spoils_key(KeyTrait::BehindItsType),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "go-oidc",
        product: "go-oidc",
        version: "3.21.0",
        reads_discovery: true,
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[
            spoils_set(KeyTrait::UnknownCurve),
            spoils_set(KeyTrait::BrokenX5c),
            Want::ListedAlgorithm { if_absent: Some(&["RS256"]), if_empty: Some(&["RS256"]) },
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "keyfunc",
        product: "MicahParks/keyfunc",
        version: "3.9.0",
        looks: AT_ONCE,
        stale_look: Some(secs(300)),
        wants: &[
            spoils_set(KeyTrait::BrokenX5c),
            spoils_key(KeyTrait::OtherAlg),
            spoils_key(KeyTrait::Behind),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "jwx",
        product: "lestrrat jwx jwk.Cache",
        version: "3.4.0",
        looks: Looks::EveryMaxAge { at_least: secs(900) },
        wants: &[
            Want::Keys(1000),
            spoils_set(KeyTrait::UnknownType),
            spoils_set(KeyTrait::UnknownCurve),
            spoils_set(KeyTrait::BrokenX5c),
            spoils_set(KeyTrait::NullAlg),
            spoils_key(KeyTrait::RsaWithoutAlg),
            spoils_key(KeyTrait::EcWithoutAlg),
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherAlg),
            spoils_key(KeyTrait::Behind),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "aws-jwt-verify",
        product: "npm aws-jwt-verify",
        version: "5.2.1",
        looks: AT_ONCE,
        stale_look: Some(secs(10)),
        wants: &[
            Want::NoRedirect(&[]),
            Want::NoEncoding,
            Want::KeySetWithin(secs(3)),
            spoils_set(KeyTrait::NullAlg),
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherAlg),
            spoils_key(KeyTrait::Behind),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "jose4j",
        product: "jose4j HttpsJwks",
        version: "0.9.6",
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[
            Want::KeySetBytes(524_288),
            NO_308,
            Want::NoEncoding,
            spoils_key(KeyTrait::BrokenX5c),
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherOps),
            spoils_key(KeyTrait::BehindItsType),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "auth0-java",
        product: "auth0 jwks-rsa (Java)",
        version: "0.24.1",
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[NO_308, Want::NoEncoding, spoils_key(KeyTrait::Behind)],
        ..NOBODY
    },
    RelyingParty {
        name: "jwks-rsa",
        product: "npm jwks-rsa",
        version: "4.1",
        looks: AT_ONCE,
        stale_look: Some(secs(2)),
        wants: &[
            Want::NoRedirect(&[]),
            Want::NoEncoding,
            Want::KeySetWithin(secs(30)),
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::UnfitAlg),
            spoils_key(KeyTrait::OtherOps),
            spoils_key(KeyTrait::Behind),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "openidconnect-rs",
        product: "openidconnect-rs",
        version: "4.1.0",
        reads_discovery: true,
        wants: &[
            Want::JsonDiscovery,
            Want::JsonKeySet,
            Want::NoEncoding,
            Want::Discovery("authorization_endpoint"),
            Want::Discovery("id_token_signing_alg_values_supported"),
            Want::Discovery("response_types_supported"),
            Want::Discovery("subject_types_supported"),
            spoils_key(KeyTrait::Twice),
            Want::ListedAlgorithm { if_absent: None, if_empty: Some(&[]) },
            spoils_key(KeyTrait::OtherUse),
            spoils_key(KeyTrait::OtherAlg),
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "jsonwebtoken",
        product: "jsonwebtoken",
        version: "11.1.0",
        wants: &[
            in_old(KeyTrait::UnknownType, "9 and 10"),
            in_old(KeyTrait::UnknownCurve, "9 and 10"),
            in_old(KeyTrait::P521, "9"),
            spoils_key(KeyTrait::Behind),
        ],
        ..NOBODY
    },
];

/// Those of these names, or all where there are none.
pub(crate) fn chosen(names: &[&'static str]) -> impl Iterator<Item = &'static RelyingParty> {
    let is_chosen = |party: &&RelyingParty| names.is_empty() || names.contains(&party.name);
    RELYING_PARTIES.iter().filter(is_chosen)
}

/// The relying party that is called `name` on the command line.
pub(crate) fn named(name: &str) -> Option<&'static RelyingParty> {
    RELYING_PARTIES.iter().find(|party| party.name == name)
}
