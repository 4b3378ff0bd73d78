//! What doctor checks in the gateway's pod: token, CA and API server, by the settings of the environment.
//!
//! Invariant: the token goes to `UPSTREAM_HOST` alone.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::finding::{Finding, Level};
use super::new_key::{self, Caching, Served};
use super::relying_parties::chosen;
use super::token;
use crate::config::{Config, Mistakes};
use crate::documents::{self, Kind};
use crate::reason::Reason;
use crate::upstream::{Settings, Upstream};

/// For `/status` of the gateway beside it.
const STATUS: Duration = Duration::from_secs(3);

/// Findings about the inside, then those of `outside` for the issuer that upstream has.
pub(super) fn findings(
    config: Result<Config, Mistakes>,
    names: &[&'static str],
    outside: impl FnOnce(&str) -> Vec<Finding>,
) -> Vec<Finding> {
    let config = match config {
        Ok(config) => config,
        Err(mistakes) => {
            let failure = |sentence| Finding::failure("settings", sentence, "see --help");
            return mistakes.sentences.into_iter().map(failure).collect();
        }
    };
    let mut findings = vec![Finding::ok("settings", "can be used, and both files can be read")];
    let caching =
        Caching { max_age: Some(config.client_cache_ttl), s_maxage: Some(config.shared_cache_ttl) };
    let admin = config.admin_port.map(|port| (config.admin_addr, port));
    let issuer = api_server(config, &mut findings);
    if let Some((address, port)) = admin {
        match status(address, port) {
            Ok(status) => {
                findings.extend(problems(&status));
                findings.extend(keys_by_now(&status, names, caching));
            }
            Err(finding) => findings.push(finding),
        }
    }
    if let Some(issuer) = issuer {
        findings.extend(outside(&issuer).into_iter().map(as_seen_from_here));
    }
    findings
}

/// Asks the API server as the gateway does; the issuer that it has. The documents are gone when it returns: those
/// from outside come next, and take as much memory.
fn api_server(config: Config, findings: &mut Vec<Finding>) -> Option<String> {
    let expected = config.issuer;
    let upstream = Upstream::new(Settings {
        base: config.upstream_host,
        address: config.upstream_address,
        timeout: config.upstream_timeout,
        token_path: config.token_path,
        ca_path: config.ca_path,
    });
    let mut upstream = match upstream {
        Ok(upstream) => upstream,
        Err(error) => {
            let what_to_do = "point SA_CA_CERT_PATH to the CA of the API server's certificate";
            findings.push(Finding::failure("ca", error.to_string(), what_to_do));
            return None;
        }
    };
    let discovery = ask(&mut upstream, Kind::Discovery, findings);
    let keys = ask(&mut upstream, Kind::Jwks, findings);
    let issuer = discovery.as_deref().and_then(|bytes| match documents::check_discovery(bytes) {
        Ok(discovery) => Some(discovery.issuer().to_owned()),
        Err(refused) => {
            findings.push(refused_document(Kind::Discovery, &refused));
            None
        }
    });
    let keys = keys.as_deref().and_then(|bytes| match documents::check_jwks(bytes) {
        Ok(jwks) => Some(jwks.keys),
        Err(refused) => {
            findings.push(refused_document(Kind::Jwks, &refused));
            None
        }
    });
    findings.extend(issuer.as_deref().map(|issuer| is_expected(issuer, expected.as_deref())));
    if let (Some(issuer), Some(keys), Some(own)) = (&issuer, &keys, upstream.token()) {
        findings.extend(own_token(own.text(), issuer, keys));
    }
    issuer
}

fn is_expected(issuer: &str, expected: Option<&str>) -> Finding {
    match expected {
        Some(expected) if expected != issuer => {
            let says = format!("the API server's issuer is {issuer}, and ISSUER is {expected}");
            Finding::failure("issuer", says, Reason::IssuerMismatch.hint())
        }
        Some(_) => Finding::ok("issuer", format!("{issuer}, which is ISSUER")),
        None => {
            let what_to_do = "set ISSUER to it, so that the gateway says when it changes";
            Finding::warning("issuer", format!("{issuer}, and ISSUER is not set"), what_to_do)
        }
    }
}

/// The document as upstream sends it.
fn ask(upstream: &mut Upstream, kind: Kind, findings: &mut Vec<Finding>) -> Option<Vec<u8>> {
    match upstream.fetch(kind) {
        Ok(fetched) => {
            let says = format!("the API server gives the {} document", kind.name());
            findings.push(Finding::ok("api-server", says));
            Some(fetched.bytes)
        }
        Err(failure) => {
            let says = format!("the {} document: {failure}", kind.name());
            findings.push(Finding::failure("api-server", says, failure.hint()));
            None
        }
    }
}

fn refused_document(kind: Kind, refused: &documents::Refused) -> Finding {
    let says = format!("the {} document is refused: {refused}", kind.name());
    Finding::failure("api-server", says, "kubectl get --raw shows the document")
}

/// The gateway's own token is for the API server: its audience is no news.
fn own_token(text: &str, issuer: &str, keys: &[Value]) -> Vec<Finding> {
    let found = token::findings(text, issuer, keys, SystemTime::now());
    let about_it = found.into_iter().filter(|finding| !finding.says.starts_with("it is for "));
    about_it.map(|finding| Finding { subject: "own-token", ..finding }).collect()
}

/// `/status` of the gateway beside it.
fn status(address: Option<IpAddr>, port: u16) -> Result<Value, Finding> {
    let address = address.filter(|it| !it.is_unspecified());
    let at = SocketAddr::new(address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port);
    let agent = ureq::Agent::config_builder()
        .timeout_global(Some(STATUS))
        .max_redirects(0)
        .proxy(None)
        .build()
        .new_agent();
    let answer = agent.get(format!("http://{at}/status")).call();
    let status = answer.ok().and_then(|mut answer| {
        let body = answer.body_mut().with_config().limit(1 << 20).read_to_vec().ok()?;
        serde_json::from_slice::<Value>(&body).ok()
    });
    status.ok_or_else(|| {
        let what_to_do = "run it in the gateway's pod: kubectl exec deploy/kube-issuer-gateway -- \
                          /kube-issuer-gateway doctor";
        Finding::warning("status", format!("no gateway answers at {at}"), what_to_do)
    })
}

fn list<'a>(status: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    status.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// What the gateway beside it says is wrong.
fn problems(status: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for problem in list(status, "problems") {
        let says = [text(problem, "document"), text(problem, "problem")].join(" ");
        findings.push(Finding::warning("status", says.trim(), text(problem, "hint")));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("status", "the gateway beside it has no problem"));
    }
    findings
}

/// Who can be expected to have each key of `/status` by now.
fn keys_by_now(status: &Value, names: &[&'static str], caching: Caching) -> Vec<Finding> {
    let parties: Vec<_> = chosen(names).collect();
    let of_key = |key| {
        let (kid, since) = (text(key, "kid"), text(key, "first_seen"));
        let first_seen = humantime::parse_rfc3339(since).ok()?;
        let lasts = SystemTime::now().duration_since(first_seen).unwrap_or_default();
        let served = Served { kid, since, lasts };
        Some(new_key::findings(Some(&served), &parties, !names.is_empty(), caching))
    };
    list(status, "keys").filter_map(of_key).flatten().collect()
}

/// From a pod the outside may look different, or not be reachable: name, TCP and TLS are warnings here.
fn as_seen_from_here(finding: Finding) -> Finding {
    let is_way = ["name", "tcp", "tls", "certificate"].contains(&finding.subject);
    if !is_way || finding.level != Level::Failure {
        return finding;
    }
    let says = format!("as seen from this pod: {}", finding.says);
    let what_to_do = format!("if it is so from outside too: {}", finding.what_to_do);
    Finding::warning(finding.subject, says, what_to_do)
}
