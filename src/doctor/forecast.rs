//! Pure: which relying parties accept what an issuer publishes.
//!
//! A forecast is made from both documents and how they were answered, and from what is known of
//! each relying party (`wants`, `relying_parties`). It says nothing about what is wrong for everybody, such
//! as a document that is not JSON. Of a redirect or a compressed answer there is no document, and
//! so a forecast of the answer alone. No network, no output: values from outside are cut to
//! [`LONGEST_VALUE`] characters, and are escaped by whoever prints them.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use serde_json::Value;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::doctor::wants::{KeyTrait, RelyingParty, Spoils, Unlisted, Want};
use crate::documents::{Kind, kid};

/// The longest value from outside in a sentence, in characters.
const LONGEST_VALUE: usize = 200;

/// How one of the documents was answered, to a request without `Accept-Encoding`.
pub(crate) struct Answer<'a> {
    pub(crate) content_type: Option<&'a str>,
    pub(crate) content_encoding: Option<&'a str>,
    /// The status, where it is a redirect.
    pub(crate) redirect: Option<u16>,
    /// Or the server was not asked by TLS.
    pub(crate) has_tls_1_2: bool,
    /// Until the last byte.
    pub(crate) took: Duration,
    /// Of the body, without its encoding.
    pub(crate) bytes: usize,
}

/// What was seen.
pub(crate) struct Seen<'a> {
    /// As the relying party is configured.
    pub(crate) issuer: &'a str,
    pub(crate) discovery: &'a Value,
    pub(crate) discovery_answer: Answer<'a>,
    pub(crate) keys: &'a [Value],
    pub(crate) keys_answer: Answer<'a>,
    /// From a token. Without it, a key that is refused is only a warning as long as there are
    /// others.
    pub(crate) signer: Option<Signer<'a>>,
}

/// The key that signs now.
pub(crate) struct Signer<'a> {
    /// Its place among the keys.
    pub(crate) at: usize,
    /// The token's, whatever the key says.
    pub(crate) alg: &'a str,
}

/// In the order of their weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    Accepts,
    /// Some tokens, older versions, or with no margin.
    Warns,
    /// Every token, or each of the key that signs now.
    Refuses,
}

/// One line of what was foreseen.
#[derive(Debug)]
pub(crate) struct Forecast {
    /// Its name on the command line.
    pub(crate) party: &'static str,
    pub(crate) verdict: Verdict,
    /// A sentence.
    pub(crate) why: String,
    /// A sentence; empty for [`Verdict::Accepts`].
    pub(crate) what_to_do: &'static str,
}

/// What each of `parties` will refuse, in their order; a line of its own for each reason, and one
/// that it accepts all for a party without any.
pub(crate) fn forecast(seen: &Seen<'_>, parties: &[&'static RelyingParty]) -> Vec<Forecast> {
    let keys: Vec<_> = traits_of(seen);
    let mut lines = Vec::new();
    for party in parties {
        let before = lines.len();
        let mut say = |(verdict, why, what_to_do)| {
            lines.push(Forecast { party: party.name, verdict, why, what_to_do });
        };
        if let Some(found) = another_issuer(seen) {
            say(found);
        }
        for want in party.wants {
            if let Some(found) = unmet(want, party, seen, &keys) {
                say(found);
            }
        }
        if lines.len() == before {
            let why = format!("{} {} accepts this.", party.product, party.version);
            let what_to_do = "";
            lines.push(Forecast { party: party.name, verdict: Verdict::Accepts, why, what_to_do });
        }
    }
    lines
}

/// Which of `parties` will refuse an answer that holds no document, a line for each reason. Those without a line
/// may read it.
pub(crate) fn forecast_answer(
    kind: Kind,
    answer: &Answer<'_>,
    parties: &[&'static RelyingParty],
) -> Vec<Forecast> {
    let is_asked = |party: &&&RelyingParty| kind == Kind::Jwks || party.reads_discovery;
    let name = match kind {
        Kind::Discovery => "discovery document",
        Kind::Jwks => "key set",
    };
    let mut lines = Vec::new();
    for party in parties.iter().filter(is_asked) {
        for want in party.wants {
            let unfit = if let Want::NoRedirect(statuses) = *want {
                redirected(answer, statuses)
            } else if matches!(want, Want::NoEncoding) {
                encoded(answer)
            } else {
                None
            };
            lines.extend(unfit.map(|(what, what_to_do)| {
                let why = format!("The {name} is {what}.");
                Forecast { party: party.name, verdict: Verdict::Refuses, why, what_to_do }
            }));
        }
    }
    lines
}

type Found = (Verdict, String, &'static str);

/// Measured with each: those that do not compare the document's issuer compare the token's `iss`,
/// which is the same.
fn another_issuer(seen: &Seen<'_>) -> Option<Found> {
    let published = seen.discovery.get("issuer").and_then(Value::as_str)?;
    (published != seen.issuer).then(|| {
        let why = format!(
            "It is configured with the issuer {}, and the document and the tokens say {}: they \
             must be the same, a slash at the end included.",
            cut(seen.issuer),
            cut(published)
        );
        (Verdict::Refuses, why, "Configure the relying party with the published issuer.")
    })
}

fn unmet(want: &Want, party: &RelyingParty, seen: &Seen<'_>, keys: &[Traits<'_>]) -> Option<Found> {
    match *want {
        Want::KeySetBytes(limit) => too_many(seen.keys_answer.bytes, "bytes", limit),
        Want::KeySetWithin(limit) => slow("key set", &seen.keys_answer, limit),
        Want::DiscoveryWithin(limit) => slow("discovery document", &seen.discovery_answer, limit),
        Want::Tls12 => (!seen.keys_answer.has_tls_1_2).then(|| {
            let why = "It has TLS 1.2 at most by default, and the key set's server does not.";
            let what_to_do =
                "Turn on TLS 1.2, or set tls_maximum_protocol_version in Envoy's cluster.";
            (Verdict::Refuses, why.to_owned(), what_to_do)
        }),
        // See `forecast_answer`.
        Want::NoRedirect(_) | Want::NoEncoding => None,
        Want::JsonDiscovery => not_json("discovery document", &seen.discovery_answer),
        Want::JsonKeySet => not_json("key set", &seen.keys_answer),
        Want::Discovery(member) => seen.discovery.get(member).is_none().then(|| {
            let why = format!("The discovery document has no {member}.");
            (Verdict::Refuses, why, "Add the member, with DISCOVERY_DEFAULTS at the gateway.")
        }),
        Want::Algorithms(accepted) => {
            let is_other = |key: &Traits<'_>| key.alg.is_some_and(|alg| !accepted.contains(&alg));
            let found: Vec<_> = keys.iter().filter(|key| is_other(key)).collect();
            let why = format!("It accepts {} only, not {}.", accepted.join(", "), named(&found));
            by_key(&found, seen, why, "Sign with an algorithm that it accepts.")
        }
        Want::ListedAlgorithm { if_absent, if_empty } => {
            not_listed(if_absent, if_empty, seen, keys)
        }
        Want::KeyTypes(accepted) => {
            let is_other = |key: &Traits<'_>| key.kty.is_none_or(|kty| !accepted.contains(&kty));
            let found: Vec<_> = keys.iter().filter(|key| is_other(key)).collect();
            let why =
                format!("It accepts {} keys only, not {}.", accepted.join(" and "), named(&found));
            by_key(&found, seen, why, "Sign with a key of a type that it accepts.")
        }
        Want::AtMost(limit, kty) => {
            let count = keys.iter().filter(|key| key.kty == Some(kty)).count();
            too_many(count, &format!("{kty} keys"), limit)
        }
        Want::Keys(limit) => too_many(keys.len(), "keys", limit),
        Want::FirstKeys(limit) => {
            let found: Vec<_> = keys.iter().skip(limit).collect();
            let why = format!("It reads the first {limit} keys, and so not {}.", named(&found));
            by_key(&found, seen, why, "Publish fewer keys.")
        }
        Want::NoPortNoQuery => port_or_query(seen.issuer),
        Want::KeyWithout { quality, spoils, of } => {
            let has_it = |key: &&Traits<'_>| key.found.contains(&quality);
            let found: Vec<_> = keys.iter().filter(has_it).collect();
            let which = of.map_or_else(|| "It".to_owned(), |of| format!("{} {of}", party.product));
            let (named, what) = (named(&found), quality.in_words());
            let (verdict, why, what_to_do) = match spoils {
                _ if found.is_empty() => return None,
                Spoils::Set => {
                    let why = format!("{which} refuses the whole key set for {named}: {what}.");
                    (Verdict::Refuses, why, quality.what_to_do())
                }
                Spoils::Key => {
                    let why = format!("{which} cannot use {named}: {what}.");
                    by_key(&found, seen, why, quality.what_to_do())?
                }
            };
            Some((if of.is_some() { Verdict::Warns } else { verdict }, why, what_to_do))
        }
    }
}

fn not_listed(
    if_absent: Unlisted,
    if_empty: Unlisted,
    seen: &Seen<'_>,
    keys: &[Traits<'_>],
) -> Option<Found> {
    let listed = seen.discovery.get("id_token_signing_alg_values_supported");
    let listed = listed.and_then(Value::as_array).map(Vec::as_slice);
    let accepts = |alg: &str| match listed {
        None => if_absent.is_none_or(|these| these.contains(&alg)),
        Some([]) => if_empty.is_none_or(|these| these.contains(&alg)),
        Some(listed) => listed.iter().any(|it| it == alg),
    };
    let is_other = |key: &&Traits<'_>| key.signs_with.is_some_and(|alg| !accepts(alg));
    let found: Vec<_> = keys.iter().filter(is_other).collect();
    let why = format!(
        "It accepts the algorithms of id_token_signing_alg_values_supported only, and that of {} is \
         not among them.",
        named(&found)
    );
    by_key(&found, seen, why, "List it in the discovery document.")
}

/// What an answer is that a relying party cannot read, and what to do about it.
type Unfit = Option<(String, &'static str)>;

fn redirected(answer: &Answer<'_>, statuses: &[u16]) -> Unfit {
    let status = answer.redirect.filter(|it| statuses.is_empty() || statuses.contains(it))?;
    let what = format!("behind a redirect ({status}), which it does not follow");
    Some((what, "Answer with the document itself."))
}

fn encoded(answer: &Answer<'_>) -> Unfit {
    let encoding = answer.content_encoding.filter(|it| *it != "identity")?;
    let what = format!("compressed ({}), which it did not ask for", cut(encoding));
    Some((what, "Do not compress for those who send no Accept-Encoding."))
}

fn port_or_query(issuer: &str) -> Option<Found> {
    let uri: Uri = issuer.parse().ok()?;
    let what = match uri.port() {
        Some(_) => "a port",
        None => uri.query().map(|_| "a query")?,
    };
    let why = format!("The issuer {} has {what}.", cut(issuer));
    Some((Verdict::Refuses, why, "Use an issuer without port and query."))
}

fn too_many(count: usize, what: &str, limit: usize) -> Option<Found> {
    (count > limit).then(|| {
        let why = format!("The key set has {count} {what}, and it takes {limit} at most.");
        (Verdict::Refuses, why, "Publish fewer keys, and without white space.")
    })
}

/// More than half of the limit is a warning: the relying party may be further away.
fn slow(name: &str, answer: &Answer<'_>, limit: Duration) -> Option<Found> {
    let verdict = if answer.took > limit { Verdict::Refuses } else { Verdict::Warns };
    (answer.took > limit / 2).then(|| {
        let took = answer.took;
        let why = format!("The {name} took {took:.1?}, and it waits {limit:?} at most.");
        (verdict, why, "Bring the answer nearer: a cache, or a gateway in the same region.")
    })
}

fn not_json(name: &str, answer: &Answer<'_>) -> Option<Found> {
    let media_type = answer.content_type.unwrap_or("none");
    (!is_json(media_type)).then(|| {
        let why = format!("The Content-Type of the {name} is {}.", cut(media_type));
        (Verdict::Refuses, why, "Serve it with the media type of JSON that it has.")
    })
}

/// A verdict on tokens of the keys in `found`, none of which the party accepts.
fn by_key(
    found: &[&Traits<'_>],
    seen: &Seen<'_>,
    why: String,
    what_to_do: &'static str,
) -> Option<Found> {
    let all = found.len() == seen.keys.len() || found.iter().any(|key| key.signs);
    let verdict = if all { Verdict::Refuses } else { Verdict::Warns };
    (!found.is_empty()).then_some((verdict, why, what_to_do))
}

/// `the key "a" (kty RSA, alg RS256)`, and how many more there are.
fn named(found: &[&Traits<'_>]) -> String {
    let Some(first) = found.first() else { return "any key".to_owned() };
    let kid = first.kid.map_or_else(|| "without kid".to_owned(), |kid| format!("{:?}", cut(kid)));
    let kty = cut(first.kty.unwrap_or("none"));
    let alg = first.alg.map(|alg| format!(", alg {}", cut(alg))).unwrap_or_default();
    // One that is listed twice is one key.
    let count = found.iter().filter(|key| key.kid.is_none() || key.kid != first.kid).count() + 1;
    match count {
        1 => format!("the key {kid} (kty {kty}{alg})"),
        count => format!("{count} keys, {kid} (kty {kty}{alg}) the first"),
    }
}

/// A key as far as it matters here.
struct Traits<'a> {
    kid: Option<&'a str>,
    kty: Option<&'a str>,
    /// From `alg`, else from the type of the key where that leaves one: RFC 7518 §3.1.
    alg: Option<&'a str>,
    /// It signs now.
    signs: bool,
    /// The algorithm of the token that it signed, or else its own.
    signs_with: Option<&'a str>,
    found: Vec<KeyTrait>,
}

fn traits_of<'a>(seen: &Seen<'a>) -> Vec<Traits<'a>> {
    let mut first_of_kid = HashMap::new();
    let mut of_kid_and_type = HashMap::<_, Vec<_>>::new();
    for key in seen.keys.iter().filter(|key| kid(key).is_some()) {
        first_of_kid.entry(kid(key)).or_insert(key);
        of_kid_and_type.entry((kid(key), member(key, "kty"))).or_default().push(key);
    }
    let is_behind = |key, first: Option<&&Value>| first.is_some_and(|first| !is_same(first, key));
    let traits = |(at, key)| {
        let its_alg = member(key, "alg").or_else(|| alg_of_type(key));
        let signer = seen.signer.as_ref().filter(|signer| signer.at == at);
        let signs_with = signer.map(|signer| signer.alg).or(its_alg);
        let mut found = found_in(key);
        let namesakes = of_kid_and_type.get(&(kid(key), member(key, "kty")));
        let namesakes = namesakes.map_or(&[][..], Vec::as_slice);
        for (quality, has_it) in [
            (KeyTrait::OtherAlg, its_alg.is_some() && its_alg != signs_with),
            (KeyTrait::Twice, namesakes.len() > 1),
            (KeyTrait::Behind, is_behind(key, first_of_kid.get(&kid(key)))),
            (KeyTrait::BehindItsType, is_behind(key, namesakes.first())),
        ] {
            found.extend(has_it.then_some(quality));
        }
        let (signs, kty) = (signer.is_some(), member(key, "kty"));
        Traits { kid: kid(key), kty, alg: its_alg, signs, signs_with, found }
    };
    seen.keys.iter().enumerate().map(traits).collect()
}

/// Whether both are the same public key, whatever is said about it.
fn is_same(one: &Value, other: &Value) -> bool {
    ["kty", "n", "e", "crv", "x", "y", "pub"].iter().all(|name| one.get(name) == other.get(name))
}

fn found_in(key: &Value) -> Vec<KeyTrait> {
    let (kty, crv) = (member(key, "kty"), member(key, "crv"));
    let is_ec = kty == Some("EC");
    let key_ops = key.get("key_ops").and_then(Value::as_array);
    let known = |crv| ["P-256", "P-384", "P-521", "secp256k1"].contains(&crv);
    let checks = [
        (KeyTrait::UnknownType, !matches!(kty, Some("RSA" | "EC" | "OKP" | "oct"))),
        (KeyTrait::UnknownCurve, is_ec && !crv.is_some_and(known)),
        (KeyTrait::P521, is_ec && crv == Some("P-521")),
        (KeyTrait::RsaWithoutAlg, kty == Some("RSA") && key.get("alg").is_none()),
        (KeyTrait::EcWithoutAlg, is_ec && key.get("alg").is_none()),
        (KeyTrait::NullAlg, key.get("alg").is_some_and(Value::is_null)),
        (
            KeyTrait::UnfitAlg,
            alg_of_type(key).zip(member(key, "alg")).is_some_and(|(its, alg)| its != alg),
        ),
        (KeyTrait::OtherUse, member(key, "use").is_some_and(|it| it != "sig")),
        (KeyTrait::OtherOps, key_ops.is_some_and(|it| !it.contains(&Value::from("verify")))),
        (KeyTrait::BrokenX5c, key.get("x5c").is_some_and(|chain| !is_chain(chain))),
    ];
    checks.into_iter().filter_map(|(quality, has_it)| has_it.then_some(quality)).collect()
}

fn member<'a>(key: &'a Value, name: &str) -> Option<&'a str> {
    key.get(name).and_then(Value::as_str)
}

fn alg_of_type(key: &Value) -> Option<&'static str> {
    match (member(key, "kty")?, member(key, "crv")) {
        ("EC", Some("P-256")) => Some("ES256"),
        ("EC", Some("P-384")) => Some("ES384"),
        ("EC", Some("P-521")) => Some("ES512"),
        _ => None,
    }
}

/// Whether it is an array of certificates in base64: RFC 7517 §4.7.
fn is_chain(chain: &Value) -> bool {
    let is_certificate = |it: &Value| {
        let der = it.as_str().and_then(|text| STANDARD.decode(text).ok());
        der.is_some_and(|der| Certificate::from_der(&der).is_ok())
    };
    chain.as_array().is_some_and(|chain| !chain.is_empty() && chain.iter().all(is_certificate))
}

/// `application/json`, or another type of JSON (RFC 6839 §3.1), with any parameters.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// A value from outside, for a sentence.
fn cut(value: &str) -> String {
    if value.chars().nth(LONGEST_VALUE).is_none() {
        return value.to_owned();
    }
    let kept: String = value.chars().take(LONGEST_VALUE - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests;
