//! Whether the server of a URL can be reached: its name, TCP and TLS, each with what to do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::version::{TLS12, TLS13};

use super::arguments::Options;
use super::chain;
use super::finding::{Finding, Level};
use super::visit::{self, Handshake, HandshakeError, Server, Trust};
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
    let is_private = addresses.iter().all(|it| is_internal(&it.ip().to_canonical().to_string()));
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
    if server.is_https && !secure(&mut server, roots, options.ca.is_some(), findings) {
        return None;
    }
    Some(server)
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
    server: &mut Server,
    roots: &RootCertStore,
    has_ca: bool,
    findings: &mut Vec<Finding>,
) -> bool {
    let addresses = server.addresses().to_vec();
    let Some((first, others)) = addresses.split_first() else { return false };
    let of_first = tls(server, *first, roots, has_ca);
    let is_usable = of_first.is_usable;
    server.has_tls_1_2 = of_first.has_tls_1_2;
    findings.extend(of_first.findings);
    for address in others.iter().filter(|_| is_usable) {
        let found = tls(server, *address, roots, has_ca).findings;
        for finding in found.into_iter().filter(|it| it.level != Level::Ok) {
            // What all of them have is said once.
            if !findings.contains(&finding) {
                let says = format!("{address}: {}", finding.says);
                findings.push(Finding { says, ..finding });
            }
        }
    }
    is_usable
}

/// What an address has to say by TLS, and whether a relying party that has all versions can use it.
struct Tls {
    findings: Vec<Finding>,
    is_usable: bool,
    has_tls_1_2: bool,
}

fn tls(server: &Server, address: SocketAddr, roots: &RootCertStore, has_ca: bool) -> Tls {
    let now = SystemTime::now();
    let versions = [("1.3", &TLS13), ("1.2", &TLS12)];
    let tried = versions.map(|(name, version)| (name, server.handshake(address, version)));
    let good = tried.iter().filter(|(_, it)| it.outcome.is_ok());
    let good: Vec<_> = good.map(|(name, _)| *name).collect();
    let is_certificate_refused =
        |it: &Handshake| it.outcome.as_ref().is_err_and(HandshakeError::is_of_certificate);
    let mut findings = Vec::new();
    match *good {
        // Said below.
        _ if tried.iter().any(|(_, it)| is_certificate_refused(it)) => {}
        [] => {
            let errors = tried.iter().find_map(|(_, it)| it.outcome.as_ref().err());
            let cause = errors.map(ToString::to_string).unwrap_or_default();
            let what_to_do = "the port must speak TLS 1.2 or 1.3: see what answers there";
            findings.push(Finding::failure("tls", cause, what_to_do));
        }
        [alone] => {
            let what_to_do =
                "turn on TLS 1.2 and 1.3: there are relying parties that have only one of them";
            findings.push(Finding::warning("tls", format!("{alone} alone"), what_to_do));
        }
        _ => {
            let says = format!("{} with AES-GCM or ChaCha20", good.join(" and "));
            findings.push(Finding::ok("tls", says));
        }
    }
    let of_chain = |it: &Handshake| match &it.outcome {
        Ok(()) => chain::findings(&it.shown, None, roots, has_ca, now),
        Err(error) if error.is_of_certificate() => {
            chain::findings(&it.shown, Some(&error.to_string()), roots, has_ca, now)
        }
        Err(_) => Vec::new(),
    };
    let [new, old] = tried.each_ref().map(|(_, it)| of_chain(it));
    if new.is_empty() {
        findings.extend(old);
    } else if old == new {
        findings.extend(new);
    } else {
        // Servers choose a certificate by what a client offers.
        let of_old = |it: Finding| Finding { says: format!("by TLS 1.2: {}", it.says), ..it };
        findings.extend(new.into_iter().chain(old.into_iter().map(of_old)));
    }
    Tls { findings, is_usable: !good.is_empty(), has_tls_1_2: good.contains(&"1.2") }
}
