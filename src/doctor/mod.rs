//! `doctor`: goes the way of an anonymous relying party, and says what each will refuse.
//!
//! It is a program of its own beside the server: it shares no state with it, and the server's code does not
//! change by it. What it found is a list of findings; only `reach`, `visit` and `inside` do input and output.
//!
//! Careful by itself: the gateway's token goes to `UPSTREAM_HOST` and nowhere else (`inside`), only https is
//! followed but for `--url`, no redirect is, bodies and times are bounded, and what is printed is escaped.

pub(crate) mod arguments;
mod chain;
mod documents;
mod finding;
mod forecast;
mod inside;
mod new_key;
mod reach;
pub(crate) mod relying_parties;
mod token;
mod visit;
mod wants;

use std::fs::File;
use std::io::{self, Read as _};
use std::mem;
use std::path::Path;
use std::time::SystemTime;

use rustls::RootCertStore;
use serde_json::Value;

use crate::config::{Config, Mistakes};
use crate::documents::{DISCOVERY_PATH, Kind};
use crate::upstream;
use crate::url::{HttpsUrl, is_internal, parts};
use arguments::Options;
use finding::Finding;
use forecast::{Forecast, Seen, Signer, Verdict};
use new_key::Caching;
use reach::reach;
use relying_parties::chosen;
use visit::{Answer, Server};
use wants::RelyingParty;

/// The longest file that `--ca` and `--token` may name, in bytes: all public CAs together have a fifth of it.
const MAX_FILE: u64 = 1 << 20;

/// What doctor has to say, and whether it is without failures.
pub(crate) struct Outcome {
    pub(crate) text: String,
    pub(crate) is_good: bool,
}

/// Runs all checks. `config` is that of the environment, for a run without issuer. An error is about usage: a
/// sentence.
pub(crate) fn run(options: &Options, config: Result<Config, Mistakes>) -> Result<Outcome, String> {
    let token = options.token.as_deref().map(|path| read("--token", path)).transpose()?;
    let token = token.map(|token| String::from_utf8_lossy(&token).into_owned());
    let roots = roots(options)?;
    let findings = match (&options.issuer, &options.url) {
        (None, None) => inside::findings(config, &options.relying_parties, |issuer| {
            outside(Some(issuer), options, &roots, token.as_deref())
        }),
        (issuer, _) => outside(issuer.as_deref(), options, &roots, token.as_deref()),
    };
    let is_good = finding::is_good(&findings);
    let text = if options.json { finding::json(&findings) } else { finding::text(&findings) };
    Ok(Outcome { text, is_good })
}

/// The bytes of a file, or of standard input for `-`.
fn read(option: &str, path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    // One byte more shows that the file is longer.
    let limit = MAX_FILE + 1;
    let read = if path.as_os_str() == "-" {
        io::stdin().take(limit).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    let length = read.map_err(|error| {
        format!("{option} is {path:?}: it must be a file that can be read: {error}")
    })?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_FILE) {
        return Err(format!("{option} is {path:?}: it must have at most {MAX_FILE} bytes"));
    }
    Ok(bytes)
}

/// The CAs of `--ca`, or the public ones.
fn roots(options: &Options) -> Result<RootCertStore, String> {
    let Some(path) = &options.ca else {
        return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
    };
    let roots = upstream::anchors(&read("--ca", path)?)
        .map_err(|error| format!("--ca is {path:?}: it must be CAs in PEM: {error}"))?;
    if roots.is_empty() {
        return Err(format!("--ca is {path:?}: none of its certificates says that it is a CA"));
    }
    Ok(roots)
}

/// Both documents as a relying party gets them.
struct Published {
    issuer: String,
    discovery: Value,
    discovery_answer: Answer,
    keys: Vec<Value>,
    keys_answer: Answer,
}

/// What a relying party outside the cluster sees of `issuer`; without one, of what `--url` has.
fn outside(
    issuer: Option<&str>,
    options: &Options,
    roots: &RootCertStore,
    token: Option<&str>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let Some(published) = published(issuer, options, roots, &mut findings) else {
        return findings;
    };
    let Published { issuer, discovery, discovery_answer, keys, keys_answer } = &published;
    findings.extend(documents::algorithms(discovery, keys));
    if let Some(token) = token {
        findings.extend(token::findings(token, issuer, keys, SystemTime::now()));
    }
    let signer = token.and_then(|token| token::signer(token, keys));
    let seen = Seen {
        // That another one was asked for is said before, once.
        issuer,
        discovery,
        discovery_answer: as_seen(discovery_answer),
        keys,
        keys_answer: as_seen(keys_answer),
        signer: signer.as_ref().map(|(at, alg)| Signer { at: *at, alg }),
    };
    let forecasts = forecast::forecast(&seen, &parties(options));
    if !options.is_in_pod() {
        let caching = Caching {
            max_age: keys_answer.cache_directive("max-age"),
            s_maxage: keys_answer.cache_directive("s-maxage"),
        };
        // One that refuses the key set gets no key out of it.
        let refuses = |name: &str| {
            forecasts.iter().any(|it| it.party == name && it.verdict == Verdict::Refuses)
        };
        let mut others = parties(options);
        others.retain(|party| !refuses(party.name));
        if !others.is_empty() {
            let each = !options.relying_parties.is_empty();
            findings.extend(new_key::findings(None, &others, each, caching));
        }
    }
    findings.extend(foreseen(forecasts, options));
    findings
}

/// Asks for both documents; `None` when one of them is not there.
fn published(
    issuer: Option<&str>,
    options: &Options,
    roots: &RootCertStore,
    findings: &mut Vec<Finding>,
) -> Option<Published> {
    let has_issuer = issuer.is_some();
    let base = issuer.map_or("", |issuer| issuer.strip_suffix('/').unwrap_or(issuer));
    let asked = options.url.as_ref().map_or_else(
        || format!("{base}{DISCOVERY_PATH}"),
        |url| format!("{url}{}{DISCOVERY_PATH}", path_of(base)),
    );
    if options.url.is_none() && parts(&asked).is_some_and(|(_, host, _)| is_internal(&host)) {
        let says = format!("{base} cannot be reached from outside the cluster");
        let what_to_do = "give kube-apiserver a --service-account-issuer with a host that relying parties can \
                          reach; --url asks the gateway by another way";
        findings.push(Finding::failure("issuer", says, what_to_do));
    }
    let server = reach(&asked, options, roots, findings)?;
    let mut discovery_answer = fetch(&server, Kind::Discovery, &asked, options, findings)?;
    let (found, document) = documents::discovery(&mem::take(&mut discovery_answer.body), issuer);
    findings.extend(found);
    let (discovery, jwks_uri) = document?;

    let issuer = discovery.get("issuer").and_then(Value::as_str).unwrap_or_default().to_owned();
    let asked = match &options.url {
        Some(url) if same_origin(&issuer, &jwks_uri) => by_url(url, has_issuer, &jwks_uri),
        // It is asked where it is.
        Some(_) | None => jwks_uri,
    };
    if is_closed(&asked, options) {
        return None;
    }
    let same_server = parts(&asked).is_some_and(|(is_https, host, port)| {
        (is_https, host.as_str(), port) == (server.is_https, server.host.as_str(), server.port)
    });
    let server = if same_server { server } else { reach(&asked, options, roots, findings)? };
    let mut keys_answer = fetch(&server, Kind::Jwks, &asked, options, findings)?;
    let (found, keys) = documents::keys(&mem::take(&mut keys_answer.body));
    findings.extend(found);
    let head = server.request("HEAD", &asked, None);
    let etag = keys_answer.header("ETag");
    let again = etag.map(|etag| server.request("GET", &asked, Some(etag)));
    findings.extend(documents::conditional(
        &keys_answer,
        head.as_ref(),
        again.as_ref().map(Result::as_ref),
    ));
    Some(Published { issuer, discovery, discovery_answer, keys: keys?, keys_answer })
}

fn parties(options: &Options) -> Vec<&'static RelyingParty> {
    chosen(&options.relying_parties).collect()
}

fn accepts(party: &RelyingParty) -> Finding {
    let RelyingParty { name, product, version, measured, .. } = party;
    Finding::ok(
        name,
        match *measured {
            "documentation" => format!("{product}: nothing in its documentation is against it"),
            day => format!("{product} {version} accepts this, as measured on {day}"),
        },
    )
}

fn as_seen(answer: &Answer) -> forecast::Answer<'_> {
    forecast::Answer {
        content_type: answer.header("Content-Type"),
        // That of an error page says nothing about the document's.
        content_encoding: answer.header("Content-Encoding").filter(|_| answer.status == 200),
        redirect: matches!(answer.status, 301..=303 | 307 | 308).then_some(answer.status),
        has_tls_1_2: answer.has_tls_1_2,
        took: answer.took,
        bytes: answer.bytes,
    }
}

/// What each relying party will make of it. What one of those that were named refuses is a failure; of all that
/// there are, a cluster uses a few, so there it is a warning.
fn foreseen(forecasts: Vec<Forecast>, options: &Options) -> Vec<Finding> {
    let is_named = !options.relying_parties.is_empty();
    let mut findings = Vec::new();
    let mut accept = Vec::new();
    for Forecast { party, verdict, why, what_to_do } in forecasts {
        let why = why.trim_end_matches('.');
        match verdict {
            Verdict::Accepts if is_named => {
                findings.extend(relying_parties::named(party).map(accepts));
            }
            Verdict::Accepts => accept.push(party),
            Verdict::Refuses if is_named => {
                findings.push(Finding::failure(party, why, what_to_do));
            }
            Verdict::Refuses => {
                let why = format!("would refuse: {why}");
                findings.push(Finding::warning(party, why, what_to_do));
            }
            Verdict::Warns => findings.push(Finding::warning(party, why, what_to_do)),
        }
    }
    if !accept.is_empty() {
        let says = format!("nothing is known against it for {}", accept.join(", "));
        findings.push(Finding::ok("relying-party", says));
    }
    findings
}

/// The path of a URL, which is known to be one, with its query.
fn path_of(url: &str) -> String {
    let uri = url.parse::<http::Uri>().ok();
    let path =
        uri.and_then(|uri| uri.path_and_query().map(ToString::to_string)).unwrap_or_default();
    if path == "/" { String::new() } else { path }
}

fn same_origin(one: &str, other: &str) -> bool {
    let parse = HttpsUrl::parse;
    parse(one).zip(parse(other)).is_some_and(|(one, other)| one.same_origin(&other))
}

/// Where `--url` has the key set of `jwks_uri`. Without an issuer, a path of `--url` is the issuer's own, and
/// is in `jwks_uri` too.
fn by_url(url: &str, has_issuer: bool, jwks_uri: &str) -> String {
    let own_path = if has_issuer { String::new() } else { path_of(url) };
    let base = url.strip_suffix(own_path.as_str()).unwrap_or(url);
    format!("{base}{}", path_of(jwks_uri))
}

/// Whether a URL that a document names is inside a cluster or a private network, and nobody has said that it
/// may be asked: in a pod, a foreign document must not choose what is.
fn is_closed(url: &str, options: &Options) -> bool {
    let Some((_, host, port)) = parts(url) else { return true };
    let is_named = options.resolves.iter().any(|it| it.is_of(&host, port))
        || options
            .url
            .as_ref()
            .is_some_and(|given| parts(given).is_some_and(|(_, given, _)| given == host));
    is_internal(&host) && !is_named
}

/// GET; `None` when the answer cannot be the document.
fn fetch(
    server: &Server,
    kind: Kind,
    url: &str,
    options: &Options,
    findings: &mut Vec<Finding>,
) -> Option<Answer> {
    match server.request("GET", url, None) {
        Ok(answer) => {
            let (found, is_usable) = documents::answer(kind, &answer, options.url.is_none());
            findings.extend(found);
            if !is_usable {
                let unread = forecast::forecast_answer(kind, &as_seen(&answer), &parties(options));
                findings.extend(foreseen(unread, options));
            }
            is_usable.then_some(answer)
        }
        Err(error) => {
            let what_to_do =
                "see what answers there: it must be HTTP, with at most a megabyte, in 15 s";
            findings.push(Finding::failure(kind.name(), format!("{url}: {error}"), what_to_do));
            None
        }
    }
}
