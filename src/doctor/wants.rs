//! Pure: what a relying party may want of an issuer, and when it looks for a new key.

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
    /// The key set by TLS 1.2, which is the newest that it has by default.
    Tls12,
    /// No `Content-Encoding` that it has not asked for.
    NoEncoding,
    /// A discovery document with a `Content-Type` of JSON.
    JsonDiscovery,
    /// A key set with a `Content-Type` of JSON.
    JsonKeySet,
    /// This member in the discovery document.
    Discovery(&'static str),
    /// Tokens of an algorithm that `id_token_signing_alg_values_supported` of the discovery document lists, or
    /// of these where there is no such member or the list is empty; of any where that is `None`.
    ListedAlgorithm { if_absent: Unlisted, if_empty: Unlisted },
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

/// The algorithms that stand in for a list; `None` is any.
pub(crate) type Unlisted = Option<&'static [&'static str]>;

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
    /// Its `use` is another than `sig`.
    OtherUse,
    /// Its `key_ops` lacks `verify`.
    OtherOps,
    /// Its `alg` is not the one that it signs with.
    OtherAlg,
    /// Its `alg` is not that of its curve.
    UnfitAlg,
    Twice,
    /// Another key of the same kid comes before it.
    Behind,
    /// The same, and both have the same type.
    BehindItsType,
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
            Self::OtherUse => "the use is not sig",
            Self::OtherOps => "the key_ops lack verify",
            Self::OtherAlg => "the alg is not the token's",
            Self::UnfitAlg => "the alg does not fit the curve",
            Self::Twice => "the same kid is there twice",
            Self::Behind | Self::BehindItsType => "another key of the same kid comes before it",
        }
    }

    pub(crate) const fn what_to_do(self) -> &'static str {
        match self {
            Self::UnknownType | Self::UnknownCurve | Self::P521 => {
                "Publish that key elsewhere, or update the relying party."
            }
            Self::RsaWithoutAlg
            | Self::EcWithoutAlg
            | Self::NullAlg
            | Self::OtherAlg
            | Self::UnfitAlg => "Publish the key with the alg that it signs with.",
            Self::BrokenX5c => "Publish the key without x5c.",
            Self::OtherUse | Self::OtherOps => {
                "Publish the key with \"use\": \"sig\", and without key_ops."
            }
            Self::Behind | Self::BehindItsType => "Give each key a kid of its own.",
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
