//! Pure: the certificates that a server shows.

use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use x509_cert::der::{Decode as _, Encode as _};

use super::finding::Finding;
use crate::upstream::Certificate;

const SUBJECT: &str = "certificate";

/// What is said of a certificate.
struct Shown {
    subject: String,
    issuer: String,
    not_after: SystemTime,
    renewal_due: SystemTime,
    is_self_signed: bool,
    /// The issuer's name as it is in the certificate.
    issuer_der: Vec<u8>,
}

impl Shown {
    fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        let tbs = Certificate::from_der(certificate).ok()?.tbs_certificate;
        let validity = crate::upstream::Validity::of_certificate(
            tbs.validity.not_before.to_unix_duration(),
            tbs.validity.not_after.to_unix_duration(),
        );
        Some(Self {
            subject: tbs.subject.to_string(),
            issuer: tbs.issuer.to_string(),
            not_after: validity.not_after,
            renewal_due: validity.renewal_due,
            is_self_signed: tbs.subject == tbs.issuer,
            issuer_der: tbs.issuer.to_der().ok()?,
        })
    }
}

/// Findings about what the server showed: `refused` is why it is not trusted.
pub(crate) fn findings(
    shown: &[CertificateDer<'_>],
    refused: Option<&str>,
    roots: &RootCertStore,
    has_ca: bool,
    now: SystemTime,
) -> Vec<Finding> {
    let certificates: Vec<_> = shown.iter().filter_map(Shown::parse).collect();
    let (Some(own), Some(last)) = (certificates.first(), certificates.last()) else {
        return refused.map(untrusted).into_iter().collect();
    };
    let Some(refused) = refused else {
        let first = certificates.iter().min_by_key(|it| it.not_after).unwrap_or(own);
        let expires = humantime::format_rfc3339_seconds(first.not_after);
        if own.renewal_due <= now || first.renewal_due <= now {
            let says = format!("that of {} expires soon, at {expires}", first.subject);
            return vec![Finding::warning(SUBJECT, says, "renew it, with the whole chain")];
        }
        let count = certificates.len();
        return vec![Finding::ok(SUBJECT, format!("{count} shown and trusted, until {expires}"))];
    };
    if refused.contains("not valid yet") {
        let what_to_do = "set the clock of this machine, or wait until the certificate is valid";
        return vec![Finding::failure(SUBJECT, "it is not valid yet", what_to_do)];
    }
    if refused.contains("CaUsedAsEndEntity") {
        let what_to_do = "it is self-signed and says that it is a CA (openssl req -x509 makes it so): relying \
                          parties refuse that for a server; use one that a CA has signed";
        return vec![Finding::failure(
            SUBJECT,
            "a CA's certificate is shown as the server's",
            what_to_do,
        )];
    }
    let expired = certificates.iter().find(|it| it.not_after <= now);
    if let Some(expired) = expired.filter(|_| refused.contains("expired")) {
        let at = humantime::format_rfc3339_seconds(expired.not_after);
        let says = format!("the certificate of {} has expired, at {at}", expired.subject);
        return vec![Finding::failure(SUBJECT, says, "renew it")];
    }
    let is_rooted = roots.roots.iter().any(|root| root.subject.as_ref() == inner(&last.issuer_der));
    if !is_rooted && !last.is_self_signed && refused.contains("UnknownIssuer") {
        let whose = if has_ca { "the CAs of --ca" } else { "the public CAs" };
        let says = format!(
            "the chain is incomplete: {} shown, and the issuer of the last, {}, is not among {whose}",
            certificates.len(),
            last.issuer
        );
        let what_to_do = "let the server send the whole chain: the certificate and all intermediate \
                          ones (fullchain.pem); or, if the CA is private, tell relying parties, and \
                          doctor by --ca";
        return vec![Finding::failure(SUBJECT, says, what_to_do)];
    }
    if last.is_self_signed && refused.contains("UnknownIssuer") {
        let says = format!("it comes from {}, which is not trusted", last.issuer);
        let what_to_do = "use a certificate of a public CA, or one that each relying party is given; \
                          doctor takes it by --ca";
        return vec![Finding::failure(SUBJECT, says, what_to_do)];
    }
    vec![untrusted(refused)]
}

fn untrusted(refused: &str) -> Finding {
    let what_to_do =
        "the certificate must name the host and come from a CA that relying parties trust";
    Finding::failure(SUBJECT, format!("it is not trusted: {refused}"), what_to_do)
}

/// Without the header of its sequence, as webpki keeps a name.
fn inner(name: &[u8]) -> &[u8] {
    let header = match name.get(1) {
        Some(0x81) => 3,
        Some(0x82) => 4,
        _ => 2,
    };
    name.get(header..).unwrap_or_default()
}
