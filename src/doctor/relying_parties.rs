//! Pure: what relying parties are known to want of an issuer, and how soon they see a new key.
//!
//! Each was run with its default settings and the version beside it; `tests/doctor/forecasts`
//! compares most of this with the real thing. `documentation` stands where the vendor's word was
//! taken for it. What is not known is left out: no want means that nothing was refused, or that
//! nobody has looked.

use std::time::Duration;

/// A relying party.
pub(crate) struct RelyingParty {
    /// On the command line and in the output.
    pub(crate) name: &'static str,
    /// As its makers write it.
    pub(crate) product: &'static str,
    pub(crate) version: &'static str,
    /// The day, or `documentation`.
    pub(crate) measured: &'static str,
    /// It follows the issuer to the key set by itself, and is not given the key set's address.
    pub(crate) reads_discovery: bool,
    pub(crate) looks: Looks,
    /// For how long it does not look again after a look for a new key that was not there yet;
    /// `None` where it is not known, or where it never looks because of a token.
    pub(crate) stale_look: Option<Duration>,
    pub(crate) wants: &'static [Want],
}

/// When it fetches the key set because a token has a kid that it does not know.
#[derive(Clone, Copy)]
pub(crate) enum Looks {
    /// At the first token, unless its last fetch is younger than `cool_down`.
    AtOnce { cool_down: Duration },
    /// Never: it does so by itself, this often.
    Every(Duration),
    /// Never: it does so by itself, every max-age, and not more often than `at_least`.
    EveryMaxAge { at_least: Duration },
    /// When max-age `less` this has passed since its last fetch; s-maxage stands above max-age.
    AfterMaxAge { less: Duration },
    /// After the first token, which it refuses; and by itself, this often.
    AfterFirstRefusal { by_itself: Duration },
    /// Not known.
    Unknown,
}

/// What it refuses all tokens, or some, without.
#[derive(Clone, Copy)]
pub(crate) enum Want {
    /// A key set of this many bytes at most.
    KeySetBytes(usize),
    /// The key set within this time.
    KeySetWithin(Duration),
    /// The discovery document within this time.
    DiscoveryWithin(Duration),
    /// No redirect with one of these statuses; with any, where there are none.
    NoRedirect(&'static [u16]),
    /// No `Content-Encoding` that it has not asked for.
    NoEncoding,
    /// A discovery document with a `Content-Type` of JSON.
    JsonDiscovery,
    /// A key set with a `Content-Type` of JSON.
    JsonKeySet,
    /// This member in the discovery document.
    Discovery(&'static str),
    /// Keys of these algorithms.
    Algorithms(&'static [&'static str]),
    /// Keys with one of these `kty`.
    KeyTypes(&'static [&'static str]),
    /// This many keys at most with this `kty`.
    AtMost(usize, &'static str),
    /// This many keys at most.
    Keys(usize),
    /// It reads only this many keys.
    FirstKeys(usize),
    /// An issuer without a port and a query.
    NoPortNoQuery,
    /// No key of this quality; with `of`, in these versions only, which are not the newest.
    KeyWithout { quality: KeyTrait, spoils: Spoils, of: Option<&'static str> },
}

/// What a key has that spoils it, or its key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyTrait {
    UnknownType,
    UnknownCurve,
    P521,
    RsaWithoutAlg,
    EcWithoutAlg,
    NullAlg,
    BrokenX5c,
    Twice,
}

impl KeyTrait {
    pub(crate) const fn in_words(self) -> &'static str {
        match self {
            Self::UnknownType => "it does not know the type",
            Self::UnknownCurve => "it does not know the curve",
            Self::P521 => "it does not know the curve P-521",
            Self::RsaWithoutAlg | Self::EcWithoutAlg => "there is no alg",
            Self::NullAlg => "the alg is null",
            Self::BrokenX5c => "the x5c is not a chain of certificates",
            Self::Twice => "the same kid is there twice",
        }
    }

    pub(crate) const fn what_to_do(self) -> &'static str {
        match self {
            Self::UnknownType | Self::UnknownCurve | Self::P521 => {
                "Publish that key elsewhere, or update the relying party."
            }
            Self::RsaWithoutAlg | Self::EcWithoutAlg | Self::NullAlg => {
                "Publish the key with the alg that it signs with."
            }
            Self::BrokenX5c => "Publish the key without x5c.",
            Self::Twice => "Publish the key once: it is in several of the API server's key files.",
        }
    }
}

/// What a key of some quality does.
#[derive(Clone, Copy)]
pub(crate) enum Spoils {
    /// No key of the set is accepted.
    Set,
    /// That key is not accepted.
    Key,
}

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
const MEASURED: &str = "2026-11-27";
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
        looks: Looks::Every(secs(600)),
        wants: &[Want::NoRedirect(&[])],
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
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "kafka",
        product: "Kafka broker",
        version: "4.4",
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
        wants: &[Want::NoRedirect(&[]), spoils_key(KeyTrait::NullAlg), spoils_key(KeyTrait::Twice)],
        ..NOBODY
    },
    RelyingParty {
        name: "pyjwt",
        product: "PyJWT PyJWKClient",
        version: "2.15.1",
        looks: Looks::AtOnce { cool_down: secs(30) },
        stale_look: Some(secs(30)),
        wants: &[Want::NoRedirect(&[]), Want::NoEncoding, Want::KeySetWithin(secs(30))],
        ..NOBODY
    },
    RelyingParty {
        name: "authlib",
        product: "Authlib Flask client",
        version: "1.9.10",
        reads_discovery: true,
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[spoils_set(KeyTrait::UnknownCurve), spoils_set(KeyTrait::NullAlg)],
        ..NOBODY
    },
    RelyingParty {
        name: "go-oidc",
        product: "go-oidc",
        version: "3.21.0",
        reads_discovery: true,
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[spoils_set(KeyTrait::UnknownCurve), spoils_set(KeyTrait::BrokenX5c)],
        ..NOBODY
    },
    RelyingParty {
        name: "keyfunc",
        product: "MicahParks/keyfunc",
        version: "3.9.0",
        looks: AT_ONCE,
        stale_look: Some(secs(300)),
        wants: &[spoils_set(KeyTrait::BrokenX5c)],
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
        ],
        ..NOBODY
    },
    RelyingParty {
        name: "auth0-java",
        product: "auth0 jwks-rsa (Java)",
        version: "0.24.1",
        looks: AT_ONCE,
        stale_look: Some(secs(1)),
        wants: &[NO_308, Want::NoEncoding],
        ..NOBODY
    },
    RelyingParty {
        name: "jwks-rsa",
        product: "npm jwks-rsa",
        version: "4.1",
        looks: AT_ONCE,
        stale_look: Some(secs(2)),
        wants: &[Want::NoRedirect(&[]), Want::NoEncoding, Want::KeySetWithin(secs(30))],
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
