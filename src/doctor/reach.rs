//! Whether the server of a URL can be reached: its name, TCP and TLS, each with what to do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::version::{TLS12, TLS13};

use super::arguments::Options;
use super::chain;
use super::finding::Finding;
use super::visit::{self, Server, Trust};
use crate::url::{is_internal, parts};

/// Name, TCP and TLS of a URL's server; `None` when it cannot be asked.
pub(super) fn reach(
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
