//! `doctor`: goes the way of an anonymous relying party, and says what each will refuse.
//!
//! It is a program of its own beside the server: it shares no state with it, and the server's code does not
//! change by it. What it found is a list of findings; only `visit` and `inside` do input and output.
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
pub(crate) mod relying_parties;
mod token;
mod visit;
mod wants;

use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use crate::config::{Config, Mistakes};
use crate::documents::{DISCOVERY_PATH, Kind};
use crate::upstream;
use crate::url::{HttpsUrl, is_internal, parts};
use arguments::Options;
use finding::Finding;
use forecast::{Forecast, Seen, Signer, Verdict};
use relying_parties::chosen;
use visit::{Answer, Server, Trust};
use wants::RelyingParty;

/// The longest file that `--ca` and `--token` may name.
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
    let read = if path.as_os_str() == "-" {
        io::stdin().take(MAX_FILE).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
    };
    read.map_err(|error| {
        format!("{option} is {path:?}: it must be a file that can be read: {error}")
    })?;
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

/// What a relying party outside the cluster sees of `issuer`; without one, of what `--url` has.
fn outside(
    issuer: Option<&str>,
    options: &Options,
    roots: &RootCertStore,
    token: Option<&str>,
) -> Vec<Finding> {
    let base = issuer.map_or("", |issuer| issuer.strip_suffix('/').unwrap_or(issuer));
    let asked = options.url.as_ref().map_or_else(
        || format!("{base}{DISCOVERY_PATH}"),
        |url| format!("{url}{}{DISCOVERY_PATH}", path_of(base)),
    );
    let mut findings = Vec::new();
    if options.url.is_none() && parts(&asked).is_some_and(|(_, host, _)| is_internal(&host)) {
        let says = format!("{base} cannot be reached from outside the cluster");
        let what_to_do = "give kube-apiserver a --service-account-issuer with a host that relying parties can \
                          reach; --url asks the gateway by another way";
        findings.push(Finding::failure("issuer", says, what_to_do));
    }
    let Some(server) = reach(&asked, options, roots, &mut findings) else { return findings };
    let Some(got) = fetch(&server, Kind::Discovery, &asked, options, &mut findings) else {
        return findings;
    };
    let (found, document) = documents::discovery(&got.body, issuer);
    findings.extend(found);
    let Some((discovery, jwks_uri)) = document else { return findings };

    let published = discovery.get("issuer").and_then(Value::as_str).unwrap_or_default();
    let asked = match &options.url {
        Some(url) if same_origin(published, &jwks_uri) => by_url(url, issuer.is_some(), &jwks_uri),
        // It is asked where it is.
        Some(_) | None => jwks_uri,
    };
    if is_closed(&asked, options) {
        return findings;
    }
    let same_server = parts(&asked).is_some_and(|(is_https, host, port)| {
        (is_https, host.as_str(), port) == (server.is_https, server.host.as_str(), server.port)
    });
    let server = if same_server {
        server
    } else {
        let Some(server) = reach(&asked, options, roots, &mut findings) else { return findings };
        server
    };
    let Some(got_keys) = fetch(&server, Kind::Jwks, &asked, options, &mut findings) else {
        return findings;
    };
    let (found, keys) = documents::keys(&got_keys.body);
    findings.extend(found);
    let head = server.request("HEAD", &asked, None);
    let etag = got_keys.header("ETag");
    let again = etag.map(|etag| server.request("GET", &asked, Some(etag)));
    findings.extend(documents::conditional(
        &got_keys,
        head.as_ref(),
        again.as_ref().map(Result::as_ref),
    ));
    let Some(keys) = keys else { return findings };
    findings.extend(documents::algorithms(&discovery, &keys));
    if let Some(token) = token {
        findings.extend(token::findings(token, published, &keys, SystemTime::now()));
    }
    let signer = token.and_then(|token| token::signer(token, &keys));
    let seen = Seen {
        // That another one was asked for is said above, once.
        issuer: published,
        discovery: &discovery,
        discovery_answer: as_seen(&got),
        keys: &keys,
        keys_answer: as_seen(&got_keys),
        signer: signer.as_ref().map(|(at, alg)| Signer { at: *at, alg }),
    };
    findings.extend(foreseen(forecast::forecast(&seen, &parties(options)), options));
    findings
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
        took: answer.took,
        bytes: answer.body.len(),
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
    let is_named = options.resolves.iter().any(|it| it.host == host && it.port == port)
        || options
            .url
            .as_ref()
            .is_some_and(|given| parts(given).is_some_and(|(_, given, _)| given == host));
    is_internal(&host) && !is_named
}

/// Name, TCP and TLS of a URL's server; `None` when it cannot be asked.
fn reach(
    url: &str,
    options: &Options,
    roots: &RootCertStore,
    findings: &mut Vec<Finding>,
) -> Option<Server> {
    let Some((is_https, host, port)) = parts(url) else {
        let says = format!("{url} has no host");
        findings.push(Finding::failure("name", says, "it must be an https URL"));
        return None;
    };
    let addresses = match visit::resolve(&host, port, &options.resolves) {
        Ok(addresses) if !addresses.is_empty() => addresses,
        outcome => {
            let cause =
                outcome.err().map_or_else(|| "no address".to_owned(), |error| error.to_string());
            let what_to_do = if is_internal(&host) {
                "the name means something inside a cluster only: relying parties need a public one"
            } else {
                "publish an A or AAAA record for the host; --resolve tries without one"
            };
            findings.push(Finding::failure("name", format!("{host}: {cause}"), what_to_do));
            return None;
        }
    };
    let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let list = format!("{host} is {}", list.join(", "));
    let is_private = addresses.iter().all(|it| is_internal(&bracketed(it.ip().to_canonical())));
    findings.push(if is_private && options.resolves.is_empty() && options.url.is_none() {
        let what_to_do =
            "relying parties outside need a public address: look from there, or ask with --resolve";
        Finding::warning("name", format!("{list}, which nobody outside can reach"), what_to_do)
    } else {
        Finding::ok("name", list)
    });
    let trust = match Trust::new(roots.clone()) {
        Ok(trust) => Arc::new(trust),
        Err(error) => {
            findings.push(Finding::failure("tls", error, "give CAs by --ca"));
            return None;
        }
    };
    let mut server = Server::new(host, port, is_https, addresses, trust);
    connect(&mut server, findings).then_some(())?;
    if server.is_https && !secure(&server, roots, options.ca.is_some(), findings) {
        return None;
    }
    Some(server)
}

/// As a host of a URL.
fn bracketed(address: IpAddr) -> String {
    if address.is_ipv6() { format!("[{address}]") } else { address.to_string() }
}

/// Whether one of the addresses can be reached.
fn connect(server: &mut Server, findings: &mut Vec<Finding>) -> bool {
    let connected = server.connect();
    let reached: Vec<_> = connected.iter().filter(|(_, outcome)| outcome.is_ok()).collect();
    let is_reached = !reached.is_empty();
    for (address, outcome) in &connected {
        let Err(error) = outcome else { continue };
        let says = format!("{address}: {error}");
        findings.push(if is_reached {
            let what_to_do =
                "take the address out of DNS, or let it answer: relying parties that try it wait";
            Finding::warning("tcp", says, what_to_do)
        } else {
            let what_to_do =
                "let a load balancer or ingress listen there, and firewalls let it through";
            Finding::failure("tcp", says, what_to_do)
        });
    }
    if is_reached {
        findings.push(Finding::ok("tcp", format!("port {} answers", server.port)));
    }
    is_reached
}

/// Whether there is a version of TLS with a certificate that is trusted.
fn secure(
    server: &Server,
    roots: &RootCertStore,
    has_ca: bool,
    findings: &mut Vec<Finding>,
) -> bool {
    let versions = [("1.3", &TLS13), ("1.2", &TLS12)];
    let Some((first, others)) = server.addresses().split_first() else { return false };
    let outcomes = versions.map(|(name, version)| (name, server.handshake(*first, version)));
    let good: Vec<_> =
        outcomes.iter().filter(|(_, it)| it.is_ok()).map(|(name, _)| *name).collect();
    let refused = outcomes.iter().find_map(|(_, outcome)| outcome.as_ref().err());
    let shown = server.shown();
    if good.is_empty() {
        let cause = refused.map(ToString::to_string).unwrap_or_default();
        if shown.is_empty() {
            let what_to_do = "the port must speak TLS 1.2 or 1.3: see what answers there";
            findings.push(Finding::failure("tls", cause, what_to_do));
        } else {
            let now = SystemTime::now();
            findings.extend(chain::findings(&shown, Some(&cause), roots, has_ca, now));
        }
        return false;
    }
    if let [alone] = *good {
        let what_to_do =
            "turn on TLS 1.2 and 1.3: there are relying parties that have only one of them";
        findings.push(Finding::warning("tls", format!("{alone} alone"), what_to_do));
    } else {
        let says = format!("{} with AES-GCM or ChaCha20", good.join(" and "));
        findings.push(Finding::ok("tls", says));
    }
    findings.extend(chain::findings(&shown, None, roots, has_ca, SystemTime::now()));
    for address in others {
        let outcomes = versions.map(|(_, version)| server.handshake(*address, version));
        if let [Err(error), Err(_)] = outcomes {
            let what_to_do =
                "each address of the host must answer alike: relying parties take any of them";
            findings.push(Finding::failure("tls", format!("{address}: {error}"), what_to_do));
        }
    }
    true
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
